"""Kernel nodes put together, for every pass that makes some.

A kernel's inner graph has a placeholder p0, p1, ... for each operand: `placeholder` gives it, `copy_nodes` copies what
is computed from them, and `kernel_node` makes the node. `follow` carries a change on to what reads it. Enter at
`kernel_node`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from graphc.graph import Graph, Node, Origin, Value, inherit_origin, make_node, origin_of
from graphc.ops.registry import OPS
from graphc.types import TensorType

MOST_LINES = 8  # source lines that a kernel's origin lists
K = TypeVar("K", bound=Hashable)


def placeholder(operands: dict[K, Value], outer: K, type_: TensorType) -> Value:
    """The placeholder of the operand `outer`, put into `operands` when it is first asked for."""
    if outer not in operands:
        attrs = {"name": f"p{len(operands)}", "type": type_}
        operands[outer] = Value(make_node(OPS["placeholder"], (), attrs))
    return operands[outer]


def copy_nodes(graph: Graph, made: dict[Value, Value]) -> None:
    """Puts into `made`, which has the placeholders of an inner graph, a copy of everything else in it."""
    for node in graph.order():
        if Value(node) not in made:
            with inherit_origin(node):
                copy = make_node(node.op, [made[v] for v in node.inputs], node.attrs)
            made.update(zip(node.outputs, copy.outputs, strict=True))


def kernel_node(operands: Sequence[Value], graph: Graph, members: Iterable[Node]) -> Node:
    """The node that runs an inner graph; it comes from the source lines of all `members`."""
    return make_node(OPS["kernel"], operands, {"graph": graph, "name": graph.name}, _joint_origin(members))


def _joint_origin(members: Iterable[Node]) -> Origin | None:
    origins = [origin for node in members if (origin := origin_of(node)) is not None]
    lines = dict.fromkeys(line for origin in origins for line in origin.lines)
    return Origin(tuple(lines)[:MOST_LINES]) if lines else None


def follow(node: Node, new: dict[Value, Value]) -> None:
    """The node again, where operands of it have become others; `new` says which, and what its results became."""
    if any(v in new for v in node.inputs):
        again = make_node(node.op, operands_now(node, new), node.attrs, origin_of(node))
        new.update(zip(node.outputs, again.outputs, strict=True))


def operands_now(node: Node, new: Mapping[Value, Value]) -> list[Value]:
    """What the operands of a node have become."""
    return [new.get(v, v) for v in node.inputs]
