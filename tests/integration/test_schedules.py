"""Schedules make runs that complete, and stay as people left them; what `prefect deploy` would eat is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from datasets import load_from_disk

from tests.conftest import LONGEST, wait_for
from tests.integration.stack import POOL, Stack, kill_all

TEXT_GENERATION = "text-generation/text-generation"
WEEKLY = "preference/preference-weekly"
EVERY_MINUTE = {"cron": "* * * * *", "timezone": "Etc/UTC"}
ONCE_A_YEAR = {"cron": "0 0 1 1 *", "timezone": "Etc/UTC"}


def add_schedule(stack: Stack, deployment: str, schedule: dict[str, Any], **more: Any) -> str:
    """Add a schedule that is on, as the form on a deployment's page does. Returns its id."""
    path = f"/deployments/{stack.deployment(deployment)['id']}/schedules"
    return stack.call("POST", path, [{"schedule": schedule, "active": True, **more}])[0]["id"]


def switch(stack: Stack, deployment: str, schedule: str, *, on: bool) -> None:
    """Switch a schedule, as the deployment's page does."""
    path = f"/deployments/{stack.deployment(deployment)['id']}/schedules/{schedule}"
    stack.call("PATCH", path, {"active": on})


def delete_schedule(stack: Stack, deployment: str, schedule: str) -> None:
    stack.call("DELETE", f"/deployments/{stack.deployment(deployment)['id']}/schedules/{schedule}")


def check_that_a_cron_makes_a_run_that_completes(stack: Stack, out: Path) -> None:
    """Switch on a cron of every minute, and wait for its first run's dataset, in a folder of that day and run."""
    rows = [{"instruction": f"Say something by the clock, number {number}."} for number in range(3)]
    parameters = {
        "source": {"data_files": str(stack.source("by-the-clock", rows))},
        "target": {"path": f"{out}/{{date}}-{{run}}"},
    }
    before = {run["id"] for run in stack.runs(TEXT_GENERATION)}
    schedule = add_schedule(stack, TEXT_GENERATION, EVERY_MINUTE, parameters=parameters)

    def started() -> list[dict[str, Any]]:
        new = [run for run in stack.runs(TEXT_GENERATION) if run["id"] not in before]
        return [run for run in new if run["state"]["type"] != "SCHEDULED" and "auto-scheduled" in run["tags"]]

    (run, *_) = wait_for(started, seconds=600, what="a run by the schedule")
    # The runs of the next hour are at the server already: they go with their schedule.
    delete_schedule(stack, TEXT_GENERATION, schedule)
    done = stack.wait(run["id"])

    day = done["expected_start_time"].partition("T")[0]
    dataset = load_from_disk(str(out / f"{day}-{run['id'][:8]}"))
    assert dataset["instruction"][:] == [row["instruction"] for row in rows]
    assert all(dataset["generation"][:])


def test_a_cron_that_is_switched_on_makes_a_run_that_completes(stack: Stack, tmp_path: Path) -> None:
    check_that_a_cron_makes_a_run_that_completes(stack, tmp_path / "out")


def schedules_of(stack: Stack, deployment: str) -> dict[str, bool]:
    """Whether each schedule of a deployment is on, by its cron."""
    return {each["schedule"]["cron"]: each["active"] for each in stack.deployment(deployment)["schedules"]}


def deploy_weekly(stack: Stack) -> None:
    stack.deploy("preference-weekly")


@contextmanager
def served(stack: Stack) -> Iterator[None]:
    """What `make ui` does where a server runs: all deployments served by one process, until Ctrl+C."""
    mark = uuid4().hex
    server = stack.process("ui", [sys.executable, "-m", "deployments.ui"], SERVED_BY=mark)
    try:
        with server:
            server.wait_for_output("Your deployments are being served", seconds=LONGEST)
            yield
    finally:
        kill_all("SERVED_BY", mark)


