"""Errors whose message says what was wrong and what to do: they are shown by that message alone."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from flows.store.shards import ShardError
from flows.store.storage import StorageError
from llms.errors import LLMError
from llms.extras import MissingPackageError
from llms.parameters import ParameterError
from llms.secrets import without_secrets
from tasks.functions.sandbox import SandboxError
from tasks.markdown import inert
from tasks.sources.errors import SourceError
from tasks.targets.places import TargetError

LONGEST_MESSAGE = 4000
"""Characters of a state's message."""


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


class CostLimitError(LLMError):
    """The next request, or a batch job, may cost more than is left of the run's `max_cost`. It isn't sent."""

    fatal = True


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
    """A failed state whose message begins with the kind of error. Whoever waits for the run gets the error itself.

    Its name is Prefect's own: events, automations and the lists of both UIs go by it.
    """
    from prefect.states import Failed

    sends_rest = isinstance(error, LLMError) and not isinstance(error, CostLimitError)
    kept = ". What was answered is kept: a retry sends the rest" if sends_rest else ""
    # Automations send it on, to where it may be taken for Markdown.
    said = inert(str(error), LONGEST_MESSAGE)
    message = f"{type(error).__name__}: {said.removesuffix('.') if kept else said}{kept}"
    return Failed(message=message, data=error)


@contextmanager
def masked_errors() -> Generator[None]:
    """Whatever is raised inside is raised without secrets: Prefect keeps and shows its words."""
    try:
        yield
    except Exception as error:
        shown = without_secrets(error)
        if shown is error:
            raise
        raise shown from None
