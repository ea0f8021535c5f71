"""Routing: send a shard to some of a step's successors."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVar

from tasks.steps import Step
from tasks.typing import StepInput, StepOutput

T = TypeVar("T")


class RoutedRows(Step):
    """Stands before a saver that a routing function sends shards to: these shards alone, as they are."""

    takes_failed_rows = True

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


class RoutingBatchFunction:
    """Between a step and its successors: `step >> router >> [a, b, c]`, or `step >> router >> a`.

    The function gets the successors' names and returns those that a shard goes to; with none of them, the shard ends
    there. It's called once for each shard. The module `random` is seeded by the shard's place while it runs, so that
    a retry routes as the first run did.
    """

    def __init__(self, function: Callable[[list[str]], list[str]], count: int | None = None) -> None:
        self.function = function
        self.count = count
        """How many successors are drawn, where that is all it does."""
        self.before: Step | None = None
        self.successors: list[str] = []
        self._chosen: dict[int, list[str]] = {}

    def between(self, before: Step, successors: list[str]) -> RoutingBatchFunction:
        """The same function at one place of a pipeline: it may stand at several."""
        route = RoutingBatchFunction(self.function, self.count)
        route.before, route.successors = before, successors
        return route

    def chosen(self, place: int) -> list[str]:
        """The successors of the shard at `place`. Raises ValueError for a name that isn't one."""
        # Each successor asks: a function that goes by turns would give each another answer.
        if place not in self._chosen:
            self._chosen[place] = self._choose(place)
        return self._chosen[place]

    def _choose(self, place: int) -> list[str]:
        state = random.getstate()
        random.seed(f"{self.successors} {place}")
        try:
            names = self.function(list(self.successors))
        finally:
            random.setstate(state)
        unknown = sorted(set(names) - set(self.successors))
        if unknown:
            raise ValueError(f"the routing function chose {unknown}; the successors are {self.successors}")
        return names

    def __rshift__(self, after: T) -> T:
        if self.before is None:
            raise ValueError("a routing function needs a step before it: step >> router >> [a, b]")
        pipeline: Any = self.before.pipeline
        pipeline.connect_routed(self.before, self, after)
        return after


def routing_batch_function(function: Callable[..., Any] | None = None) -> Any:
    """Make a routing function of a function from the successors' names to those chosen.

    Example:
        >>> @routing_batch_function()
        ... def first_only(steps: list[str]) -> list[str]:
        ...     return steps[:1]
    """
    return routing_batch_function if function is None else RoutingBatchFunction(function)


def sample_n_steps(n: int) -> RoutingBatchFunction:
    """Send each shard to `n` of the successors, drawn at random."""
    return RoutingBatchFunction(lambda steps: random.sample(steps, n), count=n)
