"""The engine: brings shards through a graph of steps, one Prefect task run per step and shard."""

from __future__ import annotations

import asyncio
import posixpath
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from flows.credentials import find_credentials
from flows.engine.answering import (
    Count,
    Located,
    Missing,
    count_before,
    located,
    made_online,
    missing_of,
    sends_requests,
    show_prompts,
    stand_ins,
    valid_shard,
)
from flows.engine.artifacts import publish_progress
from flows.engine.batching import WaitingForBatches, is_offline, take_batches
from flows.engine.costs import estimate_of_step, needs_approval, requests_per_row
from flows.engine.errors import PipelineError
from flows.engine.event_loops import finished
from flows.engine.graph import Node, Stream, aligned
from flows.engine.lanes import Turn, Turns, find_lanes
from flows.engine.pace import pace_of
from flows.engine.report import age, progress_line
from flows.engine.run import Run, progress_listener
from flows.engine.run_name import name_run
from flows.engine.sources import SourceRows, dataset_names, names_of_steps
from flows.engine.task_runs import as_task_run, shard_state
from flows.engine.window import Window
from flows.ledger import opened
from flows.ledger.lines import sealed_json, unsealed_json
from flows.ledger.store import note_use
from flows.limits.leases import shared_limits
from flows.store.context import run_logger
from flows.store.digest import digest, digest_of_rows
from flows.store.shards import ShardError, ShardRef, batches_of, find_shard, read_shard, shard_lengths, write_shard
from llms.base import AsyncLLM
from llms.credentials import use_credentials_store
from tasks.base import ModelStep
from tasks.rows.columns import MODEL_NAME, way_out
from tasks.steps import METADATA, GeneratorStep, GlobalStep, Step, failure_in
from tasks.typing import Row

LAYOUT = 2
"""Of a source's shards. In the first one, dicts had the keys of all dicts beside them."""
PROGRESS_SECONDS = 10.0
LONGEST_PUBLISHING = 10.0
"""Seconds that the end of a run waits for what is on its way to its page."""
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
    leaves[0].run.unkept = None
    to_run = [node for node in nodes if not _is_done(node)]
    await name_run(leaves[0].run, nodes)
    if any(sends_requests(node) for node in to_run):
        find_lanes(leaves[0].run)
        for node in nodes:
            # Also of steps that have all their answers: no shard of theirs comes by before others are paid for.
            if isinstance(node.step, ModelStep) and node.run.money.budget is not None:
                await count_before(node, await asyncio.to_thread(opened, node.run.storage, node.space()))
        for node in to_run:
            if isinstance(node.step, ModelStep):
                await asyncio.to_thread(note_use, node.run.storage, node.space(), node.run.flow_name)
    gate = _Gate(nodes, to_run)
    for node in to_run:
        # Services now, to learn of a missing key before anything is sent; engines when their turn comes.
        # Where shards are worked on elsewhere, the keys are there as well.
        here = node.run.spread is None or is_offline(node)
        if (
            here
            and isinstance(node.step, ModelStep)
            and isinstance(node.step.answerer, AsyncLLM)
            and sends_requests(node)
        ):
            node.load()
    for node in to_run:
        node.stream = Stream()
        # Of an earlier pass: every shard is counted again as it comes by.
        node.run.progress.pop(node.name, None)
    async with shared_limits(node.step for node in to_run if sends_requests(node)):
        return await _through(leaves, to_run, gate)


async def _through(leaves: Sequence[Node], to_run: Sequence[Node], gate: _Gate) -> list[list[ShardRef]]:
    drivers = [asyncio.create_task(_drive(node, gate), name=node.name) for node in to_run]
    reporters = [asyncio.create_task(report(leaves[0].run)) for report in (_report, _show)]
    try:
        refs = await asyncio.gather(*(_all_of(cast("Stream", leaf.stream)) for leaf in leaves))
        if None in refs:
            await asyncio.gather(*drivers)
            raise _waiting(to_run)
        return cast("list[list[ShardRef]]", list(refs))
    finally:
        for each in (*reporters, *drivers):
            each.cancel()
        await asyncio.gather(*reporters, *drivers, return_exceptions=True)
        for node in to_run:
            if node.loaded:
                node.step.unload()
                node.loaded = False


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
            await gate.passed()
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
        gate.fail(error)
        stream.finish(error)
    else:
        stream.finish()


