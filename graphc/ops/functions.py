"""Functions that are compositions of ops and belong to no single kind.

Further compositions stand beside the ops they are made of: `square`, `clip` in arithmetic, `mean` in reductions,
`expand_dims` in movement. Layers and losses are in `graphc.nn`.
"""

from __future__ import annotations

import builtins

from graphc.build import Tensor, install
from graphc.ops.arithmetic import maximum
from graphc.ops.comparison import isnan
from graphc.ops.movement import reshape
from graphc.ops.operands import TensorLike, as_tensor, converted, floating, matched, promoted
from graphc.ops.reductions import Axis, max, sum
from graphc.ops.selection import stop_gradient, where
from graphc.ops.transcendental import exp, log, softplus


def logsumexp(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) without overflow: the maximum is subtracted first (under stop_gradient). -inf for only -inf.

    `logsumexp([0.0, 0.0, 0.0])` is 1.0986....
    """
    given = as_tensor(x)
    tensor = converted("logsumexp", given, floating(given.dtype))
    top = stop_gradient(max(tensor, axis, keepdims=True))
    finite = where((builtins.abs(top) < float("inf")) | isnan(top), top, 0)  # inf - inf would be nan
    result = log(sum(exp(tensor - finite), axis, keepdims=True)) + finite
    return result if keepdims else reshape(result, sum(tensor, axis).shape)


def logaddexp(x: TensorLike, y: TensorLike) -> Tensor:
    """log(exp(x) + exp(y)) without overflow, of two arrays that broadcast. `logaddexp(0.0, 0.0)` is 0.6931...."""
    a, b = matched("logaddexp", x, y, dtype=floating(promoted("logaddexp", x, y)))
    distance = where(a == b, 0, a - b)  # inf - inf would be nan
    return maximum(a, b) + softplus(-builtins.abs(distance))


install(logaddexp=logaddexp, logsumexp=logsumexp)
