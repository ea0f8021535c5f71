"""Moonshot AI: https://platform.moonshot.ai/docs/api/chat. Batches: https://platform.kimi.ai/docs/api/batch-create."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llms.providers.batch_dialects import MOONSHOT, BatchDialect
from llms.providers.json_mode import in_json_mode
from llms.providers.parameters import (
    ExtraBody,
    FrequencyPenalty,
    MaxNewTokens,
    PresencePenalty,
    ResponseFormat,
    Stop,
    TopP,
    keywords_in,
)
from llms.providers.regions import RegionalLLM
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class MoonshotLLM(RegionalLLM):
    """A Kimi model of Moonshot AI, with the key in MOONSHOT_API_KEY.

    It knows no schemas: one is written into the chat, and the answer is any JSON object. There is no seed.
    In batches, which cost three fifths, it answers kimi-k2.6 and kimi-k2.5, and these without temperature, top_p and
    penalties (https://platform.kimi.com/docs/guide/use-batch-api).

    Example:
        >>> llm = MoonshotLLM(model="kimi-k2.6")
        >>> llm.url()
        'https://api.moonshot.ai/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("MOONSHOT_API_KEY",)
    url_variable: ClassVar[str] = "MOONSHOT_BASE_URL"

    takes_prompts: ClassVar[bool] = False
    # https://platform.kimi.ai/docs/pricing/batch
    batch_price: ClassVar[float] = 0.6
    regions: ClassVar[Mapping[str, str]] = {
        "international": "https://api.moonshot.ai/v1",
        "china": "https://api.moonshot.cn/v1",
    }

    form_title = "Kimi (Moonshot AI)"

    provider: Annotated[Literal["moonshot"], Field(title="Provider")] = "moonshot"  # pyright: ignore[reportIncompatibleVariableOverride]

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Annotated[
            float | None, Field(ge=0, le=1, description="0: the likeliest answer; higher: more varied ones.")
        ] = None,
        top_p: TopP = None,
        frequency_penalty: FrequencyPenalty = None,
        presence_penalty: PresencePenalty = None,
        stop: Stop = None,
        thinking: Annotated[
            Literal["enabled", "disabled"] | None, Field(description="Whether the model thinks before it answers.")
        ] = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def chat_body(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "thinking": {"type": body["thinking"]}} if "thinking" in body else body

    def with_schema(self, body: dict[str, Any], schema: JSONSchema) -> dict[str, Any]:
        return in_json_mode(body, schema)

    def batch_dialect(self) -> BatchDialect:
        return MOONSHOT
