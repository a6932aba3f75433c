"""Ops that fold axes away: sum, prod, max, min, any, all, argmax, argmin, and functions made of them.

The nodes hold sorted axes and keepdims; the operand is cast to the result's dtype before it is combined. Names follow
NumPy (`axis`, `keepdims`), so some hide Python's own in this module.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply, as_dtype, install, signature
from graphc.errors import ArgumentError, ShapeError, fail
from graphc.graph import Attrs, Node, Op, Types
from graphc.ops.comparison import compare
from graphc.ops.lowering import ArgReduction, Reduction
from graphc.ops.movement import broadcast_to, reshape
from graphc.ops.operands import (
    TensorLike,
    as_tensor,
    check_kind,
    combination,
    converted,
    normalized_axes,
    normalized_axis,
    result_of,
    tensors_of,
)
from graphc.ops.registry import register
from graphc.ops.samples import ALL, FLOATS, Operand, Sample
from graphc.ops.selection import astype, where
from graphc.ops.sources import dim_value, zeros_like
from graphc.types import Dim, DType, Shape, bool_, float32, float64, int64, product, uint64

Axis = int | Sequence[int] | None
_B = Dim.symbol("batch")


def _kept(shape: Shape, axes: Sequence[int], keepdims: bool) -> Shape:
    if keepdims:
        return tuple(1 if a in axes else n for a, n in enumerate(shape))
    return tuple(n for a, n in enumerate(shape) if a not in axes)


def _accumulated(dtype: DType) -> DType:
    """NumPy sums and multiplies small integers and bools in 64 bits."""
    if dtype.is_float:
        return dtype
    return uint64 if dtype.kind == "u" else int64


def _rule(kinds: str, dtype: Callable[[DType], DType], empty: bool) -> Callable[[Types, Attrs], Types]:
    """The type rule of a reduction; `empty`: whether it has a value for no elements."""

    def rule(types: Types, attrs: Attrs) -> Types:
        if len(types) != 1:
            raise ArgumentError(f"takes 1 operand, not {len(types)}")
        check_kind(types[0], kinds)
        axes = attrs["axes"]
        if list(axes) != sorted(set(axes)) or not set(axes) <= set(range(types[0].rank)):
            raise ShapeError(f"{{0}} is {types[0]}, axes {axes} are not some of its axes in order")
        if not empty and builtins.any(types[0].shape[a] == 0 for a in axes):
            raise ShapeError(f"{{0}} is {types[0]}: no elements to choose from along axes {axes}")
        return (types[0].with_dtype(dtype(types[0].dtype)).with_shape(_kept(types[0].shape, axes, attrs["keepdims"])),)

    return rule


def _reference(function: Any, dtype: Callable[[DType], DType], **more: Any) -> Callable[..., tuple[np.ndarray, ...]]:
    def reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
        (x,) = arrays
        options = {name: value(x.dtype) if callable(value) else value for name, value in more.items()}
        result = function(x, axis=attrs["axes"], keepdims=attrs["keepdims"], **options)
        return (np.asarray(result).astype(dtype(DType.of(x.dtype)).numpy, copy=False),)

    return reference


def _lowest(dtype: Any) -> Any:
    kind = np.dtype(dtype).kind
    return False if kind == "b" else -np.inf if kind == "f" else int(np.iinfo(dtype).min)


def _highest(dtype: Any) -> Any:
    kind = np.dtype(dtype).kind
    return True if kind == "b" else np.inf if kind == "f" else int(np.iinfo(dtype).max)


def _samples(dtypes: tuple[DType, ...], empty: bool = True, **how: Any) -> Callable[[], list[Sample]]:
    """Whole and partial reductions; values of magnitude about 1, then one sample with nan and the like."""
    shapes: list[tuple[Shape, tuple[int, ...], bool]] = [
        ((67,), (0,), False), ((5, 7), (1,), False), ((5, 7), (0,), True), ((2, 3, 4), (0, 2), False),
        ((2, 3, 4), (1,), True), ((1,), (0,), False), ((0, 3), (1,), False), ((_B, 5), (0,), False),
        ((3, 300), (1,), False),
    ]  # fmt: skip
    shapes += [((0, 3), (0,), False)] if empty else []

    def samples() -> list[Sample]:
        ordinary = [
            Sample((Operand(shape, values="ordinary", **how),), {"axes": axes, "keepdims": keep}, dtypes, {"batch": 6})
            for shape, axes, keep in shapes
        ]
        nan = Operand((2, 4), values=(1.0, float("nan"), 3.0, 2.0, -1.0, float("inf"), 0.5, -0.0))
        return [*ordinary, Sample((nan,), {"axes": (1,), "keepdims": False}, FLOATS, smooth=False)]

    return samples


def _back(x: Tensor, like: Tensor, axes: Sequence[int]) -> Tensor:
    """A reduced `x` repeated to the shape of the operand `like`."""
    return broadcast_to(reshape(x, _kept(like.shape, axes, True)), like.shape)


def _sum_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    (x,) = tensors_of(node)
    return (_back(g[0], x, node.attrs["axes"]),)


def _prod_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    """The product of the others: without zeros result / x; with one zero, only that element has a derivative."""
    (x,) = tensors_of(node)
    axes = node.attrs["axes"]
    zero = x == 0
    count = _back(sum(zero, axes, keepdims=True), x, axes)
    of_nonzero = _back(prod(where(zero, 1, x), axes, keepdims=True), x, axes)
    others = of_nonzero / where(zero, 1, x)
    chosen = where(count == 0, others, where(zero & (count == 1), of_nonzero, 0))
    return (_back(g[0], x, axes) * chosen,)


def _extremum_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    """Elements equal to the result share the cotangent."""
    (x,) = tensors_of(node)
    axes = node.attrs["axes"]
    winners = x == _back(result_of(node), x, axes)
    count = astype(sum(winners, axes, keepdims=node.attrs["keepdims"]), x.dtype)
    return (where(winners, _back(g[0] / count, x, axes), zeros_like(x)),)


def _same(dtype: DType) -> DType:
    return dtype


def _boolean(dtype: DType) -> DType:
    return bool_


register(
    Op(
        "sum",
        "sum(axes, keepdims): the sum; 0 for none. Small integers and bools are summed as 64-bit integers.",
        _rule("biuf", _accumulated, empty=True),
        _reference(np.sum, _accumulated),
        _sum_gradient,
        Reduction(lambda dtype: 0, lambda h, a, x: h.add(a, x)),
        _samples(ALL),
        formula="sum of x over the axes",
        example="graphc.sum([[1.0, 2.0], [3.0, 4.0]], axis=0)",
    )
)
register(
    Op(
        "prod",
        "prod(axes, keepdims): the product; 1 for none. Small integers and bools are multiplied as 64-bit integers."
        " Second derivatives at zeros of the operand are incomplete.",
        _rule("biuf", _accumulated, empty=True),
        _reference(np.prod, _accumulated),
        _prod_gradient,
        Reduction(lambda dtype: 1, lambda h, a, x: h.mul(a, x)),
        _samples(ALL, domain=(0.8, 1.25)),
        formula="product of x over the axes",
        example="graphc.prod([[1.0, 2.0], [3.0, 4.0]], axis=0)",
    )
)
register(
    Op(
        "max",
        "max(axes, keepdims): the largest element, nan if there is one; ties share the cotangent. An axis of constant"
        " size 0 is an error; along a named size that is 0, the lowest value of the dtype.",
        _rule("biuf", _same, empty=False),
        _reference(np.max, _same, initial=_lowest),
        _extremum_gradient,
        Reduction(lambda dtype: _lowest(dtype.numpy), combination("or_", "maximum")),
        _samples(ALL, empty=False),
        formula="largest x over the axes",
        example="graphc.max([[1.0, 5.0], [3.0, 4.0]], axis=1)",
    )
)
register(
    Op(
        "min",
        "min(axes, keepdims): the smallest element, nan if there is one; ties share the cotangent. An axis of constant"
        " size 0 is an error; along a named size that is 0, the highest value of the dtype.",
        _rule("biuf", _same, empty=False),
        _reference(np.min, _same, initial=_highest),
        _extremum_gradient,
        Reduction(lambda dtype: _highest(dtype.numpy), combination("and_", "minimum")),
        _samples(ALL, empty=False),
        formula="smallest x over the axes",
        example="graphc.min([[1.0, 5.0], [3.0, 4.0]], axis=1)",
    )
)
register(
    Op(
        "any",
        "any(axes, keepdims): whether an element is true (not 0; nan is true); false for none.",
        _rule("biuf", _boolean, empty=True),
        _reference(np.any, _boolean),
        lowering=Reduction(lambda dtype: False, lambda h, a, x: h.or_(a, x)),
        samples=_samples(ALL),
        exempt={"gradient": "the result is boolean"},
        formula="x[0] or x[1] or ... over the axes",
        nan="NaN counts as true.",
        example="graphc.any([[True, False], [False, False]], axis=1)",
    )
)
register(
    Op(
        "all",
        "all(axes, keepdims): whether all elements are true (not 0; nan is true); true for none.",
        _rule("biuf", _boolean, empty=True),
        _reference(np.all, _boolean),
        lowering=Reduction(lambda dtype: True, lambda h, a, x: h.and_(a, x)),
        samples=_samples(ALL),
        exempt={"gradient": "the result is boolean"},
        formula="x[0] and x[1] and ... over the axes",
        nan="NaN counts as true.",
        example="graphc.all([[True, True], [True, False]], axis=1)",
    )
)


def _arg_rule(types: Types, attrs: Attrs) -> Types:
    axis = attrs["axis"]
    if len(types) != 1:
        raise ArgumentError(f"takes 1 operand, not {len(types)}")
    if not 0 <= axis < types[0].rank:
        raise ShapeError(f"{{0}} is {types[0]}, it has no axis {axis}")
    if types[0].shape[axis] == 0:
        raise ShapeError(f"{{0}} is {types[0]}: no elements to choose from along axis {axis}")
    return (types[0].with_dtype(int64).with_shape(_kept(types[0].shape, (axis,), attrs["keepdims"])),)


def _arg_reference(function: Any) -> Callable[..., tuple[np.ndarray, ...]]:
    def reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
        (x,), axis, keepdims = arrays, attrs["axis"], attrs["keepdims"]
        if x.shape[axis] == 0:  # a named size that is 0
            return (np.zeros(cast(Any, _kept(x.shape, (axis,), keepdims)), np.int64),)
        return (np.asarray(function(x, axis=axis, keepdims=keepdims), np.int64),)

    return reference


def _better(how: str) -> Callable[..., Any]:
    """x comes before best: a strict order in which nan is the best of all, so the first nan wins."""

    def better(h: Any, x: Any, best: Any) -> Any:
        wins = compare(h, how, x, best)
        return h.or_(wins, h.and_(h.ne(x, x), h.eq(best, best))) if x.dtype.is_float else wins

    return better


def _arg_samples() -> list[Sample]:
    shapes: list[tuple[Shape, int, bool]] = [
        ((67,), 0, False), ((5, 7), 1, False), ((5, 7), 0, True), ((2, 3, 4), 1, False), ((1,), 0, False),
        ((0, 3), 1, False), ((_B, 10), 1, False), ((3, 300), 1, True),
    ]  # fmt: skip
    made = [Sample((Operand(s),), {"axis": axis, "keepdims": keep}, ALL, {"batch": 6}) for s, axis, keep in shapes]
    ties = Operand((2, 5), values=(1, 0, 1, 1, 0, 0, 1, 0, 1, 1))
    return [*made, Sample((ties,), {"axis": 1, "keepdims": False}, ALL)]


for _name, _function, _how in (("argmax", np.argmax, "gt"), ("argmin", np.argmin, "lt")):
    register(
        Op(
            _name,
            f"{_name}(axis, keepdims): the int64 position of the first {_name[3:]}imum, or of the first nan."
            " An axis of constant size 0 is an error; along a named size that is 0, the position is 0.",
            _arg_rule,
            _arg_reference(_function),
            lowering=ArgReduction(_better(_how)),
            samples=_arg_samples,
            exempt={"gradient": "the result is a position"},
            formula=f"the first i with x[i] = {_name[3:]}(x) along axis",
            example=f"graphc.{_name}([[3.0, 1.0, 2.0], [1.0, 1.0, 5.0]], axis=1)",
        )
    )


def _reduction(name: str) -> Callable[..., Tensor]:
    def reduction(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
        tensor = as_tensor(x)
        axes = normalized_axes(name, axis, tensor.ndim, tensor)
        return cast(Tensor, apply(name, tensor, axes=axes, keepdims=bool(keepdims)))

    reduction.__name__ = reduction.__qualname__ = name
    reduction.__doc__ = f"NumPy's `{name}` over `axis` (an int, a tuple, None for all axes)."
    install(**{name: reduction})
    return reduction


max, min, any, all = (_reduction(name) for name in ("max", "min", "any", "all"))
_sum, _prod = _reduction("sum"), _reduction("prod")


def sum(x: TensorLike, axis: Axis = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
    """The sum over `axis`, in `dtype` if given; small integers and bools are summed in 64 bits."""
    return _sum(x if dtype is None else astype(x, dtype), axis, keepdims)


def prod(x: TensorLike, axis: Axis = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
    """The product over `axis`, in `dtype` if given; small integers and bools are multiplied in 64 bits."""
    return _prod(x if dtype is None else astype(x, dtype), axis, keepdims)


def mean(x: TensorLike, axis: Axis = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
    """sum / count. Integers and bools are averaged in float64; the mean of nothing is nan. `mean([1, 2, 6])` is 3.0."""
    tensor = as_tensor(x)
    kind = as_dtype(dtype) if dtype is not None else tensor.dtype if tensor.dtype.is_float else float64
    if kind.is_narrow:  # a sum of many does not fit
        return astype(mean(astype(tensor, kind), axis, keepdims, float32), kind)
    axes = normalized_axes("mean", axis, tensor.ndim, tensor)
    count = product(tensor.shape[a] for a in axes)
    return _sum(converted("mean", tensor, kind), axes, keepdims) / dim_value(count, kind)


def _arg(name: str, x: TensorLike, axis: Any, keepdims: bool) -> Tensor:
    tensor = as_tensor(x)
    if axis is None:
        flat = cast(Tensor, apply(name, reshape(tensor, (tensor.size,)), axis=0, keepdims=False))
        return reshape(flat, (1,) * tensor.ndim) if keepdims else flat
    if isinstance(axis, (tuple, list)):
        fail(ArgumentError, f"{name}: axis must be an int or None, not {axis}: {signature(tensor)}")
    where_ = normalized_axis(name, axis, tensor.ndim, tensor)
    return cast(Tensor, apply(name, tensor, axis=where_, keepdims=bool(keepdims)))


def argmax(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The int64 position of the first maximum along `axis` (of the flattened array for None); the first nan wins."""
    return _arg("argmax", x, axis, keepdims)


def argmin(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The int64 position of the first minimum along `axis` (of the flattened array for None); the first nan wins."""
    return _arg("argmin", x, axis, keepdims)


install(sum=sum, prod=prod, mean=mean, argmax=argmax, argmin=argmin)
