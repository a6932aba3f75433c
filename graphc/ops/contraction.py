"""Matrix products. The op takes matrices with equal batch axes in front; the function does NumPy's other cases."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply, install, signature
from graphc.errors import ArgumentError, DTypeError, ShapeError, fail
from graphc.graph import Attrs, Node, Op, Types, describe
from graphc.ops.lowering import Contraction
from graphc.ops.movement import broadcast_to, matrix_transpose, reshape
from graphc.ops.operands import TensorLike, check_kind, converted, promoted, tensors_of
from graphc.ops.registry import register
from graphc.ops.samples import NUMBERS, Operand, Sample
from graphc.ops.selection import astype
from graphc.types import Dim, Shape, bool_, broadcast_shapes, int64, product


def _matmul_type(types: Types, attrs: Attrs) -> Types:
    if len(types) != 2:
        raise ArgumentError(f"takes 2 operands, not {len(types)}")
    a, b = types
    if a.rank < 2 or b.rank < 2 or a.shape[:-2] != b.shape[:-2]:
        raise ShapeError(f"{{0}} is {a}, {{1}} is {b}; they are matrices with equal batch axes in front")
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(f"inner sizes differ: {{0}} is {a}, {{1}} is {b} ({a.shape[-1]} != {b.shape[-2]})")
    if a.dtype is not b.dtype:
        raise DTypeError(f"{{0}} is {a}, {{1}} is {b}; both have one dtype")
    check_kind(a, "iuf")
    return (a.with_shape((*a.shape[:-1], b.shape[-1])),)


def _labels(types: Types, attrs: Attrs) -> tuple[str, str, str]:
    batch = string.ascii_uppercase[: types[0].rank - 2]
    return batch + "mk", batch + "kn", batch + "mn"


def _matmul_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    a, b = tensors_of(node)
    return matmul(g[0], matrix_transpose(b)), matmul(matrix_transpose(a), g[0])


def _samples() -> list[Sample]:
    batch = Dim.symbol("batch")
    shapes: tuple[tuple[Shape, Shape], ...] = (
        ((3, 4), (4, 5)), ((1, 1), (1, 1)), ((1, 17), (17, 1)), ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((2, 3), (3, 0)),
        ((33, 40), (40, 19)), ((2, 3, 4), (2, 4, 5)), ((batch, 8), (8, 6)), ((6, batch), (batch, 5)),
    )  # fmt: skip
    pairs = [(Operand(a, values="ordinary"), Operand(b, values="ordinary")) for a, b in shapes]
    return [Sample(pair, {}, NUMBERS, {"batch": 7}) for pair in pairs]


_op = register(
    Op(
        "matmul",
        "result[..., m, n] = sum over k of a[..., m, k] * b[..., k, n]; 0 for an empty k. Floats are summed with fma.",
        _matmul_type,
        lambda arrays, attrs: (np.matmul(arrays[0], arrays[1]),),
        _matmul_gradient,
        Contraction(_labels),
        _samples,
        formula="result[..., m, n] = sum over k of x[..., m, k] * y[..., k, n]",
        example="graphc.matmul([[1.0, 2.0], [3.0, 4.0]], [[1.0], [10.0]])",
    )
)


def matmul(x: TensorLike, y: TensorLike) -> Tensor:
    """`x @ y` as NumPy does it: 1-D operands are vectors, batch axes broadcast, bools give bools."""
    dtype = promoted("matmul", x, y)
    a, b = converted("matmul", x, dtype), converted("matmul", y, dtype)
    if a.ndim == 0 or b.ndim == 0:
        fail(ShapeError, f"matmul: an operand is a scalar: {signature(a, b)}", "use * to scale")
    inner = a.shape[-1], b.shape[max(b.ndim - 2, 0)]
    if inner[0] != inner[1]:
        message = f"matmul: inner sizes differ: {signature(a, b)} ({inner[0]} != {inner[1]})"
        fail(ShapeError, message, _transpose_hint(a, b))
    if dtype is bool_:
        return matmul(astype(a, int64), astype(b, int64)) != 0
    left = reshape(a, (1, *a.shape)) if a.ndim == 1 else a
    right = reshape(b, (*b.shape, 1)) if b.ndim == 1 else b
    result = _batched(left, right)
    batch, matrix = result.shape[:-2], result.shape[-2:]
    return reshape(result, (*batch, *matrix[: a.ndim > 1], *matrix[1 : 1 + (b.ndim > 1)]))


def _transpose_hint(a: Tensor, b: Tensor) -> str | None:
    left, right = describe(a.ref), describe(b.ref)
    if b.ndim == 2 and b.shape[1] == a.shape[-1]:
        return f"the second operand fits transposed: {_factor(left)} @ {_factor(right)}.T"
    if a.ndim == 2 and a.shape[0] == b.shape[max(b.ndim - 2, 0)]:
        return f"the first operand fits transposed: {_factor(left)}.T @ {_factor(right)}"
    return None


def _factor(name: str) -> str:
    """A name as it stands in a product, (...) for what nobody named."""
    return "(...)" if " " in name else name


def _batched(a: Tensor, b: Tensor) -> Tensor:
    """The product of stacks of matrices; a stack times one matrix is one large product."""
    if b.ndim == 2 and a.ndim > 2:
        flat = cast(Tensor, apply(_op, reshape(a, (product(a.shape[:-1]), a.shape[-1])), b))
        return reshape(flat, (*a.shape[:-1], b.shape[-1]))
    try:
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError as error:
        fail(ShapeError, f"matmul: batch axes do not broadcast: {signature(a, b)} ({error})")
    return cast(Tensor, apply(_op, *(broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a, b))))


install(matmul=matmul)
