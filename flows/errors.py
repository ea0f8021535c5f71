"""Errors whose message says what was wrong and what to do: they are shown by that message alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.shards import ShardError
from flows.storage import StorageError
from llms.errors import LLMError
from llms.extras import MissingPackageError
from llms.parameters import ParameterError
from tasks.loaders import SourceError
from tasks.sandbox import SandboxError
from tasks.savers import TargetError


class PipelineError(RuntimeError):
    """The steps don't fit each other. Raised before anything is sent; says which, and the way out."""


class TooManyFailedRowsError(RuntimeError):
    """More rows failed than `max_failed_rows` allows. A retry of the run sends only these again."""

    def __init__(self, message: str, datasets: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.datasets = dict(datasets)
        """What there is, the failed rows included, by the name of the last step."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), {})


class SpreadError(RuntimeError):
    """Shards can't be worked on elsewhere: nothing answers there, or it isn't this project. Says the way out."""


class CostNotApprovedError(RuntimeError):
    """A person looked at what a run would cost, and said no. Nothing was submitted."""


class ResubmitError(RuntimeError):
    """A run can't be completed by another one. Nothing was started; says why, and the way out."""


class SetupError(RuntimeError):
    """Something that the command needs isn't set. Says what, and how to set it."""


CLEAR_ERRORS: tuple[type[Exception], ...] = (
    CostNotApprovedError,
    LLMError,
    MissingPackageError,
    ParameterError,
    PipelineError,
    ResubmitError,
    SandboxError,
    SetupError,
    ShardError,
    SourceError,
    SpreadError,
    StorageError,
    TargetError,
    TooManyFailedRowsError,
)


def failed_state(error: Exception) -> Any:
    """A failed state called after the error, with its message. Whoever waits for the run gets the error itself."""
    from prefect.states import Failed

    kept = ". What was answered is kept: a retry sends the rest" if isinstance(error, LLMError) else ""
    return Failed(name=type(error).__name__.removesuffix("Error"), message=f"{error}{kept}", data=error)
