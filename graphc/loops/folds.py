"""Accumulators: registers that a reduction's values are folded into, in a tree that never depends on threads.

A `Fold` has `ways` registers of `width` lanes; the values of one step go to the registers in turn. `lanes` joins the
registers, `result` also the lanes. Masked-off lanes count as the neutral element. A sum of many float32 (`wide`) adds
the values of one step to each other first, and that to one register in float64: better than a pairwise sum, and not
slower than memory. Enter at `fold_for`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import InternalError
from graphc.graph import Node
from graphc.loops.builder import Builder, Scalar
from graphc.loops.cost import operation_name
from graphc.loops.ir import Const, VType
from graphc.ops.lowering import ArgReduction, Reduction
from graphc.types import DType, float32, float64, int64


class Fold:
    """The accumulators of a `Reduction`."""

    def __init__(
        self, h: Builder, lowering: Reduction, dtype: DType, width: int, ways: int, terms_dtype: DType | None = None
    ) -> None:
        self.lowering, self.dtype, self.width = lowering, dtype, width  # dtype: of the registers
        self.terms_dtype = terms_dtype or dtype
        self.neutral = lowering.init(dtype)
        start = Scalar(Const(self.neutral, VType(dtype, width)), 0)
        self.registers = [h.register(start) for _ in range(ways)]

    def add(self, h: Builder, values: Sequence[Scalar], masks: Sequence[Scalar | None]) -> None:
        terms = [self._term(h, value, mask) for value, mask in zip(values, masks, strict=True)]
        if terms and self.terms_dtype != self.dtype:
            terms = [h.cast(joined(h, self.lowering, terms), self.dtype)]
        for n, x in enumerate(terms):
            register = self.registers[n % len(self.registers)]
            h.assign(register, self.lowering.combine(h, h.read(register), x))

    def _term(self, h: Builder, value: Scalar, mask: Scalar | None) -> Scalar:
        x = h.widened(h.cast(value, self.terms_dtype), self.width)
        if mask is not None and self.width > 1:
            x = h.select(mask, x, h.constant(self.neutral, self.terms_dtype))
        return x

    def lanes(self, h: Builder) -> Scalar:
        """All registers joined into one, pairwise."""
        return joined(h, self.lowering, [h.read(register) for register in self.registers])

    def result(self, h: Builder) -> Scalar:
        return h.fold_lanes(operation_name(self.lowering.combine, self.dtype), self.lanes(h))


def joined(h: Builder, lowering: Reduction, values: Sequence[Scalar]) -> Scalar:
    """A few values combined into one, in a tree."""
    values = list(values)
    while len(values) > 1:
        half = (len(values) + 1) // 2
        pairs: list[Any] = [lowering.combine(h, a, b) for a, b in zip(values, values[half:], strict=False)]
        values = pairs + values[len(pairs) : half]
    return values[0]


class ArgFold(Fold):
    """The accumulators of an `ArgReduction` in each lane: the best value so far and where it stood first (-1: none)."""

    def __init__(self, h: Builder, lowering: ArgReduction, dtype: DType, width: int) -> None:
        self.better, self.value_dtype, self.width = lowering.better, dtype, width
        self.best = h.register(Scalar(Const(0, VType(dtype, width)), 0), "best")
        self.index = h.register(Scalar(Const(-1, VType(int64, width)), 0), "index")

    def add_at(
        self, h: Builder, values: Sequence[Scalar], indices: Sequence[Scalar], masks: Sequence[Scalar | None]
    ) -> None:
        for value, index, mask in zip(values, indices, masks, strict=True):
            x, best, found = h.widened(value, self.width), h.read(self.best), h.read(self.index)
            first = h.lt(found, h.constant(0, int64))
            # a NaN is better than every number, and never replaced
            nan = h.and_(h.ne(x, x), h.eq(best, best))
            take = h.or_(h.or_(self.better(h, x, best), nan), first)
            if mask is not None:
                take = h.and_(take, mask)
            h.assign(self.best, h.select(take, x, best))
            h.assign(self.index, h.select(take, h.widened(index, self.width), found))

    def lanes(self, h: Builder) -> Scalar:
        """The index; 0 where there were no elements."""
        return h.op("max", int64, h.read(self.index), h.constant(0, int64))

    def result(self, h: Builder) -> Scalar:
        if self.width > 1:
            raise InternalError("along the lanes, argmax is a search")
        return self.lanes(h)


def fold_for(h: Builder, node: Node, width: int, ways: int, wide: bool = False) -> Fold:
    """New accumulators for a reduction node, all at the neutral element; `wide`: in `wide_dtype(node)`."""
    lowering = node.op.lowering
    if isinstance(lowering, ArgReduction):
        return ArgFold(h, lowering, node.inputs[0].type.dtype, width)
    dtype, wider = node.types[0].dtype, wide_dtype(node)
    if wide and wider != dtype:
        return Fold(h, lowering, wider, width, 1, dtype)
    return Fold(h, lowering, dtype, width, ways)


def partials_fold(h: Builder, node: Node, width: int) -> Fold:
    """Accumulators for the partial results of chunks, which have `wide_dtype(node)` already."""
    assert isinstance(node.op.lowering, Reduction)
    return Fold(h, node.op.lowering, wide_dtype(node), width, 1)


def wide_dtype(node: Node) -> DType:
    """float64 for sums of float32, else the dtype of the result."""
    dtype = node.types[0].dtype
    return float64 if dtype == float32 and operation_name(node.op.lowering.combine, dtype) == "add" else dtype
