"""Files of rows: found by a path or a pattern, read by their type, with the types of their columns."""

# datasets, fsspec and pyarrow have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, cast

from llms.extras import opened_with
from llms.parameters import short
from llms.quantities import quantity
from llms.root import file_of_project
from tasks.arrow import ColumnTypes, json_value, known_type
from tasks.sources.errors import SourceError
from tasks.sources.strict_json import UnusableError, line_at_fault, read_strictly, strict_json
from tasks.sources.times import check_times, feature_in_microseconds, fine_columns, whole_times
from tasks.steps import METADATA, SourceTypes
from tasks.typing import Row

if TYPE_CHECKING:
    import pyarrow as pa

from tasks.sources.tables import (
    ROWS_AT_ONCE,
    TYPED_AT_ONCE,
    json_decoder,
    rows_of_tables,
    types_by_values,
    without_first,
)

FileType = Literal["csv", "json", "jsonl", "parquet"]

ENDINGS: dict[str, FileType] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}

COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst"})

PEEKED_ROWS = 1000
"""Rows that are read to learn the columns of JSON."""


@dataclass
class ReadBefore:
    """What is known of files once they were read through."""

    csv_kinds: dict[str, CellKind]
    csv_mixed: frozenset[str] = frozenset()
    """The columns of texts that would be of numbers, or truth values, but for some of their cells."""
    plain: set[str] = field(default_factory=set[str])
    """The paths of JSON files in which a quick reader misses nothing."""


@dataclass(frozen=True)
class DataFile:
    """A file of rows."""

    filesystem: Any
    path: str
    filetype: FileType

    def read(self, offset: int, before: ReadBefore) -> Generator[Row, None, int]:
        """Yield the rows without the first `offset`. Returns how many there are, those left out included.

        Raises:
            SourceError: the file can't be read. Rows before the one at fault are yielded first.
        """
        rows = {"csv": read_csv, "json": read_json, "jsonl": read_json_lines, "parquet": read_parquet}
        with self.explained():
            return (yield from rows[self.filetype](self, offset, before))

    def read_types(self, rows: int | None, before: ReadBefore) -> tuple[int, SourceTypes]:
        """How many rows there are, and the types of their columns; of the first `rows` alone. Raises SourceError."""
        with self.explained():
            if self.filetype == "parquet":
                return parquet_types(self, rows)
            if self.filetype == "csv":
                return csv_types(self, before)
            return json_types(self, rows, before)

    def columns(self) -> frozenset[str] | None:
        """The columns; None where the first rows don't tell all of them. Raises SourceError."""
        with self.explained():
            if self.filetype == "parquet":
                with self.open() as file:
                    return frozenset(parquet_file(self, file).schema_arrow.names)
            if self.filetype == "csv":
                return frozenset(next(csv_records(self), (0, list[str]()))[1])
            rows = self.read(0, ReadBefore({}))
            columns = frozenset(chain.from_iterable(islice(rows, PEEKED_ROWS)))
            return columns if next(rows, None) is None else None

    def open(self) -> Any:
        return self.filesystem.open(self.path, "rb", compression="infer")

    def broken(self, problem: object, line: int | None = None) -> SourceError:
        """The error for a file whose content isn't what it should be."""
        where = f", line {line}" if line else ""
        return SourceError(
            f"{self}{where}: not {self.filetype} ({problem}). Mend the file, or name its real type with `filetype`"
        )

    def unusable(self, problem: object, line: int) -> SourceError:
        """The error for a row that can't be used."""
        return SourceError(f"{self}, line {line}: {problem}. Mend the line, or leave it out")

    @contextmanager
    def explained(self) -> Generator[None]:
        """Every failure of reading as a SourceError that names the file."""
        import zlib

        import pyarrow as pa

        try:
            yield
        except SourceError:
            raise
        except UnicodeDecodeError as error:
            raise self.broken(f"{error.reason}; text must be UTF-8", self._line_of_other_text()) from error
        except (OSError, EOFError, zlib.error, ImportError) as error:
            raise SourceError(f"{self} can't be read: {error or type(error).__name__}{opened_with(error)}") from error
        except (ValueError, KeyError, OverflowError, pa.ArrowException) as error:
            raise self.broken(error) from error

    def _line_of_other_text(self) -> int | None:
        """The first line that isn't UTF-8."""
        with self.open() as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return number
        return None

    def __str__(self) -> str:
        return repr(self.filesystem.unstrip_protocol(self.path).removeprefix("file://"))


