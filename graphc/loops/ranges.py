"""Index arithmetic that knows what it works on: div and mod of movement, addresses of elements.

Enter at `Ranges`, which knows the size that each symbol of an index stays below.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.types import Call, Dim, Size, terms_of


class Ranges:
    """The index handler of movement rules: div and mod that use what is known of the loop variables.

    `extents` maps a symbol to the size that it stays below (it is never negative).
    """

    def __init__(self, extents: dict[str, Size]) -> None:
        self.extents = extents

    def div(self, a: Size, b: Size) -> Size:
        if b == 0:
            return 0  # an index into nothing: it is never read
        whole, rest = split_multiple(a, b)
        return whole if self.below(rest, b) else a // b

    def mod(self, a: Size, b: Size) -> Size:
        if b == 0:
            return 0
        _, rest = split_multiple(a, b)
        return rest if self.below(rest, b) else a - b * (a // b)

    def below(self, size: Size, bound: Size) -> bool:
        """Whether 0 <= size < bound for all values of the symbols, as far as can be told."""
        return never_negative(size) and self.under(size, bound)

    def under(self, size: Size, bound: Size) -> bool:
        """Whether size < bound for all values of the symbols, as far as can be told."""
        largest: Size = 0
        for monomial, factor in terms_of(size):
            if any(isinstance(atom, Call) for atom in monomial):
                return False
            value: Size = factor if factor > 0 or not monomial else 0
            for atom in monomial:
                value = value * ((self.extents[atom] - 1) if atom in self.extents else Dim.symbol(atom))
            largest = largest + value
        slack = bound - 1 - largest
        return isinstance(slack, int) and slack >= 0


def never_negative(size: Size) -> bool:
    """Whether `size` adds up nothing but symbols and numbers that are not negative."""
    terms = terms_of(size)
    return all(factor >= 0 and not any(isinstance(atom, Call) for atom in monomial) for monomial, factor in terms)


def split_multiple(a: Size, b: Size) -> tuple[Size, Size]:
    """(q, r) with a == b * q + r, where r holds the terms of `a` that are no multiples of `b`."""
    rest: Size = 0
    for monomial, factor in terms_of(a):
        term: Size = Dim.from_terms({monomial: factor})
        quotient = term // b if b != 0 else 0
        if b == 0 or quotient * b != term:
            rest = rest + term
    whole = a - rest
    return (whole // b if whole != 0 else 0), rest


def linear_address(index: Sequence[Size], shape: Sequence[Size]) -> Size:
    """The position of `index` in a C-contiguous array of `shape`."""
    address: Size = 0
    for position, extent in zip(index, shape, strict=True):
        address = address * extent + position
    return address
