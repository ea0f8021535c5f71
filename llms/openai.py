"""OpenAI, and every server that speaks its protocol.

Chat completions: https://platform.openai.com/docs/api-reference/chat. A bare string goes to
completions: https://platform.openai.com/docs/api-reference/completions. Batches:
https://platform.openai.com/docs/guides/batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import tempfile
from collections.abc import AsyncIterator, Hashable, Iterable, Mapping, Sequence
from functools import cache
from typing import IO, TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import orjson
from pydantic import Field, PrivateAttr, SecretStr

from llms.base import combined, split_input
from llms.batch import BatchRequest, BatchResult, JobState, JobStatus, OfflineBatchLLM
from llms.credentials import Credentials, credentials_named, key_from_environment
from llms.errors import (
    AuthenticationError,
    BadRequestError,
    ConnectionFailedError,
    ContentFilterError,
    ExpiredError,
    InvalidResponseError,
    LLMError,
    RequestTimeoutError,
    error_for_status,
)
from llms.loop import PerLoop
from llms.parameters import Aside, short
from llms.structured_output import schema_name, strict_schema
from llms.typing import FormattedInput, GenerateOutput, JSONSchema, Logprob, TokenCounts

if TYPE_CHECKING:
    import ssl

    from openai import AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MOST_REQUESTS_PER_JOB = 50_000
MOST_BYTES_PER_JOB = 200_000_000
REASONING_MODEL = re.compile(r"(^|/)(o\d|gpt-5)")

JOB_STATES: dict[str, JobState] = {
    "validating": "waiting",
    "in_progress": "waiting",
    "finalizing": "waiting",
    "cancelling": "waiting",
    "completed": "finished",
    "expired": "finished",
    "cancelled": "finished",
    "failed": "failed",
}


class OpenAILLM(OfflineBatchLLM):
    """A model of OpenAI, or of any server with its API (vLLM, Ollama, Together, Groq, a gateway).

    Example:
        >>> llm = OpenAILLM(model="gpt-4o-mini", generation_kwargs={"temperature": 0.3})
        >>> llm.model_name
        'gpt-4o-mini'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    url_variable: ClassVar[str] = "OPENAI_BASE_URL"
    own_url: ClassVar[str] = OPENAI_URL

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
    _tokens_parameter: str | None = PrivateAttr(default=None)
    _repeats: bool = PrivateAttr(default=False)
    _found_credentials: tuple[str, Credentials] | None = PrivateAttr(default=None)

    @property
    def model_name(self) -> str:
        return self.model

    @property
    def limit_key(self) -> Hashable:
        return (self.provider, self.url(), self.model, hash(self.key().get_secret_value()))

    def load(self) -> None:
        """Find the key. Raises AuthenticationError where there is none."""
        self.key()

    def url(self) -> str:
        """The address that requests go to, without a slash at its end."""
        named = self._named_credentials()
        return (
            self.base_url or (named.base_url if named else None) or os.environ.get(self.url_variable) or self.own_url
        ).rstrip("/")

    def key(self) -> SecretStr:
        """The key. A server of one's own needs none."""
        named = self._named_credentials()
        key = self.api_key or (named.api_key if named else None) or key_from_environment(*self.key_variables)
        if key is not None:
            return key
        if self.url() != self.own_url:
            return SecretStr("none")
        raise AuthenticationError(
            f"{type(self).__name__}(model={self.model!r}) has no key: set {' or '.join(self.key_variables)},"
            " or name a credentials block in `credentials`"
        )

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
        if num_generations > 1 and self._repeats:
            return await self._repeated(input, range(num_generations), keywords)
        tokens_name = self._tokens_name()
        try:
            output = await self._request(input, num_generations, keywords)
        except BadRequestError as error:
            if not self._adapt(error, num_generations, tokens_name):
                raise
            return await self.agenerate(input, num_generations, **keywords)
        got = len(output["generations"])
        if got < num_generations:
            self._repeats = True
            return combined([output, await self._repeated(input, range(got, num_generations), keywords)])
        return output

    async def _repeated(self, given: FormattedInput, numbers: range, keywords: Mapping[str, Any]) -> GenerateOutput:
        """One request per generation. A seed is counted on, or all of them would be the same."""
        seed = keywords.get("seed")
        seeded: list[dict[str, Any]] = [
            {**keywords, "seed": None if seed is None else seed + number} for number in numbers
        ]
        return combined(await asyncio.gather(*(self.agenerate(given, 1, **each) for each in seeded)))

    async def _request(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        path, body = self._body(given, times, keywords)
        return parse_answer(await self._post(path.removeprefix("/v1"), body), path)

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
        newer = self.url() == self.own_url or REASONING_MODEL.search(self.model)
        return "max_completion_tokens" if newer else "max_tokens"

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

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        import httpx2
        import openai

        try:
            # The raw answer: the SDK's models cost twice the rest of a request.
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
            headers = error.response.headers
            return error_for_status(
                error.status_code, _message(error), code=error.code or "", retry_after=_retry_after(headers)
            )
        if isinstance(error, openai.APIConnectionError):
            return connection_error(error, self.url(), self.timeout, self.url_variable)
        return LLMError(f"{type(error).__name__}: {error}")

    def _named_credentials(self) -> Credentials | None:
        """Looked up once: a store may be a server."""
        if not self.credentials:
            return None
        if self._found_credentials is None or self._found_credentials[0] != self.credentials:
            self._found_credentials = (self.credentials, credentials_named(self.credentials))
        return self._found_credentials[1]

    def batch_request(self, custom_id: str, given: FormattedInput, num_generations: int) -> BatchRequest:
        prompt, schema = split_input(given)
        path, body = self._body(prompt, num_generations, self.keywords(schema or self.structured_output))
        return BatchRequest(custom_id, path, body)

    async def create_jobs(self, requests: Sequence[BatchRequest]) -> tuple[str, ...]:
        """Submit requests, split by address, by 50,000 requests and by 200 MB. All of them, or none."""
        import openai

        client = self._client()
        ids: list[str] = []
        try:
            for url, lines in jobs_of(requests):
                with tempfile.TemporaryFile(suffix=".jsonl") as file:
                    _write_lines(file, lines)
                    uploaded = await client.files.create(file=("requests.jsonl", file), purpose="batch")
                job = await client.batches.create(
                    input_file_id=uploaded.id, endpoint=cast("Any", url), completion_window="24h"
                )
                ids.append(job.id)
        except openai.OpenAIError as error:
            for job_id in ids:
                with contextlib.suppress(LLMError):
                    await self.cancel_job(job_id)
            raise self._error_from(error) from None
        return tuple(ids)

    async def job_status(self, job_id: str) -> JobStatus:
        import openai

        try:
            job = await self._client().batches.retrieve(job_id)
        except openai.OpenAIError as error:
            raise self._error_from(error) from None
        counts = job.request_counts
        problems = [
            f"{each.message} (line {each.line})" if each.line else str(each.message)
            for each in (job.errors.data or [] if job.errors else [])
        ]
        return JobStatus(
            id=job.id,
            state=JOB_STATES[job.status],
            status=job.status,
            total=counts.total if counts else 0,
            answered=counts.completed if counts else 0,
            refused=counts.failed if counts else 0,
            message="; ".join(problems),
        )

    async def job_results(self, job_id: str) -> AsyncIterator[BatchResult]:
        """Both files of a job: answers and errors, in any order."""
        import openai

        client = self._client()
        try:
            job = await client.batches.retrieve(job_id)
            for file_id in (job.output_file_id, job.error_file_id):
                if file_id is not None:
                    async with client.files.with_streaming_response.content(file_id) as response:
                        async for line in response.iter_lines():
                            if line.strip():
                                yield result_from(orjson.loads(line))
        except openai.OpenAIError as error:
            raise self._error_from(error) from None

    async def cancel_job(self, job_id: str) -> None:
        import openai

        try:
            await self._client().batches.cancel(job_id)
        except openai.OpenAIError as error:
            raise self._error_from(error) from None


@cache
def trusted_certificates() -> ssl.SSLContext:
    """One for the process: reading the certificates takes 30 ms, on the loop of all requests."""
    import httpx2

    return httpx2.create_ssl_context()


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
    return output


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
            f"can't reach {url}; check the address (base_url or {variable}) and the network ({root})"
        )
    if isinstance(root, TimeoutError):
        return RequestTimeoutError(f"no answer from {url} in {timeout:g} s")
    return InvalidResponseError(
        f"the connection to {url} was cut before the answer was there ({root or cause or error})"
    )


