"""One pass over all runs that wait for batch jobs, in place of a poll by each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import orjson

from flows.credentials import find_credentials
from flows.engine.batching import is_forgotten
from flows.ledger.jobs import find, settle, tell_of_unknown_state
from flows.ledger.records import CLOCK_SKEW, JobRecord, Jobs, Wait, llm_of
from flows.store.context import run_logger
from flows.waiting.wake import is_asleep, wake_runs
from llms import LLMError
from llms.batch import JobStatus, OfflineBatchLLM
from llms.credentials import use_credentials_store
from llms.errors import BadRequestError, ModelNotFoundError
from llms.loop import run_async
from llms.quantities import quantity

if TYPE_CHECKING:
    from prefect import State
    from prefect.client.orchestration import PrefectClient


T = TypeVar("T")

RUNS_PER_CALL = 200
"""As many as Prefect's API gives at once."""

FEW_JOBS = 3
"""So many jobs of an account are asked for one by one: its list may be long."""

JOBS_PER_PAGE = 100

GONE = "gone"
"""The status of a job that its provider doesn't know any more."""

SETTLED_AT_A_TIME = 8

SECONDS_TO_CANCEL = (1.0, 2.0, 4.0)
"""Before each poll of jobs that were told to stop. What takes longer is left to the next pass."""


@dataclass
class Watched:
    """What a pass did."""

    runs: int = 0
    """That wait."""
    asked: int = 0
    """Jobs that the providers were asked for."""
    woken: list[str] = field(default_factory=list[str])
    """Ids of flow runs."""
    cancelled: list[str] = field(default_factory=list[str])
    """Ids of jobs."""
    settled: list[str] = field(default_factory=list[str])
    """Ids of jobs of runs that are over, whose answers are in the ledger now."""
    problems: list[str] = field(default_factory=list[str])

    def line(self) -> str:
        """What a pass did, for the message of its state."""
        parts = [
            quantity(self.runs, "run waits", "runs wait"),
            f"{quantity(self.asked, 'job')} asked for",
            f"{quantity(len(self.woken), 'run')} woken",
            *([f"{quantity(len(self.cancelled), 'job')} of cancelled runs cancelled"] if self.cancelled else []),
            *([f"answers of {quantity(len(self.settled), 'job')} of ended runs kept"] if self.settled else []),
        ]
        return ", ".join(parts)


class WatchError(LLMError):
    """Some jobs couldn't be polled. The rest of the pass was done."""


async def watch(jobs: Jobs, client: PrefectClient, run_id: str | None = None) -> Watched:
    """One pass. What goes wrong with an account or a job is in `problems`, and stops no other."""
    # A block is read once, however many jobs name it.
    use_credentials_store(cache(find_credentials))
    watched = Watched()
    waits, records = await asyncio.to_thread(jobs.waits), await asyncio.to_thread(jobs.all_open)
    states = await states_of(client, {*(wait.flow_run for wait in waits), *(each.flow_run for each in records)})
    deleted = await deleted_runs(client, [wait for wait in waits if wait.flow_run not in states])
    over = {name for name, state in states.items() if is_over(state)} | deleted
    sleeping = [wait for wait in waits if is_asleep(states.get(wait.flow_run))]
    watched.runs = len(sleeping)
    orphans = orphans_of(records, waits, over)

    accounts = await asyncio.to_thread(by_account, wanted_by(sleeping, records) + orphans, watched)
    for account in accounts:
        await account.find_intents(jobs, watched)
    seen = await seen_now(accounts, watched)
    now = {record.intent: record.seen(seen[record.job]) if record.job in seen else record for record in records}
    for record in records:
        if record.job in seen:
            tell_of_unknown_state(record, seen[record.job])
    await asyncio.to_thread(note_news, jobs, records, now)

    for reason, some in reasons_to_wake(sleeping, now, run_id).items():
        watched.woken += await wake_runs(client, some, reason)
    unwanted = deleted | {name for name, state in states.items() if is_cancelled(state)}
    await clear_away(jobs, accounts, {each.intent for each in orphans}, unwanted, seen, watched)
    await asyncio.to_thread(forget_waits, jobs, [wait for wait in waits if wait.flow_run in over])
    return watched


def is_cancelled(state: State | None) -> bool:
    """Whether nobody wants the run's jobs any more. Nothing but its process's end leads out of Cancelling."""
    return state is not None and (state.is_cancelled() or state.is_cancelling())


def is_over(state: State | None) -> bool:
    return state is not None and (state.is_final() or state.is_cancelling())


