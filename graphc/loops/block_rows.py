"""The loops over the columns of one block of rows: stages of reductions, then what the products read.

Enter at `RowLoops.emit`. Lanes run along the rows, so each row has an accumulator of its own. Sums of many terms are
sums of sums of `SEGMENT` of them, the outer one in the wide dtype.
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

SEGMENT = 32  # maxima take it as well: they wait for each other in one long chain, and 5 % of attention is that


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
        with self.vectors(frame) as point:
            for step, stage in enumerate(self.values.stages):
                for node, total in self.reduce(frame, step, stage, point).items():
                    point.bound[Value(node)] = h.cast(total, node.types[0].dtype)
            for node, buffer in kept.items():
                h.store(buffer, self.lane(frame, point), self.evaluator.at(Value(node), (), point), None)
            self.store_rows(outputs, point)
            self.store_matrices(frame, point)

    @contextlib.contextmanager
    def vectors(self, frame: Frame) -> Iterator[Point]:
        """A loop over the rows of a block by vectors. Several at a time are longer code, and no faster."""
        h = self.h
        with h.loop("g", 0, frame.stop - frame.start, h.lane_count) as number:
            first = opaque(h, "rows", number, frame.cell)
            place = {**frame.where, self.row: frame.start + first + Dim.symbol(LANE)}
            yield Point(place, frame.mask(frame.start + first))

    def lane(self, frame: Frame, point: Point) -> Size:
        """The rows of a point, counted from the first of the block."""
        return point.axes[self.row] - frame.start

    def store_matrices(self, frame: Frame, point: Point) -> None:
        """The loop that stores what products read, if anything is left to store."""
        if self.values.stores[-1]:
            with self.h.loop("c", frame.low, frame.high) as c:
                self._column(frame, len(self.values.stages), c, point)

    def _column(self, frame: Frame, number: int, c: Size, point: Point) -> Point:
        """The point of a column, with what earlier steps have left bound; stores what the loop is to store."""
        h, lane, column = self.h, self.lane(frame, point), c * frame.plan.height
        inner = child(point, self.column, c, point.mask)
        for value in self.values.reads[number]:
            buffer, base = frame.slot(value)
            inner.bound[value] = load_here(h, buffer, value.type.dtype, base + column + lane)
        for view, panel in frame.turned.items() if self._uses_operands(number) else ():
            inner.bound[view] = read_turned(h, view, panel, frame.base + column + lane)
        results = [(v, self.evaluator.at(v, self.full, inner)) for v in self.values.stores[number]]
        for value, result in results:
            buffer, base = frame.slot(value)
            h.store(buffer, base + column + lane, result, None)
        return inner

    def _uses_operands(self, number: int) -> bool:
        """Whether a loop computes anything but what it reads from slots."""
        return any(v not in self.values.reads[number] for v in self.values.loops[number].roots)

    def reduce(self, frame: Frame, number: int, nodes: list[Node], point: Point) -> dict[Node, Scalar]:
        """The results of all reductions of a stage, made in one loop, in the wide dtype."""
        h, lanes = self.h, self.h.lane_count
        kinds = {node: node.op.lowering for node in nodes}
        totals = {node: _fold(h, kinds[node], node, lanes, True) for node in nodes}
        with h.loop("s", frame.low, frame.high, SEGMENT) as start:
            folds = {node: _fold(h, kinds[node], node, lanes, False) for node in nodes}
            with h.loop("c", start, bind(h, "stop", minimum(start + SEGMENT, frame.high))) as c:
                inner = self._column(frame, number, c, point)
                for node, fold in folds.items():
                    fold.add(h, [self.evaluator.at(node.inputs[0], self.full, inner)], [None])
            for node, total in totals.items():
                total.add(h, [folds[node].lanes(h)], [None])
        return {node: total.lanes(h) for node, total in totals.items()}

    def store_rows(self, outputs: Sequence[tuple[Value, str]], point: Point) -> None:
        """The results of one element a row, where all reductions are bound."""
        for value, buffer in outputs:
            self._store_row(value, buffer, point)

    def _store_row(self, value: Value, buffer: str, point: Point) -> None:
        """A result of one element a row."""
        shape, full = value.type.shape, self.shape.full
        kept = [axis for axis in range(len(full)) if axis != self.shape.column and full[axis] != 1]
        left = iter(kept)
        index = tuple(0 if size == 1 else Dim.symbol(symbol_of(next(left))) for size in shape)
        result = self.evaluator.at(value, index, point)
        self.h.store(buffer, self.evaluator.placed(linear_address(index, shape), point), result, point.mask)


def _fold(h: Builder, kind: Reduction, node: Node, lanes: int, wide: bool) -> Fold:
    return Fold(h, kind, wide_dtype(node) if wide else node.types[0].dtype, lanes, 1)
