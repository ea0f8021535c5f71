"""Tables of text files: JSON Lines, JSON and CSV. Where their rows begin is found out once; they are read as wanted."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import os
import re
import shutil
import sys
import tempfile
import weakref
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from flows.viewing.batches import Batch, Row, RowBatch, integer_of, json_of, json_value
from flows.viewing.errors import ViewError
from flows.viewing.files import OpenFile
from flows.viewing.tables import Table
from llms.quantities import quantity

Starts: TypeAlias = NDArray[np.int64]

BYTES_AT_ONCE = 2**18
"""Of a file that are in memory; more only where a row has more."""
PEEKED_ROWS = 1000
"""Rows that tell the columns."""
PARSED_AT_ONCE = 2048
MARK = b"\xef\xbb\xbf"
"""Of UTF-8, at the beginning of a file."""
PACKED: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")


class TextTable(Table):
    """Rows in text files, one after another. Raises ViewError where a file can't be read."""

    def __init__(self, files: Sequence[TextFile]) -> None:
        self._files = files
        self._ends = list(accumulate(map(len, files)))
        peeked = (row for file in files for row in file.rows(range(min(len(file), PEEKED_ROWS))))
        self.columns = list(dict.fromkeys(name for row in peeked for name in row))

    def __len__(self) -> int:
        return self._ends[-1]

    def take(self, places: Sequence[int]) -> list[Row]:
        rows: list[Row] = []
        for place in places:
            number = bisect_right(self._ends, place)
            file = self._files[number]
            first = place - (self._ends[number] - len(file))
            rows += file.rows(range(first, first + 1))
        return [{name: row.get(name) for name in dict.fromkeys([*self.columns, *row])} for row in rows]

    def scan(self, columns: Sequence[str]) -> Iterator[Batch]:
        start = 0
        for file in self._files:
            for first in range(0, len(file), PARSED_AT_ONCE):
                rows = list(file.rows(range(first, min(first + PARSED_AT_ONCE, len(file)))))
                yield RowBatch(start, rows)
                start += len(rows)


