"""Requests and tokens per minute: what a provider's headers say of them, and how long to wait for the next request.

Headers: https://platform.openai.com/docs/guides/rate-limits and https://docs.anthropic.com/en/api/rate-limits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeAlias

Unit: TypeAlias = Literal["requests", "tokens"]
UNITS: tuple[Unit, ...] = ("requests", "tokens")

DURATION = re.compile(r"(?P<amount>\d+(?:\.\d+)?)(?P<unit>ms|h|m|s)")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
BURST_SECONDS = 1.0
"""How much of a limit of one's own can be spent at once."""
STANDS = 0.02
"""The share of a budget that has to be spent before the time until it's full says something."""


@dataclass(frozen=True)
class Rate:
    """What a provider says of one budget at the time of an answer."""

    limit: float
    remaining: float
    per_second: float
    """How fast it fills."""


@dataclass
class Budget:
    """What may be spent now. It fills by itself, up to `capacity`."""

    per_second: float
    capacity: float
    level: float
    at: float = 0.0
    """When the level was so, by the loop's clock."""

    @classmethod
    def per_minute(cls, amount: float, now: float) -> Budget:
        """A budget of one's own, spent evenly."""
        capacity = max(1.0, amount / 60 * BURST_SECONDS)
        return cls(amount / 60, capacity, capacity, now)

    def wait_for(self, cost: float, now: float) -> float:
        """Seconds until `cost` can be spent; 0 when it can be now. What is more than the capacity costs all of it."""
        self._fill(now)
        return max(0.0, (min(cost, self.capacity) - self.level) / self.per_second)

    def take(self, cost: float, now: float) -> None:
        self._fill(now)
        self.level -= min(cost, self.capacity)

    def learn(self, rate: Rate, spent_since: float, now: float) -> None:
        """Take over what the provider said.

        Args:
            rate: its words.
            spent_since: by requests that were sent after the one it answered, and which it may not have counted.
            now: the loop's clock.
        """
        self.per_second, self.capacity, self.at = rate.per_second, rate.limit, now
        self.level = min(rate.limit, rate.remaining - spent_since)

    def _fill(self, now: float) -> None:
        self.level = min(self.capacity, self.level + max(0.0, now - self.at) * self.per_second)
        self.at = now


@dataclass
class Pace:
    """How fast requests may follow each other: requests and tokens per minute, as set or as the provider tells."""

    budgets: dict[Unit, Budget] = field(default_factory=dict[Unit, Budget])
    tokens_sent: float = 0.0
    _own: frozenset[Unit] = frozenset()
    """The budgets that were set: what the provider says of its own doesn't change them."""
    _told: int = 0
    """The number of the latest request whose headers were heard."""

    def set(self, requests_per_minute: float | None, tokens_per_minute: float | None, now: float) -> None:
        """Keep to these rates, whatever the provider says of its own."""
        given: Mapping[Unit, float | None] = {"requests": requests_per_minute, "tokens": tokens_per_minute}
        self._own = frozenset(unit for unit, amount in given.items() if amount)
        self.budgets.update({unit: Budget.per_minute(amount, now) for unit, amount in given.items() if amount})

    def wait_for(self, tokens: float, now: float) -> float:
        """Seconds until a request of so many tokens is within the rates."""
        costs: Mapping[Unit, float] = {"requests": 1.0, "tokens": tokens}
        return max((budget.wait_for(costs[unit], now) for unit, budget in self.budgets.items()), default=0.0)

    def take(self, tokens: float, now: float) -> None:
        """A request of so many tokens goes out."""
        self.tokens_sent += tokens
        costs: Mapping[Unit, float] = {"requests": 1.0, "tokens": tokens}
        for unit, budget in self.budgets.items():
            budget.take(costs[unit], now)

    def learn(self, number: int, rates: Mapping[Unit, Rate], since: Mapping[Unit, float], now: float) -> None:
        """Take over what the headers of the answer to a request say.

        Args:
            number: the request's.
            rates: the headers' words.
            since: what was spent by requests that were sent after it.
            now: the loop's clock.
        """
        if number < self._told:
            return
        self._told = number
        for unit, rate in rates.items():
            if unit not in self._own:
                budget = self.budgets.setdefault(unit, Budget(rate.per_second, rate.limit, rate.limit, now))
                budget.learn(rate, since[unit], now)


def rates_in(headers: Mapping[str, str]) -> dict[Unit, Rate]:
    """The budgets that an answer's headers tell of. Empty where they tell of none."""
    found: dict[Unit, Rate] = {}
    for unit in UNITS:
        openai = [headers.get(f"x-ratelimit-{what}-{unit}") for what in ("limit", "remaining", "reset")]
        anthropic = [headers.get(f"anthropic-ratelimit-{unit}-{what}") for what in ("limit", "remaining", "reset")]
        for limit, remaining, reset in (openai, anthropic):
            rate = _rate(limit, remaining, reset)
            if rate is not None:
                found[unit] = rate
    return found


def _rate(limit: str | None, remaining: str | None, reset: str | None) -> Rate | None:
    if limit is None or remaining is None:
        return None
    try:
        most, left = float(limit), float(remaining)
    except ValueError:
        return None
    if not (math.isfinite(most) and math.isfinite(left)) or most <= 0 or left < 0:
        return None
    full_in = seconds_in(reset) if reset else None
    # The time until it's full tells whether the limit is one per day, and so fills more slowly.
    per_second = most / 60
    if full_in and most - left > most * STANDS:
        per_second = min(per_second, (most - left) / full_in)
    return Rate(most, left, per_second)


def seconds_in(text: str) -> float | None:
    """Seconds of a duration (`6m0s`, `120ms`, `1.5`) or until a time (RFC 3339)."""
    parts = DURATION.findall(text)
    if parts and DURATION.sub("", text).strip() == "":
        return sum(float(amount) * SECONDS[unit] for amount, unit in parts)
    try:
        return float(text)
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return max(0.0, ((time if time.tzinfo else time.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
