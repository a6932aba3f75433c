"""Pooling whose windows follow from the size of the result: adaptive and global pooling, as PyTorch.

Window i of n over a side of s goes from floor(i*s/n) to ceil((i + 1)*s/n), so windows of one side differ by one
element at most. They are laid out along a new axis (a reshape where n divides s, else picked by constant positions, a
short window with its last element twice) and folded there, one side after the other. Enter at `adaptive_avg_pool2d`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Union

import numpy as np

from graphc.build import Tensor, fail, signature
from graphc.errors import ArgumentError, ShapeError
from graphc.nn.convolution import channels_last, spatial
from graphc.ops.arithmetic import divide
from graphc.ops.indexing import take_along_axis
from graphc.ops.movement import expand_dims, reshape, squeeze
from graphc.ops.operands import TensorLike, as_tensor, converted, floating
from graphc.ops.picking import take
from graphc.ops.reductions import argmax, mean
from graphc.ops.reductions import sum as sum_
from graphc.ops.selection import where
from graphc.types import Size, floordiv

Sizes = Union[int, None, Sequence[Union[int, None]]]
Pool = Callable[[Tensor, int, "np.ndarray | None"], Tensor]  # (windows, the axis of their elements, which count)


def adaptive_avg_pool2d(x: TensorLike, output_size: Sizes, *, layout: str = "NCHW") -> Tensor:
    """Means of `output_size` windows that cover height and width of f32[N, C, H, W]; 1 is global pooling.

    output_size is a number or one for each side; None keeps a side as it is. A side that is not known takes numbers
    that divide it (`2 * n` by 2), 1 always. f32[8,3,7,7] by (3, 2) is f32[8,3,3,2]. Raises ShapeError.
    `adaptive_avg_pool2d(constant([[[[1.0, 2.0], [3.0, 4.0]]]]), 1)` is [[[[2.5]]]].
    """
    return _adaptive("adaptive_avg_pool2d", 2, _floats(x), output_size, layout, _means)


def adaptive_avg_pool1d(x: TensorLike, output_size: Sizes, *, layout: str = "NCL") -> Tensor:
    """`adaptive_avg_pool2d` over one axis: f32[8,3,10] by 4 is f32[8,3,4].

    `adaptive_avg_pool1d(constant([[[1.0, 2.0, 3.0, 4.0]]]), 2)` is [[[1.5, 3.5]]].
    """
    return _adaptive("adaptive_avg_pool1d", 1, _floats(x), output_size, layout, _means)


def adaptive_max_pool2d(x: TensorLike, output_size: Sizes, *, layout: str = "NCHW") -> Tensor:
    """Maxima of `output_size` windows that cover height and width, as `adaptive_avg_pool2d` takes means.

    NaN if the window has one; the gradient goes to the first maximum of a window, in row-major order.
    `adaptive_max_pool2d(constant([[[[1.0, 2.0], [3.0, 4.0]]]]), 1)` is [[[[4.0]]]].
    """
    return _adaptive("adaptive_max_pool2d", 2, as_tensor(x), output_size, layout, _maxima)


def adaptive_max_pool1d(x: TensorLike, output_size: Sizes, *, layout: str = "NCL") -> Tensor:
    """`adaptive_max_pool2d` over one axis.

    `adaptive_max_pool1d(constant([[[1.0, 2.0, 3.0, 4.0]]]), 2)` is [[[2.0, 4.0]]].
    """
    return _adaptive("adaptive_max_pool1d", 1, as_tensor(x), output_size, layout, _maxima)


def global_avg_pool2d(x: TensorLike, *, layout: str = "NCHW") -> Tensor:
    """The mean over height and width, which stay with size 1: f32[N, C, H, W] gives f32[N, C, 1, 1].

    `global_avg_pool2d(constant([[[[1.0, 2.0], [3.0, 4.0]]]]))` is [[[[2.5]]]].
    """
    return adaptive_avg_pool2d(x, 1, layout=layout)


def global_max_pool2d(x: TensorLike, *, layout: str = "NCHW") -> Tensor:
    """The maximum over height and width, which stay with size 1: f32[N, C, H, W] gives f32[N, C, 1, 1].

    `global_max_pool2d(constant([[[[1.0, 2.0], [3.0, 4.0]]]]))` is [[[[4.0]]]].
    """
    return adaptive_max_pool2d(x, 1, layout=layout)


def _floats(x: TensorLike) -> Tensor:
    image = as_tensor(x)
    return converted("pooling", image, floating(image.dtype))


def _adaptive(name: str, rank: int, image: Tensor, output_size: Sizes, layout: str, pool: Pool) -> Tensor:
    last = channels_last(name, rank, layout)
    if image.ndim != rank + 2:
        fail(ShapeError, f"{name}: images have {rank + 2} axes: {signature(image)}")
    given = [output_size] * rank if output_size is None or isinstance(output_size, int) else list(output_size)
    if len(given) != rank or not all(n is None or (isinstance(n, int) and n > 0) for n in given):
        fail(ArgumentError, f"{name}: output_size is a number from 1 on or {rank} of them, not {output_size!r}")
    sides = spatial(rank, last)
    if any(image.shape[side] == 0 for side in sides):
        fail(ShapeError, f"{name}: a side without elements has no windows: {signature(image)}")
    if pool is _means and all(n == 1 for n in given):
        return mean(image, tuple(sides), keepdims=True)
    for side, count in reversed(list(zip(sides, given, strict=True))):  # rows first: the order of equal maxima
        if count is not None:
            windows, counted = _windows(name, image, side, count)
            image = pool(windows, side + 1, counted)
    return image


def _windows(name: str, image: Tensor, side: int, count: int) -> tuple[Tensor, np.ndarray | None]:
    """`image` with `side` as [count, elements of a window], and which of the elements count (None: all)."""
    size: Size = image.shape[side]
    each = floordiv(size, count)
    if each * count == size:
        return reshape(image, (*image.shape[:side], count, each, *image.shape[side + 1 :])), None
    if not isinstance(size, int):
        message = f"{name}: {count} windows of axis {side}, whose size is not known"
        fail(ShapeError, f"{message}: {signature(image)}", "output_size=1 works")
    window = np.arange(count)
    starts, stops = window * size // count, -(-(window + 1) * size // count)
    places = starts[:, None] + np.arange((stops - starts).max())
    inside = places < stops[:, None]
    return take(image, np.where(inside, places, stops[:, None] - 1), side), inside


def _means(windows: Tensor, axis: int, counted: np.ndarray | None) -> Tensor:
    if counted is None:
        return mean(windows, axis)
    mask = counted.reshape(counted.shape + (1,) * (windows.ndim - axis - 1))
    counts = counted.sum(1).astype(windows.dtype.numpy).reshape((-1,) + (1,) * (windows.ndim - axis - 1))
    return divide(sum_(where(mask, windows, 0), axis), counts)


def _maxima(windows: Tensor, axis: int, counted: np.ndarray | None) -> Tensor:
    best = expand_dims(argmax(windows, axis), axis)
    return squeeze(take_along_axis(windows, best, axis), axis)
