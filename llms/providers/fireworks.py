"""Fireworks AI: https://docs.fireworks.ai/api-reference/post-chatcompletions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llms.providers.openai import ChatCompletionsLLM
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
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class FireworksLLM(ChatCompletionsLLM):
    """A model of Fireworks AI, with the key in FIREWORKS_API_KEY.

    What doesn't fit into the model's context is refused: the API's own way is to allow fewer tokens for the answer.

    Example:
        >>> llm = FireworksLLM(model="accounts/fireworks/models/deepseek-v3p2")
        >>> llm.url()
        'https://api.fireworks.ai/inference/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("FIREWORKS_API_KEY",)
    url_variable: ClassVar[str] = "FIREWORKS_BASE_URL"
    own_url: ClassVar[str] = "https://api.fireworks.ai/inference/v1"

    sends: ClassVar[Mapping[str, Any]] = {"context_length_exceeded_behavior": "error"}

    form_title = "Fireworks AI"

    provider: Annotated[Literal["fireworks"], Field(title="Provider")] = "fireworks"  # pyright: ignore[reportIncompatibleVariableOverride]

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
        """The address that requests go to. The SDK's variable holds it without its path."""
        url = super().url()
        return url if url.endswith("/v1") else f"{url}/inference/v1"