async def _make_rows(node: Node, step: GeneratorStep, gate: _Gate) -> None:
    async def make() -> int:
        progress = node.run.progress_of(node.name, step)
        await asyncio.to_thread(node.load)
        source = SourceRows(step, node.run, gate.steps)
        await asyncio.to_thread(source.read_types)
        node.types = source.features
        rows = batches_of(source.lists(), shard_lengths(_shard_rows(node)))
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
        source.say_what_was_found()
        await gate.counted(node, progress.rows_out)
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
    return posixpath.join(whole[:2], f"{whole}-{LAYOUT}")


def _shard_rows(node: Node) -> int:
    limits = node.run.limits
    return min(node.shard_rows, limits.rows) if limits else node.shard_rows


async def _take_each(node: Node) -> None:
    """One task run per shard, a few at a time, pushed on in order.

    Raises:
        WaitingForBatches: a person has to agree to its cost first.
    """
    if (
        isinstance(node.step, ModelStep)
        and node.run.money.spending.approve_cost_above is not None
        and not node.run.limits
    ):
        await _expect(node, node.step)
    spread = node.run.spread
    window = spread.window() if spread else Window(rows=rows_at_a_time(node.step))
    started: asyncio.Queue[asyncio.Task[tuple[int, ShardRef]] | None] = asyncio.Queue()
    under_way: set[asyncio.Task[tuple[int, ShardRef]]] = set()
    stopped = False
    turns = Turns(node.samples)

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
                work = asyncio.create_task(_one_shard(node, place, refs, turns.next()))
                under_way.add(work)
                work.add_done_callback(partial(ended, rows))
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
                await asyncio.gather(*under_way, return_exceptions=True)
                raise
            under_way.discard(work)
            cast("Stream", node.stream).push(place, ref)
        await starter
    finally:
        for each in (starter, *under_way):
            each.cancel()
        await asyncio.gather(starter, *under_way, return_exceptions=True)
        node.run.money.expected.pop(node.name, None)


async def _expect(node: Node, step: ModelStep) -> None:
    """Estimate what a step costs before it asks anything: all its rows have to be there for it.

    Raises:
        WaitingForBatches: a person has to agree to it first.
    """
    run, samples, whole = node.run, node.samples.anew(), Missing()
    look = run.spread.missing_of if run.spread else missing_of

    async def count(questions: Sequence[int]) -> Sequence[int]:
        return samples.count_on(questions)

    async for place, refs in aligned(node):
        whole += await look(node, place, refs, count)
    each = requests_per_row(step)
    found = estimate_of_step(step, each * whole.questions, round(each * whole.tokens), batch=False)
    async with run.money.turn:
        if needs_approval(run, [found]):
            raise WaitingForBatches(estimates={node.name: found})
        run.money.expected[node.name] = found.dollars or 0.0


def rows_at_a_time(step: Step) -> int:
    """Enough that requests never run out at a shard's end, and no more."""
    if isinstance(step, ModelStep) and isinstance(step.answerer, AsyncLLM):
        return 2 * step.answerer.max_concurrent_requests
    return 0


async def _one_shard(node: Node, place: int, refs: list[ShardRef], turn: Turn) -> tuple[int, ShardRef]:
    progress = node.run.progress_of(node.name, node.step)
    work = node.run.spread.shard_of if node.run.spread else shard_of

    async def make() -> Any:
        return shard_state(*await work(node, place, refs, turn.count), refs)

    with turn:
        path = node.shard_path(place, refs)
        known = await asyncio.to_thread(find_shard, node.run.storage, path) if node.run.passes else None
        if known is not None and known.attempt == node.run.attempt:
            # An earlier pass of this attempt made it: it had its task run then.
            ref, _ = await work(node, place, refs, turn.count)
            progress.add(ref, refs[0].rows, reused=False, known=True)
            return place, ref
        ref, reused = await as_task_run(node.name, f"{node.name}-{place}", make)
    progress.add(ref, refs[0].rows, reused=reused)
    return place, ref


async def shard_of(node: Node, place: int, refs: Sequence[ShardRef], count: Count) -> tuple[ShardRef, bool]:
    """A step's shard from its inputs' shards: kept from before, or made now. Says which."""
    if not (isinstance(node.step, ModelStep) and sends_requests(node)):
        return await shard_at(node, node.shard_path(place, refs), place, refs)
    async with located(node, place, refs, count) as where:
        if where.found is not None:
            return where.found, True
        return await made_online(where, node, place, refs), False


