"""Activations and losses as functions of tensors, with PyTorch's names, defaults and reductions.

Everything here is a composition of `graphc.ops`; the compiler fuses it as it would fuse the user's own. A maximum that
is subtracted for stability stands under `stop_gradient`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from graphc import ops
from graphc.build import Tensor, fail, signature
from graphc.elsewhere import of_module
from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.graph import describe, shown
from graphc.nn.adaptive import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    global_avg_pool2d,
    global_max_pool2d,
)
from graphc.nn.attention import scaled_dot_product_attention
from graphc.nn.convolution import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from graphc.nn.interpolation import interpolate
from graphc.nn.normalization import batch_norm, group_norm, layer_norm, rms_norm
from graphc.nn.pooling import avg_pool1d, avg_pool2d, max_pool1d, max_pool2d
from graphc.ops import relu, sigmoid, softplus, tanh
from graphc.ops.operands import of_tensors
from graphc.random import Generator
from graphc.types import Shape

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "global_avg_pool2d",
    "global_max_pool2d",
    "group_norm",
    "interpolate",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "log_softmax",
    "max_pool1d",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "tanh",
]

if not TYPE_CHECKING:  # for people's mistakes; a type checker finds them itself
    __getattr__ = of_module(__name__, __all__)


@of_tensors
def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x: x (1 + erf(x / sqrt(2))) / 2, as PyTorch.

    `approximate="tanh"` is x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2. Another word is an ArgumentError.
    `gelu(constant([0.0, 1.0]))` is [0.0, 0.8413...].
    """
    if approximate == "none":
        return x * 0.5 * (1 + ops.erf(x * math.sqrt(0.5)))
    if approximate != "tanh":
        fail(ArgumentError, f'gelu: approximate is "none" or "tanh", not {approximate!r}')
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
    return x * 0.5 * (1 + tanh(inner))


@of_tensors
def silu(x: Tensor) -> Tensor:
    """x sigmoid(x), also called swish. `silu(constant([0.0, 1.0]))` is [0.0, 0.7310...]."""
    return x * sigmoid(x)


@of_tensors
def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x above 0, negative_slope * x elsewhere. `leaky_relu(constant([-1.0, 2.0]))` is [-0.01, 2.0]."""
    return ops.where(x > 0, x, negative_slope * x)


@of_tensors
def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x above 0, alpha (exp(x) - 1) elsewhere. `elu(constant([-1.0, 2.0]))` is [-0.6321..., 2.0]."""
    return ops.where(x > 0, x, alpha * ops.expm1(x))


@of_tensors
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along `axis`: positive, and adds up to 1. `softmax(constant([0.0, 0.0]))` is [0.5, 0.5]."""
    powers = ops.exp(_shifted(x, axis))
    return powers / powers.sum(axis, keepdims=True)


@of_tensors
def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """The logarithm of `softmax(x, axis)`, exact where the softmax itself would round to 0.

    `log_softmax(constant([0.0, 0.0]))` is [-0.6931..., -0.6931...].
    """
    shifted = _shifted(x, axis)
    return shifted - ops.log(ops.exp(shifted).sum(axis, keepdims=True))


@of_tensors
def cross_entropy(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """-log softmax(logits)[label], for logits f32[N, C, ...] (or f32[C]) and labels of the same shape without the C.

    `labels` are integers in 0..C-1 (one outside is an IndexRangeError at the call), or probabilities: floats of the
    shape of `logits`. `reduction` is "mean" (over all labels), "sum" or "none". Raises ShapeError or DTypeError.
    `cross_entropy(constant([[0.0, 0.0]]), constant([1]))` is 0.6931....
    """
    axis, expected = _classes("cross_entropy", logits)
    shifted = _shifted(logits, axis)
    log_sum = ops.log(ops.exp(shifted).sum(axis, keepdims=True))
    if labels.dtype.is_float and labels.shape != expected:
        _same_shape("cross_entropy", logits, labels)
        return _reduced((labels * (log_sum - shifted)).sum(axis), reduction, "cross_entropy")
    if not labels.dtype.is_float and not labels.dtype.is_integer:
        fail(DTypeError, f"cross_entropy: labels must be integers or floats, not {shown(labels)}")
    _check_labels("cross_entropy", logits, labels, expected)
    return _reduced((log_sum - _picked(shifted, labels, axis)).reshape(expected), reduction, "cross_entropy")


@of_tensors
def nll_loss(log_probabilities: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """-x[label] of logarithms of probabilities, as `log_softmax` gives them: the second half of `cross_entropy`.

    f32[N, C, ...] (or f32[C]) and integers in 0..C-1 of the same shape without the C; errors as there.
    `nll_loss(constant([[-0.5, -1.0]]), constant([1]))` is 1.0.
    """
    axis, expected = _classes("nll_loss", log_probabilities)
    _check_labels("nll_loss", log_probabilities, labels, expected)
    return _reduced(-_picked(log_probabilities, labels, axis).reshape(expected), reduction, "nll_loss")


@of_tensors
def mse_loss(prediction: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(prediction - target)**2; the shapes must be equal, so that [N, 1] and [N] never broadcast to [N, N].

    `mse_loss(constant([1.0, 2.0]), constant([1.0, 4.0]))` is 2.0.
    """
    _same_shape("mse_loss", prediction, target)
    difference = prediction - target
    return _reduced(difference * difference, reduction, "mse_loss")


