"""Branches, bound names and register updates on top of `Builder`: what schedules with tiles and blocks need.

`branch` and `otherwise` open the arms of an If whose registers are found by themselves; `bind` and `opaque` name an
index at the current depth, so that what is computed from it stays inside the open block instead of moving out of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from graphc.loops.builder import Builder, Level, Scalar
from graphc.loops.ir import I64, Assign, Expr, If, Let, Load, Op, Reg, Stmt, Store, Var, const
from graphc.types import Dim, Size


@contextlib.contextmanager
def branch(builder: Builder, condition: Scalar | None) -> Iterator[None]:
    """Statements of the block run where `condition` (a bool scalar) holds; None is always.

    What does not depend on a name of the block is computed in front of it: `bind` indices inside of the block.
    """
    if condition is None:
        yield
        return
    builder.levels.append(Level())
    yield
    statements, carry = _closed(builder)
    builder.emit(If(condition.expr, statements, (), carry))


@contextlib.contextmanager
def otherwise(builder: Builder) -> Iterator[None]:
    """Right behind a `branch` with a condition: statements of the block run where that does not hold.

    One statement with two arms: registers are merged once behind it, not behind each of two branches.
    """
    first = builder.levels[-1].statements.pop()  # what the block computes in front of it stands before both
    assert isinstance(first, If) and not first.orelse
    builder.levels.append(Level())
    yield
    statements, carry = _closed(builder)
    builder.emit(If(first.condition, first.then, statements, tuple(dict.fromkeys((*first.carry, *carry)))))


def _closed(builder: Builder) -> tuple[tuple[Stmt, ...], tuple[str, ...]]:
    """The statements of the innermost block, which ends, and the registers from outside that they change."""
    level = builder.levels.pop()
    carry = tuple(name for name in level.assigned if name not in level.declared)
    builder.levels[-1].assigned.update(dict.fromkeys(carry))
    return tuple(level.statements), carry


def bind(builder: Builder, stem: str, size: Size) -> Dim:
    """A symbol for the value that `size` has here, belonging to the innermost open block."""
    var = Var(builder.fresh(stem))
    builder.emit(Let(var, builder.index(size).expr))
    builder.symbols[var.name] = Scalar(var, builder.depth)
    return Dim.symbol(var.name)


def opaque(builder: Builder, stem: str, size: Size, cell: str | None = None) -> Dim:
    """Like `bind`, but LLVM takes the value as given: by the op `opaque`, or as found in `cell` (int64 scratch).

    Otherwise its loop strength reduction looks through minima and divisions and computes them again in inner loops.
    """
    value: Expr = builder.index(size).expr
    if cell is not None:
        builder.emit(Store(cell, const(0), value))
        value = Load(cell, const(0), I64)
    var = Var(builder.fresh(stem))
    builder.emit(Let(var, value if cell is not None else Op("opaque", (value,), I64)))
    builder.symbols[var.name] = Scalar(var, builder.depth)
    return Dim.symbol(var.name)


def set_register(builder: Builder, register: Reg, value: Expr) -> None:
    """`register := value` with `value` evaluated at this very place (it may read registers)."""
    builder.emit(Assign(register, value))
    builder.levels[-1].assigned[register.name] = None
