"""Kernels of blocks that never have whole rows: sweeps over the columns of a block, some columns at a time.

Enter at `plan_sweeps`. A sweep computes the matrices for a block of columns, reduces them and adds up their products;
what depends on its reductions waits for the next sweep, which computes the matrices again. One dependence does not
wait: sums and products of exp(x - max(x)), or of multiples of it, run along with the maximum (an online softmax).
Whenever that grows, what has been summed is scaled by exp(old maximum - new maximum).
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.graph import Graph, Node, Value
from graphc.loops.block_bounds import constant_of
from graphc.loops.block_values import BlockValues, plan_values
from graphc.ops.lowering import Movement
from graphc.passes.blocks_shape import ROW_PRODUCT, BlocksShape, Product
from graphc.passes.domain import FULL

LINEAR = ("negative", "stop_gradient", "transpose")


@dataclass(frozen=True)
class Sweep:
    """One sweep. scaled: the sums and products that run along with `maximum`."""

    values: BlockValues
    products: tuple[Product, ...]
    maximum: Node | None
    scaled: frozenset[Node]

    @property
    def reductions(self) -> list[Node]:
        return [node for stage in self.values.stages for node in stage]


def plan_sweeps(graph: Graph, shape: BlocksShape) -> list[Sweep]:
    """The sweeps of a kernel, in order."""
    placed = _Placed(graph, shape)
    sweeps = []
    for number in range(max(placed.number.values(), default=0) + 1):
        here = [node for node in shape.reductions if placed.number[node] == number]
        stages = [[n for n in here if n not in placed.scaled], [n for n in here if n in placed.scaled]]
        products = tuple(each for each in shape.products if placed.number[each.node] == number)
        values = plan_values(graph, shape, [stage for stage in stages if stage], products)
        maximum = placed.maximum.get(number, (None, None))[0]
        sweeps.append(Sweep(values, products, maximum, frozenset(placed.scaled)))
    return sweeps


class _Placed:
    """number: the sweep of each reduction and product. maximum: of a sweep, and the powers that follow it."""

    def __init__(self, graph: Graph, shape: BlocksShape) -> None:
        self.graph, self.shape = graph, shape
        self.number: dict[Node, int] = {}
        self.maximum: dict[int, tuple[Node, Value]] = {}
        self.scaled: set[Node] = set()
        products = {each.node: each for each in shape.products}
        for node in graph.order():
            if node in products:
                self._place(node, products[node].source, products[node].kind == ROW_PRODUCT)
            elif node in shape.reductions:
                self._place(node, node.inputs[0], node.op.name == "sum")

    def _place(self, node: Node, matrix: Value, linear: bool) -> None:
        behind = [self.number[n] + 1 for n in _below(matrix, None) if n in self.number]
        self.number[node] = max(behind, default=0)
        if linear and behind and self._runs_along(matrix, self.number[node] - 1):
            self.number[node] -= 1
            self.scaled.add(node)

    def _runs_along(self, matrix: Value, sweep: int) -> bool:
        """Whether a matrix is a multiple of powers whose maximum a sweep finds, and of nothing else that it finds."""
        for powers in (Value(n) for n in _below(matrix, None) if n.op.name == "exp"):
            maximum = _maximum(powers)
            if maximum is None or self.number.get(maximum) != sweep:
                continue
            if self.maximum.get(sweep, (maximum, powers)) != (maximum, powers):
                continue
            rest = _below(matrix, powers)
            known = all(self.number[n] < sweep for n in rest if n in self.number)
            if known and self._degree(matrix, powers, rest) == 1:
                self.maximum[sweep] = maximum, powers
                return True
        return False

    def _degree(self, matrix: Value, powers: Value, below: set[Node]) -> int | None:
        """The power of `powers` that a matrix is a multiple of; None if it is no such thing."""
        degrees: dict[Value, int | None] = {powers: 1}
        for node in self.graph.order():
            value = Value(node)
            if node in below and value not in degrees:
                full = self.shape.classes[value] == FULL
                degrees[value] = _degree(node, [degrees.get(v, 0) for v in node.inputs]) if full else 0
        return degrees[matrix]


def _degree(node: Node, of: list[int | None]) -> int | None:
    if None in of:
        return None
    degrees = [d for d in of if d is not None]
    name = node.op.name
    if name in LINEAR:
        return degrees[0]
    if name == "multiply":
        return sum(degrees)
    if name == "divide" and degrees[1] == 0:
        return degrees[0]
    if name in ("add", "subtract") and degrees[0] == degrees[1]:
        return degrees[0]
    if name == "where" and degrees[0] == 0:
        left = {d for d, v in zip(degrees[1:], node.inputs[1:], strict=True) if constant_of(v) != 0.0}
        return left.pop() if len(left) == 1 else None
    return 0 if not any(degrees) else None


def _maximum(powers: Value) -> Node | None:
    """The reduction M of exp(x - M), where M is the maximum of x."""
    shifted = powers.node.inputs[0].node
    if shifted.op.name != "subtract":
        return None
    x, shift = shifted.inputs
    while isinstance(shift.op.lowering, Movement) or shift.op.name == "stop_gradient":
        shift = shift.node.inputs[0]
    return shift.node if shift.op.name == "max" and shift.node.inputs[0] == x else None


def _below(value: Value, end: Value | None) -> set[Node]:
    """The nodes that a value follows from, its own included; of what `end` follows from, nothing."""
    found: set[Node] = set()
    stack = [value]
    while stack:
        here = stack.pop()
        if here != end and here.node not in found:
            found.add(here.node)
            stack.extend(here.node.inputs)
    return found
