"""Embeddings of OpenAI, and of every server that speaks its protocol.

https://platform.openai.com/docs/api-reference/embeddings. Batches of them:
https://platform.openai.com/docs/guides/batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from llms.embeddings import ServiceEmbeddings, text_to_embed
from llms.parameters import Unasked
from llms.providers.openai import EMBEDDINGS, OpenAILLM
from llms.providers.parameters import Dimensions
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class OpenAIEmbeddings(OpenAILLM, ServiceEmbeddings):
    """An embedding model of OpenAI, or of any server with its API (vLLM, Ollama, Text Embeddings Inference).

    Example:
        >>> model = OpenAIEmbeddings(model="text-embedding-3-small", generation_kwargs={"dimensions": 256})
        >>> model.model_name
        'text-embedding-3-small'
    """

    provider: Annotated[Literal["openai-embeddings"], Field(title="Provider")] = "openai-embeddings"  # pyright: ignore[reportIncompatibleVariableOverride]
    structured_output: Annotated[JSONSchema | None, Field(exclude=True), Unasked()] = None

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        dimensions: Dimensions = None,
        encoding_format: Annotated[
            Literal["float", "base64"] | None,
            Field(description="How vectors travel: base64 is smaller. Empty: base64 at OpenAI, else the server's."),
        ] = None,
        user: Annotated[str | None, Field(description="An id of your end user, for the provider.")] = None,
        extra_body: Annotated[dict[str, Any] | None, Field(description="Further fields of the request's body.")] = None,
    ) -> GenerateOutput:
        """The vector of one text, as the only one of `embeddings`.

        Raises:
            LLMError: one of its kinds, by the provider's answer.
        """
        keywords = {
            "dimensions": dimensions,
            "encoding_format": encoding_format,
            "user": user,
            "extra_body": extra_body,
        }
        return await self._request(input, num_generations, keywords)

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        text = text_to_embed(given, num_generations)
        # Not every server knows it, and some refuse it.
        encoding = {"encoding_format": "base64"} if self._is_newest() else {}
        wanted = {name: value for name, value in keywords.items() if value is not None}
        extra = wanted.pop("extra_body", {})
        return EMBEDDINGS, {"model": self.model, "input": text, **encoding, **wanted, **extra}
