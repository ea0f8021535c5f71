"""For providers that answer in JSON and know no schemas: the schema goes into the chat, as words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

from llms.typing import JSONSchema

# The word JSON has to stand in a chat of this mode.
WISH = "Answer with one JSON object and nothing else. It has to fit this JSON schema:"


def in_json_mode(body: dict[str, Any], schema: JSONSchema) -> dict[str, Any]:
    """The body of a chat whose answer is to fit `schema`. The provider holds it to JSON alone."""
    chat = cast("Sequence[Mapping[str, Any]]", body["messages"])
    wish = f"{WISH}\n{orjson.dumps(schema).decode()}"
    if chat and chat[0]["role"] == "system" and isinstance(said := chat[0].get("content"), str):
        messages = [{**chat[0], "content": f"{said}\n\n{wish}"}, *chat[1:]]
    else:
        messages = [{"role": "system", "content": wish}, *chat]
    return {**body, "messages": messages, "response_format": {"type": "json_object"}}
