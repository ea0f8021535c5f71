"""Anthropic's Claude models.

Messages: https://docs.claude.com/en/api/messages. Batches:
https://docs.claude.com/en/docs/build-with-claude/batch-processing.

Requests go by aiohttp: a batch is one body of up to 256 MB, which it sends from the file.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import orjson
from pydantic import Field, PrivateAttr, SecretStr

from llms.base import combined, split_input
from llms.batch import BatchLimits, BatchRequest, BatchResult, JobFile, JobState, JobStatus, OfflineBatchLLM
from llms.credentials import Credentials, WithKey
from llms.errors import (
    BadRequestError,
    ContentFilterError,
    ExpiredError,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    error_for_status,
)
from llms.http import json_object, new_session, number_in, request_errors
from llms.limits import hear
from llms.loop import PerLoop
from llms.parameters import Aside, short
from llms.rates import rates_in
from llms.structured_output import constrainable_schema, schema_name
from llms.typing import FormattedInput, GenerateOutput, JSONSchema, PriceSource, TokenCounts

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession, ClientTimeout

ANTHROPIC_URL = "https://api.anthropic.com"
MESSAGES = "/v1/messages"
BATCHES = "/v1/messages/batches"
JOBS_PER_PAGE = 1000
SECONDS_PER_UPLOAD = 600.0
CLOCK_SKEW = 300.0
"""Seconds by which a job may seem older than it is, as the provider's clock isn't this machine's."""
DEFAULT_MAX_TOKENS = 8192
CUT_OFF = frozenset({"max_tokens", "model_context_window_exceeded"})
"""The values of `stop_reason` where tokens ran out."""
CHUNK = 1 << 16
BODY_START, BODY_END = b'{"requests":[', b"]}"

JOB_STATES: dict[str, JobState] = {"in_progress": "waiting", "canceling": "waiting", "ended": "ended"}

# The types of errors in results, which come without a status: https://docs.claude.com/en/api/errors
STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
# What a refusal is about, which the API tells in its message alone.
CODE_OF_MESSAGE = {
    re.compile(r"credit balance is too low|reached your specified API usage limits", re.I): "insufficient_quota",
    re.compile(r"prompt is too long|exceeds? (the )?context (limit|window)", re.I): "context_length_exceeded",
    re.compile(r"content filtering policy", re.I): "content_filter",
}


