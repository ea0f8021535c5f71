"""Preference data of several models: all answer every prompt, a judge rates the answers, two become a pair for DPO."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from flows.authoring.parameters import flow
from flows.authoring.saving import MAX_FAILED_ROWS, save
from flows.engine.graph import load
from llms import OpenAILLM
from llms.parameters import ParameterError
from tasks import (
    FormatTextGenerationDPO,
    GroupColumns,
    LoadDataFromFileSystem,
    SaveToDisk,
    TextGeneration,
    UltraFeedback,
)
from tasks.registry import Source, Target


@flow(name="model-preference")
async def model_preference(
    source: Source = LoadDataFromFileSystem(name="source", data_files="flows/data/instructions.jsonl"),
    first: TextGeneration = TextGeneration(
        name="first", llm=OpenAILLM(model="gpt-4.1-mini", generation_kwargs={"temperature": 1.0})
    ),
    second: TextGeneration = TextGeneration(
        name="second", llm=OpenAILLM(model="gpt-4o-mini", generation_kwargs={"temperature": 1.0})
    ),
    third: TextGeneration = TextGeneration(
        name="third", llm=OpenAILLM(model="gpt-4.1-nano", generation_kwargs={"temperature": 1.0})
    ),
    ultrafeedback: UltraFeedback = UltraFeedback(
        name="ultrafeedback", llm=OpenAILLM(model="gpt-4o"), aspect="overall-rating"
    ),
    target: Target = SaveToDisk(name="target", path="data/model-preference"),
    use_cache: bool = True,
    max_failed_rows: Annotated[float, Field(ge=0)] = MAX_FAILED_ROWS,
    approve_cost_above: Annotated[float | None, Field(ge=0)] = None,
    finish_online_below: Annotated[int, Field(ge=0)] = 0,
    max_cost: Annotated[float | None, Field(ge=0)] = None,
) -> Any:
    """Make a preference dataset of several models: each answers, a judge rates them, the best and worst become a pair.

    Args:
        source: Where the prompts come from.
        first: The first of three who answer each prompt, side by side. Another model, provider or system prompt each.
        second: The second of them.
        third: The third of them.
        ultrafeedback: Who judges, and by which aspect. It sees the three answers to a prompt together.
        target: Where the dataset goes.
        use_cache: Take answers of earlier runs with the same requests. Off: a fresh dataset from the same prompts.
        max_failed_rows: How many rows may fail before the run does: below 1 a share, else a count.
        approve_cost_above: Dollars. A run that would cost more, online or in batches, waits for your approval first.
        finish_online_below: Of offline batches: fewer requests than this are sent online, in place of a job.
        max_cost: Dollars. The run fails before it spends more; what was answered is kept for one with a higher limit.
    """
    for name, task in {"first": first, "second": second, "third": third}.items():
        if task.num_generations > 1 or task.group_generations:
            raise ParameterError(
                f"{name}: one answer of each, so leave num_generations and group_generations as they are"
            )
    rows = load(source, use_cache=use_cache)
    answers = first.map(rows), second.map(rows), third.map(rows)
    group = GroupColumns(columns=["generation", "model_name"], output_columns=["generations", "generation_models"])
    rows = group.map(*answers)
    rows = ultrafeedback.map(rows)
    rows = FormatTextGenerationDPO().map(rows)
    return await save(
        rows,
        target,
        max_failed_rows=max_failed_rows,
        approve_cost_above=approve_cost_above,
        finish_online_below=finish_online_below,
        max_cost=max_cost,
    )
