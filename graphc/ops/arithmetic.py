"""Elementwise arithmetic: + - * /, minima and maxima, rounding, and the integer divisions.

Each op is one `register(Op(...))`. Bodies are written against `graphc.ops.lowering.Handler`; values have a `dtype`.
Results are NumPy's to the bit: nothing here is contracted or reassociated.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.build import Tensor
from graphc.errors import DTypeError, fail
from graphc.graph import Attrs, Node, Op, shown
from graphc.ops.lowering import Elementwise
from graphc.ops.operands import (
    TensorLike,
    as_tensor,
    binary_function,
    fits,
    floating,
    integer,
    result_of,
    same_type,
    tensors_of,
    ufunc,
    unary_function,
)
from graphc.ops.registry import register
from graphc.ops.samples import ALL, NUMBERS, binary, unary
from graphc.ops.selection import where
from graphc.ops.sources import zeros_like
from graphc.types import DType, bool_, float64

Gradients = Sequence[Tensor | None]
_JUMPS = {"slope": "it is constant between its jumps: the gradient is 0"}


def _either(on_bool: str, otherwise: str) -> Elementwise:
    """A body that is handler op `on_bool` for bools and `otherwise` for numbers."""

    def body(h: Any, attrs: Attrs, x: Any, y: Any) -> Any:
        return getattr(h, on_bool if x.dtype is bool_ else otherwise)(x, y)

    return Elementwise(body)


add = binary_function(
    register(
        Op(
            "add",
            "x + y. Integers wrap; for bools: x or y.",
            same_type("biuf", arity=2),
            ufunc(np.add),
            lambda node, g: (g[0], g[0]),
            _either("or_", "add"),
            lambda: binary(ALL),
            formula="x + y",
        )
    )
)

subtract = binary_function(
    register(
        Op(
            "subtract",
            "x - y. Integers wrap.",
            same_type("iuf", arity=2),
            ufunc(np.subtract),
            lambda node, g: (g[0], -g[0]),
            Elementwise(lambda h, attrs, x, y: h.sub(x, y)),
            lambda: binary(NUMBERS),
            formula="x - y",
        )
    )
)


def _multiply_gradient(node: Node, g: Sequence[Any]) -> Gradients:
    x, y = tensors_of(node)
    return g[0] * y, g[0] * x


multiply = binary_function(
    register(
        Op(
            "multiply",
            "x * y. Integers wrap; for bools: x and y.",
            same_type("biuf", arity=2),
            ufunc(np.multiply),
            _multiply_gradient,
            _either("and_", "mul"),
            lambda: binary(ALL),
            formula="x * y",
        )
    )
)


def _divide_gradient(node: Node, g: Sequence[Any]) -> Gradients:
    y = tensors_of(node)[1]
    scaled = g[0] / y
    return scaled, -(scaled * result_of(node))


divide = binary_function(
    register(
        Op(
            "divide",
            "x / y of floats, IEEE 754: x / 0 is an infinity, 0 / 0 is nan. (Integers are converted to float64 first.)",
            same_type("f", arity=2),
            ufunc(np.divide),
            _divide_gradient,
            Elementwise(lambda h, attrs, x, y: h.div(x, y)),
            lambda: binary(),
            formula="x / y",
        )
    ),
    lambda dtype: dtype if dtype.is_float else float64,
)

negative = unary_function(
    register(
        Op(
            "negative",
            "-x: the sign flipped, also of zeros and nans. Integers wrap.",
            same_type("iuf"),
            ufunc(np.negative),
            lambda node, g: (-g[0],),
            Elementwise(lambda h, attrs, x: h.neg(x)),
            lambda: unary(NUMBERS),
            formula="-x",
        )
    )
)


def _abs_body(h: Any, attrs: Attrs, x: Any) -> Any:
    return x if x.dtype.kind in "bu" else h.abs(x)


def _abs_gradient(node: Node, g: Sequence[Any]) -> Gradients:
    return (g[0] * sign(tensors_of(node)[0]),)


abs = unary_function(
    register(
        Op(
            "abs",
            "|x|. The lowest signed integer stays as it is; the derivative at 0 is 0.",
            same_type("biuf"),
            ufunc(np.abs),
            _abs_gradient,
            Elementwise(_abs_body),
            lambda: unary(ALL),
            formula="|x|",
        )
    )
)


def _sign_body(h: Any, attrs: Attrs, x: Any) -> Any:
    zero, one = h.constant(0, x.dtype), h.constant(1, x.dtype)
    above = h.select(h.gt(x, zero), one, zero)
    if x.dtype.kind == "u":
        return above
    signed = h.select(h.lt(x, zero), h.constant(-1, x.dtype), above)
    return h.select(h.ne(x, x), x, signed) if x.dtype.is_float else signed


sign: Callable[[TensorLike], Tensor] = unary_function(
    register(
        Op(
            "sign",
            "-1, 0 or 1; +0 for both zeros, nan for nan. Its derivative is 0 everywhere.",
            same_type("iuf"),
            ufunc(np.sign),
            lambda node, g: (zeros_like(g[0]),),
            Elementwise(_sign_body),
            lambda: unary(NUMBERS),
            exempt=_JUMPS,
            formula="-1 if x < 0, 0 if x = 0, 1 if x > 0",
        )
    )
)


def _extremum_gradient(loses: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Node, Sequence[Any]], Gradients]:
    """The winner gets the cotangent, ties share it equally, a nan leaves it to both."""

    def gradient(node: Node, g: Sequence[Any]) -> Gradients:
        x, y = tensors_of(node)
        shared = where(x == y, g[0] * 0.5, g[0])
        return where(loses(x, y), 0, shared), where(loses(y, x), 0, shared)

    return gradient


maximum = binary_function(
    register(
        Op(
            "maximum",
            "The larger of x and y; nan if either is nan. A tie gives half of the cotangent to each.",
            same_type("biuf", arity=2),
            ufunc(np.maximum),
            _extremum_gradient(lambda x, y: x < y),
            _either("or_", "maximum"),
            lambda: binary(ALL),
            formula="x if x > y else y",
        )
    )
)

minimum = binary_function(
    register(
        Op(
            "minimum",
            "The smaller of x and y; nan if either is nan. A tie gives half of the cotangent to each.",
            same_type("biuf", arity=2),
            ufunc(np.minimum),
            _extremum_gradient(lambda x, y: x > y),
            _either("and_", "minimum"),
            lambda: binary(ALL),
            formula="x if x < y else y",
        )
    )
)


def _rounding(name: str, doc: str, function: Any, body: Callable[[Any, Any], Any]) -> Callable[[Any], Tensor]:
    op = register(
        Op(
            name,
            f"{doc}; zeros keep their sign. Its derivative is 0. (Integers stay as they are.)",
            same_type("f"),
            ufunc(function),
            lambda node, g: (zeros_like(g[0]),),
            Elementwise(lambda h, attrs, x: body(h, x)),
            lambda: unary(domain=(0.1, 0.9)),
            exempt=_JUMPS,
            formula=f"{name}(x)",
        )
    )
    of_floats = unary_function(op, floating)

    def rounding(x: Any) -> Tensor:
        return x if isinstance(x, Tensor) and not x.dtype.is_float else of_floats(x)

    rounding.__name__, rounding.__doc__ = name, op.doc
    return rounding


floor = _rounding("floor", "The largest integer that is not above x", np.floor, lambda h, x: h.floor(x))
ceil = _rounding("ceil", "The smallest integer that is not below x", np.ceil, lambda h, x: h.ceil(x))
trunc = _rounding("trunc", "x without its fraction, towards 0", np.trunc, lambda h, x: h.trunc(x))
rint = _rounding(
    "round",
    "The nearest integer, of two equally near ones the even one (`rint([0.5, 1.5])` is [0.0, 2.0])",
    np.rint,
    lambda h, x: h.rint(x),
)


def round(x: TensorLike, decimals: int = 0) -> Tensor:
    """The nearest multiple of 10**-decimals, halves to even (as NumPy: x * 10**decimals is rounded, then divided).

    Integers stay as they are (only `decimals` >= 0). `round([0.5, 1.5, 2.5])` is [0.0, 2.0, 2.0].
    """
    tensor, decimals = as_tensor(x), integer("round", "decimals", decimals)
    if tensor.dtype is bool_ or (decimals < 0 and not tensor.dtype.is_float):
        fail(DTypeError, f"round: {decimals} decimals of {shown(tensor)}", "convert it to a float with astype")
    if decimals == 0 or not tensor.dtype.is_float:
        return rint(tensor)
    scale = 10.0 ** builtins.abs(decimals)
    return divide(rint(multiply(tensor, scale)), scale) if decimals > 0 else rint(divide(tensor, scale)) * scale


def _fmod(h: Any, x: Any, y: Any) -> Any:
    """C's fmod of finite |x| and |y| > 0 in f64, exact: long division with 52 bits of quotient in each step.

    The steps cover the widest ratio of two numbers of x's dtype. A scaled divisor that overflows is skipped.
    """
    steps = 6 if x.dtype is not float64 else 41
    wide = [h.cast(v, float64) if v.dtype is not float64 else v for v in (x, y)]
    rest, divisor = h.abs(wide[0]), h.abs(wide[1])
    chunk, infinity = h.constant(2.0**52, float64), h.constant(float("inf"), float64)
    scaled = [divisor]
    for _ in range(steps - 1):
        scaled.append(h.mul(scaled[-1], chunk))
    zero = h.constant(0.0, float64)
    for by in reversed(scaled):
        quotient = h.trunc(h.div(rest, by))
        left = h.left_over(rest, quotient, by)
        left = h.select(h.lt(left, zero), h.add(left, by), left)
        rest = h.select(h.lt(by, infinity), left, rest)
    result = h.copysign(rest, wide[0])
    return result if x.dtype is float64 else h.cast(result, x.dtype)


def _float_divmod(h: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """NumPy's floor division and remainder of floats: the remainder has the sign of y."""
    dtype: DType = x.dtype
    zero, half, one = (h.constant(c, dtype) for c in (0.0, 0.5, 1.0))
    infinity, nan = h.constant(float("inf"), dtype), h.constant(float("nan"), dtype)
    finite_x, finite_y = h.lt(h.abs(x), infinity), h.lt(h.abs(y), infinity)
    usable = h.and_(h.and_(finite_x, finite_y), h.ne(y, zero))
    exact = _fmod(h, h.select(usable, x, zero), h.select(usable, y, one))
    # An infinite divisor leaves a finite x as it is; every other unusable pair has no remainder.
    keeps = h.and_(finite_x, h.eq(h.abs(y), infinity))
    rest = h.select(usable, exact, h.select(keeps, x, nan))
    quotient = h.div(h.sub(x, rest), y)
    opposite = h.and_(h.ne(rest, zero), h.xor(h.lt(y, zero), h.lt(rest, zero)))
    quotient = h.select(opposite, h.sub(quotient, one), quotient)
    remainder = h.select(opposite, h.add(rest, y), h.select(h.eq(rest, zero), h.copysign(zero, y), rest))
    down = h.floor(quotient)
    down = h.select(h.gt(h.sub(quotient, down), half), h.add(down, one), down)
    down = h.select(h.eq(quotient, zero), h.copysign(zero, h.div(x, y)), down)
    return h.select(h.eq(y, zero), h.div(x, y), down), remainder


