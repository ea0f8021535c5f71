"""What to do where a provider didn't say that it created a job. Who gets this wrong pays for a whole job twice."""

from __future__ import annotations

from dataclasses import dataclass

from llms.errors import ConnectionFailedError, LLMError, RateLimitError


@dataclass(frozen=True)
class Doubt:
    """What follows from a failed creation."""

    is_void: bool
    """Whether the provider has no such job for sure: nobody needs to look for it."""
    is_over: bool
    """Whether it isn't tried again: the failure is the caller's."""
    shows_at_once: bool = False
    """Whether a job that was created all the same would be in the provider's list already."""


def after_failure(failure: LLMError, tries: int, max_retries: int) -> Doubt:
    """Decide by how the creation failed.

    | failure | the job | tried again |
    |---|---|---|
    | the provider says no: a key, a model, a file that it doesn't take | isn't there | no |
    | it says that there's no room now (429) | isn't there | yes, while tries are left |
    | the connection failed | may be there, and is in the list | yes, after a look |
    | no answer, none that can be read, a 5xx | may be there, and show up later | yes, after a wait and a look |

    Args:
        failure: why the provider didn't answer with a job.
        tries: how often it was tried, this time included.
        max_retries: how often it may be tried again.
    """
    refused = isinstance(failure, RateLimitError)
    return Doubt(
        is_void=refused or not failure.retryable,
        is_over=not failure.retryable or tries > max_retries,
        shows_at_once=refused or isinstance(failure, ConnectionFailedError),
    )
