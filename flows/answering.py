"""A Task over one shard: questions, the journal of their answers, and rows made from them."""

from __future__ import annotations

import asyncio
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from flows.digest import digest
from flows.jobs import custom_id
from flows.journal import Entries, Journal
from flows.rows import Node
from flows.run import is_of_run
from flows.shards import ShardRef, Tokens, Work, find_shard, read_shard, shard_length, work_of, write_shard
from flows.storage import Storage, StorageError
from llms.base import combined, cut_off_in
from llms.batch import BatchRequest, OfflineBatchLLM, part_keys
from llms.errors import ExpiredError, KeptError
from llms.loop import run_async
from llms.typing import FormattedInput, GenerateOutput
from tasks.base import ModelStep, Task
from tasks.steps import Step, failure_in
from tasks.typing import Row

QUIET_TURNS = 3
"""Turns of the loop without any row getting on, after which all wait."""
SECONDS_PER_LOOK = 0.005


def asks(node: Node) -> bool:
    return node.run.limits is None or node.run.limits.ask


async def sound_shard(node: Node, path: str) -> ShardRef | None:
    """The shard that is at `path`, unless its failed rows are to be tried again."""
    found = await asyncio.to_thread(find_shard, node.run.storage, path)
    if found is None or (found.failed and found.attempt != node.run.attempt):
        return None
    if found.failed:
        await asyncio.to_thread(count_failures, node, found)
    return found


async def known_shard(node: Node, place: int, inputs: Sequence[ShardRef]) -> ShardRef | None:
    """The shard that an earlier pass of this attempt made: it had its task run then."""
    if not node.run.passes:
        return None
    found = await sound_shard(node, node.shard_path(place, inputs))
    return found if found is not None and found.attempt == node.run.attempt else None


@dataclass
class Batch:
    """What a pass over a step's shards knows of its batch jobs, and where it puts what they have to answer."""

    put: Callable[[BatchRequest], None]
    open_jobs: frozenset[str] = frozenset()
    ended_jobs: Mapping[str, str] = field(default_factory=dict[str, str])
    """The run's own that have ended, each with the provider's message."""
    shared: bool = False
    """Whether another run waits for jobs of the step: it may need their answers for shards of its own."""
    known_there: bool = False
    """Whether the provider has taken a job of this attempt of the run."""
    needs: set[str] = field(default_factory=set[str])
    """The open jobs that hold requests of the step's rows."""


async def answer_shard(node: Node, task: ModelStep, path: str, rows: list[Row], place: int) -> ShardRef:
    """The shard at `path`: what its journal doesn't answer is asked online.

    Raises:
        LLMError: a fatal one. What was answered is in the journal.
    """
    session = await open_session(node, task, path, place)
    try:
        made = await run_async(session.answer(rows))
    finally:
        await asyncio.to_thread(session.journal.close)
    return await keep_shard(session, path, rows, made)


async def answer_from_batches(
    node: Node, task: ModelStep, path: str, rows: list[Row], place: int, batch: Batch
) -> tuple[Session, list[Row] | None]:
    """The rows that `rows` become, where batch jobs have answered all of them. What no job is open for goes to `batch`.

    Raises:
        LLMError: a fatal one.
    """
    session = await open_session(node, task, path, place, batch)
    try:
        return session, await run_async(session.answer_or_ask(rows))
    finally:
        await asyncio.to_thread(session.journal.close)


async def open_session(node: Node, task: ModelStep, path: str, place: int, batch: Batch | None = None) -> Session:
    run = node.run
    journal = journal_of(run.storage, path)
    journals = await asyncio.to_thread(run.storage.files, posixpath.dirname(path), ".journal")
    others = [each for each in journals if each != journal.path]
    return Session(node, task, journal, await asyncio.to_thread(journal.load, others), place, batch)


def journal_of(storage: Storage, path: str) -> Journal:
    """Where the answers of the shard at `path` are kept until it's written."""
    return Journal(storage, path.removesuffix(".parquet") + ".journal")


async def let_go(node: Node, place: int, rows: int, ref: ShardRef) -> None:
    """Remove the journal of a shard that others follow: only a step's last shard can grow in a later run."""
    kept = isinstance(node.step, ModelStep) and rows < shard_length(place, node.shard_rows)
    if kept and not ref.failed and asks(node):
        await asyncio.to_thread(journal_of(node.run.storage, ref.uri).remove)


async def keep_shard(session: Session, path: str, rows: list[Row], made: list[Row]) -> ShardRef:
    """Write the rows that a session made. Its journal has done its duty where none can fail or come any more."""
    node, run = session.node, session.node.run
    ref = await asyncio.to_thread(write_shard, run.storage, path, made, attempt=run.attempt, work=session.work)
    if ref.failed:
        _count_reasons(node, made)
    elif len(rows) >= shard_length(session.place, node.shard_rows) and not (
        session.batch is not None and session.batch.shared
    ):
        await asyncio.to_thread(session.journal.remove)
    if session.batch is not None:
        progress = run.progress_of(node.name, session.task)
        progress.answered += session.work.all.requests
        progress.work += session.work
    return ref


