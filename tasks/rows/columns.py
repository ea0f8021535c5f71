"""Steps that keep, expand, group and join columns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Self, TypeVar, cast

from pydantic import Field, model_validator

from llms.errors import failure_of
from llms.parameters import short
from tasks.steps import METADATA, Step, failure_in
from tasks.typing import Columns, Row, StepInput, StepOutput

T = TypeVar("T")

MODEL_NAME = "model_name"
MODEL_NAMES = "model_names"
"""In the metadata of a row that was joined: the models of all the rows that it was made from."""


class KeepColumns(Step):
    """Keeps the columns named, in that order, and drops the others.

    Input columns:
        those of `columns`.

    Output columns:
        those of `columns`, and `distilabel_metadata` where rows have it, unless `keep_metadata` is off.

    Example:
        >>> from tasks import KeepColumns
        >>> step = KeepColumns(columns=["generation"])
        >>> next(step.process([{"instruction": "How high is K2?", "generation": "8,611 m."}]))
        [{'generation': '8,611 m.'}]
    """

    takes_failed_rows = True

    columns: Annotated[list[str], Field(min_length=1, title="Columns", description="The columns to keep.")]
    keep_metadata: Annotated[
        bool,
        Field(title="Keep metadata", description="Keep `distilabel_metadata` too: it says which rows failed, and why."),
    ] = True

    @property
    def inputs(self) -> Columns:
        return list(self.columns)

    @property
    def outputs(self) -> Columns:
        return list(self.columns)

    def added_columns(self, available: frozenset[str]) -> frozenset[str]:
        names = {**self.input_mappings, **self.output_mappings}
        metadata = {METADATA} & available if self.keep_metadata else set[str]()
        return frozenset(names.get(column, column) for column in self.columns) | metadata

    def process(self, inputs: StepInput) -> StepOutput:
        yield [self._kept(row) for row in inputs]

    def _kept(self, row: Row) -> Row:
        kept = {column: value_in(row, column) for column in self.columns}
        return {**kept, METADATA: row[METADATA]} if self.keep_metadata and METADATA in row else kept


class ExpandColumns(Step):
    """A row per item of the columns that hold lists. The other columns are repeated.

    Lists that belong together are expanded together: give all their columns. A row whose columns are
    all None (it failed before) stays one row; one with empty lists becomes no row, unless it failed before.
    A row whose lists have different lengths, or aren't lists, stays one row, failed.

    Input columns:
        those of `columns`.

    Output columns:
        the same, or under the new names that `columns` gives; each holds one item.

    Example:
        >>> from tasks import ExpandColumns
        >>> step = ExpandColumns(columns={"instructions": "instruction"})
        >>> next(step.process([{"topic": "tides", "instructions": ["Explain them.", "Predict them."]}]))
        [{'topic': 'tides', 'instruction': 'Explain them.'}, {'topic': 'tides', 'instruction': 'Predict them.'}]
    """

    fails_rows = True
    takes_failed_rows = True
    moves_columns = True

    columns: Annotated[
        list[str] | dict[str, str],
        Field(min_length=1, title="Columns", description="The columns to expand; as a dict, to their new names."),
    ]
    encoded: Annotated[
        bool | list[str], Field(title="Encoded", description="Whether the lists are JSON text; or which columns are.")
    ] = False
    split_statistics: Annotated[
        bool,
        Field(
            title="Split statistics",
            description="Share the token counts in `distilabel_metadata` out among the new rows: their sum stays.",
        ),
    ] = False

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        check_different("columns", self._new_names.values())
        return self

    @model_validator(mode="after")
    def _check_encoded(self) -> Self:
        unknown = [] if isinstance(self.encoded, bool) else [name for name in self.encoded if name not in self.columns]
        if unknown:
            raise ValueError(f"encoded: {unknown!r} aren't among the columns to expand, {list(self.columns)!r}")
        return self

    @property
    def inputs(self) -> Columns:
        return list(self.columns)

    @property
    def outputs(self) -> Columns:
        return list(self._new_names.values())

    def added_columns(self, available: frozenset[str]) -> frozenset[str]:
        return without(self, available, self.columns) | super().added_columns(frozenset())

    def process(self, inputs: StepInput) -> StepOutput:
        yield [expanded for row in inputs for expanded in self._expanded(row)]

    @property
    def _new_names(self) -> dict[str, str]:
        return dict(self.columns) if isinstance(self.columns, dict) else {name: name for name in self.columns}

    def _expanded(self, row: Row) -> list[Row]:
        values = {name: value_in(row, name) for name in self.columns}
        rest = {name: value for name, value in row.items() if name not in values}
        empty = dict.fromkeys(self._new_names.values())
        try:
            lists = {name: self._items(name, value) for name, value in values.items() if value is not None}
            if len({len(items) for items in lists.values()}) > 1:
                lengths = ", ".join(f"{name!r}: {len(items)}" for name, items in lists.items())
                raise ValueError(f"columns that are expanded together must be equally long, got {lengths}")
        except ValueError as error:
            return [with_failure({**rest, **empty}, self.name, error)]
        if not lists or (failure_in(row) is not None and not any(lists.values())):
            return [{**rest, **empty}]
        new_rows: list[Row] = []
        count = len(next(iter(lists.values())))
        for place in range(count):
            items = {self._new_names[name]: items[place] for name, items in lists.items()}
            new_rows.append({**self._shared(rest, place, count), **empty, **items})
        return new_rows

    def _items(self, name: str, value: Any) -> list[Any]:
        encoded = self.encoded if isinstance(self.encoded, bool) else name in self.encoded
        if encoded and isinstance(value, str):
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                raise ValueError(f"{name}: expected a list as JSON ({error}), got {short(value)}") from None
        if isinstance(value, list | tuple):
            return list(cast("Sequence[Any]", value))
        hint = " (a list as JSON text needs `encoded`)" if isinstance(value, str) and not encoded else ""
        raise ValueError(f"{name}: expected a list, got {short(value)}{hint}")

    def _shared(self, row: Row, place: int, count: int) -> Row:
        if not self.split_statistics or not row.get(METADATA):
            return row
        metadata = cast("Row", row[METADATA])
        counts = {key: share(value, place, count) for key, value in metadata.items() if key.startswith("statistics_")}
        return {**row, METADATA: {**metadata, **counts}}


class GroupColumns(Step):
    """Joins the rows of several steps, row by row, with columns of the same name as lists.

    Row `i` of every step before becomes one row, with the other columns of all, as by `CombineOutputs`.
    In `distilabel_metadata` the keys of all are side by side; where equal keys have different
    values, these are a list.

    Input columns:
        those of `columns`, in the rows of every step before. Where one lacks a column, the list holds None.

    Output columns:
        those of `output_columns`, or `grouped_<column>`: lists, in the order of the steps.

    Raises:
        ValueError: the steps gave different numbers of rows, or different values of another column.

    Example:
        >>> from tasks import GroupColumns
        >>> step = GroupColumns(columns=["generation"], output_columns=["generations"])
        >>> next(step.process([{"topic": "tides", "generation": "Ebb"}], [{"topic": "tides", "generation": "Flow"}]))
        [{'topic': 'tides', 'generations': ['Ebb', 'Flow']}]
    """

    takes_failed_rows = True
    joins_rows = True
    moves_columns = True

    columns: Annotated[list[str], Field(min_length=1, title="Columns", description="The columns to group.")]
    output_columns: Annotated[
        list[str] | None,
        Field(title="Names", description="Of the grouped columns. Empty: `grouped_` and the old name."),
    ] = None

    @model_validator(mode="after")
    def _check_output_columns(self) -> Self:
        if self.output_columns is not None and len(self.output_columns) != len(self.columns):
            raise ValueError(
                f"output_columns: expected a name for each of {self.columns!r}, got {self.output_columns!r}"
            )
        check_different("output_columns", self.outputs)
        return self

    @property
    def inputs(self) -> Columns:
        return list(self.columns)

    @property
    def outputs(self) -> Columns:
        return list(self.output_columns or [f"grouped_{column}" for column in self.columns])

    def added_columns(self, available: frozenset[str]) -> frozenset[str]:
        return without(self, available, self.columns) | super().added_columns(frozenset())

    def process(self, *inputs: StepInput) -> StepOutput:
        yield [self._grouped(place, rows) for place, rows in enumerate(side_by_side(inputs))]

    def _grouped(self, place: int, rows: Sequence[Row]) -> Row:
        for column in self.columns:
            if not any(column in row for row in rows):
                value_in(rows[0], column)
        rest = [{name: value for name, value in row.items() if name not in self.columns} for row in rows]
        lists = {new: [row.get(old) for row in rows] for old, new in zip(self.columns, self.outputs, strict=True)}
        return {**combined_row(self, place, rest), **lists}


class CombineOutputs(Step):
    """Joins the rows of several steps, row by row, with the columns of all.

    The steps before must give equally many rows, and equal values where they have a column in common. Only
    `model_name` may differ: the last step's stays, and all are in the metadata as `model_names`.

    Output columns:
        all columns of the steps before; `distilabel_metadata` holds the keys of all.

    Raises:
        ValueError: the steps gave different numbers of rows, or different values of a column.

    Example:
        >>> from tasks import CombineOutputs
        >>> next(CombineOutputs().process([{"topic": "tides", "poem": "Ebb"}], [{"topic": "tides", "fact": "Moon"}]))
        [{'topic': 'tides', 'poem': 'Ebb', 'fact': 'Moon'}]
    """

    takes_failed_rows = True
    joins_rows = True

    def process(self, *inputs: StepInput) -> StepOutput:
        yield [combined_row(self, place, rows) for place, rows in enumerate(side_by_side(inputs))]


class MergeColumns(Step):
    """Puts the values of several columns into one list, and drops the columns.

    A column that holds a list gives its items; any other value is one item.

    Input columns:
        those of `columns`.

    Output columns:
        `output_column`: a list, in the order of `columns`.

    Example:
        >>> from tasks import MergeColumns
        >>> step = MergeColumns(columns=["query", "more_queries"], output_column="queries")
        >>> next(step.process([{"query": "How high is K2?", "more_queries": ["Where is it?", "Who was first?"]}]))
        [{'queries': ['How high is K2?', 'Where is it?', 'Who was first?']}]
    """

    takes_failed_rows = True
    moves_columns = True

    columns: Annotated[list[str], Field(min_length=1, title="Columns", description="The columns to merge.")]
    output_column: Annotated[
        str, Field(min_length=1, title="Name", description="Of the merged column. It may be one of `columns`.")
    ] = "merged_column"

    @property
    def inputs(self) -> Columns:
        return list(self.columns)

    @property
    def outputs(self) -> Columns:
        return [self.output_column]

    def added_columns(self, available: frozenset[str]) -> frozenset[str]:
        return without(self, available, self.columns) | super().added_columns(frozenset())

    def process(self, inputs: StepInput) -> StepOutput:
        yield [self._merged(row) for row in inputs]

    def _merged(self, row: Row) -> Row:
        values = [value_in(row, column) for column in self.columns]
        lists = [cast("list[Any]", value) if isinstance(value, list) else [value] for value in values]
        rest = {name: value for name, value in row.items() if name not in self.columns}
        return {**rest, self.output_column: list(chain.from_iterable(lists))}


def value_in(row: Row, column: str) -> Any:
    """The value of a column. Raises ValueError where the row doesn't have it."""
    if column not in row:
        raise ValueError(f"there's no column {column!r}; the rows have {', '.join(map(repr, row)) or 'none'}")
    return row[column]


