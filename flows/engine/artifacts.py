"""The artifacts of a run: its report, and its failed rows."""

# pyarrow, datasets and fsspec have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Generator, Sequence
from uuid import UUID

from flows.engine.failures import failed_rows
from flows.engine.graph import Node
from flows.engine.prefect_pages import in_default_ui
from flows.engine.report import progress_markdown, report_markdown
from flows.engine.run import Run
from flows.store.context import run_logger
from flows.store.shards import ShardRef
from llms.secrets import masked


async def publish_report(run: Run) -> None:
    """The run's report as an artifact, where there's a flow run to show it in. A retry's replaces that before it."""
    from prefect.artifacts import acreate_markdown_artifact
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is None:
        return
    report = masked(report_markdown(run))
    description = "Steps, cost and failures, how values are spread, and a sample of the rows"
    with no_need_of_the_server("the run's report"):
        made = await _replaced(run, "run-report", report, description)
        made = made or await acreate_markdown_artifact(report, key="run-report", description=description)
        run_logger().info("its report: %s", await _page_of(run, made))


async def publish_progress(run: Run, status: str, *, begin: bool = True) -> None:
    """How far the run is as an artifact, the same one for all of its attempts. Its address is logged where it begins.

    Args:
        status: what it does now, in Markdown.
        begin: whether it's made where there's none.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
    from prefect.exceptions import ObjectNotFound

    if not run.flow_run.id or run.flow_run.in_task or run.limits is not None:
        return
    key, description = f"progress-{run.flow_run.id[-12:]}", "How far this run is"
    if not (begin or key in run.artifacts or run.has_page or run.flow_run.run_count > 1):
        return
    page = masked(progress_markdown(run, status))
    with no_need_of_the_server("the run's progress"):
        if key in run.artifacts:
            try:
                async with get_client() as client:
                    await client.update_artifact(UUID(run.artifacts[key]), ArtifactUpdate(data=page))
            except ObjectNotFound:
                # Somebody deleted it: the next one is made anew.
                run.artifacts = {}
            return
        made = await _replaced(run, key, page, description)
        if made is None and begin:
            # Before it's made: where this is cancelled in between, the run's end finds it.
            run.has_page = True
            new = ArtifactCreate(
                key=key, type="markdown", data=page, description=description, flow_run_id=UUID(run.flow_run.id)
            )
            async with get_client() as client:
                made = (await client.create_artifact(new)).id
        if made is not None:
            address = await _page_of(run, made)
            run.artifacts = {key: str(made)}
            run_logger().info("how far it is: %s", address)


async def publish_failed_rows(run: Run, nodes: Sequence[Node], refs: Sequence[Sequence[ShardRef]]) -> None:
    """The failed rows of the datasets as an artifact, where there's a flow run to show it in.

    A retry's take the place of those before it; where none is left, there's no such artifact any more.
    """
    from prefect.artifacts import acreate_table_artifact
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is None:
        return
    table, total = await asyncio.to_thread(failed_rows, run.storage, nodes, refs)
    shown = f"the first {len(table):,} of {total:,}" if len(table) < total else f"all {total:,}"
    description = f"Rows that failed: {shown}"
    with no_need_of_the_server("the failed rows"):
        replaced = await _replaced(run, "failed-rows", json.dumps(table) if table else None, description)
        if table and not replaced:
            await acreate_table_artifact(table, key="failed-rows", description=description)


async def _page_of(run: Run, artifact: UUID) -> str:
    """The address of an artifact in the Prefect UI, which Prefect itself makes none of."""
    page = f"{run.flow_run.url.partition('/runs/')[0]}/artifacts/artifact/{artifact}"
    return await asyncio.to_thread(in_default_ui, page)


async def _replaced(run: Run, key: str, data: str | None, description: str) -> UUID | None:
    """The artifact of an earlier attempt of the flow run, if there's one, which has new data now.

    Args:
        data: the new one; None to delete what is there.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactUpdate
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
    from prefect.exceptions import ObjectNotFound

    # The Prefect tasks of a flow run stand beside each other: each has its own.
    if run.flow_run.in_task:
        return None
    own = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(run.flow_run.id)]), key=ArtifactFilterKey(any_=[key])
    )
    async with get_client() as client:
        found = [each for each in await client.read_artifacts(artifact_filter=own) if each.task_run_id is None]
        if not found:
            return None
        # Somebody may delete them meanwhile.
        with contextlib.suppress(ObjectNotFound):
            if data is None:
                for each in found:
                    await client.delete_artifact(each.id)
            else:
                await client.update_artifact(found[0].id, ArtifactUpdate(data=data, description=description))
            return found[0].id
    return None


@contextlib.contextmanager
def no_need_of_the_server(what: str) -> Generator[None]:
    """What can't be shown because Prefect's server is away is no reason to fail: the rows are saved."""
    import httpx

    try:
        yield
    except httpx.HTTPError as error:
        run_logger().warning("Prefect's server doesn't take %s: %s", what, error or type(error).__name__)
