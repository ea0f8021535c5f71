"""Offline batches of deployed runs: a real server, a real worker, and jobs that end when they are told to."""

from __future__ import annotations

import datetime
import re
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from datasets import load_from_disk

from flows.ledger.records import Jobs, RunNote
from flows.store.storage import storage_at
from tests.conftest import LONGEST, prefect_server, wait_for
from tests.integration.stack import POOL, PREFECT, Stack, kill_all, processes_with, stack_on, waits_for_batches

TEXT_GENERATION = "text-generation/text-generation"
EVERY = {r"(number|about) (?P<number>\d+)": "All about {number}."}
STEPS = """
import os
import signal
from pathlib import Path

import flows.engine.batching
from flows import Pipeline
from flows.ledger.jobs import Jobs
from llms import OpenAILLM
from tasks import LoadDataFromDicts, SaveToDisk, TextGeneration


def asked(name, column="instruction"):
    return TextGeneration(
        name=name,
        llm=OpenAILLM(model="gpt-4o-mini", use_offline_batch_generation=True),
        template="{{ instruction }}" if column == "instruction" else "Again: {{ " + column + " }}",
        columns=[column],
        output_mappings={"generation": name, "model_name": "model_" + name},
    )


def rows(count):
    data = [{"instruction": f"Tell me about number {number}."} for number in range(count)]
    return LoadDataFromDicts(name="source", data=data)


def saved(name):
    return SaveToDisk(name="save_" + name, path="OUT/" + name)

"""
THREE = """
with Pipeline(name="three-offline", shard_rows=20) as pipeline:
    source, first, second, beside = rows(50), asked("first"), asked("second", "first"), asked("beside")
    source >> first >> second >> saved("second")
    source >> beside >> saved("beside")
"""
ENDINGS = """
with Pipeline(name="endings", shard_rows=20) as pipeline:
    source = rows(50)
    for name in ("failed", "expired", "bad", "shuffled", "cancelled"):
        step = asked(name)
        source >> step >> saved(name)
"""
ALONE = """
with Pipeline(name="NAME", shard_rows=20) as pipeline:
    step = asked("NAME")
    rows(50) >> step >> saved("NAME")
"""
QUOTA = """
with Pipeline(name="quota", shard_rows=20) as pipeline:
    source, one, two = rows(50), asked("one"), asked("two")
    source >> one >> saved("one")
    source >> two >> saved("two")
"""
MORTAL = """
def here(name):
    file = Path("kill-at")
    if file.exists() and file.read_text() == name:
        file.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def around(owner, name, before="", after=""):
    inner = getattr(owner, name)

    async def outer(self, *arguments):
        here(before)
        value = await inner(self, *arguments)
        here(after)
        return value

    setattr(owner, name, outer)


around(OpenAILLM, "create_job", "before create", "between create and record")
around(OpenAILLM, "job_status", after="polling")
results, end = OpenAILLM.job_results, Jobs.end


async def mortal_results(self, job_id):
    async for result in results(self, job_id):
        yield result
        here("downloading")


def mortal_end(self, record):
    here("between download and record")
    end(self, record)


OpenAILLM.job_results, Jobs.end = mortal_results, mortal_end
# A provider on this machine knows a job at once.
flows.engine.batching.INTENT_SECONDS = 1.0

with Pipeline(name="mortal", shard_rows=20) as pipeline:
    step = asked("mortal")
    rows(50) >> step >> saved("mortal")
"""
POINTS = ["before create", "between create and record", "polling", "downloading", "between download and record"]
DEPLOY = f"""
if __name__ == "__main__":
    pipeline.deploy("batches", work_pool_name="{POOL}")
"""


def deployed(stack: Stack, name: str, pipeline: str, out: Path, deploy: str = DEPLOY) -> str:
    """Deploy a pipeline from a script of its own in the clone. Returns the deployment's name."""
    file = stack.clone / f"{name.replace('-', '_')}.py"
    file.write_text(STEPS.replace("OUT", str(out)) + pipeline + deploy)
    stack.command([stack.python, file.name])
    return f"{name}/batches"


