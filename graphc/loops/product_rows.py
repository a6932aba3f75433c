"""Rows of a contraction in its kernel: a few of them wait in scratch, then the loops of rows.py finish them.

Enter at `lower_product_rows`. The contraction's loops come first (contraction.py); where all panels of some rows are
done, `_ProductRows.finish_rows` has the loops over each of their rows. docs/design/row_statistics.md says why so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphc.graph import Graph, Value
from graphc.loops.blocks import bind
from graphc.loops.builder import Builder, Scalar, linear_address
from graphc.loops.contraction import contract
from graphc.loops.evaluate import Checks, Evaluator, Index, Point
from graphc.loops.ir import BufferParam, LoopKernel, Prefetch, Scratch
from graphc.loops.kernel import AHEAD, Lowered, symbol_of
from graphc.loops.matmul import arranged_contraction, outgrows_cache, sizes_of
from graphc.loops.prepack import Pack, prepacked
from graphc.loops.rows import RowsLowering
from graphc.passes.product_rows import ProductRowsShape
from graphc.target import Target
from graphc.types import Dim, Size, symbols


def lower_product_rows(
    name: str, graph: Graph, shape: ProductRowsShape, target: Target, checks: Checks, shared: Callable[[Pack], bool]
) -> Lowered:
    """The kernel for one contraction and rows of its result. shared: whether another one packs an operand so too."""
    return _ProductRows(name, graph, shape, target, checks).contracted(shared)


class _Rows(Evaluator):
    """Reads the product from the scratch in which the row lies that is being finished."""

    product: Value
    row: tuple[str, Size]  # the scratch, and where the row begins

    def _compute(self, value: Value, index: Index, point: Point, operands: list[Scalar]) -> Scalar:
        if value != self.product:
            return super()._compute(value, index, point, operands)
        buffer, start = self.row
        return self.builder.load(buffer, value.type.dtype, start + self.placed(index[-1], point), None, point.guard)


class _ProductRows(RowsLowering):
    def __init__(self, name: str, graph: Graph, shape: ProductRowsShape, target: Target, checks: Checks) -> None:
        self.whole, self.contraction = graph, shape.contraction
        super().__init__(name, shape.behind, shape.rows, target, checks)
        self.evaluator = self.reader = _Rows(self.h, shape.behind, self.buffers, self.extents, checks)
        self.reader.product = shape.product
        # lines of results: shorter rows need not ask before they are complete
        self.asks = outgrows_cache(graph, target) and self._row_bytes(4) > AHEAD

    def _lanes(self) -> int:
        return self.target.lanes(self.contraction.matmul.types[0].dtype.itemsize)

    def contracted(self, shared: Callable[[Pack], bool]) -> Lowered:
        h, graph = self.h, self.whole
        for value, kept in self.scratch.items():
            h.emit(Scratch(kept, value.type.dtype, self._row_bytes(1)))
        _, arranged = arranged_contraction(graph, self.contraction, self.buffers, self.target)
        count = len(graph.inputs) + len(graph.outputs)
        behind = [f"b{count + n}" for n in range(2)]
        problem, sizes = replace(arranged.problem, whole_rows=True), sizes_of(self.buffers)
        problem, packs = prepacked(problem, self.target, sizes, behind, shared)
        schedule = contract(h, problem, None, self.target, self.ahead if self.asks else None, self.finish_rows)
        params = [BufferParam(buffer, v.type.dtype, v.type.size) for v, buffer in self.buffers.items()]
        params += [
            BufferParam(f"b{len(graph.inputs) + n}", v.type.dtype, v.type.size, writable=True)
            for n, v in enumerate(graph.outputs)
        ]
        params += [BufferParam(buffer, pack.dtype, pack.size) for buffer, pack in zip(behind, packs, strict=False)]
        named = tuple(sorted({*h.sizes, *symbols(schedule.chunks)} - {"chunk"}))
        kernel = LoopKernel(self.name, tuple(params), named, tuple(h.levels[0].statements), schedule.chunks)
        return Lowered(kernel, tuple(map(Dim.symbol, named)), packs=tuple(packs))

    def ahead(self, h: Builder, row: Size, col: Size, batch: tuple[Size, ...]) -> None:
        """Lines that will be stored are on their way while a tile is computed."""
        point = self._at_row(bind(h, "row", row), self.outer)
        point.axes[symbol_of(self.axes[-1])] = col
        for value in self.full_results:
            address = self.evaluator.placed(linear_address(self.index_of(value), value.type.shape), point)
            adjacent, place = h.lane_form(address)
            if adjacent:
                for buffer in self._buffers_of(value):
                    h.emit(Prefetch(buffer, h.index(place).expr, True))

    def _ask_for_results(self, points: Sequence[Point]) -> None:
        if not self.asks:
            super()._ask_for_results(points)

    def finish_rows(self, h: Builder, stage: str, width: int, row: Size, count: Size) -> None:
        """`count` rows from `row` on, which lie in `stage`, `width` elements each."""
        self.prefetched.add(stage)
        with h.loop("line", 0, count) as line:
            self.reader.row = stage, bind(h, "at", line * width)
            self._row([self._at_row(bind(h, "row", row + line), self.outer)], {})
