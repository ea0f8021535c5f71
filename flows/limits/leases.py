"""Limits that processes and machines share: places at a provider, leased from a Prefect concurrency limit.

Make a global concurrency limit `llm-<provider>-<model>` in Prefect (or name another in an LLM's `shared_limit`), and
the requests of all runs keep to it together: `prefect gcl create llm-openai-gpt-4o --limit 200`. It may be changed
while they run.

A process polls the limit once a second, takes the places that its requests could use, and gives back what they
don't. A second limit, `<name>.processes`, counts the processes; each may have its share, and more while some places
stay free. When none is free somebody may be short of places, and who has more than a share gives some back. Leases
last a minute and are renewed, so those of a process that died end by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from flows.limits.policy import LimitSnapshot, change_of, parts, some_of
from flows.store.context import in_flow_run
from llms.base import AsyncLLM
from llms.limits import Limiter
from llms.loop import run_async
from tasks.base import ModelStep
from tasks.steps import Step

if TYPE_CHECKING:
    import httpx
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import ConcurrencyLeaseHolder
    from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""The shortest that Prefect gives."""
MEMBER_SECONDS = 120.0
"""A process is counted until after the end of the last of its places."""
RENEWED_AFTER = 20.0
QUIET_SECONDS = 150.0
"""No process that works leaves the count of processes alone for as long."""
CERTAIN_AFTER = 80.0
"""Seconds after a call without an answer: if it gave a lease, that has ended."""
PATIENCE = 300.0
"""Seconds in which processes that have more than a share give some of it to one that has less."""
SECONDS_PER_POLL = 1.0
SECONDS_PER_QUICK_POLL = 0.4
LONGEST_POLL = 10.0
LONGEST_RENEWAL = 25.0
"""It begins before leases are half as old as they get, and what it leaves comes first in the next one."""
SECONDS_WHERE_LOCKED = 0.1
"""A server on SQLite refuses what two clients write at a time. Prefect's own clients wait for 2 s then."""
POLLS_REMEMBERED = 3
MOST_PROCESSES = 100_000


def shared_limit_of(llm: AsyncLLM) -> str:
    """The name of the limit in Prefect that an LLM keeps to, where there is one."""
    return llm.shared_limit or f"llm-{re.sub(r'[^A-Za-z0-9._-]+', '-', f'{llm.provider}-{llm.model_name}')}"


@contextlib.asynccontextmanager
async def shared_limits(steps: Iterable[Step]) -> AsyncGenerator[None]:
    """Keep the LLMs of these steps to the limits that Prefect has for them, for as long as the steps work."""
    llms = [step.answerer for step in steps if isinstance(step, ModelStep) and isinstance(step.answerer, AsyncLLM)]
    there = await _there({shared_limit_of(llm) for llm in llms}) if llms and in_flow_run() else set[str]()
    kept_to = [llm for llm in llms if shared_limit_of(llm) in there]
    if not kept_to:
        yield
        return
    entered = await run_async(_enter(kept_to))
    try:
        yield
    finally:
        await run_async(_leave(entered))


async def _there(names: set[str]) -> set[str]:
    """Those of the limits that there are."""
    from prefect.client.orchestration import get_client

    try:
        async with get_client() as client:
            return {name for name in names if await _limit(client, name) is not None}
    except Exception as error:  # noqa: BLE001 -- httpx's, Prefect's and a server's own errors share no base; it's warned of
        logger.warning("can't ask Prefect for shared limits (%s): this run keeps to its own", error)
        return set()


_shared: dict[int, SharedLimit] = {}
"""What this process keeps to, by the id of the limiter. Used on the request loop only, as the rest of this file."""


async def _enter(llms: Sequence[AsyncLLM]) -> list[SharedLimit]:
    limiters = {id(llm.limiter()): (shared_limit_of(llm), llm.limiter()) for llm in llms}
    entered = [_shared.setdefault(key, SharedLimit(*each)) for key, each in limiters.items()]
    for shared in entered:
        shared.enter()
    return entered


async def _leave(entered: Sequence[SharedLimit]) -> None:
    ended = [shared for shared in entered if shared.leave()]
    for shared in ended:
        del _shared[id(shared.limiter)]
    await asyncio.gather(*(shared.end() for shared in ended))


@dataclass
class Lease:
    """Some places, until they are given back or not renewed."""

    id: UUID
    places: int
    renewed: float
    """By the clock on the wall, as it ends by that, also while a machine sleeps."""


