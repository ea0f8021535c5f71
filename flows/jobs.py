"""Batch jobs as the storage knows them: what was submitted, what came back, and who waits for it.

A job's record is written before the job is created, and carries what the job can be found by at the
provider: after a crash in between, the job is looked up before another is created.
"""

from __future__ import annotations

import contextlib
import posixpath
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import orjson
from pydantic import TypeAdapter

from flows.digest import digest
from flows.journal import Journal
from flows.log import run_logger
from flows.markdown import markdown_table
from flows.storage import Storage, StorageError
from llms import LLMError
from llms.batch import MARK, BatchResult, JobStatus, OfflineBatchLLM
from llms.errors import AuthenticationError, ModelNotFoundError, QueueFullError, failure_of
from llms.loop import run_async
from llms.registry import AnyModel

RESULTS_AT_A_TIME = 5_000
"""Results that are held before they are written to the journals of their shards."""
NUMBERS_AT_A_TIME = 2_000_000
"""The same for the numbers of their vectors, which take some 32 bytes each, and for each 32 characters of texts."""
FEWEST_TOKENS = 10_000
"""Of a job, where a provider refuses ever smaller ones without a word on how many it takes."""
CLOCK_SKEW = 300.0
"""Seconds that a provider's clock may differ from ours."""


@dataclass(frozen=True)
class JobRecord:
    """A batch job, or the intent to create one."""

    intent: str
    """A name of ours, in the job's metadata as `llms.batch.MARK`."""
    run: str
    attempt: str
    flow_run: str
    """Id of the Prefect flow run that submitted it; empty outside of any."""
    step: str
    folder: str
    """The step's folder in the storage, relative to its root."""
    llm: dict[str, Any]
    queue: str
    """What shares a quota of enqueued tokens: see `queue_of`."""
    requests: int
    size: int
    """Bytes of the file."""
    tokens: int
    shards: dict[str, str]
    """The digest of each shard's inputs, by its place."""
    sample: list[str]
    """A few of its `custom_id`s."""
    intended: float
    dollars: float | None = None
    """The estimate of its cost."""
    job: str = ""
    """The provider's id; empty as long as it isn't known to exist."""
    page: str = ""
    state: str = "waiting"
    status: str = "submitting"
    answered: int = 0
    refused: int = 0
    message: str = ""
    looked: float = 0.0
    ended: float = 0.0
    lost: str = ""
    """The attempt of a run that was told that the provider doesn't know it any more."""

    def seen(self, status: JobStatus) -> JobRecord:
        """The record with what the provider says now."""
        return replace(
            self,
            job=status.id,
            page=status.page or self.page,
            state=status.state,
            status=status.status,
            answered=status.answered,
            refused=status.refused,
            message=status.message,
            looked=time.time(),
        )

    @property
    def key(self) -> str:
        return digest(self.folder)


class JobGoneError(LLMError):
    """The provider doesn't have a job, or its results, that it had."""

    fatal = True

    def __init__(self, record: JobRecord, error: LLMError) -> None:
        super().__init__(
            f"{record.step}: the provider doesn't have batch job {record.job!r} or its results any more"
            f" ({error}): they were deleted, or made with other credentials. If these have changed, set them back. If"
            f" the job is gone, retry the run: what is missing of its {record.requests:,} requests is then submitted,"
            " and paid, again"
        )
        self.record = record


@dataclass(frozen=True)
class Wait:
    """A flow run that waits for batches."""

    run: str
    flow_run: str
    folders: list[str]
    intents: list[str]
    queued: int
    since: float
    next_look: float
    room: list[str] = field(default_factory=list[str])
    """The open jobs, of any run, whose end makes room in the provider's queue."""
    deployment: str = ""
    """Id of the flow run's deployment."""


@dataclass(frozen=True)
class RunNote:
    """What a run has to know of itself when it wakes up."""

    attempt: str
    run_count: int
    """Prefect's count when it left: the next one is a wake-up, any other a retry. 0: it didn't leave."""
    approved: float = 0.0
    """Dollars that a person agreed to."""
    approved_unpriced: bool = False
    """Whether a person agreed to requests whose price isn't known."""
    artifacts: dict[str, str] = field(default_factory=dict[str, str])
    saved: dict[str, str] = field(default_factory=dict[str, str])
    """A digest of the rows that each target got, by the last step: they aren't saved anew at every wake-up."""


