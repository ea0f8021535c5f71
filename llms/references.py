"""References within JSON schemas, under a name that Prefect doesn't take for one of its blocks.

Prefect looks for a block wherever a parameter, or a default in a flow's schema, holds a `$ref`. In JSON Schema
`$dynamicRef` to a place in the schema means the same as `$ref` does, recursion included:
https://json-schema.org/draft/2020-12/json-schema-core#section-8.2.3.2
"""

from __future__ import annotations

import re
from typing import Any, cast

PLAIN, HIDDEN = "$ref", "$dynamicRef"
BLOCK_ID = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")


def is_block(value: object) -> bool:
    """Whether a value refers to a block of Prefect's: by an id, or by an object with one or with a name."""
    if not isinstance(value, dict) or PLAIN not in value:
        return False
    reference = cast("dict[str, object]", value)[PLAIN]
    if isinstance(reference, str):
        return BLOCK_ID.fullmatch(reference) is not None
    named = set(cast("dict[str, object]", reference)) if isinstance(reference, dict) else set[str]()
    return bool({"block_document_id", "block_document_slug"} & named)


def hidden(value: Any) -> Any:
    """A copy with `$dynamicRef` for `$ref`, wherever it refers to a place in a schema."""
    return _renamed(value, PLAIN, HIDDEN)


def plain(value: Any) -> Any:
    """The copy that `hidden` was made from."""
    return _renamed(value, HIDDEN, PLAIN)


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, list):
        return [_renamed(each, old, new) for each in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    return {
        # With such a text: properties may have that name as well, and blocks are referred to by it.
        (new if name == old and isinstance(each, str) and each.startswith("#") else name): _renamed(each, old, new)
        for name, each in cast("dict[str, Any]", value).items()
    }
