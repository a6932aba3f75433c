"""Sums over columns and the like: reductions over all axes but the last, parallel over the rows.

    for each chunk of rows (and of columns, if there are many):
        its line of partial results = neutral
        for every few rows, and the last ones one by one:
            for each vector of columns:      full results are stored; the rows are joined, then added to the line
    finish, for each vector of columns:      the lines are joined in order, row results stored, totals added

Memory is read in its order, and a line stays in the cache. Float32 sums join the few rows in float32 and add them to
the line in float64. Kernels with several stages of column reductions come here in parts, one for each stage
(`graphc.passes.split_columns`). `suits` says which kernels come here at all; enter at `ColumnsLowering.run`.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph import Graph, Node, Value
from graphc.loops.evaluate import Checks, Point
from graphc.loops.folds import Fold, partials_fold, wide_dtype
from graphc.loops.ir import Stmt
from graphc.loops.kernel import AHEAD, KernelLowering, symbol_of
from graphc.loops.lanes import child, named
from graphc.loops.lines import Lines
from graphc.loops.regroup import TOGETHER
from graphc.ops.lowering import Reduction
from graphc.passes.domain import FULL, RowsShape
from graphc.target import Target
from graphc.types import Dim, DType, Size, ceildiv, product

FEW = 64  # rows of which a known number this small is summed in registers, column by column
WIDEST = 4096  # columns of a chunk: a line stays in the cache


def suits(shape: RowsShape, graph: Graph) -> bool:
    """Whether a kernel is one stage of reductions over all axes but the last, and nothing full waits for them."""
    axes = [axis for axis, size in enumerate(shape.full) if size != 1]
    reduced = [axis for axis in axes if axis in shape.reduced]
    if not reduced or not shape.reductions or axes[:-1] != reduced:
        return False
    rows = product(shape.full[axis] for axis in reduced)
    if isinstance(rows, int) and rows <= FEW:
        return False
    if not all(isinstance(node.op.lowering, Reduction) for node in shape.reductions):
        return False
    behind: set[Node] = set()
    for node in graph.order():
        if any(v.node in behind or v.node in shape.reductions for v in node.inputs):
            behind.add(node)
    return not any(node in shape.reductions or shape.classes[Value(node)] == FULL for node in behind)


class ColumnsLowering(KernelLowering):
    """One kernel of column reductions; `run` gives it."""

    def __init__(self, name: str, graph: Graph, shape: RowsShape, target: Target, checks: Checks) -> None:
        super().__init__(name, graph, shape, target, checks, shape.reductions)
        self.rows = product(shape.full[axis] for axis in self.reduced)
        self.columns = shape.full[self.axes[-1]]
        # joined before they are added to a line: with 2 a plain sum takes 1.3 to 1.45 times as long
        self.together = 1 if self.heavy else TOGETHER if target.vector_registers >= 32 else TOGETHER // 2
        self.width = min(self.columns, WIDEST) if isinstance(self.columns, int) else WIDEST
        share = self._share(ceildiv(self.columns, self.h.lane_count))
        self.share = ceildiv(share, self.together) * self.together
        self.lines = ceildiv(self.rows, self.share)
        self.sums = Lines(self.h, self.partials, shape.reductions)

    def _inner(self) -> Sequence[Node]:
        """What follows from the columns is computed once, in the finish."""
        return [node for node in self.graph.order() if self.shape.classes[Value(node)] == FULL]

    def _loops(self) -> Size:
        h, chunk, blocks = self.h, Dim.symbol("chunk"), ceildiv(self.columns, self.width)
        line = chunk if blocks == 1 else named(h, "line", chunk // blocks)
        first, last = self._range(line, self.share, self.rows, self.together)
        left, right = (0, self.columns) if blocks == 1 else self._range(chunk - line * blocks, self.width, self.columns)
        start = named(h, "start", line * self.columns)
        clear = lambda points: self.sums.clear(start, self._column(points[0]), points[0].mask)  # noqa: E731
        self._lane_loop(left, right, 1, self.top, clear)
        whole = first + (last - first) // self.together * self.together
        if whole == last:
            self._over_rows(first, last, self.together, (left, right), start)
        else:
            whole = named(h, "whole", whole)
            self._over_rows(first, whole, self.together, (left, right), start)
            self._over_rows(whole, last, 1, (left, right), start)
        return self.lines * blocks

    def _prefetch(self, statements: Sequence[Stmt]) -> None:
        """Only for short rows: long ones are streams that the hardware follows (asking too takes 1.05 to 1.1 times)."""
        if isinstance(self.columns, int) and self.columns * 4 <= AHEAD:
            super()._prefetch(statements)

    def _over_rows(self, first: Size, last: Size, together: int, columns: tuple[Size, Size], start: Size) -> None:
        """The rows from first to last, `together` at a time, over the columns, into the line at `start`."""
        with self.h.loop("i", first, last, together) as row:
            rows = [self._at_row(row, self.reduced)]
            for n in range(1, together):
                name = self.h.fresh("row")
                self.h.symbols[name] = self.h.index(row + n)
                rows.append(self._at_row(Dim.symbol(name), self.reduced))
            self._lane_loop(*columns, 1, self.top, lambda points: self._add(points[0], rows, start))

    def _partial(self, node: Node, chunks: Size) -> tuple[DType, Size]:
        return wide_dtype(node), self.lines * self.columns

    def _column(self, point: Point) -> Size:
        return point.axes[symbol_of(self.axes[-1])]

    def _add(self, column: Point, rows: Sequence[Point], start: Size) -> None:
        """One vector of columns in a few rows."""
        symbol = symbol_of(self.axes[-1])
        points = [child(row, symbol, self._column(column), column.mask) for row in rows]
        terms = {
            node: [self.evaluator.at(node.inputs[0], self.index_of(node.inputs[0]), p) for p in points]
            for node in self.partials
        }
        self._store_all([(v, p) for p in points for v in self._results("full")])
        for node in self.partials:
            self.sums.add(node, terms[node], start, self._column(column), column.mask)

    def _finish(self, chunks: Size) -> tuple[Stmt, ...]:
        h = self.h
        totals = {node: partials_fold(h, node, h.lane_count) for node in self.shape.totals}
        self._lane_loop(0, self.columns, 1, self.top, lambda points: self._finish_columns(points[0], totals))
        bound = {Value(node): h.cast(fold.result(h), node.types[0].dtype) for node, fold in totals.items()}
        self._store_all([(v, Point({}, None, bound)) for v in self._results("scalar")])
        return tuple(h.levels[0].statements)

    def _finish_columns(self, point: Point, totals: dict[Node, Fold]) -> None:
        """One vector of columns: its lines joined in order, and what follows from them."""
        h = self.h
        for node in self.partials:
            column = self._column(point)
            point.bound[Value(node)] = self.sums.joined(node, column, self.lines, self.columns, point.mask)
        for node, fold in totals.items():
            operand = node.inputs[0]
            fold.add(h, [self.evaluator.at(operand, self.index_of(operand), point)], [point.mask])
        self._store_all([(v, point) for v in self._results("row")])
