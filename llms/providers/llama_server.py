"""A llama.cpp server: https://github.com/ggml-org/llama.cpp/tree/master/tools/server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llms.providers.parameters import (
    ChatTemplateKwargs,
    ExtraBody,
    FrequencyPenalty,
    Logprobs,
    MaxNewTokens,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    ResponseFormat,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopLogprobs,
    TopP,
    keywords_in,
)
from llms.providers.servers import ServerLLM
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class ClientLlamaCpp(ServerLLM):
    """A model that llama.cpp's `llama-server` serves. Without a name it's the one that the server lists first.

    An answer can be held to a schema or a grammar. It gives at most as many answers per request as it has slots.

    Example:
        >>> llm = ClientLlamaCpp(model="qwen3-8b")
        >>> llm.url()
        'http://127.0.0.1:8080/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("LLAMA_API_KEY",)
    url_variable: ClassVar[str] = "LLAMA_SERVER_URL"
    own_url: ClassVar[str] = "http://127.0.0.1:8080/v1"

    names: ClassVar[Mapping[str, str]] = {"repetition_penalty": "repeat_penalty"}
    writes_on: ClassVar[bool] = True

    form_title = "llama.cpp server"

    provider: Annotated[Literal["llama-server"], Field(title="Provider")] = "llama-server"  # pyright: ignore[reportIncompatibleVariableOverride]

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
        chat_template_kwargs: ChatTemplateKwargs = None,
        grammar: Annotated[str | None, Field(description="A grammar that every answer fits, in GBNF.")] = None,
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat or bare prompt. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))
