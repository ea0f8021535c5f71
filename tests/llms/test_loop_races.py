"""What other threads hold or close while the process is forked, or while clients are closed."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from llms import loop
from llms.loop import run_sync
from llms.submissions import submissions_of


@pytest.mark.skipif(not hasattr(os, "fork"), reason="what a fork leaves locked is tested, and Windows has no fork")
def test_what_a_thread_holds_while_the_process_is_forked_is_free_in_the_new_one() -> None:
    ours = submissions_of("account")
    run_sync(ours.lock.acquire())

    child = os.fork()
    if child == 0:
        os._exit(1 if submissions_of("account").lock.locked() else 0)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ours.lock.locked()


class Client:
    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def close(self) -> None:
        self.closed.set()


class Ending(asyncio.SelectorEventLoop):
    """Runs when it's looked at, and is closed before it's given work."""

    running = False

    def is_running(self) -> bool:
        return self.running

    def call_soon_threadsafe(self, *args: Any, **options: Any) -> asyncio.Handle:
        self.running = False
        self.close()
        return super().call_soon_threadsafe(*args, **options)


def test_a_loop_that_closes_meanwhile_leaves_no_client_open() -> None:
    clients, ending = [Client(), Client()], Ending()
    ending.running = True

    loop._close_all(dict(zip([ending, loop.request_loop()], clients, strict=True)))  # pyright: ignore[reportPrivateUsage]

    assert ending.is_closed()
    for client in clients:
        run_sync(client.closed.wait())
