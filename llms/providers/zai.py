"""Z.ai: https://docs.z.ai/api-reference/llm/chat-completion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llms.providers.json_mode import in_json_mode
from llms.providers.parameters import (
    ExtraBody,
    MaxNewTokens,
    ReasoningEffort,
    ResponseFormat,
    Seed,
    Stop,
    TopP,
    keywords_in,
)
from llms.providers.regions import RegionalLLM
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class ZAILLM(RegionalLLM):
    """A GLM model of Z.ai, with the key in ZAI_API_KEY.

    It knows no schemas: one is written into the chat, and the answer is any JSON object.

    Example:
        >>> llm = ZAILLM(model="glm-4.7")
        >>> llm.url()
        'https://api.z.ai/api/paas/v4'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("ZAI_API_KEY",)
    url_variable: ClassVar[str] = "ZAI_BASE_URL"

    answers_several: ClassVar[bool] = False
    takes_prompts: ClassVar[bool] = False
    regions: ClassVar[Mapping[str, str]] = {
        "international": "https://api.z.ai/api/paas/v4",
        "china": "https://open.bigmodel.cn/api/paas/v4",
    }

    form_title = "GLM (Z.ai)"

    provider: Annotated[Literal["zai"], Field(title="Provider")] = "zai"  # pyright: ignore[reportIncompatibleVariableOverride]

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Annotated[
            float | None, Field(ge=0, le=1, description="0: the likeliest answer; higher: more varied ones.")
        ] = None,
        top_p: TopP = None,
        do_sample: Annotated[
            Literal["on", "off"] | None, Field(description="off: the likeliest answer, whatever the temperature.")
        ] = None,
        stop: Stop = None,
        seed: Seed = None,
        thinking: Annotated[
            Literal["enabled", "disabled"] | None, Field(description="Whether the model thinks before it answers.")
        ] = None,
        reasoning_effort: ReasoningEffort = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat, with one request per generation. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def chat_body(self, body: dict[str, Any]) -> dict[str, Any]:
        if "thinking" in body:
            body["thinking"] = {"type": body["thinking"]}
        if "do_sample" in body:
            body["do_sample"] = body["do_sample"] == "on"
        return body

    def with_schema(self, body: dict[str, Any], schema: JSONSchema) -> dict[str, Any]:
        return in_json_mode(body, schema)
