"""Two datasets side by side: which rows are of the same prompts, and what changed in them, word by word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from flows.viewing.batches import METADATA
from flows.viewing.errors import ViewError
from flows.viewing.opening import Dataset
from flows.viewing.scans import Scan
from flows.viewing.tables import Places, Table

PROMPTS = (
    *("messages", "conversation", "prompt", "instruction", "system_prompt", "question", "problem", "query", "topic"),
    *("input", "anchor", "text"),
)
"""The columns that prompts have by custom, for datasets of which nobody noted what came with their source."""
NOT_COMPARED = frozenset({METADATA, "model_name"})
"""Columns whose change makes no other row of it."""
WORDS = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")
"""A word or a sign, with the space after it."""
WHOLE = re.compile(rb"\d(\.0(?!\d)|e\d)")
"""What JSON has in it where it has a whole number that is written as a floating-point one, if not in a text."""
MOST_STEPS = 1_000_000
"""Of a comparison word by word, in pairs of words. What would take more is compared line by line."""

Digests: TypeAlias = NDArray[np.int64]


def prompt_columns(one: Dataset, other: Dataset, on: Sequence[str] = ()) -> list[str]:
    """The columns by which rows of two datasets are of the same prompt.

    Args:
        on: those that were asked for. Without any: those that both have and no step wrote, or that prompts have by
            custom.

    Raises:
        ViewError: a dataset lacks one of them, or there are none.
    """
    shared = [name for name in one.table.columns if name in other.table.columns and name != METADATA]
    missing = [name for name in on if name not in shared]
    if missing:
        raise ViewError(f"expected columns that both datasets have, got {missing[0]!r}; both have {', '.join(shared)}")
    noted = [name for name in shared if name in one.prompts and name in (other.prompts or one.prompts)]
    customary = [name for name in shared if name in PROMPTS]
    found = list(on) or noted or customary
    if not found:
        raise ViewError(
            "which columns are the prompts of these rows isn't known; name one or more with --on."
            f" Both have {', '.join(shared) or 'no column'}"
        )
    return found


class Comparison(Scan):
    """Which rows of two tables are of the same prompts. Those of one prompt are paired in their order."""

    def __init__(self, one: Table, other: Table, on: Sequence[str]) -> None:
        super().__init__()
        self.rows = len(one) + len(other)
        self.on = on
        self.compared = [
            name for name in one.columns if name in other.columns and name not in on and name not in NOT_COMPARED
        ]
        self._tables = (one, other)
        self.equal: NDArray[np.int64] = np.zeros((0, 2), np.int64)
        """The places of the rows in both tables, of those whose compared columns are the same."""
        self.changed = self.equal
        self.only_in_one: Places = np.zeros(0, np.int64)
        self.only_in_other = self.only_in_one

    def run(self) -> None:
        digests: list[tuple[Digests, Digests]] = []
        for table in self._tables:
            found = self._digests(table)
            if found is None:
                return
            digests.append(found)
        (keys, values), (other_keys, other_values) = digests
        _, places, other_places = np.intersect1d(_told_apart(keys), _told_apart(other_keys), return_indices=True)
        pairs = np.column_stack([places, other_places]).astype(np.int64)
        pairs = pairs[np.argsort(pairs[:, 0])]
        same = values[pairs[:, 0]] == other_values[pairs[:, 1]]
        self.equal, self.changed = pairs[same], pairs[~same]
        self.only_in_one = np.setdiff1d(np.arange(len(keys)), places)
        self.only_in_other = np.setdiff1d(np.arange(len(other_keys)), other_places)

    def _digests(self, table: Table) -> tuple[Digests, Digests] | None:
        """Of each row one of its prompt, and one of what is compared; None where that was given up."""
        keys, values = np.zeros(len(table), np.int64), np.zeros(len(table), np.int64)
        for batch in table.scan([*self.on, *self.compared]):
            end = batch.start + len(batch)
            for columns, digests in ((self.on, keys), (self.compared, values)):
                cells = [batch.values(name) for name in columns]
                rows = zip(*cells, strict=True) if cells else [()] * len(batch)
                digests[batch.start : end] = [hash(_json(row)) for row in rows]
            if not self.went_on(len(batch)):
                return None
        return keys, values


def is_same(one: Any, other: Any) -> bool:
    """Whether two values count as the same: 4 and 4.0 do, 1 and true don't."""
    return _json(one) == _json(other)


def _json(value: Any) -> bytes:
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS
    said = orjson.dumps(value, default=str, option=options)
    return orjson.dumps(_in_whole(value), default=str, option=options) if WHOLE.search(said) else said


def _in_whole(value: Any) -> Any:
    """A value whose whole numbers are all of one type."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**63 else value
    if isinstance(value, list | tuple):
        return [_in_whole(each) for each in cast("Sequence[Any]", value)]
    if isinstance(value, Mapping):
        return {key: _in_whole(each) for key, each in cast("Mapping[Any, Any]", value).items()}
    return value


def _told_apart(keys: Digests) -> Digests:
    """The keys, those of equal ones but the first changed, each in the same way in every dataset."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.concatenate([np.ones(min(1, len(keys)), np.bool_), ordered[1:] != ordered[:-1]])
    begins = np.flatnonzero(first)
    number = np.arange(len(keys)) - begins[np.cumsum(first) - 1] if len(keys) else np.zeros(0, np.int64)
    apart = np.empty_like(keys)
    # Spread over all bits, by the golden ratio: sums of two digests are as unlikely to meet as digests are.
    apart[order] = ordered + number * np.int64(-7046029254386353131)
    return apart


class Piece(NamedTuple):
    """A part of a text."""

    text: str
    marked: bool


@dataclass(frozen=True)
class Difference:
    """A column of two rows, in pieces."""

    column: str
    one: Sequence[Piece]
    other: Sequence[Piece]

    @property
    def length(self) -> int:
        """Of the longer side, in characters."""
        return max(sum(len(piece.text) for piece in side) for side in (self.one, self.other))


def difference(column: str, one: Any, other: Any) -> Difference:
    """What changed of a value, word by word. What is no text is compared as JSON."""
    texts = [each if isinstance(each, str) else "" if each is None else _readable(each) for each in (one, other)]
    parts = [WORDS.findall(text) for text in texts]
    if len(parts[0]) * len(parts[1]) > MOST_STEPS:
        parts = [text.splitlines(keepends=True) for text in texts]
    sides: tuple[list[Piece], list[Piece]] = ([], [])
    matcher = difflib.SequenceMatcher(None, *parts, autojunk=len(parts[0]) * len(parts[1]) > MOST_STEPS)
    for kind, start, end, other_start, other_end in matcher.get_opcodes():
        for side, words in zip(sides, (parts[0][start:end], parts[1][other_start:other_end]), strict=True):
            if words:
                side.append(Piece("".join(words), kind != "equal"))
    return Difference(column, *sides)


def _readable(value: Any) -> str:
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_INDENT_2
    return orjson.dumps(value, default=str, option=options).decode()