class AnthropicLLM(WithKey, OfflineBatchLLM):
    """A Claude model of Anthropic.

    Example:
        >>> llm = AnthropicLLM(model="claude-sonnet-4-5", generation_kwargs={"temperature": 0.3})
        >>> llm.model_name
        'claude-sonnet-4-5'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("ANTHROPIC_API_KEY",)
    url_variable: ClassVar[str] = "ANTHROPIC_BASE_URL"
    own_url: ClassVar[str] = ANTHROPIC_URL
    # The provider's 256 MB, less what joins the requests to one body.
    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=100_000, size=255_000_000)

    form_first = ("model", "credentials", "generation_kwargs")
    form_title = "Anthropic"

    provider: Annotated[Literal["anthropic"], Field(title="Provider")] = "anthropic"  # pyright: ignore[reportIncompatibleVariableOverride]
    model: Annotated[str, Field(title="Model", description="The model's name at Anthropic.")]
    base_url: Annotated[
        str | None,
        Field(title="Address", description="Of a gateway, without /v1. Empty: ANTHROPIC_BASE_URL, or Anthropic."),
    ] = None
    credentials: Annotated[
        str | None,
        Field(title="Credentials", description="Name of an LLM credentials block. Empty: ANTHROPIC_API_KEY."),
        Aside(),
    ] = None
    api_key: Annotated[
        SecretStr | None,
        Field(exclude=True, description="The key itself; better by `credentials` or environment."),
        Aside(),
    ] = None
    anthropic_version: Annotated[
        str, Field(title="API version", description="What the header anthropic-version says."), Aside()
    ] = "2023-06-01"
    default_headers: Annotated[
        dict[str, str] | None, Field(exclude=True, repr=False, description="Headers for every request."), Aside()
    ] = None
    timeout: Annotated[float, Field(gt=0, title="Timeout", description="Seconds for one request."), Aside()] = 600.0

    _sessions: PerLoop[ClientSession] = PrivateAttr(default_factory=PerLoop)
    _found_credentials: tuple[str, Credentials] | None = PrivateAttr(default=None)

    @property
    def model_name(self) -> str:
        return self.model

    @property
    def limit_key(self) -> Hashable:
        return (self.provider, self.url(), self.model, hash(self.key().get_secret_value()))

    @property
    def account(self) -> Hashable:
        return (self.provider, self.url(), hash(self.key().get_secret_value()))

    def url(self) -> str:
        """The address that requests go to, without /v1."""
        return super().url().removesuffix("/v1")

    def price_source(self) -> PriceSource | None:
        return PriceSource(self.url(), self.model)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "base_url": self.url()}

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: Annotated[
            int | None,
            Field(ge=1, description=f"The most tokens of one answer. Empty: {DEFAULT_MAX_TOKENS}."),
        ] = None,
        temperature: Annotated[
            float | None, Field(ge=0, le=1, description="0: the likeliest answer; higher: more varied ones.")
        ] = None,
        top_p: Annotated[float | None, Field(ge=0, le=1, description="Sample from this share of probability.")] = None,
        top_k: Annotated[int | None, Field(ge=1, description="Sample from so many tokens.")] = None,
        stop: Annotated[str | list[str] | None, Field(description="Text at which an answer ends.")] = None,
        reasoning_effort: Annotated[
            str | None, Field(description="For newer models: low, medium, high, xhigh, max.")
        ] = None,
        thinking: Annotated[
            Literal["adaptive", "disabled"] | None, Field(description="adaptive: a newer model decides how much.")
        ] = None,
        thinking_budget: Annotated[
            int | None,
            Field(ge=1024, description="For older models: think in at most so many tokens, besides the answer's."),
        ] = None,
        extra_body: Annotated[dict[str, Any] | None, Field(description="Further fields of the request's body.")] = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat, with one request per generation: the API has none for several.

        Raises:
            LLMError: one of its kinds, by the provider's answer.
        """
        keywords = {name: value for name, value in locals().items() if name not in {"self", "input", "num_generations"}}
        body = self._body(input, keywords)
        return combined(await asyncio.gather(*(self._answer(body) for _ in range(num_generations))))

    async def _answer(self, body: Mapping[str, Any]) -> GenerateOutput:
        return parse_message(await self._ask("POST", MESSAGES, orjson.dumps(body)))

    def _body(self, given: FormattedInput, keywords: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(given, str):
            raise BadRequestError(f"Anthropic's models take chats, got a bare prompt for model={self.model!r}")
        wanted = {name: value for name, value in keywords.items() if value is not None}
        system, messages = split_system(cast("Sequence[Mapping[str, Any]]", given))
        body: dict[str, Any] = {"model": self.model, "max_tokens": wanted.get("max_new_tokens", DEFAULT_MAX_TOKENS)}
        body |= {"system": system} if system else {}
        body |= {"messages": messages}
        body |= {name: wanted[name] for name in ("temperature", "top_p", "top_k") if name in wanted}
        if "stop" in wanted:
            body["stop_sequences"] = [wanted["stop"]] if isinstance(wanted["stop"], str) else wanted["stop"]
        if "thinking" in wanted:
            body["thinking"] = {"type": wanted["thinking"]}
        if "thinking_budget" in wanted:
            body["max_tokens"] += wanted["thinking_budget"]
            body["thinking"] = {"type": "enabled", "budget_tokens": wanted["thinking_budget"]}
        schema = wanted.get("structured_output")
        body |= answer_form(schema) if schema is not None else {}
        if "reasoning_effort" in wanted:
            body["output_config"] = {**body.get("output_config", {}), "effort": wanted["reasoning_effort"]}
        return {**body, **wanted.get("extra_body", {})}

    async def _ask(self, method: str, path: str, data: bytes | None = None) -> dict[str, Any]:
        async with self._request(method, path, data) as response:
            return json_object(await response.read())

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        data: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: ClientTimeout | None = None,
    ) -> AsyncGenerator[ClientResponse]:
        """The answer, its body not yet read. Raises LLMError, also for what goes wrong inside."""
        session = self._sessions.get(self._new_session)
        limits = timeout or session.timeout
        url = f"{self.url()}{path}"
        with request_errors(url, limits.total or self.timeout):
            async with session.request(method, url, data=data, headers=headers, timeout=limits) as response:
                hear(rates_in(response.headers))
                if response.status >= 400:
                    raise error_from(response.status, response.headers, await response.read())
                yield response

    def _new_session(self) -> ClientSession:
        headers = {"x-api-key": self.key().get_secret_value(), "anthropic-version": self.anthropic_version}
        return new_session(self.url(), {**headers, **(self.default_headers or {})}, self.timeout)

    def batch_request(
        self, custom_id: str, given: FormattedInput, num_generations: int, number: int = 0
    ) -> BatchRequest:
        prompt, schema = split_input(given)
        return BatchRequest(custom_id, MESSAGES, self._body(prompt, self.keywords(schema or self.structured_output)))

    def batch_line(self, request: BatchRequest) -> bytes:
        return orjson.dumps({"custom_id": request.custom_id, "params": request.body})

    def requests_per_input(self, num_generations: int) -> int:
        return num_generations

    async def create_job(self, file: JobFile, metadata: Mapping[str, str]) -> JobStatus:
        """Create a batch from the file, which is sent as it is read. The API keeps no metadata: see `find_job`."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=max(self.timeout, SECONDS_PER_UPLOAD))
        length = len(BODY_START) + file.size + len(file.custom_ids) - 1 + len(BODY_END)
        headers = {"Content-Length": str(length)}
        async with self._request("POST", BATCHES, body_parts(file.path), headers, timeout) as response:
            return status_from(json_object(await response.read()))

    async def job_status(self, job_id: str) -> JobStatus:
        return status_from(await self._ask("GET", f"{BATCHES}/{job_id}"))

    async def list_jobs(self) -> AsyncIterator[JobStatus]:
        after = ""
        while True:
            page = await self._ask("GET", f"{BATCHES}?limit={JOBS_PER_PAGE}{after}")
            for job in cast("list[dict[str, Any]]", page.get("data") or []):
                yield status_from(job)
            if not page.get("has_more") or not page.get("last_id"):
                return
            after = f"&after_id={page['last_id']}"

    async def find_job(self, mark: str, since: float, file: Mapping[str, Any]) -> JobStatus | None:
        """The job that was created from `file`, if it was, by what it is like: the API keeps no mark.

        It isn't older than `since` (less `CLOCK_SKEW`), has as many requests, is in no other record, and, where
        it has ended, answers some of the `custom_ids`. The requests of one under way can't be seen: of several,
        the newest is taken, and its results show whose it is.
        """
        taken = set(cast("Sequence[str]", file.get("taken") or ()))
        ours = set(cast("Sequence[str]", file.get("custom_ids") or ()))
        requests = cast("int | None", file.get("requests"))
        newest: JobStatus | None = None
        async for status in self.list_jobs():
            if status.created < since - CLOCK_SKEW:
                break
            if status.id in taken or (requests is not None and status.total != requests):
                continue
            if status.state == "waiting" or not ours:
                newest = newest or status
            elif await self._answers(status, ours):
                return status
        return newest

    async def _answers(self, status: JobStatus, ours: set[str]) -> bool:
        """Whether an ended job answers a request of ours: the first result tells, where all of ours are known."""
        async with aclosing(self.job_results(status.id)) as results:
            async for result in results:
                if result.custom_id in ours:
                    return True
                if len(ours) >= status.total:
                    return False
        return False

    async def job_results(self, job_id: str) -> AsyncGenerator[BatchResult]:
        """The results of an ended batch, in any order. Raises LLMError; a final one where they were removed."""
        import aiohttp

        job = _batch_in(await self._ask("GET", f"{BATCHES}/{job_id}"))
        if job.get("archived_at") or not job.get("results_url"):
            raise LLMError(
                f"batch {job_id!r} has no results to read (processing_status {job['processing_status']!r}, archived_at"
                f" {job.get('archived_at')!r}): they're kept for 29 days after its creation; submit the requests again"
            )
        # A gateway's address goes before the one in `results_url`. However long it takes, as long as something comes.
        timeout = aiohttp.ClientTimeout(sock_connect=self.timeout, sock_read=self.timeout)
        async with self._request("GET", f"{BATCHES}/{job_id}/results", timeout=timeout) as response:
            async for line in lines_in(response.content.iter_chunked(CHUNK)):
                yield result_from(json_object(line))

    async def cancel_job(self, job_id: str) -> None:
        await self._ask("POST", f"{BATCHES}/{job_id}/cancel")

    async def delete_job(self, job_id: str) -> None:
        """Delete an ended batch with its results."""
        try:
            await self._ask("DELETE", f"{BATCHES}/{job_id}")
        except ModelNotFoundError:
            return


def split_system(chat: Sequence[Mapping[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The text of the system messages, and the other messages with their content in Anthropic's form."""
    is_system = [message.get("role") in {"system", "developer"} for message in chat]
    texts = [_plain_text(message.get("content")) for message, system in zip(chat, is_system, strict=True) if system]
    others = [message for message, system in zip(chat, is_system, strict=True) if not system]
    return "\n\n".join(filter(None, texts)), [
        {"role": message.get("role"), "content": _content(message.get("content"))} for message in others
    ]


