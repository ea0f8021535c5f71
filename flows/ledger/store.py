"""Where answers are kept: lines that are only ever appended, and found by the question's key.

A line is a checksum, a letter, a key and a JSON value:

    o  an answer: {"o": output, "x": attempt that asked, "t": time}, and "b": job, "l": limit of tokens, where
       known, and "w": 1 where it's made of answers with lines of their own
    x  the answer turned out to be of no use in an attempt: {"x": attempt}
    e  there was no answer but this failure: {"e": failure, "x": attempt}, and "u": usage, "b": job, where it was paid

Of several lines for a key the latest holds. Cut or damaged ones are left out, and said: what they
answered is asked again.

In a folder, all processes append to one file until it's large, each line by one call. Object stores can't append: there
the lines of every half second are an object, read into a file of this process, and put together later.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple
from weakref import WeakValueDictionary

import orjson

from flows.ledger.lines import json_bytes, sealed, unsealed
from flows.ledger.prompts import Prompts
from flows.ledger.table import Table, number_of
from flows.store.context import run_logger
from flows.store.storage import STORAGE_VARIABLE, Storage, StorageError, make_folder, sync_names
from llms.base import LLM, cut_off_in
from llms.errors import Failure, KeptError
from llms.secrets import masked_values
from llms.typing import GenerateOutput, Usage
from llms.usage import usage_of

FOLDER = "ledger"
ABOUT = "about.json"
USED = "used"
ENDING = ".answers"
PART = ".part"
TOGETHER = f"-together{PART}"
NAMES = ".names"
"""The name and length of each object that one of the same name was put together of."""
FILE_BYTES = 1 << 28
"""About how long a file gets before the next one is begun."""
READ_AT_ONCE = 1 << 24
GUESS = 1 << 13
"""Bytes that are read at once to find a line."""
OFFSET_BITS = 48
"""A place in the index is a number of a file, and so many bits of an offset."""
HEADER = 35
"""Characters of a line's letter and key."""
FLUSH_SECONDS = 0.5
"""Answers that wait so long are written to an object store, or synced to the disk: what a power cut may cost."""
MANY_PARTS = 256
SETTLED_SECONDS = 600.0
"""Parts that are so old are whole, whoever wrote them."""


@dataclass(frozen=True)
class Kept:
    """An answer."""

    output: GenerateOutput
    attempt: str
    """Of the run that asked."""
    job: str = ""
    """The intent of the batch job that gave it; empty: it came online."""
    limit: int | None = None
    """The most tokens that it was allowed."""
    copy: bool = False
    """Whether it's made of answers with lines of their own."""

    def serves(self, limit: int | None) -> bool:
        """Whether it answers a question with that limit of tokens: not one that a smaller limit cut off."""
        if self.limit is None or not any(cut_off_in(self.output)):
            return True
        return limit is not None and limit <= self.limit


class Spent(NamedTuple):
    """What was paid for nothing."""

    attempt: str
    usage: list[Usage]
    job: str = ""
    """The intent of the batch job; empty: online."""


def answer_line(
    key: str, output: GenerateOutput, attempt: str, *, job: str = "", limit: int | None = None, copy: bool = False
) -> bytes:
    """The line for an answer; a `copy` is made of answers that have lines of their own."""
    record = {"o": output, "x": attempt, "t": round(time.time())}
    more = {"b": job or None, "l": limit, "w": 1 if copy else None}
    return _line("o", key, record | {name: value for name, value in more.items() if value is not None})


def useless_line(key: str, attempt: str) -> bytes:
    return _line("x", key, {"x": attempt})


def failure_line(key: str, failure: Failure, attempt: str, usage: Sequence[Usage] = (), *, job: str = "") -> bytes:
    paid = {"u": usage, **({"b": job} if job else {})} if usage else {}
    return _line("e", key, {"e": failure, "x": attempt, **paid})


def _line(letter: str, key: str, record: dict[str, Any]) -> bytes:
    return sealed(b"%b %b %b" % (letter.encode(), key.encode(), json_bytes(record)))


