"""The journal of a shard: every answer is appended as it comes, so that a crash loses none.

A line is a checksum and a JSON object. Of a request with the key `k`:

    {"k": key, "o": output, "x": attempt}    its answer, asked for in that attempt
    {"k": key, "o": output, "b": 1}          its answer, given by a batch job
    {"k": key, "x": attempt}                 the answer turned out to be of no use in that attempt
    {"k": key, "x": attempt, "e": failure}   a batch job gave no answer but this failure
    {"j": job, "x": attempt, "ks": [key]}    the requests went into a batch job in that attempt

Cut or damaged lines are left out on reading; their requests are sent again.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from flows.log import run_logger
from flows.storage import STORAGE_VARIABLE, Storage, StorageError
from llms.errors import Failure
from llms.typing import GenerateOutput

SEGMENT_SECONDS = 0.5


@dataclass
class Entries:
    """What the lines of journals say."""

    outputs: dict[str, GenerateOutput] = field(default_factory=dict[str, GenerateOutput])
    batched: set[str] = field(default_factory=set[str])
    """The keys whose answer came from a batch job."""
    asked: dict[str, str] = field(default_factory=dict[str, str])
    """The attempt that asked for an answer online, by key."""
    useless: dict[str, str] = field(default_factory=dict[str, str])
    failures: dict[str, tuple[str, Failure]] = field(default_factory=dict[str, tuple[str, Failure]])
    """The attempt and the failure of requests that a batch job didn't answer."""
    jobs: dict[str, list[tuple[str, str]]] = field(default_factory=dict[str, list[tuple[str, str]]])
    """The batch jobs that a request went into, each with the attempt, by key."""
    damaged: int = 0

    def answer(self, key: str, attempt: str) -> GenerateOutput | None:
        """The answer to a request, unless an earlier attempt found it of no use."""
        if self.useless.get(key, attempt) != attempt:
            return None
        return self.outputs.get(key)

    def failure(self, key: str, attempt: str) -> Failure | None:
        """Why a batch job didn't answer the request, if one didn't in this attempt."""
        known = self.failures.get(key)
        return known[1] if known is not None and known[0] == attempt else None


def encode_line(record: dict[str, Any]) -> bytes:
    body = orjson.dumps(record)
    return b"%08x %b\n" % (zlib.crc32(body), body)


def read_line(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None for one that is cut or damaged."""
    body = line.rstrip(b"\n")[9:]
    if line[8:9] != b" " or line[:8] != b"%08x" % zlib.crc32(body):
        return None
    # Of nothing the checksum is 00000000.
    return orjson.loads(body) if body else None


def read_lines(content: bytes, entries: Entries) -> None:
    """Add what the lines say to `entries`; of two lines for a key the later one holds."""
    for line in content.split(b"\n"):
        if not line:
            continue
        record = read_line(line)
        if record is None:
            entries.damaged += 1
            continue
        if "j" in record:
            for key in record["ks"]:
                entries.jobs.setdefault(key, []).append((record["j"], record["x"]))
            continue
        key = record["k"]
        if "o" in record:
            entries.outputs[key] = record["o"]
            (entries.batched.add if "b" in record else entries.batched.discard)(key)
            entries.asked[key] = record.get("x", "")
            entries.useless.pop(key, None)
            entries.failures.pop(key, None)
        elif "e" in record:
            entries.failures[key] = (record["x"], record["e"])
        else:
            entries.useless[key] = record["x"]


class Journal:
    """Appends to one shard's journal. Safe to use from several threads.

    A local journal is one file, appended to line by line. Object stores can't append, so there a
    journal is many small files, one every half second, written by a thread: whoever appends isn't kept waiting.
    """

    def __init__(self, storage: Storage, path: str) -> None:
        self.storage = storage
        self.path = path
        self._lock = threading.Lock()
        self._file: Any = None
        self._waiting: list[bytes] = []
        self._timer: threading.Timer | None = None
        self._problem: StorageError | None = None

    def load(self, others: Iterable[str] = ()) -> Entries:
        """The entries of this journal, on top of those of `others`."""
        entries = Entries()
        for path in [*others, self.path]:
            for part in self._parts(path):
                # Another run may just have no more use for it.
                with contextlib.suppress(FileNotFoundError):
                    read_lines(self.storage.read(part), entries)
        if entries.damaged:
            run_logger().warning(
                "%d cut or damaged lines in %s were left out; their requests are sent again", entries.damaged, self.path
            )
        return entries

    def append(self, record: dict[str, Any]) -> None:
        """Write a line. Raises StorageError."""
        self.extend([record])

    def extend(self, records: Iterable[dict[str, Any]]) -> None:
        """Write lines, at once. Raises StorageError."""
        lines = b"".join(map(encode_line, records))
        with self._lock:
            if self.storage.is_local:
                self._append_locally(lines)
                return
            self._waiting.append(lines)
            if self._problem is not None:
                raise self._problem
            if self._timer is None:
                self._start_timer()

    def close(self) -> None:
        """Write what waits, and close the file. Raises StorageError."""
        while (timer := self._timer) is not None:
            timer.cancel()
            # It may be writing just now, and start another.
            timer.join()
            with self._lock:
                if self._timer is timer:
                    self._timer = None
        self._write_segment()
        with self._lock:
            self._close_file()

    def remove(self) -> None:
        """Forget the journal: its shard is written and whole."""
        self.close()
        self.storage.remove_all(self._parts(self.path))

    def _parts(self, path: str) -> list[str]:
        if self.storage.is_local:
            return [path] if Path(path).exists() else []
        return self.storage.files(path, ".part")

    def _append_locally(self, lines: bytes) -> None:
        try:
            if self._file is None:
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
                self._file = Path(self.path).open("ab", buffering=0)  # noqa: SIM115 -- kept open between lines
                # A cut last line must not swallow the first new one.
                lines = b"\n" + lines
            rest = memoryview(lines)
            while rest:
                # A disk that gets full takes a part, and says so only to the next one.
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            # What is written next must not go on in the line that was cut.
            self._close_file()
            raise StorageError(
                f"can't write the journal {self.path!r}: {error}. Free some space, or set {STORAGE_VARIABLE} to another"
                " place; what was answered before is kept"
            ) from error

    def _start_timer(self) -> None:
        self._timer = threading.Timer(SEGMENT_SECONDS, self._write_in_time)
        self._timer.daemon = True
        self._timer.start()

    def _write_in_time(self) -> None:
        try:
            self._write_segment()
        except StorageError as error:
            # Told to whoever appends next.
            self._problem = error
        with self._lock:
            self._timer = None
            if self._waiting and self._problem is None:
                self._start_timer()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write_segment(self) -> None:
        """Write what waits as a file of its own. Where that fails, it goes on waiting. Raises StorageError."""
        with self._lock:
            lines, self._waiting = self._waiting, []
        if not lines:
            return
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.part"
        try:
            self.storage.write(f"{self.path}/{name}", b"".join(lines))
        except StorageError:
            with self._lock:
                self._waiting = [*lines, *self._waiting]
            raise
