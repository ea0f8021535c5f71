"""The servers that are kept for a whole session stand still while it has quick tests, which need none.

Four servers with a worker each take a seventh of two cores where nobody asks them anything.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator

_kept: list[Callable[[], Iterable[int]]] = []
_stopped: list[int] = []


@contextlib.contextmanager
def between_uses(processes: Callable[[], Iterable[int]]) -> Iterator[None]:
    """Meanwhile these processes, by their ids, stand still when `stand_still` says so."""
    _kept.append(processes)
    yield
    go_on()
    _kept.remove(processes)


def stand_still() -> None:
    if _stopped or not _kept:
        return
    for processes in _kept:
        for each in processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGSTOP)
                _stopped.append(each)


def go_on() -> None:
    while _stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(_stopped.pop(), signal.SIGCONT)
