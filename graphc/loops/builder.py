"""A builder of loop IR that puts every computation at the outermost loop that it does not depend on.

`Builder` is the `Handler` that scalar bodies run against when a kernel is lowered. It keeps a stack of open levels
(level 0 is the chunk, one more for each open loop). Every result is named by a `Let` in the level of its deepest
operand, so loop-invariant code is hoisted by construction: no LLVM pass would do it later. Index arithmetic is a
`Dim` polynomial over loop variables until `index` turns it into i64 expressions, split by level in the same way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from graphc.bounds import clamped_below_zero
from graphc.errors import InternalError
from graphc.loops.ir import (
    I64,
    Assign,
    Const,
    Declare,
    Expr,
    For,
    If,
    Let,
    Load,
    Op,
    Reg,
    Stmt,
    Store,
    Var,
    VType,
    record,
)  # fmt: skip
from graphc.loops.ranges import Ranges as Ranges
from graphc.loops.ranges import linear_address as linear_address
from graphc.types import Call, Dim, DType, Size, bool_, int64, symbols

LANE = "lane"  # the symbol that stands for 0, 1, 2, ... across the lanes of a vector index
_LANES = ((LANE,), 1)


@record
class Scalar:
    """A computed value: its expression and the depth of the level that it is available from. May have lanes."""

    expr: Expr
    depth: int = 0

    @property
    def dtype(self) -> DType:
        return self.expr.vtype.dtype

    @property
    def lanes(self) -> int:
        return self.expr.vtype.lanes


@dataclass
class Level:
    """One open block."""

    statements: list[Stmt] = field(default_factory=list)
    memo: dict[Expr, Scalar] = field(default_factory=dict)
    declared: set[str] = field(default_factory=set)
    assigned: dict[str, None] = field(default_factory=dict)


class Builder:
    """See the module. `lanes` is the one lane count of the kernel; `sizes` become i64 arguments."""

    def __init__(self, lanes: int) -> None:
        self.lane_count = lanes
        self.extents: dict[str, Size] = {LANE: lanes}  # below what symbols stay, of those that never are negative
        self.levels = [Level()]
        self.symbols: dict[str, Scalar] = {
            LANE: Scalar(Op("lanes", (), VType(int64, lanes))),
            "chunk": Scalar(Var("chunk")),
        }
        self.sizes: dict[str, None] = {}
        self._names = 0
        self._known: dict[Any, tuple[Scalar, int, Level]] = {}

    # levels

    @property
    def depth(self) -> int:
        return len(self.levels) - 1

    def fresh(self, stem: str) -> str:
        self._names += 1
        return f"{stem}{self._names}"

    def emit(self, statement: Stmt, depth: int | None = None) -> None:
        """Append a statement to the innermost open level, or to the one at `depth`."""
        self.levels[self.depth if depth is None else depth].statements.append(statement)

    def let(self, expr: Expr, depth: int, stem: str = "t") -> Scalar:
        """Name `expr` at `depth`; constants and names stay as they are. The same expression is named once a level."""
        if isinstance(expr, (Const, Var)):
            return Scalar(expr, depth)
        memo = self.levels[depth].memo
        found: Scalar | None = memo.get(expr)
        if found is None:
            var = Var(self.fresh(stem), expr.vtype)
            self.emit(Let(var, expr), depth)
            found = memo[expr] = Scalar(var, depth)
        return found

    def remember(self, key: Any, value: Scalar, depth: int) -> None:
        """Keep a value under a key as long as the level at `depth` is open."""
        self._known[key] = value, depth, self.levels[depth]

    def recall(self, key: Any) -> Scalar | None:
        """The value that is remembered under a key."""
        value, depth, level = self._known.get(key, (None, 0, None))
        return value if depth < len(self.levels) and self.levels[depth] is level else None

    @contextlib.contextmanager
    def loop(self, stem: str, start: Size, stop: Size, step: int = 1) -> Iterator[Dim]:
        """An open serial loop; gives its variable as a `Dim` symbol. Carried registers are found by themselves."""
        first, last = self.index(start), self.index(stop)
        name = self.fresh(stem)
        self.levels.append(Level())
        self.symbols[name] = Scalar(Var(name), self.depth)
        if isinstance(start, int) and isinstance(stop, int) and 0 <= start < stop:
            self.extents[name] = stop - (stop - start - 1) % step
        yield Dim.symbol(name)
        level = self.levels.pop()
        carry = tuple(n for n in level.assigned if n not in level.declared)
        self.levels[-1].assigned.update(dict.fromkeys(carry))
        self.emit(For(name, first.expr, last.expr, step, tuple(level.statements), carry))

    @contextlib.contextmanager
    def together(self, vectors: int) -> Iterator[None]:
        """Within, a vector is as long as so many of the kernel: the emitter's registers take turns at each step."""
        kept = self.lane_count, self.extents[LANE], self.symbols[LANE], self._known
        lanes = self.lane_count * vectors
        self.lane_count = self.extents[LANE] = lanes
        self.symbols[LANE], self._known = Scalar(Op("lanes", (), VType(int64, lanes))), {}
        yield
        self.lane_count, self.extents[LANE], self.symbols[LANE], self._known = kept

    # registers and memory

    def register(self, init: Scalar, stem: str = "acc") -> Reg:
        name = self.fresh(stem)
        self.emit(Declare(name, (), init.expr.vtype, init.expr))
        self.levels[-1].declared.add(name)
        return Reg(name, (), init.expr.vtype)

    def assign(self, target: Reg, value: Scalar) -> None:
        self.emit(Assign(target, self.widened(value, target.vtype.lanes).expr))
        self.levels[-1].assigned[target.name] = None

    def read(self, register: Reg) -> Scalar:
        """The value that a register has now, under a name that later changes do not touch."""
        var = Var(self.fresh("r"), register.vtype)
        self.emit(Let(var, register))
        return Scalar(var, self.depth)

    def load(
        self, buffer: str, dtype: DType, address: Size, mask: Scalar | None, guard: Scalar | None = None
    ) -> Scalar:
        """BUFFER[address]; a vector if `address` moves with the lanes, consecutive if by one element a lane.

        mask: of the lanes. guard: a scalar condition for reading at all; what is not read is 0.
        """
        vector, base = self.lane_form(address)
        index = self.index(base)
        if not vector and index.lanes == 1:
            depth = max(index.depth, guard.depth if guard else 0)
            return self.let(Load(buffer, index.expr, VType(dtype), guard.expr if guard else None), depth, "x")
        if guard is not None:
            wide = self.widened(guard, self.lane_count)
            mask = wide if mask is None else self.and_(mask, wide)
        depth = max(index.depth, mask.depth if mask else 0)
        expr = Load(buffer, index.expr, VType(dtype, self.lane_count), mask.expr if mask else None)
        return self.let(expr, depth, "x")

    def store(self, buffer: str, address: Size, value: Scalar, mask: Scalar | None) -> None:
        vector, base = self.lane_form(address)
        index = self.index(base)
        if vector or index.lanes > 1:
            value = self.widened(value, self.lane_count)
            self.emit(Store(buffer, index.expr, value.expr, mask.expr if mask else None))
        else:
            self.emit(Store(buffer, index.expr, value.expr))

    def update_at(self, buffer: str, address: Size, op: str | None, value: Scalar, inside: Scalar) -> None:
        """BUFFER[address] = op(BUFFER[address], value) where `inside` holds (scalars); None: value.

        A plain statement, never shared or moved.
        """
        index, vtype = self.index(address), VType(value.dtype)
        if op is None:
            self.emit(If(inside.expr, (Store(buffer, index.expr, value.expr),)))
            return
        old = Var(self.fresh("old"), vtype)
        new = Op(op, (old, value.expr), vtype)
        self.emit(If(inside.expr, (Let(old, Load(buffer, index.expr, vtype)), Store(buffer, index.expr, new))))

    def lane_form(self, address: Size) -> tuple[bool, Size]:
        """(True, address of lane 0) if lanes read consecutive elements, else (False, address)."""
        if isinstance(address, Dim) and _LANES in address.terms:
            rest = tuple([term for term in address.terms if term[0] != _LANES[0]])  # in order: a number is the last
            base = Dim(rest, address.plain) if rest and rest[0][0] else sum(factor for _, factor in rest)
            if not any(name in self.symbols and self.symbols[name].lanes > 1 for name in symbols(base)):
                return True, base
        return False, address

    # index arithmetic

    def index(self, size: Size) -> Scalar:
        """The value of an index polynomial, computed level by level."""
        if isinstance(size, int):
            return Scalar(Const(size, I64))
        known = self.recall(size)
        if known is not None:
            return known
        offset = 0 if size.terms[-1][0] else size.terms[-1][1]
        if offset:  # elements of a tile differ by constants only: what they share is looked up, not put together again
            base = self.index(size - offset)
            if base.lanes == 1:  # an address takes a constant for nothing
                found = Scalar(Op("add", (base.expr, Const(offset, I64)), I64), base.depth)
            else:
                found = self.add(base, self.constant(offset, int64))
            self.remember(size, found, found.depth)
            return found
        terms: list[tuple[Scalar, bool]] = []
        for monomial, factor in size.terms:
            terms.append((self._monomial(monomial, 1 if factor == -1 else factor), factor == -1))
        terms.sort(key=lambda term: (term[0].depth, term[1]))  # outer levels first, what is added before the rest
        total: Scalar | None = None
        for term, negative in terms:
            if total is None:
                total = self.sub(self.constant(0, int64), term) if negative else term
            else:
                total = self.sub(total, term) if negative else self.add(total, term)
        assert total is not None
        self.remember(size, total, total.depth)
        return total

    def _monomial(self, monomial: tuple[Any, ...], factor: int) -> Scalar:
        factors = sorted((self._atom(atom) for atom in monomial), key=lambda s: s.depth)
        result = factors[0]
        for other in factors[1:]:
            result = self.mul(result, other)
        return result if factor == 1 else self.mul(result, self.constant(factor, int64))

    def _atom(self, atom: str | Call) -> Scalar:
        if isinstance(atom, Call):
            a, b = (self.index(arg) for arg in atom.args)
            if atom.fn == "floordiv" and clamped_below_zero(atom.args[0]):
                zero, down = self.constant(0, int64), self.sub(self.sub(b, self.constant(1, int64)), a)
                whole = self.op("floordiv", int64, self.op("max", int64, a, zero), b)
                return self.select(self.lt(a, zero), self.sub(zero, self.op("floordiv", int64, down, b)), whole)
            return self.op(atom.fn, int64, a, b)
        if atom not in self.symbols:
            self.sizes[atom] = None
            self.symbols[atom] = Scalar(Var(atom))
        return self.symbols[atom]

    # the handler: scalar bodies call these

    def op(self, name: str, dtype: DType, *args: Scalar) -> Scalar:
        """The result of `name`, named at the depth of its deepest operand; scalars are widened to a vector operand."""
        lanes, depth = 1, 0
        for a in args:
            if a.expr.vtype.lanes > lanes:
                lanes = a.expr.vtype.lanes
            if a.depth > depth:
                depth = a.depth
        operands = tuple([a.expr if a.expr.vtype.lanes == lanes else self.widened(a, lanes).expr for a in args])
        return self.let(Op(name, operands, VType(dtype, lanes)), depth)

    def fold_lanes(self, name: str, value: Scalar) -> Scalar:
        """One scalar from the lanes of a vector by `name` (add, mul, maximum, ..., min, any), in a fixed tree."""
        if value.lanes == 1:
            return value
        op = name if name == "any" else f"reduce_{name}"
        return self.let(Op(op, (value.expr,), VType(value.dtype)), value.depth)

    def widened(self, value: Scalar, lanes: int) -> Scalar:
        if value.lanes == lanes:
            return value
        if value.lanes != 1:
            raise InternalError(f"a vector of {value.lanes} lanes where {lanes} are wanted")
        if isinstance(value.expr, Const):
            return Scalar(Const(value.expr.value, VType(value.dtype, lanes)))
        return self.let(Op("splat", (value.expr,), VType(value.dtype, lanes)), value.depth, "v")

    def constant(self, value: float | int | bool, dtype: DType) -> Scalar:
        return Scalar(Const(value, VType(dtype)))

    def add(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("add", a.dtype, a, b)

    def sub(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("sub", a.dtype, a, b)

    def mul(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("mul", a.dtype, a, b)

    def div(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("div", a.dtype, a, b)

    def fma(self, a: Scalar, b: Scalar, c: Scalar) -> Scalar:
        return self.op("fma", a.dtype, a, b, c)

    def left_over(self, rest: Scalar, quotient: Scalar, by: Scalar) -> Scalar:
        return self.op("left_over", rest.dtype, rest, quotient, by)

    def neg(self, a: Scalar) -> Scalar:
        return self.op("neg", a.dtype, a)

    def abs(self, a: Scalar) -> Scalar:
        return self.op("abs", a.dtype, a)

    def sqrt(self, a: Scalar) -> Scalar:
        return self.op("sqrt", a.dtype, a)

    def floor(self, a: Scalar) -> Scalar:
        return self.op("floor", a.dtype, a)

    def ceil(self, a: Scalar) -> Scalar:
        return self.op("ceil", a.dtype, a)

    def trunc(self, a: Scalar) -> Scalar:
        return self.op("trunc", a.dtype, a)

    def rint(self, a: Scalar) -> Scalar:
        return self.op("rint", a.dtype, a)

    def copysign(self, magnitude: Scalar, sign: Scalar) -> Scalar:
        return self.op("copysign", magnitude.dtype, magnitude, sign)

    def minimum(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("minimum", a.dtype, a, b)

    def maximum(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("maximum", a.dtype, a, b)

    def eq(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("eq", bool_, a, b)

    def ne(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("ne", bool_, a, b)

    def lt(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("lt", bool_, a, b)

    def le(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("le", bool_, a, b)

    def gt(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("gt", bool_, a, b)

    def ge(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("ge", bool_, a, b)

    def and_(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("and_", a.dtype, a, b)

    def or_(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("or_", a.dtype, a, b)

    def xor(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("xor", a.dtype, a, b)

    def not_(self, a: Scalar) -> Scalar:
        return self.op("not_", a.dtype, a)

    def shl(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("shl", a.dtype, a, b)

    def lshr(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("lshr", a.dtype, a, b)

    def ashr(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("ashr", a.dtype, a, b)

    def select(self, condition: Scalar, a: Scalar, b: Scalar) -> Scalar:
        return self.op("select", a.dtype, condition, a, b)

    def cast(self, a: Scalar, dtype: DType) -> Scalar:
        return a if a.dtype == dtype else self.op("cast", dtype, a)

    def bitcast(self, a: Scalar, dtype: DType) -> Scalar:
        return a if a.dtype == dtype else self.op("bitcast", dtype, a)

    def function(self, name: str, *operands: Scalar) -> Scalar:
        return self.op(name, operands[0].dtype, *operands)
