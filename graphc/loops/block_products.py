"""Products of one block: tiles over operands that lie where they are, without packing and without chunks.

Enter at `emit_product`. Both operands have their lanes or rows at constant steps, and B's lanes side by side, so the
tile of `tile.py` reads them directly; what remains here is the loops over tiles and panels.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.loops.block_plan import tile_shape
from graphc.loops.blocks import branch, opaque
from graphc.loops.builder import Builder
from graphc.loops.ir import Scratch
from graphc.loops.tile import Epilogue, Tile, View, emit_tile, epilogue_length
from graphc.target import Target
from graphc.types import DType, Size, int64, maximum, minimum

LONG_EPILOGUE = 3  # statements for a vector; a longer epilogue is not repeated for every register of a tile


@dataclass(frozen=True)
class BlockProduct:
    """C[i, j] = sum over p below `length` of A[i, p] * B[p, j], for i from `first` below `stop` and j below `columns`.

    a: `stride` is that of i, counted from row 0. b: that of j is 1. rows: how many rows A has. Those of the last tile
    are computed twice (once) where `twice`, else they may run over `stop`, up to a tile's height, and A must have them.
    heights: what the rows of a tile may be.
    """

    dtype: DType
    first: Size
    stop: Size
    rows: Size
    columns: int
    length: Size
    a: View
    b: View
    twice: bool
    heights: tuple[int, ...]
    staged: bool = False  # whether the epilogue branches, so that it must not be repeated either


def emit_product(h: Builder, target: Target, product: BlockProduct, epilogue: Epilogue) -> None:
    """The tiles of `product`, each element handed to `epilogue` as a contraction does."""
    lanes = h.lane_count
    heights = tuple(n for n in product.heights if not isinstance(product.rows, int) or n <= max(product.rows, 1))
    vectors, height = tile_shape(heights, product.columns, lanes, target.vector_registers)
    if not product.twice or isinstance(product.rows, int):
        _tiles(h, product, vectors, height, epilogue)
        return
    enough = h.ge(h.index(product.rows), h.index(height))
    with branch(h, enough):
        _tiles(h, product, vectors, height, epilogue)
    with branch(h, h.not_(enough)):
        _tiles(h, product, vectors, 1, epilogue)


def _tiles(h: Builder, product: BlockProduct, vectors: int, height: int, epilogue: Epilogue) -> None:
    width = vectors * h.lane_count
    cell = h.fresh("cell")
    h.emit(Scratch(cell, int64, 1))
    stage = ""
    if product.staged or epilogue_length(h, epilogue, product.dtype, 0) > LONG_EPILOGUE:
        stage = h.fresh("stage")
        h.emit(Scratch(stage, product.dtype, height * width))
    with h.loop("tile", product.first, product.stop, height) as t:
        place: Size = minimum(t, maximum(product.rows - height, 0)) if product.twice and height > 1 else t
        row = opaque(h, "row", place, cell)
        a = View(product.a.buffer, product.a.base + row * product.a.stride, product.a.k_stride, product.a.stride)
        with h.loop("panel", 0, product.columns, width) as number:
            panel = opaque(h, "col", number, cell)
            b = View(product.b.buffer, product.b.base + panel, product.b.k_stride, 1, wide=True)
            limit = product.columns if product.columns % width else None
            tile = Tile(product.dtype, height, vectors, a, b, row, panel, (), None, limit, False, stage)
            emit_tile(h, tile, (0, product.length), 1, None, epilogue)
