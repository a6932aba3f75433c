"""Products without two sides become elementwise products and sums.

A tile of a contraction needs rows that only one operand has and columns that only the other has, or columns that lie
side by side wherever they are. Convolutions to one channel, depthwise weight gradients of NCHW images and products of a
matrix and a vector that lies along its rows have neither: they are memory-bound loops, which kernels of rows do best.
The elements of each window become shifted slices:

    n h+p w+q g, p q g -> n h w g         sum over p, q of x[:, p:p+H, q:q+W] * w[p, q]
    n h+p w+q g, n h w g -> p q g         for each p, q: sum over n, h, w of x[:, p:p+H, q:q+W] * g

Enter at `expand_products`; what is expanded is said in `_taps` and `_is_dot`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import cast

from graphc.build import Tensor, apply
from graphc.graph import Graph, Node, Value
from graphc.ops.convolution import Axis, Spec, label_sizes, parse
from graphc.ops.joining import concat
from graphc.ops.movement import broadcast_to, matrix_transpose, reshape, slice_op, transpose
from graphc.ops.reductions import sum as sum_
from graphc.ops.selection import astype
from graphc.passes.windows import adjacent, reads_lines
from graphc.types import Size

LONG = 64  # a shorter row is as well off in a tile
MOST_TAPS = 25  # elements of a window that are taken apart


def expand_products(graph: Graph) -> Graph:
    """The graph with every `contract` of one side only, and every matrix-vector product over rows, expanded."""

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.name == "contract":
            spec = parse(node.attrs["spec"])
            sizes = label_sizes(spec, [v.type for v in inputs], node.attrs["shape"])
            taps = None if _has_lanes(spec, inputs) or reads_lines(spec, inputs) else _taps(spec, sizes)
            if taps is not None:
                return [_expanded(spec, sizes, taps, Tensor(inputs[0]), Tensor(inputs[1])).ref]
        if node.op.name == "matmul" and _is_dot(inputs):
            return [_dot(Tensor(inputs[0]), Tensor(inputs[1])).ref]
        return None

    return graph.rewrite(visit)


def _is_dot(inputs: tuple[Value, ...]) -> bool:
    """Whether a matmul is of one column (or row), and sums along the rows of the other operand as it lies in memory."""
    a, b = inputs
    k = a.type.shape[-1]
    if not isinstance(k, int) or k < LONG:
        return False
    if b.type.shape[-1] == 1:
        return a.type.shape[-2] != 1 and a.node.op.name != "transpose"
    return a.type.shape[-2] == 1 and b.node.op.name == "transpose"


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for a column b or a row a."""
    if b.shape[-1] == 1:
        products = a * broadcast_to(matrix_transpose(b), a.shape)
        return astype(sum_(products, -1, keepdims=True), a.dtype)
    columns = matrix_transpose(b)  # the matrix as it lies in memory
    return astype(matrix_transpose(sum_(columns * broadcast_to(a, columns.shape), -1, keepdims=True)), a.dtype)


def _has_lanes(spec: Spec, inputs: tuple[Value, ...]) -> bool:
    """Whether a label of the result lies side by side in each operand that has it: vectors of columns."""
    out = {axis[0][0] for axis in spec.out}
    sides = [(adjacent(value, axes), axes) for value, axes in zip(inputs, (spec.a, spec.b), strict=True)]
    for label, _ in sides:
        others = [other for other, axes in sides if any(label == name for axis in axes for name, _ in axis)]
        if label in out and all(other == label for other in others):
            return True
    return False


def _taps(spec: Spec, sizes: Mapping[str, Size]) -> list[str] | None:
    """The labels within windows, if the product has one side only and they are few; else None."""
    large = {label for label, size in sizes.items() if size != 1}
    a, b = ({label for axis in axes for label, _ in axis} & large for axes in (spec.a, spec.b))
    out = {axis[0][0] for axis in spec.out} & large
    windows = [axis for axes in (spec.a, spec.b) for axis in axes if len(axis) > 1]
    if not windows or ((a - b) & out and (b - a) & out):
        return None
    found = [axis[1][0] for axis in windows]
    counts = [sizes[label] for label in found]
    if len(set(found)) != len(found) or not all(isinstance(n, int) for n in counts):
        return None
    number = 1
    for n in counts:
        number *= cast(int, n)
    return found if 1 <= number <= MOST_TAPS else None


def _expanded(spec: Spec, sizes: Mapping[str, Size], taps: list[str], x: Tensor, y: Tensor) -> Tensor:
    out = [axis[0][0] for axis in spec.out]
    order = _in_memory_order(spec, [label for label in sizes if label not in taps])
    kept = [label for label in order if label in out]
    parts: dict[tuple[int, ...], Tensor] = {}
    for place in product(*(range(cast(int, sizes[tap])) for tap in taps)):
        at = dict(zip(taps, place, strict=True))
        shape = tuple(sizes[label] for label in order)
        a, b = (_part(t, axes, at, sizes, order) for t, axes in ((x, spec.a), (y, spec.b)))
        term = broadcast_to(a, shape) * broadcast_to(b, shape)
        key = tuple(n if tap in out else 0 for tap, n in at.items())
        parts[key] = parts[key] + term if key in parts else term
    axes = [position for position, label in enumerate(order) if label not in out]
    results = [astype(sum_(part, axes), x.dtype) if axes else part for part in parts.values()]
    there = [tap for tap in taps if tap in out]
    if not there:
        return transpose(results[0], [kept.index(label) for label in out])
    ends = [sizes[label] for label in kept]
    stacked = concat([reshape(result, (1, *ends)) for result in results], 0)
    whole = reshape(stacked, (*(sizes[tap] for tap in there), *ends))
    return transpose(whole, [(there + kept).index(label) for label in out])


def _in_memory_order(spec: Spec, labels: list[str]) -> list[str]:
    """The labels in the order of the operand that has most of them: its elements are read one after the other."""
    a, b = ([label for axis in axes for label, _ in axis if label in labels] for axes in (spec.a, spec.b))
    first, second = (a, b) if len(a) >= len(b) else (b, a)
    return first + [label for label in second if label not in first]


def _part(
    x: Tensor, axes: tuple[Axis, ...], at: Mapping[str, int], sizes: Mapping[str, Size], order: list[str]
) -> Tensor:
    """What an operand contributes at one place of the windows, with the axes of `order` (1 for those it lacks)."""
    starts: list[Size] = []
    stops: list[Size] = []
    steps: list[int] = []
    labels: list[str] = []
    for axis in axes:
        start, step, count = 0, 1, cast(Size, 1)
        for label, factor in axis:
            if label in at:
                start += at[label] * factor
            else:
                step, count = factor, sizes[label]
                labels.append(label)
        if not labels or labels[-1] not in [label for label, _ in axis]:
            labels.append("")  # an axis of which one place is taken
        starts.append(start)
        stops.append(start + (count - 1) * step + 1)
        steps.append(step)
    part = cast(Tensor, apply(slice_op, x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps)))
    named = [position for position, label in enumerate(labels) if label]
    found = [labels[position] for position in named]
    part = reshape(part, [part.shape[position] for position in named])
    part = transpose(part, [found.index(label) for label in order if label in found])
    return reshape(part, [sizes[label] if label in found else 1 for label in order])
