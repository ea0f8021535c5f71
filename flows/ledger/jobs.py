"""Batch jobs as the storage knows them: what was submitted, what came back, and who waits for it.

A job's record is written before the job is created, and carries what the job can be found by at the
provider: after a crash in between, the job is looked up before another is created.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from flows.ledger import Store, opened
from flows.ledger.earlier_layout import MARK as LEGACY_MARK
from flows.ledger.earlier_layout import key_of_old
from flows.ledger.records import CLOCK_SKEW, JobGoneError, JobRecord, Jobs, QueueLimit
from flows.ledger.store import answer_line, failure_line
from flows.store.context import run_logger
from llms import LLMError
from llms.batch import MARK, BatchResult, JobStatus, OfflineBatchLLM, is_over, mark_of
from llms.errors import (
    AuthenticationError,
    Failure,
    IncompleteResultsError,
    ModelNotFoundError,
    QueueFullError,
    UndecidedJobError,
    failure_of,
)
from llms.loop import run_async
from llms.quantities import quantity

RESULTS_AT_A_TIME = 5_000
"""Results that are held before they are written to the ledger."""
NUMBERS_AT_A_TIME = 2_000_000
"""The same for the numbers of their vectors, which take some 32 bytes each, and for each 32 characters of texts."""
FEWEST_TOKENS = 10_000
"""Of a job, where a provider refuses ever smaller ones without a word on how many it takes."""
SECONDS_TO_CREATE = 1200.0
"""After an intent was first looked for: a job that isn't there by then won't come."""
DOWNLOADS = 3
"""Of a job's results in one poll, where the connection is cut."""


def custom_id(place: int, key: str) -> str:
    """The name of a request in a job: its key, and the place of its shard in front."""
    return f"p{place}-{key}"


def split_custom_id(name: str) -> tuple[str, str] | None:
    """The place and the key; None for a name that isn't ours."""
    place, dash, key = name.partition("-")
    return (place[1:], key) if dash and place[:1] == "p" and place[1:].isdigit() else None


async def poll(jobs: Jobs, record: JobRecord, llm: OfflineBatchLLM) -> JobRecord | None:
    """Bring a record up to date; take what its job gave, if it ended. None: the job was for nothing, or never was.

    Raises:
        JobGoneError: the provider doesn't have the job or its results any more.
        LLMError: the provider can't be asked, or says that no other job would do better.
    """
    if not record.job:
        found = await find(jobs, record, llm)
        return found if found.state == "waiting" else await poll(jobs, found, llm)
    try:
        status = await run_async(llm.call_briefly(partial(llm.job_status, record.job)))
    except ModelNotFoundError as error:
        raise JobGoneError(record, error) from None
    return await settle(jobs, record, status, llm)


async def find(jobs: Jobs, record: JobRecord, llm: OfflineBatchLLM) -> JobRecord:
    """The record of an intent with the job that it became; as it was, where the provider knows none."""
    searched = record.searched or time.time()
    taken = [each.job for each in jobs.all_open() if each.job]
    until = searched + SECONDS_TO_CREATE + CLOCK_SKEW
    file = {"requests": record.requests, "size": record.size, "taken": taken, "until": until}
    try:
        status = await run_async(
            llm.call_briefly(partial(llm.find_job, record.intent, record.intended - CLOCK_SKEW, file))
        )
    except UndecidedJobError as error:
        unsure = replace(record, searched=searched, polled=0.0, unsure=True, message=str(error))
        if unsure != record:
            run_logger().warning("%s: %s. Nothing is submitted again before", record.step, error)
            return _noted(jobs, unsure)
        return unsure
    if status is None:
        if record.polled:
            return _created_meanwhile(jobs, record) or record
        return _noted(jobs, replace(record, searched=searched, polled=time.time(), unsure=False, message=""))
    run_logger().info("%s: took up job %s, which was created before an interruption", record.step, status.id)
    known = record.seen(status)
    jobs.write(known)
    return known


def _noted(jobs: Jobs, searched: JobRecord) -> JobRecord:
    """Write down that no job was found, unless another process has created or found it meanwhile."""
    created = _created_meanwhile(jobs, searched)
    if created is None:
        jobs.update(searched)
    return created or searched


