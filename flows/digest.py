"""Digests: projected to JSON and hashed, never pickled, so that they are the same in every process.

What JSON doesn't tell apart is told apart here: a number that is none (NaN) from None, a date from its text, bytes and
sets from what they look like. The keys of dicts are as JSON has them: 1 is "1" there.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

import orjson

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME


def digest(value: Any) -> str:
    """A digest of `value`, 32 hexadecimal digits. Raises TypeError for what has no JSON form."""
    return hashlib.blake2b(_text_of(value), digest_size=16).hexdigest()


def digest_of_rows(rows: list[dict[str, Any]]) -> str:
    """A digest of rows: their values and their order, not the order of their columns.

    Raises:
        TypeError: a value has no JSON form. The message says which.
    """
    whole = hashlib.blake2b(digest_size=16)
    for place, row in enumerate(rows):
        try:
            whole.update(_text_of(row))
        except TypeError as error:
            raise TypeError(f"row {place}{_column_at_fault(row)} can't be kept: {error.__cause__ or error}") from None
        whole.update(b"\n")
    return whole.hexdigest()


def _text_of(value: Any) -> bytes:
    text = orjson.dumps(value, default=_json_form, option=_OPTIONS)
    # It writes numbers that are none as null.
    if b"null" in text and _holds_no_number(value):
        text = orjson.dumps(_told_apart(value), default=_json_form, option=_OPTIONS)
    return text


def _json_form(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return _tagged("bytes", base64.b64encode(value).decode())
    if isinstance(value, set | frozenset):
        items = b",".join(sorted(map(_text_of, cast("set[Any]", value))))
        return orjson.Fragment(b"set[" + items + b"]")
    if hasattr(value, "isoformat"):
        return _tagged(type(value).__name__, value.isoformat())
    if hasattr(value, "item"):
        return value.item()
    if type(value).__name__ in {"Decimal", "timedelta"}:
        return _tagged(type(value).__name__, str(value))
    raise TypeError(f"a value of type {type(value).__name__} can't be kept in a row: {value!r:.100}")


def _tagged(kind: str, text: str) -> orjson.Fragment:
    """No JSON on purpose: nothing that is JSON looks like it."""
    return orjson.Fragment(kind.encode() + orjson.dumps(text))


def _holds_no_number(value: Any) -> bool:
    """Whether there's a NaN or an infinity in it."""
    if value is None or isinstance(value, str | int):
        return False
    if isinstance(value, dict):
        return any(map(_holds_no_number, cast("dict[Any, Any]", value).values()))
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, list | tuple):
        return _list_holds_no_number(cast("list[Any]", value))
    return hasattr(value, "dtype") and _holds_no_number(value.tolist())


def _list_holds_no_number(values: list[Any] | tuple[Any, ...]) -> bool:
    if values and isinstance(values[0], float):
        try:
            # A vector: its sum is a number if all of them are, and small ones.
            if math.isfinite(sum(values)):
                return False
        except TypeError:
            pass
    return any(map(_holds_no_number, values))


def _told_apart(value: Any) -> Any:
    """The same, with a name for each NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else orjson.Fragment(f"{float(value)!r}".encode())
    if isinstance(value, dict):
        return {name: _told_apart(each) for name, each in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_told_apart(each) for each in cast("Iterable[Any]", value)]
    return _told_apart(value.tolist()) if hasattr(value, "dtype") else value


def _column_at_fault(row: Mapping[str, Any]) -> str:
    for name, value in row.items():
        try:
            _text_of({name: value})
        except TypeError:
            return f", column {name!r}"
    return ""
