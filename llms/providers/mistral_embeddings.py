"""Mistral's embeddings, online and in batches: https://docs.mistral.ai/api/#tag/embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from llms.embeddings import ServiceEmbeddings, text_to_embed
from llms.parameters import Unasked
from llms.providers.mistral import MistralLLM
from llms.providers.openai import EMBEDDINGS
from llms.providers.parameters import Dimensions, ExtraBody, keywords_in
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class MistralEmbeddings(MistralLLM, ServiceEmbeddings):
    """An embedding model of Mistral, with the key in MISTRAL_API_KEY.

    Example:
        >>> model = MistralEmbeddings(model="mistral-embed")
        >>> model.model_name
        'mistral-embed'
    """

    provider: Annotated[Literal["mistral-embeddings"], Field(title="Provider")] = "mistral-embeddings"  # pyright: ignore[reportIncompatibleVariableOverride]
    structured_output: Annotated[JSONSchema | None, Field(exclude=True), Unasked()] = None

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        dimensions: Dimensions = None,
        extra_body: ExtraBody = None,
    ) -> GenerateOutput:
        """The vector of one text, as the only one of `embeddings`. Raises LLMError."""
        return await self._request(input, num_generations, keywords_in(locals()))

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        size = {"output_dimension": keywords["dimensions"]} if keywords.get("dimensions") is not None else {}
        body = {"model": self.model, "input": text_to_embed(given, num_generations)}
        return EMBEDDINGS, {**body, **size, **(keywords.get("extra_body") or {})}