@of_tensors
def l1_loss(prediction: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """|prediction - target|, of equal shapes. `l1_loss(constant([1.0, 2.0]), constant([1.0, 4.0]))` is 1.0."""
    _same_shape("l1_loss", prediction, target)
    return _reduced(ops.abs(prediction - target), reduction, "l1_loss")


@of_tensors
def smooth_l1_loss(prediction: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d**2 / (2 beta) where d = |prediction - target| is below beta, d - beta / 2 elsewhere; the shapes must be equal.

    `beta` is positive. `smooth_l1_loss(constant([1.0, 2.0]), constant([0.0, 4.0]))` is 1.0.
    """
    _same_shape("smooth_l1_loss", prediction, target)
    if not beta > 0:
        fail(ArgumentError, f"smooth_l1_loss: beta must be positive, not {beta!r}", "for beta=0 write l1_loss")
    size = ops.abs(prediction - target)
    losses = ops.where(size < beta, 0.5 / beta * (size * size), size - 0.5 * beta)
    return _reduced(losses, reduction, "smooth_l1_loss")


@of_tensors
def binary_cross_entropy_with_logits(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """softplus(x) - x*y: the cross entropy of sigmoid(x) with targets y in 0..1 (floats, integers or bools).

    `binary_cross_entropy_with_logits(constant([0.0]), constant([1.0]))` is 0.6931....
    """
    _same_shape("binary_cross_entropy_with_logits", logits, targets)
    y = targets if targets.dtype.is_float else targets.astype(logits.dtype)
    return _reduced(softplus(logits) - logits * y, reduction, "binary_cross_entropy_with_logits")


@of_tensors
def embedding(indices: Tensor, weight: Tensor) -> Tensor:
    """The rows of `weight` at `indices`: i64[batch,time] and f32[words,64] give f32[batch,time,64].

    An index outside of 0..words-1 is an IndexRangeError when the graph runs.
    `embedding(constant([2, 0]), constant([[1.0], [2.0], [3.0]]))` is [[3.0], [1.0]].
    """
    if not indices.dtype.is_integer or len(weight.shape) != 2:
        fail(ArgumentError, f"embedding: takes integers and a matrix, not {indices.type} and {weight.type}")
    flat = indices.reshape((-1, 1))
    rows = ops.take_along_axis(weight, ops.broadcast_to(flat, (flat.shape[0], weight.shape[1])), 0)
    return rows.reshape((*indices.shape, weight.shape[1]))


@of_tensors
def dropout(x: Tensor, p: float = 0.5, generator: Generator | None = None, training: bool = True) -> Tensor:
    """`x` with each element 0 with probability `p`, and the others divided by 1 - p; `x` itself if not `training`.

    What is dropped is 0 also where it was infinite or nan. Each call of a function drops others; its forward and
    backward drop the same. `generator` is needed where something is drawn: `graphc.random.Generator(seed)`.
    `dropout(constant([1.0, 2.0]), training=False)` is [1.0, 2.0].
    """
    if not x.dtype.is_float:
        fail(DTypeError, f"dropout: takes floats, not {shown(x)}")
    if not isinstance(p, (int, float)) or not 0 <= p <= 1:
        fail(ArgumentError, f"dropout: a probability is from 0 to 1, not {p!r}")
    if not training or p == 0:
        return x
    if p == 1:
        return ops.zeros_like(x)
    if generator is None or not hasattr(generator, "bernoulli"):
        wrong = "" if generator is None else f", not a {type(generator).__name__}"
        fail(ArgumentError, f"dropout: {shown(x)} needs a generator{wrong}", "generator=graphc.random.Generator(seed)")
    return ops.where(generator.bernoulli(1 - p, x.shape), x * (1 / (1 - p)), 0)


def _classes(function: str, x: Tensor) -> tuple[int, Shape]:
    """The axis of the classes, and the shape without it."""
    if not x.dtype.is_float or not x.shape:
        fail(DTypeError, f"{function}: logits must be floats with an axis of classes, not {shown(x)}")
    axis = 1 if len(x.shape) > 1 else 0
    return axis, x.shape[:axis] + x.shape[axis + 1 :]


def _check_labels(function: str, x: Tensor, labels: Tensor, expected: Shape) -> None:
    if not labels.dtype.is_integer:
        name = describe(labels.ref)
        hint = f"{name if name.isidentifier() else '(...)'}.astype('int64')" if labels.dtype.is_float else None
        fail(DTypeError, f"{function}: labels must be integers: {signature(labels)}", hint)
    if labels.shape != expected:
        shape = ",".join(map(str, expected))
        fail(ShapeError, f"{function}: {shown(x)} needs labels of shape [{shape}], not {shown(labels)}")


def _picked(x: Tensor, labels: Tensor, axis: int) -> Tensor:
    """x at its label, with the axis of classes as one of size 1."""
    return ops.take_along_axis(x, labels.reshape((*labels.shape[:axis], 1, *labels.shape[axis:])), axis)


def _shifted(x: Tensor, axis: int) -> Tensor:
    """x minus its maximum along `axis`, so that exp cannot overflow."""
    return x - ops.stop_gradient(x.max(axis, keepdims=True))


def _reduced(losses: Tensor, reduction: str, function: str) -> Tensor:
    if reduction == "none":
        return losses
    if reduction not in ("mean", "sum"):
        fail(ArgumentError, f'{function}: reduction is "mean", "sum" or "none", not {reduction!r}')
    return losses.mean() if reduction == "mean" else losses.sum()


def _same_shape(function: str, a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        message = f"{function}: the shapes of {shown(a)} and {shown(b)} differ"
        fail(ShapeError, message, "reshape one of them: a loss does not broadcast")
