"""The receiver of webhooks: what it lets in, and whom it wakes at a real Prefect server."""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
import uuid
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import AwaitingRetry, Cancelled, Completed, Scheduled
from starlette.testclient import TestClient

from flows.engine.errors import SetupError
from flows.ledger.records import JobRecord, Jobs, Wait
from flows.store.storage import Storage
from flows.waiting.wake import wake_runs
from flows.waiting.webhook import LONGEST_BODY, OpenJobs, webhook_app, webhook_secret
from tests.conftest import wait_for
from tests.flows.test_cli import call
from tests.signing import SECRET, event_of, signed
from tests.warm import WarmPython

T = TypeVar("T")


@flow
def some_flow() -> None:
    """For runs that are only looked at."""


def waiting_for(seconds: float, message: str | None = "waiting for batches: 0 of 1 job done") -> Any:
    """The state of a run that waits, for its jobs or for a retry of Prefect's."""
    due = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return AwaitingRetry(scheduled_time=due, message=message)


def record_of(job: str, *, flow_run: str = "", space: str = "space", run: str = "run") -> JobRecord:
    return JobRecord(
        intent=uuid.uuid4().hex,
        run=run,
        attempt=f"{run}:1",
        flow_run=flow_run,
        step="ask",
        space=space,
        llm={},
        queue="queue",
        requests=1,
        size=1,
        tokens=1,
        shards="0-0",
        sample=[],
        intended=time.time(),
        job=job,
    )


def wait_of(flow_run: str, *, intents: list[str] | None = None, room: list[str] | None = None) -> Wait:
    return Wait(flow_run, flow_run, [], intents or [], 0, time.time(), time.time() + 3600, room=room or [])


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def run_in(state: Any) -> str:
    async with get_client() as client:
        return str((await client.create_flow_run(some_flow, state=state)).id)


async def state_of(flow_run: str) -> Any:
    async with get_client() as client:
        return (await client.read_flow_run(uuid.UUID(flow_run))).state


def is_due(flow_run: str) -> bool:
    due = run(state_of(flow_run)).state_details.scheduled_time
    return due is not None and due <= datetime.datetime.now(datetime.UTC)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(Storage(str(tmp_path / "storage")))


@pytest.fixture
def receiver(jobs: Jobs, prefect: str) -> Iterator[TestClient]:
    with TestClient(webhook_app(jobs, SECRET)) as client:
        yield client


def test_waking_touches_none_but_the_runs_that_wait_for_a_later_look(prefect: str) -> None:
    async def work() -> tuple[list[str], dict[str, Any]]:
        states = {
            "asleep": waiting_for(3600),
            "another": waiting_for(7200),
            "due": waiting_for(-1),
            "scheduled": Scheduled(scheduled_time=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)),
            "retrying": waiting_for(3600, "Retry 1 of 3"),
            "retrying without a word": waiting_for(3600, None),
            "cancelled": Cancelled(),
            "done": Completed(),
        }
        ids = {name: await run_in(state) for name, state in states.items()}
        before = {name: (await state_of(each)).id for name, each in ids.items()}
        async with get_client() as client:
            woken = await wake_runs(client, [*ids.values(), str(uuid.uuid4()), ids["asleep"], ""], "its job ended")
        after = {name: await state_of(each) for name, each in ids.items()}
        changed = {name for name in ids if after[name].id != before[name]}
        assert changed == {"asleep", "another"}
        return sorted(name for name, each in ids.items() if each in woken), after

    woken, after = run(work())

    assert woken == ["another", "asleep"]
    assert (after["asleep"].name, after["asleep"].message) == ("AwaitingRetry", "its job ended")
    assert after["asleep"].state_details.scheduled_time <= datetime.datetime.now(datetime.UTC)


def test_more_runs_than_prefect_gives_at_once_are_all_woken(prefect: str) -> None:
    async def work() -> int:
        ids = [await run_in(waiting_for(3600)) for _ in range(45)]
        async with get_client() as client:
            return len(set(await wake_runs(client, ids, "now")) & set(ids))

    assert run(work()) == 45


