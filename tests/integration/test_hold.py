"""A run that the server took for crashed while its process was alive."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Pause
from prefect.states import Crashed, Running

from flows.engine import ownership
from flows.engine.ownership import while_held
from flows.engine.run import FlowRunFacts, Run
from flows.store.storage import Storage
from tests.conftest import LONGEST

pytestmark = pytest.mark.usefixtures("prefect")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "POLL_SECONDS", 0.1)


async def first_poll(looks: list[UUID]) -> None:
    while not looks:
        await asyncio.sleep(0.01)


async def running(client: PrefectClient) -> tuple[Run, UUID]:
    """A run of which the server knows that it runs."""
    made = await client.create_flow_run(flow(lambda: None, name="held"), state=Running())
    run = Run(
        str(made.id), f"{made.id}:1", Storage("memory://held"), flow_run=FlowRunFacts(id=str(made.id), deployed=True)
    )
    return run, made.id


async def state_of(client: PrefectClient, flow_run: UUID) -> str:
    state = (await client.read_flow_run(flow_run)).state
    assert state is not None
    return state.type.value


def test_a_process_that_is_taken_for_crashed_says_that_it_is_alive_and_goes_on(looks: list[UUID]) -> None:
    async def main() -> str:
        async with get_client() as client:
            run, flow_run = await running(client)
            finished = asyncio.Event()
            work = asyncio.create_task(while_held(run, finished.wait()))
            await first_poll(looks)
            await client.set_flow_run_state(flow_run, Crashed(message="nothing was heard of it"))
            while await state_of(client, flow_run) != "RUNNING":
                assert not work.done()
                await asyncio.sleep(0.05)
            finished.set()
            await asyncio.wait_for(work, LONGEST)
            return await state_of(client, flow_run)

    assert asyncio.run(main()) == "RUNNING"


def test_a_process_whose_run_another_one_has_started_leaves_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    read, looked, elsewhere = PrefectClient.read_flow_run, asyncio.Event(), asyncio.Event()
    stopped: list[str] = []

    async def first_or_later(self: PrefectClient, flow_run_id: UUID) -> FlowRun:
        if looked.is_set():
            await elsewhere.wait()
        found = await read(self, flow_run_id)
        looked.set()
        return found

    monkeypatch.setattr(PrefectClient, "read_flow_run", first_or_later)

    async def work() -> None:
        try:
            await asyncio.sleep(LONGEST)
        finally:
            stopped.append("work")

    async def main() -> str:
        async with get_client() as client:
            run, flow_run = await running(client)
            held = asyncio.create_task(while_held(run, work()))
            await looked.wait()
            # Between two looks, as after a while without a way to the server.
            await client.set_flow_run_state(flow_run, Crashed(), force=True)
            await client.set_flow_run_state(flow_run, Running(message="elsewhere"), force=True)
            elsewhere.set()
            with pytest.raises(Pause) as left:
                await held
            assert left.value.state.message == "elsewhere"
            return await state_of(client, flow_run)

    assert asyncio.run(main()) == "RUNNING"
    assert stopped == ["work"]


def test_what_the_work_raises_is_raised_and_a_run_that_nobody_restarts_is_not_watched() -> None:
    async def fail() -> None:
        raise ValueError("its own")

    async def main() -> None:
        async with get_client() as client:
            run, _ = await running(client)
            with pytest.raises(ValueError, match="its own"):
                await while_held(run, fail())
            run.flow_run = FlowRunFacts(id="no id at all")
            assert await while_held(run, asyncio.sleep(0, "done")) == "done"

    asyncio.run(main())
