"""A receiver of OpenAI's webhooks: a run that waits for a batch job goes on within seconds of the job's end.

    export PREFECT_API_URL=... STILLFLOW_STORAGE=... OPENAI_WEBHOOK_SECRET=whsec_...
    python -m flows webhook --host 0.0.0.0 --port 8400

It runs beside the Prefect server, reached from outside through a proxy with TLS. At OpenAI, make a webhook
endpoint with the address `https://<your host>/openai` and the events `batch.completed`, `batch.failed`,
`batch.expired` and `batch.cancelled`; its signing secret is what OPENAI_WEBHOOK_SECRET holds. Runs without
a webhook, and jobs whose webhook got lost, are polled by their own schedule all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from flows.engine.errors import SetupError
from flows.ledger.records import JobRecord, Jobs, Wait
from flows.store.storage import storage_at
from flows.waiting.wake import wake_runs
from llms.quantities import quantity
from llms.secrets import know

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

logger = logging.getLogger(__name__)

EVENTS = {"batch.completed", "batch.failed", "batch.expired", "batch.cancelled"}
SECRET_VARIABLE = "OPENAI_WEBHOOK_SECRET"
SECRET_BLOCK = "openai-webhook-secret"
LONGEST_BODY = 1_000_000
REMEMBERED = 10_000
"""Events that are known again when they are sent twice."""
SECONDS_TO_NEXT_TRY = (2.0, 5.0, 10.0, 20.0, 40.0, *[60.0] * 10)
"""A run may be busy submitting or polling when its job ends, and sleep only then."""
TRIES_OF_UNKNOWN = 4
"""A job may end before it's known which it is; most that stay unknown are others'."""
READERS = 8
REASON = "Woken by a webhook: a batch job has ended"


@dataclass
class OpenJobs:
    """The open jobs of a storage by their ids at the provider. Listed anew only where one isn't known."""

    jobs: Jobs
    _records: dict[str, JobRecord] = field(default_factory=dict[str, JobRecord])
    """By their places in the storage; without an id yet, they are read again."""
    _places: dict[str, str] = field(default_factory=dict[str, str])

    def find(self, job: str) -> JobRecord | None:
        """The record of an open job."""
        place = self._places.get(job)
        if place is not None and not self.jobs.storage.exists(place):
            return None
        return self._records[place] if place is not None else None

    def know(self, wanted: Sequence[str]) -> None:
        """Get to know jobs, as far as the storage does."""
        if all(job in self._places for job in wanted):
            return
        places = self.jobs.open_paths()
        unread = [place for place in places if place not in self._records]
        with ThreadPoolExecutor(READERS) as readers:
            read = dict(zip(unread, readers.map(self.jobs.record_at, unread), strict=True))
        records = {place: self._records.get(place) or read[place] for place in places}
        self._records = {place: record for place, record in records.items() if record is not None and record.job}
        self._places = {record.job: place for place, record in self._records.items()}


@dataclass(eq=False)
class Event:
    """An ended job that somebody may wait for."""

    kind: str
    job: str
    answer: asyncio.Future[str | None]
    """What came of its first try; None where it couldn't be seen to."""
    tries: int = 0


@dataclass(eq=False)
class Receiver:
    """Takes events, and wakes the runs that wait for their jobs. Events that come together are seen to together."""

    jobs: Jobs
    client: PrefectClient
    known: OpenJobs = field(init=False)
    queue: asyncio.Queue[Event] = field(default_factory=asyncio.Queue[Event])

    def __post_init__(self) -> None:
        self.known = OpenJobs(self.jobs)

    async def take(self, kind: str, job: str) -> str | None:
        """Wake who waits for a job. Returns what was done; None where nothing can be done now."""
        event = Event(kind, job, asyncio.get_running_loop().create_future())
        self.queue.put_nowait(event)
        return await event.answer

    async def work(self) -> None:
        """See to events as they come, until cancelled."""
        while True:
            events = [await self.queue.get()]
            while not self.queue.empty():
                events.append(self.queue.get_nowait())
            try:
                await self._see_to(events)
            except Exception:
                # Whatever it is, a storage or a server that isn't there: those that come after are seen to.
                logger.exception("%d events can't be seen to now", len(events))
                for event in events:
                    if event.answer.done():
                        self._try_again(event)
                    else:
                        event.answer.set_result(None)

    async def _see_to(self, events: Sequence[Event]) -> None:
        await asyncio.to_thread(self.known.know, [event.job for event in events])
        records = {event.job: await asyncio.to_thread(self.known.find, event.job) for event in events}
        # Most jobs have no other run waiting than the one that submitted them, and that is known at once.
        woken = await self._wake(record.flow_run for record in records.values() if record is not None)
        waits = await asyncio.to_thread(self.jobs.waits) if any(records.values()) else []
        waiters = {job: _waiters(record, waits) for job, record in records.items()}
        woken |= await self._wake(set[str]().union(*waiters.values()))
        for event in events:
            self._conclude(event, records[event.job], sorted(woken & waiters[event.job]))

    async def _wake(self, flow_runs: Iterable[str]) -> set[str]:
        return set(await wake_runs(self.client, flow_runs, REASON))

    def _conclude(self, event: Event, record: JobRecord | None, woken: list[str]) -> None:
        if woken:
            said = f"woke {quantity(len(woken), 'run')}"
            logger.info("%s %s: %s: %s", event.kind, event.job, said, ", ".join(woken))
        elif record is None:
            said = "nothing waits for it"
            if event.tries == 0:
                logger.info("%s %s: %s", event.kind, event.job, said)
        else:
            said = "its run is awake"
            logger.info("%s %s: %s", event.kind, event.job, said)
        if not event.answer.done():
            event.answer.set_result(said)
        # Once the run has taken the results, the record is gone from the open ones.
        if not woken and (record is not None or event.tries < TRIES_OF_UNKNOWN):
            self._try_again(event)

    def _try_again(self, event: Event) -> None:
        if event.tries < len(SECONDS_TO_NEXT_TRY):
            pause = SECONDS_TO_NEXT_TRY[event.tries]
            event.tries += 1
            asyncio.get_running_loop().call_later(pause, self.queue.put_nowait, event)


