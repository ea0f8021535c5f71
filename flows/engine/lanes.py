"""Which samples a step takes: steps of a run that ask alike have none in common; its shards count in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import cast

from flows.engine.graph import Node
from flows.engine.run import Run
from flows.ledger import Claims, Samples
from flows.store.digest import digest
from tasks.base import ModelStep


def find_lanes(run: Run) -> None:
    """Number the steps of a run that ask alike: by the order in which they were made, whatever their names.

    Of those that don't, but happen to ask the same, the one that comes second has its samples beyond all others.
    """
    nodes = [(node, node.step) for node in cast("Sequence[Node]", run.nodes) if isinstance(node.step, ModelStep)]
    spaces = [node.space() for node, _ in nodes]
    ways = [digest([space, step.asking()]) for space, (_, step) in zip(spaces, nodes, strict=True)]
    for place, (node, _) in enumerate(nodes):
        space, way = spaces[place], ways[place]
        node.lane = ways[:place].count(way)
        others = {each for each, where in zip(ways, spaces, strict=True) if where == space}
        claims = run.claims.setdefault(space, Claims()) if len(others) > 1 else None
        node.samples = Samples(claims, ways.index(way))


class Turns:
    """Lets the shards of a step count their questions one after another, in their order."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._last: asyncio.Future[None] | None = None

    def next(self) -> Turn:
        turn = Turn(self._samples, self._last)
        self._last = turn.done
        return turn


class Turn:
    """A shard's turn. One that fails before it counted stops those behind it, which can't know their numbers."""

    def __init__(self, samples: Samples, before: asyncio.Future[None] | None) -> None:
        self._samples = samples
        self._before = before
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def count(self, questions: Sequence[int]) -> Sequence[int]:
        if self._before is not None:
            await asyncio.shield(self._before)
        found = self._samples.count_on(questions)
        self.done.set_result(None)
        return found

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.done.done():
            self.done.cancel() if error is not None else self.done.set_result(None)
