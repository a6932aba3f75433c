"""Differentiation of graphs: `grad` and `vjp` add nodes that compute gradients, each op's by its own rule.

The walk goes backwards over the nodes that lie between `wrt` and the outputs. What flows into a value is summed in one
place and in a fixed order; each rule is asked once a node. Nodes that a rule builds know their forward node and its
source line. Since gradients are nodes, gradients of gradients are the same walk again.
The forward graph is stabilised first (`graphc.stabilize`), so that the gradients of a loss are as stable as its value.

`where` cuts: the cotangent of a branch carries the predicate through elementwise ops and is masked again where it
leaves them, so that 0 * inf in the branch not taken never reaches an input.
Enter at `grad`; an op becomes differentiable by the `gradient` of its entry in `graphc/ops/`, never by code here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from graphc.build import Tensor, apply, lines_of
from graphc.errors import ArgumentError, GradientError, InternalError
from graphc.graph import Graph, Node, Value, describe, inherit_origin, topological_order
from graphc.ops.lowering import Elementwise
from graphc.ops.operands import as_tensor
from graphc.stabilize import scalar, scalar_value, stabilize
from graphc.text import line_of

_CUT = "stop_gradient"


def grad(loss: Tensor, wrt: Any, *, unused: str = "error") -> Any:
    """The gradient of `loss`, a float scalar, with respect to `wrt`: one Tensor for a tensor, a list for a sequence.

    `wrt` may hold placeholders, parameters and intermediate tensors (a dict gives a dict). Raises GradientError for a
    loss that is no float scalar, for something in `wrt` that is no float or that the loss does not depend on (with
    `unused="zero"`: zeros), and for an op without a gradient.
    """
    _check_tensor("the loss", loss)
    if loss.shape != ():
        hint = "reduce it first: .sum() or .mean(); graphc.vjp takes outputs of any shape"
        raise GradientError(f"grad: {_named(loss)} is no scalar", lines_of(loss), hint)
    _check_float("grad", loss)
    return vjp(loss, wrt, None, unused=unused)


def vjp(outputs: Any, wrt: Any, cotangents: Any, *, unused: str = "error") -> Any:
    """The product of `cotangents` with the Jacobian of `outputs`: for each of `wrt`, sum(cotangent * d output / d wrt).

    `outputs` is a tensor or a sequence of them, `cotangents` the same of equal types (None: all ones). The result has
    the form of `wrt`, as for `grad`, which says what is raised.
    """
    if unused not in ("error", "zero"):
        raise ArgumentError(f"unused must be 'error' or 'zero', not {unused!r}")
    results = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    targets = _targets(wrt)
    for name, tensors in (("an output", results), ("wrt", targets)):
        for tensor in tensors:
            _check_tensor(name, tensor)
            _check_float("grad", tensor)
    seeds = _seeds(results, outputs, cotangents)

    refs = [t.ref for t in (*results, *targets)]
    graph = stabilize(Graph((), tuple(refs)), keep=[t.ref for t in targets])
    walk = _Walk(graph.outputs[: len(results)], graph.outputs[len(results) :])
    for value, seed in zip(walk.outputs, seeds, strict=True):
        walk.add(value, _Flow(seed))
    found = walk.run()
    gradients: list[Tensor] = []
    for tensor, value in zip(targets, walk.wrt, strict=True):
        gradient = found.get(value)
        if gradient is None:
            if unused == "error" and value not in walk.reached:
                _not_connected(results[0], tensor, _Walk(walk.outputs, [value]))
            gradient = Tensor(scalar(0.0, value.type))
        gradients.append(gradient)
    if isinstance(wrt, Tensor):
        return gradients[0]
    return dict(zip(wrt, gradients, strict=True)) if isinstance(wrt, Mapping) else gradients


def _targets(wrt: Any) -> list[Tensor]:
    if isinstance(wrt, Tensor):
        return [wrt]
    if isinstance(wrt, Mapping):
        return list(wrt.values())
    if isinstance(wrt, Sequence):
        return list(wrt)
    raise ArgumentError(f"wrt must be a tensor, a sequence or a dict of tensors, not {type(wrt).__name__}")


def _seeds(results: list[Tensor], outputs: Any, cotangents: Any) -> list[Tensor]:
    """The cotangents as tensors, checked against the outputs; ones for None."""
    if cotangents is None:
        seeds = []
        for tensor in results:
            with inherit_origin(tensor.ref.node, gradient=True):
                seeds.append(Tensor(scalar(1.0, tensor.type)))
        return seeds
    given = [cotangents] if isinstance(outputs, Tensor) else list(cotangents)
    if len(given) != len(results):
        raise ArgumentError(f"vjp: {len(results)} outputs but {len(given)} cotangents")
    seeds = [as_tensor(item) for item in given]
    for tensor, seed in zip(results, seeds, strict=True):
        if seed.type != tensor.type:
            message = f"vjp: the cotangent of {_named(tensor)} is {seed.type}"
            raise GradientError(message, lines_of(tensor, seed), "a cotangent has the type of its output")
    return seeds


class _Predicate:
    """A bool tensor that is built only if it is needed: a condition of `where`, and, or, not of such."""

    __slots__ = ("args", "op", "tensor")

    def __init__(self, op: str, args: tuple[Value | _Predicate, ...]) -> None:
        self.op, self.args = op, args
        self.tensor: Tensor | None = None

    def build(self) -> Tensor:
        """The tensor; without recursion, since every `where` of a chain adds a level."""
        stack = [self]
        while stack:
            top = stack[-1]
            args = [arg.tensor if isinstance(arg, _Predicate) else Tensor(arg) for arg in top.args]
            missing = [arg for arg in top.args if isinstance(arg, _Predicate) and arg.tensor is None]
            if missing:
                stack += missing
                continue
            top.tensor = args[0] if top.op == "is" else cast(Tensor, apply(top.op, *cast(list[Tensor], args)))
            stack.pop()
        assert self.tensor is not None
        return self.tensor


@dataclass(frozen=True)
class _Flow:
    """A cotangent. Where `taken` is false it counts as 0, whatever it holds; `clean`: it does hold 0 there."""

    tensor: Tensor
    taken: _Predicate | None = None
    clean: bool = True

    def settled(self) -> Tensor:
        """The cotangent as it counts."""
        if self.taken is None or self.clean:
            return self.tensor
        zero = Tensor(scalar(0.0, self.tensor.type))
        return cast(Tensor, apply("where", self.taken.build(), self.tensor, zero))


class _Walk:
    """One walk backwards. `depending` holds the values through which the outputs depend on `wrt`."""

    def __init__(self, outputs: Sequence[Value], wrt: Sequence[Value]) -> None:
        self.outputs, self.wrt = tuple(outputs), tuple(wrt)
        self.nodes: list[Node] = []
        self.depending: set[Value] = set()
        self.cut_at: dict[Node, None] = {}  # nodes that depend on wrt and let no gradient through
        self.reached: set[Value] = set(outputs)  # those of `depending` that a way leads to from the outputs
        self.flows: dict[Value, list[_Flow]] = {}
        self.predicates: dict[tuple[str, tuple[Value | _Predicate, ...]], _Predicate] = {}
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

    def add(self, value: Value, flow: _Flow) -> None:
        if value in self.depending:
            self.flows.setdefault(value, []).append(flow)

    def run(self) -> dict[Value, Tensor]:
        """The gradient of each of `wrt` that something flows into."""
        targets = set(self.wrt)
        found: dict[Value, Tensor] = {}
        totals: dict[Value, _Flow] = {}
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

    def total(self, value: Value) -> _Flow | None:
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
                    taken = self.predicate("logical_or", taken, flow.taken) if taken and flow.taken else None
            result = tensors[0]
            for tensor in tensors[1:]:
                result = apply("add", result, tensor)
            return _Flow(result, taken, clean)

    def visit(self, node: Node, flows: Sequence[_Flow | None]) -> None:
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
            self.add(value, self.through(node, position, part, flow) if elementwise and flow else _Flow(part))


    def through(self, node: Node, position: int, part: Tensor, flow: _Flow) -> _Flow:
        """`part` as a flow into an operand of an elementwise node, given the flow into its result."""
        taken = flow.taken
        if node.op.name == "where":
            branch = self.predicate("is", node.inputs[0])
            branch = self.predicate("logical_not", branch) if position == 2 else branch
            taken = branch if taken is None else self.predicate("logical_and", taken, branch)
        keeps_zero = node.op.name in _KEEP_ZERO or _scales(node, position)
        return _Flow(part, taken, flow.clean and (taken is None or keeps_zero))

    def predicate(self, op: str, *args: Value | _Predicate) -> _Predicate:
        """One object for each predicate, so that equal ones are the same."""
        if len(args) == 2 and args[0] is args[1]:
            return cast(_Predicate, args[0])
        return self.predicates.setdefault((op, args), _Predicate(op, args))


# Elementwise ops whose rules turn a cotangent of 0 into 0, whatever the operands are.
_KEEP_ZERO = frozenset({"add", "subtract", "negative", "cast", "where", "relu"})


def _scales(node: Node, position: int) -> bool:
    """Whether the node multiplies the operand by a finite number or divides it by one that is not 0."""
    if node.op.name == "multiply" or (node.op.name == "divide" and position == 0):
        number = scalar_value(node.inputs[1 - position])
        return number is not None and 0.0 < abs(number) < float("inf")
    return False


def _text(node: Node) -> str:
    return line_of(node.outputs[0])


def _named(tensor: Tensor) -> str:
    return f"{describe(tensor.ref)} ({tensor.type})"


def _check_tensor(what: str, tensor: Any) -> None:
    if not isinstance(tensor, Tensor):
        raise ArgumentError(f"grad: {what} must be a Tensor, not {type(tensor).__name__}")


def _check_float(what: str, tensor: Tensor) -> None:
    if not tensor.dtype.is_float:
        hint = f"convert it before it is used: {describe(tensor.ref)}.astype('float32')"
        raise GradientError(f"{what}: {_named(tensor)} is no float, so it has no gradient", lines_of(tensor), hint)


def _not_connected(loss: Tensor, tensor: Tensor, walk: _Walk) -> NoReturn:
    """The error for a tensor that the loss does not depend on, or only in ways that no gradient takes."""
    hint = 'unused="zero" gives zeros for it'
    if walk.cut_at:
        ops = ", ".join(dict.fromkeys(node.op.name for node in walk.cut_at))
        message = f"grad: {_named(loss)} depends on {_named(tensor)} only through {ops}, which no gradient passes"
    else:
        message = f"grad: {_named(loss)} does not depend on {_named(tensor)}"
    raise GradientError(message, lines_of(tensor, loss), hint)
