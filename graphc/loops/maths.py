"""Vector maths: exp, expm1, log, log1p and tanh as branch-free code over the `Handler` protocol.

A handler implements `h.exp(x)` as `maths.exp(h, x)`: every step is one call of the handler, so the same text serves
scalars and vectors, and both give the same bits. The input is split into an integer power of two and a short
interval, where a polynomial of `maths_tables` stands for the function. Four habits keep the special values right:

- An integer is made by adding 1.5 * 2^bits, never by a conversion, which is undefined on NaN.
- Clamps are `select(x < low, low, x)`: false on NaN, so NaN stays.
- 2^n is two factors of about 2^(n/2), so that results lose bits only once when they are denormal.
- -0 is kept by a last copysign, or by the select that returns tiny inputs as they are.

To add a function, write it here and its coefficients in `maths_tables`, then `benchmarks/accuracy.py` and
`docs/maths.md` for its error. Errors in ULP for all inputs stand there.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.loops.maths_tables import TABLES, Coefficients, Table
from graphc.ops.lowering import Handler

LONG = 12  # coefficients from which a polynomial is worth two chains


def exp(h: Handler[Any], x: Any) -> Any:
    """e to the power x: 0 at -inf, inf at inf and above the largest finite result, denormal results rounded once."""
    table = TABLES[x.dtype]
    low, high = table.exp_range
    x = _at_most(h, _at_least(h, x, low), high)
    # The bias is added twice, so that both halves of the biased exponent are bits of a power of two.
    bits, n = _nearest_exponent(h, x, table.log2e, table, bias=2 * table.bias)
    r, _, _ = _minus_multiple(h, x, n, table.ln2_high, table.ln2_low)
    power = _polynomial(h, r, (1.0, 1.0, *table.exp))
    half = h.lshr(bits, h.constant(1, table.integer))
    return h.mul(h.mul(power, _power_of_two(h, half, x, table)), _power_of_two(h, h.sub(bits, half), x, table))


def expm1(h: Handler[Any], x: Any) -> Any:
    """exp(x) - 1 without cancellation near 0; -1 at -inf, -0 at -0."""
    table = TABLES[x.dtype]
    clamped = _at_most(h, _at_least(h, x, table.expm1_low), table.exp_range[1])
    # Half the result, since 2^128 (2^1024) has no bits of its own: s = 2^(n-1).
    bits, n = _nearest_exponent(h, clamped, table.log2e, table, bias=table.bias - 1)
    s = _power_of_two(h, bits, x, table)
    r, exact, low = _minus_multiple(h, clamped, n, table.ln2_high, table.ln2_low)
    # s (1 + r + r^2 Q) - 1/2 = (s - 1/2) + s (exact + low + r^2 Q), with what the first two additions lost.
    half = h.constant(0.5, x.dtype)
    first = h.sub(s, half)
    total = h.fma(s, exact, first)
    lost = h.fma(s, exact, h.sub(first, total))
    rest = h.fma(h.mul(r, r), _polynomial(h, r, table.expm1), low)
    result = h.add(total, h.add(h.fma(s, rest, lost), h.sub(h.sub(s, first), half)))
    return _unless_tiny(h, h.add(result, result), x, table)


def log(h: Handler[Any], x: Any) -> Any:
    """The natural logarithm: -inf at 0 and -0, NaN below, inf at inf; denormal inputs are as exact as others."""
    table = TABLES[x.dtype]
    denormal = h.lt(x, h.constant(2.0 ** (1 - table.bias), x.dtype))
    scaled = h.select(denormal, h.mul(x, h.constant(2.0**table.bits, x.dtype)), x)
    e, shifted = _exponent(h, scaled, table)
    f = h.sub(h.bitcast(h.sub(h.bitcast(scaled, table.integer), shifted), x.dtype), h.constant(1.0, x.dtype))
    e = h.select(denormal, h.sub(e, h.constant(float(table.bits), x.dtype)), e)
    return _log_specials(h, _log_of_parts(h, e, f, table), x, 0.0)


def log1p(h: Handler[Any], x: Any) -> Any:
    """log(1 + x) without rounding 1 + x: -inf at -1, NaN below, -0 at -0."""
    table = TABLES[x.dtype]
    one = h.constant(1.0, x.dtype)
    e, shifted = _exponent(h, h.add(x, one), table)
    # f = (1 + x) 2^-e - 1. The factors are 4 * 2^-e and x / 4, since 2^-e alone may be denormal.
    quarter = h.constant(0.25, x.dtype)
    four = h.constant((table.bias + 2) << table.bits, table.integer)
    scale = h.bitcast(h.sub(four, shifted), x.dtype)
    f = h.fma(h.mul(x, quarter), scale, h.fma(scale, quarter, h.constant(-1.0, x.dtype)))
    result = _log_specials(h, _log_of_parts(h, e, f, table), x, -1.0)
    return _unless_tiny(h, result, x, table)


def tanh(h: Handler[Any], x: Any) -> Any:
    """The hyperbolic tangent: odd to the bit, 1 and -1 at the infinities."""
    table = TABLES[x.dtype]
    split, high = table.tanh_range
    one, two = h.constant(1.0, x.dtype), h.constant(2.0, x.dtype)
    size = h.abs(x)
    # Far from 0: 1 - 2 / (exp(2 size) + 1), reduced as size = n ln(2)/2 + r, so exp(2 size) = 2^n exp(2 r).
    clamped = _at_most(h, size, high)
    bits, n = _nearest_exponent(h, clamped, 2 * table.log2e, table, bias=table.bias)
    r, _, _ = _minus_multiple(h, clamped, n, table.ln2_high / 2, table.ln2_low / 2)
    s = _power_of_two(h, bits, x, table)
    doubled = tuple(math.ldexp(c, power) for power, c in enumerate((1.0, *table.exp), start=1))
    growth = h.mul(r, _polynomial(h, r, doubled))  # exp(2 r) - 1
    far = h.sub(one, h.div(two, h.fma(s, growth, h.add(s, one))))
    square = h.mul(size, size)
    near = h.fma(h.mul(size, square), _polynomial(h, square, table.tanh), size)
    return h.copysign(h.select(h.lt(size, h.constant(split, x.dtype)), near, far), x)


def _polynomial(h: Handler[Any], x: Any, coefficients: Coefficients) -> Any:
    """The polynomial with these coefficients, lowest power first.

    A long one is split behind its first two terms into even and odd powers, which halves the chain of dependent
    instructions; those two terms alone decide how it rounds.
    """
    if len(coefficients) < LONG:
        return _horner(h, x, coefficients)
    square = h.mul(x, x)
    even, odd = _horner(h, square, coefficients[2::2]), _horner(h, square, coefficients[3::2])
    return _horner(h, x, coefficients[:2], h.fma(odd, x, even))


def _horner(h: Handler[Any], x: Any, coefficients: Coefficients, result: Any = None) -> Any:
    """The polynomial by Horner's rule, with `result` for the terms behind the last coefficient."""
    for coefficient in reversed(coefficients):
        value = h.constant(coefficient, x.dtype)
        result = value if result is None else h.fma(result, x, value)
    return result


