"""What was asked, by the question's key: for people who read or train on the answers. Nothing that a run goes by.

Beside the answers, so that nobody who looks for one reads them. Each process writes a file of its own in a folder, or
an object for each shard in an object store. A crash loses those of the last moments, never an answer.
"""

from __future__ import annotations

import posixpath
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import orjson

from flows.ledger.lines import json_bytes, sealed, unsealed
from flows.ledger.table import Table, number_of
from flows.store.storage import STORAGE_VARIABLE, Storage, StorageError

FOLDER = "prompts"
ENDING = ".prompts"
LONGEST_PART = 4096
"""Characters of an image or a sound within a prompt; longer ones are only named."""


class Prompts:
    """Writes prompts of one space of the ledger, some at a time."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage = storage
        self._folder = posixpath.join(folder, FOLDER)
        self._lock = threading.Lock()
        self._name = _new_name()
        self._waiting: list[bytes] = []

    def note(self, key: str, prompt: Any) -> None:
        """Have a prompt written by the next `flush`."""
        line = sealed(b"%b %b" % (key.encode(), json_bytes(_without_data(prompt), str)))
        with self._lock:
            self._waiting.append(line)

    def flush(self) -> None:
        """Write what was noted. Raises StorageError; then it's written by the next one."""
        with self._lock:
            lines, self._waiting = self._waiting, []
        if not lines:
            return
        try:
            if self._storage.is_local:
                path = Path(self._folder) / self._name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.write(b"".join(lines))
            else:
                self._storage.write(posixpath.join(self._folder, _new_name()), b"".join(lines))
        except (OSError, StorageError) as error:
            with self._lock:
                self._waiting = [*lines, *self._waiting]
            if isinstance(error, StorageError):
                raise
            raise StorageError(
                f"can't write prompts into {self._folder!r}: {error}. Free some space, or set {STORAGE_VARIABLE} to"
                " another place; what was answered before is kept"
            ) from error


class KnownPrompts:
    """The prompts of a space, found by their keys; 16 bytes of memory each."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._index = Table()
        self._lines = tempfile.TemporaryFile(prefix="stillflow-")  # noqa: SIM115 -- read by `find`, and closed with this object
        end = 0
        for path in storage.files(posixpath.join(folder, FOLDER), ENDING):
            for line in storage.read(path).splitlines(keepends=True):
                body = unsealed(line)
                if body is not None:
                    self._index.put(number_of(body[:32].decode()), end)
                    self._lines.write(line)
                    end += len(line)

    def find(self, key: str) -> Any:
        """The prompt; None where it isn't known."""
        place = self._index.get(number_of(key))
        if place is None:
            return None
        self._lines.seek(place)
        body = unsealed(self._lines.readline())
        return orjson.loads(body[33:]) if body is not None and body[:32].decode() == key else None

    def close(self) -> None:
        self._lines.close()


def prompt_in(body: Mapping[str, Any]) -> Any:
    """What a request's body in a batch asks, as it would stand in a row: its messages, or its text."""
    messages = body.get("messages")
    if messages is None:
        return body.get("prompt", body.get("input"))
    system = body.get("system")
    return [{"role": "system", "content": system}, *messages] if system else messages


def _without_data(value: Any) -> Any:
    """A prompt with images and sounds only named, where they stand in it as a whole."""
    if isinstance(value, str):
        is_data = len(value) > LONGEST_PART and value.startswith("data:")
        return f"{value[: value.find(',') + 1]}... ({len(value):,} characters)" if is_data else value
    if isinstance(value, list | tuple):
        return [_without_data(each) for each in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        if isinstance(data := fields.get("data"), str) and len(data) > LONGEST_PART:
            fields = {**fields, "data": f"... ({len(data):,} characters)"}
        return {name: _without_data(each) for name, each in fields.items()}
    return value


def _new_name() -> str:
    return f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}{ENDING}"
