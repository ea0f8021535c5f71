"""What can be ordered from the local provider. Every option can be changed while it runs."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Malformed = Literal[
    "not-json", "truncated-json", "empty", "html", "missing-choices", "null-content", "content-filter", "refusal"
]
BatchAction = Literal["complete", "fail", "expire", "cancel"]
BatchDialectName = Literal["openai", "groq", "together"]
Seconds = Annotated[float, Field(ge=0)]


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}; escape literal text with re.escape") from None
    return pattern


Regex = Annotated[str, AfterValidator(_compiles)]


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AnswerRule(_Options):
    """A literal answer for the chats it matches. The first rule that matches answers."""

    match: Regex = ""
    """Regular expression, searched in the message that `on` names. Empty matches everything."""
    on: Literal["user", "system"] = "user"
    """The last message of the user (or the prompt of a completion), or the system message."""
    answer: str | list[str]
    """The text; of a list, choice i gets item i (modulo its length). `{n}` becomes the index of the choice,
    `{model}` the model, `{prompt}` the last user message, `{name}` a named group of `match`."""


class FaultRule(_Options):
    """One way to go wrong. Rules are tried in order, and the first that fires decides the request."""

    match: Regex | None = None
    """Regular expression, searched in the text of the request's body. None matches everything."""
    path: str | None = None
    """Prefix of the path without `/v1`, such as `/chat`, `/files` or `/messages/batches`. None matches every path
    but control."""
    probability: float = Field(default=1.0, ge=0, le=1)
    """Chance to fire, drawn from `ProviderOptions.seed` and the rule's own count of matches."""
    times: int | None = Field(default=None, ge=0)
    """Only the first so many matches (counted from `after`) can fire."""
    after: int = Field(default=0, ge=0)
    """So many matches pass first."""
    status: int | None = Field(default=None, ge=200, le=599)
    """Status of the answer; 500 where the rule orders nothing else."""
    retry_after: Seconds | None = None
    message: str | None = None
    code: str | None = None
    malformed: Malformed | None = None
    """Spoils the answer that the request would have had."""
    disconnect: bool = False
    """Cuts the connection before an answer."""
    hang: Seconds | None = None
    """Waits so many seconds before whatever else the rule orders, or before the right answer."""


class BatchOrder(_Options):
    """How a batch ends."""

    action: BatchAction = "complete"
    done_fraction: float | None = Field(default=None, ge=0, le=1)
    """Share of the requests that have an answer; the rest is expired or cancelled. None: all of them for
    `complete`, none for `fail`, and for the others the share of `batch_seconds` that has passed."""
    bad: list[str | int] = []
    """`custom_id`s, or indexes of lines, that go to the error file."""
    bad_every: int | None = Field(default=None, ge=1)
    """Every so manieth request goes to the error file."""
    status: int = 500
    """Status of the bad ones."""
    message: str = "The server had an error processing your request."
    """Message of the bad ones, or of the whole batch for `fail`."""
    code: str | None = None
    shuffle: bool = False
    """Writes the results in another order than the requests'."""
    archived: bool = False
    """The results are gone, as Anthropic's are after 29 days."""


def _answer_rules(value: object) -> object:
    if isinstance(value, Mapping):
        return [{"match": match, "answer": answer} for match, answer in value.items()]  # pyright: ignore[reportUnknownVariableType]
    return value


class ProviderOptions(_Options):
    """All options, with the behaviour of a provider that is healthy, instant and generous as the default."""

    answers: Annotated[tuple[AnswerRule, ...], BeforeValidator(_answer_rules)] = ()
    """Answers to order: rules, or a mapping from a regular expression on the last user message to an answer."""
    answer_tokens: int = Field(default=40, ge=1)
    """About how long a made-up answer is, in tokens of four characters."""
    models: tuple[str, ...] | None = None
    """The models there are; others get 404. None: every name is a model."""
    api_key: str | None = None
    """The only key that is let in; others get 401. None: no key is needed."""
    up: bool = True
    """False: 503 to everything but control."""
    seed: int = 0
    """Of everything that is drawn: latencies, faults, shuffles."""

    latency: Seconds | tuple[Seconds, Seconds] = 0.0
    """Seconds that an answer of a model takes, or the range it is drawn from."""
    max_concurrency: int | None = Field(default=None, ge=1)
    """Model requests at a time; more get 429."""
    concurrency_retry_after: Seconds = 0.2
    """What those 429s ask the client to wait."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Budget of estimated tokens: a request costs the larger of its characters / 4 and its max tokens."""
    burst_seconds: float = Field(default=60.0, gt=0)
    """How many seconds' worth of the two budgets can be spent at once."""
    faults: tuple[FaultRule, ...] = ()

    batch_dialect: BatchDialectName = "openai"
    """Whose batch API this is, where adapters have to know it."""
    batch_seconds: Seconds = 2.0
    """Age at which a batch ends as `batch_order` says."""
    batch_manual: bool = False
    """Batches end only when they are told to."""
    batch_order: BatchOrder = BatchOrder()
    batch_max_requests: int = Field(default=50_000, ge=1)
    batch_max_bytes: int = Field(default=200 * 1024 * 1024, ge=1)
    batch_token_quota: int | None = Field(default=None, ge=0)
    """Estimated tokens of all open batches together; a batch that goes over it fails at validation."""

    recorded_requests: int = Field(default=10_000, ge=0)
    """How many of the latest requests are kept for observation."""

    def changed(self, changes: Mapping[str, object]) -> "ProviderOptions":
        """These options with some replaced. Raises pydantic's `ValidationError` on a wrong name or value."""
        return ProviderOptions.model_validate(
            {**{name: getattr(self, name) for name in self.model_fields_set}, **changes}
        )
