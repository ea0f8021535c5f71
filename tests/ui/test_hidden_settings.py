"""What few change is in tabs of its own, in both of Prefect's UIs: it's found there, and nothing of it is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flows import flow
from flows.authoring.parameters import merge_parameters
from flows.authoring.preview import checked
from llms import OpenAILLM
from tasks import LoadDataFromFileSystem, SaveToDisk, TextGeneration
from tasks.registry import Source, Target
from tests.integration.stack import Stack

pytest.importorskip("playwright.sync_api", reason="the Python package 'playwright' isn't installed")

from tests.ui.conftest import IN_BOTH
from tests.ui.pages import UI

LLM = ("text_generation", "LLM")
ALL = "All settings, any provider"


@flow
async def hiding(
    text_generation: TextGeneration = TextGeneration(
        llm=OpenAILLM(model="m", generation_kwargs={"max_new_tokens": 9}), system_prompt="Be brief."
    ),
) -> Any:
    """A flow whose form hides what few change.

    Args:
        text_generation: The step.
    """


def deploy(stack: Stack, name: str, **deployed: Any) -> dict[str, Any]:
    flow_id = stack.call("POST", "/flows/", {"name": "hiding"})["id"]
    parameters = {"text_generation": deployed} if deployed else {}
    schema = {"parameter_openapi_schema": hiding.parameters.model_dump(), "enforce_parameter_schema": True}
    stack.call("POST", "/deployments/", {"name": name, "flow_id": flow_id, "parameters": parameters, **schema})
    return parameters


def taken(deployed: dict[str, Any], parameters: dict[str, Any]) -> TextGeneration:
    task = merge_parameters(hiding.fn, deployed, parameters)["text_generation"]
    assert (task.system_prompt, task.llm.model, task.llm.generation_kwargs["max_new_tokens"]) == ("Be brief.", "m", 9)
    return task


def test_what_a_deployment_sets_is_shown_by_the_tab_that_has_it_and_survives_submission(
    stack: Stack, ui: UI, screenshot: Callable[[str], None]
) -> None:
    deployed = deploy(stack, "hidden", llm={"max_retries": 0, "generation_kwargs": {"seed": 7}}, add_raw_input=False)
    form = ui.form("hiding/hidden")

    form.open()
    screenshot("hidden-settings")
    assert form.value(*LLM, "Retries") == "0"
    assert "seed" in form.field(*LLM, "Generation parameters").inner_text()
    form.field("text_generation", "Keep prompts").first.wait_for()
    assert form.field("text_generation", "Keep prompts").count() == 1
    task = taken(deployed, stack.run(form.submit())["parameters"])

    assert (task.llm.max_retries, task.llm.generation_kwargs["seed"], task.add_raw_input) == (0, 7, False)


def test_a_generation_parameter_that_a_deployment_sets_is_shown_by_the_tab_that_has_it(stack: Stack, ui: UI) -> None:
    deployed = deploy(stack, "seeded", llm={"generation_kwargs": {"seed": 7}})
    form = ui.form("hiding/seeded")

    form.open()
    assert form.value(*LLM, "Seed") == "7"
    form.fill("8", *LLM, "Seed")
    task = taken(deployed, stack.run(form.submit())["parameters"])

    assert task.llm.generation_kwargs == {"max_new_tokens": 9, "seed": 8}


def test_all_settings_are_a_tab_away(stack: Stack, ui: UI) -> None:
    deployed = deploy(stack, "shown")
    form = ui.form("hiding/shown")

    form.open()
    assert form.field("text_generation", "Keep prompts").count() == 0
    assert form.field(*LLM, "Retries").count() == 0
    form.choose_tab("All settings", "text_generation")
    assert form.field("text_generation", "Keep prompts").count() == 1
    form.choose_tab(ALL, *LLM)
    form.fill("2", *LLM, "Retries")
    task = taken(deployed, stack.run(form.submit())["parameters"])

    assert task.llm.max_retries == 2


@flow
async def saving(
    source: Source = LoadDataFromFileSystem(name="source", data_files="a.jsonl"),
    target: Target = SaveToDisk(name="target", path="out"),
    approve_cost_above: float | None = None,
    max_cost: float | None = None,
) -> Any:
    """A flow whose form hides what few change of where rows come from and go to.

    Args:
        source: Where from.
        target: Where to.
        approve_cost_above: Dollars.
        max_cost: Dollars.
    """


def deploy_saving(stack: Stack, name: str, **deployed: Any) -> None:
    flow_id = stack.call("POST", "/flows/", {"name": "saving"})["id"]
    schema = {"parameter_openapi_schema": saving.parameters.model_dump(), "enforce_parameter_schema": True}
    stack.call("POST", "/deployments/", {"name": name, "flow_id": flow_id, "parameters": deployed, **schema})


@IN_BOTH
def test_what_is_hidden_of_a_target_is_a_tab_away_and_what_is_left_empty_isnt_sent(stack: Stack, ui: UI) -> None:
    deploy_saving(stack, "hidden")
    form = ui.form("saving/hidden")

    form.open()
    assert form.field("target", "Overwrite").count() == form.field("target", "Target").count() == 0
    form.choose_tab("Dataset on disk, all settings", "target")
    form.field("target", "Overwrite").get_by_role("switch").click()
    form.fill("2.5", "max_cost")
    parameters = stack.run(form.submit())["parameters"]

    assert parameters.get("approve_cost_above") is None
    values = checked(saving, parameters)
    assert values["max_cost"] == 2.5
    assert values["target"] == SaveToDisk(name="target", path="out", overwrite=False)
    assert values["source"] == LoadDataFromFileSystem(name="source", data_files="a.jsonl")


def test_another_source_and_another_target_of_a_deployment_are_shown_as_what_they_are(stack: Stack, ui: UI) -> None:
    source = {"kind": "hub", "repo_id": "a/b"}
    target = {"kind": "disk", "path": "else", "overwrite": False}
    deploy_saving(stack, "others", source=source, target=target, max_cost=3)
    form = ui.form("saving/others")

    form.open()
    assert (form.value("source", "Dataset"), form.value("source", "Source")) == ("a/b", "hub")
    assert (form.value("target", "Path"), form.value("target", "Target")) == ("else", "disk")
    assert form.value("max_cost") == "3"
    sent = stack.run(form.submit())["parameters"]

    assert {name: sent["target"][name] for name in target} == target
    assert (sent["source"]["kind"], sent["source"]["repo_id"], sent["max_cost"]) == ("hub", "a/b", 3)


@pytest.mark.parametrize("ui", ["V2"], indirect=True)
def test_the_first_tab_is_what_it_says_where_a_deployment_has_another_target(stack: Stack, ui: UI) -> None:
    deploy_saving(stack, "back", target={"kind": "files", "path": "o.csv", "file_format": "csv"})
    form = ui.form("saving/back")

    form.open()
    assert form.value("target", "Target") == "files"
    form.choose_tab("Dataset on disk", "target")
    sent = stack.run(form.submit())["parameters"]["target"]

    assert (sent["kind"], sent["path"]) == ("disk", "out")
