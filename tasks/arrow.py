"""Values of rows as columns of Arrow, and back again, each as it was.

A column has the type that all its values have. One that holds values of several types, or dicts with different keys,
holds JSON: `Json()` in `datasets`. Which type a column gets never fails, and loses nothing:

- whole numbers beside others are numbers, where those can hold them exactly;
- whole numbers of more than 64 bits are JSON;
- what JSON has no form for, beside values of another type, is text there: bytes in base64.
"""

# pyarrow has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import base64
import datetime
import functools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import orjson

from llms.parameters import short

if TYPE_CHECKING:
    import pyarrow as pa

Family = Literal["text", "flag", "whole", "number", "bytes", "list", "dict", "moment", "other"]

LARGEST_IN_A_NUMBER = 2**53
"""Up to it, every whole number is also a floating-point number."""
DEEPEST = 200
"""Levels of lists and dicts in a value: JSON's writers give up some levels further."""
_OPTIONS_OF_TEXT_KEYS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATETIME
_OPTIONS = _OPTIONS_OF_TEXT_KEYS | orjson.OPT_NON_STR_KEYS


class Unfit(ValueError):
    """Values that a type can't hold as they are."""


class Shape(NamedTuple):
    """What values have in common."""

    type: pa.DataType
    """Of a dataset's column of them."""
    exact: bool
    """Whether they come out of an Arrow array of that type as they went in."""


def shape_of(values: Sequence[Any]) -> Shape:
    """The type of a column of these values."""
    import pyarrow as pa

    kinds = set(map(type, values))
    kinds.discard(type(None))
    families = set(map(family_of, kinds))
    if not families:
        return Shape(pa.null(), True)
    if families == {"whole", "number"}:
        return _numbers(values)
    if len(families) > 1:
        return Shape(pa.json_(), False)
    family = families.pop()
    if family in {"text", "flag", "number", "bytes"}:
        plain = {"text": pa.string(), "flag": pa.bool_(), "number": pa.float64(), "bytes": pa.binary()}
        return Shape(plain[family], True)
    shapes = {"whole": _whole_numbers, "list": _lists, "dict": _dicts}
    return shapes.get(family, _others)(values)


@functools.lru_cache(maxsize=1000)
def family_of(kind: type) -> Family:
    """Which of the kinds of values that go together a type is of."""
    known: list[tuple[Family, tuple[type, ...]]] = [
        ("text", (str,)),
        ("flag", (bool,)),
        ("whole", (int,)),
        ("number", (float,)),
        ("dict", (dict,)),
        ("list", (list, tuple, set)),
        ("bytes", (bytes, bytearray)),
        ("moment", (datetime.datetime,)),
    ]
    for family, kinds in known:
        if issubclass(kind, kinds):
            return family
    names = {each.__name__ for each in kind.__mro__ if each.__module__ == "numpy"}
    if "integer" in names:
        return "whole"
    if "floating" in names:
        return "number"
    return "flag" if "bool" in names else "list" if "ndarray" in names else "other"


def _whole_numbers(values: Sequence[Any]) -> Shape:
    import pyarrow as pa

    for kind in (pa.int64(), pa.uint64()):
        try:
            pa.array(values, kind)
        except (OverflowError, pa.ArrowException):
            continue
        return Shape(kind, True)
    return Shape(pa.json_(), False)


def _numbers(values: Sequence[Any]) -> Shape:
    """1 stays 1 beside 2.5, and a number is a number."""
    import pyarrow as pa

    whole = [value for value in values if value is not None and family_of(type(value)) == "whole"]
    fits = max(map(abs, whole)) <= LARGEST_IN_A_NUMBER
    return Shape(pa.float64() if fits else pa.json_(), False)


def _lists(values: Sequence[Any]) -> Shape:
    import pyarrow as pa

    arrays = [value for value in values if hasattr(value, "dtype")]
    if arrays:
        try:
            found = pa.array(values).type
        except (pa.ArrowException, ValueError, TypeError):
            plain = [value.tolist() if hasattr(value, "dtype") else value for value in values]
            return Shape(shape_of(plain).type, False)
        if is_known(found):
            return Shape(found, True)
    inner = shape_of(list(chain.from_iterable(value for value in values if value is not None)))
    return Shape(pa.list_(inner.type), inner.exact)


