"""Special functions: erf, erfc and the inverse of erf; lgamma and its derivatives digamma and polygamma.

polygamma is one op for all orders, so that lgamma has derivatives of every order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply
from graphc.errors import ArgumentError, fail
from graphc.graph import Attrs, Node, Op
from graphc.ops.lowering import Elementwise
from graphc.ops.operands import TensorLike, as_tensor, converted, floating, same_type, tensors_of
from graphc.ops.registry import register
from graphc.ops.samples import DIMS, FLOATS, SHAPES, Operand, Sample
from graphc.ops.transcendental import exp, float_function
from graphc.types import float64

ROOT_PI = math.sqrt(math.pi)
WIDE = {"float32": 4.0, "float64": 16.0}  # references of their own, a few ULP off themselves
TERMS = 10  # of a series before its rest is one of inverse powers


def _of_floats(function: Callable[[float], float]) -> Callable[[np.ndarray], np.ndarray]:
    """A function of a Python float for arrays."""

    def reference(x: np.ndarray) -> np.ndarray:
        flat = [function(v) for v in x.reshape(-1).tolist()]
        with np.errstate(over="ignore"):
            return np.array(flat, np.float64).reshape(x.shape).astype(x.dtype)

    return reference


def _lgamma(x: float) -> float:
    if math.isinf(x) or (x <= 0 and x == math.floor(x)):
        return math.inf
    try:
        return math.lgamma(x)
    except OverflowError:
        return math.inf


def _digamma(x: float) -> float:
    """Moved beyond 10 by the recurrence, then the asymptotic series; below 0 by reflection."""
    if x == 0 or math.isinf(x):
        return math.nan if x == -math.inf else math.inf if x == math.inf else -math.copysign(math.inf, x)
    if x < 0:
        r = x - round(x)
        return math.nan if r == 0 else _digamma(1 - x) - math.pi * math.cos(math.pi * r) / math.sin(math.pi * r)
    lost = 0.0
    while x < 10:
        lost, x = lost + (math.inf if x < 1e-308 else 1 / x), x + 1
    square = 1 / (x * x)
    series = sum(float(_bernoulli(2 * k)) / (2 * k) * square**k for k in range(1, 9))
    return math.log(x) - 0.5 / x - series - lost


def _erfinv(x: float) -> float:
    """Bisection and Newton's method on erfc or erf, whichever does not cancel."""
    size = abs(x)
    if not size < 1:
        return math.copysign(math.inf, x) if size == 1 else math.nan
    y, low, high = 0.5 * ROOT_PI * size, 0.0, 6.0
    for _ in range(200):
        missing = math.erf(y) - size if size < 0.5 else (1 - size) - math.erfc(y)
        low, high = (low, y) if missing > 0 else (y, high)
        step = y - missing * 0.5 * ROOT_PI * math.exp(y * y)
        new = step if low < step < high else 0.5 * (low + high)
        if new == y or size < 1e-12:
            break
        y = new
    return math.copysign(y, x)


erf = float_function(
    "erf",
    "The error function: 2 / sqrt(pi) times the integral of exp(-t**2) from 0 to x.",
    _of_floats(math.erf),
    lambda g, x, y: g * (exp(-(x * x)) * (2 / ROOT_PI)),
    formula="2 / sqrt(pi) * integral of e^(-t^2) for t in 0..x",
)
erfc = float_function(
    "erfc",
    "1 - erf(x), exact also where erf is nearly 1.",
    _of_floats(math.erfc),
    lambda g, x, y: g * (exp(-(x * x)) * (-2 / ROOT_PI)),
    formula="1 - erf(x)",
    ulp=WIDE,
)
erfinv: Callable[[TensorLike], Tensor] = float_function(
    "erfinv",
    "The inverse of erf: inf at 1, -inf at -1, nan outside of -1..1.",
    _of_floats(_erfinv),
    lambda g, x, y: g * (exp(y * y) * (ROOT_PI / 2)),
    formula="y with erf(y) = x",
    ulp=WIDE,
    domain=(0.1, 0.9),
)


def _bernoulli(n: int) -> Fraction:
    row: list[Fraction] = []
    for m in range(n + 1):
        row.append(Fraction(1, m + 1))
        for j in range(m, 0, -1):
            row[j - 1] = j * (row[j - 1] - row[j])
    return row[0]


def _rest(order: int) -> list[float]:
    """c with sum over k >= 0 of (x + k)**-(order + 1) = x**-order * (c[0] + c[1]/x + c[2]/x**2 + c[3]/x**4 + ...)."""
    s, found = order + 1, [1.0 / order, 0.5]
    for k in range(1, 9):
        rising = math.prod(range(s, s + 2 * k - 1))
        found.append(float(_bernoulli(2 * k) * rising / math.factorial(2 * k)))
    return found


