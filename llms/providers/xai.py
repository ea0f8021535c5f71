"""xAI. Chats: https://docs.x.ai/docs/api-reference#chat-completions. Batches, which have counts in place of a state:
https://docs.x.ai/developers/advanced-api-usage/batch-api, and as litellm 1.110 reads them (2026-11).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llms.batch import MARK, BatchLimits, BatchResult, JobFile, JobStatus, split_custom_id
from llms.errors import IncompleteResultsError, InvalidResponseError
from llms.parameters import short
from llms.providers.batch_dialects import BatchDialect
from llms.providers.google import error_of, mark_in
from llms.providers.openai import ChatBatchesLLM, file_name, result_from
from llms.providers.parameters import (
    ExtraBody,
    FrequencyPenalty,
    Logprobs,
    MaxNewTokens,
    PresencePenalty,
    ReasoningEffort,
    ResponseFormat,
    Seed,
    ServiceTier,
    Stop,
    Temperature,
    TopLogprobs,
    TopP,
    keywords_in,
)
from llms.quantities import quantity
from llms.reading import count_in, list_in, object_in, seconds_of, text_in
from llms.typing import FormattedInput, GenerateOutput, JSONSchema
from llms.uploads import expected_results

BATCHES = BatchDialect(keeps_metadata=True, several_answers=False)
JOBS_PER_PAGE = 100
RESULTS_PER_PAGE = 1000


class XAILLM(ChatBatchesLLM):
    """A Grok model of xAI, with the key in XAI_API_KEY. What a request cost is what xAI says.

    Example:
        >>> llm = XAILLM(model="grok-4.3")
        >>> llm.url()
        'https://api.x.ai/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("XAI_API_KEY",)
    url_variable: ClassVar[str] = "XAI_BASE_URL"
    own_url: ClassVar[str] = "https://api.x.ai/v1"

    takes_prompts: ClassVar[bool] = False
    # 25 MB is the most of one request, an upload included.
    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=50_000, size=25_000_000)
    batch_price: ClassVar[float] = 0.8

    form_title = "xAI"

    provider: Annotated[Literal["xai"], Field(title="Provider")] = "xai"  # pyright: ignore[reportIncompatibleVariableOverride]

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
        seed: Seed = None,
        reasoning_effort: ReasoningEffort = None,
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        service_tier: ServiceTier = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def batch_dialect(self) -> BatchDialect:
        return BATCHES

    def job_body(self, file: JobFile, file_id: str, metadata: Mapping[str, str]) -> dict[str, Any]:
        return {"name": file_name(metadata.get(MARK)), "input_file_id": file_id}

    def as_job(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        if not answer.get("batch_id"):
            raise InvalidResponseError(f"the provider's answer is no batch: {short(answer)}")
        counts, why = object_in(answer.get("state")), text_in(answer.get("cancel_by_xai_message"))
        mark = mark_in(text_in(answer.get("name")))
        return {
            "id": answer["batch_id"],
            "status": state_in(answer),
            "input_file_id": text_in(answer.get("input_file_id")),
            "created_at": answer.get("create_time"),
            "errors": [{"message": why}] if why else [],
            "metadata": {MARK: mark} if mark else {},
            "request_counts": {
                "total": count_in(counts.get("num_requests")),
                "completed": count_in(counts.get("num_success")),
                "failed": count_in(counts.get("num_error")) + count_in(counts.get("num_cancelled")),
            },
        }

    async def _jobs(self) -> AsyncIterator[tuple[dict[str, Any], JobStatus]]:
        token = ""
        while True:
            more = {"pagination_token": token} if token else {}
            page = await self._get(self.jobs_path, limit=JOBS_PER_PAGE, **more)
            for job in map(object_in, list_in(page.get("batches"))):
                # One that can't be told what it is isn't ours. Of some only the day is known that they were made on.
                with suppress(InvalidResponseError):
                    yield self.as_job(job), self._status_from({**job, "create_time": None})
            before, token = token, text_in(page.get("pagination_token"))
            if not token or token == before:
                return

    async def job_results(self, job_id: str) -> AsyncGenerator[BatchResult]:
        """The results of an ended job, in pages."""
        job = await self._get(f"{self.jobs_path}/{job_id}")
        counts, results, token = object_in(job.get("state")), 0, ""
        ended = seconds_of(job.get("cancel_time"))
        while True:
            more = {"pagination_token": token} if token else {}
            with expected_results(f"the results of batch {job_id!r} aren't found", ended):
                page = await self._get(f"{self.jobs_path}/{job_id}/results", limit=RESULTS_PER_PAGE, **more)
            for each in map(object_in, list_in(page.get("results"))):
                results += 1
                result = self._result(each)
                if result.custom_id:
                    yield result
            before, token = token, text_in(page.get("pagination_token"))
            if not token or token == before:
                break
        counted = count_in(counts.get("num_success")) + count_in(counts.get("num_error"))
        if results < counted:
            said = f"batch {job_id!r} has {results:,} of {quantity(counted, 'result')}"
            raise IncompleteResultsError(said, ended=ended)

    def _result(self, given: Mapping[str, Any]) -> BatchResult:
        name, outcome = text_in(given.get("batch_request_id")), object_in(given.get("batch_result"))
        if problem := object_in(outcome.get("error")):
            key, mark = split_custom_id(name)
            return BatchResult(key, error_of(problem), mark)
        # By the name of what was asked: `chat_get_completion`.
        bodies = list(object_in(outcome.get("response")).values())
        return result_from({"custom_id": name, "response": {"body": bodies and bodies[0]}}, self.answering_model())

    async def cancel_job(self, job_id: str) -> None:
        await self._post(f"{self.jobs_path}/{job_id}:cancel", {})


def state_in(job: Mapping[str, Any]) -> str:
    """How a job stands, in OpenAI's words."""
    counts = object_in(job.get("state"))
    waiting = count_in(counts.get("num_pending"))
    if job.get("cancel_time"):
        if job.get("cancel_by_xai_message"):
            return "failed"
        return "cancelling" if waiting else "cancelled"
    if not count_in(counts.get("num_requests")):
        # Its file is being read.
        return "validating"
    return "in_progress" if waiting else "completed"
