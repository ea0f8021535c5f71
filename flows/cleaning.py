"""What a storage in a folder can do without: rows, answers and datasets that no run has used for a while."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from flows.engine.datasets import local_datasets
from flows.engine.graph import RUN_FOLDER
from flows.ledger.kept import known_spaces
from flows.ledger.records import Jobs
from flows.ledger.store import FOLDER
from flows.store.results import FOLDER as RESULTS
from flows.store.storage import Storage, paths_below

SECONDS_PER_DAY = 86_400
FRESH = re.compile(r"\..+\.[0-9a-f]{8}")
"""The name of a file or folder that is being written; it gets its own name when it's whole."""


@dataclass(frozen=True)
class Unused:
    """Files that are used together, and weren't for `days`."""

    name: str
    paths: Sequence[Path]
    size: int
    """In bytes."""
    days: float

    def remove(self) -> None:
        for path in self.paths:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.paths[0].parent.rmdir()


def unused(storage: Storage, days: float, model: str = "", flow: str = "") -> list[Unused]:
    """What no run has used for so many days, the largest first.

    A step's rows go together: all of one configuration, or all of one run that used no cache; and so do the answers
    of one model with the same parameters. What open batch jobs and waiting runs need stays. Of a storage at an
    address only the datasets opened here are looked at: an object store doesn't know when something was used.

    Args:
        model: only the answers of this model.
        flow: only the answers that no other flow has used.

    Raises:
        StorageError: the record of a batch job can't be read.
    """
    names = [*([] if model or flow else [*_datasets(storage), *_kept(storage)]), *_answers(storage, model, flow)]
    found = [_unit(storage, *each) for each in names]
    needed = _needed(storage)
    old = [each for each in found if each.days >= days and not needed.intersection([each.name, *_above(each.name)])]
    gone = {path for each in old for path in each.paths}
    half_written = [] if model or flow else _half_written(storage)
    left = [path for path in half_written if not gone.intersection([path, *path.parents])]
    return sorted([*old, *(_unit(storage, path, [path]) for path in left)], key=lambda each: -each.size)


def _datasets(storage: Storage) -> Iterator[tuple[Path, list[Path]]]:
    return ((path, [path]) for path in _in(Path(local_datasets(storage))))


def _kept(storage: Storage) -> Iterator[tuple[Path, list[Path]]]:
    """What is used together, by its name."""
    if not storage.is_local:
        return
    root = Path(storage.root)
    for configuration in (path for step in _in(root / "steps") for path in _in(step)):
        parts = _in(configuration)
        fresh = [path for path in parts if path.name.startswith(RUN_FOLDER)]
        yield from ((path, [path]) for path in fresh)
        if len(fresh) < len(parts):
            yield configuration, [path for path in parts if path not in fresh]
    folders = [*_in(root / "sources"), root / "previews", root / "jobs" / "ended", root / "runs", root / RESULTS]
    yield from ((path, [path]) for folder in folders for path in _in(folder))


def _answers(storage: Storage, model: str, flow: str) -> Iterator[tuple[Path, list[Path]]]:
    if storage.is_local:
        for each in known_spaces(storage):
            if model in {"", each.model} and (not flow or set(each.flows) == {flow}):
                path = Path(storage.path(FOLDER, each.space))
                yield path, [path]


def _in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        return [path for path in folder.iterdir() if not FRESH.fullmatch(path.name)]
    except FileNotFoundError:
        return []


def _half_written(storage: Storage) -> list[Path]:
    roots = {Path(local_datasets(storage)), *([Path(storage.root)] if storage.is_local else [])}
    found = (path for root in roots for path in paths_below(root) if FRESH.fullmatch(path.name))
    return [path for path in found if _days_since(_status(path)) > 1]


def _needed(storage: Storage) -> set[str]:
    """Folders and notes that open jobs and waiting runs need, relative to the storage."""
    jobs = Jobs(storage)
    waits = jobs.waits()
    records = [record for path in jobs.open_paths() if (record := jobs.record_at(path)) is not None]
    spaces = {record.space for record in records}.union(*(wait.spaces for wait in waits))
    folders = {f"{FOLDER}/{space}" for space in spaces} | {each.before["folder"] for each in records if each.before}
    runs = {record.run for record in records} | {name for wait in waits for name in (wait.run, wait.flow_run)}
    return folders | {f"jobs/ended/{run}" for run in runs} | {f"runs/{run}.json" for run in runs}


def _unit(storage: Storage, name: Path, paths: Sequence[Path]) -> Unused:
    everything = [_status(each) for path in paths for each in (path, *paths_below(path))]
    size = sum(each.st_size for each in everything if each is not None and S_ISREG(each.st_mode))
    return Unused(storage.inside(str(name)), paths, size, min(map(_days_since, everything)))


def _status(path: Path) -> os.stat_result | None:
    """None where it's gone meanwhile."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _days_since(status: os.stat_result | None) -> float:
    """Days since a file or folder was used; none where it's gone meanwhile."""
    return max(0.0, (time.time() - status.st_mtime) / SECONDS_PER_DAY) if status is not None else 0.0


def _above(name: str) -> list[str]:
    return [str(path) for path in Path(name).parents]
