"""A Task whose LLM answers in offline batches: all shards are asked in jobs as large as the provider allows.

A pass goes through the shards in order. What is answered is taken from the journals, what a job is open for
is left alone, and the rest is submitted once no more can come. Rows are not kept between submission and
answer: a later pass makes the same requests again, and finds their answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from flows.answering import Batch, answer_from_batches, answer_shard, keep_shard, known_shard, sound_shard
from flows.costs import Estimate, estimate
from flows.jobs import JobRecord, Jobs, find, journal_path, metadata_of, queue_of, split_custom_id
from flows.journal import Journal
from flows.log import run_logger
from flows.rows import Node, Stream, aligned, digest_of_inputs
from flows.shards import ShardRef, read_shard
from flows.storage import Storage
from flows.task_runs import as_task_run, told, told_of_shard
from llms.batch import BatchRequest, JobFile, JobWriter, OfflineBatchLLM
from llms.errors import ConnectionFailedError, LLMError, RateLimitError
from llms.limits import delay
from llms.loop import run_async
from tasks.base import ModelStep
from tasks.typing import Row

INTENT_SECONDS = 20.0
"""A job that the provider still doesn't know so long after its creation began was never created."""
INTENT_SECONDS_UNLOCKED = 1200.0
"""The same on storages without locks, where another process may still be creating it."""
SAMPLE = 5


class WaitingForBatches(Exception):
    """A step can't go on before batch jobs end, there's room for others, or a person agrees to their cost."""

    def __init__(
        self, *, needs: Iterable[str] = (), queued: int = 0, estimates: Mapping[str, Estimate] | None = None
    ) -> None:
        super().__init__("waiting for batches")
        self.needs = frozenset(needs)
        """The jobs that hold requests of its rows, by their intents."""
        self.queued = queued
        """Requests for which there's no room in the provider's queue."""
        self.estimates = dict(estimates or {})
        """What would be submitted, by step, if a person agreed."""


def is_offline(node: Node) -> bool:
    """Whether the step's requests go into batch jobs. A look at a few rows doesn't wait for any."""
    step = node.step
    return (
        isinstance(step, ModelStep)
        and isinstance(step.answerer, OfflineBatchLLM)
        and step.answerer.use_offline_batch_generation
        and node.run.limits is None
    )


def offline_llm(node: Node) -> OfflineBatchLLM:
    """The LLM of a step for which `is_offline` holds."""
    return cast("OfflineBatchLLM", cast("ModelStep", node.step).answerer)


async def take_batches(node: Node) -> None:
    """Bring all shards through an offline Task, as far as they get now.

    Raises:
        WaitingForBatches: not all of them got through.
        LLMError: a job can't be created, for a reason that holds for all.
    """
    jobs = Jobs(node.run.storage)
    folder = jobs.relative(node.folder())
    for before in node.upstream:
        # Whoever waits for a step that waits for its lock must not hold another one.
        await anext(cast("Stream", before.stream).read(), None)
    async with locked(node.run.storage, node.folder()):
        batch_pass = await _Pass.begin(node, jobs, folder)
        with batch_pass.writer:
            await batch_pass.go()


@dataclass(eq=False)
class _Pending:
    """A shard that lacks answers."""

    place: int
    refs: list[ShardRef]
    path: str


