"""SambaNova: https://docs.sambanova.ai/docs/api-reference/chat-completion."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llms.providers.openai import ChatCompletionsLLM
from llms.providers.parameters import (
    ExtraBody,
    MaxNewTokens,
    ResponseFormat,
    Stop,
    Temperature,
    TopK,
    TopP,
    keywords_in,
)
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class SambaNovaLLM(ChatCompletionsLLM):
    """A model of SambaNova, with the key in SAMBANOVA_API_KEY. It takes neither penalties nor a seed.

    Example:
        >>> llm = SambaNovaLLM(model="Meta-Llama-3.3-70B-Instruct")
        >>> llm.url()
        'https://api.sambanova.ai/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("SAMBANOVA_API_KEY",)
    url_variable: ClassVar[str] = "SAMBANOVA_BASE_URL"
    own_url: ClassVar[str] = "https://api.sambanova.ai/v1"

    answers_several: ClassVar[bool] = False
    takes_prompts: ClassVar[bool] = False

    form_title = "SambaNova"

    provider: Annotated[Literal["sambanova"], Field(title="Provider")] = "sambanova"  # pyright: ignore[reportIncompatibleVariableOverride]

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        top_k: TopK = None,
        stop: Stop = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat, with one request per generation. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))
