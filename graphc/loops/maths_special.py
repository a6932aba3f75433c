"""Vector maths: erf and the inverse square root.

The error function is a polynomial near 0 and 1 - exp(-g) behind it, where the polynomial g is -log(erfc).
"""

from __future__ import annotations

import math
from typing import Any

from graphc.loops.maths_parts import (
    Maths,
    at_most,
    minus_multiple,
    minus_product,
    nearest_exponent,
    polynomial,
    power_of_two,
)
from graphc.loops.maths_polynomials import POLYNOMIALS
from graphc.loops.maths_tables import TABLES
from graphc.types import float32, float64

ERF_CENTER = {float32: 0.9970703125, float64: 1.00390625}  # -log(erfc) there is nearly a float
ERF_ONE = {float32: 4.0, float64: 6.0}  # from here on erf is 1


def erf(h: Maths, x: Any) -> Any:
    """The error function: odd, 1 and -1 at the infinities."""
    dtype, size = x.dtype, h.abs(x)
    square = h.mul(x, x)
    near = h.fma(x, polynomial(h, square, POLYNOMIALS["erf"][dtype]), x)
    shifted = h.sub(at_most(h, size, ERF_ONE[dtype]), h.constant(ERF_CENTER[dtype], dtype))
    beyond = _exp_in_range(h, h.neg(polynomial(h, shifted, POLYNOMIALS["erfc"][dtype])))
    one = h.constant(1.0, dtype)
    return h.select(h.lt(size, one), near, h.copysign(h.sub(one, beyond), x))


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
