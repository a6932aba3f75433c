"""Convolutions and transposed convolutions over one or two axes, with PyTorch's names, arguments and defaults.

Each is one `contract` (`graphc.ops.convolution`) whose spec says the layout: nothing is transposed, NCHW images meet
OIHW weights where they are, and so do NHWC and HWIO. Padding is an array with zeros around it. Enter at `conv2d`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import numpy as np

from graphc.build import Tensor, fail, signature
from graphc.errors import ArgumentError, ShapeError
from graphc.ops.convolution import Spec, contract, label_sizes, parse, transposed
from graphc.ops.movement import reshape
from graphc.ops.operands import TensorLike, converted, integers, promoted
from graphc.ops.padding import pad
from graphc.types import Size, floordiv

Pair = Union[int, Sequence[int]]
Padding = Union[int, str, Sequence[int]]
_LAYOUTS = {1: ("NCL", "NLC"), 2: ("NCHW", "NHWC")}


def conv2d(
    x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Pair = 1, padding: Padding = 0,
    dilation: Pair = 1, groups: int = 1, *, layout: str = "NCHW",
) -> Tensor:  # fmt: skip
    """result[n, o, h, w] = bias[o] + sum of x[n, c, h*stride + p*dilation, w*stride + q*dilation] * weight[o, c, p, q].

    x is f32[N, C, H, W], weight f32[O, C/groups, KH, KW]; with layout="NHWC" they are f32[N, H, W, C] and
    f32[KH, KW, C/groups, O]. stride, padding and dilation are a number or one for each axis; padding is also "valid" or
    "same" (stride 1 only). Raises ShapeError or ArgumentError.
    `conv2d(ones((1, 1, 3, 3)), ones((1, 1, 2, 2)))` is [[[[4.0, 4.0], [4.0, 4.0]]]].
    """
    return _conv("conv2d", 2, x, weight, bias, stride, padding, dilation, groups, layout)


def conv1d(
    x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Pair = 1, padding: Padding = 0,
    dilation: Pair = 1, groups: int = 1, *, layout: str = "NCL",
) -> Tensor:  # fmt: skip
    """`conv2d` over one axis: x is f32[N, C, L], weight f32[O, C/groups, K]; with layout="NLC" f32[N, L, C] and
    f32[K, C/groups, O]. `conv1d(constant([[[1.0, 2.0, 4.0]]]), constant([[[1.0, -1.0]]]))` is [[[-1.0, -2.0]]].
    """
    return _conv("conv1d", 1, x, weight, bias, stride, padding, dilation, groups, layout)


def conv_transpose2d(
    x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Pair = 1, padding: Pair = 0,
    output_padding: Pair = 0, groups: int = 1, dilation: Pair = 1, *, layout: str = "NCHW",
) -> Tensor:  # fmt: skip
    """The transpose of `conv2d` (its gradient with respect to x) as a layer: each element of x adds a weighted window.

    x is f32[N, C, H, W], weight f32[C, O/groups, KH, KW], with layout="NHWC" f32[N, H, W, C] and
    f32[KH, KW, O/groups, C]; the result has (H - 1)*stride - 2*padding + dilation*(KH - 1) + output_padding + 1 rows.
    `conv_transpose2d(ones((1, 1, 1, 2)), ones((1, 1, 1, 2)))` is [[[[1.0, 2.0, 1.0]]]].
    """
    return _conv_transpose(
        "conv_transpose2d", 2, x, weight, bias, stride, padding, output_padding, groups, dilation, layout
    )


def conv_transpose1d(
    x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Pair = 1, padding: Pair = 0,
    output_padding: Pair = 0, groups: int = 1, dilation: Pair = 1, *, layout: str = "NCL",
) -> Tensor:  # fmt: skip
    """`conv_transpose2d` over one axis.

    `conv_transpose1d(constant([[[1.0, 2.0]]]), constant([[[1.0, -1.0]]]))` is [[[1.0, 1.0, -2.0]]].
    """
    return _conv_transpose(
        "conv_transpose1d", 1, x, weight, bias, stride, padding, output_padding, groups, dilation, layout
    )


def _conv(
    name: str, rank: int, x: TensorLike, weight: TensorLike, bias: TensorLike | None, stride: Pair, padding: Padding,
    dilation: Pair, groups: int, layout: str,
) -> Tensor:  # fmt: skip
    last = channels_last(name, rank, layout)
    dtype = promoted(name, x, weight)
    image, kernel = converted(name, x, dtype), converted(name, weight, dtype)
    _check_ranks(name, rank, image, kernel)
    steps, holes = numbers(name, "stride", stride, rank, 1), numbers(name, "dilation", dilation, rank, 1)
    sides = spatial(rank, last)
    taps = range(rank) if last else range(2, rank + 2)
    inside, outside = kernel.shape[rank if last else 1], kernel.shape[-1 if last else 0]
    channels = image.shape[-1 if last else 1]
    if not _divides(groups, outside) or channels != inside * groups:
        message = (
            f"{name}: {channels} channels of x, weights for {inside} each of {groups} groups and {outside} results"
        )
        fail(ShapeError, f"{message}: {signature(image, kernel)}", f"layout is {layout!r}")
    reach = [hole * (kernel.shape[tap] - 1) for hole, tap in zip(holes, taps, strict=True)]
    around = _around(name, padding, rank, steps, reach)
    sizes = [_positions(name, image, kernel, *each) for each in zip(sides, around, reach, steps, strict=True)]
    each = floordiv(outside, groups)
    spec = _spec(rank, last, groups, steps, holes, inside, each)
    ends = _ends(groups, each)
    shape = [image.shape[0], *sizes, *ends] if last else [image.shape[0], *ends, *sizes]
    image, kernel = _grouped(image, groups, inside, last), _grouped_weights(kernel, groups, inside, each, last)
    first = 1 if last else image.ndim - rank
    widths = [(0, 0)] * first + around + [(0, 0)] * (image.ndim - rank - first)
    image = pad(image, widths) if any(width != (0, 0) for width in around) else image
    result = contract(spec, image, kernel, shape)
    return _finished(name, result, bias, groups, last, rank, outside)


def _conv_transpose(
    name: str, rank: int, x: TensorLike, weight: TensorLike, bias: TensorLike | None, stride: Pair, padding: Pair,
    output_padding: Pair, groups: int, dilation: Pair, layout: str,
) -> Tensor:  # fmt: skip
    last = channels_last(name, rank, layout)
    dtype = promoted(name, x, weight)
    image, kernel = converted(name, x, dtype), converted(name, weight, dtype)
    _check_ranks(name, rank, image, kernel)
    steps, holes = numbers(name, "stride", stride, rank, 1), numbers(name, "dilation", dilation, rank, 1)
    cut, more = numbers(name, "padding", padding, rank, 0), numbers(name, "output_padding", output_padding, rank, 0)
    sides = spatial(rank, last)
    taps = range(rank) if last else range(2, rank + 2)
    each, channels = kernel.shape[rank if last else 1], image.shape[-1 if last else 1]
    if channels != kernel.shape[-1 if last else 0] or not _divides(groups, channels):
        message = f"{name}: {channels} channels in {groups} groups do not fit the weights"
        fail(ShapeError, f"{message}: {signature(image, kernel)}", f"layout is {layout!r}")
    whole = [
        (image.shape[side] - 1) * by + hole * (kernel.shape[tap] - 1) + 1 + extra
        for side, tap, by, hole, extra in zip(sides, taps, steps, holes, more, strict=True)
    ]
    inside = floordiv(channels, groups)
    spec = parse(_spec(rank, last, groups, steps, holes, each, inside))  # that of the convolution whose result is x
    image, kernel = _grouped(image, groups, inside, last), _grouped_weights(kernel, groups, each, inside, last)
    ends = _ends(groups, each)
    shape = [image.shape[0], *whole, *ends] if last else [image.shape[0], *ends, *whole]
    full = tuple(shape)
    sizes = label_sizes(Spec(spec.a, spec.b, spec.out), [_Shaped(full), kernel.type], image.shape)
    result = transposed(spec.a, full, spec.out, image, spec.b, kernel, sizes)
    places = [result.ndim - rank - len(ends) + i if last else result.ndim - rank + i for i in range(rank)]
    keys = [slice(None)] * result.ndim
    for place, side, amount in zip(places, whole, cut, strict=True):
        keys[place] = slice(amount, side - amount)
    return _finished(name, result[tuple(keys)], bias, groups, last, rank, each * groups)


class _Shaped:
    """Something with a shape: what a convolution would read."""

    def __init__(self, shape: tuple[Size, ...]) -> None:
        self.shape = shape


def channels_last(name: str, rank: int, layout: str) -> bool:
    """Whether the channels are the last axis. ArgumentError for a layout that there is not."""
    if layout not in _LAYOUTS[rank]:
        fail(ArgumentError, f"{name}: layout is {' or '.join(map(repr, _LAYOUTS[rank]))}, not {layout!r}")
    return layout == _LAYOUTS[rank][1]


def spatial(rank: int, last: bool) -> list[int]:
    """The axes of height and width."""
    return list(range(1, rank + 1) if last else range(2, rank + 2))


def numbers(name: str, what: str, given: Pair, rank: int, least: int) -> list[int]:
    """One number for each axis. ArgumentError for anything else."""
    found = integers(name, what, given) * (rank if np.ndim(given) == 0 else 1)
    if len(found) != rank or min(found) < least:
        fail(ArgumentError, f"{name}: {what} is a number from {least} on or {rank} of them, not {given!r}")
    return found


def _check_ranks(name: str, rank: int, image: Tensor, kernel: Tensor) -> None:
    if image.ndim != rank + 2 or kernel.ndim != rank + 2:
        fail(ShapeError, f"{name}: images and weights have {rank + 2} axes: {signature(image, kernel)}")


def _divides(groups: int, size: Size) -> bool:
    return isinstance(groups, int) and groups > 0 and floordiv(size, groups) * groups == size


def _around(name: str, padding: Padding, rank: int, steps: list[int], reach: list[Size]) -> list[tuple[Size, Size]]:
    """(before, behind) for each axis."""
    if padding == "valid":
        return [(0, 0)] * rank
    if padding == "same":
        if any(step != 1 for step in steps):
            fail(ArgumentError, f'{name}: padding="same" is for stride 1')
        return [(floordiv(r, 2), r - floordiv(r, 2)) for r in reach]
    if isinstance(padding, str):
        fail(ArgumentError, f'{name}: padding is "same", "valid" or numbers, not {padding!r}')
    return [(n, n) for n in numbers(name, "padding", padding, rank, 0)]


def _positions(
    name: str, image: Tensor, kernel: Tensor, side: int, around: tuple[Size, Size], reach: Size, step: int
) -> Size:
    """How many windows there are along an axis."""
    left = image.shape[side] + sum(around) - reach - 1
    if isinstance(left, int) and left < 0:
        fail(
            ShapeError, f"{name}: the window is longer than axis {side}: {signature(image, kernel)} (padding included)"
        )
    return floordiv(left, step) + 1


def _spec(
    rank: int, last: bool, groups: int, steps: list[int], holes: list[int], inside: Size, outside: Size
) -> str:  # fmt: skip
    """The spec of a convolution in a layout, such as `n 2h+p 2w+q c, p q c o -> n h w o`."""
    positions, taps = "hw"[:rank], "pq"[:rank]
    windows = [
        f"{by if by > 1 else ''}{h}+{hole if hole > 1 else ''}{p}"
        for h, p, by, hole in zip(positions, taps, steps, holes, strict=True)
    ]
    group = ["g"] if groups > 1 else []
    c, o = (["c"] if groups == 1 or inside != 1 else []), (["o"] if groups == 1 or outside != 1 else [])
    if last:
        x, w, out = ["n", *windows, *group, *c], [*taps, *c, *group, *o], ["n", *positions, *group, *o]
    else:
        x, w, out = ["n", *group, *c, *windows], [*group, *o, *c, *taps], ["n", *group, *o, *positions]
    return f"{' '.join(x)}, {' '.join(w)} -> {' '.join(out)}"


def _ends(groups: int, each: Size) -> list[Size]:
    """The axes of `each` channels of each group; a group of one channel has no axis for it."""
    return [each] if groups == 1 else [groups, each] if each != 1 else [groups]


def _grouped(x: Tensor, groups: int, each: Size, last: bool) -> Tensor:
    """Images with their channels cut into groups."""
    if groups == 1 or each == 1:
        return x
    place = x.ndim - 1 if last else 1
    return reshape(x, (*x.shape[:place], groups, each, *x.shape[place + 1 :]))


def _grouped_weights(x: Tensor, groups: int, inside: Size, outside: Size, last: bool) -> Tensor:
    """Weights for groups of `inside` channels of images and `outside` of results."""
    if groups == 1:
        return x
    channels = [inside] if inside != 1 else []
    if last:
        return reshape(x, (*x.shape[:-2], *channels, *_ends(groups, outside)))
    return reshape(x, (*_ends(groups, outside), *channels, *x.shape[2:]))


def _finished(
    name: str, result: Tensor, bias: TensorLike | None, groups: int, last: bool, rank: int, channels: Size
) -> Tensor:
    """The result with its groups joined, and the bias added."""
    if groups > 1:
        shape = result.shape
        ends = (*shape[: rank + 1], channels) if last else (shape[0], channels, *shape[-rank:])
        result = reshape(result, ends)
    if bias is None:
        return result
    added = converted(name, bias, result.dtype)
    if added.shape != (channels,):
        fail(ShapeError, f"{name}: the bias has one element for each of {channels} channels: {signature(added)}")
    return result + (added if last else reshape(added, (channels, *[1] * rank)))
