"""Shards: the Parquet files that rows travel in. Prefect sees only references to them."""

# pyarrow, datasets and fsspec have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from flows.digest import digest_of_rows
from flows.storage import Storage
from tasks.steps import failure_in
from tasks.typing import Row

if TYPE_CHECKING:
    import pyarrow as pa

REFERENCE = b"stillflow"


class ShardError(RuntimeError):
    """Rows that can't be kept, or a shard file that can't be read. The message says which and what to do."""


@dataclass(frozen=True)
class Work:
    """What it took to make a shard."""

    requests: int = 0
    """Answers in it, those taken from a journal included."""
    sent: int = 0
    """Requests that were sent for it in this run."""
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + theirs for mine, theirs in zip(self.counts(), other.counts(), strict=True)))

    def counts(self) -> tuple[int, int, int, int]:
        return (self.requests, self.sent, self.input_tokens, self.output_tokens)


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
    table = table.replace_schema_metadata({REFERENCE: orjson.dumps(asdict(ref))})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    storage.write(path, buffer.getvalue())
    return ref


def find_shard(storage: Storage, path: str) -> ShardRef | None:
    """The reference of the shard at `path`, or None where there's no sound one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not storage.exists(path):
        return None
    try:
        source: Any = path if storage.is_local else io.BytesIO(storage.read(path))
        metadata = pq.read_schema(source).metadata or {}
        known = orjson.loads(metadata[REFERENCE])
    except (OSError, pa.ArrowInvalid, KeyError, orjson.JSONDecodeError):
        return None
    return replace(ShardRef(**known), uri=path, work=Work(**known["work"]))


def read_table(storage: Storage, ref: ShardRef) -> pa.Table:
    """A shard's rows as a table. Raises ShardError where the file is gone or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source: Any = ref.uri if storage.is_local else io.BytesIO(storage.read(ref.uri))
        table = pq.read_table(source, page_checksum_verification=True)
    except (OSError, pa.ArrowInvalid) as error:
        raise ShardError(
            f"shard {ref.uri!r} can't be read: {error}. If this machine sees another storage than the one that wrote"
            " it, set STILLFLOW_STORAGE to that; if the file is damaged, delete it and run again"
        ) from None
    if table.num_rows != ref.rows:
        raise ShardError(f"shard {ref.uri!r} has {table.num_rows} rows, expected {ref.rows}; delete it and run again")
    return table


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
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            kinds = sorted({type(value).__name__ for value in values if value is not None})
            raise ShardError(
                f"column {name!r} can't be stored: it holds {', '.join(kinds)} ({error}); give it values of one type"
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


def batches_of(rows: Iterable[list[Row]], length: int) -> Iterator[list[Row]]:
    """Rows cut anew into lists of `length`; the last one may be shorter."""
    waiting: list[Row] = []
    for some in rows:
        waiting += some
        while len(waiting) >= length:
            yield waiting[:length]
            waiting = waiting[length:]
    if waiting:
        yield waiting
