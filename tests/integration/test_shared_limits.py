"""Limits in Prefect that runs keep to, on a real server: what is taken, given back, and found again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from flows import collect, flow, load
from flows.limits import leases
from flows.limits.leases import shared_limit_of
from llms import AuthenticationError, OpenAILLM
from llms.local_provider import LocalProvider
from llms.loop import run_sync
from tasks import TextGeneration
from tests.conftest import LONGEST, wait_for
from tests.integration.sharing import Gcl, sharing, until


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SECONDS_PER_POLL", 0.1)
    monkeypatch.setattr(leases, "SECONDS_PER_QUICK_POLL", 0.05)
    # A server on a busy machine is slow, and not away.
    monkeypatch.setattr(leases, "LONGEST_POLL", LONGEST)


@flow
async def asking(limit: str, rows: int, prompt: str = "One") -> int:
    llm = OpenAILLM(model="m", shared_limit=limit, max_concurrent_requests=40, max_retries=0)
    given = load([{"instruction": f"{prompt} {number}"} for number in range(rows)], shard_rows=rows // 3)
    return len(await collect(TextGeneration(llm=llm).map(given)))


# Runs


def test_a_run_keeps_to_the_limit_and_gives_everything_back(
    prefect: str, provider: LocalProvider, storage: Path
) -> None:
    gcl = Gcl(prefect, 7)
    provider.set(latency=0.02)

    assert asyncio.run(asking(gcl.name, rows=90)) == 90

    assert 1 < provider.stats.max_in_flight <= 7
    assert (gcl.taken, gcl.processes) == (0, 0)


@pytest.fixture
def nothing_lapses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may be slower than a minute, and places that aren't renewed within one are given to others."""
    for seconds in ("RENEWED_AFTER", "LEASE_SECONDS", "MEMBER_SECONDS", "PATIENCE"):
        monkeypatch.setattr(leases, seconds, 2 * LONGEST)


# A process counts itself anew before it gives the old count back: here nothing is renewed.
@pytest.mark.usefixtures("nothing_lapses")
def test_two_runs_in_a_process_share_what_it_has(prefect: str, provider: LocalProvider, storage: Path) -> None:
    gcl = Gcl(prefect, 6)
    provider.set(latency=0.05)
    seen: set[int] = set()

    async def both() -> None:
        await asyncio.gather(asking(gcl.name, rows=30), asking(gcl.name, rows=120, prompt="Another"))

    with watched(lambda: seen.add(gcl.processes)):
        asyncio.run(both())

    assert provider.stats.count("/chat/completions", 200) == 150
    assert 1 < provider.stats.max_in_flight <= 6
    assert (gcl.taken, gcl.processes) == (0, 0)
    assert max(seen) == 1


@contextlib.contextmanager
def watched(look: Any) -> Iterator[None]:
    """Call `look` again and again meanwhile."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_run_that_fails_gives_everything_back(prefect: str, provider: LocalProvider, storage: Path) -> None:
    gcl = Gcl(prefect, 5)
    provider.set(latency=0.02, faults=[{"after": 20, "status": 401}])

    with pytest.raises(AuthenticationError):
        asyncio.run(asking(gcl.name, rows=90))

    assert (gcl.taken, gcl.processes) == (0, 0)


def test_a_run_that_is_cancelled_gives_everything_back(prefect: str, provider: LocalProvider, storage: Path) -> None:
    gcl = Gcl(prefect, 5)
    provider.set(latency=30.0)

    async def cancelled() -> None:
        run = asyncio.create_task(asking(gcl.name, rows=90))
        await until(lambda: provider.stats.in_flight == 5)
        run.cancel()
        await asyncio.wait([run])

    asyncio.run(cancelled())

    assert (gcl.taken, gcl.processes) == (0, 0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """The calls about limits that are made in this process from now on, each once however often it's repeated."""
    made: list[httpx.Request] = []
    send = httpx.AsyncClient.send

    async def noting(self: httpx.AsyncClient, request: httpx.Request, **more: Any) -> httpx.Response:
        if "concurrency" in request.url.path and not any(each is request for each in made):
            made.append(request)
        return await send(self, request, **more)

    monkeypatch.setattr(httpx.AsyncClient, "send", noting)
    return made


def about(name: str, calls: list[httpx.Request]) -> list[str]:
    """The paths of the calls about a limit. Others may be asked for by what an earlier test has left."""
    of_it = [each for each in calls if name in f"{each.url.path} {each.content.decode()}"]
    return [each.url.path.rpartition("/api")[2] for each in of_it]


