"""Where files are saved: a folder of this machine, or an address."""

# datasets, fsspec and pyarrow have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from llms.extras import opened_with
from tasks.sources.files import COMPRESSED, ending_of


class TargetError(ValueError):
    """A dataset can't be saved where it should be. The message says where, why, and the way out."""


@dataclass(frozen=True)
class Place:
    """A path of a file system, local or not."""

    filesystem: Any
    path: str
    is_local: bool

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def url(self) -> str:
        return self.path if self.is_local else str(self.filesystem.unstrip_protocol(self.path))

    def sibling(self, name: str) -> Place:
        return Place(self.filesystem, f"{self.path.rpartition('/')[0]}/{name}", self.is_local)

    def child(self, *names: str) -> Place:
        return Place(self.filesystem, "/".join([self.path, *names]), self.is_local)

    def exists(self) -> bool:
        return bool(self.filesystem.exists(self.path))

    def is_folder(self) -> bool:
        return bool(self.filesystem.isdir(self.path))

    def is_empty_folder(self) -> bool:
        return self.is_folder() and not self.filesystem.ls(self.path, detail=False)

    def read(self) -> bytes:
        return cast("bytes", self.filesystem.cat_file(self.path))

    def write(self, content: bytes) -> None:
        with self.open() as file:
            file.write(content)

    def open(self, compression: str | None = None) -> Any:
        self.filesystem.makedirs(self.path.rpartition("/")[0] or "/", exist_ok=True)
        return self.filesystem.open(self.path, "wb", compression=compression)

    def remove(self) -> None:
        if self.exists():
            self.filesystem.rm(self.path, recursive=True)

    def rename(self, other: Place) -> None:
        if self.is_local:
            Path(self.path).rename(other.path)
        else:
            self.filesystem.mv(self.path, other.path, recursive=self.is_folder())

    def check_writable(self) -> None:
        """Write a small file next to it and remove it. Raises TargetError."""
        probe = self.sibling(f".{self.name}.{uuid.uuid4().hex[:8]}")
        with self.explained():
            probe.write(b"")
            probe.remove()

    @contextmanager
    def replacing(self) -> Generator[Place]:
        """A place beside this one to write to; it becomes this one at the end. Raises TargetError."""
        fresh = self.sibling(f".{self.name}.{uuid.uuid4().hex[:8]}")
        with self.explained():
            try:
                yield fresh
                self._swap(fresh)
            finally:
                fresh.remove()

    def _swap(self, fresh: Place) -> None:
        if self.is_local and not self.is_folder():
            Path(fresh.path).replace(self.path)
            return
        old = self.sibling(f"{fresh.name}.old")
        if self.exists():
            self.rename(old)
        try:
            fresh.rename(self)
        except BaseException:
            if old.exists():
                old.rename(self)
            raise
        old.remove()

    @contextmanager
    def explained(self) -> Generator[None]:
        """Every failure of writing as a TargetError."""
        import pyarrow as pa

        try:
            yield
        except TargetError:
            raise
        except OSError as error:
            raise TargetError(
                f"can't write to {self}: {error or type(error).__name__}; free some space, or choose another path"
            ) from error
        except (ValueError, TypeError, pa.ArrowException) as error:
            raise TargetError(f"can't be saved to {self}: {error}; another file type may take it") from error

    def __str__(self) -> str:
        return repr(self.url)


def place_at(path: str, storage_options: dict[str, Any]) -> Place:
    """The place that a path or address names. Raises TargetError."""
    import fsspec

    try:
        filesystem, inner = fsspec.core.url_to_fs(path, **storage_options)
    except (OSError, ValueError, ImportError) as error:
        raise TargetError(f"path={path!r} can't be used: {error}{opened_with(error)}") from error
    is_local = "file" in ([filesystem.protocol] if isinstance(filesystem.protocol, str) else filesystem.protocol)
    # A link stays a link: what it leads to is replaced.
    return Place(filesystem, str(Path(inner).resolve()) if is_local else inner.rstrip("/"), is_local)


def full_ending(path: str) -> str:
    """`.csv.gz` of table.csv.gz."""
    ending = ending_of(path)
    return next((ending + each for each in COMPRESSED if path.lower().endswith(ending + each)), ending)
