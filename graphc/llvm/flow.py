"""Loops and branches around what is emitted: names and registers as they are now, and phis where control flow joins.

A loop or branch that changes registers turns the names in its `carry` into phis. Enter at `Flow`, which the emitter
builds on: `loop`, `branch` and, where no loop is needed, `once`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.llvm.arithmetic import Arithmetic
from graphc.llvm.builder import Builder, Loop
from graphc.llvm.values import Registers, Value
from graphc.target import Target
from graphc.types import int64


class Flow:
    """What is in scope at this place, and the statements that hold others."""

    def __init__(self, builder: Builder, target: Target) -> None:
        self.builder, self.target = builder, target
        self.arithmetic = Arithmetic(builder, target)
        self.names: dict[str, Value] = {}
        self.registers: dict[str, Registers] = {}

    def once(self, var: str, value: Value, body: Callable[[], None]) -> None:
        """The body of a loop for one value of its variable."""

        def inside() -> None:
            self.names[var] = value
            body()

        self._scoped(inside)

    def _carried(self, carry: Sequence[str]) -> list[tuple[Registers, int]]:
        """The registers that a loop or branch changes, each with its position."""
        return [(r, k) for name in carry for r in [self.registers[name]] for k in range(len(r.values))]

    def _scoped(self, body: Callable[[], None]) -> None:
        """Run `body`; what it names and declares ends with it."""
        names, registers = dict(self.names), dict(self.registers)
        body()
        self.names, self.registers = names, registers

    def loop(
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
        self.once(var, counter, body)
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

    def branch(
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
