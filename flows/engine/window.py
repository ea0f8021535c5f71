"""How many shards of a step are under way at a time."""

from __future__ import annotations

import asyncio


class Window:
    """Lets some shards of a step be under way: so many, and more while they have fewer than `rows` rows together."""

    def __init__(self, *, shards: int = 2, rows: int = 0) -> None:
        self._shards, self._rows = shards, rows
        self._shards_out = self._rows_out = 0
        self._changed = asyncio.Event()

    async def acquire(self, rows: int) -> None:
        """Wait until one more may be under way, of so many rows."""
        while self._shards_out >= self._shards and self._rows_out >= self._rows:
            self._changed.clear()
            await self._changed.wait()
        self._shards_out += 1
        self._rows_out += rows

    def release(self, rows: int) -> None:
        self._shards_out -= 1
        self._rows_out -= rows
        self._changed.set()

    def grow(self, shards: int) -> None:
        self._shards = max(self._shards, shards)
        self._changed.set()
