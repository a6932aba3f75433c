"""Algebraic simplification: the table of `algebra.py`, and rules about shapes and dtypes that need attributes.

Enter at `simplify`. Every node is built anew over its simplified operands, and each rule that matches builds through
the same door, so one walk over the graph is enough and takes time linear in its size. To add a rule of plain algebra,
add a line to `algebra.RULES`; one that reads attributes is a function below, entered in `STRUCTURAL`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.graph import Graph, Node, Value, make_node
from graphc.ops.lowering import Elementwise
from graphc.ops.registry import OPS
from graphc.passes.algebra import RULES
from graphc.passes.domain import one_element
from graphc.passes.patterns import BITS, REAL, ULP, Rule, number_of, spread_constant
from graphc.settings import current
from graphc.types import DType

MOST_STEPS = 32  # rules that may apply to one node in turn: a bound, never reached by rules that shrink


def simplify(graph: Graph) -> Graph:
    """An equal graph with less to compute; to the bit, unless the setting `fast_math` is on."""
    return _Simplifier(current().fast_math).run(graph)


class _Simplifier:
    """Builds nodes, simplified."""

    def __init__(self, fast_math: bool) -> None:
        keeps = (BITS, ULP, REAL) if fast_math else (BITS, ULP)
        self.rules: dict[str, list[Rule]] = {}
        for each in RULES:
            if each.keeps in keeps:
                self.rules.setdefault(each.pattern.op, []).append(each)

    def run(self, graph: Graph) -> Graph:
        def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
            if len(node.types) != 1 or node.op.unique or node.op.effect != "none":
                return None
            value = Value(node if inputs == node.inputs else make_node(node.op, inputs, node.attrs))
            return (self.simplified(value),)

        return graph.rewrite(visit)

    def make(self, op: str, inputs: Sequence[Value], attrs: Mapping[str, Any]) -> Value:
        """The value of an op over simplified operands, simplified."""
        return self.simplified(Value(make_node(OPS[op], inputs, attrs)))

    def simplified(self, value: Value) -> Value:
        for _ in range(MOST_STEPS):
            new = self._step(value)
            if new is None or new == value:
                return value
            value = new
        return value

    def _step(self, value: Value) -> Value | None:
        for each in self.rules.get(value.op.name, ()):
            new = each.apply(value, self.make)
            if new is not None:
                return new
        structural = STRUCTURAL.get(value.op.name)
        if structural is not None:
            new = structural(value, self.make)
            if new is not None:
                return new
        return _before_broadcast(value, self.make) if isinstance(value.op.lowering, Elementwise) else None


Make = Callable[[str, Sequence[Value], Mapping[str, Any]], Value]


def _before_broadcast(value: Value, make: Make) -> Value | None:
    """f(broadcast(a), broadcast(b)) = broadcast(f(a, b)) of single elements: computed once and not everywhere."""
    if value.type.shape == () or not value.node.inputs:
        return None
    scalars: list[Value] = []
    for operand in value.node.inputs:
        if operand.op.name != "broadcast_to" or not one_element(operand.node.inputs[0].type.shape):
            return None
        scalars.append(_as_scalar(operand.node.inputs[0], make))
    result = make(value.op.name, scalars, value.node.attrs)
    return make("broadcast_to", (result,), {"shape": value.type.shape})


def _as_scalar(value: Value, make: Make) -> Value:
    return value if value.type.shape == () else make("reshape", (value,), {"shape": ()})


def _power_of_two(value: Value, make: Make) -> Value | None:
    """x / 2**k = x * 2**-k, exactly: both round the same real number."""
    number = number_of(value.node.inputs[1])
    if number is None or not value.type.dtype.is_float or not np.isfinite(number) or number == 0:
        return None
    if abs(math.frexp(float(number))[0]) != 0.5:
        return None
    with np.errstate(all="ignore"):
        inverse = value.type.dtype.numpy.type(1) / number
    if not np.isfinite(inverse) or inverse == 0 or 1 / float(inverse) != float(number):
        return None
    factor = spread_constant(inverse, value.type.dtype, value.type.shape, make)
    return make("multiply", (value.node.inputs[0], factor), {})


def _cast(value: Value, make: Make) -> Value | None:
    """A cast to the same dtype is nothing; of two casts the first goes if it loses nothing that the second keeps."""
    (x,) = value.node.inputs
    if x.type.dtype is value.type.dtype:
        return x
    if x.op.name == "cast" and _skippable(x.node.inputs[0].type.dtype, x.type.dtype, value.type.dtype):
        return make("cast", x.node.inputs, value.node.attrs)
    return None


def _skippable(first: DType, middle: DType, last: DType) -> bool:
    if is_exact(first, middle):
        return True
    narrowing = first.is_integer and middle.is_integer and last.is_integer
    return narrowing and last.itemsize <= middle.itemsize  # both wrap: only the low bits count


def is_exact(first: DType, second: DType) -> bool:
    """Whether every value of `first` is a value of `second`."""
    if first is second or first.kind == "b":
        return True
    if first.is_float:
        return second.is_float and second.itemsize > first.itemsize
    if second.is_float:
        return first.itemsize * 8 <= second.digits
    if second.kind == "u":
        return first.kind == "u" and second.itemsize >= first.itemsize
    return second.kind == "i" and second.itemsize >= first.itemsize + (first.kind == "u")


def _transpose(value: Value, make: Make) -> Value | None:
    (x,) = value.node.inputs
    axes = value.node.attrs["axes"]
    if list(axes) == sorted(axes):
        return x
    if x.op.name == "transpose":
        inner = x.node.attrs["axes"]
        return make("transpose", x.node.inputs, {"axes": tuple(inner[a] for a in axes)})
    if x.op.name == "broadcast_to" and one_element(x.node.inputs[0].type.shape):
        return make("broadcast_to", (_as_scalar(x.node.inputs[0], make),), {"shape": value.type.shape})
    long = [a for a in axes if x.type.shape[a] != 1]
    if long == sorted(long):  # only axes of size 1 move
        return make("reshape", (x,), {"shape": value.type.shape})
    return None


def _reshape(value: Value, make: Make) -> Value | None:
    (x,) = value.node.inputs
    if x.type.shape == value.type.shape:
        return x
    if x.op.name == "reshape":
        return make("reshape", x.node.inputs, {"shape": value.type.shape})
    if x.op.name == "broadcast_to" and one_element(x.node.inputs[0].type.shape):
        return make("broadcast_to", (_as_scalar(x.node.inputs[0], make),), {"shape": value.type.shape})
    return None


def _broadcast(value: Value, make: Make) -> Value | None:
    (x,) = value.node.inputs
    if x.type.shape == value.type.shape:
        return x
    if x.op.name == "broadcast_to":
        return make("broadcast_to", x.node.inputs, {"shape": value.type.shape})
    if one_element(value.type.shape):
        return make("reshape", (x,), {"shape": value.type.shape})
    return None


def _slice(value: Value, make: Make) -> Value | None:
    (x,) = value.node.inputs
    attrs = value.node.attrs
    whole = all(s == 0 for s in attrs["starts"]) and all(s == 1 for s in attrs["steps"])
    if whole and x.type.shape == value.type.shape:
        return x
    if x.op.name == "broadcast_to" and one_element(x.node.inputs[0].type.shape):
        return make("broadcast_to", (_as_scalar(x.node.inputs[0], make),), {"shape": value.type.shape})
    return None


def _fold(value: Value, make: Make) -> Value | None:
    """A product, maximum or minimum over axes of size 1 is the operand; a sum is 0.0 + x, which is not x for -0.0."""
    (x,) = value.node.inputs
    if any(x.type.shape[axis] != 1 for axis in value.node.attrs["axes"]):
        zeros = _fold_of_zeros(value, make) if value.op.name == "sum" else None
        return zeros or _fold_of_reshaped(value, make)
    result = make("cast", (x,), {"dtype": value.type.dtype})
    if value.op.name == "sum" and value.type.dtype.is_float:
        result = make("add", (result, spread_constant(0.0, value.type.dtype, x.type.shape, make)), {})
    return make("reshape", (result,), {"shape": value.type.shape})


def _fold_of_reshaped(value: Value, make: Make) -> Value | None:
    """A fold over the first axes of reshaped x, which is computed, is one of x itself: it may join the kernel of x."""
    (x,) = value.node.inputs
    axes = value.node.attrs["axes"]
    if x.op.name != "reshape" or axes != tuple(range(len(axes))):
        return None
    (whole,), kept = x.node.inputs, x.type.shape[len(axes) :]
    first = whole.type.rank - len(kept)
    if first < 1 or whole.type.shape[first:] != kept or not isinstance(whole.op.lowering, Elementwise):
        return None
    result = make(value.op.name, (whole,), {**value.node.attrs, "axes": tuple(range(first)), "keepdims": False})
    return make("reshape", (result,), {"shape": value.type.shape})


def _fold_of_zeros(value: Value, make: Make) -> Value | None:
    """The sum of zeros is 0.0, of -0.0 too, since it starts from 0.0."""
    number = number_of(value.node.inputs[0])
    return spread_constant(0, value.type.dtype, value.type.shape, make) if number is not None and number == 0 else None


STRUCTURAL: dict[str, Callable[[Value, Make], Value | None]] = {
    "divide": _power_of_two,
    "cast": _cast,
    "transpose": _transpose,
    "reshape": _reshape,
    "broadcast_to": _broadcast,
    "slice": _slice,
    "sum": _fold,
    "prod": _fold,
    "max": _fold,
    "min": _fold,
    "any": _fold,
    "all": _fold,
}
