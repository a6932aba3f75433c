"""Random graphs over the whole registry: drawn here, compared in `tests.random_checks`.

A `Drawing` grows a pool of tensors by steps that a source of `Choices` picks (hypothesis, or a seeded generator), so
that one generator serves both. Its `mode` says what the values are, and with that how exactly results can be compared:

    bits   special floats and extreme integers; only ops whose bits IEEE 754 or NumPy fix
    whole  small whole numbers: every sum, product and contraction is exact in any order
    real   ordinary numbers and all ops, compared within a measured error

Enter at `draw`. To add a step, write a method of `Drawing` and name it in `STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

import numpy as np

import graphc
from graphc.build import Parameter, Tensor
from graphc.errors import DTypeError, ShapeError
from graphc.graph import Value
from graphc.types import DTYPES, Dim, DType, Size, bool_, evaluate, float32, float64, int64, symbols

SIZES = (0, 1, 1, 2, 3, 3, 4, 4, 5, 7, 8, 16, 17, 33, 64, 65, 130)
LARGEST = 30_000  # elements of one tensor
EXACT = float(2**20)  # whole numbers that far below 2^24 stay exact in float32 through the next few operations
UNARY = ("negative", "abs", "sign", "floor", "ceil", "relu", "square", "sqrt", "isnan", "stop_gradient")
WHOLE = ("negative", "abs", "sign", "floor", "ceil", "relu", "square", "isnan", "stop_gradient")
SMOOTH = ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "softplus")
COMPARE = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
LOGICAL = ("logical_and", "logical_or", "logical_xor")

COMPUTED = tuple(d for d in DTYPES if not d.is_narrow)  # every rounding of the others hides what differs before it


class Choices(Protocol):
    """Where decisions come from."""

    def integer(self, low: int, high: int) -> int: ...


class Seeded:
    """Choices of a seeded generator, for long runs."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))


@dataclass
class Source:
    """An input or parameter. `limit`: its elements are indices below it."""

    tensor: Tensor
    limit: Size | None = None


