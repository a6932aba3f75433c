"""The verifier of the loop IR: names, types, masks, registers and bounds of a kernel. Enter at `check_kernel`.

A new op needs a line in one of the tables of `_OPS`; a new statement a method of `_Checker`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import InternalError
from graphc.loops import ir
from graphc.loops.printer import print_statement
from graphc.ops.lowering import FUNCTIONS
from graphc.types import bool_, float64, int64

_NUMBERS = ["add", "sub", "mul", "div"]  # two operands of the result's type
_EXTREMA = ["minimum", "maximum"]
_INTEGERS = ["shl", "lshr", "ashr"]
_BITS = ["and_", "or_", "xor"]
_INDEX = ["floordiv", "mod", "min", "max"]
_COMPARE = ["eq", "ne", "lt", "le", "gt", "ge"]
_SAME = ["neg", "abs", "floor", "ceil", "trunc", "rint"]  # one operand of the result's type
_REDUCE = [f"reduce_{n}" for n in ("add", "mul", "min", "max", *_EXTREMA, *_BITS)]


class _Wrong(Exception):
    """What is wrong, without the place."""


def check_kernel(kernel: ir.LoopKernel) -> None:
    """Raise InternalError, naming kernel and statement, unless the kernel keeps the rules of `graphc.loops.ir`."""
    _Checker(kernel).run()


class _Scope:
    """The names that are visible at a place."""

    def __init__(self, outer: _Scope | None = None) -> None:
        self.variables: dict[str, ir.VType] = dict(outer.variables) if outer else {}
        self.constants: dict[str, tuple[int, int]] = dict(outer.constants) if outer else {}  # unrolled: (first, last)
        self.registers: dict[str, ir.Declare] = dict(outer.registers) if outer else {}
        self.buffers: dict[str, tuple[Any, bool]] = dict(outer.buffers) if outer else {}
        # Registers declared outside of the innermost serial loop or branch, and not in its carry: may not change.
        self.frozen: frozenset[str] = outer.frozen if outer else frozenset()


class _Checker:
    def __init__(self, kernel: ir.LoopKernel) -> None:
        self.kernel = kernel
        self.scope = _Scope()
        self.routines: dict[str, ir.Routine] = {}  # those that may be called here
        self.in_routine = False

    def run(self) -> None:
        kernel = self.kernel
        for routine in kernel.routines:
            self.in_routine = True
            self.enter(routine, f"routine {routine.name} of kernel {kernel.name}")
            self.inside(routine.body, None)
            self.in_routine = False
            if routine.name in self.routines:
                raise InternalError(f"kernel {kernel.name} has two routines called {routine.name}")
            self.routines[routine.name] = routine
        self.enter(kernel, f"kernel {kernel.name}")
        self.inside(kernel.body, "chunk")
        self.inside(kernel.finish, None)

    def enter(self, what: ir.LoopKernel | ir.Routine, title: str) -> None:
        """A scope with the parameters alone."""
        names = [*what.sizes, *(b.name for b in what.buffers)]
        for name in names:
            if names.count(name) > 1:
                raise InternalError(f"{title} has two parameters called {name}")
        self.scope = _Scope()
        self.scope.variables = dict.fromkeys(what.sizes, ir.I64)
        self.scope.buffers = {b.name: (b.dtype, b.writable) for b in what.buffers}

    def inside(self, body: Sequence[ir.Stmt], var: str | None, frozen: frozenset[str] = frozenset()) -> None:
        """Check a block in a scope of its own, with the loop variable `var`."""
        outer, self.scope = self.scope, _Scope(self.scope)
        self.scope.frozen |= frozen
        if var is not None:
            self.define(var, ir.I64)
        self.block(body)
        self.scope = outer

    def block(self, statements: Sequence[ir.Stmt]) -> None:
        for statement in statements:
            try:
                _STATEMENTS[type(statement)](self, statement)
            except _Wrong as wrong:
                text = "\n    ".join(print_statement(statement)[:8])
                raise InternalError(f"kernel {self.kernel.name}: {wrong}\n    {text}") from None

    def need(self, holds: bool, message: str) -> None:
        if not holds:
            raise _Wrong(message)

    def define(self, name: str, vtype: ir.VType) -> None:
        scope = self.scope
        self.need(name not in scope.buffers and name not in scope.registers, f"{name} is defined twice")
        scope.variables[name] = vtype
        scope.constants.pop(name, None)

    # -- statements

    def let(self, s: ir.Let) -> None:
        self.same(self.type_of(s.value), s.var.vtype, f"the value of {s.var.name}")
        self.need(s.var.name not in self.scope.variables, f"{s.var.name} is defined twice")
        self.define(s.var.name, s.var.vtype)

    def declare(self, s: ir.Declare) -> None:
        initial = self.type_of(s.init)
        self.same(ir.VType(initial.dtype, s.vtype.lanes), s.vtype, f"the start of {s.name}")
        self.need(initial.lanes in (1, s.vtype.lanes), f"{s.name} starts with {initial}")
        taken = (*self.scope.variables, *self.scope.registers, *self.scope.buffers)
        self.need(s.name not in taken, f"{s.name} is defined twice")
        self.scope.registers[s.name] = s
        self.scope.frozen -= {s.name}

    def assign(self, s: ir.Assign) -> None:
        self.same(self.type_of(s.value), self.type_of(s.target), f"the value of {s.target.name}")
        self.need(s.target.name not in self.scope.frozen, f"{s.target.name} changes, but is in no carry of this block")

    def store(self, s: ir.Store) -> None:
        value = self.type_of(s.value)
        dtype, writable = self.buffer(s.buffer)
        self.need(writable, f"{s.buffer} is not writable")
        self.need(dtype == value.dtype, f"{s.buffer} holds {dtype}, not {value.dtype}")
        self.access(s.index, value.lanes, s.mask)

    def loop(self, s: ir.For) -> None:
        for bound in (s.start, s.stop):
            self.same(self.type_of(bound), ir.I64, f"a bound of {s.var}")
        self.need(isinstance(s.step, int) and s.step > 0, f"step {s.step} is not positive")
        self.need(s.kind in ("serial", "unroll"), f"there is no loop of kind {s.kind}")
        self.need(s.var not in self.scope.variables, f"{s.var} is defined twice")
        self.carried(s.carry)
        if s.kind == "serial":
            self.inside(s.body, s.var, frozenset(self.scope.registers) - set(s.carry))
            return
        start, stop = self.range_of(s.start), self.range_of(s.stop)
        if start is None or stop is None:
            raise _Wrong(f"the bounds of the unrolled {s.var} are not constant")
        outer, self.scope = self.scope, _Scope(self.scope)
        self.define(s.var, ir.I64)
        self.scope.constants[s.var] = (start[0], max(start[0], stop[1] - 1))
        self.block(s.body)
        self.scope = outer

    def branch(self, s: ir.If) -> None:
        self.same(self.type_of(s.condition), ir.BOOL, "a condition")
        self.carried(s.carry)
        frozen = frozenset(self.scope.registers) - set(s.carry)
        self.inside(s.then, None, frozen)
        self.inside(s.orelse, None, frozen)

    def carried(self, names: Sequence[str]) -> None:
        for name in names:
            self.need(name in self.scope.registers, f"{name} is carried but not declared")
            self.need(name not in self.scope.frozen, f"{name} is carried here, but by no loop or branch around")

    def call(self, s: ir.Call) -> None:
        routine = self.routines.get(s.routine)
        if routine is None:
            raise _Wrong(f"there is no routine {s.routine} before this place")
        self.need(len(s.buffers) == len(routine.buffers), f"{s.routine} takes {len(routine.buffers)} buffers")
        self.need(len(s.sizes) == len(routine.sizes), f"{s.routine} takes {len(routine.sizes)} sizes")
        for (name, index), param in zip(s.buffers, routine.buffers, strict=True):
            dtype, writable = self.buffer(name)
            self.need(dtype == param.dtype, f"{name} holds {dtype}, not {param.dtype}")
            self.need(writable or not param.writable, f"{name} is not writable")
            self.same(self.type_of(index), ir.I64, f"the start of {param.name}")
        for size in s.sizes:
            self.same(self.type_of(size), ir.I64, f"a size of {s.routine}")

    def scratch(self, s: ir.Scratch) -> None:
        self.need(not self.in_routine, "a routine has no scratch of its own")
        self.need(isinstance(s.size, int) and s.size > 0, f"scratch of {s.size} elements")
        self.need(s.name not in self.scope.buffers and s.name not in self.scope.variables, f"{s.name} is defined twice")
        self.scope.buffers[s.name] = (s.dtype, True)

    def fail(self, s: ir.Fail) -> None:
        self.same(self.type_of(s.condition), ir.BOOL, "a condition")
        self.same(self.type_of(s.index), ir.I64, "an index")
        self.need(0 <= s.node < 2**23, f"node {s.node} does not fit into the error word")

    def prefetch(self, s: ir.Prefetch) -> None:
        self.buffer(s.buffer)
        self.access(s.index, 1, None)

    def comment(self, s: ir.Comment) -> None:
        pass

    # -- expressions

    def same(self, found: ir.VType, wanted: ir.VType, what: str) -> None:
        self.need(found == wanted, f"{what} is {found}, not {wanted}")

    def buffer(self, name: str) -> tuple[Any, bool]:
        if name not in self.scope.buffers:
            raise _Wrong(f"there is no buffer {name}")
        return self.scope.buffers[name]

    def access(self, index: ir.Expr, lanes: int, mask: ir.Expr | None) -> None:
        found = self.type_of(index)
        self.need(found.dtype == int64 and found.lanes in (1, lanes), f"an index of {lanes} elements is {found}")
        if mask is not None:
            self.same(self.type_of(mask), ir.VType(bool_, lanes), "a mask")

    def range_of(self, expr: ir.Expr) -> tuple[int, int] | None:
        """The least and greatest value of a constant, also over the variables of unrolled loops."""
        if isinstance(expr, ir.Const):
            return int(expr.value), int(expr.value)
        if isinstance(expr, ir.Var):
            return self.scope.constants.get(expr.name)
        if isinstance(expr, ir.Op) and expr.name in _RANGE and len(expr.args) == 2:
            a, b = self.range_of(expr.args[0]), self.range_of(expr.args[1])
            if a is None or b is None:
                return None
            corners = [_RANGE[expr.name](x, y) for x in a for y in b]
            return min(corners), max(corners)
        return None

    def type_of(self, expr: ir.Expr) -> ir.VType:
        """The type of an expression, which it must have; its parts are checked first."""
        if isinstance(expr, ir.Const):
            self.need(expr.vtype.lanes >= 1, f"a constant of {expr.vtype.lanes} lanes")
        elif isinstance(expr, ir.Var):
            if expr.name not in self.scope.variables:
                raise _Wrong(f"{expr.name} is used before it is defined")
            self.same(expr.vtype, self.scope.variables[expr.name], expr.name)
        elif isinstance(expr, ir.Reg):
            self.register(expr)
        elif isinstance(expr, ir.Load):
            dtype, _ = self.buffer(expr.buffer)
            self.need(dtype == expr.vtype.dtype, f"{expr.buffer} holds {dtype}, not {expr.vtype.dtype}")
            self.access(expr.index, expr.vtype.lanes, expr.mask)
        else:
            self.op(expr)
        return expr.vtype

    def register(self, expr: ir.Reg) -> None:
        declared = self.scope.registers.get(expr.name)
        if declared is None:
            raise _Wrong(f"the registers {expr.name} are used before they are declared")
        self.same(expr.vtype, declared.vtype, expr.name)
        self.need(len(expr.index) == len(declared.shape), f"{expr.name} has {len(declared.shape)} axes")
        for size, index in zip(declared.shape, expr.index, strict=True):
            self.same(self.type_of(index), ir.I64, f"an index of {expr.name}")
            span = self.range_of(index)
            if span is None:
                raise _Wrong(f"an index of the registers {expr.name} is not constant")
            self.need(span[0] >= 0 and span[1] < size, f"{expr.name} has {size} registers, not one at {span[1]}")

    def op(self, expr: ir.Op) -> None:
        types = [self.type_of(a) for a in expr.args]
        rule = _OPS.get(expr.name)
        if rule is None:
            raise _Wrong(f"there is no op {expr.name}")
        count, holds = rule
        self.need(len(types) == count, f"{expr.name} takes {count} operands, not {len(types)}")
        shown = ", ".join(map(str, types))
        self.need(holds(expr, types), f"{expr.name}({shown}) does not give {expr.vtype}")
        narrow = any(t.dtype.is_narrow for t in types)
        self.need(not narrow or expr.name in _MOVES, f"{expr.name}({shown}) computes with narrow floats")
        if expr.name == "extract":
            span = self.range_of(expr.args[1])
            self.need(span is not None and 0 <= span[0] <= span[1] < types[0].lanes, f"{types[0]} has no such lane")


_MOVES = frozenset({"cast", "select", "splat", "extract", "zip_low", "zip_high", "even", "odd", "join"})
_RANGE: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "min": min,
    "max": max,
    "floordiv": lambda a, b: a // (b or 1),
}
_Rule = tuple[int, Callable[[ir.Op, list[ir.VType]], bool]]


def _rules(names: Sequence[str], count: int, holds: Callable[[ir.Op, list[ir.VType]], bool]) -> dict[str, _Rule]:
    return dict.fromkeys(names, (count, holds))


def _all_same(e: ir.Op, t: list[ir.VType]) -> bool:
    return all(x == e.vtype for x in t)


def _reduces(e: ir.Op, t: list[ir.VType]) -> bool:
    lanes = t[0].lanes
    return lanes & (lanes - 1) == 0 and e.vtype == ir.VType(t[0].dtype)


def _count(e: ir.Op, position: int) -> int:
    """An operand that is a constant number."""
    arg = e.args[position]
    return int(arg.value) if isinstance(arg, ir.Const) else 0


def _divides(e: ir.Op, *counts: int) -> bool:
    """Whether each is a divisor of the next, and the last one of the lanes."""
    return all(a > 0 and b % a == 0 for a, b in zip(counts, (*counts[1:], e.vtype.lanes), strict=True))


_OPS: dict[str, _Rule] = {
    **_rules(_NUMBERS, 2, lambda e, t: _all_same(e, t) and e.vtype.dtype.kind != "b"),
    **_rules(_EXTREMA, 2, _all_same),
    **_rules(_INTEGERS, 2, lambda e, t: _all_same(e, t) and e.vtype.dtype.is_integer),
    **_rules(_BITS, 2, lambda e, t: _all_same(e, t) and not e.vtype.dtype.is_float),
    **_rules(_INDEX, 2, lambda e, t: _all_same(e, t) and e.vtype.dtype == int64),
    **_rules(_COMPARE, 2, lambda e, t: t[0] == t[1] and e.vtype == ir.VType(bool_, t[0].lanes)),
    **_rules(_SAME, 1, lambda e, t: _all_same(e, t) and e.vtype.dtype.kind != "b"),
    "sqrt": (1, lambda e, t: _all_same(e, t) and e.vtype.dtype.is_float),
    **{name: (arity, lambda e, t: _all_same(e, t) and e.vtype.dtype.is_float) for name, arity in FUNCTIONS.items()},
    **_rules(
        ["zip_low", "zip_high"], 4, lambda e, t: _all_same(e, t[:2]) and _divides(e, 2 * _count(e, 2), _count(e, 3))
    ),
    **_rules(["even", "odd"], 3, lambda e, t: _all_same(e, t[:2]) and _divides(e, 2 * _count(e, 2))),
    "join": (2, lambda e, t: t[0] == t[1] and e.vtype == ir.VType(t[0].dtype, 2 * t[0].lanes)),
    "opaque": (1, lambda e, t: e.vtype == ir.I64 and _all_same(e, t)),
    "not_": (1, lambda e, t: _all_same(e, t) and not e.vtype.dtype.is_float),
    "copysign": (2, lambda e, t: _all_same(e, t) and e.vtype.dtype.is_float),
    "fma": (3, lambda e, t: _all_same(e, t) and e.vtype.dtype.is_float),
    "left_over": (3, lambda e, t: _all_same(e, t) and e.vtype.dtype == float64),
    "select": (3, lambda e, t: t[0] == ir.VType(bool_, e.vtype.lanes) and _all_same(e, t[1:])),
    "cast": (1, lambda e, t: t[0].lanes == e.vtype.lanes),
    "bitcast": (
        1,
        lambda e, t: (
            t[0].lanes == e.vtype.lanes
            and t[0].dtype.itemsize == e.vtype.dtype.itemsize
            and "b" not in (t[0].dtype.kind, e.vtype.dtype.kind)
        ),
    ),
    "splat": (1, lambda e, t: t[0] == ir.VType(e.vtype.dtype)),
    "lanes": (0, lambda e, t: e.vtype.dtype == int64),
    "extract": (2, lambda e, t: e.vtype == ir.VType(t[0].dtype) and t[1] == ir.I64),
    "any": (1, lambda e, t: t[0].dtype.kind == "b" and e.vtype == ir.BOOL),
    **_rules(_REDUCE, 1, _reduces),
}
_STATEMENTS: dict[type, Callable[[_Checker, Any], None]] = {
    ir.Let: _Checker.let,
    ir.Declare: _Checker.declare,
    ir.Assign: _Checker.assign,
    ir.Store: _Checker.store,
    ir.For: _Checker.loop,
    ir.If: _Checker.branch,
    ir.Scratch: _Checker.scratch,
    ir.Fail: _Checker.fail,
    ir.Prefetch: _Checker.prefetch,
    ir.Call: _Checker.call,
    ir.Comment: _Checker.comment,
}
