"""Embeddings of Hugging Face: a model behind Inference Providers, an Inference Endpoint, or any server like it.

https://huggingface.co/docs/inference-providers/tasks/feature-extraction. Text Embeddings Inference takes the same
requests (https://huggingface.github.io/text-embeddings-inference).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from llms.embeddings import ServiceEmbeddings, embedding_output, text_to_embed
from llms.errors import InvalidResponseError
from llms.providers.hub_client import HubClientModel
from llms.providers.parameters import Dimensions
from llms.typing import FormattedInput, GenerateOutput


class InferenceEndpointsEmbeddings(HubClientModel, ServiceEmbeddings):
    """An embedding model on Hugging Face's infrastructure, or behind Text Embeddings Inference.

    Example:
        >>> model = InferenceEndpointsEmbeddings(model_id="intfloat/multilingual-e5-large")
        >>> model.model_name
        'intfloat/multilingual-e5-large'
    """

    provider: Annotated[Literal["inference-endpoints-embeddings"], Field(title="Provider")] = (  # pyright: ignore[reportIncompatibleVariableOverride]
        "inference-endpoints-embeddings"
    )

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        normalize: Annotated[
            bool | None, Field(description="To vectors of length 1. Text Embeddings Inference only.")
        ] = None,
        prompt_name: Annotated[
            str | None, Field(description="Of the model's own prompts, such as query or passage.")
        ] = None,
        truncate: Annotated[bool | None, Field(description="Cut texts that are longer than the model takes.")] = None,
        truncation_direction: Annotated[
            Literal["left", "right"] | None, Field(description="Where a text is cut.")
        ] = None,
        dimensions: Dimensions = None,
    ) -> GenerateOutput:
        """The vector of one text, as the only one of `embeddings`. The server tells no token counts.

        Raises:
            LLMError: one of its kinds, by the server's answer.
        """
        text = text_to_embed(input, num_generations)
        wanted: dict[str, Any] = {
            "normalize": normalize,
            "prompt_name": prompt_name,
            "truncate": truncate,
            "truncation_direction": truncation_direction,
            "dimensions": dimensions,
        }
        await self._load_once()
        with self._errors_of_the_client("embeddings"):
            found = await self._client().feature_extraction(text, model=self._model(), **wanted)
        vector = found[0] if found.ndim == 2 and len(found) == 1 else found
        if vector.ndim != 1 or not len(vector):
            raise InvalidResponseError(
                f"expected one vector for the text, got numbers of shape {found.shape}: {self.model_name} gives one per"
                " token, perhaps; choose a model for embeddings of sentences"
            )
        return embedding_output(vector.tolist())
