"""Offline batches: the life cycle that is the same for every provider's batch API.

An adapter adds what its API does differently: how a request looks, how a job is created, found, looked
at, read and cancelled. Answers are joined to requests by `custom_id`, never by position. It holds the request's
key, a digest of all that decides its answer and of how many equal ones stand before it, and a mark of the intent
that the job was made for: so results show whose they are, also where a job keeps no metadata.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import tempfile
import time
import uuid
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Any, ClassVar, Literal, Self, TypeVar, cast

import orjson
from pydantic import Field, PrivateAttr

from llms.base import AsyncLLM, combined, failed_output, split_input
from llms.errors import (
    ExpiredError,
    IncompleteResultsError,
    InvalidResponseError,
    LLMError,
    OfflineBatchGenerationNotFinishedError,
    OtherModelError,
)
from llms.http import written
from llms.limits import Limiter, limiter_for, send
from llms.loop import run_sync
from llms.model_names import is_other_model
from llms.outputs import exactly
from llms.parameters import Unasked, short
from llms.reading import LARGEST, count_in, list_in, object_in
from llms.secrets import masked, masked_values
from llms.submissions import submissions_of
from llms.typing import FormattedInput, GenerateOutput, TokenCounts, Usage
from llms.usage import usage_of

T = TypeVar("T")

JobState = Literal["waiting", "ended", "failed"]

MARK = "stillflow"
"""The key in a job's metadata that holds what the job can be found by."""

LONGEST_CUSTOM_ID = 64
"""Characters, and only letters, digits, - and _: what every provider takes."""
MARK_DIGITS = 12
"""Of an intent, in a `custom_id`: 48 random bits, which no other job of the account has."""

SECONDS_FOR_RESULTS = 300.0
"""So long after a job was first seen to have ended, results that were counted may still come."""
SECONDS_AFTER_THE_END = 3600.0
"""The same by the provider's clock, which may be another one."""

BYTES_PER_TOKEN = 4
"""Of a request's line, its JSON included. A rough guess, used where a provider limits the tokens of open jobs."""


PART = 1 << 20
NOT_ANSWERED = "the job ended without an answer to it; set jobs_ids=None and give it again, to submit it anew"


@dataclass(frozen=True)
class BatchLimits:
    """The most that a provider takes in one job."""

    requests: int
    size: int
    """Bytes of the whole file."""


@dataclass(frozen=True)
class BatchRequest:
    """One request of a batch: its key, where it would be sent online, and the body that would be sent."""

    custom_id: str
    url: str
    body: dict[str, Any]


@dataclass(frozen=True)
class JobStatus:
    """How a job stands, in terms that hold for every provider."""

    id: str
    state: JobState
    """`waiting`: open. `ended`: results can be read, perhaps partial ones. `failed`: nothing was answered, and
    nothing has to be paid; `error` says why."""
    status: str
    """The provider's own word."""
    total: int = 0
    answered: int = 0
    refused: int = 0
    message: str = ""
    error: LLMError | None = None
    """Why it failed. Retryable: the same requests may be submitted again. Fatal: nothing else would succeed."""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    created: float = 0.0
    """Seconds since 1970."""
    page: str = ""
    """The job's page at the provider, for people."""
    unknown: bool = False
    """Whether `status` is none that is known. Such a job is waited for: it costs nothing, and its answers are paid."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", masked(self.message))


@dataclass(frozen=True)
class BatchResult:
    """The outcome of one request of a job."""

    custom_id: str
    """The request's key, as it was given to the job's file."""
    outcome: GenerateOutput | LLMError
    mark: str = ""
    """What the `custom_id` said of the intent that the job was made for. Empty for a request of another program."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "outcome", masked_values(self.outcome))


