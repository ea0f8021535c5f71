"""A Task whose LLM answers in offline batches: all shards are asked in jobs as large as the provider allows.

A pass goes through the shards in order. What is answered is taken from the ledger, what a job is open for
is left alone, whoever submitted it, and the rest is submitted once no more can come. Rows are not kept between
submission and answer: a later pass makes the same requests again, and finds their answers.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import orjson

from flows.engine.answering import Batch, Located, begun, keep_shard, located, made_from_batches, made_online
from flows.engine.costs import Estimate, estimate_of_step, needs_approval
from flows.engine.graph import Node, Stream, aligned
from flows.engine.task_runs import as_task_run, shard_state, told
from flows.ledger import Store, opened, submitting
from flows.ledger.creating import after_failure
from flows.ledger.jobs import find, metadata_of, split_custom_id, still_holding
from flows.ledger.prompts import prompt_in
from flows.ledger.questions import RUN_SUFFIX
from flows.ledger.records import JobMovedError, JobRecord, Jobs, queue_of
from flows.ledger.table import AnyKey
from flows.store.context import run_logger
from flows.store.shards import ShardRef
from llms.batch import BatchRequest, JobFile, JobWriter, OfflineBatchLLM
from llms.credentials import is_given_in_code
from llms.errors import LLMError
from llms.limits import delay
from llms.loop import run_async
from llms.quantities import quantity
from tasks.base import ModelStep

INTENT_SECONDS = 20.0
"""A job that the provider still doesn't know so long after its creation began was never created."""
SAMPLE = 5
PROMPTS_AT_A_TIME = 1000
ANSWERED = "answered meanwhile"
"""In place of a job: another run got answers that this pass would have submitted the questions of."""


class WaitingForBatches(Exception):
    """A step can't go on before batch jobs end, there's room for others, or a person agrees to a cost."""

    def __init__(
        self, *, needs: Iterable[str] = (), queued: int = 0, estimates: Mapping[str, Estimate] | None = None
    ) -> None:
        super().__init__("waiting for batches")
        self.needs = frozenset(needs)
        """The jobs that hold requests of its rows, by their intents."""
        self.queued = queued
        """Requests for which there's no room in the provider's queue."""
        self.estimates = dict(estimates or {})
        """What would be sent, by step, if a person agreed."""


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


def deadline_of(node: Node) -> float | None:
    """When what no batch job of an offline step has answered is to be asked online, in seconds since 1970."""
    hours = offline_llm(node).ready_by
    return None if hours is None else node.run.times.attempt_began + hours * 3600


def is_late(node: Node) -> bool:
    """Whether an offline step's deadline has passed."""
    deadline = deadline_of(node)
    return deadline is not None and time.time() >= deadline


def may_have_moved(record: JobRecord, space: str, llm: OfflineBatchLLM) -> bool:
    """Whether an open job may be one that a model in `space` would have got there, but for its address.

    Several models may be asked the same questions, and a run without the cache asks its own.
    """
    without_cache = RUN_SUFFIX in record.space or RUN_SUFFIX in space
    return not without_cache and record.llm.get("model") == llm.model_dump(mode="json").get("model")


async def take_batches(node: Node) -> None:
    """Bring all shards through an offline Task, as far as they get now.

    Raises:
        WaitingForBatches: not all of them got through.
        LLMError: a job can't be created, for a reason that holds for all.
    """
    batch_pass = await _Pass.begin(node, Jobs(node.run.storage))
    with batch_pass.writer:
        await batch_pass.go()


@dataclass(eq=False)
class _Pending:
    """A shard that lacks answers."""

    place: int
    refs: list[ShardRef]
    where: Located


