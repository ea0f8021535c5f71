"""The engine: brings shards through a graph of steps, one Prefect task run per step and shard."""

from __future__ import annotations

import asyncio
import posixpath
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, cast

import orjson

from flows.answering import answer_shard, asks, count_failures, show_prompts
from flows.credentials import find_credentials
from flows.digest import digest, digest_of_rows
from flows.errors import CLEAR_ERRORS, PipelineError, failed_state
from flows.log import run_logger
from flows.report import progress_line
from flows.rows import Node, Stream
from flows.run import Run, progress_listener
from flows.shards import ShardError, ShardRef, batches_of, find_shard, read_shard, write_shard
from llms.base import AsyncLLM
from llms.batch import OfflineBatchLLM
from llms.credentials import use_credentials_store
from tasks.base import Task
from tasks.steps import GeneratorStep, GlobalStep, Step, failure_in, restored
from tasks.typing import Row

PROGRESS_SECONDS = 10.0
LISTENER_SECONDS = 0.25


async def execute(leaves: Sequence[Node]) -> list[list[ShardRef]]:
    """Run everything that `leaves` need. Returns the shards of each leaf, in order.

    Raises:
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
        if isinstance(node.step, Task) and isinstance(node.step.llm, AsyncLLM) and asks(node):
            _check_online(node.name, node.step.llm)
            _load_once(node)
    for node in to_run:
        node.stream = Stream()
    drivers = [asyncio.create_task(_drive(node, gate), name=node.name) for node in to_run]
    reporter = asyncio.create_task(_report(leaves[0].run))
    try:
        return list(await asyncio.gather(*(_all_of(cast("Stream", leaf.stream)) for leaf in leaves)))
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


def _check_online(name: str, llm: AsyncLLM) -> None:
    if isinstance(llm, OfflineBatchLLM) and llm.use_offline_batch_generation:
        raise PipelineError(
            f"{name}: use_offline_batch_generation=True works with llm.generate_outputs() and task.process(), but not"
            " in flows yet; leave it out here to send the requests online, at the provider's full price"
        )


def _is_done(node: Node) -> bool:
    """Whether an earlier `save` or `collect` of this run brought all shards through the step."""
    return node.stream is not None and node.stream.finished and node.stream.error is None


async def _all_of(stream: Stream) -> list[ShardRef]:
    return [ref async for _, ref in stream.read()]


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
        rows = batches_of(_rows_of(step, node.run), _shard_rows(node))
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
    window = asyncio.Semaphore(shards_at_a_time(node.step, node.shard_rows))
    started: asyncio.Queue[asyncio.Task[tuple[int, ShardRef]] | None] = asyncio.Queue()
    under_way: set[asyncio.Task[tuple[int, ShardRef]]] = set()
    stopped = False

    async def start_all() -> None:
        try:
            async for place, refs in aligned(node):
                await window.acquire()
                if stopped:
                    return
                work = asyncio.create_task(_one_shard(node, place, refs))
                under_way.add(work)
                work.add_done_callback(lambda _: window.release())
                started.put_nowait(work)
        finally:
            started.put_nowait(None)

    starter = asyncio.create_task(start_all())
    try:
        while (work := await started.get()) is not None:
            try:
                place, ref = await work
            except Exception:
                # The shards under way keep their answers before the step ends.
                stopped = True
                await asyncio.gather(*under_way, return_exceptions=True)
                raise
            under_way.discard(work)
            cast("Stream", node.stream).push(place, ref)
        await starter
    finally:
        for each in (starter, *under_way):
            each.cancel()
        await asyncio.gather(starter, *under_way, return_exceptions=True)


def shards_at_a_time(step: Step, shard_rows: int) -> int:
    """Enough that requests never run out at a shard's end, and no more."""
    if isinstance(step, Task) and isinstance(step.llm, AsyncLLM):
        return max(2, -(-2 * step.llm.max_concurrent_requests // shard_rows) + 1)
    return 2


async def aligned(node: Node) -> AsyncIterator[tuple[int, list[ShardRef]]]:
    """The shards of all upstream nodes, place by place. A routed node has no shard at some places."""
    readers = [cast("Stream", before.stream).read() for before in node.upstream]
    heads = [await _next(reader) for reader in readers]
    while any(head is not None for head in heads):
        place = min(head[0] for head in heads if head is not None)
        refs = [head[1] for head in heads if head is not None and head[0] == place]
        if node.route is None or node.route(place):
            yield place, refs
        heads = [
            await _next(reader) if head is not None and head[0] == place else head
            for reader, head in zip(readers, heads, strict=True)
        ]


async def _next(reader: AsyncIterator[tuple[int, ShardRef]]) -> tuple[int, ShardRef] | None:
    return await anext(reader, None)


async def _one_shard(node: Node, place: int, refs: list[ShardRef]) -> tuple[int, ShardRef]:
    made = await as_task_run(node.name, f"{node.name}-{place}", lambda: _shard_or_cached(node, place, refs))
    ref, reused = made
    node.run.progress_of(node.name, node.step).add(ref, refs[0].rows, reused=reused)
    return place, ref


async def _shard_or_cached(node: Node, place: int, refs: list[ShardRef]) -> Any:
    """`shard_of`; in a flow run as a state whose name says where the rows are from, or that some failed."""
    from prefect.context import FlowRunContext
    from prefect.states import Completed

    ref, reused = await shard_of(node, place, refs)
    failed_here = ref.failed > max(before.failed for before in refs)
    if FlowRunContext.get() is None or not (reused or failed_here):
        return ref, reused
    name = "RowsFailed" if failed_here else "Cached"
    failed = f", {ref.failed:,} of them failed" if ref.failed else ""
    return Completed(name=name, message=f"{ref.rows:,} rows{failed}", data=(ref, reused))


async def shard_of(node: Node, place: int, refs: list[ShardRef]) -> tuple[ShardRef, bool]:
    """A step's shard from its inputs' shards: kept from before, or made now. Says which."""
    folder = step_folder(node, f"{place:08d}")
    path = posixpath.join(folder, f"{digest([ref.digest for ref in refs])}.parquet")
    found = await asyncio.to_thread(find_shard, node.run.storage, path)
    if found is not None and asks(node) and (not found.failed or found.attempt == node.run.attempt):
        if found.failed:
            await asyncio.to_thread(count_failures, node, found)
        return found, True
    inputs = [await asyncio.to_thread(read_shard, node.run.storage, ref) for ref in refs]
    if asks(node):
        await asyncio.to_thread(_load_once, node)
    if isinstance(node.step, Task):
        if not asks(node):
            return await asyncio.to_thread(show_prompts, node, node.step, place, inputs[0]), False
        return await answer_shard(node, node.step, path, inputs[0]), False
    made = await asyncio.to_thread(_apply, node, inputs)
    return await asyncio.to_thread(write_shard, node.run.storage, path, made, attempt=node.run.attempt), False


def _apply(node: Node, inputs: list[list[Row]]) -> list[Row]:
    if asks(node):
        return apply_step(node.step, inputs)
    try:
        return apply_step(node.step, inputs)
    except Exception:  # noqa: BLE001 -- a preview: a step may not know what to do with a text that stands for an answer
        return inputs[0]


def step_folder(node: Node, *parts: str) -> str:
    """Where a step's shards are kept: by its name, what decides its rows, and, without a cache, the run."""
    decides = digest({"name": node.name, **node.step.identity()})
    fresh = () if node.use_cache else (f"run-{node.run.id}",)
    return node.run.storage.path("steps", node.name, decides, *fresh, *parts)


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
        listing = posixpath.join(step_folder(node, "all"), f"{key}.json")
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
    if not run.storage.exists(listing):
        return None
    refs = [find_shard(run.storage, path) for path in orjson.loads(run.storage.read(listing))]
    return None if any(ref is None for ref in refs) else cast("list[ShardRef]", refs)


def _apply_to_all(node: Node, step: GlobalStep, inputs: list[list[ShardRef]], listing: str) -> list[ShardRef]:
    storage = node.run.storage
    rows = [[row for ref in refs for row in read_shard(storage, ref)] for refs in inputs]
    _load_once(node)
    made = apply_step(step, rows)
    folder = listing.removesuffix(".json")
    refs = [
        write_shard(storage, posixpath.join(folder, f"{place:08d}.parquet"), some, attempt=node.run.attempt)
        for place, some in enumerate(batches_of([made], node.shard_rows))
    ]
    storage.write(listing, orjson.dumps([ref.uri for ref in refs]))
    for ref in refs:
        node.run.progress_of(node.name, step).add(ref, 0, reused=False)
    return refs


async def as_task_run(name: str, run_name: str, work: Callable[[], Awaitable[Any]]) -> Any:
    """Do `work` as a Prefect task run called `run_name`; as it is, outside of any flow run."""
    from prefect import State
    from prefect import Task as PrefectTask
    from prefect.cache_policies import NO_CACHE
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is None:
        return await work()

    async def shard() -> Any:
        try:
            return await work()
        except CLEAR_ERRORS as error:
            return failed_state(error)

    task: Any = PrefectTask(shard, name=name, task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False)
    made: Any = await task()
    return await cast("State[Any]", made).aresult() if isinstance(made, State) else made


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
