"""Fireworks AI. Chats: https://docs.fireworks.ai/api-reference/post-chatcompletions.

Batches: https://docs.fireworks.ai/guides/batch-inference, with datasets in place of files, as fireworks-ai 1.2.30 has
them (2026-11). How a request that failed is told of in the error file isn't documented, and not verified.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast
from urllib.parse import quote

from pydantic import Field, PrivateAttr

from llms.base import split_input
from llms.batch import (
    MARK,
    SECONDS_AFTER_THE_END,
    BatchLimits,
    BatchRequest,
    BatchResult,
    JobFile,
    JobStatus,
    lines_in,
    result_of_unreadable,
)
from llms.errors import (
    AuthenticationError,
    BadRequestError,
    IncompleteResultsError,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    OverloadedError,
    error_for_status,
)
from llms.http import new_session, plain_refusal, request_errors, written
from llms.parameters import Unasked, short
from llms.providers.batch_dialects import BatchDialect
from llms.providers.openai import SECONDS_PER_UPLOAD, ChatBatchesLLM, file_name, result_from
from llms.providers.parameters import (
    ExtraBody,
    FrequencyPenalty,
    Logprobs,
    MaxNewTokens,
    MinP,
    PresencePenalty,
    ReasoningEffort,
    RepetitionPenalty,
    ResponseFormat,
    Seed,
    ServiceTier,
    Stop,
    Temperature,
    TopK,
    TopLogprobs,
    TopP,
    keywords_in,
)
from llms.quantities import quantity
from llms.reading import count_in, json_in, list_in, object_in, seconds_of, text_in
from llms.secrets import forget, know
from llms.typing import FormattedInput, GenerateOutput, JSONSchema
from llms.uploads import is_not_there, job_of_file

if TYPE_CHECKING:
    import aiohttp

HOST = "https://api.fireworks.ai"
ACCOUNT_VARIABLE = "FIREWORKS_ACCOUNT_ID"
BATCHES = BatchDialect(short_lines=True, keeps_metadata=True)
JOBS_PER_PAGE = 200
CHUNK = 1 << 16
STATE = "JOB_STATE_"
COMPLETED = "completed"
SECONDS_TO_BE_FOUND = SECONDS_AFTER_THE_END
"""So long after its dataset was made, by the provider's clock, or the job itself by this process, a job that isn't
found may still be: what was just made isn't known everywhere at once, and the upload comes in between."""
CANCELLED = "cancelled"
"""Also the state of a job that isn't found, while its input is there: see `cancel_job`."""
# Of a dataset.
READY, UPLOADING = "READY", "UPLOADING"


