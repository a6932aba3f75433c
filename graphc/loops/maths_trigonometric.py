"""Vector maths: sin, cos and tan, right for every finite argument.

x = n pi/2 + r with abs(r) <= pi/4, and n modulo 4 says which of sin(r) and cos(r) it is and with which sign. Up to 2^20
pi/2, n pi/2 is subtracted in parts with so few bits that their products with n are exact. Larger arguments are
rare, so they stand behind a branch: there the 192 bits of 2/pi that matter for the exponent of x come from a table and
are multiplied by x in integers, so that what is a multiple of 4 just falls away. float32 is reduced in float64.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from graphc.loops.maths_parts import (
    Maths,
    exact_product,
    exact_sum,
    horner,
    minus_product,
    nearest_exponent,
    ordered_sum,
    unless_tiny,
)
from graphc.loops.maths_polynomials import POLYNOMIALS
from graphc.loops.maths_tables import TABLES
from graphc.types import DType, float32, float64, int64

Pair = tuple[Any, Any]
Triple = tuple[Any, Any, Any]
TWO_OVER_PI = 2.0 / math.pi
HALF_PI = (1.5707963267948966, 6.123233995736766e-17)
# pi/2 in parts of 33 bits, the last one of 53
HALF_PI_PARTS = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21, 8.4784276603689e-32)
HALF_PI_REST = 6.077100506506192e-11  # behind the first part
LARGE = 2.0**20  # from here on by the table
LOW = 2**32 - 1  # the lower half of an int64
BITS_OF_TWO_OVER_PI = (  # 1184 of them, in hexadecimal
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e006492eea09d1921cfe1d"
    "eb1cb129a73ee88235f52ebb4484e99c7026b45f7e413991d639835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b"
    "5a0a6d1f6d367ecf27cb09b74f463f669e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046"
)
LEADING = 64  # zeros in front, for arguments of which all bits count
_WORDS = [0] * (LEADING // 32) + [int(BITS_OF_TWO_OVER_PI[i : i + 8], 16) for i in range(0, 296, 8)]
WINDOWS = tuple(high << 32 | low for high, low in pairwise(_WORDS))  # bits 32 i to 32 i + 63


def sin(h: Maths, x: Any) -> Any:
    """The sine: NaN for infinities, x for tiny x."""
    return unless_tiny(h, _sine(h, x, 0), x, TABLES[x.dtype])


def cos(h: Maths, x: Any) -> Any:
    """The cosine: NaN for infinities."""
    return _sine(h, x, 1)


def tan(h: Maths, x: Any) -> Any:
    """The tangent: NaN for infinities, x for tiny x. float32 is divided in float64; float64 as pairs."""
    quadrant, r, low = reduced(h, x) if x.dtype == float64 else _reduced_in_float64(h, x)
    sine, cosine = _sine_near_0(h, r, low, x.dtype), _cosine_near_0(h, r, low, x.dtype)
    if x.dtype == float32:
        sine, cosine = (h.add(*sine), None), (h.add(*cosine), None)
    odd = h.ne(h.and_(quadrant, h.constant(1, int64)), h.constant(0, int64))
    above, below = h.select(odd, h.neg(cosine[0]), sine[0]), h.select(odd, sine[0], cosine[0])
    if x.dtype == float32:
        result = h.cast(h.div(above, below), float32)
    else:
        above_low, below_low = h.select(odd, h.neg(cosine[1]), sine[1]), h.select(odd, sine[1], cosine[1])
        inverse = h.div(h.constant(1.0, float64), h.add(below, below_low))
        result = h.mul(h.add(above, above_low), inverse)
        missing = h.sub(minus_product(h, above, result, below), h.sub(h.mul(result, below_low), above_low))
        result = h.fma(missing, inverse, result)
    return unless_tiny(h, _nan_of_infinities(h, result, x), x, TABLES[x.dtype])


def _sine(h: Maths, x: Any, quarters: int) -> Any:
    """sin(x + quarters * pi/2)."""
    table = TABLES[x.dtype]
    quadrant, r, low = reduced(h, x) if x.dtype == float64 else _reduced_to_float32(h, x)
    quadrant = h.cast(h.add(quadrant, h.constant(quarters, int64)), table.integer)
    one, two = h.constant(1, table.integer), h.constant(2, table.integer)
    odd = h.ne(h.and_(quadrant, one), h.constant(0, table.integer))
    size = h.select(odd, h.add(*_cosine_near_0(h, r, low, x.dtype)), h.add(*_sine_near_0(h, r, low, x.dtype)))
    sign = h.shl(h.and_(quadrant, two), h.constant(8 * x.dtype.itemsize - 2, table.integer))
    result = h.bitcast(h.xor(h.bitcast(size, table.integer), sign), x.dtype)
    return _nan_of_infinities(h, result, x)


def _nan_of_infinities(h: Maths, result: Any, x: Any) -> Any:
    return h.select(h.lt(h.abs(x), h.constant(math.inf, x.dtype)), result, h.sub(x, x))


def _sine_near_0(h: Maths, r: Any, low: Any, precision: DType) -> Pair:
    """sin(r + low) for abs(r) <= pi/4, to the precision of a dtype, as a large and a small part."""
    square = h.mul(r, r)
    cube = h.mul(r, square)
    series = horner(h, square, POLYNOMIALS["sin"][precision])
    if low is None:
        return r, h.mul(cube, series)
    return r, h.fma(cube, series, h.fma(h.mul(square, low), h.constant(-0.5, r.dtype), low))


def _cosine_near_0(h: Maths, r: Any, low: Any, precision: DType) -> Pair:
    """cos(r + low) likewise: 1 - r^2/2, then the rest and what rounding that lost."""
    square = h.mul(r, r)
    one, half = h.constant(1.0, r.dtype), h.mul(square, h.constant(0.5, r.dtype))
    high = h.sub(one, half)
    lost = h.sub(h.sub(one, high), half)
    if low is not None:
        lost = h.fma(h.neg(r), low, lost)
    return high, h.fma(h.mul(square, square), horner(h, square, POLYNOMIALS["cos"][precision]), lost)


def _reduced_in_float64(h: Maths, x: Any) -> Triple:
    """n and r for float32, in float64, which is exact enough for no low part."""
    wide = h.cast(x, float64)
    bits, n = nearest_exponent(h, wide, TWO_OVER_PI, TABLES[float64], bias=0)
    r = h.fma(n, h.constant(-HALF_PI_PARTS[0], float64), wide)  # exact
    r = h.fma(n, h.constant(-HALF_PI_REST, float64), r)
    large = h.ge(h.abs(x), h.constant(LARGE, float32))
    bits, r = h.rarely(large, (bits, r), lambda: _reduced_by_table(h, wide)[:2])
    return bits, r, None


def _reduced_to_float32(h: Maths, x: Any) -> Triple:
    """n, and r as two float32."""
    bits, r, _ = _reduced_in_float64(h, x)
    high = h.cast(r, float32)
    return bits, high, h.cast(h.sub(r, h.cast(high, float64)), float32)


def reduced(h: Maths, x: Any) -> Triple:
    """(n, r, low) with x = n pi/2 + r + low, for float64: n as an int64 of which the last two bits count."""
    bits, n = nearest_exponent(h, x, TWO_OVER_PI, TABLES[float64], bias=0)
    first, second, third, fourth = (h.mul(n, h.constant(part, float64)) for part in HALF_PI_PARTS)
    r, low = exact_sum(h, h.sub(x, first), h.neg(second))
    r, lost = exact_sum(h, r, h.neg(third))
    r, low = ordered_sum(h, r, h.sub(h.add(low, lost), fourth))
    large = h.ge(h.abs(x), h.constant(LARGE, float64))
    bits, r, low = h.rarely(large, (bits, r, low), lambda: _reduced_by_table(h, x))
    return bits, r, low


def _reduced_by_table(h: Maths, x: Any) -> Triple:
    """What `reduced` gives, for abs(x) from 2^-10 up; anything for infinities and NaN."""

    def number(value: int) -> Any:
        return h.constant(value, int64)

    bits = h.bitcast(h.abs(x), int64)
    exponent = h.lshr(bits, number(52))
    exponent = h.select(h.lt(exponent, number(1013)), number(1013), exponent)
    mantissa = h.or_(h.and_(bits, number(2**52 - 1)), number(2**52))
    top, bottom = h.lshr(mantissa, number(32)), h.and_(mantissa, number(LOW))
    # x = mantissa * 2^(exponent - 1075): the window begins at the bit of 2/pi that the mantissa turns into 2s.
    first = h.sub(exponent, number(1077 - LEADING))
    word, shift = h.lshr(first, number(5)), h.and_(first, number(31))
    window = [
        h.lshr(h.shl(h.table("two_over_pi", WINDOWS, h.add(word, number(k))), shift), number(32)) for k in range(6)
    ]
    # mantissa * window in columns of 32 bits, from the last: what is carried out of the first is a multiple of 4.
    carry = h.lshr(h.mul(bottom, window[5]), number(32))
    columns: list[Any] = []
    for k in range(4, -1, -1):
        low = h.add(h.mul(bottom, window[k]), carry)
        both = h.add(h.mul(top, window[k + 1]), h.and_(low, number(LOW)))
        columns.insert(0, h.and_(both, number(LOW)))
        carry = h.add(h.lshr(low, number(32)), h.lshr(both, number(32)))
    fraction = h.or_(h.shl(columns[0], number(32)), columns[1])  # 2 bits before the point, 62 behind it
    n = h.lshr(h.add(fraction, number(2**61)), number(62))
    fraction = h.sub(fraction, h.shl(n, number(62)))
    parts = (h.ashr(fraction, number(32)), h.and_(fraction, number(LOW)), columns[2], columns[3])
    scaled = [h.mul(h.cast(p, float64), h.constant(2.0 ** (-30 - 32 * k), float64)) for k, p in enumerate(parts)]
    high, low = ordered_sum(h, scaled[0], scaled[1])
    high, low = ordered_sum(h, high, h.add(h.add(low, scaled[2]), scaled[3]))
    r, rest = exact_product(h, high, h.constant(HALF_PI[0], float64))
    rest = h.add(rest, h.fma(low, h.constant(HALF_PI[0], float64), h.mul(high, h.constant(HALF_PI[1], float64))))
    negative = h.lt(x, h.constant(0.0, float64))
    return tuple(h.select(negative, h.neg(v), v) for v in (n, r, rest))
