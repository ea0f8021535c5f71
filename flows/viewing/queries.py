"""Which rows are wanted, as the address of a page says it, and what there is to choose from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast, get_args

import numpy as np

from flows.viewing.batches import METADATA, NOTES, Batch, Mask, Row, State, is_number, json_of, label_of
from flows.viewing.errors import ViewError
from flows.viewing.tables import Table

SAMPLED_ROWS = 300
"""Rows whose values tell what a column is chosen by."""
MOST_LABELS = 20
LONGEST_LABEL = 60
MOST_NUMBERS = 20
"""Numbers of a list; one of more is a vector."""
STATES: tuple[State, ...] = ("failed", "fine", "cut_off", "unfinished", "asked")
LEAST, MOST, EQUAL = "least.", "most.", "is."
"""How the names of a page's parameters begin. The rest is the column's name."""


@dataclass(frozen=True)
class Query:
    """Which rows are wanted, and in which order."""

    words: str = ""
    state: State | None = None
    step: str = ""
    """The one whose state is meant; empty for any."""
    least: Mapping[str, float] = field(default_factory=dict[str, float])
    most: Mapping[str, float] = field(default_factory=dict[str, float])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    sort: str = ""
    """A column of numbers; empty for the dataset's own order."""
    descending: bool = False

    @property
    def is_everything(self) -> bool:
        """Whether it's all rows in their order."""
        return replace(self, step="") == Query()

    @property
    def parameters(self) -> dict[str, str]:
        """As the parameters of an address, which `query_in` reads."""
        return {
            **({"q": self.words} if self.words else {}),
            **({"state": self.state} if self.state else {}),
            **({"step": self.step} if self.step else {}),
            **{f"{LEAST}{name}": _said(number) for name, number in self.least.items()},
            **{f"{MOST}{name}": _said(number) for name, number in self.most.items()},
            **{f"{EQUAL}{name}": label for name, label in self.labels.items()},
            **({"sort": f"-{self.sort}" if self.descending else self.sort} if self.sort else {}),
        }

    def columns(self, table: Table, steps: Sequence[str]) -> list[str]:
        """The columns that have to be read to know which rows are wanted."""
        texts = [name for name in table.columns if name != METADATA] if self.words else []
        named = [*self.least, *self.most, *self.labels, *([self.sort] if self.sort else [])]
        notes = [f"{METADATA}.{NOTES[self.state]}{step}" for step in steps] if self.state else []
        return list(dict.fromkeys([*texts, *named, *notes]))

    def mask(self, batch: Batch) -> Mask:
        """The rows of a batch that are wanted."""
        wanted = np.ones(len(batch), np.bool_)
        if self.state is not None:
            wanted &= batch.being(self.state, self.step)
        for column, label in self.labels.items():
            wanted &= batch.having(column, label)
        for column in {*self.least, *self.most}:
            numbers, rows = batch.numbers(column)
            within = (numbers >= self.least.get(column, -math.inf)) & (numbers <= self.most.get(column, math.inf))
            there = np.zeros(len(batch), np.bool_)
            there[rows[within]] = True
            wanted &= there
        if self.words and wanted.any():
            wanted &= batch.saying(self.words)
        return wanted


def query_in(parameters: Iterable[tuple[str, str]]) -> Query:
    """What a page's parameters say. Those that are empty, or no query's, say nothing. Raises ViewError."""
    # A label is what it is, with the spaces around it.
    said = ((name, value if name.startswith(EQUAL) else value.strip()) for name, value in parameters)
    given = {name: value for name, value in said if value}
    state, sort = given.get("state"), given.get("sort", "")
    if state is not None and state not in get_args(State):
        raise ViewError(f"expected one of {', '.join(get_args(State))} as the state, got {state!r}")
    return Query(
        words=given.get("q", ""),
        state=cast("State | None", state) or ("asked" if given.get("step") else None),
        step=given.get("step", ""),
        least={name.removeprefix(LEAST): _number(each, name) for name, each in given.items() if name.startswith(LEAST)},
        most={name.removeprefix(MOST): _number(each, name) for name, each in given.items() if name.startswith(MOST)},
        labels={name.removeprefix(EQUAL): each for name, each in given.items() if name.startswith(EQUAL)},
        sort=sort.removeprefix("-"),
        descending=sort.startswith("-"),
    )


def _said(number: float) -> str:
    """A number with all its digits."""
    return repr(number).removesuffix(".0")


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ViewError(f"expected a number as {name!r}, got {text!r}") from None


@dataclass(frozen=True)
class Choices:
    """What the rows of a table can be chosen by, as its first ones tell."""

    steps: Sequence[str]
    numbers: Sequence[str]
    """Columns of numbers, or of short lists of them."""
    sortable: Sequence[str]
    """Of these the columns with one number in a row."""
    labels: Mapping[str, Sequence[str]]
    """Columns of few short texts to those that were seen."""
    states: Sequence[State]
    """Those that a step notes."""


def choices_of(table: Table) -> Choices:
    """What there is to choose by. Raises ViewError."""
    rows = table.take(range(min(len(table), SAMPLED_ROWS)))
    values = {name: [row.get(name) for row in rows] for name in table.columns if name != METADATA}
    there = {name: [each for each in found if each is not None] for name, found in values.items()}
    sortable = [name for name, found in there.items() if found and all(map(is_number, found))]
    listed = [name for name, found in there.items() if found and all(map(_is_numbers, found))]
    keys = list(dict.fromkeys(key for row in rows for key in notes_of(row)))
    steps = [key.removeprefix("error_") for key in keys if key.startswith("error_")]
    states: list[State] = [state for state in STATES if any(key.startswith(NOTES[state]) for key in keys)]
    labels = {name: sorted(set(found)) for name, each in there.items() if (found := _labels(name, each))}
    return Choices(steps, [*sortable, *listed], sortable, labels, states)


def notes_of(row: Row) -> dict[str, Any]:
    """What steps noted about a row."""
    found = json_of(row.get(METADATA))
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _is_numbers(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    items = cast("list[Any]", value)
    return len(items) <= MOST_NUMBERS and all(each is None or is_number(each) for each in items)


def _labels(name: str, values: Sequence[Any]) -> list[str]:
    """The values as labels; empty where they aren't any."""
    found = [label for each in values if (label := label_of(each)) is not None and len(label) <= LONGEST_LABEL]
    several = set(found)
    few = len(several) <= MOST_LABELS and (2 * len(several) <= len(found) or name == "model_name")
    return found if few and len(found) == len(values) else []
