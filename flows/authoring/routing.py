"""Routing: send a shard to some of a step's successors."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from tasks.steps import Step


class RoutingBatchFunction:
    """Between a step and its successors: `step >> router >> [a, b, c]`.

    The function gets the successors' names and returns those that a shard goes to. The module
    `random` is seeded by the shard's place while it runs, so that a retry routes as the first run did.
    """

    def __init__(self, function: Callable[[list[str]], list[str]], count: int | None = None) -> None:
        self.function = function
        self.count = count
        """How many successors are drawn, where that is all it does."""
        self.before: Step | None = None
        self.successors: list[str] = []

    def chosen(self, place: int) -> list[str]:
        """The successors of the shard at `place`. Raises ValueError for a name that isn't one."""
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

    def __rshift__(self, after: Sequence[Step]) -> Sequence[Step]:
        if self.before is None:
            raise ValueError("a routing function needs a step before it: step >> router >> [a, b]")
        pipeline: Any = self.before.pipeline
        pipeline.connect_routed(self.before, self, list(after))
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
