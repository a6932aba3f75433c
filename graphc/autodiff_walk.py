"""The walk backwards that every derivative is made of: cotangents flow from outputs to operands, node by node.

What flows into a value is summed in one place and in a fixed order; each op's rule is asked once a node. Nodes that a
rule builds know their forward node and its source line.

`where` cuts: the cotangent of a branch carries its predicate (`Flow.taken`) through elementwise ops and through those
that only move or fold values (`_followed`), and is masked again where it leaves them, so that 0 * inf in the branch
not taken never reaches an input. A contraction ends the region: its operands' rows get an exact 0, no predicate.
Enter at `Walk`; `graphc.autodiff` is what users call. There is no code of any op here, only of their kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from graphc.build import OPS, Tensor, apply, lines_of
from graphc.errors import GradientError, InternalError
from graphc.graph import Node, Value, describe, inherit_origin, topological_order
from graphc.ops.lowering import Concat, Elementwise, Gather, Movement, Reduction, ScatterAdd
from graphc.stabilize import scalar, scalar_value
from graphc.text import line_of

_CUT = "stop_gradient"


class Predicate:
    """A bool tensor that is built only if it is needed: a condition of `where`, and, or, not of such.

    The op "before" is a predicate of a node's result as one of its operand: true where a true element comes from.
    """

    __slots__ = ("args", "at", "op", "tensor")

    def __init__(self, op: str, args: tuple[Value | Predicate, ...], at: tuple[Node, int] | None = None) -> None:
        self.op, self.args, self.at = op, args, at
        self.tensor: Tensor | None = None

    def build(self) -> Tensor:
        """The tensor; without recursion, since every `where` of a chain adds a level."""
        stack = [self]
        while stack:
            top = stack[-1]
            if top.tensor is not None:  # it was needed twice
                stack.pop()
                continue
            args = [arg.tensor if isinstance(arg, Predicate) else Tensor(arg) for arg in top.args]
            missing = [arg for arg in top.args if isinstance(arg, Predicate) and arg.tensor is None]
            if missing:
                stack += missing
                continue
            top.tensor = top._combined(cast(list[Tensor], args))
            stack.pop()
        assert self.tensor is not None
        return self.tensor

    def _combined(self, args: list[Tensor]) -> Tensor:
        if self.op == "is":
            return args[0]
        if self.at is None:
            return cast(Tensor, apply(self.op, *args))
        # An op that moves values takes cotangents back by moving and adding them: a count of true elements, so.
        node, position = self.at
        rule = OPS["sum"].gradient if isinstance(node.op.lowering, Reduction) else node.op.gradient
        assert rule is not None
        count = rule(node, [apply("cast", args[0], dtype=node.types[0].dtype)])[position]
        return cast(Tensor, apply("not_equal", count, Tensor(scalar(0.0, count.type))))


@dataclass(frozen=True)
class Flow:
    """A cotangent. Where `taken` is false it counts as 0, whatever it holds; `clean`: it does hold 0 there."""

    tensor: Tensor
    taken: Predicate | None = None
    clean: bool = True

    def settled(self) -> Tensor:
        """The cotangent as it counts."""
        if self.taken is None or self.clean:
            return self.tensor
        zero = Tensor(scalar(0.0, self.tensor.type))
        return cast(Tensor, apply("where", self.taken.build(), self.tensor, zero))


class Walk:
    """One walk backwards. `depending` holds the values through which the outputs depend on `wrt`."""

    def __init__(self, outputs: Sequence[Value], wrt: Sequence[Value]) -> None:
        self.outputs, self.wrt = tuple(outputs), tuple(wrt)
        self.nodes: list[Node] = []
        self.depending: set[Value] = set()
        self.cut_at: dict[Node, None] = {}  # nodes that depend on wrt and let no gradient through
        self.reached: set[Value] = set(outputs)  # those of `depending` that a way leads to from the outputs
        self.flows: dict[Value, list[Flow]] = {}
        self.predicates: dict[tuple[str, tuple[object, ...]], Predicate] = {}
        targets = set(wrt)
        for node in topological_order([value.node for value in self.outputs]):
            self.depending.update(value for value in node.outputs if value in targets)
            if not any(value in self.depending for value in node.inputs):
                continue
            differentiable = [v for v in node.outputs if v.type.dtype.is_float and node.op.name != _CUT]
            self.depending.update(differentiable)
            if differentiable:
                self.nodes.append(node)
            else:
                self.cut_at[node] = None
        for node in reversed(self.nodes):
            if any(value in self.reached for value in node.outputs):
                self.reached.update(value for value in node.inputs if value in self.depending)

    def add(self, value: Value, flow: Flow) -> None:
        if value in self.depending:
            self.flows.setdefault(value, []).append(flow)

    def run(self) -> dict[Value, Tensor]:
        """The gradient of each of `wrt` that something flows into."""
        targets = set(self.wrt)
        found: dict[Value, Tensor] = {}
        totals: dict[Value, Flow] = {}
        for node in reversed(self.nodes):
            flows = [self.total(value) for value in node.outputs]
            totals.update((v, flow) for v, flow in zip(node.outputs, flows, strict=True) if flow and v in targets)
            if any(flow is not None for flow in flows):
                with inherit_origin(node, gradient=True):
                    self.visit(node, flows)
        for value in self.wrt:
            flow = totals.get(value) or self.total(value)
            if flow is not None:
                totals[value] = flow
                with inherit_origin(value.node, gradient=True):
                    found[value] = flow.settled()
        return found

    def total(self, value: Value) -> Flow | None:
        """The sum of all that flows into `value`, in the order of the walk: the one place where cotangents meet."""
        flows = self.flows.pop(value, [])
        if len(flows) <= 1:
            return flows[0] if flows else None
        with inherit_origin(value.node, gradient=True):
            if all(flow.taken is flows[0].taken for flow in flows):
                taken, clean = flows[0].taken, all(flow.clean for flow in flows)
                tensors = [flow.tensor for flow in flows]
            else:
                tensors, taken, clean = [flow.settled() for flow in flows], flows[0].taken, True
                for flow in flows[1:]:
                    taken = self.either(taken, flow.taken)
            result = tensors[0]
            for tensor in tensors[1:]:
                result = apply("add", result, tensor)
            return Flow(result, taken, clean)

    def visit(self, node: Node, flows: Sequence[Flow | None]) -> None:
        """Ask the rule of `node` and hand what it returns to the operands."""
        rule = node.op.gradient
        if rule is None:
            names = ", ".join(dict.fromkeys(describe(v) for v in node.inputs if v in self.depending))
            message = f"grad: the op {node.op.name} (of {names}) has no gradient"
            raise GradientError(message, lines_of(Tensor(node.outputs[0])), "put graphc.stop_gradient around it")
        flow = flows[0]
        elementwise = isinstance(node.op.lowering, Elementwise) and flow is not None
        cotangents = [f and (f.tensor if elementwise else f.settled()) for f in flows]
        parts = rule(node, cotangents)
        if len(parts) != len(node.inputs):
            raise InternalError(f"the gradient rule of {node.op.name} gave {len(parts)} parts: {_text(node)}")
        for position, (value, part) in enumerate(zip(node.inputs, parts, strict=True)):
            if part is None or value not in self.depending:
                continue
            if part.type != value.type:
                problem = f"the gradient rule of {node.op.name} gave {part.type} for operand {position} of {value.type}"
                raise InternalError(f"{problem}: {_text(node)}")
            if flow is None or not (elementwise or _followed(node)):
                self.add(value, Flow(part))
            else:
                self.add(value, (self.through if elementwise else self.before)(node, position, part, flow))

    def before(self, node: Node, position: int, part: Tensor, flow: Flow) -> Flow:
        """`part` as a flow into an operand of a node that moves or folds values."""
        if flow.taken is None:
            return Flow(part)
        key = ("before", (flow.taken, node, position))
        taken = self.predicates.setdefault(key, Predicate("before", (flow.taken,), (node, position)))
        return Flow(part, taken, clean=node.op.name != "prod")  # others take 0 to 0

    def through(self, node: Node, position: int, part: Tensor, flow: Flow) -> Flow:
        """`part` as a flow into an operand of an elementwise node, given the flow into its result."""
        taken = flow.taken
        if node.op.name == "where":
            branch = self.predicate("is", node.inputs[0])
            branch = self.predicate("logical_not", branch) if position == 2 else branch
            taken = branch if taken is None else self.predicate("logical_and", taken, branch)
        keeps_zero = node.op.name in _KEEP_ZERO or _scales(node, position)
        return Flow(part, taken, flow.clean and (taken is None or keeps_zero))

    def either(self, a: Predicate | None, b: Predicate | None) -> Predicate | None:
        """The predicate of a sum of two flows; None where that is always true."""
        if a is None or b is None or _opposite(a, b):
            return None
        if a.op == b.op == "logical_and" and a.args[0] is b.args[0] and _opposite(a.args[1], b.args[1]):
            return cast(Predicate, a.args[0])
        return self.predicate("logical_or", a, b)

    def predicate(self, op: str, *args: Value | Predicate) -> Predicate:
        """One object for each predicate, so that equal ones are the same."""
        if len(args) == 2 and args[0] is args[1]:
            return cast(Predicate, args[0])
        return self.predicates.setdefault((op, args), Predicate(op, args))


def _opposite(a: object, b: object) -> bool:
    """Whether two predicates are the two branches of one `where`."""
    pairs = ((a, b), (b, a))
    return any(isinstance(p, Predicate) and p.op == "logical_not" and p.args[0] is q for p, q in pairs)


# Elementwise ops whose rules turn a cotangent of 0 into 0, whatever the operands are.
_KEEP_ZERO = frozenset({"add", "subtract", "negative", "cast", "where", "relu"})


def _scales(node: Node, position: int) -> bool:
    """Whether the node multiplies the operand by a finite number or divides it by one that is not 0."""
    if node.op.name == "multiply" or (node.op.name == "divide" and position == 0):
        number = scalar_value(node.inputs[1 - position])
        return number is not None and 0.0 < abs(number) < float("inf")
    return False


def _followed(node: Node) -> bool:
    """Whether predicates pass the node: ops that move values, and reductions, whose results need all of their row."""
    return isinstance(node.op.lowering, (Movement, Concat, Gather, ScatterAdd, Reduction)) and len(node.types) == 1


def _text(node: Node) -> str:
    return line_of(node.outputs[0])
