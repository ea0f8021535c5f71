"""A run's shards on other processes and machines.

The flow's process keeps the order of shards, their task runs and the report. What goes out for a shard is
small: the step, and references to its rows. What comes back is a reference, and what it took.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from flows.cluster.clusters import Cluster, chosen_cluster, flows_task_runner
from flows.cluster.messages import ShardMade, ShardOrder, packed
from flows.engine.answering import Count, Missing, count_before, located, valid_shard
from flows.engine.costs import estimate
from flows.engine.window import Window
from flows.ledger import opened
from flows.store.context import run_logger
from flows.store.shards import ShardRef
from tasks.base import ModelStep

if TYPE_CHECKING:
    from flows.engine.graph import Node

FEWEST_AT_A_TIME = 4
"""Shards of a step that are out, however small the cluster is."""
PER_PLACE = 2
"""Shards that are out for each that can be worked on at once, so that none waits for the next."""
SECONDS_PER_COUNT = 5.0


class Spread:
    """A run's hold on a cluster. It is connected to when the first shard has to be made."""

    def __init__(self, connect: Callable[[], Cluster]) -> None:
        self._connect = connect
        self._connecting = asyncio.Lock()
        self._cluster: Cluster | None = None
        self._growing: asyncio.Task[None] | None = None
        self._at_a_time = FEWEST_AT_A_TIME
        self._windows: weakref.WeakSet[Window] = weakref.WeakSet()
        self._steps: dict[str, tuple[bytes, str]] = {}

    def window(self) -> Window:
        """Lets as many shards of a step out as suits the cluster. It grows with it."""
        window = Window(shards=self._at_a_time)
        self._windows.add(window)
        return window

    async def _connected(self) -> Cluster:
        async with self._connecting:
            if self._cluster is None:
                self._cluster = await asyncio.to_thread(self._connect)
                places = await asyncio.to_thread(self._cluster.places)
                run_logger().info("shards go to %s, which has room for %d now", self._cluster.name, places)
                self._growing = asyncio.create_task(self._grow(self._cluster))
        return self._cluster

    async def _grow(self, cluster: Cluster) -> None:
        """Look from time to time how large the cluster is."""
        while True:
            self._at_a_time = max(self._at_a_time, PER_PLACE * await asyncio.to_thread(cluster.places))
            for window in self._windows:
                window.grow(self._at_a_time)
            await asyncio.sleep(SECONDS_PER_COUNT)

    async def close(self) -> None:
        if self._growing is not None:
            self._growing.cancel()
        if self._cluster is not None:
            await asyncio.to_thread(self._cluster.close)

    async def shard_of(self, node: Node, place: int, refs: Sequence[ShardRef], count: Count) -> tuple[ShardRef, bool]:
        """`flows.engine.execution.shard_of`, wherever there is room.

        Raises:
            SpreadError: the cluster is gone, or what is there isn't this project.
            Exception: what the shard's own work raised.
        """
        if not isinstance(node.step, ModelStep):
            path = node.shard_path(place, refs)
            found = await valid_shard(node, path)
            return (found, True) if found is not None else await self._made(node, path, place, refs, ())

        async def look() -> list[int]:
            return list((await self._ordered(node, "", place, refs, ())).questions)

        async with located(node, place, refs, count, look=look) as where:
            if where.found is not None:
                return where.found, True
            return await self._made(node, where.path, place, refs, where.before)

    async def missing_of(self, node: Node, place: int, refs: Sequence[ShardRef], count: Count) -> Missing:
        """`flows.engine.answering.missing_of`, wherever there is room, as if no question were in two shards."""
        if await valid_shard(node, node.shard_path(place, refs), counted=False) is not None:
            return Missing()
        return (await self._ordered(node, "", place, refs, ())).missing

    async def _ordered(
        self, node: Node, path: str, place: int, refs: Sequence[ShardRef], before: Sequence[int]
    ) -> ShardMade:
        cluster = await self._connected()
        made = await cluster.make(self._order(node, path, place, refs, before))
        if isinstance(made, Exception):
            raise made
        return made

    async def _made(
        self, node: Node, path: str, place: int, refs: Sequence[ShardRef], before: Sequence[int]
    ) -> tuple[ShardRef, bool]:
        async with _room(node, refs):
            made = await self._ordered(node, path, place, refs, before)
            if node.run.money.budget is not None:
                node.run.money.budget.spend(node.name, made.work.sent_online.dollars)
        progress = node.run.progress_of(node.name, node.step)
        progress.answered += made.answered
        progress.failed += made.failed
        progress.work += made.work
        progress.reasons.update(made.reasons)
        return cast("ShardRef", made.ref), made.reused

    def _order(self, node: Node, path: str, place: int, refs: Sequence[ShardRef], before: Sequence[int]) -> ShardOrder:
        if node.name not in self._steps:
            self._steps[node.name] = packed(node)
        step, decides = self._steps[node.name]
        run = node.run
        return ShardOrder(
            step=step,
            name=node.name,
            decides=decides,
            path=path,
            estimated=run.money.spending.approve_cost_above is not None,
            place=place,
            inputs=tuple(refs),
            before=tuple(before),
            lane=node.lane,
            use_cache=node.use_cache,
            storage=run.storage.root,
            run=run.id,
            attempt=run.attempt,
            shard_rows=node.shard_rows,
        )


@asynccontextmanager
async def _room(node: Node, refs: Sequence[ShardRef]) -> AsyncGenerator[None]:
    """Room for a shard in the run's budget. Raises CostLimitError."""
    budget, step = node.run.money.budget, node.step
    if budget is None or not isinstance(step, ModelStep):
        yield
        return
    await count_before(node, await asyncio.to_thread(opened, node.run.storage, node.space()))
    requests, each = refs[0].rows, step.answers_per_row
    async with budget.room_for(node.name, lambda: estimate(step.answerer, requests, 0, num_generations=each).dollars):
        yield


@asynccontextmanager
async def opened_spread() -> AsyncGenerator[Spread | None]:
    """The cluster that this run's shards go to; None where they stay in this process. Raises SpreadError."""
    connect = chosen_cluster(flows_task_runner())
    spread = Spread(connect) if connect else None
    try:
        yield spread
    finally:
        if spread is not None:
            await spread.close()
