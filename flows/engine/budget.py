"""A run's `max_cost`: the dollars that it may spend, at list prices, whatever it still has to ask."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager

from flows.engine.errors import CostLimitError
from flows.ledger import Store
from flows.store.context import run_logger
from llms.base import LLM
from llms.prices import money, price_of
from llms.typing import Usage
from llms.usage import usage_of

SECONDS_PER_POLL = 0.05


class Budget:
    """The dollars that a run may spend, over all of its attempts.

    A request is sent where they suffice for it beside all that is under way. One that is under way counts as the
    dearest of its step that was answered, and before there's any as its estimate: of as many tokens as it may have.
    So a run spends more only by as much as requests turn out dearer than every one before. A batch job counts as it
    was estimated.

    Args:
        began_before: whether an earlier attempt of the run, or it itself before it waited, may have spent something.
    """

    def __init__(self, *, began_before: bool) -> None:
        self.max_cost = math.inf
        """In US dollars, at list prices."""
        self._began_before = began_before
        self.spent = 0.0
        """By requests that were sent online."""
        self.submitted = 0.0
        """What its batch jobs cost, as they were estimated; those that have ended for what they answered."""
        self.reserved = 0.0
        """What the jobs may cost that are being submitted, and aren't counted yet."""
        self._held = 0.0
        self._under_way = 0
        self._dearest: dict[str, float] = {}
        self._unpriced: set[str] = set()
        self._counted: set[str] = set()
        self._counting = threading.Lock()

    def count_before(self, store: Store, llm: LLM, is_ours: Callable[[str], bool]) -> None:
        """Count what the run spent before, in the attempts that are its own. Reads all that is kept of `llm`, once."""
        with self._counting:
            if store.space in self._counted:
                return
            self._counted.add(store.space)
            if not self._began_before:
                return
            for _, letter, _, record in store.lines():
                if is_ours(record["x"]) and not record.get("b") and "w" not in record:
                    usage = usage_of(record["o"]) if letter == "o" else record.get("u", [])
                    self.spent += _dollars(llm, usage) or 0.0

    @asynccontextmanager
    async def room_for(self, step: str, guess: Callable[[], float | None]) -> AsyncGenerator[None]:
        """Wait until there's room for a request, or for a shard of a cluster, and hold it while that is under way.

        Args:
            step: whose request it is.
            guess: what it may cost, in dollars; None where no price is known: it counts as free then.

        Raises:
            CostLimitError: nothing is under way, and there's no room all the same.
        """
        price = self._price(step, guess)
        while self._taken() + price > self.max_cost:
            if not self._under_way:
                spent = money(self.spent + self.submitted + self.reserved)
                raise CostLimitError(
                    f"{step}: this run has spent {spent} of max_cost={self.max_cost:g}, and what comes next may cost"
                    f" {money(price)}. Start it again with a higher max_cost: what was answered is kept, and isn't paid"
                    " for again"
                )
            # Shards of a cluster and requests of this process come from different loops: no event wakes both.
            await asyncio.sleep(SECONDS_PER_POLL)
            price = self._price(step, guess)
        self._held += price
        self._under_way += 1
        try:
            yield
        finally:
            self._held -= price
            self._under_way -= 1

    def _taken(self) -> float:
        return self.spent + self.submitted + self.reserved + self._held

    def _price(self, step: str, guess: Callable[[], float | None]) -> float:
        if step in self._dearest or step in self._unpriced:
            return self._dearest.get(step, 0.0)
        price = guess()
        if price is None:
            self._unpriced.add(step)
            run_logger().warning(
                "%s: no price is known of its model: max_cost=%g counts it as free", step, self.max_cost
            )
        return price or 0.0

    def count(self, step: str, llm: LLM, usage: Iterable[Usage]) -> None:
        """Count a request that was sent, whatever came of it."""
        self.spend(step, _dollars(llm, usage))

    def spend(self, step: str, dollars: float | None) -> None:
        if dollars is not None:
            self.spent += dollars
            self._dearest[step] = max(self._dearest.get(step, 0.0), dollars)

    def check_jobs(self, step: str, dollars: float | None) -> None:
        """Before batch jobs are submitted that may cost so much, beside those of before: that is reserved for them.

        Raises:
            CostLimitError: nothing of them is submitted.
        """
        taken = self._taken()
        if taken + (dollars or 0.0) > self.max_cost:
            raise CostLimitError(
                f"{step}: its batch jobs may cost {money(dollars or 0.0)}, and this run has spent {money(taken)} of"
                f" max_cost={self.max_cost:g}. Nothing of them is submitted. Start it again with a higher max_cost"
            )
        self.reserved = dollars or 0.0

    def submit(self, dollars: float) -> None:
        """A job is submitted that may cost so much."""
        self.submitted += dollars
        self.reserved = max(0.0, self.reserved - dollars)


def _dollars(llm: LLM, usage: Iterable[Usage]) -> float | None:
    """What requests cost; None where no price is known."""
    prices = [price_of(llm, each, batch=False) for each in usage]
    known = [each.dollars for each in prices if each is not None]
    return sum(known) if known else None
