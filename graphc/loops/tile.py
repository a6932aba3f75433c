"""The register tile: the innermost loop of every contraction.

A tile is `rows` x `vectors` accumulators that live in registers while one loop runs over k: each step loads
the vectors of B, broadcasts one element of A for each row, and multiplies-adds. Before the loop the accumulators are
zero, or what an earlier block of k left; after it they go to the epilogue, or to where the next block finds them.
Each element is a single chain of multiply-adds in the order of k, so neither tile nor blocks change its bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Union

from graphc.loops.blocks import bind, branch, opaque, otherwise, set_register
from graphc.loops.builder import LANE, Builder, Scalar
from graphc.loops.epilogue import Ahead, Epilogue, Stage
from graphc.loops.ir import Const, Expr, Load, Op, Reg, Store, VType
from graphc.loops.packing import lane_mask
from graphc.types import Dim, DType, Size, maximum, minimum

Sums = list[list[Reg]]
Steps = tuple[Size, Size]  # from the first below the second
Masks = list[Union[Scalar, None]]
Place = tuple[Size, Size, tuple[Size, ...]]  # of a step: in A, in B, and which of each loop


# Computes elements at (row, column, steps of all summed loops, mask), vectors along the columns.
ViewRead = Callable[[Builder, Size, Size, tuple[Size, ...], Union[Scalar, None]], Scalar]


@dataclass(frozen=True)
class View:
    """Element (p, lane) is buffer[base + p * k_stride + lane * stride]: a row of A or a column of B is a lane.

    outer: how far a step of each loop around the k loop moves. wide: whether columns lie side by side, so that an
    element is a vector; else one number stands for all columns. padded: whether lanes that do not exist may be read.
    read: computes what is wide, where no array has it. line: (begin, extent) where column c of what is wide is element
    begin + c of a line of so many; outside of it there are zeros.
    """

    buffer: str
    base: Size
    k_stride: Size
    stride: Size
    outer: tuple[Size, ...] = ()
    wide: bool = False
    padded: bool = False
    read: ViewRead | None = None
    line: tuple[Size, Size] | None = None


@dataclass(frozen=True)
class Partial:
    """Where blocks of k leave sums for each other: buffer[base + row * stride + column], and which block this is."""

    buffer: str
    base: Size
    stride: Size
    first: Scalar
    last: Scalar


@dataclass(frozen=True)
class Segment:
    """Steps of a loop, from start below stop, which only some rows of a tile have.

    here: 0 where there are none after all, at the present step of a loop around the tile.
    """

    start: Size
    stop: Size
    rows: range
    here: Size = 1


@dataclass(frozen=True)
class Segments:
    """The steps of a loop (its place in the nest; behind the last is the k loop) by the rows that have them."""

    loop: int
    parts: tuple[Segment, ...]


@dataclass(frozen=True)
class Berth:
    """Where a tile is put in scratch, and how many elements a row has there."""

    scratch: str
    base: Size
    width: int


@dataclass(frozen=True)
class Tile:
    """One tile at (row, col) of C. limit_row: rows from it on do not exist (None: all do); likewise limit_col.

    Rows that do not exist repeat the last one that does. So many rows are `sure` to exist. Where there are at most
    `less` rows, the k loop is one for these (0: it always has all).
    """

    dtype: DType
    rows: int
    vectors: int
    a: View
    b: View
    row: Size
    col: Size
    batch: tuple[Size, ...]
    limit_row: Size | None
    limit_col: Size | None
    b_padded: bool  # whether B's missing columns may be read
    stage: Stage | None  # for a long epilogue; None: it works on registers
    nest: tuple[Steps, ...] = ()  # of the loops around the k loop, the outermost first
    segments: Segments | None = None  # None: all rows have all steps
    ahead: Ahead | None = None  # asks for what the epilogue will touch
    sure: int = 1
    less: int = 0
    waits: Berth | None = None  # where it is put, in place of an epilogue


def emit_tile(
    builder: Builder, tile: Tile, steps: Steps, unroll: int, partial: Partial | None, epilogue: Epilogue | None
) -> None:
    """Emit `tile` for these steps of k, whose number is a multiple of `unroll`."""
    lanes = builder.lane_count
    masks: Masks = [None] * tile.vectors
    if tile.limit_col is not None:
        masks = [lane_mask(builder, tile.col + v * lanes, tile.limit_col) for v in range(tile.vectors)]
    zero = Scalar(Const(0.0 if tile.dtype.is_float else 0, VType(tile.dtype, lanes)))
    sums = [[builder.register(zero, "c") for _ in range(tile.vectors)] for _ in range(tile.rows)]
    with branch(builder, partial.last if partial is not None else None):
        _ask_ahead(builder, tile)
    if partial is None:
        _k_loop(builder, tile, steps, unroll, masks, sums)
        _finish(builder, tile, masks, sums, epilogue)
        return
    with branch(builder, builder.not_(partial.first)):
        for place, register in _partial_places(builder, tile, partial, sums):
            set_register(builder, register, Load(partial.buffer, place, register.vtype))
    _k_loop(builder, tile, steps, unroll, masks, sums)
    with branch(builder, partial.last):
        _finish(builder, tile, masks, sums, epilogue)
    with otherwise(builder):
        for place, register in _partial_places(builder, tile, partial, sums):
            builder.emit(Store(partial.buffer, place, register))


def _ask_ahead(builder: Builder, tile: Tile) -> None:
    """What the epilogue will touch is on its way while the k loop runs."""
    if tile.ahead is not None:
        with builder.loop("line", 0, tile.rows) as line:
            row, col = bind(builder, "row", tile.row + line), bind(builder, "col", tile.col) + Dim.symbol(LANE)
            for v in range(tile.vectors):
                tile.ahead(builder, row, col + v * builder.lane_count, tile.batch)


def _k_loop(builder: Builder, tile: Tile, steps: Steps, unroll: int, masks: Masks, sums: Sums) -> None:
    """All steps of the nest, in order; where rows lack some, loops over those that the same rows have."""
    rows = _row_bases(builder, tile)
    levels = [*tile.nest, steps]
    of_a, of_b = (*tile.a.outer, tile.a.k_stride), (*tile.b.outer, tile.b.k_stride)
    columns_masks: Masks = [None] * len(masks) if tile.b_padded else masks
    if tile.a.line is not None:  # of both factors: 0 times what is infinite would be NaN
        within = _within(builder, tile, *tile.a.line)
        pairs = zip(within, columns_masks, strict=True)
        masks, columns_masks = list(within), [there if m is None else builder.and_(there, m) for there, m in pairs]

    def add(row: int, factors: list[Expr], columns: list[Expr]) -> None:
        for v, (factor, column) in enumerate(zip(factors, columns, strict=True)):
            set_register(builder, sums[row][v], _multiply_add(tile, factor, column, sums[row][v]))

    def step(a: Size, b: Size, present: range) -> None:
        columns = _elements(builder, tile, tile.b, b, columns_masks, "b")
        for row in present:
            add(row, _elements(builder, tile, tile.a, rows[row] + a, masks, "a"), columns)

    def wide_steps(places: list[Place], present: range) -> None:
        """A few steps: what several rows read, at different steps, is loaded (or computed) once."""
        loaded: dict[Size, list[Expr]] = {}
        for a, b, at in places:
            column = _elements(builder, tile, tile.b, b, columns_masks, "b")
            for row in present:
                place = rows[row] + a
                if place not in loaded and tile.a.read is not None:
                    loaded[place] = _computed(builder, tile, tile.a.read, row, at, masks)
                elif place not in loaded:
                    loaded[place] = _elements(builder, tile, tile.a, place, masks, "a")
                add(row, loaded[place], column)

    def level(depth: int, a: Size, b: Size, at: tuple[Size, ...], present: range, unroll: int) -> None:
        parts = [(levels[depth], present)]
        if tile.segments and depth == tile.segments.loop:
            parts = [((s.start, s.start + (s.stop - s.start) * s.here), s.rows) for s in tile.segments.parts]
            lengths: list[Size] = [s.stop - s.start for s in tile.segments.parts]
        else:
            lengths = [stop - start for (start, stop), _ in parts]
        inner = depth == len(levels) - 1
        for ((start, stop), there), length in zip(parts, lengths, strict=True):
            times = _together(tile, length, unroll) if inner else 1
            with builder.loop("p" if inner else "s", start, stop, times) as p:
                steps_here = [p + i for i in range(times)]
                places = [(a + q * of_a[depth], b + q * of_b[depth], (*at, q)) for q in steps_here]
                if inner and tile.a.wide:
                    wide_steps(places, there)
                    continue
                for place in places:
                    if inner:
                        step(*place[:2], there)
                    else:
                        level(depth + 1, *place, there, unroll)

    more = None
    if tile.limit_row is not None and tile.less:
        more = builder.lt(builder.index(tile.row + tile.less), builder.index(tile.limit_row))
    with branch(builder, more):
        level(0, 0, tile.b.base, (), range(tile.rows), unroll)
    if more is not None:
        with otherwise(builder):  # such tiles are few: keep their code short
            level(0, 0, tile.b.base, (), range(tile.less), 1)


def _within(builder: Builder, tile: Tile, begin: Size, extent: Size) -> list[Scalar]:
    """Which lanes are elements of a line."""
    found: list[Scalar] = []
    for v in range(tile.vectors):
        place = bind(builder, "place", begin + tile.col + v * builder.lane_count)
        below = lane_mask(builder, place, extent)
        there = builder.ge(builder.symbols[LANE], builder.index(0 - place))
        found.append(there if below is None else builder.and_(below, there))
    return found


def _together(tile: Tile, length: Size, unroll: int) -> int:
    """How many steps the body of the k loop has: a divisor of their number."""
    if tile.a.wide and isinstance(length, int):
        return next(times for times in (3, 4, 2, 1) if length % times == 0)
    return unroll if tile.segments is None else 1  # tiles at a border are few: keep their code short


def _elements(builder: Builder, tile: Tile, view: View, place: Size, masks: Masks, name: str) -> list[Expr]:
    """An operand for each vector of columns: loaded, or one element that is broadcast."""
    lanes = builder.lane_count
    if not view.wide:
        element = Load(view.buffer, builder.index(place).expr, VType(tile.dtype))
        value = Op("splat", (element,), VType(tile.dtype, lanes)) if lanes > 1 else element
        return [builder.let(value, builder.depth, name).expr] * len(masks)
    found = []
    for v, mask in enumerate(masks):
        index = builder.index(place + v * lanes)
        vector = Load(view.buffer, index.expr, VType(tile.dtype, lanes), mask.expr if mask else None)
        found.append(builder.let(vector, builder.depth, name).expr)
    return found


def _computed(
    builder: Builder, tile: Tile, read: ViewRead, number: int, steps: tuple[Size, ...], masks: Masks
) -> list[Expr]:
    """The same for a row of A that is computed. A row that does not exist is the last one instead."""
    lanes, row = builder.lane_count, tile.row + number
    if tile.limit_row is not None and number >= tile.sure:
        row = bind(builder, "row", minimum(row, tile.limit_row - 1))
    columns = [tile.col + v * lanes + Dim.symbol(LANE) for v in range(len(masks))]
    values = [read(builder, row, col, steps, mask) for col, mask in zip(columns, masks, strict=True)]
    return [builder.widened(value, lanes).expr for value in values]


def _row_bases(builder: Builder, tile: Tile) -> list[Size]:
    """The addresses of the rows of A. Rows that do not exist read the last one instead, and are never stored."""
    a = tile.a
    places = [a.base + row * a.stride for row in range(tile.rows)]
    if tile.limit_row is None or a.padded:
        return places
    rows = tile.limit_row - tile.row
    last = bind(builder, "a", a.base + (rows - 1) * a.stride)
    for row in range(tile.sure, tile.rows):
        place = a.base + minimum(row, rows - 1) * a.stride
        if isinstance(a.stride, int):
            place = minimum(places[row], last) if a.stride > 0 else maximum(places[row], last)
        places[row] = opaque(builder, "a", place)
    return places


def _multiply_add(tile: Tile, a: Expr, b: Expr, c: Reg) -> Op:
    if tile.dtype.is_float:
        return Op("fma", (a, b, c), c.vtype)
    return Op("add", (c, Op("mul", (a, b), c.vtype)), c.vtype)


def _partial_places(builder: Builder, tile: Tile, partial: Partial, sums: Sums) -> Iterator[tuple[Expr, Reg]]:
    """The address of each accumulator's partial sum; masked lanes and missing rows have room there too."""
    base = bind(builder, "at", partial.base)
    for r, row in enumerate(sums):
        for v, register in enumerate(row):
            yield builder.index(base + r * partial.stride + v * builder.lane_count).expr, register


