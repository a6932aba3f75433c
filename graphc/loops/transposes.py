"""Transposing kernels: elementwise, with an operand whose contiguous axis is not the one that the lanes run along.

    for each index of the other axes and block of rows (a chunk of them):
        for each vector along the last axis, for each few rows of the block, as many as there are lanes:
            as many vectors of the operand, along its contiguous axis; their square is transposed in registers
            for each row: everything else of the kernel, stored along the last axis

So both sides are read and written by whole vectors, and a block of rows is narrow enough that its pages and the lines
that two squares share stay at hand. An axis that is no vector long, as the places of a window are, is one run with the
axes around it that lie so in memory: the rows of a square are elements of the run, wherever they go.
`suits` says which kernels come here; enter at `TransposesLowering.run`.
"""

from __future__ import annotations

from graphc.errors import InternalError
from graphc.graph import Graph, Value
from graphc.loops.builder import LANE, linear_address
from graphc.loops.evaluate import Checks, Index, Point
from graphc.loops.ir import Prefetch, Stmt
from graphc.loops.kernel import GRAIN, KernelLowering, symbol_of
from graphc.loops.lanes import below, named
from graphc.loops.packing import transposed
from graphc.ops.lowering import Gather
from graphc.passes.domain import FULL, RowsShape
from graphc.target import Target
from graphc.types import Dim, DType, Size, ceildiv, maximum, minimum, product, symbols, terms_of

BLOCK = 32  # rows that a vector of columns is computed for before the next one
AHEAD = 2  # vectors of a row between what is stored and what is asked for
SQUARE = 12  # simple instructions for each vector of a square, beside the elements' own

Read = tuple[Value, Index]
Run = tuple[int, ...]  # axes, the outermost first, which are one in the memory of an operand