@pytest.mark.parametrize("kind", ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"])
def test_an_event_wakes_the_run_of_its_job_those_that_wait_for_it_and_no_other(
    jobs: Jobs, receiver: TestClient, kind: str
) -> None:
    submitted, shares, queued, other = (run(run_in(waiting_for(3600))) for _ in range(4))
    record, another = record_of("batch_1", flow_run=submitted), record_of("batch_2", flow_run=other)
    for each in (record, another):
        jobs.write(each)
    jobs.write_wait(wait_of(submitted, intents=[record.intent]))
    jobs.write_wait(wait_of(shares, intents=[another.intent, record.intent]))
    jobs.write_wait(wait_of(queued, room=[record.intent]))
    jobs.write_wait(wait_of(other, intents=[another.intent]))
    body = event_of("batch_1", kind)

    answer = receiver.post("/openai", content=body, headers=signed(body))

    assert (answer.status_code, answer.json()) == (200, {"message": "woke 3 runs"})
    assert [is_due(each) for each in (submitted, shares, queued, other)] == [True, True, True, False]


def test_an_event_that_is_sent_twice_wakes_once(jobs: Jobs, receiver: TestClient) -> None:
    waiting = run(run_in(waiting_for(3600)))
    jobs.write(record_of("batch_1", flow_run=waiting))
    body = event_of("batch_1")
    headers = signed(body)

    first = receiver.post("/openai", content=body, headers=headers)
    state = run(state_of(waiting)).id
    again = receiver.post("/openai", content=body, headers=headers)
    later = receiver.post("/openai", content=body, headers=signed(body))

    assert [each.status_code for each in (first, again, later)] == [200, 200, 200]
    assert first.json() == again.json() == {"message": "woke 1 run"}
    assert later.json() == {"message": "its run is awake"}
    assert run(state_of(waiting)).id == state


def test_a_run_that_was_busy_when_its_job_ended_is_woken_once_it_sleeps(jobs: Jobs, receiver: TestClient) -> None:
    busy = run(run_in(Scheduled(scheduled_time=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1))))
    jobs.write(record_of("batch_1", flow_run=busy))
    body = event_of("batch_1")

    answer = receiver.post("/openai", content=body, headers=signed(body))

    async def sleep() -> None:
        async with get_client() as client:
            await client.set_flow_run_state(uuid.UUID(busy), waiting_for(3600))

    run(sleep())
    assert answer.json() == {"message": "its run is awake"}
    wait_for(lambda: is_due(busy), what="the waking")


def test_a_job_that_was_not_noted_yet_is_found_shortly_after(jobs: Jobs, receiver: TestClient) -> None:
    waiting = run(run_in(waiting_for(3600)))
    body = event_of("batch_1")

    answer = receiver.post("/openai", content=body, headers=signed(body))
    jobs.write(record_of("batch_1", flow_run=waiting))

    assert (answer.status_code, answer.json()) == (200, {"message": "nothing waits for it"})
    wait_for(lambda: is_due(waiting), what="the waking")


def test_many_events_at_a_time_are_all_seen_to(jobs: Jobs, receiver: TestClient) -> None:
    from concurrent.futures import ThreadPoolExecutor

    ids = [run(run_in(waiting_for(3600))) for _ in range(30)]
    for number, each in enumerate(ids):
        jobs.write(record_of(f"batch_{number}", flow_run=each))

    def send(number: int) -> dict[str, str]:
        body = event_of(f"batch_{number}")
        return receiver.post("/openai", content=body, headers=signed(body)).json()

    with ThreadPoolExecutor(30) as senders:
        answers = list(senders.map(send, range(30)))

    assert answers == [{"message": "woke 1 run"}] * 30
    assert all(is_due(each) for each in ids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"webhook-signature": "v1,bm90IGl0"}, "does not match"),
        ({"webhook-timestamp": "yesterday"}, "Invalid webhook timestamp"),
        ({"webhook-timestamp": str(int(time.time()) - 3600)}, "too old"),
        ({"webhook-timestamp": str(int(time.time()) + 36000)}, "too new"),
        ({"webhook-id": "another"}, "does not match"),
        ({"webhook-signature": None}, "Could not find webhook-signature"),
        ({"webhook-id": None}, "Could not find webhook-id"),
    ],
)
def test_what_is_not_signed_right_is_refused_and_wakes_nobody(
    jobs: Jobs, receiver: TestClient, changes: dict[str, str | None], message: str
) -> None:
    waiting = run(run_in(waiting_for(3600)))
    jobs.write(record_of("batch_1", flow_run=waiting))
    body = event_of("batch_1")
    headers = {name: value for name, value in {**signed(body), **changes}.items() if value is not None}

    answer = receiver.post("/openai", content=body, headers=headers)

    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert not is_due(waiting)


def test_a_body_that_was_changed_or_signed_with_another_key_or_too_long_ago_is_refused(receiver: TestClient) -> None:
    body = event_of("batch_1")

    changed = receiver.post("/openai", content=event_of("batch_2"), headers=signed(body))
    other_key = receiver.post("/openai", content=body, headers=signed(body, key=b"another key"))
    old = receiver.post("/openai", content=body, headers=signed(body, age=600))
    not_text = receiver.post("/openai", content=b"\xff\xfe", headers=signed(b"\xff\xfe"))
    not_json = receiver.post("/openai", content=b"hello", headers=signed(b"hello"))

    assert [each.status_code for each in (changed, other_key, old, not_text, not_json)] == [400] * 5
    assert "too old" in old.json()["error"]


