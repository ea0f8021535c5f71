"""A Task over one shard: questions to the ledger, and rows made from its answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from flows.engine.costs import estimate, tokens_of, tokens_spent
from flows.engine.earlier_answers import Legacy, legacy_of
from flows.engine.graph import Node
from flows.engine.run import is_of_run, is_same_work
from flows.ledger import Kept, KeySet, Store, key_of, later_key, opened, part_keys, question_of
from flows.ledger.asking import Asking, Claims
from flows.ledger.jobs import custom_id
from flows.ledger.samples import NOTHING, numbered
from flows.ledger.store import answer_line, failure_line, useless_line
from flows.ledger.table import number_of
from flows.store.shards import ShardRef, Work, find_shard, found_shard, read_shard, work_of, write_shard
from flows.store.storage import StorageError
from llms.base import AsyncLLM, combined, estimated_tokens
from llms.batch import BatchRequest, OfflineBatchLLM
from llms.errors import ExpiredError, InvalidResponseError, LLMError, failure_of
from llms.loop import run_async
from llms.outputs import first_generations
from llms.quantities import quantity
from llms.typing import FormattedInput, GenerateOutput, Usage
from llms.usage import usage_of
from tasks.base import ModelStep, Task
from tasks.steps import Step, failure_in
from tasks.typing import Row

QUIET_TURNS = 3
"""Turns of the loop without any row getting on, after which all wait."""
SECONDS_PER_POLL = 0.005

Count = Callable[[Sequence[int]], Awaitable[Sequence[int]]]
"""Counts a shard's questions in its turn: how often each was asked before, or nothing; see `flows.ledger.Samples`."""


def sends_requests(node: Node) -> bool:
    return node.run.limits is None or node.run.limits.ask


async def valid_shard(node: Node, path: str, *, counted: bool = True) -> ShardRef | None:
    """The shard that is at `path`, unless its failed rows are to be tried again.

    Args:
        counted: whether its failed rows count in the run's report: not for an estimate, after which it comes by again.
    """
    return await _usable(node, await asyncio.to_thread(find_shard, node.run.storage, path), counted=counted)


async def _usable(node: Node, found: ShardRef | None, *, counted: bool) -> ShardRef | None:
    if found is None or (found.failed and found.attempt != node.run.attempt):
        return None
    if found.failed and counted:
        await asyncio.to_thread(count_failures, node, found)
    return found


@dataclass(frozen=True)
class Missing:
    """Questions that the ledger has no answer to."""

    questions: int = 0
    tokens: float = 0.0
    """About those of their prompts."""

    def __add__(self, other: Missing) -> Missing:
        return Missing(self.questions + other.questions, self.tokens + other.tokens)


@dataclass
class Located:
    """A shard of a Task: where it is, whether it's there, and how often its questions were asked before."""

    path: str
    found: ShardRef | None
    session: Session | None
    """Where its rows had to be looked at. They wait for the numbers of their questions."""
    before: Sequence[int]


@asynccontextmanager
async def located(
    node: Node,
    place: int,
    inputs: Sequence[ShardRef],
    count: Count,
    *,
    batch: Batch | None = None,
    look: Callable[[], Awaitable[list[int]]] | None = None,
    counted: bool = True,
) -> AsyncGenerator[Located]:
    """A Task's shard, whose questions are counted in its turn.

    What was asked for the shard stands in its file; only where there's none its rows have to be looked at.

    Args:
        batch: for a session that asks batch jobs.
        look: looks at the rows in another process, and gives their questions.
        counted: whether the failed rows of a shard that is there count in the run's report.
    """
    storage = node.run.storage
    path = node.shard_path(place, inputs)
    found, questions = await asyncio.to_thread(found_shard, storage, path) or (None, None)
    session: Session | None = None
    try:
        if questions is None and look is not None:
            questions = await look()
        elif questions is None:
            session = await begun(node, place, inputs, batch)
            questions = session.questions
        before = await count(questions)
        if before:
            path = node.shard_path(place, inputs, before)
            found = await asyncio.to_thread(find_shard, storage, path)
        yield Located(path, await _usable(node, found, counted=counted), session, before)
    finally:
        if session is not None:
            await run_async(session.drop())


