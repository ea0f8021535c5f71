"""Datasets: the files that a graph's last shards become, opened in memory's place.

Every column has one type in all files. A column that came through from the source has the type that it had there, if
its values still fit; any other one the type that its values have in common.
"""

# pyarrow, datasets and fsspec have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import contextlib
import posixpath
import shutil
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from flows.store.context import run_logger
from flows.store.digest import digest
from flows.store.shards import ShardRef, read_schema, read_table
from flows.store.storage import STORAGE_VARIABLE, Storage, StorageError, mark_used
from tasks.arrow import AS_JSON, Unfit, array_of, holds_json, is_any_list, is_json, merged, type_of, values_of
from tasks.base import ModelStep
from tasks.metadata import merged_metadata, metadata_type
from tasks.steps import METADATA

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features

    from flows.engine.graph import Node

ROWS_PER_FILE = 100_000
CHECKSUMS = "crc32.json"
BYTES_AT_A_TIME = 2**20
LAYOUT = 2
"""Of a dataset's files: another one is written anew."""


@dataclass(frozen=True)
class Known:
    """What is known of a dataset's columns before its rows are looked at."""

    features: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Those of the source, for columns that no step writes."""
    metadata_keys: Sequence[str] = ()
    """What the steps note about each row."""


def known_of(leaf: Node) -> Known:
    """What is known of the dataset of a leaf."""
    keys: dict[int, list[str]] = {}
    for node in leaf.ancestry():
        before = dict.fromkeys(key for each in node.upstream for key in keys[id(each)])
        left = before if METADATA in node.step.added_columns(frozenset({METADATA})) else []
        keys[id(node)] = list(dict.fromkeys([*left, *node.step.metadata_keys]))
    return Known(types_from_sources(leaf), keys[id(leaf)])


def types_from_sources(leaf: Node) -> dict[str, Any]:
    """The types that columns have in the sources of a leaf, but for those that a model writes."""
    found: dict[str, Any] = {}
    for node in leaf.ancestry():
        for name, feature in node.types.items():
            found[name] = feature if found.get(name, feature) == feature else None
        if isinstance(node.step, ModelStep):
            written = [*node.step.own_columns(), "model_name"]
            found |= {node.step.output_mappings.get(name, name): None for name in written}
    return {name: feature for name, feature in found.items() if feature is not None and name != METADATA}


def open_dataset(storage: Storage, refs: Sequence[ShardRef], known: Known | None = None) -> Dataset:
    """The rows of shards as one memory-mapped dataset. Its files stay in the storage's folder of this machine.

    Raises:
        StorageError: its files can't be written, or aren't there any more.
        ShardError: a shard can't be read.
    """
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import MemoryMappedTable, concat_tables

    known = known or Known()
    told = [repr(sorted(known.features.items(), key=lambda item: item[0])), list(known.metadata_keys), LAYOUT]
    folder = Path(local_datasets(storage)) / digest([[ref.digest for ref in refs], told])
    if not _is_whole(folder):
        if folder.exists():
            run_logger().warning("the dataset in %s is damaged: it's made anew from its shards", folder)
            shutil.rmtree(folder, ignore_errors=True)
        _write_dataset(storage, refs, known, folder)
    mark_used(folder)
    parts = [MemoryMappedTable.from_file(str(file)) for file in sorted(folder.glob("*.arrow"))]
    if refs and not parts:
        raise StorageError(
            f"the dataset can't be opened: {str(folder)!r} isn't the folder with its files that was written. Move away"
            " what is there, and run again: what is done so far is kept"
        )
    # `concatenate_datasets` aligns features in time 2^depth, and those of the files are the same.
    return Dataset(concat_tables([*parts]) if parts else pa.table({}))


def local_datasets(storage: Storage) -> str:
    """The folder of the datasets that were opened on this machine."""
    if storage.is_local:
        return storage.path("datasets")
    return posixpath.join(str(Path("~/.stillflow").expanduser()), "datasets")


# Types


def common_types(schemas: Sequence[pa.Schema], metadata_keys: Sequence[str]) -> dict[str, Any]:
    """One type for each column of several shards."""
    types: dict[str, Any] = {}
    # Most shards of a step have the same types.
    for schema in dict.fromkeys(schemas):
        for each in schema:
            kind = type_of(each)
            merge = merged_metadata if each.name == METADATA and not is_json(kind) else merged
            types[each.name] = merge(types[each.name], kind) if each.name in types else kind
    if METADATA in types:
        types[METADATA] = metadata_type(types[METADATA], metadata_keys)
    return types


def choices(kind: Any, name: str, known: Known) -> list[tuple[Any, Any]]:
    """What a column may be, the best first: features of `datasets`, each with its Arrow type."""
    import pyarrow as pa
    from datasets import Features, Json

    of_values = Features.from_arrow_schema(pa.schema([("", kind)]))[""]
    found = [(of_values, kind)]
    if name in known.features:
        wanted = known.features[name]
        there = Features({"": wanted}).arrow_schema.field(0).type
        if carries(there, kind):
            found.insert(0, (wanted, there))
    return found if is_json(kind) else [*found, (Json(), pa.json_())]


def carries(wanted: Any, found: Any) -> bool:
    """Whether a type can have the values of another one, as far as types tell: some may turn out not to fit."""
    import pyarrow as pa

    is_a = pa.types
    if wanted == found or is_json(wanted) or is_a.is_null(found):
        return True
    if isinstance(wanted, pa.BaseExtensionType):
        return carries(wanted.storage_type, found)
    if is_a.is_struct(wanted) and is_a.is_struct(found):
        there = {each.name: each.type for each in found}
        return {each.name for each in wanted} == set(there) and all(carries(w.type, there[w.name]) for w in wanted)
    if is_a.is_nested(wanted) or is_a.is_nested(found):
        lists = hasattr(wanted, "value_type") and hasattr(found, "value_type")
        return lists and carries(wanted.value_type, found.value_type)
    alike = [is_a.is_integer, is_a.is_floating, is_a.is_date, is_a.is_time, is_a.is_duration, is_a.is_decimal]
    if any(each(wanted) and each(found) for each in alike):
        return True
    if is_a.is_string(found):
        return is_a.is_large_string(wanted) or is_a.is_string_view(wanted)
    if is_a.is_binary(found):
        return is_a.is_large_binary(wanted) or is_a.is_binary_view(wanted) or is_a.is_fixed_size_binary(wanted)
    return is_a.is_timestamp(wanted) and is_a.is_timestamp(found) and wanted.tz == found.tz


# Files


def _is_whole(folder: Path) -> bool:
    """Whether a dataset's files are as they were written: Arrow's files have no checksums of their own."""
    try:
        return orjson.loads((folder / CHECKSUMS).read_bytes()) == _checksums(folder)
    except (OSError, orjson.JSONDecodeError):
        return False


def _checksums(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for path in sorted(folder.glob("*.arrow")):
        checksum = 0
        with path.open("rb") as file:
            while some := file.read(BYTES_AT_A_TIME):
                checksum = zlib.crc32(some, checksum)
        found[path.name] = checksum
    return found


def _write_dataset(storage: Storage, refs: Sequence[ShardRef], known: Known, folder: Path) -> None:
    """Write all files of a dataset or none. Raises StorageError."""
    types = common_types([read_schema(storage, ref) for ref in refs], known.metadata_keys)
    options = {name: choices(kind, name, known) for name, kind in types.items()}
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        while True:
            try:
                fresh.mkdir(parents=True)
                _write_arrow(storage, refs, {name: each[0] for name, each in options.items()}, fresh)
                break
            except _ColumnUnfit as problem:
                # Rare: what a column's types say is checked against its values while they are written.
                options[problem.column].pop(0)
                shutil.rmtree(fresh)
        (fresh / CHECKSUMS).write_bytes(orjson.dumps(_checksums(fresh)))
        # Another run may have been quicker with the same rows: a folder that isn't empty can't be replaced.
        with contextlib.suppress(OSError):
            fresh.rename(folder)
    except OSError as error:
        raise StorageError(
            f"can't write the dataset to {str(folder)!r}: {error}. Free some space, or set {STORAGE_VARIABLE} to a"
            " folder that has it; what is done so far is kept"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


class _ColumnUnfit(Exception):
    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def _write_arrow(
    storage: Storage, refs: Sequence[ShardRef], columns: Mapping[str, tuple[Any, Any]], folder: Path
) -> None:
    import pyarrow as pa
    from datasets import Features

    features = Features({name: feature for name, (feature, _) in columns.items()})
    schema = features.arrow_schema
    for number, some in enumerate(files_of(refs)):
        with pa.ipc.new_stream(str(folder / f"data-{number:05d}.arrow"), schema) as writer:
            for ref in some:
                writer.write_table(fitted(read_table(storage, ref), features, schema))


def files_of(refs: Sequence[ShardRef]) -> Iterator[list[ShardRef]]:
    """The shards in groups that make a file each, of `ROWS_PER_FILE` rows or a little more."""
    group: list[ShardRef] = []
    for ref in refs:
        group.append(ref)
        if sum(each.rows for each in group) >= ROWS_PER_FILE:
            yield group
            group = []
    if group:
        yield group


def fitted(table: pa.Table, features: Features, schema: pa.Schema) -> pa.Table:
    """A shard's table with the columns of a dataset; those that it lacks are null. Raises _ColumnUnfit."""
    import pyarrow as pa

    there = {name: place for place, name in enumerate(table.column_names)}
    columns: list[Any] = []
    for each in schema:
        place = there.get(each.name)
        if place is None:
            columns.append(pa.nulls(table.num_rows, each.type))
            continue
        try:
            columns.append(_converted(table.schema.field(place), table.column(place), features[each.name], each.type))
        except Unfit:
            raise _ColumnUnfit(each.name) from None
    return pa.table(columns, schema=schema)