class FireworksLLM(ChatBatchesLLM):
    """A model of Fireworks AI, with the key in FIREWORKS_API_KEY; for batches also the account.

    What doesn't fit into the model's context is refused: the API's own way is to allow fewer tokens for the answer.

    Example:
        >>> llm = FireworksLLM(model="accounts/fireworks/models/deepseek-v3p2")
        >>> llm.url()
        'https://api.fireworks.ai/inference/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("FIREWORKS_API_KEY",)
    url_variable: ClassVar[str] = "FIREWORKS_BASE_URL"
    own_url: ClassVar[str] = f"{HOST}/inference/v1"

    sends: ClassVar[Mapping[str, Any]] = {"context_length_exceeded_behavior": "error"}
    # 150 MB is the most of one upload. How many requests a job takes isn't documented.
    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=50_000, size=150_000_000)

    form_title = "Fireworks AI"

    provider: Annotated[Literal["fireworks"], Field(title="Provider")] = "fireworks"  # pyright: ignore[reportIncompatibleVariableOverride]
    account_id: Annotated[
        str | None,
        Field(title="Account", description=f"Whose batches they are. Empty: {ACCOUNT_VARIABLE}."),
        Unasked(),
    ] = None

    _made_here: dict[str, float] = PrivateAttr(default_factory=dict[str, float])
    """When jobs were made, in seconds since 1970, by their ids."""
    _cancelled: set[str] = PrivateAttr(default_factory=set[str])
    """Ids of the jobs that were deleted in place of being cancelled."""

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        top_k: TopK = None,
        min_p: MinP = None,
        repetition_penalty: RepetitionPenalty = None,
        frequency_penalty: FrequencyPenalty = None,
        presence_penalty: PresencePenalty = None,
        stop: Stop = None,
        seed: Seed = None,
        reasoning_effort: ReasoningEffort = None,
        service_tier: ServiceTier = None,
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat or bare prompt. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def url(self) -> str:
        """The address that requests go to. The SDK's variable holds it without /v1, or without all of its path."""
        url = super().url()
        if url.endswith("/v1"):
            return url
        return f"{url}/inference/v1" if url == HOST else f"{url}/v1"

    @property
    def account(self) -> Hashable:
        return (*cast("tuple[Hashable, ...]", super().account), self._account_id())

    def load(self) -> None:
        """Find the key, and for batches the account.

        Raises:
            AuthenticationError: there is none, or none for the address.
        """
        super().load()
        if self.use_offline_batch_generation:
            self._account_address()

    def _account_id(self) -> str:
        return self.account_id or os.environ.get(ACCOUNT_VARIABLE, "").strip()

    def _account_address(self) -> str:
        """The address of what the account has. Raises AuthenticationError where no account is named."""
        account = self._account_id()
        if not account:
            raise AuthenticationError(
                f"Fireworks keeps batches by account, and none is named for model={self.model!r}: give `account_id`, or"
                f" set {ACCOUNT_VARIABLE}; its name is on https://app.fireworks.ai, below Settings"
            )
        return f"{self.url().removesuffix('/v1').removesuffix('/inference')}/v1/accounts/{quote(account, safe='')}"

    def _job_at(self, job_id: str) -> str:
        return f"{self._account_address()}/batchInferenceJobs/{job_id}"

    def _dataset_at(self, dataset: str) -> str:
        return f"{self._account_address()}/datasets/{dataset}"

    def batch_dialect(self) -> BatchDialect:
        return BATCHES

    def batch_request(
        self, custom_id: str, given: FormattedInput, num_generations: int, number: int = 0
    ) -> BatchRequest:
        """The request as it goes into a batch. Raises BadRequestError for a bare prompt, which goes online alone."""
        if isinstance(split_input(given)[0], str):
            raise BadRequestError(
                f"batches at Fireworks are of chats, got a bare prompt for model={self.model!r}: give a chat, or ask"
                " online"
            )
        return super().batch_request(custom_id, given, num_generations, number)

    def batch_line(self, request: BatchRequest) -> bytes:
        """A line for a request. The model is the job's."""
        body = {name: value for name, value in request.body.items() if name != "model"}
        return written({"custom_id": request.custom_id, "body": body})

    async def create_job(self, file: JobFile, metadata: Mapping[str, str]) -> JobStatus:
        """Upload the file as a dataset, and create a batch from it. We name both: neither is made twice.

        Raises:
            LLMError: one of its kinds, by the provider's answer.
        """
        name = f"{MARK}-{metadata.get(MARK) or file.intent}"
        dataset: dict[str, Any] = {"userUploaded": {}, "exampleCount": str(len(file.custom_ids))}
        made = await self._make(f"{self._account_address()}/datasets", {"datasetId": name, "dataset": dataset})
        if made is not None or await self._state_of(name) != READY:
            await self._upload_into(name, file)
        job = {
            "model": self.model,
            "inputDatasetId": self._full_name(name),
            "outputDatasetId": self._full_name(output_of(name)),
        }

        async def create() -> JobStatus:
            if await self._state_of(name) == UPLOADING:
                raise BadRequestError(f"the dataset {name!r} is still being processed")
            made = await self._make(f"{self._account_address()}/batchInferenceJobs?batchInferenceJobId={name}", job)
            self._made_here[name] = time.time()
            return self._status_from(made or await self._get(self._job_at(name)))

        return await job_of_file(create, lambda: self._delete(self._dataset_at(name)))

    async def _state_of(self, dataset: str) -> str:
        return text_in((await self._get(self._dataset_at(dataset))).get("state"))

    def _full_name(self, dataset: str) -> str:
        return f"accounts/{self._account_id()}/datasets/{dataset}"

    async def _make(self, address: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was made under a name that we chose; None where an earlier try made it. Raises LLMError."""
        import httpx2
        import openai

        try:
            response = await self._client().post(address, body=body, cast_to=httpx2.Response)
        except openai.ConflictError:
            return None
        except openai.OpenAIError as error:
            raise self._error_from(error) from None
        return object_in(response.text)

    async def _upload_into(self, dataset: str, file: JobFile) -> None:
        import httpx2
        import openai

        options: Any = {
            "headers": {"Content-Type": "multipart/form-data"},
            "timeout": max(self.timeout, SECONDS_PER_UPLOAD),
        }
        try:
            with file.path.open("rb") as stream:
                await self._client().post(
                    f"{self._dataset_at(dataset)}:upload",
                    files=[("file", (file_name(None), stream))],
                    cast_to=httpx2.Response,
                    options=options,
                )
        except openai.OpenAIError as error:
            raise self._error_from(error) from None

    def as_job(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        name, state = last_part(answer.get("name")), text_in(answer.get("state"))
        if not name or not state:
            raise InvalidResponseError(f"the provider's answer is no batch inference job: {short(answer)}")
        word = state.removeprefix(STATE).lower()
        progress = object_in(answer.get("jobProgress"))
        done = count_in(progress.get("successfullyProcessedRequests"))
        said = text_in(object_in(answer.get("status")).get("message"))
        return {
            "id": name,
            "status": word,
            "input_file_id": last_part(answer.get("inputDatasetId")),
            "output_file_id": last_part(answer.get("outputDatasetId")) if done or word != "failed" else "",
            "created_at": answer.get("createTime"),
            "errors": [{"message": said}] if said and word == "failed" else [],
            "metadata": {MARK: name.removeprefix(f"{MARK}-")} if name.startswith(f"{MARK}-") else {},
            "request_counts": {
                "total": count_in(progress.get("totalInputRequests")),
                "completed": done,
                "failed": count_in(progress.get("failedRequests")),
            },
        }

    async def job_status(self, job_id: str) -> JobStatus:
        return self._status_from(await self._job(job_id) or _cancelled_job(job_id))

    async def _job(self, job_id: str) -> dict[str, Any] | None:
        """The job. None where only its input is there.

        Raises:
            OverloadedError: it isn't found, and it's so new that this may mean nothing; or whether its input is there
                can't be said now.
            LLMError: one of its kinds, by the provider's answer.
        """
        try:
            return await self._get(self._job_at(job_id))
        except ModelNotFoundError as error:
            try:
                dataset = await self._get(self._dataset_at(job_id))
            except LLMError as problem:
                raise (problem if problem.retryable else error) from None
            made = max(seconds_of(dataset.get("createTime")), self._made_here.get(job_id, 0.0))
            if time.time() - made < SECONDS_TO_BE_FOUND and job_id not in self._cancelled:
                said = f"batch {job_id!r} isn't found, and may be yet: its dataset was made a short time ago"
                raise OverloadedError(said) from None
            return None

    async def _jobs(self) -> AsyncIterator[tuple[dict[str, Any], JobStatus]]:
        token = ""
        while True:
            more = {"pageToken": token} if token else {}
            page = await self._get(f"{self._account_address()}/batchInferenceJobs", pageSize=JOBS_PER_PAGE, **more)
            for job in map(object_in, list_in(page.get("batchInferenceJobs"))):
                # One that can't be told what it is isn't ours. The oldest come first: none ends the search by its time.
                with suppress(InvalidResponseError):
                    yield self.as_job(job), self._status_from({**job, "createTime": None})
            before, token = token, text_in(page.get("nextPageToken"))
            if not token or token == before:
                return

    async def find_job(self, mark: str, since: float, file: Mapping[str, Any]) -> JobStatus | None:
        """The job with the name that we gave it."""
        try:
            return self._status_from(await self._get(self._job_at(f"{MARK}-{mark}")))
        except ModelNotFoundError:
            return None

    async def job_results(self, job_id: str) -> AsyncGenerator[BatchResult]:
        """What the files of a job's output hold: answers and errors, in any order. Of a job that failed, nothing.

        Raises:
            IncompleteResultsError: as in the base; also where the job isn't found, unless this process deleted it, or
                is still worked on: one look at the API isn't enough to call a job cancelled that is paid.
            LLMError: one of its kinds, by the provider's answer.
        """
        found = await self._job(job_id)
        job = self.as_job(found or _cancelled_job(job_id))
        if found is not None and self._status_from(found).state == "waiting":
            raise IncompleteResultsError(f"batch {job_id!r} is {job['status']!r}: a moment ago it wasn't found")
        dataset, answers = text_in(job["output_file_id"]), 0
        counted = count_in(job["request_counts"]["completed"])
        gone: LLMError | None = None
        addresses: list[str] = []
        try:
            addresses = await self._addresses(dataset) if dataset else []
            for address in addresses:
                async with aclosing(self._lines_at(address)) as lines:
                    async for line in lines:
                        result, answered = self._result(line)
                        answers += answered
                        if result is not None and result.custom_id:
                            yield result
        except (BadRequestError, ModelNotFoundError) as error:
            if not is_not_there(error):
                raise
            gone = error
        finally:
            for address in addresses:
                forget(address)
        if answers < counted or (gone and job["status"] == COMPLETED):
            read = f"{answers:,} of {quantity(counted, 'answer')}"
            has = f"its dataset {dataset!r} isn't found" if gone else f"it has {read}"
            raise IncompleteResultsError(f"batch {job_id!r} is {job['status']!r}, but {has}", gone=gone)
        if found is None and job_id not in self._cancelled:
            raise IncompleteResultsError(f"batch {job_id!r} isn't found, while its dataset is there")

    async def _addresses(self, dataset: str) -> list[str]:
        """Where the files of a dataset are read, for some minutes, by whoever has the address. Raises LLMError."""
        answer = await self._get(f"{self._dataset_at(dataset)}:getDownloadEndpoint")
        addresses = [each for each in object_in(answer.get("filenameToSignedUrls")).values() if isinstance(each, str)]
        for address in addresses:
            know(address)
        return addresses

    async def _lines_at(self, address: str) -> AsyncGenerator[bytes]:
        """The lines of a file in the provider's store, which isn't sent the key. Raises LLMError."""
        import aiohttp

        # However long it takes, as long as something comes.
        timeout = aiohttp.ClientTimeout(sock_connect=self.timeout, sock_read=self.timeout)
        with request_errors(f"the store of {self.url()}", self.timeout):
            async with (
                new_session(address, {}, self.timeout) as session,
                session.get(address, timeout=timeout) as response,
            ):
                await _check(response)
                async for line in lines_in(response.content.iter_chunked(CHUNK)):
                    if line.strip():
                        yield line

    def _result(self, line: bytes) -> tuple[BatchResult | None, bool]:
        """The outcome in a line, and whether it is an answer: the body of a chat, without the status of its request."""
        try:
            found = object_in(json_in(line))
        except ValueError:
            return result_of_unreadable(line), False
        body = object_in(found.get("response"))
        if body and "body" not in body:
            found = {**found, "response": {"body": body}}
        return result_from(found, self.answering_model()), bool(body)

    async def cancel_job(self, job_id: str) -> None:
        """Delete a job: the API has no other way to stop one. Whether what it has answered stays isn't documented."""
        await self._delete(self._job_at(job_id))
        self._cancelled.add(job_id)

    async def delete_job(self, job_id: str) -> None:
        """Delete a job with its datasets."""
        await self._delete(self._job_at(job_id))
        for dataset in (job_id, output_of(job_id)):
            await self._delete(self._dataset_at(dataset))


def last_part(name: object) -> str:
    """The id in the name of a resource: `accounts/a/datasets/id`."""
    return text_in(name).rpartition("/")[2]


def output_of(dataset: str) -> str:
    """The dataset with the results of a job made of `dataset`."""
    return f"{dataset}-out"


def _cancelled_job(job_id: str) -> dict[str, Any]:
    """What is left of a job of which only the input is there."""
    return {"name": job_id, "state": CANCELLED, "outputDatasetId": output_of(job_id)}


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raises an LLMError where the store doesn't give the file; one to try again, where it isn't its last word."""
    if response.status == 200:
        return
    said = plain_refusal(await response.read())
    if response.status in {400, 404}:
        raise error_for_status(response.status, f"the provider's store doesn't give the file: {said}")
    raise OverloadedError(f"the provider's store didn't give the file ({response.status}): {said}")
