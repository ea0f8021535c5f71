"""The engine: brings shards through a graph of steps, one Prefect task run per step and shard."""

from __future__ import annotations

import asyncio
import posixpath
import threading
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, cast

from flows.answering import answer_shard, asks, known_shard, let_go, show_prompts, sound_shard, stand_ins
from flows.batching import WaitingForBatches, is_offline, take_batches
from flows.credentials import find_credentials
from flows.digest import digest, digest_of_rows
from flows.errors import PipelineError
from flows.journal import encode_line, read_line
from flows.leases import shared_limits
from flows.log import run_logger
from flows.report import progress_line
from flows.rows import Node, Stream, aligned
from flows.run import Run, progress_listener
from flows.shards import ShardError, ShardRef, batches_of, find_shard, read_shard, shard_lengths, write_shard
from flows.task_runs import as_task_run, told_of_shard
from flows.window import Window
from llms.base import AsyncLLM
from llms.credentials import use_credentials_store
from tasks.base import ModelStep
from tasks.steps import GeneratorStep, GlobalStep, Step, failure_in, restored
from tasks.typing import Row

PROGRESS_SECONDS = 10.0
LISTENER_SECONDS = 0.25


async def execute(leaves: Sequence[Node]) -> list[list[ShardRef]]:
    """Run everything that `leaves` need. Returns the shards of each leaf, in order.

    Raises:
        WaitingForBatches: everything that could be done without them was done.
        PipelineError: a step needs a column that isn't there.
        LLMError: nothing more can succeed at a provider.
        ShardError, StorageError: rows can't be kept or read.
    """
    nodes = list({id(node): node for leaf in leaves for node in leaf.ancestry()}.values())
    use_credentials_store(find_credentials)
    to_run = [node for node in nodes if not _is_done(node)]
    gate = _Gate(nodes, to_run)
    for node in to_run:
        # Services now, to learn of a missing key before anything is sent; engines when their turn comes.
        # Where shards are worked on elsewhere, the keys are there as well.
        here = node.run.spread is None or is_offline(node)
        if here and isinstance(node.step, ModelStep) and isinstance(node.step.answerer, AsyncLLM) and asks(node):
            _load_once(node)
    for node in to_run:
        node.stream = Stream()
        # Of an earlier pass: every shard is counted again as it comes by.
        node.run.progress.pop(node.name, None)
    async with shared_limits(node for node in to_run if asks(node)):
        return await _through(leaves, to_run, gate)


async def _through(leaves: Sequence[Node], to_run: Sequence[Node], gate: _Gate) -> list[list[ShardRef]]:
    drivers = [asyncio.create_task(_drive(node, gate), name=node.name) for node in to_run]
    reporter = asyncio.create_task(_report(leaves[0].run))
    try:
        refs = await asyncio.gather(*(_all_of(cast("Stream", leaf.stream)) for leaf in leaves))
        if None in refs:
            await asyncio.gather(*drivers)
            raise _waiting(to_run)
        return cast("list[list[ShardRef]]", list(refs))
    finally:
        reporter.cancel()
        for driver in drivers:
            driver.cancel()
        await asyncio.gather(reporter, *drivers, return_exceptions=True)
        for node in to_run:
            if node.loaded:
                node.step.unload()
                node.loaded = False


_loading = threading.Lock()


def _load_once(node: Node) -> None:
    with _loading:
        if not node.loaded:
            node.step.load()
            node.loaded = True


def _is_done(node: Node) -> bool:
    """Whether an earlier `save` or `collect` of this run brought all shards through the step."""
    return node.stream is not None and node.stream.finished and node.stream.error is None


async def _all_of(stream: Stream) -> list[ShardRef] | None:
    """All shards; None where some have to wait for batches."""
    try:
        return [ref async for _, ref in stream.read()]
    except WaitingForBatches:
        return None


def _waiting(nodes: Sequence[Node]) -> WaitingForBatches:
    """What all steps together wait for."""
    errors = {id(error): error for node in nodes if (error := cast("Stream", node.stream).error) is not None}
    for error in errors.values():
        if not isinstance(error, WaitingForBatches):
            raise error
    every = [error for error in errors.values() if isinstance(error, WaitingForBatches)]
    return WaitingForBatches(
        needs=[intent for error in every for intent in error.needs],
        queued=sum(error.queued for error in every),
        estimates={name: each for error in every for name, each in error.estimates.items()},
    )


