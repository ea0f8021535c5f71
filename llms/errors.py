"""What can go wrong with a request, in few types.

Every failure, online or in a batch, becomes one of these. `retryable` says whether the same request
may succeed later; `fatal` says that no other request of the run can succeed either, so that a run
stops at once with one message in place of a thousand failed rows.
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import TypedDict

from llms.quantities import quantity
from llms.reading import whole_text
from llms.root import FOLDER, PACKAGES, ROOT
from llms.secrets import masked

if TYPE_CHECKING:
    from llms.typing import GenerateOutput, Usage

LONGEST_MESSAGE = 2000
"""Characters of what is kept of a failure with each row: some servers repeat the prompt, or send a page."""

MISTAKES = (LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, NameError)
NOT_A_USERS = (
    "<",
    *(f"{FOLDER / ROOT.rstrip('.') / package}/" for package in PACKAGES),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
)
"""What the names of files begin with that aren't of a user's own: ours, Python's, and installed ones."""

UNAVAILABLE = frozenset({502, 503, 504, 529})
"""Statuses that speak of the provider alone: 500 may be a prompt's fault, 429 its length's. 529 is Anthropic's."""

# How servers say that a prompt is too long, where they have no code for it, or another one: a row each.
TOO_LONG = re.compile(
    "|".join(
        (
            r"maximum context length",  # OpenAI, vLLM, DeepSeek, Mistral, Fireworks, OpenRouter
            r"context_length_exceeded|exceed_context_size",  # codes that stand in messages
            r"exceeds? (the )?(available |model's )?context (size|window|length|limit)",  # llama.cpp, Anthropic, OpenAI
            r"(prompt|input) is too long",  # Anthropic, Bedrock
            r"input token count .*exceeds the maximum",  # Gemini
            r"reduce (the length of )?(the|your) (messages|prompt|input)",  # Cerebras, Groq
            r"`inputs` tokens \+|`inputs` must have less than",  # TGI, Together
            r"(longer|greater) than the (model's |maximum )?(model|context) length",  # vLLM, SGLang, LM Studio
            r"maximum prompt length is",  # xAI
            r"exceeded model token limit",  # Moonshot
            r"range of input length should be",  # DashScope
            r"context length of|input length exceeds the context",  # Text Embeddings Inference, Ollama
            r"too many tokens",  # Cohere
        )
    ),
    re.IGNORECASE,
)


class Failure(TypedDict):
    """A failed request as kept in a row's metadata."""

    type: str
    message: str
    retryable: bool


class LLMError(Exception):
    """A request that got no usable answer."""

    retryable: ClassVar[bool] = False
    fatal: ClassVar[bool] = False

    def __init__(
        self, message: str, *, retry_after: float | None = None, usage: Sequence[Usage] = (), paid: bool = False
    ) -> None:
        # It may be the provider's words, which end in rows, files and logs.
        super().__init__(whole_text(masked(message)))
        self.retry_after = retry_after
        """Seconds that the provider asked to wait, if it did."""
        self.usage: list[Usage] = list(usage)
        """What is billed all the same, by request."""
        self.paid = paid or bool(usage)
        """Whether the provider did its work, which it bills: such a request is hardly sent again."""
        self.unavailable = False
        """Whether the provider takes no request at all: no fault of this one's."""
        self.beside: list[GenerateOutput] = []
        """What came of the other requests that the same input was sent as."""


class RateLimitError(LLMError):
    """The provider refuses more requests for now (429)."""

    retryable = True


