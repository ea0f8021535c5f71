"""Values as columns of Arrow: what goes in comes out, and a dataset's column has one type."""

# pyarrow has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.arrow import Shape, Unfit, array_of, cleaned, column_of, merged, shape_of, unkeepable, values_of
from tasks.rows.columns import same

bounded = settings(max_examples=300, deadline=None, derandomize=True)

JSON = pa.json_()
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["1", "null", "NaN", "{}", '{"a": 1}'])
)
values = st.recursive(
    scalars,
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(["", "a", "b", "1"]), inside, max_size=3)
    ),
    max_leaves=8,
)


def kept(column: list[Any], *, plain: bool = False) -> list[Any]:
    return values_of(*column_of("x", column, shape_of(column), plain=plain))


def exactly(one: Any, other: Any) -> bool:
    """Whether two values are the same: 1 isn't 1.0, True isn't 1, and keys have an order."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(exactly(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(exactly, one, other))
    return type(one) is type(other) and (repr(one) == repr(other))


@bounded
@given(st.lists(values, max_size=5))
def test_every_value_comes_out_as_it_went_in_whatever_stands_beside_it(column: list[Any]) -> None:
    assert all(map(exactly, kept(column), column))


@bounded
@given(st.lists(values, max_size=4), st.lists(values, max_size=4))
def test_two_columns_have_a_type_in_common_whatever_is_in_them(one: list[Any], other: list[Any]) -> None:
    kind = merged(shape_of(one).type, shape_of(other).type)

    assert kind == merged(kind, shape_of(other).type) == merged(shape_of(one).type, kind)
    try:
        made = array_of([*one, *other], kind)
    except Unfit:
        # Numbers of another size than the type's: they can always be JSON.
        made = array_of([*one, *other], JSON)
    assert made.type in (kind, JSON)


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ([None, None], pa.null()),
        (["a", None], pa.string()),
        ([1, -1], pa.int64()),
        ([1, 2**64 - 1], pa.uint64()),
        ([-1, 2**64 - 1], JSON),
        ([2**64], JSON),
        ([1, 2.5], pa.float64()),
        ([2**53 + 1, 2.5], JSON),
        ([math.nan, 1], pa.float64()),
        ([1, True], JSON),
        ([1, "a"], JSON),
        (["a", b"a"], JSON),
        ([[1], [2.5], []], pa.list_(pa.float64())),
        ([[1], 2], JSON),
        ([[1], ["a"]], pa.list_(JSON)),
        ([{"a": 1}, {"a": None}], pa.struct([("a", pa.int64())])),
        ([{"a": 1, "b": 2}, {"b": 1, "a": 2}], pa.struct([("a", pa.int64()), ("b", pa.int64())])),
        ([{"a": 1}, {"b": 1}], JSON),
        ([{}, {"a": 1}], JSON),
        ([{}], JSON),
        ([{1: "a"}], JSON),
        ([{"a": {"x": 1}}, {"a": {"y": 1}}], pa.struct([("a", JSON)])),
        ([datetime.date(2026, 1, 2)], pa.date32()),
        ([datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2)], JSON),
        ([datetime.datetime(2026, 1, 2), datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)], JSON),
        ([Decimal("1.5"), Decimal("10.25")], pa.decimal128(4, 2)),
        ([Decimal("1.5"), 1], JSON),
        ([np.array([1.0, 2.0], dtype=np.float32)], pa.list_(pa.float32())),
        ([np.array([[1.0], [2.0]])], pa.list_(pa.list_(pa.float64()))),
        ([np.int64(1), 2], pa.int64()),
        ([(1, 2)], pa.list_(pa.int64())),
        ([{1, 2}], pa.list_(pa.int64())),
    ],
)
def test_a_column_has_the_type_of_all_its_values_or_is_json(column: list[Any], kind: Any) -> None:
    assert shape_of(column).type == kind


def test_what_json_has_no_form_for_is_text_beside_other_types_and_itself_alone() -> None:
    day, moment = datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3)

    assert kept([day, "then"]) == ["2026-01-02", "then"]
    assert kept([moment, 1]) == ["2026-01-02 03:00:00", 1]
    assert kept([b"\x00\xff", None, 1]) == ["AP8=", None, 1]
    assert kept([Decimal("1.50"), 1]) == ["1.50", 1]
    assert kept([day]) == [day]
    assert kept([moment]) == [moment]
    assert kept([b"\x00\xff"]) == [b"\x00\xff"]


def test_long_numbers_are_text_in_the_json_of_a_dataset_as_its_readers_refuse_them() -> None:
    made = array_of([2**70, {"deep": [0.5, -(2**70)]}, 2**64 - 1], JSON)

    assert made.to_pylist() == [f'"{2**70}"', f'{{"deep": [0.5, "{-(2**70)}"]}}', str(2**64 - 1)]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("half of one: \ud83d", "expected whole characters, got half of one in"),
        ({"a": ["\udc00"]}, "half of one"),
        ({"\udc00": 1}, "half of one"),
        (object(), "a value of type object can't be kept in a row"),
        ([1, {"a": {1j}}], "type complex can't be kept"),
    ],
)
def test_what_no_type_can_keep_is_said_and_can_be_cleaned(value: Any, said: str) -> None:
    assert said in unkeepable(value)
    assert unkeepable(cleaned(value)) == ""


def test_a_value_deeper_than_json_goes_is_said() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]

    assert "expected at most 200 levels" in unkeepable(deep)


@pytest.mark.parametrize("value", [None, 2**70, math.nan, b"", {1: "a"}, np.array([1]), {1, 2}, datetime.date.min])
def test_nothing_speaks_against_what_can_be_kept(value: Any) -> None:
    assert unkeepable([value]) == ""
    assert same(cleaned(value), value)


def test_a_shape_says_whether_arrow_gives_back_what_it_was_given() -> None:
    assert shape_of([1, 2.5]) == Shape(pa.float64(), False)
    assert shape_of([1.0, 2.5]) == Shape(pa.float64(), True)
