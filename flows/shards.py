"""Shards: the Parquet files that rows travel in. Prefect sees only references to them."""

# pyarrow, datasets and fsspec have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from flows.digest import digest_of_rows
from flows.log import run_logger
from flows.storage import STORAGE_VARIABLE, Storage
from tasks.steps import failure_in
from tasks.typing import Row

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

REFERENCE = b"stillflow"
SEAL = b"stillflow crc32 "
IS_SEALED = b"stillflow sealed"
SHORTEST_SHARD = 100
"""In a file's metadata, which files of before there were seals don't have."""
PARQUET = b"PAR1"
END = 8
"""Bytes at the end of a Parquet file: the length of its footer, and PARQUET."""


class ShardError(RuntimeError):
    """Rows that can't be kept, or a shard file that can't be read. The message says which and what to do."""


@dataclass(frozen=True)
class Tokens:
    """A number of answers, and the tokens that they took."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cut_off: int = 0
    """Texts among them that the limit of tokens ended."""

    def __add__(self, other: Tokens) -> Tokens:
        if not (self.requests and other.requests):
            return self if self.requests else other
        return Tokens(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cut_off + other.cut_off,
        )


NO_TOKENS = Tokens()


@dataclass(frozen=True)
class Work:
    """What it took to make a shard: all answers in it, and those of them that the run asked for itself."""

    online: Tokens = NO_TOKENS
    batched: Tokens = NO_TOKENS
    """What batch jobs answered, which costs less."""
    sent_online: Tokens = NO_TOKENS
    sent_batched: Tokens = NO_TOKENS

    def __add__(self, other: Work) -> Work:
        return Work(
            self.online + other.online,
            self.batched + other.batched,
            self.sent_online + other.sent_online,
            self.sent_batched + other.sent_batched,
        )

    @property
    def all(self) -> Tokens:
        """All answers, those of earlier runs included."""
        return self.online + self.batched

    @property
    def sent(self) -> Tokens:
        """What was asked for in this run."""
        return self.sent_online + self.sent_batched

    def of_another_run(self) -> Work:
        """The same work, seen from a run that finds it done."""
        return Work(self.online, self.batched)


def work_of(tokens: Tokens, *, sent: bool, batched: bool) -> Work:
    """The work of answers that came all by one way."""
    if batched:
        return Work(batched=tokens, sent_batched=tokens if sent else NO_TOKENS)
    return Work(online=tokens, sent_online=tokens if sent else NO_TOKENS)


def work_in(known: dict[str, Any]) -> Work:
    """The work as a shard's file has it. Files of before there were batches have one count for all."""
    if "requests" in known:
        return Work(online=Tokens(known["requests"], known["input_tokens"], known["output_tokens"]))
    return Work(**{way: Tokens(**counts) for way, counts in known.items()})


@dataclass(frozen=True)
class ShardRef:
    """A reference to a shard: where it is, how many rows it has, a digest of them, and how many of them failed."""

    uri: str
    rows: int
    digest: str
    failed: int = 0
    attempt: str = ""
    """The attempt of a run that made it: a later one tries the failed rows again."""
    work: Work = field(default_factory=Work)


def write_shard(
    storage: Storage, path: str, rows: list[Row], *, attempt: str = "", work: Work | None = None
) -> ShardRef:
    """Write rows as a shard, whole or not at all.

    Raises:
        ShardError: a column holds values of several types, or values that no file can keep.
        StorageError: the storage can't be written to.
    """
    import pyarrow.parquet as pq

    try:
        ref = ShardRef(
            uri=path,
            rows=len(rows),
            digest=digest_of_rows(rows),
            failed=sum(failure_in(row) is not None for row in rows),
            attempt=attempt,
            work=work or Work(),
        )
    except TypeError as error:
        raise ShardError(str(error)) from None
    table = table_of(rows)
    table = table.replace_schema_metadata({REFERENCE: orjson.dumps(asdict(ref)), IS_SEALED: b"1"})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    storage.write(path, sealed(buffer.getvalue()))
    return ref


def find_shard(storage: Storage, path: str) -> ShardRef | None:
    """The reference of the shard at `path`, or None where there's no sound one: a warning tells of any other.

    Raises:
        StorageError: what is there can't be looked at.
    """
    try:
        content = storage.read(path)
    except FileNotFoundError:
        return None
    try:
        with _opened(storage, path, content) as file:
            known = _reference_in(file)
    except ShardError as error:
        run_logger().warning("%s. It's made anew: what its journal doesn't answer is asked again", error)
        return None
    storage.mark_used(path)
    return replace(ShardRef(**known), uri=path, work=work_in(known["work"]))


def read_table(storage: Storage, ref: ShardRef) -> pa.Table:
    """A shard's rows as a table. Raises ShardError where the file is gone or damaged."""
    with _opened(storage, ref.uri, _content(storage, ref)) as file:
        table: pa.Table = file.read()
    if table.num_rows != ref.rows:
        raise ShardError(f"shard {ref.uri!r} has {table.num_rows} rows, expected {ref.rows}; delete it and run again")
    return table


def read_schema(storage: Storage, ref: ShardRef) -> pa.Schema:
    """The types of a shard's columns. Raises ShardError where the file is gone or damaged."""
    with _opened(storage, ref.uri, _content(storage, ref)) as file:
        return file.schema_arrow


