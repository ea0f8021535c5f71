"""Rows as files of Parquet, JSON, JSON Lines and CSV."""

# datasets, fsspec and pyarrow have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson

from tasks.sources.files import FileType
from tasks.sources.tables import rows_of_dataset

if TYPE_CHECKING:
    from datasets import Dataset
from tasks.targets.places import Place


def write_rows(dataset: Dataset, place: Place, file_format: FileType, *, compressed: bool = False) -> None:
    """Write one file, a batch of rows in memory at a time."""
    writers: dict[FileType, Callable[[Dataset, Any], None]] = {
        "parquet": write_parquet,
        "jsonl": write_json_lines,
        "json": write_json,
        "csv": write_csv,
    }
    with place.open("gzip" if compressed else None) as file:
        writers[file_format](dataset, file)


def write_parquet(dataset: Dataset, file: Any) -> None:
    with quiet():
        dataset.to_parquet(file)


def write_json_lines(dataset: Dataset, file: Any) -> None:
    for row in rows_of_dataset(dataset, 0):
        file.write(json_text(row) + b"\n")


def write_json(dataset: Dataset, file: Any) -> None:
    """A list with a row per line."""
    separator = b"[\n"
    for row in rows_of_dataset(dataset, 0):
        file.write(separator + json_text(row))
        separator = b",\n"
    file.write(b"\n]\n" if len(dataset) else b"[]\n")


def write_csv(dataset: Dataset, file: Any) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    rows = ([cell(value) for value in row.values()] for row in rows_of_dataset(dataset, 0))
    lines: Iterable[list[Any]] = chain([dataset.column_names], rows)
    for cells in lines:
        # The writer quotes no carriage return, and readers take one for the end of a line.
        returns = any(isinstance(each, str) and "\r" in each for each in cells)
        (quoting if returns else writer).writerow(cells)
    text.flush()
    text.detach()


def cell(value: Any) -> Any:
    if isinstance(value, bytes):
        return plain(value)
    return json_text(value).decode() if isinstance(value, dict | list) else value


def json_text(value: Any) -> bytes:
    return orjson.dumps(value, default=plain)


def plain(value: Any) -> str:
    """A value that JSON has no form for, as text."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


@contextmanager
def quiet() -> Generator[None]:
    """No progress bars: they fill the logs."""
    import datasets.utils
    import huggingface_hub.utils

    libraries: list[Any] = [datasets.utils, huggingface_hub.utils]
    enabled = [each for each in libraries if not each.are_progress_bars_disabled()]
    for each in enabled:
        each.disable_progress_bars()
    try:
        yield
    finally:
        for each in enabled:
            each.enable_progress_bars()
