"""Three newcomers on their ways through Prefect's new UI: by what the pages show, from link to link.

The API is called to set up and to wait alone. The stations one by one, in both UIs, are in the other files.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from datasets import load_from_disk

from tests.conftest import wait_for
from tests.integration.stack import Stack, processes_with
from tests.integration.test_batches import asked, waiting, wake
from tests.viewing import viewed

pytest.importorskip("playwright.sync_api", reason="the Python package 'playwright' isn't installed")

from tests.ui.pages import UI, RunForm

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Locator, Page

TEXT_GENERATION = "text-generation/text-generation"
WEEKLY = "preference/preference-weekly"
pytestmark = pytest.mark.parametrize("ui", ["V2"], indirect=True)


@pytest.fixture
def stack(stack: Stack) -> Stack:
    stack.provider.set(answers={r"number (?P<number>\d+)": "All about {number}."})
    # Seen by people, they are there already.
    for name in (TEXT_GENERATION, WEEKLY):
        stack.deployment(name)
    return stack


def prompts(who: str, count: int) -> list[dict[str, str]]:
    return [{"instruction": f"As {who}, I ask you about number {number}."} for number in range(count)]


def test_a_product_person_starts_approves_waits_retries_and_looks_at_rows_in_the_ui_alone(
    stack: Stack, ui: UI, screenshot: Callable[[str], None], tmp_path: Path
) -> None:
    page, rows, out = ui.page, prompts("a product person", 12), tmp_path / "out"
    source = str(stack.source("product-person", rows))
    stack.provider.set(batch_manual=True)
    with looking_after(stack, "3600"):
        # Start.
        page.goto(stack.ui)
        form = open_form(ui, TEXT_GENERATION)
        form.fill(source, "source", "Files")
        form.field("text_generation", "LLM", "Offline batches").get_by_role("switch").click()
        form.fill(str(out), "target", "Path")
        form.fill("0", "max_failed_rows")
        form.fill("0.01", "approve_cost_above")
        screenshot("product-1-form")
        run = form.submit()

        # Approve.
        stack.wait(run, "PAUSED")
        wait_for(lambda: any("press Resume" in line for line in stack.logs(run)), what="how it's approved")
        wait_for(lambda: not processes_with("PREFECT__FLOW_RUN_ID", run), what="the end of the run's process")
        open_from_the_list(ui, stack.run(run)["name"])
        page.get_by_text("To answer, press Resume on this run's page").wait_for()
        screenshot("product-2-waits-for-approval")
        dialog = ui.resume()
        dialog.get_by_text("text_generation: 12 requests, about").wait_for()
        ui.give(run)

    # Wait.
    waiting(stack, run)
    page.get_by_text("AwaitingRetry").first.wait_for()
    ui.tab("Details").click()
    page.get_by_text("waiting for batches: 0 of 1 job done, 0 of 12 requests").wait_for()
    assert sum("This run would send" in line for line in stack.logs(run)) == 1
    screenshot("product-3-waits-for-the-batch")
    ui.tab("Logs").click()
    with read_as_a_whole(ui), page.expect_popup() as opened:
        # Each of the run's attempts may name it.
        page.get_by_role("link", name="/v2/artifacts/artifact/").last.click()
    progress = opened.value
    progress.get_by_role("heading", name="Batch jobs").wait_for()
    (job,) = stack.provider.batches
    progress.locator("code", has_text=job["id"]).first.wait_for()
    # Nothing of it is under what the page has at its right.
    for each in [*progress.locator("table").all(), progress.locator("code", has_text=job["id"]).first]:
        assert room_beside(progress, each) > place_of(each)["width"]
    progress.close()
    # A run that waits stays in sight.
    open_from_the_list(ui, stack.run(run)["name"], "AwaitingRetry")

    # Some rows are refused.
    stack.provider.end_batch(job["id"], bad=[2, 3, 7], status=400, message="The prompt was refused.")
    wake(stack, run)
    failed = stack.wait(run, "FAILED")
    page.get_by_text("Failed", exact=True).first.wait_for()
    ui.tab("Details").click()
    page.get_by_text("3 of 12 rows failed, max_failed_rows=0 allows 0").wait_for()
    screenshot("product-4-failed")
    ui.tab("Artifacts").click()
    page.get_by_text("failed-rows", exact=True).click()
    reasons = page.get_by_role("cell").filter(has_text="The prompt was refused.")
    reasons.first.wait_for()
    # What one came for is in sight, not beyond the right edge of the table.
    assert room_beside(page, reasons.first) > 300
    screenshot("product-5-failed-rows")

    # Retry.
    page.get_by_role("link", name=failed["name"]).click()
    ui.retry()
    second = wait_for(lambda: stack.provider.batches[1:], what="the job of the failed rows")[0]
    assert [re.findall(r"\d+", text)[-1] for text in asked(stack, second)] == ["2", "3", "7"]
    waiting(stack, run)
    stack.provider.end_batch(second["id"])
    wake(stack, run)
    stack.wait(run, past=failed["state"]["id"])

    # Look at rows.
    open_report(ui)
    page.get_by_role("heading", name="Sample").wait_for()
    shown = re.compile(r"number (?P<number>\d+)\. · generation All about (?P=number)\.")
    wait_for(lambda: len(shown.findall(" ".join(ui.text().split()))) == 10, what="the sample")
    screenshot("product-6-rows")
    assert load_from_disk(str(out))["generation"][:] == [f"All about {number}." for number in range(12)]


def test_an_ml_engineer_goes_from_the_terminal_to_the_runs_page_and_from_its_report_to_all_rows(
    stack: Stack, ui: UI, screenshot: Callable[[str], None], tmp_path: Path
) -> None:
    source = stack.source("ml-engineer", prompts("an ML engineer", 6))
    given = [f"source.data_files={source}", f"target.path={tmp_path / 'my answers'}", "llm.temperature=0.3"]

    said = stack.command([stack.python, "-m", "flows", "run", "text_generation", *given])
    assert '"generation": "All about 0."' in said
    link = re.search(r"^its page: (\S+)$", said, re.MULTILINE)
    assert link is not None, said
    page = ui.page
    page.goto(link[1])
    page.get_by_text("Completed", exact=True).first.wait_for()
    assert page.url.startswith(f"{stack.ui}{ui.base}/runs/flow-run/")
    screenshot("ml-1-run")
    open_report(ui)
    page.get_by_text("All about 5.").first.wait_for()
    screenshot("ml-2-report")
    command = page.locator("code", has_text="python -m flows view").inner_text()

    with viewed(*shlex.split(command)[4:]) as address:
        page.goto(address)
        page.get_by_role("link", name="Row 3").click()
        page.get_by_text("All about 3.").first.wait_for()
        screenshot("ml-3-row")


def switch_schedule(stack: Stack, page: Page, active: bool) -> None:
    """By its switch, which is clicked again where the server was too busy to take it: the page asks it once."""

    def is_switched() -> bool:
        (schedule,) = stack.deployment(WEEKLY)["schedules"]
        if schedule["active"] is not active and switch_that_is(page, not active).is_visible():
            page.get_by_role("switch").click()
        return schedule["active"] is active

    wait_for(is_switched, what="the switched schedule", pause=2)
    switch_that_is(page, active).wait_for()


def switch_that_is(page: Page, on: bool) -> Locator:
    return page.locator(f"[role=switch][data-state={'checked' if on else 'unchecked'}]")


def test_a_data_engineer_switches_a_schedule_and_retries_a_failed_run_which_asks_only_what_is_missing(
    stack: Stack, ui: UI, screenshot: Callable[[str], None], tmp_path: Path
) -> None:
    page, rows, out = ui.page, prompts("a data engineer", 8), tmp_path / "out"
    source = str(stack.source("data-engineer", rows))
    page.goto(stack.ui)
    # Schedule.
    open_deployment(ui, WEEKLY)
    page.get_by_text("At 06:00 AM, only on Monday").wait_for()
    for active in (True, False):
        switch_schedule(stack, page, active)
        screenshot(f"data-1-schedule-{active}")

    # A run fails, once all but one row are answered.
    stack.provider.set(
        faults=[{"match": r"number 5\.", "status": 401, "message": "This key was revoked.", "hang": 3.0}]
    )
    form = open_form(ui, TEXT_GENERATION)
    form.fill(source, "source", "Files")
    form.fill(str(out), "target", "Path")
    run = form.submit()
    failed = stack.wait(run, "FAILED")
    open_from_the_list(ui, failed["name"], "Failed", before=lambda: screenshot("data-2-list"))
    ui.tab("Details").click()
    page.get_by_text("AuthenticationError: the provider refuses the key (401): This key was revoked.").wait_for()
    screenshot("data-3-failed")
    assert len(stack.asked()) == len(rows) - 1

    # Retry, with a key that is taken.
    stack.provider.set(faults=[])
    ui.retry()
    stack.wait(run, past=failed["state"]["id"])
    page.get_by_text("Completed", exact=True).first.wait_for()
    assert Counter(stack.asked()) == Counter(row["instruction"] for row in rows)
    open_report(ui)
    page.get_by_text("All about 5.").first.wait_for()
    screenshot("data-4-report")
    assert load_from_disk(str(out))["instruction"][:] == [row["instruction"] for row in rows]


def open_deployment(ui: UI, name: str) -> None:
    """From whatever page, by the menu and the search."""
    ui.page.get_by_role("link", name="Deployments").first.click()
    deployment = name.partition("/")[2]
    ui.page.get_by_placeholder("Search deployments").fill(deployment)
    # The page searches a moment later by going to an address of its own: that would undo a click before it.
    ui.page.wait_for_url(f"**flowOrDeploymentName={deployment}*")
    ui.page.get_by_role("link", name=deployment, exact=True).first.click()
    ui.page.get_by_role("button", name="Run", exact=True).wait_for()


def open_form(ui: UI, name: str) -> RunForm:
    open_deployment(ui, name)
    ui.page.get_by_role("button", name="Run", exact=True).click()
    ui.page.get_by_role("menuitem", name="Custom run").click()
    form = ui.form(name)
    form.wait_until_filled()
    return form


def open_from_the_list(ui: UI, run: str, state: str = "", before: Callable[[], None] = lambda: None) -> None:
    """A run's page, by the list of all runs; a run of another test may have the same name, and is older."""
    ui.page.get_by_role("link", name="Runs").first.click()
    ui.page.get_by_role("link", name=run, exact=True).first.wait_for()
    if state:
        ui.page.get_by_text(state, exact=True).first.wait_for()
    before()
    ui.page.get_by_role("link", name=run, exact=True).first.click()
    ui.tab("Logs").wait_for()


