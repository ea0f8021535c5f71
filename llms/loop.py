"""One event loop per process for all requests.

Clients, connection pools and limits live on it, so that every step, shard and thread shares them,
and so that synchronous calls work where another loop is running already (a notebook, a flow).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

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
