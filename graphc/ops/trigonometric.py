"""Trigonometric and hyperbolic functions with their inverses, in radians, and hypot.

Each op of one operand is one `float_function`. Arguments of sin, cos and tan of any size are reduced exactly. Poles and
origins: the derivative is what the formula gives (infinite at the ends of asin, acos, acosh and atanh), but atan2 and
hypot have the gradient 0 at the origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply
from graphc.graph import Attrs, Node, Op
from graphc.ops.lowering import Elementwise
from graphc.ops.operands import binary_function, floating, result_of, same_type, tensors_of, ufunc
from graphc.ops.registry import register
from graphc.ops.samples import Operand, Sample, binary
from graphc.ops.selection import where
from graphc.ops.sources import zeros_like
from graphc.ops.transcendental import ULP, float_function, sqrt
from graphc.types import float64


def _minus_sine(g: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return -g * cast(Tensor, apply("sin", x))


def _times_sinh(g: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return g * cast(Tensor, apply("sinh", x))


cos = float_function("cos", "The cosine; nan for infinities.", np.cos, _minus_sine, formula="cos x")
sin = float_function("sin", "The sine; nan for infinities.", np.sin, lambda g, x, y: g * cos(x), formula="sin x")
tan = float_function(
    "tan",
    "The tangent; nan for infinities.",
    np.tan,
    lambda g, x, y: g * (y * y + 1),
    formula="sin x / cos x",
    domain=(0.25, 1.25),
)
asin = float_function(
    "asin",
    "The arc sine, in -pi/2..pi/2; nan outside of -1..1.",
    np.arcsin,
    lambda g, x, y: g / sqrt((1 - x) * (1 + x)),
    formula="the angle in -pi/2..pi/2 whose sine is x",
    domain=(0.1, 0.9),
)
acos = float_function(
    "acos",
    "The arc cosine, in 0..pi; nan outside of -1..1.",
    np.arccos,
    lambda g, x, y: -g / sqrt((1 - x) * (1 + x)),
    formula="the angle in 0..pi whose cosine is x",
    domain=(0.1, 0.9),
)
atan = float_function(
    "atan",
    "The arc tangent, in -pi/2..pi/2.",
    np.arctan,
    lambda g, x, y: g / (x * x + 1),
    formula="the angle in -pi/2..pi/2 whose tangent is x",
    domain=(0.1, 4.0),
)
cosh = float_function("cosh", "The hyperbolic cosine.", np.cosh, _times_sinh, formula="(e^x + e^-x) / 2")
sinh = float_function(
    "sinh", "The hyperbolic sine.", np.sinh, lambda g, x, y: g * cosh(x), formula="(e^x - e^-x) / 2"
)
asinh = float_function(
    "asinh",
    "The inverse hyperbolic sine.",
    np.arcsinh,
    lambda g, x, y: g / sqrt(x * x + 1),
    formula="ln(x + sqrt(x^2 + 1))",
    domain=(0.1, 4.0),
)
acosh = float_function(
    "acosh",
    "The inverse hyperbolic cosine; nan below 1.",
    np.arccosh,
    lambda g, x, y: g / (sqrt(x - 1) * sqrt(x + 1)),
    formula="ln(x + sqrt(x^2 - 1))",
    domain=(1.25, 4.0),
    positive=True,
)
atanh = float_function(
    "atanh",
    "The inverse hyperbolic tangent; infinite at -1 and 1, nan beyond.",
    np.arctanh,
    lambda g, x, y: g / ((1 - x) * (1 + x)),
    formula="ln((1 + x) / (1 - x)) / 2",
    domain=(0.1, 0.8),
)


def _pairs() -> list[Sample]:
    """Ordinary and special values, and all pairs of zeros, infinities and others."""
    values = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, 1e30)
    first = tuple(a for a in values for _ in values)
    special = (Operand((81,), values=first), Operand((81,), values=values * len(values)))
    return [*binary(), Sample(special, smooth=False)]


def _atan2_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    y, x = tensors_of(node)
    square = x * x + y * y
    share = where(square == 0, zeros_like(square), g[0] / square)
    return share * x, -share * y


def _hypot_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    x, y = tensors_of(node)
    length = result_of(node)
    share = where(length == 0, zeros_like(length), g[0] / length)
    return share * x, share * y


def _hypot_body(h: Any, attrs: Attrs, x: Any, y: Any) -> Any:
    """The root of the sum of squares: in float64 for float32, else of operands that a power of two scales."""
    infinity = h.constant(float("inf"), x.dtype)
    infinite = h.or_(h.eq(h.abs(x), infinity), h.eq(h.abs(y), infinity))
    a, b = h.abs(h.cast(x, float64)), h.abs(h.cast(y, float64))
    one, scale = h.constant(1.0, float64), None
    if x.dtype == float64:
        larger = h.select(h.gt(a, b), a, b)
        large, small = h.gt(larger, h.constant(2.0**500, float64)), h.lt(larger, h.constant(2.0**-450, float64))

        def chosen(up: float) -> Any:
            return h.select(large, h.constant(1 / up, float64), h.select(small, h.constant(up, float64), one))

        a, b, scale = h.mul(a, chosen(2.0**600)), h.mul(b, chosen(2.0**600)), chosen(2.0**-600)
    length = h.sqrt(h.fma(a, a, h.mul(b, b)))
    length = h.cast(length if scale is None else h.mul(length, scale), x.dtype)
    return h.select(infinite, infinity, length)


atan2 = binary_function(
    register(
        Op(
            "atan2",
            "The angle of the point (x, y), called as atan2(y, x), in -pi..pi; C's special cases for signed zeros and"
            " infinities.",
            same_type("f", arity=2),
            ufunc(np.arctan2),
            _atan2_gradient,
            Elementwise(lambda h, attrs, y, x: h.function("atan2", y, x)),
            _pairs,
            ulp=ULP,
            formula="the angle of the point (x, y)",
        )
    ),
    floating,
)
hypot = binary_function(
    register(
        Op(
            "hypot",
            "sqrt(x**2 + y**2) without overflow; inf if either is infinite, even beside nan.",
            same_type("f", arity=2),
            ufunc(np.hypot),
            _hypot_gradient,
            Elementwise(_hypot_body),
            _pairs,
            ulp=ULP,
            formula="sqrt(x^2 + y^2)",
            nan="NaN, except that an infinity beside it gives inf.",
        )
    ),
    floating,
)
