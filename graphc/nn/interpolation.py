"""Images in another size: `interpolate`, nearest and linear, with PyTorch's names, arguments and positions.

A position of the result is a position of the image, side by side: an integer for "nearest", or a pair of neighbours
and a weight. Sides are resized one after the other; positions of sides of known sizes are constants, of others they
are computed in the graph. Enlarging by a whole number repeats elements, which needs no positions. Enter at
`interpolate`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple, Union

import numpy as np

from graphc import ops
from graphc.build import Tensor, fail, signature
from graphc.errors import ArgumentError, ShapeError
from graphc.nn.convolution import channels_last, spatial
from graphc.ops.operands import TensorLike, as_tensor, converted, floating, shape_of
from graphc.types import Size, floordiv

NEAREST, LINEAR = ("nearest", "nearest-exact"), ("linear", "bilinear")
Scale = Union[float, Sequence[float], None]


class _Side(NamedTuple):
    """An axis, its size before and after, and the factor that the user gave, if it was one."""

    axis: int
    before: Size
    after: Size
    factor: float | None


def interpolate(
    x: TensorLike, size: Size | Sequence[Size] | None = None, scale_factor: Scale = None, mode: str = "nearest",
    align_corners: bool | None = None, *, layout: str | None = None,
) -> Tensor:  # fmt: skip
    """f32[N, C, H, W] (or f32[N, C, L]) in another `size`, or `scale_factor` times the size, rounded down.

    mode: "nearest" takes element floor(i * scale), where scale is size before / size after, or 1 / scale_factor;
    "nearest-exact" floor((i + 0.5) * scale); "bilinear" (of one side "linear") weighs the neighbours of
    (i + 0.5) * scale - 0.5, cut at the border, and with align_corners of i * (before - 1) / (after - 1), so that the
    corners stay. size and scale_factor are a number or one for each side; layout is "NCHW" or "NHWC" ("NCL", "NLC").
    Integers can be resized by "nearest" only as they are; others become floats. Raises ArgumentError or ShapeError.
    `interpolate(constant([[[1.0, 3.0]]]), 4)` is [[[1.0, 1.0, 3.0, 3.0]]].
    """
    image = as_tensor(x)
    rank = image.ndim - 2
    if rank not in (1, 2):
        fail(ShapeError, f"interpolate: images have 3 or 4 axes: {signature(image)}")
    linear = mode == LINEAR[rank - 1]
    if not linear and mode not in NEAREST:
        fail(ArgumentError, f'interpolate: mode is "nearest", "nearest-exact" or "{LINEAR[rank - 1]}", not {mode!r}')
    if align_corners is not None and not linear:
        fail(ArgumentError, f"interpolate: align_corners is for {LINEAR[rank - 1]!r}, not for {mode!r}")
    axes = spatial(rank, channels_last("interpolate", rank, layout or ("NCL", "NCHW")[rank - 1]))
    sides = _sides(image, axes, size, scale_factor)
    if linear:
        image = converted("interpolate", image, floating(image.dtype))
    for side in sides:
        if linear:
            image = _linear(image, side, bool(align_corners))
        else:
            image = _nearest(image, side, 0.5 if mode == "nearest-exact" else 0.0)
    return image


def _sides(image: Tensor, axes: list[int], size: Any, scale_factor: Scale) -> list[_Side]:
    """What becomes of each side. ArgumentError unless exactly one of size and scale_factor fits."""
    if (size is None) == (scale_factor is None):
        fail(ArgumentError, "interpolate: takes either a size or a scale_factor")
    before = [image.shape[axis] for axis in axes]
    if scale_factor is None:
        given = shape_of("interpolate", size)
        after: list[Size] = list(given * len(axes) if len(given) == 1 else given)
        factors: list[float | None] = [None] * len(axes)
    else:
        single = isinstance(scale_factor, (int, float))
        factors = [scale_factor] * len(axes) if single else list(scale_factor)  # type: ignore[arg-type, list-item]
        if any(not isinstance(f, (int, float)) or not 0 < f < math.inf for f in factors):
            fail(ArgumentError, f"interpolate: scale_factor is a positive number, not {scale_factor!r}")
        after = [_scaled(n, f) for n, f in zip(before, factors, strict=False)]
    if len(after) != len(axes) or len(factors) != len(axes):
        fail(ArgumentError, f"interpolate: one number, or one for each of {len(axes)} sides: {signature(image)}")
    if any(a == 0 or (b == 0 and a != 0) for b, a in zip(before, after, strict=True)):
        fail(ShapeError, f"interpolate: a side without elements: {signature(image)} to {after}")
    return [_Side(*parts) for parts in zip(axes, before, after, factors, strict=True)]


def _scaled(size: Size, factor: float | None) -> Size:
    """floor(size * factor); a named size takes the factor as the decimal fraction that prints as it."""
    assert factor is not None
    if isinstance(size, int):
        return math.floor(size * factor)
    exact = Fraction(repr(factor))
    return floordiv(size * exact.numerator, exact.denominator)


def _positions(side: _Side) -> tuple[Any, Any]:
    """(numpy or graphc.ops, 0.0, 1.0, ... for each position of the result): both have the functions used here."""
    if isinstance(side.before, int) and isinstance(side.after, int):
        return np, np.arange(side.after, dtype=np.float64)
    return ops, ops.iota((side.after,), "float64")


def _number(size: Size) -> Any:
    return float(size) if isinstance(size, int) else ops.dim_value(size, "float64")


def _step(side: _Side) -> Any:
    """How far apart two positions of the result are in the image."""
    return 1.0 / side.factor if side.factor is not None else _number(side.before) / _number(side.after)


def _nearest(image: Tensor, side: _Side, shift: float) -> Tensor:
    times = floordiv(side.after, side.before) if isinstance(side.before, int) else side.factor
    if isinstance(times, (int, float)) and times == int(times) and side.before * int(times) == side.after:
        return ops.repeat(image, int(times), side.axis)
    m, i = _positions(side)
    if side.factor is None and m is np:  # whole numbers: no rounding can miss an element
        places = ((2 * i.astype(np.int64) + int(2 * shift)) * side.before) // (2 * side.after)
    else:
        places = m.floor((i + shift) * _step(side))
    return _picked(image, side.axis, m.minimum(places, _number(side.before) - 1))


def _linear(image: Tensor, side: _Side, align_corners: bool) -> Tensor:
    m, i = _positions(side)
    if align_corners:
        apart = _number(side.after) - 1
        at = i * m.where(apart > 0, (_number(side.before) - 1) / m.maximum(apart, 1.0), 0.0)
    else:
        at = m.maximum((i + 0.5) * _step(side) - 0.5, 0.0)
    last = _number(side.before) - 1
    low = m.minimum(m.floor(at), last)
    weight = m.minimum(m.maximum(at - low, 0.0), 1.0)
    high = m.minimum(low + 1, last)
    behind = (1,) * (image.ndim - side.axis - 1)
    weight = converted("interpolate", weight.reshape((-1, *behind)), image.dtype)
    return _picked(image, side.axis, low) * (1 - weight) + _picked(image, side.axis, high) * weight


def _picked(image: Tensor, axis: int, places: Any) -> Tensor:
    """`image` at whole positions, all of them inside, along `axis`."""
    return ops.take(image, places.astype("int64"), axis)