def check_different(option: str, names: Iterable[str]) -> None:
    """Raises ValueError where two columns would get one name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{option}: expected different names, got {twice[0]!r} twice")


def without(step: Step, available: frozenset[str], columns: Iterable[str]) -> frozenset[str]:
    """The dataset's columns without the step's `columns`."""
    return available - {step.input_mappings.get(column, column) for column in columns}


def with_failure(row: Row, step: str, error: Exception) -> Row:
    """The row, failed in a step that isn't a Task: later Tasks pass it over, and a run counts it."""
    return {**row, METADATA: {**(row.get(METADATA) or {}), f"error_{step}": failure_of(error)}}


def with_columns_of_all(
    step: Step,
    rows: Sequence[Row],
    read: Callable[[Row], T],
    compute: Callable[[dict[int, T]], Mapping[int, Row]],
) -> list[Row]:
    """Rows with columns that are made from all of them at once, in the order that they had.

    A row that failed before gets None in the new columns. A row that can't be read fails, with the reason.

    Args:
        step: whose columns they are.
        rows: all rows.
        read: what of a row the columns are made from. Raises ValueError.
        compute: the new columns by place, from what was read by place. A place that it leaves out is a row left out.
    """
    empty = dict.fromkeys(step.outputs)
    given: dict[int, T] = {}
    made: dict[int, Row] = {}
    for place, row in enumerate(rows):
        try:
            if failure_in(row) is None:
                given[place] = read(row)
            else:
                made[place] = {**row, **empty}
        except ValueError as error:
            made[place] = with_failure({**row, **empty}, step.name, error)
    if given:
        made |= {place: {**rows[place], **each} for place, each in compute(given).items()}
    return [made[place] for place in sorted(made)]


