"""What there is to look at: the datasets in a file, in a folder, or of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import orjson

from flows.store.results import AskedModel, DatasetResult, RunResult, mark_result_used, results
from flows.store.storage import Storage, mark_used
from flows.viewing.errors import ViewError
from flows.viewing.lines import CsvFile, TextFile, TextTable
from flows.viewing.tables import ArrowPart, ArrowTable, ParquetPart, Table
from llms.extras import opened_with

TEXTS: dict[str, type[TextFile]] = {".csv": CsvFile, ".json": TextFile, ".jsonl": TextFile, ".ndjson": TextFile}
PARTS = {".arrow": ArrowPart, ".parquet": ParquetPart}
PACKED = frozenset({".gz", ".bz2", ".xz"})
OF_A_FOLDER = frozenset({"dataset_info.json", "dataset_dict.json", "state.json", "dataset_infos.json", "crc32.json"})
"""Files that tell of a dataset, and hold no rows."""
NUMBERS = re.compile(r"[-_.]?\d+(-of-\d+)?$")
"""What the name of a file ends with that is one of several."""
VERSION = re.compile(r"(^|[-_. ])v\d+(\.\d+)*$", re.IGNORECASE)
"""What the name of a file ends with that is no part of others, but one of several versions."""
MOST_NAMES = 3
"""Files of a dataset that are named one by one."""
SHORTEST_ID = 6
MOST_RUNS = 5


@dataclass
class Dataset:
    """Rows to look at."""

    name: str
    files: Sequence[Path]
    origin: str
    """The path or the run that was asked for."""
    models: dict[str, AskedModel] = field(default_factory=dict[str, AskedModel])
    """Whom steps asked, as far as that is known."""
    prompts: Sequence[str] = ()
    """The columns that no step wrote, as far as that is known."""

    @cached_property
    def table(self) -> Table:
        """The rows. Raises ViewError."""
        try:
            return self._open()
        except (OSError, ValueError) as error:
            if isinstance(error, ViewError):
                raise
            where = ", ".join(map(str, self.files[:3]))
            raise ViewError(f"{where} can't be read: {error}{opened_with(error)}") from error

    @property
    def parts(self) -> str:
        """The names of its files, where there are several."""
        names = [path.name for path in self.files]
        if len(names) <= MOST_NAMES:
            return ", ".join(names) if len(names) > 1 else ""
        return f"{names[0]} to {names[-1]}"

    def _open(self) -> Table:
        kind = ending_of(self.files[0])
        if kind in PARTS:
            return ArrowTable([PARTS[kind](path) for path in self.files])
        return TextTable([TEXTS[kind](path) for path in self.files])


def opened(place: str, storage: Storage) -> list[Dataset]:
    """The datasets at a path, or of a run of this storage.

    Args:
        place: a file, a folder, a pattern of files, or the id or the name of a flow run. Of runs of the same name
            the last one.

    Raises:
        ViewError: there's none.
    """
    path = Path(place).expanduser()
    paths = [path] if path.exists() else matching(path) if any(sign in place for sign in "*?[") else []
    if paths:
        found = [each for path in paths for each in datasets_at(path)]
        if not found:
            raise ViewError(f"{place!r} holds no Parquet, Arrow, JSON Lines, JSON or CSV files")
        return [known(each, place, storage) for each in found]
    run = run_of(place, storage)
    found = [of_run(run, each) for each in run.datasets if each.rows]
    if not found:
        raise ViewError(f"the run {run.name!r} ({run.run}) made no rows")
    return found


def matching(pattern: Path) -> list[Path]:
    """The files and folders that a pattern stands for, by name."""
    return sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))


def datasets_at(path: Path) -> Iterator[Dataset]:
    """What is in a file or a folder: each split of each configuration.

    Files of one folder whose names differ in a number at their end alone are one, but for versions (`v1`, `v2`).
    """
    if path.is_file():
        if ending_of(path) not in {*PARTS, *TEXTS}:
            raise ViewError(f"{str(path)!r} is no .parquet, .arrow, .jsonl, .json or .csv file")
        yield Dataset(path.name, [path], str(path))
        return
    if (path / "dataset_dict.json").exists():
        for folder in sorted(each for each in path.iterdir() if (each / "state.json").exists()):
            yield Dataset(folder.name, saved_files(folder), str(path))
        return
    if (path / "state.json").exists():
        yield Dataset(path.name, saved_files(path), str(path))
        return
    groups: dict[tuple[Path, str, str], list[Path]] = {}
    for file in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if ending_of(file) in {*PARTS, *TEXTS} and file.name not in OF_A_FOLDER and not hidden and file.is_file():
            stem = stem_of(file)
            stem = stem if VERSION.search(stem) else NUMBERS.sub("", stem)
            groups.setdefault((file.parent.relative_to(path), stem, ending_of(file)), []).append(file)
    for (folder, stem, _), files in groups.items():
        yield Dataset(split_name(folder, stem) or path.name, files, str(path))


def saved_files(folder: Path) -> list[Path]:
    """The files of a dataset that `datasets` saved to disk."""
    state = cast("dict[str, Any]", orjson.loads((folder / "state.json").read_bytes()))
    return [folder / each["filename"] for each in state["_data_files"]]


def split_name(folder: Path, stem: str) -> str:
    """What a split of a configuration is called, where its files are in a folder and begin so."""
    parts = [part for part in folder.parts if part != "data"]
    return " / ".join(parts if parts and stem == "train" else [*parts, stem])


def ending_of(path: Path) -> str:
    return unpacked(path).suffix.lower()


def stem_of(path: Path) -> str:
    """A file's name without its ending."""
    return unpacked(path).stem


