"""Vector maths: asin, acos, atan and atan2.

Angles are a multiple of pi/4 as a pair, plus a polynomial near 0. atan needs one division: y / x, or (y - x) / (y + x)
near 1, or -x / y beyond. asin uses asin(x) = pi/2 - 2 asin(sqrt((1 - x) / 2)) above 1/2. float32 is computed in
float64.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.loops.maths_parts import Maths, minus_product, ordered_sum, polynomial
from graphc.loops.maths_polynomials import POLYNOMIALS
from graphc.types import DType, float64

PI = (3.141592653589793, 1.2246467991473532e-16)
HALF_PI = (PI[0] / 2, PI[1] / 2)
QUARTER_PI = (PI[0] / 4, PI[1] / 4)
THREE_QUARTERS = (2.356194490192345, 9.184850993605148e-17)
NEAR, FAR = math.tan(math.pi / 8), math.tan(3 * math.pi / 8)  # where the quotient of atan changes
HUGE, TINY = 2.0**900, 2.0**-900  # operands of atan2 are scaled beyond


def atan(h: Maths, x: Any) -> Any:
    """The arc tangent: odd to the bit, pi/2 at inf."""
    size = h.cast(h.abs(x), float64)
    return h.copysign(h.cast(_angle(h, size, h.constant(1.0, float64), x.dtype), x.dtype), x)


def atan2(h: Maths, y: Any, x: Any) -> Any:
    """The angle of the point (x, y), with C's special cases: signed zeros and infinities are limits."""
    up, right = h.abs(h.cast(y, float64)), h.abs(h.cast(x, float64))
    zero, one, infinity = (h.constant(c, float64) for c in (0.0, 1.0, math.inf))
    infinite = h.and_(h.eq(up, infinity), h.eq(right, infinity))
    up, right = h.select(infinite, one, up), h.select(infinite, one, right)
    if x.dtype == float64:
        larger = h.select(h.gt(up, right), up, right)
        shrunk = h.select(h.gt(larger, h.constant(HUGE, float64)), h.constant(2.0**-200, float64), one)
        scale = h.select(h.lt(larger, h.constant(TINY, float64)), h.constant(2.0**200, float64), shrunk)
        up, right = h.mul(up, scale), h.mul(right, scale)
    right = h.select(h.and_(h.eq(up, zero), h.eq(right, zero)), one, right)  # 0 / 0
    left = h.lt(h.copysign(one, h.cast(x, float64)), zero)
    return h.copysign(h.cast(_angle(h, up, right, x.dtype, left), x.dtype), y)


def _angle(h: Maths, up: Any, right: Any, precision: DType, left: Any = None) -> Any:
    """atan(up / right) for values that are not negative, not both 0 or infinite; pi minus that where `left` holds."""
    near = h.gt(up, h.mul(right, h.constant(NEAR, float64)))
    far = h.gt(up, h.mul(right, h.constant(FAR, float64)))

    def choose(first: Any, second: Any, third: Any) -> Any:
        return h.select(far, third, h.select(near, second, first))

    def base(part: int) -> Any:
        zero, quarter, half = (h.constant(c, float64) for c in (0.0, QUARTER_PI[part], HALF_PI[part]))
        angle = choose(zero, quarter, half)
        if left is None:
            return angle
        beyond = choose(h.constant(PI[part], float64), h.constant(THREE_QUARTERS[part], float64), half)
        return h.select(left, beyond, angle)

    above, below = choose(up, h.sub(up, right), h.neg(right)), choose(right, h.add(up, right), up)
    t = h.div(above, below)
    if left is not None:
        t = h.select(left, h.neg(t), t)
    square = h.mul(t, t)
    tail = h.fma(h.mul(t, square), polynomial(h, square, POLYNOMIALS["atan"][precision]), base(1))
    return h.add(base(0), h.add(t, tail))


def asin(h: Maths, x: Any) -> Any:
    """The arc sine: odd to the bit, NaN outside of -1..1."""
    size = h.cast(h.abs(x), float64)
    small, main, tail = _arc(h, size, x.dtype)
    high, lost = ordered_sum(h, h.constant(HALF_PI[0], float64), h.neg(main))
    above = h.add(high, h.add(lost, h.sub(h.constant(HALF_PI[1], float64), tail)))
    return h.copysign(h.cast(h.select(small, h.add(main, tail), above), x.dtype), x)


def acos(h: Maths, x: Any) -> Any:
    """The arc cosine: 0 at 1, NaN outside of -1..1."""
    wide = h.cast(x, float64)
    small, main, tail = _arc(h, h.abs(wide), x.dtype)
    negative = h.lt(wide, h.constant(0.0, float64))
    # pi/2 - asin(x) near 0; asin's 2 asin(sqrt((1 - |x|) / 2)) is the result itself for 1, pi minus it for -1.
    plus = h.xor(small, h.not_(negative))
    main, tail = h.select(plus, main, h.neg(main)), h.select(plus, tail, h.neg(tail))

    def base(part: int) -> Any:
        zero, half, whole = (h.constant(c, float64) for c in (0.0, HALF_PI[part], PI[part]))
        return h.select(small, half, h.select(negative, whole, zero))

    high, lost = ordered_sum(h, base(0), main)
    return h.cast(h.add(high, h.add(lost, h.add(tail, base(1)))), x.dtype)


def _arc(h: Maths, size: Any, precision: DType) -> tuple[Any, Any, Any]:
    """Whether size <= 1/2; asin(size) then, else 2 asin(sqrt((1 - size) / 2)), as a large and a small part."""
    half, one = h.constant(0.5, float64), h.constant(1.0, float64)
    small = h.le(size, half)
    square = h.select(small, h.mul(size, size), h.mul(h.sub(one, size), half))
    root = h.sqrt(square)
    tail = h.mul(h.mul(h.select(small, size, root), square), polynomial(h, square, POLYNOMIALS["asin"][precision]))
    if precision == float64:  # what rounding the root lost; the constant is for a root of 0
        twice = h.add(h.add(root, root), h.constant(2.0**-1000, float64))
        lost = h.div(minus_product(h, square, root, root), twice)
        tail = h.add(tail, h.select(small, h.constant(0.0, float64), lost))
    return small, h.select(small, size, h.add(root, root)), h.select(small, tail, h.add(tail, tail))
