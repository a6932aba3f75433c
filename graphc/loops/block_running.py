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
        with self.groups(frame) as points:
            for node in self.sweep.reductions:
                dtype = wide_dtype(node)
                neutral = self.h.constant(node.op.lowering.init(dtype), dtype)
                self._put(frame, self.running[node], dict.fromkeys(range(len(points)), neutral), points)

    def step(self, frame: Frame, known: Sequence[Node]) -> None:
        """All loops for one block of columns. known: the reductions of earlier sweeps."""
        with self.groups(frame) as points:
            self.bind(frame, known, points)
            scale: list[Scalar] = []
            for number, stage in enumerate(self.values.stages):
                totals = self.reduce(frame, number, stage, points)
                for node in stage:
                    found = [totals[node, n] for n in range(len(points))]
                    scale = self._join(frame, node, found, points, scale)
            self.store_matrices(frame, points)

    def _join(
        self, frame: Frame, node: Node, found: list[Scalar], points: list[Point], scale: list[Scalar]
    ) -> list[Scalar]:
        """Add what a block of columns gives to what was there; gives the factors for all that runs along."""
        h, combine = self.h, node.op.lowering.combine
        before = [self._get(frame, node, p) for p in points]
        if node in self.sweep.scaled:
            before = [h.mul(old, h.cast(factor, old.dtype)) for old, factor in zip(before, scale, strict=True)]
        after = [combine(h, old, value) for old, value in zip(before, found, strict=True)]
        self._put(frame, self.running[node], dict(enumerate(after)), points)
        if node is not self.sweep.maximum:
            return scale
        zero, least = h.constant(0.0, after[0].dtype), h.constant(-np.inf, after[0].dtype)
        shifts = [h.select(h.eq(value, least), zero, value) for value in after]
        for p, shift in zip(points, shifts, strict=True):
            p.bound[Value(node)] = shift
        scale = [h.function("exp", h.sub(old, shift)) for old, shift in zip(before, shifts, strict=True)]
        self._put(frame, self.scale, dict(enumerate(scale)), points)
        return scale

    def finish(self, frame: Frame) -> None:
        """Rows of nothing but -inf are NaN: in `scale` for the products, and in the sums."""
        h, maximum = self.h, self.sweep.maximum
        if maximum is None:
            return
        with self.groups(frame) as points:
            tops = [self._get(frame, maximum, p) for p in points]
            one, nan, least = (h.constant(x, tops[0].dtype) for x in (1.0, np.nan, -np.inf))
            scale = [h.select(h.eq(top, least), nan, one) for top in tops]
            self._put(frame, self.scale, dict(enumerate(scale)), points)
            for node in (n for n in self.sweep.reductions if n in self.sweep.scaled):
                sums = [self._get(frame, node, p) for p in points]
                scaled = [h.mul(x, h.cast(factor, x.dtype)) for x, factor in zip(sums, scale, strict=True)]
                self._put(frame, self.running[node], dict(enumerate(scaled)), points)

    def results(self, frame: Frame, outputs: Sequence[tuple[Value, str]]) -> None:
        """The results of one element a row, when all sweeps are done."""
        if outputs:
            with self.groups(frame) as points:
                self.bind(frame, list(self.running), points)
                self.store_rows(outputs, points)

    def bind(self, frame: Frame, nodes: Sequence[Node], points: list[Point]) -> None:
        for node in nodes:
            for p in points:
                p.bound[Value(node)] = self.h.cast(self._get(frame, node, p), node.types[0].dtype)

    def _get(self, frame: Frame, node: Node, point: Point) -> Scalar:
        return load_here(self.h, self.running[node], wide_dtype(node), self.lane(frame, point))

    def _put(self, frame: Frame, buffer: str, values: Mapping[int, Scalar], points: list[Point]) -> None:
        for n, value in values.items():
            self.h.store(buffer, self.lane(frame, points[n]), value, None)
