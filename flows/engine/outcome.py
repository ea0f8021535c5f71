"""How a flow run ended, in one line: for the message of its last state."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

from flows.engine.costs import Cost, cost_of_rows, cost_of_run, together
from flows.engine.errors import LONGEST_MESSAGE
from flows.engine.run import Run
from llms.quantities import quantity
from tasks.markdown import inert


@dataclass(frozen=True)
class Outcome:
    """What came of the datasets of a run."""

    rows: int = 0
    failed: int = 0
    """Of these rows."""
    cost: Cost = field(default_factory=Cost)
    """Of all answers in the rows."""
    spent: Cost = field(default_factory=Cost)
    """Of those that the run asked for itself."""
    saved: tuple[str, ...] = ()
    """Where the datasets are."""

    def __str__(self) -> str:
        """`2,000 rows, 3 of them failed, $1.20 ($0.40 of it now), saved to data/answers`."""
        parts = [quantity(self.rows, "row"), f"{self.failed:,} of them failed" if self.failed else "none failed"]
        if self.cost.known:
            now = f" ({self.spent.known} of it now)" if self.spent.known not in {"", self.cost.known} else ""
            parts.append(f"{self.cost.known}{now}")
        if self.saved:
            parts.append(f"saved to {' and '.join(self.saved)}")
        return ", ".join(parts)


_outcomes: ContextVar[dict[str, Outcome] | None] = ContextVar("_outcomes", default=None)
"""Of the flow run that this code is part of, by attempt: a Prefect task of it has one of its own."""


@contextmanager
def outcomes_noted() -> Generator[dict[str, Outcome]]:
    """Collects the outcomes of the runs inside of a `with` block, as they end."""
    noted: dict[str, Outcome] = {}
    token = _outcomes.set(noted)
    try:
        yield noted
    finally:
        _outcomes.reset(token)


def note_outcome(run: Run, rows: int, failed: int) -> None:
    """Note what came of datasets of a run.

    Args:
        rows: of the datasets that were made now. A run may make several, one after the other.
        failed: how many of these.
    """
    noted = _outcomes.get()
    if noted is None:
        return
    before = noted.get(run.attempt, Outcome())
    steps = list(run.progress.values())
    noted[run.attempt] = Outcome(
        rows=before.rows + rows,
        failed=before.failed + failed,
        cost=cost_of_rows(steps),
        spent=cost_of_run(steps),
        saved=tuple(run.saved.places),
    )


def told_of_run(value: Any, outcomes: Sequence[Outcome]) -> Any:
    """What a flow gives back, in a state whose message says what came of its rows; as it is, where it made none.

    States, and what may hold some, decide themselves how a flow ended: they are left alone.
    """
    from prefect.states import Completed

    if not outcomes or not _is_plain(value):
        return value
    whole = Outcome(
        rows=sum(each.rows for each in outcomes),
        failed=sum(each.failed for each in outcomes),
        cost=together(each.cost for each in outcomes),
        spent=together(each.spent for each in outcomes),
        saved=tuple(dict.fromkeys(place for each in outcomes for place in each.saved)),
    )
    return Completed(message=inert(str(whole), LONGEST_MESSAGE), data=value)


def _is_plain(value: Any) -> bool:
    if value is None or isinstance(value, str | int | float):
        return True
    if isinstance(value, dict):
        return all(map(_is_plain, cast("dict[Any, Any]", value).values()))
    # Who made rows has it imported; who hasn't gets no import of a second for it.
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(value, datasets.Dataset)
