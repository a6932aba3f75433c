"""Vector maths: erf, erfc, the inverse of erf, and the inverse square root.

The error function is a polynomial near 0 and 1 - exp(-g) behind it, where the polynomial g is -log(erfc).
"""

from __future__ import annotations

import math
from typing import Any

from graphc.loops.maths_exponential import exp, log
from graphc.loops.maths_parts import (
    Maths,
    at_most,
    exact_product,
    horner,
    in_float64,
    minus_multiple,
    minus_product,
    nearest_exponent,
    polynomial,
    power_of_two,
)
from graphc.loops.maths_polynomials import POLYNOMIALS
from graphc.loops.maths_tables import TABLES
from graphc.types import DType, float32, float64

ERF_CENTER = {float32: 0.9970703125, float64: 1.00390625}  # -log(erfc) there is nearly a float
ERF_ONE = {float32: 4.0, float64: 6.0}  # from here on erf is 1


ERFC_MIDDLE = 3.75  # the place that the variable of erfc's polynomial has 0 at
ERFC_ZERO = 28.0  # from here on erfc is 0
GILES_END = 16.0
GILES_CENTRAL = (
    1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-06, -3.5233877e-06,
    3.43273939e-07, 2.81022636e-08,
)  # fmt: skip
GILES_TAIL = (
    2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844, 0.00134934322,
    0.000100950558, -0.000200214257,
)  # fmt: skip


def erf(h: Maths, x: Any) -> Any:
    """The error function: odd, 1 and -1 at the infinities."""
    dtype, size = x.dtype, h.abs(x)
    square = h.mul(x, x)
    near = h.fma(x, polynomial(h, square, POLYNOMIALS["erf"][dtype]), x)
    shifted = h.sub(at_most(h, size, ERF_ONE[dtype]), h.constant(ERF_CENTER[dtype], dtype))
    beyond = _exp_in_range(h, h.neg(polynomial(h, shifted, POLYNOMIALS["erfc"][dtype])))
    one = h.constant(1.0, dtype)
    return h.select(h.lt(size, one), near, h.copysign(h.sub(one, beyond), x))


def erfc(h: Maths, x: Any) -> Any:
    """1 - erf(x) without cancellation: exp(-x^2) times a function of little slope; in float64."""
    return in_float64(h, _erfc, x)


def _erfc(h: Maths, x: Any, precision: DType) -> Any:
    one, two, middle = (h.constant(v, float64) for v in (1.0, 2.0, ERFC_MIDDLE))
    size = at_most(h, h.abs(x), ERFC_ZERO)
    place = h.div(h.sub(size, middle), h.add(size, middle))
    slow = h.div(polynomial(h, place, POLYNOMIALS["erfcx"][precision]), h.fma(size, two, one))
    square, lost = exact_product(h, size, size)
    power = exp(h, h.neg(square))
    tail = h.mul(slow, h.sub(power, h.mul(power, lost)))
    return h.select(h.lt(x, h.constant(0.0, float64)), h.sub(two, tail), tail)


def erfinv(h: Maths, x: Any) -> Any:
    """The inverse of erf on -1..1, NaN outside: M. Giles' approximation (2010) and steps of Halley's, in float64."""
    return in_float64(h, _erfinv, x)


def _erfinv(h: Maths, x: Any, precision: DType) -> Any:
    one, half, size = h.constant(1.0, float64), h.constant(0.5, float64), h.abs(x)
    w = h.neg(log(h, h.mul(h.sub(one, size), h.add(one, size))))
    central = h.mul(horner(h, h.sub(w, h.constant(2.5, float64)), GILES_CENTRAL), size)
    tail = h.mul(horner(h, h.sub(h.sqrt(w), h.constant(3.0, float64)), GILES_TAIL), size)
    y = h.select(h.lt(w, h.constant(5.0, float64)), central, tail)
    if precision == float64:  # beyond the reach of float32: erfc(y) is nearly exp(-y^2) / (y sqrt(pi))
        wide = h.add(w, h.constant(math.log(2), float64))
        far = h.sqrt(h.fma(log(h, h.mul(wide, h.constant(math.pi, float64))), h.neg(half), wide))
        y = h.select(h.gt(w, h.constant(GILES_END, float64)), far, y)
    root = h.constant(math.sqrt(math.pi) / 2, float64)
    for _ in range(1 if precision == float32 else 2):
        missing = h.select(h.lt(size, half), h.sub(erf(h, y), size), h.sub(h.sub(one, size), erfc(h, y)))
        step = h.mul(h.mul(missing, root), exp(h, h.mul(y, y)))
        y = h.sub(y, h.div(step, h.fma(y, step, one)))
    return h.copysign(h.select(h.eq(size, one), h.constant(math.inf, float64), y), x)


def _exp_in_range(h: Maths, x: Any) -> Any:
    """exp(x) for results that are normal numbers."""
    table = TABLES[x.dtype]
    bits, n = nearest_exponent(h, x, table.log2e, table, bias=table.bias)
    r, _, _ = minus_multiple(h, x, n, table.ln2_high, table.ln2_low)
    return h.mul(polynomial(h, r, (1.0, 1.0, *table.exp)), power_of_two(h, bits, x, table))


def rsqrt(h: Maths, x: Any) -> Any:
    """1 / sqrt(x), with what both roundings lost: inf at 0, -inf at -0, NaN below, 0 at inf."""
    given, one = x, h.constant(1.0, x.dtype)
    scale = h.select(h.lt(x, h.constant(2.0**-60, x.dtype)), h.constant(2.0**32, x.dtype), one)
    if not h.fused:  # the square of the root may overflow
        scale = h.select(h.gt(x, h.constant(2.0**100, x.dtype)), h.constant(2.0**-32, x.dtype), scale)
    x = h.mul(h.mul(x, scale), scale)
    root = h.sqrt(x)
    result = h.div(one, root)
    of_root = h.mul(h.mul(h.mul(minus_product(h, x, root, root), result), result), h.constant(0.5, x.dtype))
    corrected = h.fma(h.sub(minus_product(h, one, result, root), of_root), result, result)
    ordinary = h.and_(h.gt(given, h.constant(0.0, x.dtype)), h.lt(given, h.constant(math.inf, x.dtype)))
    return h.mul(h.select(ordinary, corrected, result), scale)
