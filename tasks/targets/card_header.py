"""The header of a dataset's card, in YAML."""

# datasets, fsspec and pyarrow have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import re
from typing import Any, cast

import yaml

CARD = "README.md"

TAG = "stillflow"


def header_and_text(card: str) -> tuple[dict[str, Any], str]:
    """The metadata of a card, and the rest of it."""
    match = re.match(r"\s*---[ \t]*\n(.*?)\n---[ \t]*(?:\n|$)", card, re.DOTALL)
    if match is None:
        return {}, card
    try:
        header: Any = yaml.safe_load(match[1])
    except yaml.YAMLError:
        return {}, card
    return (cast("dict[str, Any]", header), card[match.end() :]) if isinstance(header, dict) else ({}, card)


def with_header(header: dict[str, Any], text: str) -> str:
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n{text}"


def tagged(card: str, **metadata: Any) -> str:
    """The card with further metadata, and with the tag by which a folder is known as ours."""
    header, text = header_and_text(card)
    tags = list(dict.fromkeys([*(header.get("tags") or []), TAG]))
    return with_header({**header, "tags": tags, **metadata}, text)


def merged_cards(there: str, card: str) -> str:
    """`card` with the metadata of the one that is there, where it has none of that name itself."""
    old, _ = header_and_text(there)
    new, text = header_and_text(card)
    tags = list(dict.fromkeys([*(new.get("tags") or []), *(old.get("tags") or [])]))
    return with_header({**old, **new, "tags": tags}, text)
