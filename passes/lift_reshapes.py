"""What is computed from a product of stacked rows has the shape of the product, and takes its stacks at the end.

`x[b,t,d] @ w` is one product of b*t rows, reshaped to [b,t,n]. Elementwise nodes behind that reshape would have other
loops than the product, and no epilogue could hold them. So the reshape is moved behind them:

    f(reshape(p, [b,t,n]), y, broadcast(bias))    reshape(f(p, reshape(y, [b*t,n]), broadcast(bias)), [b,t,n])
    sum(reshape(p, [b,t,n]), axis=-1)             reshape(sum(p, axis=-1), [b,t])
    sum(reshape(p, [b,t,n]), axes=(0, 1))         sum(p, axis=0)

It ends at what looks at the stacks one by one, cancels where the next product stacks the rows again, and is free at an
output, whose memory is the same either way (`graphc.loops.aliases`). Enter at `lift_reshapes`. `_Plan` finds what is
lifted, `_Lift` builds it. A bias for each t, or rows in another order, are read where row // t and row % t say, which
costs nothing beside a product. What follows from the product through a fold of single stacks belongs to the kernel of
that fold (`_has_flat`). Columns that do not lie side by side keep the nodes that read them where they are, since
that costs as much as is gained; so does padding, and so do updates, which are done in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from graphc.graph import Graph, Node, Value, make_node
from graphc.ops.lowering import ArgReduction, Contraction, Elementwise, Gather, Movement, Reduction
from graphc.ops.registry import OPS
from graphc.passes.domain import one_element, reduced_axes
from graphc.types import Shape, Size, product


class Stack(NamedTuple):
    """The leading axes that are one axis of `rows` in the shape of the product."""

    axes: Shape
    rows: Size

    def holds(self, shape: Shape) -> bool:
        return shape[: len(self.axes)] == self.axes

    def flat(self, shape: Shape) -> Shape:
        """A shape that begins with the stacks, with one axis for them."""
        return (self.rows, *shape[len(self.axes) :])

    def flat_axis(self, axis: int) -> int:
        return axis - len(self.axes) + 1


def lift_reshapes(graph: Graph) -> Graph:
    """The graph with reshapes of products behind what is computed from them. Keeps every elementwise bit."""
    plan = _Plan(graph)
    return _Lift(plan.stacks, plan.read_stacked()).run(graph) if plan.lifts else graph


class _Plan:
    """stacks: for each value that has a flat version, the axes that are one there. lifts: whether any is computed."""

    def __init__(self, graph: Graph) -> None:
        self.stacks: dict[Value, Stack] = {}
        self.lifts = False
        nodes = graph.order()
        if not any(isinstance(node.op.lowering, Contraction) for node in nodes):
            return
        self.users, self.outputs = graph.users(), set(graph.outputs)
        self.updates = self._only_updates(graph, nodes) if graph.updates else set()
        self.products: set[Value] = set()  # values in the shape of a product that they are computed from
        self.staying: set[Node] = set()
        self.last: dict[Node, int] = {}  # the number of the last product that a node follows from through no other
        for node in nodes:
            self._visit(node)
        if self.lifts:
            for node in reversed(nodes):
                self._stay(node)
            for node in reversed(nodes):
                self._follow(node)

    def read_stacked(self) -> set[Value]:
        """The lifted values that something reads which is not lifted, or that are results."""
        read = {
            value
            for value in self.stacks
            if any(Value(user) not in self.stacks and not self._ends(user) for user in self.users.get(value, ()))
        }
        return read | (self.outputs & self.stacks.keys())

    def _only_updates(self, graph: Graph, nodes: Sequence[Node]) -> set[Node]:
        """Elementwise nodes that nothing reads but new values of parameters."""
        results, found = {value.node for value in graph.results}, set[Node]()
        for node in reversed(nodes):
            inner = isinstance(node.op.lowering, Elementwise) and node not in results
            if inner and all(user in found for user in self.users.get(Value(node), ())):
                found.add(node)
        return found

    def _visit(self, node: Node) -> None:
        """Note what a node is, with its operands known."""
        kind = node.op.lowering
        if isinstance(kind, Contraction):
            self.products.add(Value(node))
            self.last[node] = len(self.last)
            return
        self.last[node] = max((self.last[v.node] for v in node.inputs), default=-1)
        if len(node.types) != 1 or node in self.updates:
            return
        value = Value(node)
        if node.op.name == "reshape":
            stack = self._of_reshape(node)
        elif isinstance(kind, Elementwise) and any(v in self.products for v in node.inputs):
            self.products.add(value)
            return
        else:
            stack = self._carried(node)
            self.lifts |= stack is not None or self._ends(node)
        if stack is not None:
            self.stacks[value] = stack

    def _of_reshape(self, node: Node) -> Stack | None:
        """The stacks that a reshape makes of the rows of a product, or that it leaves as they are."""
        (x,), shape = node.inputs, node.types[0].shape
        if x in self.stacks:
            stack = self.stacks[x]
            if shape == stack.flat(x.type.shape):
                self.products.add(Value(node))
                return None
            before, after = ([n for n in each[len(stack.axes) :] if n != 1] for each in (x.type.shape, shape))
            return stack if stack.holds(shape) and before == after else None
        flat = x.type.shape
        count = len(shape) - len(flat) + 1
        if x not in self.products or len(flat) < 2 or count < 2 or shape[count:] != flat[1:]:
            return None
        return Stack(shape[:count], flat[0]) if product(shape[:count]) == flat[0] else None

    def _carried(self, node: Node) -> Stack | None:
        """The stacks of a node's result, if it means the same for flat operands."""
        stacked = [v for v in node.inputs if v in self.stacks]
        if not stacked:
            return None
        kind, stack = node.op.lowering, self.stacks[stacked[0]]
        if isinstance(kind, (Reduction, ArgReduction)):
            axes = reduced_axes(node)
            return stack if axes and min(axes) >= len(stack.axes) else None
        if node.op.name == "broadcast_to":
            same = node.inputs[0].type.rank == node.types[0].rank and stack.holds(node.types[0].shape)
            return stack if same else None
        if isinstance(kind, Gather):
            if node.attrs["axis"] < len(stack.axes) or self.stacks.get(node.inputs[0]) != stack:
                return None
        elif not isinstance(kind, Elementwise):
            return None
        last = max(self.last[v.node] for v in stacked)
        return stack if all(self._has_flat(v, stack, last) for v in node.inputs) else None

    def _ends(self, node: Node) -> bool:
        """Whether a node folds all stacks of a flat value, and maybe more."""
        return _folded_stack(node, self.stacks) is not None

    def _has_flat(self, value: Value, stack: Stack, last: int) -> bool:
        """Whether the rows of product number `last` can read a value, with columns that lie side by side if they do.

        What follows from that product itself, through a fold of each stack, belongs to the kernel of that fold.
        """
        if not stack.holds(value.type.shape):
            return False
        while value not in self.stacks and isinstance(value.op.lowering, Movement):
            order = value.node.attrs["axes"] if value.op.name == "transpose" else (0,)
            if value.op.lowering.inside is not None or order[-1] != len(order) - 1:
                return False
            value = value.node.inputs[0]
        return value in self.stacks or self.last[value.node] < last

    def _stay(self, node: Node) -> None:
        """Leave what only a fold of single stacks reads: it runs in the kernel of that. Called for readers first."""
        value, users = Value(node), self.users.get(Value(node), ())
        if value in self.stacks and isinstance(node.op.lowering, Elementwise) and len(users) == 1:
            user = users[0]
            folds = isinstance(user.op.lowering, Reduction) and Value(user) not in self.stacks and not self._ends(user)
            if value not in self.outputs and (folds or user in self.staying):
                self.staying.add(node)
                del self.stacks[value]

    def _follow(self, node: Node) -> None:
        """Lift what only lifted nodes read: it would be stored for them elsewhere. Called for readers first."""
        value = Value(node)
        if not isinstance(node.op.lowering, Elementwise) or value in self.stacks or value in self.outputs:
            return
        users = self.users.get(value, ())
        found = {self.stacks.get(Value(user)) for user in users}
        if len(found) != 1 or not all(isinstance(user.op.lowering, Elementwise) for user in users):
            return
        (stack,) = found
        if stack is not None and all(self._has_flat(v, stack, len(self.last)) for v in node.inputs):
            self.stacks[value] = stack


