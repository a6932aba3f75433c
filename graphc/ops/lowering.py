"""How an op becomes loops: the lowering kinds, and the handler protocols that bodies are written against.

An op's entry holds one of these kinds. Bodies are written once and read by several handlers (loop lowering, cost
model, printer); they never import llvmlite. The loop level asks a kind one question: *what is your value at this
index?* To add an op of a new kind, add a class here and its reading in `graphc/loops/evaluate.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from graphc.graph import Attrs, Types
from graphc.types import DType, Size

T = TypeVar("T")

FUNCTIONS = {  # of floats, by name: how many operands. Their code is graphc.loops.maths; the interpreter never asks.
    "acos": 1, "acosh": 1, "asin": 1, "asinh": 1, "atan": 1, "atan2": 2, "atanh": 1, "cos": 1, "cosh": 1,
    "digamma": 1, "erf": 1, "erfc": 1, "erfinv": 1, "exp": 1, "exp2": 1, "expm1": 1, "lgamma": 1, "log": 1,
    "log10": 1, "log1p": 1, "log2": 1, "power": 2, "rsqrt": 1, "sigmoid": 1, "sin": 1, "sinh": 1, "tan": 1,
    "tanh": 1,
}  # fmt: skip


class Handler(Protocol[T]):
    """What a scalar body may compute. A value T has a `dtype`; operands of one call have the same dtype.

    Floats follow IEEE 754, nothing is contracted or reassociated except by `fma`; integers wrap; shifts are by less
    than the width; `div` of integers truncates, gives 0 for a zero divisor and wraps for the extreme by -1.
    `left_over` is rest - quotient * by in float64, exact where the quotient is trunc(rest / by) and at most 2^52.
    minimum and maximum give NaN if either is NaN. Comparisons give bool and are false on NaN (ne: true).
    `function` is one of FUNCTIONS.
    """

    def constant(self, value: float | int | bool, dtype: DType) -> T: ...
    def add(self, a: T, b: T) -> T: ...
    def sub(self, a: T, b: T) -> T: ...
    def mul(self, a: T, b: T) -> T: ...
    def div(self, a: T, b: T) -> T: ...
    def fma(self, a: T, b: T, c: T) -> T: ...
    def left_over(self, rest: T, quotient: T, by: T) -> T: ...
    def neg(self, a: T) -> T: ...
    def abs(self, a: T) -> T: ...
    def sqrt(self, a: T) -> T: ...
    def floor(self, a: T) -> T: ...
    def ceil(self, a: T) -> T: ...
    def trunc(self, a: T) -> T: ...
    def rint(self, a: T) -> T: ...
    def copysign(self, magnitude: T, sign: T) -> T: ...
    def minimum(self, a: T, b: T) -> T: ...
    def maximum(self, a: T, b: T) -> T: ...
    def eq(self, a: T, b: T) -> T: ...
    def ne(self, a: T, b: T) -> T: ...
    def lt(self, a: T, b: T) -> T: ...
    def le(self, a: T, b: T) -> T: ...
    def gt(self, a: T, b: T) -> T: ...
    def ge(self, a: T, b: T) -> T: ...
    def and_(self, a: T, b: T) -> T: ...
    def or_(self, a: T, b: T) -> T: ...
    def xor(self, a: T, b: T) -> T: ...
    def not_(self, a: T) -> T: ...
    def shl(self, a: T, b: T) -> T: ...
    def lshr(self, a: T, b: T) -> T: ...
    def ashr(self, a: T, b: T) -> T: ...
    def select(self, condition: T, a: T, b: T) -> T: ...
    def cast(self, a: T, dtype: DType) -> T: ...
    def bitcast(self, a: T, dtype: DType) -> T: ...
    def function(self, name: str, *operands: T) -> T: ...


class IndexHandler(Protocol):
    """Integer arithmetic on indices that knows the range of every loop variable, so that div and mod can cancel."""

    def div(self, a: Size, b: Size) -> Size: ...
    def mod(self, a: Size, b: Size) -> Size: ...


@dataclass(frozen=True)
class Elementwise:
    """result[i] = body(h, attrs, x[i], y[i], ...): all operands have the result's shape (broadcasts are explicit)."""

    body: Callable[..., Any]