def _converted(given: pa.Field, column: Any, feature: Any, kind: Any) -> Any:
    """A shard's column as a dataset has it. Raises Unfit."""
    if holds_json(kind):
        return array_of(values_of(given, column), kind)
    if AS_JSON in (given.metadata or {}):
        column = array_of(values_of(given, column), type_of(given))
    else:
        column = column.combine_chunks()
    return column if column.type == kind and not _has_labels(feature) else _cast(column, feature, kind)


def _has_labels(feature: Any) -> bool:
    """Whether it's numbers of classes, of which there are only so many."""
    if isinstance(feature, dict):
        return any(map(_has_labels, feature.values()))
    return hasattr(feature, "num_classes") or (hasattr(feature, "feature") and _has_labels(feature.feature))


def _cast(array: Any, feature: Any, kind: Any) -> Any:
    """An array as another type, every value as it was. Raises Unfit."""
    import pyarrow as pa
    from datasets.table import cast_array_to_feature

    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind)
    try:
        cast = cast_array_to_feature(array, feature, allow_primitive_to_str=False, allow_decimal_to_str=False)
    # What doesn't fit is raised as such by the features of `datasets` and by pyarrow, each in a way of its own.
    except Exception as error:  # noqa: BLE001 -- no common base; told to the caller, who tries the next type, or text
        raise Unfit(str(error)) from None
    if cast.type != kind or not _same_numbers(array, cast):
        raise Unfit(f"{array.type} doesn't fit into {kind}")
    return cast


def _same_numbers(one: Any, other: Any) -> bool:
    """Whether a cast of `one` to `other`, which is silent for floating-point numbers, has lost no digit."""
    import numpy as np
    import pyarrow as pa

    if isinstance(other.type, pa.BaseExtensionType):
        return _same_numbers(one, other.storage)
    if pa.types.is_struct(one.type):
        if not pa.types.is_struct(other.type) or {each.name for each in one.type} != {each.name for each in other.type}:
            return False
        return all(_same_numbers(one.field(each.name), other.field(each.name)) for each in one.type)
    if is_any_list(one.type):
        return is_any_list(other.type) and _same_numbers(one.flatten(), other.flatten())
    if one.type == other.type or not pa.types.is_floating(other.type):
        return True
    wide, back = (each.cast(pa.float64()).to_numpy(zero_copy_only=False) for each in (one, other))
    return np.array_equal(wide, back, equal_nan=True)
