"""OpenAI, and every server that speaks its protocol.

Chat completions: https://platform.openai.com/docs/api-reference/chat. A bare string goes to
completions: https://platform.openai.com/docs/api-reference/completions. Batches:
https://platform.openai.com/docs/guides/batch. Embeddings and images have
files of their own.
"""

from __future__ import annotations

import base64
import contextlib
import math
import os
import re
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, PrivateAttr

from llms.base import split_input
from llms.batch import (
    MARK,
    BatchLimits,
    BatchRequest,
    BatchResult,
    JobFile,
    JobState,
    JobStatus,
    OfflineBatchLLM,
    lines_in,
    mark_of,
    may_be,
    outcome_of,
    result_of_unreadable,
    split_custom_id,
)
from llms.embeddings import embedding_output
from llms.endings import MORE_TOKENS, NO_TOKENS_LEFT, End, end_of, mark
from llms.endings import OPENAI as OPENAI_ENDS
from llms.errors import (
    AuthenticationError,
    BadRequestError,
    ConnectionFailedError,
    ContentFilterError,
    ContextLengthError,
    EmptyAnswerError,
    ExpiredError,
    IncompleteResultsError,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    OverloadedError,
    QueueFullError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    UndecidedJobError,
    error_for_status,
)
from llms.http import json_object, logprobs_in, plain_refusal, trusted_certificates, why, written
from llms.images import image_bytes, image_output, is_address
from llms.loop import PerLoop
from llms.parameters import Unasked, short
from llms.providers.batch_dialects import ANY, BatchDialect, Meanings, dialect_of
from llms.providers.parameters import (
    FrequencyPenalty,
    Logprobs,
    MaxNewTokens,
    PresencePenalty,
    ResponseFormat,
    Stop,
    Temperature,
    TopLogprobs,
    TopP,
    keywords_in,
)
from llms.providers.responses import as_completion
from llms.quantities import quantity
from llms.reading import (
    MOST_WORDS,
    count_in,
    json_in,
    list_in,
    number_in,
    object_in,
    seconds_of,
    text_in,
    words_in,
)
from llms.service import ServiceLLM, counted_on, retry_after_in
from llms.structured_output import schema_name, strict_schema
from llms.typing import FormattedInput, GenerateOutput, JSONSchema, Logprob, Usage
from llms.uploads import is_not_there, job_of_file
from llms.usage import billed, openai_usage, token_counts

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
IMAGES = "/v1/images/generations"
# By the `object` of an answer's body.
PATHS = {"text_completion": COMPLETIONS, "response": RESPONSES, "list": EMBEDDINGS}
BATCH_PAGES = "https://platform.openai.com/batches"
JOBS_PER_PAGE = 100
SECONDS_PER_UPLOAD = 600.0
# How long OpenAI keeps the files of a job, which is the longest it offers.
KEPT: Any = {"anchor": "created_at", "seconds": 30 * 24 * 3600}
FEW_PROBLEMS = 5
"""Of a job, that go into a message."""
QUEUE_FULL = "token_limit_exceeded"
FULL = re.compile(r"enqueued[ _-]tokens?", re.I)
"""How a full queue is told of, also without its code."""
_NUMBER = (
    r"(?<![\w.,-])(\d{1,3}(?:[.,_' \u00a0\u202f]\d{3})+|\d+(?:\.\d+)?)\s*(k|m|b|thousand|million|billion)?\b(?![.,]?\d)"
)
_LIMIT = r"\b(?:limit|quota|maximum|max|at most|up to)\b"
LIMITS = (
    re.compile(rf"{_LIMIT}(?:\s+(?:is|of|at|to))?\s*[:=(]?\s*{_NUMBER}", re.I),
    re.compile(rf"{_LIMIT}[^.;\n]{{0,80}}?{_NUMBER}\s+(?:enqueued |prompt |input )?tokens", re.I),
    re.compile(rf"{_LIMIT}[^.;\n]{{0,80}}?{_NUMBER}", re.I),
)
"""How the most tokens of a queue are told of, the surest first."""
FACTORS = {"": 1, "k": 10**3, "thousand": 10**3, "m": 10**6, "million": 10**6, "b": 10**9, "billion": 10**9}
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
    # Mistral's.
    "queued": "waiting",
    "running": "waiting",
    "cancellation_requested": "waiting",
    "success": "ended",
    "timeout_exceeded": "ended",
    # Fireworks'. One that is being deleted may still be answering.
    **dict.fromkeys(("unspecified", "creating", "creating_input_dataset", "pending", "idle", "paused"), "waiting"),
    **dict.fromkeys(("re_queueing", "writing_results", "deleting", "deleting_cleaning_up"), "waiting"),
    "early_stopped": "ended",
}

# Codes of a job that failed at validation for which no other job of the run can do better.
FATAL_JOB_ERRORS: dict[str, type[LLMError]] = {
    "model_not_found": ModelNotFoundError,
    "billing_hard_limit_reached": QuotaExceededError,
    "insufficient_quota": QuotaExceededError,
}

ANSWER_FIELDS = ("choices", "data", "output")
"""One of these the body of an answer has, whatever else it may lack."""

