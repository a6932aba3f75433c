"""Instructions as text: nested levels of blocks, fresh names, common subexpressions, folded index arithmetic.

A *level* is the inside of a loop or of a branch. While it is open, the level around it still takes lines, which land
in front of the loop: so a scalar i64 operation is emitted in the outermost level that has its operands (it is pure
and cannot trap), which is all the loop-invariant motion that indices need. An index is kept as `base + constant` and
the sum is written only where something else than an address needs it, so that a register tile shares one base
address. Enter at `Builder`; `push`/`pop` bracket a level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.llvm.values import Value, constant_text, mangled, type_text, wrapped
from graphc.types import DType, int64

MOST_ORIGINS = 8  # addresses that a loop steps from: more leave no registers for the rest
_NUMBERS = 1000  # that a piece of a level has for its values; further ones have longer names


class Level:
    """The lines of an open loop or branch; `block` is the label of the block that its last line is in.

    `loop` is the loop whose inside it is, None for a branch. `number` is the last that a value of it was named by.
    """

    __slots__ = ("block", "keys", "lines", "loop", "number")

    def __init__(self, block: str, number: int, loop: Loop | None = None) -> None:
        self.block = block
        self.number = number
        self.lines: list[str] = []
        self.keys: list[str] = []
        self.loop = loop


class Loop:
    """A loop's counter, where it starts, its step, and what is carried beside it.

    `origins`: of each stride, the addresses that its multiples are added to. `walks`: by their first value and stride.
    """

    __slots__ = ("counter", "first", "origins", "step", "walks")

    def __init__(self, counter: Value, first: Value, step: int) -> None:
        self.counter = counter
        self.first = first
        self.step = step
        self.origins: dict[tuple[str, str], list[str]] = {}
        self.walks: dict[tuple[str, str], Walk] = {}


@dataclass(frozen=True)
class Walk:
    """What a loop carries: its name and type, its value in front of the loop, and what gives the following one."""

    name: str
    type: str
    first: str
    following: str


class Offset(Value):
    """The i64 scalar `base + offset`, written when its text is first asked for."""

    __slots__ = ("base", "builder", "offset")

    def __init__(self, builder: Builder, base: Value, offset: int) -> None:
        self.dtype = int64
        self.lanes = 1
        self.type = "i64"
        self.level = base.level
        self.const = None
        self.builder = builder
        self.base = base
        self.offset = offset

    @property
    def text(self) -> str:  # type: ignore[override]
        return self.builder.pure(int64, 1, f"add i64 {self.base.text}, {self.offset}", self.level).text


def split(value: Value) -> tuple[Value | None, int]:
    """An i64 scalar as (base, constant): base None for a constant."""
    if value.const is not None:
        return None, int(value.const)
    if isinstance(value, Offset):
        return value.base, value.offset
    return value, 0


class Builder:
    """The function that is being written."""

    def __init__(self) -> None:
        self.levels = [Level("entry", 0)]
        self.declarations: dict[str, str] = {}
        self._table: dict[str, Value] = {}
        self._parts: dict[str, tuple[str, Value, Value]] = {}  # i64 value -> the operation and operands it came from
        self._near: dict[str, tuple[str, str]] = {}  # a pointer of `near` -> the last block that has it, its name there
        self._count = 0
        self._pieces = 0  # of levels: what is written between two levels inside of one

    # -- levels and lines

    def push(self, block: str, loop: Loop | None = None) -> None:
        """Open a level whose first block is `block`."""
        self.levels.append(Level(block, self._piece(), loop))

    def pop(self) -> Level:
        """Close the innermost level: its values are not reused any more. The caller places it."""
        level = self.levels.pop()
        for key in level.keys:
            del self._table[key]
        return level

    def place(self, inner: Level) -> None:
        """The lines of a closed level, here."""
        level = self.levels[-1]
        level.lines += inner.lines
        level.number = self._piece()

    def _piece(self) -> int:
        """Where the numbers of a new piece of the text begin: behind those of all that stands above it.

        LLVM reads numbers in half the time of names, but they have to increase from line to line, and while a level is
        open lines are added to those around it.
        """
        self._pieces += 1
        return self._pieces * _NUMBERS

    def name(self, level: Level) -> str:
        """A name for the next line of a level."""
        if (level.number + 1) % _NUMBERS == 0:
            return self.fresh("%.")
        level.number += 1
        return f"%{level.number}"

    def fresh(self, stem: str = "") -> str:
        """A number, with a stem in front, that no other name in the function has."""
        self._count += 1
        return f"{stem}{self._count}"

    def line(self, text: str) -> None:
        """One instruction without a result."""
        self.levels[-1].lines.append("  " + text)

    def start(self, block: str) -> None:
        """Begin a block of the current level; the line before it must have been a branch."""
        level = self.levels[-1]
        level.lines.append(f"{block}:")
        level.block = block

    def value(self, dtype: DType, lanes: int, rhs: str) -> Value:
        """An instruction that stays where it is: a load, a phi."""
        level = self.levels[-1]
        name = self.name(level)
        level.lines.append(f"  {name} = {rhs}")
        return Value(name, dtype, lanes, len(self.levels) - 1)

    def pure(self, dtype: DType, lanes: int, rhs: str, level: int | None = None) -> Value:
        """A pure instruction, shared with an equal one before it; in the current level or the given outer one."""
        found = self._table.get(rhs)
        if found is not None:  # i32 and u32, say, have one LLVM type
            return found if found.dtype is dtype else Value(found.text, dtype, lanes, found.level)
        where = len(self.levels) - 1 if level is None else level
        target = self.levels[where]
        name = self.name(target)
        target.lines.append(f"  {name} = {rhs}")
        target.keys.append(rhs)
        value = self._table[rhs] = Value(name, dtype, lanes, where)
        return value

    def pointer(self, rhs: str, level: int) -> str:
        """The name of a pure instruction that gives a pointer."""
        return self.pure(int64, 1, rhs, level).text

    def near(self, rhs: str) -> str:
        """The name of a pointer, computed in the block that uses it: there instructions take a constant for nothing,
        while one from another block is a register, and an instruction.
        """
        level = self.levels[-1]
        block, name = self._near.get(rhs, ("", ""))
        if block != level.block:
            name = self.name(level)
            level.lines.append(f"  {name} = {rhs}")
            self._near[rhs] = level.block, name
        return name

    def intrinsic(self, name: str, result: str, arguments: Sequence[str]) -> str:
        """The right-hand side of a call to `llvm.NAME`, declared once; `arguments` are typed operands."""
        if name not in self.declarations:
            kinds = ", ".join(_type_of(a) for a in arguments)
            self.declarations[name] = f"declare {result} @llvm.{name}({kinds})"
        return f"call {result} @llvm.{name}({', '.join(arguments)})"

    def unary(self, name: str, a: Value, *flags: str) -> Value:
        """`llvm.NAME` overloaded on the type of `a`."""
        return self.pure(a.dtype, a.lanes, self.intrinsic(f"{name}.{mangled(a.type)}", a.type, [a.typed, *flags]))

    def binary(self, name: str, a: Value, b: Value) -> Value:
        """`llvm.NAME` of two values of one type."""
        rhs = self.intrinsic(f"{name}.{mangled(a.type)}", a.type, [a.typed, b.typed])
        return self.pure(a.dtype, a.lanes, rhs)

    # -- constants and index arithmetic

    def constant(self, value: float | int | bool, dtype: DType, lanes: int = 1) -> Value:
        """A constant, a vector of equal lanes if there are several."""
        return Value(constant_text(value, dtype, lanes), dtype, lanes, 0, value)

    def integer(self, value: int) -> Value:
        """A constant i64."""
        value = wrapped(value, int64)
        return Value(str(value), int64, 1, 0, value)

    def index(self, operation: str, a: Value, b: Value) -> Value:
        """A scalar i64 instruction, in the outermost level that has both operands."""
        value = self.pure(int64, 1, f"{operation} i64 {a.text}, {b.text}", max(a.level, b.level))
        self._parts[value.text] = (operation, a, b)
        return value

    # -- strength reduction: addresses that move with a loop are stepped by the loop

    def walk(self, element: str, origin: Callable[[Value], str], index: Value) -> str | None:
        """The address of element `index`, stepped by the loop that the index moves with.

        The first address of a stride is a pointer, for an address of one register may be part of a multiply-add at no
        cost; others of that stride share one carried index. origin: gives the address of an index from outside of the
        loop. None: the index is no multiple of its loop's counter, or the loop has enough addresses already.
        """
        level = index.level
        loop, found = self.levels[level].loop, self._linear(index, level)
        if loop is None or found is None or found[1].const == 0:
            return None
        base, stride = found
        start = origin(base)
        origins = loop.origins.setdefault((element, stride.text), [])
        if start not in origins:
            if sum(map(len, loop.origins.values())) >= MOST_ORIGINS:
                return None
            origins.append(start)
        first = self.index_mul(loop.first, stride)
        by = self.index_mul(stride, self.integer(loop.step)).text
        if start == origins[0]:
            key = (start, f"{element}, {by}")
            if key not in loop.walks:
                if first.const != 0:
                    start = self.pointer(f"getelementptr {element}, ptr {start}, i64 {first.text}", level - 1)
                name = self.fresh("%.")
                loop.walks[key] = Walk(name, "ptr", start, f"getelementptr {element}, ptr {name}, i64 {by}")
            return loop.walks[key].name
        key, step = ("", by), loop.counter.text
        if stride.const != 1:
            if key not in loop.walks:
                name = self.fresh("%.")
                loop.walks[key] = Walk(name, "i64", first.text, f"add i64 {name}, {by}")
            step = loop.walks[key].name
        return self.pointer(f"getelementptr {element}, ptr {start}, i64 {step}", level)

    def _linear(self, value: Value, level: int) -> tuple[Value, Value] | None:
        """(base, stride) of `base + stride * counter` of the loop at `level`, both from outside; None: another form."""
        loop = self.levels[level].loop
        if value.level < level:
            return value, self.integer(0)
        if loop is None:
            return None
        if value is loop.counter:
            return self.integer(0), self.integer(1)
        if isinstance(value, Offset):
            inner = self._linear(value.base, level)
            return None if inner is None else (self.index_add(inner[0], self.integer(value.offset)), inner[1])
        operation, a, b = self._parts.get(value.text, ("", value, value))
        if operation not in ("add", "sub", "mul"):
            return None
        left, right = self._linear(a, level), self._linear(b, level)
        if left is None or right is None:
            return None
        if operation == "add":
            return self.index_add(left[0], right[0]), self.index_add(left[1], right[1])
        if operation == "sub":
            return self.index_sub(left[0], right[0]), self.index_sub(left[1], right[1])
        if left[1].const == 0:
            left, right = right, left
        return (self.index_mul(left[0], right[0]), self.index_mul(left[1], right[0])) if right[1].const == 0 else None

    def _offset(self, base: Value | None, offset: int) -> Value:
        offset = wrapped(offset, int64)
        if base is None:
            return self.integer(offset)
        return Offset(self, base, offset) if offset else base

    def index_add(self, a: Value, b: Value) -> Value:
        """`a + b` of i64 scalars."""
        (x, m), (y, n) = split(a), split(b)
        if x is None or y is None:
            return self._offset(x or y, m + n)
        if x.text > y.text:
            x, y = y, x
        return self._offset(self.index("add", x, y), m + n)

    def index_sub(self, a: Value, b: Value) -> Value:
        """`a - b` of i64 scalars."""
        (x, m), (y, n) = split(a), split(b)
        if y is None:
            return self._offset(x, m - n)
        if x is not None and x.text == y.text:
            return self.integer(m - n)
        if x is None:
            return self.index("sub", self.integer(m - n), y)
        return self._offset(self.index("sub", x, y), m - n)

    def index_mul(self, a: Value, b: Value) -> Value:
        """`a * b` of i64 scalars."""
        if a.const is None and b.const is None:
            return self.index("mul", *((a, b) if a.text <= b.text else (b, a)))
        if a.const is not None:
            a, b = b, a
        factor = int(b.const or 0)
        base, offset = split(a)
        if base is None or factor == 0:
            return self.integer(offset * factor)
        scaled = base if factor == 1 else self.index("mul", base, self.integer(factor))
        return self._offset(scaled, offset * factor)

    def index_op(self, name: str, a: Value, b: Value) -> Value:
        """`floordiv`, `mod` (of non-negative numbers; 0 divisors count as 1), `min` and `max` of i64 scalars."""
        if a.const is not None and b.const is not None:
            return self.integer(_FOLD[name](int(a.const), int(b.const)))
        if name in ("floordiv", "mod"):
            if b.const == 1:
                return a if name == "floordiv" else self.integer(0)
            if b.const is None:  # hoisted out of loops that may not run, so it must not trap
                b = self._index_intrinsic("umax", b, self.integer(1))
            return self.index("udiv" if name == "floordiv" else "urem", a, b)
        return a if a.text == b.text else self._index_intrinsic("s" + name, a, b)

    def _index_intrinsic(self, name: str, a: Value, b: Value) -> Value:
        rhs = self.intrinsic(f"{name}.i64", "i64", [a.typed, b.typed])
        return self.pure(int64, 1, rhs, max(a.level, b.level))


_FOLD: dict[str, Callable[[int, int], int]] = {
    "floordiv": lambda a, b: a // (b or 1),
    "mod": lambda a, b: a % (b or 1),
    "min": min,
    "max": max,
}


def _type_of(argument: str) -> str:
    """The type (with attributes such as `align`) in front of an operand text."""
    end = argument.index(">") + 1 if argument.startswith("<") else argument.index(" ")
    return argument[:end]


def vector_of(texts: Sequence[str], dtype: DType) -> str:
    """A constant vector with one operand text a lane."""
    element = type_text(dtype)
    return f"<{', '.join(f'{element} {t}' for t in texts)}>"
