"""Processes that share a limit, as the provider sees them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from flows.limits import leases
from llms.local_provider import LocalProvider, SeenRequest, SpawnedProvider
from llms.loop import run_sync
from tests.conftest import LONGEST, ROOT, free_port, prefect_server, wait_for
from tests.integration.sharing import Gcl, sharing, until
from tests.integration.stack import Process, Stack
from tests.warm import WarmPython

pytestmark = pytest.mark.slow

LIMIT = 20
PROGRAM = """
import asyncio, sys
from flows import collect, flow, load
from flows.limits import leases
from llms import OpenAILLM
from tasks import TextGeneration

name, limit, patience = sys.argv[1:]
if float(patience):
    leases.LONGEST_POLL = leases.LEASE_SECONDS = leases.MEMBER_SECONDS = float(patience)

@flow
async def sharing():
    llm = OpenAILLM(model="m", shared_limit=limit, max_concurrent_requests=60)
    rows = load([{"instruction": f"{name} {number}"} for number in range(5_000)], shard_rows=100)
    await collect(TextGeneration(llm=llm).map(rows))

asyncio.run(sharing())
"""


@pytest.fixture
def spawned() -> Iterator[SpawnedProvider]:
    # So slow that the limit is full on a busy machine, too, and that a look at all requests so far is soon done.
    with LocalProvider.spawn(latency=2.0) as provider:
        yield provider


def sharer(
    warm: WarmPython, name: str, gcl: Gcl, provider: SpawnedProvider, folder: Path, *, patience: float = 0
) -> Process:
    """A process with a run that wants three times the limit.

    Args:
        patience: seconds for which a server that doesn't answer counts as busy, and what it gave stays; 0: as usual.
    """
    own = folder / name
    own.mkdir()
    command = [str(warm.executable), "-c", PROGRAM, name, gcl.name, str(patience)]
    environment = environment_of(own, gcl, provider)
    return Process(name, command, cwd=ROOT, environment=environment, log=own / "log")


def environment_of(own: Path, gcl: Gcl, provider: SpawnedProvider) -> dict[str, str]:
    """The environment of a process with a folder of its own."""
    return {
        **os.environ,
        "PREFECT_API_URL": gcl.server.api,
        "PREFECT_HOME": str(own / "home"),
        "STILLFLOW_STORAGE": str(own / "storage"),
        "OPENAI_BASE_URL": provider.base_url,
    }


def of(name: str, requests: Sequence[SeenRequest]) -> list[SeenRequest]:
    return [each for each in requests if each.body and each.body["messages"][-1]["content"].startswith(f"{name} ")]


def used(provider: SpawnedProvider, limit: int) -> bool:
    """Whether nearly all of the limit is in use, by both processes."""
    now = [each for each in provider.requests if each.finished is None]
    return len(now) >= 0.9 * limit and all(len(of(name, now)) >= 0.4 * limit for name in ("one", "two"))


def wait_for_requests(name: str, provider: SpawnedProvider, process: Process | None = None, count: int = 1) -> None:
    def there() -> bool:
        assert process is None or process.running, process.tail()
        return len([each for each in of(name, provider.requests) if each.finished is None]) >= count

    wait_for(there, what=f"requests of {name}", pause=0.1)


def test_two_processes_keep_to_a_limit_together_and_use_it(
    warm: WarmPython, prefect_api: str, spawned: SpawnedProvider, tmp_path: Path
) -> None:
    gcl = Gcl(prefect_api, LIMIT)
    # On a busy machine a look takes longer than a lease: that the limit may be exceeded then is no matter of this test.
    made = partial(sharer, warm, gcl=gcl, provider=spawned, folder=tmp_path, patience=LONGEST)
    with made("one") as one, made("two") as two:
        wait_for_requests("one", spawned, one)
        wait_for_requests("two", spawned, two)

        wait_for(lambda: used(spawned, LIMIT), what="an even share of all of it")
        # And so it stays, for many requests.
        before = spawned.stats.count("/chat/completions", 200)
        wait_for(lambda: spawned.stats.count("/chat/completions", 200) > before + 10 * LIMIT, what="more answers")
        wait_for(lambda: used(spawned, LIMIT), what="an even share of all of it")
        assert spawned.stats.max_in_flight <= 1.05 * LIMIT
        wait_for(lambda: (gcl.taken, gcl.processes) == (LIMIT, 2), what="the places of two processes and no other")

        gcl.change(limit=2 * LIMIT)
        wait_for(lambda: used(spawned, 2 * LIMIT), what="an even share of the higher limit")
        assert spawned.stats.max_in_flight <= 1.05 * 2 * LIMIT

        # One that is interrupted gives back what it has, and the other uses it.
        one.interrupt()
        wait_for(lambda: not one.running, what="the end of the first process")
        wait_for(lambda: gcl.processes == 1, what="the places of the other process alone")
        wait_for_requests("two", spawned, two, count=int(1.8 * LIMIT))


def test_a_run_that_is_cancelled_in_prefect_gives_everything_back(stack: Stack, tmp_path: Path) -> None:
    stack.provider.set(latency=60.0)
    gcl = Gcl(stack.api, 5)
    parameters = {
        "source": {"data_files": str(stack.source("leases", [{"instruction": f"{number}"} for number in range(30)]))},
        "text_generation": {"llm": {"shared_limit": gcl.name}},
        "target": {"path": str(tmp_path / "out")},
    }

    run = stack.start("text-generation/text-generation", parameters)
    wait_for(lambda: stack.provider.stats.in_flight == 5, what="its requests")
    stack.call("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    stack.wait(run, "CANCELLED")

    wait_for(lambda: (gcl.taken, gcl.processes) == (0, 0), what="all places")


def leases_of(run: str, home: Path) -> dict[UUID, dict[str, Any]]:
    """What the server keeps on disk for a run, by the lease's id."""
    found: dict[UUID, dict[str, Any]] = {}
    for file in (home / "concurrency_leases").glob("*-*.json"):
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            lease = json.loads(file.read_text())
            if ((lease["metadata"] or {}).get("holder") or {}).get("id") == run:
                found[UUID(lease["id"])] = lease
    return found


