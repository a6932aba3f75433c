"""Arrays with a pattern: eye, tril, triu, one_hot, linspace. Compositions of positions and comparisons, which fuse."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.build import Tensor, as_dtype, constant, signature
from graphc.errors import DTypeError, ShapeError, fail
from graphc.ops.comparison import equal, greater_equal
from graphc.ops.movement import expand_dims
from graphc.ops.operands import TensorLike, as_tensor
from graphc.ops.selection import astype, where
from graphc.ops.sources import dim_value, iota, zeros_like
from graphc.types import Shape, Size


def _diagonal_offset(shape: Shape) -> Tensor:
    """Column minus row for each element of the last two axes."""
    return iota(shape, "int64", len(shape) - 1) - iota(shape, "int64", len(shape) - 2)


def eye(rows: Size, columns: Size | None = None, k: int = 0, dtype: Any = "float32") -> Tensor:
    """Ones on diagonal `k` (above the main one for k > 0), zeros elsewhere. `eye(2)` is [[1, 0], [0, 1]]."""
    shape = (rows, rows if columns is None else columns)
    return astype(equal(_diagonal_offset(shape), k), dtype)


def tril(x: TensorLike, k: int = 0) -> Tensor:
    """The last two axes with zeros above diagonal `k` (nan above it becomes 0 too). `tril(ones((2, 2)))` is lower."""
    tensor = as_matrix("tril", x)
    return where(_diagonal_offset(tensor.shape) <= k, tensor, zeros_like(tensor))


def triu(x: TensorLike, k: int = 0) -> Tensor:
    """The last two axes with zeros below diagonal `k` (nan below it becomes 0 too). `triu(ones((2, 2)))` is upper."""
    tensor = as_matrix("triu", x)
    return where(greater_equal(_diagonal_offset(tensor.shape), k), tensor, zeros_like(tensor))


def as_matrix(name: str, x: TensorLike) -> Tensor:
    """`x` as a tensor of matrices (its last two axes); ShapeError if it has fewer axes."""
    tensor = as_tensor(x)
    if tensor.ndim < 2:
        fail(ShapeError, f"{name}: takes matrices: {signature(tensor)}")
    return tensor


def one_hot(indices: TensorLike, size: Size, dtype: Any = "float32") -> Tensor:
    """A new last axis of `size`, 1 at each index and 0 elsewhere; an index outside of 0..size-1 gives zeros.

    `one_hot([0, 2], 3)` is [[1, 0, 0], [0, 0, 1]]. Raises DTypeError for indices that are no integers.
    """
    labels = as_tensor(indices)
    if not labels.dtype.is_integer:
        fail(DTypeError, f"one_hot: indices must be integers: {signature(labels)}", "indices.astype('int64')")
    return astype(equal(iota((*labels.shape, size), "int64", labels.ndim), expand_dims(labels, -1)), dtype)


def linspace(start: TensorLike, stop: TensorLike, num: Size = 50, endpoint: bool = True, dtype: Any = None) -> Tensor:
    """`num` numbers from `start` to `stop` at equal distances (without `stop` itself if not `endpoint`).

    start and stop are scalars. The default dtype is float32, that of float tensors if they are some. The last number
    is `stop` to the bit. `linspace(0, 1, 5)` is [0, 0.25, 0.5, 0.75, 1].
    """
    given = [t.dtype for t in (start, stop) if isinstance(t, (Tensor, np.ndarray, np.generic))]
    wide = any(as_dtype(d).name == "float64" for d in given)
    kind = as_dtype(dtype) if dtype is not None else as_dtype("float64" if wide else "float32")
    if not kind.is_float:
        fail(DTypeError, f"linspace: {kind.name} is no float", "round and convert the result")
    if isinstance(num, int) and num < 0:
        fail(ShapeError, f"linspace: {num} numbers")
    first, last = (t if isinstance(t, Tensor) else constant(t, "float64") for t in (start, stop))
    if first.ndim or last.ndim:
        fail(ShapeError, f"linspace: start and stop are scalars: {signature(first, last)}")
    first, last = astype(first, "float64"), astype(last, "float64")
    steps = num - 1 if endpoint else num
    position = iota((num,), "float64")
    count = dim_value(steps, "float64")
    values = first + position * ((last - first) / where(count > 0, count, 1.0))
    if endpoint:
        values = where((position == count) & (count > 0), last, values)
    return astype(values, kind)
