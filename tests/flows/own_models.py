"""Models as users write them: without a field `model`, with the name in a property alone."""

from __future__ import annotations

from typing import Any

from pydantic import validate_call

from llms import LLM, AsyncLLM, Embeddings, ImageGenerationModel
from llms.typing import ChatType, GenerateOutput

DOT = b"<svg><circle r='9'/></svg>"


def said(text: str, times: int) -> GenerateOutput:
    return {"generations": [text] * times, "statistics": {"input_tokens": [1] * times, "output_tokens": [1] * times}}


class CustomLLM(LLM):
    @property
    def model_name(self) -> str:
        return "my-model"

    @validate_call
    def generate(self, inputs: list[ChatType], num_generations: int = 1, **kwargs: Any) -> list[GenerateOutput]:
        return [said(f"{chat[-1]['content']} {kwargs}", num_generations) for chat in inputs]


class CustomAsyncLLM(AsyncLLM):
    @property
    def model_name(self) -> str:
        return "my-model"

    @validate_call
    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:
        return said(f"{input[-1]['content']} {kwargs}", num_generations)


class CustomEmbeddings(Embeddings):
    @property
    def model_name(self) -> str:
        return "my-model"

    def encode(self, inputs: list[str], scale: float = 1.0) -> list[list[float]]:
        return [[scale * len(text), 1.0] for text in inputs]


class CustomImages(ImageGenerationModel):
    @property
    def model_name(self) -> str:
        return "my-model"

    def generate_images(self, inputs: list[str], num_generations: int = 1) -> list[list[bytes]]:
        return [[DOT] * num_generations for _ in inputs]