async def states_of(client: PrefectClient, flow_runs: Iterable[str]) -> dict[str, State | None]:
    """The states of flow runs. Those that this server doesn't know are left out."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    ids = sorted(filter(_is_id, flow_runs))
    found: dict[str, State | None] = {}
    for start in range(0, len(ids), RUNS_PER_CALL):
        some = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(name) for name in ids[start : start + RUNS_PER_CALL]]))
        for run in await client.read_flow_runs(flow_run_filter=some, limit=RUNS_PER_CALL):
            found[str(run.id)] = run.state
    return found


def _is_id(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True


async def deleted_runs(client: PrefectClient, waits: Sequence[Wait]) -> set[str]:
    """The flow runs of `waits`, which this server doesn't know, that were deleted from it.

    A run of a deployment that isn't known here may be alive at another server.
    """
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    wanted = sorted({wait.deployment for wait in waits if _is_id(wait.deployment)})
    known: set[str] = set()
    for start in range(0, len(wanted), RUNS_PER_CALL):
        ids = [UUID(name) for name in wanted[start : start + RUNS_PER_CALL]]
        found = await client.read_deployments(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=ids)))
        known |= {str(each.id) for each in found}
    return {wait.flow_run for wait in waits if wait.deployment in known}


def wanted_by(sleeping: Sequence[Wait], records: Sequence[JobRecord]) -> list[JobRecord]:
    """The jobs that sleeping runs wait for. One without an id may just be in the making, by another run."""
    wanted = {intent for wait in sleeping for intent in [*wait.intents, *wait.room]}
    return [record for record in records if record.intent in wanted and record.job]


def orphans_of(records: Sequence[JobRecord], waits: Sequence[Wait], over: set[str]) -> list[JobRecord]:
    """The jobs of runs that are over and that no other run waits for."""
    wanted = {intent for wait in waits if wait.flow_run not in over for intent in wait.intents}
    return [record for record in records if record.flow_run in over and record.intent not in wanted]


def forget_waits(jobs: Jobs, waits: Sequence[Wait]) -> None:
    """Forget what runs waited for that are over, once their jobs have ended too: a deleted run is known by it."""
    open_runs = {record.flow_run for record in jobs.all_open()} if waits else set[str]()
    for wait in waits:
        if wait.flow_run not in open_runs:
            jobs.forget_wait(wait.flow_run)


def note_news(jobs: Jobs, before: Iterable[JobRecord], now: dict[str, JobRecord]) -> None:
    """Write the records of which the provider says something new."""
    for record in before:
        new = now.get(record.intent, record)
        if _news(new) != _news(record):
            jobs.update(new)


def _news(record: JobRecord) -> tuple[object, ...]:
    return (record.state, record.status, record.answered, record.refused, record.message)


def reasons_to_wake(sleeping: Sequence[Wait], now: dict[str, JobRecord], run_id: str | None) -> dict[str, list[str]]:
    """The flow runs that are to be woken, by why.

    Args:
        now: the open jobs, by intent. A job that isn't among them has ended, and another run took its results.
        run_id: the flow run that is woken in any case.
    """

    def ended(intents: Iterable[str]) -> int:
        return sum(intent not in now or now[intent].state != "waiting" for intent in intents)

    found: dict[str, list[str]] = {}
    for wait in sleeping:
        done, room = ended(wait.intents), ended(wait.room)
        if done:
            reason = f"woken by the watcher: {quantity(done, 'job')} ended"
        elif room and wait.queued:
            reason = "woken by the watcher: there may be room in the provider's queue"
        else:
            continue
        found.setdefault(reason, []).append(wait.flow_run)
    if run_id and not any(run_id in some for some in found.values()):
        found.setdefault("woken by hand", []).append(run_id)
    return found


@dataclass
class Account:
    """Jobs at one provider that are read with the same key."""

    llm: OfflineBatchLLM
    records: list[JobRecord] = field(default_factory=list[JobRecord])

    async def find_intents(self, jobs: Jobs, watched: Watched) -> None:
        """Look up what was to be submitted when its run ended. What never was is forgotten."""
        for record in [each for each in self.records if not each.job]:
            self.records.remove(record)
            known = await told_problem(find(jobs, record, self.llm), watched, f"the look-up of intent {record.intent}")
            if known is not None and known.job:
                self.records.append(known)
            elif known is not None and is_forgotten(known):
                await asyncio.to_thread(jobs.void, record)

    async def statuses(self, records: Sequence[JobRecord], watched: Watched) -> dict[str, JobStatus]:
        """How jobs stand, by their ids: from the account's list, and one by one what isn't in it."""
        wanted = {record.job for record in records}
        found: dict[str, JobStatus] = {}
        if len(wanted) > FEW_JOBS:
            since = min(record.intended for record in records) - CLOCK_SKEW
            listing = run_async(self.llm.call_briefly(partial(listed, self.llm, wanted, since)))
            in_list = await told_problem(listing, watched, f"the list of jobs at {self.llm.provider}")
            if in_list is None:
                return {}
            found = in_list
        rest = [job for job in wanted if job not in found]
        asked = [
            told_problem(run_async(self.llm.call_briefly(partial(status_of, self.llm, job))), watched, f"job {job}")
            for job in rest
        ]
        for status in await asyncio.gather(*asked):
            if status is not None:
                found[status.id] = status
        return found


async def status_of(llm: OfflineBatchLLM, job: str) -> JobStatus:
    """How a job stands. One that the provider doesn't know any more has failed: its run says so when it polls."""
    try:
        return await llm.job_status(job)
    except ModelNotFoundError as error:
        return JobStatus(job, "failed", GONE, message=str(error))