class SharedLimit:
    """A limit in Prefect, and what this process has of it. Lives on the request loop."""

    def __init__(self, name: str, limiter: Limiter) -> None:
        self.name, self.limiter = name, limiter
        self.counted = f"{name}.processes"
        self.leases: list[Lease] = []
        self.members: list[Lease] = []
        """The last counts this process; those before it are still to be given back."""
        self._limit_id: UUID | None = None
        self._users = 0
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False
        self._wake = asyncio.Event()
        self._enough = False
        """Whether there was a place for each request: one that finds none is news."""
        self._hurry = True
        self._wanted: deque[int] = deque(maxlen=POLLS_REMEMBERED)
        self._change = 0
        """What it took or gave back at the last poll."""
        self._in_turn = False
        """Whether it's to give back what is more than an equal share."""
        self._lost = 0
        """Places that are taken and nobody's, it seems."""
        self._forgotten = False
        """Whether the server forgot its leases, and they aren't all renewed yet."""
        self._renewed, self._unsure = time.time(), time.time() - CERTAIN_AFTER
        self._woken, self._not_short, self._failing_since, self._said = 0.0, time.monotonic(), 0.0, False

    @property
    def held(self) -> int:
        return sum(lease.places for lease in self.leases)

    @property
    def wanted(self) -> int:
        limiter = self.limiter
        # Where places are free and requests wait nevertheless, they wait for something else.
        waiting = limiter.waiting if limiter.leased is None or limiter.in_flight >= limiter.leased else 0
        return min(int(limiter.allowed), limiter.in_flight + waiting)

    @property
    def _is_sure(self) -> bool:
        """Whether it knows all its leases."""
        return time.time() - self._unsure >= CERTAIN_AFTER

    def enter(self) -> None:
        """Another run keeps to it. The first sends nothing before there are places."""
        self._users += 1
        if self._keeper is None:
            self.limiter.lease(0)
            self.limiter.when_short = self._note_request
            self._keeper = asyncio.create_task(self._keep())

    def leave(self) -> bool:
        """A run ended. Returns whether it was the last: then it's told no more, and `end` gives everything back."""
        self._users -= 1
        if self._users == 0:
            self._stopping = True
            self.limiter.when_short = None
            self.limiter.lease(None)
            self._wake.set()
        return self._stopping

    async def end(self) -> None:
        """Give everything back. What can't be ends by itself."""
        if self._keeper is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._keeper, LONGEST_POLL)

    async def _keep(self) -> None:
        """Poll the limit again and again."""
        from prefect.client.orchestration import get_client

        try:
            async with get_client(httpx_settings={"event_hooks": {"response": [_try_soon_again]}}) as client:
                while not self._stopping:
                    await self._poll_or_say(client)
                    await self._pause()
                await _release(client, self.leases)
                # Last, and not where there may be a lease it doesn't know: one who is alone frees what is left.
                if self._is_sure:
                    await _release(client, self.members)
        except Exception as error:  # noqa: BLE001 -- errors without a common base, as above; leases end by themselves
            logger.warning("the shared limit %r is kept to no longer (%s)", self.name, error)
            self._tell(None)

    async def _pause(self) -> None:
        """Until the next poll, or a request finds no place."""
        self._enough = not self._hurry and self.wanted <= self.held
        idle = not (self.held or self.wanted or self._failing_since)
        seconds = SECONDS_PER_QUICK_POLL if self._hurry else RENEWED_AFTER if idle else SECONDS_PER_POLL
        # Not in step with other processes.
        if await self._woken_within(seconds * random.uniform(0.9, 1.1)):
            now = time.monotonic()
            if now - self._woken < SECONDS_PER_POLL:
                self._enough = False
                await self._woken_within(SECONDS_PER_QUICK_POLL)
            self._woken = now

    async def _woken_within(self, seconds: float) -> bool:
        if self._stopping:
            return True
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _note_request(self) -> None:
        if self._enough:
            self._wake.set()

    async def _poll_or_say(self, client: PrefectClient) -> None:
        """Poll. A server that is away changes nothing until it's back."""
        import httpx

        try:
            async with asyncio.timeout(LONGEST_POLL) as time_limit:
                await self._poll(client, time_limit)
        except Exception as error:  # noqa: BLE001 -- httpx, Prefect and a server raise what they like: it polls again
            now = time.monotonic()
            if not isinstance(error, httpx.HTTPStatusError | httpx.ConnectError):
                self._unsure = time.time()
            self._failing_since = self._failing_since or now
            if now - self._failing_since > LONGEST_POLL and not self._said:
                logger.warning("can't poll the shared limit %r (%s): what this process has stays", self.name, error)
                self._hurry, self._said = False, True
        else:
            self._failing_since, self._said = 0.0, False

    async def _poll(self, client: PrefectClient, time_limit: asyncio.Timeout) -> None:
        """Take or give back places as the limit stands, and renew what is kept."""
        counted = await _limit(client, self.counted)
        if not self.members or counted is None:
            counted = await self._join(client, counted)
        # After the count: who leaves gives back its places first.
        limit = await _limit(client, self.name)
        if limit is None or limit.id != self._limit_id:
            # Deleted, and perhaps made anew: places of the old one are worth nothing.
            self.leases.clear()
            self._limit_id = limit.id if limit else None
        renewing = time.time() - self._renewed >= RENEWED_AFTER
        if renewing:
            _extend(time_limit, LONGEST_RENEWAL)
            await self._renew(client)
            _extend(time_limit, LONGEST_POLL)
        if limit is None or not limit.active:
            # Places are kept while it's switched off: Prefect doesn't count what is given back then.
            self._tell(None)
            self._hurry = False
            return
        seen = self._snapshot(limit, counted)
        self._in_turn = self._in_turn or renewing
        self._change = change_of(seen, again=self._change < 0, in_turn=self._in_turn)
        if self._change > 0:
            await self._take_places(client, self._change)
        all_given = await self._give_back(client, max(0, -self._change))
        self._in_turn = self._in_turn and not all_given
        await self._find_lost(client, seen)
        self._hurry = self._change > 0 or not all_given or seen.is_short or self._lost > 0

    def _snapshot(
        self, limit: GlobalConcurrencyLimitResponse, counted: GlobalConcurrencyLimitResponse | None
    ) -> LimitSnapshot:
        # A run that begins will soon send as much as it may.
        self._wanted.append(self.wanted if self._wanted else int(self.limiter.allowed))
        return LimitSnapshot(
            wanted=self._wanted[-1],
            needed=max(self._wanted),
            held=self.held,
            limit=limit.limit,
            taken=limit.active_slots,
            processes=max(1, counted.active_slots if counted else 1),
        )

    async def _join(
        self, client: PrefectClient, before: GlobalConcurrencyLimitResponse | None
    ) -> GlobalConcurrencyLimitResponse | None:
        """Count this process. Returns the limit that counts."""
        from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
        from prefect.exceptions import ObjectAlreadyExists

        if before is None:
            self.members.clear()
            with contextlib.suppress(ObjectAlreadyExists):
                await client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(name=self.counted, limit=MOST_PROCESSES)
                )
        await self._count(client)
        now = await _limit(client, self.counted)
        if before is not None and now is not None and before.updated is not None and now.updated is not None:
            quiet = (now.updated - before.updated).total_seconds() > QUIET_SECONDS
            if quiet and now.active_slots == before.active_slots + 1:
                await _take_off(client, self.counted, before.active_slots)
                return await _limit(client, self.counted)
        return now

    async def _count(self, client: PrefectClient) -> None:
        """Count this process anew. What counted it before is given back by `_renew`."""
        member = await _take(client, self.counted, 1, MEMBER_SECONDS)
        if member is not None:
            self.members.append(member)

    async def _renew(self, client: PrefectClient) -> None:
        """Renew what is kept, and show that this process is alive.

        A server that keeps its leases in memory, as it does by default, forgets them when it's started anew, and
        counts their places forever.
        """
        began = time.time()
        # One that was cut off goes on where it was.
        if not self.members or began - self.members[-1].renewed >= RENEWED_AFTER:
            await self._count(client)
        for old in self.members[:-1]:
            if not await _renewed(client, old, MEMBER_SECONDS) and time.time() - old.renewed < MEMBER_SECONDS:
                self._forgotten = True
                # First, so that it's taken off once where the answer is lost: who counts too few takes others' places.
                self.members.remove(old)
                await _take_off(client, self.counted, 1)
            else:
                # Where the answer is lost, it's tried again; gone by then, it isn't one that was forgotten.
                old.renewed = 0.0
                await client.release_concurrency_slots_with_lease(old.id)
                self.members.remove(old)
        for lease in sorted(self.leases, key=lambda lease: lease.renewed):
            if self._stopping:
                # All of them are about to be given back.
                return
            if not await _renewed(client, lease, LEASE_SECONDS):
                self.leases.remove(lease)
                # By the clock after the answer: one that ended while the server was slow isn't counted any more.
                if self._forgotten or time.time() - lease.renewed < LEASE_SECONDS:
                    await _take_off(client, self.name, lease.places)
        self._renewed, self._forgotten = began, False

    async def _find_lost(self, client: PrefectClient, seen: LimitSnapshot) -> None:
        """Free places that belong to nobody any more."""
        now = time.monotonic()
        alone = seen.processes == 1 and self._is_sure
        lost = max(0, seen.taken - seen.held) if alone else 0
        # Seen twice: somebody may come or go between two calls.
        surely = min(lost, self._lost)
        self._lost = lost - surely
        if not seen.missing:
            self._not_short = now
        elif now - self._not_short > PATIENCE:
            logger.warning(
                "some places of the limit %r seem to belong to nobody who works: of %d, %d are used here."
                " When no run works, free all: prefect gcl update %s --active-slots 0",
                self.name,
                seen.limit,
                seen.missing,
                self.name,
            )
            surely, self._not_short = seen.missing, now
        await _take_off(client, self.name, surely)

    async def _take_places(self, client: PrefectClient, places: int) -> None:
        for part in parts(places):
            lease = await _take(client, self.name, part, LEASE_SECONDS)
            if lease is None:
                return
            self.leases.append(lease)
            self._tell(self.held)

    async def _give_back(self, client: PrefectClient, places: int) -> bool:
        """Give back so many places, or some more. Returns whether that is done, or some still have requests."""
        given = [self.leases[position] for position in some_of([lease.places for lease in self.leases], places)]
        self._tell(self.held - sum(lease.places for lease in given))
        for lease in given:
            if self.held - lease.places < self.limiter.in_flight:
                return False
            self.leases.remove(lease)
            await client.release_concurrency_slots_with_lease(lease.id)
        return True

    def _tell(self, places: int | None) -> None:
        if not self._stopping:
            self.limiter.lease(places)