def _plain_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = cast("list[dict[str, Any]]", content or [])
    return "\n\n".join(str(part.get("text") or "") for part in parts)


def _content(content: Any) -> Any:
    return [_block(part) for part in cast("list[Any]", content)] if isinstance(content, list) else content


def _block(part: Any) -> Any:
    """A content block for a part of a message in OpenAI's form. Blocks of Anthropic's own pass as they are."""
    match part:
        case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
            return {"type": "image", "source": _image_source(url)}
        case {"type": "input_audio" | "file" | "image_url" as kind}:
            raise BadRequestError(f"Anthropic's models take text and images, got a part of type {kind!r}")
        case _:
            return part


def _image_source(url: str) -> dict[str, str]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    kind, comma, data = url.removeprefix("data:").partition(";base64,")
    if not comma:
        raise BadRequestError(f"an image's data: address has to be in base64, got {short(url)}")
    return {"type": "base64", "media_type": kind, "data": data}


def answer_form(schema: JSONSchema) -> dict[str, Any]:
    """The fields of a request whose answer has to fit `schema`.

    Structured outputs hold the model to the schema, but take only a part of what JSON schemas can say. Where that
    isn't enough, the model is made to call a tool with such an argument, which it follows without a guarantee.
    """
    taken = constrainable_schema(schema)
    if taken is not None:
        return {"output_config": {"format": {"type": "json_schema", "schema": taken}}}
    tool = {
        "name": schema_name(schema),
        "description": "Takes the answer.",
        "input_schema": {"type": "object"} | schema,
    }
    return {"tools": [tool], "tool_choice": {"type": "tool", "name": tool["name"]}}


