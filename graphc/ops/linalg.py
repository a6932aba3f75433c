"""Linear algebra: functions over matrices, as the array API and NumPy name them (also in `graphc.linalg`).

The last two axes are the matrix, those before are batch axes that broadcast. They are compositions of the ops of
`graphc.ops.factoring` and have gradients of every order. Meant for small systems: elimination runs on one thread for
each matrix. A singular matrix gives infinities or NaN, where NumPy raises an error.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from graphc.build import Tensor, apply, signature
from graphc.errors import ArgumentError, ShapeError, fail
from graphc.ops.arithmetic import abs, sign
from graphc.ops.contraction import matmul
from graphc.ops.factoring import _offset
from graphc.ops.indexing import getitem, take_along_axis
from graphc.ops.joining import moveaxis, stack
from graphc.ops.matrices import as_matrix, eye
from graphc.ops.movement import broadcast_to, expand_dims, matrix_transpose, reshape, slice_op, squeeze
from graphc.ops.operands import TensorLike, as_tensor, converted, expanded, floating, normalized_axis, promoted
from graphc.ops.reductions import max, min, prod, sum
from graphc.ops.selection import astype, where
from graphc.ops.statistics import norm
from graphc.ops.transcendental import log
from graphc.types import Shape, broadcast_shapes


class SlogdetResult(NamedTuple):
    """What `slogdet` gives."""

    sign: Tensor
    logabsdet: Tensor


def cholesky(x: TensorLike, /, *, upper: bool = False) -> Tensor:
    """The lower triangular L with x = L @ L.T, for a symmetric positive definite `x`; with `upper` L.T.

    Only one triangle of `x` is read (the lower one, with `upper` the upper one), and only it has a gradient. NaN from
    the first pivot on that is not positive. `cholesky([[4.0, 2.0], [2.0, 5.0]])` is [[2, 0], [1, 2]].
    """
    matrix = _square("cholesky", x)
    if upper:
        return cast(Tensor, apply("cholesky", matrix))
    return matrix_transpose(apply("cholesky", matrix_transpose(matrix)))


def solve_triangular(
    a: TensorLike, b: TensorLike, /, *, lower: bool = False, unit_diagonal: bool = False, trans: bool = False
) -> Tensor:
    """x with a @ x = b (with `trans`, a.T @ x = b) for a triangular `a`, of which the other triangle is not read.

    b is a vector of n or matrices of n rows, as in `solve`. With `unit_diagonal` the diagonal counts as 1. A 0 on the
    diagonal gives infinities or NaN. `solve_triangular([[2.0, 0.0], [1.0, 4.0]], [2.0, 9.0], lower=True)` is [1, 2].
    """
    matrix, right, vector = _system("solve_triangular", a, b)
    if trans:
        matrix, lower = matrix_transpose(matrix), not lower
    found = cast(Tensor, apply("solve_triangular", matrix, right, lower=bool(lower), unit=bool(unit_diagonal)))
    return squeeze(found, -1) if vector else found


def solve(a: TensorLike, b: TensorLike, /) -> Tensor:
    """x with a @ x = b, by elimination that exchanges rows: `a` is [..., n, n], `b` [n] or [..., n, k].

    A singular `a` gives infinities or NaN. `solve([[2.0, 1.0], [1.0, 3.0]], [4.0, 7.0])` is [1, 2].
    """
    matrix, right, vector = _system("solve", a, b)
    order, factors = _factors(matrix)
    right = take_along_axis(right, broadcast_to(expand_dims(order, -1), right.shape), -2)
    below = apply("solve_triangular", factors, right, lower=True, unit=True)
    found = cast(Tensor, apply("solve_triangular", factors, below, lower=False, unit=False))
    return squeeze(found, -1) if vector else found


def inv(x: TensorLike, /) -> Tensor:
    """The inverse of each matrix: `inv([[2.0, 0.0], [0.0, 4.0]])` is [[0.5, 0], [0, 0.25]]. Prefer `solve`."""
    matrix = _square("inv", x)
    return solve(matrix, broadcast_to(eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape))


def det(x: TensorLike, /) -> Tensor:
    """The determinant of each matrix: `det([[1.0, 2.0], [3.0, 4.0]])` is -2. 1 for a matrix without elements.

    Its gradient is computed with the inverse, so it is not finite for a singular matrix.
    """
    order, factors = _factors(_square("det", x))
    return prod(diagonal(factors), -1) * astype(_parity(order), factors.dtype)


def slogdet(x: TensorLike, /) -> SlogdetResult:
    """(sign, logabsdet) with det(x) = sign * exp(logabsdet), where the determinant itself might overflow.

    For a singular matrix 0 and -inf. `slogdet([[1.0, 2.0], [3.0, 4.0]])` is (-1, 0.6931472).
    """
    order, factors = _factors(_square("slogdet", x))
    pivots = diagonal(factors)
    signs = prod(sign(pivots), -1) * astype(_parity(order), factors.dtype)
    return SlogdetResult(signs, sum(log(abs(pivots)), -1))


def matrix_power(x: TensorLike, n: int, /) -> Tensor:
    """x @ x @ ..., n times; the identity for 0, the inverse to the power of -n below.

    `matrix_power([[1.0, 1.0], [0.0, 1.0]], 3)` is [[1, 3], [0, 1]].
    """
    matrix = _square("matrix_power", x)
    if not isinstance(n, int):
        fail(ArgumentError, f"matrix_power: the power is an int, not {n!r}")
    base = inv(matrix) if n < 0 else matrix
    result = None if n else broadcast_to(eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
    for bit in reversed(f"{builtins.abs(n):b}" if n else ""):
        if bit == "1":
            result = base if result is None else matmul(result, base)
        base = matmul(base, base)
    assert result is not None
    return result


def diagonal(x: TensorLike, /, *, offset: int = 0) -> Tensor:
    """The elements [i, i + offset] of each matrix, along the last axis. `diagonal([[1, 2], [3, 4]])` is [1, 4].

    A named size needs square matrices and offset 0.
    """
    matrix = as_matrix("diagonal", x)
    *batch, rows, columns = matrix.shape
    if not isinstance(rows, int) or not isinstance(columns, int):
        if offset or rows != columns:
            fail(ShapeError, f"diagonal: of sizes that are not known only the main one: {signature(matrix)}")
        return astype(sum(where(_offset(matrix) == 0, matrix, 0), -1), matrix.dtype)
    start = offset if offset >= 0 else -offset * columns
    count = builtins.max(0, builtins.min(rows + builtins.min(offset, 0), columns - builtins.max(offset, 0)))
    stop = start + (count - 1) * (columns + 1) + 1 if count else start
    flat = reshape(matrix, (*batch, rows * columns))
    if not count:
        return getitem(flat, (..., slice(0, 0)))
    fill = (0,) * len(batch), tuple(batch), (1,) * len(batch)
    starts, stops, steps = ((*f, last) for f, last in zip(fill, (start, stop, columns + 1), strict=True))
    return cast(Tensor, apply(slice_op, flat, starts=starts, stops=stops, steps=steps))


def trace(x: TensorLike, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sum of `diagonal(x, offset=offset)`; small integers are summed in 64 bits. `trace([[1, 2], [3, 4]])` is 5."""
    return sum(diagonal(x, offset=offset), -1, dtype=dtype)


