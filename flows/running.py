"""Running coroutines from wherever the caller is: a script, a flow, a notebook."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")


def run_anywhere(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where an event loop is running already (a notebook)."""
    if not in_a_loop():
        return asyncio.run(work)
    outcome: list[T] = []
    problem: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 -- handed over to the calling thread
            problem.append(error)

    context = copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="pipeline")
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return outcome[0]


def await_or_run(work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T] | T:
    """The coroutine, for `await` in an async flow; its result, in a sync one."""
    return work if in_a_loop() else asyncio.run(work)


def in_a_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def setting(variable: ContextVar[Any], value: Any) -> Generator[None]:
    """The variable with another value inside a `with` block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
