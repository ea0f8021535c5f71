"""OpenRouter, in front of many providers: https://openrouter.ai/docs/api-reference/chat-completion.

Batches: https://openrouter.ai/docs/guides/features/batch-api, whose requests and results go without files, as
openrouter 1.3.84 has them (2026-11). What it writes for a request that an expired batch left isn't documented.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlencode

from pydantic import Field, PrivateAttr

from llms.batch import BatchLimits, BatchRequest, BatchResult, JobFile, JobStatus
from llms.errors import BadRequestError, IncompleteResultsError, LLMError
from llms.http import json_object, written
from llms.providers.batch_dialects import BatchDialect
from llms.providers.openai import SECONDS_PER_UPLOAD, ChatBatchesLLM, result_from
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
from llms.reading import count_in, list_in, object_in, seconds_of, text_in
from llms.typing import FormattedInput, GenerateOutput, JSONSchema

BATCHES = BatchDialect(short_lines=True, takes_metadata=False, newest_first=True, several_answers=False)
OF_A_BATCH = frozenset({"only", "allow_fallbacks"})
"""What may be said of a batch's provider."""
OF_A_JOB = frozenset({"model", "provider"})
"""Of a request's fields, those that a batch has once for all."""

logger = logging.getLogger(__name__)


class OpenRouterLLM(ChatBatchesLLM):
    """A model by OpenRouter, with the key in OPENROUTER_API_KEY.

    Of an answer that has to fit a schema, only providers that hold to one are asked. What a request cost is what
    OpenRouter says. A batch goes to one provider; `routing` can say which ones it may be. Without that it may be one
    that holds to no schema: the API has no way to ask for another.

    Example:
        >>> llm = OpenRouterLLM(model="deepseek/deepseek-v3.2")
        >>> llm.url()
        'https://openrouter.ai/api/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("OPENROUTER_API_KEY",)
    url_variable: ClassVar[str] = "OPENROUTER_BASE_URL"
    own_url: ClassVar[str] = "https://openrouter.ai/api/v1"

    answers_several: ClassVar[bool] = False
    takes_prompts: ClassVar[bool] = False
    # The provider's 200 MB, less what joins the requests to one body.
    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=5_000, size=199_000_000)
    # What is said of a batch that was deleted.
    statuses: ClassVar[Mapping[int, int]] = {410: 404}

    form_title = "OpenRouter"

    provider: Annotated[Literal["openrouter"], Field(title="Provider")] = "openrouter"  # pyright: ignore[reportIncompatibleVariableOverride]
    routing: Annotated[
        dict[str, Any],
        Field(title="Providers", description="Which of them may answer: only, order, allow_fallbacks, sort."),
    ] = {}

    _warned: bool = PrivateAttr(default=False)
    """Whether it was said that nothing holds a batch's provider to a schema."""

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        top_k: TopK = None,
        min_p: MinP = None,
        frequency_penalty: FrequencyPenalty = None,
        presence_penalty: PresencePenalty = None,
        repetition_penalty: RepetitionPenalty = None,
        stop: Stop = None,
        seed: Seed = None,
        reasoning_effort: ReasoningEffort = None,
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        service_tier: ServiceTier = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat, with one request per generation. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def chat_body(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "provider": self.routing} if self.routing else body

    def with_schema(self, body: dict[str, Any], schema: JSONSchema) -> dict[str, Any]:
        provider = {"require_parameters": True, **body.get("provider", {})}
        return {**super().with_schema(body, schema), "provider": provider}

    def batch_dialect(self) -> BatchDialect:
        return BATCHES

    def batch_request(
        self, custom_id: str, given: FormattedInput, num_generations: int, number: int = 0
    ) -> BatchRequest:
        """The request as it goes into a batch. Raises BadRequestError for what the API takes online alone."""
        request = super().batch_request(custom_id, given, num_generations, number)
        if other := sorted(set(self.routing) - OF_A_BATCH):
            raise BadRequestError(
                f"a batch at OpenRouter takes `only` and `allow_fallbacks` as routing, got {other!r} too: leave that"
                " out, or ask online"
            )
        if other := sorted(OF_A_JOB & set(self.generation_kwargs.get("extra_body", {}))):
            raise BadRequestError(
                f"a batch at OpenRouter is sent to one model and by one `routing`, got {other!r} in `extra_body`: give"
                " `model` and `routing` in its place, or ask online"
            )
        if any(_is_embedded(part) for message in request.body["messages"] for part in _parts(message)):
            raise BadRequestError(
                "a batch at OpenRouter takes images by their http address, got one as data: give the address, or ask"
                " online"
            )
        if "require_parameters" in request.body.get("provider", {}) and not self.routing.get("only"):
            self._warn_of_schema()
        return request

    def _warn_of_schema(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s: a batch at OpenRouter takes no `require_parameters`, so it may go to a provider that holds to no"
                " schema: name those that do in `routing` (`only`), or ask online",
                self.model,
            )

    def batch_line(self, request: BatchRequest) -> bytes:
        """A line for a request. The model and the provider are the batch's."""
        body = {name: value for name, value in request.body.items() if name not in OF_A_JOB}
        return written({"custom_id": request.custom_id, "body": body})

    async def create_job(self, file: JobFile, metadata: Mapping[str, str]) -> JobStatus:
        """Create a batch from the file, which is sent as it is read. The API keeps no metadata: see `find_job`.

        Raises:
            LLMError: one of its kinds, by the provider's answer.
        """
        import aiohttp

        about: dict[str, Any] = {"endpoint": file.url, "model": self.model, "completion_window": "24h"}
        if self.routing:
            about["provider"] = self.routing
        # It reads the body as it comes, and needs to know of the batch before the first request.
        length, parts = file.as_list(written(about).removesuffix(b"}") + b',"requests":[', b"]}")
        timeout = aiohttp.ClientTimeout(total=max(self.timeout, SECONDS_PER_UPLOAD))
        headers = {"Content-Length": str(length)}
        async with self.sending("POST", self.jobs_path, parts, headers, timeout) as response:
            return self._status_from(json_object(await response.read()))

    async def _get(self, path: str, **query: object) -> dict[str, Any]:
        return await self.call("GET", f"{path}?{urlencode(query)}" if query else path)

    async def job_results(self, job_id: str) -> AsyncGenerator[BatchResult]:
        """The results of an ended batch, which come with it, in any order."""
        job = self.as_job(await self._get(f"{self.jobs_path}/{job_id}"))
        results = 0
        for each in map(object_in, list_in(job.get("results"))):
            results += 1
            result = result_from(_with_code(each), self.answering_model())
            if result.custom_id:
                yield result
        counts = object_in(job.get("request_counts"))
        counted = count_in(counts.get("completed")) + count_in(counts.get("failed"))
        if results < counted or (not results and job["status"] == "completed"):
            said = f"batch {job_id!r} has {results:,} of {quantity(counted, 'result')}"
            raise IncompleteResultsError(said, ended=seconds_of(job.get("finalized_at")))

    async def cancel_job(self, job_id: str) -> None:
        """Raises LLMError: the API has no call for it. As BadRequestError it would say that the batch has ended."""
        raise LLMError(
            f"OpenRouter can't cancel batch {job_id!r}: its API has no call for it. It ends by itself, within 24 hours"
            " (Google Vertex: 96), and what it answers until then is kept, and paid"
        )

    async def delete_job(self, job_id: str) -> None:
        """Delete an ended batch with its requests and results."""
        await self._delete(f"{self.jobs_path}/{job_id}")


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [object_in(part) for part in list_in(message.get("content"))]


def _is_embedded(part: Mapping[str, Any]) -> bool:
    return text_in(object_in(part.get("image_url")).get("url")).startswith("data:")


def _with_code(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result whose error has the word that OpenRouter has for it whoever answered, where there is one."""
    error = object_in(result.get("error"))
    code = text_in(error.get("error_type"))
    return {**result, "error": {**error, "code": code}} if code else dict(result)
