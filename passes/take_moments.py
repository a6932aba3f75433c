"""The sum of the squared deviations from a mean is taken in the same pass over memory as the sum behind the mean.

A variance over the rows of [rows, columns] waits for its mean, and memory is read twice. With any number p in the
place of the mean m, a sum over n rows becomes

    sum (x - m)^2  =  sum (x - p)^2 + (p - m) (2 sum (x - p) + n (p - m))

whose sums wait for nothing. p is the first row, and all is float64: the result is nearer to the exact one than that of
float32 deviations, whatever the data; equal rows still give 0, and a mean of inf or NaN what it gave before. The mean
stays as it was written. The formula is that of Chan, Golub and LeVeque, "Algorithms for computing the sample variance"
(1983), shifted data.

Enter at `take_moments`. Only kernels that `split_columns` would split are rewritten, so only where this saves a pass
over memory, and only for operands in memory of a number of rows that is known: the first row must be there.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.build import Tensor, apply
from graphc.graph import Graph, Node, Value, make_node, origin_of
from graphc.ops.movement import broadcast_to, reshape, slice_op
from graphc.ops.reductions import sum as sum_
from graphc.ops.selection import astype
from graphc.passes.domain import VIEW, RowsShape, below_movement, kernel_shape
from graphc.passes.patterns import number_of
from graphc.passes.split_columns import reduces_columns
from graphc.types import float32, float64, product


def take_moments(graph: Graph) -> Graph:
    """The graph with every such sum inside of its kernels rewritten."""

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.name != "kernel":
            return None
        inner: Graph = node.attrs["graph"]
        shape = kernel_shape(inner)
        if not isinstance(shape, RowsShape) or not reduces_columns(shape, inner):
            return None
        changed = inner.rewrite(lambda n, operands: _moments(n, operands, shape))
        if changed is inner:
            return None
        return make_node(node.op, inputs, {**node.attrs, "graph": changed}, origin_of(node)).outputs

    return graph.rewrite(visit)


def _moments(node: Node, inputs: Sequence[Value], shape: RowsShape) -> Sequence[Value] | None:
    """What stands for a sum of squared deviations from a mean; None for every other node."""
    found = _deviations(node, shape)
    if found is None:
        return None
    x, mean = found
    axes, of_rows = node.attrs["axes"], node.types[0].shape
    rows = product(shape.full[axis] for axis in axes)
    assert isinstance(rows, int)
    starts, stops = [0] * len(shape.full), [1 if axis in axes else n for axis, n in enumerate(shape.full)]
    steps = tuple(1 for _ in starts)
    first = apply(slice_op, Tensor(x), starts=tuple(starts), stops=tuple(stops), steps=steps)
    assert isinstance(first, Tensor)
    pivot = astype(first, float64)
    away = astype(Tensor(x), float64) - broadcast_to(pivot, shape.full)
    keepdims = node.attrs["keepdims"]
    linear, squares = (sum_(terms, axes, keepdims) for terms in (away, away * away))
    shift = reshape(pivot, of_rows) - astype(reshape(Tensor(mean), of_rows), float64)
    return [astype(squares + shift * (2.0 * linear + float(rows) * shift), float32).ref]


def _deviations(node: Node, shape: RowsShape) -> tuple[Value, Value] | None:
    """(x, m) of a sum over the rows of (x - m)^2, where x is in memory and m a multiple of its own sum over them."""
    if node not in shape.reductions or node.op.name != "sum" or node.types[0].dtype != float32:
        return None
    square = node.inputs[0].node
    if square.op.name != "multiply" or square.inputs[0] != square.inputs[1]:
        return None
    deviation = square.inputs[0].node
    if deviation.op.name != "subtract":
        return None
    x, mean = deviation.inputs[0], below_movement(deviation.inputs[1])
    rows = product(shape.full[axis] for axis in node.attrs["axes"])
    if shape.classes[x] != VIEW or not isinstance(rows, int) or not _is_multiple_of_sum(mean, x, node.attrs["axes"]):
        return None
    return x, mean


def _is_multiple_of_sum(value: Value, x: Value, axes: Sequence[int]) -> bool:
    while True:
        value = below_movement(value)
        factors = value.node.inputs
        if value.op.name == "sum":
            return factors[0] == x and value.node.attrs["axes"] == axes
        if value.op.name not in ("multiply", "divide") or number_of(factors[1]) is None:
            return False
        value = factors[0]
