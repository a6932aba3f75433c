"""Minibatches of arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphc.build import fail
from graphc.errors import ArgumentError, ShapeError


def minibatches(
    *arrays: np.ndarray, size: int, generator: np.random.Generator | None = None
) -> Iterator[tuple[np.ndarray, ...]]:
    """Tuples of `size` rows of each array, all rows once; the last tuple has what is left.

    With a `generator` the rows come in a new random order. A compiled step with a symbolic batch takes both sizes.
    Raises ShapeError if the arrays differ in their number of rows, ArgumentError without arrays or rows a batch.
    """
    if not arrays or size < 1:
        fail(ArgumentError, f"minibatches: {len(arrays)} arrays in batches of {size}: give at least one of each")
    if len({len(array) for array in arrays}) > 1:
        fail(ShapeError, f"minibatches: the arrays have {', '.join(str(len(array)) for array in arrays)} rows")
    return _batches(arrays, size, generator)


def _batches(
    arrays: tuple[np.ndarray, ...], size: int, generator: np.random.Generator | None
) -> Iterator[tuple[np.ndarray, ...]]:
    rows = len(arrays[0])
    order = np.arange(rows) if generator is None else generator.permutation(rows)
    for start in range(0, rows, size):
        chosen = order[start : start + size]
        yield tuple(array[chosen] for array in arrays)
