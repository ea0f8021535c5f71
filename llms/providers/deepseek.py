"""DeepSeek: https://api-docs.deepseek.com/api/create-chat-completion."""

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
    PresencePenalty,
    ReasoningEffort,
    ResponseFormat,
    Stop,
    Temperature,
    TopLogprobs,
    TopP,
    keywords_in,
)
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class DeepSeekLLM(ChatCompletionsLLM):
    """A model of DeepSeek, with the key in DEEPSEEK_API_KEY.

    It knows no schemas: one is written into the chat, and the answer is any JSON object. There is no seed.

    Example:
        >>> llm = DeepSeekLLM(model="deepseek-chat")
        >>> llm.url()
        'https://api.deepseek.com'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("DEEPSEEK_API_KEY",)
    url_variable: ClassVar[str] = "DEEPSEEK_BASE_URL"
    own_url: ClassVar[str] = "https://api.deepseek.com"

    answers_several: ClassVar[bool] = False
    takes_prompts: ClassVar[bool] = False

    form_title = "DeepSeek"

    provider: Annotated[Literal["deepseek"], Field(title="Provider")] = "deepseek"  # pyright: ignore[reportIncompatibleVariableOverride]

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
        thinking: Annotated[
            Literal["enabled", "disabled"] | None, Field(description="Whether the model thinks before it answers.")
        ] = None,
        reasoning_effort: ReasoningEffort = None,
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat, with one request per generation. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def chat_body(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "thinking": {"type": body["thinking"]}} if "thinking" in body else body

    def with_schema(self, body: dict[str, Any], schema: JSONSchema) -> dict[str, Any]:
        return in_json_mode(body, schema)
