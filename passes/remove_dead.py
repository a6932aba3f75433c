"""Dead code: updates that write what is there already.

Enter at `remove_dead`. A node that no output needs is in no graph (`Graph.order` walks from the outputs), so a rewrite
never leaves one behind; inputs stay inputs even where nothing reads them, since a caller passes them. What can be dead
is an update whose new value is the parameter itself, which would cost a copy at every call.
"""

from __future__ import annotations

from graphc.graph import Graph


def remove_dead(graph: Graph) -> Graph:
    """The graph without updates of a parameter by its own value."""
    updates = zip(graph.updates, graph.outputs[len(graph.results) :], strict=True)
    kept = [(parameter, value) for parameter, value in updates if parameter != value]
    if len(kept) == len(graph.updates):
        return graph
    outputs = (*graph.results, *(value for _, value in kept))
    return Graph(graph.inputs, outputs, tuple(parameter for parameter, _ in kept), graph.name)
