"""Z.ai: https://docs.z.ai/api-reference/llm/chat-completion.

Batches: https://docs.bigmodel.cn/cn/guide/tools/batch, and what the API answered to the tests of zai-sdk:
https://github.com/zai-org/z-ai-sdk-python/blob/main/tests/integration_tests/test_batches.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llms.providers.batch_dialects import ZAI, BatchDialect
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
from llms.reading import list_in, number_in, object_in
from llms.typing import FormattedInput, GenerateOutput, JSONSchema

COUNTS = ("total", "completed", "failed")
LATEST = 10**11
"""Seconds since 1970: what is later is told in milliseconds."""


class ZAILLM(RegionalLLM):
    """A GLM model of Z.ai, with the key in ZAI_API_KEY.

    It knows no schemas: one is written into the chat, and the answer is any JSON object.
    Batches are documented for the region `china` alone, at half the price, and for models of GLM-4:
    https://docs.bigmodel.cn/cn/faq/batch-api-issues.

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
        return {**body, "messages": [_with_bare_images(message) for message in body["messages"]]}

    def with_schema(self, body: dict[str, Any], schema: JSONSchema) -> dict[str, Any]:
        return in_json_mode(body, schema)

    def batch_dialect(self) -> BatchDialect:
        return ZAI

    def as_job(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The job with times in seconds, and with its counts in one place: the reference has them beside it."""
        job = super().as_job(answer)
        times = {name: _seconds(value) for name, value in job.items() if name.endswith("_at")}
        counts = object_in(job.get("request_counts")) or {name: job.get(name) for name in COUNTS}
        return {**job, **times, "request_counts": counts}


def _seconds(time: object) -> object:
    number = number_in(time)
    return number / 1000 if number is not None and number > LATEST else time


def _with_bare_images(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message whose images are in base64 alone, as the SDK sends them: without the type before it."""
    parts = list_in(message.get("content"))
    return {**message, "content": [_with_bare_image(object_in(part)) for part in parts]} if parts else message


def _with_bare_image(part: dict[str, Any]) -> dict[str, Any]:
    image = object_in(part.get("image_url"))
    kind, base64, data = str(image.get("url") or "").partition(";base64,")
    return {**part, "image_url": {**image, "url": data}} if base64 and kind.startswith("data:image/") else part