async def shard_at(
    node: Node, path: str, place: int, refs: Sequence[ShardRef], before: Sequence[int] = ()
) -> tuple[ShardRef, bool]:
    """The same, for who knows its path, and how often a Task's questions were asked in the shards before."""
    found = await valid_shard(node, path) if sends_requests(node) else None
    if found is not None:
        return found, True
    if isinstance(node.step, ModelStep) and sends_requests(node):
        return await made_online(Located(path, None, None, before), node, place, refs), False
    inputs = [await asyncio.to_thread(read_shard, node.run.storage, ref) for ref in refs]
    if isinstance(node.step, ModelStep):
        return await asyncio.to_thread(show_prompts, node, node.step, place, inputs[0]), False
    if sends_requests(node):
        await asyncio.to_thread(node.load)
    made = await asyncio.to_thread(_apply, node, inputs)
    write = partial(write_shard, attempt=node.run.attempt, step=node.name)
    return await asyncio.to_thread(write, node.run.storage, path, made), False


def _apply(node: Node, inputs: list[list[Row]]) -> list[Row]:
    if len(inputs) == 1:
        inputs = [whole_rows(node.step, inputs[0])]
    if sends_requests(node):
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
    return {**{step.output_mappings.get(name, name): None for name in step.own_columns()}, **bad}


async def _take_all(node: Node, step: GlobalStep) -> None:
    """A step that needs all rows at once: one task run, any number of shards."""
    streams = [cast("Stream", before.stream) for before in node.upstream]
    inputs = [[ref async for place, ref in each.read() if node.route is None or node.route(place)] for each in streams]

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
        record = unsealed_json(run.storage.read(listing))
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
    node.load()
    made = _apply(node, rows)
    refs = [
        write_shard(storage, _path_in(listing, place), some, attempt=node.run.attempt, step=node.name)
        for place, some in enumerate(batches_of([made], shard_lengths(node.shard_rows)))
    ]
    storage.write(listing, sealed_json({"k": storage.inside(listing), "digests": [ref.digest for ref in refs]}))
    for ref in refs:
        node.run.progress_of(node.name, step).add(ref, 0, reused=False)
    return refs


class _Gate:
    """Keeps steps back until the columns of all sources are known to fit."""

    def __init__(self, nodes: Sequence[Node], to_run: Sequence[Node]) -> None:
        self.steps = names_of_steps(nodes)
        self._open = asyncio.Event()
        self._problem: Exception | None = None
        self._nodes = nodes
        self._sources = [node for node in nodes if isinstance(node.step, GeneratorStep)]
        self._unseen = {id(node) for node in self._sources if node in to_run}
        self._columns: dict[int, frozenset[str]] = {}
        self._said: set[str] = set()
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
            for note in check_columns(self._nodes, self._columns):
                if note not in self._said:
                    self._said.add(note)
                    run_logger().warning(note)
        if not self._unseen:
            self._open.set()

    async def counted(self, source: Node, rows: int) -> None:
        """A source has given all its rows. What several give isn't what comes of them together."""
        if len(self._sources) == 1:
            await name_run(source.run, self._nodes, rows)

    def fail(self, problem: Exception) -> None:
        """Something is wrong. If it is so before all sources are known, nothing is asked."""
        if not self._open.is_set():
            self._problem = problem
            self._open.set()

    async def passed(self) -> None:
        """Wait until all sources are known. Raises what is wrong with one of them."""
        await self._open.wait()
        if self._problem is not None:
            raise self._problem


def source_columns(step: GeneratorStep) -> frozenset[str] | None:
    """The columns of a source under the dataset's names, where they can be known without making rows.

    Raises PipelineError where two of them get one name.
    """
    known = step.columns()
    return frozenset(dataset_names(step, sorted(known)).values()) if known else None


def check_columns(nodes: Sequence[Node], sources: Mapping[int, frozenset[str]]) -> list[str]:
    """Follow the columns through the steps. Returns what a person should know of them.

    Raises PipelineError where one is missing, means two things, or would be lost.
    """
    notes: list[str] = []
    origins: dict[int, dict[str, Node]] = {}
    for node in nodes:
        if id(node) in sources:
            origins[id(node)] = dict.fromkeys(sources[id(node)], node)
            continue
        before = [origins[id(each)] for each in node.upstream]
        available = {name: origin for columns in reversed(before) for name, origin in columns.items()}
        _check_required(node, available)
        if node.step.joins_rows:
            _check_conflicts(node, before)
        names = dataset_names(node.step, node.step.own_columns())
        written = set(names.values())
        if node.step.moves_columns:
            notes += _written_over(node, names, available)
        origins[id(node)] = {
            # A step that only keeps a column isn't where it comes from.
            name: node
            if name in written and (isinstance(node.step, ModelStep) or name not in available)
            else available.get(name, node)
            for name in node.step.added_columns(frozenset(available))
        }
    return notes


