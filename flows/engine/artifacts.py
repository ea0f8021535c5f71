"""The artifacts of a run: its report, and its failed rows."""

# pyarrow, datasets and fsspec have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator, Sequence

from flows.engine.failures import failed_rows
from flows.engine.graph import Node
from flows.engine.report import report_markdown
from flows.engine.run import Run
from flows.store.context import run_logger
from flows.store.shards import ShardRef
from llms.secrets import masked


async def publish_report(run: Run) -> None:
    """The run's report as an artifact, where there's a flow run to show it in."""
    from prefect.artifacts import acreate_markdown_artifact
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is not None:
        with no_need_of_the_server("the run's report"):
            await acreate_markdown_artifact(
                masked(report_markdown(run)), key="run-report", description="Steps, tokens, failures"
            )


async def publish_failed_rows(run: Run, nodes: Sequence[Node], refs: Sequence[Sequence[ShardRef]]) -> None:
    """The failed rows of the datasets as an artifact, where there's a flow run to show it in."""
    from prefect.artifacts import acreate_table_artifact
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is None:
        return
    table, total = await asyncio.to_thread(failed_rows, run.storage, nodes, refs)
    if table:
        shown = f"the first {len(table):,} of {total:,}" if len(table) < total else f"all {total:,}"
        with no_need_of_the_server("the failed rows"):
            await acreate_table_artifact(table, key="failed-rows", description=f"Rows that failed: {shown}")


@contextlib.contextmanager
def no_need_of_the_server(what: str) -> Generator[None]:
    """What can't be shown because Prefect's server is away is no reason to fail: the rows are saved."""
    import httpx

    try:
        yield
    except httpx.HTTPError as error:
        run_logger().warning("Prefect's server doesn't take %s: %s", what, error or type(error).__name__)
