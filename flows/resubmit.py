"""The failed rows of a deployed run once more, as a new run: for one that is done, or too old to be retried."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from pydantic import Field

from flows.authoring.parameters import flow, over_mapping
from flows.engine.errors import ResubmitError
from flows.engine.prefect_pages import in_default_ui
from flows.engine.run import DATE_LABEL, LEFT_BY_LABEL, RESUBMITS, STORAGE_LABEL, completed_by, date_of
from flows.store.context import run_logger
from llms.parameters import unknown_name_message

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

SCHEDULED = "auto-scheduled"
"""Prefect's own tag of the runs that a schedule made."""


@flow(name="resubmit-failed-rows")
async def resubmit_failed_rows(
    run_id: str,
    max_failed_rows: Annotated[float | None, Field(ge=0)] = None,
    parameters: dict[str, Any] | None = None,
) -> Any:
    """Start a deployed run's deployment again, with its parameters: only the rows that failed are asked again.

    The new run completes the rows of the old one, also where that made a fresh dataset (use_cache off), and
    saves the whole dataset to the same target. This flow doesn't wait for it. Rows stay answered where the
    parameters that decide them (the prompt, the model and its generation parameters) stay as they were.

    Args:
        run_id: The run whose failed rows are asked again. Its id is at the end of its page's address.
        max_failed_rows: How many rows may fail this time: below 1 a share, else a count. Empty: as it was.
        parameters: Others to change, in part, such as {"text_generation": {"llm": {"timeout": 600}}}.
    """
    from prefect.artifacts import acreate_link_artifact
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext
    from prefect.states import Completed
    from prefect.utilities.urls import url_for

    changes = {**(parameters or {}), **({} if max_failed_rows is None else {"max_failed_rows": max_failed_rows})}
    context = FlowRunContext.get()
    this = str(context.flow_run.id) if context and context.flow_run else None
    async with get_client() as client:
        before = await _ended_run(client, run_id)
        deployment = await _deployment_of(client, before)
        _check_names(changes, deployment)
        await _check_alone(client, before)
        # A retry of this flow run finds the run that it started.
        started = await _start(client, before, deployment, changes, key=f"resubmit-{this}" if this else None)
    page = await asyncio.to_thread(in_default_ui, url_for(started) or "")
    message = f"started run {started.name} ({started.id}) for the failed rows of {before.name} ({before.id})"
    run_logger().info("%s%s", message, f": {page}" if page else "")
    if page:
        await acreate_link_artifact(page, link_text=started.name, key="resubmitted", description=message)
    return Completed(message=message, data=str(started.id))


async def _ended_run(client: PrefectClient, run_id: str) -> FlowRun:
    from prefect.exceptions import ObjectNotFound

    try:
        found = await client.read_flow_run(UUID(run_id.strip()))
    except ValueError:
        raise ResubmitError(
            f"run_id={run_id!r} is no id of a flow run; it's at the end of the run's page's address"
        ) from None
    except ObjectNotFound:
        raise ResubmitError(
            f"Prefect has no flow run {run_id}: it never was there, or it was deleted. If it was, start its deployment"
            f" with the same parameters and the tag '{RESUBMITS}{run_id.strip()}': what it got answered is still in"
            " the storage, and only the rest is asked"
        ) from None
    if found.state is None or not found.state.is_final():
        state = found.state.name if found.state else "without a state"
        raise ResubmitError(
            f"run {found.name} ({found.id}) is still going, it's {state!r}; wait for its end, or cancel it first"
        )
    return found


async def _deployment_of(client: PrefectClient, run: FlowRun) -> DeploymentResponse:
    from prefect.exceptions import ObjectNotFound

    if run.deployment_id is None:
        raise ResubmitError(
            f"run {run.name} ({run.id}) was not started from a deployment, so Prefect can't start it again;"
            " run its program again with the same parameters: with use_cache on, only the failed rows are asked"
        )
    try:
        return await client.read_deployment(run.deployment_id)
    except ObjectNotFound:
        raise ResubmitError(
            f"the deployment of run {run.name} ({run.id}) was deleted; deploy its flow again, and start it with the"
            f" same parameters and the tag '{RESUBMITS}{completed_by(run) or run.id}'"
        ) from None


def _check_names(changes: dict[str, Any], deployment: DeploymentResponse) -> None:
    """Prefect starts a run with a parameter that its flow doesn't have, and the run crashes."""
    known = (deployment.parameter_openapi_schema or {}).get("properties", {})
    for name in changes:
        if name not in known:
            raise ResubmitError(unknown_name_message(name, known, f"deployment {deployment.name!r}"))


async def _check_alone(client: PrefectClient, run: FlowRun) -> None:
    """Two runs that complete the same rows at a time would ask for them twice."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

    tag = f"{RESUBMITS}{completed_by(run) or run.id}"
    others = await client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[tag])))
    going = next((each for each in others if each.state is None or not each.state.is_final()), None)
    if going is not None:
        raise ResubmitError(
            f"run {going.name} ({going.id}) is completing the rows of {run.name} ({run.id}) already; wait for its end,"
            " or cancel it first"
        )


async def _start(
    client: PrefectClient, run: FlowRun, deployment: DeploymentResponse, changes: dict[str, Any], key: str | None
) -> FlowRun:
    from prefect.exceptions import PrefectHTTPStatusError

    kept = [tag for tag in run.tags if tag != SCHEDULED and not tag.startswith(RESUBMITS)]
    labels: dict[str, Any] = {DATE_LABEL: date_of(run)}
    if STORAGE_LABEL in run.labels:
        left_by = run.labels.get(LEFT_BY_LABEL, str(run.id))
        labels |= {STORAGE_LABEL: run.labels[STORAGE_LABEL], LEFT_BY_LABEL: left_by}
    same_pool = run.work_pool_name is not None and run.work_pool_name == deployment.work_pool_name
    try:
        return await client.create_flow_run_from_deployment(
            deployment.id,
            parameters=over_mapping(run.parameters, changes),
            # A run that itself completed another's rows goes on with these.
            tags=[*kept, f"{RESUBMITS}{completed_by(run) or run.id}"],
            labels=labels,
            work_queue_name=run.work_queue_name if same_pool else None,
            job_variables=run.job_variables or None,
            idempotency_key=key,
        )
    except PrefectHTTPStatusError as error:
        if error.response.status_code >= 500:
            raise
        raise ResubmitError(
            f"deployment {deployment.name!r} doesn't take the parameters of run {run.name} ({run.id}) any more:"
            f" {error.response.text}; give what has changed in `parameters`"
        ) from None
