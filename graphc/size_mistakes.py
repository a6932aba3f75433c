"""What a size with a name cannot do: its number is known at a call only, and not yet while a graph is built.

Enter at `NoNumber`, a base of `Dim` with the operators that Python would refuse without a word about what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from graphc.errors import ArgumentError, fail


def _refusing(form: str) -> Any:
    """The method of an operator that is written as `form`, of the size and the other operand."""

    def method(size: NoNumber, other: Any) -> Any:
        return _refused(form.format(size, other), size) if _is_number(other) else NotImplemented

    return method


class NoNumber:
    """`n / 2`, `n ** 0.5`, `n < 3`, `float(n)` and `int(n)` of a size n are errors that say what to write."""

    __slots__ = ()

    if not TYPE_CHECKING:  # for people's mistakes; a type checker finds them itself
        __truediv__, __rtruediv__ = _refusing("{0} / {1}"), _refusing("{1} / {0}")
        __pow__, __rpow__ = _refusing("{0} ** {1}"), _refusing("{1} ** {0}")
        __lt__, __le__ = _refusing("{0} < {1}"), _refusing("{0} <= {1}")
        __gt__, __ge__ = _refusing("{0} > {1}"), _refusing("{0} >= {1}")

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
