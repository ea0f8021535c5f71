"""How many requests are under way at a provider, and when a failed one is sent again.

One `Limiter` per provider, address and model serves all steps of a process. It starts below its
ceiling, doubles while all goes well, and takes a cut when the provider refuses: once per episode,
that is until the requests that were under way at the cut are back.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakKeyDictionary

from llms.errors import ConnectionFailedError, LLMError, OverloadedError, RateLimitError

T = TypeVar("T")

logger = logging.getLogger(__name__)

FIRST_ALLOWED = 32
FLOOR = 1.0
CUT = 0.7
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
RETRIES_BEFORE_FIRST_CONTACT = 3


@dataclass
class Limiter:
    """Lets at most `allowed` requests through at a time, and learns from refusals. Lives on one event loop."""

    ceiling: int
    allowed: float = 0.0
    in_flight: int = 0
    refusals: int = 0
    sent: int = 0
    reached: bool = False
    """Whether the provider ever answered: one that never did isn't waited for as long."""
    _growing: bool = True
    _episode_ends: int = 0
    breaks: int = 0
    """How often the circuit broke."""
    broken_by: LLMError | None = None
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque[asyncio.Future[None]])

    def __post_init__(self) -> None:
        self.allowed = float(min(self.ceiling, FIRST_ALLOWED))

    async def acquire(self) -> int:
        """Wait for a place. Returns the number of the request, for `refused`.

        Raises:
            LLMError: the circuit broke meanwhile.
        """
        if self.in_flight >= int(self.allowed) or self._waiting:
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled() and place.exception() is None:
                    self._leave()
                raise
        else:
            self.in_flight += 1
        self.sent += 1
        return self.sent

    def succeeded(self) -> None:
        """The provider answered: a place is free, and perhaps there's room for more."""
        self.reached = True
        if self.allowed < self.ceiling:
            self.allowed = min(self.ceiling, self.allowed + (1 if self._growing else 1 / self.allowed))
        self._leave()

    def refused(self, number: int) -> None:
        """The provider refused request `number` for its rate or load."""
        self.refusals += 1
        self.reached = True
        if number > self._episode_ends:
            self.allowed = max(FLOOR, min(self.allowed, self.in_flight) * CUT)
            self._growing = False
            self._episode_ends = self.sent
            logger.info("refused by the provider: now %d requests at a time", int(self.allowed))
        self._leave()

    def failed(self) -> None:
        """The request failed for another reason."""
        self._leave()

    def break_circuit(self, error: LLMError) -> None:
        """Nothing can succeed for now: every request that waits or is to be sent again fails with `error`."""
        self.breaks += 1
        self.broken_by = error
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(error)

    def _leave(self) -> None:
        self.in_flight -= 1
        while self._waiting and self.in_flight < int(self.allowed):
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)


_limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, Limiter]] = WeakKeyDictionary()


def limiter_for(key: Hashable, ceiling: int) -> Limiter:
    """The process's limiter for `key` and the running loop."""
    of_loop = _limiters.setdefault(asyncio.get_running_loop(), {})
    return of_loop.setdefault((key, ceiling), Limiter(ceiling))


async def send(request: Callable[[], Awaitable[T]], limiter: Limiter, max_retries: int) -> T:
    """Send a request, again and again while it fails in a way that may pass.

    Raises:
        LLMError: the last failure, when it is final or `max_retries` are spent.
    """
    retries, breaks = 0, limiter.breaks
    while True:
        if limiter.breaks > breaks and limiter.broken_by is not None:
            raise limiter.broken_by
        number = await limiter.acquire()
        try:
            answer = await request()
        except (RateLimitError, OverloadedError) as error:
            limiter.refused(number)
            failure: LLMError = error
        except LLMError as error:
            if error.fatal and is_last(error, retries, limiter, max_retries):
                limiter.break_circuit(error)
            limiter.failed()
            failure = error
        except BaseException:
            limiter.failed()
            raise
        else:
            limiter.succeeded()
            return answer
        if is_last(failure, retries, limiter, max_retries):
            raise failure
        wait = delay(retries, failure.retry_after)
        logger.debug("%s: %s; again in %.1f s", type(failure).__name__, failure, wait)
        await asyncio.sleep(wait)
        retries += 1


def is_last(failure: LLMError, retries: int, limiter: Limiter, max_retries: int) -> bool:
    """Whether a request that failed, after so many retries, isn't sent again."""
    return not failure.retryable or retries >= allowed_retries(failure, limiter, max_retries)


def allowed_retries(failure: LLMError, limiter: Limiter, max_retries: int) -> int:
    if isinstance(failure, ConnectionFailedError) and not limiter.reached:
        return min(max_retries, RETRIES_BEFORE_FIRST_CONTACT)
    return max_retries


def delay(retries: int, retry_after: float | None) -> float:
    """Seconds to wait before the next try: what the provider asked for, or twice as long each time."""
    if retry_after is not None:
        return min(retry_after, 10 * LONGEST_DELAY) + random.uniform(0, 0.1)
    return min(LONGEST_DELAY, FIRST_DELAY * 2**retries) * random.uniform(0.5, 1.0)