def _extend(time_limit: asyncio.Timeout, seconds: float) -> None:
    """Leave at least so many seconds from now."""
    when = time_limit.when()
    assert when is not None
    time_limit.reschedule(max(when, asyncio.get_running_loop().time() + seconds))


async def _try_soon_again(response: httpx.Response) -> None:
    if response.status_code == 503:
        response.headers.setdefault("Retry-After", str(SECONDS_WHERE_LOCKED))


async def _limit(client: PrefectClient, name: str) -> GlobalConcurrencyLimitResponse | None:
    from prefect.exceptions import ObjectNotFound

    try:
        return await client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        return None


async def _take(client: PrefectClient, name: str, places: int, seconds: float) -> Lease | None:
    """A lease of places; None where there aren't as many, or no such limit."""
    import httpx

    now = time.time()
    try:
        answer = await client.increment_concurrency_slots_with_lease([name], places, "concurrency", seconds, _holder())
    except httpx.HTTPStatusError as error:
        if error.response.status_code in (422, 423):
            return None
        raise
    given = answer.json()
    return Lease(UUID(given["lease_id"]), places, now) if given["limits"] else None


def _holder() -> ConcurrencyLeaseHolder | None:
    from prefect.client.schemas.objects import ConcurrencyLeaseHolder
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return ConcurrencyLeaseHolder(type="flow_run", id=run.id) if run else None


async def _renewed(client: PrefectClient, lease: Lease, seconds: float) -> bool:
    """Renew a lease; False where the server doesn't know it."""
    import httpx

    now = time.time()
    try:
        await client.renew_concurrency_lease(lease.id, seconds)
    except httpx.HTTPStatusError as error:
        if error.response.status_code == 410:
            return False
        raise
    lease.renewed = now
    return True


async def _release(client: PrefectClient, leases: Sequence[Lease]) -> None:
    """Give all of them back that can be, and raise what one of the others met."""
    calls = (client.release_concurrency_slots_with_lease(each.id) for each in leases)
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _take_off(client: PrefectClient, name: str, places: int) -> None:
    """Take places that no lease stands for off a limit."""
    if places > 0:
        await client.release_concurrency_slots([name], places, occupancy_seconds=1.0)