def _dicts(values: Sequence[Any]) -> Shape:
    import pyarrow as pa

    dicts = [value for value in values if value is not None]
    orders = set(map(tuple, dicts))
    names = tuple(dicts[0])
    if not names or not all(type(name) is str for name in names) or len(set(map(frozenset, orders))) > 1:
        return Shape(pa.json_(), False)
    fields = {name: shape_of([each[name] for each in dicts]) for name in names}
    exact = len(orders) == 1 and all(each.exact for each in fields.values())
    return Shape(pa.struct([(name, each.type) for name, each in fields.items()]), exact)


def _others(values: Sequence[Any]) -> Shape:
    """Dates and the like: whatever Arrow takes them for, as long as they are of one kind."""
    import pyarrow as pa

    there = [value for value in values if value is not None]
    if len({(family_of(type(value)), _kind_of_day(value), str(getattr(value, "tzinfo", None))) for value in there}) > 1:
        return Shape(pa.json_(), False)
    try:
        found = pa.array(values).type
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return Shape(pa.json_(), False)
    return Shape(found, True) if is_known(found) else Shape(pa.json_(), False)


def _kind_of_day(value: Any) -> str:
    return "" if isinstance(value, datetime.datetime) else type(value).__name__


def is_known(kind: Any) -> bool:
    """Whether `datasets` has the type."""
    import pyarrow as pa

    is_a = pa.types
    if is_a.is_struct(kind):
        return kind.num_fields > 0 and all(is_known(each.type) for each in kind)
    if is_any_list(kind):
        return is_known(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return is_json(kind) or kind.extension_name.startswith("datasets.")
    plain = (is_a.is_null, is_a.is_boolean, is_a.is_integer, is_a.is_floating, is_a.is_date, is_a.is_time)
    long = (is_a.is_timestamp, is_a.is_duration, is_a.is_decimal128, is_a.is_decimal256, is_a.is_fixed_size_binary)
    texts = (is_a.is_string, is_a.is_large_string, is_a.is_string_view)
    binaries = (is_a.is_binary, is_a.is_large_binary, is_a.is_binary_view)
    return any(each(kind) for each in (*plain, *long, *texts, *binaries))


def known_type(kind: Any) -> Any:
    """The type of `datasets` for values of any type of Arrow: JSON, where there's no nearer one."""
    import pyarrow as pa

    is_a = pa.types
    if is_a.is_struct(kind) and kind.num_fields:
        return pa.struct([(each.name, known_type(each.type)) for each in kind])
    if is_a.is_list(kind) or is_a.is_list_view(kind):
        return pa.list_(known_type(kind.value_type))
    if is_a.is_large_list(kind) or is_a.is_large_list_view(kind):
        return pa.large_list(known_type(kind.value_type))
    if is_a.is_fixed_size_list(kind):
        return pa.list_(known_type(kind.value_type), kind.list_size)
    if is_known(kind):
        return kind
    if is_a.is_dictionary(kind) or is_a.is_run_end_encoded(kind):
        return known_type(kind.value_type)
    if is_a.is_decimal32(kind) or is_a.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    nearest = {"arrow.uuid": pa.string(), "arrow.bool8": pa.bool_()}
    return nearest.get(getattr(kind, "extension_name", ""), pa.json_())


def is_json(kind: Any) -> bool:
    return getattr(kind, "extension_name", "") == "arrow.json"


def is_any_list(kind: Any) -> bool:
    """Whether it's a list: plain, large, or of a fixed size."""
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def list_like(kind: Any, inner: Any) -> Any:
    """A list as `kind` is one, of values of the type `inner`."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner, kind.list_size)
    return pa.large_list(inner) if pa.types.is_large_list(kind) else pa.list_(inner)


def holds_json(kind: Any) -> bool:
    """Whether it is JSON, or has it somewhere inside."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(holds_json(each.type) for each in kind)
    return holds_json(kind.value_type) if is_any_list(kind) else is_json(kind)


# Types of several columns as one


@dataclass
class ColumnTypes:
    """The types of the columns of rows that come by, a part of them at a time."""

    types: dict[str, pa.DataType] = field(default_factory=dict[str, Any])

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for name in dict.fromkeys(chain.from_iterable(rows)):
            known = self.types.get(name)
            if known is None or not is_json(known):
                kind = shape_of([row.get(name) for row in rows]).type
                self.types[name] = kind if known is None else merged(known, kind)


def merged(one: Any, other: Any) -> Any:
    """The type of a column that has values of both."""
    import pyarrow as pa

    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if pa.types.is_list(one) and pa.types.is_list(other):
        return pa.list_(merged(one.value_type, other.value_type))
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return _merged_structs(one, other)
    kinds = [one, other]
    if all(pa.types.is_integer(kind) for kind in kinds):
        # All of them are of 64 bits: where one is negative, the values don't fit, and become JSON.
        return pa.uint64()
    if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds):
        return pa.float64()
    if all(pa.types.is_decimal(kind) for kind in kinds):
        return _merged_decimals(one, other)
    if all(pa.types.is_timestamp(kind) for kind in kinds) and one.tz == other.tz:
        return max(kinds, key=lambda kind: ["s", "ms", "us", "ns"].index(kind.unit))
    return pa.json_()


