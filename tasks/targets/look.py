"""A look at a dataset: some of its rows, and how its values are spread. A million rows take as long as thousands."""

# datasets has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llms.quantities import quantity
from tasks.sources.tables import rows_of_dataset
from tasks.steps import failure_in
from tasks.targets.distributions import Distributions, distributions_markdown
from tasks.targets.sample import sample_markdown
from tasks.typing import Row

if TYPE_CHECKING:
    from datasets import Dataset

LOOKED_AT = 2000
"""Rows, spread evenly over the dataset: the same ones however often it's looked at."""
SAMPLE_ROWS = 10
FAILED_ROWS = 3
"""Of these, the most that failed."""


@dataclass(frozen=True)
class Look:
    """What was seen of a dataset."""

    rows: int
    """In all."""
    sample: tuple[tuple[int, Row], ...]
    """Some with their places: failed ones first."""
    seen: Distributions


def look_at(dataset: Dataset) -> Look:
    """Look at rows of a dataset, a hundred in memory at a time."""
    rows = len(dataset)
    count = min(rows, LOOKED_AT)
    places = [number * rows // count for number in range(count)]
    wanted = {number * count // SAMPLE_ROWS for number in range(SAMPLE_ROWS)} if count else set[int]()
    seen = Distributions()
    failed: list[tuple[int, Row]] = []
    good: list[tuple[int, Row]] = []
    for number, (place, row) in enumerate(zip(places, rows_of_dataset(dataset.select(places), 0), strict=True)):
        seen.add(row)
        if failure_in(row) is not None:
            if len(failed) < FAILED_ROWS:
                failed.append((place, row))
        elif number in wanted:
            good.append((place, row))
    return Look(rows, (*failed, *good[: SAMPLE_ROWS - len(failed)]), seen)


def look_markdown(look: Look, *, heading: str = "") -> str:
    """A look as sections of a page.

    Args:
        heading: which dataset it is, in Markdown, where there are several.
    """
    if not look.sample:
        return ""
    of = f" of {heading}" if heading else ""
    all_of_them = f"all {look.rows:,}"
    first = ", failed ones first" if failure_in(look.sample[0][1]) is not None else ""
    sample = f"{quantity(len(look.sample), 'row')}, spread evenly over {all_of_them}{first}. Long values are cut."
    parts: list[str] = []
    if spread := distributions_markdown(look.seen):
        counted = "Of all rows." if look.seen.rows == look.rows else f"Of {look.seen.rows:,} rows, spread evenly."
        parts += [f"## Distributions{of}", counted, spread]
    parts += [f"## Sample{of}", sample, sample_markdown(look.sample)]
    return "\n\n".join(parts)
