"""A shared limit on a server that is slow, in virtual time."""

from __future__ import annotations

import asyncio
import time
import uuid
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse

from flows.limits import leases
from flows.limits.leases import LEASE_SECONDS, SharedLimit
from llms.limits import Limiter
from tests.virtual_time import in_virtual_time

PLACES = 40


class SlowServer:
    """A Prefect server as far as leases go, each of whose answers takes `seconds`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.ends: dict[UUID, tuple[str, int, float]] = {}
        self.ids = {name: uuid.uuid4() for name in ("slow", "slow.processes")}
        self.lapsed: list[int] = []
        """The places of leases that nobody renewed or gave back in time."""

    async def __aenter__(self) -> SlowServer:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def _now(self) -> float:
        await asyncio.sleep(self.seconds)
        now = asyncio.get_running_loop().time()
        for lease, (name, places, end) in list(self.ends.items()):
            if end <= now:
                del self.ends[lease]
                self.lapsed += [places] if name == "slow" else []
        return now

    async def read_global_concurrency_limit_by_name(self, name: str) -> GlobalConcurrencyLimitResponse:
        await self._now()
        taken = sum(places for of, places, _ in self.ends.values() if of == name)
        return GlobalConcurrencyLimitResponse(id=self.ids[name], name=name, limit=1000, active_slots=taken)

    async def increment_concurrency_slots_with_lease(
        self, names: list[str], slots: int, mode: str, lease_duration: float, holder: object
    ) -> Any:
        lease = uuid.uuid4()
        self.ends[lease] = (names[0], slots, await self._now() + lease_duration)
        return SimpleNamespace(json=lambda: {"lease_id": str(lease), "limits": [names[0]]})

    async def renew_concurrency_lease(self, lease_id: UUID, lease_duration: float) -> None:
        now = await self._now()
        if lease_id not in self.ends:
            request = httpx.Request("POST", "http://slow")
            raise httpx.HTTPStatusError("gone", request=request, response=httpx.Response(410, request=request))
        name, places, _ = self.ends[lease_id]
        self.ends[lease_id] = (name, places, now + lease_duration)

    async def release_concurrency_slots_with_lease(self, lease_id: UUID) -> None:
        await self._now()
        self.ends.pop(lease_id, None)

    async def release_concurrency_slots(self, names: list[str], slots: int, occupancy_seconds: float) -> None:
        raise AssertionError("places are taken off that no lease stands for")


class Busy(SharedLimit):
    """Has requests for all its places, all the time."""

    wanted = PLACES  # pyright: ignore[reportAssignmentType]


@pytest.mark.parametrize("longest_renewal", [leases.LONGEST_RENEWAL, 0.0], ids=["as it is", "it is cut off"])
def test_no_lease_lapses_on_a_server_that_takes_a_second_for_each_call(
    monkeypatch: pytest.MonkeyPatch, longest_renewal: float
) -> None:
    server = SlowServer()
    monkeypatch.setattr("prefect.client.orchestration.get_client", lambda **_: server)
    monkeypatch.setattr(leases, "LONGEST_RENEWAL", longest_renewal)
    monkeypatch.setattr(leases, "random", SimpleNamespace(uniform=lambda *_: 1.0))

    async def main() -> tuple[list[int], int, int]:
        began, clock = time.time(), asyncio.get_running_loop().time
        monkeypatch.setattr(leases, "time", SimpleNamespace(time=lambda: began + clock(), monotonic=clock))
        shared = Busy("slow", Limiter(PLACES))
        shared.enter()
        await asyncio.sleep(10)
        assert shared.held == PLACES
        server.seconds = 1.0
        await asyncio.sleep(10 * LEASE_SECONDS)
        held, counted = shared.held, len(shared.members)
        shared.leave()
        await shared.end()
        return server.lapsed, held, counted

    lapsed, held, counted = in_virtual_time(main())

    assert (lapsed, held) == ([], PLACES)
    assert counted <= 2
