"""What a flow run goes on with: what it left when it went to wait, or the rows of the run that it completes."""

from __future__ import annotations

import datetime
import uuid
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun

from flows.engine.run import DATE_LABEL, LEFT_BY_LABEL, RESUBMITS, STORAGE_LABEL, Run, date_of, is_of_run, resume
from flows.ledger.records import Jobs, RunNote, Wait
from flows.store.storage import Storage, StorageError

FIRST = str(uuid.uuid4())


def flow_run(**more: Any) -> FlowRun:
    return FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), run_count=1, **more)


def resumed(storage: Storage, flow_run: FlowRun) -> Run:
    run = Run(str(flow_run.id), f"{flow_run.id}:{flow_run.run_count}", storage)
    resume(run, flow_run)
    return run


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def test_a_run_that_completes_another_has_its_rows_and_attempts_of_its_own(storage: Storage) -> None:
    given = flow_run(tags=["mine", f"{RESUBMITS}{FIRST}"])

    run = resumed(storage, given)

    assert (run.id, run.flow_run.id, run.own_id) == (FIRST, str(given.id), str(given.id))
    assert is_of_run(run.attempt, run.own_id)
    assert not is_of_run(f"{FIRST}:1", run.own_id)


def test_a_wake_up_of_a_run_that_completes_another_goes_on_with_its_own_attempt(storage: Storage) -> None:
    given = flow_run(tags=[f"{RESUBMITS}{FIRST}"])
    Jobs(storage).write_note(str(given.id), RunNote(f"{given.id}:1", 1))
    Jobs(storage).write_note(FIRST, RunNote(f"{FIRST}:4", 4))

    woken = resumed(storage, given.model_copy(update={"run_count": 2}))
    retried = resumed(storage, given.model_copy(update={"run_count": 3}))

    assert (woken.attempt, woken.passes) == (f"{given.id}:1", 1)
    assert (retried.attempt, retried.passes) == (f"{given.id}:3", 0)


def test_the_day_of_a_run_is_the_one_it_was_due_in_utc_also_of_one_that_completes_it(storage: Storage) -> None:
    late = datetime.datetime(2026, 11, 30, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    due = flow_run(expected_start_time=late)
    completing = flow_run(expected_start_time=late + datetime.timedelta(days=9), labels={DATE_LABEL: date_of(due)})

    assert resumed(storage, due).flow_run.date == "2026-11-29"
    assert resumed(storage, completing).flow_run.date == date_of(completing) == "2026-11-29"


def test_two_runs_of_the_same_rows_wait_each_for_itself(storage: Storage) -> None:
    jobs = Jobs(storage)
    for name in (FIRST, "another"):
        jobs.write_wait(Wait(FIRST, name, [], [name], 0, 1.0, 2.0))

    jobs.forget_wait("another")

    assert jobs.wait_of("another") is None
    assert [each.flow_run for each in jobs.waits()] == [FIRST]


def test_rows_that_another_run_left_elsewhere_are_missed_before_anything_is_asked(storage: Storage) -> None:
    labels: dict[str, Any] = {STORAGE_LABEL: "s3://elsewhere", LEFT_BY_LABEL: FIRST}
    given = flow_run(tags=[f"{RESUBMITS}{FIRST}"], labels=labels)

    with pytest.raises(StorageError, match="s3://elsewhere"):
        resumed(storage, given)

    Jobs(storage).write_note(FIRST, RunNote(f"{FIRST}:4", 4))
    assert resumed(storage, given).passes == 0


DAMAGED = pytest.mark.parametrize(
    "content", [b"", b'{"run": "half', b'{"of_a_later_version": 1}'], ids=["empty", "cut", "of a later version"]
)


@DAMAGED
def test_a_run_whose_note_is_damaged_goes_on_as_a_retry_and_is_approved_anew(
    storage: Storage, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    given = flow_run(labels={STORAGE_LABEL: storage.root}).model_copy(update={"run_count": 2})
    Jobs(storage).write_note(str(given.id), RunNote(f"{given.id}:1", 1, approved=10.0))
    storage.write(storage.path("runs", f"{given.id}.json"), content)

    run = resumed(storage, given)

    assert (run.attempt, run.passes, run.money.approved) == (f"{given.id}:2", 0, 0.0)
    assert "the note of a run" in caplog.text


@DAMAGED
def test_a_damaged_wait_doesnt_keep_other_runs_from_waking_up(
    storage: Storage, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = Jobs(storage)
    for name in (FIRST, "another"):
        jobs.write_wait(Wait(FIRST, name, [], [name], 0, 1.0, 2.0))
    storage.write(storage.path("waits", "another.json"), content)

    assert [each.flow_run for each in jobs.waits()] == [FIRST]
    assert jobs.wait_of("another") is None
    assert "wakes up by its schedule alone" in caplog.text
