"""What a chat in OpenAI's form holds, for APIs with another form for it: texts, images, calls and their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from llms.errors import BadRequestError
from llms.parameters import short
from llms.reading import json_in, list_in, object_in


class Image(NamedTuple):
    """An image of a message: where it is, or what it is."""

    url: str
    kind: str = ""
    """Such as `image/png`. Empty: it's at `url`."""
    data: str = ""
    """In base64."""


class Call(NamedTuple):
    """A call of a tool."""

    id: str
    name: str
    arguments: dict[str, Any]


SYSTEM_ROLES = frozenset({"system", "developer"})


def parts_of(message: Mapping[str, Any], service: str) -> list[str | Image]:
    """What a message says: texts and images, in their order.

    Args:
        message: in OpenAI's form.
        service: who takes it, for the error's message.

    Raises:
        BadRequestError: it holds something else.
    """
    content: Any = message.get("content")
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [content]
    return [_part(object_in(part), service) for part in list_in(content)]


def _part(part: Mapping[str, Any], service: str) -> str | Image:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
            return _image(url)
        case _:
            raise BadRequestError(f"{service} takes text and images here, got {short(part)}")


def _image(url: str) -> Image:
    if not url.startswith("data:"):
        return Image(url)
    kind, comma, data = url.removeprefix("data:").partition(";base64,")
    if not comma:
        raise BadRequestError(f"an image's data: address has to be in base64, got {short(url)}")
    return Image(url, kind, data)


def text_of(message: Mapping[str, Any], service: str) -> str:
    """The text of a message. Raises BadRequestError where it holds something else."""
    parts = parts_of(message, service)
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise BadRequestError(f"{service} takes text alone here, got an image in a message of the {message['role']}")
    return "\n\n".join(texts)


def calls_of(message: Mapping[str, Any]) -> list[Call]:
    """The calls of tools in a message. Raises BadRequestError for what is none."""
    return [_call(object_in(call)) for call in list_in(message.get("tool_calls"))]


def _call(given: Mapping[str, Any]) -> Call:
    function = object_in(given.get("function"))
    name, raw = function.get("name"), function.get("arguments")
    try:
        arguments: object = json_in(raw.encode()) if isinstance(raw, str) and raw.strip() else raw or {}
    except ValueError:
        arguments = None
    if not isinstance(name, str) or not name or (arguments != {} and not object_in(arguments)):
        raise BadRequestError(
            f"expected a tool call with a function's name and a JSON object as arguments, got {short(given)}"
        )
    return Call(str(given.get("id") or ""), name, object_in(arguments))


def names_of_calls(chat: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The names of the functions that a chat's tool calls are of, by the calls' ids."""
    return {call.id: call.name for message in chat for call in calls_of(message)}


def as_call(name: object, arguments: object, call_id: object = "") -> dict[str, Any]:
    """A call of a tool in OpenAI's form."""
    said = arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}).decode()
    return {"id": call_id or "", "type": "function", "function": {"name": name, "arguments": said}}


def refuse_names(chat: Sequence[Mapping[str, Any]], service: str) -> None:
    """Raises BadRequestError for a message with a name, which the API has no place for."""
    for message in chat:
        if message.get("name") and message.get("role") != "tool":
            raise BadRequestError(
                f"{service} has no place for names, got one of the {message.get('role')} named {message['name']!r}"
            )
