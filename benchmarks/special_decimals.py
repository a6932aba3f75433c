"""The gamma and error functions in the `decimal` module, to about 40 digits: what `accuracy.py` measures against."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
BEYOND = 40  # where the asymptotic series are good to 40 digits
LARGE = Decimal(2) ** 60


def _bernoulli(count: int) -> list[Decimal]:
    """B(2), B(4), ..."""
    row: list[Fraction] = []
    found = []
    for m in range(2 * count + 1):
        row.append(Fraction(1, m + 1))
        for j in range(m, 0, -1):
            row[j - 1] = j * (row[j - 1] - row[j])
        if m and m % 2 == 0:
            found.append(row[0])
    return [Decimal(b.numerator) / Decimal(b.denominator) for b in found]


BERNOULLI = _bernoulli(20)


def _sine(r: Decimal) -> Decimal:
    """sin(pi r) for small r."""
    x = PI * r
    term = total = x
    n = 1
    while abs(term) > Decimal("1e-45") * abs(total):
        term *= -x * x / ((n + 1) * (n + 2))
        total, n = total + term, n + 2
    return total


def lgamma(x: Decimal) -> Decimal:
    if x < 0:
        r = x - x.to_integral_value()
        return Decimal("inf") if r == 0 else (PI / abs(_sine(r))).ln() - lgamma(1 - x)
    factors = Decimal(1)
    while x < BEYOND:
        factors, x = factors * x, x + 1
    series = sum((b / (2 * k * (2 * k - 1) * x ** (2 * k - 1)) for k, b in enumerate(BERNOULLI, 1)), Decimal(0))
    return (x - Decimal("0.5")) * x.ln() - x + (2 * PI).ln() / 2 + series - factors.ln()


def digamma(x: Decimal) -> Decimal:
    if x < 0:
        r = x - x.to_integral_value()
        if r == 0:
            return Decimal("nan")
        half = _sine(r / 2)
        return digamma(1 - x) - PI * (1 - 2 * half * half) / _sine(r)
    lost = Decimal(0)
    while x < BEYOND:
        lost, x = lost + 1 / x, x + 1
    series = sum((b / (2 * k * x ** (2 * k)) for k, b in enumerate(BERNOULLI, 1)), Decimal(0))
    return x.ln() - 1 / (2 * x) - series - lost


def erf(x: Decimal) -> Decimal:
    """2/sqrt(pi) exp(-x^2) times the sum of x (2 x^2)^n / (1 3 5 ... (2n + 1)), all of one sign."""
    x = max(min(x, Decimal(9)), Decimal(-9))
    term = total = x
    n = 1
    while abs(term) > abs(total) * Decimal("1e-30"):
        term *= 2 * x * x / (2 * n + 1)
        total += term
        n += 1
    return 2 / PI.sqrt() * (-x * x).exp() * total


def erfc(x: Decimal) -> Decimal:
    """1 - erf, from 2 on by Laplace's continued fraction."""
    if x < 2:
        return 1 - erf(x)
    if x > 40:
        return Decimal(0)
    fraction = x
    for n in range(int(2200 / (x * x)) + 30, 0, -1):
        fraction = x + Decimal(n) / 2 / fraction
    return (-x * x).exp() / PI.sqrt() / fraction


def erfinv(x: Decimal, start: Callable[[float], float]) -> Decimal:
    """Newton's method from a value that is nearly right."""
    if not abs(x) < 1:
        return Decimal("inf").copy_sign(x) if abs(x) == 1 else Decimal("nan")
    size = abs(x)
    y = Decimal(abs(start(float(x))))
    for _ in range(2):
        missing = erf(y) - size if size < Decimal("0.5") else (1 - size) - erfc(y)
        y -= missing * PI.sqrt() / 2 * (y * y).exp()
    return y.copy_sign(x)
