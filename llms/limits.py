"""When a request is sent to a provider, and when it is sent again.

One `Limiter` per provider, address and model serves all steps of a process. Three things hold a request back, each with
a file of its own: how many are under way (`llms.concurrency`), how fast they follow each other (`llms.rates`), and
whether the provider is there (`llms.outages`). The limiter keeps the queue before the three, and tells them what came
of each.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

from llms.concurrency import Concurrency
from llms.errors import (
    ConnectionFailedError,
    LLMError,
    OverloadedError,
    ProviderAwayError,
    RateLimitError,
    RequestTimeoutError,
)
from llms.loop import request_loop
from llms.outages import LONGEST_PAUSE, OUTAGE_TIMEOUT, Circuit
from llms.quantities import quantity
from llms.rates import Pace, Rate, Unit

T = TypeVar("T")

logger = logging.getLogger(__name__)

FIRST_DELAY, DELAY_GROWTH = 0.1, 2.5
LONGEST_DELAY = 30.0
RETRIES_BEFORE_FIRST_CONTACT = 3
RETRIES_OF_PAID = 1
"""Of an answer that can't be used: each costs what the first one did."""


@dataclass(slots=True)
class Ticket:
    """The place of one request."""

    number: int
    level: int
    """How many were under way with it."""
    tokens: float
    tokens_before: float


