"""Mistral. Chats: https://docs.mistral.ai/api/#tag/chat. Batches: https://docs.mistral.ai/api/#tag/batch."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llms.batch import BatchLimits, BatchRequest, JobFile, JobStatus
from llms.errors import InvalidResponseError
from llms.http import written
from llms.parameters import short
from llms.providers.batch_dialects import BatchDialect
from llms.providers.openai import JOBS_PER_PAGE, ChatBatchesLLM
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
    TopLogprobs,
    TopP,
    keywords_in,
)
from llms.reading import count_in, list_in, object_in
from llms.typing import FormattedInput, GenerateOutput, JSONSchema

BATCHES = BatchDialect(short_lines=True, keeps_metadata=True, newest_first=True)


class MistralLLM(ChatBatchesLLM):
    """A model of Mistral, with the key in MISTRAL_API_KEY.

    Example:
        >>> llm = MistralLLM(model="mistral-small-latest", generation_kwargs={"temperature": 0.7})
        >>> llm.url()
        'https://api.mistral.ai/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("MISTRAL_API_KEY",)
    url_variable: ClassVar[str] = "MISTRAL_BASE_URL"
    own_url: ClassVar[str] = "https://api.mistral.ai/v1"

    names: ClassVar[Mapping[str, str]] = {"seed": "random_seed"}
    takes_prompts: ClassVar[bool] = False
    # https://docs.mistral.ai/capabilities/batch
    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=100_000, size=512_000_000)
    jobs_path: ClassVar[str] = "/batch/jobs"

    form_title = "Mistral"

    provider: Annotated[Literal["mistral"], Field(title="Provider")] = "mistral"  # pyright: ignore[reportIncompatibleVariableOverride]

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Annotated[
            float | None, Field(ge=0, le=1.5, description="0: the likeliest answer; higher: more varied ones.")
        ] = None,
        top_p: TopP = None,
        frequency_penalty: FrequencyPenalty = None,
        presence_penalty: PresencePenalty = None,
        stop: Stop = None,
        seed: Seed = None,
        reasoning_effort: ReasoningEffort = None,
        prompt_mode: Annotated[
            Literal["reasoning"] | None, Field(description="reasoning: with Mistral's prompt for it.")
        ] = None,
        safe_prompt: Annotated[bool, Field(description="With Mistral's prompt for safety before the chat.")] = False,
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

    def batch_line(self, request: BatchRequest) -> bytes:
        """A line for a request. The model is the job's."""
        body = {name: value for name, value in request.body.items() if name != "model"}
        return written({"custom_id": request.custom_id, "body": body})

    def job_body(self, file: JobFile, file_id: str, metadata: Mapping[str, str]) -> dict[str, Any]:
        return {
            "input_files": [file_id],
            "endpoint": file.url,
            "model": self.model,
            **({"metadata": dict(metadata)} if metadata else {}),
        }

    def as_job(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        if not answer.get("id") or not answer.get("status"):
            raise InvalidResponseError(f"the provider's answer is no batch job: {short(answer)}")
        files = list_in(answer.get("input_files"))
        return {
            **answer,
            "input_file_id": files[0] if files else "",
            "output_file_id": answer.get("output_file") or "",
            "error_file_id": answer.get("error_file") or "",
            "request_counts": {
                "total": count_in(answer.get("total_requests")),
                "completed": count_in(answer.get("succeeded_requests")),
                "failed": count_in(answer.get("failed_requests")),
            },
        }

    async def _jobs(self) -> AsyncIterator[tuple[dict[str, Any], JobStatus]]:
        for number in itertools.count():
            page = await self._get(self.jobs_path, page=number, page_size=JOBS_PER_PAGE, order_by="-created")
            jobs = [object_in(each) for each in list_in(page.get("data"))]
            for job in jobs:
                # One that can't be told what it is isn't ours.
                with suppress(InvalidResponseError):
                    yield self.as_job(job), self._status_from(job)
            if len(jobs) < JOBS_PER_PAGE:
                return

    async def delete_job(self, job_id: str) -> None:
        """Delete an ended job with its files."""
        await super().delete_job(job_id)
        await self._delete(f"{self.jobs_path}/{job_id}")
