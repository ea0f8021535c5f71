"""Shards: the Parquet files that rows travel in. Prefect sees only references to them."""

# pyarrow, datasets and fsspec have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import io
import itertools
import zlib
from array import array
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson

from flows.store.context import run_logger
from flows.store.digest import summary_of_rows
from flows.store.storage import STORAGE_VARIABLE, Storage
from llms.errors import failure_of
from llms.quantities import quantity
from tasks.arrow import cleaned, column_of, rows_in, shape_of, unkeepable
from tasks.metadata import metadata_shape
from tasks.steps import METADATA, failure_in
from tasks.typing import Row

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

REFERENCE = b"stillflow"
QUESTIONS = b"stillflow questions"
"""In a file's metadata: the first question of each row that it was made from, 8 bytes each."""
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
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    dollars: float = 0.0
    """What those answers cost whose price was known when they came."""
    priced: int = 0
    """How many these are. None of them in files of before there were prices by request."""
    assumed: int = 0
    """How many of these have a price that the list doesn't have for the way they were asked."""
    unfinished: Mapping[str, int] = field(default_factory=dict[str, int])
    """Texts that aren't known to be whole for another reason, by the provider's word for why they ended."""

    def __add__(self, other: Tokens) -> Tokens:
        if not (self.requests and other.requests):
            return self if self.requests else other
        return Tokens(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cut_off + other.cut_off,
            self.cached_tokens + other.cached_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.dollars + other.dollars,
            self.priced + other.priced,
            self.assumed + other.assumed,
            _added(self.unfinished, other.unfinished),
        )


def _added(some: Mapping[str, int], others: Mapping[str, int]) -> Mapping[str, int]:
    return dict(Counter(some) + Counter(others)) if some and others else some or others


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
    storage: Storage,
    path: str,
    rows: list[Row],
    *,
    attempt: str = "",
    work: Work | None = None,
    step: str = "",
    questions: Sequence[int] | None = None,
) -> ShardRef:
    """Write rows as a shard, whole or not at all. No type of their values is refused.

    Args:
        step: who made them. Rows that hold what no file can keep (an object, half of a character) lose it, and fail
            under the step's name.
        questions: what was asked first for each row that it's made from, as 64-bit numbers.

    Raises:
        ShardError: no step made such rows. The message says where they hold what.
        StorageError: the storage can't be written to.
    """
    import pyarrow.parquet as pq

    try:
        found = summary_of_rows(rows)
    except TypeError as error:
        if not step:
            raise ShardError(str(error)) from None
        rows = [_keepable(row, step) for row in rows]
        found = summary_of_rows(rows)
    ref = ShardRef(
        uri=path,
        rows=len(rows),
        digest=found.digest,
        failed=sum(failure_in(row) is not None for row in rows),
        attempt=attempt,
        work=work or Work(),
    )
    table = table_of(rows, plain=found.plain)
    asked = {QUESTIONS: array("Q", questions).tobytes()} if questions is not None else {}
    table = table.replace_schema_metadata({REFERENCE: orjson.dumps(asdict(ref)), IS_SEALED: b"1", **asked})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    storage.write(path, sealed(buffer.getvalue()))
    return ref


def _keepable(row: Row, step: str) -> Row:
    problems = {name: problem for name, value in row.items() if (problem := unkeepable([name, value]))}
    if not problems:
        return row
    left = {cleaned(name): None if name in problems else value for name, value in row.items()}
    metadata: Row = cleaned(row[METADATA]) if METADATA in problems else row.get(METADATA) or {}
    error = ValueError("; ".join(f"{name}: {problem}" for name, problem in problems.items()))
    return {**left, METADATA: {**metadata, f"error_{step}": failure_of(error)}}


def find_shard(storage: Storage, path: str) -> ShardRef | None:
    """The reference of the shard at `path`; see `found_shard`."""
    found = found_shard(storage, path)
    return found[0] if found is not None else None


def found_shard(storage: Storage, path: str) -> tuple[ShardRef, list[int] | None] | None:
    """The reference of the shard at `path`, and the questions that `write_shard` was given, if it was.

    None where there's no sound one: a warning tells of any other.

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
            asked = file.metadata.metadata.get(QUESTIONS)
    except ShardError as error:
        run_logger().warning("%s. It's made anew: what the ledger doesn't answer is asked again", error)
        return None
    storage.mark_used(path)
    ref = replace(ShardRef(**known), uri=path, work=work_in(known["work"]))
    return ref, array("Q", asked).tolist() if asked is not None else None


def read_table(storage: Storage, ref: ShardRef) -> pa.Table:
    """A shard's rows as a table. Raises ShardError where the file is gone or damaged."""
    with _opened(storage, ref.uri, _content(storage, ref)) as file:
        table: pa.Table = file.read()
    if table.num_rows != ref.rows:
        rows = quantity(table.num_rows, "row")
        raise ShardError(f"shard {ref.uri!r} has {rows}, expected {ref.rows}; delete it and run again")
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
    return rows_in(read_table(storage, ref))


def table_of(rows: Sequence[Row], *, plain: bool = False) -> pa.Table:
    """Rows as a table with every column that any of them has, from which `read_shard` makes the same rows again.

    Args:
        plain: there's no NaN in the rows, and no number of more than 64 bits.
    """
    import pyarrow as pa

    columns = list(dict.fromkeys(chain.from_iterable(rows)))
    fields: list[pa.Field] = []
    arrays: list[pa.Array] = []
    for name in columns:
        values = [row.get(name) for row in rows]
        shape = metadata_shape(values) if name == METADATA else shape_of(values)
        field, array = column_of(name, values, shape, plain=plain)
        fields.append(field)
        arrays.append(array)
    return pa.table(arrays, pa.schema(fields)) if columns else pa.table({"": pa.nulls(len(rows))}).select([])


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
