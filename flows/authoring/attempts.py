"""A flow that is called and retried: what its last attempt gave is what the call gives.

Prefect raises the error of an earlier attempt all the same where the last one returned a state, as flows here do to
say in it what came of their rows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast


@dataclass
class _Call:
    errors: list[Exception] = field(default_factory=list[Exception])
    """Of the attempts so far."""
    values: list[Any] = field(default_factory=list[Any])
    """What the last attempt gave, in a state; empty where it hasn't."""

    def outlived(self, error: Exception) -> bool:
        """Whether it's an earlier attempt's, and the last one came to its end."""
        return bool(self.values) and any(error is each for each in self.errors)


_call: ContextVar[_Call | None] = ContextVar("call", default=None)


def called(run: Callable[[], Any]) -> Any:
    """Call a flow. Raises what its last attempt raised."""
    with _calling() as call:
        return run()
    return call.values[-1]


async def called_async(running: Awaitable[Any]) -> Any:
    """`called`, of an asynchronous flow that was called already."""
    with _calling() as call:
        return await running
    return call.values[-1]


@contextmanager
def _calling() -> Generator[_Call]:
    """Inside a `with` block, attempts are noted. The error of one that the last attempt outlived ends here."""
    call = _Call()
    token = _call.set(call)
    try:
        yield call
    # A flow is a user's code: an attempt may fail with anything, and what isn't outlived is raised as it is.
    except Exception as error:
        if not call.outlived(error):
            raise
    finally:
        _call.reset(token)


@contextmanager
def attempt() -> Generator[Callable[[Any], Any]]:
    """One attempt of the flow that is being called. Gives what it's told that the attempt came to, and notes it."""
    call = _call.get()

    def came_to(outcome: Any) -> Any:
        from prefect.client.schemas.objects import State

        state = cast("State[Any]", outcome) if isinstance(outcome, State) else None
        if call is not None and state is not None and state.is_completed():
            call.values.append(state.data)
        return cast("Any", outcome)

    if call is not None:
        call.values.clear()
    try:
        yield came_to
    # Whatever a user's flow fails with is noted, so that it's known again, and goes on its way.
    except Exception as error:
        if call is not None:
            call.errors.append(error)
        raise
