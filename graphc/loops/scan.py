"""Scan kernels (cumsum and its like): one chain of combinations for each index of the other axes, in order.

Lanes run along the last axis if that is not the one that is scanned: they are chains of their own. Else as many chains
as a vector has lanes run side by side: squares of their elements are transposed in registers, combined, and transposed
back. Chunks are groups of chains, so no chain is cut, and the result is that of a plain loop, to the bit. Enter at
`lower_scan`.
"""

from __future__ import annotations

from graphc.graph import Graph, Node
from graphc.loops.builder import LANE, Builder, Ranges, Scalar, linear_address
from graphc.loops.evaluate import Checks, Evaluator, Point
from graphc.loops.ir import BufferParam, LoopKernel
from graphc.loops.kernel import GRAIN, Lowered, lanes_for
from graphc.loops.lanes import below, named
from graphc.loops.packing import transposed
from graphc.ops.lowering import Scan
from graphc.passes.domain import ScanShape
from graphc.target import Target
from graphc.types import Dim, Size, TensorType, ceildiv, maximum, minimum, product, symbols

SQUARE = 12  # simple instructions for each vector of a square: load, store, combine and two transposes


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

    if lane_axis is None and kind.shape[axis] != 1 and _side_by_side(graph, kind, outer, target):
        return _Squares(name, graph, node, outer, target, checks).lowered()

    vectors: Size = 1 if lane_axis is None else ceildiv(kind.shape[lane_axis], h.lane_count)
    chains = product(kind.shape[a] for a in outer) * vectors
    length = kind.shape[axis]
    share: Size = ceildiv(GRAIN, length) if isinstance(length, int) and length else GRAIN // maximum(length, 1) + 1

    first = named(h, "first", Dim.symbol("chunk") * share)
    with h.loop("i", first, named(h, "last", minimum(first + share, chains))) as chain:
        ranges = Ranges({**extents, str(chain): chains})
        place, mask = _place(h, ranges, kind, outer, lane_axis, chain)
        total = h.register(h.widened(h.constant(lowering.init(kind.dtype), kind.dtype), h.lane_count))
        with h.loop("k", 0, length) as k:
            point = Point({**place, names[axis]: (length - 1 - k) if reverse else k}, mask)
            value = h.cast(evaluator.at(node.inputs[0], index, point), kind.dtype)
            h.assign(total, lowering.combine(h, h.read(total), h.widened(value, h.lane_count)))
            address = evaluator.placed(linear_address(index, kind.shape), point)
            h.store(result, address, h.read(total), mask)

    return _finished(name, graph, h, ceildiv(chains, share))


def _place(
    h: Builder, ranges: Ranges, kind: TensorType, outer: list[int], lane_axis: int | None, chain: Size
) -> tuple[dict[str, Size], Scalar | None]:
    """Where a chain (or a vector of them along `lane_axis`) lies on all axes but its own, and the mask of its lanes."""
    place: dict[str, Size] = {f"f{a}": 0 for a, size in enumerate(kind.shape) if size == 1}
    rest, mask = chain, None
    if lane_axis is not None:
        size = kind.shape[lane_axis]
        vectors = ceildiv(size, h.lane_count)
        start = named(h, "start", ranges.mod(rest, vectors) * h.lane_count)
        rest = named(h, "row", ranges.div(rest, vectors))
        place[f"f{lane_axis}"] = start + Dim.symbol(LANE)
        mask = h.lt(h.symbols[LANE], h.index(size - start))
    for a in reversed(outer):
        last = a == outer[0]
        place[f"f{a}"] = rest if last else named(h, "at", ranges.mod(rest, kind.shape[a]))
        rest = rest if last else named(h, "rest", ranges.div(rest, kind.shape[a]))
    return place, mask


def _finished(name: str, graph: Graph, h: Builder, chunks: Size) -> Lowered:
    params = [BufferParam(f"b{i}", v.type.dtype, v.type.size) for i, v in enumerate(graph.inputs)]
    (result,) = graph.outputs
    params.append(BufferParam(f"b{len(params)}", result.type.dtype, result.type.size, writable=True))
    sizes = tuple(sorted({*h.sizes, *symbols(chunks)}))
    kernel = LoopKernel(name, tuple(params), sizes, tuple(h.levels[0].statements), chunks)
    return Lowered(kernel, tuple(Dim.symbol(s) for s in sizes))


