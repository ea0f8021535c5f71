"""Projections by UMAP, and clusters by DBSCAN."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.rows.projection import DBSCAN, UMAP
from tasks.steps import METADATA, failure_in

FAILURE = {"type": "LLMError", "message": "no", "retryable": False}


def rows_of(column: str, vectors: Any) -> list[dict[str, Any]]:
    return [{column: list(vector)} for vector in vectors]


def two_groups(size: int, dimensions: int = 10) -> list[list[float]]:
    choices = np.random.default_rng(0)
    centres = np.zeros((2, dimensions))
    centres[1, 0] = 40
    return (np.repeat(centres, size, axis=0) + choices.normal(size=(2 * size, dimensions))).tolist()


# DBSCAN


def test_rows_close_together_are_a_cluster_and_the_others_noise() -> None:
    places = [[0, 0], [0.2, 0], [0.4, 0], [5, 5], [5.1, 5], [5.2, 5], [9, 9]]
    made = DBSCAN(min_samples=3).apply(rows_of("projection", places))
    assert [row["cluster_label"] for row in made] == [0, 0, 0, 1, 1, 1, -1]
    assert all(isinstance(row["cluster_label"], int) for row in made)


def test_the_metric_decides_what_is_close() -> None:
    places = [[1, 0], [9, 0], [0, 1], [0, 9]]
    made = DBSCAN(min_samples=2, metric="cosine").apply(rows_of("projection", places))
    assert [row["cluster_label"] for row in made] == [0, 0, 1, 1]


def test_rows_that_failed_or_have_no_projection_are_in_no_cluster_and_keep_their_places() -> None:
    failed = {"projection": None, METADATA: {"error_x": FAILURE}}
    before, one, bad, other = DBSCAN(min_samples=2).apply(
        [failed, {"projection": [0, 0]}, {"projection": [0, None]}, {"projection": [0, 0.1]}]
    )
    assert [each["cluster_label"] for each in (before, one, bad, other)] == [None, 0, None, 0]
    assert failure_in(bad) is not None


def test_no_rows_have_no_clusters() -> None:
    assert DBSCAN().apply([]) == []


# UMAP


@pytest.mark.parametrize("count", [0, 1, 2])
def test_rows_too_few_for_neighbourhoods_are_put_side_by_side(count: int) -> None:
    made = UMAP(n_components=3).apply(rows_of("embedding", np.ones((count, 5))))
    assert [row["projection"] for row in made] == [[float(place), 0.0, 0.0] for place in range(count)]


def test_how_many_processors_make_no_other_cache_key() -> None:
    assert UMAP(n_jobs=4).identity() == UMAP().identity() != UMAP(random_state=1).identity()
    assert DBSCAN(n_jobs=4).identity() == DBSCAN().identity() != DBSCAN(eps=0.5).identity()


def test_a_random_state_that_the_package_would_refuse_is_refused_at_once() -> None:
    with pytest.raises(ValidationError, match="random_state"):
        UMAP(random_state=2**32)


@pytest.mark.slow
def test_groups_stay_apart_the_same_way_each_time_and_without_a_warning() -> None:
    rows = rows_of("embedding", two_groups(20))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made = UMAP().apply(rows)
    labels = [row["cluster_label"] for row in DBSCAN(eps=3, min_samples=3).apply(made)]
    assert labels == [0] * 20 + [1] * 20
    assert UMAP().apply(rows) == made
    assert UMAP(random_state=7).apply(rows) != made


@pytest.mark.slow
@pytest.mark.parametrize(("count", "dimensions"), [(3, 2), (4, 2), (5, 5), (16, 2)])
def test_few_rows_are_projected_too(count: int, dimensions: int) -> None:
    rows = rows_of("embedding", two_groups(8)[:count])
    made = UMAP(n_components=dimensions, metric="cosine").apply(rows)
    assert np.isfinite([row["projection"] for row in made]).all()
    assert all(len(row["projection"]) == dimensions for row in made)


@pytest.mark.slow
def test_two_at_a_time_and_one_without_a_random_state_get_along() -> None:
    rows = rows_of("embedding", two_groups(30))
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda step: step.apply(rows), [UMAP(random_state=None), UMAP(random_state=None)]))
    assert [len(each) for each in made] == [60, 60]