def _integer_divmod(h: Any, x: Any, y: Any) -> tuple[Any, Any]:
    zero = h.constant(0, x.dtype)
    quotient = h.div(x, y)  # truncates; 0 where y is 0; wraps for the lowest integer by -1
    rest = h.select(h.eq(y, zero), zero, h.sub(x, h.mul(quotient, y)))
    if x.dtype.kind == "u":
        return quotient, rest
    opposite = h.and_(h.ne(rest, zero), h.xor(h.lt(y, zero), h.lt(rest, zero)))
    down = h.select(opposite, h.sub(quotient, h.constant(1, x.dtype)), quotient)
    return down, h.select(opposite, h.add(rest, y), rest)


def _divmod(h: Any, x: Any, y: Any) -> tuple[Any, Any]:
    return _float_divmod(h, x, y) if x.dtype.is_float else _integer_divmod(h, x, y)


floor_divide = binary_function(
    register(
        Op(
            "floor_divide",
            "x // y rounded down. Integers: 0 where y is 0, the lowest by -1 wraps; floats: NumPy's result, x / 0 for"
            " y = 0. Its derivative is 0.",
            same_type("iuf", arity=2),
            ufunc(np.floor_divide),
            lambda node, g: (zeros_like(g[0]), zeros_like(g[0])),
            Elementwise(lambda h, attrs, x, y: _divmod(h, x, y)[0]),
            lambda: binary(NUMBERS),
            formula="floor(x / y)",
            exempt=_JUMPS,
        )
    )
)


