"""How rows are cut into tiles: where each begins, and which of its rows there are.

All tiles of a contraction are one piece of code of one height. Where m is a number, the rows are shared out evenly, so
that some tiles lack one; where it is a name, only the last tile lacks rows. Those repeat a row and are not stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.loops.blocks import bind
from graphc.loops.builder import Builder
from graphc.loops.schedule import Schedule
from graphc.types import Size, ceildiv, maximum, minimum


@dataclass(frozen=True)
class Range:
    """From start below stop."""

    start: Size
    stop: Size


@dataclass(frozen=True)
class Band:
    """The rows of one tile, from `row` on. Rows from `limit` on do not exist (None: all do).

    sure: so many rows do exist. less: tiles of at most so many rows have a k loop for these (0: none has).
    """

    number: Size
    row: Size
    height: int
    limit: Size | None = None
    sure: int = 1
    less: int = 0

    @property
    def stop(self) -> Size:
        """Behind the last row."""
        return self.row + self.height if self.limit is None else minimum(self.row + self.height, self.limit)


def share(builder: Builder, part: Size, each: Size, total: Size) -> Range:
    """The items of one part: from part * each, `each` of them or what is left."""
    if part == 0:
        return Range(0, total)
    start = bind(builder, "start", minimum(part * each, total))
    return Range(start, bind(builder, "stop", minimum(start + each, total)))


def tiles_of_chunk(builder: Builder, schedule: Schedule, part: Size) -> Range:
    """The numbers of the tiles of one chunk. Shares are even."""
    each: Size = schedule.rows
    if not schedule.rows_known:
        each = bind(builder, "each", ceildiv(schedule.tiles, maximum(1, schedule.row_chunks)))
    return share(builder, part, each, schedule.tiles)


def first_row(schedule: Schedule, tile: Size) -> Size:
    """The first row of a tile."""
    if schedule.full == schedule.tiles:
        return maximum(0, tile * schedule.height - schedule.lack)
    return tile * (schedule.height - 1) + minimum(tile, schedule.full)


def band(builder: Builder, schedule: Schedule, m: Size, tile: Size, row: Size) -> Band:
    """The rows of a tile, whose first is `row`."""
    if not schedule.rows_known:
        return Band(tile, row, schedule.height, m, 1, schedule.less)
    if schedule.full == schedule.tiles:
        return Band(tile, row, schedule.height)
    end = bind(builder, "end", first_row(schedule, tile + 1))
    return Band(tile, row, schedule.height, end, schedule.height - 1, schedule.less)
