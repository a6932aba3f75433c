"""Sort kernels (argsort): a stable merge sort of positions for each index of the other axes.

Runs of 1, 2, 4, ... positions are merged, from the result into a temporary and back, two passes at a time so that the
last one ends in the result. Each step of a merge takes one of two heads and has no branch. Scalar; chunks are groups
of chains. Enter at `lower_sort`.
"""

from __future__ import annotations

from typing import Any

from graphc.graph import Graph
from graphc.loops.builder import Builder, Ranges, Scalar, linear_address
from graphc.loops.evaluate import Checks, Evaluator, Index, Point
from graphc.loops.ir import BufferParam, LoopKernel
from graphc.loops.kernel import GRAIN, Lowered
from graphc.passes.domain import SortShape
from graphc.target import Target
from graphc.types import Dim, Size, ceildiv, int64, maximum, minimum, product, symbols

MOST_PAIRS = 20  # of passes, for a size that is not known: 4**20 elements
COST = 32  # about how many simple instructions an element takes for each pass


def lower_sort(name: str, graph: Graph, shape: SortShape, target: Target, checks: Checks) -> Lowered:
    """The kernel for one argsort of a view."""
    return _Sorting(graph, shape, checks).run(name)


class _Sorting:
    def __init__(self, graph: Graph, shape: SortShape, checks: Checks) -> None:
        self.graph, self.node = graph, shape.sort
        self.shape, self.axis = self.node.types[0].shape, self.node.attrs["axis"]
        self.length = self.shape[self.axis]
        self.h = Builder(1)
        self.names = [f"f{a}" for a in range(len(self.shape))]
        self.extents: dict[str, Size] = dict(zip(self.names, self.shape, strict=True))
        self.index: Index = tuple(Dim.symbol(n) for n in self.names)
        self.buffers = {value: f"b{i}" for i, value in enumerate(graph.inputs)}
        self.result, self.other = f"b{len(graph.inputs)}", f"b{len(graph.inputs) + 1}"
        self.evaluator = Evaluator(self.h, graph, self.buffers, self.extents, checks)

    def run(self, name: str) -> Lowered:
        h, total = self.h, product(self.shape)
        others = [a for a in range(len(self.shape)) if a != self.axis]
        chains = product(self.shape[a] for a in others)
        share: Size = GRAIN // (maximum(self.length, 1) * COST) + 1
        first = self._named("first", Dim.symbol("chunk") * share)
        with h.loop("i", first, self._named("last", minimum(first + share, chains))) as chain:
            ranges = Ranges({**self.extents, str(chain): chains})
            place: dict[str, Size] = {}
            rest: Size = chain
            for a in reversed(others):
                place[self.names[a]] = self._named("at", ranges.mod(rest, self.shape[a]))
                rest = self._named("rest", ranges.div(rest, self.shape[a]))
            self._chain(place)
        params = [BufferParam(self.buffers[v], v.type.dtype, v.type.size) for v in self.graph.inputs]
        params += [BufferParam(b, int64, total, writable=True) for b in (self.result, self.other)]
        chunks = ceildiv(chains, share)
        sizes = tuple(sorted({*h.sizes, *symbols(chunks), *symbols(total)}))
        kernel = LoopKernel(name, tuple(params), sizes, tuple(h.levels[0].statements), chunks)
        return Lowered(kernel, tuple(Dim.symbol(s) for s in sizes), ((int64, total),))

    def _named(self, stem: str, size: Size | Scalar) -> Size:
        """A symbol for a computed index."""
        if isinstance(size, int):
            return size
        symbol = self.h.fresh(stem)
        self.h.symbols[symbol] = size if isinstance(size, Scalar) else self.h.index(size)
        return Dim.symbol(symbol)

    def _address(self, place: dict[str, Size], k: Size) -> Size:
        point = Point({**place, self.names[self.axis]: k})
        return self.evaluator.placed(linear_address(self.index, self.shape), point)

    def _chain(self, place: dict[str, Size]) -> None:
        """Sort one chain."""
        h = self.h
        with h.loop("k", 0, self.length) as k:
            h.store(self.result, self._address(place, k), h.index(k), None)
        with h.loop("e", 0, self._pairs()) as e:
            width = self._named("width", h.shl(h.constant(1, int64), h.index(e * 2)))
            last = maximum(self.length - 1, 0)
            runs = self._named("runs", last // width)  # 0 if the chain is one run already
            for source, target, by in ((self.result, self.other, width), (self.other, self.result, width * 2)):
                with h.loop("m", 0, minimum(last // (by * 2) + 1, runs)) as m:
                    low = self._named("low", m * by * 2)
                    middle = self._named("middle", minimum(low + by, self.length))
                    high = self._named("high", minimum(low + by * 2, self.length))
                    self._merge(place, source, target, low, middle, high)

    def _pairs(self) -> int:
        if not isinstance(self.length, int):
            return MOST_PAIRS
        return (max(self.length - 1, 0).bit_length() + 1) // 2

    def _merge(self, place: dict[str, Size], source: str, target: str, low: Size, middle: Size, high: Size) -> None:
        """target[low:high] = source[low:middle] and source[middle:high], both in order, merged."""
        h = self.h
        left, right = h.register(h.index(low), "left"), h.register(h.index(middle), "right")
        with h.loop("t", low, high) as t:
            heads: list[tuple[Scalar, Scalar, Scalar, Any]] = []
            for register, end in ((left, middle), (right, high)):
                at = h.read(register)
                there = h.lt(at, h.index(end))
                position = h.load(source, int64, self._address(place, self._named("head", at)), None, there)
                point = Point({**place, self.names[self.axis]: self._named("pick", position)})
                heads.append((at, there, position, self.evaluator.at(self.node.inputs[0], self.index, point)))
            (i, more, first, x), (j, others, second, y) = heads
            before = self.node.op.lowering.before(h, self.node.attrs, y, x)
            takes = h.and_(others, h.or_(h.not_(more), before))
            h.store(target, self._address(place, t), h.select(takes, second, first), None)
            step = h.cast(takes, int64)
            h.assign(right, h.add(j, step))
            h.assign(left, h.add(i, h.sub(h.constant(1, int64), step)))
