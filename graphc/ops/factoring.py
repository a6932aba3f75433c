"""Matrices as a whole: the ops cholesky, lu, pivot_order and solve_triangular. `graphc.ops.linalg` has the functions.

Each works on the last two axes, for every index of those before. Row-major algorithms: cholesky gives the upper factor
(the lower one is its transpose, which costs nothing), and lu takes rows that are in the order of their pivots already
(pivot_order finds it), so that its gradient has nothing to do with the search. A pivot that is no pivot gives NaN
or infinities, never an error: a compiled step has no place to raise one. To add an algorithm, write its loop rule in
`graphc/loops/matrices.py` under the name that its entry here has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply
from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.graph import Attrs, Node, Op, Types
from graphc.ops.contraction import matmul
from graphc.ops.lowering import Matrices
from graphc.ops.matrices import tril, triu
from graphc.ops.movement import matrix_transpose
from graphc.ops.operands import check_kind, result_of, tensors_of
from graphc.ops.registry import register
from graphc.ops.samples import FLOATS, Operand, Sample
from graphc.ops.selection import where
from graphc.ops.sources import iota
from graphc.types import Dim, Shape, int64

Gradients = Sequence[Tensor | None]
_B, _N = Dim.symbol("batch"), Dim.symbol("n")


def _square(types: Types, count: int = 1) -> None:
    if len(types) != count:
        raise ArgumentError(f"takes {count} operand{'s' * (count > 1)}, not {len(types)}")
    check_kind(types[0], "f")
    shape = types[0].shape
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ShapeError(f"takes square matrices: {{0}} is {types[0]}")


def _square_rule(types: Types, attrs: Attrs) -> Types:
    _square(types)
    return (types[0],)


def _order_rule(types: Types, attrs: Attrs) -> Types:
    _square(types)
    return (types[0].with_shape(types[0].shape[:-1]).with_dtype(int64),)


def _solve_rule(types: Types, attrs: Attrs) -> Types:
    _square(types, 2)
    a, b = types
    if a.dtype is not b.dtype:
        raise DTypeError(f"{{0}} is {a}, {{1}} is {b}; both have one dtype")
    if a.rank != b.rank or a.shape[:-1] != b.shape[:-1]:
        raise ShapeError(f"{{0}} is {a}, {{1}} is {b}: they differ in another axis than the last")
    return (b,)


# references: the algorithms of graphc.loops.matrices, for all matrices at once


def _cholesky_reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    """Row by row: what earlier rows leave of it, over the root of its pivot."""
    (x,) = arrays
    u = np.zeros_like(x)
    with np.errstate(all="ignore"):
        for i in range(x.shape[-1]):
            done = u[..., :i, :]
            row = x[..., i, i:] - np.einsum("...k,...kj->...j", done[..., i], done[..., i:])
            root = np.where(row[..., :1] > 0, np.sqrt(row[..., :1]), np.nan)
            u[..., i, i:] = np.concatenate([root, row[..., 1:] / root], -1)
    return (u,)


def _eliminated(x: np.ndarray, pivoting: bool) -> tuple[np.ndarray, np.ndarray]:
    """(both factors in one matrix, the order of its rows)."""
    n = x.shape[-1]
    work, orders = x.copy(), np.empty(x.shape[:-1], np.int64)
    for batch in np.ndindex(*x.shape[:-2]):
        w, order = work[batch], np.arange(n)
        with np.errstate(all="ignore"):
            for k in range(n):
                if pivoting:
                    size = np.abs(w[k:, k])
                    best = k + (0 if np.isnan(size[0]) else int(np.where(np.isnan(size), -1, size).argmax()))
                    w[[k, best]], order[[k, best]] = w[[best, k]], order[[best, k]]
                w[k + 1 :, k] = 0 if w[k, k] == 0 else w[k + 1 :, k] / w[k, k]
                w[k + 1 :, k + 1 :] -= np.outer(w[k + 1 :, k], w[k, k + 1 :])
        orders[batch] = order
    return work, orders


def _solve_reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    a, b = arrays
    x, n = b.copy(), a.shape[-1]
    with np.errstate(all="ignore"):
        for step in range(n):
            i = step if attrs["lower"] else n - 1 - step
            done = slice(0, i) if attrs["lower"] else slice(i + 1, n)
            row = x[..., i, :] - np.einsum("...k,...kj->...j", a[..., i, done], x[..., done, :])
            x[..., i, :] = row if attrs["unit"] else row / a[..., i, i, None]
    return (x,)


# gradients


def _cholesky_gradient(node: Node, g: Sequence[Any]) -> Gradients:
    """I. Murray, "Differentiation of the Cholesky decomposition" (2016), for the upper factor and triangle."""
    u = result_of(node)
    inner = _halved(matmul(u, matrix_transpose(triu(g[0]))))
    both = matrix_transpose(_solved(u, matrix_transpose(_solved(u, inner, lower=False)), lower=False))
    offset = _offset(both)
    whole = both + matrix_transpose(both)
    return (where(offset == 0, both, where(offset > 0, whole, 0)),)


def _halved(x: Tensor) -> Tensor:
    """The lower triangle with half of the diagonal."""
    offset = _offset(x)
    return where(offset > 0, 0, where(offset == 0, x * 0.5, x))


def _offset(x: Tensor) -> Tensor:
    """Column minus row."""
    return iota(x.shape, int64, x.ndim - 1) - iota(x.shape, int64, x.ndim - 2)


def _solve_gradient(node: Node, g: Sequence[Any]) -> Gradients:
    a, _ = tensors_of(node)
    lower, unit = node.attrs["lower"], node.attrs["unit"]
    of_b = _solved(matrix_transpose(a), g[0], lower=not lower, unit=unit)
    product = -matmul(of_b, matrix_transpose(result_of(node)))
    return (tril(product, -1 if unit else 0) if lower else triu(product, 1 if unit else 0)), of_b


def _lu_gradient(node: Node, g: Sequence[Any]) -> Gradients:
    """With dX = inv(L) dA inv(U): dL = L tril(dX, -1) and dU = triu(dX) U."""
    both = result_of(node)
    upper = triu(both)
    lower = where(_offset(both) == 0, 1, tril(both))
    left = tril(matmul(matrix_transpose(lower), tril(g[0], -1)), -1)
    inner = left + triu(matmul(triu(g[0]), matrix_transpose(upper)))
    inner = _solved(matrix_transpose(both), inner, lower=False, unit=True)
    return (matrix_transpose(_solved(both, matrix_transpose(inner), lower=False)),)


def _solved(a: Tensor, b: Tensor, lower: bool, unit: bool = False) -> Tensor:
    return cast(Tensor, apply("solve_triangular", a, b, lower=lower, unit=unit))


# entries


def _samples(special: tuple[float, ...]) -> Callable[[], list[Sample]]:
    """Matrices of well-conditioned values, one with a pivot that is none, and one with NaN."""
    shapes: tuple[Shape, ...] = ((3, 3), (2, 3, 5, 5), (1, 1), (0, 0), (21, 21), (2, 0, 4, 4), (_B, _N, _N), (0, 2, 2))

    def samples() -> list[Sample]:
        made = [Sample((Operand(s, values="dominant"),), {}, FLOATS, {"batch": 2, "n": 6}) for s in shapes]
        odd = [Operand((2, 2), values=special), Operand((2, 2), values=(float("nan"), 1.0, 1.0, 4.0))]
        return [*made, *(Sample((operand,), {}, FLOATS, smooth=False) for operand in odd)]

    return samples


def _solve_samples() -> list[Sample]:
    shapes: tuple[tuple[Shape, Shape], ...] = (
        ((3, 3), (3, 2)), ((2, 3, 5, 5), (2, 3, 5, 1)), ((1, 1), (1, 1)), ((0, 0), (0, 3)), ((21, 21), (21, 37)),
        ((_B, _N, _N), (_B, _N, 3)), ((3, 3), (3, 0)), ((37, 37), (37, 1)), ((2, 2), (2, _B)),
    )  # fmt: skip
    return [
        Sample(
            (Operand(a, values="dominant"), Operand(b, values="ordinary")),
            {"lower": n % 2 == 0, "unit": n % 3 == 2 and not many},
            FLOATS,
            {"batch": 2, "n": 6},
        )
        for n, (a, b) in enumerate(shapes)
        for many in (False, True)
    ]


_ON_MATRICES = "A NaN reaches what is computed after it: its row's results and those of later rows."

register(
    Op(
        "cholesky",
        "cholesky()(x): the upper triangular U with x = U.T @ U, of which the upper triangle of x is read; zeros below."
        " NaN from the first row on whose pivot is not positive. The gradient is that of the triangle that is read.",
        _square_rule,
        _cholesky_reference,
        _cholesky_gradient,
        Matrices("cholesky"),
        _samples((1.0, 2.0, 2.0, 1.0)),
        formula="U with U^T U = x",
        nan=_ON_MATRICES,
        example="graphc.cholesky(graphc.constant([[4.0, 2.0], [2.0, 5.0]]))",
    )
)
register(
    Op(
        "lu",
        "lu()(x): a unit lower triangular L (its diagonal left out) and an upper triangular U with x = L @ U, in one"
        " matrix, without exchanging rows. Where a pivot is 0, the column below counts as 0.",
        _square_rule,
        lambda arrays, attrs: (_eliminated(arrays[0], pivoting=False)[0],),
        _lu_gradient,
        Matrices("lu"),
        _samples((0.0, 2.0, 0.0, 1.0)),
        formula="L + U - 1 with L U = x",
        nan=_ON_MATRICES,
        example="graphc.solve(graphc.constant([[2.0, 1.0], [1.0, 3.0]]), graphc.constant([1.0, 2.0]))",
    )
)
register(
    Op(
        "pivot_order",
        "pivot_order()(x): the int64 order of the rows of each matrix in which elimination takes the largest pivot that"
        " is left, the first of equal ones.",
        _order_rule,
        lambda arrays, attrs: (_eliminated(arrays[0], pivoting=True)[1],),
        lowering=Matrices("pivot_order"),
        samples=_samples((0.0, 2.0, 0.0, 1.0)),
        exempt={"gradient": "the result is positions"},
        formula="p with x[p] = L U, abs(L) <= 1",
        nan="A NaN is never larger than a pivot, and stays where it is first.",
        example="graphc.det(graphc.constant([[0.0, 1.0], [2.0, 3.0]]))",
    )
)
register(
    Op(
        "solve_triangular",
        "solve_triangular(lower, unit)(a, b): x with a @ x = b, where a is triangular: the other triangle is not read,"
        " with `unit` the diagonal neither, which counts as 1. A 0 on the diagonal gives infinities or NaN.",
        _solve_rule,
        _solve_reference,
        _solve_gradient,
        Matrices("solve_triangular"),
        _solve_samples,
        formula="x with a x = b",
        nan=_ON_MATRICES,
        example="graphc.solve_triangular([[2.0, 0.0], [1.0, 4.0]], [2.0, 9.0], lower=True)",
    )
)
