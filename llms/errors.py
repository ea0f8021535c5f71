"""What can go wrong with a request, in few types.

Every failure, online or in a batch, becomes one of these. `retryable` says whether the same request
may succeed later; `fatal` says that no other request of the run can succeed either, so that a run
stops at once with one message in place of a thousand failed rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from typing_extensions import TypedDict


class Failure(TypedDict):
    """A failed request as kept in a row's metadata."""

    type: str
    message: str
    retryable: bool


class LLMError(Exception):
    """A request that got no usable answer."""

    retryable: ClassVar[bool] = False
    fatal: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the provider asked to wait, if it did."""


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


class ExpiredError(LLMError):
    """The request wasn't answered before its batch expired."""

    retryable = True


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

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure["message"])
        self.failure = failure


def failure_of(error: Exception) -> Failure:
    """The failure to keep for a row: type name, message, and whether to try again."""
    if isinstance(error, KeptError):
        return error.failure
    return Failure(
        type=type(error).__name__,
        message=str(error) or repr(error),
        retryable=isinstance(error, LLMError) and error.retryable,
    )


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
        return QuotaExceededError(f"{message} (add credit to the account, or use another key)")
    # At embeddings OpenAI gives no code for it, and other servers never do.
    if code == "context_length_exceeded" or (status == 400 and "maximum context length" in message):
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
        return OverloadedError(f"the provider failed ({status}): {message}", retry_after=retry_after)
    return BadRequestError(f"the provider refuses the request ({status}): {message}")
