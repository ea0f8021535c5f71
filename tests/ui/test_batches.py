"""Offline batches as people handle them in the Prefect UI: look, retry, approve, cancel."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from playwright.sync_api import Page

from tests.conftest import wait_for
from tests.integration.stack import Stack, processes_with
from tests.integration.test_batches import asked, waiting
from tests.ui.pages import RunForm, cancel, open_run, retry

TEXT_GENERATION = "text-generation/text-generation"


@pytest.fixture
def stack(stack: Stack) -> Stack:
    stack.provider.set(batch_manual=True, answers={r"number (?P<number>\d+)": "All about {number}."})
    return stack


def parameters_for(stack: Stack, subject: str, out: Path, **more: Any) -> dict[str, Any]:
    rows = [{"instruction": f"{subject}: tell me about number {number}."} for number in range(12)]
    return {
        "source": {"data_files": str(stack.source(subject.replace(" ", "-"), rows))},
        "text_generation": {"llm": {"use_offline_batch_generation": True}},
        "target": {"path": str(out)},
        **more,
    }


def check(out: Path) -> None:
    assert load_from_disk(str(out))["generation"][:] == [f"All about {number}." for number in range(12)]


def test_batches_are_switched_on_in_the_form(
    stack: Stack, page: Page, screenshot: Callable[[str], None], tmp_path: Path
) -> None:
    form = RunForm(page, stack, TEXT_GENERATION)
    form.open()
    assert "Offline batches" in page.locator("body").inner_text()
    screenshot("batch-form")


def test_a_run_whose_batch_refused_rows_is_retried_by_its_button_with_these_rows_alone(
    stack: Stack, page: Page, screenshot: Callable[[str], None], tmp_path: Path
) -> None:
    parameters = parameters_for(stack, "refused rows", tmp_path / "out", max_failed_rows=0)
    run = stack.start(TEXT_GENERATION, parameters, STILLFLOW_LOOK_SECONDS="15")
    waiting(stack, run)
    open_run(page, stack, run, "details")
    assert "0 of 1 jobs done, 0 of 12 requests" in page.locator("body").inner_text()
    screenshot("batch-waiting")
    (first,) = stack.provider.batches
    stack.provider.end_batch(first["id"], bad=[2, 3, 7], status=400, message="The prompt was refused.", shuffle=True)
    failed = stack.wait(run, "FAILED", seconds=90)
    assert "3 × text_generation: BadRequestError" in failed["state"]["message"]
    open_run(page, stack, run, "artifacts")
    screenshot("batch-failed-artifacts")
    page.get_by_text("batch-jobs").first.click()
    page.wait_for_timeout(1500)
    screenshot("batch-failed-jobs")
    open_run(page, stack, run, "details")
    screenshot("batch-failed")

    retry(page)
    second = wait_for(lambda: stack.provider.batches[1:], seconds=90, what="the job of the failed rows")[0]
    assert [re.findall(r"\d+", text) for text in asked(stack, second)] == [["2"], ["3"], ["7"]]
    stack.provider.end_batch(second["id"])
    stack.wait(run, seconds=90, past=failed["state"]["id"])
    check(tmp_path / "out")
    open_run(page, stack, run)
    screenshot("batch-retried-logs")


def test_a_costly_run_waits_for_approval_and_goes_on_when_it_is_given(
    stack: Stack, page: Page, screenshot: Callable[[str], None], tmp_path: Path
) -> None:
    run = stack.start(TEXT_GENERATION, parameters_for(stack, "approval", tmp_path / "out", approve_cost_above=0.01))
    stack.wait(run, "PAUSED", seconds=90)
    assert stack.provider.batches == []
    wait_for(lambda: not processes_with("PREFECT__FLOW_RUN_ID", run), seconds=20, what="the end of the run's process")
    open_run(page, stack, run)
    screenshot("batch-suspended")
    page.get_by_role("button", name="Resume", exact=True).first.click()
    page.wait_for_timeout(1500)
    screenshot("batch-resume-form")
    modal = page.locator(".p-modal")
    assert "text_generation: 12 requests, about" in modal.inner_text()
    # On SQLite an answer may be 503, which the user repeats.
    while stack.run(run)["state"]["type"] == "PAUSED":
        modal.get_by_role("button", name="Submit").click()
        page.wait_for_timeout(3000)

    waiting(stack, run)
    (job,) = stack.provider.batches
    stack.provider.end_batch(job["id"])
    stack.wait(run, seconds=90)
    check(tmp_path / "out")


def test_a_run_that_waits_is_cancelled_by_its_button(
    stack: Stack, page: Page, screenshot: Callable[[str], None], tmp_path: Path
) -> None:
    parameters = parameters_for(stack, "cancelled while it waits", tmp_path / "out")
    # A model of its own: the job that stays open is no other test's.
    parameters["text_generation"]["llm"]["model"] = "cancelled"
    run = stack.start(TEXT_GENERATION, parameters, STILLFLOW_LOOK_SECONDS="3600")
    waiting(stack, run)
    open_run(page, stack, run)
    cancel(page)
    stack.wait(run, "CANCELLED", seconds=30)
    open_run(page, stack, run)
    screenshot("batch-cancelled")
