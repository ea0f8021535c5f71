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
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from prefect.input import RunInput
from pydantic import Field

from flows.credentials import find_credentials
from flows.engine.artifacts import publish_progress
from flows.engine.batching import (
    INTENT_SECONDS,
    WaitingForBatches,
    cost_of_jobs,
    deadline_of,
    is_forgotten,
    is_late,
    is_offline,
    offline_llm,
)
from flows.engine.costs import committed, estimates_line, needs_approval
from flows.engine.errors import CostNotApprovedError
from flows.engine.graph import Node
from flows.engine.ownership import starts_of
from flows.engine.report import waiting_line
from flows.engine.run import STORAGE_LABEL, Run, progress_listener
from flows.engine.task_runs import as_task_run
from flows.ledger.jobs import poll
from flows.ledger.records import JobGoneError, JobRecord, Jobs, RunNote, Wait, queue_of
from flows.store.context import in_flow_run, run_logger
from flows.store.digest import digest
from llms import LLMError
from llms.batch import OfflineBatchLLM
from llms.credentials import use_credentials_store
from llms.loop import run_async
from llms.prices import money
from tasks.markdown import plain

if TYPE_CHECKING:
    from uuid import UUID

    from prefect import State

WAITING = "waiting for batches: "
"""How the message of a waiting run's state begins. Its name, AwaitingRetry, is Prefect's: while a run is in any other
scheduled state, both UIs hide its task runs and artifacts, and V1 hides the run itself from those of its deployment."""
POLL_VARIABLE = "STILLFLOW_POLL_SECONDS"
POLL_VARIABLE_BEFORE = "STILLFLOW_LOOK_SECONDS"
"""Its former name, which machines may still have."""
FIRST_POLL_SECONDS = 60.0
LATEST_POLL_SECONDS = 1800.0
SHARE_OF_AGE = 0.2
"""A job that is so old is polled again after this share of its age."""
PATIENCE_SECONDS = 3 * 24 * 3600.0
"""Age of a job at which a provider that still can't be reached fails the run."""
APPROVAL_DAYS = 7
APPROVAL_SECONDS = APPROVAL_DAYS * 24 * 3600
HOW_TO_ANSWER = (
    "To answer, press Resume on this run's page: in the new UI it's in the menu at the top. Without an answer for"
    f" {APPROVAL_DAYS} days the run fails, and asks again if it's retried."
)
DELAYS = 50
"""As many as Prefect takes for the retries of a task."""


class StillWaiting(RuntimeError):
    """The batches aren't there yet. Only ever seen as the reason of a task's retry."""


class Approval(RunInput):
    """What a person says to the cost of a run."""

    approve: bool = Field(default=True, title="Approve", description="Send these requests. Off: the run fails.")
    limit: float = Field(
        default=0, ge=0, title="Limit", description="Dollars for the whole run. 0: what is estimated now."
    )


def seconds_to_next_poll(age: float) -> float:
    """How long to wait before polling jobs again that were submitted `age` seconds ago."""
    said = os.environ.get(POLL_VARIABLE) or os.environ.get(POLL_VARIABLE_BEFORE)
    shortest = float(said or FIRST_POLL_SECONDS)
    return max(shortest, min(LATEST_POLL_SECONDS, SHARE_OF_AGE * age))


def spaces_of(nodes: Sequence[Node]) -> dict[str, Node]:
    """A step that waits for batches, for each part of the ledger that such steps ask."""
    return {node.space(): node for node in nodes if is_offline(node)}


async def poll_jobs(run: Run, nodes: Sequence[Node], needs: Collection[str] | None = None) -> list[JobRecord]:
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
    polled = await asyncio.gather(
        *(_poll(run, record, offline_llm(node), strict=needs is not None) for record, node in found)
    )
    still_open = [
        (record, node)
        for record, (_, node) in zip(polled, found, strict=True)
        if record is not None and record.state == "waiting"
    ]
    return list(await asyncio.gather(*(_stopped_if_late(run, record, node) for record, node in still_open)))


