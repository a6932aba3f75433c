"""Results of a contraction whose rows lie side by side in memory, while lanes are columns: channels-first images.

Rows wait in scratch (waiting.py) until enough of them are computed; then squares of them are transposed in registers,
so that the epilogue sees vectors along the rows. Enter at `Crossing`, which finishes waiting rows.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.loops.blocks import bind, branch
from graphc.loops.builder import LANE, Builder, Scalar
from graphc.loops.epilogue import Ahead, Epilogue, cost_of
from graphc.loops.ir import Load, Scratch, Store, VType
from graphc.loops.packing import lane_mask, transposed
from graphc.loops.problem import Problem
from graphc.loops.row_tiles import Band, Range
from graphc.loops.schedule import Schedule, ceildiv_int
from graphc.types import Dim, Size, minimum

CACHE_LINE = 64  # bytes that come at once
SHORT = 3  # instructions of an epilogue that is there for each line of a square

Place = tuple[Size, ...]


class Crossing:
    """Hands rows that wait to an epilogue. here: the panels of the chunk, and which batch element it is at."""

    def __init__(
        self, builder: Builder, problem: Problem, schedule: Schedule, epilogue: Epilogue, ahead: Ahead | None,
        here: Callable[[], tuple[Range, Place]],
    ) -> None:  # fmt: skip
        self.dtype, self.n, self.width = problem.dtype, problem.n, schedule.width
        self.epilogue, self.here = epilogue, here
        self.ahead, self.apart = ahead, max(1, CACHE_LINE // problem.dtype.itemsize // schedule.height)
        self.whole = isinstance(problem.n, int) and problem.n % builder.lane_count == 0
        self.square = ""
        if cost_of(builder, epilogue, problem.dtype, len(problem.batch)).length > SHORT:
            self.square = builder.fresh("square")
            builder.emit(Scratch(self.square, problem.dtype, builder.lane_count**2))

    def ask(self, b: Builder, rows: Band, col: Size, where: Place, last: Scalar | None) -> None:
        """What columns will be stored to is on its way while tiles are computed: each in a page of its own.

        Tiles that share a line of the cache ask for a part of the columns each: with all requests in one of them,
        112x112x3->64 7x7 takes 1.02 times as long.
        """
        if self.ahead is None:
            return
        turn = rows.number - rows.number // self.apart * self.apart if self.apart > 1 else 0
        part = ceildiv_int(self.width, self.apart)
        with branch(b, last), b.loop("ask", 0, part) as c:
            self.ahead(b, rows.row + Dim.symbol(LANE), col + turn * part + c, where)

    def finish(self, b: Builder, scratch: str, width: int, row: Size, count: Size) -> None:
        """`count` rows from `row` on, which lie in the scratch, `width` elements each."""
        lanes, vtype = b.lane_count, VType(self.dtype, b.lane_count)
        panels, where = self.here()
        first = panels.start * self.width
        total = bind(b, "columns", minimum(panels.stop * self.width, self.n) - first)
        with b.loop("across", 0, total, lanes) as across, b.loop("down", 0, count, lanes) as down:
            at = bind(b, "at", down * width + across)
            loads = [Load(scratch, b.index(at + i * width).expr, vtype) for i in range(lanes)]
            lines = transposed(b, [b.let(load, b.depth, "c") for load in loads])
            place, col, mask = row + down + Dim.symbol(LANE), first + across, lane_mask(b, down, count)
            if not self.square:
                for i, line in enumerate(lines):
                    exists = None if self.whole else b.lt(b.index(across + i), b.index(total))
                    with branch(b, exists):
                        self.epilogue(b, line, place, col + i, where, mask)
                return
            for i, line in enumerate(lines):
                b.emit(Store(self.square, b.index(i * lanes).expr, line.expr))
            with b.loop("line", 0, bind(b, "left", minimum(lanes, total - across))) as number:
                value = b.let(Load(self.square, b.index(number * lanes).expr, vtype), b.depth, "c")
                self.epilogue(b, value, place, bind(b, "col", col + number), where, mask)