@dataclass(eq=False)
class _Pass:
    """One pass over the shards of a step."""

    node: Node
    jobs: Jobs
    store: Store
    batch: Batch
    writer: JobWriter
    own: list[JobRecord]
    """The open jobs that this attempt submitted for the step, wherever to."""
    elsewhere: list[JobRecord]
    """Those that any run submitted for such a step of this model to where no step of the run asks now."""
    full: list[JobFile] = field(default_factory=list[JobFile])
    files: list[JobFile] = field(default_factory=list[JobFile])
    """What is to be submitted at the end of the pass."""
    pending: list[_Pending] = field(default_factory=list[_Pending])
    held: list[tuple[int, ShardRef]] = field(default_factory=list[tuple[int, ShardRef]])
    """The shards after a gap: readers want them in order."""
    queued: int = 0
    asked: bool = False
    """Whether the provider was asked in this pass which jobs of other runs take up the queue."""

    @classmethod
    async def begin(cls, node: Node, jobs: Jobs) -> _Pass:
        run, llm, space = node.run, offline_llm(node), node.space()
        found = await _open_jobs(node, jobs)
        if run.money.budget is not None:
            async with run.money.turn:
                run.money.budget.submitted = await asyncio.to_thread(cost_of_jobs, jobs, run.id)
        every = [each for each in await asyncio.to_thread(jobs.all_open) if each.step == node.name]
        ended = [each for each in await asyncio.to_thread(jobs.ended_of, run.id) if each.attempt == run.attempt]
        asked = {each.space() for each in run.nodes if isinstance(each.step, ModelStep)}
        batch = Batch(lambda request: None, late=is_late(node))
        batch.open_jobs = {each.intent: await asyncio.to_thread(jobs.keys_of, each) for each in found}
        here = [each for each in ended if each.space == space]
        batch.ended_jobs = [(await asyncio.to_thread(jobs.keys_of, each), each.message) for each in here]
        batch.known_there = any(each.job and each.attempt == run.attempt for each in [*every, *ended])
        made = cls(
            node,
            jobs,
            await asyncio.to_thread(opened, run.storage, space),
            batch,
            llm.job_writer(jobs.queue_limit(queue_of(llm))),
            own=[each for each in every if (each.run, each.attempt) == (run.id, run.attempt)],
            elsewhere=[each for each in every if each.space not in asked and may_have_moved(each, space, llm)],
        )
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
                while self.full and self._may_submit_early() and not self.batch.late and not self._unseen():
                    await self._submit(self.full.pop(0))
        except WaitingForBatches:
            # More may come: what isn't a whole job yet is asked again then.
            raise WaitingForBatches(needs=self.batch.needs, queued=self.queued) from None
        files = self.files = [*self.full, *self.writer.rest()]
        count = sum(len(file.custom_ids) for file in files)
        few = count < self.node.run.money.spending.finish_online_below
        if files and (few or self.batch.late) and not (self.batch.needs or self.queued):
            await self._approve_online(files)
            try:
                await self._finish_online("late" if self.batch.late else "too few for a job")
            finally:
                self.node.run.money.expected.pop(self.node.name, None)
            return
        if files and self.batch.late:
            # Those of a shard are asked together, and what an open job holds isn't asked twice.
            raise WaitingForBatches(needs=self.batch.needs)
        if files:
            await asyncio.to_thread(self._check_nothing_moved)
        await self._submit_all(files)
        if self.pending:
            raise WaitingForBatches(needs=self.batch.needs, queued=self.queued)

    def _may_submit_early(self) -> bool:
        """Whether a job may go before the others are known. A cost is agreed to, and limited, as a whole."""
        return self.node.run.money.spending.approve_cost_above is None and self.node.run.money.budget is None

    async def _bring(self, place: int, refs: list[ShardRef]) -> None:
        """Bring one shard as far as it gets."""
        node = self.node

        async def count(questions: Sequence[int]) -> Sequence[int]:
            return node.samples.count_on(questions)

        async with located(node, place, refs, count, batch=self.batch) as where:
            found, session = where.found, where.session
            if found is not None and node.run.passes and found.attempt == node.run.attempt:
                self._push(place, refs, found, reused=False, known=True)
                return
            if found is not None:
                await self._keep(place, refs, lambda: _at_once(found, reused=True))
                return
            session = session or await begun(node, place, refs, self.batch)
            made = await made_from_batches(session, where.before)
            if made is None:
                self.pending.append(_Pending(place, refs, Located(where.path, None, None, where.before)))
                return

            async def keep() -> tuple[ShardRef, bool]:
                return await keep_shard(session, where.path, made), False

            await self._keep(place, refs, keep)

    async def _keep(
        self, place: int, refs: list[ShardRef], work: Callable[[], Awaitable[tuple[ShardRef, bool]]]
    ) -> None:
        async def make() -> Any:
            return shard_state(*await work(), refs)

        ref, reused = await as_task_run(self.node.name, f"{self.node.name}-{place}", make)
        self._push(place, refs, ref, reused=reused)

    def _push(self, place: int, refs: list[ShardRef], ref: ShardRef, *, reused: bool, known: bool = False) -> None:
        progress = self.node.run.progress_of(self.node.name, self.node.step)
        progress.add(ref, refs[0].rows, reused=reused, known=known)
        if self.pending:
            self.held.append((place, ref))
        else:
            cast("Stream", self.node.stream).push(place, ref)

    async def _finish_online(self, why: str) -> None:
        count = sum(len(file.custom_ids) for file in self.files)
        run_logger().info("%s: sent online: %s, %s", self.node.name, quantity(count, "request"), why)
        waiting, self.pending = self.pending, []
        for each in waiting:
            self._push_held(each.place)

            async def answer(each: _Pending = each) -> tuple[ShardRef, bool]:
                return await made_online(each.where, self.node, each.place, each.refs), False

            await self._keep(each.place, each.refs, answer)
        self._push_held()

    def _push_held(self, before: int | None = None) -> None:
        """Push the shards after the gaps that are closed now, up to the place of the next one."""
        while self.held and (before is None or self.held[0][0] < before):
            cast("Stream", self.node.stream).push(*self.held.pop(0))

    async def _submit_all(self, files: Sequence[JobFile]) -> None:
        """Submit what is left at the end of a pass, if it may cost what it would.

        Raises:
            CostLimitError: that is more than is left of the run's `max_cost`.
            WaitingForBatches: it has to be agreed to first.
        """
        if not files:
            return
        money, whole = self.node.run.money, self._estimate(files)
        async with money.turn:
            try:
                if money.budget is not None:
                    money.budget.check_jobs(self.node.name, whole.dollars)
                self._check_agreed(whole)
                for file in files:
                    await self._submit(file)
            finally:
                if money.budget is not None:
                    money.budget.reserved = 0.0

    async def _approve_online(self, files: Sequence[JobFile]) -> None:
        """Expect the cost of the requests online. Raises WaitingForBatches where that has to be agreed to first."""
        money, whole = self.node.run.money, self._estimate(files, batch=False)
        async with money.turn:
            self._check_agreed(whole)
            money.expected[self.node.name] = whole.dollars or 0.0

    def _check_agreed(self, whole: Estimate) -> None:
        if needs_approval(self.node.run, [whole]):
            raise WaitingForBatches(needs=self.batch.needs, queued=self.queued, estimates={self.node.name: whole})

    def _estimate(self, files: Sequence[JobFile], *, batch: bool = True) -> Estimate:
        count, tokens = sum(len(file.custom_ids) for file in files), sum(file.tokens for file in files)
        return estimate_of_step(cast("ModelStep", self.node.step), count, tokens, batch=batch)

    def _unseen(self) -> list[JobRecord]:
        """The open jobs of this attempt in which no row has asked anything so far."""
        return [each for each in self.own if each.intent not in self.batch.needs]

    def _check_nothing_moved(self) -> None:
        """Before anything is submitted: an open job of this attempt holds what the step asks, if all is as it was.

        Raises:
            JobMovedError: it holds something else: the address, the settings or the code changed while it was open.
                Or a job that went to another address holds what is to be submitted.
        """
        for record in self._unseen():
            keys = self.jobs.keys_in(record) if record.before is None else []
            is_here = record.space == self.store.space and any(map(self.store.find, keys or ()))
            if keys is not None and not is_here and self._is_open(record):
                raise JobMovedError(record, self.jobs.path_of(record))
        asked = [_key_in(name) for file in self.files for name in file.custom_ids] if self.elsewhere else []
        for record in self.elsewhere:
            keys = self.jobs.keys_of(record)
            if not isinstance(keys, AnyKey) and any(key in keys for key in asked) and self._is_open(record):
                raise JobMovedError(record, self.jobs.path_of(record))

    def _is_open(self, record: JobRecord) -> bool:
        """Whether a job still is: another run may have brought it to its end since it was read."""
        return self.jobs.record_at(self.jobs.path_of(record)) is not None

    async def _submit(self, file: JobFile) -> None:
        """Create a job, or leave it for later where there's no room for it."""
        async with submitting(self.jobs.storage, self.store.space):
            left = await self._not_held(file)
            if left is None:
                return
            if not await self._has_room(left):
                self.queued += len(left.custom_ids)
                return
            await self._create_job(left)

    async def _not_held(self, file: JobFile) -> JobFile | None:
        """A file without what other runs have submitted or got answered since this pass began."""
        records = await asyncio.to_thread(self.jobs.open_of, self.store.space)
        new = [each for each in records if each.intent not in self.batch.open_jobs]
        held = {each.intent: await asyncio.to_thread(self.jobs.keys_of, each) for each in new}
        # What waits to be written isn't found: it would be paid again.
        await asyncio.to_thread(self.store.flush)
        await asyncio.to_thread(self.store.refresh)
        limit, attempt = self.llm.token_limit(), self.node.run.attempt

        def is_to_go(name: str) -> bool:
            key = _key_in(name)
            holding = {intent for intent, keys in held.items() if key in keys}
            kept = self.store.find(key)
            if kept is not None and kept.serves(limit) and self.store.useless(key) in {None, attempt}:
                holding.add(ANSWERED)
            self.batch.needs |= holding
            return not holding

        return await asyncio.to_thread(file.only, is_to_go)

    async def _create_job(self, file: JobFile) -> None:
        record = self._record_of(file)

        async def submit() -> Any:
            known = await self._create(record, file)
            message = f"{known.job}: {quantity(known.requests, 'request')}"
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
        run_logger().info("%s: submitted %s as job %s", self.node.name, quantity(known.requests, "request"), known.job)

    def _leave_for_later(self, record: JobRecord) -> None:
        """Submit its requests in a later pass; where it may have become a job all the same, that is found out first."""
        if any(each.intent == record.intent for each in self.jobs.open_of(self.store.space)):
            self.batch.needs.add(record.intent)
        else:
            self.queued += record.requests

    async def _has_room(self, file: JobFile) -> bool:
        queue = queue_of(self.llm)
        limit = await asyncio.to_thread(self.jobs.queue_limit, queue)
        quotas = [each for each in (self.llm.batch_token_quota, limit) if each is not None]
        if not quotas:
            return True
        # One that has ended takes up no room, also where its run hasn't seen to it yet.
        every = await asyncio.to_thread(self.jobs.all_open)
        holding = [each for each in every if each.queue == queue and each.state == "waiting"]
        if not _fits(file, holding, min(quotas)) and not self.asked:
            self.asked = True
            ours = [each for each in holding if each.run == self.node.run.id]
            others = [each for each in holding if each.run != self.node.run.id]
            holding = [*ours, *await still_holding(self.jobs, others, self.llm)]
        return _fits(file, holding, min(quotas))

    def _record_of(self, file: JobFile) -> JobRecord:
        run = self.node.run
        places = [int(cast("tuple[str, str]", split_custom_id(name))[0]) for name in file.custom_ids]
        dollars = self._estimate([file]).dollars
        run.money.submitted += dollars or 0.0
        if run.money.budget is not None:
            run.money.budget.submit(dollars or 0.0)
        return JobRecord(
            intent=file.intent,
            run=run.id,
            attempt=run.attempt,
            flow_run=run.flow_run.id,
            step=self.node.name,
            space=self.store.space,
            llm=self.llm.model_dump(mode="json"),
            queue=queue_of(self.llm),
            requests=len(file.custom_ids),
            size=file.size,
            tokens=file.tokens,
            shards=f"{min(places)}-{max(places)}",
            sample=file.custom_ids[:SAMPLE],
            intended=time.time(),
            limit=self.llm.token_limit(),
            dollars=dollars,
            address_in_code=is_given_in_code(getattr(self.llm, "base_url", None) or ""),
        )

    async def _create(self, record: JobRecord, file: JobFile) -> JobRecord:
        """Note the intent, create the job, and note its id."""
        await asyncio.to_thread(self._note_prompts, file)
        await asyncio.to_thread(self.jobs.intend, record, list(map(_key_in, file.custom_ids)))
        metadata = metadata_of(record, self.node.run.flow_run.url)
        for tries in itertools.count(1):
            try:
                status = await run_async(self.llm.create_job(file, metadata))
            except LLMError as failure:
                known = await self._after_failure(record, failure, tries)
                if known is not None:
                    return known
            else:
                known = record.seen(replace(status, state="waiting"))
                await asyncio.to_thread(self.jobs.write, known)
                return known
        raise AssertionError("not reached")

    async def _after_failure(self, record: JobRecord, failure: LLMError, tries: int) -> JobRecord | None:
        """The job that was created all the same, or may have been; None to create it again. Raises `failure`."""
        doubt = after_failure(failure, tries, self.llm.max_retries)
        if doubt.is_over:
            if doubt.is_void:
                self.jobs.void(record)
            raise failure
        # Few and far between: what is at stake is a whole job.
        seconds = delay(tries + 1, failure.retry_after)
        await asyncio.sleep(seconds if doubt.shows_at_once else max(seconds, INTENT_SECONDS))
        if doubt.is_void:
            return None
        known = await find(self.jobs, record, self.llm)
        return known if known.job or known.unsure else None

    def _note_prompts(self, file: JobFile) -> None:
        with file.path.open("rb") as lines:
            for count, (name, line) in enumerate(zip(file.custom_ids, lines, strict=True), 1):
                request = orjson.loads(line)
                prompt = prompt_in(request.get("body") or request.get("params") or {})
                self.store.prompts.note(_key_in(name), prompt)
                if count % PROMPTS_AT_A_TIME == 0:
                    self.store.prompts.flush()
        self.store.prompts.flush()