def test_a_body_longer_than_any_event_is_refused_unread(receiver: TestClient) -> None:
    assert receiver.post("/openai", content=b" " * (LONGEST_BODY + 1)).status_code == 413


@pytest.mark.parametrize(
    "body",
    [event_of("resp_1", "response.completed"), b"[]", b'{"type": "batch.completed"}'],
    ids=["of another kind", "a list", "without data"],
)
def test_other_events_are_taken_and_left_at_that(receiver: TestClient, body: bytes) -> None:
    answer = receiver.post("/openai", content=body, headers=signed(body))

    assert answer.status_code == 200
    assert "of no interest" in answer.json()["message"]


def test_every_event_is_told_in_the_log(jobs: Jobs, receiver: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    waiting = run(run_in(waiting_for(3600)))
    jobs.write(record_of("batch_1", flow_run=waiting))

    with caplog.at_level(logging.INFO, logger="flows.waiting.webhook"):
        for job in ("batch_1", "batch_of_others"):
            body = event_of(job)
            receiver.post("/openai", content=body, headers=signed(body))
        receiver.post("/openai", content=b"{}")

    told = [each.getMessage() for each in caplog.records if each.name == "flows.waiting.webhook"]
    assert told == [
        f"batch.completed batch_1: woke 1 run: {waiting}",
        "batch.completed batch_of_others: nothing waits for it",
        "refused a webhook: Could not find webhook-signature header",
    ]


def test_without_the_prefect_server_the_provider_is_told_to_send_it_again(jobs: Jobs, prefect: str) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    jobs.write(record_of("batch_1", flow_run=str(uuid.uuid4())))
    body = event_of("batch_1")

    nowhere = {PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(nowhere), TestClient(webhook_app(jobs, SECRET)) as client:
        answers = [client.post("/openai", content=body, headers=signed(body, name="wh_1")) for _ in range(2)]
        health = client.get("/health")

    assert [each.status_code for each in answers] == [503, 503]
    assert (health.status_code, health.json()) == (200, {"status": "ok"})


def test_the_secret_is_in_a_block_where_it_is_not_in_the_variable(
    prefect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.blocks.system import Secret

    monkeypatch.delenv("OPENAI_WEBHOOK_SECRET", raising=False)
    with pytest.raises(SetupError, match="set OPENAI_WEBHOOK_SECRET .* Secret block named 'nowhere'"):
        webhook_secret("nowhere")
    Secret(value=SECRET).save("openai-webhook-secret", overwrite=True, _sync=True)  # pyright: ignore[reportCallIssue]
    assert webhook_secret() == SECRET
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", "whsec_b3RoZXI=")
    assert webhook_secret() == "whsec_b3RoZXI="


def test_the_command_does_not_start_without_a_secret_or_without_a_server(
    warm: WarmPython, prefect_api: str, tmp_path: Path
) -> None:
    home = {"PREFECT_HOME": str(tmp_path)}

    no_server = call(warm.executable, "webhook", OPENAI_WEBHOOK_SECRET=SECRET, **home)
    no_secret = call(warm.executable, "webhook", "--secret-block", "no-such-block", api=prefect_api, **home)

    assert (no_server.returncode, no_secret.returncode) == (1, 1)
    assert "Error: there's no Prefect server whose runs could be woken: set PREFECT_API_URL" in no_server.stderr
    assert "Error: there's no signing secret for webhooks: set OPENAI_WEBHOOK_SECRET" in no_secret.stderr


class Counted(Storage):
    """A storage that counts how often it is listed."""

    listings = 0

    def files_below(self, folder: str, ending: str) -> list[str]:
        object.__setattr__(self, "listings", self.listings + 1)
        return super().files_below(folder, ending)


@pytest.mark.parametrize("root", ["{folder}", "memory://webhook-{name}"])
def test_a_job_is_found_among_thousands_and_the_storage_is_listed_only_for_unknown_ones(
    tmp_path: Path, root: str
) -> None:
    storage = Counted(root.format(folder=tmp_path, name=uuid.uuid4().hex))
    jobs = Jobs(storage)
    records = [record_of(f"batch_{number}", space=f"space-{number % 100}") for number in range(2000)]
    for record in records:
        jobs.storage.write(jobs.path_of(record), _content(record))
    known = OpenJobs(jobs)

    known.know(["batch_1234"])
    before = storage.listings
    for number in range(2000):
        known.know([f"batch_{number}"])
        assert known.find(f"batch_{number}") == records[number]
    assert storage.listings == before > 0

    jobs.end(records[7])
    jobs.write(record_of("batch_new"))
    assert known.find("batch_7") is None
    assert known.find("batch_new") is None
    known.know(["batch_new"])
    assert known.find("batch_new") is not None
    assert known.find("batch_8") == records[8]


def _content(record: JobRecord) -> bytes:
    from dataclasses import asdict

    import orjson

    return orjson.dumps(asdict(record))