def _finish(builder: Builder, tile: Tile, masks: Masks, sums: Sums, epilogue: Epilogue | None) -> None:
    """Hand every vector of the tile to the epilogue, under names that keep its statements behind the k loop."""
    if epilogue is None:
        assert tile.waits is not None
        at = bind(builder, "at", tile.waits.base)
        for r, registers in enumerate(sums):
            for v, register in enumerate(registers):
                place = builder.index(at + (r * tile.waits.width + v * builder.lane_count))
                builder.emit(Store(tile.waits.scratch, place.expr, register))
        return
    col = bind(builder, "col", tile.col) + Dim.symbol(LANE)
    first = bind(builder, "row", tile.row)
    if tile.stage is not None:
        _finish_staged(builder, tile, tile.stage, sums, epilogue, first, col)
        return
    for r, registers in enumerate(sums):
        exists = None
        if tile.limit_row is not None and r >= tile.sure:
            exists = builder.lt(builder.index(first + r), builder.index(tile.limit_row))
        with branch(builder, exists):
            row = first + r if exists is None else bind(builder, "row", first + r)
            for v, register in enumerate(registers):
                value = builder.read(register)
                epilogue(builder, value, row, col + v * builder.lane_count, tile.batch, masks[v])


def _finish_staged(
    builder: Builder, tile: Tile, stage: Stage, sums: Sums, epilogue: Epilogue, first: Size, col: Size
) -> None:
    """The same through scratch, row by row: a long epilogue is there once a row, not once a register."""
    lanes, width = builder.lane_count, builder.lane_count * tile.vectors
    for r, registers in enumerate(sums):
        for v, register in enumerate(registers):
            builder.emit(Store(stage.scratch, builder.index(r * width + v * lanes).expr, register))
    count: Size = tile.rows
    if tile.limit_row is not None:
        count = minimum(tile.rows, tile.limit_row - first)
    with builder.loop("line", 0, count) as line:
        row = bind(builder, "row", first + line)
        for v, some in stage.groups(tile.vectors):
            with builder.together(some):
                place, here = builder.index(line * width + v * lanes), tile.col + v * lanes
                load = Load(stage.scratch, place.expr, VType(tile.dtype, some * lanes))
                mask = lane_mask(builder, here, tile.limit_col) if tile.limit_col is not None else None
                epilogue(builder, builder.let(load, builder.depth, "c"), row, col + v * lanes, tile.batch, mask)