class Jobs:
    """The records of batch jobs in a storage.

    Open ones lie in `jobs/open`, by step; ended ones in `jobs/ended`, by run. After a crash an ended one may
    lie among the open ones as well: its results are taken once more, which changes nothing.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def _open_path(self, record: JobRecord) -> str:
        return self.storage.path("jobs", "open", record.key, f"{record.intent}.json")

    def relative(self, folder: str) -> str:
        """A folder of the storage without its root, so that another machine may see it elsewhere."""
        return self.storage.inside(folder)

    def open_of(self, folder: str) -> list[JobRecord]:
        """The open jobs of a step, by its folder relative to the root."""
        return self._read(self.storage.path("jobs", "open", digest(folder)))

    def all_open(self) -> list[JobRecord]:
        """The open jobs of all steps. Records that can't be read are left out, with a warning."""
        found: list[JobRecord] = []
        for folder in self.storage.folders(self.storage.path("jobs", "open")):
            for path in self.storage.files(folder, ".json"):
                try:
                    record = self.record_at(path)
                except StorageError as error:
                    run_logger().warning("%s", error)
                    continue
                found += [record] if record is not None else []
        return found

    def open_paths(self) -> list[str]:
        """Where the records of all open jobs are."""
        return self.storage.files_below(self.storage.path("jobs", "open"), ".json")

    def record_at(self, path: str) -> JobRecord | None:
        """The record at `path`; None once it's gone. Raises StorageError where it can't be read."""
        try:
            return JobRecord(**orjson.loads(self.storage.read(path)))
        except FileNotFoundError:
            return None
        except (orjson.JSONDecodeError, TypeError) as error:
            intent = posixpath.basename(path).removesuffix(".json")
            raise StorageError(
                f"the record of a batch job, {path!r}, can't be read: {error}. It's damaged, or of a later version of"
                f" this program. To give the job up (in its metadata {MARK!r} is {intent!r}), delete the file: its"
                " requests are then submitted again, and paid again"
            ) from None

    def ended_of(self, run: str) -> list[JobRecord]:
        return self._read(self.storage.path("jobs", "ended", run))

    def _read(self, folder: str) -> list[JobRecord]:
        found = (self.record_at(path) for path in self.storage.files(folder, ".json"))
        return [record for record in found if record is not None]

    def write(self, record: JobRecord) -> None:
        self.storage.write(self._open_path(record), orjson.dumps(asdict(record)))

    def update(self, record: JobRecord) -> None:
        """Write a record anew, unless its run has ended the job meanwhile."""
        if self.storage.exists(self._open_path(record)):
            self.write(record)

    def end(self, record: JobRecord) -> None:
        """Note that all that a job gave is in the journals."""
        ended = replace(record, ended=time.time())
        path = self.storage.path("jobs", "ended", record.run, f"{record.intent}.json")
        self.storage.write(path, orjson.dumps(asdict(ended)))
        self.storage.remove(self._open_path(record))

    def void(self, record: JobRecord) -> None:
        """Forget a job that was never created, or was refused as a whole and for nothing."""
        self.storage.remove(self._open_path(record))

    def _wait_path(self, flow_run: str) -> str:
        # Not by run: one that completes another's rows shares its id.
        return self.storage.path("waits", f"{flow_run}.json")

    def write_wait(self, wait: Wait) -> None:
        self.storage.write(self._wait_path(wait.flow_run), orjson.dumps(asdict(wait)))

    def wait_of(self, flow_run: str) -> Wait | None:
        """What a run waits for, where it waits and that can be read."""
        return self._wait_at(self._wait_path(flow_run))

    def forget_wait(self, flow_run: str) -> None:
        self.storage.remove(self._wait_path(flow_run))

    def waits(self) -> list[Wait]:
        """What all runs wait for. Those that can't be read are left out, with a warning."""
        found = (self._wait_at(path) for path in self.storage.files(self.storage.path("waits"), ".json"))
        return [wait for wait in found if wait is not None]

    def _wait_at(self, path: str) -> Wait | None:
        try:
            return Wait(**orjson.loads(self.storage.read(path)))
        except FileNotFoundError:
            return None
        except (orjson.JSONDecodeError, TypeError) as error:
            run_logger().warning(
                "the note of what a run waits for, %r, is damaged, or of a later version of this program (%s): the run"
                " wakes up by its schedule alone, and writes it anew",
                path,
                error,
            )
            return None

    def note_of(self, run: str) -> RunNote | None:
        """What is noted of a run, if anything is. Where that can't be read, its run goes on as a retry."""
        path = self.storage.path("runs", f"{run}.json")
        try:
            return RunNote(**orjson.loads(self.storage.read(path)))
        except FileNotFoundError:
            return None
        except (orjson.JSONDecodeError, TypeError) as error:
            run_logger().warning(
                "the note of a run, %r, is damaged, or of a later version of this program (%s): the run goes on as if"
                " it were retried, and asks again for what needs an approval",
                path,
                error,
            )
            return RunNote(attempt="", run_count=0)

    def write_note(self, run: str, note: RunNote) -> None:
        self.storage.write(self.storage.path("runs", f"{run}.json"), orjson.dumps(asdict(note)))

    def queue_limit(self, queue: str) -> int | None:
        """The quota of enqueued tokens that a provider told of, for a queue."""
        path = self.storage.path("queues", f"{queue}.json")
        try:
            return orjson.loads(self.storage.read(path))["limit"]
        except (FileNotFoundError, orjson.JSONDecodeError):
            return None

    def write_queue_limit(self, queue: str, limit: int) -> None:
        self.storage.write(self.storage.path("queues", f"{queue}.json"), orjson.dumps({"limit": limit}))