async def listed(llm: OfflineBatchLLM, wanted: set[str], since: float) -> dict[str, JobStatus]:
    """Those of the `wanted` jobs that are in the account's list. Gives up where single calls would be fewer."""
    found: dict[str, JobStatus] = {}
    seen = 0
    async for status in llm.list_jobs():
        seen += 1
        if status.id in wanted:
            found[status.id] = status
        if len(found) == len(wanted) or 0 < status.created < since or seen >= JOBS_PER_PAGE * len(wanted):
            break
    return found


def by_account(records: Iterable[JobRecord], watched: Watched) -> list[Account]:
    """The jobs, by the account that they are read with."""
    llms: dict[bytes, OfflineBatchLLM] = {}
    accounts: dict[object, Account] = {}
    for record in {each.intent: each for each in records}.values():
        described = orjson.dumps(record.llm, option=orjson.OPT_SORT_KEYS)
        try:
            llm = llms.get(described) or llms.setdefault(described, llm_of(record))
            accounts.setdefault(llm.account, Account(llm)).records.append(record)
        except Exception as error:  # noqa: BLE001 -- the class may be a user's, whose validators raise anything; it's among the problems
            watched.problems.append(f"the LLM of job {record.job or record.intent}, of step {record.step!r}: {error}")
    return list(accounts.values())


async def seen_now(accounts: Iterable[Account], watched: Watched) -> dict[str, JobStatus]:
    """How all jobs stand, by their ids."""
    every = [each for each in accounts if each.records]
    watched.asked += sum(len(each.records) for each in every)
    found = await asyncio.gather(*(each.statuses(each.records, watched) for each in every))
    return {job: status for some in found for job, status in some.items()}


async def clear_away(
    jobs: Jobs,
    accounts: Iterable[Account],
    orphans: set[str],
    unwanted: set[str],
    seen: dict[str, JobStatus],
    watched: Watched,
) -> None:
    """Take what the jobs of ended runs gave; cancel those that are open, where their run is in `unwanted`."""
    places = asyncio.Semaphore(SETTLED_AT_A_TIME)

    async def keep(account: Account, record: JobRecord, status: JobStatus) -> None:
        if status.status == GONE:
            # Nobody will miss it: its run is over.
            await asyncio.to_thread(jobs.end, record.seen(status))
            return
        async with places:
            kept = await told_problem(settle(jobs, record, status, account.llm), watched, f"job {record.job}")
        if kept is not None:
            watched.settled.append(record.job)

    async def clear(account: Account) -> None:
        ours = {each.job: each for each in account.records if each.intent in orphans}
        stopping = [each for each in ours.values() if each.flow_run in unwanted and is_open(seen.get(each.job))]
        await asyncio.gather(*(cancel(account, each, watched) for each in stopping))
        known = {job: seen[job] for job in ours if job in seen}
        for seconds in (0.0, *SECONDS_TO_CANCEL):
            await asyncio.sleep(seconds)
            if seconds:
                known = await account.statuses(stopping, watched)
            done = [job for job, status in known.items() if not is_open(status)]
            await asyncio.gather(*(keep(account, ours[job], known[job]) for job in done))
            stopping = [each for each in stopping if each.job not in done]
            if not stopping:
                return
        await asyncio.to_thread(
            note_news,
            jobs,
            stopping,
            {each.intent: each.seen(known[each.job]) for each in stopping if each.job in known},
        )

    clearing = [
        told_problem(clear(each), watched, f"the jobs of ended runs at {each.llm.provider}") for each in accounts
    ]
    await asyncio.gather(*clearing)


def is_open(status: JobStatus | None) -> bool:
    return status is not None and status.state == "waiting"


async def cancel(account: Account, record: JobRecord, watched: Watched) -> None:
    run_logger().info("%s: cancels job %s, whose run was cancelled", record.step, record.job)
    try:
        await run_async(account.llm.call_briefly(partial(account.llm.cancel_job, record.job)))
    except BadRequestError:
        # It has ended meanwhile, as the next poll at it will show.
        return
    except LLMError as error:
        watched.problems.append(f"the cancellation of job {record.job}: {type(error).__name__}: {error}")
    else:
        watched.cancelled.append(record.job)


async def told_problem(work: Awaitable[T], watched: Watched, what: str) -> T | None:
    """What `work` returns; None where it fails, and the pass says so at its end."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 -- the adapter may be a user's, and raise anything; it's told, and the others go on
        watched.problems.append(f"{what}: {type(error).__name__}: {error}")
        return None
