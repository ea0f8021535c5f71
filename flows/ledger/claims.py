"""One process at a time submits questions of a space: while it looks whether they are in a job already, and submits.

In a folder it's a lock that ends with the process. In an object store it's a row of numbered objects, of which the
last one made is the claim: each is made only where it isn't there yet, which the store decides. A claim that isn't
renewed is passed over. Where a store can't make objects on that condition, nothing keeps two runs that start at the
same moment from submitting the same questions.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from flows.store.storage import Storage

SECONDS_PER_TRY = 0.2
RENEWED_SECONDS = 15.0
EXPIRED_SECONDS = 60.0
"""A claim that didn't change for so long, by the clock of who waits for it, is nobody's."""
RELEASED = b"released"


@asynccontextmanager
async def submitting(storage: Storage, space: str) -> AsyncGenerator[None]:
    """Keep other processes from submitting questions of a space."""
    if storage.is_local:
        async with _locked(Path(storage.path("ledger", space, ".lock"))):
            yield
        return
    claim = await _claimed(storage, storage.path("ledger", space, "claims"))
    renewing = asyncio.create_task(_renew(storage, claim))
    try:
        yield
    finally:
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing
        await asyncio.to_thread(storage.write, claim, RELEASED)


@asynccontextmanager
async def _locked(path: Path) -> AsyncGenerator[None]:
    try:
        import fcntl
    except ImportError:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            await asyncio.sleep(SECONDS_PER_TRY)
        yield


async def _claimed(storage: Storage, folder: str) -> str:
    """Wait for the claim, and take it. Returns its path."""
    seen: tuple[str, bytes] | None = None
    since = 0.0
    while True:
        paths = await asyncio.to_thread(storage.files, folder, ".claim")
        last = paths[-1] if paths else posixpath.join(folder, "00000000.claim")
        try:
            content = await asyncio.to_thread(storage.read, last) if paths else RELEASED
        except FileNotFoundError:
            continue
        if seen != (last, content):
            seen, since = (last, content), time.monotonic()
        if content == RELEASED or time.monotonic() - since > EXPIRED_SECONDS:
            mine = posixpath.join(folder, f"{int(posixpath.basename(last).partition('.')[0]) + 1:08d}.claim")
            if await asyncio.to_thread(storage.create, mine, _mark()):
                # An old one may have been removed between the look and the making.
                now = await asyncio.to_thread(storage.files, folder, ".claim")
                if now[-1] == mine:
                    await asyncio.to_thread(storage.remove_all, now[:-1])
                    return mine
                await asyncio.to_thread(storage.remove, mine)
        await asyncio.sleep(SECONDS_PER_TRY)


async def _renew(storage: Storage, claim: str) -> None:
    while True:
        await asyncio.sleep(RENEWED_SECONDS)
        await asyncio.to_thread(storage.write, claim, _mark())


def _mark() -> bytes:
    return uuid.uuid4().hex.encode()
