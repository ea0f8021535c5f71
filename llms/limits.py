"""How many requests are under way at a provider, how fast they follow each other, and when one is sent again.

One `Limiter` per provider, address and model serves all steps of a process. Three things hold a request back:

- **How many are under way.** It starts with `FIRST_ALLOWED`, doubles while all goes well, and stops at the ceiling. A
  refusal opens an episode, which ends when the requests that were under way are back. What was let through in it then
  decides: the most that the provider took at a time; where it took more beside a request than it had refused, the
  refusals have another reason, and the number stays; where it took less than half, half.
- **How fast they follow.** Requests and tokens per minute, as set or as the provider's headers tell.
- **Whether the provider is there.** When requests of several rows fail one after the other, one request at a time finds
  out whether it's back. Rows wait that long, and lose none of their retries.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakKeyDictionary

from llms.errors import (
    ConnectionFailedError,
    LLMError,
    OverloadedError,
    ProviderAwayError,
    RateLimitError,
    RequestTimeoutError,
)
from llms.loop import request_loop
from llms.rates import Budget, Rate, Unit

T = TypeVar("T")

logger = logging.getLogger(__name__)

FIRST_ALLOWED = 50
FLOOR = 1.0
SLOWEST_PROBING = 16.0
MOST_AT_RANDOM = 0.25
"""The share of refusals above which they can't be by chance."""
FIRST_DELAY, DELAY_GROWTH = 0.1, 2.5
LONGEST_DELAY = 30.0
LONGEST_PAUSE = 300.0
RETRIES_BEFORE_FIRST_CONTACT = 3
ROWS_OF_AN_OUTAGE = 5
"""So many different requests that fail, with no answer between, are the provider's failure and not theirs."""
FIRST_PROBE, LONGEST_PROBE = 0.5, 30.0
OUTAGE_TIMEOUT = 3600.0
AFTER_AN_OUTAGE = 8.0
"""How many requests a provider that is back gets at first."""
SECONDS_BEFORE_A_WORD = 5.0


@dataclass(slots=True)
class Ticket:
    """The place of one request."""

    number: int
    level: int
    """How many were under way with it."""
    tokens: float
    tokens_before: float


@dataclass
class Episode:
    """From a refusal until the requests that were under way then are back."""

    ends: int
    """The number of the last of them."""
    left: int
    allowed: float
    """Before it."""
    taken: list[int] = field(default_factory=list[int])
    """The levels of the requests that were answered."""
    refused: list[int] = field(default_factory=list[int])
    retry_after: float = 0.0
    refusals: int = 0
    """Those of later requests included."""


@dataclass
class Outage:
    """A time without any answer."""

    began: float
    ends: int
    """The number of the last request that was under way when it began."""
    left: int
    """How many of those are."""
    failed: set[int] = field(default_factory=set[int])
    """The requests that failed in it."""
    probes: int = 0
    next_probe: float = 0.0
    probing: int | None = None
    """The number of the request that finds out whether the provider is back."""
    unreachable: bool = False
    told: bool = False
    reason: str = ""
    """The latest failure."""

    @property
    def is_certain(self) -> bool:
        return self.unreachable or (self.left <= 0 and len(self.failed) >= ROWS_OF_AN_OUTAGE)


