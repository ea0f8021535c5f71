"""`resubmit-failed-rows`: the failed rows of a deployed run once more, by a new run of its deployment."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from tasks.steps import failure_in
from tests.conftest import wait_for
from tests.integration.stack import Stack, waits_for_batches

TEXT_GENERATION = "text-generation/text-generation"
RESUBMIT = "resubmit-failed-rows/resubmit-failed-rows"
ROWS = 12
BAD = (3, 7, 8)
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def prompts_of(subject: str) -> list[str]:
    return [f"Tell about {subject}, number {number}." for number in range(ROWS)]


def parameters_for(stack: Stack, subject: str, out: Path, **more: Any) -> dict[str, Any]:
    rows = [{"instruction": prompt} for prompt in prompts_of(subject)]
    return {
        "source": {"data_files": str(stack.source(subject.replace(" ", "-"), rows))},
        "target": {"path": str(out)},
        "max_failed_rows": 0.5,
        **more,
    }


def refuse(stack: Stack, *numbers: int) -> None:
    """The provider refuses these rows for good; all others are answered."""
    rules = [{"match": f"number {number}\\.", "status": 400, "message": f"no {number}"} for number in numbers]
    stack.provider.set(faults=rules)


def resubmit(stack: Stack, run: str, **more: Any) -> str:
    """Have a run's failed rows asked again. Returns the new run's id."""
    flow_run = stack.start(RESUBMIT, {"run_id": run, **more})
    done = stack.wait(flow_run)
    (link,) = wait_for(
        lambda: [each for each in stack.artifacts(flow_run) if each["key"] == "resubmitted"],
        what="the link to the run",
    )
    (started,) = set(re.findall(UUID, done["state"]["message"])) - {run}
    assert started in json.dumps(link["data"])
    assert f"({run})" in done["state"]["message"]
    wait_for(lambda: any(started in line for line in stack.logs(flow_run)), what="the log line")
    return started


def check_whole(out: Path, subject: str) -> None:
    dataset = load_from_disk(str(out))
    assert dataset["instruction"][:] == prompts_of(subject)
    assert [failure_in(row) for row in dataset] == [None] * ROWS
    assert all(dataset["generation"][:])


def failed_in(out: Path) -> list[int]:
    return [place for place, row in enumerate(load_from_disk(str(out))) if failure_in(row) is not None]


@pytest.mark.parametrize("use_cache", [True, pytest.param(False, marks=pytest.mark.full)])
def test_online_only_the_failed_rows_are_asked_again_and_the_dataset_is_whole(
    stack: Stack, tmp_path: Path, use_cache: bool
) -> None:
    subject, out = f"rows that fail online {use_cache}", tmp_path / "out"
    refuse(stack, *BAD)
    run = stack.start(TEXT_GENERATION, parameters_for(stack, subject, out, use_cache=use_cache))
    stack.wait(run)
    assert failed_in(out) == list(BAD)
    answered = load_from_disk(str(out))["generation"][:]
    (table,) = [each for each in stack.artifacts(run) if each["key"] == "failed-rows"]
    rows = json.loads(table["data"])
    assert [(row["step"], row["row"], row["text"]) for row in rows] == [
        ("text_generation", number, prompts_of(subject)[number]) for number in BAD
    ]
    assert [row["error"] for row in rows] == ["BadRequestError"] * 3
    assert [f"no {number}" in row["message"] for number, row in zip(BAD, rows, strict=True)] == [True] * 3
    assert table["description"] == "Rows that failed: all 3"
    refuse(stack)
    stack.provider.clear()

    started = resubmit(stack, run)
    stack.wait(started)

    assert f"resubmits:{run}" in stack.run(started)["tags"]
    assert stack.run(started)["parameters"] == stack.run(run)["parameters"]
    assert sorted(stack.asked(None)) == [prompts_of(subject)[number] for number in BAD]
    check_whole(out, subject)
    again = load_from_disk(str(out))["generation"][:]
    assert [again[place] for place in range(ROWS) if place not in BAD] == [
        answered[place] for place in range(ROWS) if place not in BAD
    ]
    # A run that takes long shows its progress, too.
    keys = [each["key"] for each in stack.artifacts(started)]
    assert [key for key in keys if not key.startswith("progress-")] == ["run-report"]


@pytest.mark.parametrize("use_cache", [pytest.param(True, marks=pytest.mark.full), False])
def test_offline_only_the_failed_rows_go_into_another_job_and_the_dataset_is_whole(
    stack: Stack, tmp_path: Path, use_cache: bool
) -> None:
    subject, out = f"rows that fail offline {use_cache}", tmp_path / "out"
    offline = {"llm": {"use_offline_batch_generation": True}}
    stack.provider.set(batch_seconds=0.1, batch_order={"bad": list(BAD), "status": 400, "message": "no"})
    run = stack.start(
        TEXT_GENERATION, parameters_for(stack, subject, out, text_generation=offline, use_cache=use_cache)
    )
    stack.wait(run)
    assert failed_in(out) == list(BAD)
    stack.provider.set(batch_order={})

    started = resubmit(stack, run)
    stack.wait(started)

    assert [job["request_counts"]["total"] for job in stack.provider.batches] == [ROWS, len(BAD)]
    check_whole(out, subject)
    assert not list((stack.storage / "waits").glob(f"{started}*"))
    # What the first run paid for isn't counted as the second's.
    report = next(each["data"] for each in stack.artifacts(started) if each["key"] == "run-report")
    assert f"| {ROWS} ({len(BAD)}) |" in report


def test_a_run_that_failed_is_completed_in_turns_each_asking_for_what_the_one_before_left(
    stack: Stack, tmp_path: Path
) -> None:
    subject, out = "rows that fail twice", tmp_path / "out"
    refuse(stack, *BAD)
    run = stack.start(TEXT_GENERATION, parameters_for(stack, subject, out, use_cache=False, max_failed_rows=0))
    assert stack.wait_for_end(run)["state"]["message"].startswith("TooManyFailedRowsError: ")
    refuse(stack, 7)

    second = resubmit(stack, run)
    assert stack.wait_for_end(second)["state"]["message"].startswith("TooManyFailedRowsError: ")
    third = resubmit(stack, second, max_failed_rows=2)
    assert stack.wait_for_end(third)["state"]["type"] == "COMPLETED"
    assert failed_in(out) == [7]
    stack.provider.clear()
    refuse(stack)
    last = resubmit(stack, third, parameters={"text_generation": {"llm": {"max_retries": 1}}})
    stack.wait(last)

    assert stack.asked(None) == [prompts_of(subject)[7]]
    check_whole(out, subject)
    tags = [[tag for tag in stack.run(each)["tags"] if "resubmits" in tag] for each in (second, third, last)]
    assert tags == [[f"resubmits:{run}"]] * 3
    assert stack.run(third)["parameters"]["max_failed_rows"] == 2
    assert stack.run(last)["parameters"]["text_generation"] == {"llm": {"max_retries": 1}}


def test_a_run_that_crashed_while_its_job_was_open_is_completed_with_the_answers_of_that_job(
    stack: Stack, tmp_path: Path
) -> None:
    subject, out = "a run that crashed", tmp_path / "out"
    stack.provider.set(batch_manual=True)
    offline = {"llm": {"use_offline_batch_generation": True}}
    parameters = parameters_for(stack, subject, out, text_generation=offline, use_cache=False)
    run = stack.start(TEXT_GENERATION, parameters, STILLFLOW_POLL_SECONDS="3600")
    wait_for(lambda: waits_for_batches(stack.run(run)["state"]), what="the waiting")

    going = stack.wait_for_end(stack.start(RESUBMIT, {"run_id": run}))
    stack.call("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CRASHED"}, "force": True})
    started = resubmit(stack, run)
    wait_for(lambda: waits_for_batches(stack.run(started)["state"]), what="the waiting")
    twice = stack.wait_for_end(stack.start(RESUBMIT, {"run_id": run}))
    (job,) = stack.provider.batches
    stack.provider.end_batch(job["id"])
    stack.call("POST", f"/flow_runs/{started}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}})
    stack.wait(started)

    assert going["state"]["message"].startswith("ResubmitError: ")
    assert f"({run}) is still going" in going["state"]["message"]
    assert f"({started}) is completing the rows of" in twice["state"]["message"]
    assert stack.run(started)["job_variables"] == stack.run(run)["job_variables"]
    assert len(stack.provider.batches) == 1
    check_whole(out, subject)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"run_id": "my run"}, "run_id='my run' is no id of a flow run; it's at the end of the run's page's address"),
        ({"run_id": str(uuid.uuid4())}, "Prefect has no flow run "),
    ],
)
def test_a_run_that_is_not_there_is_said_to_be_so(stack: Stack, given: dict[str, str], message: str) -> None:
    state = stack.wait_for_end(stack.start(RESUBMIT, given))["state"]

    assert (state["type"], state["name"]) == ("FAILED", "Failed")
    assert state["message"].startswith(f"ResubmitError: {message}")


def test_a_run_without_a_deployment_and_a_parameter_that_there_is_not_are_said_to_be_so(
    stack: Stack, tmp_path: Path
) -> None:
    flow = stack.deployment(TEXT_GENERATION)["flow_id"]
    alone = stack.call("POST", "/flow_runs/", {"flow_id": flow, "state": {"type": "COMPLETED"}})["id"]
    deployment = stack.deployment(TEXT_GENERATION)["id"]
    body = {"parameters": {}, "state": {"type": "SCHEDULED", "state_details": {"scheduled_time": "2040-01-01T00:00Z"}}}
    deployed = stack.call("POST", f"/deployments/{deployment}/create_flow_run", body)["id"]
    stack.call("POST", f"/flow_runs/{deployed}/set_state", {"state": {"type": "FAILED"}, "force": True})
    before = len(stack.runs(TEXT_GENERATION))

    no_deployment, no_name, no_fit = (
        stack.wait_for_end(stack.start(RESUBMIT, given))["state"]["message"]
        for given in (
            {"run_id": alone},
            {"run_id": deployed, "parameters": {"max_failed_row": 3}},
            {"run_id": deployed, "parameters": {"text_generation": {"llm": {"modle": "x"}}}},
        )
    )

    assert "was not started from a deployment" in no_deployment
    assert "max_failed_rows" in no_name
    assert "doesn't take the parameters" in no_fit
    assert "text_generation.llm" in no_fit
    assert len(stack.runs(TEXT_GENERATION)) == before