def open_report(ui: UI) -> None:
    """The report of the run whose page is open, by its card."""
    ui.tab("Artifacts").click()
    ui.page.get_by_text("run-report", exact=True).click()
    ui.page.get_by_role("heading", name="Steps").wait_for()


def room_beside(page: Page, shown: Locator) -> float:
    """Pixels from the left edge of what an artifact's page shows to what it has at its right."""
    return place_of(page.get_by_text("Start time"))["x"] - place_of(shown)["x"]


def place_of(shown: Locator) -> FloatRect:
    """Where it is on the page. It's nowhere for a moment where the page draws it anew."""
    return wait_for(shown.bounding_box, what="something to see")


@contextmanager
def read_as_a_whole(ui: UI) -> Generator[None]:
    """The UI has only those lines of a log on its page that one sees: here all of them."""
    ui.page.set_viewport_size({"width": 1300, "height": 4000})
    yield
    ui.page.set_viewport_size({"width": 1300, "height": 1000})


@contextmanager
def looking_after(stack: Stack, seconds: str) -> Generator[None]:
    """Runs of the deployment look after their jobs so often: one that is looked at isn't to start in between."""
    path = f"/deployments/{stack.deployment(TEXT_GENERATION)['id']}"
    before = stack.deployment(TEXT_GENERATION)["job_variables"]
    stack.call("PATCH", path, {"job_variables": {**before, "env": {"STILLFLOW_POLL_SECONDS": seconds}}})
    try:
        yield
    finally:
        stack.call("PATCH", path, {"job_variables": before})
