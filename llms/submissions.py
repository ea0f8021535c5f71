"""Which jobs hold which requests, of the calls that this process made outside of flows: nothing is paid for twice."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Hashable, Iterable, Mapping


class Submissions:
    """The requests of an account that are in batch jobs, by their keys."""

    def __init__(self) -> None:
        self._jobs: dict[str, str] = {}
        self.lock = asyncio.Lock()
        """Held while jobs are created: who calls meanwhile finds them afterwards."""

    def note(self, jobs: Mapping[str, str]) -> None:
        """Note the jobs of requests."""
        self._jobs.update(jobs)

    def forget(self, keys: Iterable[str]) -> None:
        """Let the next call submit these requests anew."""
        for key in keys:
            self._jobs.pop(key, None)

    def holding(self, keys: Iterable[str]) -> dict[str, str]:
        """The jobs that hold those of the requests that are in any."""
        return {key: self._jobs[key] for key in keys if key in self._jobs}


_by_account: dict[Hashable, Submissions] = {}


def submissions_of(account: Hashable) -> Submissions:
    """Those of an account, for all models in this process: a notebook's cell makes them anew each time it's run."""
    return _by_account.setdefault(account, Submissions())


def _unlock_after_fork() -> None:
    """What held a lock is a thread of the process before."""
    for submissions in _by_account.values():
        submissions.lock = asyncio.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_after_fork)
