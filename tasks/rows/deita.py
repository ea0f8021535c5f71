"""DEITA: the rows that are worth most, none of them too near another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

from llms.parameters import short
from tasks.rows.columns import value_in, with_columns_of_all
from tasks.rows.vectors import directions, matrix_of, vector_reader
from tasks.steps import GlobalStep
from tasks.typing import Columns, Row, StepInput, StepOutput

if TYPE_CHECKING:
    from tasks.rows.vectors import Array


class DeitaFiltering(GlobalStep):
    """Keeps at most `data_budget` rows: those with the highest scores that are unlike those kept before.

    A row's score is the complexity of its instruction times the quality of its response. From the highest score on,
    a row is kept where its embedding's cosine similarity to the nearest row kept so far is at most
    `diversity_threshold`. The rows stay in their order. A row without a score or an embedding fails, and isn't
    counted in the budget.

    For someone who comes from distilabel: there, the threshold is that of a distance to any other row, so that 0.9
    leaves out nearly all rows, and of two rows that are alike both. Here it is as in the paper.

    Input columns:
        evol_instruction_score: a number; how complex the instruction is, such as from `ComplexityScorer`.
        evol_response_score: a number; how good the response is, such as from `QualityScorer`.
        embedding: a list of numbers; of instruction and response.

    Output columns:
        deita_score: the product of both scores.
        nearest_neighbor_distance: 1 minus the cosine similarity to the nearest row with a higher score that is kept;
            None for the first.

    Source: What Makes Good Data for Alignment? A Comprehensive Study of Automatic Data Selection in Instruction
    Tuning (https://arxiv.org/abs/2312.15685).

    Example:
        >>> from tasks import DeitaFiltering
        >>> rows = [
        ...     {"evol_instruction_score": 2, "evol_response_score": 4, "embedding": [1.0, 0.0]},
        ...     {"evol_instruction_score": 3, "evol_response_score": 5, "embedding": [1.0, 0.1]},
        ...     {"evol_instruction_score": 1, "evol_response_score": 2, "embedding": [0.0, 1.0]},
        ... ]
        >>> [row["deita_score"] for row in next(DeitaFiltering(data_budget=2).process(rows))]
        [15.0, 2.0]
    """

    fails_rows = True
    takes_failed_rows = True

    data_budget: Annotated[int, Field(ge=1, title="Rows", description="How many to keep, at most.")]
    diversity_threshold: Annotated[
        float,
        Field(ge=-1, le=1, title="Similarity", description="The cosine that a row may have to one that is kept."),
    ] = 0.9
    normalize_embeddings: Annotated[
        bool, Field(title="Normalize", description="Off: the embeddings have length 1 already.")
    ] = True

    @property
    def inputs(self) -> Columns:
        return ["evol_instruction_score", "evol_response_score", "embedding"]

    @property
    def outputs(self) -> Columns:
        return ["deita_score", "nearest_neighbor_distance"]

    def process(self, inputs: StepInput) -> StepOutput:
        vector = vector_reader("embedding", inputs, directed=True)
        yield with_columns_of_all(self, inputs, lambda row: Scored(deita_score(row), vector(row)), self._chosen)

    def _chosen(self, given: dict[int, Scored]) -> dict[int, Row]:
        vectors = matrix_of(each.vector for each in given.values())
        if self.normalize_embeddings:
            vectors = directions(vectors)
        number = {place: number for number, place in enumerate(given)}
        chosen: dict[int, Row] = {}
        kept = vectors[: self.data_budget].copy()
        for place in sorted(given, key=lambda place: (-given[place].score, place)):
            vector = vectors[number[place]]
            # A product of equal vectors may be rounded to more than 1.
            similarity = min(1.0, float((kept[: len(chosen)] @ vector).max())) if chosen else None
            if similarity is None or similarity <= self.diversity_threshold:
                kept[len(chosen)] = vector
                distance = None if similarity is None else 1 - similarity
                chosen[place] = {"deita_score": given[place].score, "nearest_neighbor_distance": distance}
            if len(chosen) == self.data_budget:
                break
        return chosen


class Scored(NamedTuple):
    """A row's score and its embedding."""

    score: float
    vector: Array


def deita_score(row: Row) -> float:
    """The product of both scores. Raises ValueError where one isn't a number."""
    product = 1.0
    for column in ("evol_instruction_score", "evol_response_score"):
        value = value_in(row, column)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{column}: expected a number, got {short(value)}")
        product *= value
    return product
