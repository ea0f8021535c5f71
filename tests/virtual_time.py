"""An event loop whose clock jumps to the next timer: what takes minutes of waiting takes none, on any machine."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


TICK = 1e-9
"""Seconds that pass while the loop has work."""


class _Jumping(selectors.DefaultSelector):
    """Where the loop would wait for a timer, time has passed already. For what comes from outside it really waits."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select()
        # A clock that stood still would never reach what is due after less than its next number.
        self.now += timeout or TICK
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Jumping()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """What `main` returns. Its loop's clock begins at 0."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
