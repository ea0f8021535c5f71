"""Waiting for batch jobs: without a process where a deployment can start another, in the process elsewhere.

A deployed run notes what it waits for, has Prefect schedule it anew, and ends its process. It wakes up by its
schedule, or when the watcher, a webhook or a person says so.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, cast

from prefect.input import RunInput
from pydantic import Field

from flows.credentials import find_credentials
from flows.engine.batching import INTENT_SECONDS, WaitingForBatches, is_forgotten, is_offline, offline_llm
from flows.engine.costs import estimates_line
from flows.engine.errors import CostNotApprovedError
from flows.engine.graph import Node
from flows.engine.report import jobs_markdown, waiting_line
from flows.engine.run import STORAGE_LABEL, Run
from flows.engine.task_runs import as_task_run
from flows.ledger.jobs import look_at
from flows.ledger.records import JobGoneError, JobRecord, Jobs, RunNote, Wait, queue_of
from flows.store.context import in_flow_run, run_logger
from flows.store.digest import digest
from llms import LLMError
from llms.batch import OfflineBatchLLM
from llms.credentials import use_credentials_store
from llms.prices import money
from tasks.markdown import plain

if TYPE_CHECKING:
    from uuid import UUID

    from prefect import State

WAITING = "waiting for batches: "
"""How the message of a waiting run's state begins. Its name, AwaitingRetry, is Prefect's: while a run is in any other
scheduled state, both UIs hide its task runs and artifacts, and V1 hides the run itself from those of its deployment."""
LOOK_VARIABLE = "STILLFLOW_LOOK_SECONDS"
FIRST_LOOK_SECONDS = 60.0
LATEST_LOOK_SECONDS = 1800.0
SHARE_OF_AGE = 0.2
"""A job that is so old is looked at again after this share of its age."""
PATIENCE_SECONDS = 3 * 24 * 3600.0
"""Age of a job at which a provider that still can't be reached fails the run."""
APPROVAL_SECONDS = 7 * 24 * 3600
DELAYS = 50
"""As many as Prefect takes for the retries of a task."""


class StillWaiting(RuntimeError):
    """The batches aren't there yet. Only ever seen as the reason of a task's retry."""


class Approval(RunInput):
    """What a person says to the cost of a run."""

    approve: bool = Field(default=True, title="Approve", description="Submit the batches. Off: the run fails.")
    limit: float = Field(
        default=0, ge=0, title="Limit", description="Dollars for the whole run. 0: what is estimated now."
    )


def seconds_to_next_look(age: float) -> float:
    """How long to wait before looking again at jobs that were submitted `age` seconds ago."""
    shortest = float(os.environ.get(LOOK_VARIABLE) or FIRST_LOOK_SECONDS)
    return max(shortest, min(LATEST_LOOK_SECONDS, SHARE_OF_AGE * age))


def spaces_of(nodes: Sequence[Node]) -> dict[str, Node]:
    """A step that waits for batches, for each part of the ledger that such steps ask."""
    return {node.space(): node for node in nodes if is_offline(node)}


async def look(run: Run, nodes: Sequence[Node], needs: Collection[str] | None = None) -> list[JobRecord]:
    """Ask after open jobs of the steps, and take what the ended ones gave. Returns those still open.

    Args:
        needs: the jobs to ask after, by their intents. None: all that there are, also those of other runs.

    Raises:
        LLMError: a provider refuses to be asked, or nothing would succeed there.
    """
    use_credentials_store(find_credentials)
    jobs = Jobs(run.storage)
    found = [
        (record, node)
        for space, node in spaces_of(nodes).items()
        for record in jobs.open_of(space)
        if needs is None or record.intent in needs
    ]
    looked = await asyncio.gather(
        *(_look_at(run, record, offline_llm(node), strict=needs is not None) for record, node in found)
    )
    return [record for record in looked if record is not None and record.state == "waiting"]


