"""Anthropic's Claude models.

Messages: https://docs.claude.com/en/api/messages. Batches:
https://docs.claude.com/en/docs/build-with-claude/batch-processing.

Requests go by aiohttp: a batch is one body of up to 256 MB, which it sends from the file.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal, cast

import orjson
from pydantic import Field, PrivateAttr

from llms.base import TOKEN_LIMIT, split_input
from llms.batch import (
    BatchLimits,
    BatchRequest,
    BatchResult,
    JobFile,
    JobState,
    JobStatus,
    OfflineBatchLLM,
    lines_in,
    may_be,
    outcome_of,
    result_of_unreadable,
    split_custom_id,
)
from llms.endings import ANTHROPIC as ENDS
from llms.endings import MORE_TOKENS, NO_TOKENS_LEFT, end_of, mark
from llms.errors import (
    BadRequestError,
    ContentFilterError,
    EmptyAnswerError,
    ExpiredError,
    IncompleteResultsError,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    UndecidedJobError,
    error_for_status,
)
from llms.http import json_object, plain_refusal, written
from llms.parameters import Unasked, short
from llms.providers.claude import fitted, forces_tool, refused_in, takes_schemas
from llms.providers.parameters import Stop, TopK, TopP, keywords_in
from llms.quantities import quantity
from llms.reading import (
    count_in,
    json_in,
    list_in,
    object_in,
    seconds_of,
    seconds_to_wait,
    text_in,
    words_in,
)
from llms.service import ServiceLLM
from llms.structured_output import constrainable_schema, schema_name
from llms.typing import FormattedInput, GenerateOutput, JSONSchema
from llms.uploads import expected_results
from llms.usage import anthropic_usage, billed, token_counts

logger = logging.getLogger(__name__)

ANTHROPIC_URL = "https://api.anthropic.com"
MESSAGES = "/v1/messages"
BATCHES = "/v1/messages/batches"
JOBS_PER_PAGE = 1000
SECONDS_PER_UPLOAD = 600.0
CLOCK_SKEW = 300.0
"""Seconds by which a job may seem older than it is, as the provider's clock isn't this machine's."""
DEFAULT_MAX_TOKENS = 8192
CHUNK = 1 << 16

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
    re.compile(r"content filtering policy", re.I): "content_filter",
}


