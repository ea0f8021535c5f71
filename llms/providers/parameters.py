"""Runtime parameters that mean the same at many providers, with their descriptions and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Field

MaxNewTokens: TypeAlias = Annotated[int | None, Field(ge=1, description="The most tokens of one answer.")]
Temperature: TypeAlias = Annotated[
    float | None, Field(ge=0, le=2, description="0: the likeliest answer; higher: more varied ones.")
]
TopP: TypeAlias = Annotated[float | None, Field(ge=0, le=1, description="Sample from this share of probability.")]
TopK: TypeAlias = Annotated[int | None, Field(ge=1, description="Sample from so many tokens.")]
MinP: TypeAlias = Annotated[
    float | None, Field(ge=0, le=1, description="Sample from tokens with this share of the likeliest's probability.")
]
FrequencyPenalty: TypeAlias = Annotated[float | None, Field(ge=-2, le=2, description="Against repeated words.")]
PresencePenalty: TypeAlias = Annotated[float | None, Field(ge=-2, le=2, description="Against words used before.")]
RepetitionPenalty: TypeAlias = Annotated[float | None, Field(gt=0, description="Against repeated tokens; 1: none.")]
Dimensions: TypeAlias = Annotated[
    int | None, Field(ge=1, description="Numbers of a vector, where the model can make it shorter.")
]
Stop: TypeAlias = Annotated[str | list[str] | None, Field(description="Text at which an answer ends.")]
Seed: TypeAlias = Annotated[int | None, Field(description="For repeatable answers, where the model can.")]
Logprobs: TypeAlias = Annotated[bool, Field(description="Return the log probabilities of the tokens.")]
TopLogprobs: TypeAlias = Annotated[int | None, Field(ge=0, le=20, description="How many tokens at each place.")]
MinTokens: TypeAlias = Annotated[int | None, Field(ge=0, description="The fewest tokens of one answer.")]
StopTokenIds: TypeAlias = Annotated[list[int] | None, Field(description="Tokens at which an answer ends.")]
ChatTemplateKwargs: TypeAlias = Annotated[
    dict[str, Any] | None, Field(description="For the model's chat template, such as enable_thinking.")
]
Regex: TypeAlias = Annotated[str | None, Field(description="A regular expression that every answer fits.")]
Ebnf: TypeAlias = Annotated[str | None, Field(description="A grammar that every answer fits, in EBNF.")]
ReasoningEffort: TypeAlias = Annotated[
    str | None, Field(description="How much a reasoning model thinks, in the provider's word: none, low, medium, high.")
]
ServiceTier: TypeAlias = Annotated[
    str | None, Field(description="How a request is served and billed, in the provider's word.")
]
ResponseFormat: TypeAlias = Annotated[dict[str, Any] | None, Field(description="As the API takes it.")]
ExtraBody: TypeAlias = Annotated[
    dict[str, Any] | None, Field(description="Further fields of the request's body, as the API has them.")
]


def keywords_in(given: Mapping[str, Any]) -> dict[str, Any]:
    """The runtime parameters among the local variables of an `agenerate`."""
    return {name: value for name, value in given.items() if name not in {"self", "input", "num_generations"}}
