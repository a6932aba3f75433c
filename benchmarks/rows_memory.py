"""Rows that memory or transcendental functions bound: normalisations, chains, reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba_kernels
import numpy as np
from measuring import Array, Contender, Row
from peers import Peers, aligned, normal
from rows_adam import ADAM
from rows_products import gelu

import graphc
from graphc import nn

EPSILON = 1e-5


def softmax() -> Row:
    shape = 4096, 1024

    def in_numpy(x: Array, out: Array) -> Array:
        np.subtract(x, x.max(-1, keepdims=True), out=out)
        np.exp(out, out=out)
        return np.divide(out, out.sum(-1, keepdims=True), out=out)

    def build(peers: Peers) -> list[Contender]:
        sets = [(normal(*shape),)]
        return [
            *peers.graphc(lambda x: nn.functional.softmax(x, -1), sets),
            *peers.numpy(in_numpy, sets, lambda: aligned(shape)),
            *peers.torch(lambda torch: lambda x, out: torch.softmax(x, -1, out=out), sets, out=lambda: aligned(shape)),
            *peers.jax(lambda jax, jnp: jax.nn.softmax, sets),
            *peers.numba(numba_kernels.softmax, sets, lambda: aligned(shape)),
        ]

    return Row("softmax 4096x1024", "rows", build, 1.1, moved=8.0 * 4096 * 1024)


def softmax_gradient() -> Row:
    """From the result and its cotangent, as every library keeps it."""
    shape = 4096, 1024

    def formula(g: Any, y: Any) -> Any:
        return (g - (g * y).sum(-1, keepdims=True)) * y

    def in_numpy(g: Array, y: Array, out: Array) -> Array:
        np.multiply(g, y, out=out)
        np.subtract(g, out.sum(-1, keepdims=True), out=out)
        return np.multiply(out, y, out=out)

    def in_torch(torch: Any) -> Callable[..., Any]:
        backward = torch.ops.aten._softmax_backward_data
        return lambda g, y: backward(g, y, 1, torch.float32)

    def build(peers: Peers) -> list[Contender]:
        y = np.exp(normal(*shape))
        y /= y.sum(-1, keepdims=True)
        sets = [(normal(*shape, seed=1), y)]
        return [
            *peers.graphc(formula, sets),
            *peers.numpy(in_numpy, sets, lambda: aligned(shape)),
            *peers.torch(in_torch, sets),
            *peers.jax(lambda jax, jnp: formula, sets),
            *peers.numba(numba_kernels.softmax_gradient, sets, lambda: aligned(shape)),
        ]

    return Row("softmax gradient 4096x1024", "rows", build, 1.1, moved=12.0 * 4096 * 1024)


def layer_norm() -> Row:
    shape = 4096, 768

    def formula(rsqrt: Callable[[Any], Any]) -> Callable[..., Any]:
        def run(x: Any, w: Any, b: Any) -> Any:
            centred = x - x.mean(-1, keepdims=True)
            return centred * rsqrt((centred * centred).mean(-1, keepdims=True) + EPSILON) * w + b

        return run

    def in_numpy(x: Array, w: Array, b: Array, out: Array) -> Array:
        np.subtract(x, x.mean(-1, keepdims=True), out=out)
        scale = 1 / np.sqrt(np.einsum("ij,ij->i", out, out)[:, None] / 768 + np.float32(EPSILON))
        np.multiply(out, scale, out=out)
        np.multiply(out, w, out=out)
        return np.add(out, b, out=out)

    def build(peers: Peers) -> list[Contender]:
        sets = [(normal(*shape), normal(768, seed=1) + 1, normal(768, seed=2))]
        return [
            *peers.graphc(formula(graphc.rsqrt), sets),
            *peers.numpy(in_numpy, sets, lambda: aligned(shape)),
            *peers.torch(lambda torch: lambda x, w, b: torch.nn.functional.layer_norm(x, (768,), w, b), sets),
            *peers.jax(lambda jax, jnp: formula(jax.lax.rsqrt), sets),
            *peers.numba(numba_kernels.layer_norm, sets, lambda: aligned(shape)),
        ]

    return Row("layer norm 4096x768", "rows", build, 1.1, moved=8.0 * 4096 * 768)


def layer_norm_gradient() -> Row:
    """To operand, weight and bias, from the cotangent and the kept statistics."""
    shape = 4096, 768

    def formula(g: Any, x: Any, mean: Any, scale: Any, w: Any) -> Any:
        hat = (x - mean) * scale
        gw = g * w
        back = (gw - gw.mean(-1, keepdims=True) - hat * (gw * hat).mean(-1, keepdims=True)) * scale
        return back, (g * hat).sum(0), g.sum(0)

    def in_torch(torch: Any) -> Callable[..., Any]:
        backward, bias = torch.ops.aten.native_layer_norm_backward, torch.zeros(768)
        return lambda g, x, mean, scale, w: backward(g, x, [768], mean, scale, w, bias, [True, True, True])

    def build(peers: Peers) -> list[Contender]:
        x = normal(*shape)
        mean, scale = x.mean(-1, keepdims=True), 1 / np.sqrt(x.var(-1, keepdims=True) + np.float32(EPSILON))
        sets = [(normal(*shape, seed=1), x, mean, scale, normal(768, seed=2) + 1)]
        return [
            *peers.graphc(formula, sets),
            *peers.numpy(formula, sets),
            *peers.torch(in_torch, sets),
            *peers.jax(lambda jax, jnp: formula, sets),
            *peers.numba(
                numba_kernels.layer_norm_gradient, sets, lambda: (aligned(shape), aligned((768,)), aligned((768,)))
            ),
        ]

    return Row("layer norm gradient 4096x768", "rows", build, 1.1, moved=12.0 * 4096 * 768, tolerance=1e-4)


def batch_norm() -> Row:
    """Training: the statistics of the batch. PyTorch gets the same memory as channels-last NCHW, and NCHW."""
    shape = 32, 32, 32, 64

    def formula(rsqrt: Callable[[Any], Any]) -> Callable[..., Any]:
        def run(x: Any, w: Any, b: Any) -> Any:
            centred = x - x.mean((0, 1, 2))
            return centred * rsqrt((centred * centred).mean((0, 1, 2)) + EPSILON) * w + b

        return run

    def in_numpy(x: Array, w: Array, b: Array) -> Array:
        scale = w / np.sqrt(x.var((0, 1, 2)) + np.float32(EPSILON))
        return (x - x.mean((0, 1, 2))) * scale + b

    def in_torch(torch: Any) -> Callable[..., Any]:
        return lambda x, w, b: torch.nn.functional.batch_norm(x, None, None, w, b, True)

    def build(peers: Peers) -> list[Contender]:
        sets = [(normal(*shape), normal(64, seed=1) + 1, normal(64, seed=2))]
        found = [*peers.graphc(formula(graphc.rsqrt), sets), *peers.numpy(in_numpy, sets)]
        for name, copy in (("PyTorch channels_last", lambda x: x), ("PyTorch", lambda x: x.contiguous())):
            found += peers.torch(
                in_torch, sets, name=name, prepare=lambda x, w, b, copy=copy: (copy(x.permute(0, 3, 1, 2)), w, b),
                back=lambda t: t.permute(0, 2, 3, 1),
            )  # fmt: skip
        return [
            *found,
            *peers.jax(lambda jax, jnp: formula(jax.lax.rsqrt), sets),
            *peers.numba(numba_kernels.batch_norm, sets, lambda: aligned(shape)),
        ]

    return Row("batch norm 32x32x32x64", "rows", build, 1.1, moved=8.0 * 32**3 * 64, tolerance=1e-4)


def gelu_row() -> Row:
    """The tanh form."""

    def in_torch(torch: Any) -> Callable[..., Any]:
        return lambda x, out: torch.ops.aten.gelu.out(x, approximate="tanh", out=out)

    def build(peers: Peers) -> list[Contender]:
        sets = [(normal(1 << 22),)]
        return [
            *peers.graphc(lambda x: gelu(x, graphc.tanh), sets),
            *peers.numpy(lambda x: gelu(x, np.tanh), sets),
            *peers.torch(in_torch, sets, out=lambda: aligned((1 << 22,))),
            *peers.jax(lambda jax, jnp: lambda x: gelu(x, jnp.tanh), sets),
            *peers.numba(numba_kernels.gelu, sets, lambda: aligned((1 << 22,))),
        ]

    return Row("GELU (tanh) on 4M", "elementwise", build, 1.0, moved=8.0 * (1 << 22))


def argmax() -> Row:
    def build(peers: Peers) -> list[Contender]:
        sets = [(normal(1 << 16, seed=seed),) for seed in range(8)]
        return [
            *peers.graphc(lambda x: x.argmax(0), sets),
            *peers.numpy(np.argmax, sets),
            *peers.torch(lambda torch: torch.argmax, sets),
            *peers.jax(lambda jax, jnp: jnp.argmax, sets),
            *peers.numba(numba_kernels.argmax, sets, lambda: np.zeros(1, np.int64)),
        ]

    return Row("argmax of 64K", "elementwise", build, 1.0, moved=4.0 * (1 << 16))


def chain() -> Row:
    """Ten operations in one pass, where a library can fuse them."""
    size = 1 << 24

    def formula(maximum: Any, minimum: Any) -> Callable[..., Any]:
        def run(x: Any, y: Any) -> Any:
            t = maximum(x * 1.5 + y, 0) - 0.25 * x
            return minimum(abs(t * y - x), 3) * t

        return run

    def in_numpy(x: Array, y: Array, t: Array) -> Array:
        np.multiply(x, np.float32(1.5), out=t)
        t += y
        np.maximum(t, 0, out=t)
        t -= np.float32(0.25) * x
        u = t * y
        u -= x
        np.abs(u, out=u)
        np.minimum(u, 3, out=u)
        return np.multiply(u, t, out=t)

    def in_torch(torch: Any) -> Callable[..., Any]:
        def run(x: Any, y: Any, out: Any) -> Any:
            t = torch.mul(x, 1.5, out=out).add_(y).clamp_(min=0).sub_(x, alpha=0.25)
            return t.mul_(torch.mul(t, y).sub_(x).abs_().clamp_(max=3))

        return run

    def build(peers: Peers) -> list[Contender]:
        sets = [(normal(size), normal(size, seed=1))]
        return [
            *peers.graphc(formula(graphc.maximum, graphc.minimum), sets),
            *peers.numpy(in_numpy, sets, lambda: aligned((size,))),
            *peers.torch(in_torch, sets, out=lambda: aligned((size,))),
            *peers.jax(lambda jax, jnp: formula(jnp.maximum, jnp.minimum), sets),
            *peers.numba(numba_kernels.chain, sets, lambda: aligned((size,))),
        ]

    return Row("10-op chain on 16M", "elementwise", build, 0.95, 10.0 * size, 12.0 * size, memory=True)


def reduction(name: str, shape: tuple[int, ...], axis: int | None, kernel: Callable[[Any], Any]) -> Row:
    def build(peers: Peers) -> list[Contender]:
        sets = [(normal(*shape),)]
        return [
            *peers.graphc(lambda x: x.sum(axis), sets),
            *peers.numpy(lambda x: x.sum(axis), sets),
            *peers.torch(lambda torch: lambda x: x.sum(axis), sets),
            *peers.jax(lambda jax, jnp: lambda x: x.sum(axis), sets),
            *peers.numba(kernel, sets, lambda: aligned((1,) if axis is None else shape[1:])),
        ]

    count = float(np.prod(shape))
    return Row(name, "elementwise", build, 0.95, count, 4 * count, memory=True, tolerance=2e-5)


ROWS = [
    softmax(), softmax_gradient(), layer_norm(), layer_norm_gradient(), batch_norm(), gelu_row(), argmax(), chain(),
    ADAM, reduction("sum of 16M", (1 << 24,), None, numba_kernels.total),
    reduction("column sum 16384x1024", (16384, 1024), 0, numba_kernels.columns),
]  # fmt: skip
