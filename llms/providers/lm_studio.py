"""LM Studio: https://lmstudio.ai/docs/developer/openai-compat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llms.providers.parameters import (
    ExtraBody,
    FrequencyPenalty,
    MaxNewTokens,
    PresencePenalty,
    RepetitionPenalty,
    ResponseFormat,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    keywords_in,
)
from llms.providers.servers import ServerLLM
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class ClientLMStudio(ServerLLM):
    """A model that LM Studio serves. Without a name it's the one that it lists first.

    Example:
        >>> llm = ClientLMStudio(model="qwen3-8b")
        >>> llm.url()
        'http://127.0.0.1:1234/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("LM_STUDIO_API_KEY",)
    url_variable: ClassVar[str] = "LM_STUDIO_BASE_URL"
    own_url: ClassVar[str] = "http://127.0.0.1:1234/v1"

    answers_several: ClassVar[bool] = False
    names: ClassVar[Mapping[str, str]] = {"repetition_penalty": "repeat_penalty"}

    form_title = "LM Studio"

    provider: Annotated[Literal["lm-studio"], Field(title="Provider")] = "lm-studio"  # pyright: ignore[reportIncompatibleVariableOverride]

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        top_k: TopK = None,
        repetition_penalty: RepetitionPenalty = None,
        frequency_penalty: FrequencyPenalty = None,
        presence_penalty: PresencePenalty = None,
        stop: Stop = None,
        seed: Seed = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat or bare prompt, with one request per generation. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))
