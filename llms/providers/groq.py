"""Groq. Chats: https://console.groq.com/docs/api-reference#chat-create. Batches: https://console.groq.com/docs/batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llms.parameters import Unasked
from llms.providers.batch_dialects import GROQ, BatchDialect
from llms.providers.openai import ChatBatchesLLM
from llms.providers.parameters import (
    ExtraBody,
    MaxNewTokens,
    ReasoningEffort,
    ResponseFormat,
    Seed,
    ServiceTier,
    Stop,
    Temperature,
    TopP,
    keywords_in,
)
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class GroqLLM(ChatBatchesLLM):
    """A model of Groq, with the key in GROQ_API_KEY.

    It gives one answer per request, and takes neither penalties nor log probabilities.

    Example:
        >>> llm = GroqLLM(model="openai/gpt-oss-20b", generation_kwargs={"temperature": 0.7})
        >>> llm.url()
        'https://api.groq.com/openai/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("GROQ_API_KEY",)
    url_variable: ClassVar[str] = "GROQ_BASE_URL"
    own_url: ClassVar[str] = "https://api.groq.com/openai/v1"

    tokens_name: ClassVar[str] = "max_completion_tokens"
    answers_several: ClassVar[bool] = False
    takes_prompts: ClassVar[bool] = False
    # Of the flexible tier: there's no room at the moment.
    statuses: ClassVar[Mapping[int, int]] = {498: 429}

    form_title = "Groq"

    provider: Annotated[Literal["groq"], Field(title="Provider")] = "groq"  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout: Annotated[float, Field(gt=0, title="Timeout", description="Seconds for one request."), Unasked()] = 60.0

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        stop: Stop = None,
        seed: Seed = None,
        reasoning_effort: ReasoningEffort = None,
        reasoning_format: Annotated[
            Literal["hidden", "raw", "parsed"] | None, Field(description="parsed: thoughts come beside the answer.")
        ] = None,
        service_tier: ServiceTier = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat, with one request per generation. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def url(self) -> str:
        """The address that requests go to. The SDK's variable holds it without its path."""
        url = super().url()
        return url if url.endswith("/v1") else f"{url}/openai/v1"

    def batch_dialect(self) -> BatchDialect:
        return GROQ
