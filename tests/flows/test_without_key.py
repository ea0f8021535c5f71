"""Who answers where there's no key. With the real model: tests/integration/test_local_model.py."""

from __future__ import annotations

import os
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from flows import collect, load
from flows.cli import flow_named
from flows.engine.errors import SetupError
from flows.without_key import PROMPTS, answered_by, is_first_run, rehearsal
from llms import (
    LLM,
    AnthropicLLM,
    AsyncLLM,
    ClientLMStudio,
    InferenceEndpointsLLM,
    MistralLLM,
    MixtureOfAgentsLLM,
    OpenAILLM,
    ParameterError,
)
from llms.local_model import LocalModel
from tasks import TextGeneration
from tests.scripted import Scripted, completion
from tests.tasks.scripted import ScriptedLLM


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"target": {"path": "elsewhere"}},
        {"text_generation": {"system_prompt": "Be brief."}},
    ],
)
def test_a_run_with_nothing_of_its_own_and_without_a_key_is_a_first_run(given: dict[str, Any]) -> None:
    assert is_first_run("text_generation", given)


@pytest.mark.parametrize(
    "given",
    [
        {"source": {"data_files": "mine.jsonl"}},
        {"text_generation": {"llm": {"model": "gpt-4o"}}},
        {"text_generation": {"llm": {"generation_kwargs": {"temperature": 1}}}},
        {"text_generation": TextGeneration(llm=ScriptedLLM(replies=["x"]))},
    ],
)
def test_a_run_with_its_own_prompts_or_its_own_model_is_never_answered_by_another_model(given: dict[str, Any]) -> None:
    assert not is_first_run("text_generation", given)


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "OPENAI_BASE_URL"])
def test_who_has_a_key_or_a_server_is_asked_there(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9/v1")

    assert not is_first_run("text_generation", {})


def test_other_flows_ask_for_a_key() -> None:
    assert not is_first_run("preference", {})


def test_every_task_of_a_flow_asks_the_model_and_its_rows_name_it() -> None:
    flow = flow_named("preference")

    values = flow.validate_parameters(answered_by(LocalModel(port=8123), flow, {"source": {"data_files": PROMPTS}}))

    asking = [value.llm for value in values.values() if hasattr(value, "llm")]
    assert [(llm.model_name, llm.url()) for llm in asking] == [
        ("SmolLM2-135M-Instruct", "http://127.0.0.1:8123/v1")
    ] * len(asking)
    assert len(asking) > 1


def test_what_is_given_stands_over_what_the_model_is_asked_with() -> None:
    flow = flow_named("text_generation")
    given = {"text_generation": {"llm": {"generation_kwargs": {"max_new_tokens": 7}}, "num_generations": 2}}

    task = flow.validate_parameters(answered_by(LocalModel(port=8123), flow, given))["text_generation"]

    assert task.num_generations == 2
    assert task.llm.generation_kwargs["max_new_tokens"] == 7
    assert task.llm.generation_kwargs["seed"] == 42


def test_a_flow_that_asks_no_model_cannot_be_answered_by_one() -> None:
    with pytest.raises(ParameterError, match="no parameter that is a Task with an LLM; leave out --local-model"):
        answered_by(LocalModel(port=8123), flow_named("watch_batches"), {})


def test_a_rehearsal_whose_port_another_run_takes_before_it_is_used_goes_to_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        # Free when it was looked at.
        monkeypatch.setattr("flows.without_key.free_port", lambda wanted: taken)

        with rehearsal():
            address = os.environ["OPENAI_BASE_URL"]
            with urllib.request.urlopen(f"{address}/models") as answer:
                assert answer.status == 200

    assert str(taken) not in address


P = [{"instruction": f"Tell me about number {number}."} for number in range(2)]


def collected(*models: LLM) -> list[str]:
    dataset = collect(TextGeneration(llm=models[0]).map(load(P)), max_failed_rows=0)
    return [row["generation"] for row in dataset.to_list()]


def test_a_rehearsal_answers_for_both_protocols_whatever_keys_and_addresses_there_are(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Scripted(lambda body: completion("for money")) as real:
        for name in ("OPENAI", "ANTHROPIC"):
            monkeypatch.setenv(f"{name}_API_KEY", "k")
            monkeypatch.setenv(f"{name}_BASE_URL", real.url)

        with rehearsal():
            made = [*collected(OpenAILLM(model="m")), *collected(AnthropicLLM(model="m"))]

        assert len(made) == 4
        assert "for money" not in made
        assert real.asked == []
        assert os.environ["ANTHROPIC_BASE_URL"] == real.url


def test_a_rehearsal_refuses_to_ask_anybody_else_before_anything_is_sent_or_loaded(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(AsyncLLM):
        @property
        def model_name(self) -> str:
            return "own"

        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            raise AssertionError("it was asked")

    monkeypatch.setenv("MISTRAL_API_KEY", "k")
    with Scripted(lambda body: completion("for money")) as real:
        elsewhere = OpenAILLM(model="m", base_url=real.url, api_key="k")
        mixed = MixtureOfAgentsLLM(aggregator_llm=OpenAILLM(model="m"), proposers_llms=[elsewhere])
        others = [elsewhere, mixed, MistralLLM(model="m"), InferenceEndpointsLLM(model_id="o/m", api_key="k"), Own()]

        with rehearsal():
            for llm in others:
                with pytest.raises(
                    SetupError, match="--rehearse can't answer for the .*LLM of|Own of.*Nothing was sent"
                ):
                    collected(llm)

        assert real.asked == []
        assert collected(elsewhere) == ["for money"] * 2


def test_a_rehearsal_lets_engines_in_the_process_and_servers_of_ones_own_answer(storage: Path) -> None:
    with Scripted(lambda body: completion("for nothing")) as server, rehearsal():
        assert collected(ScriptedLLM(replies=["at hand"])) == ["at hand"] * 2
        assert collected(ClientLMStudio(model="m", base_url=server.url)) == ["for nothing"] * 2