def parse_message(answer: Mapping[str, Any]) -> GenerateOutput:
    """The output from a message.

    Raises:
        ContentFilterError: the model or a filter refused (`stop_reason` is refusal).
        BadRequestError: the tokens were used up before the answer began.
        InvalidResponseError: it's no message.
    """
    content, reason = answer.get("content"), answer.get("stop_reason")
    if reason == "refusal":
        why = answer.get("stop_details")
        raise ContentFilterError(f"the model refused (stop_reason 'refusal'{f', {short(why)}' if why else ''})")
    if not isinstance(content, list) or reason is None:
        raise InvalidResponseError(f"the provider's answer is no message: {short(answer)}")
    blocks = [cast("dict[str, Any]", each) for each in cast("list[object]", content) if isinstance(each, dict)]
    texts = [str(each.get("text") or "") for each in blocks if each.get("type") == "text"]
    texts = texts or [orjson.dumps(each.get("input")).decode() for each in blocks if each.get("type") == "tool_use"]
    if not texts and reason == "max_tokens":
        raise BadRequestError("max_new_tokens were used up before the answer began (by thinking); give more")
    usage = cast("dict[str, Any]", answer.get("usage") or {})
    asked = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    output = GenerateOutput(
        generations=["".join(texts)],
        statistics=TokenCounts(
            input_tokens=[sum(int(usage.get(name) or 0) for name in asked)],
            output_tokens=[int(usage.get("output_tokens") or 0)],
        ),
    )
    if reason in CUT_OFF:
        output["cut_off"] = [True]
    return output


