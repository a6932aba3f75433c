"""What the vector maths is put together from: polynomials, powers of two, clamps, and sums of two floats.

`MathsHandler` is the protocol that the functions are written against. A *pair* (high, low) is the unevaluated sum of
two floats of which the second is less than half a unit of the first: about twice the bits. The steps on pairs are
exact with and without a fused multiply-add; they ask `h.fused` for the shorter way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from graphc.loops.maths_tables import Coefficients, Table
from graphc.ops.lowering import Handler
from graphc.types import DType, float32, float64, int64

T = TypeVar("T")
LONG = 12  # coefficients from which a polynomial is worth two chains
SPLIT = {float32: 2.0**12 + 1, float64: 2.0**27 + 1}  # x * SPLIT has the upper half of the bits of x on top


class MathsHandler(Handler[T], Protocol[T]):
    """The handler of the functions: what a body may compute, and four things that only they need."""

    @property
    def fused(self) -> bool:
        """Whether `fma` rounds once."""
        ...

    def rarely(self, condition: T, usual: Sequence[T], rare: Callable[[], Sequence[T]]) -> tuple[T, ...]:
        """`select(condition, rare, usual)` of each value. `rare` is computed only if the condition holds somewhere."""
        ...

    def scale(self, x: T, n: T, otherwise: Callable[[], T]) -> T:
        """x * 2^n for whole n, rounded once; what `otherwise` computes, where that is no instruction."""
        ...

    def table(self, name: str, values: Sequence[int], index: T) -> T:
        """`values[index]` of int64s; the index must be in range. `name` stands for the values."""
        ...


Maths = MathsHandler[Any]


def in_float64(h: Maths, function: Callable[[Maths, Any, DType], Any], x: Any) -> Any:
    """`function(h, x, precision)` of a float64, as exact as the dtype of `x` asks for, and rounded to that."""
    if x.dtype == float64:
        return function(h, x, float64)
    return h.cast(function(h, h.cast(x, float64), float32), float32)


# -- polynomials


def polynomial(h: Maths, x: Any, coefficients: Coefficients) -> Any:
    """The polynomial with these coefficients, lowest power first.

    A long one is split behind its first two terms into even and odd powers, which halves the chain of dependent
    instructions; those two terms alone decide how it rounds.
    """
    if len(coefficients) < LONG:
        return horner(h, x, coefficients)
    square = h.mul(x, x)
    even, odd = horner(h, square, coefficients[2::2]), horner(h, square, coefficients[3::2])
    return horner(h, x, coefficients[:2], h.fma(odd, x, even))


def horner(h: Maths, x: Any, coefficients: Coefficients, result: Any = None) -> Any:
    """The polynomial by Horner's rule, with `result` for the terms behind the last coefficient."""
    for coefficient in reversed(coefficients):
        value = h.constant(coefficient, x.dtype)
        result = value if result is None else h.fma(result, x, value)
    return result


def odd_polynomial(h: Maths, x: Any, coefficients: Coefficients) -> Any:
    """x + x^3 P(x^2)."""
    square = h.mul(x, x)
    return h.fma(h.mul(x, square), polynomial(h, square, coefficients), x)


# -- clamps and choices


def at_least(h: Maths, x: Any, low: float) -> Any:
    """The larger of x and `low`; NaN stays."""
    bound = h.constant(low, x.dtype)
    return h.select(h.lt(x, bound), bound, x)


def at_most(h: Maths, x: Any, high: float) -> Any:
    """The smaller of x and `high`; NaN stays."""
    bound = h.constant(high, x.dtype)
    return h.select(h.gt(x, bound), bound, x)


def unless_tiny(h: Maths, result: Any, x: Any, table: Table) -> Any:
    """`result`, but x itself where x is tiny: keeps -0 and the bits of denormals."""
    return h.select(h.lt(h.abs(x), h.constant(table.tiny, x.dtype)), x, result)


# -- powers of two


def nearest_exponent(h: Maths, x: Any, factor: float, table: Table, bias: int) -> tuple[Any, Any]:
    """n = rint(x * factor): an integer whose low bits are those of n + bias, and n as a float."""
    magic = h.constant(table.magic + bias, x.dtype)
    shifted = h.fma(x, h.constant(factor, x.dtype), magic)
    return h.bitcast(shifted, table.integer), h.sub(shifted, magic)


def minus_multiple(h: Maths, x: Any, n: Any, high: float, low: float) -> tuple[Any, Any, Any]:
    """r = x - n (high + low), rounded, and the two parts it is the sum of. The first, x - n high, is exact."""
    exact = h.fma(n, h.constant(-high, x.dtype), x)
    rest = h.mul(n, h.constant(-low, x.dtype))
    return h.add(exact, rest), exact, rest


