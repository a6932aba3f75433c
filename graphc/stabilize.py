"""The stabilising table: rewrites that keep a formula from overflowing, whatever way its user wrote it.

Every rule is right in real arithmetic and gives the right value where the original did, at infinities and NaNs too;
where the original overflowed or lost all digits, the new form does not. `RULES` is the table; each use is told to the
log word `stabilize`. Off with `config(stabilize=False)`. Never log(exp(x)) -> x: a user may mean the overflow.
Enter at `stabilize`. To add a rule, write a function `(value, at) -> Value | None` and enter it under its root's op.
Patterns see through `broadcast_to` of scalar constants; casts are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from graphc.build import OPS
from graphc.conversion import cast_array, widened
from graphc.graph import ConstantData, Graph, Node, Value, make_node, origin_of
from graphc.observe import log
from graphc.settings import current
from graphc.types import Shape, TensorType

__all__ = ["RULES", "scalar", "scalar_value", "stabilize"]


def stabilize(graph: Graph, keep: Collection[Value] = ()) -> Graph:
    """`graph` with the table applied, operands first. Patterns never look inside of the values in `keep`.

    Applying it again changes nothing. With `config(stabilize=False)` the graph itself is returned.
    """
    if not current().stabilize:
        return graph
    kept, opaque = set(keep), set(keep)

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        rules = RULES.get(node.op.name)
        new = node if inputs == node.inputs else make_node(node.op, inputs, node.attrs)
        outputs = new.outputs
        if rules is not None:
            at = _Matcher(opaque, outputs[0])
            for rule in rules:
                found = rule.rewrite(outputs[0], at)
                if found is not None and found != outputs[0]:
                    outputs = (found,)
                    log("stabilize", partial(_report, rule, node))
                    break
        opaque.update(outputs[value.index] for value in node.outputs if value in kept)
        return outputs

    return graph.rewrite(visit)


def _report(rule: Rule, node: Node) -> str:
    origin = origin_of(node)
    where = f" at {origin.lines[0]}" if origin and origin.lines else ""
    return f"{rule.name}: {rule.algebra}{where}"


def apply(op: str, *inputs: Value, **attrs: object) -> Value:
    """The first result of a node of `op`."""
    return make_node(OPS[op], inputs, attrs).outputs[0]


def scalar(value: float, type_: TensorType) -> Value:
    """`value` as a constant of `type_`: a scalar of its dtype, broadcast to its shape."""
    made = apply("constant", data=ConstantData(cast_array(np.asarray(value), type_.dtype)))
    return _broadcast(made, type_.shape)


def scalar_value(value: Value) -> float | None:
    """The number that every element of `value` is, if it is a constant of one element, maybe broadcast or reshaped."""
    while value.op.name in ("broadcast_to", "reshape"):
        value = value.node.inputs[0]
    if value.op.name != "constant" or value.node.attrs["data"].array.size != 1:
        return None
    return float(widened(value.node.attrs["data"].array).reshape(()))


def _broadcast(value: Value, shape: Shape) -> Value:
    return value if value.type.shape == shape else apply("broadcast_to", value, shape=shape)


def _negative(value: Value) -> Value:
    return value.node.inputs[0] if value.op.name == "negative" else apply("negative", value)


def _reducible(shape: Shape, axes: tuple[int, ...]) -> bool:
    """Whether there is a maximum over `axes`: some axis, and none that is known to be empty."""
    return bool(axes) and all(shape[axis] != 0 for axis in axes)


class _Spread(NamedTuple):
    """A reduction seen from the full shape: `reduction` over `axes` of its operand, spread back over them."""

    reduction: Value
    axes: tuple[int, ...]


class _Matcher:
    """Takes patterns apart; a value in `opaque` is a leaf, unless it is the `root` of the pattern."""

    def __init__(self, opaque: Collection[Value], root: Value) -> None:
        self.opaque, self.root = opaque, root

    def open(self, value: Value) -> bool:
        """Whether one may look at how `value` is made."""
        return value == self.root or value not in self.opaque

    def args(self, value: Value, op: str) -> tuple[Value, ...] | None:
        """The operands of `value` if `op` makes it and one may look inside."""
        return value.node.inputs if value.op.name == op and self.open(value) else None

    def arg(self, value: Value, op: str) -> Value | None:
        found = self.args(value, op)
        return None if found is None else found[0]

    def plus(self, value: Value, number: float) -> Value | None:
        """`x` if `value` is number + x, x + number or x - (-number)."""
        found = self.args(value, "add")
        if found is not None:
            for a, b in (found, found[::-1]):
                if scalar_value(a) == number:
                    return b
        found = self.args(value, "subtract")
        return found[0] if found is not None and scalar_value(found[1]) == -number else None

    def one_minus(self, value: Value) -> Value | None:
        """`x` if `value` is 1 - x."""
        found = self.args(value, "subtract")
        return found[1] if found is not None and scalar_value(found[0]) == 1.0 else None

    def spread(self, value: Value, op: str, full: Shape) -> _Spread | None:
        """`value`, of shape `full`, as a reduction `op` of such a shape, each result spread over its own operands."""
        steps = [value]
        while steps[-1].op.name in ("broadcast_to", "reshape") and self.open(steps[-1]):
            steps.append(steps[-1].node.inputs[0])
        reduction = steps[-1]
        found = self.args(reduction, op)
        if found is None or found[0].type.shape != full or value.type.shape != full:
            return None
        axes = tuple(reduction.node.attrs["axes"])
        if not _reducible(full, axes):
            return None
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(full))
        return _Spread(reduction, axes) if _spreads(reduction.type.shape, steps[-2::-1], kept) else None

    def is_shifted(self, x: Value, axes: tuple[int, ...]) -> bool:
        """Whether `x` is y - max(y) over `axes` already, with or without stop_gradient or our guard at infinities."""
        found = self.args(x, "subtract")
        if found is None:
            return False
        y, shift = found
        steps: list[Value] = []  # the way from the maximum to x, nearest to x first
        while True:
            if shift.op.name in ("broadcast_to", "reshape"):
                steps.append(shift)
            elif shift.op.name == "where":
                if scalar_value(shift.node.inputs[2]) != 0:
                    return False
                shift = shift.node.inputs[1]
                continue
            elif shift.op.name != "stop_gradient":
                break
            shift = shift.node.inputs[0]
        if shift.op.name != "max" or tuple(shift.node.attrs["axes"]) != axes:
            return False
        source = shift.node.inputs[0]
        if source != y and not (source.op.name == "stop_gradient" and source.node.inputs[0] == y):
            return False
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.type.shape))
        return _spreads(shift.type.shape, steps[::-1], kept)

    def softmax(self, value: Value) -> tuple[Value, _Spread] | None:
        """(x, the sum) if `value` is exp(x) / sum(exp(x)) over some axes."""
        found = self.args(value, "divide")
        if found is None:
            return None
        x = self.arg(found[0], "exp")
        total = self.spread(found[1], "sum", value.type.shape)
        if x is None or total is None or total.reduction.node.inputs[0] != found[0]:
            return None
        return x, total


def _spreads(shape: Shape, steps: Sequence[Value], kept: Shape) -> bool:
    """Whether `steps`, from a reduction of `shape` on, put each result over the elements that it was made of.

    They do if reshapes lead to `kept` (the full shape with 1 at the reduced axes; leading ones may be missing) and all
    others are broadcasts. A reshape keeps the order of the elements, so what it passes through does not matter.
    """
    count = 0
    while count < len(steps) and steps[count].op.name == "reshape":
        shape = steps[count].type.shape
        count += 1
    missing = len(kept) - len(shape)
    lines_up = missing >= 0 and shape == kept[missing:] and set(kept[:missing]) <= {1}
    return lines_up and all(step.op.name == "broadcast_to" for step in steps[count:])


def _maximum(x: Value, axes: tuple[int, ...]) -> Value:
    """max(x) over `axes`, kept as 1, without gradient, and 0 where it is not finite (inf - inf would be NaN)."""
    largest = apply("stop_gradient", apply("max", x, axes=axes, keepdims=True))
    finite = apply("less", apply("abs", largest), scalar(np.inf, largest.type))  # false for NaN
    return apply("where", finite, largest, scalar(0.0, largest.type))


def _shifted(x: Value, axes: tuple[int, ...], at: _Matcher) -> Value:
    """`x` minus its maximum, of which the result of a softmax does not depend; as it is if that was done before."""
    if at.is_shifted(x, axes):
        y, shift = x.node.inputs
        if "stop_gradient" in (shift.op.name, _base(shift).op.name) or _guarded(shift):
            return x
        return apply("subtract", y, apply("stop_gradient", shift))
    return apply("subtract", x, _broadcast(_maximum(x, axes), x.type.shape))


def _base(value: Value) -> Value:
    while value.op.name in ("broadcast_to", "reshape"):
        value = value.node.inputs[0]
    return value


def _guarded(value: Value) -> bool:
    base = _base(value)
    return base.op.name == "where" and base.node.inputs[1].op.name == "stop_gradient"


def _exp_sum(x: Value, axes: tuple[int, ...], like: Value) -> tuple[Value, Value]:
    """exp(x) and its sum over `axes`, with the keepdims of the reduction `like`."""
    exps = apply("exp", x)
    return exps, apply("sum", exps, **{**like.node.attrs, "axes": axes})


def _respread(new: Value, old: Value, template: Value) -> Value:
    """`new` through the reshapes and broadcasts that lead from `old` to `template`."""
    steps = []
    while template != old:
        steps.append(template.node)
        template = template.node.inputs[0]
    for node in reversed(steps):
        new = apply(node.op.name, new, **node.attrs)
    return new


# The rules. Each gets the value at its root, whose operands are rewritten already, and gives the new value or None.


def _softmax(value: Value, at: _Matcher) -> Value | None:
    found = at.softmax(value)
    if found is None:
        return None
    x, total = found
    exps, sums = _exp_sum(_shifted(x, total.axes, at), total.axes, total.reduction)
    return apply("divide", exps, _respread(sums, total.reduction, value.node.inputs[1]))


_MOVES = ("reshape", "transpose", "broadcast_to", "slice", "take_along_axis")


def _log_softmax(value: Value, at: _Matcher) -> Value | None:
    moves: list[Node] = []
    inner = value.node.inputs[0]
    while inner.op.name in _MOVES and at.open(inner):
        moves.append(inner.node)
        inner = inner.node.inputs[0]
    found = at.softmax(inner)
    if found is None:
        return None
    x, total = found
    shifted = _shifted(x, total.axes, at)
    _, sums = _exp_sum(shifted, total.axes, total.reduction)
    logs = _respread(apply("log", sums), total.reduction, inner.node.inputs[1])
    result = apply("subtract", shifted, logs)
    for node in reversed(moves):
        result = make_node(node.op, (result, *node.inputs[1:]), node.attrs).outputs[0]
    return result


def _log_sum_exp(value: Value, at: _Matcher) -> Value | None:
    total = value.node.inputs[0]
    exps = at.arg(total, "sum")
    x = None if exps is None else at.arg(exps, "exp")
    if exps is None or x is None:
        return None
    axes = tuple(total.node.attrs["axes"])
    if not _reducible(x.type.shape, axes) or at.is_shifted(x, axes):
        return None
    largest = _maximum(x, axes)
    _, sums = _exp_sum(apply("subtract", x, _broadcast(largest, x.type.shape)), axes, total)
    if largest.type.shape != sums.type.shape:
        largest = apply("reshape", largest, shape=sums.type.shape)
    return apply("add", largest, apply("log", sums))


def _log_one_plus_exp(value: Value, at: _Matcher) -> Value | None:
    exps = at.plus(value.node.inputs[0], 1.0)
    x = None if exps is None else at.arg(exps, "exp")
    return None if x is None else apply("softplus", x)


def _log_sigmoid(value: Value, at: _Matcher) -> Value | None:
    x = at.arg(value.node.inputs[0], "sigmoid")
    return None if x is None else _negative(apply("softplus", _negative(x)))


def _log_one_plus(value: Value, at: _Matcher) -> Value | None:
    x = at.plus(value.node.inputs[0], 1.0)
    if x is not None:
        return apply("log1p", x)
    x = at.one_minus(value.node.inputs[0])
    return None if x is None else apply("log1p", _negative(x))


def _one_minus_sigmoid(value: Value, at: _Matcher) -> Value | None:
    inner = at.one_minus(value)
    x = None if inner is None else at.arg(inner, "sigmoid")
    return None if x is None else apply("sigmoid", _negative(x))


def _exp_minus_one(value: Value, at: _Matcher) -> Value | None:
    exps = at.plus(value, -1.0)
    x = None if exps is None else at.arg(exps, "exp")
    return None if x is None else apply("expm1", x)


def _logistic(value: Value, at: _Matcher) -> Value | None:
    one, below = value.node.inputs
    exps = at.plus(below, 1.0) if scalar_value(one) == 1.0 else None
    x = None if exps is None else at.arg(exps, "exp")
    return None if x is None else apply("sigmoid", _negative(x))


@dataclass(frozen=True)
class Rule:
    """One line of the table: its name, its algebra, and the rewrite of a value that the op made."""

    name: str
    algebra: str
    rewrite: Callable[[Value, _Matcher], Value | None]


RULES: dict[str, tuple[Rule, ...]] = {
    "divide": (
        Rule("softmax", "exp(x) / sum(exp(x)) = exp(x - max(x)) / sum(exp(x - max(x)))", _softmax),
        Rule("logistic", "1 / (1 + exp(x)) = sigmoid(-x)", _logistic),
    ),
    "log": (
        Rule("log_softmax", "log(exp(x) / sum(exp(x))) = (x - max(x)) - log(sum(exp(x - max(x))))", _log_softmax),
        Rule("log_sum_exp", "log(sum(exp(x))) = max(x) + log(sum(exp(x - max(x))))", _log_sum_exp),
        Rule("log_one_plus_exp", "log(1 + exp(x)) = softplus(x)", _log_one_plus_exp),
        Rule("log_sigmoid", "log(sigmoid(x)) = -softplus(-x)", _log_sigmoid),
        Rule("log_one_plus", "log(1 + x) = log1p(x)", _log_one_plus),
    ),
    "subtract": (
        # With log_sigmoid this makes log(1 - sigmoid(x)) = -softplus(x), since operands are rewritten first.
        Rule("one_minus_sigmoid", "1 - sigmoid(x) = sigmoid(-x)", _one_minus_sigmoid),
        Rule("exp_minus_one", "exp(x) - 1 = expm1(x)", _exp_minus_one),
    ),
    "add": (Rule("add_minus_one", "exp(x) + -1 = expm1(x)", _exp_minus_one),),
}
