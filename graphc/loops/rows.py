"""Row kernels: elementwise nodes and reductions over one group of axes, as few passes over memory as they need.

The loops of a kernel over the full shape F with reduced axes R (see `graphc.passes.domain`):

    for each kept index (a chunk of them):       lanes along the last axis if it is kept (elementwise, column sums)
        for each stage of dependent reductions:  one loop over R for all reductions of the stage
        row results are stored, total reductions accumulate
        one more loop over R stores the full results, and adds to sums over columns
    finish: totals are added over the chunks, in chunk order, and scalar results stored; likewise columns

Lanes run along the last axis, whether it is kept (vector accumulators, no horizontal sums) or reduced (several
accumulators, then a fixed tree). Sums over columns go to the chunk's line in memory (lines.py), row by row: a last loop
for several rows at once, joined in registers, is slower (docs/rows.md). Short static rows are straight-line code, so
that what a row computes once is never computed again. How many elements a chunk has follows from the sizes alone.
Enter at `RowsLowering`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.graph import Graph, Node, Value
from graphc.loops.arg import Search
from graphc.loops.builder import LANE, Scalar, linear_address
from graphc.loops.evaluate import Checks, Point
from graphc.loops.folds import ArgFold, Fold, fold_for, partials_fold, wide_dtype
from graphc.loops.ir import Prefetch, Scratch, Stmt
from graphc.loops.keep import LoopPlan, plan_loops
from graphc.loops.kernel import GRAIN, KernelLowering, Lowered, lanes_for, symbol_of
from graphc.loops.lanes import Body, below, child, load_here, named
from graphc.loops.lines import NEAR_ROWS, Lines
from graphc.ops.lowering import ArgReduction
from graphc.passes.domain import RowsShape
from graphc.target import Target
from graphc.types import Dim, DType, Size, ceildiv, maximum, minimum, product

__all__ = ["GRAIN", "Lowered", "RowsLowering", "lanes_for"]

UNROLL = 4  # vectors in flight: enough to hide the latency of an addition
LONG = 64  # terms a lane from which on a float32 sum runs in float64
STRAIGHT = 4  # rows of at most this many vectors are straight-line code
LINE_ROWS = 128  # rows of a chunk that leaves a line behind: what the line costs is then little
LINE_CHUNKS = 8  # chunks, at least, that few rows are cut into all the same


class RowsLowering(KernelLowering):
    """One kernel being lowered; `run` gives it."""

    def __init__(self, name: str, graph: Graph, shape: RowsShape, target: Target, checks: Checks) -> None:
        super().__init__(name, graph, shape, target, checks, (*shape.totals, *shape.columns))
        columns = self._columns()
        near = columns if isinstance(columns, int) and columns * 8 <= target.l2_bytes // 8 else None
        self.lines = Lines(self.h, self.partials, shape.columns, near)
        self.lane_axis = self.axes[-1] if self.axes else None
        self.lane_kept = self.lane_axis in self.kept
        self.outer = [i for i in self.kept if i != self.lane_axis]
        self.stages = self._stages()
        self.full_results = self._results("full") if self.reduced else []
        summed = [node.inputs[0] for node in shape.columns]
        loops = [[node.inputs[0] for node in stage] for stage in self.stages] + [[*self.full_results, *summed]]
        keep = STRAIGHT * self.h.lane_count * 8 < self._row_bytes(8) <= target.l2_bytes // 8
        plans = plan_loops(loops, lambda v: self.shape.classes[v] == "full", keep)
        *self.stage_plans, self.last_plan = plans
        self.scratch = {v: self.h.fresh("kept") for plan in plans for v in plan.stores}
        self.prefetched.update([*self.scratch.values(), *self.lines.near.values()])

    def _loops(self) -> Size:
        """Emits the loops over the kept axes; gives the number of chunks."""
        self.lines.declare()
        for value, name in self.scratch.items():
            self.h.emit(Scratch(name, value.type.dtype, self._row_bytes(1)))
        totals = self._open_totals()
        chunk = Dim.symbol("chunk")
        if self.outer:
            rows = product(self.shape.full[i] for i in self.outer)
            share = self._share(self._vectors([i for i in self.axes if i not in self.outer]))
            if self.shape.columns:
                # with the 1 outside, no division of the kernel's own meets a number below 0 where there are no rows
                share = maximum(share - 1, minimum(LINE_ROWS - 1, rows // LINE_CHUNKS)) + 1
            first, last = self._range(chunk, share, rows)
            if self.shape.columns:
                self._rows_with_lines(chunk, first, last, totals)
            else:
                self._rows(first, last, totals)
            chunks = ceildiv(rows, share)
        elif self.lane_kept:
            extent, unroll = self.shape.full[self.axes[-1]], self._unroll(self.heavy)
            share = self._share(self._vectors(self.reduced) * unroll) * self.h.lane_count * unroll
            first, last = self._range(chunk, share, extent)
            self._lane_loop(first, last, unroll, self.top, lambda ps: self._row(ps, totals))
            chunks = ceildiv(extent, share)
        else:
            self._row([self.top], totals)
            chunks = 1
        for node, fold in totals.items():
            self.h.store(self.partials[node], chunk, fold.result(self.h), None)
        return chunks

    def _rows(self, first: Size, last: Size, totals: dict[Node, Fold]) -> None:
        with self.h.loop("i", first, last) as row:
            point = self._at_row(row, self.outer)
            if self.lane_kept:
                extent = self.shape.full[self.axes[-1]]
                self._lane_loop(0, extent, self._unroll(self.heavy), point, lambda ps: self._row(ps, totals))
            else:
                self._row([point], totals)

    def _rows_with_lines(self, chunk: Size, first: Size, last: Size, totals: dict[Node, Fold]) -> None:
        """The rows of a chunk, and what they add to the chunk's lines."""
        self.line = named(self.h, "line", chunk * self._columns())
        self._over_columns(lambda p: self.lines.clear(self.line, self._column(p), p.mask))
        if not self.lines.near:
            self._rows(first, last, totals)
            return
        with self.h.loop("block", first, last, NEAR_ROWS) as start:
            self._rows(start, named(self.h, "stop", minimum(start + NEAR_ROWS, last)), totals)
            self._over_columns(lambda p: self.lines.move(self.line, self._column(p), p.mask))

    def _over_columns(self, body: Callable[[Point], None]) -> None:
        """Loops over the columns, vector by vector."""
        self._over_reduced([self.top], LoopPlan((), (), (), True), lambda points: body(points[0]))

    def _columns(self) -> Size:
        return product(self.shape.full[i] for i in self.reduced)

    def _column(self, point: Point) -> Size:
        """Which column a point is in."""
        index = tuple(Dim.symbol(symbol_of(i)) for i in self.reduced)
        return self.evaluator.placed(linear_address(index, tuple(self.shape.full[i] for i in self.reduced)), point)

    def _unroll(self, heavy: bool) -> int:
        """How many vectors a loop computes at a time; the loops over one row decide by what each of them computes."""
        return 1 if heavy else UNROLL

    def _row(self, points: list[Point], totals: dict[Node, Fold]) -> None:
        """Everything at one kept index (or at the few vectors of them in `points`)."""
        straight = self._straight_points(points)
        self._row_stages(points, straight, totals)
        self._last_loop(points, straight)

    def _row_stages(self, points: list[Point], straight: list[Point] | None, totals: dict[Node, Fold]) -> None:
        """The reductions, and what is stored or added up once for each row."""
        for stage, plan in zip(self.stages, self.stage_plans, strict=True):
            self._reduce(stage, plan, points, straight)
        here = self._results("row") + ([] if self.reduced else self._results("full"))
        if not self._needs_finish():
            here += self._results("scalar")
        for node, fold in totals.items():
            operand = node.inputs[0]
            values = [self.evaluator.at(operand, self.index_of(operand), p) for p in points]
            fold.add(self.h, values, [p.mask for p in points])
        self._store_all([(v, p) for p in points for v in here])

    def _last_loop(self, points: list[Point], straight: list[Point] | None) -> None:
        """Full results are stored and columns added up."""

        def store(inner: list[Point]) -> None:
            terms = {n: [self._value(n.inputs[0], p) for p in inner] for n in self.shape.columns}
            self._store_all([(v, p) for p in inner for v in self.full_results])
            for node, values in terms.items():
                for p, value in zip(inner, values, strict=True):
                    self.lines.add(node, [value], self.line, self._column(p), p.mask)

        if not self.last_plan.roots:
            return
        if straight is not None:
            store(straight)
        else:
            self._over_reduced(points, self.last_plan, store)

    def _value(self, value: Value, point: Point) -> Scalar:
        return self.evaluator.at(value, self.index_of(value), point)

    # loops over lanes and over the reduced axes

    def _row_bytes(self, itemsize: int) -> int:
        """The bytes of a row of whole vectors whose elements have `itemsize`; 2**62 where it has no known size."""
        extent = self.shape.full[self.axes[-1]] if self.axes else 1
        if self.lane_kept or len(self.reduced) != 1 or not isinstance(extent, int):
            return 2**62
        return -(-extent // self.h.lane_count) * self.h.lane_count * itemsize

    def _straight_points(self, points: list[Point]) -> list[Point] | None:
        """The vectors of a short static row, as points of their own; None where the row needs a loop."""
        if not self.reduced or self.lane_kept or len(self.reduced) > 1:
            return None
        extent, lanes = self.shape.full[self.axes[-1]], self.h.lane_count
        if not isinstance(extent, int) or extent > STRAIGHT * lanes:
            return None
        symbol = symbol_of(self.axes[-1])
        made = []
        for first in range(0, extent, lanes):
            mask = below(self.h, extent - first) if extent - first < lanes else None
            made.append(child(points[0], symbol, Dim.symbol(LANE) + first, mask))
        return made

    def _over_reduced(self, points: list[Point], plan: LoopPlan, body: Body) -> None:
        """Loops over the reduced axes around `body`; the last one moves by lanes if the lane axis is reduced."""
        early = (
            bool(self.stage_plans) and plan is self.stage_plans[0] and self._row_bytes(8) <= self.target.l2_bytes // 8
        )

        def kept(inner: list[Point]) -> None:
            """`body` with the values of earlier loops at hand, and those for later ones put away."""
            self._read_kept(plan.reads, inner)
            body(inner)
            if early:
                self._ask_for_results(inner)
            for v in plan.stores:
                values = [self.evaluator.at(v, self.index_of(v), p) for p in inner]
                for p, value in zip(inner, values, strict=True):
                    self.h.store(self.scratch[v], p.axes[symbol_of(self.axes[-1])], value, None)

        def nest(axes: list[int], points: list[Point]) -> None:
            if not axes:
                kept(points)
            elif len(axes) == 1 and not self.lane_kept:
                self._lane_loop(0, self.shape.full[axes[0]], self._unroll(plan.heavy), points[0], kept)
            else:
                with self.h.loop("r", 0, self.shape.full[axes[0]]) as r:
                    nest(axes[1:], [child(p, symbol_of(axes[0]), r, p.mask) for p in points])

        nest(self.reduced, points)

    def _ask_for_results(self, points: Sequence[Point]) -> None:
        """The last loop will store the full results of this row: their lines come while the first one reads."""
        for p in points:
            for value in self.full_results:
                address = self.evaluator.placed(linear_address(self.index_of(value), value.type.shape), p)
                index = self.h.index(self.h.lane_form(address)[1]).expr
                for buffer in self._buffers_of(value):
                    self.h.emit(Prefetch(buffer, index, True))
                    self.prefetched.add(buffer)

    def _read_kept(self, values: Sequence[Value], points: list[Point]) -> None:
        """Bind values that an earlier loop has stored: here, not outside of the loops around."""
        for p in points if values else ():
            for v in values:
                address = p.axes[symbol_of(self.axes[-1])]
                p.bound[v] = load_here(self.h, self.scratch[v], v.type.dtype, address)

    # reductions

    def _stages(self) -> list[list[Node]]:
        """The row reductions by how many reductions they depend on."""
        level: dict[Node, int] = {}
        stages: list[list[Node]] = []
        for node in self.graph.order():
            level[node] = max((level[v.node] for v in node.inputs), default=0)
            if node in self.shape.reductions:
                if level[node] == len(stages):
                    stages.append([])
                stages[level[node]].append(node)
                level[node] += 1
        return stages

    def _reduce(self, nodes: list[Node], plan: LoopPlan, points: list[Point], straight: list[Point] | None) -> None:
        """All reductions of a stage in one nest of loops; binds their results to the points."""
        if self.reduced and not self.lane_kept:
            searched = [node for node in nodes if isinstance(node.op.lowering, ArgReduction)]
            nodes = [node for node in nodes if node not in searched]
            self._fold_rows(nodes, plan, points, straight)
            for node in searched:
                points[0].bound[Value(node, 0)] = self._search(node, plan, points[0], straight)
        else:
            self._fold_rows(nodes, plan, points, straight)

    def _search(self, node: Node, plan: LoopPlan, point: Point, straight: list[Point] | None) -> Scalar:
        """argmax and argmin along the lanes have loops of their own."""
        operand, lowering = node.inputs[0], node.op.lowering
        assert isinstance(lowering, ArgReduction)

        def value_at(p: Point) -> Scalar:
            self._read_kept((*plan.reads, *plan.stores), [p])
            return self.evaluator.at(operand, self.index_of(operand), p)

        search = Search(self.h, self.target, lowering, operand.type.dtype, symbol_of(self.axes[-1]), value_at)
        if straight is not None:
            return search.in_registers(straight)
        return search.in_row(point, self.shape.full[self.axes[-1]], self._unroll(plan.heavy))

    def _fold_rows(self, nodes: list[Node], plan: LoopPlan, points: list[Point], straight: list[Point] | None) -> None:
        """One nest of loops for those reductions of a stage that are folds, and for what it keeps."""
        if not nodes and (straight is not None or not plan.stores):
            return
        groups = [[p] for p in points] if self.lane_kept or not self.reduced else [points]
        ways = 1 if self.lane_kept or straight is not None else self._unroll(plan.heavy)
        vector = bool(self.reduced) or self.lane_kept
        width = self.h.lane_count if vector else 1
        wide = self._is_long(width * ways)
        folds = {
            (n, g): fold_for(self.h, node, width, ways, wide)
            for n, node in enumerate(nodes)
            for g in range(len(groups))
        }

        def step(inner: list[Point]) -> None:
            for (n, g), fold in folds.items():
                at = inner if len(groups) == 1 else [inner[g]]
                operand = nodes[n].inputs[0]
                values = [self.evaluator.at(operand, self.index_of(operand), p) for p in at]
                if isinstance(fold, ArgFold):
                    symbol = symbol_of(nodes[n].attrs["axis"])
                    fold.add_at(self.h, values, [self.h.index(p.axes[symbol]) for p in at], [p.mask for p in at])
                else:
                    fold.add(self.h, values, [None if self.lane_kept else p.mask for p in at])

        if straight is not None:
            step(straight)
        else:
            self._over_reduced(points, plan, step)
        for (n, g), fold in folds.items():
            for p in groups[g]:
                result = fold.lanes(self.h) if self.lane_kept else fold.result(self.h)
                p.bound[Value(nodes[n], 0)] = self.h.cast(result, nodes[n].types[0].dtype)

    def _is_long(self, share: int) -> bool:
        """Whether so many terms may go into each lane (of `share`) that float32 adds them worse than a pairwise sum."""
        length = product(self.shape.full[i] for i in self.reduced)
        return not isinstance(length, int) or length > LONG * (1 if self.lane_kept else share)

    def _open_totals(self) -> dict[Node, Fold]:
        width = self.h.lane_count if self.lane_kept else 1
        ways = self._unroll(self.heavy) if self.lane_kept else 1
        return {node: fold_for(self.h, node, width, ways, wide=True) for node in self.shape.totals}

    def _partial(self, node: Node, chunks: Size) -> tuple[DType, Size]:
        return wide_dtype(node), chunks * self._columns() if node in self.shape.columns else chunks

    def _finish(self, chunks: Size) -> tuple[Stmt, ...]:
        """Totals over the chunks in chunk order, then the scalar results (the body has them if there is no more)."""
        if not self._needs_finish():
            return ()
        bound: dict[Value, Scalar] = {}
        for node in self.shape.totals:
            fold = partials_fold(self.h, node, 1)
            with self.h.loop("c", 0, chunks) as c:
                fold.add(self.h, [self.h.load(self.partials[node], fold.dtype, c, None)], [None])
            bound[Value(node, 0)] = self.h.cast(fold.result(self.h), node.types[0].dtype)
        point = Point({}, None, bound)
        self._store_all([(v, point) for v in self._results("scalar")])
        if self.shape.columns:
            self._over_columns(lambda p: self._finish_column(p, chunks))
        return tuple(self.h.levels[0].statements)

    def _finish_column(self, point: Point, chunks: Size) -> None:
        for node in self.shape.columns:
            found = self.lines.joined(node, self._column(point), chunks, self._columns(), point.mask)
            point.bound[Value(node)] = found
        self._store_all([(v, point) for v in self._results("column")])

    def _needs_finish(self) -> bool:
        """Scalar results are stored once, by the finish, unless the kernel has nothing but scalars."""
        return bool(self.shape.columns) or (bool(self._results("scalar")) and bool(self.axes or self.shape.totals))