@dataclass(eq=False)
class _Pass:
    """One pass over the shards of a step."""

    node: Node
    jobs: Jobs
    folder: str
    batch: Batch
    writer: JobWriter
    full: list[JobFile] = field(default_factory=list[JobFile])
    inputs: dict[str, str] = field(default_factory=dict[str, str])
    """The digest of each shard's inputs, by its place."""
    pending: list[_Pending] = field(default_factory=list[_Pending])
    held: list[tuple[int, ShardRef]] = field(default_factory=list[tuple[int, ShardRef]])
    """The shards after a gap: readers want them in order."""
    queued: int = 0

    @classmethod
    async def begin(cls, node: Node, jobs: Jobs, folder: str) -> _Pass:
        llm = offline_llm(node)
        found = await _open_jobs(node, jobs, folder)
        open_jobs = [record.intent for record in found]
        ended = await asyncio.to_thread(jobs.ended_of, node.run.id)
        writer = llm.job_writer(jobs.queue_limit(queue_of(llm)))
        batch = Batch(lambda request: None, frozenset(open_jobs), {each.intent: each.message for each in ended})
        batch.known_there = any(each.job and each.attempt == node.run.attempt for each in [*found, *ended])
        waits = await asyncio.to_thread(jobs.waits)
        batch.shared = any(folder in wait.folders and wait.flow_run != node.run.flow_run for wait in waits)
        made = cls(node, jobs, folder, batch, writer)
        batch.put = made.put
        return made

    @property
    def llm(self) -> OfflineBatchLLM:
        return offline_llm(self.node)

    def put(self, request: BatchRequest) -> None:
        full = self.writer.add(request)
        if full is not None:
            self.full.append(full)

    async def go(self) -> None:
        try:
            async for place, refs in aligned(self.node):
                await self._bring(place, refs)
                # A cost is agreed to as a whole, so nothing is submitted before it is known.
                while self.full and self.node.run.batches.approve_cost_above is None:
                    await self._submit(self.full.pop(0))
        except WaitingForBatches:
            # More may come: what isn't a whole job yet is asked again then.
            raise WaitingForBatches(needs=self.batch.needs, queued=self.queued) from None
        files = [*self.full, *self.writer.rest()]
        count = sum(len(file.custom_ids) for file in files)
        if 0 < count < self.node.run.batches.finish_online_below and not (self.batch.needs or self.queued):
            await self._finish_online()
            return
        self._approve(files)
        for file in files:
            await self._submit(file)
        if self.pending:
            raise WaitingForBatches(needs=self.batch.needs, queued=self.queued)

    async def _bring(self, place: int, refs: list[ShardRef]) -> None:
        """Bring one shard as far as it gets."""
        node = self.node
        self.inputs[str(place)] = digest_of_inputs(refs)
        ref = await known_shard(node, place, refs)
        if ref is not None:
            self._push(place, refs, ref, reused=False, known=True)
            return
        path = node.shard_path(place, refs)
        found = await sound_shard(node, path)
        if found is not None:
            await self._keep(place, refs, lambda: _at_once(found, reused=True))
            return
        rows = await asyncio.to_thread(read_shard, node.run.storage, refs[0])
        session, made = await answer_from_batches(node, cast("ModelStep", node.step), path, rows, place, self.batch)
        if made is None:
            self.pending.append(_Pending(place, refs, path))
            return

        async def keep() -> tuple[ShardRef, bool]:
            return await keep_shard(session, path, rows, made), False

        await self._keep(place, refs, keep)

    async def _keep(
        self, place: int, refs: list[ShardRef], work: Callable[[], Awaitable[tuple[ShardRef, bool]]]
    ) -> None:
        async def make() -> Any:
            return told_of_shard(*await work(), refs)

        ref, reused = await as_task_run(self.node.name, f"{self.node.name}-{place}", make)
        self._push(place, refs, ref, reused=reused)

    def _push(self, place: int, refs: list[ShardRef], ref: ShardRef, *, reused: bool, known: bool = False) -> None:
        progress = self.node.run.progress_of(self.node.name, self.node.step)
        progress.add(ref, refs[0].rows, reused=reused, known=known)
        if self.pending:
            self.held.append((place, ref))
        else:
            cast("Stream", self.node.stream).push(place, ref)

    async def _finish_online(self) -> None:
        run_logger().info("%s: the rest is too little for a job and is asked online", self.node.name)
        waiting, self.pending = self.pending, []
        for each in waiting:
            self._push_held(each.place)
            rows = await asyncio.to_thread(read_shard, self.node.run.storage, each.refs[0])

            async def answer(each: _Pending = each, rows: list[Row] = rows) -> tuple[ShardRef, bool]:
                return await answer_shard(
                    self.node, cast("ModelStep", self.node.step), each.path, rows, each.place
                ), False

            await self._keep(each.place, each.refs, answer)
        self._push_held()

    def _push_held(self, before: int | None = None) -> None:
        """Push the shards after the gaps that are closed now, up to the place of the next one."""
        while self.held and (before is None or self.held[0][0] < before):
            cast("Stream", self.node.stream).push(*self.held.pop(0))

    def _approve(self, files: Sequence[JobFile]) -> None:
        """Raises WaitingForBatches where what `files` would cost has to be agreed to first."""
        run = self.node.run
        limit = run.batches.approve_cost_above
        if limit is None or not files:
            return
        whole = self._estimate(files)
        unpriced = whole.dollars is None and not run.approved_unpriced
        if unpriced or run.dollars + (whole.dollars or 0.0) > max(limit, run.approved):
            raise WaitingForBatches(needs=self.batch.needs, queued=self.queued, estimates={self.node.name: whole})

    def _estimate(self, files: Sequence[JobFile]) -> Estimate:
        count = sum(len(file.custom_ids) for file in files)
        answers = cast("ModelStep", self.node.step).answers_per_row
        each = answers // self.llm.requests_per_input(answers)
        return estimate(self.llm, count, sum(file.tokens for file in files), batch=True, num_generations=each)

    async def _submit(self, file: JobFile) -> None:
        """Create a job, or leave it for later where there's no room for it."""
        if not await asyncio.to_thread(self._has_room, file):
            self.queued += len(file.custom_ids)
            return
        record = self._record_of(file)

        async def submit() -> Any:
            known = await self._create(record, file)
            message = f"{known.job}: {known.requests:,} requests"
            return told("Submitted", message, known)

        try:
            known = await as_task_run(self.node.name, f"{self.node.name}-job", submit)
        except LLMError as error:
            if not error.retryable or not self.batch.known_there:
                raise
            # The provider took jobs of this run before: it's away for a while.
            run_logger().warning("%s: can't submit now: %s", self.node.name, error)
            self._leave_for_later(record)
            return
        self.batch.known_there = True
        self.batch.needs.add(known.intent)
        run_logger().info("%s: submitted %s requests as job %s", self.node.name, f"{known.requests:,}", known.job)

    def _leave_for_later(self, record: JobRecord) -> None:
        """Submit its requests in a later pass; where it may have become a job all the same, that is found out first."""
        if any(each.intent == record.intent for each in self.jobs.open_of(self.folder)):
            self.batch.needs.add(record.intent)
        else:
            self.queued += record.requests

    def _has_room(self, file: JobFile) -> bool:
        queue = queue_of(self.llm)
        quotas = [each for each in (self.llm.batch_token_quota, self.jobs.queue_limit(queue)) if each is not None]
        if not quotas:
            return True
        # One that has ended takes up no room, also where its run hasn't seen to it yet.
        open_jobs = [each for each in self.jobs.all_open() if each.queue == queue and each.state == "waiting"]
        taken = sum(record.tokens for record in open_jobs)
        return not taken or taken + file.tokens <= min(quotas)

    def _record_of(self, file: JobFile) -> JobRecord:
        run = self.node.run
        places = dict.fromkeys(cast("tuple[str, str]", split_custom_id(name))[0] for name in file.custom_ids)
        dollars = self._estimate([file]).dollars
        run.dollars += dollars or 0.0
        return JobRecord(
            intent=uuid.uuid4().hex,
            run=run.id,
            attempt=run.attempt,
            flow_run=run.flow_run,
            step=self.node.name,
            folder=self.folder,
            llm=self.llm.model_dump(mode="json"),
            queue=queue_of(self.llm),
            requests=len(file.custom_ids),
            size=file.size,
            tokens=file.tokens,
            shards={place: self.inputs[place] for place in places},
            sample=file.custom_ids[:SAMPLE],
            intended=time.time(),
            dollars=dollars,
        )

    async def _create(self, record: JobRecord, file: JobFile) -> JobRecord:
        """Note the intent, create the job, and note its id."""
        await asyncio.to_thread(self._note, record, file)
        metadata = metadata_of(record, self.node.run.url)
        tries = 0
        while True:
            try:
                status = await run_async(self.llm.create_job(file, metadata))
                break
            except LLMError as error:
                tries += 1
                if not error.retryable or tries > self.llm.max_retries:
                    if not error.retryable or isinstance(error, RateLimitError):
                        self.jobs.void(record)
                    raise
                # Few and far between: what is at stake is a whole job.
                seconds = delay(tries + 1, error.retry_after)
                # It may have been created all the same, and show up a little later.
                refused = isinstance(error, RateLimitError | ConnectionFailedError)
                await asyncio.sleep(seconds if refused else max(seconds, INTENT_SECONDS))
                known = record if isinstance(error, RateLimitError) else await find(self.jobs, record, self.llm)
                if known.job:
                    return known
        known = record.seen(replace(status, state="waiting"))
        await asyncio.to_thread(self.jobs.write, known)
        return known

    def _note(self, record: JobRecord, file: JobFile) -> None:
        by_place: dict[str, list[str]] = {}
        for name in file.custom_ids:
            place, key = cast("tuple[str, str]", split_custom_id(name))
            by_place.setdefault(place, []).append(key)
        for place, keys in by_place.items():
            journal = Journal(
                self.jobs.storage, journal_path(self.jobs.storage, self.folder, place, self.inputs[place])
            )
            journal.append({"j": record.intent, "x": record.attempt, "ks": keys})
            journal.close()
        self.jobs.write(record)


