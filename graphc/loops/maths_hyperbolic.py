"""Vector maths: sinh, cosh and the inverse hyperbolic functions. float32 is computed in float64.

Near 0 they are polynomials; elsewhere what they are made of: exponentials and logarithms, arranged so that nothing
cancels. tanh has its own way, in `maths_exponential`.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.loops.maths_exponential import exp_of_sum, exp_to_float32, log1p, log_to_float32
from graphc.loops.maths_parts import Maths, at_most, exact_sum, odd_polynomial, polynomial
from graphc.loops.maths_polynomials import POLYNOMIALS
from graphc.loops.maths_tables import TABLES
from graphc.types import DType, float32, float64

LARGE = 2.0**60  # from here on asinh(x) and acosh(x) are log(x) + log(2), and log1p(x) is log(x)


def sinh(h: Maths, x: Any) -> Any:
    """The hyperbolic sine: odd to the bit."""
    size = h.cast(h.abs(x), float64)
    power, inverse = _half_powers(h, size, x.dtype)
    near = odd_polynomial(h, size, POLYNOMIALS["sinh"][x.dtype])
    return h.copysign(h.cast(h.select(_below(h, size, 1.0), near, h.sub(power, inverse)), x.dtype), x)


def cosh(h: Maths, x: Any) -> Any:
    """The hyperbolic cosine."""
    return h.cast(h.add(*_half_powers(h, h.cast(h.abs(x), float64), x.dtype)), x.dtype)


def _half_powers(h: Maths, size: Any, precision: DType) -> tuple[Any, Any]:
    """exp(size) / 2, which is finite where exp(size) no longer is, and exp(-size) / 2."""
    if precision == float32:
        half = h.constant(0.5, float64)
        power = exp_to_float32(h, size)
        return h.mul(power, half), h.div(half, power)
    table = TABLES[float64]
    high, low = exact_sum(h, at_most(h, size, 800.0), h.constant(-table.ln2_high, float64))
    power = exp_of_sum(h, high, h.sub(low, h.constant(table.ln2_low, float64)))
    return power, h.div(h.constant(0.25, float64), power)


def asinh(h: Maths, x: Any) -> Any:
    """The inverse hyperbolic sine: odd to the bit."""
    size = h.cast(h.abs(x), float64)
    one = h.constant(1.0, float64)
    near = odd_polynomial(h, size, POLYNOMIALS["asinh"][x.dtype])
    square = h.mul(size, size)
    more = h.add(size, h.div(square, h.add(one, h.sqrt(h.add(square, one)))))
    result = h.select(_below(h, size, 0.5), near, _log_above_one(h, more, size, x.dtype))
    return h.copysign(h.cast(result, x.dtype), x)


def acosh(h: Maths, x: Any) -> Any:
    """The inverse hyperbolic cosine: 0 at 1, NaN below."""
    wide = h.cast(x, float64)
    less = h.sub(wide, h.constant(1.0, float64))
    more = h.add(less, h.sqrt(h.fma(less, less, h.add(less, less))))
    result = h.cast(_log_above_one(h, more, wide, x.dtype), x.dtype)
    return h.select(h.lt(x, h.constant(1.0, x.dtype)), h.constant(math.nan, x.dtype), result)


def _log_above_one(h: Maths, more: Any, size: Any, precision: DType) -> Any:
    """log(1 + more), but log(2 size) where size is large and `more` may have overflowed."""
    if precision == float32:
        log = log_to_float32(h, h.add(more, h.constant(1.0, float64)))
        return h.select(h.lt(size, h.constant(math.inf, float64)), log, size)
    large = h.ge(size, h.constant(LARGE, float64))
    log = log1p(h, h.select(large, size, more))
    return h.select(large, h.add(log, h.constant(math.log(2), float64)), log)


def atanh(h: Maths, x: Any) -> Any:
    """The inverse hyperbolic tangent: odd to the bit, infinite at 1 and -1, NaN beyond."""
    size, one = h.cast(h.abs(x), float64), h.constant(1.0, float64)
    square = h.mul(size, size)
    series = h.fma(square, polynomial(h, square, POLYNOMIALS["atanh"][float64]), h.constant(2.0 / 3.0, float64))
    near = h.fma(h.mul(h.mul(size, square), series), h.constant(0.5, float64), size)
    if x.dtype == float32:
        log = log_to_float32(h, h.div(h.add(one, size), h.sub(one, size)))
    else:
        log = log1p(h, h.div(h.add(size, size), h.sub(one, size)))
    result = h.select(_below(h, size, 0.17), near, h.mul(log, h.constant(0.5, float64)))
    if x.dtype == float32:
        infinity, nan = h.constant(math.inf, float64), h.constant(math.nan, float64)
        result = h.select(h.lt(size, one), result, h.select(h.eq(size, one), infinity, nan))
    return h.copysign(h.cast(result, x.dtype), x)


def _below(h: Maths, size: Any, bound: float) -> Any:
    return h.lt(size, h.constant(bound, size.dtype))