async def _drive(node: Node, gate: _Gate) -> None:
    """Bring all shards through one step."""
    stream = cast("Stream", node.stream)
    try:
        if isinstance(node.step, GeneratorStep):
            await _make_rows(node, node.step, gate)
        else:
            await gate.open.wait()
            if isinstance(node.step, GlobalStep):
                await _take_all(node, node.step)
            elif is_offline(node):
                await take_batches(node)
            else:
                await _take_each(node)
    except asyncio.CancelledError:
        stream.finish(InterruptedError(f"{node.name} was stopped before its end"))
        raise
    except Exception as error:  # noqa: BLE001 -- handed to whoever reads the stream
        gate.open.set()
        stream.finish(error)
    else:
        stream.finish()


async def _make_rows(node: Node, step: GeneratorStep, gate: _Gate) -> None:
    async def make() -> int:
        progress = node.run.progress_of(node.name, step)
        await asyncio.to_thread(_load_once, node)
        rows = batches_of(_rows_of(step, node.run), shard_lengths(_shard_rows(node)))
        place = 0
        while (some := await asyncio.to_thread(next, rows, None)) is not None:
            if place == 0:
                gate.saw(node, frozenset(name for row in some for name in row))
            path = node.run.storage.path("sources", f"{digest_path(some)}.parquet")
            ref = await asyncio.to_thread(_kept, node.run, path, some)
            progress.add(ref, 0, reused=False)
            cast("Stream", node.stream).push(place, ref)
            place += 1
            await cast("Stream", node.stream).room()
        if place == 0:
            raise PipelineError(f"{node.name} gave no rows: {type(step).__name__} with {step.model_dump(mode='json')}")
        return place

    await as_task_run(node.name, node.name, make)


def _kept(run: Run, path: str, rows: list[Row]) -> ShardRef:
    return find_shard(run.storage, path) or write_shard(run.storage, path, rows)


def digest_path(rows: list[Row]) -> str:
    """Where a source's shard goes: a digest of its rows, in 256 folders."""
    try:
        whole = digest_of_rows(rows)
    except TypeError as error:
        raise ShardError(str(error)) from None
    return posixpath.join(whole[:2], whole)


def _rows_of(step: GeneratorStep, run: Run) -> Iterable[list[Row]]:
    left = run.limits.rows if run.limits else None
    for rows, last in step.process():
        named_rows = [restored(row, {}, step.output_mappings) for row in rows]
        yield named_rows if left is None else named_rows[:left]
        if left is not None:
            left -= len(rows)
            if left <= 0:
                return
        if last:
            return


def _shard_rows(node: Node) -> int:
    limits = node.run.limits
    return min(node.shard_rows, limits.rows) if limits else node.shard_rows


async def _take_each(node: Node) -> None:
    """One task run per shard, a few at a time, pushed on in order."""
    spread = node.run.spread
    window = spread.window() if spread else Window(rows=rows_at_a_time(node.step))
    started: asyncio.Queue[tuple[int, asyncio.Task[tuple[int, ShardRef]]] | None] = asyncio.Queue()
    under_way: set[asyncio.Task[tuple[int, ShardRef]]] = set()
    stopped = False

    def ended(rows: int, work: asyncio.Task[tuple[int, ShardRef]]) -> None:
        nonlocal stopped
        stopped = stopped or work.cancelled() or work.exception() is not None
        window.release(rows)

    async def start_all() -> None:
        try:
            async for place, refs in aligned(node):
                rows = refs[0].rows
                await window.acquire(rows)
                if stopped:
                    return
                work = asyncio.create_task(_one_shard(node, place, refs))
                under_way.add(work)
                work.add_done_callback(partial(ended, rows))
                started.put_nowait((rows, work))
        finally:
            started.put_nowait(None)

    starter = asyncio.create_task(start_all())
    before: tuple[int, int, ShardRef] | None = None
    try:
        while (next_one := await started.get()) is not None:
            rows, work = next_one
            try:
                place, ref = await work
            except Exception:
                # The shards under way keep their answers before the step ends.
                await asyncio.gather(*under_way, return_exceptions=True)
                raise
            under_way.discard(work)
            cast("Stream", node.stream).push(place, ref)
            if before is not None:
                await let_go(node, *before)
            before = place, rows, ref
        await starter
    finally:
        for each in (starter, *under_way):
            each.cancel()
        await asyncio.gather(starter, *under_way, return_exceptions=True)


