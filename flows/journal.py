"""The journal of a shard: every answer is appended as it comes, so that a crash loses none.

A line is a checksum and a JSON object: `{"k": key, "o": output}` for an answer, `{"k": key, "x": attempt}`
where an answer turned out to be of no use in that attempt. Cut or damaged lines are left out on reading;
their requests are sent again.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from flows.storage import STORAGE_VARIABLE, Storage, StorageError
from llms.typing import GenerateOutput

logger = logging.getLogger(__name__)

SEGMENT_SECONDS = 2.0


@dataclass
class Entries:
    """What the lines of journals say."""

    outputs: dict[str, GenerateOutput] = field(default_factory=dict[str, GenerateOutput])
    useless: dict[str, str] = field(default_factory=dict[str, str])
    damaged: int = 0

    def answer(self, key: str, attempt: str) -> GenerateOutput | None:
        """The answer to a request, unless an earlier attempt found it of no use."""
        if self.useless.get(key, attempt) != attempt:
            return None
        return self.outputs.get(key)


def encode_line(record: dict[str, Any]) -> bytes:
    body = orjson.dumps(record)
    return b"%08x %b\n" % (zlib.crc32(body), body)


def read_lines(content: bytes, entries: Entries) -> None:
    """Add what the lines say to `entries`; of two lines for a key the later one holds."""
    for line in content.split(b"\n"):
        if not line:
            continue
        body = line[9:]
        if line[8:9] != b" " or line[:8] != b"%08x" % zlib.crc32(body):
            entries.damaged += 1
            continue
        record = orjson.loads(body)
        if "o" in record:
            entries.outputs[record["k"]] = record["o"]
            entries.useless.pop(record["k"], None)
        else:
            entries.useless[record["k"]] = record["x"]


class Journal:
    """Appends to one shard's journal. Safe to use from several threads.

    A local journal is one file, appended to line by line. Object stores can't append, so there a
    journal is many small files, one every two seconds.
    """

    def __init__(self, storage: Storage, path: str) -> None:
        self.storage = storage
        self.path = path
        self._lock = threading.Lock()
        self._file: Any = None
        self._waiting: list[bytes] = []
        self._latest = time.monotonic()

    def load(self, others: Iterable[str] = ()) -> Entries:
        """The entries of this journal, on top of those of `others`."""
        entries = Entries()
        for path in [*others, self.path]:
            for part in self._parts(path):
                read_lines(self.storage.read(part), entries)
        if entries.damaged:
            logger.warning(
                "%d cut or damaged lines in %s were left out; their requests are sent again", entries.damaged, self.path
            )
        return entries

    def append(self, record: dict[str, Any]) -> None:
        """Write a line. Raises StorageError."""
        line = encode_line(record)
        with self._lock:
            if self.storage.is_local:
                self._append_locally(line)
            else:
                self._waiting.append(line)
                if time.monotonic() - self._latest >= SEGMENT_SECONDS:
                    self._write_segment()

    def close(self) -> None:
        """Write what waits, and close the file."""
        with self._lock:
            if self._waiting:
                self._write_segment()
            if self._file is not None:
                self._file.close()
                self._file = None

    def remove(self) -> None:
        """Forget the journal: its shard is written and whole."""
        self.close()
        for part in self._parts(self.path):
            self.storage.remove(part)

    def _parts(self, path: str) -> list[str]:
        if self.storage.is_local:
            return [path] if Path(path).exists() else []
        return self.storage.files(path, ".part")

    def _append_locally(self, line: bytes) -> None:
        try:
            if self._file is None:
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
                self._file = Path(self.path).open("ab", buffering=0)  # noqa: SIM115 -- kept open between lines
                # A cut last line must not swallow the first new one.
                line = b"\n" + line
            self._file.write(line)
        except OSError as error:
            raise StorageError(
                f"can't write the journal {self.path!r}: {error}. Free some space, or set {STORAGE_VARIABLE} to another"
                " place; what was answered before is kept"
            ) from error

    def _write_segment(self) -> None:
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.part"
        self.storage.write(f"{self.path}/{name}", b"".join(self._waiting))
        self._waiting.clear()
        self._latest = time.monotonic()
