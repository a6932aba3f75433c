"""Scans along an axis: cumsum, cumprod, cummax, cummin.

Each is computed in order, one element after the other, so results are NumPy's to the bit, also in float32. To add a
scan, add a `_scan` line with its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply
from graphc.errors import ArgumentError, ShapeError
from graphc.graph import Attrs, Node, Op, Types
from graphc.ops.arithmetic import maximum
from graphc.ops.indexing import scatter_add_along_axis
from graphc.ops.joining import concat, ravel
from graphc.ops.lowering import Scan
from graphc.ops.operands import (
    TensorLike,
    as_tensor,
    check_kind,
    combination,
    normalized_axis,
    result_of,
    tensors_of,
)
from graphc.ops.registry import register
from graphc.ops.samples import ALL, FLOATS, Operand, Sample
from graphc.ops.selection import astype, where
from graphc.ops.sources import dim_value, full, iota
from graphc.types import Dim, DType, Shape, bool_, int64, uint64

Gradients = Sequence[Tensor | None]


def _same(dtype: DType) -> DType:
    return dtype


def _accumulated(dtype: DType) -> DType:
    """NumPy adds and multiplies small integers and bools in 64 bits."""
    return dtype if dtype.is_float else uint64 if dtype.kind == "u" else int64


def _rule(dtype: Callable[[DType], DType]) -> Callable[[Types, Attrs], Types]:
    def rule(types: Types, attrs: Attrs) -> Types:
        if len(types) != 1:
            raise ArgumentError(f"takes 1 operand, not {len(types)}")
        check_kind(types[0], "biuf")
        if not 0 <= attrs["axis"] < types[0].rank:
            raise ShapeError(f"{{0}} is {types[0]}, it has no axis {attrs['axis']}")
        return (types[0].with_dtype(dtype(types[0].dtype)),)

    return rule


def _reference(function: np.ufunc, dtype: Callable[[DType], DType]) -> Callable[..., tuple[np.ndarray, ...]]:
    def reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
        (x,), axis = arrays, attrs["axis"]
        order = np.flip(x, axis) if attrs["reverse"] else x
        result = function.accumulate(order.astype(dtype(DType.of(x.dtype)).numpy), axis)
        return (np.ascontiguousarray(np.flip(result, axis) if attrs["reverse"] else result),)

    return reference


def _samples(**how: Any) -> Callable[[], list[Sample]]:
    """Every place of the scanned axis among the others, both directions, then nan and the like."""
    batch = Dim.symbol("batch")
    cases: tuple[tuple[Shape, int, bool], ...] = (
        ((67,), 0, False), ((5, 7), 1, True), ((5, 37), 0, False), ((2, 3, 4), 1, True), ((3, 2, 1, 5), 0, False),
        ((1,), 0, False), ((0, 3), 1, False), ((3, 0), 1, False), ((batch, 5), 0, False), ((4, batch), 1, True),
    )  # fmt: skip

    def samples() -> list[Sample]:
        made = [
            Sample(
                (Operand(shape, values="ordinary", **how),),
                {"axis": axis, "reverse": back},
                ALL if n < 3 else FLOATS,
                {"batch": 6},
            )
            for n, (shape, axis, back) in enumerate(cases)
        ]
        special = Operand((2, 6), values=(1.0, float("inf"), -2.0, float("nan"), 1.0, 0.0, -0.0, -0.0, 0.0, -0.0, 3, 2))
        return [*made, Sample((special,), {"axis": 1, "reverse": False}, FLOATS, smooth=False)]

    return samples


def _run(name: str, x: Tensor, axis: int, reverse: bool) -> Tensor:
    return cast(Tensor, apply(name, x, axis=axis, reverse=reverse))


def _back(node: Node, x: Tensor, name: str = "cumsum") -> Tensor:
    """The scan of `x` in the other direction."""
    return _run(name, x, node.attrs["axis"], not node.attrs["reverse"])


def _cumprod_gradient(node: Node, g: Sequence[Any]) -> Gradients:
    """The sum over the later products without this factor: product / x, or, for the first zero, products without it."""
    (x,), y = tensors_of(node), result_of(node)
    zero = x == 0
    first = zero & (_run("cumsum", zero, node.attrs["axis"], node.attrs["reverse"]) == 1)
    without = _run("cumprod", where(first, 1, x), node.attrs["axis"], node.attrs["reverse"])
    quotient = _back(node, g[0] * y) / where(zero, 1, x)
    return (where(first, _back(node, g[0] * without), where(zero, 0, quotient)),)


def _extremum_gradient(node: Node, g: Sequence[Any]) -> Gradients:
    """Each result's cotangent goes to the latest element that is equal to it."""
    (x,), y = tensors_of(node), result_of(node)
    axis, reverse = node.attrs["axis"], node.attrs["reverse"]
    size = x.shape[axis]
    place = iota(x.shape, int64, axis)
    if reverse:
        beyond = dim_value(size)
        winner = _run("cummin", where(x == y, place, beyond), axis, True)
        winner = where(winner == beyond, place, winner)  # nothing but nans up to here
    else:
        winner = maximum(_run("cummax", where(x == y, place, -1), axis, False), 0)
    return (scatter_add_along_axis(winner, g[0], axis, size),)


