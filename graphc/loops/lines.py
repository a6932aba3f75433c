"""Sums over columns, row by row: a line of partial results in memory for each chunk of rows.

Memory is read in its order and a line stays in the cache. Float32 sums are float64 in the line: a few rows are joined
in registers before they go there, or up to `NEAR_ROWS` of them, one by one, in a float32 line of the worker's own
(`near`, in scratch). Enter at `Lines`: `declare` and `clear`, then `add` for every row (and `move` after NEAR_ROWS of
them, if there are near lines); the finish gets what all lines make of a column by `joined`. `ColumnsLowering` and
`RowsLowering` put the loops around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphc.graph import Node
from graphc.loops.builder import Builder, Scalar
from graphc.loops.folds import joined, partials_fold, wide_dtype
from graphc.loops.ir import Const, Scratch, VType
from graphc.loops.lanes import load_here
from graphc.ops.lowering import Reduction
from graphc.types import DType, Size

NEAR_ROWS = 16  # rows that are added in float32: as many as pairwise sums add one by one


class Lines:
    """The lines of some reductions of full values over the rows; `buffers` has the partial results of each.

    near: how many columns the near lines have; None where there are none.
    """

    def __init__(self, h: Builder, buffers: Mapping[Node, str], nodes: Iterable[Node], near: int | None = None) -> None:
        self.h, self.columns = h, near
        self.buffers = {node: buffers[node] for node in nodes}
        wide = [node for node in self.buffers if wide_dtype(node) != node.types[0].dtype]
        self.near = {node: h.fresh("near") for node in wide} if near is not None else {}

    def declare(self) -> None:
        """The scratch of the near lines: whole vectors."""
        lanes = self.h.lane_count
        for node, name in self.near.items():
            assert self.columns is not None
            self.h.emit(Scratch(name, node.types[0].dtype, -(-self.columns // lanes) * lanes))

    def clear(self, start: Size, column: Size, mask: Scalar | None) -> None:
        """One vector of every line that begins at `start` = neutral."""
        for node, buffer in self.buffers.items():
            self.h.store(buffer, start + column, self._neutral(node, wide_dtype(node)), mask)
        for node, name in self.near.items():
            self.h.store(name, column, self._neutral(node, node.types[0].dtype), mask)

    def add(self, node: Node, values: Sequence[Scalar], start: Size, column: Size, mask: Scalar | None) -> None:
        """The values of a few rows in one vector of columns go to the line of `node`."""
        terms = [self.h.cast(value, node.types[0].dtype) for value in values]
        term = joined(self.h, self._kind(node), terms)
        if node in self.near:
            self._combine(self.near[node], node, column, term, mask)
        else:
            self._combine(self.buffers[node], node, start + column, term, mask, wide_dtype(node))

    def move(self, start: Size, column: Size, mask: Scalar | None) -> None:
        """One vector of the near lines goes to those in memory."""
        for node, name in self.near.items():
            dtype = node.types[0].dtype
            term = load_here(self.h, name, dtype, column, mask)
            self._combine(self.buffers[node], node, start + column, term, mask, wide_dtype(node))
            self.h.store(name, column, self._neutral(node, dtype), mask)

    def joined(self, node: Node, column: Size, lines: Size, length: Size, mask: Scalar | None) -> Scalar:
        """What `lines` lines of `length` columns make at one vector of them, in order."""
        fold = partials_fold(self.h, node, self.h.lane_count)
        with self.h.loop("c", 0, lines) as c:
            term = load_here(self.h, self.buffers[node], fold.dtype, c * length + column, mask)
            fold.add(self.h, [term], [None])
        return self.h.cast(fold.lanes(self.h), node.types[0].dtype)

    def _combine(
        self, buffer: str, node: Node, address: Size, term: Scalar, mask: Scalar | None, dtype: DType | None = None
    ) -> None:
        term = self.h.widened(self.h.cast(term, dtype or term.dtype), self.h.lane_count)
        before = load_here(self.h, buffer, term.dtype, address, mask)
        self.h.store(buffer, address, self._kind(node).combine(self.h, before, term), mask)

    def _kind(self, node: Node) -> Reduction:
        assert isinstance(node.op.lowering, Reduction)
        return node.op.lowering

    def _neutral(self, node: Node, dtype: DType) -> Scalar:
        return Scalar(Const(self._kind(node).init(dtype), VType(dtype, self.h.lane_count)), 0)
