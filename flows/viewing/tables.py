"""Tables that are read in part: Arrow and Parquet files of any size, of which memory holds what is looked at."""

# pyarrow has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flows.viewing.batches import METADATA, ArrowBatch, Batch, Row, decoded

Places: TypeAlias = NDArray[np.int64]

NOTE = f"{METADATA}."
"""How the name of a field of the metadata begins."""
SCANNED_AT_ONCE = 8192
"""Rows that a scan has in memory."""
BLOCK_ROWS = 1024
"""Rows of a Parquet file that are decoded at a time to be looked at."""
BLOCKS_KEPT = 8


class Table(ABC):
    """Rows in a fixed order, each known by its place."""

    columns: Sequence[str]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, places: Sequence[int]) -> list[Row]:
        """The rows at these places, in this order, as plain Python values."""

    @abstractmethod
    def scan(self, columns: Sequence[str]) -> Iterator[Batch]:
        """All rows, a few thousand at a time.

        Args:
            columns: those that are wanted; `distilabel_metadata.error_x` is one of its fields. A table may give more.
        """


@dataclass(frozen=True)
class Part(ABC):
    """A file of a table."""

    path: Path

    @property
    @abstractmethod
    def rows(self) -> int: ...

    @property
    @abstractmethod
    def schema(self) -> pa.Schema: ...

    @abstractmethod
    def batch_at(self, row: int) -> tuple[int, pa.RecordBatch]:
        """Some rows, that one among them, and the number of the first."""

    @abstractmethod
    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]: ...


class ArrowTable(Table):
    """Rows in files of Arrow or Parquet, one after another."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = [part for part in parts if part.rows] or list(parts[:1])
        self._ends = list(accumulate(part.rows for part in self._parts))
        self._lock = threading.Lock()
        self.columns = list(dict.fromkeys(name for part in self._parts for name in part.schema.names))

    def __len__(self) -> int:
        return self._ends[-1]

    def take(self, places: Sequence[int]) -> list[Row]:
        with self._lock:
            return [self._row(place) for place in places]

    def _row(self, place: int) -> Row:
        number = bisect_right(self._ends, place)
        part = self._parts[number]
        start, batch = part.batch_at(place - (self._ends[number] - part.rows))
        within = place - (self._ends[number] - part.rows) - start
        found = decoded(batch.slice(within, 1))[0]
        return {name: found.get(name) for name in self.columns}

    def scan(self, columns: Sequence[str]) -> Iterator[Batch]:
        start = 0
        for part in self._parts:
            for batch in part.scan(columns):
                yield ArrowBatch(start, batch)
                start += batch.num_rows


class ArrowPart(Part):
    """A file of Arrow, in its stream or file format, mapped into memory."""

    MAGIC: ClassVar[bytes] = b"ARROW1"

    @cached_property
    def _reader(self) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
        with self.path.open("rb") as file:
            is_file = file.read(len(self.MAGIC)) == self.MAGIC
        mapped = pa.memory_map(str(self.path))
        return pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        # Of batches that aren't compressed only the headers are read.
        reader = self._reader
        if isinstance(reader, pa.RecordBatchFileReader):
            return [reader.get_batch(number) for number in range(reader.num_record_batches)]
        return list(reader)

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate((batch.num_rows for batch in self._batches), initial=0))[1:]

    @property
    def rows(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def schema(self) -> pa.Schema:
        return self._reader.schema

    def batch_at(self, row: int) -> tuple[int, pa.RecordBatch]:
        number = bisect_right(self._ends, row)
        batch = self._batches[number]
        return self._ends[number] - batch.num_rows, batch

    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        wanted = dict.fromkeys(METADATA if name.startswith(NOTE) else name for name in columns)
        there = [name for name in wanted if name in self.schema.names]
        for batch in self._batches:
            for start in range(0, batch.num_rows, SCANNED_AT_ONCE):
                yield batch.slice(start, SCANNED_AT_ONCE).select(there)


class ParquetPart(Part):
    """A file of Parquet. The blocks that were looked at last are kept decoded."""

    @cached_property
    def _file(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.path, memory_map=True)

    @cached_property
    def _ends(self) -> list[int]:
        metadata = self._file.metadata
        return list(accumulate(metadata.row_group(each).num_rows for each in range(metadata.num_row_groups)))

    @cached_property
    def _kept(self) -> OrderedDict[int, pa.RecordBatch]:
        return OrderedDict()

    @cached_property
    def _cursor(self) -> Cursor:
        return Cursor()

    @property
    def rows(self) -> int:
        return self._file.metadata.num_rows

    @property
    def schema(self) -> pa.Schema:
        return self._file.schema_arrow

    def batch_at(self, row: int) -> tuple[int, pa.RecordBatch]:
        for start, batch in self._kept.items():
            if start <= row < start + batch.num_rows:
                self._kept.move_to_end(start)
                return start, batch
        cursor, group = self._cursor, bisect_right(self._ends, row)
        if cursor.group != group or cursor.next > row:
            cursor.group, cursor.next = group, self._ends[group - 1] if group else 0
            cursor.batches = self._file.iter_batches(BLOCK_ROWS, row_groups=[group])
        while True:
            start, batch = cursor.next, next(cursor.batches)
            cursor.next += batch.num_rows
            if row < cursor.next:
                self._kept[start] = batch
                while len(self._kept) > BLOCKS_KEPT:
                    self._kept.popitem(last=False)
                return start, batch

    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        noted = METADATA in self.schema.names and pa.types.is_struct(self.schema.field(METADATA).type)
        wanted = dict.fromkeys(METADATA if name.startswith(NOTE) and not noted else name for name in columns)
        # A file of its own: a reader isn't to be used by several threads.
        with pq.ParquetFile(self.path, memory_map=True) as file:
            yield from file.iter_batches(SCANNED_AT_ONCE, columns=list(wanted))


@dataclass
class Cursor:
    """How far the rows of a row group are decoded: one goes on from there, for pages come one after another."""

    group: int = -1
    next: int = 0
    batches: Iterator[pa.RecordBatch] = field(default_factory=lambda: iter(()))