def _polygamma_body(h: Any, attrs: Attrs, x: Any) -> Any:
    """Hurwitz's zeta function by Euler and Maclaurin, in float64; order 1 below 0 by reflection, the others nan."""
    order, dtype = attrs["order"], x.dtype
    x = x if dtype is float64 else h.cast(x, float64)

    def number(value: float) -> Any:
        return h.constant(value, float64)

    def power(base: Any, n: int) -> Any:
        result = None
        for bit in f"{n:b}":
            result = base if result is None else h.mul(result, result)
            result = h.mul(result, base) if bit == "1" and result is not base else result
        return result

    one, zero = number(1.0), number(0.0)
    negative = h.lt(x, zero)
    y = h.select(negative, h.sub(one, x), x)
    total = zero
    for k in reversed(range(TERMS)):
        total = h.add(total, power(h.div(one, h.add(y, number(float(k)))), order + 1))
    inverse = h.div(one, h.add(y, number(float(TERMS))))
    square, first, *others = h.mul(inverse, inverse), *_rest(order)
    series = number(others[-1])
    for c in reversed(others[1:-1]):
        series = h.fma(series, square, number(c))
    tail = h.fma(h.fma(series, inverse, number(others[0])), inverse, number(first))
    total = h.mul(h.fma(power(inverse, order), tail, total), number(math.factorial(order) * (-1.0) ** (order + 1)))
    there = number(math.nan)
    if order == 1:
        sine = h.function("sin", h.mul(h.sub(x, h.rint(x)), number(math.pi)))
        over = h.div(number(math.pi), sine)
        there = h.sub(h.mul(over, over), total)
    result = h.select(negative, there, total)
    return result if dtype is float64 else h.cast(result, dtype)


def _polygamma_reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    order, given = attrs["order"], arrays[0]
    x = given.astype(np.float64)
    with np.errstate(all="ignore"):
        y = np.where(x < 0, 1 - x, x)
        first, *others = _rest(order)
        a = y + TERMS
        tail = first + others[0] / a + sum(c * a ** -(2.0 * k) for k, c in enumerate(others[1:], 1))
        zeta = a ** -float(order) * tail + sum((1 / (y + k)) ** (order + 1) for k in range(TERMS))
        total = (-1.0) ** (order + 1) * math.factorial(order) * zeta
        reflected = (np.pi / np.sin(np.pi * (x - np.rint(x)))) ** 2 - total if order == 1 else np.nan
        return (np.asarray(np.where(x < 0, reflected, total)).astype(given.dtype),)


def _polygamma_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    return (g[0] * cast(Tensor, apply("polygamma", tensors_of(node)[0], order=node.attrs["order"] + 1)),)


def _polygamma_samples() -> list[Sample]:
    return [
        Sample((Operand(shape, positive=n > 1, domain=(0.6, 3.4)),), {"order": n % 4 + 1}, FLOATS, DIMS, n > 1)
        for n, shape in enumerate(SHAPES)
    ]


register(
    Op(
        "polygamma",
        "polygamma(order)(x): the derivative of that order, 1 or more, of digamma. An infinity at 0; nan below 0 for"
        " orders from 2 on. Its derivative is that of the next order.",
        same_type("f"),
        _polygamma_reference,
        _polygamma_gradient,
        Elementwise(_polygamma_body),
        _polygamma_samples,
        ulp={"float32": 4.0, "float64": 64.0},
        formula="d^(order + 1) ln gamma(x) / dx^(order + 1)",
        example="graphc.polygamma(1, graphc.constant([1.0, 2.5]))",
    )
)


def polygamma(order: int, x: TensorLike) -> Tensor:
    """The derivative of digamma of the order `order`: polygamma(0, x) is digamma, polygamma(1, x) trigamma.

    nan below 0 for orders from 2 on. `polygamma(1, 1.0)` is 1.6449341.
    """
    if not isinstance(order, int) or order < 0:
        fail(ArgumentError, f"polygamma: an order is an int from 0 on, not {order!r}")
    tensor = as_tensor(x)
    tensor = converted("polygamma", tensor, floating(tensor.dtype))
    return digamma(tensor) if order == 0 else cast(Tensor, apply("polygamma", tensor, order=order))


digamma: Callable[[TensorLike], Tensor] = float_function(
    "digamma",
    "The derivative of lgamma: -inf at 0, inf at -0, nan at negative integers and at -inf.",
    _of_floats(_digamma),
    lambda g, x, y: g * polygamma(1, x),
    formula="d ln abs(gamma(x)) / dx",
    ulp=WIDE,
    positive=True,
    domain=(2.6, 5.0),  # far from the zeros, where errors are absolute
)
lgamma = float_function(
    "lgamma",
    "The logarithm of the absolute value of the gamma function: inf at 0, at negative integers and at the infinities.",
    _of_floats(_lgamma),
    lambda g, x, y: g * digamma(x),
    formula="ln abs(gamma(x))",
    ulp=WIDE,
    positive=True,
    domain=(2.6, 5.0),  # far from the zeros, where errors are absolute
)
gammaln = lgamma
