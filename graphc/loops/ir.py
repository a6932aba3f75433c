"""The loop IR: what a kernel does, in about a dozen node kinds that print like Python.

    kernel    ::= routine* def NAME(buffer: dtype[size] ...; size ...): block one chunk range of work
    routine   ::= routine NAME(buffer: dtype[size] ...; size ...): block      what several places of a kernel run
    block     ::= statement*
    statement ::= NAME = expr                                                 Let: a name for a value, never changed
                | NAME[n][m] = expr                                           Declare: registers, all set to expr
                | NAME[i][j] := expr                                          Assign: change one register
                | BUFFER[index] = expr [where mask]                           Store
                | for NAME in start..stop [step s] [carry names]: block       For, kind "serial"
                | for NAME in unroll 0..n: block                              For, kind "unroll": no loop is left
                | if expr: block [else: block] [carry names]                  If
                | scratch NAME: dtype[n]                                      Scratch: aligned memory of this worker
                | fail NODE at index if expr                                  Fail: report the lowest (node, index)
                | prefetch BUFFER[index] [for writing]                        Prefetch
                | call NAME(BUFFER[index] ...; expr ...)                      Call: a routine
    expr      ::= constant | NAME | NAME[i][j] | BUFFER[index] [where mask] | op(expr, ...)

Every expression has a `VType`, a dtype and a lane count (1 is a scalar). Registers (accumulators, tiles) are names
that change; they live in LLVM phi values, never in memory, so every loop or branch that changes one lists it in
`carry`. Indices count elements, are i64 scalars and address `BUFFER[index .. index + lanes)`, or, as vectors, gather
lane by lane. A masked-off lane touches no memory and reads as 0. Nothing here names a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar, Union, dataclass_transform

from graphc.types import DType, Size, bool_, int64

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True)
def record(cls: type[_T]) -> type[_T]:
    """A frozen dataclass to mypy, at run time a plain one: a kernel has thousands, and constructors that check every
    assignment would take a tenth of its compile time.
    """
    return dataclass(slots=True, unsafe_hash="__hash__" not in vars(cls))(cls)


@record
class VType:
    """A dtype and a number of lanes: `f32` for a scalar, `f32x16` for a vector."""

    dtype: DType
    lanes: int = 1

    def __hash__(self) -> int:  # every look at an expression asks for it: by the name alone
        return hash((self.dtype.name, self.lanes))

    def __str__(self) -> str:
        return self.dtype.short if self.lanes == 1 else f"{self.dtype.short}x{self.lanes}"


I64 = VType(int64)


@record
class Const:
    """A constant; a vector of equal lanes if `vtype` has several. 0.0 and -0.0 are two constants, nan is one."""

    value: float | int | bool
    vtype: VType = I64

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Const):
            return NotImplemented
        if self.vtype != other.vtype:
            return False
        same = type(self.value) is int and type(other.value) is int  # most are: indices
        return self.value == other.value if same else repr(self.value) == repr(other.value)

    def __hash__(self) -> int:
        return hash(self.value == self.value and self.value)


@record
class Var:
    """A Let, a loop variable (i64) or a size argument (i64)."""

    name: str
    vtype: VType = I64

    def __hash__(self) -> int:  # expressions are looked up all the time: by what nearly always tells them apart
        return hash(self.name)


@record
class Reg:
    """One register of a Declare; indices are constants or the variables of unrolled loops."""

    name: str
    index: tuple[Expr, ...]
    vtype: VType


@record
class Load:
    """BUFFER[index ...]. A scalar index with a vector `vtype` reads consecutive elements, a vector index gathers."""

    buffer: str
    index: Expr
    vtype: VType
    mask: Expr | None = None  # bool, as many lanes as vtype

    def __hash__(self) -> int:
        return hash((self.buffer, self.index))


@record
class Op:
    """`name(args)`. Names and meanings are those of `graphc.ops.lowering.Handler`, and on top of them

    splat(scalar) -> vector;  lanes() -> i64 vector 0,1,2,...;  extract(vector, constant lane) -> scalar;
    zip_low(a, b, run, part), zip_high -> vector: in every part of so many lanes, the runs of lanes of the lower (upper)
    half of a and of b in turns;  even(a, b, run), odd -> vector: every second run of a, then of b (constant counts);
    join(a, b) -> a vector of twice the lanes, those of a, then of b;
    reduce_NAME(vector) -> scalar: the fixed tree of halves (lane i with lane i + n/2, and so on) of op NAME;
    any(bool vector) -> bool;  floordiv, mod(i64, i64): of non-negative integers;  min, max(i64, i64);
    opaque(i64): its operand, which the code generator then takes as given in this place: it neither computes it again
    in inner loops nor splits it into parts.
    """

    name: str
    args: tuple[Expr, ...]
    vtype: VType

    def __hash__(self) -> int:
        return hash((self.name, self.args))


Expr = Union[Const, Var, Reg, Load, Op]


@record
class Let:
    var: Var
    value: Expr


@record
class Declare:
    """Registers `name[shape]`, each with the value `init`. An empty shape is a single register."""

    name: str
    shape: tuple[int, ...]
    vtype: VType
    init: Expr


@record
class Assign:
    target: Reg
    value: Expr


@record
class Store:
    buffer: str
    index: Expr  # scalar: consecutive elements; vector: a scatter, lane by lane in lane order
    value: Expr
    mask: Expr | None = None


@record
class For:
    """`var` from `start` below `stop` by `step` (a positive constant). "unroll" needs constants and leaves no loop."""

    var: str
    start: Expr
    stop: Expr
    step: int
    body: tuple[Stmt, ...]
    carry: tuple[str, ...] = ()  # names of the registers that the body changes
    kind: str = "serial"


@record
class If:
    condition: Expr
    then: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...] = ()
    carry: tuple[str, ...] = ()


@record
class Scratch:
    """`size` elements of aligned memory private to the worker that runs the chunk (a constant number: no growth)."""

    name: str
    dtype: DType
    size: int


@record
class Fail:
    """Where `condition` holds, put (node, index) into the error word of the context, which keeps the lowest."""

    condition: Expr  # a bool scalar
    node: int  # position in the Program's table of checks
    index: Expr  # i64: the flat position of the bad element


@record
class Prefetch:
    buffer: str
    index: Expr
    write: bool = False  # it will be stored to


@record
class Call:
    """Run a routine. Its buffers begin at these elements of buffers or scratch; `sizes` are scalars of i64."""

    routine: str
    buffers: tuple[tuple[str, Expr], ...]
    sizes: tuple[Expr, ...]


@record
class Comment:
    text: str


Stmt = Union[Let, Declare, Assign, Store, For, If, Scratch, Fail, Prefetch, Call, Comment]


@dataclass(frozen=True)
class BufferParam:
    """A buffer as the kernel sees it: `size` in elements over the kernel's own size names. `align` in bytes."""

    name: str
    dtype: DType
    size: Size
    writable: bool = False
    align: int = 1


