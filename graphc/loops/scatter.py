"""Scatter kernels: zeros or a copy, then updates one by one in index order: equal indices have a fixed result.

Enter at `lower_scatter`.
"""

from __future__ import annotations

from graphc.graph import Graph, Value
from graphc.loops.builder import Builder, linear_address
from graphc.loops.evaluate import Checks, Evaluator, Point
from graphc.loops.ir import BufferParam, LoopKernel
from graphc.loops.rows import Lowered
from graphc.ops.lowering import ScatterInto
from graphc.passes.domain import ScatterShape
from graphc.target import Target
from graphc.types import Dim, Size, int64


def lower_scatter(name: str, graph: Graph, shape: ScatterShape, target: Target, checks: Checks) -> Lowered:
    """The kernel for one scatter. Scalar and in one chunk: the order of the updates is its meaning."""
    node = shape.scatter
    indices, updates = node.inputs[-2:]
    axis, kind = node.attrs["axis"], node.types[0]
    buffers = {value: f"b{i}" for i, value in enumerate(graph.inputs)}
    target_buffer = f"b{len(graph.inputs)}"
    h = Builder(1)
    names = [f"f{i}" for i in range(kind.rank)]
    extents: dict[str, Size] = dict(zip(names, indices.type.shape, strict=True))
    extents |= {f"g{a}": size for a, size in enumerate(kind.shape)}
    evaluator = Evaluator(h, graph, buffers, extents, checks)
    combine: str | None = "add"
    if isinstance(node.op.lowering, ScatterInto):
        combine = node.op.lowering.combine(kind.dtype)
        _copy(h, evaluator, node.inputs[0], target_buffer, {})
    else:
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
        h.update_at(target_buffer, address, combine, value, inside)

    nest(list(range(kind.rank)), {})
    params = [BufferParam(buffers[v], v.type.dtype, v.type.size) for v in graph.inputs]
    params.append(BufferParam(target_buffer, kind.dtype, kind.size, writable=True))
    sizes = tuple(sorted(h.sizes))
    kernel = LoopKernel(name, tuple(params), sizes, tuple(h.levels[0].statements), 1)
    return Lowered(kernel, tuple(Dim.symbol(s) for s in sizes))


def _copy(h: Builder, evaluator: Evaluator, x: Value, target: str, place: dict[str, Size]) -> None:
    """Stores every element of `x`: one loop more for each axis that `place` lacks."""
    shape = x.type.shape
    if len(place) < len(shape):
        with h.loop("c", 0, shape[len(place)]) as i:
            _copy(h, evaluator, x, target, {**place, f"g{len(place)}": i})
        return
    index: tuple[Size, ...] = tuple(Dim.symbol(f"g{a}") for a in range(len(shape)))
    point = Point(place)
    address = evaluator.placed(linear_address(index, shape), point)
    h.store(target, address, evaluator.at(x, index, point), None)
