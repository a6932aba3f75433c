"""A graph as a networkx DiGraph: to draw it, to ask for paths and dominators, to write GraphML for other tools.

Enter at `digraph`. networkx is imported here, inside the function, because it takes a fifth of a second.
"""

from __future__ import annotations

from typing import Any

from graphc.graph import Graph, Node, origin_of


def digraph(graph: Graph) -> Any:
    """A `networkx.DiGraph` with a node for each node of `graph` (numbered in order) and an edge for each operand.

    Node attributes, all strings or numbers so that every networkx writer takes them: `op`, `label` (the name of a
    source or kernel, else the op), `type`, `line` (the user's), `output` (its position, -1 for none). Edge
    attributes: `operand` (its position), `type`. A value that a node reads twice is one edge, its first position.
    """
    import networkx

    made = networkx.DiGraph(name=graph.name)
    numbers: dict[Node, int] = {}
    outputs = {value.node: position for position, value in reversed(list(enumerate(graph.outputs)))}
    for number, node in enumerate(graph.order()):
        numbers[node] = number
        origin = origin_of(node)
        made.add_node(
            number,
            op=node.op.name,
            label=str(node.attrs.get("name", node.op.name)),
            type=", ".join(map(str, node.types)),
            line=str(origin.lines[0]) if origin and origin.lines else "",
            output=outputs.get(node, -1),
        )
        for position, value in reversed(list(enumerate(node.inputs))):
            made.add_edge(numbers[value.node], number, operand=position, type=str(value.type))
    return made