@dataclass
class Limiter:
    """Lets requests through to one provider and model, and learns from what comes back. Lives on one event loop."""

    ceiling: int
    name: str = "the provider"
    """As messages have it."""
    allowed: float = 0.0
    """How many may be under way; at most the ceiling, and at most what is leased."""
    leased: float | None = None
    """What other processes leave of a limit that is shared with them."""
    when_short: Callable[[], None] | None = None
    """Called where a request has to wait for more to be leased."""
    in_flight: int = 0
    refusals: int = 0
    sent: int = 0
    reached: bool = False
    """Whether the provider ever answered: one that never did isn't waited for as long."""
    outage_timeout: float = OUTAGE_TIMEOUT
    """Seconds that a provider which is away is waited for. 0: not at all, beyond the retries of each request."""
    breaks: int = 0
    """How often the circuit broke."""
    broken_by: LLMError | None = None
    budgets: dict[Unit, Budget] = field(default_factory=dict[Unit, Budget])
    outage: Outage | None = None
    _own_budgets: frozenset[Unit] = frozenset()
    _at_random: bool = False
    """Whether the latest refusals had another cause than how many requests were under way."""
    _growing: bool = True
    _probing: float = 1.0
    """How much slower than at first it finds out whether the provider takes one more."""
    _episode: Episode | None = None
    _tokens_sent: float = 0.0
    _told: int = 0
    """The number of the latest request whose headers were heard."""
    _paused_until: float = 0.0
    _timer: asyncio.TimerHandle | None = None
    _waiting: deque[tuple[asyncio.Future[Ticket], float]] = field(
        default_factory=deque[tuple[asyncio.Future[Ticket], float]]
    )

    def __post_init__(self) -> None:
        self.allowed = float(min(self.ceiling, FIRST_ALLOWED))

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return len(self._waiting)

    def set_rates(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """Keep to these rates, whatever the provider says of its own."""
        given: Mapping[Unit, float | None] = {"requests": requests_per_minute, "tokens": tokens_per_minute}
        self._own_budgets = frozenset(unit for unit, amount in given.items() if amount)
        now = _now()
        self.budgets.update({unit: Budget.per_minute(amount, now) for unit, amount in given.items() if amount})

    async def acquire(self, tokens: float = 0.0) -> Ticket:
        """Wait for a place.

        Args:
            tokens: about how many the request will cost.

        Raises:
            LLMError: the circuit broke meanwhile.
        """
        if not self._waiting and self._wait() == 0.0 and self._affordable(tokens) == 0.0:
            return self._enter(tokens)
        place: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        self._waiting.append((place, tokens))
        self._let_in()
        if self.when_short is not None and self.leased is not None and self.in_flight >= self.leased:
            self.when_short()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.failed(place.result())
            raise

    def learn(self, ticket: Ticket, rates: Mapping[Unit, Rate]) -> None:
        """What the headers of the answer to a request say."""
        if ticket.number < self._told:
            return
        self._told = ticket.number
        since: Mapping[Unit, float] = {
            "requests": self.sent - ticket.number,
            "tokens": self._tokens_sent - ticket.tokens_before - ticket.tokens,
        }
        now = _now()
        for unit, rate in rates.items():
            if unit not in self._own_budgets:
                budget = self.budgets.setdefault(unit, Budget(rate.per_second, rate.limit, rate.limit, now))
                budget.learn(rate, since[unit], now)

    def succeeded(self, ticket: Ticket) -> None:
        """The provider answered: a place is free, and perhaps there's room for more."""
        if self.outage is not None or not self.reached:
            self.heard()
        episode = self._episode
        if episode is None:
            if self.allowed < self.ceiling and (self._waiting or self.in_flight >= int(self.allowed)):
                step = 1.0 if self._growing else 1 / (self.allowed * self._probing)
                self.allowed = min(float(self.ceiling), self.allowed + step)
        elif ticket.number <= episode.ends:
            episode.taken.append(ticket.level)
        self._leave(ticket)

    def refused(self, ticket: Ticket, retry_after: float | None = None) -> None:
        """The provider refused a request for its rate or load."""
        self.refusals += 1
        self.reached = True
        if self._episode is None:
            self._episode = Episode(ends=self.sent, left=self.in_flight, allowed=self.allowed)
        episode = self._episode
        episode.refusals += 1
        if ticket.number <= episode.ends:
            episode.refused.append(ticket.level)
            episode.retry_after = max(episode.retry_after, retry_after or 0.0)
        if episode.refusals > max(1.0, MOST_AT_RANDOM * episode.allowed):
            self._at_random = False
        if not self._at_random:
            # Its place isn't given to another one before the episode ends: that would be refused as well.
            self.allowed = max(FLOOR, min(self.allowed, self.in_flight - 1))
        self._leave(ticket)

    def failed(self, ticket: Ticket) -> None:
        """The request ended in another way."""
        self._leave(ticket)

    def missed(self, ticket: Ticket, row: int, failure: LLMError) -> None:
        """A request got no answer, and might at another time. To be told before `refused` or `failed`.

        Args:
            ticket: its place.
            row: what tells requests from repetitions of one.
            failure: why.
        """
        now = _now()
        outage = self.outage = self.outage or Outage(began=now, ends=self.sent, left=self.in_flight)
        was_certain, was_probe = outage.is_certain, outage.probing == ticket.number
        outage.failed.add(row)
        outage.reason = f"{type(failure).__name__}: {failure}"
        # No row is to blame for an address that can't be reached.
        outage.unreachable = outage.unreachable or isinstance(failure, ConnectionFailedError)
        if outage.is_certain and (was_probe or not was_certain):
            wait = min(LONGEST_PROBE, FIRST_PROBE * 2**outage.probes)
            outage.next_probe = now + max(wait, min(failure.retry_after or 0.0, LONGEST_PAUSE))
            outage.probes += 1

    def heard(self) -> None:
        """The provider answered, be it with a no: an outage is over."""
        self.reached = True
        outage, self.outage = self.outage, None
        if outage is not None and outage.is_certain:
            self.allowed = min(self.allowed, AFTER_AN_OUTAGE)
            self._growing, self._probing = True, 1.0
            if outage.told:
                logger.warning("%s answers again, after %.0f s", self.name, _now() - outage.began)

    @property
    def is_out(self) -> bool:
        """Whether the provider is taken to be away."""
        return self.outage is not None and self.outage.is_certain

    @property
    def out_for(self) -> float:
        """Seconds since its last answer, where it is taken to be away."""
        return _now() - self.outage.began if self.outage is not None and self.outage.is_certain else 0.0

    @property
    def trouble(self) -> str:
        """Why requests wait, where the provider is taken to be away; empty elsewhere. From any thread."""
        outage = self.outage
        if outage is None or not outage.is_certain:
            return ""
        return f"{self.name} hasn't answered for {time.monotonic() - outage.began:.0f} s ({outage.reason})"

    def break_circuit(self, error: LLMError) -> None:
        """Nothing can succeed for now: every request that waits or is to be sent again fails with `error`."""
        self.breaks += 1
        self.broken_by = error
        self.outage = None
        while self._waiting:
            place, _ = self._waiting.popleft()
            if not place.done():
                place.set_exception(error)

    def lease(self, places: float | None) -> None:
        """Keep to `places` of a limit shared with other processes; None: to one's own ceiling alone."""
        self.leased = places
        self._let_in()

    def _most(self) -> int:
        return int(self.allowed) if self.leased is None else int(min(self.allowed, self.leased))

    def _wait(self) -> float:
        """Seconds until a place may be free: 0 when one is, infinite when only an answer can free one."""
        if self.in_flight >= self._most():
            return float("inf")
        now = _now()
        if self.outage is not None and self.outage.is_certain:
            return float("inf") if self.outage.probing is not None else max(0.0, self.outage.next_probe - now)
        return max(0.0, self._paused_until - now)

    def _affordable(self, tokens: float) -> float:
        """Seconds until a request of so many tokens is within the rates."""
        if not self.budgets:
            return 0.0
        now = _now()
        costs: Mapping[Unit, float] = {"requests": 1.0, "tokens": tokens}
        return max(budget.wait_for(costs[unit], now) for unit, budget in self.budgets.items())

    def _enter(self, tokens: float) -> Ticket:
        self.in_flight += 1
        self.sent += 1
        ticket = Ticket(self.sent, self.in_flight, tokens, self._tokens_sent)
        self._tokens_sent += tokens
        if self.budgets:
            now = _now()
            costs: Mapping[Unit, float] = {"requests": 1.0, "tokens": tokens}
            for unit, budget in self.budgets.items():
                budget.take(costs[unit], now)
        if self.outage is not None and self.outage.is_certain:
            self.outage.probing = ticket.number
        return ticket

    def _leave(self, ticket: Ticket) -> None:
        self.in_flight -= 1
        episode = self._episode
        if episode is not None and ticket.number <= episode.ends:
            episode.left -= 1
            if episode.left <= 0:
                self._end_episode(episode)
        outage = self.outage
        if outage is not None:
            outage.left -= ticket.number <= outage.ends
            if outage.probing == ticket.number:
                outage.probing = None
        if self._waiting:
            self._let_in()

    def _let_in(self) -> None:
        """Give places to those that wait, in their order."""
        while self._waiting:
            place, tokens = self._waiting[0]
            if place.done():
                self._waiting.popleft()
                continue
            wait = max(self._wait(), self._affordable(tokens))
            if wait > 0:
                if wait != float("inf"):
                    self._wake_at(_now() + wait)
                return
            self._waiting.popleft()
            place.set_result(self._enter(tokens))

    def _wake_at(self, time: float) -> None:
        """Look again then, if not before."""
        if self._timer is not None:
            if self._timer.when() <= time:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(time, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._let_in()

    def _end_episode(self, episode: Episode) -> None:
        """Judge how many at a time the provider takes, from what it took in the episode."""
        self._episode = None
        taken, refused = episode.taken, episode.refused
        self._at_random = episode.refusals <= MOST_AT_RANDOM * len(taken) and _have_another_cause(taken, refused)
        if len(taken) < len(refused):
            # Not for how many were under way: for how fast they came, or for its own load.
            self.allowed = max(FLOOR, min(episode.allowed / 2, max(len(taken), 1.0)))
            self._growing, self._probing = False, 1.0
            self._pause(episode.retry_after)
        elif self._at_random:
            self.allowed = episode.allowed
        else:
            self.allowed = max(FLOOR, float(max(taken)))
            self._probing = 1.0 if self._growing else min(SLOWEST_PROBING, 2 * self._probing)
            self._growing = False
        if self.allowed < episode.allowed:
            logger.info("%s refused %d requests: now %d at a time", self.name, len(refused), int(self.allowed))

    def _pause(self, seconds: float) -> None:
        if seconds > 0:
            self._paused_until = max(self._paused_until, _now() + min(seconds, LONGEST_PAUSE))
            self._wake_at(self._paused_until)


def _have_another_cause(taken: list[int], refused: list[int]) -> bool:
    """Whether refusals have another cause than how many were under way: beside as many, far more were taken."""
    middle = sorted(refused)[len(refused) // 2]
    return sum(level >= middle for level in taken) > 2 * len(refused) + 1


def _now() -> float:
    return asyncio.get_running_loop().time()


_limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, Limiter]] = WeakKeyDictionary()


def limiter_for(key: Hashable, ceiling: int, make: Callable[[], Limiter] | None = None) -> Limiter:
    """The process's limiter for `key` and the running loop; made by `make` at the first call."""
    of_loop = _limiters.setdefault(asyncio.get_running_loop(), {})
    limiter = of_loop.get((key, ceiling))
    if limiter is None:
        limiter = of_loop[(key, ceiling)] = make() if make is not None else Limiter(ceiling)
    return limiter


def known_limiter(key: Hashable, ceiling: int) -> Limiter | None:
    """The limiter for `key` of the process's request loop, from any thread; None where nothing was sent yet."""
    return _limiters.get(request_loop(), {}).get((key, ceiling))


_sending: ContextVar[tuple[Limiter, Ticket] | None] = ContextVar("sending", default=None)


def hear(rates: Mapping[Unit, Rate]) -> None:
    """Tell the limiter of the request that this code sends what the answer's headers said."""
    sending = _sending.get()
    if sending is not None and rates:
        sending[0].learn(sending[1], rates)


async def send(request: Callable[[], Awaitable[T]], limiter: Limiter, max_retries: int, tokens: float = 0.0) -> T:
    """Send a request, again and again while it fails in a way that may pass.

    Args:
        request: sends it once.
        limiter: of the provider.
        max_retries: how often it's sent again. While the provider is away for everybody, tries don't count.
        tokens: about how many it costs.

    Raises:
        LLMError: the last failure, when it is final or `max_retries` are spent.
    """
    retries, breaks, row = 0, limiter.breaks, 0
    while True:
        if limiter.breaks > breaks and limiter.broken_by is not None:
            raise limiter.broken_by
        ticket = await limiter.acquire(tokens)
        row = row or ticket.number
        _sending.set((limiter, ticket))
        try:
            answer = await request()
        except LLMError as error:
            failure = error
        except BaseException:
            limiter.failed(ticket)
            raise
        else:
            limiter.succeeded(ticket)
            return answer
        last = is_last(failure, retries, limiter, max_retries)
        _tell(failure, limiter, ticket, row, last=last)
        if failure.retryable and limiter.is_out:
            _check_patience(failure, limiter)
            continue
        if last:
            raise failure
        wait = delay(retries, failure.retry_after)
        logger.debug("%s: %s; again in %.1f s", type(failure).__name__, failure, wait)
        await asyncio.sleep(wait)
        retries += 1


def _tell(failure: LLMError, limiter: Limiter, ticket: Ticket, row: int, *, last: bool) -> None:
    """Tell the limiter how a request failed, and give its place back."""
    refused = isinstance(failure, RateLimitError | OverloadedError)
    if not failure.retryable:
        limiter.heard()
    elif limiter.outage_timeout and (
        refused or (limiter.reached and isinstance(failure, ConnectionFailedError | RequestTimeoutError))
    ):
        limiter.missed(ticket, row, failure)
    if last and failure.fatal and not (failure.retryable and limiter.is_out):
        limiter.break_circuit(failure)
    if refused:
        limiter.refused(ticket, failure.retry_after)
    else:
        limiter.failed(ticket)


def _check_patience(failure: LLMError, limiter: Limiter) -> None:
    """Say once that the provider is away. Raises ProviderAwayError where it's away for too long."""
    outage = limiter.outage
    if outage is None:
        return
    if limiter.out_for >= limiter.outage_timeout:
        gone = ProviderAwayError(
            f"{limiter.name} hasn't answered for {limiter.out_for:.0f} s ({type(failure).__name__}: {failure})."
            " What was answered is kept: retry the run when it's back, or give it more time (outage_timeout)"
        )
        limiter.break_circuit(gone)
        raise gone
    if not outage.told and limiter.out_for >= SECONDS_BEFORE_A_WORD:
        outage.told = True
        logger.warning(
            "%s doesn't answer (%s: %s): requests wait for up to %.0f s, and one at a time finds out whether it's back",
            limiter.name,
            type(failure).__name__,
            failure,
            limiter.outage_timeout,
        )


def is_last(failure: LLMError, retries: int, limiter: Limiter, max_retries: int) -> bool:
    """Whether a request that failed, after so many retries, isn't sent again."""
    return not failure.retryable or retries >= allowed_retries(failure, limiter, max_retries)


def allowed_retries(failure: LLMError, limiter: Limiter, max_retries: int) -> int:
    if isinstance(failure, ConnectionFailedError) and not limiter.reached:
        return min(max_retries, RETRIES_BEFORE_FIRST_CONTACT)
    return max_retries


def delay(retries: int, retry_after: float | None) -> float:
    """Seconds to wait before the next try: what the provider asked for, or longer each time."""
    if retry_after is not None:
        return min(retry_after, LONGEST_PAUSE) + random.uniform(0, 0.1)
    return min(LONGEST_DELAY, FIRST_DELAY * DELAY_GROWTH**retries) * random.uniform(0.5, 1.0)
