"""A copy between zeros, or of a part, has as few axes as it can: what lies side by side is one axis.

The vectors of a rows kernel go along its last axis, and the 3 channels of a padded image would fill 3 lanes. Where
nothing is put around the last axis or cut off it, it is one with the axis before: zeros around 112 of 118 pixels of 3
channels are zeros around 336 of 354 elements. Enter at `merge_axes`.
"""

from __future__ import annotations

from graphc.graph import Graph, Node, Value, inherit_origin, make_node
from graphc.ops.lowering import Elementwise
from graphc.passes.domain import RowsShape
from graphc.types import Shape


def merge_axes(graph: Graph, shape: RowsShape) -> Graph:
    """The graph with the last two axes merged as often as they are one in every node; maybe the graph itself."""
    rank = len(shape.full)
    if shape.reduced or shape.totals or shape.columns:
        return graph
    while rank > 1 and all(_is_one(node, rank) for node in graph.order()):
        graph, rank = _merged(graph), rank - 1
    return graph


def _is_one(node: Node, rank: int) -> bool:
    """Whether a node does the same to the last two axes as it would to one; numbers have none."""
    shapes = [type_.shape for type_ in (*(v.type for v in node.inputs), *node.types)]
    name, after = node.op.name, shapes[-1]
    if len(after) not in (0, rank):
        return False
    if name in ("slice", "unslice"):
        starts, steps = node.attrs["starts"], node.attrs["steps"]
        return len(after) == rank and starts[-1] == 0 and steps[-2:] == (1, 1) and shapes[0][-1] == after[-1]
    if name == "broadcast_to":
        return len(shapes[0]) == 0 and len(after) == rank
    if isinstance(node.op.lowering, Elementwise):
        return all(one == after for one in shapes)
    return name == "placeholder" or (name == "constant" and not after)


def _merged(graph: Graph) -> Graph:
    mapping: dict[Value, Value] = {}
    for node in graph.order():
        attrs, before = dict(node.attrs), node.inputs[0].type.shape if node.inputs else ()
        if node.op.name == "placeholder":
            attrs["type"] = node.types[0].with_shape(_flat(node.types[0].shape))
        if node.op.name in ("broadcast_to", "unslice"):
            attrs["shape"] = _flat(node.types[0].shape)
        if node.op.name in ("slice", "unslice"):
            channels = before[-1]
            for bounds in {"starts", "stops"} & attrs.keys():
                *outer, last, _ = attrs[bounds]
                attrs[bounds] = (*outer, last * channels)
            attrs["steps"] = attrs["steps"][:-1]
        with inherit_origin(node):
            new = make_node(node.op, [mapping[v] for v in node.inputs], attrs)
        mapping.update(zip(node.outputs, new.outputs, strict=True))
    return Graph(tuple(mapping[v] for v in graph.inputs), tuple(mapping[v] for v in graph.outputs), (), graph.name)


def _flat(shape: Shape) -> Shape:
    return (*shape[:-2], shape[-2] * shape[-1]) if shape else ()
