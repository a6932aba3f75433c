"""From labelled axes to a `Problem`: which label is a row, which a column, which are batch, and the nest of the rest.

Enter at `arrange`. Labels whose strides agree are merged (the pixels of all images of a 1x1 convolution are one long
axis; the `q c` of an NHWC window are one run of memory). Of what is left, one label of each side becomes the rows and
the columns of the tiles, the others of the result are batch axes, and what is summed becomes the k loop and the loops
around it. To change how they are chosen, edit `_choose` (rows and columns) and `_summed_order` (the nest).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphc.errors import InternalError
from graphc.loops.problem import Clip, Line, Operand, Outer, Problem
from graphc.loops.schedule import known
from graphc.target import Target
from graphc.types import DType, Size, product

CROSSED_STEPS = 512  # of a sum at most, whose results are transposed in registers rather than scattered (crossed.py)


@dataclass(frozen=True)
class Loop:
    """A label, or several merged ones: how often it runs and how far a step moves in A, B and C (0: not at all)."""

    labels: tuple[str, ...]  # the outermost first
    size: Size
    a: Size
    b: Size
    c: Size
    in_a: bool
    in_b: bool
    in_c: bool
    clipped: bool = False  # whether a window of this label may reach beyond an operand
    fixed: bool = True  # whether it is known by how much: rows may do so

    def follows(self, outer: Loop) -> bool:
        """Whether a step of `outer` is a whole run of this loop, everywhere; what is clipped stays the outermost."""
        if self.clipped or (outer.clipped and self.in_c):
            return False
        same = (outer.in_a, outer.in_b, outer.in_c) == (self.in_a, self.in_b, self.in_c)
        pairs = ((outer.a, self.a), (outer.b, self.b), (outer.c, self.c))
        return same and all(wide == narrow * self.size for wide, narrow in pairs)

    def merged(self, inner: Loop) -> Loop:
        """Both as one. Its outermost label may be clipped, so that nothing merges with it from outside."""
        labels, size = self.labels + inner.labels, self.size * inner.size
        return replace(inner, labels=labels, size=size, clipped=self.clipped, fixed=self.fixed)

    def exchanged(self) -> Loop:
        return replace(self, a=self.b, b=self.a, in_a=self.in_b, in_b=self.in_a)


@dataclass(frozen=True)
class Reach:
    """An axis of `extent` elements of an operand that is read at place u*i + by*t - before, if it has that element.

    i is a label of the result, t one that is summed; a factor is 0 where there is no such label. Or it is read at place
    u*i + lane - before, where `lane` is a label of the result and of both operands.
    """

    i: str
    t: str
    u: int
    by: int
    before: Size
    extent: Size
    lane: str = ""

    def is_fixed(self, sizes: Mapping[str, Size]) -> bool:
        """Whether all is known that says which steps a window has."""
        known_sizes = all(isinstance(sizes.get(label, 1), int) for label in (self.i, self.t))
        return known_sizes and self.by > 0 and isinstance(self.before, int) and isinstance(self.extent, int)


@dataclass(frozen=True)
class Arrangement:
    """A Problem, and where labels are: of the result in its batch axes, rows and columns, of the rest in `summed`."""

    problem: Problem
    batch: tuple[Loop, ...]
    row: Loop | None
    col: Loop | None
    sizes: Mapping[str, Size] = field(default_factory=dict)
    summed: tuple[Loop, ...] = ()  # the loops around the k loop, and it

    def place(self, batch: tuple[Size, ...], row: Size, col: Size) -> dict[str, Size]:
        """The value of each label of the result at an element of C."""
        ends = [(self.row, row), (self.col, col)]
        return self._digits([*zip(self.batch, batch, strict=True), *((lp, i) for lp, i in ends if lp is not None)])

    def step(self, steps: tuple[Size, ...]) -> dict[str, Size]:
        """The value of each label that is summed, at a step of each loop."""
        return self._digits(list(zip(self.summed, steps, strict=False)))  # without any there is one step of none

    def _digits(self, indices: Sequence[tuple[Loop, Size]]) -> dict[str, Size]:
        """The values of the labels of merged loops."""
        found: dict[str, Size] = {}
        for loop, index in indices:
            rest = index
            for label in reversed(loop.labels[1:]):
                size = self.sizes[label]
                whole = rest // size if size != 0 else 0  # an index into nothing
                found[label], rest = rest - whole * size, whole
            found[loop.labels[0]] = rest
        return found


def arrange(
    dtype: DType, loops: list[Loop], buffers: tuple[str, str], offsets: tuple[Size, Size], target: Target,
    reaches: Sequence[Reach] = (),
) -> Arrangement:  # fmt: skip
    """The Problem of `loops`: those of the result in its order, then those that are summed in any."""
    sizes = {loop.labels[0]: loop.size for loop in loops}
    clipped = {label for reach in reaches for label in (reach.i, reach.t)}
    fixed = {reach.i for reach in reaches if reach.is_fixed(sizes)}
    loops = [replace(lp, clipped=lp.labels[0] in clipped, fixed=lp.labels[0] in fixed) for lp in loops]
    loops = _merged([loop for loop in loops if loop.size != 1])
    result = [loop for loop in loops if loop.in_c]
    summed = _summed_order([loop for loop in loops if not loop.in_c])
    few = known(product(loop.size for loop in summed), 2 * CROSSED_STEPS) <= CROSSED_STEPS
    row, col, turned = _choose(result, summed[-1] if summed else None, few, dtype, target)
    if turned:
        buffers, offsets = (buffers[1], buffers[0]), (offsets[1], offsets[0])
        result, summed = [loop.exchanged() for loop in result], [loop.exchanged() for loop in summed]
        row, col = row.exchanged() if row else None, col.exchanged() if col else None
    batch = tuple(loop for loop in result if loop not in (row, col))
    k = summed[-1] if summed else None
    a = Operand(buffers[0], offsets[0], tuple(b.a for b in batch), row.a if row else 0, k.a if k else 0)
    b = Operand(buffers[1], offsets[1], tuple(b.b for b in batch), k.b if k else 0, col.b if col else 0)
    extents = tuple(loop.size for loop in batch)
    outer = tuple(Outer(loop.size, loop.a, loop.b) for loop in summed[:-1])
    m, n, length = (loop.size if loop else 1 for loop in (row, col, k))
    wide_a = col is not None and col.in_a
    clips = tuple(_clip(reach, row, batch, summed, sizes) for reach in reaches if not reach.lane)
    line = next((_line(reach, col, batch, turned) for reach in reaches if reach.lane), None)
    crossed = few and row is not None and col is not None and row.c == 1 != col.c
    problem = Problem(dtype, extents, m, n, length, a, b, outer, clips, wide_a, line, crossed=crossed and not wide_a)
    return Arrangement(problem, batch, row, col, sizes, tuple(summed))


def _clip(
    reach: Reach, row: Loop | None, batch: Sequence[Loop], summed: Sequence[Loop], sizes: Mapping[str, Size]
) -> Clip:
    """A reach in terms of the loops. A label of size 1 has none: its index is that of any batch axis, times 0."""
    of_row = row is not None and row.labels[0] == reach.i
    places = [position for position, loop in enumerate(batch) if loop.labels[0] == reach.i]
    u, index = (reach.u if places or of_row else 0), None if of_row else places[0] if places else 0
    inside = [position for position, loop in enumerate(summed) if loop.labels[0] == reach.t]
    if not inside:  # all steps count, or none does
        return Clip(max(0, len(summed) - 1), index, u, 0, 1, reach.before, reach.extent)
    inner = product(sizes[label] for label in summed[inside[0]].labels[1:])
    return Clip(inside[0], index, u, reach.by, inner, reach.before, reach.extent)


def _line(reach: Reach, col: Loop | None, batch: Sequence[Loop], turned: bool) -> Line:
    """A reach along the columns. As for a clip, a label of size 1 has no loop."""
    if turned or col is None or col.labels != (reach.lane,):
        raise InternalError(f"lines along {reach.lane}, which is no column of the first operand")
    places = [position for position, loop in enumerate(batch) if loop.labels[0] == reach.i]
    return Line(places[0] if places else 0, reach.u if places else 0, reach.before, reach.extent)


def _merged(loops: list[Loop]) -> list[Loop]:
    """The loops with every two that are one merged. Their order stays."""
    found = list(loops)
    for inner in loops:
        for outer in found:
            if inner in found and outer is not inner and inner.follows(outer):
                found[found.index(outer)] = outer.merged(inner)
                found.remove(inner)
                return _merged(found)
    return found


def _summed_order(loops: list[Loop]) -> list[Loop]:
    """Far steps outside, near ones inside."""

    def distance(loop: Loop) -> tuple[bool, int, bool, int]:
        return _far(loop.a) + _far(loop.b)

    return sorted(loops, key=distance, reverse=True)


def _far(stride: Size) -> tuple[bool, int]:
    return not isinstance(stride, int), abs(known(stride, 0))


def _choose(
    result: list[Loop], k: Loop | None, few: bool, dtype: DType, target: Target
) -> tuple[Loop | None, Loop | None, bool]:
    """(rows, columns, whether A and B change places): the pair for which a tile does the most with the least.

    Columns are not clipped, and rows only where it is known which of them lack which steps. Of wide tiles, rows that
    move as the steps of k do share vectors.
    """

    def near(row: Loop) -> tuple[bool, tuple[bool, int]]:
        distance = row.b if turned else row.a
        return k is None or distance != (k.b if turned else k.a), _far(distance)

    free = [loop for loop in result if not loop.clipped]
    rows_a, rows_b = ([lp for lp in result if lp.fixed and lp not in free and _side(lp) == side] for side in "ab")
    of_a = [loop for loop in free if loop.in_a and not loop.in_b]
    of_b = [loop for loop in free if loop.in_b and not loop.in_a]
    shared = [loop for loop in free if loop.in_a and loop.in_b]
    if len(of_a) == len(of_b) == 1 and not (shared or rows_a or rows_b):
        turned = result.index(of_a[0]) > result.index(of_b[0])
        return (of_b[0], of_a[0], True) if turned else (of_a[0], of_b[0], False)
    lanes = target.lanes(dtype.itemsize)
    best: tuple[float, Loop | None, Loop | None, bool] = (-1.0, None, None, False)
    for rows, cols, turned in ((of_a, of_b, False), (of_b, of_a, True)):
        down: list[Loop | None] = [*rows, *(rows_b if turned else rows_a)] or [None]
        across: list[Loop | None] = [*cols] if cols else [None]
        for row, col in itertools.product(down, across):
            worth = _worth(row, col, turned, few, lanes)
            if row is not None and _collides(row.b if turned else row.a, row.size, dtype):
                worth *= 0.8
            if row is not None and row.clipped:
                # some tiles lack steps, and there is code for each kind; each line reads all weights
                worth *= 0.95 * min(1.0, known(row.size, 64) / 12)
            if worth > best[0]:
                best = (worth, row, col, turned)
        wide = [col for col in shared if col.a == col.b == 1]
        wide += [col for col in rows if (col.b if turned else col.a) == 1]
        nearest = sorted([*rows, *(rows_b if turned else rows_a)], key=near)
        for row, col in itertools.product([*nearest, None], wide):
            one_row = row is None and col in rows  # times a matrix: a tile without rows, which reads it as it lies
            if row is not col and not one_row and (worth := _worth_of_wide(row, col, lanes)) > best[0]:
                best = (worth, row, col, turned)
    return best[1:]


def _collides(stride: Size, size: Size, dtype: DType) -> bool:
    """Whether rows so far apart share a few lines of a cache: a large power of two divides their distance."""
    return known(size, 64) > 8 and isinstance(stride, int) and stride != 0 and stride * dtype.itemsize % (1 << 15) == 0


def _side(loop: Loop) -> str:
    """The one operand that a loop moves in."""
    return "" if loop.in_a == loop.in_b else "a" if loop.in_a else "b"


def _worth(row: Loop | None, col: Loop | None, turned: bool, few: bool, lanes: int) -> float:
    """About which part of the machine a tile of these rows and columns uses. few: steps, so that stores count."""
    if col is None:
        return (0.5 if row is None else 0.75) / lanes
    m = known(row.size, 64) if row is not None else 1
    busy = min(1.0, m / 8)  # fewer rows leave the multipliers waiting for loads
    adjacent = (col.a if turned else col.b) == 1
    # stores to far places, or rows that are transposed
    near = 1.0 if col.c == 1 else 0.97 if few and row is not None and row.c == 1 else 0.8
    return _used(col, lanes) * busy * (1.0 if adjacent else 0.6) * near


def _worth_of_wide(row: Loop | None, col: Loop, lanes: int) -> float:
    """The same where the operand with the rows moves with the columns too: each multiply-add loads a vector."""
    m = known(row.size, 64) if row is not None else 1
    return _used(col, lanes) * (1.0 if col.c == 1 else 0.8) * 0.5 * (0.6 + 0.1 * min(m, 4))


def _used(col: Loop, lanes: int) -> float:
    """Which part of the lanes has work."""
    n = known(col.size, 16 * lanes)
    return n / (-(-n // lanes) * lanes) if n else 1.0
