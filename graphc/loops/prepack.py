"""Operands of a contraction that are packed once, by kernels of their own in an earlier region.

Without it every chunk packs what it needs into scratch, and chunks that share columns of B (or rows of A) pack them
again. Enter at `prepacked`, which says what is worth it and gives the problem over the packed operands. A pack kernel
reads buffer `b0` and writes `b1`; equal ones over the same operand become one task (`lower.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from graphc.graph import Node, Value
from graphc.loops.builder import Builder
from graphc.loops.ir import BufferParam, LoopKernel
from graphc.loops.packing import Rows, Source, pack, pack_rows, packed_tile
from graphc.loops.row_tiles import first_row
from graphc.loops.schedule import Operand, Problem, Schedule, ceildiv_int, known, plan, turns
from graphc.target import Target
from graphc.types import Dim, DType, minimum

TWICE = 2  # packing columns twice, close to their use, is as fast as packing them once for all
CHUNK = 1 << 16  # elements that a chunk of a pack kernel copies, about 20 us
SOURCE, PACKED = "b0", "b1"


@dataclass(frozen=True)
class Pack:
    """What packs an operand: `kernel` reads `source` (a buffer of the contraction) and fills `size` elements."""

    source: str
    generate: Callable[[], LoopKernel]
    dtype: DType
    size: int

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
    or where it is `shared`: another contraction packs it in the same way. All sizes must be known.
    """
    found: list[Pack] = []
    plain = not (problem.batch or problem.outer or problem.clips or problem.wide_a or turns(problem, target))
    if not plain or not all(isinstance(size, int) for size in (problem.m, problem.n, problem.k)):
        return problem, found
    schedule = plan(problem, target)
    if schedule.pack_a and schedule.together > 1 and schedule.col_chunks != 1 and _plain(problem.a):
        packed, operand = _rows(problem, schedule, target, names[0])
        found.append(packed)
        problem = replace(problem, a=operand, tiles=True)
        schedule = plan(problem, target)
    if schedule.pack_b and _plain(problem.b):
        packed, operand = _columns(problem, schedule, target, names[len(found)])
        if known(schedule.row_chunks, 0) > TWICE or shared(packed):
            found.append(packed)
            problem = replace(problem, b=operand, panels=True)
    return problem, found


def _plain(operand: Operand) -> bool:
    return all(isinstance(size, int) for size in (operand.offset, operand.row, operand.col))


def _columns(problem: Problem, schedule: Schedule, target: Target, name: str) -> tuple[Pack, Operand]:
    """Panels of B, one after the other: [panel, k, column]."""
    s, k, b = schedule, problem.k, problem.b
    assert isinstance(k, int) and isinstance(s.panels, int)
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
        return _kernel("pack_columns", builder, problem.dtype, ceildiv_int(panels, each))

    return Pack(b.buffer, generate, problem.dtype, panels * panel_size), Operand(name, 0, (), s.width, length)


def _rows(problem: Problem, schedule: Schedule, target: Target, name: str) -> tuple[Pack, Operand]:
    """Tiles of A, one after the other: [tile, k, row]."""
    s, k, a = schedule, problem.k, problem.a
    assert isinstance(k, int) and isinstance(s.tiles, int)
    tiles = s.tiles
    height, size = packed_tile(s, k)

    def generate() -> LoopKernel:
        builder = Builder(target.lanes(problem.dtype.itemsize))
        first = Dim.symbol("chunk") * s.together
        rows = Rows(lambda t: first_row(s, first + t), height, size)
        source = Source(SOURCE, problem.dtype, a.offset, a.col, 1, problem.m)
        pack_rows(builder, source, k, PACKED, first * size, rows, minimum(s.together, tiles - first))
        return _kernel("pack_rows", builder, problem.dtype, ceildiv_int(tiles, s.together))

    return Pack(a.buffer, generate, problem.dtype, tiles * size), Operand(name, 0, (), size, height)


def _kernel(name: str, builder: Builder, dtype: DType, chunks: int) -> LoopKernel:
    params = (BufferParam(SOURCE, dtype, 1), BufferParam(PACKED, dtype, 1, writable=True))
    return LoopKernel(name, params, (), tuple(builder.levels[0].statements), chunks)