def queue_of(llm: OfflineBatchLLM) -> str:
    """What shares a quota of enqueued tokens: the model at the address, with the same credentials."""
    identity = llm.identity()
    return digest([llm.provider, llm.model_name, identity.get("base_url"), getattr(llm, "credentials", None)])


_ANY_LLM: TypeAdapter[Any] = TypeAdapter(AnyModel)


def llm_of(record: JobRecord) -> OfflineBatchLLM:
    """The adapter that a job was submitted with. A key that was given in code isn't in the record."""
    return _ANY_LLM.validate_python(record.llm)


def custom_id(place: int, key: str) -> str:
    """The name of a request in a job: its key, and the place of its shard in front."""
    return f"p{place}-{key}"


def split_custom_id(name: str) -> tuple[str, str] | None:
    """The place and the key; None for a name that isn't ours."""
    place, dash, key = name.partition("-")
    return (place[1:], key) if dash and place[:1] == "p" and place[1:].isdigit() else None


def journal_path(storage: Storage, folder: str, place: int | str, inputs: str) -> str:
    """The journal of a shard of a step, by the step's folder relative to the root."""
    return storage.path(folder, f"{int(place):08d}", f"{inputs}.journal")


async def look_at(jobs: Jobs, record: JobRecord, llm: OfflineBatchLLM) -> JobRecord | None:
    """Bring a record up to date; take what its job gave, if it ended. None: the job was for nothing, or never was.

    Raises:
        JobGoneError: the provider doesn't have the job or its results any more.
        LLMError: the provider can't be asked, or says that no other job would do better.
    """
    if not record.job:
        found = await find(jobs, record, llm)
        return found if found.state == "waiting" else await look_at(jobs, found, llm)
    try:
        status = await run_async(llm.look(partial(llm.job_status, record.job)))
    except ModelNotFoundError as error:
        raise JobGoneError(record, error) from None
    return await settle(jobs, record, status, llm)


async def find(jobs: Jobs, record: JobRecord, llm: OfflineBatchLLM) -> JobRecord:
    """The record of an intent with the job that it became; as it was, where the provider knows none."""
    taken = [each.job for each in jobs.all_open() if each.job]
    file = {"requests": record.requests, "size": record.size, "custom_ids": record.sample, "taken": taken}
    status = await run_async(llm.look(partial(llm.find_job, record.intent, record.intended - CLOCK_SKEW, file)))
    if status is None:
        if record.looked:
            return record
        unknown = replace(record, looked=time.time())
        jobs.update(unknown)
        return unknown
    run_logger().info("%s: took up job %s, which was created before an interruption", record.step, status.id)
    known = record.seen(status)
    jobs.write(known)
    return known


async def settle(jobs: Jobs, record: JobRecord, status: JobStatus, llm: OfflineBatchLLM) -> JobRecord | None:
    """Write what a job gave into the journals of its shards, if it has ended, and note how it stands."""
    seen = record.seen(status)
    if status.state == "waiting":
        jobs.update(seen)
        return seen
    if isinstance(status.error, QueueFullError):
        _learn_limit(jobs, record, status.error)
        jobs.void(record)
        # The same requests are uploaded anew, perhaps often.
        with contextlib.suppress(LLMError):
            await run_async(llm.delete_job(status.id))
        run_logger().warning(
            "%s: job %s was refused, there's no room in the provider's queue now: %s",
            record.step,
            status.id,
            status.message,
        )
        return None
    try:
        got = await run_async(_collect(jobs.storage, seen, llm))
    except LLMError as error:
        if error.retryable or isinstance(error, AuthenticationError):
            raise
        raise JobGoneError(record, error) from None
    jobs.end(seen)
    run_logger().info(
        "%s: job %s %s, %s of %s requests answered%s",
        record.step,
        status.id,
        status.status,
        f"{got:,}",
        f"{record.requests:,}",
        f": {status.message}" if status.message else "",
    )
    if status.error is not None and status.error.fatal:
        raise status.error
    return seen