async def _look_at(run: Run, record: JobRecord, llm: OfflineBatchLLM, *, strict: bool) -> JobRecord | None:
    """`flows.ledger.jobs.look_at`, for which a provider that is away for a while is no reason to fail."""
    jobs = Jobs(run.storage)
    try:
        return await look_at(jobs, record, llm)
    except JobGoneError as error:
        if record.lost not in {"", run.attempt}:
            run_logger().warning("%s: job %s is given up", record.step, record.job)
            jobs.end(replace(record, state="failed", status="gone", message=str(error)))
            return None
        if strict or record.run == run.id:
            jobs.write(replace(record, lost=run.attempt))
            raise
        problem: LLMError = error
    except LLMError as error:
        away = error.retryable and time.time() - record.intended < PATIENCE_SECONDS
        if not away and (strict or record.run == run.id):
            raise
        problem = error
    run_logger().warning("%s: job %s can't be looked at now: %s", record.step, record.job, problem)
    return replace(record, message=f"can't be looked at now: {problem}")


async def wake(run: Run, nodes: Sequence[Node]) -> None:
    """The first thing of a run that goes through its steps: see to its jobs. Leaves again where nothing is new."""
    jobs = Jobs(run.storage)
    wait = await asyncio.to_thread(jobs.wait_of, run.flow_run) if run.passes and run.deployed else None
    still_open = await look(run, nodes, wait and wait.intents)
    if wait is not None and not wait.queued and _nothing_new(still_open, wait.intents):
        await leave(run, nodes, WaitingForBatches(needs=wait.intents), still_open, since=wait.since)
    run.dollars = sum(
        record.dollars or 0.0
        for record in [*still_open, *jobs.ended_of(run.id)]
        if record.run == run.id and record.attempt == run.attempt
    )


async def wait_for(run: Run, nodes: Sequence[Node], waiting: WaitingForBatches) -> None:
    """Wait until steps can get on. In a deployed run this doesn't return: its process ends.

    Raises:
        CostNotApprovedError: a person said no.
        LLMError: a provider can't be asked.
    """
    run.passes += 1
    if waiting.estimates:
        await ask_approval(run, waiting)
        return
    jobs = Jobs(run.storage)
    open_jobs = [record for space in spaces_of(nodes) for record in jobs.open_of(space)]
    still_open = [record for record in open_jobs if record.intent in waiting.needs]
    if len(still_open) < len(waiting.needs):
        # Another run took what a job gave meanwhile.
        return
    every = [offline_llm(node).offline_batch_generation_block_until_done for node in nodes if is_offline(node)]
    blocking = min((each for each in every if each is not None), default=None)
    if run.deployed and blocking is None:
        before = await asyncio.to_thread(jobs.wait_of, run.flow_run)
        # Without a job whose age tells when to look: the longer it waits for the provider to take one, the less often.
        queued_before = before is not None and before.queued and not before.intents
        await leave(run, nodes, waiting, still_open, since=before.since if before and queued_before else time.time())
    await _wait_here(run, nodes, waiting, still_open, blocking)


async def done_waiting(run: Run) -> None:
    """All batches are in: nobody has to wake the run any more."""
    jobs = Jobs(run.storage)
    if run.deployed:
        await asyncio.to_thread(jobs.forget_wait, run.flow_run)
    ended = await asyncio.to_thread(jobs.ended_of, run.id)
    await show_jobs(run, [], ended)


async def _wait_here(
    run: Run, nodes: Sequence[Node], waiting: WaitingForBatches, still_open: list[JobRecord], blocking: int | None
) -> None:
    """Look again and again until a job has ended, as the retries of a task."""
    oldest = min((record.intended for record in still_open), default=time.time())
    # It's soon known whether a job was created that isn't known yet, and what is missing of its results.
    soon = min(INTENT_SECONDS, seconds_to_next_look(0)) if any(each.is_settling for each in still_open) else None
    delays = _delays(time.time() - oldest, soon or blocking)
    looks = 0

    async def look_again() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise StillWaiting(await said(run, still_open, waiting.queued, time.time() + delays[0]))
        now_open = await look(run, nodes, waiting.needs)
        if _nothing_new(now_open, waiting.needs) and not waiting.queued:
            next_look = time.time() + delays[min(looks - 1, len(delays) - 1)]
            raise StillWaiting(await said(run, now_open, waiting.queued, next_look))
        await said(run, now_open, waiting.queued, None)

    if in_flow_run():
        options: dict[str, Any] = {"retries": 1_000_000, "retry_delay_seconds": delays}
        options["retry_condition_fn"] = _still_waits
        await as_task_run("wait-for-batches", "wait-for-batches", look_again, **options)
        return
    while True:
        try:
            await look_again()
        except StillWaiting as still:
            run_logger().info("%s%s", WAITING, still)
            await asyncio.sleep(delays[min(looks - 1, len(delays) - 1)])
        else:
            return