async def _stopped_if_late(run: Run, record: JobRecord, node: Node) -> JobRecord:
    """Tell a job of this run to stop once its step's deadline has passed. What it has answered is taken at its end."""
    if record.run != run.id or not record.job or record.stopped or not is_late(node):
        return record
    run_logger().info("%s: job %s is late: what it hasn't answered is cancelled", record.step, record.job)
    llm = offline_llm(node)
    try:
        await run_async(llm.call_briefly(partial(llm.cancel_job, record.job)))
    except LLMError as error:
        # One that has just ended can't be. The next poll tells; it's tried again where the provider was away.
        run_logger().warning("%s: job %s can't be cancelled now: %s", record.step, record.job, error)
        return record
    stopped = replace(record, stopped=time.time())
    Jobs(run.storage).update(stopped)
    return stopped


async def _poll(run: Run, record: JobRecord, llm: OfflineBatchLLM, *, strict: bool) -> JobRecord | None:
    """`flows.ledger.jobs.poll`, for which a provider that is away for a while is no reason to fail."""
    jobs = Jobs(run.storage)
    try:
        return await poll(jobs, record, llm)
    except JobGoneError as error:
        # With the job that its intent was found to have become.
        record = error.record
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
    run_logger().warning("%s: job %s can't be polled now: %s", record.step, record.job, problem)
    return replace(record, message=f"can't be polled now: {problem}")


async def wake(run: Run, nodes: Sequence[Node]) -> None:
    """The first thing of a run that goes through its steps: see to its jobs. Leaves again where nothing is new.

    Raises:
        CostNotApprovedError: it was suspended until a person looked at its cost, who said no.
        LLMError: a provider can't be asked.
    """
    jobs, was_asked = Jobs(run.storage), bool(run.money.asked)
    if was_asked:
        await take_answer(run)
    # One that a person was asked for waited for no job: what it wrote down of those is of a time before.
    waited = run.passes and run.flow_run.deployed and not was_asked
    wait = await asyncio.to_thread(jobs.wait_of, run.flow_run.id) if waited else None
    still_open = await poll_jobs(run, nodes, wait and wait.intents)
    if wait is not None and not wait.queued and _nothing_new(still_open, wait.intents):
        await leave(run, nodes, WaitingForBatches(needs=wait.intents), still_open, since=wait.since)
    run.jobs = [*still_open, *jobs.ended_of(run.id)]
    run.money.submitted = await asyncio.to_thread(cost_of_jobs, jobs, run.id)


async def wait_for(run: Run, nodes: Sequence[Node], waiting: WaitingForBatches) -> None:
    """Wait until steps can get on. In a deployed run this doesn't return: its process ends.

    Raises:
        CostNotApprovedError: a person said no.
        LLMError: a provider can't be asked.
    """
    run.passes += 1
    if waiting.estimates:
        # Steps that were under way may have cost less than they were estimated at.
        if needs_approval(run, waiting.estimates.values()):
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
    if run.flow_run.deployed and blocking is None:
        before = await asyncio.to_thread(jobs.wait_of, run.flow_run.id)
        # Without a job whose age tells when to poll: the longer it waits for the provider to take one, the less often.
        queued_before = before is not None and before.queued and not before.intents
        await leave(run, nodes, waiting, still_open, since=before.since if before and queued_before else time.time())
    await _wait_here(run, nodes, waiting, still_open, blocking)


async def done_waiting(run: Run) -> None:
    """All batches are in: nobody has to wake the run any more."""
    jobs = Jobs(run.storage)
    if run.flow_run.deployed:
        await asyncio.to_thread(jobs.forget_wait, run.flow_run.id)
    run.jobs = await asyncio.to_thread(jobs.ended_of, run.id)


