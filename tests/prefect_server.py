"""`prefect server start` with its garbage collected in a thread of its own.

Where the server is on SQLite, its event loop else stands still for a minute now and then. The collector, which runs on
whatever thread it's due on, frees a cursor that a cancelled request left; `sqlite3_reset` waits for the cursor's
connection, whose thread waits for the lock of the database, and whoever has that lock waits for the loop. SQLite gives
up after 60 s. Clients that are killed cancel requests, and these tests kill a lot of them.
"""

from __future__ import annotations

import gc
import threading
import time

from prefect.cli import app

SECONDS_BETWEEN_COLLECTIONS = 20.0


def _collect() -> None:
    while True:
        time.sleep(SECONDS_BETWEEN_COLLECTIONS)
        gc.collect()


if __name__ == "__main__":
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()
    app()
