"""Instruction data: instructions that topics suggest, made harder, answered, judged, and the good ones kept."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from flows.authoring.parameters import flow
from flows.authoring.saving import MAX_FAILED_ROWS, save
from flows.engine.graph import load
from llms import OpenAILLM
from llms.parameters import ParameterError
from tasks import (
    EvolInstruct,
    ExpandColumns,
    FilterRows,
    LoadDataFromFileSystem,
    MinHashDedup,
    QualityScorer,
    SaveToDisk,
    SelfInstruct,
    TextGeneration,
)
from tasks.registry import Source, Target


@flow(name="instruction-data")
async def instruction_data(
    source: Source = LoadDataFromFileSystem(name="source", data_files="flows/data/topics.jsonl"),
    self_instruct: SelfInstruct = SelfInstruct(
        llm=OpenAILLM(model="gpt-4o-mini", generation_kwargs={"temperature": 1.0}),
        output_mappings={"model_name": "seed_model"},
    ),
    evol_instruct: EvolInstruct = EvolInstruct(
        llm=OpenAILLM(model="gpt-4o-mini", generation_kwargs={"temperature": 1.0}),
        input_mappings={"instruction": "seed_instruction"},
        output_mappings={"evolved_instruction": "instruction", "model_name": "instruction_model"},
    ),
    deduplicate: bool = True,
    min_hash_dedup: MinHashDedup = MinHashDedup(
        threshold=0.8, drop_duplicates=True, input_mappings={"text": "instruction"}
    ),
    text_generation: TextGeneration = TextGeneration(
        llm=OpenAILLM(model="gpt-4o-mini"),
        group_generations=True,
        output_mappings={"generation": "generations", "model_name": "generation_model"},
    ),
    quality_scorer: QualityScorer = QualityScorer(
        llm=OpenAILLM(model="gpt-4o"),
        input_mappings={"responses": "generations"},
        output_mappings={"model_name": "score_model"},
    ),
    filter_rows: FilterRows = FilterRows(column="score", lowest=4),
    target: Target = SaveToDisk(name="target", path="data/instruction-data"),
    use_cache: bool = True,
    max_failed_rows: Annotated[float, Field(ge=0)] = MAX_FAILED_ROWS,
    approve_cost_above: Annotated[float | None, Field(ge=0)] = None,
    finish_online_below: Annotated[int, Field(ge=0)] = 0,
    max_cost: Annotated[float | None, Field(ge=0)] = None,
) -> Any:
    """Make instructions and answers to tune a model on: thought of for topics, made harder, answered and judged.

    Args:
        source: Where the topics come from: what an application is for, or any text, in the column input.
        self_instruct: Who thinks of instructions for a topic, how many, and for which application.
        evol_instruct: Who makes them harder, by which mutations, over how many rounds.
        deduplicate: Drop instructions that are nearly the same as one before, so that none is answered twice. On: it
            needs the extra dedup.
        min_hash_dedup: When two instructions are nearly the same.
        text_generation: Who answers. Grouped, so that several answers to an instruction are judged side by side.
        quality_scorer: Who scores the answers, from 1 to 6.
        filter_rows: Which scores are good enough; from 1 on, all are.
        target: Where the dataset goes.
        use_cache: Take answers of earlier runs with the same requests. Off: fresh instructions from the same topics.
        max_failed_rows: How many rows may fail before the run does: below 1 a share, else a count.
        approve_cost_above: Dollars. A run that would cost more, online or in batches, waits for your approval first.
        finish_online_below: Of offline batches: fewer requests than this are sent online, in place of a job.
        max_cost: Dollars. The run fails before it spends more; what was answered is kept for one with a higher limit.
    """
    if not text_generation.group_generations:
        raise ParameterError("text_generation: answers are judged side by side, set group_generations=True")
    rows = load(source, use_cache=use_cache)
    rows = self_instruct.map(rows)
    rows = ExpandColumns(columns={"instructions": "seed_instruction"}, split_statistics=True).map(rows)
    rows = evol_instruct.map(rows)
    if deduplicate:
        # Now, and not once its turn comes: a package that is missing must stop the run before anything is paid for.
        min_hash_dedup.load()
        rows = min_hash_dedup.map(rows)
    rows = text_generation.map(rows)
    rows = quality_scorer.map(rows)
    answers = ExpandColumns(
        name="expand_answers", columns={"generations": "generation", "scores": "score"}, split_statistics=True
    )
    rows = answers.map(rows)
    rows = filter_rows.map(rows)
    return await save(
        rows,
        target,
        max_failed_rows=max_failed_rows,
        approve_cost_above=approve_cost_above,
        finish_online_below=finish_online_below,
        max_cost=max_cost,
    )
