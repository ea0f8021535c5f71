"""A limit of the test's own in Prefect, and what keeps to it."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from flows.limits.leases import SharedLimit
from llms.limits import Limiter
from tests.conftest import LONGEST
from tests.integration.stack import Refused, Server


class Gcl:
    """A limit of the test's own, as anybody sees and changes it in Prefect."""

    def __init__(self, api: str, places: int | None = None) -> None:
        self.server = Server(api, Path("server.log"))
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        if places is not None:
            self.make(places)

    def make(self, places: int) -> None:
        self.server.call("POST", "/v2/concurrency_limits/", {"name": self.name, "limit": places})

    def change(self, name: str = "", **changes: Any) -> None:
        self.server.call("PATCH", f"/v2/concurrency_limits/{name or self.name}", changes)

    def delete(self) -> None:
        self.server.call("DELETE", f"/v2/concurrency_limits/{self.name}")

    @property
    def taken(self) -> int:
        return self._active(self.name)

    @property
    def processes(self) -> int:
        return self._active(f"{self.name}.processes")

    def _active(self, name: str) -> int:
        try:
            return self.server.call("GET", f"/v2/concurrency_limits/{name}")["active_slots"]
        except Refused:
            return 0


class Requests:
    """Requests that keep to a limiter, as many as are wanted at a time, each for `seconds`."""

    def __init__(self, limiter: Limiter, wanted: int, seconds: float = 0.02) -> None:
        self.limiter, self.wanted, self.seconds = limiter, wanted, seconds
        self.answered = 0
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(limiter.ceiling)]

    async def _ask(self, number: int) -> None:
        while True:
            if number >= self.wanted:
                await asyncio.sleep(0.05)
                continue
            ticket = await self.limiter.acquire()
            await asyncio.sleep(self.seconds)
            self.answered += 1
            self.limiter.succeeded(ticket)

    @property
    def under_way(self) -> int:
        return self.limiter.in_flight

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def sharing(
    name: str, wanted: int, *, ceiling: int = 40, **more: Any
) -> AsyncGenerator[tuple[SharedLimit, Requests]]:
    """What one process has of a limit. Two of them are as two processes: nothing is common to them but the server."""
    shared = SharedLimit(name, Limiter(40))
    shared.enter()
    requests = Requests(shared.limiter, wanted, **more)
    try:
        yield shared, requests
    finally:
        await requests.stop()
        shared.leave()
        await shared.end()


async def until(condition: Any, *, seconds: float = LONGEST) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it didn't come to that"
        await asyncio.sleep(0.02)
