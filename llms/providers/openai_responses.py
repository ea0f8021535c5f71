"""OpenAI's Responses: https://platform.openai.com/docs/api-reference/responses.

Nothing is kept at the provider. Batches: https://platform.openai.com/docs/guides/batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from llms.errors import BadRequestError
from llms.providers.openai import RESPONSES, OpenAILLM, response_format
from llms.providers.parameters import (
    ExtraBody,
    Logprobs,
    MaxNewTokens,
    ReasoningEffort,
    ServiceTier,
    Temperature,
    TopLogprobs,
    TopP,
    keywords_in,
)
from llms.providers.responses import input_items
from llms.typing import FormattedInput, GenerateOutput, JSONSchema

SAME = ("temperature", "top_p", "service_tier", "top_logprobs")
"""Parameters by the name that they have here."""


class OpenAIResponsesLLM(OpenAILLM):
    """A model of OpenAI by its Responses API, with the key in OPENAI_API_KEY.

    It gives one answer per request, and has neither a seed nor texts that end an answer. With a summary asked for, what
    a model thought stands beside its answer.

    Example:
        >>> llm = OpenAIResponsesLLM(model="gpt-5.5", generation_kwargs={"reasoning_summary": "auto"})
        >>> llm.model_name
        'gpt-5.5'
    """

    answers_several = False

    form_title = "OpenAI Responses"

    provider: Annotated[Literal["openai-responses"], Field(title="Provider")] = "openai-responses"  # pyright: ignore[reportIncompatibleVariableOverride]

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        reasoning_effort: ReasoningEffort = None,
        reasoning_summary: Annotated[
            Literal["auto", "concise", "detailed"] | None, Field(description="Tell in brief what the model thought.")
        ] = None,
        verbosity: Annotated[
            Literal["low", "medium", "high"] | None, Field(description="How long answers are.")
        ] = None,
        service_tier: ServiceTier = None,
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat or prompt, with one request per generation. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        if isinstance(given, str):
            raise BadRequestError(f"{type(self).__name__} takes chats, got a bare prompt for model={self.model!r}")
        wanted = {name: value for name, value in keywords.items() if value is not None and value is not False}
        chat = cast("Sequence[Mapping[str, Any]]", given)
        body: dict[str, Any] = {"model": self.model, "input": input_items(chat), "store": False}
        body |= {name: wanted[name] for name in SAME if name in wanted}
        if "max_new_tokens" in wanted:
            body["max_output_tokens"] = wanted["max_new_tokens"]
        if "logprobs" in wanted or "top_logprobs" in wanted:
            body["include"] = ["message.output_text.logprobs"]
        reasoning = {"effort": wanted.get("reasoning_effort"), "summary": wanted.get("reasoning_summary")}
        if any(reasoning.values()):
            body["reasoning"] = {name: value for name, value in reasoning.items() if value}
        text: dict[str, Any] = {"verbosity": wanted["verbosity"]} if "verbosity" in wanted else {}
        if "structured_output" in wanted:
            text["format"] = {"type": "json_schema", **response_format(wanted["structured_output"])["json_schema"]}
        if text:
            body["text"] = text
        return RESPONSES, {**body, **wanted.get("extra_body", {})}

    def requests_per_input(self, num_generations: int) -> int:
        return num_generations