async def begun(node: Node, place: int, inputs: Sequence[ShardRef], batch: Batch | None = None) -> Session:
    """A session whose rows have come to their first questions."""
    rows = await asyncio.to_thread(read_shard, node.run.storage, inputs[0])
    await asyncio.to_thread(node.load)
    session = await open_session(node, rows, place, batch)
    await run_async(session.begin())
    return session


async def questions_of(
    node: Node, place: int, inputs: Sequence[ShardRef], *, estimated: bool
) -> tuple[list[int], Missing]:
    """The first question of each of a shard's rows. Nothing is asked.

    Args:
        estimated: whether what is missing of their answers is looked up as well.
    """
    session = await begun(node, place, inputs)
    await run_async(session.drop())
    return session.questions, session.missing(()) if estimated else Missing()


async def missing_of(node: Node, place: int, inputs: Sequence[ShardRef], count: Count) -> Missing:
    """What is missing of the answers to the first questions of a shard's rows. Nothing is asked."""
    async with located(node, place, inputs, count, counted=False) as where:
        if where.found is not None:
            return Missing()
        session = where.session or await begun(node, place, inputs)
        await run_async(session.drop())
        return await asyncio.to_thread(session.missing, where.before)


async def open_session(node: Node, rows: list[Row], place: int, batch: Batch | None = None) -> Session:
    run, task = node.run, cast("ModelStep", node.step)
    store = await asyncio.to_thread(opened, run.storage, node.space())
    await count_before(node, store)
    if not node.described:
        node.described = True
        await asyncio.to_thread(store.describe, task.answerer)
    return Session(node, task, store, rows, place, batch, await asyncio.to_thread(legacy_of, node, place))


async def count_before(node: Node, store: Store) -> None:
    """Count in the run's budget, if it has one, what it spent before at whom `node` asks."""
    run = node.run
    if run.money.budget is not None:
        llm = cast("ModelStep", node.step).answerer
        await asyncio.to_thread(run.money.budget.count_before, store, llm, partial(is_same_work, other=run.attempt))


@dataclass
class Batch:
    """What a pass over a step's shards knows of its batch jobs, and where it puts what they have to answer."""

    put: Callable[[BatchRequest], None]
    late: bool = False
    """Whether what no job has answered is asked online."""
    open_jobs: Mapping[str, KeySet] = field(default_factory=dict[str, KeySet])
    """What the jobs of the ledger's space hold that are open, by their intents."""
    ended_jobs: Sequence[tuple[KeySet, str]] = ()
    """What jobs of this attempt held that have ended, each with the provider's message."""
    known_there: bool = False
    """Whether the provider has taken a job of this attempt of the run."""
    needs: set[str] = field(default_factory=set[str])
    """The open jobs that hold requests of the step's rows."""


async def made_online(located: Located, node: Node, place: int, inputs: Sequence[ShardRef]) -> ShardRef:
    """A Task's shard, made now: what the ledger doesn't answer is asked online.

    Raises:
        LLMError: a fatal one. What was answered is in the ledger.
    """
    session = located.session or await begun(node, place, inputs)
    try:
        made = await run_async(session.answer(located.before))
    finally:
        await asyncio.to_thread(session.store.flush)
    return await keep_shard(session, located.path, made)


async def made_from_batches(session: Session, before: Sequence[int]) -> list[Row] | None:
    """The rows of a session, where batch jobs have answered all of them. What no job is open for goes to its `batch`.

    Raises:
        LLMError: a fatal one.
    """
    try:
        return await run_async(session.answer_or_ask(before))
    finally:
        await asyncio.to_thread(session.store.flush)


async def keep_shard(session: Session, path: str, made: list[Row]) -> ShardRef:
    """Write the rows that a session made."""
    node, run = session.node, session.node.run
    ref = await asyncio.to_thread(
        write_shard, run.storage, path, made, attempt=run.attempt, work=session.work, questions=session.questions
    )
    if ref.failed:
        _count_reasons(node, made)
    if session.batch is not None:
        progress = run.progress_of(node.name, session.task)
        progress.answered += session.work.all.requests
        progress.work += session.work
    return ref


