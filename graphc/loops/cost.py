"""What an element of a kernel costs, read off the scalar bodies by a handler that only counts.

Enter at `element_cost` (all that a kernel computes for an element) or `body_cost` (one op).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from graphc.graph import Graph, Node
from graphc.ops.lowering import Elementwise
from graphc.types import DType, bool_

TRANSCENDENTAL = 12  # about how many simple instructions the shortest functions take
WEIGHTS = {"div": 4, "sqrt": 4, "left_over": 2}  # of operations that are no single instruction
FUNCTION_WEIGHTS = {"exp": TRANSCENDENTAL, "log": TRANSCENDENTAL}  # others: LONG
LONG = 16
COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}


@dataclass(frozen=True)
class Counted:
    """A value of which only the dtype is known."""

    dtype: DType


class CostHandler:
    """Adds up the weights of the operations that a body asks for; `names` are the operations in order."""

    def __init__(self) -> None:
        self.cost = 0
        self.names: list[str] = []

    def constant(self, value: float | int | bool, dtype: DType) -> Counted:
        return Counted(dtype)

    def cast(self, a: Counted, dtype: DType) -> Counted:
        self.cost += 1
        return Counted(dtype)

    bitcast = cast

    def select(self, condition: Counted, a: Counted, b: Counted) -> Counted:
        self.cost += 1
        self.names.append("select")
        return a

    def function(self, name: str, *operands: Counted) -> Counted:
        self.cost += FUNCTION_WEIGHTS.get(name, LONG)
        self.names.append(name)
        return operands[0]

    def __getattr__(self, name: str) -> Callable[..., Counted]:
        def operation(*args: Counted) -> Counted:
            self.cost += WEIGHTS.get(name, 1)
            self.names.append(name)
            return Counted(bool_) if name in COMPARISONS else args[0]

        return operation


def body_cost(node: Any) -> int:
    """The cost of one element of an elementwise node; 0 for other nodes."""
    if not isinstance(node.op.lowering, Elementwise):
        return 0
    handler = CostHandler()
    node.op.lowering.body(handler, node.attrs, *(Counted(v.type.dtype) for v in node.inputs))
    return handler.cost


def element_cost(graph: Graph, inner: Iterable[Node]) -> int:
    """The cost of one element of `inner`, nodes of the graph, loads and stores of operands and results included."""
    return len(graph.inputs) + len(graph.outputs) + sum(body_cost(node) for node in inner)


def operation_name(combine: Callable[..., Any], dtype: DType) -> str:
    """The one handler operation that a fold's `combine(h, accumulator, x)` is, such as "add" or "maximum"."""
    handler = CostHandler()
    combine(handler, Counted(dtype), Counted(dtype))
    return handler.names[0]