class Store:
    """The answers of one space of the ledger. Safe to use from several threads; one per process is enough."""

    def __init__(self, storage: Storage, space: str) -> None:
        self.storage = storage
        self.space = space
        self.folder = storage.path(FOLDER, space)
        self.prompts = Prompts(storage, self.folder)
        self._lock = threading.RLock()
        self._index = Table()
        self._useless: dict[str, str] = {}
        self._failures: dict[str, tuple[str, Failure]] = {}
        self._spent: dict[str, list[Spent]] = {}
        self._files: list[_File] = []
        self._parts: set[str] = set()
        """The objects that were read, or written by this process, alone or put together with others."""
        self._writer: IO[bytes] | None = None
        self._waiting: list[bytes] = []
        self._unsynced = False
        self._timer: threading.Timer | None = None
        self._problem: StorageError | None = None
        self._damaged = self._told = 0

    def find(self, key: str) -> Kept | None:
        """The latest answer to a question."""
        with self._lock:
            place = self._index.get(number_of(key))
            if place is None:
                return None
            line = self._files[place >> OFFSET_BITS].line_at(place & ((1 << OFFSET_BITS) - 1))
            body = unsealed(line)
            if body is None:
                self._damaged += 1
                self._tell()
                return None
        if body[2 : HEADER - 1].decode() != key:
            return None
        record = orjson.loads(body[HEADER:])
        return Kept(record["o"], record["x"], record.get("b", ""), record.get("l"), "w" in record)

    def useless(self, key: str) -> str | None:
        """The latest attempt in which the answer was of no use."""
        return self._useless.get(key)

    def failure(self, key: str, attempt: str) -> Failure | None:
        """Why the question got no answer, if it got none in this attempt."""
        known = self._failures.get(key)
        return known[1] if known is not None and known[0] == attempt else None

    def kept_error(self, key: str, attempt: str) -> KeptError | None:
        """`failure` as an error, with what was paid for it."""
        failure = self.failure(key, attempt)
        if failure is None:
            return None
        return KeptError(
            failure, [usage for each in self.spent(key) if each.attempt == attempt for usage in each.usage]
        )

    def spent(self, key: str) -> list[Spent]:
        """What was paid for a question beside its answer: failures, and answers of no use that it had before."""
        return self._spent.get(key, [])

    def append(self, lines: Iterable[bytes]) -> None:
        """Write lines, at once. Raises StorageError; in an object store once for what failed before, which is kept."""
        content = b"".join(lines)
        with self._lock:
            if self.storage.is_local:
                self._append_locally(content)
                self._unsynced = True
            else:
                self._waiting.append(content)
            if self._timer is None:
                self._start_timer()
            problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def flush(self) -> None:
        """Have everything that was appended on the disk, or in the object store. Raises StorageError."""
        if self.storage.is_local:
            with self._lock:
                if self._unsynced and self._writer is not None:
                    os.fsync(self._writer.fileno())
                self._unsynced = False
        else:
            self._write_part()
        self.prompts.flush()

    def close(self) -> None:
        """Flush, and give back what is open. Raises StorageError."""
        while (timer := self._timer) is not None:
            timer.cancel()
            # It may be writing just now, and start another.
            timer.join()
            with self._lock:
                if self._timer is timer:
                    self._timer = None
        self.flush()
        with self._lock:
            self._close_writer()
            for each in self._files:
                each.close()
            self._files, self._index, self._parts = [], Table(), set()
            self._useless, self._failures, self._spent = {}, {}, {}

    def refresh(self) -> None:
        """Take in what was appended since, by this process or any other. Raises StorageError."""
        if self._problem is not None:
            # Told by `append` and `flush`: what others wrote can be read all the same.
            with contextlib.suppress(StorageError):
                self._write_part()
        with self._lock:
            if self.storage.is_local:
                self._refresh_locally()
            else:
                self._fetch_parts()
            self._tell()

    def describe(self, llm: LLM) -> None:
        """Note for people who is asked here. Raises StorageError."""
        about = posixpath.join(self.folder, ABOUT)
        if not self.storage.exists(about):
            known = {**llm.addressee(), "model": llm.model_name, "llm": llm.model_dump(mode="json")}
            self.storage.write(about, json_bytes(masked_values(known), option=orjson.OPT_INDENT_2))

    def lines(self) -> Iterator[tuple[bool, str, str, dict[str, Any]]]:
        """Every whole line, the latest last: whether it's the one that holds for its key, letter, key and value."""
        self.refresh()
        for number, file in enumerate(self._files):
            for offset, line in file.lines():
                body = unsealed(line)
                if body is not None:
                    key = body[2 : HEADER - 1].decode()
                    holds = self._index.get(number_of(key)) == (number << OFFSET_BITS) | offset
                    yield holds, body[:1].decode(), key, orjson.loads(body[HEADER:])

    def _take(self, number: int, file: _File) -> None:
        """Index the lines of a file that are new."""
        for offset, line in file.lines(file.read_to):
            body = unsealed(line)
            if body is None:
                self._damaged += 1
                continue
            key = body[2 : HEADER - 1].decode()
            if body[:1] == b"o":
                if key in self._useless:
                    self._note_useless(key)
                self._index.put(number_of(key), (number << OFFSET_BITS) | offset)
                self._useless.pop(key, None)
                self._failures.pop(key, None)
            elif body[:1] == b"x":
                self._useless[key] = orjson.loads(body[HEADER:])["x"]
            else:
                record = orjson.loads(body[HEADER:])
                self._failures[key] = (record["x"], record["e"])
                if "u" in record:
                    self._note_spent(key, Spent(record["x"], record["u"], record.get("b", "")))

    def _note_useless(self, key: str) -> None:
        """An answer that was of no use gets another in its place."""
        kept = self.find(key)
        # What is made of others is paid with them.
        if kept is not None and not kept.copy:
            self._note_spent(key, Spent(kept.attempt, usage_of(kept.output), kept.job))

    def _note_spent(self, key: str, spent: Spent) -> None:
        known = self._spent.setdefault(key, [])
        # The results of a batch job may be read and written down several times.
        if not spent.job or spent not in known:
            known.append(spent)

    def _tell(self) -> None:
        if self._damaged > self._told:
            run_logger().warning(
                "cut or damaged lines in %s are left out, %d in all; their questions are asked again",
                self.folder,
                self._damaged - self._told,
            )
            self._told = self._damaged

    # In a folder

    def _paths(self) -> list[Path]:
        return [Path(path) for path in self.storage.files(self.folder, ENDING)]

    def _refresh_locally(self) -> None:
        paths = self._paths()
        if [each.path for each in self._files] != paths[: len(self._files)] or not all(
            map(_File.is_there, self._files)
        ):
            for each in self._files:
                each.close()
            self._files, self._index = [], Table()
            self._useless, self._failures, self._spent = {}, {}, {}
            self._close_writer()
        first = not self._files
        for path in paths[len(self._files) :]:
            # Another process may just have no more use for it.
            with contextlib.suppress(FileNotFoundError):
                self._files.append(_File(path, path.open("rb", buffering=0)))
        for number, file in enumerate(self._files):
            self._take(number, file)
        # What comes later may still be on its way.
        self._damaged += first and sum(file.has_rest() for file in self._files)

    def _append_locally(self, content: bytes) -> None:
        try:
            if self._writer is None or os.fstat(self._writer.fileno()).st_size > FILE_BYTES:
                self._open_writer()
            # A line of another process that was cut must not swallow the first one.
            rest = memoryview(b"\n" + content)
            while rest:
                # A disk that gets full takes a part, and says so only to the next one.
                rest = rest[self._writer.write(rest) :]  # pyright: ignore[reportOptionalMemberAccess] -- it's open
        except OSError as error:
            self._close_writer()
            raise StorageError(
                f"can't write the ledger in {self.folder!r}: {error}. Free some space, or set {STORAGE_VARIABLE} to"
                " another place; what was answered before is kept"
            ) from error

    def _open_writer(self) -> None:
        self._close_writer()
        paths = self._paths()
        full = bool(paths) and paths[-1].stat().st_size > FILE_BYTES
        number = len(paths) if full or not paths else len(paths) - 1
        path = Path(self.folder) / f"{number:06d}{ENDING}"
        made = make_folder(path.parent)
        is_new = not path.exists()
        self._writer = path.open("ab", buffering=0)
        for folder in {path.parent, *made} if is_new else ():
            sync_names(folder)

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    # In an object store

    def _fetch_parts(self) -> None:
        """Read the objects that are new into a file of this process."""
        new = [path for path in self.storage.files(self.folder, PART) if path not in self._parts]
        contents = self.storage.read_all([*new, *(_names_of(path) for path in new if TOGETHER in path)])
        if not self._files:
            lines = tempfile.TemporaryFile(prefix="stillflow-", buffering=0)  # noqa: SIM115 -- open until `close`
            self._files.append(_File(None, lines))
        for path in new:
            if path not in contents:
                # It was put together with others, which are read next time.
                continue
            for name, content in _pieces(path, contents):
                if name not in self._parts:
                    self._parts.add(name)
                    self._files[0].append(content)
        self._take(0, self._files[0])
        if len(new) > MANY_PARTS:
            self._put_together(new, contents)

    def _put_together(self, paths: list[str], contents: dict[str, bytes]) -> None:
        """Many small objects as one. Who reads meanwhile finds either, or both, and takes each piece once."""
        before = (time.time() - SETTLED_SECONDS) * 1e9
        old = [path for path in paths if path in contents and int(posixpath.basename(path).partition("-")[0]) < before]
        if len(old) > MANY_PARTS:
            pieces = [(posixpath.basename(name), each) for path in old for name, each in _pieces(path, contents)]
            name = f"{posixpath.basename(old[-1]).partition('-')[0]}-{uuid.uuid4().hex[:8]}{TOGETHER}"
            path = posixpath.join(self.folder, name)
            self.storage.write(_names_of(path), json_bytes([(name, len(each)) for name, each in pieces]))
            self.storage.write(path, b"".join(each for _, each in pieces))
            self._parts.add(path)
            self.storage.remove_all([*old, *(_names_of(each) for each in old if _names_of(each) in contents)])

    def _write_part(self) -> None:
        """Write what waits as an object of its own. Where that fails, it goes on waiting. Raises StorageError."""
        with self._lock:
            lines, self._waiting = self._waiting, []
        if not lines:
            return
        path = posixpath.join(self.folder, f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}{PART}")
        content = b"".join(lines)
        try:
            self.storage.write(path, content)
        except StorageError:
            with self._lock:
                self._waiting = [*lines, *self._waiting]
            raise
        with self._lock:
            self._problem = None
            # Another thread may have found it there, and read it.
            if self._files and path not in self._parts:
                self._parts.add(path)
                self._files[0].append(content)
                self._take(0, self._files[0])

    def _start_timer(self) -> None:
        timer = threading.Timer(FLUSH_SECONDS, self._flush_in_time)
        timer.daemon = True
        timer.start()
        # Only now: `close` may join it as soon as it's there.
        self._timer = timer

    def _flush_in_time(self) -> None:
        problem: StorageError | None = None
        try:
            if self.storage.is_local:
                self.flush()
            else:
                self._write_part()
        except (StorageError, OSError) as error:
            problem = error if isinstance(error, StorageError) else StorageError(str(error))
        with self._lock:
            self._timer = None
            if problem is None and self._waiting:
                self._start_timer()
            elif self._waiting:
                # Told to whoever appends next, and tried again then, or when somebody looks for what is there.
                self._problem = problem


