"""The selection of DEITA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.rows.deita import DeitaFiltering
from tasks.steps import METADATA, failure_in

FAILURE = {"type": "LLMError", "message": "no", "retryable": False}


def row(score: Any, *embedding: float, response: Any = 1) -> dict[str, Any]:
    return {"evol_instruction_score": score, "evol_response_score": response, "embedding": list(embedding)}


def test_the_highest_scores_are_kept_in_the_order_of_the_rows() -> None:
    rows = [row(2, 1, 0, 0), row(5, 0, 1, 0), row(3, 0, 0, 1)]
    made = DeitaFiltering(data_budget=2).apply(rows)
    assert [each["deita_score"] for each in made] == [5.0, 3.0]


def test_the_score_is_the_product_of_both() -> None:
    assert DeitaFiltering(data_budget=1).apply([row(2.5, 1, 0, response=4)])[0]["deita_score"] == 10.0


def test_of_rows_that_are_alike_the_best_is_kept() -> None:
    rows = [row(1, 1.0, 0.0), row(5, 1.0, 0.05), row(4, 1.0, 0.1), row(2, 0.0, 1.0)]
    made = DeitaFiltering(data_budget=4).apply(rows)
    assert [each["deita_score"] for each in made] == [5.0, 2.0]


def test_at_a_threshold_of_one_equal_rows_are_kept_too_whatever_is_rounded() -> None:
    vectors = np.random.default_rng(0).normal(size=(100, 384)).tolist()
    made = DeitaFiltering(data_budget=200, diversity_threshold=1).apply([row(1, *vector) for vector in vectors * 2])
    assert len(made) == 200
    assert all(each["nearest_neighbor_distance"] >= 0 for each in made[1:])


def test_what_is_near_a_row_that_isnt_kept_may_be_kept() -> None:
    angles = [0.0, 0.4, 0.8]
    rows = [row(9 - place, np.cos(angle), np.sin(angle)) for place, angle in enumerate(angles)]
    made = DeitaFiltering(data_budget=3, diversity_threshold=0.9).apply(rows)
    assert [each["deita_score"] for each in made] == [9.0, 7.0]
    assert [each["nearest_neighbor_distance"] for each in made] == [None, pytest.approx(1 - np.cos(0.8), abs=1e-6)]


def test_lengths_make_no_difference_unless_told_that_they_are_one() -> None:
    rows = [row(2, 10.0, 0.0), row(1, 0.08, 0.06)]
    assert len(DeitaFiltering(data_budget=2, diversity_threshold=0.7).apply(rows)) == 1
    # The product of both is 0.8, their cosine too; of vectors that aren't normalized it may be anything.
    shorter = [row(2, 1.0, 0.0), row(1, 0.08, 0.06)]
    assert len(DeitaFiltering(data_budget=2, diversity_threshold=0.7, normalize_embeddings=False).apply(shorter)) == 2


def test_of_equal_scores_the_first_is_kept() -> None:
    rows = [row(1, 1, 0), row(1, 0, 1)]
    assert DeitaFiltering(data_budget=1).apply(rows)[0]["embedding"] == [1, 0]


def test_a_budget_above_the_rows_is_no_budget() -> None:
    assert len(DeitaFiltering(data_budget=10).apply([row(1, 1, 0), row(2, 0, 1)])) == 2


@pytest.mark.parametrize("score", [None, "4", float("nan"), True])
def test_a_row_without_a_score_fails_and_isnt_counted_in_the_budget(score: Any) -> None:
    bad, good = DeitaFiltering(data_budget=1).apply([row(score, 1, 0), row(1, 0, 1)])
    failure = failure_in(bad)
    assert failure is not None
    assert failure["message"].startswith("evol_instruction_score: expected a number, got ")
    assert (bad["deita_score"], good["deita_score"]) == (None, 1.0)


def test_a_score_of_zero_is_a_score() -> None:
    assert DeitaFiltering(data_budget=1).apply([row(0, 1, 0)])[0]["deita_score"] == 0.0


def test_a_row_that_failed_before_stays_in_its_place() -> None:
    failed = {**row(None), METADATA: {"error_x": FAILURE}}
    made = DeitaFiltering(data_budget=2).apply([row(1, 1, 0), failed, row(2, 0, 1)])
    assert [each["deita_score"] for each in made] == [1.0, None, 2.0]
    assert made[1][METADATA] == {"error_x": FAILURE}
