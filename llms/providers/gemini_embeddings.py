"""Embeddings of the Gemini API: https://ai.google.dev/api/embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from llms.embeddings import ServiceEmbeddings, checked_output, text_to_embed
from llms.parameters import Unasked
from llms.providers.gemini import GeminiApi
from llms.providers.parameters import Dimensions, ExtraBody, keywords_in
from llms.reading import count_in, object_in
from llms.typing import FormattedInput, GenerateOutput, JSONSchema

METHOD = "embedContent"
NAMES = {"dimensions": "outputDimensionality", "task_type": "taskType", "title": "title"}
"""By our name: its own."""


class GeminiEmbeddings(GeminiApi, ServiceEmbeddings):
    """An embedding model of Google's Gemini API, with the key in GOOGLE_API_KEY or GEMINI_API_KEY.

    Example:
        >>> model = GeminiEmbeddings(model="gemini-embedding-001", generation_kwargs={"dimensions": 768})
        >>> model.model_name
        'gemini-embedding-001'
    """

    form_title = "Gemini API"

    provider: Annotated[Literal["gemini-embeddings"], Field(title="Provider")] = "gemini-embeddings"  # pyright: ignore[reportIncompatibleVariableOverride]
    structured_output: Annotated[JSONSchema | None, Field(exclude=True), Unasked()] = None

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        dimensions: Dimensions = None,
        task_type: Annotated[
            str | None,
            Field(description="What for: SEMANTIC_SIMILARITY, CLUSTERING, RETRIEVAL_QUERY, RETRIEVAL_DOCUMENT."),
        ] = None,
        title: Annotated[str | None, Field(description="Of the text, for RETRIEVAL_DOCUMENT.")] = None,
        extra_body: ExtraBody = None,
    ) -> GenerateOutput:
        """The vector of one text, as the only one of `embeddings`. Raises LLMError."""
        return await self._request(input, num_generations, keywords_in(locals()))

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        wanted = {theirs: keywords[ours] for ours, theirs in NAMES.items() if keywords.get(ours) is not None}
        content = {"parts": [{"text": text_to_embed(given, num_generations)}]}
        return METHOD, {"content": content, **wanted, **(keywords.get("extra_body") or {})}

    async def _request(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        method, body = self._body(given, times, keywords)
        return self.output_from(await self._send(f"{self.model_path()}:{method}", body), method, body)

    def output_from(self, answer: dict[str, Any], path: str, body: Mapping[str, Any]) -> GenerateOutput:
        tokens = count_in(object_in(answer.get("usageMetadata")).get("promptTokenCount"))
        return checked_output(object_in(answer.get("embedding")).get("values"), tokens)
