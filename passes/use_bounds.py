"""Sizes that the limits of named sizes decide: with `graphc.dim("n", min=8)`, `min(n,4)` is 4.

Enter at `use_bounds`. Nodes are rebuilt with decided sizes in their attributes; their types follow. The sizes of inputs
stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc.bounds import Bounds, bounds_of, resolved
from graphc.graph import Graph, Node, Value, make_node
from graphc.types import Dim


def use_bounds(graph: Graph) -> Graph:
    """The graph with every size that is decided by the limits of the inputs' names."""
    bounds = bounds_of(v.type.shape for v in graph.inputs)
    if not bounds:
        return graph

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        attrs = {name: _decided(value, bounds) for name, value in node.attrs.items()}
        if node.op.unique or all(attrs[name] is node.attrs[name] for name in attrs):
            return None
        return make_node(node.op, inputs, attrs).outputs

    return graph.rewrite(visit)


def _decided(value: Any, bounds: Mapping[str, Bounds]) -> Any:
    if isinstance(value, Dim):
        found = resolved(value, bounds)
        return value if found == value else found
    if isinstance(value, tuple):
        items = tuple(_decided(item, bounds) for item in value)
        return value if all(a is b for a, b in zip(items, value, strict=True)) else items
    return value