def _scan(
    name: str,
    doc: str,
    formula: str,
    function: np.ufunc,
    dtype: Callable[[DType], DType],
    lowering: Scan,
    gradient: Callable[[Node, Sequence[Any]], Gradients],
    **how: Any,
) -> Callable[..., Tensor]:
    op = register(
        Op(
            name,
            f"{name}(axis, reverse): {doc}",
            _rule(dtype),
            _reference(function, dtype),
            gradient,
            lowering,
            _samples(**how),
            formula=formula,
            example=f"graphc.{name}([1.0, 3.0, 2.0])",
        )
    )

    def scan(x: TensorLike, axis: int | None = None, reverse: bool = False) -> Tensor:
        tensor = as_tensor(x)
        if axis is None:
            tensor, axis = ravel(tensor), 0
        return _run(name, tensor, normalized_axis(name, axis, tensor.ndim, tensor), bool(reverse))

    scan.__name__ = scan.__qualname__ = name
    scan.__doc__ = f"{op.doc}\n\nOver the flattened array for axis None; from the end with `reverse`."
    return scan


def _lowest(dtype: DType) -> float | int | bool:
    return False if dtype is bool_ else -np.inf if dtype.is_float else int(np.iinfo(dtype.numpy).min)


def _highest(dtype: DType) -> float | int | bool:
    return True if dtype is bool_ else np.inf if dtype.is_float else int(np.iinfo(dtype.numpy).max)


cumsum = _scan(
    "cumsum",
    "the sum of the elements up to each. Small integers and bools are summed as 64-bit integers."
    " `cumsum([1, 2, 3])` is [1, 3, 6].",
    "result[i] = x[0] + ... + x[i]",
    np.add,
    _accumulated,
    Scan(lambda dtype: -0.0 if dtype.is_float else 0, lambda h, a, x: h.add(a, x)),
    lambda node, g: (_back(node, g[0]),),
)
cumprod = _scan(
    "cumprod",
    "the product of the elements up to each. Small integers and bools are multiplied as 64-bit integers. Second"
    " derivatives at zeros of the operand are incomplete. `cumprod([1, 2, 3])` is [1, 2, 6].",
    "result[i] = x[0] * ... * x[i]",
    np.multiply,
    _accumulated,
    Scan(lambda dtype: 1, lambda h, a, x: h.mul(a, x)),
    _cumprod_gradient,
    domain=(0.8, 1.25),
)
cummax = _scan(
    "cummax",
    "the largest element up to each, nan from the first nan on; of equal ones the latest gets the cotangent."
    " `cummax([1, 3, 2])` is [1, 3, 3].",
    "result[i] = max(x[0], ..., x[i])",
    np.maximum,
    _same,
    Scan(_lowest, combination("or_", "maximum")),
    _extremum_gradient,
)
cummin = _scan(
    "cummin",
    "the smallest element up to each, nan from the first nan on; of equal ones the latest gets the cotangent."
    " `cummin([3, 1, 2])` is [3, 1, 1].",
    "result[i] = min(x[0], ..., x[i])",
    np.minimum,
    _same,
    Scan(_highest, combination("and_", "minimum")),
    _extremum_gradient,
)


def cumulative_sum(x: TensorLike, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Tensor:
    """`cumsum` as the array API names it; `include_initial` puts a 0 in front. `cumulative_sum([1, 2])` is [1, 3]."""
    return _from_initial(cumsum, x, axis, dtype, include_initial, 0)


def cumulative_prod(x: TensorLike, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Tensor:
    """`cumprod` as the array API names it; `include_initial` puts a 1 in front. `cumulative_prod([1, 2])` is [1, 2]."""
    return _from_initial(cumprod, x, axis, dtype, include_initial, 1)


def _from_initial(
    function: Callable[..., Tensor], x: TensorLike, axis: int | None, dtype: Any, initial: bool, value: int
) -> Tensor:
    tensor = as_tensor(x) if dtype is None else astype(x, dtype)
    if axis is None:
        tensor, axis = ravel(tensor), 0
    result = function(tensor, axis)
    if not initial:
        return result
    where_ = axis % tensor.ndim
    head = full((*result.shape[:where_], 1, *result.shape[where_ + 1 :]), value, result.dtype)
    return concat([head, result], where_)
