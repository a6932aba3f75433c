"""Sizes: an `int`, or a `Dim`, a polynomial over named dimensions.

A `Dim` holds sums of products of names, floor divisions, minima and maxima, in a canonical form, so that equal
expressions are equal objects by `==`. The loop lowering uses the same class for index arithmetic, with loop variables
as further names. Enter at `Dim.symbol`; values are put in for names by `graphc.size_values`, texts are read by
`graphc.size_reader`. Everyone imports these names from `graphc.types`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Union

import numpy as np

from graphc.size_mistakes import NoNumber


@dataclass(frozen=True)
class Call:
    """An atom that is no polynomial: `fn` is "floordiv", "min" or "max" of two sizes."""

    fn: str
    args: tuple[Size, Size]

    def __str__(self) -> str:
        a, b = self.args
        if self.fn == "floordiv":
            return f"{_wrapped(a)}//{_wrapped(b)}"
        return f"{self.fn}({a},{b})"


Atom = Union[str, Call]
Monomial = tuple[Atom, ...]
Size = Union[int, "Dim"]


class Symbol(str):
    """A name with limits (min, max, multiple of): the same name as without them. See `graphc.bounds`."""

    __slots__ = ("limits",)
    limits: tuple[int, int | None, int]

    def __new__(cls, name: str, limits: tuple[int, int | None, int]) -> Symbol:
        made = super().__new__(cls, name)
        made.limits = limits
        return made


class Dim(NoNumber):
    """A size that is not a constant: a sum of integer multiples of products of atoms.

    Build one with `Dim.symbol("batch")` and `+ - * //`; operations give an `int` where the names cancel.
    """

    __slots__ = ("_hash", "plain", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...], plain: bool = False) -> None:
        self.terms = terms
        self.plain = plain or not any(isinstance(atom, Call) for monomial, _ in terms for atom in monomial)
        self._hash = hash(terms)

    @staticmethod
    @cache
    def symbol(name: str) -> Dim:
        """The dimension called `name`. Equal names are equal sizes."""
        return Dim((((str(name),), 1),))  # without the limits of a Symbol: the first one would be kept for all

    @staticmethod
    def from_terms(terms: Mapping[Monomial, int], plain: bool = False) -> Size:
        calls = set() if plain else {atom.fn for monomial in terms for atom in monomial if isinstance(atom, Call)}
        if calls:
            terms = _multiplied(terms) if "floordiv" in calls else terms
            terms = _paired(terms) if calls != {"floordiv"} else terms
        kept = sorted([(m, c) for m, c in terms.items() if c], key=lambda term: _monomial_order(term[0]))
        if len(kept) < 2 and not (kept and kept[0][0]):
            return kept[0][1] if kept else 0
        return Dim(tuple(kept), not calls)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Dim):
            return self is other or self.terms == other.terms
        return False if isinstance(other, int) else NotImplemented  # a Tensor compares its elements

    def __hash__(self) -> int:
        return self._hash

    # With what is no size (a Tensor), the other side says what an operator means.
    def __add__(self, other: Size) -> Size:
        if not isinstance(other, _SIZES):
            return NotImplemented
        if isinstance(other, int) and self.plain:  # most additions: the constant is the last term
            constant, rest = (0, self.terms) if self.terms[-1][0] else (self.terms[-1][1], self.terms[:-1])
            return Dim((*rest, ((), constant + other)) if constant + other else rest, True)
        total = dict(self.terms)
        for monomial, factor in terms_of(other):
            total[monomial] = total.get(monomial, 0) + factor
        return Dim.from_terms(total, self.plain and isinstance(other, Dim) and other.plain)

    __radd__ = __add__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + (-other) if isinstance(other, _SIZES) else NotImplemented

    def __rsub__(self, other: Size) -> Size:
        return -self + other if isinstance(other, _SIZES) else NotImplemented

    def __mul__(self, other: Size) -> Size:
        if not isinstance(other, _SIZES):
            return NotImplemented
        if isinstance(other, int) and self.plain:
            return Dim(tuple([(monomial, factor * other) for monomial, factor in self.terms]), True) if other else 0
        total: dict[Monomial, int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in terms_of(other):
                key = _monomial(m1 + m2) if m1 and m2 else m1 or m2
                total[key] = total.get(key, 0) + c1 * c2
        return Dim.from_terms(total)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        return floordiv(self, other) if isinstance(other, _SIZES) else NotImplemented

    def __rfloordiv__(self, other: int) -> Size:
        return floordiv(other, self) if isinstance(other, _SIZES) else NotImplemented

    def __mod__(self, other: Size) -> Size:
        return self - other * floordiv(self, other) if isinstance(other, _SIZES) else NotImplemented

    def __str__(self) -> str:
        text = ""
        for monomial, factor in self.terms:
            sign = "-" if factor < 0 else ("+" if text else "")
            factors = [str(abs(factor))] if abs(factor) != 1 or not monomial else []
            text += sign + "*".join(factors + [_factor_text(a, len(monomial) + len(factors)) for a in monomial])
        return text

    __repr__ = __str__


_SIZES = (int, np.integer, Dim)


def _paired(terms: Mapping[Monomial, int]) -> Mapping[Monomial, int]:
    """`terms` with each n, min(n,k) and max(n-k,0) as few of the three as can be, since n is the sum of the others.

    So `n-min(n,k)` is `max(n-k,0)`, `n-max(n-k,0)` is `min(n,k)` and their sum is `n`: what two slices of an axis
    leave and take is equal as it should be.
    """
    for monomial in terms:
        for place, atom in enumerate(monomial):
            if isinstance(atom, str) or (found := _counterpart(atom)) is None:
                continue
            whole, other = found
            rest = monomial[:place] + monomial[place + 1 :]
            one, two = monomial, _monomial((*rest, other))
            wholes = {_monomial(rest + m): f for m, f in terms_of(whole)}
            there = _least(_ratio(terms.get(m, 0), f) for m, f in wholes.items())
            factors = there + terms.get(one, 0), there + terms.get(two, 0)
            change = _least(factors) - there
            if change:
                left = dict(terms)
                for m, f in (*wholes.items(), (one, -1), (two, -1)):
                    left[m] = left.get(m, 0) + change * f
                return _paired(left)
    return terms


def _multiplied(terms: Mapping[Monomial, int]) -> Mapping[Monomial, int]:
    """`terms` with b * (a//b) as `a` where the limits of names say that b divides a."""
    for monomial, factor in terms.items():
        for place, atom in enumerate(monomial):
            if isinstance(atom, str) or atom.fn != "floordiv":
                continue
            a, b = atom.args
            if isinstance(b, int) and factor and factor % b == 0 and _sure_multiple(a) % b == 0:
                left = {m: f for m, f in terms.items() if m != monomial}
                for inner, times in terms_of(a):
                    key = _monomial((*monomial[:place], *monomial[place + 1 :], *inner))
                    left[key] = left.get(key, 0) + factor // b * times
                return _multiplied(left)
    return terms


def _sure_multiple(size: Size) -> int:
    """A number that divides `size`, from its factors and the limits of its names."""
    found = 0
    for monomial, factor in terms_of(size):
        found = math.gcd(found, factor * math.prod(a.limits[2] for a in monomial if isinstance(a, Symbol)))
    return found


def _least(factors: Iterable[int]) -> int:
    """The factor nearest to 0 if all have one sign, else 0."""
    each = list(factors)
    return min(each, key=abs) if all(f > 0 for f in each) or all(f < 0 for f in each) else 0


def _ratio(a: int, b: int) -> int:
    """a / b, rounded to 0."""
    return abs(a) // abs(b) * (1 if a * b > 0 else -1)


def _counterpart(atom: Call) -> tuple[Size, Call] | None:
    """(n, max(n-k,0)) for min(n,k), and (n, min(n,k)) for max(n-k,0): k is a positive int, n has no constant."""
    a, b = atom.args
    if isinstance(a, int) or not isinstance(b, int) or (atom.fn == "max" and b != 0) or atom.fn == "floordiv":
        return None
    if atom.fn == "min":
        return (a, Call("max", (a - b, 0))) if b > 0 and _constant(a) == 0 else None
    k = -_constant(a)
    return (a + k, Call("min", (a + k, k))) if k > 0 else None


def _constant(size: Dim) -> int:
    return next((factor for monomial, factor in size.terms if not monomial), 0)


def _monomial(atoms: Iterable[Atom]) -> Monomial:
    return tuple(sorted(atoms, key=str))


@cache
def _monomial_order(monomial: Monomial) -> tuple[int, str]:
    return (-len(monomial), "*".join(map(str, monomial)))


def _wrapped(size: Size) -> str:
    simple = isinstance(size, int) or (len(size.terms) == 1 and size.terms[0][1] == 1 and len(size.terms[0][0]) == 1)
    return str(size) if simple and "//" not in str(size) else f"({size})"


def _factor_text(atom: Atom, count: int) -> str:
    return f"({atom})" if isinstance(atom, Call) and atom.fn == "floordiv" and count > 1 else str(atom)


def terms_of(size: Size) -> tuple[tuple[Monomial, int], ...]:
    """The (product of atoms, factor) pairs whose sum is `size`."""
    if isinstance(size, Dim):
        return size.terms
    return (((), size),) if size else ()


def floordiv(a: Size, b: Size) -> Size:
    """`a // b`, exact where every term of `a` is a multiple of `b`."""
    if b == 0:
        raise ZeroDivisionError("a dimension divided by zero")
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1 or a == 0:
        return a
    if a == b:
        return 1  # a size of 0 never divides: the shape rules test for emptiness first
    if (inner := _quotient(a)) is not None:
        return floordiv(inner[0], inner[1] * b)  # (x // y) // b
    divided = [_divide_term(t, b) for t in terms_of(a)]
    whole = Dim.from_terms(_summed(t for t in divided if t is not None))
    rest = Dim.from_terms(_summed(t for t, d in zip(terms_of(a), divided, strict=True) if d is None))
    if rest == 0 or (isinstance(rest, int) and isinstance(b, int)):
        return whole + rest // b
    grows, falls = (any(sign * f > 0 for _, f in terms_of(part)) for sign, part in ((1, whole), (-1, rest)))
    if grows and falls and not _covers(rest, 0):  # what is divided must not be negative: (3-x)//3 is not 1+(-x)//3
        whole, rest = 0, a
    return whole + Dim((((Call("floordiv", (rest, b)),), 1),))


def _quotient(a: Size) -> tuple[Size, Size] | None:
    """(x, y) if `a` is x // y."""
    terms = terms_of(a)
    if len(terms) == 1 and terms[0][1] == 1 and len(terms[0][0]) == 1:
        (atom,) = terms[0][0]
        if isinstance(atom, Call) and atom.fn == "floordiv":
            return atom.args
    return None


def _summed(terms: Iterable[tuple[Monomial, int]]) -> dict[Monomial, int]:
    total: dict[Monomial, int] = {}
    for monomial, factor in terms:
        total[monomial] = total.get(monomial, 0) + factor
    return total


def _divide_term(term: tuple[Monomial, int], by: Size) -> tuple[Monomial, int] | None:
    """`term / by` if it is exact for every value of the names, else None."""
    monomial, factor = term
    divisor = terms_of(by)
    if len(divisor) != 1 or factor % divisor[0][1]:
        return None
    atoms = list(monomial)
    for atom in divisor[0][0]:
        if atom not in atoms:
            return None
        atoms.remove(atom)
    return tuple(atoms), factor // divisor[0][1]


def minimum(a: Size, b: Size) -> Size:
    """The smaller of two sizes. min(n-1,k) is min(n,k+1)-1, and so on: a constant stands on one side."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    if isinstance(a, int):
        a, b = b, a
    if isinstance(a, Dim) and isinstance(b, int) and b >= 0 and (less := _constant(a)) < 0:
        return minimum(a - less, b - less) + less
    if _covers(a, b):
        return b
    return Dim((((Call("min", (a, b)),), 1),))


def maximum(a: Size, b: Size) -> Size:
    """The larger of two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    if isinstance(a, int):
        a, b = b, a
    return a if _covers(a, b) else Dim((((Call("max", (a, b)),), 1),))


def _covers(a: Size, b: Size) -> bool:
    """Whether a >= b is plain: no name is negative, and x//k is between (x-k+1)/k and x/k."""
    least: dict[Monomial, Fraction | int] = {}
    for monomial, factor in terms_of(a - b):
        parts: list[tuple[Monomial, Fraction | int]] = [(monomial, factor)]
        for call in [atom for atom in monomial if isinstance(atom, Call)]:
            x, k = call.args
            if len(parts) > 1 or call.fn != "floordiv" or not isinstance(k, int) or k < 1 or not _covers(x, 0):
                return False
            others = tuple(atom for atom in monomial if atom is not call)
            parts = [(_monomial((*others, *inner)), Fraction(factor * times, k)) for inner, times in terms_of(x)]
            parts.append((others, Fraction(min(-factor * (k - 1), 0), k)))
        for key, part in parts:
            least[key] = least.get(key, 0) + part
    return all(f >= 0 and all(isinstance(atom, str) for atom in monomial) for monomial, f in least.items())


def ceildiv(a: Size, b: Size) -> Size:
    """`a / b` rounded up."""
    return floordiv(a + b - 1, b)


CALLS: dict[str, Callable[[Size, Size], Size]] = {"floordiv": floordiv, "min": minimum, "max": maximum}


Shape = tuple[Size, ...]


def product(sizes: Iterable[Size]) -> Size:
    """The product of sizes: 1 for none."""
    return math.prod(sizes)
