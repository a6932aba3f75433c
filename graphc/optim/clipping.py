"""Gradients of limited size, as `torch.nn.utils.clip_grad_norm_` makes them, as nodes of the graph.

    gradients = dict(zip(parameters, graphc.grad(loss, parameters)))
    gradients, norm = graphc.optim.clip_grad_norm(gradients, 1.0)
    step = graphc.function([x, y], [loss, norm], updates=opt.updates_from(gradients))

Enter at `clip_grad_norm`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping

from graphc import ops
from graphc.build import Parameter, Tensor, fail
from graphc.errors import ArgumentError
from graphc.optim.optimizer import check, number, scalar


def clip_grad_norm(
    gradients: Mapping[Parameter, Tensor], max_norm: float, eps: float = 1e-6
) -> tuple[dict[Parameter, Tensor], Tensor]:
    """(`gradients` times min(1, max_norm / (norm + eps)), norm): the norm is that of all their elements together.

    `gradients` are a dict, parameter -> gradient, as `Optimizer.updates_from` takes them; each keeps its dtype. The
    norm is a scalar of float64 if one of them is, else float32. One that is nan makes all of them nan, as in PyTorch.
    Raises ArgumentError for another kind of gradients, for none, and for a negative `max_norm`.
    """
    if not isinstance(gradients, Mapping) or not gradients:
        hint = "write dict(zip(parameters, graphc.grad(loss, parameters)))"
        fail(ArgumentError, "clip_grad_norm: gradients are a dict, parameter -> gradient, of one or more", hint)
    check("clip_grad_norm", "max_norm", max_norm, number("clip_grad_norm", "max_norm", max_norm) >= 0, "at least 0")
    squares = [ops.square(g if g.dtype.itemsize >= 4 else g.astype("float32")).sum() for g in gradients.values()]
    norm = ops.sqrt(functools.reduce(operator.add, squares))
    factor = ops.minimum(max_norm / (norm + eps), 1.0)
    return {one: gradient * scalar(factor, gradient.dtype) for one, gradient in gradients.items()}, norm
