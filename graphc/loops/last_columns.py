"""The few columns behind whole vectors of a contraction: their lanes are the rows of C.

33 columns are two vectors and one column more: a third vector in the tile would do 16 times the work of that column.
`columns_apart` says how many columns at the end are left out of the tiles, `emit_last` computes them. Each element is
the same chain of multiply-adds, in the order of k, that it would be in a tile.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.loops.blocks import bind, branch, opaque, otherwise
from graphc.loops.builder import LANE, Builder, Scalar
from graphc.loops.epilogue import Epilogue
from graphc.loops.ir import Const, Reg, VType
from graphc.loops.packing import Source, lane_mask, part_lanes, turned_steps
from graphc.loops.problem import Problem, dot
from graphc.loops.row_tiles import share
from graphc.loops.schedule import GUESS, known
from graphc.target import Target
from graphc.types import Dim, Size, ceildiv, maximum, minimum, product

VECTORS = 6  # of columns in front of them at most: of more, the last one is too small a part
SIDE_BY_SIDE = 4  # sums under way, where nothing is transposed between their multiply-adds


def columns_apart(problem: Problem, target: Target) -> int:
    """How many columns at the end are no part of tiles; 0: none are.

    For a row and a step, a masked vector takes half a cycle. Transposing A takes about a quarter of one, and each
    column a 16th to a 32nd of one (of 16 lanes).
    """
    n, k, a, itemsize = problem.n, problem.k, problem.a, problem.dtype.itemsize
    special = problem.outer or problem.clips or problem.wide_a or problem.tiles or problem.panels or problem.whole_rows
    if special or a.computed is not None or problem.b.computed is not None or 1 not in (a.row, a.col) or itemsize < 4:
        return 0
    if not (isinstance(n, int) and isinstance(k, int)):
        return 0
    lanes, rows = target.lanes(itemsize), known(problem.m, GUESS)
    vectors, last = divmod(n, lanes)
    worth = 0 < 4 * last <= lanes and 0 < vectors <= VECTORS and rows >= 2 * lanes and k >= lanes
    near = rows * k * itemsize <= target.l2_bytes // 4  # A is read once more
    return last if worth and near else 0


def emit_last(builder: Builder, problem: Problem, count: int, chunks: Size, epilogue: Epilogue) -> None:
    """The last `count` columns, of this chunk's share of the rows."""
    lanes, m = builder.lane_count, problem.m
    vectors = max(1, min(SIDE_BY_SIDE // count, known(m, GUESS) // lanes)) if problem.a.row == 1 else 1
    width = vectors * lanes
    groups = ceildiv(m, width)
    total = groups * product(problem.batch)
    mine = share(builder, Dim.symbol("chunk") if chunks != 1 else 0, ceildiv(total, maximum(1, chunks)), total)
    with builder.loop("rows", mine.start, mine.stop) as rest:
        digits: list[Size] = []
        for extent in reversed((*problem.batch, groups)) if problem.batch else ():
            base = maximum(1, extent)
            number, rest = rest, bind(builder, "rest", rest // base)
            digits.insert(0, bind(builder, "digit", number - rest * base))
        *where, group = digits or [rest]
        row: Size = group * width
        done: Size = 0  # rows that the group before has
        limit: Size = width
        if m % width if isinstance(m, int) else problem.a.row != 1:  # the last group begins earlier, so that it is full
            row = opaque(builder, "row", maximum(0, minimum(row, m - width)))
            done = bind(builder, "done", group * width - row)
        if not isinstance(m, int):
            limit = m - row
        sums = _Group(builder, problem, count, tuple(where), row, limit).sums(vectors)
        for v, registers in enumerate(sums):
            mask = lane_mask(builder, v * lanes, limit)
            if done != 0:
                new = builder.ge(builder.symbols[LANE], builder.index(done - v * lanes))
                mask = new if mask is None else builder.and_(mask, new)
            at = row + v * lanes + Dim.symbol(LANE)
            for column, register in enumerate(registers):
                epilogue(builder, builder.read(register), at, known(problem.n, 0) - count + column, tuple(where), mask)


@dataclass(frozen=True)
class _Group:
    """Some rows of one batch element, from `row` on; those from `limit` on do not exist."""

    builder: Builder
    problem: Problem
    count: int
    where: tuple[Size, ...]
    row: Size
    limit: Size

    def sums(self, vectors: int) -> list[list[Reg]]:
        """The sums, by vector of rows and by column."""
        b, a, dtype, k = self.builder, self.problem.a, self.problem.dtype, known(self.problem.k, 0)
        zero = Scalar(Const(0.0 if dtype.is_float else 0, VType(dtype, b.lane_count)))
        found = [[b.register(zero, "c") for _ in range(self.count)] for _ in range(vectors)]
        base = a.offset + dot(self.where, a.batch) + self.row * a.row
        source = Source(a.buffer, dtype, base, a.col, a.row, self.limit)
        part = part_lanes(b, dtype)
        squares = 0 if a.row == 1 else k - k % part

        def as_they_lie(start: int, stop: int) -> None:
            with b.loop("p", start, stop) as p:
                self._add(found, p, [self._rows(source, p, v * b.lane_count) for v in range(vectors)])

        if squares:
            full = None if isinstance(self.limit, int) else b.ge(b.index(self.limit), b.index(b.lane_count))
            with branch(b, full), b.loop("p", 0, squares, part) as p:
                for step, vector in enumerate(turned_steps(b, source, p, list(range(b.lane_count)), None)):
                    self._add(found, p + step, [vector])
            if full is not None:
                with otherwise(b):
                    as_they_lie(0, squares)
        if squares < k:
            as_they_lie(squares, k)
        return found

    def _rows(self, source: Source, p: Size, first: int) -> Scalar:
        """Step `p` of a vector of rows, as they lie."""
        b = self.builder
        place = source.base + p * source.k_stride + (first + Dim.symbol(LANE)) * source.lane_stride
        return b.load(source.buffer, source.dtype, place, lane_mask(b, first, self.limit))

    def _add(self, sums: list[list[Reg]], p: Size, rows: list[Scalar]) -> None:
        """Step `p` of all sums."""
        b, operand, dtype = self.builder, self.problem.b, self.problem.dtype
        for column in range(self.count):
            col = known(self.problem.n, 0) - self.count + column
            place = operand.offset + dot(self.where, operand.batch) + p * operand.row + col * operand.col
            factor = b.widened(b.load(operand.buffer, dtype, place, None), b.lane_count)
            for registers, vector in zip(sums, rows, strict=True):
                register = registers[column]
                value = b.read(register)
                total = b.fma(vector, factor, value) if dtype.is_float else b.add(value, b.mul(vector, factor))
                b.assign(register, total)
