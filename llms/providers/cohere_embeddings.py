"""Cohere's embeddings: https://docs.cohere.com/v2/reference/embed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from llms.embeddings import ServiceEmbeddings, checked_output, text_to_embed
from llms.parameters import Unasked
from llms.providers.cohere import CohereApi
from llms.providers.parameters import Dimensions, ExtraBody, keywords_in
from llms.reading import count_in, list_in, object_in
from llms.typing import FormattedInput, GenerateOutput, JSONSchema

PATH = "/v2/embed"


class CohereEmbeddings(CohereApi, ServiceEmbeddings):
    """An embedding model of Cohere, with the key in CO_API_KEY. What is too long is refused, and not cut.

    Example:
        >>> model = CohereEmbeddings(model="embed-v4.0", generation_kwargs={"input_type": "clustering"})
        >>> model.model_name
        'embed-v4.0'
    """

    form_title = "Cohere"

    provider: Annotated[Literal["cohere-embeddings"], Field(title="Provider")] = "cohere-embeddings"  # pyright: ignore[reportIncompatibleVariableOverride]
    structured_output: Annotated[JSONSchema | None, Field(exclude=True), Unasked()] = None

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        input_type: Annotated[
            Literal["search_document", "search_query", "classification", "clustering"],
            Field(description="What the vectors are for."),
        ] = "search_document",
        dimensions: Dimensions = None,
        extra_body: ExtraBody = None,
    ) -> GenerateOutput:
        """The vector of one text, as the only one of `embeddings`. Raises LLMError."""
        return await self._request(input, num_generations, keywords_in(locals()))

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {
            "model": self.model,
            "texts": [text_to_embed(given, num_generations)],
            "input_type": keywords.get("input_type") or "search_document",
            "embedding_types": ["float"],
            "truncate": "NONE",
        }
        if keywords.get("dimensions") is not None:
            body["output_dimension"] = keywords["dimensions"]
        return PATH, {**body, **(keywords.get("extra_body") or {})}

    def output_from(self, answer: dict[str, Any], path: str, body: Mapping[str, Any]) -> GenerateOutput:
        vectors = list_in(object_in(answer.get("embeddings")).get("float"))
        counts = object_in(object_in(answer.get("meta")).get("billed_units"))
        return checked_output(vectors[0] if len(vectors) == 1 else None, count_in(counts.get("input_tokens")))
