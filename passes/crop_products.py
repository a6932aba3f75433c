"""A slice of a contraction computes only what it keeps: the operands are sliced instead.

The gradient of a padded convolution is the case that counts: it is computed for the padding too, which is then cut off.
Enter at `crop_products`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from graphc.build import Tensor, apply
from graphc.graph import Graph, Node, Value
from graphc.ops.convolution import Axis, contract, label_sizes, parse
from graphc.ops.movement import slice_op
from graphc.passes.windows import settled
from graphc.types import Size


def crop_products(graph: Graph) -> Graph:
    """The graph with every slice by steps of 1 of a `contract` that nothing else reads moved in front of it.

    What a `contract` reads is padded and cut at most once.
    """
    users, outputs = graph.users(), set(graph.outputs)

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.name == "contract":
            x, y = (settled(Tensor(v)) for v in inputs)
            return [contract(node.attrs["spec"], x, y, node.attrs["shape"]).ref]
        if node.op.name != "slice" or any(step != 1 for step in node.attrs["steps"]):
            return None
        product, whole = inputs[0].node, node.inputs[0]
        if product.op.name != "contract" or whole in outputs or len(users[whole]) > 1:
            return None
        return [_cropped(product, node).ref]

    return graph.rewrite(visit)


def _cropped(product: Node, cut: Node) -> Tensor:
    spec, shape = parse(product.attrs["spec"]), cut.types[0].shape
    x, y = (Tensor(v) for v in product.inputs)
    sizes = label_sizes(spec, [x.type, y.type], product.attrs["shape"])
    starts: dict[str, Size] = {}
    for axis, start, count in zip(spec.out, cut.attrs["starts"], shape, strict=True):
        ((label, _),) = axis
        if start != 0 or count != sizes[label]:
            starts[label] = start
        sizes[label] = count
    return contract(spec, _part(x, spec.a, starts, sizes), _part(y, spec.b, starts, sizes), shape)


def _part(x: Tensor, axes: tuple[Axis, ...], starts: dict[str, Size], sizes: dict[str, Size]) -> Tensor:
    """What the cropped product reads of an operand."""
    first: list[Size] = []
    stops: list[Size] = []
    for axis, extent in zip(axes, x.shape, strict=True):
        if not any(label in starts for label, _ in axis):
            first.append(0)
            stops.append(extent)
            continue
        start: Size = 0
        reach: Size = 1
        for label, factor in axis:
            start = start + starts.get(label, 0) * factor
            reach = reach + (sizes[label] - 1) * factor
        first.append(start)
        stops.append(start + reach)
    if all(start == 0 for start in first) and tuple(stops) == x.shape:
        return x
    return settled(cast(Tensor, apply(slice_op, x, starts=tuple(first), stops=tuple(stops), steps=(1,) * x.ndim)))