def cross(x: TensorLike, y: TensorLike, /, *, axis: int = -1) -> Tensor:
    """The cross product of vectors of 3 along `axis`, broadcast. `cross([1, 0, 0], [0, 1, 0])` is [0, 0, 1]."""
    dtype = promoted("cross", x, y)
    a, b = converted("cross", x, dtype), converted("cross", y, dtype)
    try:
        shape: Shape = broadcast_shapes(a.shape, b.shape)
    except ValueError as error:
        fail(ShapeError, f"cross: shapes do not broadcast: {signature(a, b)} ({error})")
    place = normalized_axis("cross", axis, len(shape))
    behind = len(shape) - place
    if builtins.any(t.ndim < behind or t.shape[-behind] != 3 for t in (a, b)):
        fail(ShapeError, f"cross: vectors have 3 elements along axis {axis}: {signature(a, b)}")
    (a0, a1, a2), (b0, b1, b2) = ([moveaxis(expanded(t, shape), place, 0)[i] for i in range(3)] for t in (a, b))
    return stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], place)


def vector_norm(
    x: TensorLike, /, *, axis: int | Sequence[int] | None = None, keepdims: bool = False, ord: float = 2
) -> Tensor:
    """`norm` as the array API names and orders its arguments. `vector_norm([3.0, 4.0])` is 5."""
    return norm(x, ord, cast(Any, axis), keepdims)


