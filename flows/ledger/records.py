"""What is written down of batch jobs and of the runs that wait for them: records, waits, limits of queues."""

from __future__ import annotations

import contextlib
import posixpath
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson
from pydantic import TypeAdapter

from flows.ledger.earlier_layout import OPEN_JOBS, brought_up, keys_of_old
from flows.ledger.lines import sealed_json, unsealed_json
from flows.ledger.table import AnyKey, KeySet
from flows.store.context import run_logger
from flows.store.digest import digest
from flows.store.storage import Storage, StorageError
from llms import LLMError
from llms.batch import MARK, JobStatus, OfflineBatchLLM
from llms.credentials import BoundKey, given_in_code
from llms.quantities import quantity
from llms.registry import AnyModel

SUBMITTED = "jobs/submitted"

KEYS = ".keys"

CLOCK_SKEW = 300.0
"""Seconds that a provider's clock may differ from ours."""

SECONDS_TO_DOUBLE = 3600.0
"""In which a limit of enqueued tokens that was learned grows to twice of it."""

MOST_DOUBLINGS = 40

SECONDS_OF_A_NAMED_LIMIT = 24 * 3600.0
"""In which a limit that the provider named is believed."""


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
    space: str
    """The part of the ledger that its questions are of."""
    llm: dict[str, Any]
    queue: str
    """What shares a quota of enqueued tokens: see `queue_of`."""
    requests: int
    size: int
    """Bytes of the file."""
    tokens: int
    shards: str
    """The places of the first and the last shard that it answers, for people."""
    sample: list[str]
    """A few of its `custom_id`s."""
    intended: float
    limit: int | None = None
    """The most tokens of an answer."""
    before: dict[str, Any] | None = None
    """Of a job that was submitted before there was a ledger: where it notes what it holds, see
    `flows.ledger.earlier_layout`."""
    dollars: float | None = None
    """The estimate of its cost."""
    address_in_code: bool = False
    """Whether code gave the address that it was sent to: the keys of a machine may go there."""
    job: str = ""
    """The provider's id; empty as long as it isn't known to exist."""
    page: str = ""
    state: str = "waiting"
    status: str = "submitting"
    answered: int = 0
    refused: int = 0
    message: str = ""
    polled: float = 0.0
    ended: float = 0.0
    lost: str = ""
    """The attempt of a run that was told that the provider doesn't know it any more."""
    searched: float = 0.0
    """When it was first looked for at the provider, without an id."""
    unsure: bool = False
    """Whether open jobs at the provider may be it, which show whose they are when they end."""
    taken: float = 0.0
    """When the first of its results were written into the ledger."""
    incomplete: float = 0.0
    """When it was first seen to have ended without all of its results."""
    stopped: float = 0.0
    """When it was told to stop, for what it hadn't answered was late."""

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
            polled=time.time(),
        )

    @property
    def is_settling(self) -> bool:
        """Whether it will soon be known more: if it was created, or if results come that are still missing."""
        return bool(self.incomplete) or not (self.job or self.unsure)


class JobGoneError(LLMError):
    """The provider doesn't have a job, or its results, that it had."""

    fatal = True

    def __init__(self, record: JobRecord, error: LLMError) -> None:
        super().__init__(
            f"{record.step}: the provider doesn't have batch job {record.job!r} or its results any more"
            f" ({error}): they were deleted, or made with other credentials. If these have changed, set them back. If"
            f" the job is gone, retry the run: what is missing of its {quantity(record.requests, 'request')} is then"
            " submitted, and paid, again"
        )
        self.record = record


class JobMovedError(LLMError):
    """A job is open that was submitted for the step, and the step asks something else now, or asks elsewhere."""

    fatal = True

    def __init__(self, record: JobRecord, path: str) -> None:
        where = record.llm.get("base_url") or "the provider's own address"
        super().__init__(
            f"{record.step}: batch job {record.job or record.intent!r} is open, with"
            f" {quantity(record.requests, 'request')} to {where}, and the step asks otherwise now: its address"
            " (base_url, or the environment), its settings or the code has changed since. Submitting again would pay"
            " twice, so nothing was submitted. Set back what has changed, to have the job's answers; or cancel the job"
            f" at the provider, delete {path!r}, and retry the run"
        )
        self.record = record


@dataclass(frozen=True)
class Wait:
    """A flow run that waits for batches."""

    run: str
    flow_run: str
    spaces: list[str]
    """The parts of the ledger that its steps ask."""
    intents: list[str]
    queued: int
    since: float
    next_poll: float
    room: list[str] = field(default_factory=list[str])
    """The open jobs, of any run, whose end makes room in the provider's queue."""
    deployment: str = ""
    """Id of the flow run's deployment."""


