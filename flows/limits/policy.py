"""How processes share a limit: what each takes and gives back, from what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RESERVE = 50
"""One place of so many stays free while somebody has more than a share."""


@dataclass(frozen=True)
class LimitSnapshot:
    """What a process sees when it polls a limit."""

    wanted: int
    """How many places its requests could use."""
    needed: int
    """The most that was wanted of late."""
    held: int
    limit: int
    taken: int
    """By all; more than the limit where that was lowered."""
    processes: int

    @property
    def free(self) -> int:
        return self.limit - self.taken

    @property
    def share(self) -> int:
        return self.limit // self.processes

    @property
    def missing(self) -> int:
        """How many places of its share it wants and can't have."""
        return max(0, min(self.share, self.wanted) - self.held) if self.free <= 0 else 0

    @property
    def is_short(self) -> bool:
        """Whether it's worth polling again soon."""
        return self.missing > 0 or self.held == 0 < self.wanted


def change_of(seen: LimitSnapshot, *, again: bool = False, in_turn: bool = False) -> int:
    """How many places to take (positive) or to give back (negative).

    Args:
        again: it gave some back at the poll before.
        in_turn: give back the place, too, that is left over when the limit is divided by the processes.
    """
    rounded_up = -(-seen.limit // seen.processes)
    over = seen.held - (seen.share if in_turn else rounded_up)
    if seen.free <= 0 and over > 0:
        over = seen.held - seen.share
        return -min(over, max(-seen.free, over if again else -(-over // 2)))
    reserve = max(1, seen.limit // RESERVE) if seen.processes > 1 else 0
    if over > 0 and seen.free < reserve:
        return -min(over, reserve - seen.free)
    if seen.wanted > seen.held:
        of_share = max(0, min(seen.wanted, rounded_up) - seen.held)
        more = min(seen.wanted - seen.held, seen.free - reserve)
        return max(0, min(seen.free, max(of_share, more)))
    unused = seen.held - seen.needed
    return -unused if 4 * unused > seen.held else 0


def parts(places: int) -> list[int]:
    """A number in parts, none more than a quarter: a lease is given back as a whole."""
    largest, made = -(-places // 4), list[int]()
    while places > 0:
        made.append(min(largest, -(-places // 2)))
        places -= made[-1]
    return made


def some_of(sizes: Sequence[int], places: int) -> list[int]:
    """The positions of a few of these whose sum is at least `places`, and as little more as can be."""
    order = sorted(range(len(sizes)), key=lambda position: -sizes[position])
    chosen: list[int] = []
    for position in order:
        if sizes[position] <= places:
            chosen.append(position)
            places -= sizes[position]
    if places > 0 and len(chosen) < len(order):
        more = min((position for position in order if position not in chosen), key=lambda position: sizes[position])
        chosen.append(more)
        places -= sizes[more]
    for position in sorted(chosen, key=lambda position: -sizes[position]):
        if sizes[position] <= -places:
            chosen.remove(position)
            places += sizes[position]
    return chosen
