"""Rows of attention: 8 heads of 1024 x 64, causal; forward, and forward with gradients of all three operands.

graphc gets the plain composition: nothing in it says attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from measuring import Contender, Row
from peers import Peers, normal

import graphc
from graphc import nn

HEADS, LENGTH, WIDTH = 8, 1024, 64
SCALE = WIDTH**-0.5


def attention(q: Any, k: Any, v: Any) -> Any:
    position = graphc.arange(LENGTH)
    causal = position.reshape(LENGTH, 1) >= position.reshape(1, LENGTH)
    scores = graphc.where(causal, q @ k.transpose((0, 2, 1)) * SCALE, -np.inf)
    return nn.functional.softmax(scores, -1) @ v


def gradients(q: Any, k: Any, v: Any, g: Any) -> Any:
    return graphc.vjp(attention(q, k, v), [q, k, v], g)


def in_numpy(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.transpose(0, 2, 1)
    scores *= np.float32(SCALE)
    scores[:, ~np.tri(LENGTH, dtype=bool)] = -np.inf
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores @ v


def in_jax(jax: Any, jnp: Any) -> Callable[..., Any]:
    def forward(q: Any, k: Any, v: Any) -> Any:
        scores = jnp.where(jnp.tri(LENGTH, dtype=bool), q @ k.transpose(0, 2, 1) * SCALE, -jnp.inf)
        return jax.nn.softmax(scores, -1) @ v

    return forward


def jax_gradients(jax: Any, jnp: Any) -> Callable[..., Any]:
    return lambda q, k, v, g: jax.vjp(in_jax(jax, jnp), q, k, v)[1](g)


def in_torch(torch: Any) -> Callable[..., Any]:
    return lambda *qkv: torch.nn.functional.scaled_dot_product_attention(*qkv, is_causal=True)


def torch_gradients(torch: Any) -> Callable[..., Any]:
    def run(q: Any, k: Any, v: Any, g: Any) -> Any:
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_() for t in (q, k, v)]
            return torch.autograd.grad(in_torch(torch)(*leaves), leaves, g)

    return run


def row(name: str, count: int, flops: float, contenders: Callable[[Peers, Any], list[Contender]]) -> Row:
    def build(peers: Peers) -> list[Contender]:
        return contenders(peers, [tuple(normal(HEADS, LENGTH, WIDTH, seed=n) for n in range(count))])

    moved = 4.0 * HEADS * LENGTH * WIDTH * (4 if count == 3 else 7)
    return Row(name, "attention", build, 1.1, flops, moved, tolerance=1e-4, slow=True)


def _forward(peers: Peers, sets: Any) -> list[Contender]:
    batch = [tuple(array[None] for array in arrays) for arrays in sets]
    return [
        *peers.graphc(attention, sets), *peers.numpy(in_numpy, sets),
        *peers.torch(in_torch, batch, back=lambda t: t[0]), *peers.jax(in_jax, sets),
    ]  # fmt: skip


def _both(peers: Peers, sets: Any) -> list[Contender]:
    batch = [tuple(array[None] for array in arrays) for arrays in sets]
    return [
        *peers.graphc(gradients, sets),
        *peers.torch(torch_gradients, batch, back=lambda ts: [t[0] for t in ts]),
        *peers.jax(jax_gradients, sets),
    ]


# Half of the scores are masked: two products of half the square forward, five with the gradients and two again.
SQUARE = 2.0 * HEADS * LENGTH * LENGTH * WIDTH / 2
ROWS = [
    row("attention forward", 3, 2 * SQUARE, _forward),
    row("attention forward and backward", 4, 7 * SQUARE, _both),
]
