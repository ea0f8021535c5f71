"""Whether a provider is there. Where it isn't, one request at a time finds out when it's back, and rows wait.

A circuit breaker, for rows that must not be lost: while it is open, no try counts against the retries of any request.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field

from llms.errors import ConnectionFailedError, LLMError, ProviderAwayError

logger = logging.getLogger(__name__)

OUTAGE_TIMEOUT = 3600.0
ROWS_OF_AN_OUTAGE = 5
"""So many different requests that fail, with no answer between, are the provider's failure and not theirs."""
FIRST_PROBE, LONGEST_PROBE = 0.5, 30.0
LONGEST_PAUSE = 300.0
SECONDS_BEFORE_A_WORD = 5.0


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
class Circuit:
    """Whether requests can succeed at a provider. Times are those of the event loop's clock."""

    name: str
    """The provider's, as messages have it."""
    timeout: float = OUTAGE_TIMEOUT
    """Seconds that a provider which is away is waited for. 0: not at all, beyond the retries of each request."""
    reached: bool = False
    """Whether the provider ever answered: one that never did isn't waited for as long."""
    answered: int = 0
    """The number of the latest request that was answered."""
    breaks: int = 0
    """How often the circuit broke."""
    broken_by: LLMError | None = None
    outage: Outage | None = None
    _refused_since: int = -1
    """The number of the latest request when it began to refuse all that is new to it."""
    _refused: set[int] = field(default_factory=set[int])
    """The requests that it refused since then."""

    @property
    def refuses_all(self) -> bool:
        """Whether all that was answered since it began to refuse was sent before."""
        return self.answered <= self._refused_since

    @property
    def is_open(self) -> bool:
        """Whether the provider is taken to be away."""
        return self.outage is not None and self.outage.is_certain

    @property
    def is_undecided(self) -> bool:
        """Whether some of those that may show that the provider is there are still under way."""
        return self.outage is not None and not self.outage.is_certain and self.outage.left > 0

    @property
    def trouble(self) -> str:
        """Why requests wait, where the provider is taken to be away; empty elsewhere. From any thread."""
        outage = self.outage
        if outage is None or not outage.is_certain:
            return ""
        return f"{self.name} hasn't answered for {time.monotonic() - outage.began:.0f} s ({outage.reason})"

    def wait(self, now: float) -> float:
        """Seconds until a request may be sent: 0 at once, infinite where the one that finds out is under way."""
        outage = self.outage
        if outage is None or not outage.is_certain:
            return 0.0
        return math.inf if outage.probing is not None else max(0.0, outage.next_probe - now)

    def sent(self, number: int) -> None:
        """A request goes out. In an outage it is the one that finds out."""
        if self.outage is not None and self.outage.is_certain:
            self.outage.probing = number

    def answers(self, number: int) -> None:
        """A request was answered, be it with a no."""
        self.answered = max(self.answered, number)

    def heard(self, now: float) -> bool:
        """The provider answered, be it with a no. Returns whether that ends an outage."""
        self.reached = True
        outage, self.outage = self.outage, None
        if outage is None or not outage.is_certain:
            return False
        if outage.told:
            logger.warning("%s answers again, after %.0f s", self.name, now - outage.began)
        return True

    def missed(self, number: int, row: int, failure: LLMError, now: float, *, latest: int, in_flight: int) -> None:
        """A request got no answer, and might at another time.

        Args:
            number: the request's.
            row: what tells requests from repetitions of one.
            failure: why.
            now: the loop's clock.
            latest: the number of the latest request.
            in_flight: how many are under way, this one included.
        """
        if not self.refuses_all:
            self._refused_since, self._refused = latest, set()
        if failure.unavailable:
            self._refused.add(row)
        outage = self.outage = self.outage or Outage(now, latest, in_flight, failed=set(self._refused))
        was_certain, was_probe = outage.is_certain, outage.probing == number
        outage.failed.add(row)
        outage.reason = f"{type(failure).__name__}: {failure}"
        # No row is to blame for an address that can't be reached.
        outage.unreachable = outage.unreachable or isinstance(failure, ConnectionFailedError)
        if outage.is_certain and (was_probe or not was_certain):
            wait = min(LONGEST_PROBE, FIRST_PROBE * 2**outage.probes)
            outage.next_probe = now + max(wait, min(failure.retry_after or 0.0, LONGEST_PAUSE))
            outage.probes += 1

    def returned(self, number: int) -> None:
        """A request is back, whatever came of it."""
        outage = self.outage
        if outage is not None:
            outage.left -= number <= outage.ends
            if outage.probing == number:
                outage.probing = None

    def break_with(self, error: LLMError) -> None:
        """Nothing can succeed for now."""
        self.breaks += 1
        self.broken_by = error
        self.outage = None

    def check_patience(self, failure: LLMError, now: float) -> None:
        """Say once that the provider is away. Raises ProviderAwayError where it's away for too long."""
        outage = self.outage
        if outage is None or not outage.is_certain:
            return
        seconds = now - outage.began
        if seconds >= self.timeout:
            raise ProviderAwayError(
                f"{self.name} hasn't answered for {seconds:.0f} s ({type(failure).__name__}: {failure})."
                " What was answered is kept: retry the run when it's back, or give it more time (outage_timeout)"
            )
        if not outage.told and seconds >= SECONDS_BEFORE_A_WORD:
            outage.told = True
            logger.warning(
                "%s doesn't answer (%s: %s): requests wait for up to %.0f s, and one at a time finds out whether it's"
                " back",
                self.name,
                type(failure).__name__,
                failure,
                self.timeout,
            )
