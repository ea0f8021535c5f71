"""A Task over one shard: questions, the journal of their answers, and rows made from them."""

from __future__ import annotations

import asyncio
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from flows.digest import digest
from flows.journal import Entries, Journal
from flows.rows import Node
from flows.shards import ShardRef, Work, read_shard, write_shard
from llms.loop import run_async
from llms.typing import FormattedInput, GenerateOutput, TokenCounts
from tasks.base import Task
from tasks.steps import failure_in
from tasks.typing import Row


def asks(node: Node) -> bool:
    return node.run.limits is None or node.run.limits.ask


async def answer_shard(node: Node, task: Task, path: str, rows: list[Row]) -> ShardRef:
    run = node.run
    journal = Journal(run.storage, path.removesuffix(".parquet") + ".journal")
    others = [each for each in run.storage.files(posixpath.dirname(path), ".journal") if each != journal.path]
    session = Session(node, task, journal, await asyncio.to_thread(journal.load, others))
    try:
        made = await run_async(session.answer(rows))
    finally:
        await asyncio.to_thread(journal.close)
    ref = await asyncio.to_thread(write_shard, run.storage, path, made, attempt=run.attempt, work=session.work)
    if ref.failed:
        _count_reasons(node, made)
    elif len(rows) >= node.shard_rows:
        await asyncio.to_thread(journal.remove)
    return ref


@dataclass
class Session:
    """The answering of one shard: its journal, and the keys of its requests."""

    node: Node
    task: Task
    journal: Journal
    entries: Entries
    work: Work = field(default_factory=Work)
    occurrences: Counter[str] = field(default_factory=Counter[str])

    async def answer(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that `rows` become. Every row is brought to its end, also where one stops the run.

        Raises:
            LLMError: a fatal one. What was answered is in the journal.
        """
        made = await asyncio.gather(*(self._answer_row(row) for row in rows), return_exceptions=True)
        problems = [each for each in made if isinstance(each, BaseException)]
        if problems:
            raise problems[0]
        return [row for group in cast("list[list[Row]]", made) for row in group]

    async def _answer_row(self, row: Row) -> list[Row]:
        ask = RowAsk(self)
        made = await self.task.answer_row(row, ask)
        if failure_in(row) is None and ask.latest and any(failure_in(each) is not None for each in made):
            self.journal.append({"k": ask.latest, "x": self.node.run.attempt})
        return made

    async def output_for(self, key: str, prompt: FormattedInput, num_generations: int) -> GenerateOutput:
        """The answer to the request `key`: from the journal, or asked for now."""
        output = self.entries.answer(key, self.node.run.attempt)
        sent = output is None
        if output is None:
            output = await self.task.llm.answer(prompt, num_generations)
            self.journal.append({"k": key, "o": output})
        work = _work_of(output["statistics"], sent=sent)
        self.work += work
        progress = self.node.run.progress_of(self.node.name, self.task)
        progress.answered += 1
        progress.work += work
        return output


@dataclass
class RowAsk:
    """Asks for one row. A request's key is a digest of what is asked, and of which of equal ones it is."""

    session: Session
    root: str = ""
    latest: str = ""
    asked: Counter[str] = field(default_factory=Counter[str])

    async def __call__(self, prompt: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        content = digest([prompt, num_generations])
        if not self.root:
            # Rows start in their order, so equal rows get the same numbers every time.
            self.latest = self.root = f"{content}-{self.session.occurrences[content]}"
            self.session.occurrences[content] += 1
        else:
            self.latest = digest([self.root, content, self.asked[content]])
        self.asked[content] += 1
        return await self.session.output_for(self.latest, prompt, num_generations)


def _work_of(statistics: TokenCounts, *, sent: bool) -> Work:
    return Work(1, int(sent), sum(statistics["input_tokens"]), sum(statistics["output_tokens"]))


def show_prompts(node: Node, task: Task, place: int, rows: list[Row]) -> ShardRef:
    """Note the prompts of rows, and go on with answers that only say where they will stand."""
    shown = node.run.prompts.setdefault(node.name, [])
    made: list[Row] = []
    for row in rows:
        try:
            shown.append(task.prompt(task.seen(row)))
        except Exception:  # noqa: BLE001 -- a preview: this prompt can't be made from texts that stand for answers
            shown.append(None)
        made.append({**row, **{task.output_mappings.get(name, name): _stand_in(task, name) for name in task.outputs}})
    path = node.run.storage.path("previews", node.run.id, f"{node.name}-{place}.parquet")
    return write_shard(node.run.storage, path, made)


def _stand_in(task: Task, column: str) -> str | list[str]:
    text = f"<{column} of {task.name}>"
    return [f"{text[:-1]}, {place + 1}>" for place in range(task.num_generations)] if task.group_generations else text


def count_failures(node: Node, ref: ShardRef) -> None:
    _count_reasons(node, read_shard(node.run.storage, ref))


def _count_reasons(node: Node, rows: Iterable[Row]) -> None:
    progress = node.run.progress_of(node.name, node.step)
    for row in rows:
        failure = failure_in(row)
        if failure is not None and failure["step"] == node.name:
            progress.failed += 1
            progress.reasons[(failure["type"], failure["message"])] += 1
