"""Order: the op `argsort`; sort, topk, searchsorted and bincount as compositions.

Sorting is stable. nan is the largest of all, so it comes last, and first in a descending order. Values follow their
positions, so gradients go to the elements that they came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply, signature
from graphc.errors import ArgumentError, DTypeError, ShapeError, fail
from graphc.graph import Attrs, Op, Types
from graphc.ops.comparison import compare, greater, isnan, less
from graphc.ops.indexing import getitem, scatter_add_along_axis, take_along_axis
from graphc.ops.lowering import Sort
from graphc.ops.movement import expand_dims
from graphc.ops.operands import (
    TensorLike,
    as_tensor,
    check_kind,
    converted,
    expanded,
    integer,
    normalized_axis,
    promoted,
)
from graphc.ops.reductions import sum
from graphc.ops.registry import register
from graphc.ops.samples import ALL, FLOATS, Operand, Sample
from graphc.ops.sources import ones
from graphc.types import Dim, Shape, Size, int64


def _rule(types: Types, attrs: Attrs) -> Types:
    if len(types) != 1:
        raise ArgumentError(f"takes 1 operand, not {len(types)}")
    check_kind(types[0], "biuf")
    if not 0 <= attrs["axis"] < types[0].rank:
        raise ShapeError(f"{{0}} is {types[0]}, it has no axis {attrs['axis']}")
    return (types[0].with_dtype(int64),)


def _reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    (x,), axis = arrays, attrs["axis"]
    if not attrs["descending"]:
        return (np.argsort(x, axis, stable=True).astype(np.int64),)
    # The ascending order of the reversed array, read from the end: equal elements keep their order.
    backwards = np.flip(np.argsort(np.flip(x, axis), axis, stable=True), axis)
    return ((x.shape[axis] - 1 - backwards).astype(np.int64),)


def _before(h: Any, attrs: Attrs, x: Any, y: Any) -> Any:
    """Whether x comes before y, and is not just equal to it."""
    wins = compare(h, "gt" if attrs["descending"] else "lt", x, y)
    if not x.dtype.is_float:
        return wins
    first, last = (x, y) if attrs["descending"] else (y, x)
    return h.or_(wins, h.and_(h.ne(first, first), h.eq(last, last)))


def _samples() -> list[Sample]:
    batch = Dim.symbol("batch")
    cases: tuple[tuple[Shape, int, bool], ...] = (
        ((67,), 0, False), ((5, 33), 1, True), ((9, 4), 0, False), ((2, 17, 3), 1, True), ((1,), 0, False),
        ((0, 3), 0, False), ((3, 0), 0, True), ((batch, 5), 0, False), ((3, batch), 1, True), ((4,), 0, True),
        ((2,), 0, False), ((16,), 0, False), ((1025,), 0, False),
    )  # fmt: skip
    return [
        Sample((Operand(shape),), {"axis": axis, "descending": down}, ALL if n < 2 else FLOATS, {"batch": 6})
        for n, (shape, axis, down) in enumerate(cases)
    ]


_argsort_op = register(
    Op(
        "argsort",
        "argsort(axis, descending): the int64 positions of the elements along axis in their order; equal ones keep"
        " theirs. nan is the largest.",
        _rule,
        _reference,
        lowering=Sort(_before),
        samples=_samples,
        exempt={"gradient": "the result is positions"},
        formula="x[result[0]] <= x[result[1]] <= ... along axis",
        nan="NaN is the largest value: last, or first if descending.",
        example="graphc.argsort([3.0, 1.0, 2.0])",
    )
)


def argsort(x: TensorLike, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The int64 positions that put `x` in order along `axis`; equal elements keep their order, nan is the largest.

    It is stable whatever `stable` says.     `argsort([3, 1, 2])` is [1, 2, 0].
    """
    tensor = as_tensor(x)
    where_ = normalized_axis("argsort", axis, tensor.ndim, tensor)
    return cast(Tensor, apply(_argsort_op, tensor, axis=where_, descending=bool(descending)))


def sort(x: TensorLike, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """`x` in order along `axis`, nan last (first if descending). The gradient goes where each element came from.

    `sort([3, 1, 2])` is [1, 2, 3].
    """
    tensor = as_tensor(x)
    return take_along_axis(tensor, argsort(tensor, axis, descending), axis)


def topk(x: TensorLike, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """(values, positions) of the `k` largest elements along `axis` in descending order; smallest, ascending, else.

    Of equal elements the first counts; nan is the largest. `topk([3, 1, 2], 2)` is ([3, 2], [0, 2]).
    """
    tensor, k = as_tensor(x), integer("topk", "k", k)
    where_ = normalized_axis("topk", axis, tensor.ndim, tensor)
    size = tensor.shape[where_]
    if k < 0 or (isinstance(size, int) and k > size):
        fail(ShapeError, f"topk: {k} elements of axis {where_}: {signature(tensor)}")
    order = argsort(tensor, where_, descending=largest)
    positions = getitem(order, (*[slice(None)] * where_, slice(0, k)))
    return take_along_axis(tensor, positions, where_), positions


def searchsorted(
    ordered: TensorLike, values: TensorLike, side: str = "left", sorter: TensorLike | None = None
) -> Tensor:
    """The int64 positions at which `values` would be inserted into the ascending vector `ordered`, as NumPy's.

    "left": before equal elements; "right": behind them. It counts the elements before each value, so the work is the
    product of both sizes. `sorter` is what `argsort` says of an `ordered` that is not.
    `searchsorted([1, 3, 5], [3, 4])` is [1, 2].
    """
    vector = as_tensor(ordered)
    if vector.ndim != 1 or side not in ("left", "right"):
        fail(ArgumentError, f'searchsorted: takes a vector and "left" or "right": {signature(vector)}, {side!r}')
    if sorter is not None:
        vector = take_along_axis(vector, as_tensor(sorter), 0)
    dtype = promoted("searchsorted", vector, values)
    row, column = converted("searchsorted", vector, dtype), converted("searchsorted", values, dtype)
    column = expand_dims(column, -1)
    before = less(row, column) if side == "left" else ~greater(row, column) & ~isnan(row)
    if dtype.is_float:
        before = before | (isnan(column) & ~isnan(row)) if side == "left" else before | isnan(column)
    return sum(before, -1)


def bincount(x: TensorLike, weights: TensorLike | None = None, length: Size | None = None) -> Tensor:
    """How often each of 0..length-1 is in the vector `x` (int64), or the sum of its `weights` (float64 for integers).

    The length must be given, since a shape cannot depend on values; an element outside of it is an IndexRangeError.
    `bincount([0, 2, 2], length=4)` is [1, 0, 2, 0].
    """
    tensor = as_tensor(x)
    if tensor.ndim != 1 or not tensor.dtype.is_integer:
        fail(DTypeError, f"bincount: takes a vector of integers: {signature(tensor)}")
    if length is None:
        fail(ArgumentError, f"bincount: needs a length: {signature(tensor)}", "bincount(x, length=10)")
    if weights is None:
        return scatter_add_along_axis(tensor, ones(tensor.shape, int64), 0, length)
    given = as_tensor(weights)
    given = given if given.dtype.is_float else given.astype("float64")
    if given.shape != tensor.shape:
        fail(ShapeError, f"bincount: one weight for each element: {signature(tensor, given)}")
    return scatter_add_along_axis(tensor, expanded(given, tensor.shape), 0, length)
