"""Perplexity: https://docs.perplexity.ai/api-reference/chat-completions-post."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llms.providers.openai import ChatCompletionsLLM
from llms.providers.parameters import (
    ExtraBody,
    FrequencyPenalty,
    MaxNewTokens,
    PresencePenalty,
    ReasoningEffort,
    ResponseFormat,
    Stop,
    Temperature,
    TopK,
    TopP,
    keywords_in,
)
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class PerplexityLLM(ChatCompletionsLLM):
    """A Sonar model of Perplexity, which searches the web, with the key in PERPLEXITY_API_KEY. There is no seed.

    Example:
        >>> llm = PerplexityLLM(model="sonar")
        >>> llm.url()
        'https://api.perplexity.ai'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("PERPLEXITY_API_KEY",)
    url_variable: ClassVar[str] = "PERPLEXITY_BASE_URL"
    own_url: ClassVar[str] = "https://api.perplexity.ai"

    answers_several: ClassVar[bool] = False
    takes_prompts: ClassVar[bool] = False

    form_title = "Perplexity"

    provider: Annotated[Literal["perplexity"], Field(title="Provider")] = "perplexity"  # pyright: ignore[reportIncompatibleVariableOverride]

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        top_k: TopK = None,
        frequency_penalty: FrequencyPenalty = None,
        presence_penalty: PresencePenalty = None,
        stop: Stop = None,
        reasoning_effort: ReasoningEffort = None,
        disable_search: Annotated[bool, Field(description="Answer without searching the web.")] = False,
        search_mode: Annotated[str | None, Field(description="What is searched: web, academic, sec.")] = None,
        search_domain_filter: Annotated[
            list[str] | None, Field(description="Search these domains; those with - before them not.")
        ] = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat, with one request per generation. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))
