"""How a kernel of blocks is cut up: rows of a block, tiles of its products, chunks. Numbers only, from the sizes alone.

Enter at `plan_blocks`. To tune for another machine, change the rules here; `row_blocks.py` carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.loops.schedule import known
from graphc.target import Target
from graphc.types import Size, ceildiv

TILE_ROWS = 7  # of a tile, whose steps are not known before it runs: each row takes an address
HEIGHTS = (64, 48)  # rows of a block, besides one and two vectors: multiples of the tiles' columns
SWEPT_HEIGHTS = (192, 128, 64)  # the same where blocks have WIDTH columns
WIDTH = 128  # columns that a sweep takes at a time
PADDING = 32  # columns before the first and behind the last one that a slot has room for: a tile may run over
CHUNKS = 64  # that a kernel should have: none of them packs anything twice, and a mask makes them unequal
LEAST_CHUNKS = 4  # the same where each has a private copy of what it adds up
UNKNOWN_PARTS = 2  # of a batch element, where nobody knows how many of those there are
GUESSED_COLUMNS = 4096  # where nobody knows them
GUESSED_ROWS = 1024  # the same: a block that is too tall costs more with fewer rows than one that is too low with more
TILE_OVERHEAD = 8  # rows: what a block costs besides its rows
SWEPT_OVERHEAD = 4  # the same of one that is swept: reading all columns once more


@dataclass(frozen=True)
class TileShape:
    """Vectors of columns and rows."""

    vectors: int
    rows: int


@dataclass(frozen=True)
class BlockPlan:
    """height: rows of a block.

    parts: chunks of a batch element. blocks: of a part. exact: whether all blocks are full. width: columns of a block,
    if it is swept, else 0.
    """

    lanes: int
    height: int
    parts: Size
    blocks: Size
    exact: bool
    width: int = 0


def plan_blocks(
    rows: Size, columns: Size, batches: Size, slots: int, adds: bool, itemsize: int, target: Target,
    swept: bool = False, masked: bool = False,
) -> BlockPlan:  # fmt: skip
    """The plan for [batches, rows, columns] with so many slots of scratch. adds: whether there are column products.

    swept: in blocks of columns. masked: whether a mask leaves columns out, of which tall blocks compute more.
    """
    lanes = target.lanes(itemsize)
    heights = [h for h in (SWEPT_HEIGHTS if swept else HEIGHTS) if h % lanes == 0] + [2 * lanes, lanes]
    room = target.l2_bytes * 3 // 4 // (max(1, slots) * itemsize)
    wide = WIDTH + 2 * PADDING if swept else known(columns, GUESSED_COLUMNS)
    fitting = [h for h in heights if h * wide <= room] or [lanes]

    overhead = SWEPT_OVERHEAD if swept else TILE_OVERHEAD

    def work(height: int) -> float:
        more = height / max(known(columns, GUESSED_ROWS), 1) if masked and swept else 0
        return -(-known(rows, GUESSED_ROWS) // height) * (height + overhead) * (1 + more)

    height = min(fitting, key=work)
    count = ceildiv(rows, height)
    if adds:
        parts = max(1, -(-LEAST_CHUNKS // batches)) if isinstance(batches, int) and batches else UNKNOWN_PARTS
        wanted: Size = min(parts, max(count, 1)) if isinstance(count, int) else parts
    elif isinstance(count, int):
        wanted = min(max(count, 1), max(1, -(-CHUNKS // max(known(batches, 1), 1))))
    else:
        wanted = max(1, -(-CHUNKS // max(batches, 1))) if isinstance(batches, int) else UNKNOWN_PARTS
    exact = isinstance(rows, int) and rows % height == 0
    return BlockPlan(lanes, height, wanted, ceildiv(count, wanted), exact, WIDTH if swept else 0)


def sweeps_pay(sweeps: int, columns: Size, slots: int, itemsize: int, target: Target) -> bool:
    """Whether to compute matrices once in each of so many sweeps rather than keep whole rows of them in `slots`."""
    taken = slots * HEIGHTS[-1] * itemsize * known(columns, GUESSED_COLUMNS)
    return (sweeps == 1 and taken > target.l2_bytes // 4) or (sweeps == 2 and taken > target.l2_bytes)


def tile_shape(columns: int, lanes: int, registers: int) -> TileShape:
    """The tile that does most for a product with so many columns.

    Accumulators, vectors of B and a broadcast stay within nine tenths of the registers (see `schedule.register_tile`).
    """
    best, best_cost = TileShape(1, 1), float("inf")
    for vectors in range(1, 9):
        rows = min(TILE_ROWS, (registers - registers // 10 - 1 - vectors) // vectors)
        if rows < 1:
            continue
        width = vectors * lanes
        padded = -(-columns // width) * width / max(columns, 1)
        cycles = max(rows * vectors / 2, (rows + vectors) / 2, 4.0)
        cost = cycles / (rows * vectors) * padded * (1 + 0.1 / (rows * vectors))
        if cost < best_cost:
            best, best_cost = TileShape(vectors, rows), cost
    return best
