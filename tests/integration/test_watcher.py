"""The watcher: it wakes runs when their jobs end, leaves cancelled runs no open job, and does nothing twice."""

from __future__ import annotations

import asyncio
import datetime
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from prefect.client.orchestration import get_client
from prefect.states import Cancelled

from flows.ledger import key_of, opened
from flows.ledger.records import Jobs
from flows.store.storage import storage_at
from flows.waiting.watching import Watched, watch
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from tests.conftest import LONGEST, wait_for
from tests.integration.stack import OVER, Stack, processes_with, waits_for_batches
from tests.integration.waiting_runs import WaitingRuns

TEXT_GENERATION = "text-generation/text-generation"
WATCHER = "watch-batches/watch-batches"
RUNS = 50


@pytest.fixture
def runs(prefect: str, provider: LocalProvider, storage: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder for the files of waiting runs, whose server and provider are real."""
    provider.set(batch_manual=True)
    folder = tmp_path / "files"
    folder.mkdir()
    yield folder


async def waiting_runs(client: Any, count: int, folder: Path) -> WaitingRuns:
    return await WaitingRuns.make(Jobs(storage_at()), client, OpenAILLM(model="gpt-4o-mini"), count, folder)


def is_answered(made: WaitingRuns, place: int) -> bool:
    """Whether the ledger has what a job was asked."""
    (record,) = [each for each in made.records if each.job == made.job_ids[place]]
    return opened(made.jobs.storage, record.space).find(key_of(str(place), 0, 0)) is not None


def test_a_pass_over_many_runs_asks_the_provider_once_and_wakes_those_whose_jobs_ended(
    runs: Path, provider: LocalProvider
) -> None:
    async def go() -> None:
        async with get_client() as client:
            made = await waiting_runs(client, RUNS, runs)
            for place in range(0, RUNS, 2):
                provider.end_batch(made.job_ids[place], "fail" if place == 4 else "complete")
            provider.clear()

            watched = await watch(made.jobs, client)

            assert sorted(watched.woken) == sorted(made.flow_runs[::2])
            assert watched.problems == watched.cancelled == watched.settled == []
            assert [request.path for request in provider.requests] == ["/batches"]
            assert await made.due(made.flow_runs) == [place % 2 == 0 for place in range(RUNS)]
            state = (await client.read_flow_run(made.flow_runs[0])).state
            assert state is not None
            assert state.message == "woken by the watcher: 1 job ended"
            # The runs take their results themselves.
            assert len(made.jobs.all_open()) == RUNS
            assert not is_answered(made, 0)

    asyncio.run(go())


def test_a_second_pass_wakes_nobody_and_writes_nothing(runs: Path, provider: LocalProvider) -> None:
    async def go() -> None:
        async with get_client() as client:
            made = await waiting_runs(client, 5, runs)
            for job in made.job_ids[:3]:
                provider.end_batch(job)
            assert len((await watch(made.jobs, client)).woken) == 3
            before = {path: Path(path).stat().st_mtime_ns for path in every_file(made.jobs)}

            watched = await watch(made.jobs, client)

            assert watched == Watched(runs=2, asked=2)
            assert {path: Path(path).stat().st_mtime_ns for path in every_file(made.jobs)} == before

    asyncio.run(go())


def every_file(jobs: Jobs) -> list[str]:
    return [str(path) for path in Path(jobs.storage.root).rglob("*") if path.is_file()]


def test_a_run_is_woken_for_a_job_of_another_run_and_for_room_in_the_queue(runs: Path, provider: LocalProvider) -> None:
    async def go() -> None:
        async with get_client() as client:
            made = await waiting_runs(client, 3, runs)
            waits = {wait.flow_run: wait for wait in made.jobs.waits()}
            first, second, third = made.flow_runs
            made.jobs.write_wait(replace(waits[second], intents=waits[first].intents))
            made.jobs.write_wait(replace(waits[third], queued=7, intents=[], room=waits[first].intents))
            provider.end_batch(made.job_ids[0])

            watched = await watch(made.jobs, client)

            assert sorted(watched.woken) == sorted(made.flow_runs)
            assert await made.due(made.flow_runs) == [True] * 3

    asyncio.run(go())


def test_jobs_of_cancelled_runs_are_cancelled_and_their_answers_kept_unless_another_run_waits_for_them(
    runs: Path, provider: LocalProvider
) -> None:
    async def go() -> None:
        async with get_client() as client:
            made = await waiting_runs(client, 6, runs)
            open_one, ended, shared, sharing, deleted, alive = made.flow_runs
            waits = {wait.flow_run: wait for wait in made.jobs.waits()}
            made.jobs.write_wait(replace(waits[sharing], intents=[*waits[sharing].intents, *waits[shared].intents]))
            provider.set(batch_order={"done_fraction": 1.0})
            provider.end_batch(made.job_ids[1])
            for run in (open_one, ended, shared):
                await client.set_flow_run_state(run, Cancelled())
            await client.delete_flow_run(deleted)

            watched = await watch(made.jobs, client)

            assert sorted(watched.cancelled) == sorted([made.job_ids[0], made.job_ids[4]])
            assert sorted(watched.settled) == sorted([made.job_ids[0], made.job_ids[1], made.job_ids[4]])
            assert watched.woken == watched.problems == []
            states = {batch["id"]: batch["status"] for batch in provider.batches}
            assert [states[job] for job in made.job_ids] == [
                *("cancelled", "completed", "in_progress"),
                *("in_progress", "cancelled", "in_progress"),
            ]
            assert {record.flow_run for record in made.jobs.all_open()} == {shared, sharing, alive}
            assert {wait.flow_run for wait in made.jobs.waits()} == {shared, sharing, alive}
            assert all(is_answered(made, place) for place in (0, 1, 4))

    asyncio.run(go())


def test_a_run_that_this_server_never_knew_keeps_its_jobs(runs: Path, provider: LocalProvider) -> None:
    async def go() -> None:
        async with get_client() as client:
            made = await waiting_runs(client, 1, runs)
            elsewhere = str(uuid.uuid4())
            (wait,) = made.jobs.waits()
            made.jobs.forget_wait(wait.flow_run)
            made.jobs.write_wait(replace(wait, flow_run=elsewhere, deployment=str(uuid.uuid4())))
            made.jobs.write(replace(made.records[0], flow_run=elsewhere))

            assert await watch(made.jobs, client) == Watched()

            assert [batch["status"] for batch in provider.batches] == ["in_progress"]
            assert len(made.jobs.waits()) == len(made.jobs.all_open()) == 1

    asyncio.run(go())


def test_what_goes_wrong_with_one_job_is_told_by_the_pass_or_by_its_run_and_stops_no_other(
    runs: Path, provider: LocalProvider
) -> None:
    async def go() -> None:
        async with get_client() as client:
            made = await waiting_runs(client, 3, runs)
            records = {record.job: record for record in made.records}
            lost, keyless, good = made.job_ids
            made.jobs.write(replace(records[lost], job="batch_lost"))
            no_key = {**records[keyless].llm, "credentials": "no-such-block"}
            made.jobs.write(replace(records[keyless], llm=no_key))
            provider.end_batch(good)

            watched = await watch(made.jobs, client)

            # A run whose job is gone says so itself, when it looks.
            assert sorted(watched.woken) == sorted([made.flow_runs[0], made.flow_runs[2]])
            (problem,) = watched.problems
            assert "no-such-block" in problem

    asyncio.run(go())


def start(stack: Stack, rows: list[dict[str, str]], target: Path, **step: Any) -> str:
    """A run whose next poll at its jobs is an hour away."""
    parameters = {
        "source": {"data_files": str(stack.source(target.parent.name, rows))},
        "text_generation": {"llm": {"use_offline_batch_generation": True}, **step},
        "target": {"path": str(target)},
    }
    deployment = stack.deployment(TEXT_GENERATION)["id"]
    later = {"env": {"STILLFLOW_POLL_SECONDS": "3600"}}
    body = {"parameters": parameters, "job_variables": later}
    return stack.call("POST", f"/deployments/{deployment}/create_flow_run", body)["id"]


def waiting(stack: Stack, run: str, *, times: int = 1) -> dict[str, Any]:
    """Wait until the run waits for its batches, started so many times, and has no process."""

    def left() -> Any:
        found = stack.run(run)
        return found if waits_for_batches(found["state"]) and found["run_count"] == times else None

    found = wait_for(left, what="the waiting of a run")
    wait_for(lambda: not processes_with("PREFECT__FLOW_RUN_ID", run), what="the end of its process")
    return found


def states(stack: Stack, run: str) -> list[str]:
    return [each["name"] for each in stack.call("GET", f"/flow_run_states/?flow_run_id={run}")]


def prompts(subject: str, count: int = 6) -> list[dict[str, str]]:
    return [{"instruction": f"Watch {subject} number {number}."} for number in range(count)]


@pytest.fixture
def stack(stack: Stack) -> Stack:
    """No pass of the watcher is under way, and none will be started by a run that another test cancelled."""
    wait_for(lambda: is_quiet(stack), what="the end of other passes", pause=1)
    return stack


def is_quiet(stack: Stack) -> bool:
    going = [each for each in stack.runs(WATCHER) if each["state"]["type"] not in OVER]
    cancelled = stack.call("POST", "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["CANCELLED"]}}}})
    ends = [each["end_time"] for each in cancelled if each["end_time"]]
    now = datetime.datetime.now(datetime.UTC)
    # The trigger comes ten seconds after the end of a run.
    late = [each for each in ends if (now - datetime.datetime.fromisoformat(each)).total_seconds() < 13]
    return not going and not late


def test_the_deployed_watcher_wakes_a_run_long_before_its_next_poll(stack: Stack, tmp_path: Path) -> None:
    stack.provider.set(batch_manual=True)
    rows = prompts("a run that wakes")
    run = start(stack, rows, tmp_path / "out")
    asleep = waiting(stack, run)
    (job,) = stack.provider.batches
    stack.wait(stack.start(WATCHER, {}))
    assert stack.run(run)["state"] == asleep["state"]

    stack.provider.end_batch(job["id"])
    watcher = stack.wait(stack.start(WATCHER, {}))

    assert "1 run woken" in watcher["state"]["message"]
    stack.wait(run)
    assert load_from_disk(str(tmp_path / "out"))["instruction"][:] == [row["instruction"] for row in rows]
    assert len(stack.provider.batches) == 1


def test_a_run_id_wakes_that_run_though_no_job_ended(stack: Stack, tmp_path: Path) -> None:
    stack.provider.set(batch_manual=True)
    run = start(stack, prompts("a run woken by hand"), tmp_path / "out")
    waiting(stack, run)

    stack.wait(stack.start(WATCHER, {"run_id": run}))

    waiting(stack, run, times=2)
    assert len(stack.provider.batches) == 1
    stack.provider.end_batch(stack.provider.batches[0]["id"])
    stack.wait(stack.start(WATCHER, {}))
    stack.wait(run)


def test_a_run_cancelled_while_it_waits_ends_at_once_and_its_answers_are_paid_for_once(
    stack: Stack, tmp_path: Path
) -> None:
    stack.provider.set(batch_manual=True, batch_order={"done_fraction": 0.5})
    rows = prompts("a cancelled run", 10)
    run = start(stack, rows, tmp_path / "first" / "out")
    waiting(stack, run)
    watchers = len(stack.runs(WATCHER))

    # As the UI's button does.
    stack.call("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert stack.run(run)["state"]["name"] == "Cancelled"

    # Nobody starts the watcher: the run's end does.
    jobs = Jobs(storage_at(str(stack.storage)))
    wait_for(lambda: not of_run(jobs, run), what="the end of the cancelled run's jobs")
    (cancelled,) = stack.provider.batches
    assert cancelled["status"] == "cancelled"
    assert cancelled["request_counts"] == {"total": 10, "completed": 5, "failed": 5}
    assert len(stack.runs(WATCHER)) > watchers
    assert not [wait for wait in jobs.waits() if wait.flow_run == run]
    assert states(stack, run)[-1] == "Cancelled"

    again = start(stack, rows, tmp_path / "second" / "out")
    waiting(stack, again)
    second = stack.provider.batches[1]
    assert second["request_counts"]["total"] == 5
    stack.provider.end_batch(second["id"])
    stack.wait(stack.start(WATCHER, {}))
    stack.wait(again)
    assert all(load_from_disk(str(tmp_path / "second" / "out"))["generation"][:])


def test_of_two_passes_at_once_one_is_left_out_and_that_starts_no_other(stack: Stack) -> None:
    before = {each["id"] for each in stack.runs(WATCHER)}
    # One that no worker starts is under way for as long as the other needs.
    scheduled = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2040-01-01T00:00Z"}}
    path = f"/deployments/{stack.deployment(WATCHER)['id']}/create_flow_run"
    first = stack.call("POST", path, {"parameters": {}, "state": scheduled})["id"]
    assert set_state(stack, first, {"type": "PENDING", "state_details": {"scheduled_time": "2020-01-01T00:00Z"}})
    lease = stack.run(first)["state"]["state_details"]["deployment_concurrency_lease_id"]
    stack.call("POST", f"/v2/concurrency_limits/leases/{lease}/renew", {"lease_duration": 2 * LONGEST})
    assert set_state(stack, first, {"type": "RUNNING"})

    second = stack.start(WATCHER, {})
    left_out = stack.wait_for_end(second)
    assert stack.run(first)["state"]["type"] == "RUNNING"
    assert set_state(stack, first, {"type": "COMPLETED"})
    time.sleep(12)

    assert left_out["state"]["type"] == "CANCELLED"
    assert left_out["run_count"] == 0
    assert {each["id"] for each in stack.runs(WATCHER)} == before | {first, second}


def set_state(stack: Stack, run: str, state: dict[str, Any]) -> bool:
    """Propose a state as a run's process does. Returns whether the server takes it."""
    return stack.call("POST", f"/flow_runs/{run}/set_state", {"state": state})["status"] == "ACCEPT"


def of_run(jobs: Jobs, flow_run: str) -> list[str]:
    return [record.job for record in jobs.all_open() if record.flow_run == flow_run]
