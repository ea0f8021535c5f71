"""Rows of a flow: a graph of steps, made by `load` and `map`, run by `save` and `collect`."""

from __future__ import annotations

import asyncio
import posixpath
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from flows.engine.run import SHARD_ROWS, Run, current_run, named
from flows.ledger import Samples, space_of
from flows.store.digest import digest
from flows.store.shards import ShardRef
from tasks.base import ModelStep
from tasks.sources.generators import GeneratorTask, SeedRows, makes_rows
from tasks.steps import GeneratorStep, Step

AHEAD = 8
"""Shards that a source may be ahead of its quickest reader."""
RUN_FOLDER = "run-"
"""How the name of a folder begins that has the rows of one run, which used no cache."""

_loading = threading.Lock()


class Stream:
    """The shards of a step as they come, in order, each with its place. Several can read it."""

    def __init__(self) -> None:
        self.items: list[tuple[int, ShardRef]] = []
        self.finished = False
        self.error: BaseException | None = None
        self.furthest = 0
        self._changed = asyncio.Event()

    def push(self, place: int, ref: ShardRef) -> None:
        self.items.append((place, ref))
        self._wake()

    def finish(self, error: BaseException | None = None) -> None:
        self.finished = True
        self.error = error
        self._wake()

    async def room(self) -> None:
        """Wait until a reader is near the end."""
        while len(self.items) - self.furthest >= AHEAD and not self.finished:
            await self._changed.wait()

    async def read(self) -> AsyncIterator[tuple[int, ShardRef]]:
        """All shards from the first on. Raises the step's error after those it finished."""
        position = 0
        while True:
            while position < len(self.items):
                position += 1
                self.furthest = max(self.furthest, position)
                self._wake()
                yield self.items[position - 1]
            if self.finished:
                break
            await self._changed.wait()
        if self.error is not None:
            raise self.error

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass(eq=False)
class Node:
    """A step in the graph, with the nodes it reads from."""

    run: Run
    name: str
    step: Step
    upstream: tuple[Node, ...] = ()
    route: Callable[[int], bool] | None = None
    """Whether the shard at a place comes here."""
    use_cache: bool = True
    shard_rows: int = SHARD_ROWS
    stream: Stream | None = field(default=None, repr=False)
    types: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    """Of a source: its columns' types, as in `datasets.Features`; None where the values will tell."""
    loaded: bool = False
    lane: int = 0
    """Which of the run's steps that ask alike it is: they share no samples."""
    samples: Samples = field(default_factory=Samples, repr=False)
    has_legacy: bool | None = None
    """Whether the storage has something of the layout before; None where it wasn't looked at."""
    described: bool = False
    """Whether the ledger knows who is asked."""

    def __post_init__(self) -> None:
        if self.upstream:
            self.use_cache = all(node.use_cache for node in self.upstream)
            self.shard_rows = self.upstream[0].shard_rows
        self.run.keep(self)

    def load(self) -> None:
        """Get its step ready, once."""
        with _loading:
            if not self.loaded:
                self.step.load()
                self.loaded = True

    def space(self) -> str:
        """The part of the ledger that its model's answers are in: without a cache, one of the run's own."""
        return space_of(cast("ModelStep", self.step).answerer, "" if self.use_cache else self.run.id)

    def folder(self, *parts: str) -> str:
        """Where its shards are kept: by its name, what decides its rows, and, without a cache, the run."""
        lane = {"lane": self.lane} if self.lane else {}
        files = self.step.answerer.fingerprints() if isinstance(self.step, ModelStep) else {}
        decides = digest({"name": self.name, **self.step.identity(), **lane, **({"files": files} if files else {})})
        fresh = () if self.use_cache else (f"{RUN_FOLDER}{self.run.id}",)
        return self.run.storage.path("steps", self.name, decides, *fresh, *parts)

    def shard_path(self, place: int, inputs: Sequence[ShardRef], before: Sequence[int] = ()) -> str:
        """Where its shard made from `inputs` is kept.

        Args:
            before: how often each of its questions was asked in the shards before; none, where none was.
        """
        samples = f"-{digest(list(before))[:16]}" if before else ""
        return posixpath.join(self.folder(f"{place:08d}"), f"{digest_of_inputs(inputs)}{samples}.parquet")

    def ancestry(self) -> list[Node]:
        """This node and all before it, those before first."""
        found: dict[int, Node] = {}
        for node in self.upstream:
            found.update({id(each): each for each in node.ancestry()})
        found[id(self)] = self
        return list(found.values())


def digest_of_inputs(inputs: Sequence[ShardRef]) -> str:
    """A digest of the shards that a shard is made from."""
    return digest([ref.digest for ref in inputs])


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


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a flow that may not be there yet. `map` a step over them; `save` or `collect` them."""

    node: Node

    def map(self, step: Step, *others: Rows) -> Rows:
        """`step` over these rows, lazily: it starts on a shard as soon as that shard is there.

        Args:
            step: a Task or another Step.
            others: for a step that takes several inputs, the rows of the further ones.
        """
        if makes_rows(step):
            raise TypeError(f"{step.name!r} makes rows and takes none; use load({step.name})")
        run = self.node.run
        name = run.name_for(step.name)
        return Rows(Node(run, name, named(step, name), (self.node, *(other.node for other in others))))


def load(
    source: GeneratorStep | GeneratorTask | list[dict[str, Any]] | Any,
    *,
    use_cache: bool = True,
    shard_rows: int = SHARD_ROWS,
    storage: str | None = None,
) -> Rows:
    """The rows of a source, lazily.

    Args:
        source: a loader, a Task that makes rows, or rows themselves: a list of dicts, a `datasets.Dataset`, a
            pandas frame.
        use_cache: take answers of earlier runs with the same requests; off for a fresh dataset from the
            same prompts. A run's own retries never ask twice either way.
        shard_rows: the most rows of a shard, which is a Prefect task run per step. The first ones have fewer.
        storage: where shards are kept: a folder or an fsspec address. Default: STILLFLOW_STORAGE, or `~/.stillflow`.
    """
    from tasks.sources.loaders import make_generator_step

    run = current_run(storage)

    def root(step: GeneratorStep) -> Node:
        name = run.name_for(step.name)
        return Node(run, name, named(step, name), use_cache=use_cache, shard_rows=shard_rows)

    if not isinstance(source, GeneratorTask):
        return Rows(root(source if isinstance(source, GeneratorStep) else make_generator_step(source)))
    name = run.name_for(source.name)
    task = cast("GeneratorTask", named(source, name))
    return Rows(Node(run, name, task, (root(SeedRows(task=task)),)))
