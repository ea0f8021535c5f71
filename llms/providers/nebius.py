"""Nebius Token Factory: https://docs.tokenfactory.nebius.com/api-reference.

Batches: https://docs.tokenfactory.nebius.com/ai-models-inference/batch-inference.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llms.providers.batch_dialects import NEBIUS, BatchDialect
from llms.providers.openai import ChatBatchesLLM
from llms.providers.parameters import (
    ExtraBody,
    FrequencyPenalty,
    Logprobs,
    MaxNewTokens,
    PresencePenalty,
    ResponseFormat,
    Seed,
    Stop,
    Temperature,
    TopLogprobs,
    TopP,
    keywords_in,
)
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class NebiusLLM(ChatBatchesLLM):
    """A model of Nebius, with the key in NEBIUS_API_KEY.

    Batches take chats, at half the price; a bare prompt goes online alone.

    Example:
        >>> llm = NebiusLLM(model="deepseek-ai/DeepSeek-V3.2")
        >>> llm.url()
        'https://api.studio.nebius.ai/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("NEBIUS_API_KEY",)
    url_variable: ClassVar[str] = "NEBIUS_BASE_URL"
    own_url: ClassVar[str] = "https://api.studio.nebius.ai/v1"

    form_title = "Nebius"

    provider: Annotated[Literal["nebius"], Field(title="Provider")] = "nebius"  # pyright: ignore[reportIncompatibleVariableOverride]

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
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat or bare prompt. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def batch_dialect(self) -> BatchDialect:
        return NEBIUS
