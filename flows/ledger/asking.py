"""Which questions are asked online just now: of two runs that come to the same ones at once, one asks, the other waits.

A claim is a numbered file with the keys of questions. Each is made only where it isn't there yet, after a look at those
that are: so whoever makes one knows all that were before, and what these hold is left to their owners. The latest is
never removed, or its number would be used again. Who is held up after the look may still make one with an older number
that was removed meanwhile. So each names the one before it, and its maker keeps it only where the later ones lead back
to it.

In a folder a claim is locked by its owner, and nobody's when that process ends. In an object store it's renewed, and
passed over when it isn't. Where neither can be done, two runs that start at the same moment both ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from flows.ledger.store import FOLDER, Kept, Store
from flows.ledger.table import number_of
from flows.store.context import run_logger
from flows.store.storage import Storage, StorageError
from llms.quantities import quantity

CLAIMS = "asking"
ENDING = ".claim"
SECONDS_PER_POLL = 0.5
RENEWED_SECONDS = 10.0
EXPIRED_SECONDS = 40.0
"""A claim in an object store that didn't change for so long, by the clock of who waits for it, is nobody's."""
RELEASED = b"released"
_made: dict[str, str] = {}
"""The claims of this process, and whose they are."""


@dataclass(eq=False)
class Claim:
    """Questions that a process of this run is asking."""

    storage: Storage
    path: str
    head: dict[str, str]
    keys: bytes
    lock: IO[bytes] | None
    rows: set[int] = field(default_factory=set[int])
    """The rows that it's held for."""
    _released: bool = False
    _changing: threading.Lock = field(default_factory=threading.Lock)

    def content(self) -> bytes:
        return b"%b\n%b" % (orjson.dumps({**self.head, "mark": uuid.uuid4().hex}), self.keys)

    def renew(self) -> None:
        with self._changing:
            # Written after that, it would be there again.
            if self.lock is None and not self._released:
                self.storage.write(self.path, self.content())

    def release(self) -> None:
        _made.pop(self.path, None)
        with self._changing:
            self._released = True
            try:
                if self.later():
                    self.storage.remove(self.path)
                elif self.lock is None:
                    self.storage.write(self.path, RELEASED)
            finally:
                if self.lock is not None:
                    self.lock.close()

    def later(self) -> list[str]:
        """The claims with higher numbers."""
        return [each for each in self.storage.files(posixpath.dirname(self.path), ENDING) if each > self.path]

    def is_known(self) -> bool:
        """Whether those who made later ones have seen this one, and so its number wasn't used before.

        False also where one of those is given back already: its maker makes another one then.
        """
        name = self.head["name"]
        for each in self.later():
            try:
                head = _head_of(self.storage.read(each))
            except FileNotFoundError:
                return False
            if head.get("after") != name:
                return False
            name = head["name"]
        return True


