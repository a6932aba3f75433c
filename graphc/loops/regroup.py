"""The normal form of a rows kernel: at most two axes, with sizes that are arguments.

A kernel that reads its operands only as whole full, row or scalar values does not care how many axes it has: its kept
axes are one axis and its reduced axes another. `regroup` rebuilds the inner graph so, with names for sizes that no
schedule needs to know. Long vectors come out of it (an elementwise kernel has one axis), and equal code for equal
work: all parameters of an optimiser share one kernel, all bias gradients another. Enter at `regroup`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from graphc.graph import Graph, Node, Value, inherit_origin, make_node
from graphc.ops.lowering import Elementwise, Reduction
from graphc.ops.registry import OPS
from graphc.passes.domain import (
    COLUMN,
    FULL,
    ROW,
    SCALAR,
    VIEW,
    Rows,
    RowsShape,
    alignment,
    class_of_shape,
    moved,
    one_element,
    reaches,
)  # fmt: skip
from graphc.types import Dim, Shape, Size, TensorType, product, substitute, symbols

SIZES = ("__s0", "__s1")  # no dimension of a user's has such a name
TOGETHER = 8  # rows that a sum over columns takes at a time
LANES = 16  # of a vector of columns, on any target
MOST_LANES = 64  # of the vectors that a loop takes at a time, on any target


def regroup(graph: Graph, shape: RowsShape) -> tuple[Graph, dict[str, Size]] | None:
    """(the graph over one or two axes, the values of its size names), or None where an axis of its own matters."""
    form = _new_shapes(shape)
    return None if form is None else _Regrouping(shape, *form).run(graph)


def _new_shapes(shape: RowsShape) -> tuple[dict[str, Shape], tuple[int, ...], dict[str, Size]] | None:
    """The new shape of each class, the reduced axes, and the values of the size names."""
    axes = [i for i, size in enumerate(shape.full) if size != 1]
    reduced = [i for i in axes if i in shape.reduced]
    kept = [i for i in axes if i not in shape.reduced]
    inner, outer = product(shape.full[i] for i in reduced), product(shape.full[i] for i in kept)
    values: dict[str, Size] = {}
    if not axes:
        return None
    if not reduced:
        s0 = _named(SIZES[0], outer, values)
        return {FULL: (s0,), ROW: (s0,), SCALAR: ()}, (), values
    if not kept or axes == kept + reduced:
        s0 = _named(SIZES[0], outer, values)
        width = inner if isinstance(inner, int) else _named(SIZES[1], inner, values)
        return {FULL: (s0, width), ROW: (s0, 1), SCALAR: (), COLUMN: (1, width)}, (1,), values
    if axes == reduced + kept:
        s0, s1 = _named(SIZES[0], inner, values, TOGETHER), _named(SIZES[1], outer, values, LANES)
        return {FULL: (s0, s1), ROW: (1, s1), SCALAR: ()}, (0,), values
    return None


def _named(name: str, size: Size, values: dict[str, Size], whole: int = 1) -> Size:
    """A name for `size`, times a power of two that divides it whatever the call: whole vectors need no masks.

    Known sizes have one name, so that their code is shared, or two: that of multiples of `whole` has half of the loops.
    """
    if isinstance(size, int):
        factor = whole if size % whole == 0 else 1
    else:
        factor = math.gcd(MOST_LANES, *(times for _, times in size.terms))
    values[name] = size // factor
    return factor * Dim.symbol(name)


def substituted(graph: Graph, values: Mapping[str, Size]) -> Graph:
    """The graph with names of sizes replaced, in its inputs too: n as 8*n_8, say, where n is a multiple of 8."""
    if not values or not any(symbols(size) & values.keys() for v in graph.inputs for size in v.type.shape):
        return graph
    mapping: dict[Value, Value] = {}
    for node in graph.order():
        attrs = {name: _with_sizes(value, values) for name, value in node.attrs.items()}
        with inherit_origin(node):
            new = make_node(node.op, [mapping[v] for v in node.inputs], attrs)
        mapping.update(zip(node.outputs, new.outputs, strict=True))
    return Graph(tuple(mapping[v] for v in graph.inputs), tuple(mapping[v] for v in graph.outputs), (), graph.name)


def _with_sizes(value: Any, values: Mapping[str, Size]) -> Any:
    if isinstance(value, Dim):
        return substitute(value, values)
    if isinstance(value, tuple):
        return tuple(_with_sizes(item, values) for item in value)
    if isinstance(value, TensorType):
        return value.with_shape(substitute(size, values) for size in value.shape)
    return value


class _Regrouping:
    def __init__(
        self, shape: RowsShape, shapes: dict[str, Shape], reduced: tuple[int, ...], values: dict[str, Size]
    ) -> None:
        self.shape, self.shapes, self.reduced, self.values = shape, shapes, reduced, values
        self.rows = Rows(shape.full, shape.reduced)

    def run(self, graph: Graph) -> tuple[Graph, dict[str, Size]] | None:
        mapping: dict[Value, Value] = {}
        for node in graph.order():
            new = self._rebuilt(node, mapping)
            if new is None:
                return None
            mapping[Value(node)] = new
        inputs = tuple(mapping[v] for v in graph.inputs)
        return Graph(inputs, tuple(mapping[v] for v in graph.outputs), (), graph.name), self.values

    def _target(self, value: Value) -> Shape | None:
        found = self.shape.classes[value]
        kind = class_of_shape(value.type.shape, self.rows) if found == VIEW else found
        return None if kind is None else self.shapes[kind]

    def _rebuilt(self, node: Node, mapping: dict[Value, Value]) -> Value | None:
        wanted = self._target(Value(node)) if len(node.types) == 1 else None
        if wanted is None:
            return None
        inputs = [mapping[v] for v in node.inputs]
        name, lowering = node.op.name, node.op.lowering
        if name == "placeholder":
            return Value(make_node(node.op, (), {**node.attrs, "type": node.types[0].with_shape(wanted)}))
        if name == "constant":
            data = node.attrs["data"]
            return Value(make_node(node.op, (), {"data": type(data)(data.array.reshape(()))}))
        if name == "dim_value":
            return Value(node)
        if isinstance(lowering, Elementwise):
            # a row of one element may meet a scalar of its shape
            spread = [v if v.type.shape == wanted or v.type.rank else _broadcast(v, wanted) for v in inputs]
            whole = all(v.type.shape == wanted for v in spread)
            return Value(make_node(node.op, spread, node.attrs)) if whole else None
        if isinstance(lowering, Reduction):
            total = node in self.shape.totals
            axes = tuple(range(inputs[0].type.rank)) if total else self.reduced
            axes = (0,) if node in self.shape.columns else axes
            return Value(make_node(node.op, inputs, {**node.attrs, "axes": axes, "keepdims": not total}))
        if name == "broadcast_to" and inputs[0].type.shape != wanted:
            return _broadcast(inputs[0], wanted) if self._along_rows(node) else None
        if name in ("broadcast_to", "reshape") and inputs[0].type.shape == wanted:
            return inputs[0]
        return None

    def _along_rows(self, node: Node) -> bool:
        """Whether a broadcast of a row goes along the reduced axes (of equal sizes, it may go along the others)."""
        before = node.inputs[0].type.shape
        if one_element(before):
            return True
        aligned = alignment(before, self.rows)
        after = moved(aligned, node, self.rows) if aligned is not None else None
        return after is not None and reaches(after, self.rows, FULL, node.types[0].shape)


def _broadcast(value: Value, shape: Shape) -> Value:
    return Value(make_node(OPS["broadcast_to"], (value,), {"shape": shape}))
