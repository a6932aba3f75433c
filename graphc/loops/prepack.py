"""Operands of a contraction that are packed once, by kernels of their own in an earlier region.

Without it every chunk packs what it needs into scratch, and chunks that share columns of B (or rows of A) pack them
again. Enter at `prepacked`, which says what is worth it and gives the problem over the packed operands. A pack kernel
reads buffer `b0` (what computes an operand: `b0`, `b1`, ...) and writes the one behind; equal ones over the same
operands become one task (`lower.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from graphc.graph import Node, Value
from graphc.loops.builder import Builder
from graphc.loops.ir import BufferParam, LoopKernel
from graphc.loops.packing import STEPS, Rows, Source, pack, pack_rows, packed_tile, packing_read
from graphc.loops.problem import Operand, Problem
from graphc.loops.row_tiles import first_row
from graphc.loops.schedule import EVEN, GUESS, Schedule, ceildiv_int, is_thin, known, plan, turns, wanted_chunks
from graphc.target import Target
from graphc.types import Dim, DType, Size, ceildiv, minimum, product, substitute, symbols

TWICE = 2  # packing columns twice, close to their use, is as fast as packing them once for all
CHUNK = 1 << 16  # elements that a chunk of a pack kernel copies, about 20 us
CHEAP = 8  # simple instructions for an element that two chunks may each spend
AGAIN_FAR = 100  # simple instructions for all that windows read of an element, rather than an array larger than L2
AGAIN_NEAR = 32  # the same, rather than a smaller array
SOURCE = "b0"  # of an operand in memory


@dataclass(frozen=True)
class Pack:
    """What packs an operand: `kernel` reads `sources` (buffers of the contraction) and fills `size` elements.

    Sizes that are names are those of the contraction, or what `values` says.
    """

    sources: tuple[str, ...]
    generate: Callable[[], tuple[LoopKernel, Mapping[str, Size]]]
    dtype: DType
    size: Size
    state: str  # of the operand behind it: packed, or computed

    @cached_property
    def _made(self) -> tuple[LoopKernel, Mapping[str, Size]]:
        """Made when it is looked at: most operands are not packed ahead, and squares of registers are long."""
        return self.generate()

    @property
    def kernel(self) -> LoopKernel:
        return self._made[0]

    @property
    def values(self) -> Mapping[str, Size]:
        return self._made[1]

    def operands(self, node: Node) -> tuple[Value, ...]:
        """What it reads for a kernel node, whose inputs are the buffers b0, b1, ..."""
        return tuple(node.inputs[int(source[1:])] for source in self.sources)


def prepacked(
    problem: Problem, target: Target, sizes: Mapping[str, Size], names: Sequence[str], shared: Callable[[Pack], bool]
) -> tuple[Problem, list[Pack]]:
    """The problem with the operands that are packed once replaced (by buffers called `names`), and what packs them.

    A where chunks of several columns would each pack its rows; B where more than TWICE chunks would pack its columns,
    where chunks that pack their own columns would be too few, or where it is `shared`: another contraction packs it in
    the same way. How many steps there are must be known. A computed operand that is not packed so, and that chunks
    would compute too often, is stored by a kernel of its own. sizes: of the contraction's buffers, in elements.
    """
    found: list[Pack] = []
    plain = not (problem.batch or problem.outer or problem.clips or problem.wide_a or turns(problem, target))
    given, schedule = problem, plan(problem, target)
    rows = None
    if plain and isinstance(problem.k, int) and schedule.pack_a and schedule.together > 1 and schedule.col_chunks != 1:
        rows = schedule
        height, size = packed_tile(schedule, problem.k)
        problem = replace(problem, a=Operand(names[0], 0, (), size, height), tiles=True)
    schedule, ahead = plan(problem, target), names[1 if rows else 0]
    if plain and isinstance(problem.k, int) and schedule.pack_b:
        packed, operand = _columns(problem, schedule, target, sizes, ahead)
        often = _too_often(problem.b, problem, True, schedule.row_chunks, target)
        few = known(schedule.chunks, EVEN) < min(EVEN, wanted_chunks(problem, schedule.lanes)[0] // 2)
        few = few and not is_thin(problem, target)  # a narrow B is read once, as it lies, and made wide in the cache
        panelled = replace(problem, b=operand, panels=True)
        more = few and known(plan(panelled, target).chunks, 0) > known(schedule.chunks, 0)
        often = often or problem.whole_rows or known(schedule.row_chunks, 0) > TWICE
        if often or more or shared(packed):
            found.append(packed)
            problem = panelled
    elif _too_often(problem.b, problem, schedule.pack_b, schedule.row_chunks, target):
        found.append(_stored(problem.b, problem))
        problem = replace(problem, b=replace(problem.b, buffer=ahead, computed=None))
    schedule = plan(problem, target)
    if rows is not None:
        found.insert(0, _rows(given, rows, target, sizes))
    elif not _computes_wide(problem, schedule, target) and _too_often(
        problem.a, problem, schedule.pack_a, schedule.col_chunks, target
    ):
        problem = replace(problem, a=replace(problem.a, buffer=names[len(found)], computed=None))
        found.append(_stored(given.a, problem))
    return problem, found


def _too_often(operand: Operand, problem: Problem, packed: bool, chunks: Size, target: Target) -> bool:
    """Whether a computed operand is better computed once: chunks would do it again, or nothing packs it."""
    if operand.computed is None:
        return False
    if problem.outer or problem.clips:
        return True
    again = any(stride == 0 for stride in operand.batch)
    most = TWICE if operand.computed.cost <= CHEAP else 1
    return not packed or again or turns(problem, target) or known(chunks, TWICE + 1) > most


def _computes_wide(problem: Problem, schedule: Schedule, target: Target) -> bool:
    """Whether tiles compute what they read of an A that moves with the columns: windows read an element a few times,
    which costs less than an array that goes through memory.
    """
    computed = problem.a.computed
    if computed is None or not problem.wide_a or schedule.blocked or computed.cost > CHEAP:
        return False
    read = _guessed(product(problem.batch) * problem.m * problem.n * problem.steps)
    far = known(computed.size, 0) * problem.dtype.itemsize > target.l2_bytes
    return computed.cost * read <= (AGAIN_FAR if far else AGAIN_NEAR) * _guessed(computed.size)


def _guessed(size: Size) -> int:
    found = substitute(size, dict.fromkeys(symbols(size), GUESS))
    assert isinstance(found, int)
    return found


def _stored(operand: Operand, problem: Problem) -> Pack:
    """A computed operand as an array."""
    assert operand.computed is not None
    computed = operand.computed
    return Pack(computed.sources, computed.stored, problem.dtype, computed.size, "computed")


def _columns(
    problem: Problem, schedule: Schedule, target: Target, sizes: Mapping[str, Size], name: str
) -> tuple[Pack, Operand]:
    """Panels of B, one after the other: [panel, k, column]."""
    s, k, b = schedule, problem.k, problem.b
    assert isinstance(k, int)
    length = ceildiv_int(k, s.lanes) * s.lanes  # whole vectors are written
    panels, panel_size = s.panels, length * s.width
    size = panels * panel_size
    packed = f"b{len(_sources(b))}"

    def generate() -> tuple[LoopKernel, Mapping[str, Size]]:
        builder = Builder(target.lanes(problem.dtype.itemsize))
        each = max(1, CHUNK // panel_size)
        first = Dim.symbol("chunk") * each
        with builder.loop("panel", first, minimum(first + each, panels)) as panel:
            col = panel * s.width
            limit = s.width if s.masked == "none" else problem.n - col
            read = packing_read(problem, "b", builder, col, alone=True)
            source = Source(SOURCE, problem.dtype, b.offset + col * b.col, b.row, b.col, limit, read)
            pack(builder, source, k, packed, panel * panel_size, s.vectors)
        params = _params(b, problem.dtype, sizes, size)
        return _kernel("pack_columns", builder, params, ceildiv(panels, each)), {}

    return _pack(b, generate, problem.dtype, size), Operand(name, 0, (), s.width, length)


def _rows(problem: Problem, schedule: Schedule, target: Target, sizes: Mapping[str, Size]) -> Pack:
    """Tiles of A, one after the other: [tile, k, row]."""
    s, k, a = schedule, problem.k, problem.a
    assert isinstance(k, int)
    height, tile_size = packed_tile(s, k)
    size = s.tiles * tile_size
    packed = f"b{len(_sources(a))}"

    def generate() -> tuple[LoopKernel, Mapping[str, Size]]:
        builder = Builder(target.lanes(problem.dtype.itemsize))
        read = packing_read(problem, "a", builder, 0, alone=True)
        source = Source(SOURCE, problem.dtype, a.offset, a.col, 1, problem.m, read)
        first = Dim.symbol("chunk") * s.together
        rows = Rows(lambda t: first_row(s, first + t), height, tile_size)
        tiles = minimum(s.together, s.tiles - first)
        pack_rows(builder, source, k, packed, first * tile_size, rows, tiles, k % STEPS == 0)
        params = _params(a, problem.dtype, sizes, size)
        return _kernel("pack_rows", builder, params, ceildiv(s.tiles, s.together)), {}

    return _pack(a, generate, problem.dtype, size)


def _sources(operand: Operand) -> tuple[str, ...]:
    return operand.computed.sources if operand.computed is not None else (operand.buffer,)


def _pack(
    operand: Operand, generate: Callable[[], tuple[LoopKernel, Mapping[str, Size]]], dtype: DType, size: Size
) -> Pack:
    return Pack(_sources(operand), generate, dtype, size, "packed")


def _params(operand: Operand, dtype: DType, sizes: Mapping[str, Size], size: Size) -> list[BufferParam]:
    """The buffers of a pack kernel: what it reads, and the `size` elements that it writes."""
    sources = _sources(operand)
    dtypes = operand.computed.dtypes if operand.computed is not None else (dtype,)
    params = [BufferParam(f"b{n}", dtypes[n], sizes[source]) for n, source in enumerate(sources)]
    return [*params, BufferParam(f"b{len(params)}", dtype, size, writable=True)]


def _kernel(name: str, builder: Builder, params: list[BufferParam], chunks: Size) -> LoopKernel:
    named = {name for size in (chunks, *(param.size for param in params)) for name in symbols(size)}
    sizes = tuple(sorted({*builder.sizes, *named} - {"chunk"}))
    return LoopKernel(name, tuple(params), sizes, tuple(builder.levels[0].statements), chunks)