@dataclass(frozen=True)
class RunNote:
    """What a run has to know of itself when it wakes up."""

    attempt: str
    run_count: int
    """Prefect's count when it left. The next one is a wake-up, or the same one where a person resumed it; any other is
    a retry. 0: it didn't leave."""
    approved: float = 0.0
    """Dollars that a person agreed to."""
    approved_unpriced: bool = False
    """Whether a person agreed to requests whose price isn't known."""
    asked: dict[str, Any] = field(default_factory=dict[str, Any])
    """What a person was asked when it left: the answer is there when it wakes up."""
    artifacts: dict[str, str] = field(default_factory=dict[str, str])
    saved: dict[str, str] = field(default_factory=dict[str, str])
    """A digest of the rows that each target got, and its place, by step and target: they aren't saved anew at every
    wake-up."""
    attempt_began: float = 0.0
    """In seconds since 1970."""


@dataclass(frozen=True)
class QueueLimit:
    """The tokens that may be enqueued at a provider, as far as its refusals told.

    It grows again: others' jobs may have taken up the room for a day, and accounts are given more.
    """

    tokens: int
    since: float
    """When `tokens` held, in seconds since 1970."""
    named: int | None = None
    """What the provider said."""
    told: float = 0.0
    """When it said so."""

    def at(self, now: float) -> int | None:
        """The most tokens at a time; None for any number."""
        doublings = max(0.0, now - self.since) / SECONDS_TO_DOUBLE
        grown = None if doublings > MOST_DOUBLINGS else int(self.tokens * 2**doublings)
        if self.named is None or now - self.told > SECONDS_OF_A_NAMED_LIMIT:
            return grown
        return self.named if grown is None else min(grown, self.named)

    def refused(self, tokens: int, named: int | None, now: float) -> QueueLimit:
        """After a refusal that left so many tokens to try."""
        return QueueLimit(tokens, now, named, now) if named else replace(self, tokens=tokens, since=now)

    def succeeded(self, tokens: int, now: float) -> QueueLimit:
        """After a job of so many tokens went through: twice as many may."""
        return replace(self, tokens=max(2 * tokens, self.at(now) or 0), since=now)


