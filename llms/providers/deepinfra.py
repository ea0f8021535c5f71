"""DeepInfra: https://docs.deepinfra.com/api-reference/openai-chat-completions-1."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llms.providers.json_mode import in_json_mode
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
    TopP,
    keywords_in,
)
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class DeepInfraLLM(ChatCompletionsLLM):
    """A model of DeepInfra, with the key in DEEPINFRA_TOKEN or DEEPINFRA_API_KEY.

    Its documents know no schemas: one is written into the chat, and the answer is any JSON object.

    Example:
        >>> llm = DeepInfraLLM(model="deepseek-ai/DeepSeek-V3.2")
        >>> llm.url()
        'https://api.deepinfra.com/v1/openai'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("DEEPINFRA_TOKEN", "DEEPINFRA_API_KEY")
    url_variable: ClassVar[str] = "DEEPINFRA_BASE_URL"
    own_url: ClassVar[str] = "https://api.deepinfra.com/v1/openai"

    form_title = "DeepInfra"

    provider: Annotated[Literal["deepinfra"], Field(title="Provider")] = "deepinfra"  # pyright: ignore[reportIncompatibleVariableOverride]

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
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat or bare prompt. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def with_schema(self, body: dict[str, Any], schema: JSONSchema) -> dict[str, Any]:
        return in_json_mode(body, schema)
