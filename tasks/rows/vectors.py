"""Vectors in rows, as arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from llms.parameters import short
from llms.quantities import quantity
from tasks.rows.columns import value_in
from tasks.steps import failure_in
from tasks.typing import Row

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[np.float32]


def vector_reader(column: str, rows: Sequence[Row], *, directed: bool = False) -> Callable[[Row], Array]:
    """What reads the vector of a row: as many numbers as most of `rows` have.

    Args:
        column: where the vectors are.
        rows: all rows.
        directed: refuse a vector of zeros, which has no direction.

    Returns:
        A function that raises ValueError for a row without such a vector.
    """
    values = [row.get(column) for row in rows if failure_in(row) is None]
    lengths = Counter(len(cast("list[Any]", each)) for each in values if isinstance(each, list) and each)
    length = max(lengths, key=lengths.__getitem__, default=0)

    def read(row: Row) -> Array:
        vector = vector_of(column, value_in(row, column))
        if len(vector) != length:
            raise ValueError(f"{column}: expected {quantity(length, 'number')}, as most rows have, got {len(vector)}")
        if directed and not vector.any():
            raise ValueError(f"{column}: expected a vector with a direction, got {quantity(length, 'zero')}")
        return vector

    return read


def vector_of(column: str, value: Any) -> Array:
    """A list of numbers as an array. Raises ValueError."""
    import numpy as np

    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not len(array):
        raise ValueError(f"{column}: expected a list of numbers, got {short(value)}")
    with np.errstate(over="ignore"):
        vector = array.astype(np.float32)
    if not np.isfinite(vector).all():
        raise ValueError(f"{column}: expected finite numbers, got {short(value)}")
    return vector


def matrix_of(vectors: Iterable[Array]) -> Array:
    """Vectors of one length as the rows of a matrix."""
    import numpy as np

    return np.stack(list(vectors))


def directions(matrix: Array) -> Array:
    """The rows of a matrix at length 1: their products are the cosines of the angles between them."""
    import numpy as np

    lengths = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    return (matrix / lengths).astype(np.float32)
