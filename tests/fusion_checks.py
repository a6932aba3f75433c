"""What the fusion tests share: placeholders, freezing a graph, and the kernels of an optimised one, each checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.build import Parameter, Tensor, placeholder
from graphc.graph import Graph, Node
from graphc.passes.domain import kernel_shape
from graphc.verify import verify

Updates = dict[Parameter, Tensor]
Make = Callable[..., Sequence[Tensor]]
Shapes = Sequence[tuple[int | str, ...]]


def shaped(shapes: Shapes, dtypes: Sequence[str] = ()) -> list[Tensor]:
    """A placeholder of each shape, float32 if not told."""
    dtypes = dtypes or ["float32"] * len(shapes)
    return [placeholder(f"x{n}", shape, dtype) for n, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))]


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
