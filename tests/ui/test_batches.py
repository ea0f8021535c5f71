"""Offline batches as people handle them in Prefect's UIs: look, retry, approve, cancel.

From the form to the rows, in V2, they are handled by the first journey in test_journeys.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from tests.conftest import wait_for
from tests.integration.stack import Stack, processes_with
from tests.integration.test_batches import asked, waiting, wake
from tests.ui.conftest import V1_ALONE_AT_NIGHT
from tests.ui.pages import UI

TEXT_GENERATION = "text-generation/text-generation"


@pytest.fixture
def stack(stack: Stack) -> Stack:
    stack.provider.set(batch_manual=True, answers={r"number (?P<number>\d+)": "All about {number}."})
    return stack


def parameters_for(ui: UI, subject: str, out: Path, **more: Any) -> dict[str, Any]:
    stack, subject = ui.stack, f"{subject} in {type(ui).__name__}"
    rows = [{"instruction": f"{subject}: tell me about number {number}."} for number in range(12)]
    return {
        "source": {"data_files": str(stack.source(subject.replace(" ", "-"), rows))},
        "text_generation": {"llm": {"use_offline_batch_generation": True}},
        "target": {"path": str(out)},
        **more,
    }


def check(out: Path) -> None:
    assert load_from_disk(str(out))["generation"][:] == [f"All about {number}." for number in range(12)]


@V1_ALONE_AT_NIGHT
def test_a_run_whose_batch_refused_rows_is_retried_by_its_button_with_these_rows_alone(
    stack: Stack, ui: UI, screenshot: Callable[[str], None], tmp_path: Path
) -> None:
    parameters = parameters_for(ui, "refused rows", tmp_path / "out", max_failed_rows=0)
    run = stack.start(TEXT_GENERATION, parameters, STILLFLOW_POLL_SECONDS="3600")
    waiting(stack, run)
    ui.open_run(run, "Details")
    ui.page.get_by_text("0 of 1 job done, 0 of 12 requests").first.wait_for()
    screenshot("batch-waiting")
    # While it waits it shows what it did, which it wouldn't under a scheduled state's other names.
    ui.tab("Task Runs").click()
    ui.page.get_by_text("text_generation-job").first.wait_for()
    ui.tab("Artifacts").click()
    ui.page.get_by_text("progress-").first.wait_for()
    ui.open_runs_of(TEXT_GENERATION)
    ui.page.get_by_text(stack.run(run)["name"]).first.wait_for()
    screenshot("batch-waiting-in-the-list")
    (first,) = stack.provider.batches
    stack.provider.end_batch(first["id"], bad=[2, 3, 7], status=400, message="The prompt was refused.", shuffle=True)
    wake(stack, run)
    failed = stack.wait(run, "FAILED")
    assert "3 × text_generation: BadRequestError" in failed["state"]["message"]
    ui.open_run(run, "Artifacts")
    screenshot("batch-failed-artifacts")
    ui.page.get_by_text("progress-").first.click()
    ui.page.get_by_text("completed").first.wait_for()
    screenshot("batch-failed-jobs")
    ui.open_run(run, "Details")
    screenshot("batch-failed")
    ui.open_runs_of(TEXT_GENERATION)
    ui.page.get_by_text(failed["name"]).first.wait_for()
    screenshot("batch-failed-in-the-list")
    ui.open_run(run)

    ui.retry()
    second = wait_for(lambda: stack.provider.batches[1:], what="the job of the failed rows")[0]
    assert [re.findall(r"\d+", text)[-1] for text in asked(stack, second)] == ["2", "3", "7"]
    waiting(stack, run)
    stack.provider.end_batch(second["id"])
    wake(stack, run)
    stack.wait(run, past=failed["state"]["id"])
    check(tmp_path / "out")
    ui.open_run(run)
    screenshot("batch-retried-logs")


def test_a_costly_run_online_waits_for_approval_and_goes_on_when_it_is_given(
    stack: Stack, ui: UI, screenshot: Callable[[str], None], tmp_path: Path
) -> None:
    parameters = parameters_for(ui, "approval", tmp_path / "out", approve_cost_above=0.01)
    parameters["text_generation"]["llm"]["use_offline_batch_generation"] = False
    run = stack.start(TEXT_GENERATION, parameters)
    stack.wait(run, "PAUSED")
    assert stack.provider.batches == stack.sent() == []
    wait_for(lambda: not processes_with("PREFECT__FLOW_RUN_ID", run), what="the end of the run's process")
    ui.open_run(run)
    screenshot("online-suspended")
    dialog = ui.resume()
    dialog.get_by_text("text_generation: 12 requests, about").first.wait_for()
    screenshot("online-resume-form")
    ui.give(run)

    stack.wait(run)
    check(tmp_path / "out")


def test_a_run_that_waits_is_cancelled_by_its_button(
    stack: Stack, ui: UI, screenshot: Callable[[str], None], tmp_path: Path
) -> None:
    parameters = parameters_for(ui, "cancelled while it waits", tmp_path / "out")
    # A model of its own: the job that stays open is no other test's.
    parameters["text_generation"]["llm"]["model"] = f"cancelled in {type(ui).__name__}"
    run = stack.start(TEXT_GENERATION, parameters, STILLFLOW_POLL_SECONDS="3600")
    waiting(stack, run)
    ui.open_run(run)
    ui.cancel()
    stack.wait(run, "CANCELLED")
    ui.open_run(run)
    screenshot("batch-cancelled")