@dataclass
class JobFile:
    """The requests of one job, a line each, in a file on this machine."""

    path: Path
    url: str
    custom_ids: list[str] = field(default_factory=list[str])
    """The keys of its requests. In its lines they carry a mark of the intent as well."""
    size: int = 0
    intent: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Names the job before there is one."""

    @property
    def tokens(self) -> int:
        """About how many tokens its prompts have."""
        return self.size // BYTES_PER_TOKEN

    async def parts(self) -> AsyncIterator[bytes]:
        """The file in parts of `PART` bytes, for an upload."""
        with self.path.open("rb") as stream:
            while part := stream.read(PART):
                yield part

    def as_list(self, before: bytes, after: bytes) -> tuple[int, AsyncIterator[bytes]]:
        """The lines as the members of a JSON list, for a body that holds them: its length in bytes, and its parts.

        Args:
            before: the body up to the list's first member.
            after: from its last one on.
        """
        return len(before) + self.size + len(self.custom_ids) - 1 + len(after), self._members(before, after)

    async def _members(self, before: bytes, after: bytes) -> AsyncIterator[bytes]:
        with self.path.open("rb") as stream:
            while lines := stream.readlines(PART):
                yield before + b",".join(lines)
                before = b","
        yield after

    def only(self, wanted: Callable[[str], bool]) -> JobFile | None:
        """The requests whose `custom_id`s are `wanted`; None where none is."""
        keep = list(map(wanted, self.custom_ids))
        if keep and all(keep):
            return self
        left = replace(self, path=self.path.with_suffix(".left"), custom_ids=[], size=0)
        with self.path.open("rb") as lines, left.path.open("wb") as file:
            for name, kept, line in zip(self.custom_ids, keep, lines, strict=True):
                if kept:
                    file.write(line)
                    left.custom_ids.append(name)
                    left.size += len(line)
        return left if left.custom_ids else None


class JobWriter:
    """Writes requests into as few files as a provider's limits allow; a job holds requests of one address.

    Args:
        limits: of one job.
        line: the line for a request.
        tokens: the most tokens of one job, by the guess of `BYTES_PER_TOKEN`.
    """

    def __init__(self, limits: BatchLimits, line: Callable[[BatchRequest], bytes], tokens: int | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="stillflow-")
        self._limits = limits
        self._line = line
        self._size = min(limits.size, max(1, tokens * BYTES_PER_TOKEN)) if tokens is not None else limits.size
        self._open: dict[str, tuple[JobFile, IO[bytes]]] = {}
        self._made = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def add(self, request: BatchRequest) -> JobFile | None:
        """Write a request. Returns the file that became full before it, if one did."""
        full: JobFile | None = None
        file, stream = self._open.get(request.url) or self._begun(request.url)
        line = self._line_in(file, request)
        if file.custom_ids and not self._fits(file, line):
            full = self._closed(request.url)
            file, stream = self._begun(request.url)
            line = self._line_in(file, request)
        stream.write(line)
        file.custom_ids.append(request.custom_id)
        file.size += len(line)
        return full

    def _begun(self, url: str) -> tuple[JobFile, IO[bytes]]:
        path = Path(self._folder.name) / f"{self._made:06d}.jsonl"
        self._made += 1
        begun = self._open[url] = (JobFile(path, url), path.open("wb"))
        return begun

    def _line_in(self, file: JobFile, request: BatchRequest) -> bytes:
        return self._line(replace(request, custom_id=custom_id(request.custom_id, file.intent))) + b"\n"

    def _fits(self, file: JobFile, line: bytes) -> bool:
        return len(file.custom_ids) < self._limits.requests and file.size + len(line) <= self._size

    def _closed(self, url: str) -> JobFile:
        file, stream = self._open.pop(url)
        stream.close()
        return file

    def rest(self) -> list[JobFile]:
        """The files that aren't full."""
        return [self._closed(url) for url in list(self._open)]

    def close(self) -> None:
        """Remove all files."""
        self.rest()
        self._folder.cleanup()


RESULTS_WITH_MARKS = 20
"""Results that are read before a job without a mark in any of them is called a stranger's."""


