"""Guards: every access of a kernel to memory is checked against the size of its buffer or scratch, while it runs.

Enter at `guard`, which `config(guard_memory=True)` puts behind lowering. The tests run every op so; it costs several
times the run time. A store that would go outside is not done, so the error is still there to be told; a load is done,
and far outside may end the process. Lanes under a mask touch nothing and are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce

from graphc.loops import ir
from graphc.loops.printer import print_statement
from graphc.loops.program import Check, Program
from graphc.types import Call, Size, bool_, int64, symbols

Bounds = dict[str, ir.Expr]  # buffer or scratch -> how many elements it has


def guard(program: Program) -> Program:
    """The program with a Fail in front of each statement that reads or writes memory, and a Check for each Fail."""
    checks = list(program.checks)
    kernels = {name: _Guarding(kernel, checks).run() for name, kernel in program.kernels.items()}
    return replace(program, kernels=kernels, checks=tuple(checks))


class _Guarding:
    """One kernel being guarded; what its guards mean is appended to `checks`."""

    def __init__(self, kernel: ir.LoopKernel, checks: list[Check]) -> None:
        self.kernel, self.checks = kernel, checks

    def run(self) -> ir.LoopKernel:
        kernel, bounds = self.kernel, _bounds(self.kernel)
        routines = tuple(replace(r, body=self._block(r.body, _bounds(r))) for r in kernel.routines)
        body, finish = self._block(kernel.body, bounds), self._block(kernel.finish, bounds)
        return replace(kernel, body=body, finish=finish, routines=routines)

    def _block(self, statements: Sequence[ir.Stmt], bounds: Bounds) -> tuple[ir.Stmt, ...]:
        bounds = dict(bounds)
        result: list[ir.Stmt] = []
        for statement in statements:
            if isinstance(statement, ir.Scratch):
                bounds[statement.name] = ir.const(statement.size)
            found = [_outside(a, bounds[a.buffer]) for a in _accesses(statement) if a.buffer in bounds]
            if isinstance(statement, ir.Call):
                found += self._handed(statement, bounds)
            if found:
                outside = reduce(_or, found)
                result.append(ir.Fail(outside, len(self.checks), ir.const(0)))
                self.checks.append(Check(f"{self.kernel.name}: {print_statement(statement)[0].strip()}", (), None, -1))
                if isinstance(statement, (ir.Store, ir.Call)):
                    result.append(ir.If(ir.Op("not_", (outside,), ir.BOOL), (statement,)))
                    continue
            if isinstance(statement, ir.For):
                statement = replace(statement, body=self._block(statement.body, bounds))
            elif isinstance(statement, ir.If):
                then, orelse = self._block(statement.then, bounds), self._block(statement.orelse, bounds)
                statement = replace(statement, then=then, orelse=orelse)
            result.append(statement)
        return tuple(result)

    def _handed(self, call: ir.Call, bounds: Bounds) -> list[ir.Expr]:
        """For each buffer of a call: whether what the routine may touch of it begins before it or ends behind it."""
        (routine,) = (r for r in self.kernel.routines if r.name == call.routine)
        sizes = dict(zip(routine.sizes, call.sizes, strict=True))
        found = []
        for (buffer, start), param in zip(call.buffers, routine.buffers, strict=True):
            if buffer in bounds:
                stop = _op("add", start, _expr(param.size, sizes))
                found.append(_or(_less(start, ir.const(0)), _less(bounds[buffer], stop)))
        return found


def _bounds(of: ir.LoopKernel | ir.Routine) -> Bounds:
    """A buffer whose size has a name that the kernel does not get cannot be guarded."""
    return {b.name: _expr(b.size) for b in of.buffers if set(symbols(b.size)) <= set(of.sizes)}


def _accesses(statement: ir.Stmt) -> Iterator[ir.Load]:
    """What a statement itself reads and writes, written as loads; what the blocks in it do is not its own."""
    match statement:
        case ir.Let(_, value) | ir.Assign(_, value):
            yield from _loads([value])
        case ir.Declare():
            yield from _loads([statement.init])
        case ir.For():
            yield from _loads([statement.start, statement.stop])
        case ir.If() | ir.Fail():
            yield from _loads([statement.condition])
        case ir.Call():
            yield from _loads([*(index for _, index in statement.buffers), *statement.sizes])
        case ir.Store(buffer, index, value, mask):
            yield from _loads([index, value, *([mask] if mask else [])])
            yield ir.Load(buffer, index, value.vtype, mask)


def _loads(expressions: Iterable[ir.Expr]) -> Iterator[ir.Load]:
    for expression in expressions:
        if isinstance(expression, ir.Load):
            yield from _loads([expression.index, *([expression.mask] if expression.mask else [])])
            yield expression
        elif isinstance(expression, ir.Op):
            yield from _loads(expression.args)


def _outside(access: ir.Load, size: ir.Expr) -> ir.Expr:
    """Whether a lane that is not masked off lies before the first or behind the last element."""
    lanes, index = access.vtype.lanes, access.index
    if access.mask is None and index.vtype.lanes == 1:
        return _or(_less(index, ir.const(0)), _less(size, _op("add", index, ir.const(lanes))))
    wide, flags = ir.VType(int64, lanes), ir.VType(bool_, lanes)
    if index.vtype.lanes < lanes:
        index = ir.Op("add", (_splat(index, wide), ir.Op("lanes", (), wide)), wide)
    below = ir.Op("lt", (index, _splat(ir.const(0), wide)), flags)
    above = ir.Op("ge", (index, _splat(size, wide)), flags)
    outside = ir.Op("or_", (below, above), flags)
    if access.mask is not None:
        outside = ir.Op("and_", (access.mask, outside), flags)
    return ir.Op("any", (outside,), ir.BOOL) if lanes > 1 else outside


def _splat(scalar: ir.Expr, vtype: ir.VType) -> ir.Expr:
    return ir.Op("splat", (scalar,), vtype) if vtype.lanes > 1 else scalar


def _op(name: str, *args: ir.Expr) -> ir.Expr:
    return ir.Op(name, args, ir.I64)


def _less(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return ir.Op("lt", (a, b), ir.BOOL)


def _or(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return ir.Op("or_", (a, b), ir.BOOL)


def _expr(size: Size, values: Mapping[str, ir.Expr] | None = None) -> ir.Expr:
    """A size polynomial as an expression over the kernel's size arguments, or over these values of its names."""
    if isinstance(size, int):
        return ir.const(size)
    terms = []
    for monomial, factor in size.terms:
        factors = [ir.const(factor), *(_atom(atom, values) for atom in monomial)]
        terms.append(reduce(lambda a, b: _op("mul", a, b), factors))
    return reduce(lambda a, b: _op("add", a, b), terms)


def _atom(atom: str | Call, values: Mapping[str, ir.Expr] | None) -> ir.Expr:
    if isinstance(atom, Call):
        return _op(atom.fn, *(_expr(arg, values) for arg in atom.args))
    return values[atom] if values is not None else ir.Var(atom)
