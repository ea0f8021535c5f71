"""Preference data: two answers per prompt, judged, and formatted for DPO."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from flows.authoring.parameters import flow
from flows.authoring.saving import MAX_FAILED_ROWS, save
from flows.engine.graph import load
from llms import OpenAILLM
from tasks import FormatTextGenerationDPO, LoadDataFromFileSystem, SaveToDisk, TextGeneration, UltraFeedback
from tasks.registry import Source, Target


@flow(name="preference")
async def preference(
    source: Source = LoadDataFromFileSystem(name="source", data_files="flows/data/instructions.jsonl"),
    text_generation: TextGeneration = TextGeneration(
        llm=OpenAILLM(model="gpt-4o-mini", generation_kwargs={"temperature": 1.0}),
        num_generations=2,
        group_generations=True,
        output_mappings={"generation": "generations", "model_name": "generation_models"},
    ),
    ultrafeedback: UltraFeedback = UltraFeedback(
        name="ultrafeedback", llm=OpenAILLM(model="gpt-4o"), aspect="overall-rating"
    ),
    target: Target = SaveToDisk(name="target", path="data/preference"),
    use_cache: bool = True,
    max_failed_rows: Annotated[float, Field(ge=0)] = MAX_FAILED_ROWS,
    approve_cost_above: Annotated[float | None, Field(ge=0)] = None,
    finish_online_below: Annotated[int, Field(ge=0)] = 0,
    max_cost: Annotated[float | None, Field(ge=0)] = None,
) -> Any:
    """Make a preference dataset: answers are generated, rated by a judge, and the best and worst kept as a pair.

    Args:
        source: Where the prompts come from.
        text_generation: Who answers. At least two generations, grouped.
        ultrafeedback: Who judges, and by which aspect.
        target: Where the dataset goes.
        use_cache: Take answers of earlier runs with the same requests. Off: a fresh dataset from the same prompts.
        max_failed_rows: How many rows may fail before the run does: below 1 a share, else a count.
        approve_cost_above: Dollars. A run that would cost more, online or in batches, waits for your approval first.
        finish_online_below: Of offline batches: fewer requests than this are sent online, in place of a job.
        max_cost: Dollars. The run fails before it spends more; what was answered is kept for one with a higher limit.
    """
    rows = load(source, use_cache=use_cache)
    rows = text_generation.map(rows)
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