# Codes of a line of a job's error file that came to no answer, in lower case and without what joins their words.
LINE_ERRORS: dict[str, type[LLMError]] = {
    **dict.fromkeys(("batchexpired", "expired", "requestexpired"), ExpiredError),
    **dict.fromkeys(("batchcancelled", "batchcanceled", "cancelled", "canceled"), ExpiredError),
    **dict.fromkeys(("requesttimeout", "timeout", "gatewaytimeout"), RequestTimeoutError),
    **dict.fromkeys(("servererror", "internalerror", "internalservererror", "apierror", "badgateway"), OverloadedError),
    **dict.fromkeys(("overloaded", "overloadederror", "serveroverloaded", "engineoverloaded"), OverloadedError),
    **dict.fromkeys(("serviceunavailable", "unavailable"), OverloadedError),
    **dict.fromkeys(("ratelimit", "ratelimiterror", "ratelimitexceeded", "toomanyrequests"), RateLimitError),
    "contentfilter": ContentFilterError,
    "contextlengthexceeded": ContextLengthError,
    "insufficientquota": QuotaExceededError,
    # OpenRouter's.
    **dict.fromkeys(("server", "provideroverloaded", "providerunavailable"), OverloadedError),
    **dict.fromkeys(("authentication", "permissiondenied"), AuthenticationError),
    **dict.fromkeys(("contentpolicyviolation", "refusal"), ContentFilterError),
    **dict.fromkeys(("invalidrequest", "payloadtoolarge", "unprocessable"), BadRequestError),
    "notfound": ModelNotFoundError,
    "paymentrequired": QuotaExceededError,
    # DashScope's: https://help.aliyun.com/en/model-studio/error-code-start
    **dict.fromkeys(("throttling", "throttlingratequota", "throttlingallocationquota"), RateLimitError),
    "invalidparameter": BadRequestError,
    "modelnotfound": ModelNotFoundError,
    **dict.fromkeys(("invalidapikey", "accessdenied"), AuthenticationError),
    "arrearage": QuotaExceededError,
}


NO_ANSWER = re.compile(r"internal (server )?error|timed? ?out|service unavailable|bad gateway|overloaded", re.I)
"""How a line without a code tells that the request came to nothing."""


def line_error_of(code: str) -> type[LLMError]:
    """The kind of error that a code names, however it is written."""
    return LINE_ERRORS.get(re.sub(r"[^a-z]", "", code.lower()), LLMError)


