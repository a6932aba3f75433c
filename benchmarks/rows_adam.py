"""The row of Adam: one step on one parameter of 10M, in place; JAX gives its buffers away for it. Enter at `ADAM`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba_kernels
import numpy as np
from measuring import Array, Contender, Row
from peers import Peers, aligned, normal

import graphc

SIZE, DECAY, SPREAD, RATE, SMALL = 10_000_000, 0.9, 0.999, 0.01, 1e-8


def step(p: Any, m: Any, v: Any, g: Any, sqrt: Callable[[Any], Any]) -> tuple[Any, Any, Any]:
    m = m * DECAY + g * (1 - DECAY)
    v = v * SPREAD + g * g * (1 - SPREAD)
    return p - RATE * m / (sqrt(v) + SMALL), m, v


def state() -> tuple[Array, Array, Array]:
    return normal(SIZE), aligned((SIZE,)), aligned((SIZE,))


def ours(peers: Peers, threads: int, name: str, g: Array) -> Contender:
    p, m, v = (graphc.parameter(n, a) for n, a in zip("pmv", state()))
    gradient = graphc.placeholder("g", (SIZE,), "float32")
    new = dict(zip((p, m, v), step(p, m, v, gradient, graphc.sqrt)))
    run = peers.compiled([gradient], [], updates=new, threads=threads)
    return Contender(name, run, [((g,), {})], lambda _: p)


def in_numpy(g: Array) -> Callable[[], Array]:
    (p, m, v), t, u = state(), aligned((SIZE,)), aligned((SIZE,))

    def run() -> Array:
        np.multiply(g, np.float32(1 - DECAY), out=t)
        np.multiply(m, np.float32(DECAY), out=m)
        np.add(m, t, out=m)
        np.multiply(g, g, out=t)
        np.multiply(t, np.float32(1 - SPREAD), out=t)
        np.multiply(v, np.float32(SPREAD), out=v)
        np.add(v, t, out=v)
        np.sqrt(v, out=t)
        np.add(t, np.float32(SMALL), out=t)
        np.multiply(m, np.float32(RATE), out=u)
        np.divide(u, t, out=u)
        return np.subtract(p, u, out=p)

    return run


def in_torch(g: Array) -> Callable[[], Any]:
    import torch

    (p, m, v), steps, gradient = map(torch.from_numpy, state()), torch.full((), 1e6), torch.from_numpy(g)
    how = {"weight_decay": 0.0, "amsgrad": False, "maximize": False}

    def run() -> Any:  # so many steps ago that no bias is left to correct
        torch._fused_adam_(
            [p], [gradient], [m], [v], [], [steps], lr=RATE, beta1=DECAY, beta2=SPREAD, eps=SMALL, **how
        )
        return p

    return run


def in_jax(g: Array) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    donated = jax.jit(lambda p, m, v, g: step(p, m, v, g, jnp.sqrt), donate_argnums=(0, 1, 2))
    kept, gradient = [jax.device_put(a.copy()) for a in state()], jax.device_put(g)

    def run() -> Any:
        kept[:] = jax.block_until_ready(donated(*kept, gradient))
        return kept[0]

    return run


def build(peers: Peers) -> list[Contender]:
    g = normal(SIZE, seed=1)
    found = [ours(peers, peers.threads, "graphc", g)]
    if peers.threads > 1:
        found.append(ours(peers, 1, "one thread", g))
    for name, make in (("NumPy", in_numpy), ("PyTorch", in_torch), ("JAX", in_jax)):
        found += [Contender(name, make(g), arrays=np.asarray)] if name in peers.wanted else []
    settings = RATE, DECAY, SPREAD, SMALL
    return [*found, *peers.numba(lambda numba: numba_kernels.adam(numba, *settings), [(g,)], state)]


ADAM = Row("Adam on 10M", "elementwise", build, 0.95, 12.0 * SIZE, 28.0 * SIZE, memory=True)
