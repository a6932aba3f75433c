"""Which of two sizes is smaller, where that holds for every value of the names: limits that slices need not keep.

Enter at `smaller`, `larger` or `covers`.
"""

from __future__ import annotations

from graphc.sizes import Call, Size, maximum, minimum, terms_of


def covers(a: Size, b: Size) -> bool:
    """Whether a >= b for all names >= 0. Uses c * (x//k) <= c/k * x for x >= 0; no limits of names."""
    found: dict[object, int] = {}
    scale = 1
    for monomial, factor in terms_of(a - b):
        parts = [(monomial, factor * scale)]
        (call,) = [atom for atom in monomial if isinstance(atom, Call)][:1] or (None,)
        if call is not None and factor < 0:  # a term that is taken away counts at its most
            x, k = call.args
            if len(monomial) > 1 or call.fn != "floordiv" or not isinstance(k, int) or k < 1 or not at_least_0(x):
                return False
            found = {key: value * k for key, value in found.items()}
            parts = [(inner, factor * scale * times) for inner, times in terms_of(x)]
            scale *= k
        elif not all(at_least_0_call(atom) for atom in monomial if isinstance(atom, Call)):
            return False
        for key, value in parts:
            found[key] = found.get(key, 0) + value
    return all(value >= 0 for value in found.values())


def at_least_0(size: Size) -> bool:
    """Whether every term of `size` is 0 or more."""
    return all(
        factor >= 0 and all(at_least_0_call(atom) for atom in monomial if isinstance(atom, Call))
        for monomial, factor in terms_of(size)
    )


def at_least_0_call(call: Call) -> bool:
    """Whether a floor division, minimum or maximum is 0 or more."""
    a, b = call.args
    if call.fn == "floordiv":
        return at_least_0(a) and isinstance(b, int) and b > 0
    if call.fn == "min":
        return at_least_0(a) and at_least_0(b)
    return at_least_0(a) or at_least_0(b)


def smaller(a: Size, b: Size) -> Size:
    """The minimum of two sizes, without a call where it is decided."""
    return a if covers(b, a) else b if covers(a, b) else minimum(a, b)


def larger(a: Size, b: Size) -> Size:
    """The maximum of two sizes, without a call where it is decided."""
    return a if covers(a, b) else b if covers(b, a) else maximum(a, b)
