"""The nearest neighbours of each row, by its embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from llms.extras import package
from llms.parameters import Unasked
from llms.quantities import quantity
from tasks.rows.columns import with_columns_of_all
from tasks.rows.vectors import directions, matrix_of, vector_reader
from tasks.steps import GlobalStep
from tasks.typing import Columns, Row, StepInput, StepOutput

if TYPE_CHECKING:
    from tasks.rows.vectors import Array

Metric: TypeAlias = Literal["cosine", "inner_product", "l2"]

FAISS_METRICS: dict[int, Metric] = {0: "inner_product", 1: "l2"}
"""faiss.METRIC_INNER_PRODUCT and faiss.METRIC_L2, as distilabel takes them."""


def as_list(value: Any) -> Any:
    """One number as a list."""
    return [value] if isinstance(value, int) else value


def as_metric(value: Any) -> Any:
    """A number of Faiss's as the name of the metric."""
    return FAISS_METRICS.get(value, value) if isinstance(value, int) else value


class FaissNearestNeighbour(GlobalStep):
    """The `k` nearest neighbours of each row among all rows, found with Faiss.

    Without a `string_factory` every vector is compared with every other: exact. An index such as `IVF300,Flat` or
    `HNSW32` is quicker, and may miss some; see https://github.com/facebookresearch/faiss/wiki/The-index-factory.

    A row isn't its own neighbour, also where another row has the same embedding. Where fewer than `k` were found,
    the lists are shorter. It needs the extra `vectors`; GPUs need a build of Faiss for them.

    For someone who comes from distilabel: the metric is `cosine` here unless you choose another, there it was `l2`.

    Input columns:
        embedding: a list of numbers.

    Output columns:
        nn_indices: the places of the neighbours among all rows, the nearest first.
        nn_scores: how near each is: the cosine or the inner product (more is nearer), or with `l2` the squared
            distance (less is nearer).

    Source: The Faiss library (https://arxiv.org/abs/2401.08281).

    Example:
        >>> from tasks import FaissNearestNeighbour
        >>> rows = [{"embedding": [1.0, 0.0]}, {"embedding": [1.0, 0.1]}, {"embedding": [0.0, 1.0]}]
        >>> [row["nn_indices"] for row in next(FaissNearestNeighbour().process(rows))]
        [[1], [0], [1]]
    """

    fails_rows = True
    takes_failed_rows = True

    device: Annotated[
        list[int],
        BeforeValidator(as_list),
        Field(title="GPUs", description="Their numbers; -1 for all. Empty: the processor."),
        Unasked(),
    ] = []
    string_factory: Annotated[
        str | None, Field(title="Index", description="As Faiss's index factory takes it. Empty: an exact search.")
    ] = None
    metric_type: Annotated[
        Metric,
        BeforeValidator(as_metric),
        Field(title="Metric", description="By which rows are near each other."),
    ] = "cosine"
    k: Annotated[int, Field(ge=1, title="Neighbours", description="How many per row.")] = 1
    search_batch_size: Annotated[
        int, Field(ge=1, title="Rows per search", description="More are quicker, and take more memory."), Unasked()
    ] = 1024
    train_size: Annotated[
        int | None,
        Field(ge=1, title="Rows to train with", description="For an index that is trained. Empty: all."),
    ] = None

    @property
    def inputs(self) -> Columns:
        return ["embedding"]

    @property
    def outputs(self) -> Columns:
        return ["nn_indices", "nn_scores"]

    def load(self) -> None:
        self._faiss()

    def process(self, inputs: StepInput) -> StepOutput:
        read = vector_reader("embedding", inputs, directed=self.metric_type == "cosine")
        yield with_columns_of_all(self, inputs, read, self._neighbours)

    def _neighbours(self, vectors: dict[int, Array]) -> dict[int, Row]:
        matrix = matrix_of(vectors.values())
        if self.metric_type == "cosine":
            matrix = directions(matrix)
        index = self._index(matrix)
        places = list(vectors)
        found: dict[int, Row] = {}
        for start in range(0, len(matrix), self.search_batch_size):
            scores, numbers = index.search(matrix[start : start + self.search_batch_size], self.k + 1)
            for own, (near, said) in enumerate(zip(numbers.tolist(), scores.tolist(), strict=True), start):
                # An index that found fewer says so by -1.
                others = [pair for pair in zip(near, said, strict=True) if pair[0] not in {own, -1}][: self.k]
                found[places[own]] = {
                    "nn_indices": [places[number] for number, _ in others],
                    "nn_scores": [score for _, score in others],
                }
        return found

    def _index(self, matrix: Array) -> Any:
        """An index with all vectors. Raises ValueError where there's none as it was asked for."""
        faiss = self._faiss()
        metric = faiss.METRIC_L2 if self.metric_type == "l2" else faiss.METRIC_INNER_PRODUCT
        try:
            index = self._on_device(faiss, faiss.index_factory(matrix.shape[1], self.string_factory or "Flat", metric))
            if not index.is_trained:
                index.train(evenly_chosen(matrix, self.train_size or len(matrix)))
            index.add(matrix)
        except RuntimeError as error:
            reason = str(error).rpartition("Error: ")[2]
            raise ValueError(
                f"{self.name}: Faiss can't make the index {self.string_factory or 'Flat'!r} of"
                f" {quantity(len(matrix), 'vector')} of {quantity(matrix.shape[1], 'number')}: {reason}"
            ) from error
        return index

    def _on_device(self, faiss: Any, index: Any) -> Any:
        if not self.device:
            return index
        available: int = faiss.get_num_gpus()
        wanted = list(range(available)) if -1 in self.device else self.device
        if not wanted or max(wanted) >= available:
            raise ValueError(
                f"{self.name}: device={self.device!r}, but this Faiss sees {quantity(available, 'GPU')};"
                " install a build of it for GPUs (faiss-gpu), or leave device empty"
            )
        return faiss.index_cpu_to_gpus_list(index, gpus=wanted)

    def _faiss(self) -> Any:
        return package("faiss", "vectors", type(self).__name__)


def evenly_chosen(matrix: Array, count: int) -> Array:
    """`count` rows of a matrix, or all, from its whole length."""
    import numpy as np

    if count >= len(matrix):
        return matrix
    return matrix[np.linspace(0, len(matrix) - 1, count).astype(int)]