def rows_at_a_time(step: Step) -> int:
    """Enough that requests never run out at a shard's end, and no more."""
    if isinstance(step, ModelStep) and isinstance(step.answerer, AsyncLLM):
        return 2 * step.answerer.max_concurrent_requests
    return 0


async def _one_shard(node: Node, place: int, refs: list[ShardRef]) -> tuple[int, ShardRef]:
    progress = node.run.progress_of(node.name, node.step)
    ref = await known_shard(node, place, refs)
    if ref is not None:
        progress.add(ref, refs[0].rows, reused=False, known=True)
        return place, ref

    async def make() -> Any:
        work = node.run.spread.shard_of if node.run.spread else shard_of
        return told_of_shard(*await work(node, place, refs), refs)

    ref, reused = await as_task_run(node.name, f"{node.name}-{place}", make)
    progress.add(ref, refs[0].rows, reused=reused)
    return place, ref


async def shard_of(node: Node, place: int, refs: list[ShardRef]) -> tuple[ShardRef, bool]:
    """A step's shard from its inputs' shards: kept from before, or made now. Says which."""
    return await shard_at(node, node.shard_path(place, refs), place, refs)


async def shard_at(node: Node, path: str, place: int, refs: list[ShardRef]) -> tuple[ShardRef, bool]:
    """The same, for who knows its path."""
    found = await sound_shard(node, path) if asks(node) else None
    if found is not None:
        return found, True
    inputs = [await asyncio.to_thread(read_shard, node.run.storage, ref) for ref in refs]
    if asks(node):
        await asyncio.to_thread(_load_once, node)
    if isinstance(node.step, ModelStep):
        if not asks(node):
            return await asyncio.to_thread(show_prompts, node, node.step, place, inputs[0]), False
        return await answer_shard(node, node.step, path, inputs[0], place), False
    made = await asyncio.to_thread(_apply, node, inputs)
    return await asyncio.to_thread(write_shard, node.run.storage, path, made, attempt=node.run.attempt), False


def _apply(node: Node, inputs: list[list[Row]]) -> list[Row]:
    if len(inputs) == 1:
        inputs = [whole_rows(node.step, inputs[0])]
    if asks(node):
        return apply_step(node.step, inputs)
    # A preview: a step may not know what to do with a text that stands for an answer.
    try:
        made = apply_step(node.step, inputs)
        puzzled = _any_failed(made) and not any(map(_any_failed, inputs))
    except Exception:  # noqa: BLE001 -- of a preview, where a user's step was given stand-ins: it may raise anything
        made, puzzled = [], True
    return [{**stand_ins(node.step), **row} for row in inputs[0]] if puzzled else made


def whole_rows(step: Step, rows: list[Row]) -> list[Row]:
    """Rows with all columns that a step needs: a shard has none that is missing in each of its rows."""
    needed = step.required_columns()
    return [{**row, **{name: None for name in needed if name not in row}} for row in rows]


def _any_failed(rows: Iterable[Row]) -> bool:
    return any(failure_in(row) is not None for row in rows)


def apply_step(step: Step, inputs: Sequence[list[Row]]) -> list[Row]:
    """A step over whole rows. Rows that failed before aren't shown to it; they are put back in their places."""
    failed = {place for rows in inputs for place, row in enumerate(rows) if failure_in(row) is not None}
    if not failed or step.takes_failed_rows:
        return step.apply(*inputs)
    good = [[row for place, row in enumerate(rows) if place not in failed] for rows in inputs]
    made = step.apply(*good) if good[0] else []
    lost = {place: _failed_row(step, [rows[place] for rows in inputs if place < len(rows)]) for place in sorted(failed)}
    if len(made) != len(good[0]):
        return [*made, *lost.values()]
    remaining = iter(made)
    return [lost[place] if place in lost else next(remaining) for place in range(len(inputs[0]))]


def _failed_row(step: Step, rows: Sequence[Row]) -> Row:
    bad = next(row for row in rows if failure_in(row) is not None)
    return {**{step.output_mappings.get(name, name): None for name in step.outputs}, **bad}


