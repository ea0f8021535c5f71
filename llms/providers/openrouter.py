"""OpenRouter, in front of many providers: https://openrouter.ai/docs/api-reference/chat-completion."""

from __future__ import annotations

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


class OpenRouterLLM(ChatCompletionsLLM):
    """A model by OpenRouter, with the key in OPENROUTER_API_KEY.

    Of an answer that has to fit a schema, only providers that hold to one are asked. What a request cost is what
    OpenRouter says.

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

    form_title = "OpenRouter"

    provider: Annotated[Literal["openrouter"], Field(title="Provider")] = "openrouter"  # pyright: ignore[reportIncompatibleVariableOverride]
    routing: Annotated[
        dict[str, Any],
        Field(title="Providers", description="Which of them may answer: only, order, allow_fallbacks, sort."),
    ] = {}

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
