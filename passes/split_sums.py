"""A long sum with a small result that does little with what it reads is cut in two, so that two threads read half each.

The weight gradient of depthwise windows is one: its result is a few numbers, and memory is all that counts. Cut by
columns, each part would read half of every pixel, which takes as long as all of it. Cut by images, it is

    n h+p w+q g, n h w g -> p q g        z n h+p w+q g, z n h w g -> z p q g, then the sum over z

The cut follows from the sizes alone, so the bits do not depend on threads. Enter at `split_sums`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import cast

from graphc.build import Tensor
from graphc.graph import Graph, Node, Value
from graphc.ops.convolution import Spec, contract, label_sizes, parse
from graphc.ops.movement import reshape
from graphc.ops.reductions import sum as sum_
from graphc.ops.selection import astype
from graphc.passes.windows import unspread, window
from graphc.types import Size

FEW = 16  # products for each element that is read: with fewer, reading takes the time
LONG = 1 << 20  # elements that are read: fewer are read in no time
PARTS = 2
LETTERS = "zyxvutsrmlkjifedbaZYXWVUTSRQPONMLKJIHGFEDCBA"


def split_sums(graph: Graph) -> Graph:
    """The graph with every such `contract` whose operands begin with a label that is summed taken apart."""

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.name != "contract":
            return None
        spec = parse(node.attrs["spec"])
        sizes = label_sizes(spec, [v.type for v in inputs], node.attrs["shape"])
        if not _pays(spec, inputs, list(sizes.values()), node.attrs["shape"]):
            return None
        return [_split(spec, Tensor(inputs[0]), Tensor(inputs[1]), node.attrs["shape"]).ref]

    return graph.rewrite(visit)


def _pays(spec: Spec, inputs: Sequence[Value], sizes: Sequence[Size], shape: Sequence[Size]) -> bool:
    first = spec.a[0] if spec.a else ()
    if not first or first != (spec.b[0] if spec.b else ()) or len(first) != 1 or first[0][1] != 1 or first in spec.out:
        return False
    read = [size for value in inputs for size in value.type.shape]
    if not all(isinstance(size, int) for size in (*sizes, *read, *shape)):
        return False
    elements = sum(prod(cast(tuple[int, ...], value.type.shape)) for value in inputs)
    count = cast(int, inputs[0].type.shape[0])
    shared = {label for axis in spec.a for label, _ in axis} & {label for axis in spec.b for label, _ in axis}
    if any(axis[0][0] in shared for axis in spec.out[:-1]):
        return False  # each element of it has its own part of both, which threads share as they are
    few = prod(cast(Sequence[int], sizes)) < FEW * elements and prod(cast(Sequence[int], shape)) * 64 < elements
    return few and elements >= LONG and count >= PARTS and count % PARTS == 0


def _split(spec: Spec, x: Tensor, y: Tensor, shape: Sequence[Size]) -> Tensor:
    used = {label for axes in spec for axis in axes for label, _ in axis}
    part = ((next(letter for letter in LETTERS if letter not in used), 1),)
    apart = Spec((part, *spec.a), (part, *spec.b), (part, *spec.out))
    return astype(sum_(contract(apart, _parts(x), _parts(y), (PARTS, *shape)), 0), x.dtype)


def _parts(x: Tensor) -> Tensor:
    """`x` with its first axis cut; behind its padding, which stays the last step."""
    base, starts, steps = unspread(x.ref)
    apart = [PARTS, cast(int, x.shape[0]) // PARTS]
    if base.shape[0] != x.shape[0] or any(step != 1 for step in steps) or not all(isinstance(n, int) for n in starts):
        return reshape(x, (*apart, *x.shape[1:]))
    first = [-cast(int, start) for start in starts]
    return window(reshape(base, (*apart, *base.shape[1:])), [0, *first], (*apart, *x.shape[1:]))
