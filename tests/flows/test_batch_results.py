"""Flows whose provider gives results late, in part, twice or unreadable: nothing is lost, swapped or paid twice."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from flows.authoring.saving import collect
from flows.engine.batching import is_forgotten
from flows.engine.graph import Rows, load
from flows.ledger.jobs import custom_id, find, poll, still_holding
from flows.ledger.records import JobRecord, Jobs, QueueLimit, queue_of
from flows.store.storage import Storage
from flows.waiting.watching import Watched, by_account, seen_now, told_problem
from llms import AnthropicLLM, FireworksLLM, InvalidResponseError, OpenAILLM
from llms.batch import MARK
from llms.loop import run_sync
from tasks import TextGeneration
from tasks.steps import failure_in
from tasks.typing import Row
from tests.conftest import LONGEST
from tests.llms.batch_wires import FireworksStandIn
from tests.llms.wires import KEY
from tests.odd_provider import Job, Lines, OddProvider, error_line, line


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.05")
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)
    # The provider knows a job at once.
    monkeypatch.setattr("flows.engine.batching.INTENT_SECONDS", 0.3)


def prompts(count: int) -> list[Row]:
    return [{"instruction": f"number {number}"} for number in range(count)]


def llm_at(provider: OddProvider, **fields: Any) -> OpenAILLM:
    return OpenAILLM(model="gpt-4o", base_url=provider.url, api_key="k", use_offline_batch_generation=True, **fields)


def claude_at(provider: OddProvider, model: str = "claude-sonnet-4-5") -> AnthropicLLM:
    return AnthropicLLM(model=model, base_url=provider.origin, api_key="k", use_offline_batch_generation=True)


def generated(llm: Any, count: int = 10, name: str = "step") -> Rows:
    return load(prompts(count), shard_rows=4).map(TextGeneration(name=name, llm=llm))


def are_right(rows: Any) -> bool:
    return all(row["generation"] == f"answer to {row['instruction']}" for row in rows)


def lines_kept(storage: Path) -> int:
    """How many results stand in the ledger."""
    every = b"".join(path.read_bytes() for path in storage.rglob("*.answers"))
    return every.count(b'"o":') + every.count(b'"e":')


# Results late, in part, or unreadable


def without_file(job: Job, shown: Any) -> Any:
    return {**shown, "output_file_id": None} if job.looks <= 5 else shown


@pytest.mark.parametrize(
    "odd",
    [
        {"shown": without_file},
        {"sent": lambda job, content: 404 if job.downloads <= 2 else content},
        {"sent": lambda job, content: content if job.downloads > 2 else b"".join(content.splitlines(True)[:4])},
        {"sent": lambda job, content: content if job.downloads > 2 else content[:-40]},
    ],
    ids=["no file yet", "file not found yet", "lines are missing", "last line is cut"],
)
def test_what_a_job_counted_is_waited_for_and_submitted_once(odd: dict[str, Any], storage: Path) -> None:
    with OddProvider(**odd) as provider:
        rows = collect(generated(llm_at(provider)))

        assert are_right(rows)
        assert provider.sizes() == [10]


def test_what_never_comes_is_submitted_again_after_some_minutes(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(job: Job, content: bytes) -> bytes:
        return content if job.number else b"".join(content.splitlines(keepends=True)[:6])

    with OddProvider(sent=half) as provider:
        llm = llm_at(provider)
        record = submitted(storage, provider, llm, 10)
        jobs = Jobs(Storage(str(storage)))
        waits = run_sync(poll(jobs, record, llm))
        assert waits is not None
        assert waits.state == "waiting"
        assert "6 of 10 answers; polls again" in waits.message
        assert waits.is_settling

        minutes_ago = replace(waits, incomplete=time.time() - 301)
        jobs.write(minutes_ago)
        taken = run_sync(poll(jobs, minutes_ago, llm))

    assert taken is not None
    assert taken.state == "ended"
    assert jobs.all_open() == []
    assert lines_kept(storage) == 6


def fireworks_at(server: FireworksStandIn) -> FireworksLLM:
    key = SecretStr(KEY)
    return FireworksLLM(
        model="m", base_url=server.url, api_key=key, use_offline_batch_generation=True, **FireworksStandIn.fields
    )


def test_a_job_at_fireworks_that_is_not_found_once_is_not_submitted_again(storage: Path) -> None:
    with FireworksStandIn() as server:
        record: Any = submitted(storage, server, fireworks_at(server), 2)
        # To another process it's as old as the stand-in says.
        llm, jobs = fireworks_at(server), Jobs(Storage(str(storage)))
        server.gone.add(record.job)
        record = run_sync(poll(jobs, record, llm))
        assert (record.state, record.is_settling) == ("waiting", True)

        server.gone.clear()
        record = run_sync(poll(jobs, record, llm))
        assert (record.state, record.status, record.is_settling) == ("waiting", "creating", False)
        assert jobs.all_open() == [record]

        server.end(server.job(record.job), "JOB_STATE_COMPLETED", answered=2)
        taken = run_sync(poll(jobs, record, llm))

    assert taken is not None
    assert taken.state == "ended"
    assert lines_kept(storage) == 2


def test_a_job_at_fireworks_that_is_not_found_for_minutes_is_cancelled(storage: Path) -> None:
    with FireworksStandIn() as server:
        record: Any = submitted(storage, server, fireworks_at(server), 2)
        llm, jobs = fireworks_at(server), Jobs(Storage(str(storage)))
        server.gone.add(record.job)
        record = run_sync(poll(jobs, record, llm))
        minutes_ago = replace(record, incomplete=time.time() - 301)
        jobs.write(minutes_ago)
        taken = run_sync(poll(jobs, minutes_ago, llm))

    assert taken is not None
    assert (taken.state, taken.status) == ("ended", "cancelled")
    assert jobs.all_open() == []


def test_a_result_is_kept_once_however_often_it_is_read(storage: Path) -> None:
    def part(job: Job, content: bytes) -> bytes:
        return b"".join(content.splitlines(keepends=True)[: 5 + job.downloads])

    def results(job: Job) -> tuple[Lines, Lines]:
        return [line(each) for each in job.requests[2:]], [
            error_line(each, "server_error") for each in job.requests[:2]
        ]

    with OddProvider(results, sent=part) as provider:
        llm = llm_at(provider)
        record = submitted(storage, provider, llm, 20)
        jobs = Jobs(Storage(str(storage)))
        kept: list[int] = []
        for _ in range(4):
            (record,) = jobs.all_open()
            run_sync(poll(jobs, record, llm))
            kept.append(lines_kept(storage))

    assert kept == sorted(set(kept))
    assert provider.jobs[0].downloads == 8
    # The two errors, and as many answers as the latest file had.
    assert kept[-1] == 2 + 5 + 7


def test_a_download_that_is_cut_is_tried_a_few_times_and_kept_once(storage: Path) -> None:
    with OddProvider(sent=lambda job, content: content[:-1], cuts=True) as provider:
        llm = llm_at(provider)
        record = submitted(storage, provider, llm, 20)
        jobs = Jobs(Storage(str(storage)))
        for _ in range(3):
            with pytest.raises(InvalidResponseError, match="was cut"):
                run_sync(poll(jobs, record, llm))
            (record,) = jobs.all_open()

        assert provider.jobs[0].downloads == 3 * 3
        assert lines_kept(storage) in {19, 20}
        provider.sent = lambda job, content: content
        assert run_sync(poll(jobs, record, llm)) is not None

    assert lines_kept(storage) == 20
    assert jobs.all_open() == []


@pytest.mark.parametrize("of", [llm_at, claude_at])
def test_an_unreadable_line_is_asked_again_alone(of: Any, storage: Path) -> None:
    def results(job: Job) -> tuple[Lines, Lines]:
        lines = [line(each) for each in job.requests]
        return [lines[0][:70], *lines[1:]] if job.number == 0 else lines, []

    with OddProvider(results) as provider:
        rows = collect(generated(of(provider)))

        assert all(row["generation"].endswith(f"answer to {row['instruction']}") for row in rows)
        assert provider.sizes() == [10, 1]


def test_an_answer_holds_against_an_error_in_a_flow_too(storage: Path) -> None:
    def results(job: Job) -> tuple[Lines, Lines]:
        return [line(each) for each in job.requests], [error_line(each, "batch_cancelled") for each in job.requests]

    with OddProvider(results) as provider:
        assert are_right(collect(generated(llm_at(provider))))
        assert provider.sizes() == [10]
        assert lines_kept(storage) == 10


def test_a_result_of_another_job_is_never_taken(storage: Path) -> None:
    def swapped(job: Job) -> tuple[Lines, Lines]:
        # As if the results of an earlier job with the same prompts were sent for this one.
        theirs = [{**each, "custom_id": each["custom_id"][:-12] + "0" * 12} for each in job.requests]
        lines = [line(each, text="another's") for each in theirs]
        return (lines if job.number == 0 else [line(each) for each in job.requests]), []

    with OddProvider(swapped) as provider:
        rows = collect(generated(llm_at(provider)))

    assert are_right(rows)


def test_the_answer_of_another_model_fails_its_row(storage: Path) -> None:
    def results(job: Job) -> tuple[Lines, Lines]:
        return [
            line(each, model="gpt-4o-2024-08-06" if number else "gpt-4o-mini")
            for number, each in enumerate(job.requests)
        ], []

    with OddProvider(results) as provider:
        rows = collect(generated(llm_at(provider)), max_failed_rows=1)

    failed = [failure_in(row) for row in rows]
    assert [each is not None for each in failed] == [True] + [False] * 9
    assert failed[0] is not None
    assert failed[0]["type"] == "OtherModelError"


# Whose a job is, where it keeps no mark


def claude_rows(provider: OddProvider, model: str, name: str = "step", count: int = 4) -> Rows:
    return generated(claude_at(provider, model), count, name)


def under_way(job: Job, shown: Any) -> Any:
    return {**shown, "processing_status": "in_progress", "results_url": None}


def test_after_a_crash_every_step_takes_up_its_own_job_of_the_same_prompts(storage: Path) -> None:
    models = ["claude-sonnet-4-5", "claude-opus-4-1", "claude-haiku-4-5"]
    with OddProvider() as provider:
        llms = [claude_at(provider, model) for model in models]
        made = [submitted(storage, provider, llm, 4) for llm in llms]
        jobs = Jobs(Storage(str(storage)))
        for record in made:
            jobs.write(replace(record, job="", status="submitting"))

        found = [
            run_sync(find(jobs, replace(each, job=""), llm)) for each, llm in zip(made[::-1], llms[::-1], strict=True)
        ]

    assert [record.job for record in found] == [record.job for record in made[::-1]]


@pytest.mark.parametrize("theirs_first", [True, False])
def test_a_job_of_a_colleague_is_waited_for_where_it_may_be_ours_and_never_taken(
    storage: Path, theirs_first: bool
) -> None:
    open_for = 6

    def shown(job: Job, as_it_is: Any) -> Any:
        nonlocal open_for
        open_for -= 1
        return under_way(job, as_it_is) if open_for > 0 else as_it_is

    def colleague(number: int) -> bool:
        # A program of somebody else submits as many requests, with the same prompts to another model.
        prompts = provider.jobs[-1].requests
        params = [{**each["params"], "model": "claude-haiku-4-5"} for each in prompts]
        theirs = [{"custom_id": f"request-{place}", "params": each} for place, each in enumerate(params)]
        if number == 1:
            provider.add(theirs, {}, "msgbatch_")
            if theirs_first:
                provider.jobs.reverse()
        return number == 1

    with OddProvider(shown=shown, loses=colleague) as provider:
        rows = collect(claude_rows(provider, "claude-sonnet-4-5"))

    assert [row["generation"] for row in rows] == [f"claude-sonnet-4-5: answer to number {place}" for place in range(4)]
    assert provider.tries == 1


def test_where_only_a_colleagues_job_is_there_ours_is_made_once_that_is_known(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.engine.batching.INTENT_SECONDS", LONGEST)
    looks = 0

    def shown(job: Job, as_it_is: Any) -> Any:
        nonlocal looks
        looks += job.number == 0
        return under_way(job, as_it_is) if looks < 4 and job.number == 0 else as_it_is

    with OddProvider(shown=shown) as provider:
        llm = claude_at(provider)
        record = submitted(storage, provider, llm, 4)
        provider.jobs[0].requests = [{**each, "custom_id": "theirs"} for each in provider.jobs[0].requests]
        provider.files[f"output-{provider.jobs[0].id}"] = (
            "output",
            b"".join(line(each) + b"\n" for each in provider.jobs[0].requests),
        )
        jobs = Jobs(Storage(str(storage)))
        jobs.write(replace(record, job="", status="submitting"))
        (record,) = jobs.all_open()

        first = run_sync(find(jobs, record, llm))
        assert first.unsure
        assert not is_forgotten(first)
        assert not first.is_settling
        assert provider.jobs[0].id in first.message
        while (latest := run_sync(find(jobs, jobs.all_open()[0], llm))).unsure:
            pass

    assert not latest.job
    assert not is_forgotten(latest)
    assert is_forgotten(replace(latest, polled=time.time() - LONGEST, intended=time.time() - LONGEST))


def test_jobs_that_came_long_after_an_intent_keep_it_from_nothing(storage: Path) -> None:
    with OddProvider(shown=under_way) as provider:
        llm = claude_at(provider)
        record = submitted(storage, provider, llm, 4)
        jobs = Jobs(Storage(str(storage)))
        jobs.write(replace(record, job="", searched=time.time() - 1_600, intended=time.time() - 1_700))
        (record,) = jobs.all_open()

        assert not run_sync(find(jobs, record, llm)).unsure


def submitted(storage: Path, provider: Any, llm: Any, count: int, run: str = "another") -> JobRecord:
    """The record of a job that a run made, whose process has ended since."""
    jobs = Jobs(Storage(str(storage)))
    with llm.job_writer() as writer:
        for number in range(count):
            chat = [{"role": "user", "content": f"number {number}"}]
            writer.add(llm.batch_request(custom_id(0, f"{number:016x}".ljust(32, "0")), chat, 1))
        (file,) = writer.rest()
        status = run_sync(llm.create_job(file, {MARK: file.intent}))
    record = JobRecord(
        intent=file.intent,
        run=run,
        attempt=f"{run}:1",
        flow_run="",
        step="step",
        space=f"space-{file.intent}",
        llm=llm.model_dump(mode="json"),
        queue=queue_of(llm),
        requests=count,
        size=file.size,
        tokens=file.tokens,
        shards="0-0",
        sample=file.custom_ids[:5],
        intended=time.time(),
    ).seen(status)
    jobs.write(record)
    return record


# Limits of queues


def test_a_limit_that_was_learned_grows_with_every_job_that_is_taken_and_with_time() -> None:
    hour = 3600.0
    limit = QueueLimit(1_000, since=0.0)

    assert [limit.at(hours * hour) for hours in (0, 1, 3)] == [1_000, 2_000, 8_000]
    assert limit.at(1_000 * hour) is None
    assert limit.succeeded(900, 0.0).at(0.0) == 1_800
    assert limit.succeeded(10, 0.0).at(0.0) == 1_000
    assert limit.refused(500, None, 2 * hour).at(2 * hour) == 500


def test_a_limit_that_the_provider_named_holds_for_a_day() -> None:
    hour = 3600.0
    limit = QueueLimit(1_000, since=0.0).refused(2_000, 2_000, 0.0)

    assert limit.succeeded(1_900, hour).at(hour) == 2_000
    assert limit.at(23 * hour) == 2_000
    later = limit.at(25 * hour)
    assert later is None or later > 2_000
    # It holds while smaller jobs are tried under it.
    assert limit.refused(500, None, hour).at(hour) == 500
    assert limit.refused(500, None, hour).at(20 * hour) == 2_000


@pytest.mark.parametrize("kept", [b"", b"{", b'{"limit": 25}', b'{"tokens": 1, "since": 0, "more": 1}'])
def test_a_limit_that_cant_be_read_is_none(kept: bytes, storage: Path) -> None:
    jobs = Jobs(Storage(str(storage)))
    path = storage / "queues" / "queue.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(kept)

    assert jobs.queue_limit("queue") is None


def test_jobs_become_whole_again_after_a_day_on_which_the_queue_was_full(storage: Path) -> None:
    full = 3
    problem = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached for this model."}

    def shown(job: Job, as_it_is: Any) -> Any:
        failed = {"status": "failed", "errors": {"data": [problem]}, "output_file_id": None, "request_counts": None}
        return {**as_it_is, **failed} if job.number < full else as_it_is

    long = "x" * 2_000
    with OddProvider(shown=shown) as provider:
        first, second = (
            collect(
                load([{"instruction": f"{day} {number} {long}"} for number in range(100)]).map(
                    TextGeneration(llm=llm_at(provider))
                )
            )
            for day in ("a busy day", "another day")
        )
        sizes = provider.sizes()

    assert are_right(first)
    assert are_right(second)
    assert sizes[:3] == [100, 50, 25]
    assert sum(sizes[3:]) == 200
    assert sizes[-1] + (sizes[-2] if sizes[-1] < 100 else 0) == 100


def test_a_job_of_a_dead_run_that_has_ended_takes_up_no_room(storage: Path) -> None:
    with OddProvider(
        shown=lambda job, shown: {**shown, "status": "in_progress"} if provider.tries < 1 else shown
    ) as provider:
        dead = submitted(storage, provider, llm_at(provider), 10)
        llm = llm_at(provider, batch_token_quota=dead.tokens + 10)
        rows = collect(generated(llm))

        assert are_right(rows)
        assert provider.sizes() == [10, 10]
    (left,) = Jobs(Storage(str(storage))).all_open()
    assert left.state == "ended"


def test_what_holds_the_quota_is_asked_of_the_provider(storage: Path) -> None:
    states: dict[str, Any] = {}
    with OddProvider(shown=lambda job, shown: {**shown, **states.get(job.id, {})}) as provider:
        llm = llm_at(provider)
        jobs = Jobs(Storage(str(storage)))
        ended, going, odd, lost, begun, never = (submitted(storage, provider, llm, 1) for _ in range(6))
        states |= {going.job: {"status": "in_progress"}, odd.job: {"status": 7}}
        records = [
            ended,
            going,
            odd,
            replace(lost, job="batch_lost"),
            replace(begun, job="", intent="f" * 32),
            replace(never, job="", intent="e" * 32, intended=time.time() - 1_300),
        ]

        holding = run_sync(still_holding(jobs, records, llm))

    # One of them may just be in the making.
    assert [record.intent for record in holding] == [going.intent, odd.intent, "f" * 32]


# The watcher


ODD_JOBS: list[Any] = [
    {"status": None},
    {"status": ["completed"]},
    {"request_counts": "n/a"},
    {"request_counts": {"completed": "all"}},
    {"created_at": "long ago", "metadata": 7, "errors": 3},
    {"id": None},
]


def test_an_odd_job_of_one_account_keeps_no_other_from_being_looked_at(storage: Path) -> None:
    with OddProvider() as odd, OddProvider() as sound:
        at_odd = [submitted(storage, odd, llm_at(odd), 1) for _ in ODD_JOBS]
        at_sound = submitted(storage, sound, llm_at(sound), 1)
        strange = dict(zip([record.job for record in at_odd], ODD_JOBS, strict=True))
        odd.shown = lambda job, shown: {**shown, **strange[job.id]}
        watched = Watched()

        accounts = by_account([*at_odd, at_sound], watched)
        seen = asyncio.run(seen_now(accounts, watched))

    assert len(accounts) == 2
    assert seen[at_sound.job].state == "ended"
    states = [seen[record.job].state if record.job in seen else None for record in at_odd]
    assert states == ["waiting", "waiting", "ended", "ended", "ended", None]
    assert all(at_odd[-1].job in problem for problem in watched.problems)


def test_whatever_goes_wrong_with_one_job_is_told_and_ends_no_pass() -> None:
    async def broken() -> None:
        raise TypeError("an adapter that expected something else")

    watched = Watched()

    assert asyncio.run(told_problem(broken(), watched, "job batch_1")) is None
    assert watched.problems == ["job batch_1: TypeError: an adapter that expected something else"]


def test_a_state_that_isnt_known_is_told_once(storage: Path, caplog: pytest.LogCaptureFixture) -> None:
    with OddProvider(shown=lambda job, shown: {**shown, "status": "napping"}) as provider:
        llm = llm_at(provider)
        submitted(storage, provider, llm, 1)
        jobs = Jobs(Storage(str(storage)))
        for _ in range(3):
            (record,) = jobs.all_open()
            looked = run_sync(poll(jobs, record, llm))
            assert looked is not None
            assert looked.state == "waiting"

    assert sum("napping" in each.getMessage() for each in caplog.records) == 1
