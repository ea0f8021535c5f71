"""Lines with a checksum in front: a cut or damaged one is told from a whole one, and costs nothing but itself."""

from __future__ import annotations

import zlib
from typing import Any

import orjson


def sealed(body: bytes) -> bytes:
    """A line for `body`, which has no line break in it."""
    return b"%08x %b\n" % (zlib.crc32(body), body)


def unsealed(line: bytes) -> bytes | None:
    """What a line holds; None for one that is cut or damaged."""
    body = line.rstrip(b"\n")[9:]
    # Of nothing the checksum is 00000000.
    return body if body and line[8:9] == b" " and line[:8] == b"%08x" % zlib.crc32(body) else None


def sealed_json(value: Any) -> bytes:
    return sealed(orjson.dumps(value))


def unsealed_json(line: bytes) -> Any:
    """The value of a line; None where it's cut or damaged."""
    body = unsealed(line)
    return None if body is None else orjson.loads(body)
