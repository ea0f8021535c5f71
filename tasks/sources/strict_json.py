"""JSON read without losing anything of it in silence."""

from __future__ import annotations

import json
import math
import re
from typing import Any, cast

import orjson

from tasks.arrow import DEEPEST, unkeepable


class UnusableError(ValueError):
    """JSON that a row can't hold as it is."""


ODD = frozenset({dict, list, float})
"""What the values of a row have to be looked at for."""
SPACED_KEY = re.compile(rb'"[ \t\r\n]+:')
"""A key that a count of `":` passes over."""
BETWEEN_ITEMS = re.compile(r"[\s,]*(?!\])")
LONG = 2**63
"""The least whole number that a quick reader may have made a floating-point one of."""


def strict_json(text: bytes) -> Any:
    """What JSON stands for, with every digit of its whole numbers.

    Raises:
        UnusableError: an object has a key twice, a number is larger than any, or a text has half of a character:
            something would be lost, or couldn't be kept in a row.
        ValueError: it's no JSON.
    """
    return read_strictly(text)[0]


def read_strictly(text: bytes) -> tuple[Any, bool]:
    """The same, and whether a reader that isn't strict would have read it as well."""
    try:
        value = orjson.loads(text)
        if _keys_in(value) == text.count(b'":') and not SPACED_KEY.search(text):
            return value, True
    except orjson.JSONDecodeError:
        pass
    # Seldom: Python's own reader takes several times as long, and tells what stands there.
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_float=_number)
    except RecursionError:
        raise UnusableError(f"expected at most {DEEPEST} levels of lists and objects, got more") from None
    if problem := unkeepable(value):
        raise UnusableError(problem)
    return value, False


def exact_json(text: str) -> Any:
    """What JSON stands for, with every digit of its whole numbers. Raises ValueError where it's no JSON."""
    try:
        value = orjson.loads(text)
        if _keys_in([value]) >= 0:
            return value
    except orjson.JSONDecodeError:
        pass
    return json.loads(text)


def line_at_fault(text: bytes) -> int:
    """Of a list of which `strict_json` said what is wrong with it: the line on which the first such item begins."""
    whole = text.decode(errors="surrogatepass")
    decoder = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number)
    place = 1
    while match := BETWEEN_ITEMS.match(whole, place):
        start = match.end()
        try:
            value, place = decoder.raw_decode(whole, start)
        except (ValueError, RecursionError):
            break
        if unkeepable(value):
            break
    else:
        start = place
    return whole.count("\n", 0, start) + 1


def _keys_in(value: Any) -> int:
    """The number of keys in it; a negative one where it may not be what stood there: a long number, or too deep."""
    if isinstance(value, dict) and ODD.isdisjoint(map(type, cast("dict[str, Any]", value).values())):
        return len(cast("dict[str, Any]", value))
    count = 0
    level: list[Any] = [[value]]
    for _ in range(DEEPEST):
        following: list[Any] = []
        for each in level:
            inside: Any = each
            if isinstance(each, dict):
                fields = cast("dict[str, Any]", each)
                count += len(fields)
                inside = fields.values()
            kinds = set(map(type, inside))
            if float in kinds:
                numbers = inside if len(kinds) == 1 else [item for item in inside if type(item) is float]
                if not -LONG < min(numbers) <= max(numbers) < LONG:
                    return -1
            if dict in kinds or list in kinds:
                following += [item for item in inside if type(item) is dict or type(item) is list]
        if not following:
            return count
        level = following
    return -1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UnusableError(f"an object has the key {twice!r} twice: one of its values would be lost")
    return found


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise UnusableError(f"the number {text} is larger than any that can be kept")
    return number