def _at_least(h: Handler[Any], x: Any, low: float) -> Any:
    bound = h.constant(low, x.dtype)
    return h.select(h.lt(x, bound), bound, x)


def _at_most(h: Handler[Any], x: Any, high: float) -> Any:
    bound = h.constant(high, x.dtype)
    return h.select(h.gt(x, bound), bound, x)


def _unless_tiny(h: Handler[Any], result: Any, x: Any, table: Table) -> Any:
    """`result`, but x itself where x is tiny: keeps -0 and the bits of denormals."""
    return h.select(h.lt(h.abs(x), h.constant(table.tiny, x.dtype)), x, result)


def _nearest_exponent(h: Handler[Any], x: Any, factor: float, table: Table, bias: int) -> tuple[Any, Any]:
    """n = rint(x * factor): an integer whose low bits are those of n + bias, and n as a float."""
    magic = h.constant(table.magic + bias, x.dtype)
    shifted = h.fma(x, h.constant(factor, x.dtype), magic)
    return h.bitcast(shifted, table.integer), h.sub(shifted, magic)


def _minus_multiple(h: Handler[Any], x: Any, n: Any, high: float, low: float) -> tuple[Any, Any, Any]:
    """r = x - n (high + low), rounded, and the two parts it is the sum of. The first, x - n high, is exact."""
    exact = h.fma(n, h.constant(-high, x.dtype), x)
    rest = h.mul(n, h.constant(-low, x.dtype))
    return h.add(exact, rest), exact, rest


def _power_of_two(h: Handler[Any], biased: Any, x: Any, table: Table) -> Any:
    """The float whose exponent field is the low bits of `biased`; higher bits fall away."""
    return h.bitcast(h.shl(biased, h.constant(table.bits, table.integer)), x.dtype)


def _exponent(h: Handler[Any], x: Any, table: Table) -> tuple[Any, Any]:
    """e with x = 2^e m, 0.75 <= m < 1.5: as a float, and as an integer shifted to the exponent field."""
    places = h.constant(table.bits, table.integer)
    exponent = h.ashr(h.sub(h.bitcast(x, table.integer), h.constant(table.log_split, table.integer)), places)
    return h.cast(exponent, x.dtype), h.shl(exponent, places)


def _log_of_parts(h: Handler[Any], e: Any, f: Any, table: Table) -> Any:
    """e ln(2) + log1p(f) for -0.25 <= f < 0.5."""
    rest = h.fma(h.mul(f, f), _polynomial(h, f, table.log), h.mul(e, h.constant(table.ln2_low, f.dtype)))
    return h.fma(e, h.constant(table.ln2_high, f.dtype), h.add(f, rest))


def _log_specials(h: Handler[Any], result: Any, x: Any, pole: float) -> Any:
    """`result`, but -inf where x == pole, NaN below it, and x itself where it is inf or NaN."""
    at = h.constant(pole, x.dtype)
    outside = h.select(h.eq(x, at), h.constant(-math.inf, x.dtype), h.constant(math.nan, x.dtype))
    result = h.select(h.lt(x, h.constant(math.inf, x.dtype)), result, x)
    return h.select(h.gt(x, at), result, outside)
