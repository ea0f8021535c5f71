"""Tables that are read in part: Arrow and Parquet files of any size, of which memory holds what is looked at."""

# pyarrow has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flows.viewing.batches import METADATA, ArrowBatch, Batch, Row, decoded
from flows.viewing.files import OpenFile

Places: TypeAlias = NDArray[np.int64]

NOTE = f"{METADATA}."
"""How the name of a field of the metadata begins."""
SCANNED_AT_ONCE = 8192
"""Rows that a scan has in memory."""
BLOCK_ROWS = 1024
"""Rows of a Parquet file that are decoded at a time to be looked at."""
BYTES_AT_ONCE = 2**20
"""Of a column of a Parquet file that are read at a time."""
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
    """A file of a table. Raises ViewError where it can't be read, or was changed since it was opened."""

    path: Path

    @property
    @abstractmethod
    def rows(self) -> int: ...

    @property
    @abstractmethod
    def schema(self) -> pa.Schema: ...

    def row_at(self, row: int) -> Row:
        """A row as plain Python values."""
        with self._file.reading():
            start, batch = self._batch_at(row)
            return decoded(batch.slice(row - start, 1))[0]

    @abstractmethod
    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, in parts that nothing changes any more."""

    @abstractmethod
    def _open(self) -> Any:
        """The file, as Arrow reads it."""

    @abstractmethod
    def _batch_at(self, row: int) -> tuple[int, pa.RecordBatch]:
        """Some rows, that one among them, and the number of the first."""

    @cached_property
    def _source(self) -> Any:
        """The file, opened once: later its name may be another one's."""
        return self._open()

    @cached_property
    def _file(self) -> OpenFile:
        return OpenFile(self.path, self._source.fileno())


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
        found = part.row_at(place - (self._ends[number] - part.rows))
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

    def _open(self) -> Any:
        return pa.memory_map(str(self.path))

    @cached_property
    def _reader(self) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
        is_file = self._source.read_at(len(self.MAGIC), 0) == self.MAGIC
        return pa.ipc.open_file(self._source) if is_file else pa.ipc.open_stream(self._source)

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        # Of batches that aren't compressed only the headers are read.
        with self._file.reading():
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

    def _batch_at(self, row: int) -> tuple[int, pa.RecordBatch]:
        number = bisect_right(self._ends, row)
        batch = self._batches[number]
        return self._ends[number] - batch.num_rows, batch

    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        wanted = dict.fromkeys(METADATA if name.startswith(NOTE) else name for name in columns)
        there = [name for name in wanted if name in self.schema.names]
        notes = {name.removeprefix(NOTE) for name in columns if name.startswith(NOTE)}
        for batch in self._batches:
            for start in range(0, batch.num_rows, SCANNED_AT_ONCE):
                with self._file.reading():
                    part = copied(narrowed(batch.slice(start, SCANNED_AT_ONCE).select(there), notes))
                yield part


class ParquetPart(Part):
    """A file of Parquet. The blocks that were looked at last are kept decoded."""

    def _open(self) -> Any:
        # Not mapped into memory: all that is read of it is decoded, and a map of a file that shrinks ends the process.
        return pa.OSFile(str(self.path))

    @cached_property
    def _reader(self) -> pq.ParquetFile:
        with self._file.reading():
            return self._new_reader()

    def _new_reader(self) -> pq.ParquetFile:
        return pq.ParquetFile(self._source, buffer_size=BYTES_AT_ONCE, pre_buffer=False)

    @cached_property
    def _ends(self) -> list[int]:
        metadata = self._reader.metadata
        return list(accumulate(metadata.row_group(each).num_rows for each in range(metadata.num_row_groups)))

    @cached_property
    def _kept(self) -> OrderedDict[int, pa.RecordBatch]:
        return OrderedDict()

    @cached_property
    def _cursor(self) -> Cursor:
        return Cursor()

    @property
    def rows(self) -> int:
        return self._reader.metadata.num_rows

    @property
    def schema(self) -> pa.Schema:
        return self._reader.schema_arrow

    def _batch_at(self, row: int) -> tuple[int, pa.RecordBatch]:
        for start, batch in self._kept.items():
            if start <= row < start + batch.num_rows:
                self._kept.move_to_end(start)
                return start, batch
        cursor, group = self._cursor, bisect_right(self._ends, row)
        if cursor.group != group or cursor.next > row:
            cursor.group, cursor.next = group, self._ends[group - 1] if group else 0
            cursor.batches = self._reader.iter_batches(BLOCK_ROWS, row_groups=[group])
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
        # A reader of its own: one isn't to be used by several threads.
        with self._file.reading():
            batches = self._new_reader().iter_batches(SCANNED_AT_ONCE, columns=list(wanted))
        while True:
            with self._file.reading():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def narrowed(batch: pa.RecordBatch, notes: Collection[str]) -> pa.RecordBatch:
    """A batch whose metadata has these of its fields alone: prompts and answers are the most of it."""
    place = batch.schema.get_field_index(METADATA)
    if not notes or place < 0 or not pa.types.is_struct(batch.schema.field(place).type):
        return batch
    names = [each.name for each in batch.schema.field(place).type]
    found = {name: array for name, array in zip(names, batch.column(place).flatten(), strict=True) if name in notes}
    if not found:
        return batch.drop_columns([METADATA])
    return batch.set_column(place, METADATA, pa.StructArray.from_arrays(list(found.values()), list(found)))


def copied(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch in memory, of one that is mapped."""
    # Of a part of an array of views all is written that the whole array has.
    schema = pa.schema([each.with_type(without_views(each.type)) for each in batch.schema])
    written = pa.BufferOutputStream()
    with pa.ipc.new_stream(written, schema) as writer:
        writer.write_batch(batch if schema == batch.schema else batch.cast(schema))
    return pa.ipc.open_stream(written.getvalue()).read_next_batch()


def without_views(kind: Any) -> Any:
    """A type with texts and bytes that stand one after another in memory."""
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(without_views(each.type)) for each in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(without_views(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(without_views(kind.value_type)))
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, without_views(kind.value_type), ordered=kind.ordered)
    if pa.types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(kind) else kind


@dataclass
class Cursor:
    """How far the rows of a row group are decoded: one goes on from there, for pages come one after another."""

    group: int = -1
    next: int = 0
    batches: Iterator[pa.RecordBatch] = field(default_factory=lambda: iter(()))
