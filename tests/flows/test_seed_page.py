"""The programs of distilabel's page on LLMs, with only the imports changed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, List  # noqa: UP035 -- as the page has it

import pytest
from pydantic import validate_call

from flows import Pipeline, collect, flow, load
from flows.authoring.preview import checked
from flows.cli import given_parameters
from llms import LLM, AsyncLLM, InferenceEndpointsLLM, OfflineBatchGenerationNotFinishedError, OpenAILLM, ParameterError
from llms.local_provider import LocalProvider
from llms.typing import GenerateOutput, HiddenState
from tasks import LoadDataFromDicts, TextGeneration
from tasks.typing import ChatType
from tests.conftest import LONGEST, wait_for

INPUTS: Any = [[{"role": "user", "content": "What's the capital of Spain?"}]]


@pytest.fixture(autouse=True)
def answers(provider: LocalProvider) -> None:
    provider.set(answers={"capital of Spain": "The capital of Spain is Madrid."}, batch_seconds=0.5)


def test_an_llm_alone(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    # The page leaves the address to the library: it's that of Hugging Face.
    monkeypatch.setattr(InferenceEndpointsLLM, "router_url", provider.base_url)
    monkeypatch.setenv("HF_TOKEN", "hf_key")
    llm = InferenceEndpointsLLM(model="meta-llama/Meta-Llama-3.1-70B-Instruct")
    llm.load()

    outputs = llm.generate_outputs(
        inputs=[
            [{"role": "user", "content": "What's the capital of Spain?"}],
        ],
    )

    assert outputs[0]["generations"] == ["The capital of Spain is Madrid."]


def test_offline_batch_generation(provider: LocalProvider) -> None:
    provider.set(batch_manual=True)
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

    (job,) = llm.jobs_ids
    wait_for(lambda: provider.batches[0]["status"] == "in_progress", what="the job under way")
    provider.end_batch(job)
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        time.sleep(0.1)
        try:
            outputs = llm.generate_outputs(inputs=INPUTS)
        except OfflineBatchGenerationNotFinishedError:
            continue
        break
    assert outputs[0]["generations"] == ["The capital of Spain is Madrid."]
    # "The second call or subsequent calls [...] will return the outputs if they are ready."
    assert llm.generate_outputs(inputs=INPUTS) == llm.generate_outputs(inputs=INPUTS) == outputs
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


def answered(num_generations: int, **kwargs: Any) -> GenerateOutput:
    """What stands for the page's "..."."""
    statistics: Any = {"input_tokens": [1] * num_generations, "output_tokens": [1] * num_generations}
    return {"generations": [f"Answered with {kwargs}."] * num_generations, "statistics": statistics}


class CustomLLM(LLM):
    @property
    def model_name(self) -> str:
        return "my-model"

    @validate_call
    def generate(self, inputs: List[ChatType], num_generations: int = 1, **kwargs: Any) -> List[GenerateOutput]:  # noqa: UP006 -- as the page has it
        return [answered(num_generations, **kwargs) for _ in inputs]

    def get_last_hidden_state(self, inputs: List[ChatType]) -> List[HiddenState]:  # noqa: UP006 -- as the page has it
        return [[[0.5, 1.0]] for _ in inputs]


class CustomAsyncLLM(AsyncLLM):
    @property
    def model_name(self) -> str:
        return "my-model"

    @validate_call
    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:
        return answered(num_generations, **kwargs)

    def get_last_hidden_state(self, inputs: List[ChatType]) -> List[HiddenState]:  # noqa: UP006 -- as the page has it
        return [[[0.5, 1.0]] for _ in inputs]


class CoercedLLM(CustomAsyncLLM):
    """The page's last note: arguments are coerced to the expected types."""

    @validate_call
    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input: ChatType, num_generations: int = 1, temperature: float = 1.0
    ) -> GenerateOutput:
        return answered(num_generations, temperature=temperature)


CUSTOM = [CustomLLM, CustomAsyncLLM]


@pytest.mark.parametrize("custom", CUSTOM)
def test_a_custom_llm_alone(custom: type[LLM]) -> None:
    llm = custom()
    llm.load()

    outputs = llm.generate_outputs(inputs=INPUTS, num_generations=2)

    assert outputs[0]["generations"] == ["Answered with {}."] * 2
    assert llm.get_last_hidden_state(INPUTS) == [[[0.5, 1.0]]]


@pytest.mark.parametrize("custom", CUSTOM)
def test_a_custom_llm_within_a_task(custom: type[LLM]) -> None:
    task = TextGeneration(name="text_generation", llm=custom())

    task.load()

    (row,) = next(task.process(inputs=[{"instruction": "What's the capital of Spain?"}]))
    assert (row["generation"], row["model_name"]) == ("Answered with {}.", "my-model")


@pytest.mark.parametrize("custom", CUSTOM)
def test_a_custom_llm_in_a_pipeline_takes_its_arguments_as_runtime_parameters(
    custom: type[LLM], storage: Path, prefect: str
) -> None:
    with Pipeline(name="custom-llm-pipeline") as pipeline:
        load_dataset = LoadDataFromDicts(name="load_dataset", data=[{"instruction": "Hello"}])
        text_generation = TextGeneration(name="text_generation", llm=custom())
        load_dataset >> text_generation

    plain = pipeline.run()
    warm = pipeline.run(parameters={text_generation.name: {"llm": {"generation_kwargs": {"temperature": 0.3}}}})

    assert plain["generation"][:] == ["Answered with {}."]
    assert warm["generation"][:] == ["Answered with {'temperature': 0.3}."]


@pytest.mark.parametrize("custom", CUSTOM)
def test_a_custom_llm_as_a_flows_default(custom: type[LLM], storage: Path, prefect: str) -> None:
    @flow
    def custom_llm_flow(text_generation: TextGeneration = TextGeneration(llm=custom())) -> Any:
        return collect(load([{"instruction": "Hello"}]).map(text_generation))

    plain = custom_llm_flow()
    warm = custom_llm_flow(text_generation={"llm": {"generation_kwargs": {"temperature": 0.3}}})

    assert plain["generation"][:] == ["Answered with {}."]
    assert warm["generation"][:] == ["Answered with {'temperature': 0.3}."]


def test_arguments_from_a_command_line_are_coerced_and_wrong_ones_refused() -> None:
    @flow
    def coerced(text_generation: TextGeneration = TextGeneration(llm=CoercedLLM())) -> Any:
        return text_generation

    def given(text: str) -> Any:
        return given_parameters(None, (f"text_generation.llm.generation_kwargs.temperature={text}",))

    task = checked(coerced, given("0.3"))["text_generation"]

    assert task.llm.generate_outputs(INPUTS)[0]["generations"] == ["Answered with {'temperature': 0.3}."]
    with pytest.raises(ParameterError, match="valid number.*got 'warm'"):
        checked(coerced, given("warm"))