class Jobs:
    """The records of batch jobs in a storage.

    Open ones lie in `jobs/submitted`, by the ledger's space; ended ones in `jobs/ended`, by run; each beside the keys
    of its questions. After a crash an ended one may lie among the open ones as well: its results are taken once more,
    which changes nothing.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def _open_path(self, record: JobRecord) -> str:
        if record.before is not None:
            return self.storage.path(OPEN_JOBS, digest(record.before["folder"]), f"{record.intent}.json")
        return self.storage.path(SUBMITTED, record.space, f"{record.intent}.json")

    def path_of(self, record: JobRecord) -> str:
        """Where the record of an open job is."""
        return self._open_path(record)

    def open_of(self, space: str) -> list[JobRecord]:
        """The open jobs that hold questions of a space of the ledger."""
        found = self._read(self.storage.path(SUBMITTED, space))
        old = self.storage.read_all(self.storage.files_below(self.storage.path(OPEN_JOBS), ".json"))
        return [*found, *(each for each in (_record_in(*item) for item in old.items()) if each.space == space)]

    def all_open(self) -> list[JobRecord]:
        """The open jobs of all steps. Records that can't be read are left out, with a warning."""
        found: list[JobRecord] = []
        for path, content in self.storage.read_all(self.open_paths()).items():
            try:
                found.append(_record_in(path, content))
            except StorageError as error:
                run_logger().warning("%s", error)
        return found

    def open_paths(self) -> list[str]:
        """Where the records of all open jobs are."""
        folders = (self.storage.path(SUBMITTED), self.storage.path(OPEN_JOBS))
        return [path for folder in folders for path in self.storage.files_below(folder, ".json")]

    def record_at(self, path: str) -> JobRecord | None:
        """The record at `path`; None once it's gone. Raises StorageError where it can't be read."""
        try:
            content = self.storage.read(path)
        except FileNotFoundError:
            return None
        return _record_in(path, content)

    def ended_of(self, run: str) -> list[JobRecord]:
        return self._read(self.storage.path("jobs", "ended", run))

    def _read(self, folder: str) -> list[JobRecord]:
        paths = self.storage.files(folder, ".json")
        return [_record_in(path, content) for path, content in self.storage.read_all(paths).items()]

    def keys_of(self, record: JobRecord) -> KeySet:
        """What a job holds, open or ended. Where that can't be read, it's said, and the job may hold anything."""
        if record.before is not None:
            keys = keys_of_old(self.storage, record.intent, record.step, record.before, record.requests)
        else:
            found = self.keys_in(record)
            # One that was voided since it was read holds nothing.
            keys = KeySet(found or ()) if found is not None or self._is_void(record) else AnyKey()
        if isinstance(keys, AnyKey):
            run_logger().warning(
                "%s: what batch job %s holds can't be read any more; what its results may answer waits for its end",
                record.step,
                record.job or record.intent,
            )
        return keys

    def keys_in(self, record: JobRecord) -> list[str] | None:
        """The keys of a job's questions; None where they are damaged or gone."""
        # One that was read as open may have ended since.
        for path in ([] if record.ended else [self._open_path(record)]) + [self._ended_path(record)]:
            with contextlib.suppress(FileNotFoundError):
                return unsealed_json(self.storage.read(f"{path}{KEYS}"))
        return None

    def _is_void(self, record: JobRecord) -> bool:
        return not any(map(self.storage.exists, (self._open_path(record), self._ended_path(record))))

    def intend(self, record: JobRecord, keys: Sequence[str]) -> None:
        """Write down that a job is to be created, and what it will hold. It's on the disk when this returns."""
        self.storage.write(f"{self._open_path(record)}{KEYS}", sealed_json(keys))
        self.write(record)

    def write(self, record: JobRecord) -> None:
        self.storage.write(self._open_path(record), orjson.dumps(asdict(record)))

    def update(self, record: JobRecord) -> None:
        """Write a record anew, unless its run has ended the job meanwhile, or voided the record.

        Where two do so while a third voids it, it may stay: as one that may hold anything, until it's polled.
        """
        path = self._open_path(record)
        had_keys = self.storage.exists(f"{path}{KEYS}")
        if not self.storage.exists(path):
            return
        self.write(record)
        # Where that came in between, the record is there again.
        is_void = had_keys and not self.storage.exists(f"{path}{KEYS}")
        ended = self.record_at(self._ended_path(record))
        if is_void or (ended is not None and (not record.job or ended.job in {"", record.job})):
            self.void(record)

    def _ended_path(self, record: JobRecord) -> str:
        return self.storage.path("jobs", "ended", record.run, f"{record.intent}.json")

    def end(self, record: JobRecord) -> None:
        """Note that all that a job gave is in the ledger."""
        ended = replace(record, ended=time.time())
        keys = self.keys_in(record) if record.before is None else None
        if keys is not None:
            self.storage.write(f"{self._ended_path(ended)}{KEYS}", sealed_json(keys))
        self.storage.write(self._ended_path(ended), orjson.dumps(asdict(ended)))
        self.void(record)

    def void(self, record: JobRecord) -> None:
        """Forget a job that was never created, was refused as a whole and for nothing, or has ended.

        One that another process has created since `record` was read is paid, and stays.
        """
        path = self._open_path(record)
        if self._is_created_since(record):
            return
        self.storage.remove(path)
        self.storage.remove(f"{path}{KEYS}")
        # An `update` that looked before may have written the record again.
        if not self._is_created_since(record):
            self.storage.remove(path)

    def _is_created_since(self, record: JobRecord) -> bool:
        there = self.record_at(self._open_path(record))
        return there is not None and bool(there.job) and there.job != record.job

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
            return Wait(**_renamed(orjson.loads(self.storage.read(path))))
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
        """The most enqueued tokens that a provider takes now, for a queue, as its refusals told; None: none told."""
        known = self.learned_limit(queue)
        return known.at(time.time()) if known is not None else None

    def learned_limit(self, queue: str) -> QueueLimit | None:
        path = self.storage.path("queues", f"{queue}.json")
        try:
            return QueueLimit(**orjson.loads(self.storage.read(path)))
        except (FileNotFoundError, orjson.JSONDecodeError, TypeError):
            return None

    def write_queue_limit(self, queue: str, limit: QueueLimit) -> None:
        self.storage.write(self.storage.path("queues", f"{queue}.json"), orjson.dumps(asdict(limit)))


def queue_of(llm: OfflineBatchLLM) -> str:
    """What shares a quota of enqueued tokens: the model at the address, with the same credentials."""
    identity = llm.identity()
    return digest([llm.provider, llm.model_name, identity.get("base_url"), getattr(llm, "credentials", None)])


_ANY_LLM: TypeAdapter[Any] = TypeAdapter(AnyModel)
_RENAMED = {"looked": "polled", "next_look": "next_poll"}


def llm_of(record: JobRecord) -> OfflineBatchLLM:
    """The adapter that a job was submitted with. A key that was given in code isn't in the record."""
    llm: OfflineBatchLLM = _ANY_LLM.validate_python(record.llm)
    if record.address_in_code and isinstance(llm, BoundKey) and llm.base_url:
        given_in_code(llm.base_url)
    return llm


def _renamed(data: dict[str, Any]) -> dict[str, Any]:
    """What was read, with fields that had another name under the name they have."""
    return {_RENAMED.get(name, name): value for name, value in data.items()}


def _record_in(path: str, content: bytes) -> JobRecord:
    """The record that was read at `path`. Raises StorageError where it's none."""
    try:
        data = _renamed(orjson.loads(content))
        return JobRecord(**(brought_up(data, _ANY_LLM.validate_python(data["llm"])) if "folder" in data else data))
    except (ValueError, TypeError, KeyError) as error:
        intent = posixpath.basename(path).removesuffix(".json")
        raise StorageError(
            f"the record of a batch job, {path!r}, can't be read: {error}. It's damaged, or of a later version of"
            f" this program. To give the job up (in its metadata {MARK!r} is {intent!r}), delete the file: its"
            " requests are then submitted again, and paid again"
        ) from None
