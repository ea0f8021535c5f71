"""The shapes that pass between Tasks and LLMs."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, NotRequired, TypeAlias

from pydantic import ConfigDict
from typing_extensions import TypedDict

from llms.errors import Failure


class ChatItem(TypedDict):
    """One message. `content` is text, or a list of parts in OpenAI's format (text, image_url); None beside tool calls.

    Further keys that an API has are kept.
    """

    __pydantic_config__ = ConfigDict(extra="allow")  # pyright: ignore[reportGeneralTypeIssues] -- as pydantic has it

    role: str
    content: str | list[dict[str, Any]] | None
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    """Of a message of the role `tool`: the call that it answers."""
    name: NotRequired[str]


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
    cached_tokens: NotRequired[list[int]]
    """Of the input: read from the provider's cache. This and what follows is there where the provider tells of any."""
    cache_write_tokens: NotRequired[list[int]]
    """Of the input: written into that cache."""
    reasoning_tokens: NotRequired[list[int]]
    """Of the output: thought before the answer."""


PARTS_OF_TOKENS: Final[tuple[Literal["cached_tokens", "cache_write_tokens", "reasoning_tokens"], ...]] = (
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


class Usage(TypedDict):
    """What one request is billed for."""

    input_tokens: int
    """All of the prompt, the cached ones included."""
    output_tokens: int
    """All that was written, what was thought included."""
    cached_tokens: NotRequired[int]
    cache_write_tokens: NotRequired[int]
    cache_write_1h_tokens: NotRequired[int]
    """Of those written into the cache: to be kept for an hour, which costs more."""
    reasoning_tokens: NotRequired[int]
    tier: NotRequired[str]
    """The service tier that the answer says it was given at, in the provider's word."""
    dollars: NotRequired[float]
    """What the provider itself says that the request cost."""


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
    unfinished: NotRequired[list[bool]]
    """By generation: whether it isn't known to be whole for another reason: a filter, a failure, a tool call, or a
    reason that isn't known or wasn't given. Absent where there is none. See `llms.endings`."""
    finish_reasons: NotRequired[list[str | None]]
    """By generation: why it ended, in the provider's word; None where it gave none."""
    reasoning: NotRequired[list[str | None]]
    """By generation: what the model thought before its answer, where the provider shows it."""
    usage: NotRequired[list[Usage]]
    """What is billed, by request: those that gave nothing are among them."""
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