def _content(storage: Storage, ref: ShardRef) -> bytes:
    try:
        return storage.read(ref.uri)
    except FileNotFoundError:
        raise ShardError(
            f"shard {ref.uri!r} is gone. If this machine sees another storage than the one that wrote it, set"
            f" {STORAGE_VARIABLE} to that; if the file was deleted, run again: it's made anew"
        ) from None


@contextmanager
def _opened(storage: Storage, path: str, content: bytes) -> Generator[pq.ParquetFile]:
    """The Parquet file that a shard's file is. Raises ShardError where it's damaged or another shard's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not is_sound(content):
        raise ShardError(f"shard {path!r} is damaged: its checksum is wrong, or its end is missing")
    try:
        # Not `read_table`, which is for datasets of many files: it takes four times as long.
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            if IS_SEALED in file.metadata.metadata and not has_seal(content):
                raise ShardError(f"shard {path!r} is damaged: its checksum is gone")
            written_to: str = _reference_in(file)["uri"]
            # The root may have been another one: the storage may be moved, or seen by other machines elsewhere.
            if path != written_to and not written_to.endswith(f"/{storage.inside(path)}"):
                raise ShardError(f"shard {path!r} has the rows of another one, {written_to!r}")
            yield file
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise ShardError(f"shard {path!r} is damaged: {' '.join(str(error).split())}") from None


def _reference_in(file: pq.ParquetFile) -> dict[str, Any]:
    return orjson.loads(file.metadata.metadata[REFERENCE])


def sealed(content: bytes) -> bytes:
    """A Parquet file with a checksum before its footer, where readers of Parquet don't look."""
    start = _footer_start(content)
    return b"".join((content[:start], SEAL, b"%08x" % zlib.crc32(content), content[start:]))


def is_sound(content: bytes) -> bool:
    """Whether a Parquet file is as it was when it was sealed. One that has no seal may be."""
    start = _footer_start(content)
    if not content.endswith(PARQUET) or start < 0:
        return False
    whole = memoryview(content)
    checksum = b"%08x" % zlib.crc32(whole[start:], zlib.crc32(whole[: start - len(SEAL) - 8]))
    return not has_seal(content) or content[start - 8 : start] == checksum


def has_seal(content: bytes) -> bool:
    return content.endswith(SEAL, 0, _footer_start(content) - 8)


def _footer_start(content: bytes) -> int:
    return len(content) - END - int.from_bytes(content[-END : -len(PARQUET)], "little")


def read_shard(storage: Storage, ref: ShardRef) -> list[Row]:
    """A shard's rows. Raises ShardError."""
    return read_table(storage, ref).to_pylist()


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table with every column that any of them has. Raises ShardError."""
    import pyarrow as pa

    columns = list(dict.fromkeys(name for row in rows for name in row))
    arrays: list[pa.Array] = []
    for name in columns:
        values = [row.get(name) for row in rows]
        try:
            array = pa.array(values)
            arrays.append(
                pa.array([_without_empty(value) for value in values]) if _has_empty_struct(array.type) else array
            )
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            kinds = sorted({type(value).__name__ for value in values if value is not None})
            raise ShardError(
                f"column {name!r} can't be stored: it holds {', '.join(kinds)} ({error}); give it values of one type"
                " that a Parquet file can keep"
            ) from None
    return pa.table(arrays, names=columns) if columns else pa.table({"": pa.nulls(len(rows))}).select([])


def _has_empty_struct(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_has_empty_struct(each.type) for each in kind)
    return pa.types.is_list(kind) and _has_empty_struct(kind.value_type)


def _without_empty(value: Any) -> Any:
    """Parquet has no struct without fields: an empty dict is kept as None."""
    if isinstance(value, dict):
        return {name: _without_empty(each) for name, each in value.items()} or None
    return [_without_empty(each) for each in value] if isinstance(value, list) else value


def unified_schema(tables: Iterable[pa.Schema]) -> pa.Schema:
    """One schema for all shards of a dataset. Raises ShardError where a column's types can't be reconciled."""
    import pyarrow as pa

    whole: pa.Schema | None = None
    for schema in tables:
        plain = schema.remove_metadata()
        try:
            whole = plain if whole is None else pa.unify_schemas([whole, plain], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ShardError(f"shards of one dataset don't fit together: {error}; give the column one type") from None
    return whole if whole is not None else pa.schema([])


def batches_of(rows: Iterable[list[Row]], lengths: Iterator[int]) -> Iterator[list[Row]]:
    """Rows cut anew into lists of these lengths; the last one may be shorter."""
    waiting: list[Row] = []
    length = next(lengths)
    for some in rows:
        waiting += some
        while len(waiting) >= length:
            yield waiting[:length]
            waiting = waiting[length:]
            length = next(lengths)
    if waiting:
        yield waiting


def shard_lengths(longest: int) -> Iterator[int]:
    """How many rows shards have, one after another."""
    return (shard_length(place, longest) for place in itertools.count())


def shard_length(place: int, longest: int) -> int:
    """How many rows the shard at a place has: a twentieth of all rows before it, within bounds.

    So the next step begins soon, and ends soon after this one, in a small dataset too.
    """
    before = 0
    for _ in range(place):
        length = min(longest, max(SHORTEST_SHARD, before // 20))
        if length == longest:
            return longest
        before += length
    return min(longest, max(SHORTEST_SHARD, before // 20))
