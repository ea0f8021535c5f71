"""Embeddings in few dimensions, and the clusters that they form there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from llms.extras import package
from llms.parameters import Unasked
from tasks.rows.columns import with_columns_of_all
from tasks.rows.vectors import matrix_of, vector_reader
from tasks.steps import GlobalStep
from tasks.typing import Columns, Row, StepInput, StepOutput

if TYPE_CHECKING:
    from tasks.rows.vectors import Array

NEIGHBOURS = 15
"""Rows that UMAP takes for the neighbourhood of a row, where there are so many."""

# The threads that UMAP starts by itself can't be started from two of ours.
_one_umap = threading.Lock()


class UMAP(GlobalStep):
    """Embeddings in few dimensions, rows that are near each other staying near each other.

    With a `random_state` the same rows give the same projection, on one processor; without one it is quicker, and
    another one each time. Fewer than three rows have no neighbourhoods: they are put side by side. It needs the
    extra `clustering`.

    Input columns:
        embedding: a list of numbers.

    Output columns:
        projection: a list of `n_components` numbers.

    Source: UMAP: Uniform Manifold Approximation and Projection for Dimension Reduction
    (https://arxiv.org/abs/1802.03426).

    Example:
        >>> from tasks import UMAP
        >>> rows = next(UMAP(n_components=2).process([{"embedding": [1.0, 0.0, 0.0]}, {"embedding": [0.0, 1.0, 0.0]}]))
        >>> [row["projection"] for row in rows]
        [[0.0, 0.0], [1.0, 0.0]]
    """

    fails_rows = True
    takes_failed_rows = True

    n_components: Annotated[int, Field(ge=1, title="Dimensions")] = 2
    metric: Annotated[
        str, Field(title="Metric", description="Of the embeddings, such as euclidean, cosine, manhattan.")
    ] = "euclidean"
    n_jobs: Annotated[int, Field(title="Processors", description="Without a random state; -1 for all."), Unasked()] = -1
    random_state: Annotated[int | None, Field(ge=0, lt=2**32, title="Random state", description="The seed.")] = 0

    @property
    def inputs(self) -> Columns:
        return ["embedding"]

    @property
    def outputs(self) -> Columns:
        return ["projection"]

    def load(self) -> None:
        self._umap()

    def process(self, inputs: StepInput) -> StepOutput:
        yield with_list_of_all(self, inputs, "embedding", self._projected)

    def _projected(self, matrix: Array) -> list[Any]:
        rows = len(matrix)
        if rows < 3:
            return [[float(number), *[0.0] * (self.n_components - 1)] for number in range(rows)]
        umap = self._umap().UMAP(
            n_components=self.n_components,
            n_neighbors=min(NEIGHBOURS, rows - 1),
            metric=self.metric,
            n_jobs=self.n_jobs if self.random_state is None else 1,
            random_state=self.random_state,
            # The other way to begin needs more rows than dimensions.
            init="spectral" if rows > self.n_components + 1 else "random",
        )
        with _one_umap:
            return umap.fit_transform(matrix).tolist()

    def _umap(self) -> Any:
        return package("umap", "clustering", type(self).__name__)


class DBSCAN(GlobalStep):
    """Clusters of rows: where the projections lie close together.

    A row with at least `min_samples` rows within `eps`, itself among them, begins or continues a cluster. Rows that
    are near no such row are noise. It needs the extra `clustering`.

    Input columns:
        projection: a list of numbers, such as from `UMAP`.

    Output columns:
        cluster_label: the number of the cluster, from 0 on; -1 for noise.

    Source: A Density-Based Algorithm for Discovering Clusters in Large Spatial Databases with Noise
    (https://www.aaai.org/Papers/KDD/1996/KDD96-037.pdf).

    Example:
        >>> from tasks import DBSCAN
        >>> places = [[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [5.0, 5.1], [9.0, 0.0]]
        >>> rows = next(DBSCAN(min_samples=2).process([{"projection": place} for place in places]))
        >>> [row["cluster_label"] for row in rows]
        [0, 0, 1, 1, -1]
    """

    fails_rows = True
    takes_failed_rows = True

    eps: Annotated[float, Field(gt=0, title="Distance", description="Up to which two rows are neighbours.")] = 0.3
    min_samples: Annotated[
        int, Field(ge=1, title="Neighbours", description="Of a row within a cluster, itself counted.")
    ] = 30
    metric: Annotated[str, Field(title="Metric", description="Such as euclidean, cosine, manhattan.")] = "euclidean"
    n_jobs: Annotated[int, Field(title="Processors", description="-1 for all."), Unasked()] = -1

    @property
    def inputs(self) -> Columns:
        return ["projection"]

    @property
    def outputs(self) -> Columns:
        return ["cluster_label"]

    def load(self) -> None:
        self._cluster()

    def process(self, inputs: StepInput) -> StepOutput:
        yield with_list_of_all(self, inputs, "projection", self._labels)

    def _labels(self, matrix: Array) -> list[Any]:
        options = {"eps": self.eps, "min_samples": self.min_samples, "metric": self.metric, "n_jobs": self.n_jobs}
        return self._cluster().DBSCAN(**options).fit_predict(matrix).tolist()

    def _cluster(self) -> Any:
        return package("sklearn.cluster", "clustering", type(self).__name__)


def with_list_of_all(
    step: GlobalStep, rows: StepInput, column: str, compute: Callable[[Array], list[Any]]
) -> list[Row]:
    """Rows with the step's only output, made of the matrix of all their vectors."""
    (output,) = step.outputs

    def columns(vectors: dict[int, Array]) -> dict[int, Row]:
        made = compute(matrix_of(vectors.values()))
        return {place: {output: value} for place, value in zip(vectors, made, strict=True)}

    return with_columns_of_all(step, rows, vector_reader(column, rows), columns)