def _waiters(record: JobRecord | None, waits: Sequence[Wait]) -> set[str]:
    """The flow runs that a job's end concerns: the one that submitted it, and those that need its answers or room."""
    if record is None:
        return set()
    return {record.flow_run, *(each.flow_run for each in waits if record.intent in {*each.intents, *each.room})}


def webhook_app(jobs: Jobs, secret: str) -> Starlette:
    """The receiver as an ASGI app: `POST /openai` for events, `GET /health` for whoever watches it.

    Args:
        jobs: those of the storage that the runs use.
        secret: the signing secret of the webhook endpoint.
    """
    from openai import OpenAI
    from prefect.client.orchestration import get_client
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    webhooks = OpenAI(api_key="not-used").webhooks
    seen: OrderedDict[str, str] = OrderedDict()
    running: list[Receiver] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with get_client() as client:
            running.append(Receiver(jobs, client))
            worker = asyncio.create_task(running[0].work())
            yield
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker

    async def receive(request: Request) -> Response:
        body = await _body_of(request)
        if body is None:
            return JSONResponse({"error": f"the body has more than {LONGEST_BODY:,} bytes"}, 413)
        try:
            event: Any = webhooks.unwrap(body, request.headers, secret=secret)
        except ValueError as error:
            logger.warning("refused a webhook: %s", error)
            return JSONResponse({"error": str(error)}, 400)
        kind = getattr(event, "type", None)
        job = getattr(getattr(event, "data", None), "id", None)
        if kind not in EVENTS or not isinstance(job, str):
            return JSONResponse({"message": f"{kind!r} is of no interest here"})
        name = request.headers["webhook-id"]
        if name not in seen:
            said = await running[0].take(kind, job)
            if said is None:
                return JSONResponse({"error": "it can't be seen to now; send it again"}, 503)
            seen[name] = said
            while len(seen) > REMEMBERED:
                seen.popitem(last=False)
        return JSONResponse({"message": seen[name]})

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    routes = [Route("/openai", receive, methods=["POST"]), Route("/health", health)]
    return Starlette(routes=routes, lifespan=lifespan)


async def _body_of(request: Request) -> bytes | None:
    """The request's body; None where it's longer than any event."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_BODY:
            return None
    return bytes(body)


def webhook_secret(block: str = SECRET_BLOCK) -> str:
    """The signing secret: OPENAI_WEBHOOK_SECRET, or what the Prefect Secret block of that name holds.

    Raises:
        SetupError: there is none.
    """
    from prefect.blocks.system import Secret

    given = os.environ.get(SECRET_VARIABLE)
    if not given:
        try:
            found = cast("Secret[Any]", Secret.load(block, _sync=True))  # pyright: ignore[reportCallIssue]
        except ValueError:
            raise SetupError(
                f"there's no signing secret for webhooks: set {SECRET_VARIABLE} to the one that OpenAI showed when the"
                f" endpoint was made (whsec_...), or keep it in a Prefect Secret block named {block!r}"
            ) from None
        given = str(found.get())
    know(given)
    return given.strip()


def serve_webhooks(host: str, port: int, block: str = SECRET_BLOCK) -> None:
    """Receive webhooks until the process is ended.

    Raises:
        SetupError: there's no Prefect server, or no signing secret.
    """
    import uvicorn
    from prefect.settings import get_current_settings

    if not get_current_settings().api.url:
        raise SetupError("there's no Prefect server whose runs could be woken: set PREFECT_API_URL to its address")
    app = webhook_app(Jobs(storage_at()), webhook_secret(block))
    logger.info("webhooks are taken at http://%s:%d/openai, for the runs in %s", host, port, storage_at().root)
    uvicorn.run(app, host=host, port=port, log_level="warning")