@dataclass
class Session:
    """The answering of one shard: its rows begin, come to their first questions, and go on when these have numbers."""

    node: Node
    task: ModelStep
    store: Store
    rows: list[Row]
    place: int
    batch: Batch | None = None
    legacy: Legacy | None = None
    work: Work = field(default_factory=Work)
    questions: list[int] = field(default_factory=list[int])
    """The first question of each row, as a number."""
    numbers: list[int] = field(default_factory=list[int])
    """Which of the step's equal questions each is."""
    firsts: dict[int, tuple[str, FormattedInput]] = field(default_factory=dict[int, tuple[str, FormattedInput]])
    """The same questions by the rows' places, each with its prompt."""
    steps: int = 0
    """Goes up whenever a row gets on."""
    problem: StorageError | None = None
    """Why nothing can be written down any more."""
    waiting: set[RowAsk] = field(default_factory=set["RowAsk"])
    """The rows that wait for an answer of a batch job."""
    asking: Asking = field(init=False)
    _work: list[asyncio.Future[list[Row]]] = field(default_factory=list["asyncio.Future[list[Row]]"])
    _not_begun: int = 0
    _all_begun: asyncio.Event = field(default_factory=asyncio.Event)
    _numbered: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        run = self.node.run
        claims = Claims(run.storage, self.store.space, run.attempt, lambda other: is_same_work(other, run.attempt))
        self.asking = Asking(self.store, claims)

    async def begin(self) -> None:
        """Bring every row to its first question, or to its end where it has none."""
        self.questions = [NOTHING] * len(self.rows)
        self._not_begun = len(self.rows)
        self._work = [asyncio.ensure_future(self._row_to_its_end(place, row)) for place, row in enumerate(self.rows)]
        try:
            if self._not_begun:
                await self._all_begun.wait()
        except asyncio.CancelledError:
            await self.drop()
            raise

    def begins(self, place: int, question: str) -> None:
        """A row has come to its first question, or to its end."""
        if self.questions[place] == NOTHING and question:
            self.questions[place] = number_of(question) or 1
        self._not_begun -= 1
        if not self._not_begun:
            self._all_begun.set()

    def missing(self, before: Sequence[int]) -> Missing:
        """What the ledger has no answer to of the first questions of its rows."""
        numbers, whole = numbered(self.questions, before), Missing()
        for place, (question, prompt) in self.firsts.items():
            key = key_of(question, self.node.lane, numbers[place])
            if self.kept(RowAsk(self, place, refused={key}), key, "") is None:
                whole += Missing(1, estimated_tokens(prompt, 1, {}))
        return whole

    async def number_of_row(self, place: int) -> int:
        await self._numbered.wait()
        return self.numbers[place]

    def _go_on(self, before: Sequence[int]) -> None:
        self.numbers = numbered(self.questions, before)
        self._numbered.set()

    async def drop(self) -> None:
        """Stop what is still under way."""
        for each in self._work:
            each.cancel()
        # All of them: asyncio prints the error of a row that nobody has looked at.
        await asyncio.gather(*self._work, return_exceptions=True)

    async def answer(self, before: Sequence[int]) -> list[Row]:
        """The rows that the session's rows become. Every row is brought to its end, also where one stops the run.

        Raises:
            LLMError: a fatal one. What was answered is in the ledger.
            StorageError: the ledger can't be written to. Nothing more is asked then.
        """

        def stop(problem: StorageError) -> None:
            self.problem = problem
            for each in self._work:
                each.cancel()

        self.node.run.asking.add(stop)
        try:
            if self.node.run.unkept is not None:
                await self.drop()
                raise self.node.run.unkept
            self._go_on(before)
            made = await asyncio.gather(*self._work, return_exceptions=True)
        finally:
            self.node.run.asking.discard(stop)
            await self.asking.close()
        if self.problem is not None:
            raise self.problem
        return joined(made)

    async def answer_or_ask(self, before: Sequence[int]) -> list[Row] | None:
        """The rows that the session's rows become; None where some of them wait for a batch job.

        Raises:
            LLMError: a fatal one.
            StorageError: the ledger can't be written to.
        """
        try:
            self._go_on(before)
            await self._settle()
            if self.problem is not None:
                raise self.problem
            return None if self.waiting else joined([each.exception() or each.result() for each in self._work])
        finally:
            await self.drop()

    async def _settle(self) -> None:
        """Until every row is done or waits for a batch job, and has asked all that it can ask before."""
        steps, quiet = -1, 0
        while quiet < QUIET_TURNS:
            await asyncio.sleep(0)
            quiet = quiet + 1 if steps == self.steps else 0
            steps = self.steps
            if quiet >= QUIET_TURNS and sum(not each.done() for each in self._work) > len(self.waiting):
                # A row does something else, in a thread perhaps.
                quiet = 0
                await asyncio.sleep(SECONDS_PER_POLL)

    async def _answer_row(self, place: int, row: Row) -> list[Row]:
        ask = RowAsk(self, place)
        try:
            made = await self.task.answer_row(row, ask)
        finally:
            ask.begins("")
        outdated = ask.outdated.intersection(ask.together)
        if outdated and _fails_here(row, made):
            # The answers that failed it in an earlier attempt still do: they are asked for anew.
            ask = RowAsk(self, place, begun=True, refused=outdated, counted=ask.counted)
            made = await self.task.answer_row(row, ask)
        if _fails_here(row, made):
            attempt = self.node.run.attempt
            asked = [key for key in ask.together if self.store.useless(key) != attempt]
            useless = [key for each in asked for key in self._answered_keys(ask, each)]
            self._keep(useless_line(key, attempt) for key in useless)
        self.steps += 1
        return made

    async def _row_to_its_end(self, place: int, row: Row) -> list[Row]:
        try:
            return await self._answer_row(place, row)
        finally:
            self.asking.done(place)

    def _answered_keys(self, ask: RowAsk, key: str) -> list[str]:
        """The key of a question and those of the parts that it was answered in."""
        parts = _keys_of_parts(key, ask.together[key])
        # What was written just now isn't found before the ledger is read again.
        return [key, *(part for part in parts if part in ask.parts or self.store.find(part) is not None)]

    async def output_for(self, ask: RowAsk, question: Question) -> GenerateOutput:
        """The answer to a question: from the ledger, or asked for now. Raises LLMError."""
        self.steps += 1
        is_new = question.key not in ask.counted
        if is_new:
            self._count_spent(question)
        kept = self.kept(ask, question.key, question.old)
        is_ours = self.batch is not None
        while kept is None and not is_ours:
            is_ours = await self.asking.is_ours(ask.place, ask.root, question.key)
            # Also where it's ours: another session may have read the answer into the store before that was asked.
            kept = self.kept(ask, question.key, question.old)
        sent = kept is None
        if kept is not None:
            # What is asked together is seen to be so, where all of it is answered from the ledger.
            await asyncio.sleep(0)
        elif self.batch is not None:
            kept = await self._from_jobs(self.batch, ask, question)
        else:
            kept = await self._online(ask, question)
        if is_new or sent:
            by_this_run = is_of_run(kept.attempt, self.node.run.own_id)
            tokens = tokens_of(self.task.answerer, kept.output, batched=bool(kept.job))
            self._count(work_of(tokens, sent=sent or by_this_run, batched=bool(kept.job)))
            ask.counted.add(question.key)
        given = len(kept.output["generations"])
        if given < question.times and not kept.output.get("embeddings"):
            raise InvalidResponseError(f"asked for {quantity(question.times, 'generation')}, the provider gave {given}")
        return kept.output

    def _count(self, work: Work) -> None:
        self.work += work
        if self.batch is None:
            progress = self.node.run.progress_of(self.node.name, self.task)
            progress.answered += work.all.requests
            progress.work += work

    def _count_spent(self, question: Question) -> None:
        """Count what was paid for a question before, and gave nothing."""
        llm = self.task.answerer
        for key in [question.key, *_keys_of_parts(question.key, question.times)]:
            for spent in self.store.spent(key):
                tokens = tokens_spent(llm, spent.usage, batched=bool(spent.job))
                mine = is_of_run(spent.attempt, self.node.run.own_id)
                self._count(work_of(tokens, sent=mine, batched=bool(spent.job)))

    async def _online(self, ask: RowAsk, question: Question) -> Kept:
        """Ask now. A failure that was paid for is written down with what it cost, and isn't asked for again.

        What comes of a question in several requests is kept by each of them, once the rest has to wait.

        Raises:
            LLMError: the request failed for good.
        """
        llm, attempt, limit = self.task.answerer, self.node.run.attempt, self.task.answerer.token_limit()
        parts = self._kept_parts(ask, question)
        unused = iter([key for key in _keys_of_parts(question.key, question.times) if key not in parts])

        def keep(output: GenerateOutput) -> None:
            key = next(unused)
            self.store.prompts.note(key, question.prompt)
            self._keep([answer_line(key, output, attempt, limit=limit)])
            parts[key] = Kept(output, attempt)
            ask.parts.add(key)

        before = len(parts)
        known = self.store.kept_error(question.key, attempt)
        try:
            if known is not None and not known.failure["retryable"]:
                raise known
            missing = question.times - sum(len(part.output["generations"]) for part in parts.values())
            if missing > 0:
                async with self._room(question):
                    output = await self._asked(question, missing, keep)
                if not parts:
                    self.store.prompts.note(question.key, question.prompt)
                    self._keep([answer_line(question.key, output, attempt, limit=limit)])
                    return Kept(output, attempt, limit=limit)
                if len(parts) == before:
                    keep(output)
        except LLMError as error:
            paid = error.usage if error is not known and not error.fatal else []
            if paid:
                self._keep([failure_line(question.key, failure_of(error), attempt, paid)])
                self._count(work_of(tokens_spent(llm, paid, batched=False), sent=True, batched=False))
            self._count_parts(parts.values())
            raise
        whole = first_generations(combined([part.output for part in parts.values()]), question.times)
        self._keep([answer_line(question.key, whole, attempt, limit=limit, copy=True)])
        return Kept(whole, attempt, limit=limit)

    def _kept_parts(self, ask: RowAsk, question: Question) -> dict[str, Kept]:
        """What the ledger has of a question in several requests, by their keys."""
        keys = _keys_of_parts(question.key, question.times)
        if question.key in ask.refused:
            ask.refused.update(keys)
        found = {key: self.kept(ask, key, "") for key in keys}
        return {key: part for key, part in found.items() if part is not None}

    def _count_parts(self, parts: Iterable[Kept]) -> None:
        """Count what was paid for parts of a question that isn't answered as a whole."""
        for part in parts:
            tokens = tokens_spent(self.task.answerer, usage_of(part.output), batched=bool(part.job))
            mine = is_of_run(part.attempt, self.node.run.own_id)
            self._count(work_of(tokens, sent=mine, batched=bool(part.job)))

    def _room(self, question: Question) -> AbstractAsyncContextManager[None]:
        """Room for it in the run's budget."""
        budget, llm = self.node.run.money.budget, self.task.answerer
        if budget is None:
            return nullcontext()

        def guess() -> float | None:
            written = round(estimated_tokens(question.prompt, question.times, {}))
            return estimate(llm, 1, written, num_generations=question.times).dollars

        return budget.room_for(self.node.name, guess)

    async def _asked(self, question: Question, missing: int, keep: Callable[[GenerateOutput], None]) -> GenerateOutput:
        """The `missing` generations, counted in the run's budget. Raises LLMError."""
        budget, llm = self.node.run.money.budget, self.task.answerer
        kept: list[Usage] = []

        def keep_part(output: GenerateOutput) -> None:
            kept.extend(usage_of(output))
            keep(output)

        try:
            if missing == 1 == question.times or not isinstance(llm, AsyncLLM):
                output = await llm.answer(question.prompt, missing)
            else:
                output = await llm.answer(question.prompt, missing, before=question.times - missing, keep=keep_part)
        except LLMError as error:
            if budget is not None:
                budget.count(self.node.name, llm, [*kept, *error.usage])
            raise
        if budget is not None:
            budget.count(self.node.name, llm, usage_of(output))
        return output

    def kept(self, ask: RowAsk, key: str, old: str) -> Kept | None:
        """The answer that the ledger has, where it serves: not one that was refused, or that too few tokens cut off."""
        found = self.store.find(key)
        if found is None and self.legacy is not None and old:
            found = self.legacy.find(self.store, old)
            if found is not None:
                self._keep([answer_line(key, found.output, found.attempt, job=found.job, copy=True)])
        if found is None or not found.serves(self.task.answerer.token_limit()):
            return None
        attempt = self.store.useless(key)
        if attempt is not None and attempt != self.node.run.attempt:
            if key in ask.refused:
                return None
            ask.outdated.add(key)
        return found

    def _keep(self, lines: Iterable[bytes]) -> None:
        """Write down what came of questions. Where that can't be done, the run sends no others: they would be lost."""
        try:
            self.store.append(lines)
        except StorageError as error:
            self.problem = self.node.run.unkept = error
            for stop in list(self.node.run.asking):
                stop(error)
            raise

    async def _from_jobs(self, batch: Batch, ask: RowAsk, question: Question) -> Kept:
        """The answer that batch jobs gave. Waits, until the session ends, for one that isn't there.

        Raises:
            LLMError: no job answered it, and none will.
        """
        llm = cast("OfflineBatchLLM", self.task.answerer)
        parts = question.parts(llm.requests_per_input(question.times))
        if len(parts) > 1:
            keys = {key for key, _ in parts}
            ask.parts |= keys
            if question.key in ask.refused:
                ask.refused |= keys
        found: list[Kept] = []
        missing: list[BatchRequest] = []
        each = question.times // len(parts)
        try:
            for number, (key, old) in enumerate(parts):
                answer = self.kept(ask, key, old)
                # Online, a request for several may have given some of them.
                if answer is not None and (len(parts) == 1 or len(answer.output["generations"]) == each):
                    found.append(answer)
                elif self._is_to_ask(batch, key, old, llm.batch_tries):
                    missing.append(llm.batch_request(custom_id(self.place, key), question.prompt, each, number))
        except LLMError:
            self._count_parts(self._kept_parts(ask, question).values())
            raise
        if len(found) < len(parts):
            for request in missing:
                batch.put(request)
            self.waiting.add(ask)
            self.steps += 1
            await asyncio.get_running_loop().create_future()
        if len(found) == 1:
            return found[0]
        # Where some were asked online, all are counted as such: never for less than was paid.
        job = found[0].job if all(part.job for part in found) else ""
        whole = Kept(combined([part.output for part in found]), found[0].attempt, job, llm.token_limit())
        line = answer_line(question.key, whole.output, whole.attempt, job=whole.job, limit=whole.limit, copy=True)
        self._keep([line])
        return whole

    def _is_to_ask(self, batch: Batch, key: str, old: str, tries: int) -> bool:
        """Whether the request has to go into another job. Raises LLMError where it has had its chances."""
        old_key = self.legacy.key(old) if self.legacy is not None and old else key
        holding = {job for job, keys in batch.open_jobs.items() if key in keys or old_key in keys}
        if holding:
            batch.needs |= holding
            return False
        known = self.store.kept_error(key, self.node.run.attempt)
        ended = [message for keys, message in batch.ended_jobs if key in keys]
        over = len(ended) >= tries and not batch.late
        if known is not None and (not known.failure["retryable"] or over):
            raise known
        if over:
            said = "; ".join(dict.fromkeys(filter(None, ended)))
            jobs = quantity(len(ended), "batch job")
            raise ExpiredError(f"{jobs} ended without an answer to it{f': {said}' if said else ''}")
        return True