def _check_required(node: Node, available: Mapping[str, Node]) -> None:
    missing = [name for name in node.step.required_columns() if name not in available]
    if missing:
        there = sorted(set(available) - {METADATA})
        ways = _ways_to_name(missing[0], {name: available[name] for name in there})
        raise PipelineError(
            f"{node.name} ({type(node.step).__name__}) needs the column {missing[0]!r}; there are: {', '.join(there)}."
            f" If it has another name there, say so: {ways}"
        )


def _ways_to_name(missing: str, available: Mapping[str, Node]) -> str:
    """The mappings by which a step finds a column: for all steps where it's loaded, and for that step alone."""
    its_name = next(iter(available)) if len(available) == 1 else "<its name>"
    of_the_step = f"input_mappings={{{missing!r}: {its_name!r}}}"
    sources = {origin.name for origin in available.values() if isinstance(origin.step, GeneratorStep)}
    if len(sources) != 1:
        return of_the_step
    return f"{sources.pop()}.output_mappings={{{its_name!r}: {missing!r}}} for all steps, or {of_the_step} for this one"


def _check_conflicts(node: Node, branches: Sequence[Mapping[str, Node]]) -> None:
    """Raises PipelineError where the rows that a step joins have a column that models wrote in different steps."""
    joined_apart = {*node.step.required_columns(), MODEL_NAME, METADATA}
    for name in dict.fromkeys(name for columns in branches for name in columns):
        writers = list({id(columns[name]): columns[name] for columns in branches if name in columns}.values())
        if name in joined_apart or len(writers) < 2 or not any(isinstance(each.step, ModelStep) for each in writers):
            continue
        raise PipelineError(
            f"{node.name} ({type(node.step).__name__}) joins rows whose {name!r} comes from {writers[0].name} in one"
            f" and from {writers[1].name} in another. {way_out(name)}"
        )


def _written_over(node: Node, names: Mapping[str, str], available: Mapping[str, Node]) -> list[str]:
    """Of a step that moves columns: what to say of those of a source that it writes over, and doesn't read.

    Args:
        names: what its own columns are called in the dataset.
        available: the dataset's columns before it, each with the step that it comes from.

    Raises PipelineError for a column that another step made.
    """
    notes: list[str] = []
    known = {*node.step.columns_read(), MODEL_NAME, METADATA}
    for column, name in names.items():
        if name not in available or name in known:
            continue
        origin, what = available[name], f"{node.name} ({type(node.step).__name__}) writes its column {column!r} to"
        if not isinstance(origin.step, GeneratorStep):
            raise PipelineError(
                f"{what} {name!r}, which {origin.name} made: that one would be lost. Give it another name,"
                f" {node.name}.output_mappings={{{column!r}: '<another name>'}}, or drop the old one before"
                " (`KeepColumns`)"
            )
        notes.append(
            f"{what} {name!r}, in the place of the one that {origin.name} has. To keep both, rename that one:"
            f" {origin.name}.output_mappings={{{name!r}: '<another name>'}}"
        )
    return notes


async def _report(run: Run) -> None:
    """Say from time to time how far the run is."""
    listener = progress_listener.get()
    try:
        while True:
            await asyncio.sleep(LISTENER_SECONDS if listener else PROGRESS_SECONDS)
            if listener:
                listener(run)
            else:
                # Other threads begin steps meanwhile.
                for progress in list(run.progress.values()):
                    run_logger().info(progress_line(progress, pace_of(run, progress)))
    finally:
        if listener:
            listener(run)


async def _show(run: Run) -> None:
    """Keep the artifact with its progress up to date. A run that is soon done has its report alone."""
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        publishing = publish_progress(run, f"Running for {age(time.time() - run.times.began)}.")
        # Cut off, it may be carried out after the page was told how the run ended.
        await finished(publishing, LONGEST_PUBLISHING)
