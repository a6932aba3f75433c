"""How the rows of a chunk are cut into tiles: where each tile begins and how high it is.

`known_tiles` where m is a number, `unknown_tiles` where it is a name. To cut rows in another way, give other `Tiles`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.loops.blocks import bind
from graphc.loops.builder import Builder, Scalar
from graphc.loops.schedule import SHORT, Schedule, ceildiv_int
from graphc.types import Size, ceildiv, maximum, minimum


@dataclass(frozen=True)
class Range:
    """From start below stop."""

    start: Size
    stop: Size


@dataclass(frozen=True)
class Height:
    """Which tiles have so many rows (None: all). Of those, rows from `limit` on do not exist (None: all do)."""

    rows: int
    condition: Callable[[Size], Scalar | None]
    limit: Size | None = None


@dataclass(frozen=True)
class Tiles:
    """The tiles of a chunk's rows: their numbers, the first row of each, and how high they are."""

    start: Size
    stop: Size
    place: Callable[[Size], Size]
    heights: tuple[Height, ...]


def share(builder: Builder, part: Size, each: Size, total: Size) -> Range:
    """The items of one part: from part * each, `each` of them or what is left."""
    if part == 0:
        return Range(0, total)
    start = bind(builder, "start", minimum(part * each, total))
    return Range(start, bind(builder, "stop", minimum(start + each, total)))


def rows_of_chunk(builder: Builder, schedule: Schedule, m: Size, part: Size) -> Range:
    """The rows of one chunk where m is not known: even shares of at most so many tiles."""
    each = bind(builder, "each", ceildiv(m, maximum(1, schedule.row_chunks)))
    return share(builder, part, each, m)


def most_tiles(schedule: Schedule) -> int:
    """How many tiles a chunk has at most where m is not known: all of the lower height, and short ones."""
    rows = schedule.rows * (schedule.height + 1)
    return rows // schedule.height + ceildiv_int(schedule.height - 1, SHORT)


def first_row(schedule: Schedule, tile: Size) -> Size:
    """The first row of a tile, where m is known."""
    return tile * schedule.height + minimum(tile, schedule.tall)


def known_tiles(builder: Builder, schedule: Schedule, tiles: Range) -> Tiles:
    """Two even heights, the taller tiles first. `tiles`: the numbers of the chunk's tiles."""
    tall, all_tall, none_tall = schedule.tall, schedule.tall == schedule.tiles, schedule.tall == 0
    heights = []
    if not none_tall:
        heights.append(Height(schedule.height + 1, lambda t: None if all_tall else _below(builder, t, tall)))
    if not all_tall:
        heights.append(Height(schedule.height, lambda t: None if none_tall else _from(builder, t, tall)))
    return Tiles(tiles.start, tiles.stop, lambda t: first_row(schedule, t), tuple(heights))


def unknown_tiles(builder: Builder, schedule: Schedule, rows: Range) -> Tiles:
    """Two even heights, and short tiles for what is left. `rows`: the chunk's rows."""
    height = schedule.height
    count = bind(builder, "rows", rows.stop - rows.start)
    full = bind(builder, "full", count // height)
    talls = bind(builder, "talls", minimum(full, count - full * height))
    rest = bind(builder, "rest", count - full * height - talls)

    def place(t: Size) -> Size:
        inside = minimum(t, full)
        return rows.start + inside * height + minimum(t, talls) + (t - inside) * SHORT

    heights = (
        Height(height + 1, lambda t: _below(builder, t, talls)),
        Height(height, lambda t: builder.and_(_from(builder, t, talls), _below(builder, t, full))),
        Height(SHORT, lambda t: _from(builder, t, full), rows.stop),
    )
    return Tiles(0, full + ceildiv(rest, SHORT), place, heights)


def _below(builder: Builder, t: Size, limit: Size) -> Scalar:
    return builder.lt(builder.index(t), builder.index(limit))


def _from(builder: Builder, t: Size, limit: Size) -> Scalar:
    return builder.ge(builder.index(t), builder.index(limit))
