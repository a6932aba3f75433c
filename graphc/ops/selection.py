"""Choosing, converting, cutting gradients, and logic: where, cast, stop_gradient, logical ops.

Nothing here is differentiable except the paths that values take through `where` and `cast`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply, as_dtype, install, signature
from graphc.conversion import cast_array
from graphc.errors import ArgumentError, DTypeError, ShapeError, fail
from graphc.graph import Attrs, Node, Op, Types
from graphc.ops.lowering import Elementwise
from graphc.ops.operands import (
    TensorLike,
    as_tensor,
    binary_function,
    broadcast_shape,
    converted,
    expanded,
    promoted,
    same_type,
    tensors_of,
    to_bool,
    ufunc,
    unary_function,
)
from graphc.ops.registry import register
from graphc.ops.samples import ALL, DIMS, FLOATS, SHAPES, Operand, Sample, binary, unary
from graphc.ops.sources import zeros_like
from graphc.types import DTYPES, bool_, float32

_BOOLEAN = {"gradient": "the result is boolean"}


def _where_type(types: Types, attrs: Attrs) -> Types:
    if len(types) != 3:
        raise ArgumentError(f"takes 3 operands, not {len(types)}")
    condition, x, y = types
    if condition.dtype is not bool_:
        raise DTypeError(f"the condition {{0}} is {condition}, not bool", hint="compare it: x != 0")
    if x.shape != condition.shape or y.shape != x.shape:
        raise ShapeError(f"{{0}} is {condition}, {{1}} is {x}, {{2}} is {y}; an op's operands have one shape")
    if x.dtype is not y.dtype:
        raise DTypeError(f"{{1}} is {x}, {{2}} is {y}; both branches have one dtype")
    return (x,)


def _where_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    condition, x, _ = tensors_of(node)
    if not x.dtype.is_float:
        return None, None, None
    zero = zeros_like(g[0])
    return None, where(condition, g[0], zero), where(condition, zero, g[0])


def _where_samples() -> list[Sample]:
    return [Sample((Operand(s, bool_), Operand(s), Operand(s)), {}, ALL, DIMS) for s in SHAPES]


_where_op = register(
    Op(
        "where",
        "condition ? x : y, element by element. The branch not taken gets the cotangent 0.",
        _where_type,
        ufunc(np.where),
        _where_gradient,
        Elementwise(lambda h, attrs, condition, x, y: h.select(condition, x, y)),
        _where_samples,
        formula="x where condition, else y",
        nan="NaN of the branch that is taken stays, of the other it is dropped.",
        example="graphc.where([True, False], [1.0, 2.0], [3.0, 4.0])",
    )
)


def where(condition: TensorLike, x: TensorLike, y: TensorLike) -> Tensor:
    """`x` where `condition` holds, else `y`, broadcast and promoted as NumPy does."""
    chosen = as_tensor(condition)
    if chosen.dtype is not bool_:
        fail(DTypeError, f"where: the condition is not bool: {signature(chosen)}", "compare it: x != 0")
    dtype = promoted("where", x, y)
    branches = [converted("where", v, dtype) for v in (x, y)]
    shape = broadcast_shape("where", chosen, *branches)
    return cast(Tensor, apply(_where_op, *(expanded(t, shape) for t in (chosen, *branches))))


def _cast_type(types: Types, attrs: Attrs) -> Types:
    if len(types) != 1:
        raise ArgumentError(f"takes 1 operand, not {len(types)}")
    if attrs["dtype"] not in DTYPES:
        raise DTypeError(f"{{0}} is {types[0]}, it cannot become {attrs['dtype']}")
    return (types[0].with_dtype(attrs["dtype"]),)


def _cast_body(h: Any, attrs: Attrs, x: Any) -> Any:
    if x.dtype is attrs["dtype"]:
        return x
    if attrs["dtype"] is bool_:
        wide = h.cast(x, float32) if x.dtype.is_narrow else x
        return h.ne(wide, h.constant(0, wide.dtype))
    return h.cast(x, attrs["dtype"])


def _cast_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    (x,) = tensors_of(node)
    return (astype(g[0], x.dtype),) if x.dtype.is_float and g[0].dtype.is_float else (None,)


def _cast_samples() -> list[Sample]:
    made = [Sample((Operand((67,)),), {"dtype": to}, ALL, smooth=to is FLOATS[1]) for to in DTYPES]
    powers = [sign * 2.0**k for k in (7, 8, 15, 16, 31, 32, 63, 64) for sign in (-1, 1)]
    edges = Operand((48,), values=tuple(power + off for power in powers for off in (0, -1, 0.5)))
    made += [Sample((edges,), {"dtype": to}, FLOATS, smooth=False) for to in DTYPES]
    return made + [Sample((Operand(s),), {"dtype": FLOATS[1]}, FLOATS[:1], DIMS) for s in SHAPES[1:]]


_cast_op = register(
    Op(
        "cast",
        "x converted to dtype as ndarray.astype: integers wrap, floats round to nearest even. A float as an integer"
        " loses its fraction, and is the nearest of the range if it is outside of it. bool is x != 0 (true for nan).",
        _cast_type,
        lambda arrays, attrs: (cast_array(arrays[0], attrs["dtype"]),),
        _cast_gradient,
        Elementwise(_cast_body),
        _cast_samples,
        formula="x in another dtype",
        nan="NaN stays NaN in another float dtype, is True as a bool and 0 as an integer.",
        example="graphc.astype([0.0, 1.9, -1.9], 'int32')",
    )
)


def astype(x: TensorLike, dtype: Any) -> Tensor:
    """`x` converted to `dtype`; `x` itself if it has it. `astype([1.9, -1.9], 'int32')` is [1, -1]."""
    tensor, to = as_tensor(x), as_dtype(dtype)
    return tensor if tensor.dtype is to else cast(Tensor, apply(_cast_op, tensor, dtype=to))


stop_gradient = unary_function(
    register(
        Op(
            "stop_gradient",
            "x, through which no gradient flows: for differentiation it is a constant.",
            same_type("biuf"),
            lambda arrays, attrs: (arrays[0].copy(),),
            lambda node, g: (None,),
            Elementwise(lambda h, attrs, x: x),
            lambda: [replace(s, smooth=False) for s in unary(ALL)],
            exempt={"differences": "the point is that its gradient is not that of its values"},
            formula="x",
        )
    )
)


def _logical(name: str, doc: str, function: Any, body: Callable[..., Any]) -> Callable[..., Tensor]:
    op = register(
        Op(
            name,
            f"{doc} (Numbers count as x != 0, nan is true.)",
            same_type("b", arity=function.nin),
            ufunc(function),
            lowering=Elementwise(lambda h, attrs, *operands: body(h, *operands)),
            samples=lambda: (unary if function.nin == 1 else binary)((bool_,)),
            exempt=_BOOLEAN,
            formula=doc[0].lower() + doc[1:-1],
            nan="NaN counts as true.",
        )
    )
    return unary_function(op, to_bool) if function.nin == 1 else binary_function(op, to_bool)


logical_and = _logical("logical_and", "x and y.", np.logical_and, lambda h, x, y: h.and_(x, y))
logical_or = _logical("logical_or", "x or y.", np.logical_or, lambda h, x, y: h.or_(x, y))
logical_xor = _logical("logical_xor", "Either x or y.", np.logical_xor, lambda h, x, y: h.xor(x, y))
logical_not = _logical("logical_not", "not x.", np.logical_not, lambda h, x: h.not_(x))


install(astype=astype)
