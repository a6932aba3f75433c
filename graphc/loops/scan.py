"""Scan kernels (cumsum and its like): one chain of combinations for each index of the other axes, in order.

Lanes run along the last axis if that is not the one that is scanned: they are chains of their own. Chunks are groups
of chains, so no chain is cut, and the result is that of a plain loop, to the bit.
"""

from __future__ import annotations

from graphc.graph import Graph
from graphc.loops.builder import LANE, Builder, Ranges, Scalar, linear_address
from graphc.loops.evaluate import Checks, Evaluator, Point
from graphc.loops.ir import BufferParam, LoopKernel
from graphc.loops.kernel import GRAIN, Lowered, lanes_for
from graphc.ops.lowering import Scan
from graphc.passes.domain import ScanShape
from graphc.target import Target
from graphc.types import Dim, Size, ceildiv, maximum, minimum, product, symbols


def lower_scan(name: str, graph: Graph, shape: ScanShape, target: Target, checks: Checks) -> Lowered:
    """The kernel for one scan over a view."""
    node = shape.scan
    kind, axis, reverse = node.types[0], node.attrs["axis"], node.attrs["reverse"]
    lowering = node.op.lowering
    assert isinstance(lowering, Scan)
    others = [a for a, size in enumerate(kind.shape) if size != 1 and a != axis]
    lane_axis = others[-1] if others and others[-1] > axis else None
    outer = [a for a in others if a != lane_axis]
    h = Builder(1 if lane_axis is None else lanes_for(graph, target))
    names = [f"f{a}" for a in range(kind.rank)]
    extents: dict[str, Size] = dict(zip(names, kind.shape, strict=True))
    buffers = {value: f"b{i}" for i, value in enumerate(graph.inputs)}
    result = f"b{len(graph.inputs)}"
    evaluator = Evaluator(h, graph, buffers, extents, checks)
    index: tuple[Size, ...] = tuple(
        0 if size == 1 else Dim.symbol(n) for n, size in zip(names, kind.shape, strict=True)
    )

    vectors: Size = 1 if lane_axis is None else ceildiv(kind.shape[lane_axis], h.lane_count)
    chains = product(kind.shape[a] for a in outer) * vectors
    length = kind.shape[axis]
    share: Size = ceildiv(GRAIN, length) if isinstance(length, int) and length else GRAIN // maximum(length, 1) + 1

    def named(stem: str, size: Size) -> Size:
        if isinstance(size, int):
            return size
        symbol = h.fresh(stem)
        h.symbols[symbol] = h.index(size)
        return Dim.symbol(symbol)

    first = named("first", Dim.symbol("chunk") * share)
    with h.loop("i", first, named("last", minimum(first + share, chains))) as chain:
        ranges = Ranges({**extents, str(chain): chains})
        place: dict[str, Size] = {n: 0 for n, size in extents.items() if size == 1}
        rest: Size = chain
        mask: Scalar | None = None
        if lane_axis is not None:
            start = named("start", ranges.mod(rest, vectors) * h.lane_count)
            rest = named("row", ranges.div(rest, vectors))
            place[names[lane_axis]] = start + Dim.symbol(LANE)
            mask = h.lt(h.symbols[LANE], h.index(kind.shape[lane_axis] - start))
        for a in reversed(outer):
            last = a == outer[0]
            place[names[a]] = rest if last else named("at", ranges.mod(rest, kind.shape[a]))
            rest = rest if last else named("rest", ranges.div(rest, kind.shape[a]))
        total = h.register(h.widened(h.constant(lowering.init(kind.dtype), kind.dtype), h.lane_count))
        with h.loop("k", 0, length) as k:
            point = Point({**place, names[axis]: (length - 1 - k) if reverse else k}, mask)
            value = h.cast(evaluator.at(node.inputs[0], index, point), kind.dtype)
            h.assign(total, lowering.combine(h, h.read(total), h.widened(value, h.lane_count)))
            address = evaluator.placed(linear_address(index, kind.shape), point)
            h.store(result, address, h.read(total), mask)

    params = [BufferParam(buffers[v], v.type.dtype, v.type.size) for v in graph.inputs]
    params.append(BufferParam(result, kind.dtype, kind.size, writable=True))
    chunks = ceildiv(chains, share)
    sizes = tuple(sorted({*h.sizes, *symbols(chunks)}))
    kernel = LoopKernel(name, tuple(params), sizes, tuple(h.levels[0].statements), chunks)
    return Lowered(kernel, tuple(Dim.symbol(s) for s in sizes))
