"""Rows of attention: 8 heads of 1024 x 64, causal; forward, and forward with gradients of all three operands.

graphc gets the plain composition: nothing in it says attention. Two heads of 4096 x 64, whose rows of scores are too
long to be kept, have no target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from measuring import Contender, Row
from peers import Peers, normal

import graphc
from graphc import nn

WIDTH = 64
SCALE = WIDTH**-0.5


def attention(q: Any, k: Any, v: Any) -> Any:
    length = q.shape[1]
    position = graphc.arange(length)
    causal = position.reshape(length, 1) >= position.reshape(1, length)
    scores = graphc.where(causal, q @ k.transpose((0, 2, 1)) * SCALE, -np.inf)
    return nn.functional.softmax(scores, -1) @ v


def gradients(q: Any, k: Any, v: Any, g: Any) -> Any:
    return graphc.vjp(attention(q, k, v), [q, k, v], g)


def in_numpy(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.transpose(0, 2, 1)
    scores *= np.float32(SCALE)
    scores[:, ~np.tri(q.shape[1], dtype=bool)] = -np.inf
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores @ v


def in_jax(jax: Any, jnp: Any) -> Callable[..., Any]:
    def forward(q: Any, k: Any, v: Any) -> Any:
        scores = jnp.where(jnp.tri(q.shape[1], dtype=bool), q @ k.transpose(0, 2, 1) * SCALE, -jnp.inf)
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


def row(name: str, both: bool, heads: int, length: int, target: float) -> Row:
    def build(peers: Peers) -> list[Contender]:
        sets = [tuple(normal(heads, length, WIDTH, seed=n) for n in range(4 if both else 3))]
        return (_both if both else _forward)(peers, sets)

    # Half of the scores are masked: two products of half the square forward, five with the gradients and two again.
    square = 2.0 * heads * length * length * WIDTH / 2
    moved = 4.0 * heads * length * WIDTH * (7 if both else 4)
    return Row(name, "attention", build, target, (7 if both else 2) * square, moved, tolerance=1e-4, slow=True)


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


ROWS = [
    row("attention forward", False, 8, 1024, 1.1),
    row("attention forward and backward", True, 8, 1024, 1.1),
    row("attention forward, 2 x 4096", False, 2, 4096, 0.0),
    row("attention forward and backward, 2 x 4096", True, 2, 4096, 0.0),
]
