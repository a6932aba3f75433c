"""The loops over the rows of a sweep: reductions whose values so far are in scratch while blocks of columns pass.

Enter at `RunningRows`: `start`, then `step` for each block of columns, then `finish`. A maximum of -inf counts as 0
where it is subtracted: a row that has seen nothing but -inf has powers of 0, not NaN, and may see more. If it never
does, it is NaN in the end, as in the composition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.graph import Node, Value
from graphc.loops.block_rows import Frame, RowLoops
from graphc.loops.block_sweeps import Sweep
from graphc.loops.builder import Builder, Scalar
from graphc.loops.evaluate import Evaluator, Point
from graphc.loops.folds import wide_dtype
from graphc.loops.lanes import load_here
from graphc.passes.blocks_shape import BlocksShape


class RunningRows(RowLoops):
    """The loops of one sweep. running: scratch for each reduction of the kernel, in its wide dtype.

    scale: scratch for the factor by which sums that run along with the maximum are multiplied, in each row.
    """

    def __init__(
        self, h: Builder, evaluator: Evaluator, shape: BlocksShape, sweep: Sweep, running: Mapping[Node, str],
        scale: str,
    ) -> None:
        super().__init__(h, evaluator, shape, sweep.values)
        self.sweep, self.running, self.scale = sweep, running, scale

    def start(self, frame: Frame) -> None:
        """The neutral element of each reduction of the sweep, for all rows."""
        with self.vectors(frame) as point:
            for node in self.sweep.reductions:
                dtype = wide_dtype(node)
                self._put(frame, self.running[node], point, self.h.constant(node.op.lowering.init(dtype), dtype))

    def step(self, frame: Frame, known: Sequence[Node]) -> None:
        """All loops for one block of columns. known: the reductions of earlier sweeps."""
        h = self.h
        with self.vectors(frame) as point:
            self._bind(frame, known, point)
            scale: Scalar | None = None
            for number, stage in enumerate(self.values.stages):
                for node, found in self.reduce(frame, number, stage, point).items():
                    before = self._get(frame, node, point)
                    if node in self.sweep.scaled:
                        assert scale is not None
                        before = h.mul(before, h.cast(scale, before.dtype))
                    after = node.op.lowering.combine(h, before, found)
                    self._put(frame, self.running[node], point, after)
                    if node is self.sweep.maximum:
                        scale = self._shift(frame, node, before, after, point)
            self.store_matrices(frame, point)

    def _shift(self, frame: Frame, maximum: Node, before: Scalar, after: Scalar, point: Point) -> Scalar:
        """Bind what is subtracted from now on; gives the factor for all that runs along, and leaves it in `scale`."""
        h = self.h
        zero, least = h.constant(0.0, after.dtype), h.constant(-np.inf, after.dtype)
        shift = point.bound[Value(maximum)] = h.select(h.eq(after, least), zero, after)
        scale = h.function("exp", h.sub(before, shift))
        self._put(frame, self.scale, point, scale)
        return scale

    def finish(self, frame: Frame) -> None:
        """Rows of nothing but -inf are NaN: in `scale` for the products, and in the sums."""
        h, maximum, columns = self.h, self.sweep.maximum, self.shape.full[self.shape.column]
        if maximum is None:
            return
        with self.vectors(frame) as point:
            top = self._get(frame, maximum, point)
            one, nan, least = (h.constant(x, top.dtype) for x in (1.0, np.nan, -np.inf))
            unseen = h.eq(top, least)
            if not isinstance(columns, int):  # where there are none, nothing was hidden, and sums are 0
                unseen = h.and_(unseen, h.widened(h.gt(h.index(columns), h.index(0)), unseen.lanes))
            scale = h.select(unseen, nan, one)
            self._put(frame, self.scale, point, scale)
            for node in (n for n in self.sweep.reductions if n in self.sweep.scaled):
                total = self._get(frame, node, point)
                self._put(frame, self.running[node], point, h.mul(total, h.cast(scale, total.dtype)))

    def results(self, frame: Frame, outputs: Sequence[tuple[Value, str]]) -> None:
        """The results of one element a row, when all sweeps are done."""
        if outputs:
            with self.vectors(frame) as point:
                self._bind(frame, list(self.running), point)
                self.store_rows(outputs, point)

    def _bind(self, frame: Frame, nodes: Sequence[Node], point: Point) -> None:
        for node in nodes:
            point.bound[Value(node)] = self.h.cast(self._get(frame, node, point), node.types[0].dtype)

    def _get(self, frame: Frame, node: Node, point: Point) -> Scalar:
        return load_here(self.h, self.running[node], wide_dtype(node), self.lane(frame, point))

    def _put(self, frame: Frame, buffer: str, point: Point, value: Scalar) -> None:
        self.h.store(buffer, self.lane(frame, point), value, None)
