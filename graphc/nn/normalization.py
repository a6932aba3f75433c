"""Normalisation by a mean and a variance, with PyTorch's names and formulas.

Each is a composition of ops: a scale `rsqrt(variance + eps)`, then weight and bias.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc import ops
from graphc.build import Tensor, fail
from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.graph import shown
from graphc.ops.operands import integer, of_tensors
from graphc.types import Size


@of_tensors
def layer_norm(
    x: Tensor, shape: Size | Sequence[Size], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes, whose sizes are `shape` (as is weight's).

    A number for `shape` is that of the last axis alone.

    The variance is the biased one. `layer_norm(f32[batch,64], (64,))` is f32[batch,64].
    `layer_norm(constant([[1.0, 3.0]]), (2,), eps=0.0)` is [[-1.0, 1.0]].
    """
    shape = _sizes(shape)
    axes = _last_axes("layer_norm", x, shape)
    return _scaled("layer_norm", _standardized(x, axes, eps), shape, weight, bias)


@of_tensors
def rms_norm(x: Tensor, shape: Size | Sequence[Size], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """x / sqrt(mean(x**2) + eps) * weight over the last axes, whose sizes are `shape` (a number: of the last axis).

    `eps` is the dtype's epsilon if None. `rms_norm(f32[batch,64], (64,))` is f32[batch,64].
    `rms_norm(constant([[3.0, 4.0]]), (2,), eps=0.0)` is [[0.8485..., 1.1313...]].
    """
    shape = _sizes(shape)
    axes = _last_axes("rms_norm", x, shape)
    small = x.dtype.limits.eps if eps is None else eps
    scale = ops.rsqrt((x * x).mean(axes, keepdims=True) + small)
    return _scaled("rms_norm", x * scale, shape, weight, None)


@of_tensors
def batch_norm(
    x: Tensor,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias for each channel of f32[N, C, ...]; all of them are f32[C].

    Without `mean` and `var` they are those of the batch, as in training; running ones, for evaluation, are parameters
    whose next values go into `updates`: `{running: 0.9 * running + 0.1 * x.mean((0, 2, 3))}`, and for the variance
    `x.var((0, 2, 3), correction=1)`. `batch_norm(f32[N,C,H,W], None, None, w, b)` is f32[N,C,H,W].
    Raises ShapeError, DTypeError, or ArgumentError where only one of `mean` and `var` is given.
    `batch_norm(constant([[1.0], [3.0]]), eps=0.0)` is [[-1.0], [1.0]].
    """
    _check_channels("batch_norm", x)
    if (mean is None) != (var is None):
        fail(ArgumentError, "batch_norm: mean and var are given both or not at all")
    _check_parts("batch_norm", x, mean, var, weight, bias)
    if mean is None or var is None:
        return _of_channels(_standardized(x, (0, *range(2, x.ndim)), eps), weight, bias)
    return _of_channels((x - _by_channel(mean, x)) * ops.rsqrt(_by_channel(var, x) + eps), weight, bias)


@of_tensors
def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias of f32[N, C, ...] over each of `num_groups` groups of channels.

    weight and bias are f32[C], a number of channels that `num_groups` divides; as many groups as channels make it
    instance norm. `group_norm(f32[N,C,H,W], 4)` is f32[N,C,H,W]. Raises ShapeError or DTypeError.
    `group_norm(constant([[1.0, 3.0, 5.0, 9.0]]), 2, eps=0.0)` is [[-1.0, 1.0, -1.0, 1.0]].
    """
    _check_channels("group_norm", x)
    channels, num_groups = x.shape[1], integer("group_norm", "num_groups", num_groups)
    if not isinstance(channels, int) or num_groups < 1 or channels % num_groups:
        fail(ShapeError, f"group_norm: {num_groups} groups do not divide the {channels} channels of {shown(x)}")
    _check_parts("group_norm", x, weight, bias)
    groups = x.reshape((x.shape[0], num_groups, channels // num_groups, *x.shape[2:]))
    return _of_channels(_standardized(groups, tuple(range(2, groups.ndim)), eps).reshape(x.shape), weight, bias)


def _standardized(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """(x - mean) / sqrt(var + eps) over `axes`, with one division for each mean, as in PyTorch."""
    centred = x - x.mean(axes, keepdims=True)
    return centred * ops.rsqrt((centred * centred).mean(axes, keepdims=True) + eps)


def _check_channels(function: str, x: Tensor) -> None:
    if not x.dtype.is_float:
        fail(DTypeError, f"{function}: takes floats, not {shown(x)}")
    if x.ndim < 2:
        fail(ShapeError, f"{function}: {shown(x)} has no axis of channels, which is the second one")


def _check_parts(function: str, x: Tensor, *parts: Tensor | None) -> None:
    for part in parts:
        if part is not None and part.shape != (x.shape[1],):
            fail(ShapeError, f"{function}: {shown(x)} has {x.shape[1]} channels: {shown(part)} does not fit")


def _by_channel(part: Tensor, x: Tensor) -> Tensor:
    """f32[C] so that it broadcasts over f32[N, C, ...]."""
    return part.reshape((-1,) + (1,) * (x.ndim - 2))


def _of_channels(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = x if weight is None else x * _by_channel(weight, x)
    return scaled if bias is None else scaled + _by_channel(bias, x)


def _sizes(shape: Size | Sequence[Size]) -> Sequence[Size]:
    return shape if isinstance(shape, Sequence) else (shape,)


def _last_axes(function: str, x: Tensor, shape: Sequence[Size]) -> tuple[int, ...]:
    if not x.dtype.is_float:
        fail(DTypeError, f"{function}: takes floats, not {x.type}")
    if not shape or x.shape[-len(shape) :] != tuple(shape):
        fail(ShapeError, f"{function}: {x.type} does not end in the shape {list(shape)}")
    return tuple(range(-len(shape), 0))


def _scaled(function: str, x: Tensor, shape: Sequence[Size], weight: Tensor | None, bias: Tensor | None) -> Tensor:
    for part in (weight, bias):
        if part is not None and part.shape != tuple(shape):
            fail(ShapeError, f"{function}: weight and bias have the shape {list(shape)}, not {part.type}")
    scaled = x if weight is None else x * weight
    return scaled if bias is None else scaled + bias
