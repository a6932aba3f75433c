"""Products of one block: tiles over operands that lie where they are, without packing and without chunks.

Enter at `Tiles.product`. Both operands have their lanes or rows at constant steps, and B's lanes side by side. All
products of a kernel run one routine, a tile that gets operands, steps and length when it is called; what each product
has of its own is the loops around it and its epilogue, a loop over the rows that the tile left in scratch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.loops.block_plan import TileShape, tile_shape
from graphc.loops.blocks import branch, opaque
from graphc.loops.builder import LANE, Builder, Scalar
from graphc.loops.ir import BufferParam, Call, Routine, Scratch
from graphc.loops.lanes import below, load_here
from graphc.loops.tile import Epilogue, Tile, View, emit_tile
from graphc.types import Dim, DType, Size, int64, maximum, minimum

ANY_ROWS = 1 << 40  # of an A that may be read behind its last row


@dataclass(frozen=True)
class BlockProduct:
    """C[i, j] = sum over p below `length` of A[i, p] * B[p, j], for i from `first` below `stop` and j below `columns`.

    a: `stride` is that of i, counted from row 0. b: that of j is 1. rows: how many rows A has; tiles do not run over.
    into: where C goes: (buffer, base, step of i), with room for a tile's rows behind `stop`; None: scratch of a tile.
    """

    first: Size
    stop: Size
    rows: Size
    columns: int
    length: Size
    a: View
    b: View
    into: tuple[str, Size, Size] | None = None


Place = tuple[str, Size, Size]  # buffer, base, step of a row


class Tiles:
    """The tiles of one kernel, and the routines that they run."""

    def __init__(self, h: Builder, dtype: DType, registers: int) -> None:
        self.h, self.dtype, self.registers = h, dtype, registers
        self.routines: dict[str, Routine] = {}
        self.cell, self.stage = h.fresh("cell"), h.fresh("stage")
        h.emit(Scratch(self.cell, int64, 1))
        h.emit(Scratch(self.stage, dtype, registers * h.lane_count))

    def product(self, product: BlockProduct, epilogue: Epilogue | None) -> None:
        """The tiles of `product`. `epilogue` gets each element once; if C goes `into` somewhere, maybe twice."""
        rows, shape = product.rows, tile_shape(product.columns, self.h.lane_count, self.registers)
        if isinstance(rows, int):
            self._loops(product, replace(shape, rows=min(shape.rows, max(rows, 1))), epilogue)
            return
        enough = self.h.ge(self.h.index(rows), self.h.index(shape.rows))
        with branch(self.h, enough):
            self._loops(product, shape, epilogue)
        with branch(self.h, self.h.not_(enough)):
            self._loops(product, replace(shape, rows=1), epilogue)

    def _loops(self, product: BlockProduct, shape: TileShape, epilogue: Epilogue | None) -> None:
        h, rows, width = self.h, shape.rows, shape.vectors * self.h.lane_count
        routine = self._routine(shape, product)
        clamped = product.rows is not ANY_ROWS and rows > 1
        with h.loop("tile", product.first, product.stop, rows) as tile:
            place = minimum(tile, maximum(product.rows - rows, 0)) if clamped else tile
            row = opaque(h, "row", place, self.cell)
            with h.loop("panel", 0, product.columns, width) as panel:
                col = opaque(h, "col", panel, self.cell)
                result: Place = self.stage, 0, width
                if product.into is not None:
                    assert product.columns % width == 0, "a tile would write beyond a row"
                    buffer, base, step = product.into
                    result = buffer, base + row * step + col, step
                self._call(routine, product, row, col, result)
                if epilogue is None:
                    return
                # the tile before has handed on the rows that both have; in place, all are new
                first = 0 if product.into is not None else tile - row
                last = rows if product.into is not None else minimum(rows, product.stop - row)
                with h.loop("line", first, last) as line, h.loop("v", 0, width, h.lane_count) as v:
                    buffer, base, step = result
                    value = load_here(h, buffer, self.dtype, base + line * step + v + Dim.symbol(LANE))
                    mask = below(h, product.columns - col - v) if product.columns % width else None
                    epilogue(h, value, row + line, col + v + Dim.symbol(LANE), (), mask)

    def _call(self, routine: Routine, product: BlockProduct, row: Size, col: Size, result: Place) -> None:
        """The tile at (row, col)."""
        h, a, b = self.h, product.a, product.b
        places = [(a.buffer, a.base + row * a.stride), (b.buffer, b.base + col), result[:2]]
        sizes = [a.stride, a.k_stride, b.k_stride, product.length, result[2], product.columns - col]
        buffers = tuple((name, h.index(at).expr) for name, at in places)
        h.emit(Call(routine.name, buffers, tuple(h.index(size).expr for size in sizes[: len(routine.sizes)])))

    def _routine(self, shape: TileShape, product: BlockProduct) -> Routine:
        """The routine for tiles of a product. masked: columns may be missing, which are not read."""
        masked = product.columns % (shape.vectors * self.h.lane_count) != 0
        name = f"tile{shape.rows}x{shape.vectors}" + "_masked" * masked
        if name not in self.routines:
            self.routines[name] = _routine(name, self.dtype, self.h.lane_count, shape, masked)
        return self.routines[name]


def _routine(name: str, dtype: DType, lanes: int, shape: TileShape, masked: bool) -> Routine:
    """c[i * c_row + j] = sum over p of a[i * a_row + p * a_step] * b[p * b_step + j], for one tile.

    No step is negative: what is read backwards has been copied.
    """
    h, rows, width = Builder(lanes), shape.rows, shape.vectors * lanes
    sizes = ("a_row", "a_step", "b_step", "length", "c_row", *(("columns",) if masked else ()))
    a_row, a_step, b_step, length, c_row = map(Dim.symbol, sizes[:5])
    limit = Dim.symbol("columns") if masked else None

    def store(h: Builder, value: Scalar, i: Size, j: Size, where: tuple[Size, ...], mask: Scalar | None) -> None:
        h.store("c", i * c_row + j, value, None)

    view_a, view_b = View("a", 0, a_step, a_row), View("b", 0, b_step, 1, wide=True)
    tile = Tile(dtype, rows, shape.vectors, view_a, view_b, 0, 0, (), None, limit, False, "")
    emit_tile(h, tile, (0, length), 1, None, store)
    of_a = (rows - 1) * a_row + (length - 1) * a_step + 1
    of_b = (length - 1) * b_step + (width if limit is None else minimum(width, limit))
    of_c = (rows - 1) * c_row + width
    buffers = (
        BufferParam("a", dtype, of_a),
        BufferParam("b", dtype, of_b),
        BufferParam("c", dtype, of_c, writable=True),
    )
    return Routine(name, buffers, sizes, tuple(h.levels[0].statements))
