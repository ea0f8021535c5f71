"""Digests: projected to JSON and hashed, never pickled, so that they are the same in every process.

What JSON doesn't tell apart is told apart here: a number that is none (NaN) from None, a date from its text, bytes and
sets from what they look like. The keys of dicts are as JSON has them: 1 is "1" there.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import orjson

from tasks.arrow import holds_no_number

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME


def digest(value: Any) -> str:
    """A digest of `value`, 32 hexadecimal digits. Raises TypeError for what has no JSON form."""
    return hashlib.blake2b(_text_of(value), digest_size=16).hexdigest()


class Summary(NamedTuple):
    """What is known of rows once all of them were gone through."""

    digest: str
    plain: bool
    """Whether JSON has all their numbers: there's no NaN, no infinity, and no whole number of more than 64 bits."""


def digest_of_rows(rows: list[dict[str, Any]]) -> str:
    """A digest of rows: their values and their order, not the order of their columns.

    Raises:
        TypeError: a value can't be kept in a row. The message says which.
    """
    return summary_of_rows(rows).digest


def summary_of_rows(rows: list[dict[str, Any]]) -> Summary:
    """`digest_of_rows`, and what it came by. Raises TypeError as well."""
    whole = hashlib.blake2b(digest_size=16)
    plain = True
    for place, row in enumerate(rows):
        try:
            text, of_row = _text_and_plainness(row)
        except TypeError as error:
            raise TypeError(f"row {place}{_column_at_fault(row)} can't be kept: {error.__cause__ or error}") from None
        whole.update(text)
        whole.update(b"\n")
        plain = plain and of_row
    return Summary(whole.hexdigest(), plain)


def _text_of(value: Any) -> bytes:
    return _text_and_plainness(value)[0]


def _text_and_plainness(value: Any) -> tuple[bytes, bool]:
    try:
        text = orjson.dumps(value, default=_json_form, option=_OPTIONS)
    except TypeError:
        # There may be a number in it that is too long.
        return orjson.dumps(_told_apart(value), default=_json_form, option=_OPTIONS), False
    # It writes numbers that are none as null.
    if b"null" in text and holds_no_number(value):
        return orjson.dumps(_told_apart(value), default=_json_form, option=_OPTIONS), False
    return text, True


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


def _told_apart(value: Any) -> Any:
    """The same, with a name for each NaN and infinity, and every digit of long numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else orjson.Fragment(f"{float(value)!r}".encode())
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else orjson.Fragment(str(value).encode())
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