def _folded_stack(node: Node, stacks: Mapping[Value, Stack]) -> Stack | None:
    """The stacks that a node folds whole."""
    stack = stacks.get(node.inputs[0]) if isinstance(node.op.lowering, Reduction) else None
    return stack if stack is not None and set(range(len(stack.axes))) <= set(node.attrs["axes"]) else None


def _leading(node: Node, stack: Stack) -> Shape | None:
    """By rows, the first axes of what a `broadcast_to` repeats: all rows, 1 or none; None if some axes are missing."""
    count = node.inputs[0].type.rank - (node.types[0].rank - len(stack.axes))
    if count <= 0:
        return ()
    before = node.inputs[0].type.shape[:count]
    if (1,) * (len(stack.axes) - count) + before == stack.axes:
        return (stack.rows,)
    return (1,) if one_element(before) else None


class _Lift:
    """Builds flat versions, and stacked ones, reshapes of them, for those that read these."""

    def __init__(self, stacks: dict[Value, Stack], read_stacked: set[Value]) -> None:
        self.stacks, self.read_stacked = stacks, read_stacked
        self.flats: dict[Value, Value] = {}  # value of the old graph -> its flat version

    def run(self, graph: Graph) -> Graph:
        def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
            stack = self.stacks.get(Value(node))
            if stack is None:
                stack = _folded_stack(node, self.stacks)
                if stack is not None:
                    return [_reshaped(self._folded(node, inputs, stack), node.types[0].shape)]
                return [_reshaped(inputs[0], node.types[0].shape)] if node.op.name == "reshape" else None
            flat = self._flat_version(node, inputs, stack)
            self.flats[Value(node)] = flat
            return [_reshaped(flat, node.types[0].shape) if Value(node) in self.read_stacked else flat]

        return graph.rewrite(visit)

    def _flat_version(self, node: Node, inputs: tuple[Value, ...], stack: Stack) -> Value:
        shape = stack.flat(node.types[0].shape)
        if node.op.name == "reshape":
            return _reshaped(inputs[0], shape)
        operands = [self._flat(old, new, stack) for old, new in zip(node.inputs, inputs, strict=True)]
        attrs = dict(node.attrs)
        if node.op.name == "broadcast_to":
            attrs["shape"] = shape
        elif isinstance(node.op.lowering, Reduction):
            attrs["axes"] = tuple(stack.flat_axis(axis) for axis in attrs["axes"])
        elif isinstance(node.op.lowering, (ArgReduction, Gather)):
            attrs["axis"] = stack.flat_axis(attrs["axis"])
        return Value(make_node(node.op, operands, attrs))

    def _folded(self, node: Node, inputs: tuple[Value, ...], stack: Stack) -> Value:
        """A fold over the stacks, as one over rows."""
        others = [stack.flat_axis(axis) for axis in node.attrs["axes"] if axis >= len(stack.axes)]
        flat = self._flat(node.inputs[0], inputs[0], stack)
        return Value(make_node(node.op, [flat], {**node.attrs, "axes": (0, *others)}))

    def _flat(self, old: Value, new: Value, stack: Stack) -> Value:
        """The flat version of an operand."""
        if self.stacks.get(old) == stack:
            return self.flats[old]
        shape, node = stack.flat(old.type.shape), old.node
        if node.op.name == "iota" and node.attrs["axis"] >= len(stack.axes):
            attrs = {**node.attrs, "shape": shape, "axis": stack.flat_axis(node.attrs["axis"])}
            return Value(make_node(node.op, (), attrs))
        plain = node.op.name == "broadcast_to" and old not in self.stacks
        leading = _leading(node, stack) if plain else None
        if leading is not None:
            before = new.node.inputs[0]
            kept = before.type.shape[max(0, before.type.rank - old.type.rank + len(stack.axes)) :]
            operand = _reshaped(before, (*leading, *kept)) if leading else before
            return Value(make_node(node.op, [operand], {**node.attrs, "shape": shape}))
        return _reshaped(new, shape)


def _reshaped(value: Value, shape: Shape) -> Value:
    """One reshape, or none."""
    while value.op.name == "reshape":
        value = value.node.inputs[0]
    return value if value.type.shape == shape else Value(make_node(OPS["reshape"], [value], {"shape": shape}))
