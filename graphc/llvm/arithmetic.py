"""What each op of the loop IR becomes: one method an op, over `Value`s, for scalars and vectors of every dtype.

`Arithmetic` implements the protocol `graphc.loops.maths_parts.MathsHandler`, so the vector maths of
`graphc.loops.maths` is expanded through it into the same function. No instruction here traps, gives poison or becomes
a call. What only moves lanes is in `lanes.py`, casts are in `conversions.py`. Enter at `Arithmetic`; to add an op, add
a method of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.errors import InternalError
from graphc.llvm.builder import Builder
from graphc.llvm.conversions import cast
from graphc.llvm.lanes import Lanes
from graphc.llvm.values import Value, mangled, type_text, wrapped
from graphc.loops import maths
from graphc.target import Target
from graphc.types import DType, bool_, int64

_FLOAT_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_MAGIC = {4: float(2**23), 8: float(2**52)}  # from here on every float is an integer


class Arithmetic(Lanes):
    """The ops over a `Builder`. Operands of one call have the same dtype and lanes (`select`'s condition is bool)."""

    def __init__(self, builder: Builder, target: Target) -> None:
        super().__init__(builder)
        self.target = target
        self._lanes = 1  # of the values that a maths expansion works on

    def constant(self, value: float | int | bool, dtype: DType) -> Value:
        """A constant with as many lanes as the value that is being expanded."""
        return self.builder.constant(value, dtype, self._lanes)

    def like(self, value: float | int | bool, other: Value) -> Value:
        """A constant of the type of `other`."""
        return self.builder.constant(value, other.dtype, other.lanes)

    def _pure(self, operation: str, a: Value, b: Value) -> Value:
        return self.builder.pure(a.dtype, a.lanes, f"{operation} {a.type} {a.text}, {b.text}")

    # -- arithmetic

    def add(self, a: Value, b: Value) -> Value:
        if a.type == "i64" and a.dtype.kind == "i":
            return self.builder.index_add(a, b)
        return self._pure("fadd" if a.dtype.kind == "f" else "add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        if a.type == "i64" and a.dtype.kind == "i":
            return self.builder.index_sub(a, b)
        return self._pure("fsub" if a.dtype.kind == "f" else "sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        if a.type == "i64" and a.dtype.kind == "i":
            return self.builder.index_mul(a, b)
        return self._pure("fmul" if a.dtype.kind == "f" else "mul", a, b)

    def div(self, a: Value, b: Value) -> Value:
        """Integers: towards zero; 0 for a zero divisor; the extreme by -1 wraps."""
        if a.dtype.kind == "f":
            return self._pure("fdiv", a, b)
        signed = a.dtype.kind == "i"
        zero, one = self.like(0, a), self.like(1, a)
        if b.const is not None:
            if b.const == 0:
                return zero
            return self.neg(a) if signed and b.const == -1 else self._pure("sdiv" if signed else "udiv", a, b)
        by_zero = self.eq(b, zero)
        if not signed:
            return self.select(by_zero, zero, self._pure("udiv", a, self.select(by_zero, one, b)))
        by_minus = self.eq(b, self.like(-1, a))
        quotient = self._pure("sdiv", a, self.select(self.or_(by_zero, by_minus), one, b))
        return self.select(by_zero, zero, self.select(by_minus, self.neg(a), quotient))

    def floordiv(self, a: Value, b: Value) -> Value:
        return self._index_op("floordiv", a, b)

    def mod(self, a: Value, b: Value) -> Value:
        return self._index_op("mod", a, b)

    def min(self, a: Value, b: Value) -> Value:
        return self._index_op("min", a, b)

    def max(self, a: Value, b: Value) -> Value:
        return self._index_op("max", a, b)

    def _index_op(self, name: str, a: Value, b: Value) -> Value:
        if a.type == "i64" and a.dtype.kind == "i":
            return self.builder.index_op(name, a, b)
        if name in ("min", "max"):
            return self.builder.binary("s" + name, a, b)
        if b.const is None or b.const == 0:
            b = self.builder.binary("umax", b, self.like(1, b))
        return self._pure("udiv" if name == "floordiv" else "urem", a, b)

    def opaque(self, a: Value) -> Value:
        """An empty piece of assembly with `a` in and out: no instruction, but nothing is known of the result."""
        return self.builder.value(a.dtype, 1, f'call i64 asm "", "=r,0"({a.typed})')

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """One rounding where the target has the instruction, else a product and a sum."""
        if not self.target.fma:
            return self.add(self.mul(a, b), c)
        rhs = self.builder.intrinsic(f"fma.{mangled(a.type)}", a.type, [a.typed, b.typed, c.typed])
        return self.builder.pure(a.dtype, a.lanes, rhs)

    def neg(self, a: Value) -> Value:
        if a.dtype.kind == "f":
            return self.builder.pure(a.dtype, a.lanes, f"fneg {a.typed}")
        return self.sub(self.like(0, a), a)

    def abs(self, a: Value) -> Value:
        if a.dtype.kind == "f":
            return self.builder.unary("fabs", a)
        return self.builder.unary("abs", a, "i1 false") if a.dtype.kind == "i" else a

    def sqrt(self, a: Value) -> Value:
        return self.builder.unary("sqrt", a)

    def minimum(self, a: Value, b: Value) -> Value:
        return self._extremum("lt", "min", a, b)

    def maximum(self, a: Value, b: Value) -> Value:
        return self._extremum("gt", "max", a, b)

    def _extremum(self, order: str, name: str, a: Value, b: Value) -> Value:
        """`a < b ? a : b` is one instruction that gives b where either is NaN: only a NaN in `a` needs more."""
        kind = a.dtype.kind
        if kind == "b":
            return self.and_(a, b) if name == "min" else self.or_(a, b)
        if kind != "f":
            return self.builder.binary(("s" if kind == "i" else "u") + name, a, b)
        if b.const is not None and b.const == b.const:
            a, b = b, a
        best = self.select(self._compare(order, a, b), a, b)
        if a.const is not None and a.const == a.const:
            return best
        return self.select(self._fcmp("uno", a, a), a, best)

    # -- rounding

    def floor(self, a: Value) -> Value:
        return self._round("floor", a)

    def ceil(self, a: Value) -> Value:
        return self._round("ceil", a)

    def trunc(self, a: Value) -> Value:
        return self._round("trunc", a)

    def rint(self, a: Value) -> Value:
        return self._round("rint", a)

    def _round(self, name: str, a: Value) -> Value:
        if a.dtype.kind != "f":
            return a
        if self.target.rounding:
            return self.builder.unary(name, a)
        size, magic = self.abs(a), self.like(_MAGIC[a.dtype.itemsize], a)
        nearest = self.sub(self.add(size, magic), magic)
        one = self.like(1.0, a)
        if name == "trunc":
            nearest = self.select(self.gt(nearest, size), self.sub(nearest, one), nearest)
        elif name != "rint":
            signed = self.copysign(nearest, a)
            off, step = (self.gt(signed, a), self.sub) if name == "floor" else (self.lt(signed, a), self.add)
            nearest = self.select(off, step(signed, one), signed)
        return self.select(self.lt(size, magic), self.copysign(nearest, a), a)

    def copysign(self, magnitude: Value, sign: Value) -> Value:
        return self.builder.binary("copysign", magnitude, sign)

    # -- comparisons, bits and choices

    def eq(self, a: Value, b: Value) -> Value:
        return self._compare("eq", a, b)

    def ne(self, a: Value, b: Value) -> Value:
        return self._compare("ne", a, b)

    def lt(self, a: Value, b: Value) -> Value:
        return self._compare("lt", a, b)

    def le(self, a: Value, b: Value) -> Value:
        return self._compare("le", a, b)

    def gt(self, a: Value, b: Value) -> Value:
        return self._compare("gt", a, b)

    def ge(self, a: Value, b: Value) -> Value:
        return self._compare("ge", a, b)

    def _compare(self, name: str, a: Value, b: Value) -> Value:
        if a.dtype.kind == "f":
            return self._fcmp(_FLOAT_COMPARE[name], a, b)
        order = name if name in ("eq", "ne") else ("s" if a.dtype.kind == "i" else "u") + name
        return self.builder.pure(bool_, a.lanes, f"icmp {order} {a.type} {a.text}, {b.text}")

    def _fcmp(self, order: str, a: Value, b: Value) -> Value:
        return self.builder.pure(bool_, a.lanes, f"fcmp {order} {a.type} {a.text}, {b.text}")

    def and_(self, a: Value, b: Value) -> Value:
        return self._pure("and", a, b)

    def or_(self, a: Value, b: Value) -> Value:
        return self._pure("or", a, b)

    def xor(self, a: Value, b: Value) -> Value:
        return self._pure("xor", a, b)

    def not_(self, a: Value) -> Value:
        return self._pure("xor", a, self.like(True if a.dtype.kind == "b" else -1, a))

    def shl(self, a: Value, b: Value) -> Value:
        return self._pure("shl", a, b)

    def lshr(self, a: Value, b: Value) -> Value:
        return self._pure("lshr", a, b)

    def ashr(self, a: Value, b: Value) -> Value:
        return self._pure("ashr", a, b)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        return self.builder.pure(a.dtype, a.lanes, f"select {condition.typed}, {a.typed}, {b.typed}")

    # -- conversions

    def bitcast(self, a: Value, dtype: DType) -> Value:
        if a.dtype.itemsize != dtype.itemsize or "b" in (a.dtype.kind, dtype.kind):
            raise InternalError(f"bitcast of {a.dtype} to {dtype}")
        to = type_text(dtype, a.lanes)
        if to == a.type:  # only the sign differs
            return Value(a.text, dtype, a.lanes, a.level, a.const)
        return self.builder.pure(dtype, a.lanes, f"bitcast {a.typed} to {to}")

    def cast(self, a: Value, dtype: DType) -> Value:
        """NumPy's `astype`, with one result for floats that an integer dtype cannot hold."""
        return cast(self, a, dtype)

    # -- over all lanes

    def any(self, a: Value) -> Value:
        """Whether a lane is true."""
        return a if a.lanes == 1 else self._reduce_bits("or", a)

    def _reduce_bits(self, name: str, a: Value) -> Value:
        rhs = self.builder.intrinsic(f"vector.reduce.{name}.{mangled(a.type)}", "i1", [a.typed])
        return self.builder.pure(bool_, 1, rhs)

    def reduce(self, name: str, a: Value) -> Value:
        """The fixed tree of halves of the op `name`: lane i with lane i + n/2, and so on."""
        if a.lanes & (a.lanes - 1):
            raise InternalError(f"a reduction of {a.lanes} lanes, which is no power of two")
        if a.dtype.kind == "b" and a.lanes > 1 and name in ("and_", "or_", "xor"):
            return self._reduce_bits(name.rstrip("_"), a)
        while a.lanes > 1:
            half = a.lanes // 2
            a = getattr(self, name)(self.part(a, 0, half), self.part(a, half, half))
        return a

    # -- functions, written against this very protocol, and what only they ask for (maths_parts.MathsHandler)

    def function(self, name: str, *operands: Value) -> Value:
        outer, self._lanes = self._lanes, operands[0].lanes
        try:
            value: Value = maths.WRITTEN[name](self, *operands)
        finally:
            self._lanes = outer
        return value

    def left_over(self, rest: Value, quotient: Value, by: Value) -> Value:
        return self.function("left_over", rest, quotient, by)

    @property
    def fused(self) -> bool:
        """Whether `fma` rounds once."""
        return self.target.fma

    def rarely(
        self, condition: Value, usual: Sequence[Value], rare: Callable[[], Sequence[Value]]
    ) -> tuple[Value, ...]:
        """`select(condition, rare, usual)` of each value, behind a branch: `rare` runs if any lane needs it."""
        builder = self.builder
        number, before = builder.fresh(), [v.text for v in usual]
        some = self.any(condition)
        builder.push(f"rare{number}")
        chosen = [self.select(condition, r, u).text for r, u in zip(rare(), usual, strict=True)]
        builder.line(f"br label %join{number}")
        inner = builder.pop()
        outer = builder.levels[-1]
        entry = outer.block
        builder.line(f"br i1 {some.text}, label %rare{number}, label %join{number}")
        builder.start(f"rare{number}")
        builder.place(inner)
        builder.start(f"join{number}")
        return tuple(
            builder.value(v.dtype, v.lanes, f"phi {v.type} [ {first}, %{entry} ], [ {text}, %{inner.block} ]")
            for v, first, text in zip(usual, before, chosen, strict=True)
        )

    def scale(self, x: Value, n: Value, otherwise: Callable[[], Value]) -> Value:
        """x * 2^n for whole n, rounded once: an instruction for whole registers of AVX-512, else `otherwise`."""
        lanes = self.target.lanes(x.dtype.itemsize)
        if not self.target.scales or x.lanes % lanes:
            return otherwise()
        kind, suffix = type_text(x.dtype, lanes), "ps" if x.dtype.itemsize == 4 else "pd"
        name = f"x86.avx512.mask.scalef.{suffix}.{8 * self.target.vector_bytes}"
        parts = []
        for first in range(0, x.lanes, lanes):
            a, b = (v if x.lanes == lanes else self.part(v, first, lanes) for v in (x, n))
            operands = [a.typed, b.typed, f"{kind} zeroinitializer", f"i{lanes} -1", "i32 4"]  # all lanes, as it rounds
            parts.append(self.builder.pure(x.dtype, lanes, self.builder.intrinsic(name, kind, operands)))
        while len(parts) > 1:
            parts = [self.join(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def table(self, name: str, values: Sequence[int], index: Value) -> Value:
        """`values[index]` of a constant table of int64; equal names are equal tables."""
        size, lanes = len(values), index.lanes
        listed = ", ".join(f"i64 {wrapped(v, int64)}" for v in values)
        self.builder.declarations[f"@{name}"] = f"@{name} = private unnamed_addr constant [{size} x i64] [{listed}]"
        if lanes == 1:
            address = self.builder.pointer(f"getelementptr inbounds i64, ptr @{name}, {index.typed}", index.level)
            return self.builder.pure(int64, 1, f"load i64, ptr {address}, align 8")
        addresses = self.builder.pure(int64, lanes, f"getelementptr inbounds i64, ptr @{name}, {index.typed}").text
        every = f"<{lanes} x i1> splat (i1 true)"
        arguments = [f"<{lanes} x ptr> align 8 {addresses}", every, f"{index.type} zeroinitializer"]
        rhs = self.builder.intrinsic(f"masked.gather.v{lanes}i64.v{lanes}p0", index.type, arguments)
        return self.builder.pure(int64, lanes, rhs)