class OfflineBatchLLM(AsyncLLM):
    """A service with a batch API: cheaper answers, within a day."""

    form_more = ("offline_batch_generation_block_until_done", "batch_token_quota", "batch_tries", "ready_by")

    batch_limits: ClassVar[BatchLimits]
    batch_price: ClassVar[float] = 0.5
    """What a batch costs, as a share of the price online."""

    use_offline_batch_generation: Annotated[
        bool,
        Field(title="Offline batches", description="Send requests as batch jobs: cheaper, answered within a day."),
        Unasked(),
    ] = False
    offline_batch_generation_block_until_done: Annotated[
        int | None,
        Field(
            ge=1,
            title="Wait for batches",
            description="Keep the process waiting for its batches, polling every so many seconds.",
        ),
        Unasked(),
    ] = None
    batch_token_quota: Annotated[
        int | None,
        Field(
            ge=1,
            title="Enqueued tokens",
            description="The most tokens that your account may have in its open batches, where that is limited.",
        ),
        Unasked(),
    ] = None
    batch_tries: Annotated[
        int,
        Field(ge=1, title="Batch tries", description="Jobs that a request may go into, until one answers it."),
        Unasked(),
    ] = 3
    ready_by: Annotated[
        float | None,
        Field(
            ge=0,
            title="Ready by",
            description="Hours after the run began. What no job has answered by then is asked online, at its price, and"
            " what the jobs still hold is cancelled.",
        ),
        Unasked(),
    ] = None
    jobs_ids: Annotated[
        tuple[str, ...] | None,
        Field(exclude=True, description="The jobs of the latest call's inputs; None before the first call."),
        Unasked(),
    ] = None

    _own_jobs: tuple[str, ...] | None = PrivateAttr(default=None)
    """The `jobs_ids` that a call set, and nobody else."""
    _incomplete: dict[str, float] = PrivateAttr(default_factory=dict[str, float])
    """Since when jobs are known to have ended without all of their results, by id."""
    _marks: dict[str, str] = PrivateAttr(default_factory=dict[str, str])
    """Of ended jobs that don't show whose they are. A search that is cut off goes on where it was."""

    @property
    def account(self) -> Hashable:
        """Jobs of LLMs with equal accounts are in one list at the provider, and are read with the same key."""
        return self.limit_key

    @abstractmethod
    def batch_request(
        self, custom_id: str, given: FormattedInput, num_generations: int, number: int = 0
    ) -> BatchRequest:
        """The request as it goes into a batch. `number` tells the requests apart that one input is sent as."""

    @abstractmethod
    async def create_job(self, file: JobFile, metadata: Mapping[str, str]) -> JobStatus:
        """Submit the requests of `file` as one job. Raises LLMError; then there's no job."""

    @abstractmethod
    async def job_status(self, job_id: str) -> JobStatus:
        """How a job stands. Raises LLMError."""

    @abstractmethod
    def list_jobs(self) -> AsyncIterator[JobStatus]:
        """The account's jobs, the newest first, many per request. Raises LLMError."""

    @abstractmethod
    def job_results(self, job_id: str) -> AsyncGenerator[BatchResult]:
        """What an ended job answered and refused, in any order. What can't be read of it is left out.

        Raises:
            IncompleteResultsError: after all that is there, where more was counted.
            LLMError: the provider can't be asked, or the results are gone.
        """

    @abstractmethod
    async def cancel_job(self, job_id: str) -> None:
        """Stop a job. What it has answered stays readable. Raises LLMError."""

    @abstractmethod
    async def delete_job(self, job_id: str) -> None:
        """Remove what an ended job keeps at the provider. Raises LLMError."""

    def batch_line(self, request: BatchRequest) -> bytes:
        """The line of a file for a request."""
        return written({"custom_id": request.custom_id, "method": "POST", "url": request.url, "body": request.body})

    def requests_per_input(self, num_generations: int) -> int:
        """How many requests an input with so many generations is sent as: 1, where the API can give several answers.

        Always the same for the same model and address: answers are found by it.
        """
        return 1

    async def find_job(self, mark: str, since: float, file: Mapping[str, Any]) -> JobStatus | None:
        """The job that was created with `mark` in its metadata, if it was.

        Args:
            mark: what `metadata[MARK]` holds.
            since: seconds since 1970, before its creation.
            file: the file it would have been made from, for an API without metadata; any of these keys may be missing.
                `requests`: how many it has. `size`: its bytes. `taken`: ids of jobs that are known to be others.
                `until`: seconds since 1970, by which it was created if it was.

        Raises:
            UndecidedJobError: there's none that is surely it, and some that may be.
            LLMError: the provider can't be asked.
        """
        async for status in self.list_jobs():
            if status.metadata.get(MARK) == mark:
                return status
            if status.created < since:
                return None
        return None

    async def shows_mark(self, status: JobStatus, mark: str) -> bool | None:
        """Whether a job is the one that was created with `mark`, by its results. None where they can't tell yet."""
        if status.state == "waiting":
            return None
        if status.id in self._marks:
            return self._marks[status.id] == mark_of(mark)
        try:
            async with aclosing(self.job_results(status.id)) as results:
                found, seen = "", 0
                async for result in results:
                    found = found or result.mark
                    seen += bool(result.custom_id)
                    # A line of nobody's may stand before ours.
                    if found or seen == RESULTS_WITH_MARKS:
                        break
                if seen:
                    self._marks[status.id] = found
                    return found == mark_of(mark)
        except IncompleteResultsError as error:
            return None if error.gone is None else False
        except LLMError as error:
            if error.retryable or error.fatal:
                raise
        # Without any results it's of no use, whosever it is.
        return False

    def job_limits(self) -> BatchLimits:
        """The most that one job takes, at the address that requests go to."""
        return self.batch_limits

    def job_writer(self, tokens: int | None = None) -> JobWriter:
        """Files for the jobs of this model, with at most `tokens` each, or `batch_token_quota` if that is less."""
        quotas = [each for each in (tokens, self.batch_token_quota) if each is not None]
        return JobWriter(self.job_limits(), self.batch_line, min(quotas, default=None))

    def generate_outputs(
        self, inputs: Sequence[FormattedInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """As `LLM.generate_outputs`. With `use_offline_batch_generation` the first call submits the inputs,
        and all later ones with the same inputs give the outputs once they are there, and submit nothing.

        `jobs_ids` are the jobs of the inputs of the latest call. Other inputs get jobs of their own, and those of the
        earlier ones are kept. `jobs_ids=None`, set after a call, makes the next one submit its inputs anew. This holds
        in a process; in another one, give the model the `jobs_ids`.

        Raises:
            OfflineBatchGenerationNotFinishedError: the jobs aren't finished, and
                `offline_batch_generation_block_until_done` isn't set.
        """
        changed = self.with_generation_kwargs(kwargs)
        if not self.use_offline_batch_generation:
            return run_sync(changed.answer_all(inputs, num_generations))
        if self.jobs_ids is None or self.jobs_ids == self._own_jobs:
            anew = self.jobs_ids is None and self._own_jobs is not None
            self._own_jobs = run_sync(self._jobs_for(changed, inputs, num_generations, anew=anew))
            self.jobs_ids = self._own_jobs
        return run_sync(self._collect(changed, inputs, num_generations))

    async def _jobs_for(
        self, changed: OfflineBatchLLM, inputs: Sequence[FormattedInput], num_generations: int, *, anew: bool
    ) -> tuple[str, ...]:
        """The jobs that hold the inputs' requests. What is in none yet is submitted."""
        known = submissions_of(self.account)
        requests = {request.custom_id: request for request in changed._requests(inputs, num_generations)}

        async def submit_missing() -> None:
            async with known.lock:
                if anew:
                    known.forget(requests)
                there = known.holding(requests)
                missing = [request for key, request in requests.items() if key not in there]
                known.note(await changed.submit(missing))

        # Who interrupts the call doesn't interrupt this: a job that is being created is paid, and has to be known.
        await asyncio.shield(asyncio.ensure_future(submit_missing()))
        return tuple(dict.fromkeys(known.holding(requests).values()))

    async def submit(self, requests: Iterable[BatchRequest]) -> dict[str, str]:
        """Send requests off, in as few jobs as the provider's limits allow. All of them, or none.

        Returns:
            The job of each, by its `custom_id`.
        """
        jobs: dict[str, str] = {}
        with self.job_writer() as writer:
            full = [file for file in map(writer.add, requests) if file is not None]
            try:
                for file in [*full, *writer.rest()]:
                    job = await self.create_job(file, {})
                    jobs |= dict.fromkeys(file.custom_ids, job.id)
            except LLMError:
                for job_id in dict.fromkeys(jobs.values()):
                    await _quietly(self.cancel_job(job_id))
                raise
        return jobs

    async def _collect(
        self, changed: OfflineBatchLLM, inputs: Sequence[FormattedInput], num_generations: int
    ) -> list[GenerateOutput]:
        jobs = self.jobs_ids or ()
        known = submissions_of(self.account)
        statuses, outcomes = await self._ends_when_allowed(jobs)
        expected = changed.request_keys(inputs, num_generations)
        wanted = {key for keys in expected for key in keys}
        failed = next((status for status in statuses if status.state == "failed"), None)
        why = f"batch job {failed.id!r} {failed.status}: {failed.message}" if failed else ""
        if not wanted & set(outcomes):
            if why:
                known.forget(wanted)
                self.jobs_ids = self._own_jobs = None
                raise LLMError(why)
            if outcomes:
                raise LLMError(
                    f"jobs_ids={jobs!r} answer other inputs than those given; call with the inputs they were made for,"
                    " or set jobs_ids=None to submit new jobs"
                )
        self._own_jobs = jobs
        missing = LLMError(why) if why else ExpiredError(NOT_ANSWERED)
        answers = [[outcomes.get(key, missing) for key in keys] for keys in expected]
        return [_as_output(each, num_generations) for each in answers]

    async def _outcomes(self, job_id: str) -> tuple[dict[str, GenerateOutput | LLMError], bool]:
        """The outcomes by key, and whether these are all: more may come for some minutes."""
        found: dict[str, GenerateOutput | LLMError] = {}
        try:
            async for result in self.job_results(job_id):
                take_better(found, result.custom_id, result.outcome)
        except IncompleteResultsError as error:
            if not is_over(error, self._incomplete.setdefault(job_id, time.time())):
                return found, False
            if error.gone is not None and not found:
                raise error.gone from None
        return found, True

    async def call_briefly(self, request: Callable[[], Awaitable[T]]) -> T:
        """Ask the provider for something that can be asked for again, with retries.

        A provider that is away isn't waited for longer: whoever waits for its jobs polls again later.
        """
        most = self.max_concurrent_requests
        limiter = limiter_for(
            ("batches", self.limit_key), most, partial(Limiter, most, name=self.provider, outage_timeout=0.0)
        )
        return await send(request, limiter, self.max_retries)

    async def _ends_when_allowed(
        self, jobs: Sequence[str]
    ) -> tuple[list[JobStatus], dict[str, GenerateOutput | LLMError]]:
        """How jobs ended, and the outcomes of their requests by key."""
        while True:
            statuses = await self._statuses(jobs)
            for status in statuses:
                if status.state == "waiting":
                    # It may have been taken for one that has ended.
                    self._incomplete.pop(status.id, None)
            if all(status.state != "waiting" for status in statuses):
                outcomes: dict[str, GenerateOutput | LLMError] = {}
                every = True
                for status in statuses:
                    if status.state == "ended":
                        found, whole = await self.call_briefly(partial(self._outcomes, status.id))
                        submissions_of(self.account).note(dict.fromkeys(found, status.id))
                        every = every and whole
                        for key, outcome in found.items():
                            take_better(outcomes, key, outcome)
                if every:
                    return statuses, outcomes
            if self.offline_batch_generation_block_until_done is None:
                raise OfflineBatchGenerationNotFinishedError(jobs)
            await asyncio.sleep(self.offline_batch_generation_block_until_done)

    async def _statuses(self, jobs: Sequence[str]) -> list[JobStatus]:
        """How jobs stand. Raises LLMError, and no look goes on then."""
        looks = [asyncio.ensure_future(self.call_briefly(partial(self.job_status, job))) for job in jobs]
        try:
            return list(await asyncio.gather(*looks))
        except BaseException:
            for look in looks:
                look.cancel()
            raise

    def request_keys(self, inputs: Sequence[FormattedInput], num_generations: int) -> list[list[str]]:
        """The `custom_id`s of the requests that each input is sent as."""
        identity = self.identity()
        keys = request_keys((*split_input(each), num_generations, identity) for each in inputs)
        return [part_keys(key, self.requests_per_input(num_generations)) for key in keys]

    def _requests(self, inputs: Sequence[FormattedInput], num_generations: int) -> Iterable[BatchRequest]:
        keys = self.request_keys(inputs, num_generations)
        for parts, given in zip(keys, inputs, strict=True):
            for number, key in enumerate(parts):
                yield self.batch_request(key, given, num_generations // len(parts), number)


def custom_id(key: str, intent: str) -> str:
    """The name of a request in a job: its key, and a mark of the intent that the job is made for.

    Args:
        key: letters, digits, `-` and `_`; which request it is, of all that the program ever sends.
        intent: of the job, hexadecimal digits.

    Raises:
        ValueError: the name is longer than providers take.
    """
    name = f"{key}_{mark_of(intent)}"
    if len(name) > LONGEST_CUSTOM_ID:
        raise ValueError(
            f"the custom_id of a request has at most {LONGEST_CUSTOM_ID} characters, got {name!r} ({len(name)})"
        )
    return name


def split_custom_id(name: str) -> tuple[str, str]:
    """The key and the mark of the intent; without a mark for a name that isn't of `custom_id`."""
    key, line, mark = name.rpartition("_")
    return (key, mark) if key and line and _IS_MARK.fullmatch(mark) else (name, "")


_IS_MARK = re.compile(f"[0-9a-f]{{{MARK_DIGITS}}}")


def mark_of(intent: str) -> str:
    """What a `custom_id` says of an intent."""
    return intent[:MARK_DIGITS]


def request_keys(contents: Iterable[object]) -> list[str]:
    """A key per request: a digest of its content and of how many equal ones came before it."""
    seen: dict[str, int] = {}
    keys: list[str] = []
    for content in contents:
        digest = hashlib.blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()
        seen[digest] = seen.get(digest, -1) + 1
        keys.append(f"{digest}-{seen[digest]}")
    return keys


def part_keys(key: str, parts: int) -> list[str]:
    """The keys of the requests that the request `key` is sent as."""
    return [key] if parts == 1 else [f"{key}-n{part}" for part in range(parts)]


def may_be(status: JobStatus, file: Mapping[str, Any]) -> bool:
    """Whether a job that doesn't show whose it is may be the one made of `file`, as `find_job` has it."""
    requests, until = file.get("requests"), file.get("until")
    taken = cast("Sequence[str]", file.get("taken") or ())
    # Of a job just created, not every server has counted the requests; of one that has ended, the results tell.
    counted = not requests or status.state != "waiting" or status.total in {0, requests}
    return status.id not in taken and counted and (until is None or status.created <= until)


def take_better(found: dict[str, GenerateOutput | LLMError], key: str, outcome: GenerateOutput | LLMError) -> None:
    """Add an outcome. Of two for one request an answer holds, or else the first."""
    known = found.get(key)
    if known is None or (isinstance(known, LLMError) and not isinstance(outcome, LLMError)):
        found[key] = outcome


def is_over(error: IncompleteResultsError, since: float) -> bool:
    """Whether results that aren't whole won't get any fuller; `since` is when they were first seen so."""
    now = time.time()
    return now - since >= SECONDS_FOR_RESULTS or 0 < error.ended <= now - SECONDS_AFTER_THE_END


async def lines_in(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a stream, of any length, each with the newline that ends it: the last one may have none.

    Other characters that end lines elsewhere may stand in a text.
    """
    begun: list[bytes] = []
    async for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            yield b"".join([*begun, line, b"\n"])
            begun.clear()
        if rest:
            begun.append(rest)
    if begun:
        yield b"".join(begun)


_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([A-Za-z0-9_.:/-]{1,512})"')


def result_of_unreadable(line: bytes) -> BatchResult | None:
    """The result from a line that is no JSON: its request has no answer. None where it doesn't name one."""
    named = _CUSTOM_ID.search(line)
    if named is None:
        return None
    key, mark = split_custom_id(named[1].decode())
    return BatchResult(key, InvalidResponseError(f"the provider's result can't be read: {short(line)}"), mark)


def outcome_of(
    parse: Callable[[], GenerateOutput], asked: str = "", answered: object = None, usage: Sequence[Usage] = ()
) -> GenerateOutput | LLMError:
    """What `parse` makes of an answer, where it's whole, and of the model that was asked; else why it isn't.

    Args:
        parse: reads the answer. Raises LLMError, or anything else for fields that it didn't expect.
        asked: the model's name. Empty: any model's answer is taken.
        answered: the model's name in the answer.
        usage: what was paid, whatever comes of it.
    """
    if asked and is_other_model(asked, answered):
        said = f"the answer is of the model {answered!r}, asked was {asked!r}; it isn't taken"
        return OtherModelError(said, usage=usage)
    try:
        return _whole(parse())
    except LLMError as error:
        error.usage = error.usage or list(usage)
        error.paid = error.paid or bool(usage)
        return error
    except Exception as error:  # noqa: BLE001 -- a field can be odd in any way, and the other answers mustn't be lost
        said = f"the provider's answer can't be read ({type(error).__name__}: {str(error)[:200]})"
        return InvalidResponseError(said, usage=usage)


def _whole(output: GenerateOutput) -> GenerateOutput:
    """The output, where its texts or vectors are such. What is odd of what stands beside them is left out.

    Raises:
        InvalidResponseError: they aren't.
        TypeError: something in it is no JSON.
    """
    texts, vectors = list_in(output["generations"]), list_in(output.get("embeddings"))
    if not all(text is None or isinstance(text, str) for text in texts):
        raise InvalidResponseError(f"the provider's answer has a text that is none: {short(output['generations'])}")
    if not all(vector and all(map(math.isfinite, cast("list[float]", vector))) for vector in vectors):
        raise InvalidResponseError(f"the provider's answer has a vector that is none: {short(vectors)}")
    if not vectors and all(text is None for text in texts):
        raise InvalidResponseError("the provider's answer has neither a text nor a vector")
    counts = object_in(output.get("statistics"))
    output["statistics"] = TokenCounts(
        input_tokens=[count_in(each) for each in list_in(counts.get("input_tokens"))],
        output_tokens=[count_in(each) for each in list_in(counts.get("output_tokens"))],
    )
    if not _are_logprobs(output.get("logprobs")):
        output.pop("logprobs", None)
    orjson.dumps(output)
    return output


def _are_logprobs(given: object) -> bool:
    """Whether it's lists by generation, by token, of tokens with finite numbers."""
    places = [place for generation in list_in(given) for place in list_in(generation)]
    every = [object_in(each) for place in places for each in list_in(place)]
    return all(isinstance(each.get("token"), str) and _is_logarithm(each.get("logprob")) for each in every)


def _is_logarithm(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and abs(value) <= LARGEST


async def _quietly(work: Awaitable[None]) -> None:
    """Wait for `work`, which may fail: there's a first error that says more."""
    try:
        await work
    except LLMError:
        return


def _as_output(outcomes: Sequence[GenerateOutput | LLMError], num_generations: int) -> GenerateOutput:
    """The output of the requests that an input was sent as. One that failed fails it, and so do too few generations."""
    answered = [outcome for outcome in outcomes if not isinstance(outcome, LLMError)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, LLMError)]
    if failures:
        spent = [usage for failure in failures for usage in failure.usage]
        beside = [usage for output in answered for usage in usage_of(output)]
        return failed_output(failures[0], num_generations, [*spent, *beside])
    try:
        return exactly(answered[0] if len(answered) == 1 else combined(answered), num_generations, "the batch")
    except LLMError as error:
        return failed_output(error, num_generations)
