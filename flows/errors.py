"""Errors whose message says what was wrong and what to do: they are shown by that message alone."""

from __future__ import annotations

from typing import Any

from llms.errors import LLMError
from llms.parameters import ParameterError


class PipelineError(RuntimeError):
    """The steps don't fit each other. Raised before anything is sent; says which, and the way out."""


def clear_errors() -> tuple[type[Exception], ...]:
    """The errors that need no traceback."""
    from flows.results import TooManyFailedRowsError
    from flows.shards import ShardError
    from flows.storage import StorageError
    from tasks.loaders import SourceError
    from tasks.savers import TargetError

    ours = (PipelineError, ShardError, StorageError, TooManyFailedRowsError)
    return (LLMError, ParameterError, SourceError, TargetError, *ours)


def failed_state(error: Exception) -> Any:
    """A failed state called after the error, with its message. Whoever waits for the run gets the error itself."""
    from prefect.states import Failed

    kept = " What was answered is kept: a retry sends the rest." if isinstance(error, LLMError) else ""
    return Failed(name=type(error).__name__.removesuffix("Error"), message=f"{error}{kept}", data=error)
