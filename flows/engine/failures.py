"""The rows that failed, as a table for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from flows.engine.graph import Node
from flows.store.shards import ShardRef, read_shard
from flows.store.storage import Storage
from tasks.markdown import inert
from tasks.steps import METADATA, failure_in
from tasks.typing import Row

MOST_ROWS = 500
MOST_BYTES = 900_000
"""Of the table as JSON: Prefect's server and its UI are slow with more."""
TEXT_LENGTH = 120
MESSAGE_LENGTH = 600


def failed_rows(
    storage: Storage, leaves: Sequence[Node], refs: Sequence[Sequence[ShardRef]]
) -> tuple[list[dict[str, Any]], int]:
    """The failed rows of datasets as a table, as far as that is long, and how many there are.

    Only the shards with failed rows are read, one at a time.

    Args:
        leaves: the steps whose rows are the datasets.
        refs: the shards of each.
    """
    total = sum(ref.failed for shards in refs for ref in shards)
    table: list[dict[str, Any]] = []
    size = 0
    for leaf, shards in zip(leaves, refs, strict=True):
        of = {"dataset": leaf.name} if len(leaves) > 1 else {}
        for place, row in _failed(storage, shards):
            line = {**of, **_line(leaf, place, row)}
            size += len(json.dumps(line))
            if len(table) == MOST_ROWS or size > MOST_BYTES:
                return table, total
            table.append(line)
    return table, total


def _failed(storage: Storage, refs: Sequence[ShardRef]) -> Iterator[tuple[int, Row]]:
    """The failed rows of shards, each with its place in all of them."""
    start = 0
    for ref in refs:
        for place, row in enumerate(read_shard(storage, ref) if ref.failed else ()):
            if failure_in(row) is not None:
                yield start + place, row
        start += ref.rows


def _line(leaf: Node, place: int, row: Row) -> dict[str, Any]:
    failure = failure_in(row) or {}
    step = next((node.step for node in leaf.ancestry() if node.name == failure["step"]), None)
    read = [row.get(name) for name in (step.required_columns() if step else [])]
    # A Task that makes its rows reads no column.
    prompt: Any = row[METADATA].get(f"raw_input_{failure['step']}")
    rest = [value for name, value in row.items() if name != METADATA]
    # The UI shows the first columns, as many as there is room for.
    return {
        "row": place,
        "step": failure["step"],
        "message": _short(failure["message"], MESSAGE_LENGTH),
        "text": _short(_first_text([*read, prompt, *rest]), TEXT_LENGTH),
        "error": failure["type"],
    }


def _first_text(values: Sequence[Any]) -> str:
    """The text of the first of `values` that has any."""
    return next((text for text in map(_text_in, values) if text), "")


def _text_in(value: Any) -> str:
    """A text, or the last one of a list or of a message: in a chat that is what was asked."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        message = cast("Mapping[str, Any]", value)
        return _text_in(message.get("content") or message.get("text"))
    return _text_in(cast("Sequence[Any]", value)[-1]) if isinstance(value, Sequence) and value else ""


def _short(text: str, length: int) -> str:
    # PostgreSQL keeps no NUL in JSON.
    whole = " ".join(inert(text.replace("\0", ""), len(text)).split())
    return whole if len(whole) <= length else f"{whole[: length - 1]}…"