def test_without_such_a_limit_a_run_asks_for_it_once(
    prefect: str, provider: LocalProvider, storage: Path, calls: list[httpx.Request]
) -> None:
    gcl = Gcl(prefect)

    assert asyncio.run(asking(gcl.name, rows=9)) == 9

    assert about(gcl.name, calls) == [f"/v2/concurrency_limits/{gcl.name}"]


def test_outside_of_a_flow_nobody_asks(
    prefect: str, provider: LocalProvider, storage: Path, calls: list[httpx.Request]
) -> None:
    gcl = Gcl(prefect, 1)
    llm = OpenAILLM(model="m", shared_limit=gcl.name)

    assert len(collect(TextGeneration(llm=llm).map(load([{"instruction": "Hello."}])))) == 1

    assert about(gcl.name, calls) == []


def test_the_limit_of_an_llm_has_its_name_unless_it_names_another() -> None:
    assert shared_limit_of(OpenAILLM(model="meta-llama/Llama 3")) == "llm-openai-meta-llama-Llama-3"
    assert shared_limit_of(OpenAILLM(model="m", shared_limit="our account")) == "our account"


# What a process has of a limit


def test_a_request_after_a_rest_gets_a_place_at_once(prefect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gcl = Gcl(prefect, 20)

    async def main() -> None:
        async with sharing(gcl.name, 0) as (shared, requests):
            # What it took for its start goes back.
            await until(lambda: shared.held == 20)
            await until(lambda: shared.held == 0)
            monkeypatch.setattr(leases, "SECONDS_PER_POLL", 60.0)
            await asyncio.sleep(0.3)
            requests.wanted = 40
            await until(lambda: requests.under_way == 20)

    run_sync(main())


def test_nothing_is_sent_before_there_are_places(prefect: str) -> None:
    gcl = Gcl(prefect, 20)
    gcl.change(active_slots=20)

    async def main() -> None:
        async with sharing(gcl.name, 40) as (shared, requests):
            await until(lambda: shared.members)
            assert requests.answered == requests.under_way == 0

    run_sync(main())


def test_what_is_not_used_goes_back_and_another_uses_it(prefect: str) -> None:
    gcl = Gcl(prefect, 20)

    async def main() -> None:
        async with sharing(gcl.name, 40) as (_, first), sharing(gcl.name, 0) as (_, second):
            await until(lambda: first.under_way == 19)
            second.wanted = 40
            await until(lambda: (first.under_way, second.under_way) == (10, 10))
            first.wanted = 3
            await until(lambda: (first.under_way, second.under_way) == (3, 16))
            second.wanted = 0
            await until(lambda: gcl.taken == 3)

    run_sync(main())
    assert (gcl.taken, gcl.processes) == (0, 0)


@pytest.mark.usefixtures("nothing_lapses")
def test_together_they_never_have_more_than_the_limit(prefect: str) -> None:
    gcl = Gcl(prefect, 9)
    most = [0]

    async def main() -> None:
        async with (
            sharing(gcl.name, 40) as (_, first),
            sharing(gcl.name, 40, seconds=0.3) as (_, second),
            sharing(gcl.name, 0) as (_, third),
        ):

            def under_way() -> int:
                most.append(sum(each.under_way for each in (first, second, third)))
                return most[-1]

            # Whoever comes and goes: all of the limit is used, and there's a place for each.
            for wanted in (40, 0, 40, 0):
                third.wanted = wanted
                await until(lambda: under_way() == 9 and all(each.under_way for each in (first, second)))
                await until(lambda: under_way() >= 0 and bool(third.under_way) == bool(third.wanted))

    run_sync(main())
    assert max(most) == 9


@pytest.mark.usefixtures("nothing_lapses")
def test_a_limit_can_be_changed_switched_off_and_deleted_meanwhile(prefect: str) -> None:
    gcl = Gcl(prefect, 10)

    async def main() -> None:
        async with sharing(gcl.name, 40) as (shared, requests):

            async def settled(places: int) -> None:
                """Until it stays so: on the way from one number to another it passes those between."""
                in_a_row = 0
                while in_a_row < 15:
                    await until(lambda: requests.under_way == places)
                    await asyncio.sleep(0.02)
                    in_a_row = in_a_row + 1 if requests.under_way == places else 0

            await settled(10)
            gcl.change(limit=25)
            await settled(25)
            gcl.change(limit=4)
            await settled(4)
            await until(lambda: gcl.taken == 4)
            gcl.change(limit=0)
            await settled(0)
            gcl.change(limit=10, active=False)
            await settled(40)
            gcl.change(active=True)
            await settled(10)
            gcl.delete()
            await settled(40)
            gcl.make(6)
            await settled(6)
            await until(lambda: shared.held == gcl.taken == 6)

    run_sync(main())
    assert (gcl.taken, gcl.processes) == (0, 0)


def test_places_are_renewed_and_stay(prefect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEWED_AFTER", 0.2)
    gcl = Gcl(prefect, 12)

    async def main() -> None:
        async with sharing(gcl.name, 40) as (shared, requests):
            await until(lambda: requests.under_way == 12)
            first = {lease.id: lease.renewed for lease in shared.leases}
            await until(lambda: all(lease.renewed > first[lease.id] + 0.4 for lease in shared.leases))
            assert {lease.id for lease in shared.leases} == set(first)
            await until(lambda: gcl.processes == 1)

    run_sync(main())


# What goes wrong


class Way:
    """The way to a server, which can be closed."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.open = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.open = False
        for each in self._pairs:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if not self.open:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.target))
            self._pairs += [client, server]
            for ends in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=ends, daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def test_a_server_that_is_away_changes_nothing(prefect: str, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    way = Way(int(prefect.rpartition(":")[2].partition("/")[0]))
    gcl = Gcl(prefect, 10)

    async def main() -> None:
        async with sharing(gcl.name, 40) as (shared, requests):
            await until(lambda: requests.under_way == 10)
            way.close()
            monkeypatch.setattr(leases, "LONGEST_POLL", 0.5)
            gcl.change(limit=15)
            await until(lambda: any("can't poll the shared limit" in each for each in said))
            # The look that meets the open way isn't cut off: its last answer would be lost. None from before is left.
            monkeypatch.setattr(leases, "LONGEST_POLL", LONGEST)
            await asyncio.sleep(1)
            assert requests.under_way == 10
            # Meanwhile its leases end.
            for lease in shared.leases:
                gcl.server.call("POST", "/v2/concurrency_limits/decrement-with-lease", {"lease_id": str(lease.id)})
                lease.renewed -= 100
            monkeypatch.setattr(leases, "RENEWED_AFTER", 0.2)
            way.open = True
            await until(lambda: requests.under_way == 15)
            assert gcl.taken == shared.held == 15

    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{way.port}/api"}):
        run_sync(main())
    assert gcl.taken == 0


@pytest.mark.usefixtures("nothing_lapses")
@pytest.mark.parametrize("does_it", [True, False], ids=["its answer is lost", "it isn't done"])
def test_a_renewal_that_is_cut_off_leaves_a_process_counted_once(
    prefect: str, monkeypatch: pytest.MonkeyPatch, does_it: bool
) -> None:
    from prefect.client.orchestration import PrefectClient

    release = PrefectClient.release_concurrency_slots_with_lease
    cut = list[UUID]()

    async def release_or_not(client: PrefectClient, lease_id: UUID) -> httpx.Response:
        if len(cut) < 3:
            cut.append(lease_id)
            if does_it:
                await release(client, lease_id)
            raise httpx.ReadTimeout("the answer doesn't come")
        return await release(client, lease_id)

    monkeypatch.setattr(leases, "RENEWED_AFTER", 0.1)
    monkeypatch.setattr(PrefectClient, "release_concurrency_slots_with_lease", release_or_not)
    gcl = Gcl(prefect, 10)

    async def main() -> None:
        async with sharing(gcl.name, 40) as (shared, requests):
            await until(lambda: len(cut) == 3 and len(shared.members) == 1 and requests.under_way == 10)
            monkeypatch.setattr(leases, "RENEWED_AFTER", 2 * LONGEST)
            await until(lambda: (gcl.processes, gcl.taken) == (1, 10))
            await asyncio.sleep(0.5)
            assert (gcl.processes, gcl.taken) == (1, 10)

    run_sync(main())
    assert gcl.taken == 0


@pytest.mark.usefixtures("nothing_lapses")
def test_a_count_that_the_server_forgot_is_taken_off_once_though_the_answer_is_lost(
    prefect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a process seems to be alone beside another, and frees places that are in use."""
    from prefect.client.orchestration import PrefectClient

    take_off = PrefectClient.release_concurrency_slots
    lost = list[int]()

    async def take_off_without_a_word(client: PrefectClient, names: list[str], slots: int, **more: Any) -> Any:
        answer = await take_off(client, names, slots, **more)
        if not lost:
            lost.append(slots)
            raise httpx.ReadTimeout("the answer doesn't come")
        return answer

    monkeypatch.setattr(PrefectClient, "release_concurrency_slots", take_off_without_a_word)
    gcl = Gcl(prefect, 10)

    async def main() -> None:
        async with sharing(gcl.name, 40) as (first, _), sharing(gcl.name, 40) as (second, _):
            await until(lambda: first.held == second.held == 5)
            # As a server does that is started anew: it counts the process, and knows nothing of its lease.
            (counted,) = first.members
            gcl.server.call("POST", "/v2/concurrency_limits/decrement-with-lease", {"lease_id": str(counted.id)})
            gcl.server.call("POST", "/v2/concurrency_limits/increment", {"names": [first.counted], "slots": 1})
            await until(lambda: gcl.processes == 2)
            monkeypatch.setattr(leases, "RENEWED_AFTER", 0.2)
            await until(lambda: bool(lost) and counted not in first.members)
            renewed = time.time()
            await until(lambda: min(each.renewed for each in (*first.leases, *second.leases)) > renewed)
            monkeypatch.setattr(leases, "RENEWED_AFTER", 2 * LONGEST)
            await until(lambda: (gcl.processes, gcl.taken) == (2, 10))

    run_sync(main())
    assert gcl.taken == 0


def test_a_lease_that_ends_while_its_renewal_is_under_way_is_not_taken_for_a_forgotten_one(
    prefect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its places are free twice, and processes send more than the limit together."""
    from prefect.client.orchestration import PrefectClient

    renew, take_off = PrefectClient.renew_concurrency_lease, PrefectClient.release_concurrency_slots
    ending, taken_off = list[leases.Lease](), list[str]()

    async def renew_at_last(client: PrefectClient, lease_id: UUID, lease_duration: float) -> None:
        if any(lease.id == lease_id for lease in ending):
            # The server is slow, and gets to it when it has ended the lease.
            await client.release_concurrency_slots_with_lease(lease_id)
            await asyncio.sleep(1)
        await renew(client, lease_id, lease_duration)

    async def noting(client: PrefectClient, names: list[str], slots: int, occupancy_seconds: float) -> Any:
        taken_off.extend(names)
        return await take_off(client, names, slots, occupancy_seconds)

    monkeypatch.setattr(leases, "RENEWED_AFTER", 2 * LONGEST)
    monkeypatch.setattr(PrefectClient, "renew_concurrency_lease", renew_at_last)
    monkeypatch.setattr(PrefectClient, "release_concurrency_slots", noting)
    gcl = Gcl(prefect, 10)

    async def main() -> None:
        async with sharing(gcl.name, 40) as (shared, requests):
            await until(lambda: requests.under_way == 10)
            for lease in shared.leases:
                lease.renewed = time.time() - leases.LEASE_SECONDS + 0.5
            ending.extend(shared.leases)
            monkeypatch.setattr(leases, "RENEWED_AFTER", 0.0)
            await until(lambda: not any(lease in shared.leases for lease in ending))

    run_sync(main())
    assert gcl.name not in taken_off


def test_what_a_dead_machine_left_is_found_by_the_next_process(prefect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gcl = Gcl(prefect, 10)
    gcl.server.call("POST", "/v2/concurrency_limits/", {"name": f"{gcl.name}.processes", "limit": 1000})
    # As a server that was started anew has it: places and processes that no lease stands for.
    gcl.change(active_slots=10)
    gcl.change(f"{gcl.name}.processes", active_slots=3)
    time.sleep(0.6)
    monkeypatch.setattr(leases, "QUIET_SECONDS", 0.5)

    async def main() -> None:
        async with sharing(gcl.name, 40) as (_, requests):
            await until(lambda: requests.under_way == 10)
            await until(lambda: (gcl.taken, gcl.processes) == (10, 1))

    run_sync(main())
    assert (gcl.taken, gcl.processes) == (0, 0)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The warnings about limits. Not by caplog: Prefect sets logging up anew when it's first used."""
    messages: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    listening, logger = Listening(logging.WARNING), logging.getLogger("flows.limits.leases")
    logger.addHandler(listening)
    yield messages
    logger.removeHandler(listening)


@pytest.mark.usefixtures("nothing_lapses")
def test_while_others_live_only_a_share_is_taken_of_what_seems_lost(
    prefect: str, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    gcl = Gcl(prefect, 10)

    async def main() -> None:
        async with sharing(gcl.name, 2) as (first, _), sharing(gcl.name, 0) as (second, requests):
            # Both took more when they began, and have given it back.
            await until(lambda: (gcl.taken, first.held, second.held) == (2, 2, 0))
            monkeypatch.setattr(leases, "PATIENCE", 1.0)
            gcl.change(active_slots=10)
            requests.wanted = 40
            await until(lambda: requests.under_way == 5)

    run_sync(main())
    assert any(f"prefect gcl update {gcl.name} --active-slots 0" in each for each in said)


def test_what_nobody_holds_is_free_for_one_who_is_alone(prefect: str) -> None:
    gcl = Gcl(prefect, 10)
    gcl.change(active_slots=10)

    async def main() -> None:
        async with sharing(gcl.name, 40) as (_, requests):
            await until(lambda: requests.under_way == 10)

    run_sync(main())
    assert wait_for(lambda: gcl.taken == 0, what="the end")
