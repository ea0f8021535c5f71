"""Embedding data: a model thinks of retrieval tasks, and writes a query with a good and a bad hit for each."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from flows.authoring.parameters import flow
from flows.authoring.saving import MAX_FAILED_ROWS, save
from flows.engine.graph import load
from llms import OpenAILLM, ParameterError
from tasks import EmbeddingTaskGenerator, GenerateTextRetrievalData, SaveToDisk
from tasks.registry import Target


@flow(name="embedding-data")
async def embedding_data(
    embedding_task_generator: EmbeddingTaskGenerator = EmbeddingTaskGenerator(
        llm=OpenAILLM(model="gpt-4o", generation_kwargs={"temperature": 1.0}),
        category="text-retrieval",
        flatten_tasks=True,
        output_mappings={"model_name": "task_model"},
    ),
    generate_text_retrieval_data: GenerateTextRetrievalData = GenerateTextRetrievalData(
        llm=OpenAILLM(model="gpt-4o-mini", generation_kwargs={"temperature": 1.0})
    ),
    target: Target = SaveToDisk(name="target", path="data/embedding-data"),
    use_cache: bool = True,
    max_failed_rows: Annotated[float, Field(ge=0)] = MAX_FAILED_ROWS,
    approve_cost_above: Annotated[float | None, Field(ge=0)] = None,
    finish_online_below: Annotated[int, Field(ge=0)] = 0,
    max_cost: Annotated[float | None, Field(ge=0)] = None,
) -> Any:
    """Make triplets to train a retriever: queries, each with a document that serves it and one that only seems to.

    Args:
        embedding_task_generator: Who thinks of the tasks. A triplet is made for each: requests times tasks per request.
        generate_text_retrieval_data: Who writes the triplets, in which language and style.
        target: Where the dataset goes.
        use_cache: Take answers of earlier runs with the same requests. Off: fresh tasks and triplets.
        max_failed_rows: How many rows may fail before the run does: below 1 a share, else a count.
        approve_cost_above: Dollars. A run that would cost more, online or in batches, waits for your approval first.
        finish_online_below: Of offline batches: fewer requests than this are sent online, in place of a job.
        max_cost: Dollars. The run fails before it spends more; what was answered is kept for one with a higher limit.
    """
    if embedding_task_generator.category != "text-retrieval":
        raise ParameterError(
            f"embedding_task_generator.category: this flow writes triplets for 'text-retrieval', got"
            f" {embedding_task_generator.category!r}; for other categories, write a flow with their Task"
        )
    rows = load(embedding_task_generator, use_cache=use_cache)
    rows = generate_text_retrieval_data.map(rows)
    return await save(
        rows,
        target,
        max_failed_rows=max_failed_rows,
        approve_cost_above=approve_cost_above,
        finish_online_below=finish_online_below,
        max_cost=max_cost,
    )
