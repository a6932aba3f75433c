"""Where the coefficients of the vector maths come from: fits them again and compares them with the tables.

    python benchmarks/fit_maths.py              # some minutes; needs mpmath
    python benchmarks/fit_maths.py log --degree 7

Each polynomial is a least-squares fit on Chebyshev nodes whose weights are moved towards the largest error until it
is nearly minimax (Lawson's iteration). Coefficients are rounded one by one from the lowest power up, and the rest is
fitted again after each, so that later ones make up for what rounding cost. Prints the error relative to the function
as a power of two, before and after rounding; the exit status is 1 if a table holds other numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mpmath as mp  # type: ignore[import-untyped]

from graphc.loops.maths_polynomials import POLYNOMIALS
from graphc.loops.maths_special import ERF_CENTER, ERFC_MIDDLE
from graphc.loops.maths_tables import TABLES, Coefficients
from graphc.types import DType, float32, float64

Number = Any  # an mpmath number
SWEEPS = 6  # of Lawson's iteration


@dataclass(frozen=True)
class Fit:
    """A polynomial near `value` on low..high, where an error of it weighs `weight`. `fixed`: its first coefficients.

    `bits`: of a coefficient, None for those of the dtype. `quick`: fewer nodes and sweeps.
    """

    value: Callable[[Number], Number]
    weight: Callable[[Number], Number]
    low: Number
    high: Number
    fixed: Coefficients = ()
    bits: int | None = None
    quick: bool = False


def exp_rest(r: Number) -> Number:
    """(exp(r) - 1 - r) / r^2."""
    return mp.mpf(1) / 2 + r / 6 if abs(r) < mp.mpf(10) ** -30 else (mp.expm1(r) - r) / r**2


def log_rest(f: Number) -> Number:
    """(log1p(f) - f) / f^2."""
    return mp.mpf(-1) / 2 + f / 3 if abs(f) < mp.mpf(10) ** -30 else (mp.log1p(f) - f) / f**2


def tanh_rest(z: Number) -> Number:
    """(tanh(x) - x) / x^3 for x^2 = z."""
    x = mp.sqrt(z)
    return mp.mpf(-1) / 3 if x < mp.mpf(10) ** -20 else (mp.tanh(x) - x) / x**3


def fits() -> dict[str, Fit]:
    """The fits by their names in `Table`."""
    half = mp.log(2) / 2 * mp.mpf("1.0005")
    exp = Fit(exp_rest, abs, -half, half)
    log = Fit(log_rest, lambda f: f * f / abs(mp.log1p(f)) if f else 0, mp.mpf("-0.25"), mp.mpf("0.5"), (-0.5,))
    tanh = Fit(tanh_rest, lambda z: z * mp.sqrt(z) / mp.tanh(mp.sqrt(z)) if z else 0, mp.mpf(0), mp.mpf("0.954"))
    return {"exp": exp, "expm1": exp, "log": log, "tanh": tanh}


def odd(function: Callable[[Number], Number], cubic: Number, high: Number, bits: int | None = None) -> Fit:
    """(f(x) - x) / x^3 in z = x^2, up to z = high, for an odd function whose third coefficient is `cubic`."""

    def value(z: Number) -> Number:
        x = mp.sqrt(z)
        return cubic if x < mp.mpf(10) ** -25 else (function(x) - x) / x**3

    def weight(z: Number) -> Number:
        x = mp.sqrt(z)
        return z * x / function(x) if z else 0

    return Fit(value, weight, mp.mpf(0), high, (), bits, quick=True)


def even_rest(z: Number) -> Number:
    """(cos(r) - 1 + r^2/2) / r^4 for r^2 = z."""
    return mp.mpf(1) / 24 if z < mp.mpf(10) ** -30 else (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2


def atanh_rest(z: Number) -> Number:
    """(2 atanh(s) / s - 2 - 2/3 s^2) / s^4 for s^2 = z."""
    s = mp.sqrt(z)
    return mp.mpf(2) / 5 if z < mp.mpf(10) ** -20 else (2 * mp.atanh(s) / s - 2 - 2 * z / 3) / z**2


def erf_ratio(z: Number) -> Number:
    """erf(x) / x for x^2 = z."""
    return 2 / mp.sqrt(mp.pi) if z < mp.mpf(10) ** -40 else mp.erf(mp.sqrt(z)) / mp.sqrt(z)


def erfc_fit(dtype: DType) -> Fit:
    """-log(erfc(x)) in x - c, from 1 to where erf is 1."""
    center = mp.mpf(ERF_CENTER[dtype])
    low, high = ("0.0029", "3.003") if dtype == float32 else ("-0.00391", "4.9961")

    def weight(u: Number) -> Number:
        return mp.erfc(u + center) / mp.erf(u + center)

    return Fit(lambda u: -mp.log(mp.erfc(u + center)), weight, mp.mpf(low), mp.mpf(high), quick=True)


def lgamma_ratio(z: Number) -> Number:
    """lgamma(2 + z) / z."""
    return 1 - mp.euler if abs(z) < mp.mpf(10) ** -25 else mp.loggamma(2 + z) / z


def stirling_rest(w: Number) -> Number:
    """x (lgamma(x) - (x - 1/2) log(x) + x - log(2 pi) / 2) for 1 / x^2 = w."""
    if w < mp.mpf(10) ** -20:
        return mp.mpf(1) / 12 - w / 360
    x = 1 / mp.sqrt(w)
    return x * (mp.loggamma(x) - ((x - mp.mpf(1) / 2) * mp.log(x) - x + mp.log(2 * mp.pi) / 2))


def digamma_rest(w: Number) -> Number:
    """x^2 (log(x) - 1 / (2 x) - digamma(x)) for 1 / x^2 = w."""
    if w < mp.mpf(10) ** -20:
        return mp.mpf(1) / 12 - w / 120
    x = 1 / mp.sqrt(w)
    return x * x * (mp.log(x) - 1 / (2 * x) - mp.digamma(x))


def erfcx_slow(t: Number) -> Number:
    """(1 + 2 x) exp(x^2) erfc(x) for (x - 3.75) / (x + 3.75) = t."""
    x = mp.mpf(ERFC_MIDDLE) * (1 + t) / (1 - t)
    return (1 + 2 * x) * mp.erfc(x) * mp.exp(x * x)


def later_fits(dtype: DType) -> dict[str, Fit]:
    """The fits by their names in `POLYNOMIALS`."""
    quarter, half = (mp.pi / 4 * mp.mpf("1.0005")) ** 2, mp.mpf("0.5005")
    log, power_of_two = fits()["log"], lambda r: mp.log(2) if abs(r) < mp.mpf(10) ** -30 else (mp.power(2, r) - 1) / r
    return {
        "sin": odd(mp.sin, mp.mpf(-1) / 6, quarter),
        "cos": Fit(even_rest, lambda z: z * z / mp.cos(mp.sqrt(z)), mp.mpf(0), quarter, quick=True),
        "exp2": Fit(power_of_two, abs, -half, half, quick=True),
        "log": replace(log, bits=53, quick=True),
        "atanh": Fit(atanh_rest, lambda z: z * z / 2, mp.mpf(0), mp.mpf("0.02946"), quick=True),
        "erf": Fit(lambda z: erf_ratio(z) - 1, lambda z: 1 / erf_ratio(z), mp.mpf(0), mp.mpf(1), quick=True),
        "erfc": erfc_fit(dtype),
        "lgamma": Fit(lgamma_ratio, lambda z: 1 / lgamma_ratio(z), mp.mpf("-0.5"), mp.mpf("0.5"), (), 53, quick=True),
        "stirling": Fit(stirling_rest, lambda w: mp.mpf(1) / 68, mp.mpf(0), mp.mpf(1) / 64, (), 53, quick=True),
        "digamma": Fit(digamma_rest, lambda w: mp.mpf(1) / 128, mp.mpf(0), mp.mpf(1) / 64, (), 53, quick=True),
        "erfcx": Fit(erfcx_slow, lambda t: 1 / erfcx_slow(t), mp.mpf(-1), mp.mpf("0.76"), (), 53, quick=True),
        "atan": odd(mp.atan, mp.mpf(-1) / 3, mp.mpf("0.1717"), 53),
        "asin": odd(mp.asin, mp.mpf(1) / 6, mp.mpf("0.2501"), 53),
        "sinh": odd(mp.sinh, mp.mpf(1) / 6, mp.mpf("1.001"), 53),
        "asinh": odd(mp.asinh, mp.mpf(-1) / 6, mp.mpf("0.2501"), 53),
    }


def tables(dtype: DType) -> dict[str, tuple[Fit, Coefficients]]:
    """Each fit with the numbers that the code uses."""
    first = {name: (fit, getattr(TABLES[dtype], name)) for name, fit in fits().items()}
    later = {f"{name}'": (fit, POLYNOMIALS[name].get(dtype, ())) for name, fit in later_fits(dtype).items()}
    return {name: (fit, numbers) for name, (fit, numbers) in (first | later).items() if numbers}


def rounded(value: Number, bits: int) -> Number:
    """`value` with a mantissa of `bits` bits."""
    mantissa, exponent = mp.frexp(value)
    return mp.ldexp(mp.nint(mp.ldexp(mantissa, bits)), exponent - bits)


def evaluate(coefficients: Sequence[Number], x: Number) -> Number:
    return mp.polyval(list(reversed(coefficients)), x)


def near_minimax(fit: Fit, known: Sequence[Number], degree: int) -> tuple[list[Number], Number]:
    """The coefficients behind the known ones up to `degree`, and the largest weighted error."""
    powers = range(len(known), degree + 1)
    count = (4 if fit.quick else 8) * len(powers) + 20
    nodes = [(fit.low + fit.high) / 2 + (fit.high - fit.low) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * count))
             for i in range(count)]  # fmt: skip
    targets = [fit.value(x) - evaluate(known, x) for x in nodes]
    weights = [mp.mpf(fit.weight(x)) for x in nodes]
    density = [mp.mpf(1)] * count
    for _ in range(SWEEPS if not fit.quick else 5 if len(known) < 6 else 2):
        factors = [w * mp.sqrt(d) for w, d in zip(weights, density)]
        matrix = mp.matrix([[k * x**p for p in powers] for k, x in zip(factors, nodes)])
        right = mp.matrix([k * target for k, target in zip(factors, targets)])
        found = list(mp.lu_solve(matrix.T * matrix, matrix.T * right))
        errors = [abs(w * (target - sum(c * x**p for c, p in zip(found, powers))))
                  for w, target, x in zip(weights, targets, nodes)]  # fmt: skip
        moved = [d * (e + mp.mpf(10) ** -60) for d, e in zip(density, errors)]
        density = [count * d / sum(moved) for d in moved]
    return found, max(errors)


def fitted(fit: Fit, degree: int, bits: int) -> tuple[Coefficients, Number, Number]:
    """The rounded coefficients, the error before rounding and the error after it."""
    known = [mp.mpf(c) for c in fit.fixed]
    best = None
    while len(known) <= degree:
        found, error = near_minimax(fit, known, degree)
        best = error if best is None else best
        known.append(rounded(found[0], bits))
    grid = [fit.low + (fit.high - fit.low) * i / mp.mpf(400) for i in range(401)]
    after = max(abs(fit.weight(x) * (fit.value(x) - evaluate(known, x))) for x in grid)
    return tuple(float(c) for c in known), best, after


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the coefficients of the vector maths again.")
    listed = "; ".join(dict.fromkeys(name for dtype in (float32, float64) for name in tables(dtype)))
    parser.add_argument("names", nargs="*", default=[], help=f"{listed}. Those with a ' are in maths_polynomials")
    parser.add_argument("--degree", type=int, help="another degree than that of the table")
    options = parser.parse_args()
    mp.mp.prec = 200
    different = False
    dtypes: dict[DType, int] = {float32: 24, float64: 53}
    for dtype, bits in dtypes.items():
        for name, (fit, table) in tables(dtype).items():
            if options.names and name not in options.names:
                continue
            degree = len(table) - 1 if options.degree is None else options.degree
            numbers, before, after = fitted(fit, degree, fit.bits or bits)
            verdict = "as in the table" if numbers == table else "not the table's"
            different |= numbers != table
            errors = f"2^{mp.nstr(mp.log(before, 2), 4)}, rounded 2^{mp.nstr(mp.log(after, 2), 4)}"
            print(f"{name} {dtype} degree {degree}: {errors}; {verdict}\n    {numbers}", flush=True)
    raise SystemExit(1 if different else 0)


if __name__ == "__main__":
    main()
