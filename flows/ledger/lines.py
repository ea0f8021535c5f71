"""Lines with a checksum in front: a cut or damaged one is told from a whole one, and costs nothing but itself."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import orjson


def sealed(body: bytes) -> bytes:
    """A line for `body`, which has no line break in it."""
    return b"%08x %b\n" % (zlib.crc32(body), body)


def unsealed(line: bytes) -> bytes | None:
    """What a line holds; None for one that is cut or damaged."""
    body = line.rstrip(b"\n")[9:]
    # Of nothing the checksum is 00000000.
    return body if body and line[8:9] == b" " and line[:8] == b"%08x" % zlib.crc32(body) else None


def json_bytes(value: Any, default: Callable[[Any], Any] | None = None, option: int | None = None) -> bytes:
    """`value` as JSON. Whole numbers beyond 64 bits, for which orjson has no place, become decimals, or texts."""
    try:
        return orjson.dumps(value, default=default, option=option)
    except TypeError:
        return orjson.dumps(_with_room(value), default=default, option=option)


def _with_room(value: Any) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            return float(value)
        except OverflowError:
            return str(value)
    if isinstance(value, Mapping):
        return {key: _with_room(each) for key, each in cast("Mapping[str, Any]", value).items()}
    return [_with_room(each) for each in cast("list[Any]", value)] if isinstance(value, list | tuple) else value


def sealed_json(value: Any) -> bytes:
    return sealed(json_bytes(value))


def unsealed_json(line: bytes) -> Any:
    """The value of a line; None where it's cut or damaged."""
    body = unsealed(line)
    return None if body is None else orjson.loads(body)
