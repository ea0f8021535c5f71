"""A storage in which another process removes files and folders while they are listed or looked at."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from flows.cleaning import unused
from flows.store.storage import Storage, StorageError


def goes_before_it_is_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was found in the one above."""
    scandir = os.scandir

    def gone(listed: Any = ".") -> Any:
        if str(listed) == str(folder):
            shutil.rmtree(folder, ignore_errors=True)
        return scandir(listed)

    monkeypatch.setattr(os, "scandir", gone)


def goes_once_it_is_looked_at(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = Path.stat

    def gone(path: Path, **options: Any) -> os.stat_result:
        found = stat(path, **options)
        if path == file:
            file.unlink()
        return found

    monkeypatch.setattr(Path, "stat", gone)


def test_of_a_folder_that_goes_while_those_around_it_are_listed_nothing_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("going", "staying"):
        (tmp_path / "jobs" / name).mkdir(parents=True)
        (tmp_path / "jobs" / name / "one.json").touch()
    goes_before_it_is_listed(tmp_path / "jobs" / "going", monkeypatch)

    found = Storage(str(tmp_path)).files_below(str(tmp_path / "jobs"), ".json")

    assert found == [str(tmp_path / "jobs" / "staying" / "one.json")]


@pytest.mark.parametrize(
    ("kind", "listing"),
    [
        ("folder", "files"),
        ("folder", "folders"),
        ("object store", "files"),
        ("object store", "files_below"),
        ("object store", "folders"),
    ],
)
def test_a_folder_that_goes_before_it_is_listed_is_empty(
    kind: str, listing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(str(tmp_path) if kind == "folder" else f"memory://races-{uuid.uuid4().hex}")
    path = storage.path("folder", "one.json")
    storage.write(path, b"")
    exists, is_dir = Storage.exists, Path.is_dir

    def gone_since(of: Storage, folder: str) -> bool:
        found = exists(of, folder)
        of.remove(path)
        return found

    def no_folder_since(folder: Path) -> bool:
        found = is_dir(folder)
        if folder == Path(path).parent:
            shutil.rmtree(folder, ignore_errors=True)
        return found

    monkeypatch.setattr(Storage, "exists", gone_since)
    monkeypatch.setattr(Path, "is_dir", no_folder_since)
    ending = [] if listing == "folders" else [".json"]

    assert getattr(storage, listing)(storage.path("folder"), *ending) == []


@pytest.mark.parametrize(
    ("going", "how"), [("fresh.parquet", goes_once_it_is_looked_at), ("part", goes_before_it_is_listed)]
)
def test_what_goes_while_unused_files_are_looked_for_is_in_nobodys_way(
    going: str, how: Callable[[Path, pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "another"):
        (tmp_path / "previews" / name / "part").mkdir(parents=True)
        (tmp_path / "previews" / name / "part" / "rows").write_bytes(b"rows")
        (tmp_path / "previews" / name / "fresh.parquet").write_bytes(b"more")
    how(tmp_path / "previews" / "one" / going, monkeypatch)

    found = {each.name: each.size for each in unused(Storage(str(tmp_path)), 0)}

    assert found.keys() == {"previews/one", "previews/another"}
    assert found["previews/another"] == 8
    assert not (tmp_path / "previews" / "one" / going).exists()


def test_a_folder_that_cant_be_listed_isnt_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Storage(str(tmp_path)).write(str(tmp_path / "jobs" / "one" / "open.json"), b"{}")
    scandir = os.scandir

    def no_more_files(listed: Any = ".") -> Any:
        if str(listed).endswith("one"):
            raise OSError(errno.EMFILE, "Too many open files")
        return scandir(listed)

    monkeypatch.setattr(os, "scandir", no_more_files)

    with pytest.raises(StorageError, match="Too many open files"):
        Storage(str(tmp_path)).files_below(str(tmp_path / "jobs"), ".json")


def test_an_object_that_cant_be_looked_up_isnt_taken_for_one_that_isnt_there(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(f"memory://races-{uuid.uuid4().hex}")
    path = storage.path("folder", "one.json")
    storage.write(path, b"")

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("no way to the store")

    monkeypatch.setattr(MemoryFileSystem, "info", away)

    with pytest.raises(StorageError, match="no way to the store"):
        storage.exists(path)
