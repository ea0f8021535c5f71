"""How many requests may be under way at a provider, learned from those that it takes and those that it refuses.

The number starts with `FIRST_ALLOWED`, doubles while all goes well, and stops at the ceiling. A refusal opens an
episode, which ends when the requests that were under way are back. What was let through in it then decides: the most
that the provider took at a time; where it took more beside a request than it had refused, then or just before, the
refusals have another reason, and the number stays; where it took less than half, half.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

FIRST_ALLOWED = 50
FLOOR = 1.0
SLOWEST_PROBING = 16.0
MOST_AT_RANDOM = 0.25
"""The share of refusals above which they can't be by chance."""
REMEMBERED = 50
"""How many of the latest answers speak for a provider that refuses one: the last request of many may be refused."""
AFTER_AN_OUTAGE = 8.0
"""How many requests a provider that is back gets at first."""


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


@dataclass(frozen=True)
class Judgement:
    """What an episode ends with."""

    refusals: int
    is_fewer: bool
    """Whether fewer requests are allowed than before."""
    pause: float = 0.0
    """Seconds in which no request is to follow."""


@dataclass
class Concurrency:
    """How many requests may be under way. It knows each by its number, and by how many were under way with it."""

    ceiling: int
    allowed: float = field(init=False)
    """How many may be under way; at most the ceiling."""
    _episode: Episode | None = None
    _at_random: bool = False
    """Whether the latest refusals had another cause than how many requests were under way."""
    _growing: bool = True
    _probing: float = 1.0
    """How much slower than at first it finds out whether the provider takes one more."""
    _before: deque[int] = field(default_factory=lambda: deque[int](maxlen=REMEMBERED))
    """The levels of the latest requests that were answered."""

    def __post_init__(self) -> None:
        self.allowed = float(min(self.ceiling, FIRST_ALLOWED))

    def answered(self, number: int, level: int, *, wanted: bool) -> None:
        """The provider took a request.

        Args:
            number: the request's.
            level: how many were under way with it.
            wanted: whether more requests would be sent if they could.
        """
        episode = self._episode
        if episode is None:
            self._before.append(level)
            if wanted and self.allowed < self.ceiling:
                step = 1.0 if self._growing else 1 / (self.allowed * self._probing)
                self.allowed = min(float(self.ceiling), self.allowed + step)
        elif number <= episode.ends:
            episode.taken.append(level)

    def refused(self, number: int, level: int, retry_after: float, *, latest: int, in_flight: int) -> None:
        """The provider refused a request for its rate or load.

        Args:
            number: the request's.
            level: how many were under way with it.
            retry_after: seconds that the provider asked to wait; 0 where it didn't.
            latest: the number of the latest request.
            in_flight: how many are under way, this one included.
        """
        if self._episode is None:
            self._episode = Episode(ends=latest, left=in_flight, allowed=self.allowed)
        episode = self._episode
        episode.refusals += 1
        if number <= episode.ends:
            episode.refused.append(level)
            episode.retry_after = max(episode.retry_after, retry_after)
        if episode.refusals > max(1.0, MOST_AT_RANDOM * episode.allowed):
            self._at_random = False
        if not self._at_random:
            # Its place isn't given to another one before the episode ends: that would be refused as well.
            self.allowed = max(FLOOR, min(self.allowed, in_flight - 1))

    def returned(self, number: int) -> Judgement | None:
        """A request is back, whatever came of it. Returns what the episode ends with where it was the last of one."""
        episode = self._episode
        if episode is None or number > episode.ends:
            return None
        episode.left -= 1
        if episode.left > 0:
            return None
        self._episode = None
        pause = self._judge(episode)
        return Judgement(len(episode.refused), self.allowed < episode.allowed, pause)

    def start_small(self) -> None:
        """Begin anew with a few: the provider was away."""
        self.allowed = min(self.allowed, AFTER_AN_OUTAGE)
        self._growing, self._probing = True, 1.0

    def _judge(self, episode: Episode) -> float:
        """Set how many at a time the provider takes, from what it took in the episode. Returns the seconds to pause."""
        taken, refused = episode.taken, episode.refused
        witnesses = [*self._before, *taken]
        self._at_random = episode.refusals <= MOST_AT_RANDOM * len(witnesses) and have_another_cause(witnesses, refused)
        # What has spoken for the provider once doesn't speak for it again: else it could refuse for ever.
        self._before = deque(witnesses[4 * episode.refusals :], maxlen=REMEMBERED)
        if self._at_random:
            self.allowed = episode.allowed
        elif len(taken) < len(refused):
            # Not for how many were under way: for how fast they came, or for its own load.
            self.allowed = max(FLOOR, min(episode.allowed / 2, max(len(taken), 1.0)))
            self._growing, self._probing = False, 1.0
            return episode.retry_after
        else:
            self.allowed = max(FLOOR, float(max(taken)))
            self._probing = 1.0 if self._growing else min(SLOWEST_PROBING, 2 * self._probing)
            self._growing = False
        return 0.0


def have_another_cause(taken: list[int], refused: list[int]) -> bool:
    """Whether refusals have another cause than how many were under way: beside as many, far more were taken."""
    middle = sorted(refused)[len(refused) // 2]
    return sum(level >= middle for level in taken) > 2 * len(refused) + 1