async def _at_once(ref: ShardRef, *, reused: bool) -> tuple[ShardRef, bool]:
    return ref, reused


def is_forgotten(record: JobRecord, storage: Storage) -> bool:
    """Whether a job that the provider doesn't know was never created: it would be known by now."""
    allowed = INTENT_SECONDS if storage.is_local else INTENT_SECONDS_UNLOCKED
    now = time.time()
    # Its upload may have taken long, so the intent's age alone says nothing.
    looked_for = record.looked and now - record.looked >= INTENT_SECONDS
    return bool(not record.job and looked_for and now - record.intended >= allowed)


async def _open_jobs(node: Node, jobs: Jobs, folder: str) -> list[JobRecord]:
    """The jobs that hold requests of the step. Those that were never created are forgotten."""
    known: list[JobRecord] = []
    for record in await asyncio.to_thread(jobs.open_of, folder):
        found = record if record.job else await find(jobs, record, offline_llm(node))
        if not is_forgotten(found, node.run.storage):
            known.append(found)
        else:
            jobs.void(found)
    return known


@asynccontextmanager
async def locked(storage: Storage, folder: str) -> AsyncGenerator[None]:
    """Keep other processes of this machine from submitting requests of the step. The lock ends with the process."""
    try:
        import fcntl
    except ImportError:
        fcntl = None
    if fcntl is None or not storage.is_local:
        yield
        return
    path = Path(folder) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            await asyncio.sleep(0.2)
        yield
