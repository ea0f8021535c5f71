"""Prefect task runs around parts of the work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from flows.engine.errors import CLEAR_ERRORS, failed_state, masked_errors
from flows.store.context import in_flow_run
from flows.store.shards import ShardRef
from llms.quantities import quantity


async def as_task_run(name: str, run_name: str, work: Callable[[], Awaitable[Any]], **options: Any) -> Any:
    """Do `work` as a Prefect task run called `run_name`; as it is, outside of any flow run.

    Args:
        options: of Prefect's task, such as its retries.
    """
    from prefect import State
    from prefect import Task as PrefectTask
    from prefect.cache_policies import NO_CACHE

    if not in_flow_run():
        return await work()

    async def shard() -> Any:
        try:
            with masked_errors():
                return await work()
        except CLEAR_ERRORS as error:
            return failed_state(error)

    task: Any = PrefectTask(
        shard, name=name, task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False, **options
    )
    made: Any = await task()
    return await cast("State[Any]", made).aresult() if isinstance(made, State) else made


def told(name: str, message: str, value: Any) -> Any:
    """`value` as what a task run ends with, under a state of this name; as it is, outside of any flow run."""
    from prefect.states import Completed

    return Completed(name=name, message=message, data=value) if in_flow_run() else value


def shard_state(ref: ShardRef, reused: bool, inputs: Sequence[ShardRef]) -> Any:
    """A shard, and whether it was there before, in a state whose name says so, or that some rows failed."""
    failed_here = ref.failed > max(before.failed for before in inputs)
    if not (reused or failed_here):
        return ref, reused
    failed = f", {ref.failed:,} of them failed" if ref.failed else ""
    return told("RowsFailed" if failed_here else "Cached", f"{quantity(ref.rows, 'row')}{failed}", (ref, reused))
