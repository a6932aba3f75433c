"""What happens to the finished tiles of a contraction: how long it is, and how many vectors it takes at a time.

A short epilogue is emitted for each register of a tile. A long one is there once a row: the tile is stored in a small
scratch, and a loop over its rows runs the epilogue on a few vectors as one. The emitter halves such a vector until its
parts are registers, so that their chains of dependent steps take turns; one after the other, a chain of 40 steps fills
what the processor looks ahead before the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Union

from graphc.loops.blocks import bind
from graphc.loops.builder import LANE, Builder, Level, Scalar
from graphc.loops.ir import Let, Op, Reg, Stmt, VType
from graphc.loops.maths import IN_FLOAT64
from graphc.ops.lowering import FUNCTIONS
from graphc.types import Dim, DType, Size, bool_, float64

LONG_EPILOGUE = 16  # statements for a vector; a longer epilogue is not repeated for every register of a tile
TURNS = 4  # registers that a value of a long epilogue has

# What happens to a finished vector of C, C[batch, row, col] for all lanes: loads, arithmetic, stores. Called as
# `epilogue(builder, value, row, col, batch, mask)` for each row and vector of each tile, with the builder at the place
# where the statements go. row, col and batch are index polynomials; one of row and col moves with the symbol LANE. mask
# is None or says which lanes exist: the others of `value` hold anything and must not be stored.
Epilogue = Callable[[Builder, Scalar, Size, Size, tuple[Size, ...], Union[Scalar, None]], None]
Ahead = Callable[[Builder, Size, Size, tuple[Size, ...]], None]  # the same without value and mask


@dataclass(frozen=True)
class Stage:
    """Scratch of rows * vectors * lanes that a tile goes through for a long epilogue, and its vectors at a time."""

    scratch: str
    turns: int

    def groups(self, vectors: int) -> Iterator[tuple[int, int]]:
        """(first, how many) vectors that are computed as one: powers of two, whose halves are whole registers."""
        first = 0
        while first < vectors:
            some = min(self.turns, 1 << (vectors - first).bit_length() - 1)
            yield first, some
            first += some


class Cost(NamedTuple):
    """About how many instructions an epilogue takes for a vector, and how many vectors it takes at a time."""

    length: int
    turns: int


def cost_of(builder: Builder, epilogue: Epilogue, dtype: DType, batch: int) -> Cost:
    """The cost of `epilogue` on results of `dtype`. What it hoists out of the tile stays in `builder`."""
    builder.levels.append(Level())
    row, col, *where = [bind(builder, "probe", 0) for _ in range(batch + 2)]
    vtype = VType(dtype, builder.lane_count)
    below = Op("lt", (builder.symbols[LANE].expr, builder.index(col).expr), VType(bool_, vtype.lanes))
    mask = builder.let(below, builder.depth)
    value = builder.read(Reg("probe", (), vtype))
    before = len(builder.levels[-1].statements)
    epilogue(builder, value, row, col + Dim.symbol(LANE), tuple(where), mask)
    found = [_cost(statement) for statement in builder.levels.pop().statements[before:]]
    widest = max([dtype.itemsize, *(itemsize for _, itemsize in found)])
    return Cost(sum(length for length, _ in found), max(1, TURNS * dtype.itemsize // widest))


def _cost(statement: Stmt) -> tuple[int, int]:
    """(1, but for the functions that the emitter expands; bytes of an element of the widest vectors)."""
    if not isinstance(statement, Let) or statement.var.vtype.lanes == 1:
        return 1, 1
    itemsize = statement.var.vtype.dtype.itemsize
    if not isinstance(statement.value, Op) or statement.value.name not in FUNCTIONS:
        return 1, itemsize
    return 30, float64.itemsize if statement.value.name in IN_FLOAT64 else itemsize