class Claims:
    """The claims of one space of the ledger, as a process sees and makes them.

    Args:
        owner: who makes them.
        is_own: whether another owner's are no hindrance: of an earlier try of the same work.
    """

    def __init__(self, storage: Storage, space: str, owner: str, is_own: Callable[[str], bool]) -> None:
        self._storage = storage
        self._folder = storage.path(FOLDER, space, CLAIMS)
        self._owner = owner
        self._is_own = is_own
        self._seen: dict[str, tuple[bytes, float]] = {}
        """What stood in the claims of an object store, and since when."""

    def take(self, keys: Iterable[str]) -> tuple[Claim | None, dict[str, str]]:
        """Claim questions. Returns the claim, and of the keys that others have, the path of theirs.

        None where the storage has no way to keep claims. Raises StorageError.
        """
        wanted = {number_of(key): key for key in keys}
        numbers = np.fromiter(wanted, np.uint64, len(wanted)).tobytes()
        while True:
            there = self._storage.files(self._folder, ENDING)
            last = int(posixpath.basename(there[-1]).partition(".")[0]) if there else 0
            path = posixpath.join(self._folder, f"{last + 1:08d}{ENDING}")
            after = ""
            # One that is gone isn't the latest any more: whether this number was used before is seen below.
            with contextlib.suppress(FileNotFoundError):
                after = _head_of(self._storage.read(there[-1])).get("name", "") if there else ""
            head = {"owner": self._owner, "name": uuid.uuid4().hex, "after": after}
            claim = Claim(self._storage, path, head, numbers, None)
            if not self._storage.is_local:
                made = self._storage.create(path, claim.content())
            else:
                try:
                    claim.lock = _locked_file(Path(path), claim.content())
                except (ImportError, OSError):
                    return None, {}
                made = claim.lock is not None
            if not made:
                continue
            try:
                if claim.is_known():
                    _made[path] = self._owner
                    return claim, self._held(wanted, there)
                claim.release()
            except BaseException:
                with contextlib.suppress(StorageError, OSError):
                    claim.release()
                raise

    def _held(self, wanted: dict[int, str], there: list[str]) -> dict[str, str]:
        """Of the keys that are wanted, by their numbers, those that others have, and the paths of theirs."""
        held: dict[str, str] = {}
        for each in there:
            if (maker := _made.get(each)) is not None and self._is_own(maker):
                continue
            content = self.content_of(each)
            if content is None:
                # A later one is there, ours: its number isn't used again.
                self._storage.remove(each)
                continue
            owner = _head_of(content).get("owner")
            if owner is not None and not self._is_own(owner):
                _, _, others = content.partition(b"\n")
                whole = len(others) // 8 * 8
                found = wanted.keys() & set(np.frombuffer(others[:whole], np.uint64).tolist())
                held |= {wanted[number]: each for number in found}
        return held

    def content_of(self, path: str) -> bytes | None:
        """What stands in a claim; None where it's nobody's. Raises StorageError."""
        try:
            if self._storage.is_local:
                return _content_of_locked(Path(path))
            content = self._storage.read(path)
        except FileNotFoundError:
            return None
        known, since = self._seen.get(path, (b"", 0.0))
        if content != known:
            known, since = self._seen[path] = content, time.monotonic()
        return None if content == RELEASED or time.monotonic() - since > EXPIRED_SECONDS else content


@dataclass(eq=False)
class _Wish:
    """A question that a row wants to ask. A row may have several at a time."""

    row: int
    root: str
    key: str
    known: asyncio.Future[bool]
    before: Kept | None
    """The answer that there was, which doesn't serve."""
    held_by: str = ""