def _side_by_side(graph: Graph, kind: TensorType, outer: list[int], target: Target) -> bool:
    """Whether chains fill the lanes, half of them at least, and all elements have the size that registers transpose."""
    lanes, chains = target.lanes(kind.dtype.itemsize), product(kind.shape[a] for a in outer)
    sizes = {v.type.dtype.itemsize for node in graph.order() for v in node.outputs if v.type.rank}
    enough = not isinstance(chains, int) or 2 * chains >= lanes
    return enough and lanes > 1 and sizes == {kind.dtype.itemsize} and kind.dtype.itemsize >= 4 and bool(outer)


class _Squares:
    """Chains along the last axis, as many at a time as there are lanes; `lowered` gives the kernel."""

    def __init__(self, name: str, graph: Graph, node: Node, outer: list[int], target: Target, checks: Checks) -> None:
        self.name, self.graph, self.node, self.outer = name, graph, node, outer
        self.kind = node.types[0]
        self.h = Builder(target.lanes(self.kind.dtype.itemsize))
        self.axes = [f"f{a}" for a in range(self.kind.rank)]
        self.extents: dict[str, Size] = dict(zip(self.axes, self.kind.shape, strict=True))
        buffers = {value: f"b{i}" for i, value in enumerate(graph.inputs)}
        self.evaluator = Evaluator(self.h, graph, buffers, self.extents, checks)
        self.chains = product(self.kind.shape[a] for a in outer)

    def lowered(self) -> Lowered:
        h, lanes, kind, axis = self.h, self.h.lane_count, self.kind, self.node.attrs["axis"]
        length, lowering = kind.shape[axis], self.node.op.lowering
        assert isinstance(lowering, Scan)
        groups, squares = ceildiv(self.chains, lanes), ceildiv(length, lanes)
        work = squares * (SQUARE * lanes)
        share: Size = ceildiv(GRAIN, work) if isinstance(work, int) and work else GRAIN // maximum(work, 1) + 1
        first = named(h, "first", Dim.symbol("chunk") * share)
        start = h.widened(h.constant(lowering.init(kind.dtype), kind.dtype), lanes)
        with h.loop("i", first, named(h, "last", minimum(first + share, groups))) as group:
            places = [self._place(group * lanes + n) for n in range(lanes)]
            total = h.register(start)
            with h.loop("k", 0, squares) as k:
                at = named(h, "at", (squares - 1 - k if self.node.attrs["reverse"] else k) * lanes)
                mask = None if isinstance(length, int) and length % lanes == 0 else below(h, length - at)
                points = [Point({**place, self.axes[axis]: at + Dim.symbol(LANE)}, mask) for place in places]
                columns = transposed(h, [self._value(p, start) for p in points])
                results = dict.fromkeys(range(lanes), h.read(total))
                steps = range(lanes - 1, -1, -1) if self.node.attrs["reverse"] else range(lanes)
                before = h.read(total)
                for n in steps:
                    before = results[n] = lowering.combine(h, before, columns[n])
                h.assign(total, before)
                for p, row in zip(points, transposed(h, [results[n] for n in range(lanes)]), strict=True):
                    address = self.evaluator.placed(linear_address(self._index(), kind.shape), p)
                    h.store(f"b{len(self.graph.inputs)}", address, row, mask)
        return _finished(self.name, self.graph, h, ceildiv(groups, share))

    def _index(self) -> tuple[Size, ...]:
        return tuple(0 if size == 1 else Dim.symbol(n) for n, size in self.extents.items())

    def _place(self, chain: Size) -> dict[str, Size]:
        """Where a chain lies; those that do not exist are the last one once more."""
        exact = isinstance(self.chains, int) and self.chains % self.h.lane_count == 0
        rest = named(self.h, "row", chain if exact else minimum(chain, self.chains - 1))
        ranges = Ranges({**self.extents, str(rest): self.chains})
        place: dict[str, Size] = {n: 0 for n, size in self.extents.items() if size == 1}
        for a in reversed(self.outer[1:]):
            place[self.axes[a]] = named(self.h, "at", ranges.mod(rest, self.kind.shape[a]))
            rest = named(self.h, "rest", ranges.div(rest, self.kind.shape[a]))
        place[self.axes[self.outer[0]]] = rest
        return place

    def _value(self, point: Point, neutral: Scalar) -> Scalar:
        """A vector of the operand; what is beyond the end changes nothing."""
        value = self.h.cast(self.evaluator.at(self.node.inputs[0], self._index(), point), self.kind.dtype)
        value = self.h.widened(value, self.h.lane_count)
        return value if point.mask is None else self.h.select(point.mask, value, neutral)
