"""Rewrite rules as algebra: patterns traced from plain lambdas, and how they match and build nodes.

Enter at `rule(lambda x: x - 0, lambda x: x, keeps=BITS)`. The parameters of the lambdas are variables; operators and
the functions of `ops` make pattern nodes. A number in a pattern matches a constant of one element with exactly that
value (0 is not -0.0), seen through `broadcast_to` and `reshape`; in a result it becomes a constant of the dtype beside
it. `when` gets the matched values in the order of the lambda's parameters. Every pattern is elementwise, so shapes
never change.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np

from graphc.conversion import cast_array, widened
from graphc.graph import ConstantData, Value
from graphc.types import DType, Shape

BITS, ULP, REAL = "bits", "ulp", "real"  # what a rule keeps: every bit, a few last places, the value in real arithmetic
Make = Callable[[str, Sequence[Value], Mapping[str, Any]], Value]
Number = Union[int, float, bool]


class Pattern:
    """A variable, a number or an op over patterns."""

    def __neg__(self) -> Pattern:
        return Apply("negative", (self,))

    def __add__(self, other: Operand) -> Pattern:
        return Apply("add", (self, as_pattern(other)))

    def __sub__(self, other: Operand) -> Pattern:
        return Apply("subtract", (self, as_pattern(other)))

    def __mul__(self, other: Operand) -> Pattern:
        return Apply("multiply", (self, as_pattern(other)))

    def __truediv__(self, other: Operand) -> Pattern:
        return Apply("divide", (self, as_pattern(other)))

    def __floordiv__(self, other: Operand) -> Pattern:
        return Apply("floor_divide", (self, as_pattern(other)))

    def __radd__(self, other: Number) -> Pattern:
        return Apply("add", (Literal(other), self))

    def __rsub__(self, other: Number) -> Pattern:
        return Apply("subtract", (Literal(other), self))

    def __rmul__(self, other: Number) -> Pattern:
        return Apply("multiply", (Literal(other), self))


@dataclass(frozen=True)
class Variable(Pattern):
    name: str


@dataclass(frozen=True)
class Literal(Pattern):
    value: Number


@dataclass(frozen=True)
class Apply(Pattern):
    op: str
    operands: tuple[Pattern, ...]


Operand = Union[Pattern, int, float, bool]


def as_pattern(x: Operand) -> Pattern:
    return x if isinstance(x, Pattern) else Literal(x)


class _Ops:
    """`ops.where(c, x, y)`: a pattern of the op of that name."""

    def __getattr__(self, name: str) -> Callable[..., Pattern]:
        return lambda *operands: Apply(name, tuple(as_pattern(x) for x in operands))


ops = _Ops()


@dataclass(frozen=True)
class Rule:
    """`pattern` becomes `result` where `when` holds; `text` is the rule as it was written, for logs and the docs."""

    pattern: Apply
    result: Pattern
    keeps: str
    when: Callable[..., bool] | None
    variables: tuple[str, ...]
    text: str

    def apply(self, value: Value, make: Make) -> Value | None:
        """The value that replaces `value`, or None where the rule does not match."""
        found: dict[str, Value] = {}
        if not _matches(self.pattern, value, found):
            return None
        if self.when is not None and not self.when(*(found[name] for name in self.variables)):
            return None
        return _built(self.result, found, value.type.shape, value.type.dtype, make)


def rule(pattern: Callable[..., Operand], result: Callable[..., Operand], keeps: str, when: Any = None) -> Rule:
    """A rule from two lambdas over the same variables. TypeError if they differ or the pattern is no op."""
    names = tuple(inspect.signature(pattern).parameters)
    if tuple(inspect.signature(result).parameters) != names:
        raise TypeError(f"a rule over {names} whose result is over {tuple(inspect.signature(result).parameters)}")
    variables = [Variable(name) for name in names]
    traced, built = as_pattern(pattern(*variables)), as_pattern(result(*variables))
    if not isinstance(traced, Apply) or keeps not in (BITS, ULP, REAL):
        raise TypeError(f"a rule needs an op to match and one of {BITS}, {ULP}, {REAL}")
    return Rule(traced, built, keeps, when, names, f"{text_of(traced)} -> {text_of(built)}")


def text_of(pattern: Pattern) -> str:
    """A pattern as text: `add(x, negative(y))`."""
    if isinstance(pattern, Apply):
        return f"{pattern.op}({', '.join(map(text_of, pattern.operands))})"
    return pattern.name if isinstance(pattern, Variable) else repr(getattr(pattern, "value", pattern))


def number_of(value: Value) -> Any:
    """The number that every element of `value` is (a NumPy scalar), or None."""
    while value.op.name in ("broadcast_to", "reshape"):
        value = value.node.inputs[0]
    if value.op.name != "constant":
        return None
    array = widened(value.node.attrs["data"].array)
    return array.reshape(())[()] if array.size == 1 else None


def same_number(found: Any, wanted: Number) -> bool:
    """Whether a NumPy scalar is a pattern's number: equal, and for zeros of the same sign."""
    if isinstance(wanted, bool) or found.dtype.kind == "b":
        return bool(found.dtype.kind == "b" and isinstance(wanted, bool) and bool(found) == wanted)
    if found.dtype.kind == "f":
        return bool(found == wanted) and math.copysign(1, float(found)) == math.copysign(1, wanted)
    return bool(found == wanted) and not (isinstance(wanted, float) and math.copysign(1, wanted) < 0)


def spread_constant(number: Number, dtype: DType, shape: Shape, make: Make) -> Value:
    """A number as a value of `shape`: a constant of one element, broadcast."""
    scalar = make("constant", (), {"data": ConstantData(cast_array(np.asarray(number), dtype))})
    return scalar if shape == () else make("broadcast_to", (scalar,), {"shape": shape})


def _matches(pattern: Pattern, value: Value, found: dict[str, Value]) -> bool:
    if isinstance(pattern, Variable):
        return found.setdefault(pattern.name, value) == value
    if isinstance(pattern, Literal):
        number = number_of(value)
        return number is not None and same_number(number, pattern.value)
    if not isinstance(pattern, Apply) or value.op.name != pattern.op or len(value.node.inputs) != len(pattern.operands):
        return False
    return all(_matches(p, v, found) for p, v in zip(pattern.operands, value.node.inputs, strict=True))


def _built(result: Pattern, found: Mapping[str, Value], shape: Shape, dtype: DType, make: Make) -> Value:
    if isinstance(result, Variable):
        return found[result.name]
    if isinstance(result, Literal):
        return spread_constant(result.value, dtype, shape, make)
    assert isinstance(result, Apply)
    others = [found[p.name].type.dtype for p in result.operands if isinstance(p, Variable)]
    inner = others[-1] if others else dtype  # the last: the first operand of where is its condition
    return make(result.op, [_built(p, found, shape, inner, make) for p in result.operands], {})