def _fits(file: JobFile, holding: Sequence[JobRecord], quota: int) -> bool:
    """Whether a job of the file goes into a queue beside those. Into an empty one it goes whatever its size."""
    taken = sum(record.tokens for record in holding)
    return not taken or taken + file.tokens <= quota


async def _at_once(ref: ShardRef, *, reused: bool) -> tuple[ShardRef, bool]:
    return ref, reused


def _key_in(name: str) -> str:
    return cast("tuple[str, str]", split_custom_id(name))[1]


def cost_of_jobs(jobs: Jobs, run: str) -> float:
    """Dollars of a run's batch jobs: as they were estimated, and of those that have ended for what was answered."""
    open_jobs = sum(each.dollars or 0.0 for each in jobs.all_open() if each.run == run)
    ended = jobs.ended_of(run)
    return open_jobs + sum((each.dollars or 0.0) * (each.answered + each.refused) / each.requests for each in ended)


def is_forgotten(record: JobRecord) -> bool:
    """Whether a job that the provider doesn't know was never created: it would be known by now."""
    now = time.time()
    # Its upload may have taken long, so the intent's age alone says nothing.
    searched_for = record.polled and now - record.polled >= INTENT_SECONDS
    return bool(not record.job and searched_for and now - record.intended >= INTENT_SECONDS)


async def _open_jobs(node: Node, jobs: Jobs) -> list[JobRecord]:
    """The open jobs that hold questions of the step's space. Those that were never created are forgotten."""
    storage, space = node.run.storage, node.space()
    known = await asyncio.to_thread(jobs.open_of, space)
    if all(record.job for record in known):
        return known
    # Whoever is creating one has the claim. Now it is created, or nobody is at it any more.
    async with submitting(storage, space):
        found: list[JobRecord] = []
        for record in await asyncio.to_thread(jobs.open_of, space):
            seen = record if record.job else await find(jobs, record, offline_llm(node))
            if is_forgotten(seen):
                jobs.void(seen)
                # It stays where it was created at that moment.
                seen = jobs.record_at(jobs.path_of(seen))
            if seen is not None:
                found.append(seen)
    return found
