"""Vectors read from rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.rows.vectors import directions, vector_of, vector_reader
from tasks.steps import METADATA


@pytest.mark.parametrize("value", [[1, 2], [1.5, 2], (1.5, 2.0), np.array([1.0, 2.0])])
def test_a_list_of_numbers_is_a_vector(value: Any) -> None:
    assert vector_of("embedding", value).tolist() == list(value)
    assert vector_of("embedding", value).dtype == np.float32


@pytest.mark.parametrize(
    "value", [None, [], "abc", 5, [1, None], ["1", "2"], [True, False], [[1, 2]], [[1], [1, 2]], {"a": 1}]
)
def test_anything_else_is_told(value: Any) -> None:
    with pytest.raises(ValueError, match="embedding: expected a list of numbers, got"):
        vector_of("embedding", value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e300])
def test_a_number_without_end_is_told(number: float) -> None:
    with pytest.raises(ValueError, match="embedding: expected finite numbers"):
        vector_of("embedding", [1.0, number])


def test_a_vector_of_another_length_than_most_is_told() -> None:
    failed = {"embedding": [1], METADATA: {"error_x": {"type": "E", "message": "no", "retryable": False}}}
    rows: list[dict[str, Any]] = [{"embedding": [1, 2]}, {"embedding": [3]}, {"embedding": [4, 5]}, {}]
    read = vector_reader("embedding", [*rows, failed, failed, failed])
    assert read(rows[0]).tolist() == [1, 2]
    with pytest.raises(ValueError, match="expected 2 numbers, as most rows have, got 1"):
        read(rows[1])
    with pytest.raises(ValueError, match="there's no column 'embedding'"):
        read(rows[3])


def test_rows_with_empty_lists_dont_decide_how_long_a_vector_is() -> None:
    rows: list[dict[str, Any]] = [{"embedding": []}, {"embedding": []}, {"embedding": [1, 2]}]
    assert vector_reader("embedding", rows)(rows[2]).tolist() == [1, 2]


def test_a_vector_without_a_direction_is_told_where_one_is_needed() -> None:
    row = {"embedding": [0.0, 0.0]}
    assert vector_reader("embedding", [row])(row).tolist() == [0, 0]
    with pytest.raises(ValueError, match="a vector with a direction, got 2 zeros"):
        vector_reader("embedding", [row], directed=True)(row)


def test_directions_have_length_one_also_of_tiny_vectors() -> None:
    found = directions(np.array([[3.0, 4.0], [1e-30, 0.0]], dtype=np.float32))
    assert found.tolist() == [pytest.approx([0.6, 0.8]), [1.0, 0.0]]
