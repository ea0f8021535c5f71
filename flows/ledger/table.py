"""Compact tables of 64-bit numbers: a million entries take 16 MB."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

RECENT = 8192
"""Entries that are held in a dict before they are sorted in."""


def number_of(key: str) -> int:
    """A key's place in a table: its first 16 hexadecimal digits."""
    return int(key[:16], 16)


class Table:
    """64-bit numbers to others: sorted arrays, each at least twice as long as the next, and a dict for the latest."""

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._runs: list[tuple[Any, Any]] = []

    def __len__(self) -> int:
        """How many entries there are; one that was replaced may count twice."""
        return len(self._recent) + sum(len(keys) for keys, _ in self._runs)

    def get(self, key: int) -> int | None:
        found = self._recent.get(key)
        if found is not None:
            return found
        wanted = np.uint64(key)
        for keys, values in reversed(self._runs):
            place = int(keys.searchsorted(wanted))
            if place < len(keys) and keys[place] == wanted:
                return int(values[place])
        return None

    def put(self, key: int, value: int) -> None:
        self._recent[key] = value
        if len(self._recent) >= RECENT:
            self._sort_in()

    def _sort_in(self) -> None:
        count = len(self._recent)
        keys = np.fromiter(self._recent.keys(), np.uint64, count)
        values = np.fromiter(self._recent.values(), np.uint64, count)
        self._recent = {}
        order = keys.argsort()
        self._runs.append((keys[order], values[order]))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            self._runs[-2:] = [_merged(*self._runs[-2], *self._runs[-1])]


def _merged(old_keys: Any, old_values: Any, keys: Any, values: Any) -> tuple[Any, Any]:
    """Two sorted arrays as one. Of equal keys the newer holds."""
    both = np.concatenate([old_keys, keys])
    order = both.argsort(kind="stable")
    both = both[order]
    last = np.append(both[1:] != both[:-1], True)
    return both[last], np.concatenate([old_values, values])[order][last]


class KeySet:
    """The keys of a job's questions, 8 bytes each."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._numbers = np.sort(np.fromiter(map(number_of, keys), np.uint64))

    def __contains__(self, key: str) -> bool:
        wanted = np.uint64(number_of(key))
        place = int(self._numbers.searchsorted(wanted))
        return place < len(self._numbers) and bool(self._numbers[place] == wanted)


class AnyKey(KeySet):
    """Of a job whose keys can't be read: it may hold any question."""

    def __init__(self) -> None:
        super().__init__(())

    def __contains__(self, key: str) -> bool:
        return True