@dataclass
class Session:
    """The answering of one shard: its journal, and the keys of its requests."""

    node: Node
    task: ModelStep
    journal: Journal
    entries: Entries
    place: int
    batch: Batch | None = None
    work: Work = field(default_factory=Work)
    occurrences: Counter[str] = field(default_factory=Counter[str])
    steps: int = 0
    """Goes up whenever a row gets on."""
    problem: StorageError | None = None
    """Why nothing can be written down any more."""
    waiting: set[RowAsk] = field(default_factory=set["RowAsk"])
    """The rows that wait for an answer of a batch job."""

    async def answer(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that `rows` become. Every row is brought to its end, also where one stops the run.

        Raises:
            LLMError: a fatal one. What was answered is in the journal.
            StorageError: the journal can't be written to. Nothing more is asked then.
        """
        work = [asyncio.ensure_future(self._answer_row(row)) for row in rows]

        def stop(problem: StorageError) -> None:
            self.problem = problem
            for each in work:
                each.cancel()

        self.node.run.asking.add(stop)
        try:
            made = await asyncio.gather(*work, return_exceptions=True)
        finally:
            self.node.run.asking.discard(stop)
        if self.problem is not None:
            raise self.problem
        return joined(made)

    async def answer_or_ask(self, rows: Sequence[Row]) -> list[Row] | None:
        """The rows that `rows` become; None where some of them wait for a batch job.

        Raises:
            LLMError: a fatal one.
            StorageError: the journal can't be written to.
        """
        work = [asyncio.ensure_future(self._answer_row(row)) for row in rows]
        try:
            await self._settle(work)
            if self.problem is not None:
                raise self.problem
            return None if self.waiting else joined([each.exception() or each.result() for each in work])
        finally:
            left = [each for each in work if not each.done()]
            for each in left:
                each.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _settle(self, work: Sequence[asyncio.Future[list[Row]]]) -> None:
        """Until every row is done or waits for a batch job, and has asked all that it can ask before."""
        steps, quiet = -1, 0
        while quiet < QUIET_TURNS:
            await asyncio.sleep(0)
            quiet = quiet + 1 if steps == self.steps else 0
            steps = self.steps
            if quiet >= QUIET_TURNS and sum(not each.done() for each in work) > len(self.waiting):
                # A row does something else, in a thread perhaps.
                quiet = 0
                await asyncio.sleep(SECONDS_PER_LOOK)

    async def _answer_row(self, row: Row) -> list[Row]:
        ask = RowAsk(self)
        made = await self.task.answer_row(row, ask)
        attempt = self.node.run.attempt
        failed = failure_in(row) is None and any(failure_in(each) is not None for each in made)
        if failed:
            asked = [key for key in ask.together if self.entries.useless.get(key) != attempt]
            useless = [key for each in asked for key in self._answered_keys(each, ask.together[each])]
            self._keep({"k": key, "x": attempt} for key in useless)
        self.steps += 1
        return made

    def _answered_keys(self, key: str, answered: int) -> list[str]:
        """The key of a request and, if it was answered, those of the parts that it was asked in."""
        llm = self.task.answerer
        parts = llm.requests_per_input(answered) if answered and isinstance(llm, OfflineBatchLLM) else 1
        return [key, *(part_keys(key, parts) if parts > 1 else [])]

    async def output_for(self, ask: RowAsk, prompt: FormattedInput, num_generations: int) -> GenerateOutput:
        """The answer to the latest request of `ask`: from the journal, or asked for now."""
        key = ask.latest
        self.steps += 1
        output = self.entries.answer(key, self.node.run.attempt)
        sent = output is None
        if output is None and self.batch is not None:
            output = await self._from_jobs(self.batch, ask, prompt, num_generations)
        elif output is None:
            output = await self.task.answerer.answer(prompt, num_generations)
            self._keep([{"k": key, "o": output, "x": self.node.run.attempt}])
        if not sent:
            # What is asked together is seen to be so, where all of it is answered from the journal.
            await asyncio.sleep(0)
        batched = key in self.entries.batched or (sent and self.batch is not None)
        work = work_of(_tokens_of(output), sent=sent or self._was_asked(key), batched=batched)
        self.work += work
        if self.batch is None:
            progress = self.node.run.progress_of(self.node.name, self.task)
            progress.answered += 1
            progress.work += work
        return output

    def _keep(self, records: Iterable[dict[str, Any]]) -> None:
        """Write down what came of requests. Where that can't be done, the run sends no others: they would be lost."""
        try:
            self.journal.extend(records)
        except StorageError as error:
            self.problem = error
            for stop in list(self.node.run.asking):
                stop(error)
            raise

    def _was_asked(self, key: str) -> bool:
        """Whether this run asked for the answer before: online, or by a batch job."""
        entries = self.entries
        by_jobs = [attempt for _, attempt in entries.jobs.get(key, ())]
        attempts = by_jobs if key in entries.batched else [entries.asked.get(key, "")]
        return any(is_of_run(attempt, self.node.run.own_id) for attempt in attempts)

    async def _from_jobs(
        self, batch: Batch, ask: RowAsk, prompt: FormattedInput, num_generations: int
    ) -> GenerateOutput:
        """The answer that batch jobs gave. Waits, until the session ends, for one that isn't there.

        Raises:
            LLMError: no job answered it, and none will.
        """
        llm = cast("OfflineBatchLLM", self.task.answerer)
        attempt = self.node.run.attempt
        parts = part_keys(ask.latest, llm.requests_per_input(num_generations))
        found: list[GenerateOutput] = []
        missing: list[BatchRequest] = []
        for number, key in enumerate(parts):
            answer = self.entries.answer(key, attempt)
            if answer is not None:
                found.append(answer)
            elif self._is_to_ask(batch, key, llm.batch_tries):
                name = custom_id(self.place, key)
                missing.append(llm.batch_request(name, prompt, num_generations // len(parts), number))
        if len(found) < len(parts):
            for request in missing:
                batch.put(request)
            self.waiting.add(ask)
            self.steps += 1
            await asyncio.get_running_loop().create_future()
        output = combined(found)
        self._keep([{"k": ask.latest, "o": output, "b": 1}])
        return output

    def _is_to_ask(self, batch: Batch, key: str, tries: int) -> bool:
        """Whether the request has to go into another job. Raises LLMError where it has had its chances."""
        jobs = self.entries.jobs.get(key, [])
        attempt = self.node.run.attempt
        holding = {job for job, _ in jobs if job in batch.open_jobs}
        if holding:
            batch.needs |= holding
            return False
        failure = self.entries.failure(key, attempt)
        ended = dict.fromkeys(job for job, of in jobs if of == attempt and job in batch.ended_jobs)
        tried = len(ended)
        if failure is not None and (not failure["retryable"] or tried >= tries):
            raise KeptError(failure)
        if tried >= tries:
            said = "; ".join(dict.fromkeys(filter(None, map(batch.ended_jobs.get, ended))))
            raise ExpiredError(f"{tried} batch jobs ended without an answer to it{f': {said}' if said else ''}")
        return True


@dataclass(eq=False)
class RowAsk:
    """Asks for one row. A request's key is a digest of what is asked, and of which of equal ones it is."""

    session: Session
    root: str = ""
    latest: str = ""
    asked: dict[str, int] = field(default_factory=dict[str, int])
    together: dict[str, int] = field(default_factory=dict[str, int])
    """The keys of the latest request and of those asked at the same time, to the generations that each gave.

    Where the row fails, they are to blame.
    """
    under_way: int = 0

    async def __call__(self, prompt: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        content = digest([prompt, num_generations])
        if not self.root:
            # Rows start in their order, so equal rows get the same numbers every time.
            self.latest = self.root = f"{content}-{self.session.occurrences[content]}"
            self.session.occurrences[content] += 1
        else:
            self.latest = digest([self.root, content, self.asked.get(content, 0)])
        self.asked[content] = self.asked.get(content, 0) + 1
        key = self.latest
        self.together = {**(self.together if self.under_way else {}), key: 0}
        self.under_way += 1
        try:
            output = await self.session.output_for(self, prompt, num_generations)
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


def _tokens_of(output: GenerateOutput) -> Tokens:
    counts = output["statistics"]
    return Tokens(1, sum(counts["input_tokens"]), sum(counts["output_tokens"]), sum(cut_off_in(output)))


def show_prompts(node: Node, task: ModelStep, place: int, rows: list[Row]) -> ShardRef:
    """Note the prompts of rows, and go on with answers that only say where they will stand."""
    shown = node.run.prompts.setdefault(node.name, [])
    made: list[Row] = []
    for row in rows:
        try:
            shown.append(task.prompt(task.seen(row)))
        except Exception:  # noqa: BLE001 -- a preview: this prompt can't be made from texts that stand for answers
            shown.append(None)
        left = task.added_columns(frozenset(row))
        made.append({**{name: value for name, value in row.items() if name in left}, **stand_ins(task)})
    path = node.run.storage.path("previews", node.run.id, f"{node.name}-{place}.parquet")
    return write_shard(node.run.storage, path, made)


def stand_ins(step: Step) -> Row:
    """A step's columns, with texts that only say what will stand there."""
    return {step.output_mappings.get(name, name): _stand_in(step, name) for name in step.outputs}


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
