"""A source's rows as a run takes them: read through before anything is asked, with all columns, none failed yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from flows.engine.errors import PipelineError
from flows.engine.run import Run
from flows.store.context import run_logger
from llms.quantities import quantity
from tasks.steps import METADATA, GeneratorStep, SourceTypes, Step, restored
from tasks.typing import Row

EARLIER = "earlier_"
"""What stands before `error_<step>` where a row failed in another run, in a step that this run doesn't have."""
EARLIER_ERROR = f"{EARLIER}error_"


def dataset_names(step: Step, columns: Iterable[str]) -> dict[str, str]:
    """What a step's columns are called in the dataset. Raises PipelineError where two of them get one name."""
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for column in columns:
        name = names[column] = step.output_mappings.get(column, column)
        other = owners.setdefault(name, column)
        if other != column:
            raise PipelineError(
                f"{step.name} ({type(step).__name__}): the columns {other!r} and {column!r} would both be {name!r}, got"
                f" output_mappings={step.output_mappings!r}, and one of them would be lost. Choose another name, or"
                f" give {name!r} another one there as well"
            )
    return names


@dataclass
class SourceRows:
    """The rows of a source, and what became of those that failed in an earlier run."""

    step: GeneratorStep
    run: Run
    steps: Collection[str]
    """The names of the run's steps."""
    features: dict[str, Any] = field(default_factory=dict[str, Any])
    """The types of its columns by the dataset's names, as far as they are known."""
    asked_again: Counter[str] = field(default_factory=Counter[str])
    set_aside: Counter[str] = field(default_factory=Counter[str])
    """By step: how many rows failed in it earlier."""
    foreign: int = 0
    """How many rows have something else in the place of what steps note."""

    def read_types(self) -> None:
        """Find out the types of all columns, and that all rows can be used, where the source can be read before."""
        known = self.step.read_types(self._limit)
        if known is None:
            return
        for note in known.notes:
            run_logger().info("%s: %s", self.step.name, note)
        self.features = self._renamed(known).features

    def _renamed(self, known: SourceTypes) -> SourceTypes:
        names = dataset_names(self.step, known.features)
        return SourceTypes({names[name]: feature for name, feature in known.features.items()})

    def lists(self) -> Iterator[list[Row]]:
        """The rows, some at a time. Raises SourceError, and PipelineError where two columns get one name."""
        left = self._limit
        empty = dict.fromkeys(self.features)
        for rows, last in self.step.process():
            named = map(self._named, rows[:left])
            whole = (row if len(row) >= len(empty) else {**empty, **row} for row in named)
            yield list(map(self._fresh, whole))
            if left is not None:
                left -= len(rows)
            if last or (left is not None and left <= 0):
                return

    def _named(self, row: Row) -> Row:
        named = restored(row, {}, self.step.output_mappings)
        if len(named) < len(row):
            dataset_names(self.step, row)
        return named

    @property
    def _limit(self) -> int | None:
        return self.run.limits.rows if self.run.limits else None

    def _fresh(self, row: Row) -> Row:
        """The row as a new one: it hasn't failed."""
        given = row.get(METADATA)
        if not given:
            return row
        metadata = self._metadata(given)
        failed = [key for key, value in metadata.items() if value is not None and key.startswith("error_")]
        stale = [key for key in metadata if key.startswith(EARLIER) and key.removeprefix(EARLIER_ERROR) in self.steps]
        if not failed and not stale:
            return {**row, METADATA: metadata}
        fresh = {key: value for key, value in metadata.items() if key not in failed and key not in stale}
        for key in failed:
            step = key.removeprefix("error_")
            if step in self.steps:
                self.asked_again[step] += 1
            else:
                self.set_aside[step] += 1
                fresh[EARLIER + key] = metadata[key]
        return {**row, METADATA: fresh}

    def _metadata(self, given: Any) -> Row:
        """What steps noted, from its JSON where that is how a file has it."""
        found = given
        if isinstance(given, str):
            try:
                found = orjson.loads(given)
            except orjson.JSONDecodeError:
                found = None
        if isinstance(found, dict):
            return cast("Row", found)
        self.foreign += 1
        return {f"{EARLIER}metadata": given}

    def say_what_was_found(self) -> None:
        """Say once how many rows failed in an earlier run, which doesn't count any more."""
        said = "%s: rows of it that failed in %s in an earlier run, and are new rows now: %s"
        for step, rows in self.asked_again.items():
            run_logger().info(said, self.step.name, step, f"{rows:,}")
        for step, rows in self.set_aside.items():
            kept = f"{rows:,}. Their metadata keeps the old error as {EARLIER_ERROR}{step}"
            run_logger().info(said, self.step.name, step, kept)
        if self.foreign:
            run_logger().warning(
                "%s: in %s %s isn't an object. It's kept there as %smetadata; a column of another meaning needs"
                " another name: output_mappings={%r: 'metadata'}",
                self.step.name,
                quantity(self.foreign, "row"),
                METADATA,
                EARLIER,
                METADATA,
            )


def names_of_steps(nodes: Iterable[Any]) -> frozenset[str]:
    """The names of the steps that take rows."""
    return frozenset(node.name for node in nodes if node.upstream)