def _still_waits(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a task run's state says no more than that: any other problem ends the wait."""
    return isinstance(state.data, StillWaiting)


def _delays(age: float, blocking: float | None) -> list[float]:
    """The seconds before each next look."""
    delays: list[float] = []
    for _ in range(DELAYS):
        delays.append(float(blocking) if blocking is not None else seconds_to_next_look(age))
        age += delays[-1]
    return delays


def _nothing_new(still_open: Sequence[JobRecord], intents: Collection[str]) -> bool:
    """Whether a pass through the steps would find the jobs as the last one left them."""
    forgotten = any(map(is_forgotten, still_open))
    return _intents(still_open) == sorted(intents) and not forgotten


def _intents(records: Sequence[JobRecord]) -> list[str]:
    return sorted(record.intent for record in records)


async def said(run: Run, still_open: Sequence[JobRecord], queued: int, next_look: float | None) -> str:
    """What the run waits for, in one line. Brings its artifacts up to date."""
    ended = [record for record in Jobs(run.storage).ended_of(run.id) if record.attempt == run.attempt]
    await show_jobs(run, still_open, ended)
    return waiting_line(still_open, ended, queued, next_look)


async def leave(
    run: Run, nodes: Sequence[Node], waiting: WaitingForBatches, still_open: list[JobRecord], *, since: float
) -> NoReturn:
    """Have the run scheduled for its next look, and end this process.

    Raises:
        prefect.exceptions.Pause: always.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import Pause
    from prefect.states import AwaitingRetry
    from prefect.utilities.engine import propose_state

    jobs = Jobs(run.storage)
    oldest = min((record.intended for record in still_open), default=since)
    soon = any(each.is_settling for each in still_open)
    next_look = time.time() + (INTENT_SECONDS if soon else seconds_to_next_look(time.time() - oldest))
    message = await said(run, still_open, waiting.queued, next_look)
    await note(run, leaving=True)
    jobs.write_wait(
        Wait(
            run.id,
            run.flow_run,
            list(spaces_of(nodes)),
            _intents(still_open),
            waiting.queued,
            since,
            next_look,
            room=_room(jobs, nodes) if waiting.queued else [],
            deployment=_deployment(),
        )
    )
    run_logger().info("%s%s. The process ends here", WAITING, message)
    look_at = datetime.datetime.fromtimestamp(next_look, tz=datetime.UTC)
    state: State[Any] = AwaitingRetry(message=f"{WAITING}{message}", scheduled_time=look_at)
    async with get_client() as client:
        await client.update_flow_run_labels(_uuid(run), {STORAGE_LABEL: run.storage.root})
        # While it names a process, a run that is cancelled stays Cancelling until the server gives up on that process.
        no_process = {"infrastructure_pid": None}
        await client.request("PATCH", "/flow_runs/{id}", path_params={"id": run.flow_run}, json=no_process)
        state = await propose_state(client, state, flow_run_id=_uuid(run))
    raise Pause(state=state)


def _room(jobs: Jobs, nodes: Sequence[Node]) -> list[str]:
    """The open jobs that take up the queues which the steps submit to."""
    queues = {queue_of(offline_llm(node)) for node in nodes if is_offline(node)}
    return [each.intent for each in jobs.all_open() if each.queue in queues and each.state == "waiting"]


def _deployment() -> str:
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return str(context.flow_run.deployment_id or "") if context and context.flow_run else ""


async def note(run: Run, *, leaving: bool) -> None:
    """Write down what the run has to know when it starts again: by waking up, if it is leaving now."""
    jobs = Jobs(run.storage)
    before = jobs.note_of(run.flow_run) or RunNote(attempt="", run_count=0)
    known = replace(
        before,
        attempt=run.attempt,
        run_count=run.run_count if leaving else 0,
        approved=run.approved,
        approved_unpriced=run.approved_unpriced,
        artifacts=run.artifacts,
        saved=run.saved_before,
    )
    await asyncio.to_thread(jobs.write_note, run.flow_run, known)


async def ask_approval(run: Run, waiting: WaitingForBatches) -> None:
    """Suspend the run until a person has looked at the cost. Outside of a deployment the process waits for it.

    Raises:
        CostNotApprovedError: the person said no.
        prefect.exceptions.Pause: a deployed run's process ends here; the run starts again when it's resumed.
    """
    from prefect.flow_runs import pause_flow_run, suspend_flow_run

    limit = run.spending.approve_cost_above or 0.0
    known = [each.dollars for each in waiting.estimates.values()]
    total = None if None in known else run.dollars + sum(each or 0.0 for each in known)
    price = "at an unknown price" if total is None else f"for about {money(total)} altogether"
    text = "\n".join(
        [
            f"This run would submit, {price}; it asks above {money(limit)}:",
            "",
            *(f"- {plain(name)}: {each}" for name, each in waiting.estimates.items()),
            "",
            "Approve it, or set another limit for the whole run, in dollars (0: what is estimated now).",
        ]
    )
    if not in_flow_run() or run.in_task:
        where = "In a Prefect task" if run.in_task else "Outside of a flow run"
        raise CostNotApprovedError(f"{text}\n{where} nobody can approve: set approve_cost_above higher")
    asked = Approval.with_initial_data(description=text, approve=True, limit=total or 0.0)
    run_logger().info(text)
    can_leave = run.deployed and not run.child
    await note(run, leaving=can_leave)
    # The same when the run starts again from its top, and another one for whatever is asked later, or by a retry.
    key = f"approve-{digest([run.attempt, total, estimates_line(waiting.estimates)])[:12]}"
    pause = suspend_flow_run if can_leave else pause_flow_run
    answer = cast("Approval", await cast("Any", pause)(wait_for_input=asked, timeout=APPROVAL_SECONDS, key=key))
    if not answer.approve:
        raise CostNotApprovedError(f"the cost was not approved: {estimates_line(waiting.estimates)}")
    if total is not None and 0 < answer.limit < total:
        raise CostNotApprovedError(
            f"the run would cost about {money(total)}, and the limit was set to {money(answer.limit)}:"
            " give it fewer rows, or start it again with a higher approve_cost_above"
        )
    if total is None:
        run.approved_unpriced = True
    run.approved = max(run.approved, answer.limit, total or 0.0)
    await note(run, leaving=False)


async def show_jobs(run: Run, open_jobs: Sequence[JobRecord], ended: Sequence[JobRecord]) -> None:
    """The run's jobs and their progress as artifacts, made once and kept up to date."""
    if not in_flow_run() or not (open_jobs or ended):
        return
    from prefect.artifacts import acreate_markdown_artifact, acreate_progress_artifact, aupdate_progress_artifact
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactUpdate
    from prefect.exceptions import ObjectNotFound

    every = [*open_jobs, *ended]
    total = sum(record.requests for record in every)
    progress = 100.0 * sum(record.answered + record.refused for record in every) / max(total, 1)
    table = jobs_markdown(open_jobs, ended)
    if "jobs" not in run.artifacts:
        made = await acreate_markdown_artifact(table, key="batch-jobs", description="The batch jobs of this run")
        bar = await acreate_progress_artifact(progress, key="batch-progress", description="Requests answered")
        run.artifacts = {"jobs": str(made), "progress": str(bar)}
        return
    try:
        async with get_client() as client:
            await client.update_artifact(_as_uuid(run.artifacts["jobs"]), ArtifactUpdate(data=table))
        await aupdate_progress_artifact(_as_uuid(run.artifacts["progress"]), progress)
    except ObjectNotFound:
        # Somebody deleted them.
        run.artifacts = {}
        await show_jobs(run, open_jobs, ended)


def _uuid(run: Run) -> UUID:
    return _as_uuid(run.flow_run)


def _as_uuid(text: str) -> UUID:
    from uuid import UUID

    return UUID(text)