async def _wait_here(
    run: Run, nodes: Sequence[Node], waiting: WaitingForBatches, still_open: list[JobRecord], blocking: int | None
) -> None:
    """Look again and again until a job has ended, as the retries of a task."""
    oldest = min((record.intended for record in still_open), default=time.time())
    # It's soon known whether a job was created that isn't known yet, and what is missing of its results.
    soon = min(INTENT_SECONDS, seconds_to_next_poll(0)) if any(each.is_settling for each in still_open) else None
    delays = delays_between_polls(time.time() - oldest, soon or blocking, _next_deadline(nodes))
    polls = 0

    async def poll_again() -> None:
        nonlocal polls
        polls += 1
        if polls == 1:
            raise StillWaiting(await said(run, nodes, still_open, waiting.queued, time.time() + delays[0]))
        now_open = await poll_jobs(run, nodes, waiting.needs)
        if _nothing_new(now_open, waiting.needs) and not waiting.queued:
            next_poll = time.time() + delays[min(polls - 1, len(delays) - 1)]
            raise StillWaiting(await said(run, nodes, now_open, waiting.queued, next_poll))
        await said(run, nodes, now_open, waiting.queued, None)

    if in_flow_run():
        options: dict[str, Any] = {"retries": 1_000_000, "retry_delay_seconds": delays}
        options["retry_condition_fn"] = _still_waits
        await as_task_run("wait-for-batches", "wait-for-batches", poll_again, **options)
        return
    while True:
        try:
            await poll_again()
        except StillWaiting as still:
            run_logger().info("%s%s", WAITING, still)
            await asyncio.sleep(delays[min(polls - 1, len(delays) - 1)])
        else:
            return


