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
from graphc.loops.packing import STEPS, Rows, Source, copy_rows, pack, pack_rows, packed_tile, packing_read
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
                if self._shares_b():
                    self._pack_columns(block, self.problem.b.offset, ())
                with self._matrices(chunk):
                    self._block(block)
            return
        with self._matrices(chunk), self._blocks() as block:
            self._block(block)

    def _shares_b(self) -> bool:
        """Whether all batch elements read one B in each block, which is packed before the first one."""
        moves = any(stride != 0 for stride in self.problem.b.batch)
        return self.schedule.pack_b and self.schedule.blocks_first and not (moves or self.problem.clips)

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
        # squares of k are packed whole: the last run of a nest writes up to lanes - 1 steps behind the block
        behind = s.lanes - 1 if self.problem.outer[s.split :] or self.problem.clips else 0
        length = -(-(s.block + behind) // s.lanes) * s.lanes
        self.nest = self.problem.outer[s.split :]
        inner = [product(loop.extent for loop in self.nest[i + 1 :]) for i in range(len(self.nest))]
        self.flat = [count * self.problem.k for count in inner]  # steps, of one of each
        self.packed_rows, self.packed_size = packed_tile(s, length)
        self.b_panel, self.a_panel, self.partial = "", "", ""
        if s.pack_b:
            self.b_panel = b.fresh("packed_b")
            b.emit(Scratch(self.b_panel, dtype, s.cols * length * s.width))
        if s.pack_a:
            self.a_panel = b.fresh("packed_a")
            self.row_size = length + s.lanes  # of a copy; so not all rows are in the same sets of the cache
            size = self.packed_rows * self.row_size if s.copy_a else s.together * self.packed_size
            b.emit(Scratch(self.a_panel, dtype, size))
        if s.blocked:
            self.partial = b.fresh("partial")
            self.partial_size = s.rows * s.height * s.cols * s.width
            b.emit(Scratch(self.partial, dtype, self.partial_size * (s.group if s.blocks_first else 1)))
        self.panel_size = length * s.width
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
        loops, inside = problem.outer[: s.split], [*self.nest, Outer(problem.k, problem.a.col, problem.b.row)]
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
        if self.schedule.pack_b and not self._shares_b():
            self._pack_columns(block, self.b_base, self.where)
        self._rows(block)

    def _pack_columns(self, block: Block, begin: Size, where: tuple[Size, ...]) -> None:
        """Pack the chunk's panels of a B that begins at `begin`, for the batch element `where`."""
        s, operand = self.schedule, self.problem.b
        with self.builder.loop("panel", self.cols.start, self.cols.stop) as panel:
            col = panel * s.width
            base = begin + block.b + col * operand.col
            limit = s.width if s.masked == "none" else self.problem.n - col
            read = packing_read(self.problem, "b", self.builder, col, block.begin, where)
            source = Source(operand.buffer, self.problem.dtype, base, operand.row, operand.col, limit, read)
            at = (panel - self.cols.start) * self.panel_size
            self._pack(source, [loop.b for loop in self.nest], block, self.b_panel, at, s.vectors)

    def _pack(self, source: Source, strides: list[Size], block: Block, panel: str, at: Size, groups: int) -> None:
        """Pack all steps of a block."""
        for place, to in self._runs(block, strides, source.k_stride, groups * self.schedule.lanes):
            pack(self.builder, replace(source, base=source.base + place), block.length, panel, at + to, groups)

    def _runs(self, block: Block, strides: list[Size], k_stride: Size, width: int) -> Iterator[tuple[Size, Size]]:
        """Inside the loops of a nest: how far a k loop lies in the operand, and in its panel, one after the other."""
        place: Size = 0
        at: Size = 0
        with contextlib.ExitStack() as stack:
            for (first, last), stride, steps in zip(block.nest, strides, self.flat, strict=True):
                s = stack.enter_context(self.builder.loop("s", first, last))
                place, at = place + s * stride, at + s * (steps * width)
            yield place + block.steps[0] * k_stride, at + block.steps[0] * width

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
                if s.copy_a:  # the tile's rows, or what there is of them
                    read = packing_read(self.problem, "a", b, row, block.begin, self.where)
                    count = bind(b, "count", rows.stop - row)
                    copy_rows(b, read, count, block.length, self.a_panel, self.row_size)
                self._tile_row(block, self._a_view(block, row, t), rows)
            return
        with b.loop("group", tiles.start, tiles.stop, s.together) as first:
            count = bind(b, "count", minimum(s.together, tiles.stop - first))
            packed = Rows(lambda t: first_row(s, first + t), self.packed_rows, self.packed_size)
            operand = self.problem.a
            read = packing_read(self.problem, "a", b, 0, block.begin, self.where)
            base = self.a_base + block.a
            source = Source(operand.buffer, self.problem.dtype, base, operand.col, 1, self.problem.m, read)
            for place, at in self._runs(block, [loop.a for loop in self.nest], operand.col, self.packed_rows):
                source = replace(source, base=base + place)
                pack_rows(b, source, block.length, self.a_panel, at, packed, count, self._steps_divide(STEPS))
            with self._whole(block, Range(first, first + count)), b.loop("tile", 0, count) as t:
                row = opaque(b, "row", first_row(s, first + t))
                outer = tuple(steps * self.packed_rows for steps in self.flat)
                a = View(self.a_panel, t * self.packed_size, self.packed_rows, 1, outer, padded=True)
                self._tile_row(block, a, band(b, s, m, first + t, row))

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
        if s.copy_a:
            return View(self.a_panel, 0, 1, self.row_size)
        base, strides = self.a_base + block.a + row * operand.row, [loop.a for loop in self.nest]
        if not s.pack_a:
            read, line = self._wide_read() if self.problem.wide_a else None, self.problem.line
            within = (line.begin(self.where), line.extent) if line is not None else None
            wide = self.problem.wide_a
            return View(operand.buffer, base, operand.col, operand.row, tuple(strides), wide, read=read, line=within)
        limit = self.problem.m - row
        source = Source(operand.buffer, self.problem.dtype, base, operand.col, operand.row, limit)
        self._pack(source, strides, block, self.a_panel, 0, self.packed_rows // s.lanes)
        outer = tuple(steps * self.packed_rows for steps in self.flat)
        return View(self.a_panel, 0, self.packed_rows, 1, outer, padded=True)

    def _wide_read(self) -> ViewRead | None:
        """What computes the elements of a computed A that moves with the columns."""
        computed = self.problem.a.computed
        if computed is None:
            return None
        read, where = computed.reader(computed.sources, self.builder), self.where
        return lambda h, row, col, steps, mask: read(h, where, row, col, steps, mask)

    def _steps_divide(self, by: int) -> bool:
        """Whether all blocks have a multiple of so many steps, of those of the k loop."""
        clipped = any(clip.loop == len(self.problem.outer) for clip in self.problem.clips)
        cut = 0 if self.nest else self.schedule.cut
        return isinstance(self.problem.k, int) and self.problem.k % by == cut % by == 0 and not clipped

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
        view = View(problem.b.buffer, base, problem.b.row, 1, tuple(loop.b for loop in self.nest), problem.b.col != 0)
        if s.pack_b:
            outer = tuple(steps * s.width for steps in self.flat)
            view = View(self.b_panel, (panel - self.cols.start) * self.panel_size, s.width, 1, outer, True)
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