def unpacked(path: Path) -> Path:
    return path.with_suffix("") if path.suffix in PACKED else path


# Runs


def run_of(name: str, storage: Storage) -> RunResult:
    """What the run of a name or an id made. Raises ViewError."""
    known_runs = sorted(results(storage), key=lambda each: -each.ended)
    for each in known_runs:
        if each.name == name or (len(name) >= SHORTEST_ID and each.run.startswith(name)):
            mark_result_used(storage, each.run)
            return each
    last = "; ".join(f"{each.name!r} ({each.run[:8]})" for each in known_runs[:MOST_RUNS])
    raise ViewError(
        f"there's no file or folder {name!r}, nor a run of that name or id in {storage.root}."
        f" {f'Its last runs: {last}' if last else 'It knows of no run'}"
    )


def of_run(run: RunResult, made: DatasetResult) -> Dataset:
    """A dataset of a run: as the run has it in the storage, or as it was saved. Raises ViewError."""
    title = f"{run.name} ({run.run[:8]})"
    folder = Path(made.folder)
    files = sorted(folder.glob("*.arrow")) if made.folder else []
    if files:
        mark_used(folder)
        return Dataset(made.name, files, title, run.models, made.prompts)
    at_target = list(datasets_at(Path(made.saved))) if made.saved and Path(made.saved).exists() else []
    if not at_target:
        raise ViewError(
            f"the rows of the run {run.name!r} ({run.run}) aren't on this machine any more: they were in"
            f" {made.folder!r}{f' and in {made.saved!r}' if made.saved else ''}. Run the flow again: it asks nothing"
            " that is kept"
        )
    return Dataset(made.name, at_target[0].files, title, run.models, made.prompts)


def known(dataset: Dataset, place: str, storage: Storage) -> Dataset:
    """A dataset with what the run that saved it there noted about it."""
    where = str(Path(place).expanduser().resolve())
    saved = [(run.ended, run, made) for run in results(storage) for made in run.datasets if made.saved == where]
    if saved:
        _, run, made = max(saved, key=lambda each: each[0])
        dataset.models, dataset.prompts = run.models, made.prompts
    return dataset
