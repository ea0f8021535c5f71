"""Who answers where there's no key. With the real model: tests/integration/test_local_model.py."""

from __future__ import annotations

from typing import Any

import pytest

from flows.cli import flow_named
from flows.without_key import PROMPTS, answered_by, is_first_run
from llms import ParameterError
from llms.local_model import LocalModel
from tasks import TextGeneration
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
