"""Rows of a contraction that wait in scratch until all of their panels are computed, then are finished together.

`WaitingRows` is made for a problem that asks for whole rows; contraction.py opens `groups` or `together` around its
loops over tiles. A few tiles wait at a time: so the loops over k and those over rows change places seldom.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from graphc.loops.blocks import bind, branch, opaque
from graphc.loops.builder import Builder, Scalar
from graphc.loops.ir import Scratch
from graphc.loops.problem import Problem
from graphc.loops.row_tiles import Range, first_row
from graphc.loops.schedule import Schedule
from graphc.loops.tile import Berth
from graphc.types import Size, minimum

WAITING = 16 * 1024  # bytes of rows that wait, unless a single tile has more: they stay in the first cache

SQUARES = 3  # of rows that are transposed, at least: those of the last tiles do not fill theirs

# What finishes rows: `finish(builder, scratch, width, row, count)`, for `count` rows from `row` on, of which each has
# `width` elements in the scratch.
Finish = Callable[[Builder, str, int, Size, Size], None]


class WaitingRows:
    """The scratch for them: `width` elements a row. tiles: how many wait at a time.

    Rows that are transposed wait until they fill squares, or all of a chunk where a clip says which tiles there are.
    """

    def __init__(self, builder: Builder, problem: Problem, schedule: Schedule, finish: Finish) -> None:
        self.builder, self.m, self.schedule, self.finish = builder, problem.m, schedule, finish
        self.scratch, self.width = builder.fresh("rows"), schedule.cols * schedule.width
        tile, crossed = schedule.height * self.width, schedule.lanes if problem.crossed else 0
        some = max(1, WAITING // (tile * problem.dtype.itemsize), SQUARES * crossed // schedule.height)
        self.tiles = schedule.rows if problem.row_clip else schedule.together if schedule.pack_a else some
        builder.emit(Scratch(self.scratch, problem.dtype, self.tiles * tile + crossed * self.width))

    @contextlib.contextmanager
    def groups(self, tiles: Range, last: Scalar | None) -> Iterator[tuple[Size, Size]]:
        """The loop over the groups of tiles: from which tile to which one goes."""
        with self.builder.loop("group", tiles.start, tiles.stop, self.tiles) as first:
            stop = bind(self.builder, "stop", minimum(first + self.tiles, tiles.stop))
            with self.together(Range(first, stop), last):
                yield first, stop

    @contextlib.contextmanager
    def together(self, group: Range, last: Scalar | None) -> Iterator[None]:
        """Around the computation of some tiles: behind it, in the last block of steps, their rows are finished."""
        b = self.builder
        self.first = opaque(b, "first", first_row(self.schedule, group.start))
        yield
        with branch(b, last):
            count = bind(b, "count", minimum(first_row(self.schedule, group.stop), self.m) - self.first)
            self.finish(b, self.scratch, self.width, self.first, count)

    def place(self, row: Size, col: Size) -> Berth:
        """Where a tile waits. A row that it lacks is overwritten by the next one, which begins there."""
        return Berth(self.scratch, (row - self.first) * self.width + col, self.width)
