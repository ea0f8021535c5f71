"""Digests: projected to JSON and hashed, never pickled, so that they are the same in every process."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, cast

import orjson

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def digest(value: Any) -> str:
    """A digest of `value`, 32 hexadecimal digits. Raises TypeError for what has no JSON form."""
    return hashlib.blake2b(orjson.dumps(value, default=_json_form, option=_OPTIONS), digest_size=16).hexdigest()


def digest_of_rows(rows: list[dict[str, Any]]) -> str:
    """A digest of rows: their values and their order, not the order of their columns."""
    whole = hashlib.blake2b(digest_size=16)
    for row in rows:
        whole.update(orjson.dumps(row, default=_json_form, option=_OPTIONS))
        whole.update(b"\n")
    return whole.hexdigest()


def _json_form(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, set | frozenset):
        return sorted(cast("set[Any]", value))
    if hasattr(value, "item"):
        return value.item()
    if type(value).__name__ in {"Decimal", "timedelta"}:
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__} can't be kept in a row: {value!r:.100}")