def matrix_norm(x: TensorLike, /, *, keepdims: bool = False, ord: float | str = "fro") -> Tensor:
    """The norm of each matrix: "fro" (the root of the sum of squares), 1 and -1 (of columns), inf and -inf (of rows).

    1 and inf take the largest sum of magnitudes, -1 and -inf the least. (2 and "nuc" need singular values, which there
    are not.) `matrix_norm([[3.0, 0.0], [0.0, 4.0]])` is 5.
    """
    matrix = as_matrix("matrix_norm", x)
    matrix = converted("matrix_norm", matrix, floating(matrix.dtype))
    if ord == "fro":
        return norm(matrix, 2, (-2, -1), keepdims)
    if isinstance(ord, str) or builtins.abs(ord) not in (1, float("inf")):
        fail(ArgumentError, f'matrix_norm: ord is "fro", 1, -1, inf or -inf, not {ord!r}')
    axis = -2 if builtins.abs(ord) == 1 else -1
    found = (max if ord > 0 else min)(sum(abs(matrix), axis, keepdims=True), (-2, -1), keepdims=True)
    return found if keepdims else squeeze(found, (-2, -1))


def _square(name: str, x: TensorLike) -> Tensor:
    """Square matrices of floats."""
    tensor = as_matrix(name, x)
    if tensor.shape[-1] != tensor.shape[-2]:
        fail(ShapeError, f"{name}: takes square matrices: {signature(tensor)}")
    return converted(name, tensor, floating(tensor.dtype))


def _system(name: str, a: TensorLike, b: TensorLike) -> tuple[Tensor, Tensor, bool]:
    """Matrices and right sides of one dtype with equal batch axes; whether the right side was a vector."""
    dtype = floating(promoted(name, a, b))
    matrix, right = converted(name, _square(name, a), dtype), converted(name, as_tensor(b), dtype)
    vector = right.ndim == 1
    right = expand_dims(right, -1) if vector else right
    if right.ndim < 2 or right.shape[-2] != matrix.shape[-1]:
        fail(ShapeError, f"{name}: the sizes of the system differ: {signature(matrix, right)}")
    try:
        batch: Shape = broadcast_shapes(matrix.shape[:-2], right.shape[:-2])
    except ValueError as error:
        fail(ShapeError, f"{name}: the batch axes do not broadcast: {signature(matrix, right)} ({error})")
    return expanded(matrix, (*batch, *matrix.shape[-2:])), expanded(right, (*batch, *right.shape[-2:])), vector


def _factors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The order of the rows, and the factors of the matrix in that order."""
    order = cast(Tensor, apply("pivot_order", matrix))
    rows = take_along_axis(matrix, broadcast_to(expand_dims(order, -1), matrix.shape), -2)
    return order, cast(Tensor, apply("lu", rows))


def _parity(order: Tensor) -> Tensor:
    """1 or -1: by how many pairs are out of order."""
    later, earlier = expand_dims(order, -2), expand_dims(order, -1)
    pairs = (earlier > later) & (_offset(broadcast_to(later, (*order.shape, order.shape[-1]))) > 0)
    return 1 - 2 * (sum(pairs, (-2, -1)) % 2)
