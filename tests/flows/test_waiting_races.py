"""What a person and the server do to a run just as it goes to sleep, or as it is woken."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import State
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import Pause
from prefect.states import AwaitingRetry, Cancelled, Failed, Pending, Running

from flows.engine.batching import WaitingForBatches
from flows.engine.run import FlowRunFacts, Run
from flows.store.storage import Storage
from flows.waiting.leaving import leave
from flows.waiting.wake import SET_STATES, wake_runs

pytestmark = pytest.mark.usefixtures("prefect")

REASON = "woken by a test"


async def deployed(client: PrefectClient, *states: State[Any]) -> list[UUID]:
    """Flow runs of a deployment, in these states."""
    name = f"races-{uuid.uuid4().hex[:8]}"
    deployment = await client.create_deployment(await client.create_flow_from_name(name), name)
    return [(await client.create_flow_run_from_deployment(deployment, state=state)).id for state in states]


def asleep() -> State[Any]:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    return AwaitingRetry(message="waiting for batches: 0 of 1 job done", scheduled_time=later)


async def state_of(client: PrefectClient, flow_run: UUID) -> State[Any]:
    state = (await client.read_flow_run(flow_run)).state
    assert state is not None
    return state


@pytest.mark.parametrize("end", [Cancelled, Failed])
def test_a_run_that_somebody_ends_as_it_goes_to_sleep_stays_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: Callable[[], State[Any]]
) -> None:
    label = PrefectClient.update_flow_run_labels

    async def label_and_end(self: PrefectClient, flow_run_id: UUID, labels: Any) -> None:
        await label(self, flow_run_id, labels)
        await self.set_flow_run_state(flow_run_id, end(), force=True)

    monkeypatch.setattr(PrefectClient, "update_flow_run_labels", label_and_end)

    async def main() -> tuple[str, str]:
        async with get_client() as client:
            (flow_run,) = await deployed(client, Running())
            facts = FlowRunFacts(id=str(flow_run), run_count=1, deployed=True)
            run = Run(str(flow_run), f"{flow_run}:1", Storage(str(tmp_path)), flow_run=facts)
            with pytest.raises(Pause) as left:
                await leave(run, [], WaitingForBatches(needs=["intent"]), [], since=0.0)
            return left.value.state.name, (await state_of(client, flow_run)).name or ""

    assert asyncio.run(main()) == (end().name, end().name)


def around_setting(
    monkeypatch: pytest.MonkeyPatch, do: Callable[[Callable[[], Coroutine[Any, Any, httpx.Response]]], Any]
) -> None:
    """Have `do` carry out the call that sets the states of runs."""
    request = PrefectClient.request

    async def requested(self: PrefectClient, method: Any, path: Any, *args: Any, **options: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            return await request(self, method, path, *args, **options)

        return await do(call) if path == SET_STATES else await call()

    monkeypatch.setattr(PrefectClient, "request", requested)


def test_runs_that_a_worker_starts_before_their_waking_is_answered_are_among_those_that_were_woken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> tuple[set[UUID], set[UUID]]:
        async with get_client() as client:
            runs = await deployed(client, asleep(), asleep(), Cancelled())

            async def twice(call: Callable[[], Coroutine[Any, Any, httpx.Response]]) -> httpx.Response:
                """As Prefect's client does it, where the first answer doesn't come."""
                await call()
                await client.set_flow_run_state(runs[0], Pending())
                return await call()

            around_setting(monkeypatch, twice)
            woken = await wake_runs(client, runs, REASON)
            assert (await state_of(client, runs[0])).is_pending()
            return {UUID(each) for each in woken}, set(runs[:2])

    woken, were_asleep = asyncio.run(main())

    assert woken == were_asleep


def test_a_run_that_is_cancelled_while_many_are_woken_stays_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[UUID] = []

    async def main() -> tuple[set[UUID], set[UUID]]:
        async with get_client() as client:
            runs = await deployed(client, *(asleep() for _ in range(12)))

            async def cancel_one_after_the_first(
                call: Callable[[], Coroutine[Any, Any, httpx.Response]],
            ) -> httpx.Response:
                answer = await call()
                if not cancelled:
                    left = [each for each in runs if (await state_of(client, each)).message != REASON]
                    assert left, "all of them were woken in one go"
                    cancelled.append(left[-1])
                    await client.set_flow_run_state(left[-1], Cancelled(), force=True)
                return answer

            around_setting(monkeypatch, cancel_one_after_the_first)
            woken = await wake_runs(client, runs, REASON)
            assert (await state_of(client, cancelled[0])).is_cancelled()
            return {UUID(each) for each in woken}, set(runs)

    woken, runs = asyncio.run(main())

    assert woken == runs - set(cancelled)
