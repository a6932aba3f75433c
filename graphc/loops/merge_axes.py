"""A copy, between zeros or of a part or in another order, has as few axes as it can: neighbours in memory are one axis.

The vectors of a rows kernel go along its last axis, and the 3 channels of a padded image would fill 3 lanes. Where
nothing is put around the last axis or cut off it, it is one with the axis before: zeros around 112 of 118 pixels of 3
channels are zeros around 336 of 354 elements. Nor do lines matter to an image whose channels go last: 56 x 56 pixels
fill vectors, 56 do not. Enter at `merge_axes`.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.graph import Graph, Node, Value, inherit_origin, make_node
from graphc.ops.lowering import Concat, Elementwise
from graphc.passes.domain import RowsShape
from graphc.types import Shape

NOWHERE = -1  # where a scalar has the two axes: it is the same at all places


def merge_axes(graph: Graph, shape: RowsShape) -> Graph:
    """The graph with every two neighbours of the results' axes merged that are one in every node; maybe the same."""
    rank = len(shape.full)
    if shape.reduced or shape.totals or shape.columns or any(v.type.rank != rank for v in graph.outputs):
        return graph
    for first in reversed(range(rank - 1)):
        places = _places(graph, first)
        if places is not None:
            graph = _merged(graph, places)
    return graph


def _places(graph: Graph, first: int) -> dict[Value, int] | None:
    """Where each value has the axes that are `first` and the next one in the results; None if one has them apart."""
    places = dict.fromkeys(graph.outputs, first)
    for node in reversed(graph.order()):
        known = len(node.types) == 1 and Value(node) in places
        below = _places_below(node, places[Value(node)]) if known else None
        if below is None or any(places.setdefault(v, at) != at for v, at in zip(node.inputs, below, strict=True)):
            return None
    return places


def _places_below(node: Node, at: int) -> list[int] | None:
    """The same in what a node is computed from, if it does to the two axes what it would do to one."""
    name, inputs, kind, after = node.op.name, node.inputs, node.op.lowering, node.types[0].shape
    if isinstance(kind, Elementwise):
        return [at] * len(inputs) if all(v.type.shape == after for v in inputs) else None
    if name == "placeholder" or (name == "constant" and not after):
        return []
    if name == "broadcast_to":
        return None if inputs[0].type.rank else [NOWHERE]
    if name in ("slice", "unslice"):
        starts, steps = node.attrs["starts"], node.attrs["steps"]
        whole = starts[at + 1] == 0 and inputs[0].type.shape[at + 1] == after[at + 1]
        return [at] if whole and steps[at : at + 2] == (1, 1) else None
    if name == "transpose":
        axes = node.attrs["axes"]
        return [axes[at]] if axes[at + 1] == axes[at] + 1 else None
    return [at] if isinstance(kind, Concat) and len(inputs) == 1 else None  # a copy


def _merged(graph: Graph, places: Mapping[Value, int]) -> Graph:
    mapping: dict[Value, Value] = {}
    for node in graph.order():
        attrs, at = dict(node.attrs), places[Value(node)]
        if at != NOWHERE:
            if node.op.name == "placeholder":
                attrs["type"] = node.types[0].with_shape(_flat(node.types[0].shape, at))
            if node.op.name in ("broadcast_to", "unslice"):
                attrs["shape"] = _flat(node.types[0].shape, at)
            if node.op.name in ("slice", "unslice"):
                inner = node.inputs[0].type.shape[at + 1]
                for bounds in {"starts", "stops"} & attrs.keys():
                    attrs[bounds] = (*attrs[bounds][:at], attrs[bounds][at] * inner, *attrs[bounds][at + 2 :])
                attrs["steps"] = (*attrs["steps"][:at], *attrs["steps"][at + 1 :])
            if node.op.name == "transpose":
                before = attrs["axes"][at]
                attrs["axes"] = tuple(axis - (axis > before) for axis in attrs["axes"] if axis != before + 1)
            if node.op.name == "concat":
                attrs["axis"] -= attrs["axis"] > at
        with inherit_origin(node):
            new = make_node(node.op, [mapping[v] for v in node.inputs], attrs)
        mapping.update(zip(node.outputs, new.outputs, strict=True))
    return Graph(tuple(mapping[v] for v in graph.inputs), tuple(mapping[v] for v in graph.outputs), (), graph.name)


def _flat(shape: Shape, at: int) -> Shape:
    return (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :])
