"""Offline batches: the life cycle that is the same for every provider's batch API.

An adapter adds what its API does differently: how a request looks, how a job is created, found, looked
at, read and cancelled. Answers are joined to requests by `custom_id`, a digest of the request and of how
many equal ones stand before it; never by position.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Any, ClassVar, Literal, Self, TypeVar

import orjson
from pydantic import Field

from llms.base import AsyncLLM, combined, split_input
from llms.errors import ExpiredError, LLMError, OfflineBatchGenerationNotFinishedError, failure_of
from llms.limits import Limiter, limiter_for, send
from llms.loop import run_sync
from llms.parameters import Aside
from llms.typing import FormattedInput, GenerateOutput, TokenCounts

T = TypeVar("T")

JobState = Literal["waiting", "ended", "failed"]

MARK = "stillflow"
"""The key in a job's metadata that holds what the job can be found by."""

BYTES_PER_TOKEN = 4
"""Of a request's line, its JSON included. A rough guess, used where a provider limits the tokens of open jobs."""


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


@dataclass(frozen=True)
class BatchResult:
    """The outcome of one request of a job."""

    custom_id: str
    outcome: GenerateOutput | LLMError


@dataclass
class JobFile:
    """The requests of one job, a line each, in a file on this machine."""

    path: Path
    url: str
    custom_ids: list[str] = field(default_factory=list[str])
    size: int = 0

    @property
    def tokens(self) -> int:
        """About how many tokens its prompts have."""
        return self.size // BYTES_PER_TOKEN


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
        line = self._line(request) + b"\n"
        full: JobFile | None = None
        known = self._open.get(request.url)
        if known is not None and not self._fits(known[0], line):
            full = self._closed(request.url)
            known = None
        if known is None:
            path = Path(self._folder.name) / f"{self._made:06d}.jsonl"
            self._made += 1
            known = self._open[request.url] = (JobFile(path, request.url), path.open("wb"))
        file, stream = known
        stream.write(line)
        file.custom_ids.append(request.custom_id)
        file.size += len(line)
        return full

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