def combined_row(step: Step, place: int, rows: Sequence[Row]) -> Row:
    """One row with the columns and the metadata of all. Raises ValueError where they differ in a column."""
    whole: Row = {}
    for name, value in chain.from_iterable(row.items() for row in rows):
        if name not in {METADATA, MODEL_NAME} and name in whole and not same(whole[name], value):
            raise ValueError(
                f"{step.name}: the steps before give different values of {name!r}, {short(whole[name])} and"
                f" {short(value)} (row {place} of the batch). {way_out(name)}"
            )
        whole.setdefault(name, value)
    models = [row[MODEL_NAME] for row in rows if row.get(MODEL_NAME) is not None]
    if models:
        whole[MODEL_NAME] = models[-1]
    made = with_metadata(whole, rows)
    return {**made, METADATA: {**(made.get(METADATA) or {}), MODEL_NAMES: models}} if len(set(models)) > 1 else made


def way_out(column: str) -> str:
    """What to do where several steps give different values of a column."""
    return f"Rename it in one of them (`output_mappings`), or keep both with `GroupColumns(columns=[{column!r}])`"


def side_by_side(inputs: Sequence[StepInput]) -> list[tuple[Row, ...]]:
    """The rows of several steps, row by row. Raises ValueError where one has more than another."""
    if len({len(rows) for rows in inputs}) > 1:
        raise ValueError(
            "the steps before must give equally many rows to be joined row by row, got"
            f" {' and '.join(str(len(rows)) for rows in inputs)}"
        )
    return list(zip(*inputs, strict=True))