class TextFile:
    """A file of JSON Lines, or of a list in JSON. Raises ViewError where it can't be read, or was changed since."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with _unpacked(path) as file, self._in_lines(file) as lines:
                # Read by its place in the file, not mapped into memory: a map of a file that shrinks ends the process.
                self._descriptor = os.dup(lines.fileno())
                weakref.finalize(self, os.close, self._descriptor)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise ViewError(f"{path} can't be read: {error}") from error
        self._file = OpenFile(path, self._descriptor)
        self._size = self._file.size
        self._first = len(MARK) if self._read(0, min(len(MARK), self._size)) == MARK else 0
        self._starts, self._stops = self._bounds()

    def __len__(self) -> int:
        return len(self._starts)

    def rows(self, numbers: range) -> Iterator[Row]:
        """Rows one after another. Raises ViewError."""
        first = numbers.start
        while first < numbers.stop:
            begin, stop = int(self._starts[first]), first + 1
            if stop < numbers.stop:
                within = int(np.searchsorted(self._stops, begin + BYTES_AT_ONCE, "right"))
                stop = min(max(within, stop), numbers.stop)
            content = self._read(begin, int(self._stops[stop - 1]))
            bounds = zip(self._starts[first:stop].tolist(), self._stops[first:stop].tolist(), strict=True)
            for number, (start, end) in enumerate(bounds, first):
                yield self._row(content[start - begin : end - begin], number)
            first = stop

    def _read(self, start: int, stop: int) -> bytes:
        """A part of the file, as it was when it was opened. Raises ViewError."""
        parts: list[bytes] = []
        at = start
        while at < stop and (part := os.pread(self._descriptor, stop - at, at)):
            parts.append(part)
            at += len(part)
        # Afterwards: what was changed before or meanwhile isn't taken for rows.
        self._file.check()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @contextmanager
    def _in_lines(self, file: IO[bytes]) -> Generator[IO[bytes]]:
        """The file, a row per line."""
        file.seek(0)
        if not file.read(64).removeprefix(MARK).lstrip().startswith(b"["):
            yield file
            return
        file.seek(0)
        try:
            rows: Any = json_value(file.read().removeprefix(MARK))
        except ValueError as error:
            raise ViewError(f"{self._path} isn't JSON: {error}") from None
        with tempfile.TemporaryFile() as lines:
            lines.writelines(orjson.dumps(row) + b"\n" for row in rows)
            lines.flush()
            yield lines

    def _bounds(self) -> tuple[Starts, Starts]:
        """Where each row begins and ends, in bytes."""
        ends = [
            np.flatnonzero(
                np.frombuffer(self._read(start, min(start + BYTES_AT_ONCE, self._size)), np.uint8) == ord("\n")
            )
            + start
            for start in range(0, self._size, BYTES_AT_ONCE)
        ]
        stops = np.concatenate([*ends, np.array([self._size], np.int64)])
        starts = np.concatenate([np.array([self._first], np.int64), stops[:-1] + 1])
        # The shortest row is {}; a line of one byte has the rest of another system's line end.
        written = stops - starts > 1
        return starts[written], stops[written]

    def _row(self, content: bytes, number: int) -> Row:
        try:
            row = json_value(content)
        except ValueError as error:
            raise ViewError(f"{self._path}: row {number} isn't JSON ({error}); mend it, or leave it out") from None
        if not isinstance(row, dict):
            raise ViewError(f"{self._path}: row {number} is no object; mend it, or leave it out")
        return cast("Row", row)


class CsvFile(TextFile):
    """A file of CSV with a header. Raises ViewError where it can't be read, or was changed since."""

    @contextmanager
    def _in_lines(self, file: IO[bytes]) -> Generator[IO[bytes]]:
        yield file

    def _bounds(self) -> tuple[Starts, Starts]:
        # As when rows are loaded: a cell may be of any length.
        csv.field_size_limit(sys.maxsize)
        end = self._first

        def lines(file: IO[bytes]) -> Iterator[str]:
            nonlocal end
            for line in file:
                end += len(line)
                yield line.decode()

        try:
            with open(self._descriptor, "rb", closefd=False) as file:
                file.seek(self._first)
                records = csv.reader(lines(file), strict=True)
                self._names = next(records, list[str]())
                stops = [end]
                stops += [end for record in records if record]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ViewError(f"{self._path} isn't CSV in UTF-8: {error}; mend it") from None
        self._file.check()
        whole = np.array(stops, np.int64)
        return whole[:-1], whole[1:]

    def _row(self, content: bytes, number: int) -> Row:
        cells = next(record for record in csv.reader(io.StringIO(content.decode(), newline="")) if record)
        if len(cells) != len(self._names):
            raise ViewError(
                f"{self._path}: row {number} has {quantity(len(cells), 'cell')}, the header {len(self._names)}; mend it"
            )
        return dict(zip(self._names, map(cell_value, cells), strict=True))


def cell_value(cell: str) -> Any:
    """What a cell of CSV stands for, where that is written just so: a number, a list or an object in JSON, or nothing.

    Example:
        >>> [cell_value(cell) for cell in ("4", "4.50", "007", '["a"]', "")]
        [4, '4.50', '007', ['a'], None]
    """
    if not cell:
        return None
    if NUMBER.fullmatch(cell):
        number = float(cell) if "." in cell else integer_of(cell)
        return number if str(number) == cell else cell
    return json_of(cell)


@contextmanager
def _unpacked(path: Path) -> Generator[IO[bytes]]:
    """A file as it is without compression: a temporary one, where it has any."""
    if path.suffix not in PACKED:
        with path.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as whole:
        with PACKED[path.suffix](path) as packed:
            shutil.copyfileobj(packed, whole)
        whole.flush()
        yield whole