class Limiter:
    """Lets requests through to one provider and model, and learns from what comes back. Lives on one event loop.

    Args:
        ceiling: how many requests may be under way at the most.
        name: the provider's, as messages have it.
        outage_timeout: seconds that a provider which is away is waited for. 0: not at all, beyond the retries of each
            request.
    """

    def __init__(self, ceiling: int, *, name: str = "the provider", outage_timeout: float = OUTAGE_TIMEOUT) -> None:
        self.name = name
        self.concurrency = Concurrency(ceiling)
        self.pace = Pace()
        self.circuit = Circuit(name, outage_timeout)
        self.leased: float | None = None
        """What other processes leave of a limit that is shared with them."""
        self.when_short: Callable[[], None] | None = None
        """Called where a request has to wait for more to be leased."""
        self.in_flight = self.sent = self.refusals = 0
        self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[asyncio.Future[Ticket], float]] = deque()

    @property
    def ceiling(self) -> int:
        return self.concurrency.ceiling

    @property
    def allowed(self) -> float:
        """How many may be under way; at most the ceiling, and at most what is leased."""
        return self.concurrency.allowed

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return len(self._waiting)

    @property
    def counts_tokens(self) -> bool:
        """Whether `acquire` has to know about how many tokens a request costs."""
        return "tokens" in self.pace.budgets

    def set_rates(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """Keep to these rates, whatever the provider says of its own."""
        self.pace.set(requests_per_minute, tokens_per_minute, _now())

    def lease(self, places: float | None) -> None:
        """Keep to `places` of a limit shared with other processes; None: to one's own ceiling alone."""
        self.leased = places
        self._let_in()

    async def acquire(self, tokens: float = 0.0) -> Ticket:
        """Wait for a place.

        Args:
            tokens: about how many the request will cost.

        Raises:
            LLMError: the circuit broke meanwhile.
        """
        if not self._waiting and self._wait(tokens) == 0.0:
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
        since: Mapping[Unit, float] = {
            "requests": self.sent - ticket.number,
            "tokens": self.pace.tokens_sent - ticket.tokens_before - ticket.tokens,
        }
        self.pace.learn(ticket.number, rates, since, _now())

    def succeeded(self, ticket: Ticket) -> None:
        """The provider answered: a place is free, and perhaps there's room for more."""
        self.circuit.answers(ticket.number)
        if self.circuit.outage is not None or not self.circuit.reached:
            self.heard()
        wanted = bool(self._waiting) or self.in_flight >= int(self.allowed)
        self.concurrency.answered(ticket.number, ticket.level, wanted=wanted)
        self._leave(ticket)

    def refused(self, ticket: Ticket, retry_after: float | None = None) -> None:
        """The provider refused a request for its rate or load."""
        self.refusals += 1
        self.circuit.reached = True
        self.concurrency.refused(
            ticket.number, ticket.level, retry_after or 0.0, latest=self.sent, in_flight=self.in_flight
        )
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
        self.circuit.missed(ticket.number, row, failure, _now(), latest=self.sent, in_flight=self.in_flight)

    def heard(self) -> None:
        """The provider answered, be it with a no: an outage is over."""
        if self.circuit.heard(_now()):
            self.concurrency.start_small()

    def meet(self) -> None:
        """A request is new here. Where all that waited for an outage to end are gone, it isn't to sit that out."""
        if not self.in_flight and all(place.done() for place, _ in self._waiting):
            self._forget_outage()

    def break_circuit(self, error: LLMError) -> None:
        """Nothing can succeed for now: every request that waits or is to be sent again fails with `error`."""
        self._forget_outage()
        self.circuit.break_with(error)
        while self._waiting:
            place, _ = self._waiting.popleft()
            if not place.done():
                place.set_exception(error)

    def check_patience(self, failure: LLMError) -> None:
        """Say once that the provider is away. Raises ProviderAwayError, also in all that wait, after too long."""
        try:
            self.circuit.check_patience(failure, _now())
        except ProviderAwayError as gone:
            self.break_circuit(gone)
            raise

    def _forget_outage(self) -> None:
        """Whoever comes next finds out at once whether the provider is back."""
        if self.circuit.is_open:
            self.circuit.outage = None
            self.concurrency.start_small()
            self._paused_until = 0.0

    def _wait(self, tokens: float) -> float:
        """Seconds until a request of so many tokens may go out: 0 now, infinite when only an answer can let it."""
        most = self.allowed if self.leased is None else min(self.allowed, self.leased)
        if self.in_flight >= int(most):
            return math.inf
        now = _now()
        away = self.circuit.wait(now) if self.circuit.outage is not None else 0.0
        pace = self.pace.wait_for(tokens, now) if self.pace.budgets else 0.0
        return max(away, self._paused_until - now, pace, 0.0)

    def _enter(self, tokens: float) -> Ticket:
        self.in_flight += 1
        self.sent += 1
        ticket = Ticket(self.sent, self.in_flight, tokens, self.pace.tokens_sent)
        self.pace.take(tokens, _now())
        self.circuit.sent(ticket.number)
        return ticket

    def _leave(self, ticket: Ticket) -> None:
        self.in_flight -= 1
        self.circuit.returned(ticket.number)
        judgement = self.concurrency.returned(ticket.number)
        if judgement is not None:
            if judgement.is_fewer:
                logger.info(
                    "%s refused %s: now %d at a time",
                    self.name,
                    quantity(judgement.refusals, "request"),
                    int(self.allowed),
                )
            if judgement.pause:
                self._paused_until = max(self._paused_until, _now() + min(judgement.pause, LONGEST_PAUSE))
                self._wake_at(self._paused_until)
        if self._waiting:
            self._let_in()

    def _let_in(self) -> None:
        """Give places to those that wait, in their order."""
        while self._waiting:
            place, tokens = self._waiting[0]
            if place.done():
                self._waiting.popleft()
                continue
            wait = self._wait(tokens)
            if wait > 0:
                if wait != math.inf:
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
        max_retries: how often it's sent again. While the provider is away for everybody, or may be since it only
            answers what was sent before, tries don't count.
        tokens: about how many it costs.

    Raises:
        LLMError: the last failure, when it is final or `max_retries` are spent.
    """
    circuit = limiter.circuit
    retries, doubts, breaks, row = 0, 0, circuit.breaks, 0
    limiter.meet()
    while True:
        if circuit.breaks > breaks and circuit.broken_by is not None:
            raise circuit.broken_by
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
        refused_as_all = failure.unavailable and circuit.refuses_all
        _tell(failure, limiter, ticket, row, last=last)
        if failure.retryable and circuit.is_open:
            limiter.check_patience(failure)
            continue
        if last and not (refused_as_all and circuit.is_undecided):
            raise failure
        wait = delay(retries + doubts, failure.retry_after)
        logger.debug("%s: %s; again in %.1f s", type(failure).__name__, failure, wait)
        await asyncio.sleep(wait)
        retries, doubts = retries + (not last), doubts + last


def _tell(failure: LLMError, limiter: Limiter, ticket: Ticket, row: int, *, last: bool) -> None:
    """Tell the limiter how a request failed, and give its place back."""
    circuit, refused = limiter.circuit, isinstance(failure, RateLimitError | OverloadedError)
    if not failure.retryable:
        circuit.answers(ticket.number)
        limiter.heard()
    elif circuit.timeout and (
        refused or (circuit.reached and isinstance(failure, ConnectionFailedError | RequestTimeoutError))
    ):
        limiter.missed(ticket, row, failure)
    if last and failure.fatal and not (failure.retryable and circuit.is_open):
        limiter.break_circuit(failure)
    if refused:
        limiter.refused(ticket, failure.retry_after)
    else:
        limiter.failed(ticket)


def is_last(failure: LLMError, retries: int, limiter: Limiter, max_retries: int) -> bool:
    """Whether a request that failed, after so many retries, isn't sent again."""
    return not failure.retryable or retries >= allowed_retries(failure, limiter, max_retries)


def allowed_retries(failure: LLMError, limiter: Limiter, max_retries: int) -> int:
    if failure.paid:
        return min(max_retries, RETRIES_OF_PAID)
    if isinstance(failure, ConnectionFailedError) and not limiter.circuit.reached:
        return min(max_retries, RETRIES_BEFORE_FIRST_CONTACT)
    return max_retries


def delay(retries: int, retry_after: float | None) -> float:
    """Seconds to wait before the next try: what the provider asked for, or longer each time."""
    if retry_after is not None:
        return min(retry_after, LONGEST_PAUSE) + random.uniform(0, 0.1)
    return min(LONGEST_DELAY, FIRST_DELAY * DELAY_GROWTH**retries) * random.uniform(0.5, 1.0)