class OfflineBatchLLM(AsyncLLM):
    """A service with a batch API: cheaper answers, within a day."""

    batch_limits: ClassVar[BatchLimits]
    batch_price: ClassVar[float] = 0.5
    """What a batch costs, as a share of the price online."""

    use_offline_batch_generation: Annotated[
        bool,
        Field(title="Offline batches", description="Send requests as batch jobs: cheaper, answered within a day."),
        Aside(),
    ] = False
    offline_batch_generation_block_until_done: Annotated[
        int | None,
        Field(
            ge=1,
            title="Wait for batches",
            description="Keep the process waiting for its batches, looking every so many seconds.",
        ),
        Aside(),
    ] = None
    batch_token_quota: Annotated[
        int | None,
        Field(
            ge=1,
            title="Enqueued tokens",
            description="The most tokens that your account may have in its open batches, where that is limited.",
        ),
        Aside(),
    ] = None
    batch_tries: Annotated[
        int,
        Field(ge=1, title="Batch tries", description="Jobs that a request may go into, until one answers it."),
        Aside(),
    ] = 3
    jobs_ids: Annotated[
        tuple[str, ...] | None,
        Field(exclude=True, description="The jobs under way; None before the first call."),
        Aside(),
    ] = None

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
    def job_results(self, job_id: str) -> AsyncIterator[BatchResult]:
        """What an ended job answered and refused, in any order. Raises LLMError."""

    @abstractmethod
    async def cancel_job(self, job_id: str) -> None:
        """Stop a job. What it has answered stays readable. Raises LLMError."""

    @abstractmethod
    async def delete_job(self, job_id: str) -> None:
        """Remove what an ended job keeps at the provider. Raises LLMError."""

    def batch_line(self, request: BatchRequest) -> bytes:
        """The line of a file for a request."""
        return orjson.dumps(
            {"custom_id": request.custom_id, "method": "POST", "url": request.url, "body": request.body}
        )

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
                `requests`: how many it has. `size`: its bytes. `custom_ids`: those of its requests, or of some.
                `taken`: ids of jobs that are known to be others.
        """
        async for status in self.list_jobs():
            if status.metadata.get(MARK) == mark:
                return status
            if status.created < since:
                return None
        return None

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
        """As `LLM.generate_outputs`. With `use_offline_batch_generation` the first call submits the inputs
        and later calls, with the same inputs, return the outputs once they are there.

        Raises:
            OfflineBatchGenerationNotFinishedError: the jobs aren't finished, and
                `offline_batch_generation_block_until_done` isn't set.
        """
        changed = self.with_generation_kwargs(kwargs)
        if not self.use_offline_batch_generation:
            return run_sync(changed.answer_all(inputs, num_generations))
        if self.jobs_ids is None:
            self.jobs_ids = run_sync(changed.submit(inputs, num_generations))
        return run_sync(self._collect(changed, inputs, num_generations))

    async def submit(self, inputs: Sequence[FormattedInput], num_generations: int) -> tuple[str, ...]:
        """Send inputs off, in as few jobs as the provider's limits allow. All of them, or none."""
        ids: list[str] = []
        with self.job_writer() as writer:
            full = [file for file in map(writer.add, self._requests(inputs, num_generations)) if file is not None]
            try:
                for file in [*full, *writer.rest()]:
                    job = await self.create_job(file, {})
                    ids.append(job.id)
            except LLMError:
                for job_id in ids:
                    await _quietly(self.cancel_job(job_id))
                raise
        return tuple(ids)

    async def _collect(
        self, changed: OfflineBatchLLM, inputs: Sequence[FormattedInput], num_generations: int
    ) -> list[GenerateOutput]:
        jobs = self.jobs_ids or ()
        statuses = await self._statuses_when_allowed(jobs)
        outcomes: dict[str, GenerateOutput | LLMError] = {}
        for status in statuses:
            if status.state == "ended":
                outcomes |= await self.look(partial(self._outcomes, status.id))
        expected = changed.request_keys(inputs, num_generations)
        failed = next((status for status in statuses if status.state == "failed"), None)
        why = f"batch job {failed.id!r} {failed.status}: {failed.message}" if failed else ""
        if not {key for keys in expected for key in keys} & set(outcomes):
            if why:
                self.jobs_ids = None
                raise LLMError(why)
            if outcomes:
                raise LLMError(
                    f"jobs_ids={jobs!r} answer other inputs than those given; call with the inputs they were made for,"
                    " or set jobs_ids=None to submit new jobs"
                )
        self.jobs_ids = None
        missing = LLMError(why) if why else ExpiredError("the job ended without an answer to it; submit it again")
        found = [[outcomes.get(key, missing) for key in keys] for keys in expected]
        return [_as_output(each, num_generations) for each in found]

    async def _outcomes(self, job_id: str) -> dict[str, GenerateOutput | LLMError]:
        return {result.custom_id: result.outcome async for result in self.job_results(job_id)}

    async def look(self, request: Callable[[], Awaitable[T]]) -> T:
        """Ask the provider for something that can be asked for again, with retries.

        A provider that is away isn't waited for longer: whoever waits for its jobs looks again later.
        """
        most = self.max_concurrent_requests
        limiter = limiter_for(
            ("batches", self.limit_key), most, partial(Limiter, most, name=self.provider, outage_timeout=0.0)
        )
        return await send(request, limiter, self.max_retries)

    async def _statuses_when_allowed(self, jobs: Sequence[str]) -> list[JobStatus]:
        while True:
            statuses = list(await asyncio.gather(*(self.look(partial(self.job_status, job)) for job in jobs)))
            if all(status.state != "waiting" for status in statuses):
                return statuses
            if self.offline_batch_generation_block_until_done is None:
                raise OfflineBatchGenerationNotFinishedError(jobs)
            await asyncio.sleep(self.offline_batch_generation_block_until_done)

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


async def _quietly(work: Awaitable[None]) -> None:
    """Wait for `work`, which may fail: there's a first error that says more."""
    try:
        await work
    except LLMError:
        return


def _as_output(outcomes: Sequence[GenerateOutput | LLMError], num_generations: int) -> GenerateOutput:
    """The output of the requests that an input was sent as. One that failed fails it."""
    for outcome in outcomes:
        if isinstance(outcome, LLMError):
            return GenerateOutput(
                generations=[None] * num_generations,
                statistics=TokenCounts(input_tokens=[0] * num_generations, output_tokens=[0] * num_generations),
                error=failure_of(outcome),
            )
    answered = [outcome for outcome in outcomes if not isinstance(outcome, LLMError)]
    return answered[0] if len(answered) == 1 else combined(answered)