class ChatCompletionsLLM(ServiceLLM):
    """A model behind OpenAI's protocol, online. A provider is a subclass that says what it does differently."""

    tokens_name: ClassVar[str] = "max_tokens"
    """What it calls the most tokens of an answer. Empty: as the model and its refusals tell."""
    names: ClassVar[Mapping[str, str]] = {}
    """What it calls other parameters: by our name, its own."""
    sends: ClassVar[Mapping[str, Any]] = {}
    """What goes into the body of every chat."""
    statuses: ClassVar[Mapping[int, int]] = {}
    """HTTP statuses of its own: the one that means the same elsewhere."""

    _tokens_parameter: str | None = PrivateAttr(default=None)

    async def _asked(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        tokens_name = self._tokens_name()
        try:
            return await self._request(given, times, keywords)
        except BadRequestError as error:
            if not self._adapt(error, times, tokens_name):
                raise
            return await self.generated(given, times, keywords)

    async def _request(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        path, body = self._body(given, times, keywords)
        return self.output_from(await self._send(path.removeprefix("/v1"), body), path, body)

    def output_from(self, answer: dict[str, Any], path: str, body: Mapping[str, Any]) -> GenerateOutput:
        """The output from an answer to `body`. Raises LLMError where there is none in it."""
        return parse_answer(answer, path)

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
        if self.tokens_name:
            return self.tokens_name
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
            if not self.takes_prompts:
                raise BadRequestError(
                    f"{type(self).__name__} takes chats, got a bare prompt for model={self.model!r}:"
                    " its API has no completions"
                )
            if schema is not None:
                raise BadRequestError("structured output needs a chat; got a bare prompt, which goes to completions")
            if tokens is not None:
                wanted["max_tokens"] = tokens
            if wanted.pop("logprobs", None):
                wanted["logprobs"] = wanted.pop("top_logprobs", 1)
            return COMPLETIONS, {"model": self.model_name, "prompt": given, **self._named(wanted), **extra}
        wanted.pop("echo", None)
        if tokens is not None:
            wanted[self._tokens_name()] = tokens
        body = self.chat_body({"model": self.model_name, "messages": given, **self.sends, **self._named(wanted)})
        if schema is not None:
            body = self.with_schema(body, schema)
        return CHAT, {**body, **extra}

    def _named(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        return {self.names.get(name, name): value for name, value in wanted.items()}

    def chat_body(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body of a chat in the provider's own form, where its parameters differ by more than a name."""
        return body

    def with_schema(self, body: dict[str, Any], schema: JSONSchema) -> dict[str, Any]:
        """The body of a chat whose answer has to fit a schema."""
        return {**body, "response_format": response_format(schema)}

    def refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> LLMError:
        return refusal_from(self.statuses.get(status, status), headers, content)


class ChatBatchesLLM(ChatCompletionsLLM, OfflineBatchLLM):
    """A model behind OpenAI's protocol, online and by its batch API: jobs of uploaded files."""

    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=50_000, size=200_000_000)
    jobs_path: ClassVar[str] = "/batches"

    _clients: PerLoop[AsyncOpenAI] = PrivateAttr(default_factory=PerLoop)

    def refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> LLMError:
        return refusal_from(self.statuses.get(status, status), headers, content, self.batch_dialect().meanings)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return _json_object(await self.posted(path, body))

    async def posted(self, path: str, body: dict[str, Any]) -> bytes:
        """The body of the answer, by the SDK. Raises LLMError."""
        import httpx2
        import openai

        try:
            response = await self._client().post(path, body=body, cast_to=httpx2.Response)
        except openai.OpenAIError as error:
            raise self._error_from(error) from None
        return response.content

    def _client(self) -> AsyncOpenAI:
        """The SDK's client for the running loop. Retries are ours: see `llms.limits`."""
        return self._clients.get(self._new_client)

    def _new_client(self) -> AsyncOpenAI:
        import openai

        # The SDK would name the organization of OpenAI's variables to any provider.
        nobody = {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
        return openai.AsyncOpenAI(
            api_key=self.key().get_secret_value(),
            base_url=self.url(),
            timeout=self.timeout,
            max_retries=0,
            default_headers=cast("dict[str, str]", nobody | self.headers()),
            http_client=openai.DefaultAioHttpClient(timeout=self.timeout, verify=trusted_certificates()),
        )

    def _error_from(self, error: Exception) -> LLMError:
        import openai

        if isinstance(error, openai.APIStatusError):
            if error.code == QUEUE_FULL or FULL.search(_message(error)):
                return queue_full(_message(error))
            said = str(error.code or "")
            status, code = self.batch_dialect().meanings.get(said, (error.status_code, said))
            retry_after = retry_after_in(error.response.headers)
            return error_for_status(status, _message(error), code=code, retry_after=retry_after)
        if isinstance(error, openai.APIConnectionError):
            return connection_error(error, self.url(), self.timeout, self.url_variable)
        return LLMError(f"{type(error).__name__}: {error}")

    def batch_request(
        self, custom_id: str, given: FormattedInput, num_generations: int, number: int = 0
    ) -> BatchRequest:
        prompt, schema = split_input(given)
        keywords = self.keywords(schema or self.structured_output)
        path, body = self._body(prompt, num_generations, counted_on(keywords, number))
        dialect = self.batch_dialect()
        if path == COMPLETIONS and not dialect.takes_prompts:
            raise BadRequestError(f"batches at {self.url()} take chats, got a bare prompt, which goes online alone")
        request = BatchRequest(custom_id, dialect.chat_path if path == CHAT else path, body)
        if dialect.line_limit and (size := len(self.batch_line(request))) > dialect.line_limit:
            most = f"a request of {dialect.line_limit:,} bytes at most"
            raise BadRequestError(f"batches at {self.url()} take {most}, got one of {size:,}, which goes online alone")
        return request

    def batch_dialect(self) -> BatchDialect:
        """What the batch API of this server does differently."""
        return dialect_of(self.url())

    def batch_line(self, request: BatchRequest) -> bytes:
        if self.batch_dialect().short_lines:
            return written({"custom_id": request.custom_id, "body": request.body})
        return super().batch_line(request)

    def job_limits(self) -> BatchLimits:
        return self.batch_dialect().limits or self.batch_limits

    def requests_per_input(self, num_generations: int) -> int:
        several = self.answers_several and self.batch_dialect().several_answers
        return 1 if several else num_generations

    async def create_job(self, file: JobFile, metadata: Mapping[str, str]) -> JobStatus:
        """Upload the file and create a batch from it.

        Raises:
            QueueFullError: the account has as many tokens enqueued as it may.
            LLMError: another of its kinds, by the provider's answer.
        """
        file_id = await self._upload(file, file_name(metadata.get(MARK)))
        body = self.job_body(file, file_id, metadata)
        made = await job_of_file(lambda: self._post(self.jobs_path, body), lambda: self._delete_file(file_id))
        return self._status_from(made)

    def job_body(self, file: JobFile, file_id: str, metadata: Mapping[str, str]) -> dict[str, Any]:
        """What a job is created with, from a file that was uploaded."""
        dialect = self.batch_dialect()
        told = told_to(dialect, metadata)
        return {
            "input_file_id": file_id,
            "endpoint": file.url,
            **({"completion_window": dialect.window} if dialect.window else {}),
            **({"metadata": told} if told and dialect.takes_metadata else {}),
            **({"output_expires_after": KEPT} if dialect.expires_files else {}),
            **({"auto_delete_input_file": False} if dialect.deletes_input else {}),
        }

    def as_job(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The job in an answer, in OpenAI's form. Raises InvalidResponseError where there is none."""
        return _job_in(answer)

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
        return self._status_from(await self._get(f"{self.jobs_path}/{job_id}"))

    async def list_jobs(self) -> AsyncIterator[JobStatus]:
        async for _, status in self._jobs():
            yield status

    async def find_job(self, mark: str, since: float, file: Mapping[str, Any]) -> JobStatus | None:
        """The job that was created with `mark`, by its metadata, or by its file, where it keeps none."""
        dialect = self.batch_dialect()
        undecided: list[str] = []
        async for job, status in self._jobs():
            if status.metadata.get(MARK) == mark:
                return status
            # A job's time may be in whole seconds, or missing.
            if 0 < status.created < since - 1:
                if dialect.newest_first:
                    break
                continue
            if dialect.keeps_metadata or status.metadata or not may_be(status, file):
                continue
            ours = await self._is_made_of(job, status, mark)
            if ours:
                return status
            undecided += [status.id] if ours is None else []
        if undecided:
            raise UndecidedJobError(undecided)
        return None

    async def _is_made_of(self, job: Mapping[str, Any], status: JobStatus, mark: str) -> bool | None:
        """Whether a job was made of the file with `mark`: by the file's name, its first line, or the job's results."""
        file_id = text_in(job.get("input_file_id"))
        name = await self._file_name(file_id)
        if name.startswith(f"{MARK}-"):
            return name == file_name(mark)
        shown = await self._mark_in_file(file_id)
        if shown is not None:
            return shown == mark_of(mark)
        return await self.shows_mark(status, mark)

    async def _mark_in_file(self, file_id: str) -> str | None:
        """The mark in the first line of a job's input. None where the server doesn't show that."""
        try:
            async with aclosing(self._lines(file_id)) as lines:
                async for line in lines:
                    return split_custom_id(_custom_id_in(line))[1]
        except (BadRequestError, ModelNotFoundError, AuthenticationError):
            return None
        return None

    async def _jobs(self) -> AsyncIterator[tuple[dict[str, Any], JobStatus]]:
        last = ""
        while True:
            page = await self._get(self.jobs_path, limit=JOBS_PER_PAGE, **({"after": last} if last else {}))
            jobs = [object_in(each) for each in list_in(page.get("data"))]
            for job in sorted(jobs, key=lambda each: seconds_of(each.get("created_at")), reverse=True):
                # One that can't be told what it is isn't ours.
                with contextlib.suppress(InvalidResponseError):
                    yield job, self._status_from(job)
            after = str(jobs[-1].get("id") or "") if jobs else ""
            if not after or not page.get("has_more") or after == last:
                return
            last = after

    async def _file_name(self, file_id: str) -> str:
        """Empty where the server doesn't know the file, or shows no name."""
        if not file_id:
            return ""
        try:
            return text_in((await self._get(f"/files/{file_id}")).get("filename"))
        except (BadRequestError, ModelNotFoundError):
            return ""

    async def job_results(self, job_id: str) -> AsyncGenerator[BatchResult]:
        """Both files of a job: answers and errors, in any order. Of a job that failed, the lines that were at fault."""
        job = self.as_job(await self._get(f"{self.jobs_path}/{job_id}"))
        if _state_of(job) == "failed":
            async for result in self._faults(job):
                yield result
            return
        counts, missing = object_in(job.get("request_counts")), ""
        answers = lines = 0
        gone: LLMError | None = None
        for name in ("output_file_id", "error_file_id"):
            line = b"\n"
            try:
                async with aclosing(self._lines(text_in(job.get(name)))) as every:
                    async for line in every:
                        if not line.strip():
                            continue
                        lines += 1
                        answers += name == "output_file_id"
                        result = read_result(line, self.answering_model(), self.batch_dialect().meanings)
                        if result is not None:
                            yield result
            except (BadRequestError, ModelNotFoundError) as error:
                if not is_not_there(error):
                    raise
                missing, gone = f"its file {job[name]!r} isn't found", error
            if not line.endswith(b"\n") and not _is_json(line):
                missing = f"its file {job[name]!r} is cut"
        missing = missing or _missing_of(job, counts, answers, lines)
        if missing:
            said = f"batch {job_id!r} is {_word_of(job)!r}, but {missing}"
            raise IncompleteResultsError(said, ended=_end_of(job), gone=gone)

    async def _faults(self, job: Mapping[str, Any]) -> AsyncIterator[BatchResult]:
        """The lines of its input that a job failed for, where the server shows that."""
        bad = {count_in(each.get("line")): str(each.get("message")) for each in _problems_of(job)}
        bad.pop(0, None)
        number = 0
        try:
            async for line in self._lines(text_in(job.get("input_file_id")) if bad else ""):
                number += 1
                if number in bad:
                    key, mark = split_custom_id(_custom_id_in(line))
                    yield BatchResult(key, BadRequestError(bad[number]), mark)
        except (BadRequestError, ModelNotFoundError, AuthenticationError):
            return

    def answering_model(self) -> str:
        """The model that answers have to name, where they name one that can be compared. Empty: any."""
        return self.model

    async def _lines(self, file_id: str) -> AsyncGenerator[bytes]:
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
        await self._post(f"{self.jobs_path}/{job_id}/cancel", {})

    async def delete_job(self, job_id: str) -> None:
        """Delete the files of a job; the API keeps its entry."""
        job = self.as_job(await self._get(f"{self.jobs_path}/{job_id}"))
        for name in ("input_file_id", "output_file_id", "error_file_id"):
            file_id = text_in(job.get(name))
            if file_id:
                await self._delete_file(file_id)

    async def _delete_file(self, file_id: str) -> None:
        await self._delete(f"/files/{file_id}")

    async def _delete(self, path: str) -> None:
        """Delete what may be gone by now. Raises LLMError."""
        import httpx2
        import openai

        try:
            await self._client().delete(path, cast_to=httpx2.Response)
        except openai.NotFoundError:
            return
        except openai.OpenAIError as error:
            raise self._error_from(error) from None

    def _status_from(self, answer: Mapping[str, Any]) -> JobStatus:
        job = self.as_job(answer)
        counts = object_in(job.get("request_counts"))
        state = _state_of(job)
        problems = _problems_of(job)
        said = "; ".join(
            f"{each.get('message')} (line {each['line']})" if each.get("line") else str(each.get("message"))
            for each in problems[:FEW_PROBLEMS]
        )
        if len(problems) > FEW_PROBLEMS:
            said += f"; and {len(problems) - FEW_PROBLEMS:,} more"
        progress = number_in(job.get("progress"))
        if not said and not counts and state == "waiting" and progress is not None:
            said = f"{progress:g} % done"
        return JobStatus(
            id=str(job["id"]),
            state=state,
            status=_word_of(job),
            total=count_in(counts.get("total")),
            answered=count_in(counts.get("completed")),
            refused=count_in(counts.get("failed")),
            message=said[:MOST_WORDS],
            error=job_error(problems, said) if state == "failed" else None,
            metadata=self._metadata_in(job),
            created=seconds_of(job.get("created_at")),
            page=f"{BATCH_PAGES}/{job['id']}" if self.url() == OPENAI_URL else "",
            unknown=_word_of(job) not in JOB_STATES,
        )

    def _metadata_in(self, job: Mapping[str, Any]) -> dict[str, str]:
        shown = {name: each for name, each in object_in(job.get("metadata")).items() if isinstance(each, str)}
        mark = shown.get(self.batch_dialect().mark_key)
        return shown if mark is None else {**shown, MARK: mark}

    async def _get(self, path: str, **query: object) -> dict[str, Any]:
        import httpx2
        import openai

        try:
            response = await self._client().get(path, cast_to=httpx2.Response, options={"params": query})
        except openai.OpenAIError as error:
            raise self._error_from(error) from None
        return _json_object(response.content)


class OpenAILLM(ChatBatchesLLM):
    """A model of OpenAI, or of any server with its API (vLLM, Ollama, Together, Groq, a gateway).

    Example:
        >>> llm = OpenAILLM(model="gpt-4o-mini", generation_kwargs={"temperature": 0.3})
        >>> llm.model_name
        'gpt-4o-mini'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    url_variable: ClassVar[str] = "OPENAI_BASE_URL"
    own_url: ClassVar[str] = OPENAI_URL

    tokens_name: ClassVar[str] = ""

    form_title = "OpenAI or compatible"
    form_more = ("organization",)

    provider: Annotated[Literal["openai"], Field(title="Provider")] = "openai"  # pyright: ignore[reportIncompatibleVariableOverride]
    base_url: Annotated[
        str | None,
        Field(title="Address", description="Of a compatible server, with its /v1. Empty: OPENAI_BASE_URL, or OpenAI."),
    ] = None
    credentials: Annotated[
        str | None,
        Field(title="Credentials", description="Name of an LLM credentials block. Empty: OPENAI_API_KEY."),
        Unasked(),
    ] = None
    organization: Annotated[str, Field(title="Organization", description="Empty: the key's own."), Unasked()] = ""

    @property
    def account(self) -> Hashable:
        return (self.provider, self.url(), self.organization, hash(self.key().get_secret_value()))

    def headers(self) -> dict[str, str]:
        own = {
            "OpenAI-Organization": self.organization or os.environ.get("OPENAI_ORG_ID", ""),
            "OpenAI-Project": os.environ.get("OPENAI_PROJECT_ID", ""),
        }
        return {name: value for name, value in {**own, **super().headers()}.items() if value}

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        frequency_penalty: FrequencyPenalty = None,
        presence_penalty: PresencePenalty = None,
        stop: Stop = None,
        seed: Annotated[int | None, Field(description="For repeatable answers, where the provider can.")] = None,
        reasoning_effort: Annotated[
            str | None, Field(description="For reasoning models: none, minimal, low, medium, high, xhigh.")
        ] = None,
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        echo: Annotated[bool, Field(description="Completions only: return the prompt as well.")] = False,
        response_format: ResponseFormat = None,
        extra_body: Annotated[dict[str, Any] | None, Field(description="Further fields of the request's body.")] = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat or prompt.

        Raises:
            LLMError: one of its kinds, by the provider's answer.
        """
        keywords = keywords_in(locals())
        return await self.generated(input, num_generations, keywords)


def response_format(schema: JSONSchema) -> dict[str, Any]:
    """The API's `response_format` for a JSON schema, in strict mode where the schema allows it."""
    strict = strict_schema(schema)
    inner: dict[str, Any] = {"name": schema_name(schema), "schema": strict or schema, "strict": strict is not None}
    return {"type": "json_schema", "json_schema": inner}


def parse_answer(answer: Mapping[str, Any], path: str, words: Mapping[str, End] = OPENAI_ENDS) -> GenerateOutput:
    """The output from the body of a 200 answer.

    Args:
        answer: the body.
        path: of the request that it answers.
        words: what the answer's finish reasons mean.

    Raises:
        InvalidResponseError: it holds no answer, or one that the provider broke off.
        EmptyAnswerError: it holds no text, and another one would neither.
        ContentFilterError: every choice was withheld.
        LLMError: another of its kinds, by the error that it holds.
    """
    if path == EMBEDDINGS:
        return _embedding_in(answer)
    if path == IMAGES:
        return _images_in(answer)
    if path == RESPONSES:
        answer = as_completion(answer)
    usage = openai_usage(answer)
    listed = _choices_in(answer, usage)
    problem = answer.get("error") or next((each["error"] for each in listed if each.get("error")), None)
    if problem:
        raise _error_within(problem, usage)
    if not listed:
        raise InvalidResponseError(f"the provider's answer has no choices: {short(answer)}", usage=billed(usage))
    reasons = [choice.get("finish_reason") for choice in listed]
    ends: list[End] = [end_of(reason, words) for reason in reasons]
    texts = [_text(choice, path, end) for choice, end in zip(listed, ends, strict=True)]
    if all(text is None for text in texts):
        raise _no_text(listed[0], ends[0], usage)
    if set(ends) == {"broken"}:
        raise InvalidResponseError(
            f"the provider broke off within its answer (finish_reason {reasons[0]!r})", usage=billed(usage)
        )
    output = GenerateOutput(generations=texts, statistics=token_counts(usage, texts), usage=[usage])
    logprobs = [_logprobs(choice.get("logprobs")) for choice in listed]
    if any(logprobs):
        output["logprobs"] = logprobs
    reasoning = [_reasoning(_message_of(choice)) or None for choice in listed]
    if any(reasoning):
        output["reasoning"] = reasoning
    mark(output, reasons, ends)
    return output


def _choices_in(answer: Mapping[str, Any], usage: Usage) -> list[dict[str, Any]]:
    """The choices by their number, as far as they are any."""
    choices = list_in(answer.get("choices"))
    listed = [cast("dict[str, Any]", each) for each in choices if isinstance(each, dict)]
    if len(listed) < len(choices):
        said = f"the provider's answer has a choice that is no object: {short(answer)}"
        raise InvalidResponseError(said, usage=billed(usage), paid=True)
    return sorted(listed, key=lambda choice: count_in(choice.get("index")))


def _error_within(given: object, usage: Usage) -> LLMError:
    """The error that an answer with status 200 holds, in place of choices or beside them (OpenRouter)."""
    problem = object_in(given)
    said = str(problem.get("message") or short(given))
    code = problem.get("code")
    status = count_in(code) or (int(code) if isinstance(code, str) and code.isdigit() else 0)
    if 400 <= status < 600:
        error = error_for_status(status, said, code=str(problem.get("type") or ""))
    else:
        error = line_error_of(str(code))(f"the provider answered with an error: {said}")
    error.usage = billed(usage)
    error.paid = bool(error.usage)
    return error


def _embedding_in(answer: Mapping[str, Any]) -> GenerateOutput:
    data = answer.get("data")
    listed = cast("list[object]", data) if isinstance(data, list) else []
    if len(listed) != 1:
        raise InvalidResponseError(f"the provider's answer has {len(listed)} embeddings, expected one: {short(answer)}")
    usage = object_in(answer.get("usage"))
    return embedding_output(_vector(object_in(listed[0]).get("embedding")), int(usage.get("prompt_tokens") or 0))


def _images_in(answer: Mapping[str, Any]) -> GenerateOutput:
    """Images in base64, or their addresses."""
    data = answer.get("data")
    listed = cast("list[object]", data) if isinstance(data, list) else []
    images = [object_in(each).get("b64_json") or object_in(each).get("url") for each in listed]
    texts = [each for each in images if isinstance(each, str) and each]
    if not texts or len(texts) < len(images):
        some = f"{len(texts)} of {quantity(len(images), 'image')}"
        raise InvalidResponseError(f"the provider's answer has {some}: {short(answer)}")
    for text in texts:
        if not is_address(text):
            _check_image(text)
    usage = object_in(answer.get("usage"))
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


def _text(choice: Mapping[str, Any], path: str, end: End) -> str | None:
    """The text; None where there is none: an empty one counts where the model ended it and thought of nothing else."""
    message = _message_of(choice)
    content: object = choice.get("text") if path == COMPLETIONS else message.get("content")
    if isinstance(content, list) and path != COMPLETIONS:
        # Some servers answer in parts, as messages may be asked in.
        parts = [object_in(part) for part in cast("list[object]", content)]
        texts = [part["text"] for part in parts if "text" in part]
        content = "".join(texts) if all(isinstance(text, str) for text in texts) else None
    if not isinstance(content, str):
        return None
    return content if content or (end == "whole" and not _reasoning_in(message)) else None


def _reasoning_in(message: Mapping[str, Any]) -> bool:
    """Whether there are thoughts, by the names that servers have for them."""
    return any(message.get(name) for name in ("reasoning_content", "reasoning", "reasoning_details", "thinking"))


def _reasoning(message: Mapping[str, Any]) -> str:
    """The thoughts as text: beside the answer, or as parts of it (Mistral). Empty where there are none to be read."""
    beside = [message.get(name) for name in ("reasoning_content", "reasoning", "thinking")]
    parts = [object_in(part) for part in list_in(message.get("content"))]
    thinking = [each for part in parts if part.get("type") == "thinking" for each in list_in(part.get("thinking"))]
    within = "".join(str(object_in(each).get("text") or "") for each in thinking)
    return next((text for text in (*beside, within) if isinstance(text, str) and text), "")


def _message_of(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    return cast("dict[str, Any]", message) if isinstance(message, dict) else {}


def _no_text(choice: Mapping[str, Any], end: End, usage: Usage) -> LLMError:
    message, reason = _message_of(choice), f"finish_reason {choice.get('finish_reason')!r}"
    paid = billed(usage)
    if refusal := message.get("refusal"):
        return ContentFilterError(f"the model refused: {refusal}", usage=paid)
    if end == "withheld":
        return ContentFilterError(f"the provider withheld the answer ({reason})", usage=paid)
    if end == "cut off":
        return EmptyAnswerError(f"{NO_TOKENS_LEFT} ({reason}); {MORE_TOKENS}", usage=paid)
    if calls := message.get("tool_calls") or message.get("function_call"):
        return EmptyAnswerError(
            f"the model called a tool and wrote no text ({reason}, {short(calls)}): leave `tools` out of extra_body, or"
            " set its `tool_choice` to 'none'",
            usage=paid,
        )
    if end != "broken" and _reasoning_in(message):
        return EmptyAnswerError(f"the model thought and wrote no text ({reason}); {MORE_TOKENS}", usage=paid)
    return InvalidResponseError(f"the provider's answer has no text ({reason})", usage=paid, paid=True)


def _logprobs(given: object) -> list[list[Logprob]]:
    found = object_in(given)
    if isinstance(found.get("content"), list):
        places = [object_in(place) for place in list_in(found["content"])]
        return [logprobs_in(place.get("top_logprobs") or [place]) for place in places]
    plain = [object_in(place) for place in list_in(found.get("top_logprobs"))]
    return [logprobs_in([{"token": token, "logprob": each} for token, each in place.items()]) for place in plain]


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
    if not isinstance(job, dict) or not {"id", "status"} <= set(cast("dict[str, Any]", job)) or not job["id"]:
        raise InvalidResponseError(f"the provider's answer is no batch: {short(answer)}")
    return cast("dict[str, Any]", job)


def _word_of(job: Mapping[str, Any]) -> str:
    status = job["status"]
    return status.lower()[:100] if isinstance(status, str) else short(status)


def _state_of(job: Mapping[str, Any]) -> JobState:
    # A state that isn't known yet is waited for: it costs nothing, and the job's answers are paid.
    state = JOB_STATES.get(_word_of(job), "waiting")
    answered = count_in(object_in(job.get("request_counts")).get("completed"))
    return "ended" if state == "failed" and (answered or job.get("output_file_id")) else state


def _end_of(job: Mapping[str, Any]) -> float:
    times = (seconds_of(job.get(f"{word}_at")) for word in ("completed", "expired", "cancelled", "failed"))
    return next(filter(None, times), 0.0)


def _missing_of(job: Mapping[str, Any], counts: Mapping[str, Any], answers: int, lines: int) -> str:
    """What a job that has ended lacks of the results that it counted, in words.

    Args:
        answers: lines of the output file.
        lines: of both files.
    """
    counted, total = count_in(counts.get("completed")), count_in(counts.get("total"))
    # Some servers count what failed as completed too.
    if answers < counted and not 0 < total <= lines:
        return (
            f"its output has {answers:,} of {quantity(counted, 'answer')}"
            if job.get("output_file_id")
            else "it has no output yet"
        )
    nothing = not job.get("output_file_id") and not job.get("error_file_id")
    return "it has no results yet" if nothing and _word_of(job) in {"completed", "success"} else ""


def _is_json(line: bytes) -> bool:
    try:
        json_in(line)
    except ValueError:
        return False
    return True


def _problems_of(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the job says went wrong: a list as at OpenAI, texts, or the one text of `error` (Together)."""
    errors = job.get("errors") or job.get("error")
    found: object = (
        cast("dict[str, Any]", errors).get("data", cast("object", errors)) if isinstance(errors, dict) else errors
    )
    listed = cast("list[object]", found) if isinstance(found, list) else [found]
    return [_problem(each) for each in listed if each]


def _problem(given: object) -> dict[str, Any]:
    message, code = words_in(given)
    own = object_in(given)
    return {
        **own,
        "message": message or short(given),
        "code": own.get("code") or code,
        "line": count_in(own.get("line")),
    }


def job_error(problems: Sequence[Mapping[str, Any]], message: str) -> LLMError:
    """Why a job failed before it began, by the codes of its errors."""
    codes = [str(each.get("code") or "") for each in problems]
    if QUEUE_FULL in codes or FULL.search(message):
        return queue_full(message)
    fatal = next((FATAL_JOB_ERRORS[code] for code in codes if code in FATAL_JOB_ERRORS), None)
    if fatal is not None:
        return fatal(message)
    return OverloadedError(
        f"the batch failed: {message}" if message else "the batch failed, the provider gave no reason"
    )


def queue_full(message: str) -> QueueFullError:
    """The error for a job over the quota of enqueued tokens, with the limit that the message names."""
    return QueueFullError(message, limit=limit_in(message))


def limit_in(message: str) -> int | None:
    """The most tokens that a message names: `Limit: 90,000 enqueued tokens`, `a limit of 30K`, `2.5 million`."""
    found = next(filter(None, (pattern.search(message) for pattern in LIMITS)), None)
    if found is None:
        return None
    number, unit = found[1], (found[2] or "").lower()
    # 2.500 is a number of thousands, 2.500 million isn't.
    is_fraction = "." in number and (unit or not re.fullmatch(r"\d{1,3}(\.\d{3})+", number))
    plain = re.sub(r"[^\d.]" if is_fraction else r"\D", "", number)
    return int(float(plain) * FACTORS[unit]) or None


def told_to(dialect: BatchDialect, metadata: Mapping[str, str]) -> dict[str, str]:
    """What of a job's metadata a server takes: all of it, or the mark under the key that it has for that."""
    if dialect.mark_key == MARK:
        return dict(metadata)
    return {dialect.mark_key: metadata[MARK]} if MARK in metadata else {}


def file_name(mark: str | None) -> str:
    """The name of a job's file, which holds what the job can be found by."""
    return f"{MARK}-{mark}.jsonl" if mark else "requests.jsonl"


def _custom_id_in(line: bytes) -> str:
    """The name of a line that the provider may not have been able to read."""
    try:
        return text_in(object_in(json_in(line)).get("custom_id"))
    except ValueError:
        return ""


def read_result(line: bytes, asked: str = "", meanings: Meanings = ANY.meanings) -> BatchResult | None:
    """The outcome from one line of a job's output or error file. None for one that names no request."""
    try:
        found = object_in(json_in(line))
    except ValueError:
        return result_of_unreadable(line)
    result = result_from(found, asked, meanings)
    return result if result.custom_id else None


def result_from(line: Mapping[str, Any], asked: str = "", meanings: Meanings = ANY.meanings) -> BatchResult:
    """The outcome from one line of a job's output or error file.

    Args:
        line: `{"custom_id": ..., "response": {"status_code": ..., "body": ...}, "error": ...}`.
        asked: the model that has to have answered, as in `llms.batch.outcome_of`.
        meanings: of the provider's own codes.
    """
    key, mark = split_custom_id(text_in(line.get("custom_id")))
    response = object_in(line.get("response"))
    return BatchResult(key, _outcome_in(line, response, asked, meanings), mark)


def _outcome_in(
    line: Mapping[str, Any], response: Mapping[str, Any], asked: str, meanings: Meanings
) -> GenerateOutput | LLMError:
    body = object_in(response.get("body"))
    status = number_in(response.get("status_code"))
    if status is not None and 400 <= status < 1000:
        # vLLM and Mistral tell what was wrong beside the answer, and nest it.
        said, code = words_in(body, response.get("body"), line.get("error"))
        meant, code = meanings.get(code, (int(status), code))
        return error_for_status(meant, said or short(response.get("body")), code=code)
    usage = billed(openai_usage(body))
    if not any(body.get(name) for name in ANSWER_FIELDS):
        no_answer = status is not None and status < 100
        said, code = ("", "") if no_answer else words_in(line.get("error"), body, response.get("body"))
        return _line_error(said, code, usage, meanings)
    if status is not None and not 200 <= status < 300:
        return InvalidResponseError(f"the request came to nothing at the provider (status {int(status)})")
    return outcome_of(lambda: parse_answer(body, _path_of(body)), asked, body.get("model"), usage)


def _path_of(body: Mapping[str, Any]) -> str:
    """The path of the request that an answer's body answers. Images come without an `object`."""
    return PATHS.get(str(body.get("object")), IMAGES if "data" in body else CHAT)


def _line_error(said: str, code: str, usage: Sequence[Usage], meanings: Meanings) -> LLMError:
    """The error of a line without an answer. Without words and a code, the request came to nothing."""
    if not said and not code:
        return InvalidResponseError("the provider gave no answer to it", usage=usage)
    if code in meanings:
        status, meant = meanings[code]
        return error_for_status(status, said or code, code=meant)
    if code.isdigit() and int(code) >= 400:
        return error_for_status(int(code), said or code)
    if not code and NO_ANSWER.search(said):
        return OverloadedError(said, usage=usage)
    return line_error_of(code)(said or code, usage=usage)


def _message(error: Any) -> str:
    body = error.body
    if isinstance(body, dict):
        return str(cast("dict[str, Any]", body).get("message") or error.message)
    return short(str(body)) if body else str(error.message)


def refusal_from(
    status: int, headers: Mapping[str, str], content: bytes, meanings: Meanings = ANY.meanings
) -> LLMError:
    """The error for an answer with an HTTP status of 400 or more."""
    try:
        body = json_object(content)
    except InvalidResponseError:
        body = {"error": plain_refusal(content)}
    problem = body.get("error", body)
    inner = cast("dict[str, Any]", problem) if isinstance(problem, dict) else {"message": problem}
    said = str(inner.get("message") or "") or (short(body) if content else "no further words")
    code = str(inner.get("code") or "")
    if code == QUEUE_FULL or FULL.search(said):
        return queue_full(said)
    status, code = meanings.get(code, (status, code))
    return error_for_status(status, said, code=code, retry_after=retry_after_in(headers))


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        answer = json_in(content)
    except ValueError:
        raise InvalidResponseError(f"the provider's answer isn't JSON: {short(content)}") from None
    if isinstance(answer, list):
        # A list without pages (Together).
        return {"data": answer}
    if not isinstance(answer, dict):
        raise InvalidResponseError(f"the provider's answer isn't a JSON object: {short(answer)}")
    return cast("dict[str, Any]", answer)