def _created_meanwhile(jobs: Jobs, intent: JobRecord) -> JobRecord | None:
    """The record of an intent as another process has noted it with its job."""
    there = jobs.record_at(jobs.path_of(intent))
    return there if there is not None and there.job else None


async def settle(jobs: Jobs, record: JobRecord, status: JobStatus, llm: OfflineBatchLLM) -> JobRecord | None:
    """Write what a job gave into the ledger, if it has ended, and note how it stands."""
    seen = record.seen(status)
    tell_of_unknown_state(record, status)
    if status.state == "waiting":
        # It may have been taken for one that has ended.
        seen = replace(seen, incomplete=0.0)
        jobs.update(seen)
        return seen
    if isinstance(status.error, QueueFullError):
        _learn_limit(jobs, record, status.error)
        jobs.void(record)
        # The same requests are uploaded anew, perhaps often.
        with contextlib.suppress(LLMError):
            await run_async(llm.delete_job(status.id))
        run_logger().warning(
            "%s: job %s was refused, there's no room in the provider's queue now: %s",
            record.step,
            status.id,
            status.message,
        )
        return None
    try:
        got = await run_async(_collect(jobs, seen, llm))
    except LLMError as error:
        if error.retryable or isinstance(error, AuthenticationError):
            raise
        raise JobGoneError(record, error) from None
    if got.incomplete is not None:
        since = record.incomplete or time.time()
        if not is_over(got.incomplete, since):
            message = f"{got.incomplete}; polls again"
            again = replace(seen, state="waiting", message=message, incomplete=since, taken=got.taken)
            jobs.update(again)
            run_logger().info("%s: %s", record.step, message)
            return again
        if got.incomplete.gone is not None:
            raise JobGoneError(record, got.incomplete.gone)
    jobs.end(seen)
    if status.state == "ended":
        _grow_limit(jobs, record)
    run_logger().info(
        "%s: job %s %s, %s of %s answered%s",
        record.step,
        status.id,
        status.status,
        f"{got.answered:,}",
        quantity(record.requests, "request"),
        f": {status.message}" if status.message else "",
    )
    if status.error is not None and status.error.fatal:
        raise status.error
    return seen


def tell_of_unknown_state(record: JobRecord, status: JobStatus) -> None:
    """Say once that a job is in a state without a meaning here."""
    if status.unknown and status.status != record.status:
        said = "%s: job %s is in no state that is known, the provider says %r: it's waited for"
        run_logger().warning(said, record.step, status.id, status.status)


