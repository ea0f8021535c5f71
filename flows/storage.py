"""Where shards, journals and reports are kept: a folder, or an address that fsspec knows (s3://, gs://, memory://)."""

# pyarrow, datasets and fsspec have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import os
import posixpath
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

STORAGE_VARIABLE = "STILLFLOW_STORAGE"
DEFAULT_STORAGE = "~/.stillflow"


class StorageError(RuntimeError):
    """The storage can't be used. The message says which, why, and how to choose another."""


@dataclass(frozen=True)
class Storage:
    """A root that paths are relative to. All machines that share a run's work must see the same one."""

    root: str

    @cached_property
    def filesystem(self) -> Any:
        """The fsspec filesystem. Raises StorageError."""
        import fsspec

        try:
            return fsspec.core.url_to_fs(self.root)[0]
        except (ImportError, ValueError) as error:
            raise StorageError(f"storage {self.root!r} can't be used: {error}") from None

    @cached_property
    def is_local(self) -> bool:
        return "://" not in self.root or self.root.startswith("file://")

    def path(self, *parts: str) -> str:
        """The full path or address of something in the storage."""
        return posixpath.join(self.root, *parts)

    def exists(self, path: str) -> bool:
        return Path(path).exists() if self.is_local else bool(self.filesystem.exists(path))

    def read(self, path: str) -> bytes:
        """The bytes at `path`. Raises FileNotFoundError."""
        return Path(path).read_bytes() if self.is_local else self.filesystem.cat_file(path)

    def write(self, path: str, content: bytes) -> None:
        """Write all of it or nothing. Raises StorageError."""
        try:
            if self.is_local:
                _replace(Path(path), content)
            else:
                self.filesystem.pipe_file(path, content)
        except OSError as error:
            raise StorageError(
                f"can't write {path!r}: {error}. Free some space, or set {STORAGE_VARIABLE} to a folder or an"
                " address (s3://...) that can be written to; what is done so far is kept"
            ) from error

    def remove(self, path: str) -> None:
        """Remove a file, if it's there."""
        if self.is_local:
            Path(path).unlink(missing_ok=True)
        elif self.filesystem.exists(path):
            self.filesystem.rm_file(path)

    def files(self, folder: str, ending: str) -> list[str]:
        """The files in `folder` whose names end so, in order. Empty where there's no folder."""
        if self.is_local:
            return sorted(str(each) for each in Path(folder).glob(f"*{ending}"))
        if not self.filesystem.exists(folder):
            return []
        names = [str(name) for name in self.filesystem.ls(folder, detail=False)]
        return sorted(posixpath.join(folder, posixpath.basename(name)) for name in names if name.endswith(ending))


def storage_at(root: str | None = None) -> Storage:
    """The storage at `root`, or where STILLFLOW_STORAGE says, or `~/.stillflow`."""
    chosen = root or os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE
    return Storage(chosen.rstrip("/") if "://" in chosen else str(Path(chosen).expanduser().absolute()))


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
