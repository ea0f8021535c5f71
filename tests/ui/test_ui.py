"""Prefect's own UIs in a real browser: the form that starts a run, the run's page, and its Retry button."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_from_disk

from tests.conftest import wait_for
from tests.integration.stack import Stack, processes_with

pytest.importorskip("playwright.sync_api", reason="the Python package 'playwright' isn't installed")

from tests.ui.conftest import IN_BOTH, V1_ALONE_AT_NIGHT, WINDOW
from tests.ui.pages import UI, V2, shown_fields

TEXT_GENERATION = "text-generation/text-generation"
PREFERENCE = "preference/preference"
TWO_SCREENS = 2 * WINDOW["height"]


def prompts(ui: UI, subject: str, count: int = 6) -> list[dict[str, str]]:
    """Prompts that no other test asks: answers are kept, and shared between runs."""
    name = type(ui).__name__
    return [{"instruction": f"In the UI {name}, tell me about {subject} number {number}."} for number in range(count)]


def plain(description: str) -> str:
    """A description as it's read: V1 takes it for Markdown, V2 doesn't."""
    return " ".join(description.replace("`", "").split())


def test_every_form_fits_on_two_screens_and_every_tab_has_a_name_of_its_own(
    stack: Stack, ui: UI, screenshot: Callable[[str], None]
) -> None:
    stack.deploy()
    deployed = sorted(stack.call("POST", "/deployments/filter", {}), key=lambda each: each["name"])
    rows_of_tabs, heights = 0, dict[str, int]()

    for each in deployed:
        flow = stack.call("GET", f"/flows/{each['flow_id']}")["name"]
        form = ui.form(f"{flow}/{each['name']}")
        form.open()
        heights[each["name"]] = form.height()
        for names in form.all_tabs():
            assert all(names), f"{each['name']} has tabs without a name: {names}"
            assert len(set(names)) == len(names), f"{each['name']} has tabs of one name: {names}"
            rows_of_tabs += 1
        if each["name"] in {"embedding-data", "preference", "text-generation"}:
            screenshot(f"tabs-{each['name']}")

    assert rows_of_tabs > 2 * len(deployed)
    # V1's page is more than its form; and other tests deploy flows of their own.
    ready_made = yaml.safe_load((stack.clone / "deployments" / "prefect.yaml").read_text())["deployments"]
    tall = {each["name"]: heights[each["name"]] for each in ready_made if heights[each["name"]] > TWO_SCREENS}
    assert not isinstance(ui, V2) or tall == {}


@pytest.mark.parametrize("deployment", [TEXT_GENERATION, PREFERENCE])
def test_the_form_shows_every_parameter_of_every_step_in_order_with_its_description(
    stack: Stack, ui: UI, screenshot: Callable[[str], None], deployment: str
) -> None:
    form = ui.form(deployment)
    form.open()

    expected = list(shown_fields(form.schema))
    assert form.labels() == [label for label, _ in expected]
    page_text = plain(ui.text())
    assert [text for _, text in expected if plain(text) not in page_text] == []
    screenshot(f"form-{deployment.partition('/')[0]}")


def test_the_form_is_filled_with_the_defaults_of_the_flow(stack: Stack, ui: UI) -> None:
    form = ui.form(PREFERENCE)
    form.open()
    steps = ("text_generation", "ultrafeedback")
    assert [form.tabs(step) for step in steps] == 2 * [["As it is", "Usual settings", "All settings"]]
    assert "LLM" not in form.labels()
    for step in steps:
        form.choose_tab("Usual settings", step)

    assert form.value("source", "Files") == "flows/data/instructions.jsonl"
    assert form.value("text_generation", "LLM", "Model") == "gpt-4o-mini"
    assert form.value("text_generation", "LLM", "Temperature") == "1"
    assert form.value("text_generation", "Answers per row") == "2"
    assert form.value("ultrafeedback", "LLM", "Model") == "gpt-4o"
    assert form.value("ultrafeedback", "LLM", "Temperature") == ""
    assert form.value("target", "Path") == "data/preference"
    providers = ["OpenAI or compatible", "Azure OpenAI", "Anthropic", "Hugging Face", "All settings, any provider"]
    assert form.tabs("text_generation", "LLM") == form.tabs("ultrafeedback", "LLM") == providers
    # What the flow itself sets is shown, though few change it.
    assert form.field("text_generation", "Group answers").count() == 1
    assert form.field("ultrafeedback", "Group answers").count() == 0
    assert form.tabs("source")[0] == "Files"
    assert form.tabs("target")[0] == "Dataset on disk"


def test_a_step_left_closed_runs_as_the_flow_has_it_and_one_that_was_opened_as_it_was_changed(
    stack: Stack, ui: UI, tmp_path: Path
) -> None:
    form = ui.form(PREFERENCE)
    form.open()

    form.fill(str(stack.source("ui-closed", prompts(ui, "steps that are closed"))), "source", "Files")
    form.choose_tab("Usual settings", "ultrafeedback")
    form.fill("gpt-4.1", "ultrafeedback", "LLM", "Model")
    form.fill(str(tmp_path / "out"), "target", "Path")
    run = form.submit()
    stack.wait(run)

    assert "text_generation" not in stack.run(run)["parameters"]
    asked = {(request.body["model"], request.body.get("temperature")) for request in stack.sent()}
    assert asked == {("gpt-4o-mini", 1.0), ("gpt-4.1", None)}
    assert len(load_from_disk(str(tmp_path / "out"))) == 6


def test_what_matters_most_is_at_the_top_of_each_section(stack: Stack, ui: UI) -> None:
    form = ui.form(TEXT_GENERATION)
    form.open()
    labels = form.labels()

    assert labels[:3] == ["source", "Files", "Number of rows"]
    llm = labels.index("LLM")
    assert labels[llm : llm + 4] == ["LLM", "Model", "Credentials", "Generation parameters"]
    assert "Temperature" in labels[llm + 4 : llm + 7]
    hidden = {"File type", "Source", "Address", "Ready by", "Retries", "Top p", "Seed", "Template", "Answers per row"}
    assert not {*hidden, "Input columns", "Overwrite", "Target"} & set(labels)
    assert labels[-5:] == ["use_cache", "max_failed_rows", "approve_cost_above", "finish_online_below", "max_cost"]


@IN_BOTH
def test_a_temperature_a_seed_and_a_top_p_given_in_the_form_arrive_at_the_provider(
    stack: Stack, ui: UI, tmp_path: Path
) -> None:
    rows = prompts(ui, "a changed temperature")
    source = str(stack.source("ui", rows))
    form = ui.form(TEXT_GENERATION)
    form.open()

    form.fill(source, "source", "Files")
    # The form hides a seed, until it's asked for all of them.
    form.choose_tab("All", "text_generation", "LLM", "Generation parameters")
    form.fill("0.35", "text_generation", "LLM", "Temperature")
    form.fill("7", "text_generation", "LLM", "Seed")
    form.fill("0.9", "text_generation", "LLM", "Top p")
    form.fill(str(tmp_path / "out"), "target", "Path")
    run = form.submit()
    stack.wait(run)

    assert len(load_from_disk(str(tmp_path / "out"))) == len(rows)
    bodies = [request.body for request in stack.sent()]
    assert {(body["temperature"], body["seed"], body["top_p"]) for body in bodies} == {(0.35, 7, 0.9)}
    # Fields that were left alone add nothing: it's what any other way of starting the run sends.
    assert {name for body in bodies for name in body} == {"model", "messages", "temperature", "seed", "top_p"}


def test_a_form_left_alone_finds_the_answers_of_a_run_that_was_started_otherwise(
    stack: Stack, ui: UI, tmp_path: Path
) -> None:
    source = str(stack.source("ui-cache", prompts(ui, "answers that are there already")))
    target = {"path": str(tmp_path / "out")}
    stack.wait(stack.start(TEXT_GENERATION, {"source": {"data_files": source}, "target": target}))
    assert len(stack.asked()) == 6
    stack.provider.clear()
    form = ui.form(TEXT_GENERATION)
    form.open()

    form.fill(source, "source", "Files")
    form.fill(target["path"], "target", "Path")
    stack.wait(form.submit())

    assert stack.sent() == []


def test_another_provider_chosen_in_the_form_is_the_one_that_is_asked(
    stack: Stack, ui: UI, screenshot: Callable[[str], None], tmp_path: Path
) -> None:
    rows = prompts(ui, "another provider")
    form = ui.form(TEXT_GENERATION)
    form.open()

    form.fill(str(stack.source("ui-provider", rows)), "source", "Files")
    form.choose_tab("Hugging Face", "text_generation", "LLM")
    # Prefect shows the description of the chosen tab: a sentence for people, no code of a docstring.
    assert ">>>" not in ui.text()
    form.choose_tab("All settings, any provider", "text_generation", "LLM")
    form.fill("inference-endpoints", "text_generation", "LLM", "Provider")
    form.fill("", "text_generation", "LLM", "Model")
    form.fill(stack.provider.base_url, "text_generation", "LLM", "Address")
    form.fill(str(tmp_path / "out"), "target", "Path")
    screenshot("form-another-provider")
    run = form.submit()
    stack.wait(run)

    assert stack.run(run)["parameters"]["text_generation"]["llm"]["provider"] == "inference-endpoints"
    assert "model" not in stack.run(run)["parameters"]["text_generation"]["llm"]
    assert sorted(stack.asked()) == sorted(row["instruction"] for row in rows)


@V1_ALONE_AT_NIGHT
def test_a_run_whose_provider_went_down_is_retried_by_its_button_without_asking_twice(
    stack: Stack, ui: UI, screenshot: Callable[[str], None], tmp_path: Path
) -> None:
    rows = prompts(ui, "a provider that goes down", 8)
    parameters: dict[str, Any] = {
        "source": {"data_files": str(stack.source("ui-retry", rows))},
        "text_generation": {"llm": {"max_concurrent_requests": 1, "max_retries": 0, "outage_timeout": 5}},
        "target": {"path": str(tmp_path / "out")},
    }
    stack.provider.set(latency=0.3)
    run = stack.start(TEXT_GENERATION, parameters)
    wait_for(lambda: len(stack.asked()) >= 3, what="the third answer", pause=0.05)
    stack.provider.stop()

    failed = stack.wait(run, "FAILED")
    answered = stack.asked()
    assert 3 <= len(answered) < len(rows)
    assert stack.provider.base_url in failed["state"]["message"]
    ui.open_run(run, "Details")
    ui.page.get_by_text("hasn't answered for").first.wait_for()
    screenshot("run-failed")
    ui.open_run(run)
    screenshot("run-failed-logs")

    stack.provider.start()
    stack.provider.set(latency=0.0)
    ui.retry()
    done = stack.wait(run, past=failed["state"]["id"])

    assert done["run_count"] == 2
    assert Counter(stack.asked()) == Counter(row["instruction"] for row in rows)
    dataset = load_from_disk(str(tmp_path / "out"))
    assert dataset["instruction"][:] == [row["instruction"] for row in rows]
    assert all(dataset["generation"][:])
    ui.open_run(run)
    screenshot("run-retried")


def test_a_run_under_way_is_cancelled_by_its_button_and_leaves_nothing_behind(
    stack: Stack, ui: UI, screenshot: Callable[[str], None], tmp_path: Path
) -> None:
    rows = prompts(ui, "a run cancelled in the UI", 4)
    parameters = {
        "source": {"data_files": str(stack.source("ui-cancel", rows))},
        "target": {"path": str(tmp_path / "out")},
    }
    stack.provider.set(latency=120.0)
    run = stack.start(TEXT_GENERATION, parameters)
    wait_for(lambda: stack.provider.stats.in_flight == len(rows), what="the requests")

    ui.open_run(run)
    screenshot("run-running")
    ui.cancel()

    stack.wait(run, "CANCELLED")
    wait_for(lambda: not processes_with("PREFECT__FLOW_RUN_ID", run), what="the end of the run's process")
    wait_for(lambda: stack.provider.stats.in_flight == 0, what="the end of its requests")
    assert not (tmp_path / "out").exists()
    ui.open_run(run)
    screenshot("run-cancelled")
