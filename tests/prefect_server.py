"""`prefect server start`, with three things done otherwise that cost tests their time.

Its garbage is collected in a thread of its own. Where the server is on SQLite, its event loop else stands still for a
minute now and then. The collector, which runs on whatever thread it's due on, frees a cursor that a cancelled request
left; `sqlite3_reset` waits for the cursor's connection, whose thread waits for the lock of the database, and whoever
has that lock waits for the loop. SQLite gives up after 60 s. Clients that are killed cancel requests, and these tests
kill a lot of them.

A form's JSON schema that was found right isn't checked again, at each deployment and at each run of one.

What it does by the clock (the shortest interval of its services is 5 s) is looked for once a second, not four to ten
times: of an idle server that's about a third of the processor time.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import time
from datetime import timedelta
from typing import Any

from burner_redis.pubsub import PubSub
from docket import Worker
from prefect.cli import app

from tests.checked_once import check_schemas_once

SECONDS_BETWEEN_COLLECTIONS = 300.0
SECONDS_BETWEEN_LOOKS = 1.0


def _collect() -> None:
    time.sleep(SECONDS_BETWEEN_COLLECTIONS)
    gc.collect()
    # What was imported stays: not to be searched each time, which takes half a second.
    gc.freeze()
    while True:
        time.sleep(SECONDS_BETWEEN_COLLECTIONS)
        gc.collect()


def _look_less_often() -> None:
    often = timedelta(seconds=SECONDS_BETWEEN_LOOKS)
    Worker.__init__ = functools.partialmethod(
        Worker.__init__, minimum_check_interval=often, scheduling_resolution=often
    )

    async def next_in_queue(self: Any, timeout: float | None) -> Any:
        end = None if timeout is None else time.monotonic() + timeout
        while self._queue.empty():
            if end is not None and time.monotonic() >= end:
                return None
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS if timeout != 0 else 0)
        return self._queue.get_nowait()

    # Who waits longest for a message waits for an order to cancel a task of the server's own: there is none.
    PubSub._queue_get = next_in_queue


if __name__ == "__main__":
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()
    _look_less_often()
    check_schemas_once()
    app()
