"""Common subexpressions: of two nodes that compute the same, one remains.

Enter at `merge_duplicates`. Equal structure is one object by construction (`graph.make_node`), so what is left to
merge is what differs in structure and not in value: commutative operations with their operands exchanged. The order
that comes first in the graph stays, so a graph without such a pair prints as the user wrote it. `maximum` and
`minimum` are not in the table: of 0.0 and -0.0 either may be the result, and the order decides. What
is computed again on purpose (`graphc.checkpoint`) is merged with nothing but its like.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph import RECOMPUTED, Graph, Node, Value, make_node

COMMUTATIVE = frozenset({"add", "multiply", "equal", "not_equal", "logical_and", "logical_or", "logical_xor"})


def merge_duplicates(graph: Graph) -> Graph:
    """The graph in which `a + b` and `b + a` are the same value. Keeps every bit."""
    first: dict[tuple[str, int, frozenset[Value]], Node] = {}

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.name not in COMMUTATIVE:
            return None
        kept = first.setdefault(
            (node.op.name, node.attrs.get(RECOMPUTED, 0), frozenset(inputs)),
            node if inputs == node.inputs else make_node(node.op, inputs, node.attrs),
        )
        return kept.outputs

    return graph.rewrite(visit)