def jobs_of(requests: Iterable[BatchRequest]) -> list[tuple[str, list[bytes]]]:
    """Requests as lines of JSON, in as few files as the limits allow: `(address, lines)`."""
    jobs: list[tuple[str, list[bytes]]] = []
    sizes: dict[str, int] = {}
    latest: dict[str, list[bytes]] = {}
    for request in requests:
        line = orjson.dumps(
            {"custom_id": request.custom_id, "method": "POST", "url": request.url, "body": request.body}
        )
        lines = latest.get(request.url)
        full = lines is not None and (
            len(lines) >= MOST_REQUESTS_PER_JOB or sizes[request.url] + len(line) + 1 > MOST_BYTES_PER_JOB
        )
        if lines is None or full:
            lines = latest[request.url] = []
            sizes[request.url] = 0
            jobs.append((request.url, lines))
        lines.append(line)
        sizes[request.url] += len(line) + 1
    return jobs


def _write_lines(file: IO[bytes], lines: Iterable[bytes]) -> None:
    for line in lines:
        file.write(line + b"\n")
    file.seek(0)


def result_from(line: Mapping[str, Any]) -> BatchResult:
    """The outcome from one line of a job's output or error file."""
    key = str(line["custom_id"])
    response = cast("dict[str, Any] | None", line.get("response"))
    if response is None:
        problem = cast("dict[str, Any]", line.get("error") or {})
        said = str(problem.get("message") or "no answer")
        expired = problem.get("code") in {"batch_expired", "batch_cancelled"}
        return BatchResult(key, ExpiredError(said) if expired else LLMError(said))
    body = cast("dict[str, Any]", response.get("body") or {})
    status = int(response.get("status_code") or 0)
    if status >= 400:
        problem = cast("dict[str, Any]", body.get("error") or {})
        said = str(problem.get("message") or short(body))
        return BatchResult(key, error_for_status(status, said, code=str(problem.get("code") or "")))
    try:
        return BatchResult(key, parse_answer(body, COMPLETIONS if body.get("object") == "text_completion" else CHAT))
    except LLMError as error:
        return BatchResult(key, error)


def _message(error: Any) -> str:
    body = error.body
    if isinstance(body, dict):
        return str(cast("dict[str, Any]", body).get("message") or error.message)
    return short(str(body)) if body else str(error.message)


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
    if not isinstance(answer, dict):
        raise InvalidResponseError(f"the provider's answer isn't a JSON object: {short(answer)}")
    return cast("dict[str, Any]", answer)