async def _take_all(node: Node, step: GlobalStep) -> None:
    """A step that needs all rows at once: one task run, any number of shards."""
    inputs = [[ref async for _, ref in cast("Stream", before.stream).read()] for before in node.upstream]

    async def make() -> list[ShardRef]:
        key = digest([[ref.digest for ref in refs] for refs in inputs])
        listing = posixpath.join(node.folder("all"), f"{key}.json")
        found = await asyncio.to_thread(_listed, node.run, listing)
        if found is not None:
            for ref in found:
                progress.add(ref, 0, reused=True)
            return found
        return await asyncio.to_thread(_apply_to_all, node, step, inputs, listing)

    progress = node.run.progress_of(node.name, step)
    refs = await as_task_run(node.name, node.name, make)
    progress.rows_in = sum(ref.rows for ref in inputs[0])
    for place, ref in enumerate(refs):
        cast("Stream", node.stream).push(place, ref)


def _listed(run: Run, listing: str) -> list[ShardRef] | None:
    """The shards that a listing names, where all of them are as they were then."""
    try:
        record = read_line(run.storage.read(listing))
    except FileNotFoundError:
        return None
    if record is None or record["k"] != run.storage.inside(listing):
        run_logger().warning("%s is damaged, or another one's: the step is gone through again", listing)
        return None
    refs = [find_shard(run.storage, _path_in(listing, place)) for place in range(len(record["digests"]))]
    found = [ref for ref in refs if ref is not None]
    return found if [ref.digest for ref in found] == record["digests"] else None


def _path_in(listing: str, place: int) -> str:
    return posixpath.join(listing.removesuffix(".json"), f"{place:08d}.parquet")


def _apply_to_all(node: Node, step: GlobalStep, inputs: list[list[ShardRef]], listing: str) -> list[ShardRef]:
    storage = node.run.storage
    rows = [[row for ref in refs for row in read_shard(storage, ref)] for refs in inputs]
    _load_once(node)
    made = _apply(node, rows)
    refs = [
        write_shard(storage, _path_in(listing, place), some, attempt=node.run.attempt)
        for place, some in enumerate(batches_of([made], shard_lengths(node.shard_rows)))
    ]
    storage.write(listing, encode_line({"k": storage.inside(listing), "digests": [ref.digest for ref in refs]}))
    for ref in refs:
        node.run.progress_of(node.name, step).add(ref, 0, reused=False)
    return refs


class _Gate:
    """Keeps steps back until the columns of all sources are known to fit."""

    def __init__(self, nodes: Sequence[Node], to_run: Sequence[Node]) -> None:
        self.open = asyncio.Event()
        self._nodes = nodes
        self._sources = [node for node in nodes if isinstance(node.step, GeneratorStep)]
        self._unseen = {id(node) for node in self._sources if node in to_run}
        self._columns: dict[int, frozenset[str]] = {}
        for node in self._sources:
            known = source_columns(cast("GeneratorStep", node.step))
            if known is not None:
                self._columns[id(node)] = known
        self._check()

    def saw(self, source: Node, columns: frozenset[str]) -> None:
        """The first rows of a source are there. Raises PipelineError where a step can't work on them."""
        self._columns[id(source)] = columns
        self._unseen.discard(id(source))
        self._check()

    def _check(self) -> None:
        if all(id(node) in self._columns for node in self._sources):
            check_columns(self._nodes, self._columns)
        if not self._unseen:
            self.open.set()


def source_columns(step: GeneratorStep) -> frozenset[str] | None:
    """The columns of a source under the dataset's names, where they can be known without making rows."""
    known = step.columns()
    return frozenset(step.output_mappings.get(name, name) for name in known) if known else None


def check_columns(nodes: Sequence[Node], sources: dict[int, frozenset[str]]) -> None:
    """Follow the columns through the steps. Raises PipelineError where one is missing."""
    columns = dict(sources)
    for node in nodes:
        if id(node) in columns:
            continue
        available = frozenset[str]().union(*(columns[id(before)] for before in node.upstream))
        missing = [name for name in node.step.required_columns() if name not in available]
        if missing:
            there = ", ".join(sorted(available - {"distilabel_metadata"}))
            raise PipelineError(
                f"{node.name} ({type(node.step).__name__}) needs the column {missing[0]!r}; there are: {there}."
                f" If it has another name there, say so: input_mappings={{{missing[0]!r}: '<its name>'}}"
            )
        columns[id(node)] = node.step.added_columns(available)


async def _report(run: Run) -> None:
    """Say from time to time how far the run is."""
    listener = progress_listener.get()
    try:
        while True:
            await asyncio.sleep(LISTENER_SECONDS if listener else PROGRESS_SECONDS)
            if listener:
                listener(run)
            else:
                for progress in run.progress.values():
                    run_logger().info(progress_line(progress))
    finally:
        if listener:
            listener(run)
