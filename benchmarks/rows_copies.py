"""Rows that move an array into another order of its axes and do nothing else. No target but the other libraries."""

from __future__ import annotations

import numpy as np
from measuring import Array, Contender, Row
from peers import Peers, aligned, normal


def transpose(name: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> Row:
    result = tuple(shape[axis] for axis in axes)

    def in_numpy(x: Array, out: Array) -> Array:
        np.copyto(out, x.transpose(axes))
        return out

    def build(peers: Peers) -> list[Contender]:
        sets = [(normal(*shape),)]
        return [
            *peers.graphc(lambda x: x.transpose(axes), sets),
            *peers.numpy(in_numpy, sets, lambda: aligned(result)),
            *peers.torch(lambda torch: lambda x, out: out.copy_(x.permute(axes)), sets, out=lambda: aligned(result)),
            *peers.jax(lambda jax, jnp: lambda x: jnp.transpose(x, axes), sets),
        ]

    return Row(name, "copies", build, 1.0, moved=8.0 * float(np.prod(shape)), memory=True)


ROWS = [
    transpose("4096x4096 transposed", (4096, 4096), (1, 0)),
    transpose("32x64x32x32, NCHW to NHWC", (32, 64, 32, 32), (0, 2, 3, 1)),
    transpose("32x32x32x64, NHWC to NCHW", (32, 32, 32, 64), (0, 3, 1, 2)),
]