def _merged_structs(one: Any, other: Any) -> Any:
    import pyarrow as pa

    if {each.name for each in one} != {each.name for each in other}:
        return pa.json_()
    return pa.struct([(each.name, merged(each.type, other.field(each.name).type)) for each in one])


def _merged_decimals(one: Any, other: Any) -> Any:
    import pyarrow as pa

    scale = max(one.scale, other.scale)
    precision = scale + max(one.precision - one.scale, other.precision - other.scale)
    if precision > 76:
        return pa.json_()
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


# Columns as they are kept between steps


AS_JSON = b"stillflow json"
"""In a field's metadata: its texts are JSON. With it stands the type that a dataset's column of them has."""
EVERY_DIGIT = b"stillflow every digit"
"""Beside it, where there are numbers of more than 64 bits, or none (NaN)."""


def column_of(name: str, values: Sequence[Any], shape: Shape, *, plain: bool) -> tuple[Any, Any]:
    """A field and an array that give the values back as they were.

    Args:
        shape: of the values. What isn't exact is kept as JSON.
        plain: there's no NaN in the values, and no number of more than 64 bits.
    """
    import pyarrow as pa

    if shape.exact:
        return pa.field(name, shape.type), pa.array(values, shape.type)
    texts = [None if value is None else json_text(value, plain=plain) for value in values]
    metadata = {AS_JSON: pa.schema([("", shape.type)]).serialize().to_pybytes()}
    metadata = metadata if plain else {**metadata, EVERY_DIGIT: b"1"}
    return pa.field(name, pa.string(), metadata=metadata), pa.array(texts, pa.string())


def values_of(given: Any, column: Any) -> list[Any]:
    """The values that `column_of` was given."""
    values = column.to_pylist()
    if AS_JSON not in (given.metadata or {}):
        return values
    read = json.loads if EVERY_DIGIT in given.metadata else orjson.loads
    return [None if value is None else read(value) for value in values]


def type_of(given: Any) -> Any:
    """The type that a dataset's column of a field's values has."""
    import pyarrow as pa

    kept = (given.metadata or {}).get(AS_JSON)
    return given.type if kept is None else pa.ipc.read_schema(pa.py_buffer(kept)).field(0).type


def rows_in(table: Any) -> list[dict[str, Any]]:
    """The rows of a table of such columns."""
    rows: list[dict[str, Any]] = table.to_pylist()
    for place, each in enumerate(table.schema):
        if AS_JSON in (each.metadata or {}):
            for row, value in zip(rows, values_of(each, table.column(place)), strict=True):
                row[each.name] = value
    return rows


# Columns of datasets


