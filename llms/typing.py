"""The shapes that pass between Tasks and LLMs."""

from __future__ import annotations

from typing import Any, NamedTuple, NotRequired, TypeAlias

from typing_extensions import TypedDict

from llms.errors import Failure


class ChatItem(TypedDict):
    """One message. `content` is text, or a list of parts in OpenAI's format (text, image_url)."""

    role: str
    content: str | list[dict[str, Any]]


ChatType: TypeAlias = list[ChatItem]

JSONSchema: TypeAlias = dict[str, Any]

StructuredInput: TypeAlias = tuple[ChatType, JSONSchema]
"""A chat with the JSON schema that its answer must fit."""

FormattedInput: TypeAlias = ChatType | str | StructuredInput
"""What an LLM takes: a chat, a bare prompt (completions), or a chat with a schema."""

HiddenState: TypeAlias = list[list[float]]
"""The last hidden state of one input: tokens by dimensions."""


class TokenCounts(TypedDict):
    """Tokens per generation; the prompt's are counted once per request, at the first generation."""

    input_tokens: list[int]
    output_tokens: list[int]


class Logprob(TypedDict):
    token: str
    logprob: float


class GenerateOutput(TypedDict):
    """The answer to one input: as many generations as were asked for, or the embedding of a text."""

    generations: list[str | None]
    """Texts; images in base64, where the model makes images."""
    statistics: TokenCounts
    logprobs: NotRequired[list[list[list[Logprob]]] | None]
    """By generation, by token: the most likely tokens, the best first."""
    cut_off: NotRequired[list[bool]]
    """By generation: whether the limit of tokens ended it. Absent where it ended none."""
    embeddings: NotRequired[list[list[float]]]
    """The vector of the text, as the only one, where the model gives vectors. There are no generations then."""
    error: NotRequired[Failure]
    """Why there are no generations, where a request failed for good."""


class PriceSource(NamedTuple):
    """Where the price of a model is found: the address requests go to, and the model's name there."""

    url: str
    model: str
    images: bool = False
    """Whether its output tokens are those of images, which some models have a price of their own for."""
