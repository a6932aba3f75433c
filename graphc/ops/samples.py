"""Arguments that an op is tried with: by tests, by the gradient check, by the documentation.

A `Sample` says shapes, dtypes, attributes and how values are drawn. `draw` gives arrays for one dtype, `build` the
graph of one application. Enter at `cases(op)`, which gives every (sample, dtype) of an op.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply, placeholder
from graphc.conversion import cast_array
from graphc.graph import Op
from graphc.types import DTYPES, Dim, DType, Shape, bfloat16, bool_, evaluate, float16, float32, float64

FLOATS = (float32, float64)
NARROW = (float16, bfloat16)  # their tests try every sample that float32 has
INTEGERS = tuple(d for d in DTYPES if d.is_integer)
NUMBERS = (*INTEGERS, *FLOATS)
ALL = (bool_, *NUMBERS)
SHAPES: tuple[Shape, ...] = ((131,), (0,), (1,), (Dim.symbol("batch"), 5), ())  # those of elementwise ops
DIMS = {"batch": 3}


@dataclass(frozen=True)
class Operand:
    """One operand. `dtype` None: the dtype under test. `values` says how its elements are drawn:

    special: ordinary numbers mixed with nan, infinities, both zeros, denormals, extremes (integers: the extremes);
    ordinary: magnitudes in `domain` (integers: small), random signs unless `positive`;
    dominant: square matrices with a diagonal that outweighs the rest: positive definite and well-conditioned;
    index: integers in [0, limit);  or an explicit tuple of values.
    """

    shape: Shape = (37,)
    dtype: DType | None = None
    values: str | tuple[Any, ...] = "special"
    domain: tuple[float, float] = (0.25, 2.0)
    positive: bool = False
    limit: int = 0


@dataclass(frozen=True)
class Sample:
    """One application: operands, attributes, the dtypes to try, values of named sizes.

    `smooth`: whether the gradient check may use it (its operands are then drawn from their domains).
    """

    operands: tuple[Operand, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    dtypes: tuple[DType, ...] = FLOATS
    dims: Mapping[str, int] = field(default_factory=dict)
    smooth: bool = True

    def draw(self, dtype: DType, rng: np.random.Generator, smooth: bool = False) -> list[np.ndarray]:
        """Arrays for the operands under `dtype`; `smooth`: finite, distinct, away from the op's kinks."""
        shapes = [tuple(evaluate(size, self.dims) for size in o.shape) for o in self.operands]
        return [_draw(o, o.dtype or dtype, s, rng, smooth) for o, s in zip(self.operands, shapes, strict=True)]

    def build(self, op: Op, dtype: DType) -> tuple[list[Tensor], list[Tensor]]:
        """The op applied to new placeholders x0, x1, ...: (placeholders, results)."""
        inputs = [placeholder(f"x{i}", cast(Any, o.shape), o.dtype or dtype) for i, o in enumerate(self.operands)]
        results = apply(op, *inputs, **self.attrs)
        return inputs, list(results) if isinstance(results, tuple) else [results]


def cases(op: Op) -> Iterator[tuple[Sample, DType]]:
    """Every sample of `op` with every dtype that it is tried with."""
    for sample in op.samples():
        for dtype in sample.dtypes:
            yield sample, dtype


def _draw(operand: Operand, dtype: DType, shape: tuple[int, ...], rng: np.random.Generator, smooth: bool) -> np.ndarray:
    count = int(np.prod(shape, dtype=np.int64))
    if not isinstance(operand.values, str):
        return np.resize(cast_array(np.array(operand.values), dtype), shape)
    if operand.values == "index":
        return rng.integers(0, operand.limit, count).astype(dtype.numpy).reshape(shape)
    if dtype is bool_:
        return rng.integers(0, 2, count).astype(bool).reshape(shape)
    low, high = operand.domain
    if dtype.is_integer:
        values = rng.integers(-9 if dtype.kind == "i" and not operand.positive else 0, 10, count).astype(dtype.numpy)
        extremes = [np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max, 0, -1 if dtype.kind == "i" else 1]
        return _mixed(values, extremes if operand.values == "special" else [], rng).reshape(shape)
    # Distinct values, so that maxima have no ties and finite differences cross no kink between two of them.
    spread = low + (high - low) * (rng.permutation(count) + rng.uniform(0.1, 0.9, count)) / max(count, 1)
    exact = (float32 if dtype.is_narrow else dtype).numpy
    values = (spread if operand.positive else spread * rng.choice([-1.0, 1.0], count)).astype(exact)
    if operand.values == "dominant":
        matrices, size = values.reshape(shape) / max(high, 1), max(shape[-1], 1)
        return cast_array(np.asarray(matrices / size + 2 * np.eye(shape[-1]), exact), dtype)
    if smooth or operand.values == "ordinary":
        return cast_array(values, dtype).reshape(shape)
    info = dtype.limits
    edges = [info.smallest_subnormal, -info.tiny, info.max, -info.max]
    mixed = _mixed(values, [np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, 1.0, 88.0, -104.0, *edges], rng)
    return cast_array(mixed, dtype).reshape(shape)


def _mixed(values: np.ndarray, specials: list[Any], rng: np.random.Generator) -> np.ndarray:
    """`values` with about half of them replaced by random specials, if there are any."""
    if specials:
        chosen = rng.random(values.size) < 0.5
        values[chosen] = rng.choice(np.array(specials, values.dtype), values.size)[chosen]
    return values


def unary(dtypes: tuple[DType, ...] = FLOATS, attrs: Mapping[str, Any] | None = None, **how: Any) -> tuple[Sample, ...]:
    """Samples of a function of one array: many special values, sizes 0 and 1, a named size, a scalar."""
    return tuple(Sample((Operand(shape, **how),), attrs or {}, dtypes, DIMS) for shape in SHAPES)


def binary(dtypes: tuple[DType, ...] = FLOATS, **how: Any) -> tuple[Sample, ...]:
    """Samples of a function of two arrays of one shape."""
    return tuple(Sample((Operand(shape, **how), Operand(shape, **how)), {}, dtypes, DIMS) for shape in SHAPES)