def _learn_limit(jobs: Jobs, record: JobRecord, error: QueueFullError) -> None:
    """Smaller jobs from now on, where this one alone was too large by the provider's count."""
    limits = [error.limit] if error.limit else []
    others = any(
        each.queue == record.queue and each.job and each.state == "waiting" and each.intent != record.intent
        for each in jobs.all_open()
    )
    if not others and (not error.limit or record.tokens > error.limit // 2):
        # Without a number it may be the account's other jobs that take up the room.
        limits.append(max(1 if error.limit else FEWEST_TOKENS, record.tokens // 2))
    if limits:
        now = time.time()
        known = jobs.learned_limit(record.queue) or QueueLimit(min(limits), now)
        jobs.write_queue_limit(record.queue, known.refused(min(limits), error.limit, now))


def _grow_limit(jobs: Jobs, record: JobRecord) -> None:
    """Larger jobs again, after one that the provider took."""
    known = jobs.learned_limit(record.queue)
    if known is not None:
        jobs.write_queue_limit(record.queue, known.succeeded(record.tokens, time.time()))


async def still_holding(jobs: Jobs, records: Sequence[JobRecord], llm: OfflineBatchLLM) -> list[JobRecord]:
    """Those of open jobs of one queue that are open at the provider too: a run that died never sees to its own."""
    asked = await asyncio.gather(*(_as_it_stands(jobs, record, llm) for record in records))
    return [record for record in asked if record is not None]


async def _as_it_stands(jobs: Jobs, record: JobRecord, llm: OfflineBatchLLM) -> JobRecord | None:
    """A record, where its job takes up room or may do so."""
    try:
        if not record.job:
            found = await find(jobs, record, llm)
            # Another process may be creating it.
            may_come = found.unsure or time.time() - record.intended < SECONDS_TO_CREATE
            if not found.job:
                return found if may_come else None
            record = found
        status = await run_async(llm.call_briefly(partial(llm.job_status, record.job)))
    except ModelNotFoundError:
        return None
    except LLMError:
        return record
    if status.state == "waiting":
        return record
    jobs.update(record.seen(status))
    return None


@dataclass(frozen=True)
class _Collected:
    """What was taken of a job's results."""

    answered: int
    taken: float
    """As in the job's record."""
    incomplete: IncompleteResultsError | None = None


async def _collect(jobs: Jobs, record: JobRecord, llm: OfflineBatchLLM) -> _Collected:
    """Append a job's results to the ledger, each once, however often they are read."""
    store = await asyncio.to_thread(opened, jobs.storage, record.space)
    if record.before is not None:
        jobs.storage.write(posixpath.join(store.folder, LEGACY_MARK), b"")
    answered, failed = set[str](), set[str]()
    taken, problem = record.taken, None
    waiting: list[bytes] = []
    numbers = 0
    try:
        async for result in _results(record, llm):
            key = key_of_result(result, record)
            if key is None:
                continue
            failure = failure_of(result.outcome) if isinstance(result.outcome, LLMError) else None
            # Of two results for one request an answer holds, or else the first.
            if key in answered or (failure is not None and key in failed):
                continue
            (answered if failure is None else failed).add(key)
            if record.taken and _is_kept(store, key, record, failure):
                continue
            waiting.append(line_of(key, result, record))
            numbers += numbers_in(result)
            if not taken:
                taken = time.time()
                jobs.update(replace(record, taken=taken))
            if len(waiting) >= RESULTS_AT_A_TIME or numbers >= NUMBERS_AT_A_TIME:
                store.append(waiting)
                waiting, numbers = [], 0
    except LLMError as error:
        problem = error
    if waiting:
        store.append(waiting)
    await asyncio.to_thread(store.flush)
    if problem is not None and not isinstance(problem, IncompleteResultsError):
        raise problem
    return _Collected(len(answered), taken, problem)


def _is_kept(store: Store, key: str, record: JobRecord, failure: Failure | None) -> bool:
    """Whether an earlier poll wrote that down."""
    kept, known = store.find(key), store.failure(key, record.attempt)
    if kept is not None and kept.job == record.intent and store.useless(key) is None:
        return True
    return failure is not None and known is not None and known["message"] == failure["message"]


async def _results(record: JobRecord, llm: OfflineBatchLLM) -> AsyncGenerator[BatchResult]:
    """The results of a job; from the start again where the connection was cut."""
    tries = 0
    while True:
        try:
            async for result in llm.job_results(record.job):
                yield result
        except LLMError as error:
            tries += 1
            if not error.retryable or tries >= min(DOWNLOADS, llm.max_retries + 1):
                raise
        else:
            return


def numbers_in(result: BatchResult) -> int:
    """How many numbers the vectors of a result have, or would have in the room of its texts."""
    if isinstance(result.outcome, LLMError):
        return 0
    characters = sum(len(text or "") for text in result.outcome["generations"])
    return sum(map(len, result.outcome.get("embeddings", []))) + characters // 32


def key_of_result(result: BatchResult, record: JobRecord) -> str | None:
    """The key of the question that a result is of; None for one that isn't this job's."""
    named = split_custom_id(result.custom_id)
    if named is None or result.mark not in {"", mark_of(record.intent)}:
        return None
    return named[1] if record.before is None else key_of_old(record.step, result.custom_id)


def line_of(key: str, result: BatchResult, record: JobRecord) -> bytes:
    """The ledger's line for a result."""
    if isinstance(result.outcome, LLMError):
        return failure_line(key, failure_of(result.outcome), record.attempt, result.outcome.usage, job=record.intent)
    return answer_line(key, result.outcome, record.attempt, job=record.intent, limit=record.limit)


def metadata_of(record: JobRecord, run_url: str) -> dict[str, str]:
    """What goes into a job's metadata: how it is found again, and where it comes from, for people."""
    known = {
        MARK: record.intent,
        "step": record.step,
        "shards": record.shards,
        "requests": str(record.requests),
        "flow_run": record.flow_run,
        "flow_run_url": run_url,
    }
    return {name: value[:512] for name, value in known.items() if value}
