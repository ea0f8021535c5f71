"""What a row holds in a column, checked."""

from __future__ import annotations

from typing import Any, cast

from llms.parameters import short
from tasks.typing import Row


def text_in(row: Row, column: str) -> str:
    """The text in a column. Raises ValueError where there's none."""
    value = row.get(column)
    if isinstance(value, str):
        return value
    hint = "; a row per item is made by `ExpandColumns`" if isinstance(value, list) else ""
    raise ValueError(f"{column}: expected a text, got {short(row.get(column))}{hint}")


def texts_in(row: Row, column: str, count: int | None = None) -> list[str]:
    """The list of texts in a column: `count` of them, or one and more. Raises ValueError where there's none."""
    value: Any = row.get(column)
    texts = cast("list[Any]", value) if isinstance(value, list) else []
    if not texts or not all(isinstance(text, str) for text in texts) or (count is not None and len(texts) != count):
        wanted = "a list of texts" if count is None else f"a list of {count} texts"
        raise ValueError(f"{column}: expected {wanted}, got {short(row.get(column))}")
    return texts