class Asking:
    """Lets the rows of a shard ask their questions, but those that another run is asking already.

    Args:
        claims: None where nobody else can be asking.
    """

    def __init__(self, store: Store, claims: Claims | None) -> None:
        self._store = store
        self._claims = claims
        self._wanted: list[_Wish] = []
        self._held: list[_Wish] = []
        self._granted: dict[int, Claim | None] = {}
        self._claimed: set[Claim] = set()
        self._work: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        self._told = False

    @property
    def waiting(self) -> int:
        """The rows that wait for another run."""
        return len({wish.row for wish in self._held})

    async def is_ours(self, row: int, root: str, key: str) -> bool:
        """Whether the row may ask a question now, and all further ones. Waits while another run has it.

        Where not, the other run got an answer, or gave it up: look for it in the ledger, and call this again.

        Args:
            row: its place in the shard.
            root: the key of its first question.
            key: of the one to ask.
        """
        if self._claims is None or row in self._granted:
            return True
        known: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._wanted.append(_Wish(row, root, key, known, self._store.find(key)))
        self._more.set()
        if self._runner is None:
            self._runner = asyncio.ensure_future(self._run(self._claims))
        return await known

    def done(self, row: int) -> None:
        """A row has come to its end."""
        claim = self._granted.pop(row, None)
        if claim is not None:
            claim.rows.discard(row)
            if not claim.rows and claim in self._claimed:
                self._claimed.discard(claim)
                self._begin(self._release(claim))

    async def close(self) -> None:
        """Give back all claims."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
            self._runner = None
        claimed, self._claimed = self._claimed, set()
        for claim in claimed:
            self._begin(self._release(claim))
        await asyncio.gather(*self._work, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _release(self, claim: Claim) -> None:
        if not claim.storage.is_local:
            # Who waits for it looks for its answers then.
            with contextlib.suppress(StorageError):
                await asyncio.to_thread(self._store.flush)
        with contextlib.suppress(StorageError, OSError):
            await asyncio.to_thread(claim.release)

    async def _give_back(self, taking: asyncio.Future[tuple[Claim | None, dict[str, str]]]) -> None:
        claim, _ = await taking
        if claim is not None:
            await self._release(claim)

    async def _run(self, claims: Claims) -> None:
        try:
            await self._take_turns(claims)
        except Exception as error:  # noqa: BLE001 -- nothing is swallowed: each row that waits for an answer raises it
            self._runner = None
            for wish in (*self._wanted, *self._held):
                if not wish.known.done():
                    wish.known.set_exception(error)

    async def _take_turns(self, claims: Claims) -> None:
        renewed = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SECONDS_PER_POLL if self._held else RENEWED_SECONDS):
                    await self._more.wait()
            # What comes together is claimed together.
            await asyncio.sleep(0)
            self._more.clear()
            if self._wanted:
                await self._claim(claims)
            if self._held:
                await self._poll(claims)
            if time.monotonic() - renewed >= RENEWED_SECONDS:
                renewed = time.monotonic()
                for claim in list(self._claimed):
                    with contextlib.suppress(StorageError):
                        await asyncio.to_thread(claim.renew)

    async def _claim(self, claims: Claims) -> None:
        wanted = list(self._wanted)
        claim, held = None, dict[str, str]()
        taking = asyncio.ensure_future(asyncio.to_thread(claims.take, [each.root for each in wanted]))
        try:
            claim, held = await asyncio.shield(taking)
            # Whoever had it before may have given it back since, with its answer.
            await asyncio.to_thread(self._store.refresh)
        except StorageError as error:
            run_logger().warning("questions are asked whether or not another run asks them: %s", error)
        except asyncio.CancelledError:
            # Its thread makes the claim all the same.
            self._begin(self._give_back(taking))
            raise
        for wish in wanted:
            self._wanted.remove(wish)
            if wish.known.done():
                continue
            if wish.root in held and wish.row not in self._granted:
                wish.held_by = held[wish.root]
                self._held.append(wish)
                continue
            if wish.row not in self._granted:
                self._granted[wish.row] = claim
                if claim is not None:
                    claim.rows.add(wish.row)
            wish.known.set_result(self._store.find(wish.key) == wish.before)
        if claim is not None and claim.rows:
            self._claimed.add(claim)
        elif claim is not None:
            self._begin(self._release(claim))
        if self._held and not self._told:
            self._told = True
            asked = quantity(len(held), "question")
            run_logger().info("waits for the answers to %s, asked by another run just now", asked)

    async def _poll(self, claims: Claims) -> None:
        """Let those go on whose question is answered, or given up."""
        try:
            await asyncio.to_thread(self._store.refresh)
            paths = {wish.held_by for wish in self._held}
            free = {path for path in paths if await asyncio.to_thread(claims.content_of, path) is None}
        except StorageError as error:
            run_logger().warning("can't look for the answers of another run: %s", error)
            return
        for wish in list(self._held):
            if wish.held_by in free or wish.known.done() or self._store.find(wish.key) != wish.before:
                self._held.remove(wish)
                if not wish.known.done():
                    wish.known.set_result(False)


def _head_of(content: bytes) -> dict[str, str]:
    """What a claim says of itself: nothing where it's given back, or where a power cut has damaged it."""
    try:
        return {} if content == RELEASED else orjson.loads(content.partition(b"\n")[0])
    except orjson.JSONDecodeError:
        return {}


def _locked_file(path: Path, content: bytes) -> IO[bytes] | None:
    """Make a file that is whole and locked from the moment it's there. None where there's one already."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    file = fresh.open("wb")
    try:
        file.write(content)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.link(fresh, path)
    except FileExistsError:
        file.close()
        return None
    except BaseException:
        file.close()
        raise
    finally:
        fresh.unlink(missing_ok=True)
    return file


def _content_of_locked(path: Path) -> bytes | None:
    """What stands in a file, if a process has it locked. Raises FileNotFoundError."""
    import fcntl

    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read()
    return None
