"""The contract of an embedding model: texts in, vectors out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, cast

from pydantic import Field

from llms.base import LLM, bare_texts
from llms.errors import BadRequestError, InvalidResponseError, KeptError
from llms.outputs import outputs_in
from llms.parameters import Unasked, short
from llms.reading import list_in
from llms.typing import FormattedInput, GenerateOutput, JSONSchema, TokenCounts


class Embeddings(LLM):
    """A model that turns texts into vectors.

    A local engine writes `model_name` and `encode`, whose keywords are its runtime parameters. An adapter of a
    service is a kind of `AsyncLLM` as well, and writes `agenerate`.

    Example:
        >>> class Lengths(Embeddings):
        ...     @property
        ...     def model_name(self):
        ...         return "lengths"
        ...
        ...     def encode(self, inputs, scale: float = 1.0):
        ...         return [[scale * len(text), 1.0] for text in inputs]
        >>> Lengths().encode(["ebb", "high tide"])
        [[3.0, 1.0], [9.0, 1.0]]
    """

    structured_output: Annotated[JSONSchema | None, Field(exclude=True), Unasked()] = None

    def encode(self, inputs: list[str], **kwargs: Any) -> list[list[float]]:
        """The vector of each text, in their order.

        Raises:
            LLMError: one of them got none.
        """
        raise NotImplementedError(f"{type(self).__name__} has to define `encode`")

    def generate(self, inputs: list[FormattedInput], num_generations: int = 1, **kwargs: Any) -> list[GenerateOutput]:
        texts = bare_texts(inputs, type(self).__name__)
        vectors = outputs_in(self.encode(texts, **kwargs), f"{type(self).__name__}.encode", len(texts))
        return [_unread(vector) for vector in vectors]

    @classmethod
    def generating_function(cls) -> Callable[..., Any]:
        return cls.encode


class ServiceEmbeddings(Embeddings):
    """An adapter of a service: to be mixed with a kind of `AsyncLLM`, which asks for each text by itself."""

    def encode(self, inputs: list[str], **kwargs: Any) -> list[list[float]]:
        """The vector of each text, in their order, online or from batch jobs where they are switched on.

        Args:
            inputs: texts, none of them empty.
            kwargs: runtime parameters, over `generation_kwargs`.

        Raises:
            LLMError: one of them got none.
            OfflineBatchGenerationNotFinishedError: as by `generate_outputs`.
        """
        return vectors_in(self.generate_outputs(inputs, **kwargs))


def checked_output(vector: object, input_tokens: int) -> GenerateOutput:
    """The output for one text, from what an answer has as its vector. Raises InvalidResponseError where it's none."""
    numbers = list_in(vector)
    if not numbers or not all(isinstance(each, int | float) and math.isfinite(each) for each in numbers):
        raise InvalidResponseError(f"the provider's answer has an embedding that is no vector: {short(vector)}")
    return embedding_output(cast("list[float]", numbers), input_tokens)


def text_to_embed(given: FormattedInput, num_generations: int) -> str:
    """The text of a request. Raises BadRequestError where it's something else, or asked for more than once."""
    if not isinstance(given, str):
        raise BadRequestError(f"an embedding is made of a bare text, got {short(given)}")
    if num_generations != 1:
        raise BadRequestError(f"a text has one embedding, got num_generations={num_generations}")
    return given


def embedding_output(vector: Iterable[float], input_tokens: int = 0) -> GenerateOutput:
    """The output for one text."""
    return GenerateOutput(
        generations=[],
        statistics=TokenCounts(input_tokens=[input_tokens], output_tokens=[0]),
        embeddings=[[float(number) for number in vector]],
    )


def _unread(vector: Any) -> GenerateOutput:
    """The output for one text of an engine, whose vector is read where its row can fail alone."""
    return GenerateOutput(
        generations=[], statistics=TokenCounts(input_tokens=[0], output_tokens=[0]), embeddings=[vector]
    )


def vectors_in(outputs: Sequence[GenerateOutput]) -> list[list[float]]:
    """The vectors of outputs. Raises LLMError for the first that failed."""
    vectors: list[list[float]] = []
    for output in outputs:
        problem = output.get("error")
        if problem is not None:
            raise KeptError(problem)
        vectors += output.get("embeddings", [])
    return vectors
