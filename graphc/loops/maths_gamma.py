"""Vector maths: the logarithm of the gamma function and its derivative, digamma.

Both are computed in float64, float32 with shorter polynomials. Below 8, lgamma is a polynomial around its zero at 2,
moved there by the recurrence gamma(x + 1) = x gamma(x), whose factors are one product under one logarithm: so it is
exact at 1 and 2, and as exact near them as elsewhere. digamma is moved beyond 8 the other way. From 8 on both are
Stirling's series. Negative arguments are reflected; near the zeros that they have between their poles, the error is
one of the two terms that cancel there, not of the result.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.loops.maths_exponential import log
from graphc.loops.maths_parts import Maths, in_float64, polynomial
from graphc.loops.maths_polynomials import POLYNOMIALS
from graphc.loops.maths_trigonometric import _cosine_near_0, _sine_near_0
from graphc.types import DType, float64

SERIES = 8.0  # from here on Stirling's
HALF_LOG_TWO_PI = 0.9189385332046728
LOG_PI = 1.1447298858494002


def lgamma(h: Maths, x: Any) -> Any:
    """log(abs(gamma(x))): inf at 0, at negative integers and at both infinities."""
    return in_float64(h, _lgamma, x)


def digamma(h: Maths, x: Any) -> Any:
    """The derivative of lgamma: -inf at 0, inf at -0, NaN at negative integers and at -inf."""
    return in_float64(h, _digamma, x)


def _lgamma(h: Maths, x: Any, precision: DType) -> Any:
    zero, one, infinity = (h.constant(v, float64) for v in (0.0, 1.0, math.inf))
    negative = h.lt(x, zero)
    y = h.select(negative, h.sub(one, x), x)
    z, factors, divides = _towards_2(h, y)
    below = h.lt(y, h.constant(SERIES, float64))
    logarithm = log(h, h.select(below, factors, y))
    near = h.mul(z, polynomial(h, z, POLYNOMIALS["lgamma"][precision]))
    near = h.add(near, h.select(divides, h.neg(logarithm), logarithm))
    inverse = h.div(one, y)
    rest = h.mul(inverse, polynomial(h, h.mul(inverse, inverse), POLYNOMIALS["stirling"][precision]))
    far = h.mul(h.sub(y, h.constant(0.5, float64)), h.sub(logarithm, one))
    far = h.add(far, h.add(rest, h.constant(HALF_LOG_TWO_PI - 0.5, float64)))
    result = h.select(below, near, far)

    def reflected() -> list[Any]:
        sine, _, _ = _around_integer(h, x, precision)
        there = h.sub(h.sub(h.constant(LOG_PI, float64), log(h, h.abs(sine))), result)
        pole = h.or_(h.eq(sine, zero), h.eq(x, h.constant(-math.inf, float64)))
        return [h.select(pole, infinity, there)]

    return h.rarely(negative, [result], reflected)[0]


def _towards_2(h: Maths, y: Any) -> tuple[Any, Any, Any]:
    """z = y - 2 moved by whole steps to abs(z) <= 1/2, the product of the steps' factors, and whether it divides."""
    one, two = h.constant(1.0, float64), h.constant(2.0, float64)
    first, second = h.lt(y, h.constant(0.5, float64)), h.lt(y, h.constant(1.5, float64))
    steps = h.rint(h.sub(y, two))
    z = h.select(first, y, h.select(second, h.sub(y, one), h.sub(y, h.add(steps, two))))
    factors = one
    for n in range(1, int(SERIES) - 1):
        number = h.constant(float(n), float64)
        factors = h.mul(factors, h.select(h.le(number, steps), h.sub(y, number), one))
    up = h.select(first, h.mul(y, h.add(y, one)), y)
    return z, h.select(second, up, factors), second


def _digamma(h: Maths, x: Any, precision: DType) -> Any:
    zero, one = h.constant(0.0, float64), h.constant(1.0, float64)
    negative = h.lt(x, zero)
    y = h.select(negative, h.sub(one, x), x)
    below = h.lt(y, h.constant(SERIES, float64))
    above, under = one, y  # their quotient is the sum of 1 / (y + n)
    for n in range(1, int(SERIES)):
        next_ = h.add(y, h.constant(float(n), float64))
        above, under = h.fma(above, next_, under), h.mul(under, next_)
    moved = h.select(below, h.add(y, h.constant(SERIES, float64)), y)
    inverse = h.div(one, moved)
    square = h.mul(inverse, inverse)
    series = h.mul(square, polynomial(h, square, POLYNOMIALS["digamma"][precision]))
    far = h.sub(log(h, moved), h.fma(inverse, h.constant(0.5, float64), series))
    result = h.sub(far, h.select(below, h.div(above, under), zero))

    def reflected() -> list[Any]:
        sine, cosine, r = _around_integer(h, x, precision)
        cotangent = h.mul(h.div(cosine, sine), h.constant(math.pi, float64))
        nan = h.constant(math.nan, float64)
        return [h.select(h.eq(r, zero), nan, h.sub(result, cotangent))]

    return h.rarely(negative, [result], reflected)[0]


def _around_integer(h: Maths, x: Any, precision: DType) -> tuple[Any, Any, Any]:
    """sin(pi r), cos(pi r) and r, the signed distance of x to the nearest integer; by the half angle."""
    r = h.sub(x, h.rint(x))
    half = h.mul(r, h.constant(math.pi / 2, float64))
    sine, cosine = (h.add(*f(h, half, None, precision)) for f in (_sine_near_0, _cosine_near_0))
    two = h.constant(2.0, float64)
    return h.mul(h.mul(sine, cosine), two), h.fma(h.mul(sine, sine), h.neg(two), h.constant(1.0, float64)), r
