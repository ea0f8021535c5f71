"""The programs of distilabel's page on LLMs, with only the imports changed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from flows import Pipeline
from llms import OfflineBatchGenerationNotFinishedError, OpenAILLM
from llms.local_provider import LocalProvider
from tasks import LoadDataFromDicts, TextGeneration

INPUTS: Any = [[{"role": "user", "content": "What's the capital of Spain?"}]]


@pytest.fixture(autouse=True)
def answers(provider: LocalProvider) -> None:
    provider.set(answers={"capital of Spain": "The capital of Spain is Madrid."}, batch_seconds=0.5)


def test_an_llm_alone(provider: LocalProvider) -> None:
    llm = OpenAILLM(model="gpt-4o")
    llm.load()

    outputs = llm.generate_outputs(inputs=INPUTS)

    assert outputs[0]["generations"] == ["The capital of Spain is Madrid."]


def test_offline_batch_generation(provider: LocalProvider) -> None:
    llm = OpenAILLM(
        model="gpt-4o",
        use_offline_batch_generation=True,
    )

    llm.load()

    assert llm.jobs_ids is None

    with pytest.raises(OfflineBatchGenerationNotFinishedError) as not_finished:
        llm.generate_outputs(inputs=INPUTS)

    assert str(not_finished.value) == f"Batch generation with jobs_ids={llm.jobs_ids!r} is not finished"
    assert llm.jobs_ids == not_finished.value.jobs_ids
    assert len(llm.jobs_ids) == 1

    for _ in range(50):
        time.sleep(0.1)
        try:
            outputs = llm.generate_outputs(inputs=INPUTS)
        except OfflineBatchGenerationNotFinishedError:
            continue
        break
    assert outputs[0]["generations"] == ["The capital of Spain is Madrid."]
    assert len(provider.batches) == 1


def test_offline_batch_generation_that_blocks_until_done(provider: LocalProvider) -> None:
    llm = OpenAILLM(
        model="gpt-4o",
        use_offline_batch_generation=True,
        offline_batch_generation_block_until_done=1,  # poll for results every second
    )
    llm.load()

    outputs = llm.generate_outputs(inputs=INPUTS)

    assert outputs[0]["generations"] == ["The capital of Spain is Madrid."]


def test_within_a_task(provider: LocalProvider) -> None:
    llm = OpenAILLM(model="gpt-4")
    task = TextGeneration(name="text_generation", llm=llm)

    task.load()

    (row,) = next(task.process(inputs=[{"instruction": "What's the capital of Spain?"}]))

    assert row["instruction"] == "What's the capital of Spain?"
    assert row["generation"] == "The capital of Spain is Madrid."
    assert row["model_name"] == "gpt-4"
    assert row["distilabel_metadata"]["raw_output_text_generation"] == "The capital of Spain is Madrid."


def test_runtime_parameters_of_a_pipeline(provider: LocalProvider, storage: Path, prefect: str) -> None:
    with Pipeline(name="text-generation-pipeline") as pipeline:
        load_dataset = LoadDataFromDicts(
            name="load_dataset",
            data=[{"instruction": "Write a short story about a dragon that saves a princess from a tower."}],
        )

        text_generation = TextGeneration(
            name="text_generation",
            llm=OpenAILLM(model="gpt-4"),
        )

        load_dataset >> text_generation

    dataset = pipeline.run(
        parameters={
            text_generation.name: {"llm": {"generation_kwargs": {"temperature": 0.3}}},
        },
    )

    assert provider.requests[-1].body["temperature"] == 0.3
    assert len(dataset) == 1