def with_metadata(row: Row, sources: Sequence[Row]) -> Row:
    """The row with the metadata of all rows that it was made from, if they have any."""
    given = [cast("Row", source[METADATA]) for source in sources if source.get(METADATA)]
    if not given:
        return row
    keys = dict.fromkeys(chain.from_iterable(given))
    return {**row, METADATA: {key: joined_value(key, [each[key] for each in given if key in each]) for key in keys}}


def joined_value(key: str, values: Sequence[Any]) -> Any:
    """The value for a key of the metadata that several rows have: theirs if equal, else a list; the first failure."""
    if key.startswith("error_"):
        return next((value for value in values if value is not None), None)
    return values[0] if all(same(value, values[0]) for value in values) else list(values)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, NaN being equal to NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast("Row", one), cast("Row", other)
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(one, list) and isinstance(other, list):
        first, second = cast("list[Any]", one), cast("list[Any]", other)
        return len(first) == len(second) and all(map(same, first, second))
    return bool(one is other or one == other or (one != one and other != other))


def share(counts: Any, place: int, count: int) -> Any:
    """The part of token counts that falls to one of `count` rows. The parts add up to the whole."""
    if isinstance(counts, list):
        each = cast("list[Any]", counts)
        return each[place] if len(each) == count else [share(value, place, count) for value in each]
    if isinstance(counts, dict):
        return {key: share(value, place, count) for key, value in cast("Row", counts).items()}
    return (counts + count - 1 - place) // count if isinstance(counts, int) else counts
