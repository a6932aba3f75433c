"""Vector maths: exponentials, logarithms, tanh and sigmoid.

The input is split into an integer power of two and a short interval, where a polynomial stands for the function. Four
habits keep the special values right:

- An integer is made by adding 1.5 * 2^bits, never by a conversion, which is undefined on NaN.
- Clamps are `select(x < low, low, x)`: false on NaN, so NaN stays.
- 2^n is two factors of about 2^(n/2), or one instruction: results lose bits only once when they are denormal.
- -0 is kept by a last copysign, or by the select that returns tiny inputs as they are.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.loops.maths_parts import (
    Maths,
    at_least,
    at_most,
    exact_product,
    exponent,
    exponent_and_fraction,
    horner,
    minus_multiple,
    minus_product,
    nearest_exponent,
    ordered_sum,
    polynomial,
    power_of_two,
    unless_tiny,
)
from graphc.loops.maths_polynomials import POLYNOMIALS
from graphc.loops.maths_tables import TABLES, Table
from graphc.types import float32, float64

EXP_SPAN = (-110.0, 90.0)  # float32 results are 0 below and infinite above
LOG2_E = (1.4426950408889634, 2.0355273740931033e-17)
LOG10_E = (0.4342944819032518, 1.098319650216765e-17)
LOG10_2 = (0.3010299956640665, -8.532344317057107e-14)  # the first has so few bits that e times it is exact


def exp(h: Maths, x: Any) -> Any:
    """e to the power x: 0 at -inf, inf at inf and above the largest finite result, denormal results rounded once."""
    return exp_of_sum(h, x, None)


def exp_of_sum(h: Maths, x: Any, more: Any) -> Any:
    """exp(x + more) for a small second part, or None: bits that x has no room for."""
    table = TABLES[x.dtype]
    low, high = table.exp_range
    # What is 0 is not computed: products that underflow to 0 take 100 times as long (a mask leaves many).
    zero, some = h.constant(0.0, x.dtype), h.not_(h.lt(x, h.constant(low, x.dtype)))
    x = h.select(some, at_most(h, x, high), zero)
    # The bias is added twice, so that both halves of the biased exponent are bits of a power of two.
    bits, n = nearest_exponent(h, x, table.log2e, table, bias=2 * table.bias)
    r, exact, rest = minus_multiple(h, x, n, table.ln2_high, table.ln2_low)
    if more is not None:
        r = h.add(exact, h.add(rest, more))
    result = _scaled(h, polynomial(h, r, (1.0, 1.0, *table.exp)), bits, n, table)
    return h.select(some, result, zero)


def _scaled(h: Maths, power: Any, bits: Any, n: Any, table: Table) -> Any:
    """power * 2^n, where `bits` are those of n + twice the bias."""

    def in_halves() -> Any:
        half = h.lshr(bits, h.constant(1, table.integer))
        first = h.mul(power, power_of_two(h, half, power, table))
        return h.mul(first, power_of_two(h, h.sub(bits, half), power, table))

    return h.scale(power, n, in_halves)


def exp2(h: Maths, x: Any) -> Any:
    """2 to the power x: exact for whole x."""
    table = TABLES[x.dtype]
    x = at_most(h, at_least(h, x, -table.bias - table.bits - 3.0), table.bias + 2.0)
    bits, n = nearest_exponent(h, x, 1.0, table, bias=2 * table.bias)
    return _scaled(h, polynomial(h, h.sub(x, n), (1.0, *POLYNOMIALS["exp2"][x.dtype])), bits, n, table)


def exp_to_float32(h: Maths, x: Any) -> Any:
    """exp(x) in float64 with the precision of float32 (2^-31), inside of the range of float32 and a little beyond."""
    table = TABLES[x.dtype]
    x = at_most(h, at_least(h, x, EXP_SPAN[0]), EXP_SPAN[1])
    bits, n = nearest_exponent(h, x, table.log2e, table, bias=table.bias)
    r, _, _ = minus_multiple(h, x, n, table.ln2_high, table.ln2_low)
    return h.mul(horner(h, r, (1.0, 1.0, *TABLES[float32].expm1)), power_of_two(h, bits, x, table))


def sigmoid(h: Maths, x: Any) -> Any:
    """1 / (1 + exp(-x)) as 2^n / (2^n + exp(-r)) for x = n ln 2 + r, the inverse corrected by what the sum lost."""
    table, one = TABLES[x.dtype], h.constant(1.0, x.dtype)
    low = table.exp_range[0]
    some = h.not_(h.lt(x, h.constant(low, x.dtype)))  # what is 0 is not computed, as in exp
    clamped = at_most(h, h.select(some, x, h.constant(0.0, x.dtype)), 2.0 * table.bits)
    bits, n = nearest_exponent(h, clamped, table.log2e, table, bias=2 * table.bias)
    r, _, _ = minus_multiple(h, clamped, n, table.ln2_high, table.ln2_low)
    signs = tuple(-c if power % 2 else c for power, c in enumerate(table.expm1))
    growth = h.fma(h.mul(r, r), polynomial(h, r, signs), h.neg(r))  # exp(-r) - 1
    near = at_least(h, n, -table.bits - 7.0)  # below, the sum is exp(-r), and 2^n may have no bits of its own
    s = power_of_two(h, nearest_exponent(h, near, 1.0, table, bias=table.bias)[0], x, table)
    first, lost = ordered_sum(h, one, s)  # of s above 2^24 (2^53), the 1 may be lost: less than a bit of the result
    total, more = ordered_sum(h, first, growth)
    inverse = h.div(one, total)
    missing = h.fma(h.neg(inverse), h.add(lost, more), minus_product(h, one, inverse, total))
    return h.select(some, _scaled(h, h.fma(missing, inverse, inverse), bits, n, table), h.constant(0.0, x.dtype))


def expm1(h: Maths, x: Any) -> Any:
    """exp(x) - 1 without cancellation near 0; -1 at -inf, -0 at -0."""
    table = TABLES[x.dtype]
    clamped = at_most(h, at_least(h, x, table.expm1_low), table.exp_range[1])
    # Half the result, since 2^128 (2^1024) has no bits of its own: s = 2^(n-1).
    bits, n = nearest_exponent(h, clamped, table.log2e, table, bias=table.bias - 1)
    s = power_of_two(h, bits, x, table)
    r, exact, low = minus_multiple(h, clamped, n, table.ln2_high, table.ln2_low)
    # s (1 + r + r^2 Q) - 1/2 = (s - 1/2) + s (exact + low + r^2 Q), with what the first two additions lost.
    half = h.constant(0.5, x.dtype)
    first = h.sub(s, half)
    total = h.fma(s, exact, first)
    lost = h.fma(s, exact, h.sub(first, total))
    rest = h.fma(h.mul(r, r), polynomial(h, r, table.expm1), low)
    result = h.add(total, h.add(h.fma(s, rest, lost), h.sub(h.sub(s, first), half)))
    return unless_tiny(h, h.add(result, result), x, table)


def log(h: Maths, x: Any) -> Any:
    """The natural logarithm: -inf at 0 and -0, NaN below, inf at inf; denormal inputs are as exact as others."""
    table = TABLES[x.dtype]
    e, f = exponent_and_fraction(h, x, table, table.log_split)
    return log_specials(h, log_of_parts(h, e, f, table), x, 0.0)


def log_to_float32(h: Maths, x: Any) -> Any:
    """log(x) in float64 with the precision of float32 (2^-35), for positive normal x."""
    table = TABLES[x.dtype]
    e, f = _normal_exponent_and_fraction(h, x, table)
    log = h.fma(h.mul(f, f), polynomial(h, f, POLYNOMIALS["log"][float32]), f)
    return h.fma(e, h.constant(math.log(2), x.dtype), log)


def _normal_exponent_and_fraction(h: Maths, x: Any, table: Table) -> tuple[Any, Any]:
    e, shifted = exponent(h, x, table, table.log_split)
    mantissa = h.bitcast(h.sub(h.bitcast(x, table.integer), shifted), x.dtype)
    return e, h.sub(mantissa, h.constant(1.0, x.dtype))


def log2(h: Maths, x: Any) -> Any:
    """The logarithm to the base 2: exact for powers of two; the special cases of `log`."""
    return _log_to_base(h, x, (1.0, 0.0), LOG2_E)


def log10(h: Maths, x: Any) -> Any:
    """The logarithm to the base 10; the special cases of `log`."""
    return _log_to_base(h, x, LOG10_2, LOG10_E)


def _log_to_base(h: Maths, x: Any, of_two: tuple[float, float], of_e: tuple[float, float]) -> Any:
    """e log(2) + f log(e) + the rest, with the logarithms of 2 and e to the base. float32 is computed in float64."""
    table = TABLES[float64]
    if x.dtype == float32:
        e, f = _normal_exponent_and_fraction(h, h.cast(x, float64), table)
        log = h.fma(h.mul(f, f), polynomial(h, f, POLYNOMIALS["log"][float32]), f)
        log = h.fma(log, h.constant(of_e[0], float64), h.mul(e, h.constant(sum(of_two), float64)))
        return log_specials(h, h.cast(log, float32), x, 0.0)
    e, f = exponent_and_fraction(h, x, table, table.log_split)
    linear, linear_low = exact_product(h, f, h.constant(of_e[0], float64))
    rest = h.mul(h.mul(h.mul(f, f), polynomial(h, f, table.log)), h.constant(of_e[0], float64))
    rest = h.fma(f, h.constant(of_e[1], float64), h.fma(e, h.constant(of_two[1], float64), rest))
    high, lost = ordered_sum(h, h.mul(e, h.constant(of_two[0], float64)), linear)
    return log_specials(h, h.add(high, h.add(lost, h.add(linear_low, rest))), x, 0.0)


def log1p(h: Maths, x: Any) -> Any:
    """log(1 + x) without rounding 1 + x: -inf at -1, NaN below, -0 at -0."""
    table = TABLES[x.dtype]
    one = h.constant(1.0, x.dtype)
    e, shifted = exponent(h, h.add(x, one), table, table.log_split)
    # f = (1 + x) 2^-e - 1. The factors are 4 * 2^-e and x / 4, since 2^-e alone may be denormal.
    quarter = h.constant(0.25, x.dtype)
    four = h.constant((table.bias + 2) << table.bits, table.integer)
    scale = h.bitcast(h.sub(four, shifted), x.dtype)
    f = h.fma(h.mul(x, quarter), scale, h.fma(scale, quarter, h.constant(-1.0, x.dtype)))
    result = log_specials(h, log_of_parts(h, e, f, table), x, -1.0)
    return unless_tiny(h, result, x, table)


def tanh(h: Maths, x: Any) -> Any:
    """The hyperbolic tangent: odd to the bit, 1 and -1 at the infinities."""
    table = TABLES[x.dtype]
    split, high = table.tanh_range
    one, two = h.constant(1.0, x.dtype), h.constant(2.0, x.dtype)
    size = h.abs(x)
    # Far from 0: 1 - 2 / (exp(2 size) + 1), reduced as size = n ln(2)/2 + r, so exp(2 size) = 2^n exp(2 r).
    clamped = at_most(h, size, high)
    bits, n = nearest_exponent(h, clamped, 2 * table.log2e, table, bias=table.bias)
    r, _, _ = minus_multiple(h, clamped, n, table.ln2_high / 2, table.ln2_low / 2)
    s = power_of_two(h, bits, x, table)
    doubled = tuple(math.ldexp(c, power) for power, c in enumerate((1.0, *table.exp), start=1))
    growth = h.mul(r, polynomial(h, r, doubled))  # exp(2 r) - 1
    far = h.sub(one, h.div(two, h.fma(s, growth, h.add(s, one))))
    square = h.mul(size, size)
    near = h.fma(h.mul(size, square), polynomial(h, square, table.tanh), size)
    return h.copysign(h.select(h.lt(size, h.constant(split, x.dtype)), near, far), x)


def log_of_parts(h: Maths, e: Any, f: Any, table: Table) -> Any:
    """e ln(2) + log1p(f) for -0.25 <= f < 0.5."""
    rest = h.fma(h.mul(f, f), polynomial(h, f, table.log), h.mul(e, h.constant(table.ln2_low, f.dtype)))
    return h.fma(e, h.constant(table.ln2_high, f.dtype), h.add(f, rest))


def log_specials(h: Maths, result: Any, x: Any, pole: float) -> Any:
    """`result`, but -inf where x == pole, NaN below it, and x itself where it is inf or NaN."""
    at = h.constant(pole, x.dtype)
    outside = h.select(h.eq(x, at), h.constant(-math.inf, x.dtype), h.constant(math.nan, x.dtype))
    result = h.select(h.lt(x, h.constant(math.inf, x.dtype)), result, x)
    return h.select(h.gt(x, at), result, outside)
