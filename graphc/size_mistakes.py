"""What a size with a name cannot do: its number is known at a call only, and not yet while a graph is built.

Enter at `NoNumber`, a base of `Dim` with the operators that Python would refuse without a word about what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from graphc.errors import ArgumentError, fail


class NoNumber:
    """`n / 2`, `n ** 0.5`, `n < 3`, `float(n)` and `int(n)` of a size n are errors that say what to write."""

    __slots__ = ()

    if not TYPE_CHECKING:  # for people's mistakes; a type checker finds them itself

        def __truediv__(self, other: Any) -> Any:
            return _refused(f"{self} / {other}", self) if _is_number(other) else NotImplemented

        def __rtruediv__(self, other: Any) -> Any:
            return _refused(f"{other} / {self}", self) if _is_number(other) else NotImplemented

        def __pow__(self, other: Any) -> Any:
            return _refused(f"{self} ** {other}", self) if _is_number(other) else NotImplemented

        def __rpow__(self, other: Any) -> Any:
            return _refused(f"{other} ** {self}", self) if _is_number(other) else NotImplemented

        def __lt__(self, other: Any) -> Any:
            return _refused(f"{self} < {other}", self) if _is_number(other) else NotImplemented

        def __le__(self, other: Any) -> Any:
            return _refused(f"{self} <= {other}", self) if _is_number(other) else NotImplemented

        def __gt__(self, other: Any) -> Any:
            return _refused(f"{self} > {other}", self) if _is_number(other) else NotImplemented

        def __ge__(self, other: Any) -> Any:
            return _refused(f"{self} >= {other}", self) if _is_number(other) else NotImplemented

        def __float__(self) -> float:
            _refused(f"float({self})", self)

        def __int__(self) -> int:
            _refused(f"int({self})", self)


def _is_number(other: object) -> bool:
    """Whether it is no Tensor, which says itself what an operator means."""
    return isinstance(other, (float, int, NoNumber))


def _refused(text: str, size: NoNumber) -> NoReturn:
    hint = f"graphc.dim_value({size}) is its value in the graph; sizes themselves have + - * // %"
    fail(ArgumentError, f"{text}: {size} is a size, whose number is only known at a call", hint)
