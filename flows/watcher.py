"""The watcher: one pass over all runs that wait for batch jobs, in place of a poll by each of them.

It asks every account at a provider for its jobs, many in one call, and wakes the runs whose jobs have ended;
they take the results themselves. Jobs whose run is over are nobody's: those of cancelled runs are cancelled, and
what any of them answered goes into the ledger, for a retry or any later run that asks the same.
"""

from __future__ import annotations

from typing import Any

from flows.authoring.parameters import flow
from flows.ledger.records import Jobs
from flows.store.context import run_logger
from flows.store.storage import storage_at
from flows.waiting.watching import WatchError, watch


@flow(name="watch-batches")
async def watch_batches(storage: str | None = None, run_id: str | None = None) -> Any:
    """Wake the runs whose batch jobs have ended, and cancel the jobs of cancelled runs.

    Args:
        storage: Where the runs keep their rows. Empty: STILLFLOW_STORAGE.
        run_id: A flow run that is to poll its jobs now, whether one ended or not.
    """
    from prefect.client.orchestration import get_client
    from prefect.states import Completed

    async with get_client() as client:
        watched = await watch(Jobs(storage_at(storage)), client, run_id)
    run_logger().info(watched.line())
    if watched.problems:
        raise WatchError("\n".join([watched.line(), *watched.problems]))
    return Completed(message=watched.line())
