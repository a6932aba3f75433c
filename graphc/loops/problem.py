"""What a contraction computes: where its operands lie, the loops that it sums over, and which of their steps there are.

A `Problem` is made by `nest.py` from labels and strides (or by hand, in tests); `schedule.py` says how it is cut up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.loops.computed import Computed
from graphc.types import DType, Size, ceildiv, maximum, minimum, product


@dataclass(frozen=True)
class Operand:
    """Where element [batch, row, col] of a matrix lies: buffer[offset + batch . strides + row, col . strides].

    computed: what computes it instead, as an array of which the same would be true.
    """

    buffer: str
    offset: Size
    batch: tuple[Size, ...]
    row: Size
    col: Size
    computed: Computed | None = None


@dataclass(frozen=True)
class Outer:
    """A loop around the k loop: how often it runs, and how far one step of it moves in A and in B."""

    extent: Size
    a: Size
    b: Size


@dataclass(frozen=True)
class Clip:
    """Which steps of a loop count for a batch element: those within an operand, of a window that may reach beyond it.

    Step t*inner + rest of the loop (the position in `outer`; len(outer) is k) reads place u*index + by*t - before of
    an axis of `extent` elements, where index is that of the batch axis `batch`, or the row (None).
    """

    loop: int
    batch: int | None
    u: int
    by: int
    inner: Size
    before: Size
    extent: Size

    def steps(self, index: Size, length: Size) -> tuple[Size, Size]:
        """From which step to which the loop runs, of `length`, for a batch element."""
        behind = self.before - self.u * index  # where the axis begins, seen from the window
        if self.by == 0:
            inside = minimum(1, maximum(0, minimum(-behind, self.extent - 1 + behind) + 1))
            return 0, inside * length
        first = ceildiv(maximum(0, behind), self.by) * self.inner
        return minimum(first, length), minimum(ceildiv(maximum(0, behind + self.extent), self.by) * self.inner, length)


@dataclass(frozen=True)
class Line:
    """Which columns an A that moves with them has: column c is place c + u*index - before of a line of `extent`
    elements, where index is that of the batch axis `batch`.
    """

    batch: int
    u: int
    before: Size
    extent: Size

    def begin(self, where: Sequence[Size]) -> Size:
        """The place of column 0 for a batch element."""
        return (self.u * where[self.batch] if self.u else 0) - self.before


@dataclass(frozen=True)
class Problem:
    """C[batch, m, n] = sum over k of A[batch, m, k] * B[batch, k, n], all of one dtype; sizes may be names.

    With `outer` (the outermost first) the sum goes over a nest of loops, of which k is the innermost: what a window
    of a convolution or several summed axes are. Its `clips` say which steps there are.

    wide_a: A also moves with the columns, which lie side by side (depthwise windows). B does, unless its column
    stride is 0. line: which columns A has; others are 0.
    """

    dtype: DType
    batch: tuple[Size, ...]
    m: Size
    n: Size
    k: Size
    a: Operand
    b: Operand
    outer: tuple[Outer, ...] = ()
    clips: tuple[Clip, ...] = ()
    wide_a: bool = False
    line: Line | None = None
    tiles: bool = False  # A lies packed in the tiles of its schedule: `a.row` is the distance of tiles, not of rows
    panels: bool = False  # B lies packed in panels: `b.row` is their width
    crossed: bool = False  # rows of C lie side by side, columns do not
    whole_rows: bool = False  # a chunk has all columns of its rows, which are finished when the last panel is

    @property
    def row_clip(self) -> Clip | None:
        """The clip that depends on the row, where m and all in it are numbers."""
        return next((clip for clip in self.clips if clip.batch is None), None)

    @property
    def steps(self) -> Size:
        """How many products are summed for an element of C."""
        return product(loop.extent for loop in self.outer) * self.k

    def turned(self) -> Problem:
        """The transpose: C.T = B.T @ A.T."""
        a = replace(self.b, row=self.b.col, col=self.b.row)
        b = replace(self.a, row=self.a.col, col=self.a.row)
        outer = tuple(Outer(loop.extent, loop.b, loop.a) for loop in self.outer)
        return replace(self, m=self.n, n=self.m, a=a, b=b, outer=outer)


def dot(index: Sequence[Size], strides: Sequence[Size]) -> Size:
    """How far an index lies from the first element."""
    return sum((i * stride for i, stride in zip(index, strides, strict=True)), 0)