def _remainder_gradient(node: Node, g: Sequence[Any]) -> Gradients:
    x, y = tensors_of(node)
    return g[0], -(g[0] * floor_divide(x, y))


remainder = binary_function(
    register(
        Op(
            "remainder",
            "x % y with the sign of y, exact. Integers: 0 where y is 0; floats: nan for y = 0 or an infinite x.",
            same_type("iuf", arity=2),
            ufunc(np.remainder),
            _remainder_gradient,
            Elementwise(lambda h, attrs, x, y: _divmod(h, x, y)[1]),
            lambda: binary(NUMBERS),
            formula="x - y * floor(x / y)",
        )
    )
)


def square(x: TensorLike) -> Tensor:
    """x * x. `square([-3, 2])` is [9, 4]."""
    tensor = as_tensor(x)
    return multiply(tensor, tensor)


def reciprocal(x: TensorLike) -> Tensor:
    """1 / x. `reciprocal([2.0, 4.0])` is [0.5, 0.25]."""
    return divide(1, x)


def clip(x: TensorLike, min: TensorLike | None = None, max: TensorLike | None = None) -> Tensor:
    """`x` limited to [min, max], either of which may be None; nan stays nan.

    `clip([-2.0, 0.5, 3.0], 0, 1)` is [0.0, 0.5, 1.0].
    A Python int beyond the dtype of integers is no limit on the side where it limits nothing.
    """
    result = as_tensor(x)
    min = None if type(min) is int and min < 0 and not fits(min, result.dtype) else min
    max = None if type(max) is int and max > 0 and not fits(max, result.dtype) else max
    if min is not None:
        result = maximum(result, min)
    return result if max is None else minimum(result, max)