@dataclass(frozen=True)
class Movement:
    """result[i] = x[source(ix, types, attrs, i)] for the one operand x. `types` are (operand type, result type).

    With `inside`, which gives pairs (position, bound): only where 0 <= position < bound for all pairs; 0 elsewhere,
    where `source` may be any index (x is not read there).
    """

    source: Callable[[IndexHandler, Types, Attrs, tuple[Size, ...]], tuple[Size, ...]]
    inside: Callable[[IndexHandler, Types, Attrs, tuple[Size, ...]], tuple[tuple[Size, Size], ...]] | None = None


@dataclass(frozen=True)
class Concat:
    """result[i] = the operands one behind the other along attrs["axis"]; they agree in all other sizes."""


@dataclass(frozen=True)
class IndexValue:
    """result[i] = i[attrs["axis"]], cast to the result's dtype: iota."""


@dataclass(frozen=True)
class Reduction:
    """result[kept] = fold of combine over x[kept + reduced], starting at init; attrs: axes (sorted), keepdims.

    The operand is cast to the result's dtype before it is combined. `init(dtype)` is a neutral element of combine.
    """

    init: Callable[[DType], float | int | bool]
    combine: Callable[..., Any]  # (h, accumulator, x)


@dataclass(frozen=True)
class Scan:
    """result[i] = fold of combine over x[j] for all j up to i along attrs["axis"], in order, starting at init.

    With attrs["reverse"], from the end of the axis down to i. The operand is cast to the result's dtype first;
    combine(init, x) is x to the bit.
    """

    init: Callable[[DType], float | int | bool]
    combine: Callable[..., Any]  # (h, accumulator, x)


@dataclass(frozen=True)
class Sort:
    """result[i] = the positions of x along attrs["axis"] in an order in which equal elements keep theirs.

    `before(h, attrs, x, y)` is the strict order.
    """

    before: Callable[..., Any]


@dataclass(frozen=True)
class Matrices:
    """result[batch] = what an algorithm makes of the operands' matrices (their last two axes) at the same index.

    `algorithm` is its name in `graphc.loops.matrices`; the reference says what it computes.
    """

    algorithm: str


@dataclass(frozen=True)
class ArgReduction:
    """result[kept] = the first index along attrs["axis"] whose x is best (the first NaN, if there is one).

    `better(h, x, best)` is a strict comparison. attrs: axis, keepdims. The axis is not empty.
    """

    better: Callable[..., Any]


@dataclass(frozen=True)
class Contraction:
    """result[out] = sum over the other labels of a[...] * b[...]; labels(types, attrs) names the axes of the three.

    An axis is a letter, or for an operand also a window such as `2h+p`: it is read at 2 * h + p.
    """

    labels: Callable[[Types, Attrs], tuple[Sequence[str], Sequence[str], Sequence[str]]]


@dataclass(frozen=True)
class Gather:
    """result[i] = x[i with i[axis] replaced by indices[i]]; operands (x, indices), attrs: axis. Out of range: error."""


@dataclass(frozen=True)
class ScatterAdd:
    """result = zeros; result[i with i[axis] replaced by indices[i]] += updates[i], in index order.

    Operands (indices, updates); attrs: axis, size (of the result along axis). Out of range: an error.
    """


@dataclass(frozen=True)
class ScatterInto(ScatterAdd):
    """result = x; result[i with i[axis] replaced by indices[i]] op= updates[i], in index order.

    Operands (x, indices, updates); attrs: axis. `combine(dtype)` names the handler's op of (old, update), None: the
    update itself. Out of range: an error.
    """

    combine: Callable[[DType], str | None]
