"""Process rewards: solutions of mathematical problems whose steps are labelled, for reward models."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from flows.authoring.parameters import flow
from flows.authoring.saving import MAX_FAILED_ROWS, save
from flows.engine.graph import load
from llms import OpenAILLM, ParameterError
from tasks import (
    ExpandColumns,
    FormatPRM,
    LoadDataFromFileSystem,
    MathShepherdCompleter,
    MathShepherdGenerator,
    SaveToDisk,
)
from tasks.registry import Source, Target


@flow(name="process-rewards")
async def process_rewards(
    source: Source = LoadDataFromFileSystem(name="source", data_files="flows/data/math_problems.jsonl"),
    golden_solution: MathShepherdGenerator = MathShepherdGenerator(
        name="golden_solution", llm=OpenAILLM(model="gpt-4o"), output_mappings={"model_name": "golden_model"}
    ),
    solutions: MathShepherdGenerator = MathShepherdGenerator(
        name="solutions",
        llm=OpenAILLM(model="gpt-4o-mini", generation_kwargs={"temperature": 1.0}),
        M=4,
        output_mappings={"model_name": "solution_model"},
    ),
    completer: MathShepherdCompleter = MathShepherdCompleter(
        name="completer", llm=OpenAILLM(model="gpt-4o-mini", generation_kwargs={"temperature": 1.0})
    ),
    format_prm: FormatPRM = FormatPRM(name="format_prm", format="trl"),
    target: Target = SaveToDisk(name="target", path="data/process-rewards"),
    use_cache: bool = True,
    max_failed_rows: Annotated[float, Field(ge=0)] = MAX_FAILED_ROWS,
    approve_cost_above: Annotated[float | None, Field(ge=0)] = None,
    finish_online_below: Annotated[int, Field(ge=0)] = 0,
    max_cost: Annotated[float | None, Field(ge=0)] = None,
) -> Any:
    """Make a dataset for process reward models: problems are solved, and each step is labelled by where it leads.

    Args:
        source: Where the problems come from.
        golden_solution: Who solves each problem right. The labels are only as good as this.
        solutions: Who writes the solutions that are labelled, a row for each.
        completer: Who completes them after each step, and how often.
        format_prm: For what training.
        target: Where the dataset goes.
        use_cache: Take answers of earlier runs with the same requests. Off: a fresh dataset from the same problems.
        max_failed_rows: How many rows may fail before the run does: below 1 a share, else a count.
        approve_cost_above: Dollars. A run that would cost more, online or in batches, waits for your approval first.
        finish_online_below: Of offline batches: fewer requests than this are sent online, in place of a job.
        max_cost: Dollars. The run fails before it spends more; what was answered is kept for one with a higher limit.
    """
    if format_prm.tags != completer.tags:
        raise ParameterError(
            f"format_prm.tags: expected those that the completer writes, {completer.tags!r}, got {format_prm.tags!r}"
        )
    rows = load(source, use_cache=use_cache)
    rows = golden_solution.map(rows)
    rows = solutions.map(rows)
    rows = completer.map(rows)
    scores = ["scores"] if completer.soft_estimation else []
    rows = ExpandColumns(columns=["solutions", *scores], split_statistics=True).map(rows)
    rows = format_prm.map(rows)
    return await save(
        rows,
        target,
        max_failed_rows=max_failed_rows,
        approve_cost_above=approve_cost_above,
        finish_online_below=finish_online_below,
        max_cost=max_cost,
    )
