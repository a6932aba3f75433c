"""Named sizes with limits: `dim("n", min=1, multiple_of=8)`, what follows from them, and names told by arguments.

A limit belongs to the placeholders whose sizes hold the name: calls are checked against it (`Bounds.broken`), and the
compiler may use it (`resolved` drops minima and maxima that are decided, `divided` makes a known factor visible).
`solution` says how the values of names follow from the shapes of arguments: a size that is linear in one name tells it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from graphc.size_values import substitute, symbols
from graphc.sizes import CALLS, Atom, Call, Dim, Shape, Size, Symbol, terms_of


@dataclass(frozen=True)
class Bounds:
    """What is known of a named size: `min` <= size <= `max` (None: no limit), and it is a multiple of `multiple_of`."""

    min: int = 0
    max: int | None = None
    multiple_of: int = 1

    def __str__(self) -> str:
        parts = {"min": self.min or None, "max": self.max, "multiple_of": self.multiple_of}
        return ", ".join(f"{k}={v}" for k, v in parts.items() if v is not None and (k, v) != ("multiple_of", 1))

    @property
    def empty(self) -> bool:
        """Whether no size is within."""
        first = -(-self.min // self.multiple_of) * self.multiple_of
        return self.max is not None and first > self.max

    def joined(self, other: Bounds) -> Bounds:
        """Both at once."""
        ends = [end for end in (self.max, other.max) if end is not None]
        multiple = math.lcm(self.multiple_of, other.multiple_of)
        return Bounds(max(self.min, other.min), min(ends, default=None), multiple)

    def broken(self, value: int) -> str:
        """Which limit `value` breaks, as `below min=1`; empty if none."""
        if value < self.min:
            return f"below min={self.min}"
        if self.max is not None and value > self.max:
            return f"above max={self.max}"
        return f"no multiple of {self.multiple_of}" if value % self.multiple_of else ""


ANY = Bounds()


def bounds_of(shapes: Iterable[Shape]) -> dict[str, Bounds]:
    """The limits of the names in `shapes`, joined where a name has several; names without limits are left out."""
    found: dict[str, Bounds] = {}
    for atom in (atom for shape in shapes for size in shape for atom in _names(size)):
        if isinstance(atom, Symbol):
            found[str(atom)] = found.get(str(atom), ANY).joined(Bounds(*atom.limits))
    return found


def _names(size: Size) -> Iterable[str]:
    for monomial, _ in terms_of(size):
        for atom in monomial:
            yield from (atom,) if isinstance(atom, str) else (*_names(atom.args[0]), *_names(atom.args[1]))


def bounded(size: Size, bounds: Mapping[str, Bounds]) -> Size:
    """`size` with these limits on its names."""
    named = {name: bounded_name(name, bounds[name]) for name in symbols(size) if name in bounds}
    return substitute(size, named) if named else size


def bounded_name(name: str, bounds: Bounds) -> Dim:
    """The size called `name`, within `bounds`."""
    if bounds == ANY:
        return Dim.symbol(name)
    return Dim((((Symbol(name, (bounds.min, bounds.max, bounds.multiple_of)),), 1),))


# What follows from limits.

Range = tuple[int | None, int | None]  # the least and the largest value; None: no limit


def range_of(size: Size, bounds: Mapping[str, Bounds]) -> Range:
    """Between which values `size` is."""
    low: int | None = 0
    high: int | None = 0
    for monomial, factor in terms_of(size):
        first, last = _monomial_range(monomial, bounds)
        ends = (_times(first, factor), _times(last, factor))
        least, most = ends if factor > 0 else (ends[1], ends[0])
        low = None if low is None or least is None else low + least
        high = None if high is None or most is None else high + most
    return low, high


def _times(end: int | None, factor: int) -> int | None:
    return None if end is None else end * factor


def _monomial_range(monomial: Sequence[Atom], bounds: Mapping[str, Bounds]) -> Range:
    low, high = 1, 1
    unlimited = False
    for atom in monomial:
        first, last = _atom_range(atom, bounds)
        if first is None or first < 0:
            return None, None
        low, unlimited = low * first, unlimited or last is None
        high *= last or 0
    return low, None if unlimited else high


def _atom_range(atom: Atom, bounds: Mapping[str, Bounds]) -> Range:
    if isinstance(atom, str):
        limits = bounds.get(atom, ANY)
        return limits.min, limits.max
    (a, b), (c, d) = (range_of(arg, bounds) for arg in atom.args)
    if atom.fn == "floordiv":
        if a is None or a < 0 or c is None or c < 1:
            return None, None
        return (0 if d is None else a // d), (None if b is None else b // c)
    if atom.fn == "min":
        ends = [end for end in (b, d) if end is not None]
        return (None if a is None or c is None else min(a, c)), min(ends, default=None)
    ends = [end for end in (a, c) if end is not None]
    return max(ends, default=None), (None if b is None or d is None else max(b, d))


def resolved(size: Size, bounds: Mapping[str, Bounds]) -> Size:
    """`size` without the minima, maxima and quotients that `bounds` decide."""
    if isinstance(size, int):
        return size
    total: Size = 0
    for monomial, factor in size.terms:
        product: Size = factor
        for atom in monomial:
            product = product * (_resolved_call(atom, bounds) if isinstance(atom, Call) else Dim((((atom,), 1),)))
        total = total + product
    return total


def _resolved_call(call: Call, bounds: Mapping[str, Bounds]) -> Size:
    a, b = (resolved(arg, bounds) for arg in call.args)
    least, most = range_of(a - b, bounds)
    if call.fn == "floordiv":
        first = range_of(a, bounds)[0]
        within = first is not None and first >= 0 and most is not None and most < 0
        return 0 if within else CALLS[call.fn](a, b)
    if least is not None and least >= 0:
        return b if call.fn == "min" else a
    if most is not None and most <= 0:
        return a if call.fn == "min" else b
    return CALLS[call.fn](a, b)


def clamped_below_zero(size: Size) -> bool:
    """Whether `size` holds a minimum or maximum that may be negative, as the ends of slices with negative steps do."""
    atoms = [atom for monomial, _ in terms_of(size) for atom in monomial if isinstance(atom, Call)]
    return any(
        any(clamped_below_zero(arg) for arg in atom.args)
        if atom.fn == "floordiv"
        else (all if atom.fn == "max" else any)(_may_be_negative(arg) for arg in atom.args)
        for atom in atoms
    )


def _may_be_negative(size: Size) -> bool:
    return any(factor < 0 for _, factor in terms_of(size)) or clamped_below_zero(size)


def divided(bounds: Mapping[str, Bounds]) -> tuple[dict[str, Size], dict[str, Size]]:
    """(each name with a factor in terms of a new name, the values of the new names): n = 8*n_8 and n_8 = n//8."""
    factors = {name: limits.multiple_of for name, limits in bounds.items() if limits.multiple_of > 1}
    inside: dict[str, Size] = {name: by * Dim.symbol(f"{name}_{by}") for name, by in factors.items()}
    return inside, {f"{name}_{by}": Dim.symbol(name) // by for name, by in factors.items()}


# Names told by the shapes of arguments.


@dataclass(frozen=True)
class Telling:
    """Axis `axis` of argument `argument` tells `name`: its size is factor * name + rest, of names told before."""

    argument: int
    axis: int
    name: str
    factor: Size
    rest: Size

    def value(self, got: int, known: Mapping[str, int]) -> int | None:
        """The value of the name where the size is `got`; None if there is none, or more than one."""
        factor, rest = (substitute(size, known) for size in (self.factor, self.rest))
        if not isinstance(factor, int) or not isinstance(rest, int) or factor == 0 or (got - rest) % factor:
            return None
        value = (got - rest) // factor
        return value if value >= 0 else None


def solution(shapes: Sequence[Shape]) -> tuple[list[Telling], frozenset[str]]:
    """How a call tells the names in the shapes of its arguments, plain names first, and the names that it cannot."""
    steps: list[Telling] = []
    known: set[str] = set()
    sizes = [(i, axis, size) for i, shape in enumerate(shapes) for axis, size in enumerate(shape)]
    sizes.sort(key=lambda item: str(item[2]) not in symbols(item[2]))
    found = True
    while found:
        found = False
        for i, axis, size in sizes:
            told = _linear(size, known)
            if told is not None:
                steps.append(Telling(i, axis, *told))
                known.add(told[0])
                found = True
    return steps, frozenset(name for _, _, size in sizes for name in symbols(size)) - known


def _linear(size: Size, known: set[str]) -> tuple[str, Size, Size] | None:
    """(name, factor, rest) if `size` is factor * name + rest with one name that is not in `known`, else None."""
    unknown = symbols(size) - known
    if len(unknown) != 1:
        return None
    (name,) = unknown
    factor: Size = 0
    rest: Size = 0
    for monomial, times in terms_of(size):
        inside = [atom for atom in monomial if name in symbols(Dim((((atom,), 1),)))]
        if not inside:
            rest = rest + Dim.from_terms({monomial: times})
        elif inside == [name]:
            others = list(monomial)
            others.remove(name)
            factor = factor + Dim.from_terms({tuple(others): times})
        else:
            return None
    return str(name), factor, rest
