"""Times of sources, in microseconds: Python's end there, and what is finer would be cut in silence."""

# pyarrow and datasets have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, cast

from tasks.arrow import is_any_list, list_like
from tasks.sources.errors import SourceError


def in_microseconds(kind: Any) -> Any:
    """The type of Arrow with microseconds in place of nanoseconds, wherever they are within it."""
    import pyarrow as pa

    is_a = pa.types
    if is_a.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if is_a.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if is_a.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if is_a.is_struct(kind):
        return pa.struct([each.with_type(in_microseconds(each.type)) for each in kind])
    if is_a.is_map(kind):
        return pa.map_(in_microseconds(kind.key_type), in_microseconds(kind.item_type))
    if is_any_list(kind):
        return list_like(kind, in_microseconds(kind.value_type))
    if is_a.is_dictionary(kind):
        inner = in_microseconds(kind.value_type)
        return kind if inner == kind.value_type else inner
    return kind


def feature_in_microseconds(feature: Any) -> Any:
    """The same of a feature of `datasets`."""
    if isinstance(feature, dict):
        return {name: feature_in_microseconds(each) for name, each in cast("dict[str, Any]", feature).items()}
    if hasattr(feature, "feature"):
        return dataclasses.replace(feature, feature=feature_in_microseconds(feature.feature))
    if type(feature).__name__ == "Value" and "[ns" in feature.dtype:
        return dataclasses.replace(feature, dtype=feature.dtype.replace("[ns", "[us"))
    return feature


def fine_columns(schema: Any) -> list[str]:
    """The columns of a schema that have nanoseconds in them."""
    return [each.name for each in schema if in_microseconds(each.type) != each.type]


def whole_times(table: Any, source: str) -> Any:
    """A table, or a batch, with its times in microseconds.

    Raises:
        SourceError: one has more digits. The message says in which column of `source`, and the way out.
    """
    import pyarrow as pa

    for name in fine_columns(table.schema):
        place = table.schema.get_field_index(name)
        column = table.column(place)
        try:
            table = table.set_column(place, name, column.cast(in_microseconds(column.type)))
        except pa.ArrowInvalid as error:
            raise SourceError(
                f"{source}, column {name!r}: times end at microseconds here, and nanoseconds would be cut ({error})."
                " Round them to microseconds, or give them as text or whole numbers"
            ) from None
    return table


def check_times(tables: Iterable[Any], source: str, rows: int | None) -> None:
    """`whole_times` of the first `rows`, or of all. Raises SourceError."""
    for table in tables:
        whole_times(table.slice(0, rows), source)
        left = None if rows is None else rows - int(table.num_rows)
        if left is not None and left <= 0:
            return
        rows = left
