"""Where answers, shards and reports are kept: a folder, or an address that fsspec knows (s3://, gs://, memory://)."""

# pyarrow, datasets and fsspec have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llms.extras import opened_with

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
            # Other machines write here too: a listing must not be one of before.
            return fsspec.core.url_to_fs(self.root, use_listings_cache=False)[0]
        except (ImportError, ValueError) as error:
            raise StorageError(f"storage {self.root!r} can't be used: {error}{opened_with(error)}") from None

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of the filesystem. Raises FileNotFoundError, or StorageError for whatever else fails."""
        try:
            return getattr(self.filesystem, method)(*args, **options)
        except (FileNotFoundError, StorageError):
            raise
        except Exception as error:
            # Each store's package has errors of its own for a wrong key, a refused call, no way to it.
            raise StorageError(
                f"storage {self.root!r} can't be used: {type(error).__name__}: {error}. See that its keys and its"
                f" address are set on this machine as on the others, or choose another by {STORAGE_VARIABLE}; what is"
                " done so far is kept"
            ) from error

    @cached_property
    def is_local(self) -> bool:
        return "://" not in self.root

    def path(self, *parts: str) -> str:
        """The full path or address of something in the storage."""
        return posixpath.join(self.root, *parts)

    def inside(self, path: str) -> str:
        """A full path without the root, so that it's the same for machines that see the storage elsewhere."""
        return path.removeprefix(self.root).lstrip("/")

    def exists(self, path: str) -> bool:
        if self.is_local:
            return Path(path).exists()
        # Not `exists`, which for some stores takes whatever fails for no.
        try:
            self._call("info", path)
        except FileNotFoundError:
            return False
        return True

    def read(self, path: str) -> bytes:
        """The bytes at `path`. Raises FileNotFoundError, and StorageError where it can't be read."""
        if not self.is_local:
            return self._call("cat_file", path)
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            # Not to be taken for a file that isn't there: what is in it would be asked for, and paid, again.
            raise StorageError(
                f"can't read {path!r}: {error}. Make it readable, or set {STORAGE_VARIABLE} to another place"
            ) from error

    def write(self, path: str, content: bytes) -> None:
        """Write all of it or nothing. Raises StorageError."""
        try:
            if self.is_local:
                _replace(Path(path), content)
            else:
                self._call("pipe_file", path, content)
        except OSError as error:
            raise StorageError(
                f"can't write {path!r}: {error}. Free some space, or set {STORAGE_VARIABLE} to a folder or an"
                " address (s3://...) that can be written to; what is done so far is kept"
            ) from error

    def create(self, path: str, content: bytes) -> bool:
        """Write it to an object store where nothing is at `path`. Says whether it did: of several who try, one does.

        Raises:
            StorageError: it can't be written.
        """
        try:
            self.filesystem.pipe_file(path, content, mode="create")
        except Exception as error:
            # Each store's package has an error of its own for it.
            if isinstance(error, FileExistsError) or self.exists(path):
                return False
            raise StorageError(f"can't write {path!r}: {type(error).__name__}: {error}") from error
        return True

    def read_all(self, paths: Sequence[str]) -> dict[str, bytes]:
        """What is at several paths; in an object store by one call. Those that aren't there are left out."""
        found: dict[str, bytes] = {}
        if paths and not self.is_local:
            names = {self.filesystem._strip_protocol(path): path for path in paths}
            for name, content in self._call("cat", list(paths), on_error="return").items():
                if isinstance(content, bytes):
                    found[names[self.filesystem._strip_protocol(name)]] = content
                elif not isinstance(content, FileNotFoundError):
                    raise StorageError(f"can't read {name!r}: {type(content).__name__}: {content}")
            return found
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                found[path] = self.read(path)
        return found

    def mark_used(self, path: str) -> None:
        """Note that something is still of use, for `python -m flows clean`. An object store can't keep that."""
        if self.is_local:
            mark_used(Path(path))

    def remove(self, path: str) -> None:
        """Remove a file, if it's there."""
        if self.is_local:
            Path(path).unlink(missing_ok=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                self._call("rm_file", path)

    def remove_all(self, paths: Sequence[str]) -> None:
        """Remove files that are there; in an object store by one call."""
        if not self.is_local and paths:
            with contextlib.suppress(FileNotFoundError):
                self._call("rm", list(paths))
                return
        for path in paths:
            self.remove(path)

    def files(self, folder: str, ending: str) -> list[str]:
        """The files in `folder` whose names end so, in order. Empty where there's no folder."""
        # Another process may remove it after the look whether it's there.
        with contextlib.suppress(FileNotFoundError):
            if self.is_local:
                return sorted(str(each) for each in Path(folder).glob(f"*{ending}"))
            names = [str(each["name"]) for each in self._listed(folder)]
            return sorted(posixpath.join(folder, posixpath.basename(name)) for name in names if name.endswith(ending))
        return []

    def _listed(self, folder: str) -> list[dict[str, Any]]:
        """What an object store has in a folder. Raises FileNotFoundError."""
        # Looked for first: s3fs lists the folder above for one that isn't there, which may be a large one.
        return self._call("ls", folder, detail=True) if self.exists(folder) else []

    def files_below(self, folder: str, ending: str) -> list[str]:
        """The files in `folder` and all folders in it whose names end so, in order. Empty where there's no folder."""
        if self.is_local:
            return sorted(str(each) for each in paths_below(Path(folder)) if each.name.endswith(ending))
        inside = len(self.filesystem._strip_protocol(folder)) + 1
        with contextlib.suppress(FileNotFoundError):
            names = [str(name) for name in self._call("find", folder)] if self.exists(folder) else []
            return sorted(posixpath.join(folder, name[inside:]) for name in names if name.endswith(ending))
        return []

    def folders(self, folder: str) -> list[str]:
        """The folders in `folder`, in order. Empty where there's no folder."""
        with contextlib.suppress(FileNotFoundError):
            if self.is_local:
                return sorted(str(each) for each in Path(folder).glob("*") if each.is_dir())
            found = [each["name"] for each in self._listed(folder) if each["type"] == "directory"]
            return sorted(posixpath.join(folder, posixpath.basename(str(name).rstrip("/"))) for name in found)
        return []


def paths_below(folder: Path) -> Iterator[Path]:
    """All files and folders in a folder and those in it, but what is removed meanwhile."""

    def tell(error: OSError) -> None:
        # As `Path.rglob` does, which fails for a folder that is gone, too. ESTALE is what NFS says of one.
        if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError) or error.errno == errno.ESTALE:
            return
        raise StorageError(
            f"can't list {str(folder)!r}: {error}. Make it readable, or set {STORAGE_VARIABLE} to another place"
        ) from error

    for path, folders, files in os.walk(folder, onerror=tell):
        yield from (Path(path, name) for name in (*folders, *files))


def mark_used(path: Path) -> None:
    """Let the time of a file or a folder be now, where that may be done."""
    with contextlib.suppress(OSError):
        os.utime(path)


def storage_at(root: str | None = None) -> Storage:
    """The storage at `root`, or where STILLFLOW_STORAGE says, or `~/.stillflow`."""
    chosen = (root or os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE).removeprefix("file://")
    return Storage(chosen.rstrip("/") if "://" in chosen else str(Path(chosen).expanduser().absolute()))


def _replace(path: Path, content: bytes) -> None:
    made = make_folder(path.parent)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        # A power cut is a crash as well: the name has to be on the disk, and those of new folders.
        for folder in {path.parent, *made}:
            sync_names(folder)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> list[Path]:
    """Make a folder where it isn't there. Returns the folders that have new names in them."""
    changed: list[Path] = []
    above = folder
    while not above.exists():
        above = above.parent
        changed.append(above)
    folder.mkdir(parents=True, exist_ok=True)
    return changed


def sync_names(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
