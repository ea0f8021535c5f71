"""The step that leaves rows out by what a column holds."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from pydantic import ValidationError

from tasks import FilterRows
from tasks.steps import METADATA, failure_in

FAILED = {"score": None, METADATA: {"error_judge": {"type": "LLMError", "message": "no", "retryable": False}}}


def kept(values: list[Any], **parameters: Any) -> list[Any]:
    rows = FilterRows(column="score", **parameters).apply([{"score": value} for value in values])
    return [row["score"] for row in rows]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"lowest": 3}, [3, 3.5, 5]),
        ({"highest": 3}, [-1, 0, 3]),
        ({"lowest": 3, "highest": 3.5}, [3, 3.5]),
        ({"lowest": 0, "highest": 0}, [0]),
        ({"lowest": 9}, []),
        ({}, [-1, 0, 3, 3.5, 5]),
    ],
    ids=str,
)
def test_rows_within_both_bounds_are_kept_in_their_order(bounds: dict[str, float], expected: list[float]) -> None:
    assert kept([-1, 0, 3, 3.5, 5], **bounds) == expected


def test_a_row_without_a_value_is_left_out_or_kept_on_request() -> None:
    assert kept([None, 2, math.nan, 5], lowest=4) == [5]
    assert kept([None, 2, 5], lowest=4, keep_missing=True) == [None, 5]
    assert kept([None, "text", [1]]) == ["text", [1]]


def test_flags_of_other_steps_are_numbers() -> None:
    assert kept([True, False, True], lowest=1) == [True, True]


def test_a_row_that_failed_before_stays_in_its_place_with_its_reason() -> None:
    rows = FilterRows(column="score", lowest=4).apply([{"score": 5}, FAILED, {"score": 1}, {"score": 6}])

    assert rows == [{"score": 5}, FAILED, {"score": 6}]


def test_a_value_that_is_no_number_fails_its_row_and_no_other() -> None:
    good, bad = FilterRows(name="good_ones", column="score", lowest=4).apply([{"score": 5}, {"score": "5 of 6"}])

    assert good == {"score": 5}
    assert bad["score"] == "5 of 6"
    failure = failure_in(bad)
    assert failure is not None
    assert (failure["step"], failure["message"]) == ("good_ones", "score: expected a number, got '5 of 6'")


def test_a_text_that_is_a_number_or_a_truth_value_counts_as_it() -> None:
    rows = [{"score": each} for each in ("4.50", "4", "3.9", "true", "NaN", "-0")]

    assert FilterRows(column="score", lowest=4).apply(rows) == [{"score": "4.50"}, {"score": "4"}]
    assert FilterRows(column="score", lowest=1, highest=1).apply(rows) == [{"score": "true"}]


def test_a_column_that_isnt_there_is_an_error_that_names_those_that_are() -> None:
    with pytest.raises(ValueError, match="no column 'score'; the rows have 'rating'"):
        FilterRows(column="score", lowest=4).apply([{"rating": 5}])


def test_bounds_that_leave_nothing_between_them_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"lowest: expected at most highest, 3\.0, got 4\.0"):
        FilterRows(column="score", lowest=4, highest=3)
    with pytest.raises(ValidationError, match="lowest: expected at most highest"):
        FilterRows(column="score", lowest=math.nan, highest=3)
    for bound in ("lowest", "highest"):
        with pytest.raises(ValidationError, match=f"{bound}: expected a number, got nan"):
            FilterRows(column="score", **{bound: math.nan})


def test_the_rows_given_and_their_columns_stay_as_they_are() -> None:
    rows = [{"score": 5, "text": ["a"]}, {"score": "x", "text": ["b"], METADATA: {"k": 1}}]
    before = copy.deepcopy(rows)
    step = FilterRows(column="score", lowest=4)

    for row in step.apply(rows):
        row.clear()

    assert rows == before
    assert step.added_columns(frozenset({"score", "text"})) == {"score", "text"}
    assert FilterRows(column="score", input_mappings={"score": "rating"}).required_columns() == ["rating"]
