"""Nearest neighbours by Faiss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.rows.neighbours import FaissNearestNeighbour
from tasks.steps import METADATA, failure_in

FAILURE = {"type": "LLMError", "message": "no", "retryable": False}
NUMBERS = np.random.default_rng(0).normal(size=(60, 8))


def vectors(*given: Any) -> list[dict[str, Any]]:
    return [{"embedding": list(vector)} for vector in given]


def nearest(**options: Any) -> list[list[int]]:
    return [row["nn_indices"] for row in FaissNearestNeighbour(**options).apply(vectors(*NUMBERS.tolist()))]


def plainly(similarity: Any, k: int) -> list[list[int]]:
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1)[:, :k].tolist()


def test_neighbours_are_those_of_a_plain_search_by_each_metric() -> None:
    unit = NUMBERS / np.linalg.norm(NUMBERS, axis=1, keepdims=True)
    distances = ((NUMBERS[:, None] - NUMBERS[None]) ** 2).sum(axis=2)
    assert nearest(k=3) == plainly(unit @ unit.T, 3)
    assert nearest(k=3, metric_type="inner_product") == plainly(NUMBERS @ NUMBERS.T, 3)
    assert nearest(k=3, metric_type="l2") == plainly(-distances, 3)


@pytest.mark.parametrize(
    ("metric", "score"), [("cosine", 0.8), ("inner_product", 4.0), ("l2", 18.0)], ids=["cosine", "inner product", "l2"]
)
def test_the_scores_are_what_the_metric_says(metric: Any, score: float) -> None:
    rows = FaissNearestNeighbour(metric_type=metric).apply(vectors([1.0, 0.0], [4.0, 3.0]))
    assert [row["nn_scores"] for row in rows] == [[pytest.approx(score)]] * 2
    assert [row["nn_indices"] for row in rows] == [[1], [0]]


def test_a_row_is_never_its_own_neighbour_also_among_equal_ones() -> None:
    rows = FaissNearestNeighbour(k=2).apply(vectors(*[[1.0, 0.0]] * 6))
    assert all(len(row["nn_indices"]) == 2 and place not in row["nn_indices"] for place, row in enumerate(rows))


def test_there_are_no_more_neighbours_than_other_rows() -> None:
    assert [row["nn_indices"] for row in FaissNearestNeighbour(k=5).apply(vectors([1, 0], [0, 1]))] == [[1], [0]]
    assert FaissNearestNeighbour().apply(vectors([1, 0]))[0]["nn_indices"] == []
    assert FaissNearestNeighbour().apply([]) == []


def test_the_numbers_of_rows_that_are_searched_at_a_time_make_no_difference() -> None:
    assert nearest(k=4, search_batch_size=7) == nearest(k=4)


@pytest.mark.parametrize("options", [{"string_factory": "IVF4,Flat", "train_size": 20}, {"string_factory": "HNSW16"}])
def test_an_index_by_its_name_finds_most_of_what_there_is(options: dict[str, Any]) -> None:
    exact, found = nearest(k=3), nearest(k=3, **options)
    hits = sum(len(set(one) & set(other)) for one, other in zip(exact, found, strict=True))
    assert hits > 90
    assert all(len(each) <= 3 and -1 not in each for each in found)


@pytest.mark.parametrize(
    ("factory", "problem"), [("nonsense", "could not parse index string nonsense"), ("IVF300,Flat", "training points")]
)
def test_an_index_that_cant_be_made_is_told(factory: str, problem: str) -> None:
    with pytest.raises(ValueError, match=rf"can't make the index '{factory}' of 60 vectors of 8 numbers: .*{problem}"):
        nearest(string_factory=factory)


def test_places_are_those_among_all_rows_also_where_some_failed() -> None:
    rows = [
        {"embedding": None, METADATA: {"error_x": FAILURE}},
        *vectors([1.0, 0.0]),
        {"embedding": [1.0]},
        *vectors([1.0, 0.1]),
    ]
    made = FaissNearestNeighbour().apply(rows)
    assert [row["nn_indices"] for row in made] == [None, [3], None, [1]]
    failure = failure_in(made[2])
    assert failure is not None and "expected 2 numbers, as most rows have, got 1" in failure["message"]


def test_metrics_and_devices_may_be_given_as_distilabel_takes_them() -> None:
    assert FaissNearestNeighbour(metric_type=0).metric_type == "inner_product"  # pyright: ignore[reportArgumentType]
    assert FaissNearestNeighbour(metric_type=1).metric_type == "l2"  # pyright: ignore[reportArgumentType]
    assert FaissNearestNeighbour(device=2).device == [2]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValidationError, match="metric_type"):
        FaissNearestNeighbour(metric_type=4)  # pyright: ignore[reportArgumentType]


def test_a_gpu_that_isnt_there_is_told() -> None:
    with pytest.raises(ValueError, match=r"device=\[99\], but this Faiss sees \d+ GPUs"):
        nearest(device=[99])


def test_how_quick_the_search_is_makes_no_other_cache_key() -> None:
    assert FaissNearestNeighbour(search_batch_size=5, device=[0]).identity() == FaissNearestNeighbour().identity()
    assert FaissNearestNeighbour(k=2).identity() != FaissNearestNeighbour().identity()