class AnthropicLLM(ServiceLLM, OfflineBatchLLM):  # pyright: ignore[reportIncompatibleMethodOverride] -- see `agenerate`
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

    answers_several: ClassVar[bool] = False
    takes_prompts: ClassVar[bool] = False

    form_title = "Anthropic"

    provider: Annotated[Literal["anthropic"], Field(title="Provider")] = "anthropic"  # pyright: ignore[reportIncompatibleVariableOverride]
    anthropic_version: Annotated[
        str, Field(title="API version", description="What the header anthropic-version says."), Unasked()
    ] = "2023-06-01"
    timeout: Annotated[float, Field(gt=0, title="Timeout", description="Seconds for one request."), Unasked()] = 600.0

    _refused: set[str] = PrivateAttr(default_factory=set[str])
    """The parameters that the model was found not to take."""
    _told: set[str] = PrivateAttr(default_factory=set[str])

    def url(self) -> str:
        """The address that requests go to, without /v1."""
        return super().url().removesuffix("/v1")

    def key_headers(self) -> dict[str, str]:
        return {"x-api-key": self.key().get_secret_value(), "anthropic-version": self.anthropic_version}

    def question(self, given: FormattedInput, num_generations: int = 1) -> Any:
        # As it's wished for: what the model is known, or found, not to take of it makes no other question.
        prompt, schema = split_input(given)
        keywords = self.keywords(schema or self.structured_output)
        keywords.pop(TOKEN_LIMIT, None)
        return [MESSAGES, chat_in(prompt, self.model), keywords, num_generations]

    def token_limit(self) -> int | None:
        return self.generation_kwargs.get(TOKEN_LIMIT, DEFAULT_MAX_TOKENS)

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
        top_p: TopP = None,
        top_k: TopK = None,
        stop: Stop = None,
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
        return await self.generated(input, num_generations, keywords_in(locals()))

    async def _request(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        try:
            return await super()._request(given, times, keywords)
        except BadRequestError as error:
            name = refused_in(str(error))
            if name is None or keywords.get(name) is None:
                raise
            self._tell(f"{name} left out: it says {short(str(error))}")
            self._refused.add(name)
            # Others under way learn it each for themselves, and send each parameter once.
            return await self._request(given, times, {**keywords, name: None})

    def _fitted(self, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that the model takes. Of any other, a warning says once what becomes of it."""
        given = {name: value for name, value in keywords.items() if value is not None and name not in self._refused}
        wanted, changes = fitted(self.model, given)
        for change in changes:
            self._tell(change)
        return wanted

    def _tell(self, change: str) -> None:
        if change not in self._told:
            self._told.add(change)
            logger.warning("%s: %s", self.model, change)

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        wanted = self._fitted(keywords)
        system, messages = split_system(chat_in(given, self.model))
        body: dict[str, Any] = {"model": self.model, "max_tokens": wanted.get("max_new_tokens", DEFAULT_MAX_TOKENS)}
        body |= {"system": system} if system else {}
        body |= {"messages": messages}
        body |= {name: wanted[name] for name in ("temperature", "top_p", "top_k") if name in wanted}
        if "stop" in wanted:
            body["stop_sequences"] = [wanted["stop"]] if isinstance(wanted["stop"], str) else wanted["stop"]
        if "thinking" in wanted:
            body["thinking"] = {"type": wanted["thinking"]}
        body["max_tokens"] += wanted.get("more_tokens", 0) + wanted.get("thinking_budget", 0)
        if "thinking_budget" in wanted:
            body["thinking"] = {"type": "enabled", "budget_tokens": wanted["thinking_budget"]}
        schema = wanted.get("structured_output")
        if schema is not None:
            taken = constrainable_schema(schema) if takes_schemas(self.model) else None
            body |= answer_form(schema, taken, forced=forces_tool(self.model, body))
        if "reasoning_effort" in wanted:
            body["output_config"] = {**body.get("output_config", {}), "effort": wanted["reasoning_effort"]}
        return MESSAGES, {**body, **wanted.get("extra_body", {})}

    def output_from(self, answer: dict[str, Any], path: str, body: Mapping[str, Any]) -> GenerateOutput:
        return parse_message(answer)

    def refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> LLMError:
        return error_from(status, headers, content)

    def batch_request(
        self, custom_id: str, given: FormattedInput, num_generations: int, number: int = 0
    ) -> BatchRequest:
        prompt, schema = split_input(given)
        path, body = self._body(prompt, 1, self.keywords(schema or self.structured_output))
        return BatchRequest(custom_id, path, body)

    def batch_line(self, request: BatchRequest) -> bytes:
        return written({"custom_id": request.custom_id, "params": request.body})

    def requests_per_input(self, num_generations: int) -> int:
        return num_generations

    async def create_job(self, file: JobFile, metadata: Mapping[str, str]) -> JobStatus:
        """Create a batch from the file, which is sent as it is read. The API keeps no metadata: see `find_job`."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=max(self.timeout, SECONDS_PER_UPLOAD))
        length, parts = file.as_list(b'{"requests":[', b"]}")
        headers = {"Content-Length": str(length)}
        async with self.sending("POST", BATCHES, parts, headers, timeout) as response:
            return status_from(json_object(await response.read()))

    async def job_status(self, job_id: str) -> JobStatus:
        return status_from(await self.call("GET", f"{BATCHES}/{job_id}"))

    async def list_jobs(self) -> AsyncIterator[JobStatus]:
        after = ""
        while True:
            page = await self.call("GET", f"{BATCHES}?limit={JOBS_PER_PAGE}{after}")
            for job in list_in(page.get("data")):
                # One that can't be told what it is isn't ours.
                with suppress(InvalidResponseError):
                    yield status_from(object_in(job))
            last = text_in(page.get("last_id"))
            if not page.get("has_more") or not last or after.endswith(f"={last}"):
                return
            after = f"&after_id={last}"

    async def find_job(self, mark: str, since: float, file: Mapping[str, Any]) -> JobStatus | None:
        """The job that was created from `file`, if it was: the API keeps no mark, but its results carry one.

        It isn't older than `since` (less `CLOCK_SKEW`), has as many requests, and is in no other record. The requests
        of one under way can't be seen: it's waited for, whosever it is.
        """
        undecided: list[str] = []
        async for status in self.list_jobs():
            if 0 < status.created < since - CLOCK_SKEW:
                break
            ours = await self.shows_mark(status, mark) if may_be(status, file) else False
            if ours:
                return status
            undecided += [status.id] if ours is None else []
        if undecided:
            raise UndecidedJobError(undecided)
        return None

    async def job_results(self, job_id: str) -> AsyncGenerator[BatchResult]:
        """The results of an ended batch, in any order. Raises LLMError; a final one where they were removed."""
        import aiohttp

        job = _batch_in(await self.call("GET", f"{BATCHES}/{job_id}"))
        ended = seconds_of(job.get("ended_at"))
        if job.get("archived_at"):
            raise LLMError(
                f"batch {job_id!r} has no results to read (processing_status {job['processing_status']!r}, archived_at"
                f" {job.get('archived_at')!r}): they're kept for 29 days after its creation; submit the requests again"
            )
        if not job.get("results_url"):
            gone = LLMError(f"batch {job_id!r} has no results to read: submit the requests again")
            raise IncompleteResultsError(f"batch {job_id!r} has no results yet", ended=ended, gone=gone)
        # A gateway's address goes before the one in `results_url`. However long it takes, as long as something comes.
        timeout = aiohttp.ClientTimeout(sock_connect=self.timeout, sock_read=self.timeout)
        lines, line = 0, b"\n"
        with expected_results(f"the results of batch {job_id!r} aren't found", ended):
            async with self.sending("GET", f"{BATCHES}/{job_id}/results", timeout=timeout) as response:
                async for line in lines_in(response.content.iter_chunked(CHUNK)):
                    if not line.strip():
                        continue
                    lines += 1
                    result = read_result(line, self.model)
                    if result is not None:
                        yield result
        total = status_from(job).total
        if lines < total:
            missing = f"has {lines:,} of {quantity(total, 'result')}"
        elif not line.endswith(b"\n") and read_object(line) is None:
            missing = "has results that are cut"
        else:
            return
        raise IncompleteResultsError(f"batch {job_id!r} {missing}", ended=ended)

    async def cancel_job(self, job_id: str) -> None:
        await self.call("POST", f"{BATCHES}/{job_id}/cancel")

    async def delete_job(self, job_id: str) -> None:
        """Delete an ended batch with its results."""
        try:
            await self.call("DELETE", f"{BATCHES}/{job_id}")
        except ModelNotFoundError:
            return


def chat_in(given: FormattedInput, model: str) -> Sequence[Mapping[str, Any]]:
    """The chat that was given. Raises BadRequestError for a bare prompt."""
    if isinstance(given, str):
        raise BadRequestError(f"Anthropic's models take chats, got a bare prompt for {model=}")
    return cast("Sequence[Mapping[str, Any]]", given)


def split_system(chat: Sequence[Mapping[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The text of the system messages, and the other messages in Anthropic's form, tool calls and results included.

    Raises:
        BadRequestError: a message holds what the API has no place for.
    """
    texts: list[str] = []
    turns: list[dict[str, Any]] = []
    for message in chat:
        role, name = message.get("role"), message.get("name")
        if name and role != "tool":
            raise BadRequestError(f"Anthropic's messages have no names, got one of the {role} named {name!r}")
        if role in {"system", "developer"}:
            texts.append(_plain_text(message.get("content")))
            continue
        turn = _turn(message)
        if role == "tool" and turns and _is_result(turns[-1]):
            # The results of calls that were made together have to come together.
            turns[-1]["content"] += turn["content"]
        else:
            turns.append(turn)
    return "\n\n".join(filter(None, texts)), turns


def _turn(message: Mapping[str, Any]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if role == "function" or message.get("function_call"):
        raise BadRequestError(
            "Anthropic's models take calls with ids (`tool_calls`, `tool_call_id`), got the older form without"
            f" (`function_call`): {short(message)}"
        )
    if role == "tool":
        result = {"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": _content(content or "")}
        return {"role": "user", "content": [result]}
    calls = cast("list[dict[str, Any]]", message.get("tool_calls") or [])
    if not calls:
        return {"role": role, "content": _content(content)}
    said = [{"type": "text", "text": content}] if isinstance(content, str) and content else _content(content or [])
    return {"role": role, "content": [*said, *map(_tool_use, calls)]}


def _is_result(turn: Mapping[str, Any]) -> bool:
    content: Any = turn["content"]
    return isinstance(content, list) and cast("dict[str, Any]", content[0]).get("type") == "tool_result"


def _tool_use(call: Mapping[str, Any]) -> dict[str, Any]:
    """A block for a call in OpenAI's form. Raises BadRequestError where it's none."""
    function: Any = call.get("function")
    called = cast("dict[str, Any]", function) if isinstance(function, dict) else {}
    arguments: Any = called.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = orjson.loads(arguments)
        except orjson.JSONDecodeError:
            arguments = None
    if not isinstance(call.get("id"), str) or not called.get("name") or not isinstance(arguments, dict):
        raise BadRequestError(
            f"expected a tool call with an id, a function's name, and a JSON object as arguments, got {short(call)}"
        )
    return {"type": "tool_use", "id": call["id"], "name": called["name"], "input": arguments}


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


def answer_form(schema: JSONSchema, taken: JSONSchema | None, *, forced: bool = True) -> dict[str, Any]:
    """The fields of a request whose answer has to fit `schema`.

    Structured outputs hold the model to the schema, but take only a part of what JSON schemas can say. Where that
    isn't enough, the model is made to call a tool with such an argument, which it follows without a guarantee.

    Args:
        schema: of the answer.
        taken: the same as structured outputs take it; None where they can't.
        forced: whether the model can be made to call the tool.
    """
    if taken is not None:
        return {"output_config": {"format": {"type": "json_schema", "schema": taken}}}
    tool = {
        "name": schema_name(schema),
        "description": "Takes the answer.",
        "input_schema": {"type": "object"} | schema,
    }
    choice = {"type": "tool", "name": tool["name"]} if forced else {"type": "auto"}
    return {"tools": [tool], "tool_choice": choice}


def parse_message(answer: Mapping[str, Any]) -> GenerateOutput:
    """The output from a message.

    Raises:
        ContentFilterError: the model or a filter refused (`stop_reason` is refusal).
        EmptyAnswerError: the tokens were used up before the answer began, or it holds thoughts alone.
        InvalidResponseError: it's no message.
        LLMError: another of its kinds, by the error that it holds.
    """
    content, reason = answer.get("content"), answer.get("stop_reason")
    usage = anthropic_usage(answer)
    end = end_of(reason, ENDS)
    if answer.get("type") == "error":
        kind, said = _problem_in(answer)
        error = _error(STATUS_OF_TYPE.get(kind, 500), kind, said)
        error.usage = billed(usage)
        error.paid = bool(error.usage)
        raise error
    if end == "withheld":
        why = answer.get("stop_details")
        raise ContentFilterError(
            f"the model refused (stop_reason {reason!r}{f', {short(why)}' if why else ''})", usage=[usage]
        )
    if not isinstance(content, list):
        raise InvalidResponseError(f"the provider's answer is no message: {short(answer)}", usage=[usage])
    blocks = [cast("dict[str, Any]", each) for each in cast("list[object]", content) if isinstance(each, dict)]
    if any(each.get("type") == "text" and not isinstance(each.get("text"), str) for each in blocks):
        raise InvalidResponseError(f"the provider's answer has a text that is none: {short(blocks)}", usage=[usage])
    texts = [text_in(each.get("text")) for each in blocks if each.get("type") == "text"]
    texts = texts or [orjson.dumps(each.get("input")).decode() for each in blocks if each.get("type") == "tool_use"]
    text = "".join(texts)
    if not text and end == "cut off":
        raise EmptyAnswerError(f"{NO_TOKENS_LEFT} (stop_reason {reason!r}); {MORE_TOKENS}", usage=[usage])
    if not texts and any(each.get("type") in ("thinking", "redacted_thinking") for each in blocks):
        raise EmptyAnswerError(
            f"the model thought and wrote no text (stop_reason {reason!r}); {MORE_TOKENS}", usage=[usage]
        )
    if not text and end == "unknown":
        raise InvalidResponseError(f"the provider's answer has no text (stop_reason {reason!r})", usage=[usage])
    output = GenerateOutput(generations=[text], statistics=token_counts(usage, [text]), usage=[usage])
    mark(output, [reason], [end])
    return output


def error_from(status: int, headers: Mapping[str, str], content: bytes) -> LLMError:
    """The error for a refusal: Anthropic's, or that of a proxy on the way."""
    try:
        kind, said = _problem_in(json_object(content))
    except InvalidResponseError:
        kind, said = "", plain_refusal(content)
    return _error(status, kind, said, seconds_to_wait(headers.get("Retry-After")))


def _problem_in(body: Mapping[str, Any]) -> tuple[str, str]:
    """Type and message of `{"type": "error", "error": {"type": ..., "message": ...}}`."""
    said, _ = words_in(body)
    return text_in(object_in(body.get("error")).get("type")), said or short(body)


def _error(status: int, kind: str, said: str, retry_after: float | None = None) -> LLMError:
    codes = [code for pattern, code in CODE_OF_MESSAGE.items() if status < 500 and pattern.search(said)]
    code = codes[0] if codes else ""
    return error_for_status(status, f"{said} ({kind})" if kind else said, code=code, retry_after=retry_after)


def _batch_in(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    if not {"id", "processing_status"} <= set(answer) or not answer["id"]:
        raise InvalidResponseError(f"the provider's answer is no batch: {short(answer)}")
    return answer


def status_from(answer: Mapping[str, Any]) -> JobStatus:
    """How a batch stands. Raises InvalidResponseError where `answer` is none."""
    job = _batch_in(answer)
    given = job["processing_status"]
    status = given if isinstance(given, str) else short(given)
    counts = {name: count_in(each) for name, each in object_in(job.get("request_counts")).items()}
    return JobStatus(
        id=str(job["id"]),
        # A state that isn't known yet is waited for: it costs nothing, and the job's answers are paid.
        state=JOB_STATES.get(status, "waiting"),
        status=status,
        total=sum(counts.values()),
        answered=counts.get("succeeded", 0),
        refused=counts.get("errored", 0),
        created=seconds_of(job.get("created_at")),
        unknown=status not in JOB_STATES,
    )


def read_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line, if it is one."""
    try:
        return object_in(json_in(line)) or None
    except ValueError:
        return None


def read_result(line: bytes, asked: str = "") -> BatchResult | None:
    """The outcome from one line of a batch's results. None for one that names no request."""
    found = read_object(line)
    if found is None:
        return result_of_unreadable(line)
    result = result_from(found, asked)
    return result if result.custom_id else None


def result_from(line: Mapping[str, Any], asked: str = "") -> BatchResult:
    """The outcome from one line of a batch's results.

    Args:
        line: `{"custom_id": ..., "result": {"type": ..., ...}}`.
        asked: the model that has to have answered, as in `llms.batch.outcome_of`.
    """
    key, mark = split_custom_id(text_in(line.get("custom_id")))
    return BatchResult(key, _outcome_in(object_in(line.get("result")), asked), mark)


def _outcome_in(result: Mapping[str, Any], asked: str) -> GenerateOutput | LLMError:
    kind = text_in(result.get("type"))
    if kind == "succeeded":
        message = object_in(result.get("message"))
        usage = billed(anthropic_usage(message))
        return outcome_of(lambda: parse_message(message), asked, message.get("model"), usage)
    if kind == "errored":
        name, said = _problem_in(object_in(result.get("error")))
        return _error(STATUS_OF_TYPE.get(name, 500), name, said)
    if kind in {"canceled", "expired"}:
        return ExpiredError(f"the batch ended without an answer to it ({kind}); submit it again")
    return InvalidResponseError(f"the result is of no known type: {short(result)}")
