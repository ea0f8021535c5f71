"""What a default says is taken back in the form, in both of Prefect's UIs."""

from __future__ import annotations

from typing import Any

import pytest

from flows import flow
from flows.authoring.parameters import merge_parameters
from llms import OpenAILLM
from tasks import TextGeneration
from tests.integration.stack import Stack

pytest.importorskip("playwright.sync_api", reason="the Python package 'playwright' isn't installed")

from tests.ui.pages import UI


@flow
async def prompted(
    text_generation: TextGeneration = TextGeneration(
        llm=OpenAILLM(model="m", generation_kwargs={"max_new_tokens": 9}), system_prompt="Be brief."
    ),
) -> Any:
    """A flow whose default has a system prompt.

    Args:
        text_generation: The step.
    """


def taken(parameters: dict[str, Any]) -> TextGeneration:
    return merge_parameters(prompted.fn, {}, parameters)["text_generation"]


def test_the_tab_none_takes_back_what_the_default_says(stack: Stack, ui: UI) -> None:
    flow_id = stack.call("POST", "/flows/", {"name": "prompted"})["id"]
    schema = prompted.parameters.model_dump()
    deployment = {"name": "taken-back", "flow_id": flow_id, "parameter_openapi_schema": schema}
    stack.call("POST", "/deployments/", {**deployment, "enforce_parameter_schema": True})
    form = ui.form("prompted/taken-back")

    form.open()
    as_it_was = taken(stack.run(form.submit())["parameters"])
    form.open()
    assert form.value("text_generation", "System prompt") == "Be brief."
    form.choose_tab("None", "text_generation", "System prompt")
    form.choose_tab("None", "text_generation", "LLM", "Max new tokens")
    taken_back = taken(stack.run(form.submit())["parameters"])

    assert (as_it_was.system_prompt, as_it_was.llm.generation_kwargs) == ("Be brief.", {"max_new_tokens": 9})
    assert (taken_back.system_prompt, taken_back.llm.generation_kwargs) == (None, {})
