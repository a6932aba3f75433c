"""Marks of `checkpoint` and `custom_vjp` go: differentiation has seen them, and to all others they are the identity.

Enter at `drop_marks`. It cannot be switched off, since a mark has no lowering.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph import Graph, Node, Value

MARKS = frozenset({"checkpoint", "checkpoint_input", "custom_vjp"})


def drop_marks(graph: Graph) -> Graph:
    """The graph without marks. Keeps every bit."""

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        return inputs[: len(node.types)] if node.op.name in MARKS else None

    return graph.rewrite(visit)