def _keys_of_parts(key: str, times: int) -> list[str]:
    """The keys of what comes of a question in several requests, online and from batch jobs; none for one generation."""
    return part_keys(key, times) if times > 1 else []


def _fails_here(row: Row, made: Sequence[Row]) -> bool:
    return failure_in(row) is None and any(failure_in(each) is not None for each in made)


@dataclass(frozen=True)
class Question:
    """A question of a row, with its key."""

    key: str
    prompt: FormattedInput
    times: int
    """Generations."""
    old: str = ""
    """The key that it had in storages of the layout before, where there's one: see `flows.ledger.earlier_layout`."""

    def parts(self, count: int) -> list[tuple[str, str]]:
        """The key, and the old one, of each request that it's sent as."""
        olds = [self.old and (self.old if count == 1 else f"{self.old}-n{part}") for part in range(count)]
        return list(zip(part_keys(self.key, count), olds, strict=True))


@dataclass(eq=False)
class RowAsk:
    """Asks for one row. Its first question is told from equal ones by a number, the further ones by the first one."""

    session: Session
    place: int
    begun: bool = False
    refused: set[str] = field(default_factory=set[str])
    """Questions whose kept answers are known to be of no use."""
    outdated: set[str] = field(default_factory=set[str])
    """Those that were answered from the ledger, by what was of no use in an earlier attempt."""
    counted: set[str] = field(default_factory=set[str])
    """Those whose answers were counted."""
    root: str = ""
    asked: Counter[str] = field(default_factory=Counter[str])
    together: dict[str, int] = field(default_factory=dict[str, int])
    """The keys of the latest question and of those asked at the same time, to the generations that each gave.

    Where the row fails, they are to blame.
    """
    parts: set[str] = field(default_factory=set[str])
    """The keys of what answered questions in several requests."""
    under_way: int = 0

    def begins(self, question: str) -> None:
        if not self.begun:
            self.begun = True
            self.session.begins(self.place, question)

    async def __call__(self, prompt: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        session = self.session
        asked = question_of(session.task.answerer, prompt, num_generations)
        is_first = not self.asked
        times = self.asked[asked]
        self.asked[asked] += 1
        if is_first:
            session.firsts[self.place] = (asked, prompt)
            self.begins(asked)
        number = await session.number_of_row(self.place)
        if is_first:
            self.root = key_of(asked, session.node.lane, number)
        key = self.root if is_first else later_key(self.root, asked, times)
        old = session.legacy.id_of(self, prompt, num_generations, times) if session.legacy is not None else ""
        self.together = {**(self.together if self.under_way else {}), key: 0}
        self.under_way += 1
        try:
            output = await session.output_for(self, Question(key, prompt, num_generations, old))
        finally:
            self.under_way -= 1
        self.together[key] = num_generations
        return output


def joined(made: Sequence[list[Row] | BaseException]) -> list[Row]:
    """The rows of all groups, in order. Raises the first of the exceptions among them."""
    problems = [each for each in made if isinstance(each, BaseException)]
    if problems:
        raise problems[0]
    return [row for group in cast("Sequence[list[Row]]", made) for row in group]


def show_prompts(node: Node, task: ModelStep, place: int, rows: list[Row]) -> ShardRef:
    """Note the prompts of rows, and go on with answers that only say where they will stand."""
    shown = node.run.prompts.setdefault(node.name, [])
    made: list[Row] = []
    for row in rows:
        try:
            shown.append(task.prompt(task.seen(row)))
        except Exception:  # noqa: BLE001 -- a user's prompt, given texts that stand for answers; the preview shows none
            shown.append(None)
        left = task.added_columns(frozenset(row))
        made.append({**{name: value for name, value in row.items() if name in left}, **stand_ins(task)})
    path = node.run.storage.path("previews", node.run.id, f"{node.name}-{place}.parquet")
    return write_shard(node.run.storage, path, made)


def stand_ins(step: Step) -> Row:
    """A step's columns, with texts that only say what will stand there."""
    return {step.output_mappings.get(name, name): _stand_in(step, name) for name in step.own_columns()}


def _stand_in(step: Step, column: str) -> str | list[str]:
    text = f"<{column} of {step.name}>"
    if not (isinstance(step, Task) and step.group_generations):
        return text
    return [f"{text[:-1]}, {place + 1}>" for place in range(step.num_generations)]


def count_failures(node: Node, ref: ShardRef) -> None:
    _count_reasons(node, read_shard(node.run.storage, ref))


def _count_reasons(node: Node, rows: Iterable[Row]) -> None:
    progress = node.run.progress_of(node.name, node.step)
    for row in rows:
        failure = failure_in(row)
        if failure is not None and failure["step"] == node.name:
            progress.failed += 1
            progress.reasons[(failure["type"], failure["message"])] += 1