def waiting(stack: Stack, run: str, *, seconds: float = LONGEST, past: str = "") -> dict[str, Any]:
    """Wait until the run waits for its batches."""
    end = time.monotonic() + seconds
    while True:
        state = stack.run(run)["state"]
        if waits_for_batches(state) and state["id"] != past:
            return state
        if state["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} or time.monotonic() > end:
            pytest.fail(stack.story(run, "didn't wait for its batches"))
        time.sleep(0.1)


def jobs_of(stack: Stack) -> dict[str, list[dict[str, Any]]]:
    """The jobs at the provider, by step."""
    found: dict[str, list[dict[str, Any]]] = {}
    for job in stack.provider.batches:
        found.setdefault(job["metadata"]["step"], []).append(job)
    return found


def asked(stack: Stack, job: dict[str, Any]) -> list[str]:
    """The prompts of a job."""
    with urllib.request.urlopen(f"{stack.provider.base_url}/files/{job['input_file_id']}/content") as answer:
        lines = [orjson.loads(line) for line in answer.read().splitlines()]
    return [line["body"]["messages"][-1]["content"] for line in lines]


def check(path: Path, column: str, count: int = 50) -> None:
    """Every row is there, in order, with its own answer."""
    dataset = load_from_disk(str(path))
    assert dataset["instruction"][:] == [f"Tell me about number {number}." for number in range(count)]
    assert dataset[column][:] == [f"All about {number}." for number in range(count)]


def retry(stack: Stack, run: str) -> None:
    """What the UI's Retry does."""
    stack.call("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}})


def wake(stack: Stack, run: str) -> None:
    """What the watcher does."""
    now = datetime.datetime.now(datetime.UTC).isoformat()
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "state_details": {"scheduled_time": now}}
    stack.call("POST", f"/flow_runs/{run}/set_state", {"state": state})


def processes_of(run: str) -> list[int]:
    return processes_with("PREFECT__FLOW_RUN_ID", run)


@pytest.fixture
def stack(stack: Stack) -> Stack:
    stack.provider.set(batch_manual=True, answers=EVERY)
    return stack


def test_a_run_waits_without_a_process_and_goes_on_after_the_worker_and_the_server_were_restarted(
    tmp_path: Path,
) -> None:
    home = tmp_path / "server"
    home.mkdir()
    (tmp_path / "stack").mkdir()
    server = prefect_server(home)
    with server as api, stack_on(api, home / "server.log", tmp_path / "stack", STILLFLOW_POLL_SECONDS="3600") as stack:
        stack.provider.set(batch_manual=True, answers=EVERY)
        (worker,) = stack.processes
        run = stack.start(deployed(stack, "three-offline", THREE, tmp_path), {})
        waiting(stack, run)
        wait_for(lambda: not processes_of(run), what="the end of the run's process", pause=0.02)
        # Nobody may start it again before the provider is done.
        worker.stop()
        assert sorted(jobs_of(stack)) == ["beside", "first"]
        assert processes_of(run) == []
        server.__exit__()
        for job in stack.provider.batches:
            stack.provider.end_batch(job["id"], shuffle=True)
        server.__enter__()
        assert waits_for_batches(stack.run(run)["state"])

        with stack.process("second worker", [PREFECT, "worker", "start", "--pool", POOL]):
            wake(stack, run)
            (second,) = wait_for(lambda: jobs_of(stack).get("second"), what="the job of the second step")
            waiting(stack, run)
            stack.provider.end_batch(second["id"], shuffle=True)
            wake(stack, run)
            stack.wait(run)

        totals = {step: [job["request_counts"]["total"] for job in jobs] for step, jobs in jobs_of(stack).items()}
        assert totals == {"first": [50], "beside": [50], "second": [50]}
        check(tmp_path / "second", "first")
        check(tmp_path / "second", "second")
        check(tmp_path / "beside", "beside")


def test_the_state_the_artifacts_and_the_task_runs_of_a_run_say_what_it_waits_for(stack: Stack, tmp_path: Path) -> None:
    rows = [{"instruction": f"Say what you wait for, number {number}."} for number in range(30)]
    parameters = {
        "source": {"data_files": str(stack.source("waits", rows))},
        "text_generation": {"llm": {"use_offline_batch_generation": True}},
        "target": {"path": str(tmp_path / "out")},
    }
    run = stack.start(TEXT_GENERATION, parameters, STILLFLOW_POLL_SECONDS="3600")
    state = waiting(stack, run)
    (job,) = stack.provider.batches

    assert state["type"] == "SCHEDULED"
    assert state["message"].startswith("waiting for batches: 0 of 1 job done, 0 of 30 requests, next poll ")
    (progress,) = stack.artifacts(run)
    assert progress["data"].startswith(f"**Waiting for batches:** {state['message'].partition(': ')[2]}.")
    assert "| text_generation | 0 of 30 |" in progress["data"]
    assert job["id"] in progress["data"]
    # A run's last lines are sent when its process ends, which may be after the state that it leaves.
    wait_for(lambda: any(progress["id"] in line for line in stack.logs(run)), what="the log's link to the artifact")
    assert job["metadata"]["flow_run"] == run
    name = stack.run(run)["name"]

    wait_for(lambda: not processes_of(run), what="the end of the run's process")
    stack.provider.end_batch(job["id"])
    # A shorter wait isn't told.
    time.sleep(1)
    wake(stack, run)
    done = stack.wait(run)
    assert ", 30 rows, " in name
    assert done["name"] == name
    assert done["state"]["message"].startswith("30 rows, none failed, ")
    artifacts = {each["id"]: each["data"] for each in stack.artifacts(run)}
    assert len(artifacts) == 2
    took = r"Done in (\d+\.\d s|\d+ min)\. For \d+ (s|min) of it no process was at work: it waited\."
    assert re.match(took, artifacts[progress["id"]])
    assert "| text_generation | 30 of 30 |" in artifacts[progress["id"]]
    assert "| completed | 30 | 0 | 30 |" in artifacts[progress["id"]]
    # The server takes them from events, which it may be behind with.
    wanted = {("text_generation-job", "Submitted"), ("text_generation-0", "Completed")}
    wait_for(
        lambda: wanted <= {(each["name"], each["state"]["name"]) for each in stack.task_runs(run) if each["state"]},
        what="the task runs of the job and of its rows",
    )


def test_however_its_jobs_end_every_row_is_right_and_only_missing_rows_are_submitted_again(
    stack: Stack, tmp_path: Path
) -> None:
    run = stack.start(deployed(stack, "endings", ENDINGS, tmp_path), {})
    waiting(stack, run)
    first = {step: jobs[0] for step, jobs in jobs_of(stack).items()}
    assert len(stack.provider.batches) == 5
    bad = [0, 3, 11, 19, 20, 42, 49]
    stack.provider.end_batch(first["failed"]["id"], "fail", message="Something went wrong.")
    stack.provider.end_batch(first["expired"]["id"], "expire", done_fraction=0.5, shuffle=True)
    stack.provider.end_batch(first["bad"]["id"], bad=bad, shuffle=True)
    stack.provider.end_batch(first["shuffled"]["id"], shuffle=True)
    stack.provider.end_batch(first["cancelled"]["id"], "cancel", done_fraction=0.2)

    wait_for(lambda: len(stack.provider.batches) == 9, what="the jobs of the missing rows")
    again = {step: jobs[1] for step, jobs in jobs_of(stack).items() if len(jobs) > 1}
    for job in again.values():
        stack.provider.end_batch(job["id"], shuffle=True)
    stack.wait(run)

    for step in first:
        check(tmp_path / step, step)
    counts = {step: len(asked(stack, job)) for step, job in again.items()}
    assert counts == {"failed": 50, "expired": 25, "bad": 7, "cancelled": 40}
    assert asked(stack, again["bad"]) == [f"Tell me about number {number}." for number in bad]
    assert len(stack.provider.batches) == 9


def test_a_run_that_waits_holds_no_slot_and_one_with_the_same_requests_shares_its_jobs(
    stack: Stack, tmp_path: Path
) -> None:
    # The second run could not start if the first one held the only slot.
    one_at_a_time = DEPLOY.replace(f'"{POOL}")', f'"{POOL}", concurrency_limit=1)')
    deployment = deployed(stack, "alone", ALONE.replace("NAME", "alone"), tmp_path, one_at_a_time)
    first = stack.start(deployment, {}, STILLFLOW_POLL_SECONDS="25")
    waiting(stack, first)
    second = stack.start(deployment, {}, STILLFLOW_POLL_SECONDS="25")
    waiting(stack, second)
    (job,) = stack.provider.batches
    stack.provider.end_batch(job["id"])

    stack.wait(first)
    stack.wait(second)

    check(tmp_path / "alone", "alone")
    assert len(stack.provider.batches) == 1


def test_what_a_waiting_runs_job_hasnt_answered_by_its_deadline_is_asked_online(stack: Stack, tmp_path: Path) -> None:
    stack.provider.set(batch_order={"done_fraction": 0.4})
    late = ALONE.replace("NAME", "late").replace("rows(50)", "step.llm.ready_by = 8\n    rows(50)")
    run = stack.start(deployed(stack, "late", late, tmp_path), {}, STILLFLOW_POLL_SECONDS="3600")
    assert "what is missing at " in waiting(stack, run)["message"]
    # The night passes.
    jobs = Jobs(storage_at(str(stack.storage)))

    def sleeps() -> RunNote | None:
        note = jobs.note_of(run)
        return note if waits_for_batches(stack.run(run)["state"]) and not processes_of(run) else None

    note = wait_for(sleeps, what="the end of the run's process")
    jobs.write_note(run, replace(note, attempt_began=note.attempt_began - 9 * 3600))
    wake(stack, run)
    wait_for(lambda: stack.provider.batches[0]["status"] == "cancelled", what="the end of the job")
    waiting(stack, run)
    wait_for(lambda: not processes_of(run), what="the end of the run's process")
    wake(stack, run)

    stack.wait(run)

    check(tmp_path / "late", "late")
    (job,) = stack.provider.batches
    assert job["status"] == "cancelled"
    assert len([each for each in stack.sent() if each.path == "/chat/completions"]) == 30


def test_a_served_run_waits_and_goes_on_as_well(stack: Stack, tmp_path: Path) -> None:
    script = stack.clone / "served_batches.py"
    served = ALONE.replace("NAME", "served")
    serve = DEPLOY[: DEPLOY.index("pipeline.deploy")] + 'pipeline.serve("served")\n'
    script.write_text(STEPS.replace("OUT", str(tmp_path)) + served + serve)
    mark = uuid4().hex
    try:
        with stack.process("served batches", [sys.executable, script.name], SERVED_BY=mark) as process:
            process.wait_for_output("is being served")
            run = stack.start("served/served", {})
            waiting(stack, run)
            (job,) = stack.provider.batches
            stack.provider.end_batch(job["id"])
            stack.wait(run)
    finally:
        kill_all("SERVED_BY", mark)

    check(tmp_path / "served", "served")
    assert len(stack.provider.batches) == 1


def test_a_job_that_the_providers_quota_refuses_is_submitted_when_another_one_ends(
    stack: Stack, tmp_path: Path
) -> None:
    stack.provider.set(batch_token_quota=4_000)
    run = stack.start(deployed(stack, "quota", QUOTA, tmp_path), {})
    queued = "50 requests wait until the provider takes them"
    wait_for(lambda: queued in (stack.run(run)["state"]["message"] or ""), what="the waiting for room")
    assert sorted(job["status"] for job in stack.provider.batches) == ["failed", "in_progress"]
    (first,) = (job for job in stack.provider.batches if job["status"] == "in_progress")
    stack.provider.end_batch(first["id"])

    (_, _, second) = wait_for(
        lambda: len(stack.provider.batches) == 3 and stack.provider.batches, what="the second job"
    )
    wait_for(lambda: stack.provider.batches[2]["status"] == "in_progress", what="its validation")
    stack.provider.end_batch(second["id"])
    stack.wait(run)

    check(tmp_path / "one", "one")
    check(tmp_path / "two", "two")


def ends_told(stack: Stack) -> int:
    """How often the worker itself told of a run's process that didn't end well."""
    log = (stack.folder / "worker.log").read_text(encoding="utf-8", errors="replace")
    return sum("prefect.flow_runs.worker" in line and "exceeded its memory" in line for line in log.splitlines())


def test_a_run_that_is_killed_at_every_point_and_retried_submits_nothing_twice_and_mixes_up_nothing(
    stack: Stack, tmp_path: Path
) -> None:
    stack.provider.set(batch_manual=False, batch_seconds=0.5, batch_order={"shuffle": True})
    kill_at = stack.clone / "kill-at"
    deployment = deployed(stack, "mortal", MORTAL, tmp_path)
    run, past = "", ""
    for point in POINTS:
        kill_at.write_text(point)
        told = ends_told(stack)
        if run:
            retry(stack, run)
        else:
            run = stack.start(deployment, {})
        stack.wait(run, {"CRASHED"}, past=past)
        # The worker tells of the end of the process as well, later: a retry before that would be taken for crashed.
        wait_for(lambda: not processes_of(run), what="the end of the run's processes")  # noqa: B023 -- called at once
        wait_for(lambda: ends_told(stack) > told, what="what the worker says of the end")  # noqa: B023 -- called at once
        past = stack.run(run)["state"]["id"]
        assert not kill_at.exists(), stack.story(run, f"crashed before {point}")
    retry(stack, run)
    stack.wait(run, past=past)

    check(tmp_path / "mortal", "mortal")
    (job,) = stack.provider.batches
    assert Counter(asked(stack, job)) == Counter(f"Tell me about number {number}." for number in range(50))
