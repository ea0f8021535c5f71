"""How templates put values into HTML: everything that isn't ours is escaped."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flows.viewing.comparing import Piece
from flows.viewing.values import Shown
from llms.quantities import quantity

TEMPLATES = Path(__file__).parent / "templates"
LONGEST_BRIEF = 700
"""Characters of a value in a list of rows."""


@cache
def templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=lambda number: f"{number:,}", brief=brief)
    return environment


def pieces_of(text: str, words: str) -> list[Piece]:
    """A text in pieces, of which those are marked that are the words which were looked for."""
    parts = re.split(f"({re.escape(words)})", text, flags=re.IGNORECASE) if words else [text]
    return [Piece(part, bool(place % 2)) for place, part in enumerate(parts) if part]


def brief(value: Shown) -> str:
    """A value as a text of a few lines, for a list of rows."""
    if value.kind in {"fact", "text", "long"}:
        return value.text[:LONGEST_BRIEF]
    if value.kind in {"image", "bytes"}:
        return f"{value.kind}, {value.size:,} bytes"
    if value.kind == "vector":
        return quantity(value.size, "number")
    parts: list[str] = []
    length = 0
    for each in value.items:
        text = brief(each)
        parts.append(f"{each.name}: {text}" if value.kind in {"chat", "fields"} else text)
        length += len(text)
        if length > LONGEST_BRIEF:
            break
    return "\n".join(parts)
