"""The row kernels as a user of Numba writes them: loops over `prange`, compiled with fastmath.

Each function gets the module `numba` and gives a plain function, which `peers.Peers.numba` compiles; the last
arguments are the arrays that it fills in and returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np


def softmax(numba: Any) -> Callable[..., Any]:
    prange = numba.prange

    def run(x: Any, out: Any) -> Any:
        for i in prange(x.shape[0]):
            top = np.float32(-np.inf)
            for j in range(x.shape[1]):
                top = max(top, x[i, j])
            total = np.float32(0)
            for j in range(x.shape[1]):
                out[i, j] = math.exp(x[i, j] - top)
                total += out[i, j]
            scale = np.float32(1) / total
            for j in range(x.shape[1]):
                out[i, j] *= scale
        return out

    return run


def softmax_gradient(numba: Any) -> Callable[..., Any]:
    prange = numba.prange

    def run(g: Any, y: Any, out: Any) -> Any:
        for i in prange(g.shape[0]):
            total = np.float32(0)
            for j in range(g.shape[1]):
                total += g[i, j] * y[i, j]
            for j in range(g.shape[1]):
                out[i, j] = (g[i, j] - total) * y[i, j]
        return out

    return run


def layer_norm(numba: Any) -> Callable[..., Any]:
    prange = numba.prange

    def run(x: Any, w: Any, b: Any, out: Any) -> Any:
        count = np.float32(x.shape[1])
        for i in prange(x.shape[0]):
            total = np.float32(0)
            for j in range(x.shape[1]):
                total += x[i, j]
            mean, squares = total / count, np.float32(0)
            for j in range(x.shape[1]):
                squares += (x[i, j] - mean) * (x[i, j] - mean)
            scale = np.float32(1) / np.sqrt(squares / count + np.float32(1e-5))
            for j in range(x.shape[1]):
                out[i, j] = (x[i, j] - mean) * scale * w[j] + b[j]
        return out

    return run


def layer_norm_gradient(numba: Any) -> Callable[..., Any]:
    prange = numba.prange

    def run(g: Any, x: Any, mean: Any, scale: Any, w: Any, out: Any, to_w: Any, to_b: Any) -> Any:
        rows, columns = x.shape
        parts = 32
        step, count = (rows + parts - 1) // parts, np.float32(columns)
        sums = np.zeros((parts, 2, columns), np.float32)
        for part in prange(parts):
            mine = sums[part]
            for i in range(part * step, min(rows, (part + 1) * step)):
                centre, factor, one, two = mean[i, 0], scale[i, 0], np.float32(0), np.float32(0)
                for j in range(columns):
                    gw, hat = g[i, j] * w[j], (x[i, j] - centre) * factor
                    one += gw
                    two += gw * hat
                one /= count
                two /= count
                for j in range(columns):
                    hat = (x[i, j] - centre) * factor
                    out[i, j] = (g[i, j] * w[j] - one - hat * two) * factor
                    mine[0, j] += g[i, j] * hat
                    mine[1, j] += g[i, j]
        to_w[:] = sums[:, 0].sum(0)
        to_b[:] = sums[:, 1].sum(0)
        return out, to_w, to_b

    return run


def batch_norm(numba: Any) -> Callable[..., Any]:
    prange = numba.prange

    def run(x: Any, w: Any, b: Any, out: Any) -> Any:
        channels = x.shape[-1]
        flat, result = x.reshape(-1, channels), out.reshape(-1, channels)
        rows, parts = flat.shape[0], 32
        step = (rows + parts - 1) // parts
        sums = np.zeros((parts, channels), np.float32)
        for part in prange(parts):
            for i in range(part * step, min(rows, (part + 1) * step)):
                for j in range(channels):
                    sums[part, j] += flat[i, j]
        mean = sums.sum(0) / np.float32(rows)
        squares = np.zeros((parts, channels), np.float32)
        for part in prange(parts):
            for i in range(part * step, min(rows, (part + 1) * step)):
                for j in range(channels):
                    squares[part, j] += (flat[i, j] - mean[j]) * (flat[i, j] - mean[j])
        scale = w / np.sqrt(squares.sum(0) / np.float32(rows) + np.float32(1e-5))
        for i in prange(rows):
            for j in range(channels):
                result[i, j] = (flat[i, j] - mean[j]) * scale[j] + b[j]
        return out

    return run


def gelu(numba: Any) -> Callable[..., Any]:
    prange, factor = numba.prange, np.float32(math.sqrt(2 / math.pi))
    half, one, cubic = np.float32(0.5), np.float32(1), np.float32(0.044715)

    def run(x: Any, out: Any) -> Any:
        for i in prange(x.size):
            out[i] = half * x[i] * (one + math.tanh(factor * (x[i] + cubic * x[i] * x[i] * x[i])))
        return out

    return run


def argmax(numba: Any) -> Callable[..., Any]:
    def run(x: Any, out: Any) -> Any:
        out[0] = np.argmax(x)
        return out

    return run


def chain(numba: Any) -> Callable[..., Any]:
    prange = numba.prange
    a, b, c, zero = np.float32(1.5), np.float32(0.25), np.float32(3), np.float32(0)

    def run(x: Any, y: Any, out: Any) -> Any:
        for i in prange(x.size):
            t = max(x[i] * a + y[i], zero) - b * x[i]
            out[i] = min(abs(t * y[i] - x[i]), c) * t
        return out

    return run


def total(numba: Any) -> Callable[..., Any]:
    """Blocks of 4096 in float32, joined in float64: a plain float32 sum of 16M has no digits left."""
    prange = numba.prange

    def run(x: Any, out: Any) -> Any:
        whole = 0.0
        for block in prange((x.size + 4095) // 4096):
            part = np.float32(0)
            for i in range(block * 4096, min(x.size, (block + 1) * 4096)):
                part += x[i]
            whole += part
        out[0] = whole
        return out

    return run


def columns(numba: Any) -> Callable[..., Any]:
    prange = numba.prange

    def run(x: Any, out: Any) -> Any:
        rows, parts = x.shape[0], 32
        step = (rows + parts - 1) // parts
        sums = np.zeros((parts, x.shape[1]), np.float32)
        for part in prange(parts):
            for i in range(part * step, min(rows, (part + 1) * step)):
                for j in range(x.shape[1]):
                    sums[part, j] += x[i, j]
        out[:] = sums.sum(0)
        return out

    return run


def adam(numba: Any, rate: float, decay: float, spread: float, small: float) -> Callable[..., Any]:
    prange = numba.prange
    lr, b1, b2, eps = (np.float32(value) for value in (rate, decay, spread, small))
    c1, c2 = np.float32(1 - decay), np.float32(1 - spread)

    def run(g: Any, p: Any, m: Any, v: Any) -> Any:
        for i in prange(g.size):
            m[i] = m[i] * b1 + g[i] * c1
            v[i] = v[i] * b2 + g[i] * g[i] * c2
            p[i] -= lr * m[i] / (np.sqrt(v[i]) + eps)
        return p

    return run
