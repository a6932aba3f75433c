"""argmax and argmin along a row: the best value of each block first, then a search in the first block that has it.

So the long loop is that of a maximum, which keeps no indices. Enter at `Search.in_row` (and `in_registers` for rows of
a few vectors). Along other axes each lane keeps an index of its own: `graphc.loops.folds.ArgFold`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.loops.builder import Builder, Scalar
from graphc.loops.cost import operation_name
from graphc.loops.evaluate import Point
from graphc.loops.folds import Fold
from graphc.loops.ir import Const, Reg, VType
from graphc.loops.lanes import Body, lane_loop, named
from graphc.ops.lowering import ArgReduction, Reduction
from graphc.ops.registry import OPS
from graphc.target import Target
from graphc.types import Dim, DType, Size, float32, int64, minimum

BLOCK = 64  # vectors whose best value is found before it is compared with that of the blocks before
NOWHERE = 2**62  # later than every index


class Search:
    """One argmax or argmin along the axis `symbol`; `value_at` gives its operand at a point, of `dtype`."""

    def __init__(
        self,
        h: Builder,
        target: Target,
        lowering: ArgReduction,
        dtype: DType,
        symbol: str,
        value_at: Callable[[Point], Scalar],
    ) -> None:
        self.h, self.target, self.better, self.dtype = h, target, lowering.better, dtype
        self.symbol, self.value_at = symbol, value_at
        extremum = OPS["max" if operation_name(lowering.better, float32) == "gt" else "min"].lowering
        assert isinstance(extremum, Reduction)
        self.extremum = extremum

    def in_registers(self, points: Sequence[Point]) -> Scalar:
        """The best index among a few points."""
        fold = self._fold(len(points))
        self._fold_in(fold, points)
        top = fold.result(self.h)
        result = self._register(int64, NOWHERE, "index")
        self._search(result, points, top)
        return self.h.fold_lanes("min", self.h.read(result))

    def in_row(self, point: Point, extent: Size, ways: int) -> Scalar:
        """The best index of a row of `extent` elements, `ways` vectors at a time; 0 if there is none."""
        h = self.h
        neutral = self.extremum.init(self.dtype)
        # a lane that nothing changes keeps block 0, which has the first of the worst values
        best, block = self._register(self.dtype, neutral, "best"), self._register(int64, 0, "block")
        with h.loop("from", 0, extent, BLOCK * h.lane_count) as start:
            fold = self._fold(ways)
            self._over(start, extent, ways, point, lambda points: self._fold_in(fold, points))
            found, before = fold.lanes(h), h.read(best)
            take = self.better(h, found, before)
            h.assign(best, h.select(take, found, before))
            h.assign(block, h.select(take, h.widened(h.index(start), h.lane_count), h.read(block)))
        value, place = h.read(best), h.read(block)
        top = h.fold_lanes(operation_name(self.extremum.combine, self.dtype), value)
        first = h.fold_lanes("min", self._where(value, top, place))
        name = h.fresh("start")
        h.symbols[name] = first
        result = self._register(int64, NOWHERE, "index")
        self._over(Dim.symbol(name), extent, ways, point, lambda points: self._search(result, points, top))
        index = h.fold_lanes("min", h.read(result))
        if isinstance(extent, int):  # it is not 0
            return index
        return h.select(h.lt(index, h.constant(NOWHERE, int64)), index, h.constant(0, int64))

    def _over(self, start: Size, extent: Size, ways: int, point: Point, body: Body) -> None:
        """`body` over the vectors of the block from `start` on."""
        size = BLOCK * self.h.lane_count
        whole = isinstance(extent, int) and extent % size == 0
        stop = start + size if whole else named(self.h, "stop", minimum(start + size, extent))
        lane_loop(self.h, self.target, start, stop, ways, point, self.symbol, body)

    def _fold(self, ways: int) -> Fold:
        return Fold(self.h, self.extremum, self.dtype, self.h.lane_count, ways)

    def _fold_in(self, fold: Fold, points: Sequence[Point]) -> None:
        fold.add(self.h, [self.value_at(p) for p in points], [p.mask for p in points])

    def _search(self, result: Reg, points: Sequence[Point], top: Scalar) -> None:
        """The lowest place of `top` among the points goes to `result`."""
        h = self.h
        for p in points:
            places = self._where(self.value_at(p), top, h.index(p.axes[self.symbol]), p.mask)
            h.assign(result, h.op("min", int64, h.read(result), places))

    def _where(self, value: Scalar, top: Scalar, place: Scalar, mask: Scalar | None = None) -> Scalar:
        """`place` in the lanes whose value is `top` (or NaN, if that is), else NOWHERE."""
        h = self.h
        x, t = h.widened(value, h.lane_count), h.widened(top, h.lane_count)
        same = h.eq(x, t)
        if self.dtype.is_float:
            same = h.or_(same, h.and_(h.ne(x, x), h.ne(t, t)))
        if mask is not None:
            same = h.and_(same, mask)
        return h.select(same, h.widened(place, h.lane_count), h.constant(NOWHERE, int64))

    def _register(self, dtype: DType, start: float | int | bool, stem: str) -> Reg:
        return self.h.register(Scalar(Const(start, VType(dtype, self.h.lane_count))), stem)