def _names_of(path: str) -> str:
    return f"{path.removesuffix(PART)}{NAMES}"


def _pieces(path: str, contents: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The objects that one was put together of, each with its path and content, and itself."""
    content = contents[path]
    names = contents.get(_names_of(path))
    if names is not None:
        offset = 0
        for name, length in orjson.loads(names):
            yield posixpath.join(posixpath.dirname(path), name), content[offset : offset + length]
            offset += length
        content = b""
    yield path, content


class _File:
    """A file of lines, read as it grows."""

    def __init__(self, path: Path | None, file: IO[bytes]) -> None:
        self.path = path
        self._file = file
        self.read_to = 0
        """All lines before are known."""

    def is_there(self) -> bool:
        """Whether its path still leads to it, and it only grew."""
        if self.path is None:
            return True
        try:
            known, found = os.fstat(self._file.fileno()), self.path.stat()
        except FileNotFoundError:
            return False
        return known.st_ino == found.st_ino and found.st_size >= self.read_to

    def has_rest(self) -> bool:
        """Whether there's something after its last line."""
        return os.fstat(self._file.fileno()).st_size > self.read_to

    def append(self, content: bytes) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write(content)

    def lines(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """The lines from an offset on, each with its own; notes how far they go."""
        rest = b""
        while some := os.pread(self._file.fileno(), READ_AT_ONCE, start + len(rest)):
            *lines, rest = (rest + some).split(b"\n")
            for line in lines:
                if line:
                    yield start, line
                start += len(line) + 1
            self.read_to = max(self.read_to, start)

    def line_at(self, offset: int) -> bytes:
        found = os.pread(self._file.fileno(), GUESS, offset)
        while (end := found.find(b"\n")) < 0:
            more = os.pread(self._file.fileno(), max(GUESS, len(found)), offset + len(found))
            if not more:
                return found
            found += more
        return found[:end]

    def close(self) -> None:
        self._file.close()


def note_use(storage: Storage, space: str, flow: str) -> None:
    """Note that a flow uses the answers of a space now, for `clean` and for people. Raises StorageError."""
    name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in flow)[:100] or "-"
    content = orjson.dumps({"flow": flow, "used": round(time.time())})
    storage.write(storage.path(FOLDER, space, USED, f"{name}.json"), content)


_stores: WeakValueDictionary[tuple[str, str], Store] = WeakValueDictionary()
_opening = threading.Lock()


def opened(storage: Storage, space: str) -> Store:
    """The store of this process for a space, with all that is in it now. Raises StorageError."""
    with _opening:
        store = _stores.get((storage.root, space))
        if store is None:
            store = _stores[storage.root, space] = Store(storage, space)
    store.refresh()
    return store