def error_from(status: int, headers: Mapping[str, str], content: bytes) -> LLMError:
    """The error for a refusal: Anthropic's, or that of a proxy on the way."""
    try:
        kind, said = _problem_in(json_object(content))
    except InvalidResponseError:
        kind, said = "", content.decode("utf-8", "replace").strip()[:500]
    return _error(status, kind, said, number_in(headers.get("Retry-After")))


def _problem_in(body: Mapping[str, Any]) -> tuple[str, str]:
    """Type and message of `{"type": "error", "error": {"type": ..., "message": ...}}`."""
    problem = body.get("error")
    inner = cast("dict[str, Any]", problem) if isinstance(problem, dict) else {}
    return str(inner.get("type") or ""), str(inner.get("message") or short(body))


def _error(status: int, kind: str, said: str, retry_after: float | None = None) -> LLMError:
    codes = [code for pattern, code in CODE_OF_MESSAGE.items() if status < 500 and pattern.search(said)]
    code = codes[0] if codes else ""
    return error_for_status(status, f"{said} ({kind})" if kind else said, code=code, retry_after=retry_after)


async def body_parts(path: Path) -> AsyncIterator[bytes]:
    """The body that creates a batch from the lines of a file, in parts of about `CHUNK` bytes."""
    before = BODY_START
    with path.open("rb") as stream:
        while lines := stream.readlines(CHUNK):
            yield before + b",".join(lines)
            before = b","
    yield BODY_END


async def lines_in(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a stream, of any length: those of aiohttp's own reader are limited."""
    begun: list[bytes] = []
    async for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            whole = b"".join([*begun, line])
            begun.clear()
            if whole.strip():
                yield whole
        begun.append(rest)
    if b"".join(begun).strip():
        yield b"".join(begun)


def _batch_in(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    if not {"id", "processing_status"} <= set(answer):
        raise InvalidResponseError(f"the provider's answer is no batch: {short(answer)}")
    return answer


def status_from(answer: Mapping[str, Any]) -> JobStatus:
    """How a batch stands. Raises InvalidResponseError where `answer` is none."""
    job = _batch_in(answer)
    status = str(job["processing_status"])
    counts = cast("dict[str, int]", job.get("request_counts") or {})
    return JobStatus(
        id=str(job["id"]),
        # A state that isn't known yet is waited for: it costs nothing, and the job's answers are paid.
        state=JOB_STATES.get(status, "waiting"),
        status=status,
        total=sum(counts.values()),
        answered=counts.get("succeeded", 0),
        refused=counts.get("errored", 0),
        created=_seconds(str(job.get("created_at") or "")),
    )


def _seconds(time: str) -> float:
    """Seconds since 1970 of a time in RFC 3339; 0 where it is none."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return 0.0


def result_from(line: Mapping[str, Any]) -> BatchResult:
    """The outcome from one line of a batch's results."""
    key = str(line.get("custom_id"))
    result = cast("dict[str, Any]", line.get("result") or {})
    kind = result.get("type")
    if kind == "succeeded":
        try:
            return BatchResult(key, parse_message(cast("dict[str, Any]", result.get("message") or {})))
        except LLMError as error:
            return BatchResult(key, error)
    if kind == "errored":
        inner = cast("dict[str, Any]", result.get("error") or {})
        name, said = _problem_in(inner)
        return BatchResult(key, _error(STATUS_OF_TYPE.get(name, 500), name, said))
    if kind in {"canceled", "expired"}:
        return BatchResult(key, ExpiredError(f"the batch ended without an answer to it ({kind}); submit it again"))
    return BatchResult(key, InvalidResponseError(f"the result is of no known type: {short(line)}"))