def _learn_limit(jobs: Jobs, record: JobRecord, error: QueueFullError) -> None:
    """Smaller jobs from now on, where this one alone was too large by the provider's count."""
    limits = [error.limit] if error.limit else []
    others = any(each.queue == record.queue and each.job and each.intent != record.intent for each in jobs.all_open())
    if not others and (not error.limit or record.tokens > error.limit // 2):
        # Without a number it may be the account's other jobs that take up the room.
        limits.append(max(1 if error.limit else FEWEST_TOKENS, record.tokens // 2))
    if limits:
        jobs.write_queue_limit(record.queue, min(limits))


async def _collect(storage: Storage, record: JobRecord, llm: OfflineBatchLLM) -> int:
    """Append a job's results to the journals of its shards. Returns how many requests were answered."""
    answered = 0
    waiting: list[tuple[str, dict[str, Any]]] = []
    numbers = 0
    async for result in _results(record, llm):
        named = split_custom_id(result.custom_id)
        if named is None or named[0] not in record.shards:
            continue
        answered += not isinstance(result.outcome, LLMError)
        waiting.append((named[0], line_of(named[1], result, record)))
        numbers += numbers_in(result)
        if len(waiting) >= RESULTS_AT_A_TIME or numbers >= NUMBERS_AT_A_TIME:
            append_to_journals(storage, record, waiting)
            waiting, numbers = [], 0
    append_to_journals(storage, record, waiting)
    return answered


async def _results(record: JobRecord, llm: OfflineBatchLLM) -> AsyncGenerator[BatchResult]:
    """The results of a job; from the start again where the connection was cut."""
    tries = 0
    while True:
        try:
            async for result in llm.job_results(record.job):
                yield result
        except LLMError as error:
            tries += 1
            if not error.retryable or tries > llm.max_retries:
                raise
        else:
            return


def numbers_in(result: BatchResult) -> int:
    """How many numbers the vectors of a result have, or would have in the room of its texts."""
    if isinstance(result.outcome, LLMError):
        return 0
    characters = sum(len(text or "") for text in result.outcome["generations"])
    return sum(map(len, result.outcome.get("embeddings", []))) + characters // 32


def line_of(key: str, result: BatchResult, record: JobRecord) -> dict[str, Any]:
    """A journal's line for a result."""
    if isinstance(result.outcome, LLMError):
        return {"k": key, "e": failure_of(result.outcome), "x": record.attempt}
    return {"k": key, "o": result.outcome, "b": 1}


def append_to_journals(storage: Storage, record: JobRecord, lines: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Append lines to the journals of the shards whose places they carry. Raises StorageError."""
    by_place: dict[str, list[dict[str, Any]]] = {}
    for place, line in lines:
        by_place.setdefault(place, []).append(line)
    for place, some in by_place.items():
        journal = Journal(storage, journal_path(storage, record.folder, place, record.shards[place]))
        journal.extend(some)
        journal.close()


def metadata_of(record: JobRecord, run_url: str) -> dict[str, str]:
    """What goes into a job's metadata: how it is found again, and where it comes from, for people."""
    places = [int(place) for place in record.shards]
    known = {
        MARK: record.intent,
        "step": record.step,
        "shards": f"{min(places)}-{max(places)}",
        "requests": str(record.requests),
        "flow_run": record.flow_run,
        "flow_run_url": run_url,
    }
    return {name: value[:512] for name, value in known.items() if value}


def waiting_line(records: Sequence[JobRecord], ended: Sequence[JobRecord], queued: int, next_look: float | None) -> str:
    """What a run waits for, in one line: for the message of its state."""
    every = [*records, *ended]
    done, total = sum(each.answered + each.refused for each in every), sum(each.requests for each in every)
    parts = [f"{len(ended):,} of {len(every):,} jobs done", f"{done:,} of {total:,} requests"]
    if queued:
        parts.append(f"{queued:,} requests wait until the provider takes them")
    if next_look is not None:
        parts.append(f"next look {time.strftime('%H:%M UTC', time.gmtime(next_look))}")
    return ", ".join(parts)


def jobs_markdown(open_jobs: Sequence[JobRecord], ended: Sequence[JobRecord]) -> str:
    """The jobs of a run as a table, for the Prefect UI."""
    header = ["Step", "State", "Answered", "Failed", "Requests", "Age", "Job", "Submitted", "Message"]
    rows = [
        [
            record.step,
            record.status,
            f"{record.answered:,}",
            f"{record.refused:,}",
            f"{record.requests:,}",
            age((record.ended or time.time()) - record.intended),
            f"[`{record.job}`]({record.page})" if record.page else f"`{record.job or record.intent}`",
            time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record.intended)),
            record.message,
        ]
        for record in sorted([*open_jobs, *ended], key=lambda each: each.intended)
    ]
    return markdown_table(header, rows)


def age(seconds: float) -> str:
    """A duration for people: `40 s`, `12 min`, `3 h 20 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
