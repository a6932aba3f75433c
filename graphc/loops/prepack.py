"""Operands of a contraction that are packed once, by kernels of their own in an earlier region.

Without it every chunk packs what it needs into scratch, and chunks that share columns of B (or rows of A) pack them
again. Enter at `prepacked`, which says what is worth it and gives the problem over the packed operands. A pack kernel
reads buffer `b0` and writes `b1`; equal ones over the same operand become one task (`lower.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from graphc.graph import Node, Value
from graphc.loops.blocks import bind
from graphc.loops.builder import Builder
from graphc.loops.ir import BufferParam, LoopKernel
from graphc.loops.packing import Rows, Source, pack, pack_rows, packed_tile
from graphc.loops.problem import Operand, Problem
from graphc.loops.row_tiles import first_row, most_tiles, rows_of_chunk, unknown_tiles
from graphc.loops.schedule import EVEN, Schedule, ceildiv_int, known, plan, turns, wanted_chunks
from graphc.target import Target
from graphc.types import Dim, DType, Size, ceildiv, minimum, symbols

TWICE = 2  # packing columns twice, close to their use, is as fast as packing them once for all
CHUNK = 1 << 16  # elements that a chunk of a pack kernel copies, about 20 us
SOURCE, PACKED = "b0", "b1"


@dataclass(frozen=True)
class Pack:
    """What packs an operand: `kernel` reads `source` (a buffer of the contraction) and fills `size` elements.

    Sizes that are names are those of the contraction.
    """

    source: str
    generate: Callable[[], LoopKernel]
    dtype: DType
    size: Size

    @cached_property
    def kernel(self) -> LoopKernel:
        """Made when it is looked at: most operands are not packed ahead, and squares of registers are long."""
        return self.generate()

    def operand(self, node: Node) -> Value:
        """What it packs for a kernel node, whose inputs are the buffers b0, b1, ..."""
        return node.inputs[int(self.source[1:])]


def prepacked(
    problem: Problem, target: Target, names: Sequence[str], shared: Callable[[Pack], bool]
) -> tuple[Problem, list[Pack]]:
    """The problem with the operands that are packed once replaced (by buffers called `names`), and what packs them.

    A where chunks of several columns would each pack its rows; B where more than TWICE chunks would pack its columns,
    where chunks that pack their own columns would be too few, or where it is `shared`: another contraction packs it in
    the same way. How many steps there are must be known.
    """
    found: list[Pack] = []
    plain = not (problem.batch or problem.outer or problem.clips or problem.wide_a or turns(problem, target))
    if not plain or not isinstance(problem.k, int):
        return problem, found
    given, schedule = problem, plan(problem, target)
    rows = None
    if schedule.pack_a and schedule.together > 1 and schedule.col_chunks != 1:
        rows = schedule
        height, size = packed_tile(schedule, problem.k)
        problem = replace(problem, a=Operand(names[0], 0, (), size, height), tiles=True)
        schedule = plan(problem, target)
    if schedule.pack_b:
        packed, operand = _columns(problem, schedule, target, names[1 if rows else 0])
        few = known(schedule.chunks, EVEN) < min(EVEN, wanted_chunks(problem, schedule.lanes)[0] // 2)
        ahead = replace(problem, b=operand, panels=True)
        more = few and known(plan(ahead, target).chunks, 0) > known(schedule.chunks, 0)
        if known(schedule.row_chunks, 0) > TWICE or more or shared(packed):
            found.append(packed)
            problem = ahead
    if rows is not None:
        found.insert(0, _rows(given, rows, plan(problem, target), target))
    return problem, found


def _columns(problem: Problem, schedule: Schedule, target: Target, name: str) -> tuple[Pack, Operand]:
    """Panels of B, one after the other: [panel, k, column]."""
    s, k, b = schedule, problem.k, problem.b
    assert isinstance(k, int)
    length = ceildiv_int(k, s.lanes) * s.lanes  # whole vectors are written
    panels, panel_size = s.panels, length * s.width

    def generate() -> LoopKernel:
        builder = Builder(target.lanes(problem.dtype.itemsize))
        each = max(1, CHUNK // panel_size)
        first = Dim.symbol("chunk") * each
        with builder.loop("panel", first, minimum(first + each, panels)) as panel:
            col = panel * s.width
            limit = s.width if s.masked == "none" else problem.n - col
            source = Source(SOURCE, problem.dtype, b.offset + col * b.col, b.row, b.col, limit)
            pack(builder, source, k, PACKED, panel * panel_size, s.vectors)
        return _kernel("pack_columns", builder, problem.dtype, ceildiv(panels, each))

    return Pack(b.buffer, generate, problem.dtype, panels * panel_size), Operand(name, 0, (), s.width, length)


def _rows(problem: Problem, packs: Schedule, reads: Schedule, target: Target) -> Pack:
    """Tiles of A, one after the other: [tile, k, row]; as `packs` says, in the order in which `reads` reads them."""
    s, k, a = packs, problem.k, problem.a
    assert isinstance(k, int)
    height, size = packed_tile(s, k)
    tiles: Size = s.tiles if s.rows_known else reads.row_chunks * most_tiles(reads)

    def generate() -> LoopKernel:
        builder = Builder(target.lanes(problem.dtype.itemsize))
        source = Source(SOURCE, problem.dtype, a.offset, a.col, 1, problem.m)
        first: Size = Dim.symbol("chunk") * s.together
        place: Callable[[Size], Size] = partial(first_row, s)
        at, stop, chunks = first, tiles, ceildiv(tiles, s.together)
        if not s.rows_known:  # the tiles of each chunk of the product
            groups = ceildiv_int(most_tiles(reads), s.together)
            of = bind(builder, "of", Dim.symbol("chunk") // groups)
            first = bind(builder, "first", (Dim.symbol("chunk") - of * groups) * s.together)
            found = unknown_tiles(builder, reads, rows_of_chunk(builder, reads, problem.m, of))
            at, stop, place, chunks = of * most_tiles(reads) + first, found.stop, found.place, reads.row_chunks * groups
        rows = Rows(lambda t: place(first + t), height, size)
        pack_rows(builder, source, k, PACKED, at * size, rows, minimum(s.together, stop - first))
        return _kernel("pack_rows", builder, problem.dtype, chunks)

    return Pack(a.buffer, generate, problem.dtype, tiles * size)


def _kernel(name: str, builder: Builder, dtype: DType, chunks: Size) -> LoopKernel:
    params = (BufferParam(SOURCE, dtype, 1), BufferParam(PACKED, dtype, 1, writable=True))
    sizes = tuple(sorted({*builder.sizes, *symbols(chunks)} - {"chunk"}))
    return LoopKernel(name, params, sizes, tuple(builder.levels[0].statements), chunks)
