"""Files that are read piece by piece while others may write to them."""

# pyarrow has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from flows.viewing.errors import ViewError


class OpenFile:
    """A file as it was when it was opened: not another that takes its place, nor what is written to it afterwards."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._state = self._state_now()

    @property
    def size(self) -> int:
        """In bytes, when it was opened."""
        return self._state[0]

    def check(self) -> None:
        """Raises ViewError where it was written to since it was opened."""
        if self._state_now() != self._state:
            raise ViewError(f"{self._path} has changed, open it again")

    @contextmanager
    def reading(self) -> Generator[None]:
        """Tell what is read meanwhile. Raises ViewError where it can't be read, or was changed since it was opened."""
        # Before as well: reading a file through a map beyond its end, where it shrank, ends the process.
        self.check()
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ViewError(f"{self._path} can't be read: {error}") from error
        finally:
            self.check()

    def _state_now(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns
