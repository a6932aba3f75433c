"""float64 functions on millions of stratified samples: screened in longdouble, the worst settled by mpmath.

mpmath takes 10 to 100 us a value, so ten million samples of a function would take it minutes to hours. Instead every
sample is compared with a reference of 64 bits (NumPy's longdouble; for erf a series of positive terms in it). Then
mpmath with 160 bits measures the worst `SETTLED` of them again, and as many at random. The difference of the two
references over those is part of the result: by so much may a sample that was only screened be off. Enter at `measure`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Function = Callable[..., Array]
Samples = Callable[[int, int], tuple[Array, ...]]  # (count, seed) -> operands

SETTLED = 10_000  # samples that mpmath measures, of the worst and of any
PIECE = 2**19  # samples of one step
ERF_TERMS = 160


@dataclass(frozen=True)
class Found:
    """The worst error in ULP, where, over how many samples; how far the screen was off mpmath where both measured."""

    error: float
    at: tuple[float, ...]
    samples: int
    settled: int
    screen: float


def erf(x: Array) -> Array:
    """erf in longdouble: 2/sqrt(pi) exp(-x^2) times the sum of 2^n x^(2n+1) / (2n+1)!!, which has no cancellation.

    DLMF 7.6.2. The square is split in two, so that the exponential loses nothing for large x.
    """
    wide = np.minimum(np.abs(x.astype(np.longdouble)), np.longdouble(7))
    high = wide.astype(np.float32).astype(np.longdouble)
    low = wide - high
    term, total = wide.copy(), wide.copy()
    for n in range(1, ERF_TERMS):
        term *= 2 * wide * wide / (2 * n + 1)
        total += term
    decay = np.exp(-high * high) * np.exp(-low * (high + wide))
    root = np.sqrt(np.longdouble(4) / (np.arctan(np.longdouble(1)) * 4))
    return np.asarray(np.copysign(np.minimum(root * decay * total, 1), x))


def sigmoid(x: Array) -> Array:
    power = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, power) / (1 + power))


SCREENS: dict[str, Function] = {"erf": erf, "rsqrt": lambda x: 1 / np.sqrt(x), "sigmoid": sigmoid}
for _name in ("exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "tanh", "power", "sqrt"):
    SCREENS[_name] = getattr(np, _name)


def settling(name: str) -> Callable[..., Any]:
    """The function of mpmath, of mpf values."""
    from mpmath import mp

    mp.prec = 160
    others = {
        "exp2": lambda x: mp.power(2, x),
        "log2": lambda x: mp.log(x, 2),
        "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
        "rsqrt": lambda x: 1 / mp.sqrt(x),
    }
    return others.get(name) or getattr(mp, name)  # type: ignore[no-any-return]


def screen(name: str, result: Array, *operands: Array) -> Array:
    """The error of each result in ULP, to about 0.01; infinite where a special value is not the right one."""
    with np.errstate(all="ignore"):
        exact = SCREENS[name](*(x.astype(np.longdouble) for x in operands))
        nearest = exact.astype(np.float64)
        ordinary = np.isfinite(nearest) & np.isfinite(result)
        errors = np.abs((result - exact) / spacing(exact)).astype(np.float64)
        same = (result == nearest) | (np.isnan(result) & np.isnan(nearest))
        sign = np.isnan(nearest) | (np.signbit(result) == np.signbit(nearest))
    return np.where(sign & (ordinary | same), np.where(ordinary, errors, 0.0), np.inf)


def spacing(exact: Array) -> Array:
    """The distance of float64 numbers around each longdouble: that of the binade it lies in, denormals included."""
    exponent = np.maximum(np.frexp(exact)[1] - 53, -1074)
    return np.asarray(np.ldexp(np.longdouble(1), exponent))


def settle(name: str, result: Array, *operands: Array) -> Array:
    """The error of each result in ULP, by mpmath. Results and operands are finite."""
    from mpmath import mp, mpf

    function = settling(name)
    errors = np.empty(result.size)
    for i, y in enumerate(result):
        exact = mp.mpf(function(*(mpf(float(x[i])) for x in operands)))
        unit = mp.ldexp(1, max(mp.frexp(exact)[1] - 53, -1074)) if exact else mp.ldexp(1, -1074)
        errors[i] = float(abs(mpf(float(y)) - exact) / unit)
    return errors


def measure(name: str, run: Function, samples: Samples, count: int, settled: int = SETTLED) -> Found:
    """The worst error of `run`, a function of float64 arrays, over at least `count` samples."""
    rng, done = np.random.default_rng(1), 0
    kept: list[Array] = []  # a row for each sample: screened error, result, operands
    anywhere: list[Array] = []
    while done < count:
        operands = samples(min(PIECE, count - done), done)
        result = run(*operands)
        errors = screen(name, result, *operands)
        rows = np.stack([errors, result, *operands])
        wrong = ~np.isfinite(errors)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            return Found(float("inf"), tuple(float(x[at]) for x in operands), done + result.size, 0, 0.0)
        rows = rows[:, np.isfinite(rows).all(axis=0) & (result != 0)]
        anywhere.append(rows[:, rng.integers(0, rows.shape[1], max(1, settled * PIECE // max(count, PIECE)))])
        kept.append(_largest(rows, settled))
        done += result.size
    chosen = np.concatenate([_largest(np.concatenate(kept, axis=1), settled), *anywhere], axis=1)
    exact = settle(name, chosen[1], *chosen[2:])
    worst = int(exact.argmax())
    at = tuple(float(x) for x in chosen[2:, worst])
    return Found(float(exact[worst]), at, done, exact.size, float(np.abs(exact - chosen[0]).max()))


def _largest(rows: Array, count: int) -> Array:
    """The columns with the largest first element."""
    if rows.shape[1] <= count:
        return rows
    return rows[:, np.argpartition(rows[0], -count)[-count:]]
