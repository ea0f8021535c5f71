"""The shapes that Steps and Tasks take and give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol, TypeAlias

from llms.typing import ChatType, FormattedInput, GenerateOutput

Row: TypeAlias = dict[str, Any]

StepInput: TypeAlias = list[Row]
"""The rows that `process` takes: one argument per step before it."""

StepOutput: TypeAlias = Iterator[list[Row]]

GeneratorStepOutput: TypeAlias = Iterator[tuple[list[Row], bool]]
"""Rows, and whether they are the last."""

Columns: TypeAlias = list[str] | dict[str, bool]
"""Column names; as a dict, to whether the column is required."""

StepColumns: TypeAlias = Columns
"""What distilabel calls it. `inputs: StepColumns = ["text"]` in a class is the property of that value."""

StepType: TypeAlias = Literal["normal", "generator", "global"]


class Ask(Protocol):
    """Asks the LLM for one row. Where a ledger is kept, an answered question isn't asked again."""

    async def __call__(self, prompt: FormattedInput, num_generations: int = 1) -> GenerateOutput: ...


__all__ = [
    "Ask",
    "ChatType",
    "Columns",
    "FormattedInput",
    "GeneratorStepOutput",
    "Row",
    "StepColumns",
    "StepInput",
    "StepOutput",
    "StepType",
]
