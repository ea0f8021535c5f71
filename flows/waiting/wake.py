"""Waking runs that wait for batch jobs: the watcher and the webhook receiver do it when jobs have ended."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.waiting.leaving import WAITING

if TYPE_CHECKING:
    from prefect import State
    from prefect.client.orchestration import PrefectClient

AWAITING_RETRY = "AwaitingRetry"
RUNS_PER_READ = 50
RUNS_PER_CHANGE = 5
"""Prefect looks at all of them once, and then sets one after another: who is cancelled meanwhile is started all the
same. So only a few of those that its API sets at once."""
# The types of Prefect's client leave it out.
SET_STATES: Any = "/flow_runs/bulk_set_state"


async def wake_runs(client: PrefectClient, flow_runs: Iterable[str | UUID], reason: str) -> list[str]:
    """Let runs that wait for their next poll have it now. Those in any other state are left as they are.

    Args:
        flow_runs: ids of flow runs. Unknown ones are no matter: a run may have been deleted.
        reason: the message of their state.

    Returns:
        The ids of the runs that were woken.
    """
    ids = list(dict.fromkeys(str(UUID(str(each))) for each in flow_runs if each))
    woken: list[str] = []
    for start in range(0, len(ids), RUNS_PER_READ):
        woken += await _wake(client, ids[start : start + RUNS_PER_READ], reason)
    return woken


def is_asleep(state: State | None) -> bool:
    """Whether a run in this state waits for batches, and isn't due yet. A run that Prefect retries doesn't."""
    if state is None or state.name != AWAITING_RETRY or not (state.message or "").startswith(WAITING):
        return False
    due = state.state_details.scheduled_time
    return due is not None and due > datetime.datetime.now(datetime.UTC)


async def _wake(client: PrefectClient, ids: list[str], reason: str) -> list[str]:
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.responses import SetStateStatus
    from prefect.states import AwaitingRetry, to_state_create

    now = datetime.datetime.now(datetime.UTC)
    later = {"state": {"name": {"any_": [AWAITING_RETRY]}}, "next_scheduled_start_time": {"after_": now.isoformat()}}
    # The server can't tell them from runs that Prefect retries: only the message does.
    some = FlowRunFilter.model_validate({"id": {"any_": ids}, **later})
    found = await client.read_flow_runs(flow_run_filter=some, limit=RUNS_PER_READ)
    asleep = [str(run.id) for run in found if is_asleep(run.state)]
    state = to_state_create(AwaitingRetry(message=reason, scheduled_time=now))
    woken: list[str] = []
    # Not one by one: a call for each run takes three times as long.
    for start in range(0, len(asleep), RUNS_PER_CHANGE):
        flow_runs = {"id": {"any_": asleep[start : start + RUNS_PER_CHANGE]}, **later}
        body = {"flow_runs": flow_runs, "state": state.model_dump(mode="json"), "limit": RUNS_PER_CHANGE}
        answer = await client.request("POST", SET_STATES, json=body)
        woken += [each["flow_run_id"] for each in answer.json()["results"] if each["status"] == SetStateStatus.ACCEPT]
    missing = set(asleep).difference(woken)
    if missing:
        # A call whose answer was lost is made again, and doesn't find those that a worker has started meanwhile.
        some = FlowRunFilter.model_validate({"id": {"any_": sorted(missing)}})
        found = await client.read_flow_runs(flow_run_filter=some, limit=RUNS_PER_READ)
        woken += [str(run.id) for run in found if run.state is not None and _is_awake(run.state)]
    return woken


def _is_awake(state: State) -> bool:
    return state.is_pending() or state.is_running()
