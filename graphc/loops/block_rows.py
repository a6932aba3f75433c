"""The loops over the columns of one block of rows: stages of reductions, then what the products read.

Enter at `RowLoops.emit`. Lanes run along the rows, a few vectors of them at a time, so each row has an accumulator of
its own. Sums of many terms are sums of sums of `SEGMENT` of them, the outer one in the wide dtype.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphc.graph import Node, Value
from graphc.loops.block_operands import read_turned
from graphc.loops.block_plan import BlockPlan
from graphc.loops.block_values import BlockValues
from graphc.loops.blocks import bind, opaque
from graphc.loops.builder import LANE, Builder, Scalar, linear_address
from graphc.loops.evaluate import Evaluator, Index, Point
from graphc.loops.folds import Fold, wide_dtype
from graphc.loops.kernel import symbol_of
from graphc.loops.lanes import child, load_here
from graphc.ops.lowering import Reduction
from graphc.passes.blocks_shape import BlocksShape
from graphc.types import Dim, Size, minimum

SEGMENT = 32


@dataclass(frozen=True)
class Frame:
    """One block: its rows from `start`, its columns from `low` below `high`, the index of its batch element.

    slot: the buffer of a value in scratch and where it begins. mask: which of the rows behind a first one exist.
    cell: scratch for `opaque`. turned: the panels of operands that have the size of a matrix, in which column 0 would
    be at `base`.
    """

    plan: BlockPlan
    where: Mapping[str, Size]
    start: Size
    stop: Size
    low: Size
    high: Size
    slot: Callable[[Value], tuple[str, Size]]
    mask: Callable[[Size], Scalar | None]
    cell: str
    turned: Mapping[Value, str]
    base: Size = 0


class RowLoops:
    """The loops of one kernel, or of one sweep of it."""

    def __init__(self, h: Builder, evaluator: Evaluator, shape: BlocksShape, values: BlockValues) -> None:
        self.h, self.evaluator, self.shape, self.values = h, evaluator, shape, values
        self.row, self.column = symbol_of(shape.row), symbol_of(shape.column)
        self.full: Index = tuple(Dim.symbol(symbol_of(axis)) for axis in range(len(shape.full)))

    def emit(self, frame: Frame, kept: Mapping[Node, str], outputs: Sequence[tuple[Value, str]]) -> None:
        """All loops for the rows of a block. kept: where reductions go that products need; outputs: results of rows."""
        h = self.h
        with self.groups(frame) as points:
            for step, stage in enumerate(self.values.stages):
                for (node, n), total in self.reduce(frame, step, stage, points).items():
                    points[n].bound[Value(node)] = h.cast(total, node.types[0].dtype)
            for node, buffer in kept.items():
                for p in points:
                    h.store(buffer, self.lane(frame, p), self.evaluator.at(Value(node), (), p), None)
            self.store_rows(outputs, points)
            self.store_matrices(frame, points)

    @contextlib.contextmanager
    def groups(self, frame: Frame) -> Iterator[list[Point]]:
        """A loop over the rows of a block, `plan.group` vectors of them at a time."""
        h, plan, lanes = self.h, frame.plan, self.h.lane_count
        with h.loop("g", 0, frame.stop - frame.start, plan.group * lanes) as number:
            first = opaque(h, "rows", number, frame.cell)
            points = []
            for n in range(plan.group):
                lane = first + (Dim.symbol(LANE) + n * lanes)
                place = {**frame.where, self.row: frame.start + lane}
                points.append(Point(place, frame.mask(frame.start + first + n * lanes)))
            yield points

    def lane(self, frame: Frame, point: Point) -> Size:
        """The rows of a point, counted from the first of the block."""
        return point.axes[self.row] - frame.start

    def store_matrices(self, frame: Frame, points: list[Point]) -> None:
        """The loop that stores what products read, if anything is left to store."""
        if self.values.stores[-1]:
            with self.h.loop("c", frame.low, frame.high) as c:
                self._columns(frame, len(self.values.stages), c, points)

    def _columns(self, frame: Frame, number: int, c: Size, points: list[Point]) -> list[Point]:
        """The points of a column, with what earlier steps have left bound; stores what the loop is to store."""
        h, height = self.h, frame.plan.height
        inner = [child(p, self.column, c, p.mask) for p in points]
        stores = self.values.stores[number]
        for p in inner:
            lane = self.lane(frame, p)
            for value in self.values.reads[number]:
                buffer, base = frame.slot(value)
                p.bound[value] = load_here(h, buffer, value.type.dtype, base + c * height + lane)
            for view, panel in frame.turned.items() if self._uses_operands(number) else ():
                p.bound[view] = read_turned(h, view, panel, frame.base + c * height + lane)
        results = [(p, v, self.evaluator.at(v, self.full, p)) for p in inner for v in stores]
        for p, value, result in results:
            buffer, base = frame.slot(value)
            h.store(buffer, base + c * height + self.lane(frame, p), result, None)
        return inner

    def _uses_operands(self, number: int) -> bool:
        """Whether a loop computes anything but what it reads from slots."""
        return any(v not in self.values.reads[number] for v in self.values.loops[number].roots)

    def reduce(
        self, frame: Frame, number: int, nodes: list[Node], points: list[Point]
    ) -> dict[tuple[Node, int], Scalar]:
        """All reductions of a stage in one loop: for each and each point the result, in the wide dtype."""
        h, lanes = self.h, self.h.lane_count
        kinds = {node: node.op.lowering for node in nodes}
        keys = [(node, n) for node in nodes for n in range(len(points))]
        totals = {key: _fold(h, kinds[key[0]], key[0], lanes, True) for key in keys}
        with h.loop("s", frame.low, frame.high, SEGMENT) as start:
            folds = {key: _fold(h, kinds[key[0]], key[0], lanes, False) for key in keys}
            with h.loop("c", start, bind(h, "stop", minimum(start + SEGMENT, frame.high))) as c:
                inner = self._columns(frame, number, c, points)
                for (node, n), fold in folds.items():
                    fold.add(h, [self.evaluator.at(node.inputs[0], self.full, inner[n])], [None])
            for key, total in totals.items():
                total.add(h, [folds[key].lanes(h)], [None])
        return {key: total.lanes(h) for key, total in totals.items()}

    def store_rows(self, outputs: Sequence[tuple[Value, str]], points: list[Point]) -> None:
        """The results of one element a row, where all reductions are bound."""
        for value, buffer in outputs:
            self._store_row(value, buffer, points)

    def _store_row(self, value: Value, buffer: str, points: list[Point]) -> None:
        """A result of one element a row."""
        shape, full = value.type.shape, self.shape.full
        kept = [axis for axis in range(len(full)) if axis != self.shape.column and full[axis] != 1]
        left = iter(kept)
        index = tuple(0 if size == 1 else Dim.symbol(symbol_of(next(left))) for size in shape)
        for p in points:
            result = self.evaluator.at(value, index, p)
            address = self.evaluator.placed(linear_address(index, shape), p)
            self.h.store(buffer, address, result, p.mask)


def _fold(h: Builder, kind: Reduction, node: Node, lanes: int, wide: bool) -> Fold:
    return Fold(h, kind, wide_dtype(node) if wide else node.types[0].dtype, lanes, 1)
