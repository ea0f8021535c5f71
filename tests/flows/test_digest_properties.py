"""Digests: equal for equal values, whatever the order of their keys, and for no others."""

from __future__ import annotations

import datetime
import math
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.authoring.saving import collect
from flows.engine.graph import load
from flows.store.digest import digest, digest_of_rows
from tests.conftest import ROOT

bounded = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

LOOK_ALIKE: list[Any] = [
    None,
    math.nan,
    math.inf,
    -math.inf,
    True,
    1,
    1.0,
    "1",
    "",
    "null",
    "None",
    "NaN",
    "nan",
    b"",
    b"1",
    {"bytes": "MQ=="},
    'bytes"MQ=="',
    Decimal("1"),
    datetime.timedelta(seconds=1),
    "0:00:01",
    datetime.date(2026, 1, 2),
    "2026-01-02",
    datetime.datetime(2026, 1, 2),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    "2026-01-02T00:00:00",
    datetime.time(0, 0),
    "00:00:00",
    2**53,
    float(2**53),
    2**63,
    2**64 - 1,
    2**64,
    float(2**64),
    -(2**70),
    -(2**63),
    0.0,
    -0.0,
    0,
    False,
    0.1,
    0.1 + 2**-55,
    "é",
    "e\u0301",
    "\u2028",
    "\0",
    "\U0001f600",
    frozenset({1, 2}),
    frozenset(),
]
leaves = st.sampled_from(LOOK_ALIKE) | st.text(max_size=3) | st.integers(-3, 3) | st.floats(width=16)
names = st.sampled_from(["", "a", "b", "bytes", "1", "null"])


def nested(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inside, max_size=3) | st.dictionaries(names, inside, max_size=3)


values = st.recursive(leaves, nested, max_leaves=8)
tables = st.lists(st.dictionaries(names, values, max_size=3), max_size=3)


def shape(value: Any) -> Any:
    """What makes a value the same as another one, as Python can compare it."""
    if isinstance(value, dict):
        return "dict", frozenset((name, shape(each)) for name, each in value.items())
    if isinstance(value, list):
        return "list", tuple(map(shape, value))
    # By its text: NaN is the same as NaN, and 0.0 another number than -0.0.
    return type(value).__name__, frozenset(value) if isinstance(value, frozenset) else repr(value)


def in_another_order(value: Any, chance: Any) -> Any:
    if isinstance(value, dict):
        items = [(name, in_another_order(each, chance)) for name, each in value.items()]
        chance.shuffle(items)
        return dict(items)
    return [in_another_order(each, chance) for each in value] if isinstance(value, list) else value


@bounded
@given(values, values)
def test_two_values_have_the_same_digest_only_where_they_are_the_same(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (shape(one) == shape(other))


def test_no_two_of_those_that_look_alike_have_the_same_digest() -> None:
    wrapped = [*LOOK_ALIKE, *([each] for each in LOOK_ALIKE), *({"a": each} for each in LOOK_ALIKE), [], {}, [[]], [{}]]

    assert len({digest(each) for each in wrapped}) == len({shape(each) for each in wrapped}) == len(wrapped)


@bounded
@given(values, st.randoms(use_true_random=False))
def test_the_order_of_keys_makes_no_difference_at_any_depth(value: Any, chance: Any) -> None:
    assert digest(in_another_order(value, chance)) == digest(value)


@bounded
@given(tables, tables)
def test_rows_have_the_same_digest_only_where_they_are_the_same_in_the_same_order(
    one: list[dict[str, Any]], other: list[dict[str, Any]]
) -> None:
    assert (digest_of_rows(one) == digest_of_rows(other)) == (shape(one) == shape(other))


@bounded
@given(tables.filter(bool), st.data())
def test_a_row_that_is_moved_doubled_or_left_out_makes_a_difference(
    rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    moved = data.draw(st.permutations(rows))

    assert digest_of_rows([*rows, rows[place]]) != digest_of_rows(rows)
    assert digest_of_rows(rows[:place] + rows[place + 1 :]) != digest_of_rows(rows)
    assert (digest_of_rows(moved) == digest_of_rows(rows)) == (shape(moved) == shape(rows))


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({1: "a"}, {"1": "a"}),
        ((1, 2), [1, 2]),
        (np.array([1, 2]), [1, 2]),
        (np.float64("nan"), math.nan),
        (np.int8(1), 1),
        ([None, np.array([1.0, math.nan])], [None, [1.0, math.nan]]),
    ],
    ids=["a key as in JSON", "tuple", "array", "NaN of numpy", "number of numpy", "array with a NaN"],
)
def test_what_is_sent_and_kept_in_the_same_form_is_the_same(one: Any, same: Any) -> None:
    assert digest(one) == digest(same)


def test_a_vector_with_one_number_that_is_none_isnt_taken_for_another() -> None:
    vector = [0.5] * 1000
    others = [[*vector[:-1], odd] for odd in (math.nan, math.inf, -math.inf, None, 1e308)]

    assert len({digest([each, None]) for each in [vector, *others]}) == 6


def test_a_set_has_the_same_digest_in_every_process() -> None:
    code = "from flows.store.digest import digest; print(digest({'one', 'two', 'three', b'four', 5, None}))"

    found = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(found) == 1


@pytest.mark.parametrize(
    ("value", "said"),
    [("\ud800", "surrogates not allowed"), (object(), "type object"), ({b"k": 1}, "key")],
    ids=["half a character", "an object", "a key of bytes"],
)
def test_a_value_that_cant_be_kept_is_named_by_its_row_and_column(value: Any, said: str) -> None:
    rows = [{"text": "good", "tags": []}, {"text": "good", "tags": [{"deep": value}]}]

    with pytest.raises(TypeError, match=rf"row 1, column 'tags' can't be kept: .*{said}"):
        digest_of_rows(rows)


def test_a_source_that_differs_only_in_what_json_doesnt_tell_apart_has_rows_of_its_own(storage: Path) -> None:
    sources = [
        [{"score": None, "of": 1}],
        [{"score": math.nan, "of": 1}],
        [{"score": "2026-01-02", "of": 1}],
        [{"score": datetime.date(2026, 1, 2), "of": 1}],
    ]

    found = [collect(load(rows))[0]["score"] for rows in sources]

    assert [repr(each) for each in found] == [repr(rows[0]["score"]) for rows in sources]
