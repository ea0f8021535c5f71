"""A deployed run's hold on itself: one process works on it, whatever the server took for a crash.

A server that hears nothing of a run takes its machine for gone, and has it started again elsewhere
(deployments/automations.yaml). If the server itself was away, the process may well be alive: it says so; and where
another one has started meanwhile, it leaves. Otherwise both would pay for the same requests.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

from flows.engine.event_loops import finished
from flows.engine.run import Run
from flows.store.context import run_logger

if TYPE_CHECKING:
    from prefect import State
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

T = TypeVar("T")

ALIVE = "It was alive: the server had heard nothing of it"
POLL_SECONDS = 15.0
"""Less than what passes between a crash and the next start."""

LONGEST_TAKING_BACK = 10.0

_starts: dict[str, int] = {}
"""By flow run, where it was taken back: how often it was started by the server's count, which includes that."""


def starts_of(run: Run) -> int:
    """How often a run was started by the server's count, up to the last time that this process did."""
    return max(_starts.get(run.flow_run.id, 0), run.flow_run.run_count)


@cache
def _name_of(process: int) -> str:
    """This process's own: in containers, several may have one number and one host's name."""
    return f"process {process} of {socket.gethostname()}, {uuid4().hex[:8]}"


async def while_held(run: Run, work: Coroutine[Any, Any, T]) -> T:
    """Do `work` as long as the run is this process's.

    Raises:
        prefect.exceptions.Pause: another process has taken it over. The engine leaves the run's state as it is.
    """
    if not run.flow_run.deployed or run.flow_run.child:
        return await work
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_until_taken_over(run))
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


async def _until_taken_over(run: Run) -> FlowRun:
    """The flow run as it is when another process has started it, or is about to."""
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    flow_run = UUID(run.flow_run.id)
    alive = Running(message=f"{ALIVE} ({_name_of(os.getpid())})")
    async with get_client() as client:
        while True:
            try:
                seen = await client.read_flow_run(flow_run)
                if not _is_anothers(run, seen, alive) and seen.state and seen.state.is_crashed():
                    # To its end, or it would be taken for another one's start.
                    seen = await finished(_taken_back(client, run, alive), LONGEST_TAKING_BACK)
                if _is_anothers(run, seen, alive):
                    return seen
            except Exception as error:  # noqa: BLE001 -- httpx, Prefect: no common base; a held process outlasts them
                run_logger().debug("the server can't be asked about this run: %s", error)
            await asyncio.sleep(POLL_SECONDS)


async def _taken_back(client: PrefectClient, run: Run, alive: State) -> FlowRun:
    flow_run = UUID(run.flow_run.id)
    await client.set_flow_run_state(flow_run, alive)
    seen = await client.read_flow_run(flow_run)
    _is_anothers(run, seen, alive)
    return seen


def _is_anothers(run: Run, seen: FlowRun, alive: State) -> bool:
    """Whether another process has started the run, or is about to. `alive` is what this one says to take it back."""
    # By the state that stands: of two that set Running, the later one finds its own, and the other one more start.
    # A run that Prefect made no count of begins with the first look.
    if not starts_of(run) or (seen.state is not None and seen.state.message == alive.message):
        _starts[run.flow_run.id] = seen.run_count
    return seen.run_count > starts_of(run) or (seen.state is not None and seen.state.is_scheduled())
