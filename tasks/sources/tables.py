"""Tables of Arrow as rows, and the types of columns that rows have."""

# datasets, fsspec and pyarrow have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from tasks.arrow import ColumnTypes, holds_json
from tasks.sources.strict_json import exact_json
from tasks.sources.times import check_times, feature_in_microseconds, whole_times
from tasks.steps import METADATA, SourceTypes
from tasks.typing import Row

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


ROWS_AT_ONCE = 100
"""Rows that are turned from Arrow into Python at a time."""

TYPED_AT_ONCE = 1000
"""Rows whose types are found out at a time."""


def rows_of_dataset(dataset: Dataset | IterableDataset, offset: int, *, source: str | None = None) -> Iterator[Row]:
    """The rows as plain Python values, without the first `offset`.

    Args:
        source: what messages call the dataset, where it's one: its times must have no digits after microseconds.

    Raises:
        SourceError: they have.
    """
    from datasets import Dataset

    decode = json_decoder(dataset.features or {})
    if isinstance(dataset, Dataset):
        rest: Any = dataset.select(range(min(offset, len(dataset)), len(dataset)))
    else:
        rest = dataset.skip(offset) if offset else dataset
    tables = rest.with_format("arrow").iter(ROWS_AT_ONCE)
    return rows_of_tables(tables if source is None else (whole_times(table, source) for table in tables), decode)


def types_of_dataset(dataset: Dataset | IterableDataset, source: str, rows: int | None) -> SourceTypes | None:
    """The types that a dataset tells; a stream may not know them.

    Raises:
        SourceError: a time among the first `rows` has more digits than microseconds have. A stream isn't read for it.
    """
    from datasets import Dataset

    if not dataset.features:
        return None
    given = dict(dataset.features)
    types = feature_in_microseconds(given)
    fine = [name for name, feature in types.items() if feature != given[name]]
    if fine and isinstance(dataset, Dataset):
        check_times(dataset.select_columns(fine).with_format("arrow").iter(TYPED_AT_ONCE), source, rows)
    return SourceTypes(types)


def types_of_rows(rows: Iterable[Row]) -> SourceTypes:
    """The types that all values of the columns have in common."""
    found = ColumnTypes()
    whole = iter(rows)
    while some := list(islice(whole, TYPED_AT_ONCE)):
        found.add(some)
    return types_by_values(found.types)


def types_by_values(types: Mapping[str, Any]) -> SourceTypes:
    """What `datasets` calls these types, and which of them are JSON because the values differ."""
    import pyarrow as pa
    from datasets import Features

    # What steps note has the type that it has at the end.
    features: dict[str, Any] = {name: None for name in types if name == METADATA}
    others = {name: kind for name, kind in types.items() if name != METADATA}
    features |= Features.from_arrow_schema(pa.schema(list(others.items())))
    mixed = [name for name, kind in others.items() if holds_json(kind)]
    notes = [
        f"column {name!r} holds values of several types, dicts with different keys, or numbers of more than 64 bits:"
        " it's JSON in the dataset, and each value stays as it is"
        for name in mixed
    ]
    return SourceTypes({name: features[name] for name in types}, tuple(notes))


def joined_types(found: Sequence[SourceTypes]) -> SourceTypes:
    """The types of several files as those of one source: where they differ, the values will tell."""
    features: dict[str, Any] = {}
    for types in found:
        for name, feature in types.features.items():
            features[name] = feature if features.get(name, feature) == feature else None
    return SourceTypes(features, tuple(dict.fromkeys(note for types in found for note in types.notes)))


def rows_of_tables(tables: Iterable[Any], decode: Callable[[Any], Any] | None) -> Iterator[Row]:
    for table in tables:
        rows: list[Row] = table.to_pylist(maps_as_pydicts="strict")
        yield from map(decode, rows) if decode else rows


def without_first(offset: int, tables: Iterable[Any]) -> Iterator[Any]:
    for table in tables:
        yield table.slice(offset)
        offset -= min(offset, table.num_rows)


def json_decoder(feature: Any) -> Callable[[Any], Any] | None:
    """What turns the JSON text in a value of `feature` into what it stands for; None where there is none."""
    if type(feature).__name__ == "Json":
        return lambda value: exact_json(value) if isinstance(value, str) else value
    if isinstance(feature, dict):
        fields = cast("dict[str, Any]", feature)
        within = {name: decode for name, each in fields.items() if (decode := json_decoder(each))}
        return partial(decoded_fields, within) if within else None
    inner = json_decoder(feature.feature) if hasattr(feature, "feature") else None
    return partial(decoded_items, inner) if inner else None


def decoded_fields(decoders: dict[str, Callable[[Any], Any]], value: Row | None) -> Row | None:
    return value and {**value, **{name: decode(value[name]) for name, decode in decoders.items()}}


def decoded_items(decode: Callable[[Any], Any], value: list[Any] | None) -> list[Any] | None:
    return value and [decode(each) for each in value]
