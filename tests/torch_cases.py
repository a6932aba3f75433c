"""What tests/test_against_torch.py compares beside its own tables: arrays put in order, matrices, layers of networks.

An entry: graphc's function, PyTorch's, the shapes of the float arguments. To compare another function, add a line; one
that is not compared stands in NOT_COMPARED with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import Tensor
from graphc.nn import functional

T = pytest.importorskip("torch", reason="PyTorch is an oracle, never a dependency")
F = T.nn.functional

Case = tuple[Callable[..., Any], Callable[..., Any], list[tuple[int, ...]]]


def regular(x: Tensor) -> Tensor:
    """A matrix that is easily inverted, of any one."""
    return x + graphc.eye(x.shape[-1], dtype=x.dtype) * 4


def _regular(x: Any) -> Any:
    return x + T.eye(x.shape[-1], dtype=x.dtype) * 4


def whole(x: Tensor) -> Tensor:
    return graphc.astype(x * 50, "int32")


def _whole(x: Any) -> Any:
    return (x * 50).to(T.int32)


PLACES = np.array([[2, 0], [1, 1]])
LOWER = np.tril(np.ones((4, 4), bool))

ARRAYS: dict[str, Case] = {
    "all": (lambda x: graphc.all(x > -1, 1), lambda x: (x > -1).all(1), [(3, 4)]),
    "any": (lambda x: graphc.any(x > 1, 1), lambda x: (x > 1).any(1), [(3, 4)]),
    "argmin": (lambda x: graphc.argmin(x, 1), lambda x: x.argmin(1), [(3, 4)]),
    "argsort": (lambda x: graphc.argsort(x, 1), lambda x: x.argsort(1), [(3, 5)]),
    "astype": (lambda x: graphc.astype(x * 9, "int32"), lambda x: (x * 9).to(T.int32), [(9,)]),
    "cast": (lambda x: graphc.cast(x, "bool"), lambda x: x.bool(), [(9,)]),
    "bincount": (lambda x: graphc.bincount(graphc.constant(np.array([0, 2, 2])), x, 4),
                 lambda x: T.bincount(T.tensor([0, 2, 2]), x.detach(), 4), [(3,)]),
    "bits": (lambda x: graphc.stack([graphc.bitwise_and(whole(x), 6), graphc.bitwise_or(whole(x), 6),
                                     graphc.bitwise_xor(whole(x), 6), graphc.bitwise_invert(whole(x)),
                                     graphc.bitwise_left_shift(whole(x), 2), graphc.bitwise_right_shift(whole(x), 1)]),
             lambda x: T.stack([_whole(x) & 6, _whole(x) | 6, _whole(x) ^ 6, ~_whole(x), _whole(x) << 2,
                                _whole(x) >> 1]), [(40,)]),
    "logic": (lambda x, y: graphc.stack([graphc.logical_and(x > 0, y > 0), graphc.logical_or(x > 0, y > 0),
                                         graphc.logical_xor(x > 0, y > 0), graphc.logical_not(x > 0)]),
              lambda x, y: T.stack([(x > 0) & (y > 0), (x > 0) | (y > 0), (x > 0) ^ (y > 0), ~(x > 0)]), [(9,), (9,)]),
    "broadcast_to": (lambda x: graphc.broadcast_to(x, (3, 4)), lambda x: x.expand(3, 4), [(4,)]),
    "count_nonzero": (lambda x: graphc.count_nonzero(x > 0, 1), lambda x: (x > 0).count_nonzero(1), [(3, 4)]),
    "cummin": (lambda x: graphc.cummin(x, 1), lambda x: x.cummin(1).values, [(3, 5)]),
    "cumulative_sum": (lambda x: graphc.cumulative_sum(x, 0), lambda x: x.cumsum(0), [(5, 2)]),
    "cumulative_prod": (lambda x: graphc.cumulative_prod(x, 0), lambda x: x.cumprod(0), [(5, 2)]),
    "expand_dims": (lambda x: graphc.expand_dims(x, 1), lambda x: x.unsqueeze(1), [(3, 4)]),
    "squeeze": (lambda x: graphc.squeeze(x, 1), lambda x: x.squeeze(1), [(3, 1, 4)]),
    "swapaxes": (lambda x: graphc.swapaxes(x, 0, 2), lambda x: x.swapaxes(0, 2), [(2, 3, 4)]),
    "permute_dims": (lambda x: graphc.permute_dims(x, (2, 0, 1)), lambda x: x.permute(2, 0, 1), [(2, 3, 4)]),
    "transposes": (lambda x: graphc.transpose(graphc.matrix_transpose(x)), lambda x: x.mT.permute(2, 1, 0),
                   [(2, 3, 4)]),
    "ravel": (lambda x: graphc.ravel(graphc.reshape(x, (4, 3))), lambda x: x.reshape(4, 3).ravel(), [(3, 4)]),
    "triu": (lambda x: graphc.triu(x, 1), lambda x: x.triu(1), [(4, 4)]),
    "unstack": (lambda x: graphc.unstack(x, 1)[2], lambda x: x.unbind(1)[2], [(2, 3)]),
    "meshgrid": (lambda x, y: graphc.meshgrid(x, y, indexing="ij")[1],
                 lambda x, y: T.meshgrid(x, y, indexing="ij")[1], [(3,), (4,)]),
    "nan_to_num": (lambda x: graphc.nan_to_num(graphc.log(x)), lambda x: x.log().nan_to_num(), [(9,)]),
    "one_hot": (lambda x: graphc.one_hot(np.array([1, 0]), 3, x.dtype) @ x,
                lambda x: F.one_hot(T.tensor([1, 0]), 3).to(x.dtype) @ x, [(3, 2)]),
    "searchsorted": (lambda x: graphc.searchsorted(np.array([-1.0, 0.0, 1.0]), x),
                     lambda x: T.searchsorted(T.tensor([-1.0, 0.0, 1.0], dtype=x.dtype), x.detach()), [(7,)]),
    "gather": (lambda x: graphc.gather(x, PLACES, 0), lambda x: x.gather(0, T.tensor(PLACES)), [(3, 2)]),
    "scatter": (lambda x, y: graphc.scatter(x, np.array([[2, 0], [1, 3]]), y, 1),
                lambda x, y: x.scatter(1, T.tensor([[2, 0], [1, 3]]), y), [(2, 4), (2, 2)]),
    "scatter by adding": (lambda x, y: graphc.scatter(x, PLACES, y, 1, "add"),
                          lambda x, y: x.scatter_add(1, T.tensor(PLACES), y), [(2, 4), (2, 2)]),
    "scatter_add_along_axis": (lambda y: graphc.scatter_add_along_axis(graphc.constant(PLACES), y, 1, 4),
                               lambda y: T.zeros(2, 4, dtype=y.dtype).scatter_add(1, T.tensor(PLACES), y), [(2, 2)]),
    "stop_gradient": (lambda x: x * graphc.stop_gradient(x), lambda x: x * x.detach(), [(5,)]),
    "floor_divide": (lambda x: graphc.floor_divide(x, 0.3), lambda x: T.floor_divide(x.detach(), 0.3), [(9,)]),
    "made of nothing": (lambda x: x + graphc.linspace(0, 1, 5, dtype=x.dtype) + graphc.arange(5, dtype=x.dtype)
                        + graphc.iota(5, x.dtype) + graphc.full((5,), 2, x.dtype) + graphc.ones((5,), x.dtype)
                        + graphc.zeros((5,), x.dtype) + graphc.ones_like(x) + graphc.zeros_like(x)
                        + graphc.full_like(x, 3) + graphc.eye(1, 5, 2, x.dtype)[0]
                        + graphc.empty(5, x.dtype) + graphc.empty_like(x),
                        lambda x: x + T.linspace(0, 1, 5, dtype=x.dtype) + 2 * T.arange(5) + 2 + 1 + 1 + 3
                        + T.eye(5, dtype=x.dtype)[2], [(5,)]),
    "asarray and broadcast_arrays": (lambda x, y: graphc.broadcast_arrays(graphc.asarray(x), y)[1] * x,
                                     lambda x, y: T.broadcast_tensors(x, y)[1] * x, [(3, 1), (4,)]),
    "isin": (lambda x: graphc.isin(graphc.floor(x), [0, -2]), lambda x: T.isin(x.floor(), T.tensor([0.0, -2.0])),
             [(9,)]),
    "nextafter": (graphc.nextafter, lambda x, y: T.nextafter(x.detach(), y.detach()), [(9,), (9,)]),
}  # fmt: skip

MATRICES: dict[str, Case] = {
    "cholesky": (lambda x: graphc.cholesky(regular(x) @ regular(x).T),
                 lambda x: T.linalg.cholesky(_regular(x) @ _regular(x).T), [(4, 4)]),
    "cross": (graphc.cross, T.linalg.cross, [(2, 3), (2, 3)]),
    "det": (lambda x: graphc.det(regular(x)), lambda x: T.linalg.det(_regular(x)), [(3, 3)]),
    "slogdet": (lambda x: graphc.slogdet(regular(x))[1], lambda x: T.linalg.slogdet(_regular(x))[1], [(3, 3)]),
    "inv": (lambda x: graphc.inv(regular(x)), lambda x: T.linalg.inv(_regular(x)), [(3, 3)]),
    "solve": (lambda x, y: graphc.solve(regular(x), y), lambda x, y: T.linalg.solve(_regular(x), y), [(3, 3), (3, 2)]),
    "solve_triangular": (lambda x, y: graphc.solve_triangular(regular(x), y, lower=True),
                         lambda x, y: T.linalg.solve_triangular(_regular(x).tril(), y, upper=False),
                         [(3, 3), (3, 2)]),
    "matrix_power": (lambda x: graphc.matrix_power(x, 3), lambda x: T.linalg.matrix_power(x, 3), [(3, 3)]),
    "matrix_norm": (graphc.matrix_norm, T.linalg.matrix_norm, [(3, 4)]),
    "vector_norm": (lambda x: graphc.vector_norm(x, axis=1, ord=3), lambda x: T.linalg.vector_norm(x, 3, 1), [(3, 4)]),
    "trace": (graphc.trace, T.trace, [(4, 4)]),
    "diagonal": (lambda x: graphc.diagonal(x, offset=1), lambda x: x.diagonal(1), [(3, 4)]),
}  # fmt: skip

NETWORKS: dict[str, Case] = {
    "conv1d": (lambda x, w, b: functional.conv1d(x, w, b, stride=2, padding=1, dilation=2),
               lambda x, w, b: F.conv1d(x, w, b, 2, 1, 2), [(2, 3, 9), (4, 3, 2), (4,)]),
    "conv2d": (lambda x, w, b: functional.conv2d(x, w, b, padding=1, groups=2),
               lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=2), [(2, 4, 5, 6), (6, 2, 3, 3), (6,)]),
    "conv_transpose1d": (lambda x, w: functional.conv_transpose1d(x, w, stride=2, padding=1, output_padding=1),
                         lambda x, w: F.conv_transpose1d(x, w, None, 2, 1, 1), [(2, 3, 5), (3, 4, 3)]),
    "conv_transpose2d": (lambda x, w: functional.conv_transpose2d(x, w, stride=2),
                         lambda x, w: F.conv_transpose2d(x, w, None, 2), [(2, 3, 4, 3), (3, 2, 2, 3)]),
    "max_pool1d": (lambda x: functional.max_pool1d(x, 3, 2, 1), lambda x: F.max_pool1d(x, 3, 2, 1), [(2, 3, 9)]),
    "max_pool2d": (lambda x: functional.max_pool2d(x, 2), lambda x: F.max_pool2d(x, 2), [(2, 3, 6, 5)]),
    "avg_pool1d": (lambda x: functional.avg_pool1d(x, 3, 2, 1), lambda x: F.avg_pool1d(x, 3, 2, 1), [(2, 3, 9)]),
    "avg_pool2d": (lambda x: functional.avg_pool2d(x, 2, padding=1, count_include_pad=False),
                   lambda x: F.avg_pool2d(x, 2, padding=1, count_include_pad=False), [(2, 3, 6, 5)]),
    "adaptive_avg_pool1d": (lambda x: functional.adaptive_avg_pool1d(x, 4), lambda x: F.adaptive_avg_pool1d(x, 4),
                            [(2, 3, 9)]),
    "adaptive_avg_pool2d": (lambda x: functional.adaptive_avg_pool2d(x, (3, 2)),
                            lambda x: F.adaptive_avg_pool2d(x, (3, 2)), [(2, 3, 7, 5)]),
    "adaptive_max_pool1d": (lambda x: functional.adaptive_max_pool1d(x, 4), lambda x: F.adaptive_max_pool1d(x, 4),
                            [(2, 3, 9)]),
    "adaptive_max_pool2d": (lambda x: functional.adaptive_max_pool2d(x, (3, 2)),
                            lambda x: F.adaptive_max_pool2d(x, (3, 2)), [(2, 3, 7, 5)]),
    "global_avg_pool2d": (functional.global_avg_pool2d, lambda x: x.mean((2, 3), keepdim=True), [(2, 3, 4, 5)]),
    "global_max_pool2d": (functional.global_max_pool2d, lambda x: x.amax((2, 3), keepdim=True), [(2, 3, 4, 5)]),
    "interpolate": (lambda x: functional.interpolate(x, (7, 3)), lambda x: F.interpolate(x, (7, 3)), [(1, 2, 4, 5)]),
    "interpolate, bilinear": (lambda x: functional.interpolate(x, (7, 3), mode="bilinear"),
                              lambda x: F.interpolate(x, (7, 3), mode="bilinear"), [(1, 2, 4, 5)]),
    "embedding": (lambda w: functional.embedding(graphc.constant(np.array([2, 0, 2])), w),
                  lambda w: F.embedding(T.tensor([2, 0, 2]), w), [(4, 3)]),
    "gelu": (functional.gelu, F.gelu, [(3, 4)]),
    "gelu by tanh": (lambda x: functional.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh"), [(3, 4)]),
    "silu": (functional.silu, F.silu, [(3, 4)]),
    "leaky_relu": (lambda x: functional.leaky_relu(x, 0.2), lambda x: F.leaky_relu(x, 0.2), [(3, 4)]),
    "elu": (lambda x: functional.elu(x, 0.7), lambda x: F.elu(x, 0.7), [(3, 4)]),
    "nll_loss": (lambda x: functional.nll_loss(x, graphc.constant(np.array([2, 0, 1]))),
                 lambda x: F.nll_loss(x, T.tensor([2, 0, 1])), [(3, 4)]),
    "l1_loss": (lambda x, y: functional.l1_loss(x, y, "sum"), lambda x, y: F.l1_loss(x, y, reduction="sum"),
                [(3, 4), (3, 4)]),
    "smooth_l1_loss": (lambda x, y: functional.smooth_l1_loss(x, y, beta=0.5),
                       lambda x, y: F.smooth_l1_loss(x, y, beta=0.5), [(3, 4), (3, 4)]),
    "batch_norm": (lambda x, w, b: functional.batch_norm(x, None, None, w, b),
                   lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), [(2, 3, 4, 5), (3,), (3,)]),
    "batch_norm of given moments": (lambda x, m, v, w, b: functional.batch_norm(x, m, v * v, w, b),
                                    lambda x, m, v, w, b: (x - m) / (v * v + 1e-5).sqrt() * w + b,
                                    [(4, 3), (3,), (3,), (3,), (3,)]),
    "group_norm": (lambda x, w, b: functional.group_norm(x, 2, w, b), lambda x, w, b: F.group_norm(x, 2, w, b),
                   [(2, 4, 3, 5), (4,), (4,)]),
    "flatten": (lambda x: graphc.flatten(x, 1, -2), lambda x: x.flatten(1, -2), [(2, 3, 4, 5)]),
    "layer_norm": (lambda x, w, b: functional.layer_norm(x, (4,), w, b), lambda x, w, b: F.layer_norm(x, (4,), w, b),
                   [(3, 4), (4,), (4,)]),
    "rms_norm": (lambda x, w: functional.rms_norm(x, (4,), w), lambda x, w: F.rms_norm(x, (4,), w), [(3, 4), (4,)]),
    "attention": (lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True),
                  lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
                  [(2, 4, 3), (2, 4, 3), (2, 4, 5)]),
    "dropout out of training": (lambda x: functional.dropout(x, training=False),
                                lambda x: F.dropout(x, training=False), [(3, 4)]),
}  # fmt: skip

NOT_COMPARED = {
    "dim_value": "PyTorch's eager tensors have no named sizes",
    **{f"random.{name}": "PyTorch draws other numbers: tests/test_random.py looks at the distributions" for name in (
        "bernoulli", "bits", "fold_in", "key", "normal", "permutation", "randint", "split", "uniform")},
}  # fmt: skip
