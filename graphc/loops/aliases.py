"""Results that are in memory already, in another shape: a reshape of what a kernel computes moves nothing.

Enter at `free_reshapes`. Such a kernel is no task: what it reads is written to the memory of its result.
"""

from __future__ import annotations

from graphc.graph import Graph, Node, Value


def free_reshapes(graph: Graph) -> dict[Node, Value]:
    """The kernels that make a result of the graph by a reshape alone, and what they read.

    That is computed by another kernel, and is neither an output itself nor some other result reshaped: each output has
    memory of its own.
    """
    updated = set(graph.outputs[len(graph.results) :])
    taken = set(graph.outputs)
    found: dict[Node, Value] = {}
    for value in graph.results:
        node = value.node
        if node.op.name == "kernel" and value not in updated and _is_reshape(node.attrs["graph"]):
            (read,) = node.inputs
            if read.node.op.name == "kernel" and read not in taken:
                taken.add(read)
                found[node] = read
    return found


def _is_reshape(inner: Graph) -> bool:
    (first, *others) = inner.outputs
    return not others and first.op.name == "reshape" and first.node.inputs == inner.inputs
