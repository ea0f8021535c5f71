"""Alibaba Cloud's DashScope, by its compatible mode: https://www.alibabacloud.com/help/en/model-studio/qwen-api-reference.

Batches: https://www.alibabacloud.com/help/en/model-studio/batch-interfaces-compatible-with-openai.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llms.providers.batch_dialects import DASHSCOPE, BatchDialect
from llms.providers.parameters import (
    ExtraBody,
    Logprobs,
    MaxNewTokens,
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
from llms.providers.regions import RegionalLLM
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class DashScopeLLM(RegionalLLM):
    """A Qwen model of Alibaba Cloud, with the key in DASHSCOPE_API_KEY.

    Some of its models answer in batches, in each region others, at half the price. There a request has 6 MB at most.

    Example:
        >>> llm = DashScopeLLM(model="qwen-plus")
        >>> llm.url()
        'https://dashscope-intl.aliyuncs.com/compatible-mode/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("DASHSCOPE_API_KEY",)
    url_variable: ClassVar[str] = "DASHSCOPE_BASE_URL"

    answers_several: ClassVar[bool] = False
    takes_prompts: ClassVar[bool] = False
    regions: ClassVar[Mapping[str, str]] = {
        "international": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "china": "https://dashscope.aliyuncs.com/compatible-mode/v1",
    }

    form_title = "Qwen (DashScope)"

    provider: Annotated[Literal["dashscope"], Field(title="Provider")] = "dashscope"  # pyright: ignore[reportIncompatibleVariableOverride]

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        top_k: TopK = None,
        presence_penalty: PresencePenalty = None,
        repetition_penalty: RepetitionPenalty = None,
        stop: Stop = None,
        seed: Seed = None,
        thinking: Annotated[
            Literal["enabled", "disabled"] | None, Field(description="Whether the model thinks before it answers.")
        ] = None,
        thinking_budget: Annotated[int | None, Field(ge=1, description="Think in at most so many tokens.")] = None,
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat, with one request per generation. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def chat_body(self, body: dict[str, Any]) -> dict[str, Any]:
        thinking = body.pop("thinking", None)
        return {**body, "enable_thinking": thinking == "enabled"} if thinking else body

    def batch_dialect(self) -> BatchDialect:
        return DASHSCOPE
