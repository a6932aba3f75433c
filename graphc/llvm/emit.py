"""A loop kernel as the text of an LLVM module: statements, registers as SSA values, and the function around them.

    i32 @name(ptr %context, ptr %sizes, ptr %buffers, i64 %begin, i64 %end, i64 %worker)

Enter at `emit`. Registers (Declare, Assign) are Python lists of the values that they hold now; loops and branches are
in `flow.py`. Unrolled loops run here, in Python. No LLVM pass runs afterwards, so what is written here is what the code
generator sees. To add a statement, add a method to `_Emitter` and a line to `_STATEMENTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import InternalError
from graphc.llvm.builder import Builder
from graphc.llvm.flow import Flow
from graphc.llvm.memory import Memory, Pointer
from graphc.llvm.scratch import CACHE_LINE, STACK_BYTES, scratch_layout
from graphc.llvm.values import Registers, Value
from graphc.loops import ir
from graphc.ops.lowering import FUNCTIONS
from graphc.target import Target
from graphc.types import int64

SCRATCH_BASE, SCRATCH_STRIDE = 2, 3  # context words: address of all workers' scratch, bytes for each worker
_INDEX_BITS = 40
_PARAMETERS = "ptr %context, ptr %sizes, ptr %buffers, i64 %begin, i64 %end, i64 %worker"


def emit(kernel: ir.LoopKernel, target: Target) -> str:
    """The LLVM module for `kernel`: a function with the kernel's name, those of its routines, and intrinsics.

    The kernel must be well formed (`graphc.loops.check.check_kernel`).
    """
    return _Emitter(kernel, target).module()


class _Emitter(Flow):
    def __init__(self, kernel: ir.LoopKernel, target: Target) -> None:
        super().__init__(Builder(), target)
        self.kernel = kernel
        self.memory = Memory(self.arithmetic)
        self.constants: dict[tuple[int | str, str, int], Value] = {}
        self.methods: dict[str, Callable[..., Value]] = {}  # of ops that only have operands: nearly all
        self.offsets, self.scratch = scratch_layout(kernel)
        self.scratch_pointer = ""

    # -- the function

    def module(self) -> str:
        """The whole text."""
        kernel, target = self.kernel, self.target
        self._entry()
        begin, end = Value("%begin", int64), Value("%end", int64)

        def chunks() -> None:
            self.loop("chunk", begin, end, 1, (), lambda: self.block(kernel.body))

        if kernel.finish:
            final = self.arithmetic.eq(begin, self.builder.integer(-1))
            self.branch(final, (), lambda: self.block(kernel.finish), chunks)
        else:
            chunks()
        self.builder.line("ret i32 0")
        bits = str(8 * target.vector_bytes)
        attributes = {"prefer-vector-width": bits, "min-legal-vector-width": bits}
        attributes |= {"target-cpu": target.cpu, "target-features": target.features}
        listed = " ".join(f'"{name}"="{text}"' for name, text in attributes.items() if text)
        lines = [
            f"; {kernel.name}",
            f'target triple = "{target.triple}"',
            "",
            *(line for routine in kernel.routines for line in self._routine(routine)),
            f"define i32 @{kernel.name}({_PARAMETERS}) #0 {{",
            "entry:",
            *self.builder.pop().lines,
            "}",
            "",
            *self.builder.declarations.values(),
            f"attributes #0 = {{ nounwind {listed} }}",
            "!0 = !{}",
            "",
        ]
        return "\n".join(lines)

    def _routine(self, routine: ir.Routine) -> list[str]:
        """The function of a routine, which this module alone sees."""
        inner = _Emitter(self.kernel, self.target)
        inner.builder.declarations = self.builder.declarations
        inner.names = {size: Value(f"%{size}", int64) for size in routine.sizes}
        inner.memory.pointers = {b.name: Pointer(f"%{b.name}", b.dtype, b.align) for b in routine.buffers}
        inner.block(routine.body)
        parameters = [*(f"ptr %{b.name}" for b in routine.buffers), *(f"i64 %{size}" for size in routine.sizes)]
        name = f"{self.kernel.name}.{routine.name}"
        head = f"define internal void @{name}({', '.join(['ptr %context', *parameters])}) #0 {{"
        return [head, "entry:", *inner.builder.pop().lines, "  ret void", "}", ""]

    def _entry(self) -> None:
        """Load sizes and addresses once; make room for scratch."""
        line = self.builder.line
        for number, size in enumerate(self.kernel.sizes):
            line(f"%at.{size} = getelementptr inbounds i64, ptr %sizes, i64 {number}")
            line(f"%{size} = load i64, ptr %at.{size}, align 8, !invariant.load !0")
            self.names[size] = Value(f"%{size}", int64)
        for number, buffer in enumerate(self.kernel.buffers):
            line(f"%at.{buffer.name} = getelementptr inbounds ptr, ptr %buffers, i64 {number}")
            line(f"%{buffer.name} = load ptr, ptr %at.{buffer.name}, align 8, !invariant.load !0")
            self.memory.pointers[buffer.name] = Pointer(f"%{buffer.name}", buffer.dtype, buffer.align)
        if 0 < self.scratch <= STACK_BYTES:
            line(f"%scratch = alloca [{self.scratch} x i8], align {CACHE_LINE}")
            self.scratch_pointer = "%scratch"
        elif self.scratch:
            line(f"%at.scratch = getelementptr inbounds i64, ptr %context, i64 {SCRATCH_BASE}")
            line("%scratch.all = load ptr, ptr %at.scratch, align 8")
            line(f"%at.stride = getelementptr inbounds i64, ptr %context, i64 {SCRATCH_STRIDE}")
            line("%stride = load i64, ptr %at.stride, align 8")
            line("%scratch.offset = mul i64 %stride, %worker")
            line("%scratch = getelementptr i8, ptr %scratch.all, i64 %scratch.offset")
            self.scratch_pointer = "%scratch"

    # -- expressions

    def value(self, expr: ir.Expr) -> Value:
        """The value of an expression at this place."""
        return _EXPRESSIONS[type(expr)](self, expr)

    def _const(self, expr: ir.Const) -> Value:
        value = expr.value if type(expr.value) is int else repr(expr.value)  # 0, 0.0, -0.0 and False are four constants
        key = (value, expr.vtype.dtype.name, expr.vtype.lanes)
        found = self.constants.get(key)
        if found is None:
            found = self.constants[key] = self.builder.constant(expr.value, expr.vtype.dtype, expr.vtype.lanes)
        return found

    def _var(self, expr: ir.Var) -> Value:
        found = self.names.get(expr.name)
        if found is None:
            raise InternalError(f"kernel {self.kernel.name} uses {expr.name} before it is defined")
        return found

    def _register(self, expr: ir.Reg) -> tuple[Registers, int]:
        registers = self.registers.get(expr.name)
        if registers is None:
            raise InternalError(f"kernel {self.kernel.name} uses the registers {expr.name} before they are declared")
        position = 0
        if not registers.shape:
            return registers, position
        for size, index in zip(registers.shape, expr.index, strict=True):
            number = self.value(index).const
            if number is None or not 0 <= number < size:
                raise InternalError(f"kernel {self.kernel.name}: {expr.name} has {size} registers, not one at {index}")
            position = position * size + int(number)
        return registers, position

    def _reg(self, expr: ir.Reg) -> Value:
        registers, position = self._register(expr)
        return registers.values[position]

    def _load(self, expr: ir.Load) -> Value:
        mask = self.value(expr.mask) if expr.mask is not None else None
        return self.memory.load(expr.buffer, self.value(expr.index), expr.vtype.lanes, mask)

    def _op(self, expr: ir.Op) -> Value:
        name, arithmetic = expr.name, self.arithmetic
        if name == "lanes":
            return arithmetic.lanes(expr.vtype.dtype, expr.vtype.lanes)
        first = expr.args[0]
        if name == "splat" and isinstance(first, ir.Load) and first.mask is None:
            return self.memory.broadcast(first.buffer, self.value(first.index), expr.vtype.lanes)
        arguments = [self.value(a) for a in expr.args]
        if name in self.methods:
            return self.methods[name](*arguments)
        if name == "splat":
            return arithmetic.splat(arguments[0], expr.vtype.lanes)
        if name in ("cast", "bitcast"):
            converted: Value = getattr(arithmetic, name)(arguments[0], expr.vtype.dtype)
            return converted
        if name == "extract":
            return arithmetic.extract(arguments[0], int(arguments[1].const or 0))
        if name == "join":
            return arithmetic.join(*arguments)
        if name in ("zip_low", "zip_high", "even", "odd"):
            counts = [int(x.const or 0) for x in arguments[2:]]
            shuffled: Value = getattr(arithmetic, name)(*arguments[:2], *counts)
            return shuffled
        if name.startswith("reduce_"):
            return arithmetic.reduce(name[len("reduce_") :], arguments[0])
        if name in FUNCTIONS:
            return arithmetic.function(name, *arguments)
        self.methods[name] = getattr(arithmetic, name)
        return self.methods[name](*arguments)

    # -- statements

    def block(self, statements: Sequence[ir.Stmt]) -> None:
        """Emit statements in order."""
        for statement in statements:
            _STATEMENTS[type(statement)](self, statement)

    def _let(self, s: ir.Let) -> None:
        self.names[s.var.name] = self.value(s.value)

    def _declare(self, s: ir.Declare) -> None:
        count = 1
        for size in s.shape:
            count *= size
        initial = self.arithmetic.splat(self.value(s.init), s.vtype.lanes)
        self.registers[s.name] = Registers(s.shape, s.vtype, [initial] * count)

    def _assign(self, s: ir.Assign) -> None:
        value = self.value(s.value)
        registers, position = self._register(s.target)
        registers.values[position] = value

    def _store(self, s: ir.Store) -> None:
        mask = self.value(s.mask) if s.mask is not None else None
        self.memory.store(s.buffer, self.value(s.index), self.value(s.value), mask)

    def _scratch(self, s: ir.Scratch) -> None:
        offset = self.offsets[s.name]
        address = self.scratch_pointer
        if offset:
            address = self.builder.pointer(f"getelementptr i8, ptr {address}, i64 {offset}", 0)
        self.memory.pointers[s.name] = Pointer(address, s.dtype, CACHE_LINE)

    def _prefetch(self, s: ir.Prefetch) -> None:
        self.memory.prefetch(s.buffer, self.value(s.index), s.write)

    def _call(self, s: ir.Call) -> None:
        operands = [f"ptr {self.memory.address(buffer, self.value(index))}" for buffer, index in s.buffers]
        operands += [self.value(size).typed for size in s.sizes]
        self.builder.line(f"call void @{self.kernel.name}.{s.routine}({', '.join(['ptr %context', *operands])})")

    def _comment(self, s: ir.Comment) -> None:
        for text in s.text.splitlines():
            self.builder.line(f"; {text}")

    def _fail(self, s: ir.Fail) -> None:
        index = self.value(s.index)

        def report() -> None:
            last = self.builder.integer((1 << _INDEX_BITS) - 1)
            low = self.builder.binary("umin", index, last)
            word = self.arithmetic.or_(low, self.builder.integer(s.node << _INDEX_BITS))
            self.builder.line(f"atomicrmw umin ptr %context, {word.typed} monotonic, align 8")

        self.branch(self.value(s.condition), (), report, None)

    def _if(self, s: ir.If) -> None:
        orelse = (lambda: self.block(s.orelse)) if s.orelse else None
        self.branch(self.value(s.condition), s.carry, lambda: self.block(s.then), orelse)

    def _for(self, s: ir.For) -> None:
        start, stop = self.value(s.start), self.value(s.stop)
        if s.kind == "unroll":
            if start.const is None or stop.const is None:
                raise InternalError(f"kernel {self.kernel.name}: the loop over {s.var} cannot be unrolled")
            for number in range(int(start.const), int(stop.const), s.step):
                self.once(s.var, self.builder.integer(number), lambda: self.block(s.body))
        elif start.const is not None and stop.const is not None and stop.const - start.const <= s.step:
            if start.const < stop.const:
                self.once(s.var, start, lambda: self.block(s.body))
        else:
            self.loop(s.var, start, stop, s.step, s.carry, lambda: self.block(s.body))


_EXPRESSIONS: dict[type, Callable[[_Emitter, Any], Value]] = {
    ir.Const: _Emitter._const,
    ir.Var: _Emitter._var,
    ir.Reg: _Emitter._reg,
    ir.Load: _Emitter._load,
    ir.Op: _Emitter._op,
}
_STATEMENTS: dict[type, Callable[[_Emitter, Any], None]] = {
    ir.Let: _Emitter._let,
    ir.Declare: _Emitter._declare,
    ir.Assign: _Emitter._assign,
    ir.Store: _Emitter._store,
    ir.For: _Emitter._for,
    ir.If: _Emitter._if,
    ir.Scratch: _Emitter._scratch,
    ir.Fail: _Emitter._fail,
    ir.Prefetch: _Emitter._prefetch,
    ir.Call: _Emitter._call,
    ir.Comment: _Emitter._comment,
}
