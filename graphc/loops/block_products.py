"""Products of one block: tiles over operands that lie where they are, without packing and without chunks.

Enter at `Tiles.product`. Both operands have their lanes or rows at constant steps, and B's lanes side by side. All
products of a kernel run one routine, a tile that gets operands, steps and length when it is called; what each product
has of its own is the loops around it and its epilogue, a loop over the rows that the tile left in scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.loops.block_plan import TileShape, tile_shape
from graphc.loops.block_routines import pack_routine, tile_routine
from graphc.loops.blocks import branch, opaque, otherwise
from graphc.loops.builder import LANE, Builder
from graphc.loops.epilogue import Epilogue
from graphc.loops.ir import Call, Routine, Scratch
from graphc.loops.lanes import below, load_here
from graphc.loops.packing import Source, pack
from graphc.loops.tile import View
from graphc.target import Target
from graphc.types import Dim, DType, Size, int64, maximum, minimum


@dataclass(frozen=True)
class BlockProduct:
    """C[i, j] = sum over p below `length` of A[i, p] * B[p, j], for i from `first` below `stop` and j below `columns`.

    a: `stride` is that of i, counted from row 0. b: that of j is 1. rows: how many A has; None: tiles may run over.
    into: where C goes: (buffer, base, step of i), with room for a tile's rows behind `stop`; None: scratch of a tile.
    """

    first: Size
    stop: Size
    rows: Size | None
    columns: int
    length: Size
    a: View
    b: View
    into: tuple[str, Size, Size] | None = None


Place = tuple[str, Size, Size]  # buffer, base, step of a row


class Tiles:
    """The tiles of one kernel, packing, and the routines that both run."""

    def __init__(self, h: Builder, dtype: DType, registers: int) -> None:
        self.h, self.dtype, self.registers = h, dtype, registers
        self.routines: dict[str, Routine] = {}
        self.cell, self.stage = h.fresh("cell"), h.fresh("stage")
        h.emit(Scratch(self.cell, int64, 1))
        h.emit(Scratch(self.stage, dtype, registers * h.lane_count))

    def pack(self, target: Target, source: Source, length: Size, panel: str, groups: int) -> None:
        """`packing.pack` of a block. By gathers where there are any: zips in registers are long code."""
        if source.lane_stride == 1 or not target.masked_memory:
            pack(self.h, source, length, panel, 0, groups)
            return
        width = groups * self.h.lane_count
        name = f"pack{width}"
        if name not in self.routines:
            self.routines[name] = pack_routine(name, self.dtype, self.h.lane_count, width)
        self._call(
            name,
            [(source.buffer, source.base), (panel, 0)],
            [source.lane_stride, source.k_stride, length, source.limit],
        )

    def product(self, product: BlockProduct, epilogue: Epilogue | None) -> None:
        """The tiles of `product`. `epilogue` gets each element once; if C goes `into` somewhere, maybe twice."""
        rows, shape = product.rows, tile_shape(product.columns, self.h.lane_count, self.registers)
        if rows is None or isinstance(rows, int):
            high = shape.rows if rows is None else min(shape.rows, max(rows, 1))
            self._loops(product, replace(shape, rows=high), epilogue)
            return
        enough = self.h.ge(self.h.index(rows), self.h.index(shape.rows))
        with branch(self.h, enough):
            self._loops(product, shape, epilogue)
        with otherwise(self.h):
            self._loops(product, replace(shape, rows=1), epilogue)

    def _loops(self, product: BlockProduct, shape: TileShape, epilogue: Epilogue | None) -> None:
        h, rows, width = self.h, shape.rows, shape.vectors * self.h.lane_count
        routine = self._routine(shape, product)
        with h.loop("tile", product.first, product.stop, rows) as tile:
            row = tile
            if product.rows is not None and rows > 1:
                row = opaque(h, "row", minimum(tile, maximum(product.rows - rows, 0)), self.cell)
            with h.loop("panel", 0, product.columns, width) as panel:
                col: Size = opaque(h, "col", panel, self.cell) if product.columns > width else 0
                result: Place = self.stage, 0, width
                if product.into is not None:
                    assert product.columns % width == 0, "a tile would write beyond a row"
                    buffer, base, step = product.into
                    result = buffer, base + row * step + col, step
                a, b = product.a, product.b
                places = [(a.buffer, a.base + row * a.stride), (b.buffer, b.base + col), result[:2]]
                sizes = [a.stride, a.k_stride, b.k_stride, product.length, result[2], product.columns - col]
                self._call(routine.name, places, sizes[: len(routine.sizes)])
                if epilogue is None:
                    return
                # the tile before has handed on the rows that both have; in place, all are new
                first = 0 if product.into is not None else tile - row
                last = rows if product.into is not None else minimum(rows, product.stop - row)
                # the last tile may have vectors behind all columns, where an epilogue has no room
                wide = width if product.columns % width == 0 else minimum(width, product.columns - col)
                with h.loop("line", first, last) as line, h.loop("v", 0, wide, h.lane_count) as v:
                    buffer, base, step = result
                    value = load_here(h, buffer, self.dtype, base + line * step + v + Dim.symbol(LANE))
                    mask = below(h, product.columns - col - v) if product.columns % width else None
                    epilogue(h, value, row + line, col + v + Dim.symbol(LANE), (), mask)

    def _call(self, routine: str, places: Sequence[tuple[str, Size]], sizes: Sequence[Size]) -> None:
        buffers = tuple((name, self.h.index(at).expr) for name, at in places)
        self.h.emit(Call(routine, buffers, tuple(self.h.index(size).expr for size in sizes)))

    def _routine(self, shape: TileShape, product: BlockProduct) -> Routine:
        """The routine for tiles of a product. masked: columns may be missing, which are not read."""
        masked = product.columns % (shape.vectors * self.h.lane_count) != 0
        name = f"tile{shape.rows}x{shape.vectors}" + "_masked" * masked
        if name not in self.routines:
            self.routines[name] = tile_routine(name, self.dtype, self.h.lane_count, shape, masked)
        return self.routines[name]