@dataclass
class Drawing:
    """A random graph while it grows, and when it is done."""

    choices: Choices
    mode: str
    sources: list[Source] = field(default_factory=list)
    pool: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    updates: dict[Parameter, Tensor] = field(default_factory=dict)
    dims: list[dict[str, int]] = field(default_factory=lambda: [{}, {}])  # the sizes of two calls
    bounds: dict[Value, float] = field(default_factory=dict)  # of magnitudes, in mode whole

    def __post_init__(self) -> None:
        self.extrema = self.flip()  # which of two zeros is the larger is not fixed: no division where there are maxima
        self.sizes: list[Size] = [self._size(n) for n in range(self.choices.integer(2, 4))]
        for size in self.sizes:
            if isinstance(size, Dim):  # every named size is the size of some input
                self.sources.append(Source(graphc.placeholder(str(size), (size,), "int8")))
        self.dtypes = [self.pick(COMPUTED) if self.flip() else self.pick((float32, float64)) for _ in range(3)]

    # choices

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.choices.integer(0, len(options) - 1)]

    def flip(self, one_in: int = 2) -> bool:
        return self.choices.integer(1, one_in) == one_in

    def some(self, wanted: Callable[[Tensor], bool] = lambda t: True) -> Tensor:
        """A tensor of the pool, mostly a late one; a new source if there is none of the wanted kind."""
        found = [t for t in self.pool if wanted(t)]
        if not found:
            raise ShapeError("nothing to choose from")
        chosen: Tensor = self.pick(found[-4:]) if self.flip() else self.pick(found)
        return chosen

    def _size(self, number: int) -> Size:
        values = [self.pick(SIZES) for _ in range(3)]
        if not self.flip(3):
            return int(values[0])
        name = f"n{number}"
        for dims, value in zip(self.dims, values[1:], strict=True):
            dims[name] = int(value)
        return Dim.symbol(name)

    def count(self, sizes: Sequence[Size]) -> int:
        """The largest number of elements that `sizes` make in a call."""
        return max(prod(evaluate(n, dims) for n in sizes) for dims in self.dims)

    # sources

    def source(self, shape: tuple[Size, ...], dtype: DType, limit: Size | None = None) -> Tensor:
        static = not any(symbols(n) for n in shape)
        name = f"{'p' if static and limit is None and self.flip(3) else 'x'}{len(self.sources)}"
        if name[0] == "p":
            tensor: Tensor = graphc.parameter(name, np.zeros(shape, dtype.numpy))
        else:
            tensor = graphc.placeholder(name, shape, dtype)
        self.sources.append(Source(tensor, limit))
        self.bounds[tensor.ref] = 4.0 if limit is None else float(self.count((limit,)))
        return tensor

    def shape(self) -> tuple[Size, ...]:
        chosen = tuple(self.pick(self.sizes) for _ in range(self.pick((0, 1, 2, 2, 2, 3, 3, 4))))
        while self.count(chosen) > LARGEST:
            chosen = chosen[1:]
        return tuple(1 if self.flip(8) else n for n in chosen)

    # bounds: what keeps numbers whole

    def bound(self, x: Tensor) -> float:
        return self.bounds.get(x.ref, float("inf"))

    def tame(self, x: Tensor, limit: float = EXACT) -> Tensor:
        """`x` with magnitudes of at most `limit` (for mode whole; elsewhere `x` itself)."""
        if self.mode != "whole" or self.bound(x) <= limit or x.dtype is bool_:
            return x
        low = 0 if x.dtype.kind == "u" else -3
        clipped = graphc.minimum(graphc.maximum(x, low), 3)
        self.bounds[clipped.ref] = 3.0
        return clipped

    def add(self, x: Tensor, bound: float = 0.0) -> Tensor:
        """Enter a result. Integers wrap, so what they hold is bounded by their dtype alone."""
        if self.count(x.shape) > LARGEST:
            raise ShapeError("too large")
        if x.dtype.is_integer and x.ref not in self.bounds and (x.dtype.kind == "u" or bound > 2**7 - 1):
            bound = float(np.iinfo(x.dtype.numpy).max)
        self.bounds.setdefault(x.ref, 1.0 if x.dtype is bool_ else bound)
        if x.dtype.is_float:
            x = self.tame(x)
        self.pool.append(x)
        return x

    # steps

    def new(self) -> None:
        self.pool.append(self.source(self.shape(), self.pick(self.dtypes)))

    def unary(self) -> None:
        x = self.some()
        names = {"bits": UNARY, "whole": WHOLE, "real": (*UNARY, *SMOOTH, *SMOOTH)}[self.mode]
        name = self.pick(names)
        if name == "relu" and self.mode == "bits" and not self.extrema:
            name = "negative"
        if x.dtype is bool_:
            name = "logical_not"
        if name in ("sqrt", *SMOOTH) and self.mode == "real" and self.flip():
            x = graphc.abs(x) if name in ("sqrt", "log", "log1p") else graphc.clip(x, -8, 8)
        x = self.tame(x, EXACT**0.5) if name == "square" else x
        bound = self.bound(x)
        self.add(getattr(graphc, name)(x), bound**2 if name == "square" else bound)

    def binary(self) -> None:
        x = self.some()
        y = self.partner(x)
        if self.flip():
            x, y = y, x
        names = ["add", "subtract", "multiply", "maximum", "minimum", "divide", "floor_divide", "remainder", "power"]
        name = self.pick(names[: 5 if self.mode == "whole" else 9])
        if self.mode == "bits" and name == "power":
            name = "multiply"
        if self.mode == "bits" and self.extrema and name in ("divide", "floor_divide", "remainder"):
            name = "multiply"
        if self.mode == "bits" and not self.extrema and name in ("maximum", "minimum"):
            name = "subtract"
        if x.dtype is bool_ and y.dtype is bool_:
            name = self.pick((*LOGICAL, "add", "multiply"))
        x, y = (self.tame(t, EXACT**0.5) for t in (x, y))
        if self.mode == "real" and name in ("divide", "floor_divide", "remainder"):
            y = graphc.abs(y) + y.dtype.numpy.type(1)
        if name == "power":
            x = graphc.abs(x.astype("float64")) + 0.5
            y = graphc.clip(y.astype("float64"), -3, 3)
        a, b = self.bound(x), self.bound(y)
        self.add(getattr(graphc, name)(x, y), a * b if name == "multiply" else a + b)

    def partner(self, x: Tensor) -> Tensor:
        """Something that broadcasts with `x`: of the pool, a number, a reduction of x, a new row or column."""
        kind = self.choices.integer(0, 9)
        if kind == 0:
            value = self.pick((-2, -1, 0, 1, 2, 3)) if x.dtype.kind in "if" else self.pick((0, 1))
            made = graphc.constant(np.array(value, x.dtype.numpy))
            self.bounds[made.ref] = 3.0
            return made
        if kind <= 2 and x.ndim:
            axes = [a for a in range(x.ndim) if self.flip()]
            return self.source(tuple(1 if a in axes else n for a, n in enumerate(x.shape)), x.dtype)
        if kind == 3 and x.ndim:
            return self.source(x.shape[1:], x.dtype)
        alike = [t for t in self.pool if _broadcasts(t, x)]
        chosen: Tensor = self.pick(alike)  # x itself is among them
        return chosen

    def compare(self) -> None:
        x = self.some()
        y = self.partner(x)
        self.add(getattr(graphc, self.pick(COMPARE))(x, y))

    def select(self) -> None:
        condition = self.some(lambda t: t.dtype is bool_)
        x = self.some(lambda t: _broadcasts(t, condition))
        y = self.partner(x)
        x, y = self.tame(x), self.tame(y)
        self.add(graphc.where(condition, x, y), max(self.bound(x), self.bound(y)))

    def cast(self) -> None:
        x, to = self.some(), self.pick(COMPUTED)
        if x.dtype.is_float and to.is_integer:  # outside of the range a cast is unspecified
            fits = (x > (-1 if to.kind == "u" else -100)) & (x < 100)
            x = graphc.where(fits, x, graphc.ones_like(x))
            self.bounds[x.ref] = 100.0
        self.add((self.tame(x) if to.is_float else x).astype(to), self.bound(x))

    def move(self) -> None:
        x = self.some()
        rank = x.ndim
        kind = self.choices.integer(0, 6)
        if kind <= 1 and rank > 1:
            order = list(range(rank))
            for a in range(rank - 1):
                b = self.choices.integer(a, rank - 1)
                order[a], order[b] = order[b], order[a]
            made = x.transpose(order)
        elif kind == 2:
            axis = self.choices.integer(0, rank)
            made = graphc.expand_dims(x, axis)
        elif kind == 3 and rank:
            axis = self.choices.integer(0, rank - 1)
            split = [b for b in (2, 3, 4) if isinstance(x.shape[axis], int) and x.shape[axis] % b == 0]
            parts = (x.shape[axis] // split[0], split[0]) if split and self.flip() else (x.shape[axis],)
            shape = (*x.shape[:axis], *parts, *x.shape[axis + 1 :])
            if len(parts) == 1 and rank > 1:
                at = min(axis, rank - 2)
                shape = (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :])
            made = x.reshape(shape)
        elif kind == 4:
            spread = tuple(self.pick(self.sizes) if n == 1 and self.flip() else n for n in x.shape)
            made = graphc.broadcast_to(x, (self.pick(self.sizes), *spread) if self.flip() and rank < 4 else spread)
        else:
            made = x[tuple(self._slice(n) for n in x.shape)] if rank else graphc.squeeze(x)
        self.add(made, self.bound(x))

    def _slice(self, size: Size) -> Any:
        if self.flip():
            return slice(None)
        step = self.pick((1, 1, 2, 3, -1, -1, -2))
        if isinstance(size, int) and size and self.flip(6):
            return self.choices.integer(-size, size - 1)
        start, stop = (None if self.flip() else self.choices.integer(-3, 4) for _ in range(2))
        return slice(start, stop, step)

    def reduce(self) -> None:
        x = self.some(lambda t: t.ndim > 0) if not self.flip(10) else self.some()
        axes = tuple(a for a in range(x.ndim) if self.flip())
        keepdims = self.flip()
        names = {"bits": ["max", "min", "any", "all"], "whole": ["sum", "max", "min", "any", "all", "sum", "mean"],
                 "real": ["sum", "max", "min", "prod", "mean", "sum", "any", "logsumexp"]}[self.mode]  # fmt: skip
        name = self.pick(names)
        if self.mode == "bits" and name in ("max", "min") and not self.extrema:
            name = "any"
        if x.dtype.is_integer and self.flip(4):
            name = "prod"
        if name == "mean" and self.mode == "whole":
            name = "sum"
        if name == "logsumexp" and not x.dtype.is_float:
            name = "sum"
        count = self.count([x.shape[a] for a in axes])
        x = self.tame(x, EXACT / max(count, 1)) if name == "sum" else x
        bound = self.bound(x) * count if name == "sum" else float("inf") if name == "prod" else max(self.bound(x), 1)
        self.add(getattr(graphc, name)(x, axis=axes, keepdims=keepdims), bound)

    def position(self) -> None:
        x = self.some(lambda t: t.ndim > 0)
        axis = self.choices.integer(0, x.ndim - 1)
        if isinstance(x.shape[axis], Dim) and any(evaluate(x.shape[axis], d) == 0 for d in self.dims):
            raise ShapeError("no elements to choose from")
        made = self.pick((graphc.argmax, graphc.argmin))(x, axis=axis, keepdims=self.flip())
        self.add(made, float(self.count((x.shape[axis],))))

    def softmax(self) -> None:
        x = self.some(lambda t: t.dtype.is_float and t.ndim > 0)
        if self.mode != "real":
            raise ShapeError("not exact")
        axis = self.choices.integer(0, x.ndim - 1)
        shifted = x - x.max(axis=axis, keepdims=True)
        grown = graphc.exp(shifted)
        self.add(grown / grown.sum(axis=axis, keepdims=True))

    def contract(self) -> None:
        x = self.some(lambda t: t.ndim > 0 and t.dtype is not bool_)
        if self.mode == "bits" and x.dtype.is_float:
            raise ShapeError("not exact")
        inner = x.shape[-1]
        candidates = [t for t in self.pool if t.dtype is x.dtype and t.ndim > 1 and inner in t.shape[-2:]]
        if candidates and self.flip():
            y = self.pick(candidates)
            if y.shape[-2] != inner or (y.shape[-1] == inner and self.flip()):
                y = graphc.matrix_transpose(y)
        else:
            outer = self.pick(self.sizes)
            batch = x.shape[:-2] if self.flip(3) else ()
            y = self.source((*batch, inner, outer), x.dtype)
            if self.flip(3):
                y = graphc.matrix_transpose(self.source((*batch, outer, inner), x.dtype))
        limit = (EXACT / max(self.count((inner,)), 1)) ** 0.5
        x, y = self.tame(x, limit), self.tame(y, limit)
        made = self.add(x @ y, self.bound(x) * self.bound(y) * self.count((inner,)))
        if self.flip() and made.ndim:
            bias = self.source(made.shape[-1:], made.dtype)
            made = self.add(made + bias, self.bound(made) + 4.0)
            if self.flip() and (self.mode != "bits" or self.extrema):
                self.add(graphc.maximum(made, 0), self.bound(made))

    def take(self) -> None:
        x = self.some(lambda t: t.ndim > 0)
        axis = self.choices.integer(0, x.ndim - 1)
        count = 1 if self.flip() else self.pick(self.sizes)
        if any(evaluate(x.shape[axis], d) == 0 for d in self.dims):
            raise ShapeError("nothing to take")
        shape = tuple(count if a == axis else (1 if self.flip(6) else n) for a, n in enumerate(x.shape))
        indices = self.source(shape, self.pick([d for d in COMPUTED if d.is_integer]), x.shape[axis])
        self.add(graphc.take_along_axis(x, indices, axis=axis), self.bound(x))

    def scatter(self) -> None:
        x = self.some(lambda t: t.ndim > 0 and t.dtype is not bool_)
        if self.mode == "bits" and x.dtype.is_float:
            raise ShapeError("not exact")
        axis, size = self.choices.integer(0, x.ndim - 1), self.pick(self.sizes)
        if any(evaluate(size, d) == 0 for d in self.dims):
            raise ShapeError("nowhere to add")
        count = max(self.count((x.shape[axis],)), 1)
        x = self.tame(x, EXACT / count)
        indices = self.source(x.shape, self.pick((int64, COMPUTED[3])), size)
        self.add(graphc.scatter_add_along_axis(indices, x, axis, size), self.bound(x) * count)

    def made_up(self) -> None:
        shape = self.shape()
        if shape and self.flip():
            self.add(graphc.iota(shape, self.pick((int64, float32)), self.choices.integer(0, len(shape) - 1)), 1000.0)
        else:
            self.add(graphc.dim_value(self.pick(self.sizes), self.pick((int64, float64))), 1000.0)


