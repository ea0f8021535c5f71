"""Files at a provider, which may not be found everywhere for some seconds after they were made."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from typing import TypeVar

from llms.errors import (
    AuthenticationError,
    BadRequestError,
    IncompleteResultsError,
    LLMError,
    ModelNotFoundError,
    OverloadedError,
    QuotaExceededError,
    RateLimitError,
)

T = TypeVar("T")

REFUSALS = (BadRequestError, RateLimitError, AuthenticationError, ModelNotFoundError, QuotaExceededError)
"""Answers after which there is no job."""
FILE_DELAYS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each try to create a job of a file that was just uploaded."""
FILE_UNKNOWN = re.compile(
    r"(can(no|')?t|could(n't| not)|unable to|failed to) (find|locate) (the |any )?(input )?file|no such (file|object)"
    r"|(invalid|unknown) file([ _]id)?\b"
    r"|(\b(file|object|uri|dataset)\b|\b(gs|s3)://).{0,80}"
    r"(n't exist|\b(not found|not exist|could(n't| not) be (found|located)"
    r"|(is|was)n't found|still being processed|not (yet )?(ready|processed|available)|pending|terminal state))",
    re.I,
)


def is_unknown_file(error: LLMError) -> bool:
    """Whether a provider refused a file that it doesn't know, or isn't through with."""
    return isinstance(error, BadRequestError | ModelNotFoundError) and bool(FILE_UNKNOWN.search(str(error)))


def is_not_there(error: LLMError) -> bool:
    """Whether a provider doesn't know the file that was to be read: with 404, or in words."""
    return isinstance(error, ModelNotFoundError) or is_unknown_file(error)


@contextmanager
def expected_results(said: str, ended: float = 0.0) -> Generator[None]:
    """Within it the results of a job that has ended are read, which may not be found yet.

    Args:
        said: what isn't found, in words.
        ended: when the job ended, in seconds since 1970; 0 where that isn't known.

    Raises:
        IncompleteResultsError: the provider doesn't know them.
    """
    try:
        yield
    except REFUSALS as error:
        if not is_not_there(error):
            raise
        raise IncompleteResultsError(said, ended=ended, gone=error) from None


async def job_of_file(create: Callable[[], Awaitable[T]], delete: Callable[[], Awaitable[None]] | None = None) -> T:
    """The job that `create` makes of a file that was just uploaded, tried again while the provider doesn't find that.

    Args:
        create: sends one request.
        delete: deletes the file, where there's no job that may read it.

    Raises:
        OverloadedError: the provider still doesn't find it.
        LLMError: what else `create` raises.
    """
    tries = 0
    while True:
        try:
            return await create()
        except REFUSALS as error:
            is_unknown = is_unknown_file(error)
            if not is_unknown or tries == len(FILE_DELAYS):
                if delete is not None:
                    with suppress(LLMError):
                        await delete()
                if not is_unknown:
                    raise
                said = f"the provider doesn't find the file that was just uploaded: {error}"
                raise OverloadedError(said) from None
            await asyncio.sleep(FILE_DELAYS[tries])
            tries += 1
