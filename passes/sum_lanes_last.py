"""A sum along the axis that lies side by side is done last, so that its elements are lanes until then.

The weight gradient of depthwise windows of channels-first images sums over the pixels of a line, and neither channels
nor the places of the window lie side by side. Each place of a line sums what is above it first:

    n g h+p w+q, n g h w -> g p q        n g h+p w+q, n g h w -> g p q w, then the sum over w

which is a product that has its columns, the lines, in both operands. Enter at `sum_lanes_last`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.build import Tensor
from graphc.graph import Graph, Node, Value
from graphc.ops.convolution import Spec, contract, label_sizes, parse
from graphc.ops.reductions import sum as sum_
from graphc.ops.selection import astype
from graphc.passes.windows import adjacent, in_memory, is_line
from graphc.types import Size, product

LONG = 2  # products that each lane sums, for each number that it leaves: fewer are as well added as they come


def sum_lanes_last(graph: Graph) -> Graph:
    """The graph with every such `contract` of windows taken apart into one that keeps the lines, and their sum."""

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.name != "contract":
            return None
        spec = parse(node.attrs["spec"])
        sizes = label_sizes(spec, [v.type for v in inputs], node.attrs["shape"])
        for position in (0, 1):
            images, slopes = inputs[position], inputs[1 - position]
            turned = Spec(spec[position], spec[1 - position], spec.out)
            lane = _lane(turned, images, slopes)
            if lane is not None and _pays(turned, lane, sizes):
                shape = (*node.attrs["shape"], sizes[lane])
                kept = contract(Spec(*turned[:2], (*spec.out, ((lane, 1),))), Tensor(images), Tensor(slopes), shape)
                return [astype(sum_(kept, -1), node.types[0].dtype).ref]
        return None

    return graph.rewrite(visit)


def _lane(spec: Spec, images: Value, slopes: Value) -> str | None:
    """The summed label along which both operands lie, in the images under a window; None where columns are found."""
    lane, across = adjacent(slopes, spec.b), in_memory(images, spec.a)[1][-1:]
    if not across or not is_line(across[0], lane) or any(axis[0][0] == lane for axis in spec.out):
        return None
    own = {label for axis in spec.b for label, _ in axis} - {label for axis in spec.a for label, _ in axis}
    return None if own else lane


def _pays(spec: Spec, lane: str, sizes: Mapping[str, Size]) -> bool:
    out = [axis[0][0] for axis in spec.out]
    windows = {label for axis in spec.a if len(axis) > 1 for label, _ in axis} & set(out)
    places = [sizes[label] for label in windows]
    steps = [size for label, size in sizes.items() if label not in (*out, lane)]
    known = all(isinstance(size, int) for size in (sizes[lane], *places))
    return known and sizes[lane] != 1 and are_long(steps, places)


def are_long(steps: Sequence[Size], places: Sequence[Size]) -> bool:
    """Whether sums of these steps for each place of a window pay for the lanes that are left to add. Names are many."""
    summed, kept = product(steps), product(places)
    return not isinstance(summed, int) or not isinstance(kept, int) or LONG * kept <= summed