@dataclass(frozen=True)
class Routine:
    """Statements that several places of a kernel run with buffers and sizes of their own: one piece of machine code.

    A buffer's `size` is what the routine may touch of it. It declares no scratch, and calls earlier routines only.
    """

    name: str
    buffers: tuple[BufferParam, ...]
    sizes: tuple[str, ...]
    body: tuple[Stmt, ...]


@dataclass(frozen=True)
class LoopKernel:
    """One native function `i32 k(context*, i64* sizes, ptr* buffers, i64 chunk_begin, i64 chunk_end, i64 worker)`.

    `sizes` are the names that index expressions may use (kernel arguments, i64). The body runs for every chunk in
    chunk_begin..chunk_end with the chunk's number in the variable `chunk`. `chunks` says how many chunks there are.
    A kernel with a `finish` is called once more after all its chunks, with chunk_begin == -1, and then runs only that
    (serial: it adds the partial results of the chunks in chunk order).
    """

    name: str
    buffers: tuple[BufferParam, ...]
    sizes: tuple[str, ...]
    body: tuple[Stmt, ...]
    chunks: Size = 1
    finish: tuple[Stmt, ...] = ()
    routines: tuple[Routine, ...] = ()
    comments: Sequence[str] = field(default=(), compare=False)


def const(value: int) -> Const:
    """An i64 constant."""
    return Const(value, I64)


BOOL = VType(bool_)
