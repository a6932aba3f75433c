"""Vector maths: power, with twice the bits of float64 where they count.

x^y = exp(y log|x|) multiplies the error of the logarithm by up to 745. float32 is computed in float64, where a short
logarithm has bits to spare. float64 needs the logarithm as a pair: it is 2 atanh(s) with s = f / (2 + f) as a pair,
whose first two terms are pairs too. The special cases of C's pow come last.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.loops.maths_exponential import exp_of_sum, exp_to_float32, log_to_float32
from graphc.loops.maths_parts import (
    Maths,
    at_least,
    at_most,
    exact_product,
    exponent_and_fraction,
    minus_product,
    ordered_sum,
    pair_product,
    polynomial,
)
from graphc.loops.maths_polynomials import POLYNOMIALS
from graphc.loops.maths_tables import TABLES, Table
from graphc.types import float32, float64

Pair = tuple[Any, Any]
ROOT_OF_HALF = 0x3FE6A09E667F3BCD  # the bits of sqrt(1/2) in float64
TWO_THIRDS = (2.0 / 3.0, 3.700743415417188e-17)


def power(h: Maths, x: Any, y: Any) -> Any:
    """x to the power y with C's special cases: 1 for y = 0 and for x = 1, even of NaN; NaN for roots of negatives."""
    size = h.abs(x)
    if x.dtype == float32:
        wide = h.cast(size, float64)  # where no result is denormal
        log = _log_limits(h, log_to_float32(h, wide), wide)
        result = h.cast(exp_to_float32(h, h.mul(h.cast(y, float64), log)), float32)
    else:
        result = _long_power(h, size, y)
    return _specials(h, result, x, y)


def _long_power(h: Maths, x: Any, y: Any) -> Any:
    """x^y in float64, for x >= 0."""
    high, low = log_pair(h, x, TABLES[float64])
    if not h.fused:  # halving a larger y overflows; with these, x^y is 0, 1 or infinite just as well
        y = at_most(h, at_least(h, y, -(2.0**900)), 2.0**900)
    total, rest = exact_product(h, y, _log_limits(h, high, x))
    rest = h.add(rest, h.mul(y, low))
    # Where the product is infinite or NaN, or y so large that it has no exact low part, that part is no number.
    inside = h.lt(h.abs(total), h.constant(1e3, float64))
    return exp_of_sum(h, total, h.select(inside, rest, h.constant(0.0, float64)))


def _log_limits(h: Maths, log: Any, x: Any) -> Any:
    """`log`, but -inf where x = 0, and x itself where it is inf or NaN."""
    log = h.select(h.eq(x, h.constant(0.0, x.dtype)), h.constant(-math.inf, x.dtype), log)
    return h.select(h.lt(x, h.constant(math.inf, x.dtype)), log, x)


def log_pair(h: Maths, x: Any, table: Table) -> Pair:
    """log(x) as a pair with a relative error of 2^-64, for positive finite float64 x."""
    e, f = exponent_and_fraction(h, x, table, ROOT_OF_HALF)
    two = h.constant(2.0, x.dtype)
    below = h.add(two, f)
    lost = h.sub(f, h.sub(below, two))
    inverse = h.div(h.constant(1.0, x.dtype), below)
    s = h.mul(f, inverse)
    s_low = h.mul(h.sub(minus_product(h, f, s, below), h.mul(s, lost)), inverse)
    square, square_low = exact_product(h, s, s)
    square_low = h.fma(h.add(s, s), s_low, square_low)
    # 2 atanh(s) = 2 s + s z (2/3 + z Q(z)) with z = s^2
    series = h.fma(square, polynomial(h, square, POLYNOMIALS["atanh"][x.dtype]), h.constant(TWO_THIRDS[1], x.dtype))
    factor = ordered_sum(h, h.constant(TWO_THIRDS[0], x.dtype), series)
    term, term_low = pair_product(h, pair_product(h, (square, square_low), factor), (s, s_low))
    first, first_lost = ordered_sum(h, h.mul(e, h.constant(table.ln2_high, x.dtype)), h.add(s, s))
    second, second_lost = ordered_sum(h, first, term)
    rest = h.add(h.add(first_lost, second_lost), h.add(term_low, h.add(s_low, s_low)))
    return ordered_sum(h, second, h.fma(e, h.constant(table.ln2_low, x.dtype), rest))


def _specials(h: Maths, power: Any, x: Any, y: Any) -> Any:
    """The cases of C's pow that the formula for |x| leaves out, the strongest last."""
    zero, one, half = (h.constant(c, x.dtype) for c in (0.0, 1.0, 0.5))
    infinity = h.constant(math.inf, x.dtype)
    size, whole = h.abs(x), h.eq(h.floor(y), y)
    halved = h.mul(y, half)
    odd = h.and_(whole, h.ne(h.floor(halved), halved))
    power = h.select(h.and_(h.eq(size, one), h.eq(h.abs(y), infinity)), one, power)  # (-1) ** inf
    power = h.select(h.and_(odd, h.lt(h.copysign(one, x), zero)), h.neg(power), power)
    root_of_negative = h.and_(h.and_(h.lt(x, zero), h.lt(size, infinity)), h.not_(whole))
    power = h.select(h.and_(root_of_negative, h.eq(y, y)), h.constant(math.nan, x.dtype), power)
    return h.select(h.or_(h.eq(y, zero), h.eq(x, one)), one, power)  # also of NaN