def power_of_two(h: Maths, biased: Any, x: Any, table: Table) -> Any:
    """The float of the dtype of x whose exponent field is the low bits of `biased`; higher bits fall away."""
    return h.bitcast(h.shl(biased, h.constant(table.bits, table.integer)), x.dtype)


def exponent(h: Maths, x: Any, table: Table, smallest: int) -> tuple[Any, Any]:
    """e with x = 2^e m, where `smallest` is the bits of the least m: as a float, and shifted to the exponent field."""
    places = h.constant(table.bits, table.integer)
    found = h.ashr(h.sub(h.bitcast(x, table.integer), h.constant(smallest, table.integer)), places)
    return h.cast(found, x.dtype), h.shl(found, places)


def exponent_and_fraction(h: Maths, x: Any, table: Table, smallest: int) -> tuple[Any, Any]:
    """(e, f) with x = 2^e (1 + f), exact, for every positive finite x; `smallest` is the bits of the least 1 + f."""
    denormal = h.lt(x, h.constant(2.0 ** (1 - table.bias), x.dtype))
    scaled = h.select(denormal, h.mul(x, h.constant(2.0**table.bits, x.dtype)), x)
    e, shifted = exponent(h, scaled, table, smallest)
    f = h.sub(h.bitcast(h.sub(h.bitcast(scaled, table.integer), shifted), x.dtype), h.constant(1.0, x.dtype))
    return h.select(denormal, h.sub(e, h.constant(float(table.bits), x.dtype)), e), f


# -- pairs


def ordered_sum(h: Maths, a: Any, b: Any) -> tuple[Any, Any]:
    """a + b as a pair, where a is 0 or at least as large as b."""
    total = h.add(a, b)
    return total, h.sub(b, h.sub(total, a))


def exact_sum(h: Maths, a: Any, b: Any) -> tuple[Any, Any]:
    """a + b as a pair."""
    total = h.add(a, b)
    of_b = h.sub(total, a)
    return total, h.add(h.sub(a, h.sub(total, of_b)), h.sub(b, of_b))


def exact_product(h: Maths, a: Any, b: Any) -> tuple[Any, Any]:
    """a * b as a pair, where nothing overflows or underflows."""
    product = h.mul(a, b)
    if h.fused:
        return product, h.fma(a, b, h.neg(product))
    (a_high, a_low), (b_high, b_low) = _halves(h, a), _halves(h, b)
    rest = h.add(h.sub(h.mul(a_high, b_high), product), h.mul(a_high, b_low))
    return product, h.add(h.add(rest, h.mul(a_low, b_high)), h.mul(a_low, b_low))


def pair_product(h: Maths, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    """The product of two pairs; the last bits of the low part are lost."""
    high, low = exact_product(h, a[0], b[0])
    return high, h.add(low, h.fma(a[0], b[1], h.mul(a[1], b[0])))


def minus_product(h: Maths, c: Any, a: Any, b: Any) -> Any:
    """c - a * b, where the product is near c: exact but for the last rounding."""
    if h.fused:
        return h.fma(h.neg(a), b, c)
    high, low = exact_product(h, a, b)
    return h.sub(h.sub(c, high), low)


def _halves(h: Maths, x: Any) -> tuple[Any, Any]:
    """x as the sum of two floats with half the bits each."""
    wide = h.mul(x, h.constant(SPLIT[x.dtype], x.dtype))
    high = h.sub(wide, h.sub(wide, x))
    return high, h.sub(x, high)


def left_over(h: Maths, rest: Any, quotient: Any, by: Any) -> Any:
    """rest - quotient * by of float64s, exact for the quotient trunc(rest / by), at most 2^52, of positive numbers.

    Without a fused multiply-add, the product is a pair. Its halves are cut off as bits: nothing overflows however large
    `by` is, no denormal is lost, and as a whole number below 2^52 has a last bit of 0, no product has over 53 bits. The
    product may round to 2^1024, which is beyond the largest float, but only from less than one unit above that float.
    """
    if h.fused:
        return h.fma(h.neg(quotient), by, rest)
    (a_high, a_low), (b_high, b_low) = _cut(h, quotient), _cut(h, by)
    product = h.minimum(h.mul(quotient, by), h.constant(float64.limits.max, float64))
    error = h.add(h.sub(h.mul(a_high, b_high), product), h.mul(a_high, b_low))
    error = h.add(h.add(error, h.mul(a_low, b_high)), h.mul(a_low, b_low))
    return h.sub(h.sub(rest, product), error)


def _cut(h: Maths, x: Any) -> tuple[Any, Any]:
    """x >= 0 in float64 as its upper 26 bits and the 27 bits below, which have its sign."""
    high = h.bitcast(h.and_(h.bitcast(x, int64), h.constant(-(1 << 27), int64)), float64)
    return high, h.sub(x, high)