def _still_waits(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a task run's state says no more than that: any other problem ends the wait."""
    return isinstance(state.data, StillWaiting)


def delays_between_polls(age: float, blocking: float | None, deadline: float | None) -> list[float]:
    """The seconds before each next poll.

    Args:
        age: of the oldest job, in seconds.
        blocking: between polls; None: the longer, the older the job.
        deadline: when jobs are told to stop, which they soon do, in seconds since 1970.
    """
    delays: list[float] = []
    left = None if deadline is None else deadline - time.time()
    for _ in range(DELAYS):
        seconds = float(blocking) if blocking is not None else seconds_to_next_poll(age)
        if left is not None:
            seconds = min(seconds, left if left > 0 else seconds_to_next_poll(0))
            left -= seconds
        delays.append(seconds)
        age += seconds
    return delays


def _next_deadline(nodes: Sequence[Node]) -> float | None:
    """The earliest of the steps' deadlines, in seconds since 1970."""
    return min((each for each in map(deadline_of, filter(is_offline, nodes)) if each is not None), default=None)


def _nothing_new(still_open: Sequence[JobRecord], intents: Collection[str]) -> bool:
    """Whether a pass through the steps would find the jobs as the last one left them."""
    forgotten = any(map(is_forgotten, still_open))
    return _intents(still_open) == sorted(intents) and not forgotten


def _intents(records: Sequence[JobRecord]) -> list[str]:
    return sorted(record.intent for record in records)


async def said(
    run: Run, nodes: Sequence[Node], still_open: Sequence[JobRecord], queued: int, next_poll: float | None
) -> str:
    """What the run waits for, in one line. Brings the artifact with its progress up to date."""
    ended = [record for record in Jobs(run.storage).ended_of(run.id) if record.attempt == run.attempt]
    run.jobs = [*still_open, *ended]
    line = waiting_line(still_open, ended, queued, next_poll, _next_deadline(nodes))
    listener = progress_listener.get()
    if listener is not None:
        listener(run)
    await publish_progress(run, f"**Waiting for batches:** {line}.")
    return line


async def leave(
    run: Run, nodes: Sequence[Node], waiting: WaitingForBatches, still_open: list[JobRecord], *, since: float
) -> NoReturn:
    """Have the run scheduled for its next poll, and end this process.

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
    next_poll = time.time()
    next_poll += delays_between_polls(next_poll - oldest, INTENT_SECONDS if soon else None, _next_deadline(nodes))[0]
    message = await said(run, nodes, still_open, waiting.queued, next_poll)
    await note(run, leaving=True)
    jobs.write_wait(
        Wait(
            run.id,
            run.flow_run.id,
            list(spaces_of(nodes)),
            _intents(still_open),
            waiting.queued,
            since,
            next_poll,
            room=_room(jobs, nodes) if waiting.queued else [],
            deployment=_deployment(),
        )
    )
    run_logger().info("%s%s. The process ends here", WAITING, message)
    poll_at = datetime.datetime.fromtimestamp(next_poll, tz=datetime.UTC)
    state: State[Any] = AwaitingRetry(message=f"{WAITING}{message}", scheduled_time=poll_at)
    async with get_client() as client:
        await client.update_flow_run_labels(_uuid(run), {STORAGE_LABEL: run.storage.root})
        # While it names a process, a run that is cancelled stays Cancelling until the server gives up on that process.
        no_process = {"infrastructure_pid": None}
        await client.request("PATCH", "/flow_runs/{id}", path_params={"id": run.flow_run.id}, json=no_process)
        seen = (await client.read_flow_run(_uuid(run))).state
        if seen is not None and seen.is_final() and not seen.is_crashed():
            # Somebody ended it, and the server would bring it back.
            raise Pause(state=seen)
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
    before = jobs.note_of(run.flow_run.id) or RunNote(attempt="", run_count=0)
    known = replace(
        before,
        attempt=run.attempt,
        run_count=starts_of(run) if leaving else 0,
        approved=run.money.approved,
        approved_unpriced=run.money.approved_unpriced,
        asked=run.money.asked,
        artifacts=run.artifacts,
        saved=run.saved.digests,
        attempt_began=run.times.attempt_began,
    )
    await asyncio.to_thread(jobs.write_note, run.flow_run.id, known)


async def ask_approval(run: Run, waiting: WaitingForBatches) -> None:
    """Suspend the run until a person has looked at the cost. Outside of a deployment the process waits for it.

    Raises:
        CostNotApprovedError: the person said no.
        prefect.exceptions.FlowPauseTimeout: nobody answered in time. A deployed run is failed by Prefect's server.
        prefect.exceptions.Pause: a deployed run's process ends here; the run starts again when it's resumed.
    """
    limit = run.money.spending.approve_cost_above or 0.0
    known = [each.dollars for each in waiting.estimates.values()]
    total = None if None in known else committed(run) + sum(each or 0.0 for each in known)
    price = "at an unknown price" if total is None else f"for about {money(total)} altogether"
    text = "\n".join(
        [
            f"This run would send, {price}; it asks above {money(limit)}:",
            "",
            *(f"- {plain(name)}: {each}" for name, each in waiting.estimates.items()),
            "",
            "Approve it, or set another limit for the whole run, in dollars (0: what is estimated now).",
        ]
    )
    if not in_flow_run() or run.flow_run.in_task:
        where = "In a Prefect task" if run.flow_run.in_task else "Outside of a flow run"
        raise CostNotApprovedError(f"{text}\n{where} nobody can approve: set approve_cost_above higher")
    asked = Approval.with_initial_data(description=text, approve=True, limit=total or 0.0)
    run_logger().info("%s\n\n%s", text, HOW_TO_ANSWER)
    # Another key for whatever is asked later, or by a retry.
    line = estimates_line(waiting.estimates)
    run.money.asked = {"key": f"approve-{digest([run.attempt, total, line])[:12]}", "total": total, "estimates": line}
    await note(run, leaving=_can_leave(run))
    await take_answer(run, asked)


def _can_leave(run: Run) -> bool:
    return run.flow_run.deployed and not run.flow_run.child


async def take_answer(run: Run, form: type[Approval] = Approval) -> None:
    """What a person said to what the run asked: at once, where it starts again because of that.

    Raises:
        CostNotApprovedError, prefect.exceptions.FlowPauseTimeout, prefect.exceptions.Pause: as `ask_approval` does.
    """
    from prefect.flow_runs import apause_flow_run, asuspend_flow_run

    asked, run.money.asked = run.money.asked, {}
    total: float | None = asked["total"]
    pause: Any = asuspend_flow_run if _can_leave(run) else apause_flow_run
    answer: Approval = await pause(wait_for_input=form, timeout=APPROVAL_SECONDS, key=asked["key"])
    if not answer.approve:
        raise CostNotApprovedError(f"the cost was not approved: {asked['estimates']}")
    if total is not None and 0 < answer.limit < total:
        raise CostNotApprovedError(
            f"the run would cost about {money(total)}, and the limit was set to {money(answer.limit)}:"
            " give it fewer rows, or start it again with a higher approve_cost_above"
        )
    if total is None:
        run.money.approved_unpriced = True
    run.money.approved = max(run.money.approved, answer.limit, total or 0.0)
    await note(run, leaving=False)


def _uuid(run: Run) -> UUID:
    from uuid import UUID

    return UUID(run.flow_run.id)
