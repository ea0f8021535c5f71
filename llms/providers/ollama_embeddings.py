"""Embeddings of Ollama by its own API: https://docs.ollama.com/api/embed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from llms.embeddings import ServiceEmbeddings, checked_output, text_to_embed
from llms.parameters import Unasked
from llms.providers.ollama import OllamaApi
from llms.providers.parameters import Dimensions, ExtraBody, keywords_in
from llms.reading import count_in, list_in
from llms.typing import FormattedInput, GenerateOutput, JSONSchema

PATH = "/api/embed"


class OllamaEmbeddings(OllamaApi, ServiceEmbeddings):
    """An embedding model of an Ollama server, on this machine where nothing else is said. Nothing is cut in silence.

    Example:
        >>> model = OllamaEmbeddings(model="nomic-embed-text")
        >>> model.url()
        'http://127.0.0.1:11434'
    """

    form_title = "Ollama"

    provider: Annotated[Literal["ollama-embeddings"], Field(title="Provider")] = "ollama-embeddings"  # pyright: ignore[reportIncompatibleVariableOverride]
    structured_output: Annotated[JSONSchema | None, Field(exclude=True), Unasked()] = None

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        dimensions: Dimensions = None,
        num_ctx: Annotated[int | None, Field(ge=1, description="Tokens of the context. Empty: the server's.")] = None,
        extra_body: ExtraBody = None,
    ) -> GenerateOutput:
        """The vector of one text, as the only one of `embeddings`. Raises LLMError."""
        return await self._request(input, num_generations, keywords_in(locals()))

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {
            "model": self.model,
            "input": text_to_embed(given, num_generations),
            "truncate": False,
        }
        if keywords.get("dimensions") is not None:
            body["dimensions"] = keywords["dimensions"]
        if keywords.get("num_ctx") is not None:
            body["options"] = {"num_ctx": keywords["num_ctx"]}
        if self.keep_alive:
            body["keep_alive"] = self.keep_alive
        return PATH, {**body, **(keywords.get("extra_body") or {})}

    def output_from(self, answer: dict[str, Any], path: str, body: Mapping[str, Any]) -> GenerateOutput:
        vectors = list_in(answer.get("embeddings"))
        return checked_output(vectors[0] if len(vectors) == 1 else None, count_in(answer.get("prompt_eval_count")))