def _broadcasts(x: Tensor, y: Tensor) -> bool:
    return all(a == b or a == 1 or b == 1 for a, b in zip(reversed(x.shape), reversed(y.shape), strict=False))


D = Drawing
STEPS: tuple[Callable[[Drawing], None], ...] = (
    D.new, D.unary, D.unary, D.binary, D.binary, D.binary, D.compare, D.select, D.cast, D.move, D.move, D.move,
    D.reduce, D.reduce, D.reduce, D.position, D.softmax, D.contract, D.contract, D.take, D.scatter, D.made_up,
)  # fmt: skip


def draw(choices: Choices, mode: str, longest: int = 12) -> Drawing:
    """A random graph: 2 to `longest` steps, one to four outputs, updates of parameters, swaps among them."""
    drawing = Drawing(choices, mode)
    drawing.new()
    for _ in range(choices.integer(2, longest)):
        try:
            drawing.pick(STEPS)(drawing)
        except (ShapeError, DTypeError):  # what was picked does not fit: another step may
            continue
    late = drawing.pool[-3:]
    drawing.outputs = [drawing.pick(late if drawing.flip() else drawing.pool) for _ in range(choices.integer(1, 4))]
    for source in drawing.sources:
        if isinstance(source.tensor, Parameter) and not drawing.flip(3):
            alike = [t for t in drawing.pool if t.type == source.tensor.type]
            alike += [s.tensor for s in drawing.sources if s.tensor.type == source.tensor.type and s.limit is None]
            drawing.updates[source.tensor] = drawing.pick(alike)
    return drawing
