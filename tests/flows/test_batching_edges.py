"""Offline batches where several things come together: gaps, quotas, retries, several runs and several saves."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import prefect.main  # noqa: F401 -- sets logging up, which would take caplog's handler away in a test
import pytest
from prefect.client.schemas.objects import FlowRun
from pydantic import SecretStr

from flows.authoring.parameters import flow
from flows.authoring.saving import collect
from flows.engine.batching import WaitingForBatches
from flows.engine.costs import Estimate
from flows.engine.errors import TooManyFailedRowsError
from flows.engine.graph import Rows, load
from flows.engine.run import Run, resume
from flows.ledger import submitting
from flows.ledger.jobs import settle
from flows.ledger.records import JobGoneError, JobMovedError, Jobs
from flows.store.storage import Storage, StorageError
from flows.waiting.leaving import Approval, ask_approval
from llms import AnthropicLLM, AuthenticationError, ModelNotFoundError, OpenAILLM, OverloadedError
from llms.batch import BatchLimits, BatchResult, JobFile, JobStatus
from llms.errors import QueueFullError
from llms.local_provider import LocalProvider
from llms.loop import run_async, run_sync
from tasks import StructuredGeneration, TextGeneration
from tasks.steps import failure_in
from tasks.typing import Row
from tests.conftest import LONGEST, ROOT
from tests.flows import test_batching
from tests.flows.test_batching import (
    Left,
    OneAnswerLLM,
    _leave_after,  # pyright: ignore[reportPrivateUsage]
    ending,
    generated,
    generation,
    is_right,
    online,
    prompts,
)

provider = test_batching.provider
WAITS: Any = {"use_offline_batch_generation": True, "offline_batch_generation_block_until_done": 1}


def test_shards_behind_a_gap_are_not_lost_where_the_rest_is_finished_online(
    provider: LocalProvider, storage: Path
) -> None:
    with ending(provider, {"bad": [5, 9], "status": 500, "message": "Broken."}):
        dataset = collect(generated(), finish_online_below=5)

    assert online(provider) == 2
    assert [row["instruction"] for row in dataset] == [row["instruction"] for row in prompts(20)]
    assert all(map(is_right, dataset))


def test_what_waits_for_room_in_the_queue_is_not_finished_online_with_a_small_rest(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load(prompts(20, start=100), shard_rows=4).map(generation())
    _leave_after(provider, lambda: collect(other), monkeypatch)
    monkeypatch.setattr(OpenAILLM, "batch_limits", BatchLimits(requests=18, size=10**9))
    task = generation(llm_options={"batch_token_quota": 1100})

    _leave_after(provider, lambda: collect(generated(task=task), finish_online_below=5), monkeypatch)
    assert online(provider) == 0
    with ending(provider):
        dataset = collect(generated(task=task), finish_online_below=5)

    assert online(provider) == 0
    assert all(map(is_right, dataset))


def test_an_answer_in_parts_that_cant_be_read_is_asked_again_by_a_retry(provider: LocalProvider, storage: Path) -> None:
    # Both parts, in the run; and again in each of the retry's passes, until there are others.
    left = 6

    class Picky(TextGeneration):
        def format_output(self, output: str | None, input: Row) -> Row:
            nonlocal left
            if left and input["instruction"].endswith("number 3."):
                left -= 1
                raise ValueError("not that one")
            return super().format_output(output, input)

    llm = OneAnswerLLM(model="gpt-4o", use_offline_batch_generation=True)
    task = Picky(name="picky", llm=llm, num_generations=2, group_generations=True)
    with ending(provider):
        collect(generated(8, task=task), max_failed_rows=1)
        dataset = collect(generated(8, task=task))

    assert [job["request_counts"]["total"] for job in provider.batches] == [16, 2]
    assert all(failure_in(row) is None for row in dataset)


def test_a_fatal_error_ends_a_flow_run_that_waits_in_its_process(
    provider: LocalProvider, storage: Path, prefect: str
) -> None:
    @flow(name="refused-while-waiting")
    async def refused() -> Any:
        return await collect(generated())

    def refuse() -> None:
        while not provider.batches:
            time.sleep(0.01)
        provider.set(api_key="another")

    thread = threading.Thread(target=refuse)
    thread.start()
    with pytest.raises(AuthenticationError):
        asyncio.run(asyncio.wait_for(refused(), LONGEST))
    thread.join()


def test_two_saves_at_once_of_steps_in_common_give_every_row_once(provider: LocalProvider, storage: Path) -> None:
    async def both() -> Any:
        source = load(prompts(20), shard_rows=4)
        first = source.map(generation("first"))
        second = first.map(generation("second", output_mappings={"generation": "again"}))
        return await asyncio.gather(collect(first), collect(second))

    with ending(provider):
        first, second = asyncio.run(asyncio.wait_for(both(), LONGEST))

    assert [len(first), len(second)] == [20, 20]
    assert [job["metadata"]["step"] for job in provider.batches] == ["first", "second"]


def test_no_step_holds_the_claim_of_its_questions_while_it_waits(provider: LocalProvider, storage: Path) -> None:
    first = load(prompts(8), shard_rows=4).map(generation("first"))
    second = first.map(generation("second", output_mappings={"generation": "again"}))

    async def together() -> Any:
        run = asyncio.ensure_future(collect(second))
        while not provider.batches:
            await asyncio.sleep(0.05)
        async with asyncio.timeout(LONGEST), submitting(second.node.run.storage, second.node.space()):
            pass
        with ending(provider):
            return await run

    assert all(row["again"] for row in asyncio.run(together()))


def test_two_runs_that_come_to_submitting_the_same_at_once_submit_it_once(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived: set[int] = set()

    @contextlib.asynccontextmanager
    async def submitting_when_both_are_there(*place: Any) -> AsyncGenerator[None]:
        arrived.add(threading.get_ident())
        while len(arrived) < 2:
            await asyncio.sleep(0.01)
        async with submitting(*place):
            yield

    monkeypatch.setattr("flows.engine.batching.submitting", submitting_when_both_are_there)
    with ending(provider), ThreadPoolExecutor() as threads:
        datasets = [each.result() for each in [threads.submit(lambda: collect(generated(8))) for _ in range(2)]]

    assert len(provider.batches) == 1
    assert all(is_right(row) for dataset in datasets for row in dataset)


@pytest.mark.parametrize("root", ["{folder}", "memory://submitting-{name}"])
def test_only_one_at_a_time_submits_questions_of_a_space(tmp_path: Path, root: str) -> None:
    storage = Storage(root.format(folder=tmp_path, name=uuid4().hex))
    inside, most = 0, 0

    async def submit() -> None:
        nonlocal inside, most
        async with submitting(storage, "space"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.05)
            inside -= 1

    async def all_of_them() -> None:
        await asyncio.gather(*(submit() for _ in range(4)))

    asyncio.run(all_of_them())

    assert most == 1


class SlowToShowLLM(OpenAILLM):
    """For a provider that fails to answer in time, and creates the job all the same, when `show_job` is called."""

    async def create_job(self, file: JobFile, metadata: Mapping[str, str]) -> JobStatus:
        if TRIED:
            await show_job()
            return await super().create_job(file, metadata)
        copy = Path(tempfile.mkstemp()[1])
        copy.write_bytes(file.path.read_bytes())
        later = replace(file, path=copy)

        async def create() -> None:
            await super(SlowToShowLLM, self).create_job(later, metadata)
            copy.unlink()

        TRIED.append(file.intent)
        PENDING.append(create)
        raise OverloadedError("the provider failed (504): Gateway Timeout")


TRIED: list[str] = []
PENDING: list[Callable[[], Coroutine[Any, Any, None]]] = []


async def show_job() -> None:
    while PENDING:
        await run_async(PENDING.pop()())


def test_a_job_that_shows_up_a_little_after_its_creation_seemed_to_fail_is_not_created_again(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, sleep = 10 * LONGEST, asyncio.sleep
    monkeypatch.setattr("flows.engine.batching.INTENT_SECONDS", seconds)
    TRIED.clear()
    PENDING.clear()

    async def sleep_until_it_shows(delay: float, *result: Any) -> Any:
        if not PENDING or delay < seconds:
            return await sleep(delay, *result)
        return await show_job()

    monkeypatch.setattr(asyncio, "sleep", sleep_until_it_shows)
    task = TextGeneration(name="slow", llm=SlowToShowLLM(model="gpt-4o", use_offline_batch_generation=True))
    with ending(provider):
        dataset = collect(generated(task=task))

    assert len(TRIED) == len(provider.batches) == 1
    assert all(map(is_right, dataset))


def test_a_slow_upload_before_a_crash_leaves_time_to_find_its_job(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_after(provider, lambda: collect(generated()), monkeypatch)
    jobs = Jobs(Storage(str(storage)))
    (record,) = jobs.all_open()
    jobs.write(replace(record, job="", status="submitting", intended=time.time() - 5 * LONGEST))
    monkeypatch.setattr("flows.engine.batching.INTENT_SECONDS", LONGEST)
    find_job, looks = OpenAILLM.find_job, 0

    async def not_yet(self: OpenAILLM, *arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return None if looks <= 3 else await find_job(self, *arguments)

    monkeypatch.setattr(OpenAILLM, "find_job", not_yet)
    with ending(provider):
        dataset = collect(generated())

    assert len(provider.batches) == 1
    assert all(map(is_right, dataset))


def test_a_job_whose_results_are_gone_can_be_given_up_by_a_retry(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(self: OpenAILLM, job_id: str) -> AsyncIterator[BatchResult]:
        raise ModelNotFoundError("the provider doesn't know the model or the address (404): No such File object")
        yield

    with ending(provider):
        with monkeypatch.context() as patch:
            patch.setattr(OpenAILLM, "job_results", gone)
            with pytest.raises(JobGoneError, match="batch_.*No such File object.* retry the run"):
                collect(generated())
        with pytest.raises(JobGoneError), monkeypatch.context() as patch:
            patch.setattr(OpenAILLM, "job_results", gone)
            collect(generated())
        dataset = collect(generated())

    assert all(map(is_right, dataset))


def test_a_look_that_took_long_doesnt_open_a_job_again_that_another_run_ended(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_after(provider, lambda: collect(generated()), monkeypatch)
    jobs = Jobs(Storage(str(storage)))
    (record,) = jobs.all_open()
    llm = OpenAILLM(model="gpt-4o", use_offline_batch_generation=True)
    before = run_sync(llm.job_status(record.job))
    with ending(provider):
        collect(generated())

    run_sync(settle(jobs, record, before, llm))

    assert jobs.all_open() == []


FULL_DISK = """
import resource, sys
from flows.ledger import Store
from flows.ledger.store import useless_line
from flows.store.storage import Storage, StorageError

