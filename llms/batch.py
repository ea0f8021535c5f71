"""Offline batches: the life cycle that is the same for every provider's batch API.

An adapter adds what its API does differently: how a request looks, how a job is created, looked at,
read and cancelled. Answers are joined to requests by `custom_id`, a digest of the request and of how
many equal ones stand before it; never by position.
"""

from __future__ import annotations

import asyncio
import hashlib
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import Field

from llms.base import AsyncLLM, split_input
from llms.errors import ExpiredError, LLMError, OfflineBatchGenerationNotFinishedError, failure_of
from llms.limits import limiter_for, send
from llms.loop import run_sync
from llms.parameters import Aside
from llms.typing import FormattedInput, GenerateOutput, TokenCounts

T = TypeVar("T")

JobState = Literal["waiting", "finished", "failed"]


@dataclass(frozen=True)
class BatchRequest:
    """One line of a batch: its key and the body that would be sent online."""

    custom_id: str
    url: str
    body: dict[str, Any]


@dataclass(frozen=True)
class JobStatus:
    """How a job stands, in terms that hold for every provider."""

    id: str
    state: JobState
    """`finished`: results can be read, perhaps partial ones. `failed`: there are none and will be none."""
    status: str
    """The provider's own word."""
    total: int = 0
    answered: int = 0
    refused: int = 0
    message: str = ""


@dataclass(frozen=True)
class BatchResult:
    """The outcome of one request of a job."""

    custom_id: str
    outcome: GenerateOutput | LLMError


class OfflineBatchLLM(AsyncLLM):
    """A service with a batch API: cheaper answers, within a day."""

    # Neither in forms nor in dumps as long as flows can't wait for batches.
    use_offline_batch_generation: Annotated[
        bool, Field(exclude=True, description="Send requests as batch jobs: cheaper, answered within a day."), Aside()
    ] = False
    offline_batch_generation_block_until_done: Annotated[
        int | None,
        Field(ge=1, exclude=True, description="Wait, looking again every so many seconds."),
        Aside(),
    ] = None
    jobs_ids: Annotated[
        tuple[str, ...] | None,
        Field(exclude=True, description="The jobs under way; None before the first call."),
        Aside(),
    ] = None

    @abstractmethod
    def batch_request(self, custom_id: str, given: FormattedInput, num_generations: int) -> BatchRequest:
        """The request as a line of a batch."""

    @abstractmethod
    async def create_jobs(self, requests: Sequence[BatchRequest]) -> tuple[str, ...]:
        """Submit `requests` in as few jobs as the provider's limits allow. Returns the jobs' ids."""

    @abstractmethod
    async def job_status(self, job_id: str) -> JobStatus:
        """How a job stands."""

    @abstractmethod
    def job_results(self, job_id: str) -> AsyncIterator[BatchResult]:
        """What a finished job answered and refused, in any order."""

    @abstractmethod
    async def cancel_job(self, job_id: str) -> None:
        """Stop a job. What it has answered stays readable."""

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
        """Send inputs off as batch jobs."""
        return await self.create_jobs(self._requests(inputs, num_generations))

    async def _collect(
        self, changed: OfflineBatchLLM, inputs: Sequence[FormattedInput], num_generations: int
    ) -> list[GenerateOutput]:
        jobs = self.jobs_ids or ()
        statuses = await self._statuses_when_allowed(jobs)
        outcomes: dict[str, GenerateOutput | LLMError] = {}
        for status in statuses:
            if status.state == "finished":
                outcomes |= await self._look(partial(self._outcomes, status.id))
        expected = changed.request_keys(inputs, num_generations)
        failed = next((status for status in statuses if status.state == "failed"), None)
        why = f"batch job {failed.id!r} {failed.status}: {failed.message}" if failed else ""
        if not set(expected) & set(outcomes):
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
        return [_as_output(outcomes.get(key, missing), num_generations) for key in expected]

    async def _outcomes(self, job_id: str) -> dict[str, GenerateOutput | LLMError]:
        return {result.custom_id: result.outcome async for result in self.job_results(job_id)}

    async def _look(self, request: Callable[[], Awaitable[T]]) -> T:
        """Ask the provider for something that can be asked for again, with retries."""
        limiter = limiter_for(("batches", self.limit_key), self.max_concurrent_requests)
        return await send(request, limiter, self.max_retries)

    async def _statuses_when_allowed(self, jobs: Sequence[str]) -> list[JobStatus]:
        while True:
            statuses = list(await asyncio.gather(*(self._look(partial(self.job_status, job)) for job in jobs)))
            if all(status.state != "waiting" for status in statuses):
                return statuses
            if self.offline_batch_generation_block_until_done is None:
                raise OfflineBatchGenerationNotFinishedError(jobs)
            await asyncio.sleep(self.offline_batch_generation_block_until_done)

    def request_keys(self, inputs: Sequence[FormattedInput], num_generations: int) -> list[str]:
        """The `custom_id` of each input."""
        identity = self.identity()
        return request_keys((*split_input(each), num_generations, identity) for each in inputs)

    def _requests(self, inputs: Sequence[FormattedInput], num_generations: int) -> list[BatchRequest]:
        keys = self.request_keys(inputs, num_generations)
        return [self.batch_request(key, each, num_generations) for key, each in zip(keys, inputs, strict=True)]


def request_keys(contents: Iterable[object]) -> list[str]:
    """A key per request: a digest of its content and of how many equal ones came before it."""
    seen: dict[str, int] = {}
    keys: list[str] = []
    for content in contents:
        digest = hashlib.blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()
        seen[digest] = seen.get(digest, -1) + 1
        keys.append(f"{digest}-{seen[digest]}")
    return keys


def _as_output(outcome: GenerateOutput | LLMError, num_generations: int) -> GenerateOutput:
    if not isinstance(outcome, LLMError):
        return outcome
    return GenerateOutput(
        generations=[None] * num_generations,
        statistics=TokenCounts(input_tokens=[0] * num_generations, output_tokens=[0] * num_generations),
        error=failure_of(outcome),
    )