def array_of(values: Sequence[Any], kind: Any) -> Any:
    """Values as an array of a type, which may have JSON in it. Raises Unfit where it can't hold them."""
    import pyarrow as pa

    try:
        if not holds_json(kind):
            return pa.array(values, kind)
        return pa.array([_with_json(value, kind) for value in values], _with_text(kind)).cast(kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise Unfit(str(error)) from None


def _with_json(value: Any, kind: Any) -> Any:
    import pyarrow as pa

    if value is None:
        return None
    if is_json(kind):
        return json_text(value, readable=True)
    if pa.types.is_struct(kind):
        return {each.name: _with_json(value.get(each.name), each.type) for each in kind}
    return [_with_json(each, kind.value_type) for each in value] if is_any_list(kind) else value


def _with_text(kind: Any) -> Any:
    """The type with text in place of JSON."""
    import pyarrow as pa

    if is_json(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([(each.name, _with_text(each.type)) for each in kind])
    return list_like(kind, _with_text(kind.value_type)) if is_any_list(kind) else kind


def json_text(value: Any, *, plain: bool = False, readable: bool = False) -> str:
    """A value as JSON, with NaN and whole numbers of any length as Python writes them.

    Args:
        plain: there are neither in it.
        readable: write whole numbers of more than 64 bits as text: most readers make others of them, or give up.
    """
    try:
        text = orjson.dumps(value, default=as_text, option=_OPTIONS)
    except TypeError:
        return json.dumps(_pure(value, readable), ensure_ascii=False)
    # It writes numbers that are none as null.
    if not plain and b"null" in text and holds_no_number(value):
        return json.dumps(_pure(value, readable), ensure_ascii=False)
    return text.decode()


def json_value(text: str | bytes) -> Any:
    """What JSON stands for; whole numbers of more than 64 bits as floating-point ones. Raises ValueError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def _pure(value: Any, readable: bool) -> Any:
    """The value in what Python's own writer of JSON takes."""
    if value is None or isinstance(value, str | bool | float):
        return value
    if isinstance(value, int):
        return str(value) if readable and not -(2**63) <= value < 2**64 else value
    if isinstance(value, dict):
        return {_key_text(key): _pure(each, readable) for key, each in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_pure(each, readable) for each in cast("Iterable[Any]", value)]
    if hasattr(value, "tolist"):
        return _pure(value.tolist(), readable)
    return orjson.loads(orjson.dumps(value, default=as_text, option=_OPTIONS))


def _key_text(key: Any) -> str:
    return key if isinstance(key, str) else next(iter(orjson.loads(orjson.dumps({key: 0}, option=_OPTIONS))))


def _text_of_key(key: Any) -> Any:
    # A key that can't be one is told of by itself.
    try:
        return _key_text(key)
    except TypeError:
        return key


def as_text(value: Any) -> Any:
    """A value that JSON has no form for, as one that it has. Raises TypeError for what can't be kept in a row."""
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if isinstance(value, set | frozenset):
        return list(cast("Iterable[Any]", value))
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat") or type(value).__name__ in {"Decimal", "timedelta"}:
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__} can't be kept in a row: {value!r:.100}")


def holds_no_number(value: Any) -> bool:
    """Whether there's a NaN or an infinity in it."""
    if value is None or isinstance(value, str | int):
        return False
    if isinstance(value, dict):
        return any(map(holds_no_number, cast("dict[Any, Any]", value).values()))
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, list | tuple):
        return _list_holds_no_number(cast("list[Any]", value))
    return hasattr(value, "dtype") and holds_no_number(value.tolist())


def _list_holds_no_number(values: list[Any] | tuple[Any, ...]) -> bool:
    if values and isinstance(values[0], float):
        try:
            # A vector: its sum is a number if all of them are, and small ones.
            if math.isfinite(sum(values)):
                return False
        except TypeError:
            pass
    return any(map(holds_no_number, values))


def unkeepable(value: Any) -> str:
    """Why a value can't be kept in a row; empty where nothing speaks against it."""
    try:
        orjson.dumps(value, default=_kept, option=_OPTIONS_OF_TEXT_KEYS)
    except TypeError:
        return _at_fault(value, 0)
    return ""


def _at_fault(value: Any, depth: int) -> str:
    if depth > DEEPEST:
        return f"expected at most {DEEPEST} levels of lists and dicts, got more"
    if isinstance(value, str):
        return "" if is_whole(value) else f"expected whole characters, got half of one in {short(value)}"
    if isinstance(value, Mapping):
        keys = [key if type(key) is str else _text_of_key(key) for key in cast("Mapping[Any, Any]", value)]
        if twice := next((key for key, count in Counter(keys).items() if count > 1), None):
            return f"expected keys that differ as texts, got {twice!r} more than once in {short(value)}"
        every = chain.from_iterable(cast("Mapping[Any, Any]", value).items())
        return next((found for each in every if (found := _at_fault(each, depth + 1))), "")
    if isinstance(value, list | tuple | set | frozenset):
        return next((found for each in cast("Iterable[Any]", value) if (found := _at_fault(each, depth + 1))), "")
    if value is None or isinstance(value, int | float):
        return ""
    try:
        orjson.dumps(value, default=_kept, option=_OPTIONS)
    except TypeError as error:
        return str(error.__cause__ or error)
    return ""


def _kept(value: Any) -> Any:
    # Of pandas: a moment has the first, a length of time the second.
    if getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0):
        raise TypeError(f"expected a time that ends at microseconds, got {value!r}; round it, or give it as text")
    return as_text(value)


def cleaned(value: Any) -> Any:
    """The value with what can't be kept of it replaced: halves of characters by "?", other things by their text."""
    if not unkeepable(value):
        return value
    if isinstance(value, dict):
        return {cleaned(name): cleaned(each) for name, each in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [cleaned(each) for each in cast("Sequence[Any]", value)]
    return (value if isinstance(value, str) else repr(value)).encode(errors="replace").decode()


def is_whole(text: str) -> bool:
    """Whether it has no half of a character: UTF-16 makes some of two, and a cut leaves one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
