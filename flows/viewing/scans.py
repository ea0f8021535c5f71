"""Scans: what is looked for in all rows of a table, in a thread, while pages show what was found so far."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np

from flows.viewing.batches import Batch
from flows.viewing.queries import Query
from flows.viewing.tables import Places, Table

MOST_SCANS = 8
"""Whose results are kept."""
NOTHING: Places = np.zeros(0, np.int64)
T = TypeVar("T", bound="Scan")


class Scan:
    """A way through all rows that can be waited for, and given up."""

    rows: int
    """How many there are to go through."""

    def __init__(self) -> None:
        self.seen = 0
        """How many it went through."""
        self.problem: Exception | None = None
        self._stopped = self._given_up = False
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._go, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end where it is."""
        self._stopped = True

    @property
    def ended(self) -> bool:
        """Whether it went through all rows."""
        return self._ended and not self._given_up

    def wait(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Wait until it's at its end, or there's enough. Raises what it ran into."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or enough(), seconds)
        if self.problem is not None:
            raise self.problem

    def run(self) -> None:
        """Go through the rows, calling `went_on` after each batch until that says no."""
        raise NotImplementedError

    def went_on(self, rows: int) -> bool:
        """Note that so many more rows were gone through. Returns whether to go on."""
        with self._changed:
            self.seen += rows
            self._changed.notify_all()
        self._given_up = self._stopped
        return not self._given_up

    def _go(self) -> None:
        try:
            self.run()
        # A thread's error is nobody's: who waits for the scan gets it.
        except Exception as error:  # noqa: BLE001 -- raised by `wait`, in the thread that asks
            self.problem = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Matches(Scan):
    """The places of the rows that a query wants, in its order."""

    def __init__(self, table: Table, query: Query, steps: list[str]) -> None:
        super().__init__()
        self.rows = len(table)
        self._table, self._query, self._steps = table, query, steps
        self._found: list[Places] = []
        self._numbers: list[np.ndarray[tuple[int], np.dtype[np.float64]]] = []
        self._count = 0
        self._in_order: Places | None = None

    def __len__(self) -> int:
        """How many were found so far."""
        return self._count

    def has(self, count: int) -> bool:
        """Whether so many are known to come first. In another order than the dataset's, none is before the end."""
        return not self._query.sort and self._count >= count

    def places(self) -> Places:
        """Those that were found so far; none where their order isn't known yet."""
        if self._in_order is not None:
            return self._in_order
        return NOTHING if self._query.sort or not self._found else np.concatenate(list(self._found))

    def run(self) -> None:
        for batch in self._table.scan(self._query.columns(self._table, self._steps)):
            wanted = np.flatnonzero(self._query.mask(batch))
            self._found.append(wanted + batch.start)
            if self._query.sort:
                self._numbers.append(self._values(batch)[wanted])
            self._count += len(wanted)
            if not self.went_on(len(batch)):
                return
        places = np.concatenate([NOTHING, *self._found])
        if self._query.sort:
            numbers = np.concatenate([np.zeros(0), *self._numbers])
            places = places[np.argsort(-numbers if self._query.descending else numbers, kind="stable")]
        self._in_order = places

    def _values(self, batch: Batch) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        # What is no number comes last, whichever way the others go.
        values = np.full(len(batch), np.nan)
        numbers, rows = batch.numbers(self._query.sort)
        values[rows] = numbers
        return values


class Scans(Generic[T]):
    """The scans of late, each started once. Those before them are given up."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                found = self._kept[key] = make()
                found.start()
            self._kept.move_to_end(key)
            while len(self._kept) > MOST_SCANS:
                # An unfinished one would begin anew when its page is looked at again.
                ended = (each for each, scan in self._kept.items() if scan.ended and each != key)
                least = next(ended, next(iter(self._kept)))
                self._kept.pop(least).stop()
            return found
