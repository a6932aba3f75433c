"""What a float is made of: its sign, whether it is finite, its remainder; and replacing what is not a number.

`copysign` and `nextafter` are ops; the others are compositions, exact to the bit.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.build import Tensor
from graphc.graph import Attrs, Node, Op
from graphc.ops.arithmetic import abs, remainder, sign
from graphc.ops.comparison import isnan
from graphc.ops.lowering import Elementwise
from graphc.ops.operands import (
    TensorLike,
    as_tensor,
    binary_function,
    floating,
    matched,
    same_type,
    tensors_of,
    ufunc,
)
from graphc.ops.registry import register
from graphc.ops.samples import binary
from graphc.ops.selection import where
from graphc.ops.sources import full_like, ones_like, zeros_like
from graphc.types import DType, bool_

_INFINITY = builtins.float("inf")


def _nextafter_body(h: Any, attrs: Attrs, x: Any, y: Any) -> Any:
    """One step of the bits, which are in the order of the magnitudes."""
    dtype = x.dtype
    integer = DType.of(f"int{8 * dtype.itemsize}")
    zero, one, down = h.constant(0.0, dtype), h.constant(1, integer), h.constant(-1, integer)
    away = h.eq(h.gt(y, x), h.gt(x, zero))
    moved = h.bitcast(h.add(h.bitcast(x, integer), h.select(away, one, down)), dtype)
    least = h.copysign(h.bitcast(one, dtype), y)
    moved = h.select(h.eq(x, zero), least, moved)
    ordered = h.and_(h.eq(x, x), h.eq(y, y))
    return h.select(h.eq(x, y), y, h.select(ordered, moved, h.add(x, y)))


nextafter = binary_function(
    register(
        Op(
            "nextafter",
            "The float next to x towards y; y where they are equal. `nextafter(0.0, 1.0)` is 5e-324.",
            same_type("f", arity=2),
            ufunc(np.nextafter),
            lowering=Elementwise(_nextafter_body),
            samples=lambda: binary(),
            formula="min or max of the floats beyond x",
            exempt={"gradient": "it steps from float to float"},
        )
    ),
    floating,
)


def _copysign_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    x, y = tensors_of(node)
    return g[0] * sign(x) * copysign(ones_like(y), y), zeros_like(y)


copysign = binary_function(
    register(
        Op(
            "copysign",
            "|x| with the sign of y, also of zeros and nans. The derivative at x = 0 is 0, that of y is 0."
            " `copysign(2.0, -0.0)` is -2.0.",
            same_type("f", arity=2),
            ufunc(np.copysign),
            _copysign_gradient,
            Elementwise(lambda h, attrs, x, y: h.copysign(x, y)),
            lambda: binary(),
            formula="|x| if y >= 0 else -|x|",
            nan="NaN stays NaN in x; of a NaN in y, the sign counts.",
        )
    ),
    floating,
)


def signbit(x: TensorLike) -> Tensor:
    """Whether the sign of `x` is minus, also of -0.0 and of nans: bool of x's shape. `signbit(-0.0)` is True."""
    tensor = as_tensor(x)
    if not tensor.dtype.is_float:
        return tensor < 0 if tensor.dtype.kind == "i" else full_like(tensor, False, bool_)
    return copysign(ones_like(tensor), tensor) < 0


def isfinite(x: TensorLike) -> Tensor:
    """Whether `x` is neither infinite nor nan: bool of x's shape. `isfinite([1.0, inf])` is [True, False]."""
    tensor = as_tensor(x)
    return abs(tensor) < _INFINITY if tensor.dtype.is_float else full_like(tensor, True, bool_)


def isinf(x: TensorLike) -> Tensor:
    """Whether `x` is an infinity: bool of x's shape, false for nan. `isinf([1.0, -inf])` is [False, True]."""
    tensor = as_tensor(x)
    return abs(tensor) == _INFINITY if tensor.dtype.is_float else full_like(tensor, False, bool_)


def nan_to_num(
    x: TensorLike, nan: builtins.float = 0.0, posinf: builtins.float | None = None, neginf: builtins.float | None = None
) -> Tensor:
    """`x` with nan replaced by `nan` and infinities by `posinf` and `neginf` (the extremes of the dtype for None).

    Integers and bools stay as they are. No gradient flows to what was replaced. `nan_to_num([nan, 1.0])` is [0.0, 1.0].
    """
    tensor = as_tensor(x)
    if not tensor.dtype.is_float:
        return tensor
    extreme = tensor.dtype.limits.max
    result = where(isnan(tensor), nan, tensor)
    result = where(tensor == _INFINITY, extreme if posinf is None else posinf, result)
    return where(tensor == -_INFINITY, -extreme if neginf is None else neginf, result)


def fmod(x: TensorLike, y: TensorLike) -> Tensor:
    """The exact remainder of the division that truncates: it has the sign of `x`, as in C. `fmod(-7.0, 3.0)` is -1.0.

    Integers: 0 where y is 0. Floats: nan for y = 0 or an infinite x, x for an infinite y.
    """
    a, b = matched("fmod", x, y)
    if a.dtype.is_float:
        rest = remainder(abs(a), abs(b))
        signed = where(signbit(a), -rest, rest)
        return where((a == 0) & (abs(b) > 0), a, signed)  # the derivative of abs at 0 would be 0
    rest = remainder(a, b)
    if a.dtype.kind == "u":
        return rest
    return where((rest != 0) & ((a < 0) != (b < 0)), rest - b, rest)


def positive(x: TensorLike) -> Tensor:
    """`x` as a tensor: +x. `positive([1, -1])` is [1, -1]."""
    return as_tensor(x)
