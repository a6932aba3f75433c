"""One generator for every matmul: C[batch, m, n] = sum over k of A[batch, m, k] * B[batch, k, n], any strides.

Enter at `contract`, which emits the body of a kernel through a `Builder`. The numbers are chosen in `schedule.py`; here
they become loops:

    for batch element of the chunk:
        for block of k:
            [pack the chunk's columns of B]
            for tile of the chunk's rows:
                [pack the tile's rows of A]
                for panel of the chunk's columns:  tile.py: the k loop, then the epilogue
    [last_columns.py: a few columns behind whole vectors]

A chunk owns a rectangle of C and writes nothing else. To serve another operation (a convolution, say), give `Operand`s
whose strides walk it, or an `Epilogue` that stores elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from graphc.loops.blocks import bind, opaque
from graphc.loops.builder import Builder, Scalar
from graphc.loops.clips import Block, clipped, segments_of, spans
from graphc.loops.crossed import Crossing
from graphc.loops.epilogue import LONG_EPILOGUE, Ahead, Epilogue, Stage, cost_of
from graphc.loops.ir import Scratch, Var
from graphc.loops.last_columns import columns_apart, emit_last
from graphc.loops.panels import Panels
from graphc.loops.problem import Outer, Problem, dot
from graphc.loops.row_tiles import Band, Range, band, first_row, share, tiles_of_chunk
from graphc.loops.schedule import Schedule, plan, turns
from graphc.loops.tile import Partial, Steps, Tile, View, ViewRead, emit_tile
from graphc.loops.waiting import Finish, WaitingRows
from graphc.target import Target
from graphc.types import Dim, Size, maximum, minimum, product


def contract(
    builder: Builder, problem: Problem, epilogue: Epilogue | None, target: Target, ahead: Ahead | None = None,
    rows: Finish | None = None,
) -> Schedule:  # fmt: skip
    """Emit the contraction into `builder`, which has no open loop and as many lanes as a register of the dtype.

    The caller makes the LoopKernel, with `chunks` of the returned Schedule. ahead: asks for what the epilogue touches.
    rows: in place of an epilogue, where the problem asks for whole rows.
    """
    if epilogue is not None and turns(problem, target):
        problem, epilogue = problem.turned(), _turned(epilogue)
        asked = ahead
        ahead = (lambda h, row, col, where: asked(h, col, row, where)) if asked is not None else None
    builder.symbols["chunk"] = Scalar(Var("chunk"))
    last = 0  # columns
    if epilogue is not None and (some := columns_apart(problem, target)):
        length = cost_of(builder, epilogue, problem.dtype, len(problem.batch)).length
        last = some if length <= LONG_EPILOGUE else 0
    tiled = replace(problem, n=problem.n - last)
    schedule = plan(tiled, target)
    _Emitter(builder, tiled, schedule, epilogue, ahead, rows).emit()
    if last and epilogue is not None:
        emit_last(builder, problem, last, schedule.chunks, epilogue)
    return schedule


def _turned(epilogue: Epilogue) -> Epilogue:
    """The epilogue of C for a kernel that computes the transpose of C."""

    def turned(
        builder: Builder, value: Scalar, row: Size, col: Size, where: tuple[Size, ...], mask: Scalar | None
    ) -> None:
        epilogue(builder, value, col, row, where, mask)

    return turned


class _Emitter:
    """One contraction being emitted: the loops around the tile, from the outside in."""

    def __init__(
        self, builder: Builder, problem: Problem, schedule: Schedule, behind: Epilogue | None, ahead: Ahead | None,
        rows: Finish | None,
    ) -> None:  # fmt: skip
        self.builder, self.problem, self.schedule = builder, problem, schedule
        self.epilogue, self.ahead, self.finish = behind, ahead, rows
        self.crossing: Crossing | None = None

    def emit(self) -> None:
        """The scratch panels, the rectangle of the chunk, then the loop over its batch elements."""
        s = self.schedule
        self._declare_scratch()
        chunk: Size = Dim.symbol("chunk")
        bases = (s.col_chunks, s.row_chunks) if s.by_rows else (s.row_chunks, s.col_chunks)
        low, chunk = self._digit(chunk, bases[0])
        high, chunk = self._digit(chunk, bases[1]) if self.problem.batch or bases[1] == 1 else (chunk, 0)
        row_chunk, col_chunk = (high, low) if s.by_rows else (low, high)
        total: Size = s.panels
        self.cols = share(self.builder, col_chunk, s.cols, total)
        self.rows = tiles_of_chunk(self.builder, s, row_chunk)
        if s.blocks_first:
            with self._blocks() as block:
                if self.panels.shares_b():
                    self.panels.pack_columns(block, self.problem.b.offset, (), self.cols)
                with self._matrices(chunk):
                    self._block(block)
            return
        with self._matrices(chunk), self._blocks() as block:
            self._block(block)

    @contextlib.contextmanager
    def _matrices(self, chunk: Size) -> Iterator[None]:
        """The loop over the batch elements of the chunk: where each lies."""
        b, s, problem = self.builder, self.schedule, self.problem
        self.element: Size = 0
        where: list[Size] = []
        with contextlib.ExitStack() as stack:
            if problem.batch:
                elements = share(b, chunk, s.group, s.batches)
                rest: Size = stack.enter_context(b.loop("batch", elements.start, elements.stop))
                self.element = rest - elements.start
                for extent in reversed(problem.batch):
                    digit, rest = self._digit(rest, extent)
                    where.insert(0, digit)
            self.where = tuple(where)
            self.a_base = problem.a.offset + dot(where, problem.a.batch)
            self.b_base = problem.b.offset + dot(where, problem.b.batch)
            yield

    def _declare_scratch(self) -> None:
        s, dtype, b = self.schedule, self.problem.dtype, self.builder
        self.panels, self.partial = Panels(b, self.problem, s), ""
        if s.blocked:
            self.partial = b.fresh("partial")
            self.partial_size = s.rows * s.height * s.cols * s.width
            b.emit(Scratch(self.partial, dtype, self.partial_size * (s.group if s.blocks_first else 1)))
        self.stage: Stage | None = None
        behind_tile, axes = self.epilogue, len(self.problem.batch)
        if self.problem.crossed and behind_tile is not None:
            self.crossing = Crossing(b, self.problem, s, behind_tile, self.ahead, lambda: (self.cols, self.where))
            self.finish, self.epilogue, self.ahead, behind_tile = self.crossing.finish, None, None, None
        self.waiting = WaitingRows(b, self.problem, s, self.finish) if self.finish is not None else None
        if behind_tile is not None and (cost := cost_of(b, behind_tile, dtype, axes)).length > LONG_EPILOGUE:
            self.stage = Stage(b.fresh("stage"), cost.turns)
            b.emit(Scratch(self.stage.scratch, dtype, s.height * s.width))

    def _digit(self, number: Size, base: Size) -> tuple[Size, Size]:
        """(number mod base, number // base)."""
        if base == 1:
            return 0, number
        divisor = maximum(1, base)
        rest = bind(self.builder, "rest", number // divisor)
        return bind(self.builder, "digit", number - rest * divisor), rest

    @contextlib.contextmanager
    def _blocks(self) -> Iterator[Block]:
        """The loops over the blocks of steps."""
        b, s, problem = self.builder, self.schedule, self.problem
        loops, inside = problem.outer[: s.split], [*self.panels.nest, Outer(problem.k, problem.a.col, problem.b.row)]
        steps: list[Steps] = [(0, loop.extent) for loop in inside]
        if not s.blocked:
            yield Block(0, 0, tuple(steps), 0, None, None, ())
            return
        count = product(loop.extent for loop in loops)
        if not isinstance(count, int) or not count:  # loops that never run leave no steps
            steps[-1] = 0, minimum(problem.k, problem.k * count)
        with contextlib.ExitStack() as stack:
            first: Scalar | None = None
            last: Scalar | None = None
            in_a: Size = 0
            in_b: Size = 0
            begin: Size = 0
            digits: list[Size] = []
            if loops:
                rest: Size = stack.enter_context(b.loop("segment", 0, maximum(count, 1)))
                first = b.eq(b.index(rest), b.index(0))
                last = b.ge(b.index(rest + 1), b.index(count))
                for loop in reversed(loops):
                    digit, rest = self._digit(rest, loop.extent)
                    digits.insert(0, digit)
                    in_a, in_b = in_a + digit * loop.a, in_b + digit * loop.b
            if s.cut:
                length = steps[0][1]
                begin = stack.enter_context(b.loop("block", 0, maximum(length, 1), s.cut))
                starts, ends = b.eq(b.index(begin), b.index(0)), b.ge(b.index(begin + s.cut), b.index(length))
                first = starts if first is None else b.and_(first, starts)
                last = ends if last is None else b.and_(last, ends)
                in_a, in_b = in_a + begin * inside[0].a, in_b + begin * inside[0].b
                steps[0] = 0, bind(b, "length", minimum(length - begin, s.cut))
            yield Block(in_a, in_b, tuple(steps), begin, first, last, tuple(digits))

    def _block(self, block: Block) -> None:
        """One block of steps: pack B, then all tiles."""
        block = clipped(self.builder, self.problem, self.schedule, self.where, block)
        if self.schedule.pack_b and not self.panels.shares_b():
            self.panels.pack_columns(block, self.b_base, self.where, self.cols)
        self._rows(block)

    def _rows(self, block: Block) -> None:
        """The rows of tiles; several of them at a time where their rows of A are packed together."""
        b, s = self.builder, self.schedule
        if self.problem.row_clip:
            with self._whole(block, self.rows):
                for span in spans(self.problem, s):
                    start, stop = maximum(self.rows.start, span.start), minimum(self.rows.stop, span.stop)
                    with b.loop("tile", bind(b, "start", start), bind(b, "stop", stop)) as t:
                        row = opaque(b, "row", first_row(s, t))
                        here = replace(block, segments=segments_of(b, self.problem, block, span))
                        self._tile_row(here, self._a_view(block, row, t), Band(t, row, span.height))
            return
        m, tiles = self.problem.m, self.rows
        if s.together == 1 or not s.pack_a:
            with self._groups(block) as (start, stop), b.loop("tile", start, stop) as t:
                row = opaque(b, "row", first_row(s, t))
                rows = band(b, s, m, t, row)
                a = self.panels.copy_tile(block, self.where, rows) if s.copy_a else self._a_view(block, row, t)
                self._tile_row(block, a, rows)
            return
        with b.loop("group", tiles.start, tiles.stop, s.together) as first:
            count = bind(b, "count", minimum(s.together, tiles.stop - first))
            self.panels.pack_tiles(block, self.a_base + block.a, self.where, first, count)
            with self._whole(block, Range(first, first + count)), b.loop("tile", 0, count) as t:
                row = opaque(b, "row", first_row(s, first + t))
                self._tile_row(block, self.panels.rows(t), band(b, s, m, first + t, row))

    def _groups(self, block: Block) -> AbstractContextManager[tuple[Size, Size]]:
        """Which tiles come one after the other: all, unless their rows wait for something in between."""
        if self.waiting is None:
            return contextlib.nullcontext((self.rows.start, self.rows.stop))
        return self.waiting.groups(self.rows, block.last)

    def _whole(self, block: Block, group: Range) -> AbstractContextManager[None]:
        """Around some tiles, whose rows are finished behind them if anything does that."""
        return self.waiting.together(group, block.last) if self.waiting is not None else contextlib.nullcontext()

    def _a_view(self, block: Block, row: Size, tile: Size) -> View:
        """The rows of A from `row` on, in place or packed (as many as the tallest tile has; the last one repeats)."""
        operand, s = self.problem.a, self.schedule
        if self.problem.tiles:
            place = self.a_base + block.a + tile * operand.row
            return View(operand.buffer, place, operand.col, 1, padded=True)
        base = self.a_base + block.a + row * operand.row
        if s.pack_a:
            return self.panels.pack_tile(block, base, row)
        wide, line = self.problem.wide_a, self.problem.line
        within = (line.begin(self.where), line.extent) if line is not None else None
        strides = tuple(loop.a for loop in self.panels.nest)
        read = self._wide_read() if wide else None
        return View(operand.buffer, base, operand.col, operand.row, strides, wide, read=read, line=within)

    def _wide_read(self) -> ViewRead | None:
        """What computes the elements of a computed A that moves with the columns."""
        computed = self.problem.a.computed
        if computed is None:
            return None
        read, where = computed.reader(computed.sources, self.builder), self.where
        return lambda h, row, col, steps, mask: read(h, where, row, col, steps, mask)

    def _tile_row(self, block: Block, a: View, rows: Band) -> None:
        """All panels of the chunk for one row of tiles."""
        b, s, cols = self.builder, self.schedule, self.cols
        if s.masked != "last":
            with b.loop("panel", cols.start, cols.stop) as panel:
                self._tile(block, a, rows, panel, s.masked == "all")
            return
        full = minimum(cols.stop, self.problem.n // s.width)
        with b.loop("panel", cols.start, full) as panel:
            self._tile(block, a, rows, panel, False)
        with b.loop("panel", maximum(full, cols.start), cols.stop) as panel:
            self._tile(block, a, rows, panel, True)

    def _tile(self, block: Block, a: View, rows: Band, panel: Size, masked: bool) -> None:
        b, s, problem = self.builder, self.schedule, self.problem
        col = bind(b, "col", panel * s.width)
        base = self.b_base + block.b + col * problem.b.col
        strides = tuple(loop.b for loop in self.panels.nest)
        view = View(problem.b.buffer, base, problem.b.row, 1, strides, problem.b.col != 0)
        if s.pack_b:
            view = self.panels.columns(panel - self.cols.start)
        if a.wide:
            a = replace(a, base=a.base + col)
        tile = Tile(
            problem.dtype, rows.height, s.vectors, a, view, rows.row, col, self.where, rows.limit,
            problem.n if masked else None, s.pack_b or problem.panels, self.stage, block.nest,
            block.segments, self.ahead, rows.sure, rows.less,
            self.waiting.place(rows.row, col - self.cols.start * s.width) if self.waiting is not None else None,
        )  # fmt: skip
        partial = None
        if block.first is not None and block.last is not None:
            stride = s.cols * s.width
            place = (rows.number - self.rows.start) * (s.height * stride) + col - self.cols.start * s.width
            if s.blocks_first:
                place = place + self.element * self.partial_size
            partial = Partial(self.partial, place, stride, block.first, block.last)
        if self.crossing is not None:
            self.crossing.ask(b, rows, col, self.where, block.last)
        emit_tile(b, tile, block.steps, s.unroll, partial, self.epilogue)
