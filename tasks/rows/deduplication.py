"""Steps that find texts that are there already, by their words or by their embeddings."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, cast

from pydantic import Field, model_validator

from llms.extras import package
from llms.parameters import short
from llms.quantities import quantity
from tasks.cells import any_text_in, list_in
from tasks.rows.columns import with_columns_of_all
from tasks.rows.vectors import directions, matrix_of, vector_reader
from tasks.steps import GlobalStep
from tasks.typing import Columns, Row, StepInput, StepOutput

if TYPE_CHECKING:
    from tasks.rows.vectors import Array

DropDuplicates: TypeAlias = Annotated[
    bool, Field(title="Drop duplicates", description="Leave these rows out. Off: they are only flagged.")
]
Edges: TypeAlias = list[tuple[int, float]]
"""The neighbours of a row: their places, and how near they are."""

FOUND = 0.99
"""The share of pairs, exactly as similar as the threshold, that must be found."""
BLOCK = 1024
"""Vectors that are compared at a time."""
ROUNDING = 1e-6
"""How far the product of a vector with itself may be from 1, and its distance from 0."""


class MinHashDedup(GlobalStep):
    """Finds texts that have nearly the same words as one before.

    Two texts are duplicates where the Jaccard similarity of their sets of words, or of runs of `n` characters, is
    at least `threshold`. MinHash finds the pairs that may be (99 % of those at the threshold, more of those above);
    each is then compared exactly, so that no other text is taken for a duplicate. The first of several stays, and a
    text is compared with those that stay. Upper and lower case and spacing make no difference.

    It needs the extra `dedup`. For texts without spaces between words, such as Chinese, take `ngrams`.

    Input columns:
        text: the text.

    Output columns:
        keep_row_after_minhash_filtering: False for a duplicate.

    Source: Identifying and Filtering Near-Duplicate Documents (https://doi.org/10.1007/3-540-45123-4_1).

    Example:
        >>> from tasks import MinHashDedup
        >>> texts = ["The tide is high.", "the tide  is HIGH", "The tide is low."]
        >>> rows = next(MinHashDedup().process([{"text": text} for text in texts]))
        >>> [row["keep_row_after_minhash_filtering"] for row in rows]
        [True, False, True]
    """

    fails_rows = True
    takes_failed_rows = True

    form_more = ("num_perm", "seed", "tokenizer", "n")

    num_perm: Annotated[
        int, Field(ge=2, title="Permutations", description="More find more of the pairs at a low threshold.")
    ] = 128
    seed: Annotated[int, Field(ge=0, lt=2**32, title="Seed", description="Of the permutations.")] = 1
    tokenizer: Annotated[
        Literal["words", "ngrams"], Field(title="Compare by", description="Words, or runs of `n` characters.")
    ] = "words"
    n: Annotated[int, Field(ge=1, title="Characters", description="In a run, for `ngrams`.")] = 5
    threshold: Annotated[
        float, Field(gt=0, le=1, title="Threshold", description="The similarity from which on texts are duplicates.")
    ] = 0.9
    drop_duplicates: DropDuplicates = False

    @property
    def inputs(self) -> Columns:
        return ["text"]

    @property
    def outputs(self) -> Columns:
        return ["keep_row_after_minhash_filtering"]

    def load(self) -> None:
        self._datasketch()

    def process(self, inputs: StepInput) -> StepOutput:
        def columns(texts: dict[int, str]) -> dict[int, Row]:
            return flagged("keep_row_after_minhash_filtering", self._kept(texts), self.drop_duplicates)

        yield with_columns_of_all(self, inputs, lambda row: any_text_in(row, "text"), columns)

    def _kept(self, texts: Mapping[int, str]) -> dict[int, bool]:
        import numpy as np

        sketches = self._datasketch()
        index = sketches.MinHashLSH(num_perm=self.num_perm, params=bands(self.threshold, self.num_perm))
        empty = sketches.MinHash(num_perm=self.num_perm, seed=self.seed)
        least = least_estimate(self.threshold, self.num_perm)
        values = np.empty((len(texts), self.num_perm), dtype=np.uint32)
        places: list[int] = []
        kept: dict[int, bool] = {}
        for place, text in texts.items():
            tokens = self._tokens(text)
            sketch = empty.copy()
            sketch.update_batch([token.encode("utf-8", "surrogatepass") for token in tokens])
            near = np.array(sorted(index.query(sketch)), dtype=np.int64)
            likely = near[(values[near] == sketch.hashvalues).mean(axis=1) >= least].tolist()
            kept[place] = not any(jaccard(tokens, self._tokens(texts[places[one]])) >= self.threshold for one in likely)
            if kept[place]:
                index.insert(len(places), sketch)
                values[len(places)] = sketch.hashvalues
                places.append(place)
        return kept

    def _tokens(self, text: str) -> set[str]:
        whole = " ".join(text.casefold().split())
        if self.tokenizer == "words":
            return set(re.findall(r"\w+", whole)) or {whole}
        return {whole[start : start + self.n] for start in range(max(1, len(whole) - self.n + 1))}

    def _datasketch(self) -> Any:
        return package("datasketch", "dedup", type(self).__name__)


class EmbeddingDedup(GlobalStep):
    """Finds texts whose embedding is nearly that of one before.

    By `embedding`, every row is compared with all that stay, by the cosine of their angle: exact, with a time that
    grows with the square of the rows. By `neighbours`, it takes what `FaissNearestNeighbour` found, which is quick,
    and misses duplicates beyond the `k` that were searched for; no row may have been dropped since. Either way, the
    first of several duplicates stays.

    For someone who comes from distilabel: its step is `compare="neighbours"`, but of two duplicates it dropped both.

    Input columns:
        embedding (by embedding): a list of numbers.
        nn_indices (by neighbours): the places of the row's neighbours among all rows.
        nn_scores (by neighbours): how near each is.

    Output columns:
        keep_row_after_embedding_filtering: False for a duplicate.

    Example:
        >>> from tasks import EmbeddingDedup
        >>> rows = [{"embedding": [1.0, 0.0]}, {"embedding": [2.0, 0.1]}, {"embedding": [0.0, 1.0]}]
        >>> rows = next(EmbeddingDedup(threshold=0.95).process(rows))
        >>> [row["keep_row_after_embedding_filtering"] for row in rows]
        [True, False, True]
    """

    fails_rows = True
    takes_failed_rows = True

    compare: Annotated[
        Literal["embedding", "neighbours"],
        Field(title="Compare by", description="Embeddings, or the neighbours that FaissNearestNeighbour found."),
    ] = "embedding"
    scores: Annotated[
        Literal["similarity", "distance"],
        Field(title="Scores", description="What `nn_scores` are: a similarity grows with nearness. With l2: distance."),
    ] = "similarity"
    threshold: Annotated[
        float,
        Field(
            allow_inf_nan=False,
            title="Threshold",
            description="From this similarity on (or up to this distance): a duplicate.",
        ),
    ] = 0.9
    drop_duplicates: DropDuplicates = False

    @model_validator(mode="after")
    def _check_threshold(self) -> Self:
        if self.compare == "embedding":
            if self.scores == "distance":
                raise ValueError(
                    "scores='distance' is for compare='neighbours'; embeddings are compared by their cosine"
                )
            if not -1 <= self.threshold <= 1:
                raise ValueError(f"threshold: expected a cosine from -1 to 1, got {self.threshold!r}")
        return self

    @property
    def inputs(self) -> Columns:
        return ["embedding"] if self.compare == "embedding" else ["nn_indices", "nn_scores"]

    @property
    def outputs(self) -> Columns:
        return ["keep_row_after_embedding_filtering"]

    def process(self, inputs: StepInput) -> StepOutput:
        if self.compare == "embedding":
            yield self._flagged(inputs, vector_reader("embedding", inputs, directed=True), self._kept_by_embedding)
        else:
            yield self._flagged(inputs, neighbours_in, lambda edges: self._kept_by_neighbours(edges, len(inputs)))

    def _flagged(
        self, rows: StepInput, read: Callable[[Row], Any], kept: Callable[[dict[int, Any]], dict[int, bool]]
    ) -> list[Row]:
        def columns(given: dict[int, Any]) -> dict[int, Row]:
            return flagged("keep_row_after_embedding_filtering", kept(given), self.drop_duplicates)

        return with_columns_of_all(self, rows, read, columns)

    def _kept_by_embedding(self, vectors: dict[int, Array]) -> dict[int, bool]:
        flags = first_of_alike(directions(matrix_of(vectors.values())), self.threshold - ROUNDING)
        return dict(zip(vectors, flags, strict=True))

    def _kept_by_neighbours(self, edges: dict[int, Edges], count: int) -> dict[int, bool]:
        before: dict[int, set[int]] = defaultdict(set)
        for place, found in edges.items():
            for other, score in found:
                if not 0 <= other < count:
                    raise ValueError(
                        f"nn_indices: expected places among {quantity(count, 'row')}, got {other} in row {place}."
                        " Rows were dropped after the neighbours were searched: let FaissNearestNeighbour come after"
                        " that"
                    )
                beyond = score - self.threshold if self.scores == "similarity" else self.threshold - score
                alike = beyond >= -ROUNDING
                if alike and other != place:
                    # Of two rows, one may be among the nearest of the other, and not the other way round.
                    before[max(place, other)].add(min(place, other))
        kept: dict[int, bool] = {}
        for place in sorted(edges):
            kept[place] = not any(kept.get(other, False) for other in before[place])
        return kept


def flagged(column: str, kept: Mapping[int, bool], drop: bool) -> dict[int, Row]:
    """The column of the rows, by place; without the rows that aren't kept, where they are to be dropped."""
    return {place: {column: keep} for place, keep in kept.items() if keep or not drop}


def jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """The bands of MinHash values, and the values in each, by which pairs are found: few bands, and enough of them.

    The index's own choice finds a third of the pairs at a threshold of 0.9: it weighs pairs that are found in vain
    as much as those that are missed, and here each is looked at again.
    """
    for size in range(num_perm // 2, 1, -1):
        count = num_perm // size
        if 1 - (1 - threshold**size) ** count >= FOUND:
            return count, size
    return num_perm, 1


def least_estimate(threshold: float, num_perm: int) -> float:
    """The similarity by MinHash values below which a pair isn't compared exactly.

    Of the pairs at the threshold, one in 30,000 has a lower estimate; of those that the bands find among texts of
    one template, nearly all have.
    """
    return threshold - 4 * math.sqrt(threshold * (1 - threshold) / num_perm)


def first_of_alike(vectors: Array, threshold: float) -> list[bool]:
    """For each of some vectors of length 1, whether its product with every one kept before is below the threshold."""
    import numpy as np

    kept, count = np.empty_like(vectors), 0
    flags: list[bool] = []
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        alike = np.zeros(len(block), dtype=bool)
        for place in range(0, count, BLOCK):
            alike |= (block @ kept[place : min(place + BLOCK, count)].T >= threshold).any(axis=1)
        within = block @ block.T >= threshold
        for place in range(len(block)):
            if not alike[place]:
                alike[place + 1 :] |= within[place, place + 1 :]
        fresh = block[~alike]
        kept[count : count + len(fresh)] = fresh
        count += len(fresh)
        flags += (~alike).tolist()
    return flags


def neighbours_in(row: Row) -> Edges:
    """The row's neighbours and their scores. Raises ValueError."""
    indices, scores = list_in(row, "nn_indices"), list_in(row, "nn_scores")
    if len(indices) != len(scores):
        raise ValueError(f"a score per neighbour: got {len(indices)} nn_indices and {len(scores)} nn_scores")
    if not all(isinstance(each, int) for each in indices) or not all(isinstance(each, int | float) for each in scores):
        raise ValueError(f"nn_indices, nn_scores: expected whole numbers and numbers, got {short((indices, scores))}")
    return cast("Edges", list(zip(indices, scores, strict=True)))
