"""What several judges say together: means, majorities, and figures of agreement with known values."""

from __future__ import annotations

from typing import Any

import pytest

from tasks import JudgeAgreement
from tasks.judging.agreement import Measure, krippendorff_alpha, majority

NONE = None
# The example of Krippendorff 2011, section D: four observers, twelve units.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
    [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
]


def summed_up(row: dict[str, Any], **options: Any) -> dict[str, Any]:
    (made,) = next(JudgeAgreement(columns=list(row), **options).process([row]))
    return made


@pytest.mark.parametrize(
    ("measure", "alpha"), [("alpha-nominal", 0.743), ("alpha-ordinal", 0.815), ("alpha-interval", 0.849)]
)
def test_alpha_has_the_values_of_krippendorffs_own_example(measure: Measure, alpha: float) -> None:
    row = {f"judge_{number}": ratings for number, ratings in enumerate(OBSERVERS)}
    assert summed_up(row, measure=measure)["agreement"] == pytest.approx(alpha, abs=0.0005)


def test_alpha_is_one_at_full_agreement_and_below_zero_at_its_opposite() -> None:
    assert summed_up({"a": [1, 5, 3], "b": [1, 5, 3]}, measure="alpha-interval")["agreement"] == 1.0
    assert summed_up({"a": [1, 5], "b": [5, 1]}, measure="alpha-interval")["agreement"] < 0


@pytest.mark.parametrize("row", [{"a": 3, "b": 4}, {"a": [3, 3], "b": [3, 3]}, {"a": [3, 4], "b": [None, 4]}])
def test_alpha_has_no_value_for_one_item_or_equal_ratings(row: dict[str, Any]) -> None:
    assert summed_up(row, measure="alpha-interval")["agreement"] is None


def test_single_ratings_are_summed_up_to_single_values() -> None:
    made = summed_up({"a": 5, "b": 5, "c": 2})
    assert made["mean"] == 4.0
    assert made["spread"] == pytest.approx(2**0.5)
    assert made["majority"] == 5
    assert made["agreement"] == pytest.approx(1 / 3)


def test_lists_are_summed_up_item_by_item() -> None:
    made = summed_up({"a": [5, 1], "b": [5, 3]})
    assert (made["mean"], made["spread"], made["majority"]) == ([5.0, 2.0], [0.0, 1.0], [5, None])
    assert made["agreement"] == 0.5


def test_one_column_holds_the_ratings_of_all_judges() -> None:
    assert summed_up({"grouped_ratings": [[5, 1], [5, 3]]})["mean"] == [5.0, 2.0]
    assert summed_up({"scores": [4, 4, 5]})["majority"] == 4


def test_texts_have_a_majority_and_an_agreement_and_no_mean() -> None:
    made = summed_up({"a": "A", "b": "A", "c": "tie"})
    assert (made["mean"], made["spread"], made["majority"]) == (None, None, "A")
    assert made["agreement"] == pytest.approx(1 / 3)


def test_judges_who_gave_no_rating_are_left_out() -> None:
    made = summed_up({"a": [5, None], "b": [float("nan"), 3], "c": None})
    assert (made["mean"], made["agreement"]) == ([5.0, 3.0], None)


def test_half_is_no_majority() -> None:
    assert majority([1, 1, 2, 2]) is None
    assert majority([]) is None


@pytest.mark.parametrize(
    ("row", "options", "problem"),
    [
        ({"a": [5, 1], "b": [5]}, {}, "expected as many ratings from each judge"),
        ({"a": [5, 1], "b": 5}, {}, "expected as many ratings from each judge"),
        ({"a": 5}, {}, "expected a list with the ratings of each judge"),
        ({"a": [5]}, {}, "two judges or more"),
        ({"a": {"clarity": 5}, "b": {"clarity": 4}}, {}, "numbers or texts"),
        ({"a": [5.0, 1.0], "b": [5.0, float("-inf")]}, {}, "finite numbers or texts, got -inf"),
        ({"a": ["A", "B"], "b": ["A", "B"]}, {"measure": "alpha-interval"}, "needs ratings that are numbers"),
    ],
)
def test_a_row_that_cant_be_summed_up_fails_with_the_reason(
    row: dict[str, Any], options: dict[str, Any], problem: str
) -> None:
    made = summed_up(row, **options)
    assert problem in made["distilabel_metadata"]["error_judge_agreement"]["message"]
    assert (made["mean"], made["agreement"]) == (None, None)


def test_a_row_that_failed_before_stays_failed_and_a_row_given_stays_as_it_is() -> None:
    failure = {"error_judge": {"type": "RateLimitError", "message": "too many", "retryable": True}}
    row = {"a": None, "b": [1], "distilabel_metadata": failure}
    step = JudgeAgreement(columns=["a", "b"])
    (made,) = next(step.process([row]))
    assert made == {**row, "mean": None, "spread": None, "majority": None, "agreement": None}
    assert set(row) == {"a", "b", "distilabel_metadata"}


def test_its_means_serve_as_ratings_of_a_preference_format() -> None:
    step = JudgeAgreement(columns=["a", "b"], output_mappings={"mean": "ratings"})
    (made,) = step.apply([{"a": [5, 1], "b": [4, 2]}])
    assert made["ratings"] == [4.5, 1.5]


def test_alpha_by_hand() -> None:
    # Two items, judged 1 and 2, and 1 and 1: observed 2, expected 2 * 3 * 1, and 4 ratings in all.
    assert krippendorff_alpha([[1, 2], [1, 1]], "alpha-nominal") == pytest.approx(1 - 3 * 2 / 6)
