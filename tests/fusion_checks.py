"""What the fusion tests share: freezing a graph, and the kernels of an optimised one, each checked."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.build import Parameter, Tensor
from graphc.graph import Graph, Node
from graphc.passes.domain import kernel_shape
from graphc.verify import verify

Updates = dict[Parameter, Tensor]


def frozen(inputs: Sequence[Tensor], outputs: Sequence[Tensor], updates: Updates | None = None) -> Graph:
    updates = updates or {}
    values = (*(t.ref for t in outputs), *(t.ref for t in updates.values()))
    return Graph(tuple(t.ref for t in inputs), values, tuple(t.ref for t in updates))


def kernels(graph: Graph) -> list[Node]:
    """The kernels in order, each checked: sources and kernels only, a shape for each, inner types right."""
    verify(graph)
    found = [node for node in graph.order() if node.op.name == "kernel"]
    for node in graph.order():
        assert node.op.name in ("kernel", "placeholder", "parameter", "constant"), node
    for node in found:
        kernel_shape(node.attrs["graph"])
        assert [v.op.name for v in node.attrs["graph"].inputs] == ["placeholder"] * len(node.inputs)
    results, new_values = graph.results, graph.outputs[len(graph.results) :]
    assert len(set(results)) == len(results) and len(set(new_values)) == len(new_values)
    assert all(v.op.name == "kernel" for v in graph.outputs)
    return found
