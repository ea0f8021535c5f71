"""Function calling: requests with the calls that answer them, run and judged."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from flows.authoring.parameters import flow
from flows.authoring.saving import MAX_FAILED_ROWS, save
from flows.engine.graph import load
from llms import OpenAILLM
from tasks import APIGenExecutionChecker, APIGenGenerator, APIGenSemanticChecker, LoadDataFromFileSystem, SaveToDisk
from tasks.functions.apigen import WeightedNumber
from tasks.registry import Source, Target


@flow(name="function-calling")
async def function_calling(
    source: Source = LoadDataFromFileSystem(name="source", data_files="flows/data/functions.jsonl"),
    generator: APIGenGenerator = APIGenGenerator(
        name="generator",
        llm=OpenAILLM(model="gpt-4o", generation_kwargs={"temperature": 1.0}),
        numbers=[WeightedNumber(number=1, weight=2), WeightedNumber(number=2, weight=1)],
        num_generations=3,
        output_mappings={"model_name": "generation_model"},
    ),
    execution_checker: APIGenExecutionChecker = APIGenExecutionChecker(
        name="execution_checker", libpath="flows/data/everyday_functions.py"
    ),
    semantic_checker: APIGenSemanticChecker = APIGenSemanticChecker(
        name="semantic_checker", llm=OpenAILLM(model="gpt-4o")
    ),
    target: Target = SaveToDisk(name="target", path="data/function-calling"),
    use_cache: bool = True,
    max_failed_rows: Annotated[float, Field(ge=0)] = MAX_FAILED_ROWS,
    approve_cost_above: Annotated[float | None, Field(ge=0)] = None,
    finish_online_below: Annotated[int, Field(ge=0)] = 0,
    max_cost: Annotated[float | None, Field(ge=0)] = None,
) -> Any:
    """Make a dataset of function calls: requests with calls are written, the calls are run, and a judge compares them.

    Rows that didn't pass stay in: keep those where `keep_row_after_semantic_check` is true.

    Args:
        source: Where the functions come from, described.
        generator: Who writes requests and calls.
        execution_checker: Where the functions are, and what a call may take.
        semantic_checker: Who judges whether the calls do what was asked for.
        target: Where the dataset goes.
        use_cache: Take answers of earlier runs with the same requests. Off: a fresh dataset from the same functions.
        max_failed_rows: How many rows may fail before the run does: below 1 a share, else a count.
        approve_cost_above: Dollars. A run that would cost more, online or in batches, waits for your approval first.
        finish_online_below: Of offline batches: fewer requests than this are sent online, in place of a job.
        max_cost: Dollars. The run fails before it spends more; what was answered is kept for one with a higher limit.
    """
    # Now, and not once its turn comes: functions that can't be loaded must stop the run before anything is paid for.
    execution_checker.load()
    execution_checker.unload()
    rows = load(source, use_cache=use_cache)
    rows = generator.map(rows)
    rows = execution_checker.map(rows)
    rows = semantic_checker.map(rows)
    return await save(
        rows,
        target,
        max_failed_rows=max_failed_rows,
        approve_cost_above=approve_cost_above,
        finish_online_below=finish_online_below,
        max_cost=max_cost,
    )
