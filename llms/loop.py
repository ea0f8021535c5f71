"""One event loop per process for all requests.

Clients, connection pools and limits live on it, so that every step, shard and thread shares them,
and so that synchronous calls work where another loop is running already (a notebook, a flow).
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


class Closable(Protocol):
    async def close(self) -> None: ...


C = TypeVar("C", bound=Closable)

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def request_loop() -> asyncio.AbstractEventLoop:
    """The loop, started at the first call."""
    global _loop
    with _lock:
        if _loop is None or _loop.is_closed():
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="llm-requests", daemon=True).start()
        return _loop


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on the loop and wait for it. Not to be called on the loop itself."""
    loop = request_loop()
    if _running_loop() is loop:
        work.close()
        raise RuntimeError("a synchronous call inside the request loop would wait for itself; await the async form")
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on the loop, awaited from any loop."""
    loop = request_loop()
    if _running_loop() is loop:
        return await work
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


class PerLoop(Generic[C]):
    """A client for each event loop that asks. They are closed when this is gone, and when the process ends."""

    def __init__(self) -> None:
        self._clients: dict[asyncio.AbstractEventLoop, C] = {}
        weakref.finalize(self, _close_all, self._clients)

    def get(self, make: Callable[[], C]) -> C:
        """The client of the running loop, made at the first call."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            closed = [each for each in list(self._clients) if each.is_closed()]
            # Another thread may take the same ones away.
            _close_all({each: found for each in closed if (found := self._clients.pop(each, None)) is not None})
            client = self._clients[loop] = make()
        return client

    def __eq__(self, other: object) -> bool:
        """Connections make no difference between two models, and don't travel with one."""
        return isinstance(other, PerLoop)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __reduce__(self) -> tuple[type[PerLoop[C]], tuple[()]]:
        return (type(self), ())


_closing: set[concurrent.futures.Future[None]] = set()


def _close_all(clients: dict[asyncio.AbstractEventLoop, Any]) -> None:
    """Close each client on its loop; on ours, where its own has ended."""
    for loop, client in clients.items():
        if not (loop.is_running() and _close_on(loop, client)) and _loop is not None:
            _close_on(_loop, client)
    clients.clear()


def _close_on(loop: asyncio.AbstractEventLoop, client: Closable) -> bool:
    """Have a client closed on a loop. Returns whether the loop isn't closed itself, as it may be at any time."""
    work = _close(client)
    try:
        closing = asyncio.run_coroutine_threadsafe(work, loop)
    except RuntimeError:
        work.close()
        return False
    _closing.add(closing)
    closing.add_done_callback(_closing.discard)
    return True


async def _close(client: Closable) -> None:
    with contextlib.suppress(Exception):
        await client.close()


@atexit.register
def _wait_for_closing() -> None:
    concurrent.futures.wait(list(_closing), timeout=1)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _forget_after_fork() -> None:
    global _loop, _lock
    _loop, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