class QueueFullError(RateLimitError):
    """The account's open batches hold as many tokens as it may have enqueued; there's room when one of them ends."""

    def __init__(self, message: str, *, limit: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        """The most tokens, where the provider said so."""


class OverloadedError(LLMError):
    """The provider failed on its side (500 to 599, 409)."""

    retryable = True


class RequestTimeoutError(LLMError):
    """No answer within the timeout."""

    retryable = True


class ConnectionFailedError(LLMError):
    """The provider can't be reached."""

    retryable = True
    fatal = True


class ProviderAwayError(LLMError):
    """The provider was there and hasn't answered anything for long."""

    retryable = True
    fatal = True


class InvalidResponseError(LLMError):
    """The provider answered with something that isn't an answer."""

    retryable = True


class EmptyAnswerError(LLMError):
    """The provider answered, and is paid, without any text: the same request would end the same way."""


class ExpiredError(LLMError):
    """The request wasn't answered before its batch expired."""

    retryable = True


class IncompleteResultsError(LLMError):
    """A job has ended, and its results aren't whole yet: a file isn't there, is cut, or has too few lines."""

    def __init__(self, message: str, *, ended: float = 0.0, gone: LLMError | None = None) -> None:
        super().__init__(message)
        self.ended = ended
        """When the job ended, by the provider's clock, in seconds since 1970; 0 where it doesn't say."""
        self.gone = gone
        """What the provider says of a file that it doesn't know."""


class UndecidedJobError(LLMError):
    """Open jobs may be the one that is looked for, and don't show whose they are before they end."""

    def __init__(self, jobs: Sequence[str]) -> None:
        self.jobs = tuple(jobs)
        some = ", ".join(self.jobs[:3]) + (" ..." if len(self.jobs) > 3 else "")
        super().__init__(
            f"{quantity(len(self.jobs), 'open batch', 'open batches')} of the account ({some}) may be this one:"
            " the results will show it"
        )


class OtherModelError(LLMError):
    """The answer is another model's than the one that was asked."""


class BadRequestError(LLMError):
    """The provider refuses this request (400, 413, 422)."""


class ContextLengthError(BadRequestError):
    """The prompt is longer than the model takes."""


class ContentFilterError(LLMError):
    """The provider's filter refused the prompt or withheld the answer."""


class AuthenticationError(LLMError):
    """No key, a wrong key, or a key without the right (401, 403)."""

    fatal = True


class ModelNotFoundError(LLMError):
    """The provider knows no such model or address (404)."""

    fatal = True


class QuotaExceededError(LLMError):
    """The account has no money or quota left."""

    fatal = True


class OfflineBatchGenerationNotFinishedError(Exception):
    """The provider is still working on a batch: call again later.

    The base of the seed's `DistilabelOfflineBatchGenerationNotFinishedException`.
    """

    def __init__(self, jobs_ids: Sequence[str]) -> None:
        self.jobs_ids = tuple(jobs_ids)
        super().__init__(f"Batch generation with jobs_ids={self.jobs_ids!r} is not finished")


class KeptError(LLMError):
    """A failure of an earlier time, under its own type and message."""

    def __init__(self, failure: Failure, usage: Sequence[Usage] = ()) -> None:
        super().__init__(failure["message"], usage=usage)
        self.failure = Failure(type=failure["type"], message=str(self), retryable=failure["retryable"])


def failure_of(error: Exception) -> Failure:
    """The failure to keep for a row: type name, message, and whether to try again."""
    if isinstance(error, KeptError):
        return error.failure
    return Failure(
        type=type(error).__name__,
        message=cut(whole_text(masked(f"{str(error) or repr(error)}{_place_of(error)}")), LONGEST_MESSAGE),
        retryable=isinstance(error, LLMError) and error.retryable,
    )


def _place_of(error: Exception) -> str:
    """Where in a user's code a mistake of programming came to light: its words alone, such as `'q'`, name nothing."""
    if not isinstance(error, MISTAKES) and str(error):
        return ""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(NOT_A_USERS)
    ]
    return f" (in {frames[-1].name}, {Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def cut(text: str, length: int) -> str:
    """`text`, where it's longer its beginning and how much was left out."""
    if len(text) <= length:
        return text
    return f"{text[:length].rstrip()} … ({quantity(len(text) - length, 'more character')})"


def error_for_status(status: int, message: str, *, code: str = "", retry_after: float | None = None) -> LLMError:
    """The error for an answer with an HTTP status of 400 or more.

    Args:
        status: HTTP status.
        message: the provider's own words.
        code: the provider's error code, in OpenAI's vocabulary
            (https://platform.openai.com/docs/guides/error-codes).
        retry_after: seconds that the provider asked to wait.
    """
    if code in {"insufficient_quota", "billing_hard_limit_reached"} or status == 402:
        fewer = ", lower `max_new_tokens`" if "max_tokens" in message else ""
        return QuotaExceededError(f"{message} (add credit to the account{fewer}, or use another key)")
    # At embeddings OpenAI gives no code for it, and most other servers never do.
    if code == "context_length_exceeded" or (status in {400, 413, 422} and TOO_LONG.search(message)):
        return ContextLengthError(message)
    if code in {"content_filter", "content_policy_violation", "moderation_blocked"}:
        return ContentFilterError(message)
    if status in {401, 403}:
        return AuthenticationError(f"the provider refuses the key ({status}): {message}")
    if status == 404:
        return ModelNotFoundError(f"the provider doesn't know the model or the address (404): {message}")
    if status == 408:
        return RequestTimeoutError(message)
    if status == 429:
        return RateLimitError(message, retry_after=retry_after)
    if status == 409 or status >= 500:
        error = OverloadedError(f"the provider failed ({status}): {message}", retry_after=retry_after)
        error.unavailable = status in UNAVAILABLE
        return error
    return BadRequestError(f"the provider refuses the request ({status}): {message}")
