"""The register tile: the innermost loop of every contraction.

A tile is `rows` x `vectors` accumulators that live in registers while one loop runs over k: each step loads
the vectors of B, broadcasts one element of A for each row, and multiplies-adds. Before the loop the accumulators are
zero, or what an earlier block of k left; after it they go to the epilogue, or to where the next block finds them.
Each element is a single chain of multiply-adds in the order of k, so neither tile nor blocks change its bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Union

from graphc.loops.blocks import bind, branch, set_register
from graphc.loops.builder import LANE, Builder, Level, Scalar
from graphc.loops.ir import Const, Expr, Let, Load, Op, Reg, Stmt, Store, VType
from graphc.loops.packing import lane_mask
from graphc.ops.lowering import FUNCTIONS
from graphc.types import Dim, DType, Size, bool_, minimum

Sums = list[list[Reg]]
Masks = list[Union[Scalar, None]]


# What happens to a finished vector of C, C[batch, row, col] for all lanes: loads, arithmetic, stores. Called as
# `epilogue(builder, value, row, col, batch, mask)` for each row and vector of each tile, with the builder at the place
# where the statements go. row, col and batch are index polynomials; one of row and col moves with the symbol LANE. mask
# is None or says which lanes exist: the others of `value` hold anything and must not be stored.
Epilogue = Callable[[Builder, Scalar, Size, Size, tuple[Size, ...], Union[Scalar, None]], None]
Ahead = Callable[[Builder, Size, Size, tuple[Size, ...]], None]  # the same without value and mask


@dataclass(frozen=True)
class View:
    """Element (p, lane) is buffer[base + p * k_stride + lane * stride]: a row of A or a column of B is a lane.

    outer: how far a step of each loop around the k loop moves.
    """

    buffer: str
    base: Size
    k_stride: Size
    stride: Size
    outer: tuple[Size, ...] = ()


@dataclass(frozen=True)
class Partial:
    """Where blocks of k leave sums for each other: buffer[base + row * stride + column], and which block this is."""

    buffer: str
    base: Size
    stride: Size
    first: Scalar
    last: Scalar


@dataclass(frozen=True)
class Tile:
    """One tile at (row, col) of C. limit_row: rows from it on do not exist (None: all do); likewise limit_col."""

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
    stage: str  # scratch of rows * vectors * lanes for a long epilogue; empty: it works on registers
    nest: tuple[Size, ...] = ()  # the extents of the loops around the k loop, the outermost first
    ahead: Ahead | None = None  # asks for what the epilogue will touch


def emit_tile(
    builder: Builder, tile: Tile, length: Size, unroll: int, partial: Partial | None, epilogue: Epilogue
) -> None:
    """Emit `tile` for `length` steps of k, a multiple of `unroll`."""
    lanes = builder.lane_count
    masks: Masks = [None] * tile.vectors
    if tile.limit_col is not None:
        masks = [lane_mask(builder, tile.col + v * lanes, tile.limit_col) for v in range(tile.vectors)]
    zero = Scalar(Const(0.0 if tile.dtype.is_float else 0, VType(tile.dtype, lanes)))
    sums = [[builder.register(zero, "c") for _ in range(tile.vectors)] for _ in range(tile.rows)]
    with branch(builder, partial.last if partial is not None else None):
        _ask_ahead(builder, tile)
    if partial is None:
        _k_loop(builder, tile, length, unroll, masks, sums)
        _finish(builder, tile, masks, sums, epilogue)
        return
    with branch(builder, builder.not_(partial.first)):
        for place, register in _partial_places(builder, tile, partial, sums):
            set_register(builder, register, Load(partial.buffer, place, register.vtype))
    _k_loop(builder, tile, length, unroll, masks, sums)
    with branch(builder, partial.last):
        _finish(builder, tile, masks, sums, epilogue)
    with branch(builder, builder.not_(partial.last)):
        for place, register in _partial_places(builder, tile, partial, sums):
            builder.emit(Store(partial.buffer, place, register))


def _ask_ahead(builder: Builder, tile: Tile) -> None:
    """What the epilogue will touch is on its way while the k loop runs."""
    if tile.ahead is not None:
        with builder.loop("line", 0, tile.rows) as line:
            row, col = bind(builder, "row", tile.row + line), bind(builder, "col", tile.col) + Dim.symbol(LANE)
            for v in range(tile.vectors):
                tile.ahead(builder, row, col + v * builder.lane_count, tile.batch)


def _k_loop(builder: Builder, tile: Tile, length: Size, unroll: int, masks: Masks, sums: Sums) -> None:
    lanes, vtype = builder.lane_count, VType(tile.dtype, builder.lane_count)
    rows = [_row_base(builder, tile, r) for r in range(tile.rows)]
    a: Size = 0
    b = tile.b.base
    with contextlib.ExitStack() as loops:
        for extent, in_a, in_b in zip(tile.nest, tile.a.outer, tile.b.outer, strict=True):
            s = loops.enter_context(builder.loop("s", 0, extent))
            a, b = a + s * in_a, b + s * in_b
        p = loops.enter_context(builder.loop("p", 0, length, unroll))
        for step in range(unroll):
            columns = []
            for v, mask in enumerate(masks):
                index = builder.index(b + (p + step) * tile.b.k_stride + v * lanes)
                load = Load(tile.b.buffer, index.expr, vtype, mask.expr if mask and not tile.b_padded else None)
                columns.append(builder.let(load, builder.depth, "b").expr)
            for row, base in enumerate(rows):
                index = builder.index(base + a + (p + step) * tile.a.k_stride)
                element = builder.let(Load(tile.a.buffer, index.expr, VType(tile.dtype)), builder.depth, "a")
                wide = builder.widened(element, lanes).expr
                for v in range(tile.vectors):
                    target = sums[row][v]
                    set_register(builder, target, _multiply_add(tile, wide, columns[v], target))


def _row_base(builder: Builder, tile: Tile, row: int) -> Size:
    """The address of a row of A. Rows that do not exist read the last one instead, and are never stored."""
    if tile.limit_row is None or row == 0:
        return tile.a.base + row * tile.a.stride
    existing = minimum(row, tile.limit_row - 1 - tile.row)
    return bind(builder, "a", tile.a.base + existing * tile.a.stride)


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


def _finish(builder: Builder, tile: Tile, masks: Masks, sums: Sums, epilogue: Epilogue) -> None:
    """Hand every vector of the tile to the epilogue, under names that keep its statements behind the k loop."""
    col = bind(builder, "col", tile.col) + Dim.symbol(LANE)
    first = bind(builder, "row", tile.row)
    if tile.stage:
        _finish_staged(builder, tile, masks, sums, epilogue, first, col)
        return
    for r, registers in enumerate(sums):
        exists = None
        if tile.limit_row is not None and r > 0:
            exists = builder.lt(builder.index(first + r), builder.index(tile.limit_row))
        with branch(builder, exists):
            row = first + r if exists is None else bind(builder, "row", first + r)
            for v, register in enumerate(registers):
                value = builder.read(register)
                epilogue(builder, value, row, col + v * builder.lane_count, tile.batch, masks[v])


def _finish_staged(
    builder: Builder, tile: Tile, masks: Masks, sums: Sums, epilogue: Epilogue, first: Size, col: Size
) -> None:
    """The same through scratch, row by row: a long epilogue is there once a vector, not once a register."""
    lanes, width = builder.lane_count, builder.lane_count * tile.vectors
    for r, registers in enumerate(sums):
        for v, register in enumerate(registers):
            builder.emit(Store(tile.stage, builder.index(r * width + v * lanes).expr, register))
    count: Size = tile.rows
    if tile.limit_row is not None:
        count = minimum(tile.rows, tile.limit_row - first)
    with builder.loop("line", 0, count) as line:
        row = bind(builder, "row", first + line)
        for v, mask in enumerate(masks):
            load = Load(tile.stage, builder.index(line * width + v * lanes).expr, VType(tile.dtype, lanes))
            epilogue(builder, builder.let(load, builder.depth, "c"), row, col + v * lanes, tile.batch, mask)


def epilogue_length(builder: Builder, epilogue: Epilogue, dtype: DType, batch: int) -> int:
    """About how many instructions `epilogue` takes for a vector. What it hoists out of the tile stays in `builder`."""
    builder.levels.append(Level())
    row, col, *where = [bind(builder, "probe", 0) for _ in range(batch + 2)]
    vtype = VType(dtype, builder.lane_count)
    below = Op("lt", (builder.symbols[LANE].expr, builder.index(col).expr), VType(bool_, vtype.lanes))
    mask = builder.let(below, builder.depth)
    value = builder.read(Reg("probe", (), vtype))
    before = len(builder.levels[-1].statements)
    epilogue(builder, value, row, col + Dim.symbol(LANE), tuple(where), mask)
    return sum(_length(statement) for statement in builder.levels.pop().statements[before:])


def _length(statement: Stmt) -> int:
    """1, but for the functions that the emitter expands."""
    long = isinstance(statement, Let) and isinstance(statement.value, Op) and statement.value.name in FUNCTIONS
    return 30 if long else 1
