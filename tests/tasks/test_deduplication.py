"""Near duplicates, by words and by embeddings."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.rows.deduplication import EmbeddingDedup, MinHashDedup, bands, first_of_alike, jaccard
from tasks.rows.neighbours import FaissNearestNeighbour
from tasks.steps import METADATA, Step, failure_in

FAILURE = {"type": "LLMError", "message": "no", "retryable": False}
MINHASH, EMBEDDING = "keep_row_after_minhash_filtering", "keep_row_after_embedding_filtering"


def kept(step: Step, rows: list[dict[str, Any]]) -> list[bool]:
    before = copy.deepcopy(rows)
    made = step.apply(rows)
    assert rows == before
    (column,) = step.outputs
    return [row[column] for row in made]


def texts(*given: str) -> list[dict[str, Any]]:
    return [{"text": text} for text in given]


def vectors(*given: list[float]) -> list[dict[str, Any]]:
    return [{"embedding": vector} for vector in given]


# Words


def test_the_first_of_equal_texts_stays() -> None:
    assert kept(MinHashDedup(), texts("a b c", "d e f", "a b c", "a b c")) == [True, True, False, False]


def test_case_spacing_and_order_of_words_make_no_difference_to_words() -> None:
    assert kept(MinHashDedup(), texts("The tide, is high", " the\nTIDE is  high!", "High is the tide")) == [
        True,
        False,
        False,
    ]


def test_the_order_makes_a_difference_to_ngrams() -> None:
    given = texts("The tide is high", "the  TIDE is high", "High is the tide")
    assert kept(MinHashDedup(tokenizer="ngrams"), given) == [True, False, True]


def test_the_threshold_is_kept_to_exactly() -> None:
    words = [f"w{number}" for number in range(10)]
    nine_of_ten, eight_of_nine = words[:9], words[:8]
    for threshold, expected in [(0.9, False), (0.901, True)]:
        given = texts(" ".join(words), " ".join(nine_of_ten))
        assert kept(MinHashDedup(threshold=threshold), given) == [True, expected]
    assert kept(MinHashDedup(threshold=0.85), texts(" ".join(nine_of_ten), " ".join(eight_of_nine))) == [True, False]


def test_nearly_all_pairs_at_the_threshold_are_found_and_no_other_text_is_taken_for_a_duplicate() -> None:
    choices = random.Random(1)
    given: list[str] = []
    for number in range(300):
        words = [f"w{number}x{place}" for place in range(18)]
        # 18 of 20 words in common: a similarity of exactly 0.9.
        given += [" ".join(words), " ".join([*words, f"y{number}", f"z{number}"])]
        given.append(" ".join([*choices.sample(words, 14), *(f"v{number}x{place}" for place in range(4))]))
    found = kept(MinHashDedup(threshold=0.9), texts(*given))
    assert all(found[0::3]) and all(found[2::3])
    assert sum(not flag for flag in found[1::3]) >= 294


def test_texts_of_one_template_arent_compared_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[float] = []

    def counted(one: set[str], other: set[str]) -> float:
        compared.append(jaccard(one, other))
        return compared[-1]

    monkeypatch.setattr("tasks.rows.deduplication.jaccard", counted)
    template = " ".join(f"t{number}" for number in range(50))
    # 50 of 70 words in common: a similarity of 0.71, and 44,850 pairs.
    given = [f"{template} {' '.join(f'w{row}x{number}' for number in range(10))}" for row in range(300)]
    assert all(kept(MinHashDedup(), texts(*given)))
    assert 0 < len(compared) < 2_000


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.8, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("num_perm", [2, 64, 128, 256])
def test_the_bands_are_what_the_index_takes_and_find_all_that_they_can(threshold: float, num_perm: int) -> None:
    count, size = bands(threshold, num_perm)
    assert count >= 2 and count * size <= num_perm
    assert size == 1 or 1 - (1 - threshold**size) ** count >= 0.99


def test_a_text_is_compared_with_those_that_stay() -> None:
    # The third is like the second, which is like the first, but not like the first.
    given = texts("a b c d", "a b c e", "a b e f")
    assert kept(MinHashDedup(threshold=0.6), given) == [True, False, True]


@pytest.mark.parametrize("tokenizer", ["words", "ngrams"])
def test_texts_without_words_are_compared_as_they_are(tokenizer: Any) -> None:
    given = texts("", "?!", "...", "?!", " ", "日本語です", "日本語です", "\ud800")
    assert kept(MinHashDedup(tokenizer=tokenizer), given) == [True, True, True, False, False, True, False, None]


def test_the_same_seed_gives_the_same_result() -> None:
    choices = random.Random(2)
    given = texts(*(" ".join(choices.choices("abcdefgh", k=6)) for _ in range(200)))
    one = kept(MinHashDedup(threshold=0.5, num_perm=16), given)
    assert one == kept(MinHashDedup(threshold=0.5, num_perm=16), given)
    assert False in one


def test_a_seed_that_the_package_would_refuse_is_refused_at_once() -> None:
    assert kept(MinHashDedup(seed=2**32 - 1), texts("a", "a")) == [True, False]
    with pytest.raises(ValidationError, match="seed"):
        MinHashDedup(seed=2**32)


def test_duplicates_are_dropped_where_wanted() -> None:
    rows = MinHashDedup(drop_duplicates=True).apply(texts("a b", "a b", "c d"))
    assert rows == [{"text": "a b", MINHASH: True}, {"text": "c d", MINHASH: True}]


@pytest.mark.parametrize("drop", [False, True])
def test_failed_rows_stay_in_their_places_and_a_row_without_a_text_fails_alone(drop: bool) -> None:
    rows = [
        {"text": None, METADATA: {"error_x": FAILURE}},
        {"text": "a b"},
        {"text": 5},
        {"text": "c d"},
    ]
    before, first, bad, second = MinHashDedup(drop_duplicates=drop).apply(rows)
    assert before == {**rows[0], MINHASH: None}
    assert (first[MINHASH], second[MINHASH]) == (True, True)
    failure = failure_in(bad)
    assert failure is not None and failure["message"] == "text: expected a text, got 5"
    assert bad[MINHASH] is None


def test_no_rows_are_no_rows() -> None:
    assert MinHashDedup().apply([]) == []
    assert EmbeddingDedup().apply([]) == []


def test_columns_have_the_names_of_the_dataset() -> None:
    step = MinHashDedup(input_mappings={"text": "prompt"}, output_mappings={MINHASH: "keep"})
    assert step.apply([{"prompt": "a", "text": 1}]) == [{"prompt": "a", "text": 1, "keep": True}]


def test_jaccard() -> None:
    assert jaccard({"a", "b"}, {"b", "c"}) == 1 / 3


# Embeddings


def test_the_first_of_near_embeddings_stays_whatever_their_lengths() -> None:
    given = vectors([1.0, 0.0], [5.0, 0.5], [0.0, 1.0], [0.1, 3.0], [-1.0, 0.0])
    assert kept(EmbeddingDedup(), given) == [True, False, True, False, True]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"scores": "distance", "threshold": 0.1}, "scores='distance' is for compare='neighbours'"),
        ({"threshold": 90}, "threshold: expected a cosine from -1 to 1, got 90"),
        ({"threshold": math.nan}, "finite number"),
        ({"compare": "neighbours", "threshold": math.nan}, "finite number"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        EmbeddingDedup(**options)


def test_equal_embeddings_are_duplicates_at_a_threshold_of_one() -> None:
    given = vectors([0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.1, 0.2, 0.31])
    assert kept(EmbeddingDedup(threshold=1.0), given) == [True, False, True]


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(3).normal(size=(400, 3)).astype(np.float32)
    unit = numbers / np.linalg.norm(numbers, axis=1, keepdims=True)
    whole = first_of_alike(unit, 0.95)
    plain: list[int] = []
    for place, vector in enumerate(unit):
        if all(float(vector @ unit[other]) < 0.95 for other in plain):
            plain.append(place)
    monkeypatch.setattr("tasks.rows.deduplication.BLOCK", 7)
    assert first_of_alike(unit, 0.95) == whole
    assert [place for place, keep in enumerate(whole) if keep] == plain
    assert 10 < len(plain) < 200


def neighbours(*given: tuple[list[int], list[float]]) -> list[dict[str, Any]]:
    return [{"nn_indices": indices, "nn_scores": scores} for indices, scores in given]


def test_of_two_rows_that_name_each_other_one_stays() -> None:
    rows = neighbours(([1, 2], [0.95, 0.1]), ([0, 2], [0.95, 0.1]), ([0, 1], [0.1, 0.1]))
    assert kept(EmbeddingDedup(compare="neighbours"), rows) == [True, False, True]


def test_a_pair_is_found_also_where_only_the_first_names_the_second() -> None:
    rows = neighbours(([2], [0.95]), ([0], [0.2]), ([1], [0.3]))
    assert kept(EmbeddingDedup(compare="neighbours"), rows) == [True, True, False]


def test_a_row_that_names_itself_stays() -> None:
    assert kept(EmbeddingDedup(compare="neighbours"), neighbours(([0], [1.0]))) == [True]


def test_of_distances_the_small_ones_are_of_duplicates() -> None:
    rows = neighbours(([1], [0.01]), ([0], [0.01]), ([0], [2.0]))
    step = EmbeddingDedup(compare="neighbours", scores="distance", threshold=0.1)
    assert kept(step, rows) == [True, False, True]


@pytest.mark.parametrize(("metric", "scores", "threshold"), [("cosine", "similarity", 1.0), ("l2", "distance", 0.0)])
def test_equal_embeddings_are_duplicates_whatever_is_rounded_in_their_scores(
    metric: Any, scores: Any, threshold: float
) -> None:
    numbers = np.random.default_rng(0).normal(size=(50, 384))
    unit = (numbers / np.linalg.norm(numbers, axis=1, keepdims=True)).tolist()
    found = FaissNearestNeighbour(metric_type=metric).apply(vectors(*unit, *unit))
    step = EmbeddingDedup(compare="neighbours", scores=scores, threshold=threshold)
    assert kept(step, found) == [True] * 50 + [False] * 50


@pytest.mark.parametrize(("metric", "scores", "threshold"), [("cosine", "similarity", 0.99), ("l2", "distance", 0.02)])
def test_both_ways_agree_on_what_faiss_found(metric: Any, scores: Any, threshold: float) -> None:
    numbers = np.random.default_rng(4).normal(size=(40, 4))
    numbers /= np.linalg.norm(numbers, axis=1, keepdims=True)
    rows = vectors(*[*numbers.tolist(), *(numbers[::4] + 0.001).tolist()])
    step = EmbeddingDedup(compare="neighbours", scores=scores, threshold=threshold)
    found = FaissNearestNeighbour(metric_type=metric, k=5).apply(rows)
    assert kept(step, found) == kept(EmbeddingDedup(threshold=0.99), rows) == [True] * 40 + [False] * 10


def test_neighbours_of_rows_that_are_no_longer_there_are_told() -> None:
    with pytest.raises(ValueError, match=r"expected places among 1 row, got 3 in row 0\. Rows were dropped"):
        EmbeddingDedup(compare="neighbours").apply(neighbours(([3], [0.95])))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"nn_indices": None, "nn_scores": [1.0]}, "nn_indices: expected a list, got None"),
        ({"nn_indices": [1], "nn_scores": []}, "a score per neighbour: got 1 nn_indices and 0 nn_scores"),
        ({"nn_indices": ["1"], "nn_scores": [0.5]}, "expected whole numbers and numbers"),
        ({"nn_indices": [1], "nn_scores": [None]}, "expected whole numbers and numbers"),
    ],
)
def test_a_row_without_neighbours_fails_alone(row: dict[str, Any], problem: str) -> None:
    bad, good = EmbeddingDedup(compare="neighbours").apply([row, *neighbours(([0], [0.95]))])
    failure = failure_in(bad)
    assert failure is not None and problem in failure["message"]
    # The one before failed, so that this one is the first.
    assert (bad[EMBEDDING], good[EMBEDDING]) == (None, True)


def test_the_columns_that_are_needed_are_those_that_are_compared() -> None:
    assert EmbeddingDedup().required_columns() == ["embedding"]
    assert EmbeddingDedup(compare="neighbours").required_columns() == ["nn_indices", "nn_scores"]


def test_duplicates_by_embedding_are_dropped_where_wanted() -> None:
    rows = EmbeddingDedup(drop_duplicates=True).apply(vectors([1, 0], [1, 0], [0, 1]))
    assert [row["embedding"] for row in rows] == [[1, 0], [0, 1]]


@pytest.mark.parametrize("vector", [None, [0.0, 0.0], [1.0], ["a", "b"]])
def test_a_row_without_an_embedding_fails_alone(vector: Any) -> None:
    rows = EmbeddingDedup().apply([*vectors([1, 0]), {"embedding": vector}, *vectors([0, 1])])
    assert failure_in(rows[1]) is not None
    assert [row[EMBEDDING] for row in rows] == [True, None, True]