def find_files(pattern: str, filetype: FileType | None, storage_options: dict[str, Any]) -> list[DataFile]:
    """The files that a path, glob, folder or address stands for, by name. Raises SourceError."""
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(file_of_project(pattern), **storage_options)
        paths = matching(filesystem, path)
    except (OSError, ValueError, ImportError) as error:
        raise SourceError(f"data_files={pattern!r} can't be looked up: {error}{opened_with(error)}") from error
    if not paths:
        problem = "matches no file" if any(sign in path for sign in "*?[") else "is not there, or holds no data files"
        raise SourceError(f"data_files={pattern!r} {problem}{looked_from(pattern)}")
    return [DataFile(filesystem, each, filetype or filetype_of(each)) for each in paths]


def matching(filesystem: Any, path: str) -> list[str]:
    if filesystem.isdir(path):
        return sorted(each for each in filesystem.find(path) if ending_of(each) in ENDINGS)
    if filesystem.exists(path):
        return [path]
    found = filesystem.glob(path) if any(sign in path for sign in "*?[") else []
    return sorted(each for each in found if filesystem.isfile(each))


def filetype_of(path: str) -> FileType:
    ending = ending_of(path)
    if ending not in ENDINGS:
        raise SourceError(
            f"{path!r}: its type isn't known by the ending {ending!r}; set `filetype` to csv, json, jsonl or parquet"
        )
    return ENDINGS[ending]


def ending_of(path: str) -> str:
    """The ending that tells the type: .csv of table.csv.gz."""
    name = PurePosixPath(path.partition("?")[0].lower())
    return name.with_suffix("").suffix if name.suffix in COMPRESSED else name.suffix


def looked_from(path: str) -> str:
    """The working directory, for a message about a relative path."""
    return "" if "://" in path or Path(path).expanduser().is_absolute() else f" (looked from {str(Path.cwd())!r})"


def read_parquet(file: DataFile, offset: int, _: object) -> Generator[Row, None, int]:
    """Row groups before `offset` aren't read at all."""
    with file.open() as stream:
        parquet = parquet_file(file, stream)
        metadata = parquet.metadata
        decode = json_decoder(features_of(parquet.schema_arrow))
        start, groups = 0, list(range(metadata.num_row_groups))
        while groups and start + metadata.row_group(groups[0]).num_rows <= offset:
            start += metadata.row_group(groups.pop(0)).num_rows
        tables = without_first(offset - start, parquet.iter_batches(ROWS_AT_ONCE, row_groups=groups))
        whole = (whole_times(table, str(file)) for table in tables)
        yield from rows_of_tables(whole, decode)
        return metadata.num_rows


def parquet_file(file: DataFile, stream: Any) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(stream, pre_buffer=False, page_checksum_verification=True)
    except pa.ArrowInvalid as error:
        raise file.broken(error) from error
    twice = names_given_twice(parquet.schema_arrow)
    if twice:
        raise SourceError(f"{file} has {' and '.join(twice)}: one of them would be lost. Write it with a name for each")
    return parquet


def names_given_twice(fields: Iterable[Any], within: str = "") -> list[str]:
    """Which columns have the name of another one, and which fields within columns."""
    places: dict[str, list[int]] = {}
    found: list[str] = []
    for place, each in enumerate(fields, 1):
        places.setdefault(each.name, []).append(place)
        for struct in structs_in(each.type):
            found += names_given_twice(struct, f" of {each.name!r}")
    what = "fields" if within else "columns"
    for name, those in places.items():
        if len(those) > 1:
            listed = f"{', '.join(map(str, those[:-1]))} and {those[-1]}"
            found.append(f"{len(those)} {what} with the name {name!r} ({what} {listed}{within})")
    return found


