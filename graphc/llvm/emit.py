"""A loop kernel as the text of an LLVM module: statements, registers as SSA values, and the function around them.

    i32 @name(ptr %context, ptr %sizes, ptr %buffers, i64 %begin, i64 %end, i64 %worker)

Enter at `emit`. Registers (Declare, Assign) are Python lists of the values that they hold now; a loop or branch that
changes them turns the names in its `carry` into phis. Unrolled loops run here, in Python. No LLVM pass runs
afterwards, so what is written here is what the code generator sees. To add a statement, add a method to `_Emitter`
and a line to `_STATEMENTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import InternalError
from graphc.llvm.arithmetic import Arithmetic
from graphc.llvm.builder import Builder, Loop
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


class _Emitter:
    def __init__(self, kernel: ir.LoopKernel, target: Target) -> None:
        self.kernel = kernel
        self.target = target
        self.builder = Builder()
        self.arithmetic = Arithmetic(self.builder, target)
        self.memory = Memory(self.arithmetic)
        self.names: dict[str, Value] = {}
        self.constants: dict[tuple[int | str, str, int], Value] = {}
        self.methods: dict[str, Callable[..., Value]] = {}  # of ops that only have operands: nearly all
        self.registers: dict[str, Registers] = {}
        self.offsets, self.scratch = scratch_layout(kernel)
        self.scratch_pointer = ""

    # -- the function

    def module(self) -> str:
        """The whole text."""
        kernel, target = self.kernel, self.target
        self._entry()
        begin, end = Value("%begin", int64), Value("%end", int64)

        def chunks() -> None:
            self._loop("chunk", begin, end, 1, (), lambda: self.block(kernel.body))

        if kernel.finish:
            final = self.arithmetic.eq(begin, self.builder.integer(-1))
            self._branch(final, (), lambda: self.block(kernel.finish), chunks)
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

        self._branch(self.value(s.condition), (), report, None)

    def _if(self, s: ir.If) -> None:
        orelse = (lambda: self.block(s.orelse)) if s.orelse else None
        self._branch(self.value(s.condition), s.carry, lambda: self.block(s.then), orelse)

    def _for(self, s: ir.For) -> None:
        start, stop = self.value(s.start), self.value(s.stop)
        if s.kind == "unroll":
            if start.const is None or stop.const is None:
                raise InternalError(f"kernel {self.kernel.name}: the loop over {s.var} cannot be unrolled")
            for number in range(int(start.const), int(stop.const), s.step):
                self._once(s.var, self.builder.integer(number), s.body)
        elif start.const is not None and stop.const is not None and stop.const - start.const <= s.step:
            if start.const < stop.const:
                self._once(s.var, start, s.body)
        else:
            self._loop(s.var, start, stop, s.step, s.carry, lambda: self.block(s.body))

    def _once(self, var: str, value: Value, body: Sequence[ir.Stmt]) -> None:
        """The body for one value of the loop variable; what it declares ends with it."""
        names, registers = dict(self.names), dict(self.registers)
        self.names[var] = value
        self.block(body)
        self.names, self.registers = names, registers

    # -- control flow

    def _carried(self, carry: Sequence[str]) -> list[tuple[Registers, int]]:
        """The registers that a loop or branch changes, each with its position."""
        return [(r, k) for name in carry for r in [self.registers[name]] for k in range(len(r.values))]

    def _scoped(self, body: Callable[[], None]) -> None:
        names, registers = dict(self.names), dict(self.registers)
        body()
        self.names, self.registers = names, registers

    def _loop(
        self, var: str, start: Value, stop: Value, step: int, carry: Sequence[str], body: Callable[[], None]
    ) -> None:
        """A loop that tests at its end; a test in front skips it, unless it is known to run."""
        builder = self.builder
        guarded = start.const is None or stop.const is None  # constant bounds that never run leave no loop
        number = builder.fresh()
        header, done = f"{var}.loop{number}", f"{var}.done{number}"
        slots = self._carried(carry)
        initial = [r.values[k] for r, k in slots]
        first_number, before = start.text, [v.text for v in initial]  # written before the loop, wherever they are lazy
        depth = len(builder.levels)
        counter = Value(f"%{var}.{number}", int64, 1, depth)
        loop = Loop(counter, start, step) if self.target.steps_addresses else None
        builder.push(header, loop)
        phis = [Value(builder.name(builder.levels[-1]), v.dtype, v.lanes, depth) for v in initial]
        for (r, k), phi in zip(slots, phis, strict=True):
            r.values[k] = phi

        def inside() -> None:
            self.names[var] = counter
            body()

        self._scoped(inside)
        after = [r.values[k].text for r, k in slots]
        following = f"%{var}.next{number}"
        builder.line(f"{following} = add nsw i64 {counter.text}, {step}")
        walks = [] if loop is None else list(loop.walks.values())
        for walk in walks:
            builder.line(f"{walk.name}.next = {walk.following}")
        builder.line(f"{following}.more = icmp slt i64 {following}, {stop.text}")
        builder.line(f"br i1 {following}.more, label %{header}, label %{done}")
        inner = builder.pop()
        outer = builder.levels[-1]
        if guarded:
            runs = self.arithmetic.lt(start, stop)
            builder.line(f"br i1 {runs.text}, label %{header}, label %{done}")
        else:
            builder.line(f"br label %{header}")
        entry = outer.block
        builder.start(header)
        carried = [(v.text, v.type, first, last) for v, first, last in zip(phis, before, after, strict=True)]
        carried += [(walk.name, walk.type, walk.first, f"{walk.name}.next") for walk in walks]
        for name, type_, first, last in [(counter.text, "i64", first_number, following), *carried]:
            builder.line(f"{name} = phi {type_} [ {first}, %{entry} ], [ {last}, %{inner.block} ]")
        builder.place(inner)
        builder.start(done)
        for (r, k), v, first, last in zip(slots, initial, before, after, strict=True):
            if guarded:
                ways = f"[ {first}, %{entry} ], [ {last}, %{inner.block} ]"
                r.values[k] = builder.value(v.dtype, v.lanes, f"phi {v.type} {ways}")
            else:
                r.values[k] = Value(last, v.dtype, v.lanes, depth - 1)

    def _branch(
        self,
        condition: Value,
        carry: Sequence[str],
        then: Callable[[], None],
        orelse: Callable[[], None] | None,
    ) -> None:
        """Run `then` or `orelse`; the carried registers are merged behind them."""
        builder = self.builder
        if condition.const is not None:
            chosen = then if condition.const else orelse
            if chosen is not None:
                self._scoped(chosen)
            return
        number = builder.fresh()
        slots = self._carried(carry)
        initial = [r.values[k] for r, k in slots]
        join = f"join{number}"
        arms, ways = [], []  # what was written; where each way begins, where it ends, its registers
        for label, body in ((f"then{number}", then), (f"else{number}", orelse)):
            if body is None:
                ways.append((join, builder.levels[-1].block, [v.text for v in initial]))
                continue
            builder.push(label)
            self._scoped(body)
            texts = [r.values[k].text for r, k in slots]
            builder.line(f"br label %{join}")
            for (r, k), v in zip(slots, initial, strict=True):
                r.values[k] = v
            arms.append((label, builder.pop()))
            ways.append((label, arms[-1][1].block, texts))
        (left, end_a, lefts), (right, end_b, rights) = ways
        builder.line(f"br i1 {condition.text}, label %{left}, label %{right}")
        for label, arm in arms:
            builder.start(label)
            builder.place(arm)
        builder.start(join)
        for (r, k), v, a, b in zip(slots, initial, lefts, rights, strict=True):
            if a != b:  # an arm changed it
                r.values[k] = builder.value(v.dtype, v.lanes, f"phi {v.type} [ {a}, %{end_a} ], [ {b}, %{end_b} ]")


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
