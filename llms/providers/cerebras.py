"""Cerebras: https://inference-docs.cerebras.ai/api-reference/chat-completions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llms.providers.openai import ChatCompletionsLLM
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
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class CerebrasLLM(ChatCompletionsLLM):
    """A model of Cerebras, with the key in CEREBRAS_API_KEY.

    Example:
        >>> llm = CerebrasLLM(model="gpt-oss-120b")
        >>> llm.url()
        'https://api.cerebras.ai/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("CEREBRAS_API_KEY",)
    url_variable: ClassVar[str] = "CEREBRAS_BASE_URL"
    own_url: ClassVar[str] = "https://api.cerebras.ai/v1"

    tokens_name: ClassVar[str] = "max_completion_tokens"
    takes_prompts: ClassVar[bool] = False

    form_title = "Cerebras"

    provider: Annotated[Literal["cerebras"], Field(title="Provider")] = "cerebras"  # pyright: ignore[reportIncompatibleVariableOverride]

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
        reasoning_format: Annotated[
            Literal["none", "parsed", "text_parsed", "raw", "hidden"] | None,
            Field(description="parsed: thoughts come beside the answer."),
        ] = None,
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        service_tier: ServiceTier = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def url(self) -> str:
        """The address that requests go to. The SDK's variable holds it without its path."""
        url = super().url()
        return url if url.endswith("/v1") else f"{url}/v1"
