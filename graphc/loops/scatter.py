"""Scatter kernels: zeros, then additions one by one in index order, so that equal indices add in a fixed order."""

from __future__ import annotations

from graphc.graph import Graph
from graphc.loops.builder import Builder, linear_address
from graphc.loops.evaluate import Checks, Evaluator, Point
from graphc.loops.ir import BufferParam, LoopKernel
from graphc.loops.rows import Lowered
from graphc.passes.domain import ScatterShape
from graphc.target import Target
from graphc.types import Dim, Size, int64


def lower_scatter(name: str, graph: Graph, shape: ScatterShape, target: Target, checks: Checks) -> Lowered:
    """The kernel for one scatter_add_along_axis. Scalar and in one chunk: the order of the additions is its meaning."""
    node = shape.scatter
    indices, updates = node.inputs
    axis, kind = node.attrs["axis"], node.types[0]
    buffers = {value: f"b{i}" for i, value in enumerate(graph.inputs)}
    target_buffer = f"b{len(graph.inputs)}"
    h = Builder(1)
    names = [f"f{i}" for i in range(kind.rank)]
    extents: dict[str, Size] = dict(zip(names, indices.type.shape, strict=True))
    evaluator = Evaluator(h, graph, buffers, extents, checks)
    with h.loop("z", 0, kind.size) as z:
        h.store(target_buffer, z, h.constant(0, kind.dtype), None)

    def nest(left: list[int], place: dict[str, Size]) -> None:
        if left:
            with h.loop("i", 0, indices.type.shape[left[0]]) as i:
                nest(left[1:], {**place, names[left[0]]: i})
            return
        point = Point(place)
        index: tuple[Size, ...] = tuple(Dim.symbol(n) for n in names)
        chosen = evaluator.at(indices, index, point)
        value = h.cast(evaluator.at(updates, index, point), kind.dtype)
        flat = linear_address(index, indices.type.shape)
        inside = evaluator.checked(node, chosen, h.index(kind.shape[axis]), flat, point)
        pick = h.fresh("pick")
        h.symbols[pick] = h.cast(chosen, int64)
        spot = (*index[:axis], Dim.symbol(pick), *index[axis + 1 :])
        address = evaluator.placed(linear_address(spot, kind.shape), point)
        h.add_at(target_buffer, kind.dtype, address, value, inside)

    nest(list(range(kind.rank)), {})
    params = [BufferParam(buffers[v], v.type.dtype, v.type.size) for v in graph.inputs]
    params.append(BufferParam(target_buffer, kind.dtype, kind.size, writable=True))
    sizes = tuple(sorted(h.sizes))
    kernel = LoopKernel(name, tuple(params), sizes, tuple(h.levels[0].statements), 1)
    return Lowered(kernel, tuple(Dim.symbol(s) for s in sizes))