def test_what_people_switched_or_added_stays_so_over_deploy_and_make_ui(stack: Stack) -> None:
    (schedule,) = stack.deployment(WEEKLY)["schedules"]
    assert (schedule["slug"], schedule["active"]) == ("weekly", False)
    added = add_schedule(stack, WEEKLY, ONCE_A_YEAR)
    try:
        switch(stack, WEEKLY, schedule["id"], on=True)
        left = {"0 6 * * 1": True, "0 0 1 1 *": True}
        deploy_weekly(stack)
        assert schedules_of(stack, WEEKLY) == left
        for _ in range(2):
            with served(stack):
                assert schedules_of(stack, WEEKLY) == left
                # At its end Prefect pauses what it served.
                assert stack.deployment(WEEKLY)["paused"] is False

        switch(stack, WEEKLY, schedule["id"], on=False)
        switch(stack, WEEKLY, added, on=False)
        deploy_weekly(stack)
        assert schedules_of(stack, WEEKLY) == {"0 6 * * 1": False, "0 0 1 1 *": False}
        assert stack.deployment(WEEKLY)["paused"] is False
    finally:
        delete_schedule(stack, WEEKLY, added)
        stack.forget_served()


def test_a_schedule_from_before_it_had_a_slug_is_taken_for_ours_and_not_doubled(stack: Stack) -> None:
    (schedule,) = stack.deployment(WEEKLY)["schedules"]
    delete_schedule(stack, WEEKLY, schedule["id"])
    add_schedule(stack, WEEKLY, {"cron": "0 6 * * 1", "timezone": "Etc/UTC"})

    deploy_weekly(stack)

    (schedule,) = stack.deployment(WEEKLY)["schedules"]
    assert (schedule["slug"], schedule["active"]) == ("weekly", True)
    switch(stack, WEEKLY, schedule["id"], on=False)


def own_file(stack: Stack, template: str) -> Path:
    """A prefect.yaml with one deployment, whose prompt is a template."""
    deployment = {
        "name": "german",
        "entrypoint": "flows.text_generation:text_generation",
        "work_pool": {"name": POOL},
        "parameters": {"text_generation": {"template": template}},
    }
    file = stack.clone / "german.yaml"
    file.write_text(yaml.safe_dump({"name": "german", "deployments": [deployment]}))
    return file


@pytest.fixture
def german(stack: Stack) -> Any:
    yield "text-generation/german"
    for found in stack.call("POST", "/deployments/filter", {"deployments": {"name": {"any_": ["german"]}}}):
        stack.call("DELETE", f"/deployments/{found['id']}")


def test_a_prompt_that_deploy_eats_is_refused_with_the_way_out(stack: Stack, german: str) -> None:
    file = own_file(stack, "Translate into German: {{ instruction }}")

    said = stack.prefect("deploy", "--all", "--prefect-file", file.name, "--no-prompt", status=1)

    told = " ".join(said.split())
    assert "'Translate into German: ' does not match" in told
    assert "there prefect deploy takes the first for a value of its own" in told


def test_a_prompt_in_the_form_that_prefect_leaves_alone_is_asked_with_its_rows(
    stack: Stack, german: str, tmp_path: Path
) -> None:
    file = own_file(stack, "Translate into German: {{ (instruction) }}")
    stack.prefect("deploy", "--all", "--prefect-file", file.name, "--no-prompt")
    source = stack.source("german", [{"instruction": "Good morning."}])

    stack.wait(stack.start(german, {"source": {"data_files": str(source)}, "target": {"path": str(tmp_path / "out")}}))

    assert stack.asked() == ["Translate into German: Good morning."]


def test_a_prompt_with_a_hole_that_got_past_the_server_fails_its_run_before_anything_is_asked(stack: Stack) -> None:
    parameters = {"text_generation": {"template": "Translate {% if instruction %}{% endif %}", "columns": ["category"]}}

    run = stack.start(TEXT_GENERATION, parameters)
    state = stack.wait(run, "FAILED")["state"]

    assert state["message"].startswith("ParameterError: text_generation: the template 'Translate ")
    assert "write {{ (category) }}" in state["message"]
    assert stack.asked(None) == []
