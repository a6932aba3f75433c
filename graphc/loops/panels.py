"""The panels of a contraction: where packed operands lie in scratch, and the packing of one block of steps.

Enter at `Panels`, which contraction.py asks to pack and for `View`s of what is packed: the chunk's columns of B, the
rows of A of one tile, or of several tiles together. How elements are copied is in packing.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from graphc.loops.blocks import bind
from graphc.loops.builder import Builder
from graphc.loops.clips import Block
from graphc.loops.ir import Scratch
from graphc.loops.packing import STEPS, Rows, Source, copy_rows, pack, pack_rows, packed_tile, packing_read
from graphc.loops.problem import Problem
from graphc.loops.row_tiles import Band, Range, first_row
from graphc.loops.schedule import Schedule
from graphc.loops.tile import View
from graphc.types import Size, product


class Panels:
    """The scratch of a contraction for packed operands. `nest`: the loops around the k loop within a block."""

    def __init__(self, builder: Builder, problem: Problem, schedule: Schedule) -> None:
        self.builder, self.problem, self.schedule = builder, problem, schedule
        s = schedule
        self.nest = problem.outer[s.split :]
        # squares of k are packed whole: the last run of a nest writes up to lanes - 1 steps behind the block
        behind = s.lanes - 1 if self.nest or problem.clips else 0
        length = -(-(s.block + behind) // s.lanes) * s.lanes
        inner = [product(loop.extent for loop in self.nest[i + 1 :]) for i in range(len(self.nest))]
        self.flat = [count * problem.k for count in inner]  # steps, of one of each
        self.packed_rows, self.packed_size = packed_tile(s, length)
        self.panel_size = length * s.width
        self.b_panel, self.a_panel = "", ""
        if s.pack_b:
            self.b_panel = builder.fresh("packed_b")
            builder.emit(Scratch(self.b_panel, problem.dtype, s.cols * length * s.width))
        if s.pack_a:
            self.a_panel = builder.fresh("packed_a")
            self.row_size = length + s.lanes  # of a copy; so not all rows are in the same sets of the cache
            size = self.packed_rows * self.row_size if s.copy_a else s.together * self.packed_size
            builder.emit(Scratch(self.a_panel, problem.dtype, size))

    # -- columns of B

    def shares_b(self) -> bool:
        """Whether all batch elements read one B in each block, which is packed before the first one."""
        moves = any(stride != 0 for stride in self.problem.b.batch)
        return self.schedule.pack_b and self.schedule.blocks_first and not (moves or self.problem.clips)

    def pack_columns(self, block: Block, begin: Size, where: tuple[Size, ...], cols: Range) -> None:
        """Pack the chunk's panels of a B that begins at `begin`, for the batch element `where`."""
        s, operand = self.schedule, self.problem.b
        with self.builder.loop("panel", cols.start, cols.stop) as panel:
            col = panel * s.width
            base = begin + block.b + col * operand.col
            limit = s.width if s.masked == "none" else self.problem.n - col
            read = packing_read(self.problem, "b", self.builder, col, block.begin, where)
            source = Source(operand.buffer, self.problem.dtype, base, operand.row, operand.col, limit, read)
            at = (panel - cols.start) * self.panel_size
            self._pack(source, [loop.b for loop in self.nest], block, self.b_panel, at, s.vectors)

    def columns(self, panel: Size) -> View:
        """One panel, counted from the chunk's first."""
        width = self.schedule.width
        return View(self.b_panel, panel * self.panel_size, width, 1, tuple(steps * width for steps in self.flat), True)

    # -- rows of A

    def pack_tile(self, block: Block, base: Size, row: Size) -> View:
        """Pack the rows of one tile, from `row` on, which lies at `base`."""
        operand = self.problem.a
        source = Source(operand.buffer, self.problem.dtype, base, operand.col, operand.row, self.problem.m - row)
        groups = self.packed_rows // self.schedule.lanes
        self._pack(source, [loop.a for loop in self.nest], block, self.a_panel, 0, groups)
        return self.rows(0)

    def pack_tiles(self, block: Block, base: Size, where: tuple[Size, ...], first: Size, count: Size) -> None:
        """Pack the rows of `count` tiles, from the tile `first` on; those of the first tile of all lie at `base`."""
        b, operand = self.builder, self.problem.a
        packed = Rows(lambda t: first_row(self.schedule, first + t), self.packed_rows, self.packed_size)
        read = packing_read(self.problem, "a", b, 0, block.begin, where)
        source = Source(operand.buffer, self.problem.dtype, base, operand.col, 1, self.problem.m, read)
        for place, at in self._runs(block, [loop.a for loop in self.nest], operand.col, self.packed_rows):
            source = replace(source, base=base + place)
            pack_rows(b, source, block.length, self.a_panel, at, packed, count, self._steps_divide(STEPS))

    def rows(self, tile: Size) -> View:
        """The packed rows of a tile, counted from the first that is packed."""
        outer = tuple(steps * self.packed_rows for steps in self.flat)
        return View(self.a_panel, tile * self.packed_size, self.packed_rows, 1, outer, padded=True)

    def copy_tile(self, block: Block, where: tuple[Size, ...], rows: Band) -> View:
        """Copy a tile's rows, or what there is of them, as they lie; they are computed as they are copied."""
        read = packing_read(self.problem, "a", self.builder, rows.row, block.begin, where)
        count = bind(self.builder, "count", rows.stop - rows.row)
        copy_rows(self.builder, read, count, block.length, self.a_panel, self.row_size)
        return View(self.a_panel, 0, 1, self.row_size)

    # -- the steps of a block

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

    def _steps_divide(self, by: int) -> bool:
        """Whether all blocks have a multiple of so many steps, of those of the k loop."""
        clipped = any(clip.loop == len(self.problem.outer) for clip in self.problem.clips)
        cut = 0 if self.nest else self.schedule.cut
        return isinstance(self.problem.k, int) and self.problem.k % by == cut % by == 0 and not clipped
