"""Values, or other sizes, in place of the names of a size. Enter at `evaluate` (all have values) or `substitute`."""

from __future__ import annotations

import math
from collections.abc import Mapping

from graphc.sizes import CALLS, Atom, Call, Dim, Monomial, Size, terms_of


def substitute(size: Size, values: Mapping[str, Size]) -> Size:
    """`size` with names replaced; an `int` when every name has an integer value."""
    if isinstance(size, int):
        return size
    total, plain = dict[Monomial, int](), size.plain
    for monomial, factor in size.terms:
        parts = [_value(atom, values) for atom in monomial]
        product = parts[0] if len(parts) == 1 else math.prod(parts)
        if isinstance(product, Dim) and not product.plain:
            product, factor, plain = product * factor, 1, False
        for key, times in terms_of(product):
            total[key] = total.get(key, 0) + times * factor
    return Dim.from_terms(total, plain)


def _value(atom: Atom, values: Mapping[str, Size]) -> Size:
    if isinstance(atom, Call):
        a, b = (substitute(arg, values) for arg in atom.args)
        return CALLS[atom.fn](a, b) if b != 0 or atom.fn != "floordiv" else 0
    return value if (value := values.get(atom)) is not None else Dim.symbol(atom)


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The value of `size` for given values of all its names (KeyError when one is missing)."""
    if isinstance(size, int):
        return size
    result = substitute(size, values)
    if not isinstance(result, int):
        raise KeyError(f"{size} needs a value for {', '.join(sorted(symbols(result)))}")
    return result


def symbols(size: Size) -> frozenset[str]:
    """All names in `size`."""
    if isinstance(size, int):
        return frozenset()
    if size.plain:
        return frozenset([atom for monomial, _ in size.terms for atom in monomial if isinstance(atom, str)])
    atoms = {atom for monomial, _ in size.terms for atom in monomial}
    inside = [symbols(arg) for atom in atoms if isinstance(atom, Call) for arg in atom.args]
    return frozenset(atom for atom in atoms if isinstance(atom, str)).union(*inside)