def structs_in(kind: Any) -> list[Any]:
    """The structs that a type is, or that stand in its lists and maps."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return [kind]
    return [struct for place in range(kind.num_fields) for struct in structs_in(kind.field(place).type)]


def parquet_types(file: DataFile, rows: int | None) -> tuple[int, SourceTypes]:
    """Reads the times of the file, or of its first `rows`, where they have nanoseconds."""
    with file.open() as stream:
        parquet = parquet_file(file, stream)
        if fine := fine_columns(parquet.schema_arrow):
            check_times(parquet.iter_batches(TYPED_AT_ONCE, columns=fine), str(file), rows)
        types = feature_in_microseconds(dict(features_of(parquet.schema_arrow)))
        return parquet.metadata.num_rows, SourceTypes(types)


def features_of(schema: pa.Schema) -> Any:
    """The types of a schema as `datasets` has them: as it noted them, if it wrote the file; else by those of Arrow."""
    import pyarrow as pa
    from datasets import Features

    fields = [pa.field(each.name, known_type(each.type)) for each in schema]
    return Features.from_arrow_schema(pa.schema(fields, schema.metadata))


def json_types(file: DataFile, rows: int | None, before: ReadBefore) -> tuple[int, SourceTypes]:
    """Reads the file through, or its first `rows`."""
    found, seen, plain = ColumnTypes(), 0, True

    def parse(text: bytes) -> Any:
        nonlocal plain
        value, quick = read_strictly(text)
        plain = plain and quick
        return value

    reader = read_json_lines if file.filetype == "jsonl" else read_json
    whole = islice(reader(file, 0, before, parse), rows)
    while some := list(islice(whole, TYPED_AT_ONCE)):
        seen += len(some)
        found.add(some)
    if plain:
        before.plain.add(file.path)
    return seen, types_by_values(found.types)


def parser_for(file: DataFile, before: ReadBefore) -> Callable[[bytes], Any]:
    return json_value if file.path in before.plain else strict_json


def read_json_lines(
    file: DataFile, offset: int, before: ReadBefore, parse: Callable[[bytes], Any] | None = None
) -> Generator[Row, None, int]:
    """Lines before `offset` aren't parsed."""
    parse = parse or parser_for(file, before)
    seen = 0
    with file.open() as stream:
        for number, line in enumerate(stream, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            seen += 1
            if seen > offset:
                yield json_row(file, line, number, parse)
    return seen


def json_row(file: DataFile, line: bytes, number: int, parse: Callable[[bytes], Any]) -> Row:
    try:
        row = parse(line)
    except UnusableError as error:
        raise file.unusable(error, number) from None
    except ValueError as error:
        raise file.broken(f"{error}, got {short(line.decode(errors='replace').strip())}", number) from None
    if not isinstance(row, dict):
        raise file.broken(f"expected an object, got {short(row)}", number)
    return cast("Row", row)


def read_json(
    file: DataFile, offset: int, before: ReadBefore, parse: Callable[[bytes], Any] | None = None
) -> Generator[Row, None, int]:
    """A list of objects, read whole, or an object per line."""
    parse = parse or parser_for(file, before)
    with file.open() as stream:
        start = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
        if not start.startswith(b"["):
            return (yield from read_json_lines(file, offset, before, parse))
        text = start + stream.read()
    try:
        rows = parse(text)
    except json.JSONDecodeError as error:
        raise file.broken(error.msg, error.lineno) from None
    except UnusableError as error:
        raise file.unusable(error, line_at_fault(text)) from None
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            raise file.broken(f"item {position} is no object, got {short(row)}")
    yield from rows[offset:]
    return len(rows)


CellKind = Literal["int", "float", "bool", "text"]

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")

# `12e5` is a name as well, such as a commit's: what writes numbers gives them a point or the exponent a sign.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)((\.[0-9]+)([eE][0-9]+)?|(\.[0-9]+)?[eE][-+][0-9]+)")

_TRUTHS = {"True": True, "False": False}

_CONVERSIONS: dict[CellKind, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": _TRUTHS.__getitem__,
    "text": str,
}


def csv_types(file: DataFile, before: ReadBefore) -> tuple[int, SourceTypes]:
    """What was found out when all tables were read; the rows aren't counted."""
    from datasets import Value

    types: dict[CellKind, str] = {"int": "int64", "float": "float64", "bool": "bool", "text": "string"}
    names = next(csv_records(file), (0, list[str]()))[1]
    features = {name: Value(types[before.csv_kinds.get(name, "text")]) for name in names}
    mixed = [name for name in names if name in before.csv_mixed]
    notes = [
        f"column {name!r} holds cells of several kinds, or such as 1.50 and true, which would change as values:"
        " all of it is text"
        for name in mixed
    ]
    return 0, SourceTypes({**features, **({METADATA: None} if METADATA in features else {})}, tuple(notes))


def read_csv(file: DataFile, offset: int, before: ReadBefore) -> Generator[Row, None, int]:
    seen = 0
    records = csv_records(file)
    names = next(records, (0, list[str]()))[1]
    conversions = [_CONVERSIONS[before.csv_kinds.get(name, "text")] for name in names]
    for _, record in records:
        seen += 1
        if seen > offset:
            cells = zip(names, conversions, record, strict=True)
            yield {name: convert(cell) if cell else None for name, convert, cell in cells}
    return seen


def csv_records(file: DataFile) -> Iterator[tuple[int, list[str]]]:
    """The line and cells of each record, all of the header's length; the header first. Raises SourceError."""
    csv.field_size_limit(sys.maxsize)
    with file.open() as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        names: list[str] = []
        line = 1
        try:
            for record in reader:
                if record and not names:
                    names = csv_header(file, record, line)
                    yield line, names
                elif record:
                    if len(record) != len(names):
                        cells = quantity(len(record), "cell")
                        raise file.broken(f"{cells}, the header has {len(names)}: {short(record)}", line)
                    yield line, record
                line = reader.line_num + 1
        except csv.Error as error:
            raise file.broken(f"{error} in the record that starts here", line) from error


def csv_header(file: DataFile, record: list[str], line: int) -> list[str]:
    names = [name or f"Unnamed: {position}" for position, name in enumerate(record)]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise file.broken(f"the header has {twice} more than once", line)
    return names


def csv_read_before(files: Iterable[DataFile], rows: int | None) -> ReadBefore:
    """What each column of the tables among the files holds, in all or in their first `rows`. Raises SourceError."""
    kinds: dict[str, CellKind] = {}
    mixed: set[str] = set()
    for file in (each for each in files if each.filetype == "csv"):
        with file.explained():
            records = csv_records(file)
            names = next(records, (0, list[str]()))[1]
            undecided = [(place, name) for place, name in enumerate(names) if kinds.get(name) != "text"]
            for _, record in islice(records, rows):
                for place, name in undecided:
                    if record[place]:
                        known, kind = kinds.get(name), cell_kind(record[place])
                        kinds[name] = kind if known in (None, kind) else "text"
                        if kinds[name] == "text" and (known is not None or may_be_a_value(record[place])):
                            mixed.add(name)
                if any(kinds.get(name) == "text" for _, name in undecided):
                    undecided = [(place, name) for place, name in undecided if kinds.get(name) != "text"]
    return ReadBefore(kinds, frozenset(mixed))


def cell_kind(cell: str) -> CellKind:
    """The kind of value that is written just as the cell is: a prompt says the same, whatever cells come to it."""
    if cell != "-0" and _INTEGER.fullmatch(cell):
        return "int"
    if cell in _TRUTHS:
        return "bool"
    return "float" if _NUMBER.fullmatch(cell) and str(float(cell)) == cell else "text"


def may_be_a_value(cell: str) -> bool:
    """Whether a cell reads as a number or a truth value, if not as one that is written like it."""
    return bool(_NUMBER.fullmatch(cell)) or cell.lower() in {"true", "false"}
