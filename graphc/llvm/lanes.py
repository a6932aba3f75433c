"""The ops that move lanes between vectors and compute nothing. Enter at `Lanes`, which `Arithmetic` builds on."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.llvm.builder import Builder, vector_of
from graphc.llvm.values import Value, type_text
from graphc.types import DType, int32


class Lanes:
    """The ops over a `Builder`, one method each."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def splat(self, a: Value, lanes: int) -> Value:
        """A vector of equal lanes."""
        if a.lanes == lanes:
            return a
        if a.const is not None:
            return self.builder.constant(a.const, a.dtype, lanes)
        kind = type_text(a.dtype, lanes)
        first = self.builder.pure(a.dtype, lanes, f"insertelement {kind} poison, {a.typed}, i64 0")
        rhs = f"shufflevector {kind} {first.text}, {kind} poison, <{lanes} x i32> zeroinitializer"
        return self.builder.pure(a.dtype, lanes, rhs)

    def lanes(self, dtype: DType, lanes: int) -> Value:
        """The vector 0, 1, 2, ..."""
        return Value(vector_of([str(n) for n in range(lanes)], dtype), dtype, lanes) if lanes > 1 else Value("0", dtype)

    def extract(self, a: Value, lane: int) -> Value:
        if a.lanes == 1:
            return a
        return self.builder.pure(a.dtype, 1, f"extractelement {a.typed}, i64 {lane}")

    def zip_low(self, a: Value, b: Value, run: int, part: int) -> Value:
        """In every part of so many lanes: the lower half of a's, b's, a's, ... runs of lanes."""
        return self._zip(a, b, run, part, 0)

    def zip_high(self, a: Value, b: Value, run: int, part: int) -> Value:
        """The same of the upper half."""
        return self._zip(a, b, run, part, part // 2)

    def _zip(self, a: Value, b: Value, run: int, part: int, half: int) -> Value:
        starts = [p + half + r for p in range(0, a.lanes, part) for r in range(0, part // 2, run)]
        order = [s + side * a.lanes + n for s in starts for side in (0, 1) for n in range(run)]
        zipped = self._shuffle(a, b, order)
        return self._fence(zipped) if 2 * run == part and a.dtype.kind == "f" and not a.dtype.is_narrow else zipped

    def _fence(self, a: Value) -> Value:
        """The same float, which LLVM does not look behind: it takes long over chains of shuffles, and finds nothing."""
        return self.builder.unary("arithmetic.fence", a)

    def even(self, a: Value, b: Value, run: int) -> Value:
        """The runs 0, 2, 4, ... of the lanes of a, then of b."""
        return self._shuffle(a, b, [s + n for s in range(0, 2 * a.lanes, 2 * run) for n in range(run)])

    def odd(self, a: Value, b: Value, run: int) -> Value:
        """The runs 1, 3, 5, ..."""
        return self._shuffle(a, b, [s + n for s in range(run, 2 * a.lanes, 2 * run) for n in range(run)])

    def _shuffle(self, a: Value, b: Value, order: Sequence[int]) -> Value:
        rhs = f"shufflevector {a.typed}, {b.typed}, <{a.lanes} x i32> {vector_of(list(map(str, order)), int32)}"
        return self.builder.pure(a.dtype, a.lanes, rhs)

    def join(self, a: Value, b: Value) -> Value:
        """The lanes of a, then those of b."""
        order = vector_of([str(n) for n in range(2 * a.lanes)], int32)
        rhs = f"shufflevector {a.typed}, {b.typed}, <{2 * a.lanes} x i32> {order}"
        return self.builder.pure(a.dtype, 2 * a.lanes, rhs)

    def part(self, a: Value, first: int, count: int) -> Value:
        """So many lanes from `first` on."""
        if count == 1:
            return self.extract(a, first)
        lanes = vector_of([str(n) for n in range(first, first + count)], int32)
        rhs = f"shufflevector {a.typed}, {a.type} poison, <{count} x i32> {lanes}"
        return self.builder.pure(a.dtype, count, rhs)