def test_the_places_of_a_killed_process_come_back_by_themselves(
    warm: WarmPython, spawned: SpawnedProvider, tmp_path: Path
) -> None:
    from prefect.server.concurrency.lease_storage.filesystem import ConcurrencyLeaseStorage

    home = tmp_path / "server"
    home.mkdir()
    server = prefect_server(home)
    server.environment["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] = ConcurrencyLeaseStorage.__module__
    server.environment["PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS"] = "1"
    with server as api:
        gcl = Gcl(api, LIMIT)
        limit = gcl.server.call("GET", f"/v2/concurrency_limits/{gcl.name}")["id"]
        own = tmp_path / "one"
        own.mkdir()
        # Not by way of `Process`, which asks for the end first, and is gone before what it stands for.
        one = warm.start(
            ["-c", PROGRAM, "one", gcl.name, "0"],
            environment=environment_of(own, gcl, spawned),
            cwd=ROOT,
            output=own / "log",
        )

        def with_half_of_it() -> dict[UUID, dict[str, Any]]:
            """What the server keeps for its run, where half of the places is in it, and none is free."""
            found = leases_of(run, home)
            slots = sum(each["metadata"]["slots"] for each in found.values() if limit in each["resource_ids"])
            return found if (slots, gcl.taken) == (LIMIT // 2, LIMIT) else {}

        with sharer(warm, "two", gcl, spawned, tmp_path) as two:
            try:
                wait_for_requests("one", spawned, count=LIMIT // 2)
                wait_for_requests("two", spawned, two, count=LIMIT // 2)
                said = (own / "log").read_text()
                (run,) = (each["id"] for each in gcl.server.runs() if each["id"] in said)
                wait_for(with_half_of_it, what="an even share")
            finally:
                one.kill()
                status = one.wait()
            assert status == -signal.SIGKILL, (own / "log").read_text()

            # What it asked for at the last may still be done.
            left = wait_for(with_half_of_it, what="the places of the killed process")
            ends = [
                datetime.fromisoformat(each["expiration"]) for each in left.values() if limit in each["resource_ids"]
            ]
            assert max(ends) <= datetime.now(UTC) + timedelta(seconds=leases.LEASE_SECONDS)
            assert len(left) > len(ends), "it's among the processes as well"

            # They end now, and not in a minute.
            storage = ConcurrencyLeaseStorage(home / "concurrency_leases")
            for lease in left:
                asyncio.run(storage.renew_lease(lease, timedelta(0)))
            wait_for_requests("two", spawned, two, count=LIMIT)
            wait_for(lambda: (gcl.taken, gcl.processes) == (LIMIT, 1), what="the count of the one that is left")


def test_after_a_restart_of_the_server_no_place_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    port = free_port()
    api = f"http://127.0.0.1:{port}/api"

    async def main() -> None:
        async with sharing(gcl.name, 40) as (first, _), sharing(gcl.name, 40) as (second, _):
            await until(lambda: first.held == second.held == LIMIT // 2)
            await asyncio.to_thread(server.__exit__)
            monkeypatch.setattr(leases, "RENEWED_AFTER", 2.0)
            await asyncio.sleep(1)
            assert first.limiter.in_flight == second.limiter.in_flight == LIMIT // 2
            await asyncio.to_thread(server.__enter__)
            # The server has forgotten the leases, and remembers the places.
            renewed = time.time()
            await until(lambda: min((each.renewed for each in (*first.leases, *second.leases)), default=0.0) > renewed)
            await until(lambda: first.held == second.held == LIMIT // 2)
            # A process that counts itself anew is counted twice for a moment.
            async with asyncio.timeout(LONGEST):
                # Not asked on this loop, which renews meanwhile.
                while await asyncio.to_thread(lambda: (gcl.taken, gcl.processes)) != (LIMIT, 2):
                    await asyncio.sleep(0.2)

    # A poll that is given up on a slow machine, or a count anew that the server's stop cuts off, leaves some too many.
    monkeypatch.setattr(leases, "LONGEST_POLL", LONGEST)
    monkeypatch.setattr(leases, "RENEWED_AFTER", LONGEST)
    server = prefect_server(tmp_path, port=port)
    with server, temporary_settings({PREFECT_API_URL: api}):
        gcl = Gcl(api, LIMIT)
        run_sync(main())
        assert gcl.taken == 0
