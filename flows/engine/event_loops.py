"""Running coroutines from wherever the caller is: a script, a flow, a notebook."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")


def run_anywhere(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where an event loop is running already (a notebook).

    Who is interrupted meanwhile stops it: the interruption goes on once it has ended.
    """
    if not in_a_loop():
        return asyncio.run(work)
    stopped, begun = threading.Event(), list[Callable[[], object]]()

    async def stoppable() -> T:
        loop, mine = asyncio.get_running_loop(), asyncio.ensure_future(work)
        begun.append(lambda: loop.call_soon_threadsafe(mine.cancel))
        # An interruption that came before saw nothing to stop.
        if stopped.is_set():
            mine.cancel()
        return await mine

    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="pipeline") as thread:
        try:
            return thread.submit(copy_context().run, asyncio.run, stoppable()).result()
        except BaseException:
            stopped.set()
            # Where it's the work that failed, its loop has ended.
            with suppress(RuntimeError):
                for stop in begun:
                    stop()
            raise


def await_or_run(work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T] | T:
    """The coroutine, for `await` in an async flow; its result, in a sync one."""
    if not in_a_loop():
        return asyncio.run(work)
    return run_anywhere(work) if in_plain_function() else work


async def finished(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Await `work`. Who is cancelled meanwhile waits for its end first, for so many seconds.

    A request that is cut off here may be carried out by a server all the same.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(Exception):
            await asyncio.wait_for(task, seconds)
        raise


def in_plain_function() -> bool:
    """Whether the innermost flow or task is no coroutine: Prefect calls it in the thread of a running loop as well."""
    from prefect.context import FlowRunContext, TaskRunContext

    flow, task = FlowRunContext.get(), TaskRunContext.get()
    flow_run = flow.flow_run if flow else None
    if task is not None and task.task_run.flow_run_id == (flow_run.id if flow_run else None):
        return not task.task.isasync
    return flow is not None and flow.flow is not None and not flow.flow.isasync


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


class Turn:
    """A lock for coroutines of any event loop: `async with` it, in the order of asking."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._taken = False
        self._asking: deque[concurrent.futures.Future[None]] = deque()

    async def __aenter__(self) -> None:
        with self._changing:
            if not self._taken:
                self._taken = True
                return
            mine: concurrent.futures.Future[None] = concurrent.futures.Future()
            self._asking.append(mine)
        try:
            await asyncio.wrap_future(mine)
        except BaseException:
            # It may have been given in the same moment.
            if not mine.cancel():
                self._pass_on()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        with self._changing:
            while self._asking:
                following = self._asking.popleft()
                if following.set_running_or_notify_cancel():
                    following.set_result(None)
                    return
            self._taken = False
