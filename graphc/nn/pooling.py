"""Pooling: maxima and means of windows, with PyTorch's names, arguments and defaults.

A window is taken apart into its elements: each is a strided slice of the images, and maxima and sums of slices are
elementwise. Wide windows go over one axis after the other. The gradient of a maximum goes to its first element, in
row-major order. Enter at `max_pool2d` and `avg_pool2d`; adaptive and global pooling is in `graphc.nn.adaptive`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from graphc.build import Tensor, apply, fail, signature
from graphc.errors import ArgumentError, ShapeError
from graphc.nn.convolution import Pair, channels_last, numbers, spatial
from graphc.ops.comparison import greater, isnan
from graphc.ops.movement import slice_op
from graphc.ops.operands import TensorLike, as_tensor, converted, floating
from graphc.ops.padding import pad
from graphc.ops.selection import where
from graphc.ops.sources import ones
from graphc.types import Size, floordiv

FEW = 9  # elements of a window that are taken at once; wider windows go axis by axis
Fold = Callable[[Tensor, Tensor], Tensor]


def max_pool2d(
    x: TensorLike, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1, *,
    layout: str = "NCHW",
) -> Tensor:  # fmt: skip
    """The maximum of each window of f32[N, C, H, W] (NHWC: f32[N, H, W, C]); stride is kernel_size if not given.

    NaN if the window has one. Padding counts as -inf and is at most half of kernel_size.
    `max_pool2d(constant([[[[1.0, 2.0], [3.0, 4.0]]]]), 2)` is [[[[4.0]]]].
    """
    return _max_pool("max_pool2d", 2, x, kernel_size, stride, padding, dilation, layout)


def max_pool1d(
    x: TensorLike, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1, *,
    layout: str = "NCL",
) -> Tensor:  # fmt: skip
    """`max_pool2d` over one axis, of f32[N, C, L] (NLC: f32[N, L, C]).

    `max_pool1d(constant([[[1.0, 2.0, 3.0, 4.0]]]), 2)` is [[[2.0, 4.0]]].
    """
    return _max_pool("max_pool1d", 1, x, kernel_size, stride, padding, dilation, layout)


def avg_pool2d(
    x: TensorLike, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, count_include_pad: bool = True, *,
    layout: str = "NCHW",
) -> Tensor:  # fmt: skip
    """The mean of each window; stride is kernel_size if not given. Padding is zeros, counted or not.

    `avg_pool2d(constant([[[[1.0, 2.0], [3.0, 4.0]]]]), 2)` is [[[[2.5]]]].
    """
    return _avg_pool("avg_pool2d", 2, x, kernel_size, stride, padding, count_include_pad, layout)


def avg_pool1d(
    x: TensorLike, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, count_include_pad: bool = True, *,
    layout: str = "NCL",
) -> Tensor:  # fmt: skip
    """`avg_pool2d` over one axis. `avg_pool1d(constant([[[1.0, 2.0, 3.0, 4.0]]]), 2)` is [[[1.5, 3.5]]]."""
    return _avg_pool("avg_pool1d", 1, x, kernel_size, stride, padding, count_include_pad, layout)


def _max_pool(
    name: str, rank: int, x: TensorLike, kernel_size: Pair, stride: Pair | None, padding: Pair, dilation: Pair,
    layout: str,
) -> Tensor:  # fmt: skip
    last = channels_last(name, rank, layout)
    image = as_tensor(x)
    _check_rank(name, rank, image)
    sizes, steps, around = _windows(name, rank, kernel_size, stride, padding)
    holes = numbers(name, "dilation", dilation, rank, 1)
    if any(around):
        lowest = -np.inf if image.dtype.is_float else np.iinfo(image.dtype.numpy).min
        image = pad(image, _widths(around, last), constant_values=lowest)
    return _folded(name, image, spatial(rank, last), sizes, steps, holes, _larger)


def _larger(best: Tensor, other: Tensor) -> Tensor:
    """The maximum; of equal ones the first, of NaNs the last."""
    better = greater(other, best)
    return where(better | isnan(other) if other.dtype.is_float else better, other, best)


def _avg_pool(
    name: str,
    rank: int,
    x: TensorLike,
    kernel_size: Pair,
    stride: Pair | None,
    padding: Pair,
    counted: bool,
    layout: str,
) -> Tensor:
    last = channels_last(name, rank, layout)
    image = _image(name, rank, x)
    sizes, steps, around = _windows(name, rank, kernel_size, stride, padding)
    sides = spatial(rank, last)

    def total(image: Tensor) -> Tensor:
        padded = pad(image, _widths(around, last)) if any(around) else image
        return _folded(name, padded, sides, sizes, steps, [1] * rank, lambda a, b: a + b)

    if counted or not any(around):
        return total(image) / int(np.prod(sizes))
    shape = tuple(n if axis in sides else 1 for axis, n in enumerate(image.shape))
    return total(image) / total(ones(shape, image.dtype))


def _folded(
    name: str, image: Tensor, sides: list[int], sizes: list[int], steps: list[int], holes: list[int], fold: Fold
) -> Tensor:
    """All elements of each window folded in row-major order."""
    for side, size, hole in zip(sides, sizes, holes, strict=True):
        extent = image.shape[side]
        if isinstance(extent, int) and extent < hole * (size - 1) + 1:
            fail(ShapeError, f"{name}: the window is longer than axis {side}: {signature(image)} (padding included)")
    counts = [
        floordiv(image.shape[side] - hole * (size - 1) - 1, step) + 1
        for side, size, step, hole in zip(sides, sizes, steps, holes, strict=True)
    ]
    if len(sides) == 1 or int(np.prod(sizes)) <= FEW:
        taps = np.ndindex(*sizes)
        return _joined(
            image, sides, [[t * h for t, h in zip(tap, holes, strict=True)] for tap in taps], steps, counts, fold
        )
    for axis in reversed(range(len(sides))):
        offsets = [[tap * holes[axis]] for tap in range(sizes[axis])]
        image = _joined(image, [sides[axis]], offsets, [steps[axis]], [counts[axis]], fold)
    return image


def _joined(
    image: Tensor, sides: list[int], offsets: list[list[int]], steps: list[int], counts: list[Size], fold: Fold
) -> Tensor:
    result: Tensor | None = None
    for first in offsets:
        starts, stops, by = [0] * image.ndim, [*image.shape], [1] * image.ndim
        for side, start, step, count in zip(sides, first, steps, counts, strict=True):
            # the op itself: a subscript would clip to the image, which hides that all parts have `count` elements
            starts[side], stops[side], by[side] = start, start + (count - 1) * step + 1, step
        part = cast(Tensor, apply(slice_op, image, starts=tuple(starts), stops=tuple(stops), steps=tuple(by)))
        result = part if result is None else fold(result, part)
    assert result is not None
    return result


def _image(name: str, rank: int, x: TensorLike) -> Tensor:
    image = as_tensor(x)
    _check_rank(name, rank, image)
    return converted(name, image, floating(image.dtype))


def _check_rank(name: str, rank: int, image: Tensor) -> None:
    if image.ndim != rank + 2:
        fail(ShapeError, f"{name}: images have {rank + 2} axes: {signature(image)}")


def _windows(
    name: str, rank: int, kernel_size: Pair, stride: Pair | None, padding: Pair
) -> tuple[list[int], list[int], list[int]]:
    sizes = numbers(name, "kernel_size", kernel_size, rank, 1)
    steps = sizes if stride is None else numbers(name, "stride", stride, rank, 1)
    around = numbers(name, "padding", padding, rank, 0)
    if any(2 * width > size for width, size in zip(around, sizes, strict=True)):
        fail(ArgumentError, f"{name}: padding {padding} is more than half of kernel_size {kernel_size}")
    return sizes, steps, around


def _widths(around: list[int], last: bool) -> list[tuple[int, int]]:
    pairs = [(n, n) for n in around]
    return [(0, 0), *pairs, (0, 0)] if last else [(0, 0), (0, 0), *pairs]