class TransposesLowering(KernelLowering):
    """One transposing kernel; `suits` first, then `run` gives it."""

    def __init__(self, name: str, graph: Graph, shape: RowsShape, target: Target, checks: Checks) -> None:
        super().__init__(name, graph, shape, target, checks, ())
        self.squares = self._squares() if self._plain() else {}
        # the rows of a square lie along the run that most operands have, the first one of those
        self.run_axes = max(self.squares, key=lambda run: len(self.squares[run]), default=())
        self.height = product(self.shape.full[axis] for axis in self.run_axes)
        width = self.shape.full[self.axes[-1]] if self.axes else 0
        full = all(isinstance(size, int) and size >= self.h.lane_count for size in (self.height, width))
        # nothing else is read, which a result might lie in: the last squares may overlap those before
        self.overlaps = full and self.bare and len(self.squares) == 1

    @property
    def suits(self) -> bool:
        """Whether an operand is read in squares."""
        return bool(self.squares)

    def _plain(self) -> bool:
        """Nothing but full results, and no index that is checked: the rows of a square need not exist."""
        results = self.graph.outputs
        alone = not self.reduced and not self.shape.totals and all(self._class(v) == FULL for v in results)
        gathers = any(isinstance(node.op.lowering, Gather) for node in self.graph.order())
        return alone and not gathers and self.h.lane_count > 1 and len(self.axes) > 1

    def _squares(self) -> dict[Run, list[Read]]:
        """The operands that are contiguous along a run without the last axis, and move along the last one: by the run.

        Runs that do not fill half of the lanes have none.
        """
        found: dict[Run, list[Read]] = {}
        self.bare = True  # whether nothing else is read
        seen: set[Read] = set()
        stack = [(v, self.index_of(v)) for v in self.graph.outputs]
        lane = symbol_of(self.axes[-1])
        while stack:
            read = stack.pop()
            if read in seen:
                continue
            seen.add(read)
            value, index = read
            if value not in self.buffers:
                needs = self.evaluator.needs(value, index)
                self.bare &= len(needs) == len(value.node.inputs)
                stack.extend(reversed(needs))
                continue
            address = linear_address(index, value.type.shape)
            if lane not in symbols(address) or _moves_by(address, lane, 1):
                self.bare = False
                continue
            runs = [self._run(address, axis) for axis in self.axes[:-1] if _moves_by(address, symbol_of(axis), 1)]
            sizes = {run: product(self.shape.full[each] for each in run) for run in runs}
            long = [run for run, size in sizes.items() if not isinstance(size, int) or 2 * size >= self.h.lane_count]
            self.bare &= bool(long)
            for run in long:
                found.setdefault(run, []).append(read)
        return found

    def _run(self, address: Size, last: int) -> Run:
        """The axis `last`, which lies side by side in memory, and those around it until they fill a vector."""
        run: Run = (last,)
        size = self.shape.full[last]
        while isinstance(size, int) and 0 < size < self.h.lane_count:
            around = [a for a in self.axes[:-1] if a not in run and _moves_by(address, symbol_of(a), size)]
            if not around or not isinstance(self.shape.full[around[0]], int):
                break
            run, size = (around[0], *run), size * self.shape.full[around[0]]
        return run

    def _loops(self) -> Size:
        h, lanes, chunk = self.h, self.h.lane_count, Dim.symbol("chunk")
        height, width = self.height, self.shape.full[self.axes[-1]]
        outer = [i for i in self.axes[:-1] if i not in self.run_axes]
        blocks = maximum(1, height // BLOCK) if self.overlaps else ceildiv(height, BLOCK)
        units = product(self.shape.full[i] for i in outer) * blocks
        work = ceildiv(width, lanes) * (BLOCK * (self.cost + SQUARE))
        share: Size = ceildiv(GRAIN, work) if isinstance(work, int) and work else GRAIN // maximum(work, 1) + 1
        first = named(h, "first", chunk * share)
        with h.loop("i", first, named(h, "last", minimum(first + share, units))) as unit:
            row, block = (0, unit) if not outer else (named(h, "row", unit // blocks), named(h, "block", unit % blocks))
            point = self._at_named_row(row, outer)
            start, stop = named(h, "start", block * BLOCK), block * BLOCK + BLOCK
            if self.overlaps:  # the last block has the rest, too
                stop = stop + (block + 1) // blocks * (height - blocks * BLOCK)
            self._block(start, named(h, "stop", minimum(stop, height)), point)
        return ceildiv(units, share)

    def _at_named_row(self, row: Size, outer: list[int]) -> Point:
        if not outer:
            return self.top
        assert isinstance(row, Dim)
        point = self._at_row(row, outer)
        return Point({name: named(self.h, "at", place) for name, place in point.axes.items()})

    def _block(self, start: Size, stop: Size, point: Point) -> None:
        """All columns of some rows: squares that are whole, then those at the edges, under masks.

        A long body is emitted once, under masks all over. Where squares may overlap, all are whole.
        """
        h, lanes = self.h, self.h.lane_count
        width = self.shape.full[self.axes[-1]]
        if self.overlaps:
            with h.loop("j", 0, width, lanes) as j:
                column = j if width % lanes == 0 else named(h, "column", minimum(j, width - lanes))
                with h.loop("r", start, stop, lanes) as r:
                    row = r if self.height % lanes == 0 else named(h, "row", minimum(r, stop - lanes))
                    self._square(row, column, point, edge=False)
            return
        exact = self.height % lanes == 0, width % lanes == 0
        masked = self.heavy and not all(exact)
        right: Size = 0 if masked else width if exact[1] else named(h, "right", width // lanes * lanes)
        bottom: Size = stop if exact[0] else named(h, "whole", start + (stop - start) // lanes * lanes)
        if right != 0:
            with h.loop("j", 0, right, lanes) as column:
                self._squares_of(start, bottom, column, point, edge=False)
                if not exact[0]:
                    self._squares_of(bottom, stop, column, point, edge=True)
        if masked or not exact[1]:
            with h.loop("j", right, width, lanes) as column:
                self._squares_of(start, stop, column, point, edge=True)

    def _squares_of(self, start: Size, stop: Size, column: Size, point: Point, edge: bool) -> None:
        """The squares of the rows from start to stop; without a loop where there is one or none."""
        if isinstance(start, int) and isinstance(stop, int) and stop - start <= self.h.lane_count:
            if start < stop:
                self._square(start, column, point, edge)
            return
        with self.h.loop("r", start, stop, self.h.lane_count) as row:
            self._square(row, column, point, edge)

    def _places(self, element: Size) -> dict[str, Size]:
        """Where an element of the run lies on each of its axes."""
        places: dict[str, Size] = {}
        rest = element
        for axis in reversed(self.run_axes[1:]):
            size = self.shape.full[axis]
            whole = named(self.h, "whole", rest // size)
            places[symbol_of(axis)], rest = rest - whole * size, whole
        return {**places, symbol_of(self.run_axes[0]): rest}

    def _in_memory(self, element: Size) -> dict[str, Size]:
        """The same for reading the operands of the squares: they lie there as if the last axis were as long."""
        return {**{symbol_of(axis): 0 for axis in self.run_axes}, symbol_of(self.run_axes[-1]): element}

    def _square(self, row: Size, column: Size, point: Point, edge: bool) -> None:
        """lanes x lanes elements from (row, column) on; at an `edge`, those that exist."""
        h, lanes = self.h, self.h.lane_count
        across, height, width = symbol_of(self.axes[-1]), self.height, self.shape.full[self.axes[-1]]
        inside = below(h, height - row) if edge else None
        along = self._in_memory(row + Dim.symbol(LANE))
        ends = [minimum(column + n, width - 1) if edge else column + n for n in range(lanes)]
        columns = [Point({**point.axes, **along, across: end}, inside, {}, point) for end in ends]
        mask = below(h, width - column) if edge else None
        count = min(lanes, height - row) if isinstance(row, int) and isinstance(height, int) else lanes
        places = [self._places(row + n) for n in range(count)]
        rows = [Point({**point.axes, **p, across: column + Dim.symbol(LANE)}, mask, {}, point) for p in places]
        if mask is not None and count == lanes:
            for n, p in enumerate(rows):
                p.guard = h.lt(h.index(row + n), h.index(height))
                p.mask = h.and_(mask, p.guard)
        for read in self.squares[self.run_axes]:
            vectors = transposed(h, [self.evaluator.at(*read, p) for p in columns])
            self.evaluator.put(read, dict(zip(rows, vectors[:count], strict=True)))
        for p in rows:
            self._store_all([(v, p) for v in self._results(FULL)])
        if not edge:
            self._ask_ahead(row, places, column, point)

    def _ask_ahead(self, row: Size, places: list[dict[str, Size]], column: Size, point: Point) -> None:
        """The lines of the square in the next columns: each may be in a page of its own, which no machine guesses."""
        across = symbol_of(self.axes[-1])
        for n, place in enumerate(places):
            reader = Point({**point.axes, **self._in_memory(row), across: column + self.h.lane_count + n})
            for value, index in self.squares[self.run_axes]:
                self._ask(self.buffers[value], linear_address(index, value.type.shape), reader, write=False)
            writer = Point({**point.axes, **place, across: column + AHEAD * self.h.lane_count})
            for value in self._results(FULL):
                for buffer in self._buffers_of(value):
                    self._ask(buffer, linear_address(self.index_of(value), value.type.shape), writer, write=True)

    def _ask(self, buffer: str, address: Size, point: Point, write: bool) -> None:
        self.h.emit(Prefetch(buffer, self.h.index(self.evaluator.placed(address, point)).expr, write))

    def _partial(self, node: object, chunks: Size) -> tuple[DType, Size]:
        raise InternalError("a transposing kernel has no reductions")

    def _finish(self, chunks: Size) -> tuple[Stmt, ...]:
        return ()


def _moves_by(address: Size, symbol: str, stride: int) -> bool:
    """Whether the address moves by so many elements with the symbol, and in no other way."""
    moves = [(m, factor) for m, factor in terms_of(address) if symbol in symbols(Dim.from_terms({m: factor}))]
    return moves == [((symbol,), stride)]
