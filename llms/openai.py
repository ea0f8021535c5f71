"""OpenAI, and every server that speaks its protocol.

Chat completions: https://platform.openai.com/docs/api-reference/chat. A bare string goes to
completions: https://platform.openai.com/docs/api-reference/completions. Batches:
https://platform.openai.com/docs/guides/batch. Embeddings: `llms.openai_embeddings`. Images: `llms.openai_images`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
import os
import re
import struct
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import orjson
from pydantic import Field, PrivateAttr, SecretStr

from llms.base import combined, split_input
from llms.batch import (
    MARK,
    BatchLimits,
    BatchRequest,
    BatchResult,
    JobFile,
    JobState,
    JobStatus,
    OfflineBatchLLM,
)
from llms.batch_dialects import BatchDialect, dialect_of
from llms.credentials import Credentials, WithKey
from llms.embeddings import embedding_output
from llms.errors import (
    AuthenticationError,
    BadRequestError,
    ConnectionFailedError,
    ContentFilterError,
    ContextLengthError,
    ExpiredError,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    OverloadedError,
    QueueFullError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    error_for_status,
)
from llms.http import new_session, request_errors, trusted_certificates, why
from llms.images import image_bytes, image_output, is_address
from llms.limits import hear
from llms.loop import PerLoop
from llms.parameters import Aside, short
from llms.rates import rates_in
from llms.structured_output import schema_name, strict_schema
from llms.typing import FormattedInput, GenerateOutput, JSONSchema, Logprob, PriceSource, TokenCounts

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from openai import AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
IMAGES = "/v1/images/generations"
# By the `object` of an answer's body.
PATHS = {"text_completion": COMPLETIONS, "list": EMBEDDINGS}
BATCH_PAGES = "https://platform.openai.com/batches"
JOBS_PER_PAGE = 100
SECONDS_PER_UPLOAD = 600.0
# How long OpenAI keeps the files of a job, which is the longest it offers.
KEPT: Any = {"anchor": "created_at", "seconds": 30 * 24 * 3600}
FEW_PROBLEMS = 5
"""Of a job, that go into a message."""
QUEUE_FULL = "token_limit_exceeded"
REASONING_MODEL = re.compile(r"(^|/)(o\d|gpt-5)")

JOB_STATES: dict[str, JobState] = {
    "validating": "waiting",
    "in_progress": "waiting",
    "finalizing": "waiting",
    "cancelling": "waiting",
    "canceling": "waiting",
    "completed": "ended",
    "expired": "ended",
    "cancelled": "ended",
    "canceled": "ended",
    "failed": "failed",
}

# Codes of a job that failed at validation for which no other job of the run can do better.
FATAL_JOB_ERRORS: dict[str, type[LLMError]] = {
    "model_not_found": ModelNotFoundError,
    "billing_hard_limit_reached": QuotaExceededError,
    "insufficient_quota": QuotaExceededError,
}

# After these there is no job.
REFUSALS = (
    BadRequestError,
    RateLimitError,
    AuthenticationError,
    ModelNotFoundError,
    QuotaExceededError,
)

# Codes of a line of a job's error file that came to no answer.
LINE_ERRORS: dict[str, type[LLMError]] = {
    "batch_expired": ExpiredError,
    "batch_cancelled": ExpiredError,
    "request_timeout": RequestTimeoutError,
    "timeout": RequestTimeoutError,
    "server_error": OverloadedError,
    "internal_error": OverloadedError,
    "rate_limit_exceeded": RateLimitError,
    "content_filter": ContentFilterError,
    "context_length_exceeded": ContextLengthError,
}


class OpenAILLM(WithKey, OfflineBatchLLM):
    """A model of OpenAI, or of any server with its API (vLLM, Ollama, Together, Groq, a gateway).

    Example:
        >>> llm = OpenAILLM(model="gpt-4o-mini", generation_kwargs={"temperature": 0.3})
        >>> llm.model_name
        'gpt-4o-mini'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    url_variable: ClassVar[str] = "OPENAI_BASE_URL"
    own_url: ClassVar[str] = OPENAI_URL
    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=50_000, size=200_000_000)

    form_first = ("model", "credentials", "generation_kwargs")
    form_title = "OpenAI or compatible"

    provider: Annotated[Literal["openai"], Field(title="Provider")] = "openai"  # pyright: ignore[reportIncompatibleVariableOverride]
    model: Annotated[str, Field(title="Model", description="The model's name at the provider.")]
    base_url: Annotated[
        str | None,
        Field(title="Address", description="Of a compatible server, with its /v1. Empty: OPENAI_BASE_URL, or OpenAI."),
    ] = None
    credentials: Annotated[
        str | None,
        Field(title="Credentials", description="Name of an LLM credentials block. Empty: OPENAI_API_KEY."),
        Aside(),
    ] = None
    api_key: Annotated[
        SecretStr | None,
        Field(exclude=True, description="The key itself; better by `credentials` or environment."),
        Aside(),
    ] = None
    organization: Annotated[str, Field(title="Organization", description="Empty: the key's own."), Aside()] = ""
    default_headers: Annotated[
        dict[str, str] | None, Field(exclude=True, repr=False, description="Headers for every request."), Aside()
    ] = None
    timeout: Annotated[float, Field(gt=0, title="Timeout", description="Seconds for one request."), Aside()] = 120.0

    _clients: PerLoop[AsyncOpenAI] = PrivateAttr(default_factory=PerLoop)
    _sessions: PerLoop[ClientSession] = PrivateAttr(default_factory=PerLoop)
    _tokens_parameter: str | None = PrivateAttr(default=None)
    _repeats: bool = PrivateAttr(default=False)
    _found_credentials: tuple[str, Credentials] | None = PrivateAttr(default=None)

    @property
    def model_name(self) -> str:
        return self.model

    @property
    def limit_key(self) -> Hashable:
        return (self.provider, self.url(), self.model, hash(self.key().get_secret_value()))

    @property
    def account(self) -> Hashable:
        return (self.provider, self.url(), self.organization, hash(self.key().get_secret_value()))

    def price_source(self) -> PriceSource | None:
        return PriceSource(self.url(), self.model)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "base_url": self.url()}

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: Annotated[int | None, Field(ge=1, description="The most tokens of one answer.")] = None,
        temperature: Annotated[
            float | None, Field(ge=0, le=2, description="0: the likeliest answer; higher: more varied ones.")
        ] = None,
        top_p: Annotated[float | None, Field(ge=0, le=1, description="Sample from this share of probability.")] = None,
        frequency_penalty: Annotated[float | None, Field(ge=-2, le=2, description="Against repeated words.")] = None,
        presence_penalty: Annotated[float | None, Field(ge=-2, le=2, description="Against words used before.")] = None,
        stop: Annotated[str | list[str] | None, Field(description="Text at which an answer ends.")] = None,
        seed: Annotated[int | None, Field(description="For repeatable answers, where the provider can.")] = None,
        reasoning_effort: Annotated[
            str | None, Field(description="For reasoning models: none, minimal, low, medium, high, xhigh.")
        ] = None,
        logprobs: Annotated[bool, Field(description="Return the log probabilities of the tokens.")] = False,
        top_logprobs: Annotated[int | None, Field(ge=0, le=20, description="How many tokens at each place.")] = None,
        echo: Annotated[bool, Field(description="Completions only: return the prompt as well.")] = False,
        response_format: Annotated[dict[str, Any] | None, Field(description="As the API takes it.")] = None,
        extra_body: Annotated[dict[str, Any] | None, Field(description="Further fields of the request's body.")] = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat or prompt.

        Raises:
            LLMError: one of its kinds, by the provider's answer.
        """
        keywords = {name: value for name, value in locals().items() if name not in {"self", "input", "num_generations"}}
        return await self.generated(input, num_generations, keywords)

    async def generated(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        """`times` generations, in as few requests as the server can do with. Raises LLMError."""
        if times > 1 and self._repeats:
            return await self._repeated(given, range(times), keywords)
        tokens_name = self._tokens_name()
        try:
            output = await self._request(given, times, keywords)
        except BadRequestError as error:
            if not self._adapt(error, times, tokens_name):
                raise
            return await self.generated(given, times, keywords)
        got = len(output["generations"])
        if got < times:
            self._repeats = True
            return combined([output, await self._repeated(given, range(got, times), keywords)])
        return output

    async def _repeated(self, given: FormattedInput, numbers: range, keywords: Mapping[str, Any]) -> GenerateOutput:
        """One request per generation. A seed is counted on, or all of them would be the same."""
        seed = keywords.get("seed")
        seeded = [keywords if seed is None else {**keywords, "seed": seed + number} for number in numbers]
        return combined(await asyncio.gather(*(self.generated(given, 1, each) for each in seeded)))

    async def _request(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        path, body = self._body(given, times, keywords)
        return parse_answer(await self._send(path.removeprefix("/v1"), body), path)

    def _adapt(self, error: BadRequestError, num_generations: int, tokens_name: str) -> bool:
        """Learn from a refusal how this server wants it. Returns whether it's worth another try.

        Requests that were under way when the first refusal came take part: each compares with what it sent.
        """
        said = str(error)
        if f"'{tokens_name}'" in said:
            if self._tokens_parameter is None:
                other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
                self._tokens_parameter = other[tokens_name]
            return self._tokens_name() != tokens_name
        if num_generations > 1 and re.search(r"['\"`]n['\"`]", said):
            self._repeats = True
            return True
        return False

    def _tokens_name(self) -> str:
        if self._tokens_parameter is not None:
            return self._tokens_parameter
        newer = self._is_newest() or REASONING_MODEL.search(self.model)
        return "max_completion_tokens" if newer else "max_tokens"

    def _is_newest(self) -> bool:
        """Whether the server takes all that OpenAI's API has by now."""
        return self.url() == self.own_url

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """The API's path and the request's body."""
        wanted = {name: value for name, value in keywords.items() if value is not None and value is not False}
        extra = wanted.pop("extra_body", {})
        schema = wanted.pop("structured_output", None)
        tokens = wanted.pop("max_new_tokens", None)
        if num_generations > 1:
            wanted["n"] = num_generations
        if isinstance(given, str):
            if schema is not None:
                raise BadRequestError("structured output needs a chat; got a bare prompt, which goes to completions")
            if tokens is not None:
                wanted["max_tokens"] = tokens
            if wanted.pop("logprobs", None):
                wanted["logprobs"] = wanted.pop("top_logprobs", 1)
            return COMPLETIONS, {"model": self.model, "prompt": given, **wanted, **extra}
        wanted.pop("echo", None)
        if tokens is not None:
            wanted[self._tokens_name()] = tokens
        if schema is not None:
            wanted["response_format"] = response_format(schema)
        return CHAT, {"model": self.model, "messages": given, **wanted, **extra}

    async def _send(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request of a row.

        Not through the SDK: its models, headers and addresses take two thirds of a request's processor time.
        """
        url = self.url()
        with request_errors(url, self.timeout, f"base_url or {self.url_variable}"):
            session = self._sessions.get(self._new_session)
            async with session.post(f"{url}{path}", data=orjson.dumps(body)) as response:
                content = await response.read()
        hear(rates_in(response.headers))
        if response.status >= 400:
            raise refusal_from(response.status, response.headers, content)
        return _json_object(content)

    def _new_session(self) -> ClientSession:
        """With what the SDK sends along: key, organization, project, and headers of one's own."""
        headers = {
            "Accept": "application/json",
            "Authorization": f"Bearer {self.key().get_secret_value()}",
            "OpenAI-Organization": self.organization or os.environ.get("OPENAI_ORG_ID", ""),
            "OpenAI-Project": os.environ.get("OPENAI_PROJECT_ID", ""),
            **(self.default_headers or {}),
        }
        return new_session(self.url(), {name: value for name, value in headers.items() if value}, self.timeout)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        import httpx2
        import openai

        try:
            response = await self._client().post(path, body=body, cast_to=httpx2.Response)
        except openai.OpenAIError as error:
            raise self._error_from(error) from None
        return _json_object(response.content)

    def _client(self) -> AsyncOpenAI:
        """The SDK's client for the running loop. Retries are ours: see `llms.limits`."""
        return self._clients.get(self._new_client)

    def _new_client(self) -> AsyncOpenAI:
        import openai

        return openai.AsyncOpenAI(
            api_key=self.key().get_secret_value(),
            base_url=self.url(),
            timeout=self.timeout,
            max_retries=0,
            organization=self.organization or None,
            default_headers=self.default_headers,
            http_client=openai.DefaultAioHttpClient(timeout=self.timeout, verify=trusted_certificates()),
        )

    def _error_from(self, error: Exception) -> LLMError:
        import openai

        if isinstance(error, openai.APIStatusError):
            if error.code == QUEUE_FULL:
                return queue_full(_message(error))
            headers = error.response.headers
            return error_for_status(
                error.status_code, _message(error), code=error.code or "", retry_after=_retry_after(headers)
            )
        if isinstance(error, openai.APIConnectionError):
            return connection_error(error, self.url(), self.timeout, self.url_variable)
        return LLMError(f"{type(error).__name__}: {error}")

    def batch_request(
        self, custom_id: str, given: FormattedInput, num_generations: int, number: int = 0
    ) -> BatchRequest:
        prompt, schema = split_input(given)
        keywords = self.keywords(schema or self.structured_output)
        if number and keywords.get("seed") is not None:
            keywords = {**keywords, "seed": keywords["seed"] + number}
        path, body = self._body(prompt, num_generations, keywords)
        return BatchRequest(custom_id, path, body)

    def batch_dialect(self) -> BatchDialect:
        """What the batch API of this server does differently."""
        return dialect_of(self.url())

    def batch_line(self, request: BatchRequest) -> bytes:
        if self.batch_dialect().short_lines:
            return orjson.dumps({"custom_id": request.custom_id, "body": request.body})
        return super().batch_line(request)

    def job_limits(self) -> BatchLimits:
        return self.batch_dialect().limits or self.batch_limits

    def requests_per_input(self, num_generations: int) -> int:
        return 1 if num_generations == 1 or self.batch_dialect().several_answers else num_generations

    async def create_job(self, file: JobFile, metadata: Mapping[str, str]) -> JobStatus:
        """Upload the file and create a batch from it.

        Raises:
            QueueFullError: the account has as many tokens enqueued as it may.
            LLMError: another of its kinds, by the provider's answer.
        """
        dialect = self.batch_dialect()
        file_id = await self._upload(file, file_name(metadata.get(MARK)))
        body: dict[str, Any] = {
            "input_file_id": file_id,
            "endpoint": file.url,
            "completion_window": dialect.window,
            **({"metadata": dict(metadata)} if metadata and dialect.takes_metadata else {}),
            **({"output_expires_after": KEPT} if dialect.expires_files else {}),
        }
        try:
            return self._status_from(await self._post("/batches", body))
        except REFUSALS:
            # Not after other errors: there may be a job that reads it.
            with contextlib.suppress(LLMError):
                await self._delete_file(file_id)
            raise

    async def _upload(self, file: JobFile, name: str) -> str:
        """The id of the uploaded file, which goes through in small pieces."""
        import httpx2
        import openai

        dialect = self.batch_dialect()
        fields = {
            "purpose": dialect.purpose,
            **({"file_name": name, "file_type": "jsonl"} if dialect.names_file else {}),
            **({"expires_after": KEPT} if dialect.expires_files else {}),
        }
        try:
            with file.path.open("rb") as stream:
                response = await self._client().post(
                    dialect.upload_path,
                    body=fields,
                    files=[("file", (name, stream))],
                    cast_to=httpx2.Response,
                    options={
                        "headers": {"Content-Type": "multipart/form-data"},
                        "timeout": max(self.timeout, SECONDS_PER_UPLOAD),
                    },
                )
        except openai.OpenAIError as error:
            raise self._error_from(error) from None
        answer = _json_object(response.content)
        # SiliconFlow wraps it: {"data": {...}}.
        uploaded = cast("dict[str, Any]", answer["data"] if isinstance(answer.get("data"), dict) else answer)
        if not uploaded.get("id"):
            raise InvalidResponseError(f"the provider's answer to an upload has no id: {short(answer)}")
        return str(uploaded["id"])

    async def job_status(self, job_id: str) -> JobStatus:
        return self._status_from(await self._get(f"/batches/{job_id}"))

    async def list_jobs(self) -> AsyncIterator[JobStatus]:
        async for job in self._jobs():
            yield self._status_from(job)

    async def find_job(self, mark: str, since: float, file: Mapping[str, Any]) -> JobStatus | None:
        """The job that was created with `mark`, by its metadata or by the name of its file."""
        dialect = self.batch_dialect()
        async for job in self._jobs():
            status = self._status_from(job)
            if status.metadata.get(MARK) == mark:
                return status
            # A job's time may be in whole seconds, or missing.
            if 0 < status.created < since - 1:
                if dialect.newest_first:
                    return None
                continue
            unmarked = not dialect.keeps_metadata and not status.metadata
            if unmarked and await self._file_name(job.get("input_file_id")) == file_name(mark):
                return status
        return None

    async def _jobs(self) -> AsyncIterator[dict[str, Any]]:
        last = ""
        while True:
            page = await self._get("/batches", limit=JOBS_PER_PAGE, **({"after": last} if last else {}))
            jobs = cast("list[dict[str, Any]]", page.get("data") or [])
            for job in sorted(jobs, key=lambda each: seconds_of(each.get("created_at")), reverse=True):
                yield job
            if not jobs or not page.get("has_more") or jobs[-1]["id"] == last:
                return
            last = str(jobs[-1]["id"])

    async def _file_name(self, file_id: str | None) -> str | None:
        if not file_id:
            return None
        try:
            return (await self._get(f"/files/{file_id}")).get("filename")
        except ModelNotFoundError:
            return None

    async def job_results(self, job_id: str) -> AsyncIterator[BatchResult]:
        """Both files of a job: answers and errors, in any order. Of a job that failed, the lines that were at fault."""
        job = _job_in(await self._get(f"/batches/{job_id}"))
        if _state_of(job) == "failed":
            bad = {each["line"]: str(each.get("message")) for each in _problems_of(job) if each.get("line")}
            number = 0
            async for line in self._lines(job.get("input_file_id") if bad else None):
                number += 1
                if number in bad:
                    yield BatchResult(_custom_id_in(line), BadRequestError(bad[number]))
            return
        for name in ("output_file_id", "error_file_id"):
            async for line in self._lines(job.get(name)):
                if line.strip():
                    yield result_from(_json_object(line))

    async def _lines(self, file_id: str | None) -> AsyncIterator[bytes]:
        import httpx2
        import openai

        if not file_id:
            return
        try:
            async with self._client().files.with_streaming_response.content(file_id) as response:
                async for line in lines_in(response.iter_bytes()):
                    yield line
        except openai.OpenAIError as error:
            raise self._error_from(error) from None
        except httpx2.HTTPError as error:
            raise connection_error(error, self.url(), self.timeout, self.url_variable) from None

    async def cancel_job(self, job_id: str) -> None:
        await self._post(f"/batches/{job_id}/cancel", {})

    async def delete_job(self, job_id: str) -> None:
        """Delete the files of a job; the API keeps its entry."""
        job = _job_in(await self._get(f"/batches/{job_id}"))
        for name in ("input_file_id", "output_file_id", "error_file_id"):
            if job.get(name):
                await self._delete_file(job[name])

    async def _delete_file(self, file_id: str) -> None:
        import httpx2
        import openai

        try:
            await self._client().delete(f"/files/{file_id}", cast_to=httpx2.Response)
        except openai.NotFoundError:
            return
        except openai.OpenAIError as error:
            raise self._error_from(error) from None

    def _status_from(self, answer: Mapping[str, Any]) -> JobStatus:
        job = _job_in(answer)
        counts = cast("dict[str, int]", job.get("request_counts") or {})
        state = _state_of(job)
        problems = _problems_of(job)
        said = "; ".join(
            f"{each.get('message')} (line {each['line']})" if each.get("line") else str(each.get("message"))
            for each in problems[:FEW_PROBLEMS]
        )
        if len(problems) > FEW_PROBLEMS:
            said += f"; and {len(problems) - FEW_PROBLEMS:,} more"
        if not said and not counts and state == "waiting" and job.get("progress") is not None:
            said = f"{job['progress']:g} % done"
        return JobStatus(
            id=str(job["id"]),
            state=state,
            status=str(job["status"]).lower(),
            total=int(counts.get("total") or 0),
            answered=int(counts.get("completed") or 0),
            refused=int(counts.get("failed") or 0),
            message=said,
            error=job_error(problems, said) if state == "failed" else None,
            metadata=cast("dict[str, str]", job.get("metadata") or {}),
            created=seconds_of(job.get("created_at")),
            page=f"{BATCH_PAGES}/{job['id']}" if self.url() == OPENAI_URL else "",
        )

    async def _get(self, path: str, **query: object) -> dict[str, Any]:
        import httpx2
        import openai

        try:
            response = await self._client().get(path, cast_to=httpx2.Response, options={"params": query})
        except openai.OpenAIError as error:
            raise self._error_from(error) from None
        return _json_object(response.content)


def response_format(schema: JSONSchema) -> dict[str, Any]:
    """The API's `response_format` for a JSON schema, in strict mode where the schema allows it."""
    strict = strict_schema(schema)
    inner: dict[str, Any] = {"name": schema_name(schema), "schema": strict or schema, "strict": strict is not None}
    return {"type": "json_schema", "json_schema": inner}


def parse_answer(answer: Mapping[str, Any], path: str) -> GenerateOutput:
    """The output from the body of a 200 answer.

    Raises:
        InvalidResponseError: it holds no answer.
        ContentFilterError: every choice was withheld.
    """
    if path == EMBEDDINGS:
        return _embedding_in(answer)
    if path == IMAGES:
        return _images_in(answer)
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        raise InvalidResponseError(f"the provider's answer has no choices: {short(answer)}")
    if not all(isinstance(choice, dict) for choice in cast("list[object]", choices)):
        raise InvalidResponseError(f"the provider's answer has a choice that is no object: {short(answer)}")
    listed = sorted(cast("list[dict[str, Any]]", choices), key=lambda choice: choice.get("index") or 0)
    texts = [_text(choice, path) for choice in listed]
    if all(text is None for text in texts):
        raise _no_text(listed[0])
    output = GenerateOutput(generations=texts, statistics=_token_counts(answer.get("usage") or {}, texts))
    logprobs = [_logprobs(choice.get("logprobs")) for choice in listed]
    if any(logprobs):
        output["logprobs"] = logprobs
    cut_off = [choice.get("finish_reason") == "length" for choice in listed]
    if any(cut_off):
        output["cut_off"] = cut_off
    return output


def _embedding_in(answer: Mapping[str, Any]) -> GenerateOutput:
    data = answer.get("data")
    listed = cast("list[object]", data) if isinstance(data, list) else []
    if len(listed) != 1:
        raise InvalidResponseError(f"the provider's answer has {len(listed)} embeddings, expected one: {short(answer)}")
    usage = _object_in(answer.get("usage"))
    return embedding_output(_vector(_object_in(listed[0]).get("embedding")), int(usage.get("prompt_tokens") or 0))


def _images_in(answer: Mapping[str, Any]) -> GenerateOutput:
    """Images in base64, or their addresses."""
    data = answer.get("data")
    listed = cast("list[object]", data) if isinstance(data, list) else []
    images = [_object_in(each).get("b64_json") or _object_in(each).get("url") for each in listed]
    texts = [each for each in images if isinstance(each, str) and each]
    if not texts or len(texts) < len(images):
        raise InvalidResponseError(f"the provider's answer has {len(texts)} images of {len(images)}: {short(answer)}")
    for text in texts:
        if not is_address(text):
            _check_image(text)
    usage = _object_in(answer.get("usage"))
    return image_output(texts, int(usage.get("input_tokens") or 0), int(usage.get("output_tokens") or 0))


def _check_image(text: str) -> None:
    try:
        image_bytes(text)
    except ValueError as error:
        raise InvalidResponseError(f"the provider's answer has an image that is none: {error}") from None


def _vector(given: object) -> list[float]:
    """The numbers of an embedding: a list of them, or 32-bit floats, little-endian, in base64."""
    try:
        if isinstance(given, str):
            vector = [number for (number,) in struct.iter_unpack("<f", base64.b64decode(given, validate=True))]
        else:
            vector = [float(number) for number in cast("list[float]", given)]
    except (TypeError, ValueError, struct.error):
        vector = []
    if not vector or not all(map(math.isfinite, vector)):
        raise InvalidResponseError(f"the provider's answer has an embedding that is no vector: {short(given)}")
    return vector


def _text(choice: Mapping[str, Any], path: str) -> str | None:
    if path == COMPLETIONS:
        return choice.get("text")
    content = _message_of(choice).get("content")
    if not isinstance(content, list):
        return content
    # Some servers answer in parts, as messages may be asked in.
    parts = [cast("dict[str, Any]", part) for part in cast("list[object]", content) if isinstance(part, dict)]
    return "".join(str(part.get("text") or "") for part in parts)


def _message_of(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    return cast("dict[str, Any]", message) if isinstance(message, dict) else {}


def _no_text(choice: Mapping[str, Any]) -> LLMError:
    refusal = _message_of(choice).get("refusal")
    if refusal:
        return ContentFilterError(f"the model refused: {refusal}")
    if choice.get("finish_reason") == "content_filter":
        return ContentFilterError("the provider withheld the answer (finish_reason 'content_filter')")
    return InvalidResponseError(f"the provider's answer has no text (finish_reason {choice.get('finish_reason')!r})")


def _token_counts(usage: Mapping[str, Any], texts: Sequence[str | None]) -> TokenCounts:
    """The usage per generation: the prompt at the first, the answers' tokens by their length."""
    if len(texts) == 1 and texts[0]:
        return TokenCounts(
            input_tokens=[int(usage.get("prompt_tokens") or 0)],
            output_tokens=[int(usage.get("completion_tokens") or 0)],
        )
    lengths = [len(text or "") for text in texts]
    whole, total = sum(lengths), int(usage.get("completion_tokens") or 0)
    ends = [round(total * sum(lengths[: place + 1]) / whole) if whole else 0 for place in range(len(lengths))]
    return TokenCounts(
        input_tokens=[int(usage.get("prompt_tokens") or 0), *([0] * (len(texts) - 1))],
        output_tokens=[end - start for start, end in zip([0, *ends], ends, strict=False)],
    )


def _logprobs(given: Mapping[str, Any] | None) -> list[list[Logprob]]:
    if not given:
        return []
    content = cast("list[dict[str, Any]] | None", given.get("content"))
    if content is not None:
        places = [cast("list[dict[str, Any]]", place.get("top_logprobs") or [place]) for place in content]
        return [[Logprob(token=each["token"], logprob=each["logprob"]) for each in place] for place in places]
    plain = cast("list[dict[str, float] | None]", given.get("top_logprobs") or [])
    return [[Logprob(token=token, logprob=logprob) for token, logprob in (place or {}).items()] for place in plain]


def connection_error(error: Exception, url: str, timeout: float, variable: str) -> LLMError:
    """The error for a request that got no answer: not connected, cut off, or too slow.

    Judged by the transport's own exception: it calls a refused or cut connection a timeout as well.
    """
    import aiohttp

    cause = error.__cause__
    root = cause.__cause__ if cause is not None and cause.__cause__ is not None else cause
    if isinstance(root, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL):
        return ConnectionFailedError(
            f"can't reach {url}; check the address (base_url or {variable}) and the network ({why(root)})"
        )
    if isinstance(root, TimeoutError):
        return RequestTimeoutError(f"no answer from {url} in {timeout:g} s")
    return InvalidResponseError(
        f"the connection to {url} was cut before the answer was there ({root or cause or error})"
    )


def _job_in(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The batch in an answer. Together wraps the one it created: `{"job": {...}}`."""
    job = answer.get("job", answer)
    if not isinstance(job, dict) or not {"id", "status"} <= set(cast("dict[str, Any]", job)):
        raise InvalidResponseError(f"the provider's answer is no batch: {short(answer)}")
    return cast("dict[str, Any]", job)


def _state_of(job: Mapping[str, Any]) -> JobState:
    # A state that isn't known yet is waited for: it costs nothing, and the job's answers are paid.
    state = JOB_STATES.get(str(job["status"]).lower(), "waiting")
    answered = cast("dict[str, Any]", job.get("request_counts") or {}).get("completed")
    return "ended" if state == "failed" and answered else state


def _problems_of(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the job says went wrong: a list as at OpenAI, texts, or the one text of `error` (Together)."""
    errors = job.get("errors") or job.get("error")
    found: object = (
        cast("dict[str, Any]", errors).get("data", cast("object", errors)) if isinstance(errors, dict) else errors
    )
    listed = cast("list[object]", found) if isinstance(found, list) else [found]
    return [
        cast("dict[str, Any]", each) if isinstance(each, dict) else {"message": str(each)} for each in listed if each
    ]


def job_error(problems: Sequence[Mapping[str, Any]], message: str) -> LLMError:
    """Why a job failed before it began, by the codes of its errors."""
    codes = [str(each.get("code") or "") for each in problems]
    if QUEUE_FULL in codes:
        return queue_full(message)
    fatal = next((FATAL_JOB_ERRORS[code] for code in codes if code in FATAL_JOB_ERRORS), None)
    if fatal is not None:
        return fatal(message)
    return OverloadedError(
        f"the batch failed: {message}" if message else "the batch failed, the provider gave no reason"
    )


def queue_full(message: str) -> QueueFullError:
    """The error for a job over the quota of enqueued tokens, with the limit that the message names."""
    limit = re.search(r"[Ll]imit:? ([\d,]+)", message)
    return QueueFullError(message, limit=int(limit[1].replace(",", "")) if limit else None)


def file_name(mark: str | None) -> str:
    """The name of a job's file, which holds what the job can be found by."""
    return f"{MARK}-{mark}.jsonl" if mark else "requests.jsonl"


def seconds_of(time: object) -> float:
    """Seconds since 1970, of a number or an ISO 8601 text. 0 where it is neither."""
    if isinstance(time, int | float):
        return float(time)
    try:
        read = datetime.fromisoformat(str(time))
    except ValueError:
        return 0.0
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


async def lines_in(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines that end with a newline alone: a text may hold other characters that end lines elsewhere."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
    if rest:
        yield rest


def _custom_id_in(line: bytes) -> str:
    """The key of a line that the provider may not have been able to read."""
    try:
        return str(_json_object(line).get("custom_id") or "")
    except InvalidResponseError:
        return ""


def result_from(line: Mapping[str, Any]) -> BatchResult:
    """The outcome from one line of a job's output or error file."""
    key = str(line.get("custom_id") or "")
    response = _object_in(line.get("response"))
    body = _object_in(response.get("body"))
    status = int(response.get("status_code") or 0)
    if status >= 400:
        problem = _object_in(body.get("error"))
        said = str(problem.get("message") or short(body))
        return BatchResult(key, error_for_status(status, said, code=str(problem.get("code") or "")))
    if not body:
        return BatchResult(key, _line_error(_object_in(line.get("error"))))
    try:
        return BatchResult(key, parse_answer(body, _path_of(body)))
    except LLMError as error:
        return BatchResult(key, error)


def _path_of(body: Mapping[str, Any]) -> str:
    """The path of the request that an answer's body answers. Images come without an `object`."""
    return PATHS.get(str(body.get("object")), IMAGES if "data" in body else CHAT)


def _line_error(problem: Mapping[str, Any]) -> LLMError:
    said, code = str(problem.get("message") or "no answer"), str(problem.get("code") or "")
    return error_for_status(int(code), said) if code.isdigit() else LINE_ERRORS.get(code, LLMError)(said)


def _object_in(value: object) -> dict[str, Any]:
    """A JSON object, also one that came as its text. Empty where there is none."""
    if isinstance(value, str):
        with contextlib.suppress(orjson.JSONDecodeError):
            value = orjson.loads(value)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _message(error: Any) -> str:
    body = error.body
    if isinstance(body, dict):
        return str(cast("dict[str, Any]", body).get("message") or error.message)
    return short(str(body)) if body else str(error.message)


def refusal_from(status: int, headers: Mapping[str, str], content: bytes) -> LLMError:
    """The error for an answer with an HTTP status of 400 or more."""
    try:
        body = _json_object(content)
    except InvalidResponseError:
        body = {"error": content.decode("utf-8", "replace").strip()[:500]}
    problem = body.get("error", body)
    inner = cast("dict[str, Any]", problem) if isinstance(problem, dict) else {"message": problem}
    said = str(inner.get("message") or "") or (short(body) if content else "no further words")
    code = str(inner.get("code") or "")
    if code == QUEUE_FULL:
        return queue_full(said)
    return error_for_status(status, said, code=code, retry_after=_retry_after(headers))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / scale
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise InvalidResponseError(f"the provider's answer isn't JSON: {short(content)}") from None
    if isinstance(answer, list):
        # A list without pages (Together).
        return {"data": answer}
    if not isinstance(answer, dict):
        raise InvalidResponseError(f"the provider's answer isn't a JSON object: {short(answer)}")
    return cast("dict[str, Any]", answer)
