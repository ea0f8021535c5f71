"""A step that leaves rows out by what a column holds."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from llms.parameters import short
from tasks.rows.columns import value_in, with_failure
from tasks.steps import Step, failure_in
from tasks.typing import Columns, Row, StepInput, StepOutput


class FilterRows(Step):
    """Keeps the rows whose number in a column lies within bounds, and leaves out the others.

    Both bounds are within; a truth value is 1 or 0, and a text that is a number counts as it. Without bounds, every
    value will do, of any type. A row without a value (None, or NaN) is left out, unless `keep_missing` is on. A row
    that failed before stays, so that the run counts it; one whose value is no number fails.

    Input columns:
        that of `column`.

    Example:
        >>> from tasks import FilterRows
        >>> step = FilterRows(column="score", lowest=4)
        >>> next(step.process([{"score": 5}, {"score": 3}, {"score": None}, {"score": 4}]))
        [{'score': 5}, {'score': 4}]
    """

    version = "2"
    fails_rows = True
    takes_failed_rows = True

    column: Annotated[str, Field(min_length=1, title="Column", description="Whose number decides.")]
    lowest: Annotated[
        float | None, Field(title="Lowest", description="Rows with less are left out. Empty: none is too low.")
    ] = None
    highest: Annotated[
        float | None, Field(title="Highest", description="Rows with more are left out. Empty: none is too high.")
    ] = None
    keep_missing: Annotated[bool, Field(title="Keep rows without a value", description="Off: they are left out.")] = (
        False
    )

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.lowest is not None and self.highest is not None and not self.lowest <= self.highest:
            raise ValueError(f"lowest: expected at most highest, {self.highest!r}, got {self.lowest!r}")
        for name, bound in (("lowest", self.lowest), ("highest", self.highest)):
            if bound is not None and bound != bound:
                raise ValueError(f"{name}: expected a number, got {bound!r}; no row would be kept")
        return self

    @property
    def inputs(self) -> Columns:
        return [self.column]

    def process(self, inputs: StepInput) -> StepOutput:
        kept: list[Row] = []
        for row in inputs:
            try:
                if failure_in(row) is not None or self._fits(value_in(row, self.column)):
                    kept.append(row)
            except TypeError as error:
                kept.append(with_failure(row, self.name, error))
        yield kept

    def _fits(self, value: Any) -> bool:
        bounds = [bound for bound in (self.lowest, self.highest) if bound is not None]
        if bounds and isinstance(value, str):
            value = number_in(value)
        if value is None or value != value:
            return self.keep_missing
        if bounds and not isinstance(value, int | float):
            raise TypeError(f"{self.column}: expected a number, got {short(value)}")
        return (self.lowest is None or value >= self.lowest) and (self.highest is None or value <= self.highest)


def number_in(text: str) -> Any:
    """The number or truth value that a text is, as columns of CSV have them; any other text as it stands."""
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text
