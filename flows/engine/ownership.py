"""A deployed run's hold on itself: one process works on it, whatever the server took for a crash.

A server that hears nothing of a run takes its machine for gone, and has it started again elsewhere
(deployments/automations.yaml). If the server itself was away, the process may well be alive: it says so; and where
another one has started meanwhile, it leaves. Otherwise both would pay for the same requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from flows.engine.run import Run
from flows.store.context import run_logger

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

T = TypeVar("T")

LOOK_SECONDS = 15.0
"""Less than what passes between a crash and the next start."""


async def while_held(run: Run, work: Coroutine[Any, Any, T]) -> T:
    """Do `work` as long as the run is this process's.

    Raises:
        prefect.exceptions.Pause: another process has taken it over. The engine leaves the run's state as it is.
    """
    if not run.deployed or run.child:
        return await work
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_until_taken_over(UUID(run.flow_run)))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await _leave(watching.result())
        return await working
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _leave(flow_run: FlowRun) -> None:
    from prefect.exceptions import Pause

    run_logger().warning("this run goes on in another process; this one ends here")
    raise Pause(state=flow_run.state)


async def _until_taken_over(flow_run: UUID) -> FlowRun:
    """The flow run as it is when another process has started it, or is about to."""
    from prefect.client.orchestration import get_client

    known: int | None = None
    async with get_client() as client:
        while True:
            try:
                seen = await client.read_flow_run(flow_run)
                known = seen.run_count if known is None else known
                if seen.run_count > known or (seen.state and seen.state.is_scheduled()):
                    return seen
                if seen.state and seen.state.is_crashed():
                    known = await _say_alive(client, flow_run)
            except Exception as error:  # noqa: BLE001 -- httpx, Prefect: no common base; a held process outlasts them
                run_logger().debug("the server can't be asked about this run: %s", error)
            await asyncio.sleep(LOOK_SECONDS)


async def _say_alive(client: PrefectClient, flow_run: UUID) -> int:
    """Take a run back that was taken for crashed. Returns how often it was started by the server's count."""
    from prefect.states import Running

    await client.set_flow_run_state(flow_run, Running(message="It was alive: the server had heard nothing of it"))
    return (await client.read_flow_run(flow_run)).run_count