# No file of this process grows past 10,000 bytes: a write is cut there, as where a disk is full.
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
store = Store(Storage(sys.argv[1]), "space")
try:
    store.append(useless_line(f"{number:032x}", "attempt") for number in range(1_000))
except StorageError as error:
    print(error)
"""


def test_a_ledger_that_a_full_disk_cuts_says_so(tmp_path: Path) -> None:
    said = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)

    assert "can't write the ledger" in said.stdout, said.stderr
    assert (tmp_path / "ledger" / "space" / "000000.answers").stat().st_size == 10_000


def test_a_storage_can_be_given_as_a_file_address(
    provider: LocalProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ending(provider):
        collect(generated(4, storage=f"file://{tmp_path}/kept"))

    assert (tmp_path / "kept" / "steps").is_dir()
    assert not (tmp_path / "file:").exists()


def test_the_reason_of_failed_jobs_is_told_with_their_rows(provider: LocalProvider, storage: Path) -> None:
    fail = {"action": "fail", "message": "Something went wrong."}
    task = generation(llm_options={"batch_tries": 2})
    with ending(provider, fail, fail), pytest.raises(TooManyFailedRowsError, match="Something went wrong"):
        collect(generated(task=task))


@pytest.mark.parametrize("kept", [b'{"intent": "cut of', b'{"intent": "of-a-later-version", "more": 1}'])
def test_a_damaged_record_of_another_step_is_no_hindrance(provider: LocalProvider, storage: Path, kept: bytes) -> None:
    folder = storage / "jobs" / "submitted" / "another"
    folder.mkdir(parents=True)
    (folder / "damaged.json").write_bytes(kept)
    with ending(provider):
        dataset = collect(generated(task=generation(llm_options={"batch_token_quota": 10_000})))

    assert all(map(is_right, dataset))


def test_a_damaged_record_of_the_step_is_named_and_nothing_is_submitted(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_after(provider, lambda: collect(generated()), monkeypatch)
    (record,) = (storage / "jobs" / "submitted").rglob("*.json")
    record.write_bytes(record.read_bytes()[:40])

    with pytest.raises(StorageError, match=record.name):
        collect(generated())

    assert len(provider.batches) == 1


@pytest.mark.parametrize("deployed", [True, False])
def test_a_retry_after_an_approval_is_no_wake_up(
    storage: Path, monkeypatch: pytest.MonkeyPatch, deployed: bool
) -> None:
    flow_run = FlowRun(flow_id=uuid4(), name="costly", deployment_id=uuid4() if deployed else None)

    def started(run_count: int) -> Run:
        run = Run(id=str(flow_run.id), attempt=f"{flow_run.id}:{run_count}", storage=Storage(str(storage)))
        resume(run, flow_run.model_copy(update={"run_count": run_count}))
        return run

    async def suspended(**_: Any) -> Any:
        raise Left

    async def answered(**_: Any) -> Any:
        return Approval(approve=True, limit=0)

    waiting = WaitingForBatches(estimates={"step": Estimate(10, 100, 100, 5.0, True, "a guess")})
    monkeypatch.setattr("flows.waiting.leaving.in_flow_run", lambda: True)
    monkeypatch.setattr("prefect.flow_runs.asuspend_flow_run", suspended)
    monkeypatch.setattr("prefect.flow_runs.apause_flow_run", answered)
    first = started(1)
    if deployed:
        with pytest.raises(Left):
            asyncio.run(ask_approval(first, waiting))
        # Prefect counts no start of a run that was resumed.
        woken = started(1)
        assert (woken.attempt, woken.passes) == (first.attempt, 1)
        monkeypatch.setattr("prefect.flow_runs.asuspend_flow_run", answered)
        asyncio.run(ask_approval(woken, waiting))
    else:
        asyncio.run(ask_approval(first, waiting))

    retried = started(2)

    assert (retried.attempt != first.attempt, retried.passes) == (True, 0)
    assert retried.money.approved == 5.0


def test_what_a_job_gave_serves_other_rows_than_those_it_was_asked_for(provider: LocalProvider, storage: Path) -> None:
    with ending(provider):
        collect(generated(8))
        rows = [*prompts(1, start=99), *reversed(prompts(7))]
        dataset = collect(load(rows, shard_rows=3).map(generation("another")))

    assert [job["request_counts"]["total"] for job in provider.batches] == [8, 1]
    assert all(map(is_right, dataset))


def test_another_flow_waits_for_the_job_that_holds_its_questions(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_after(provider, lambda: collect(generated(8)), monkeypatch)
    rows = [{"id": number, **row} for number, row in enumerate([*prompts(2, start=50), *prompts(8)])]
    with ending(provider):
        dataset = collect(load(rows, shard_rows=5).map(generation("another", add_raw_output=False)))

    assert [job["request_counts"]["total"] for job in provider.batches] == [8, 2]
    assert all(map(is_right, dataset))


def test_a_job_whose_keys_are_damaged_is_waited_for_and_nothing_is_submitted_twice(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _leave_after(provider, lambda: collect(generated()), monkeypatch)
    (keys,) = (storage / "jobs" / "submitted").rglob("*.keys")
    content = bytearray(keys.read_bytes())
    content[len(content) // 2] ^= 1
    keys.write_bytes(content)

    _leave_after(provider, lambda: collect(generated()), monkeypatch)
    assert "can't be read any more" in caplog.text
    with ending(provider):
        dataset = collect(generated())

    assert len(provider.batches) == 1
    assert all(map(is_right, dataset))


def test_a_job_that_is_open_at_another_address_stops_the_run_before_it_submits_again(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_after(provider, lambda: collect(generated()), monkeypatch)

    with LocalProvider() as moved:
        monkeypatch.setenv("OPENAI_BASE_URL", moved.base_url)
        with pytest.raises(JobMovedError, match="batch_.*asks otherwise now.*nothing was submitted"):
            collect(generated())
        assert moved.batches == []

    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    with ending(provider):
        assert all(map(is_right, collect(generated())))
    assert len(provider.batches) == 1


def asking(provider: LocalProvider, wire: str, model: str, *, use_cache: bool = True) -> Rows:
    address = provider.base_url if wire == "openai" else provider.base_url.removesuffix("/v1")
    kind = OpenAILLM if wire == "openai" else AnthropicLLM
    llm = kind(model=model, base_url=address, api_key=SecretStr("any"), use_offline_batch_generation=True)
    return load(prompts(8), shard_rows=5, use_cache=use_cache).map(TextGeneration(name="asking", llm=llm))


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
@pytest.mark.parametrize("kept", [True, False], ids=["another model", "without the cache"])
def test_an_open_job_is_in_nobodys_way_who_asks_the_same_otherwise(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch, wire: str, kept: bool
) -> None:
    _leave_after(provider, lambda: collect(asking(provider, wire, "one")), monkeypatch)

    with ending(provider):
        dataset = collect(asking(provider, wire, "other" if kept else "one", use_cache=kept))

    assert len(provider.batches) == 2
    assert len(dataset) == 8
    assert not any(map(failure_in, dataset))


def test_a_refusal_without_a_number_doesnt_make_jobs_of_single_requests(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, looks = OpenAILLM.job_status, 0

    async def refused_at_first(self: OpenAILLM, job_id: str) -> JobStatus:
        nonlocal looks
        looks += 1
        status = await inner(self, job_id)
        if looks > 8:
            return status
        error = QueueFullError("The number of enqueued tokens has surpassed the quota.")
        return replace(status, state="failed", status="failed", error=error)

    monkeypatch.setattr(OpenAILLM, "job_status", refused_at_first)
    with ending(provider):
        dataset = collect(generated(40))

    assert {job["request_counts"]["total"] for job in provider.batches} == {40}
    assert all(map(is_right, dataset))


def test_a_row_that_cant_be_written_into_a_file_of_requests_fails_alone(provider: LocalProvider, storage: Path) -> None:
    def rows(*largest: int) -> list[Row]:
        schemas = [{"type": "object", "properties": {"x": {"type": "integer", "maximum": each}}} for each in largest]
        return [{"instruction": "Count.", "structured_output": {"format": "json", "schema": each}} for each in schemas]

    provider.set(batch_manual=False, batch_seconds=0.0)
    llm = OpenAILLM(model="m", base_url=provider.base_url, **WAITS)

    alone = collect(StructuredGeneration(llm=llm).map(load(rows(10**30))), max_failed_rows=1)
    beside = collect(StructuredGeneration(llm=llm).map(load(rows(5, 10**30))), max_failed_rows=1)

    for dataset in (alone, beside):
        failure = failure_in(dataset[-1])
        assert failure is not None and "beyond 64 bits" in failure["message"]
    assert beside["generation"][0]
    assert [job["request_counts"]["total"] for job in provider.batches] == [1]
