"""What `kernels.py` measures: row kernels and chains, each as a function of arrays in graphc, NumPy and PyTorch.

`ROWS` lists the makers of rows. A new line is a function that gives a `Row`; `peers` makes its runs from one function
for each library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc
from graphc import nn

try:
    import torch
except ImportError:
    torch = None

Array = np.ndarray
Run = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """A line of the table. `runs(threads)` gives a call of each library by name ("graphc" first; results as arrays).

    moved: bytes that must be moved; goal: the ratio to the best peer; tolerance: of the largest value of a result.
    """

    name: str
    runs: Callable[[int], dict[str, Run]]
    moved: int
    goal: float
    tolerance: float = 1e-5


def normal(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


def compiled(function: Callable[..., Any], arrays: list[Array], threads: int) -> Run:
    """A call of graphc's `function` of placeholders that are like `arrays`."""
    inputs = [graphc.placeholder(f"x{n}", a.shape, a.dtype) for n, a in enumerate(arrays)]
    run = graphc.function(inputs, function(*inputs), threads=threads)
    return lambda: run(*arrays)


def peers(
    ours: Callable[..., Any], numpy_run: Callable[..., Any], torch_run: Callable[..., Any] | None, *arrays: Array
) -> Callable[[int], dict[str, Run]]:
    """The runs of a row that is one function of arrays in each library."""

    def runs(threads: int) -> dict[str, Run]:
        made: dict[str, Run] = {"graphc": compiled(ours, list(arrays), threads), "NumPy": lambda: numpy_run(*arrays)}
        if torch is not None and torch_run is not None:
            tensors = [torch.from_numpy(a) for a in arrays]
            made["PyTorch"] = lambda: torch_run(*tensors)
        return made

    return runs


# the functions, each in three libraries


def softmax() -> Row:
    x, out = normal(4096, 1024), np.empty((4096, 1024), np.float32)
    result = torch.empty(4096, 1024) if torch is not None else None

    def by_numpy(x: Array) -> Array:
        np.subtract(x, x.max(-1, keepdims=True), out=out)
        np.exp(out, out=out)
        return np.divide(out, out.sum(-1, keepdims=True), out=out)

    run = peers(nn.functional.softmax, by_numpy, lambda t: torch.softmax(t, -1, out=result), x)
    return Row("softmax 4096x1024", run, 2 * x.nbytes, 1.1)


def softmax_gradient() -> Row:
    """From the result and its cotangent, as every library keeps it."""
    g, out = normal(4096, 1024), np.empty((4096, 1024), np.float32)
    y = np.exp(normal(4096, 1024))
    y /= y.sum(-1, keepdims=True)

    def by_numpy(g: Array, y: Array) -> Array:
        np.multiply(g, y, out=out)
        np.subtract(g, out.sum(-1, keepdims=True), out=out)
        return np.multiply(out, y, out=out)

    run = peers(
        lambda g, y: (g - (g * y).sum(-1, keepdims=True)) * y,
        by_numpy,
        lambda g, y: torch.ops.aten._softmax_backward_data(g, y, 1, torch.float32),
        g, y,
    )  # fmt: skip
    return Row("its gradient", run, 3 * g.nbytes, 1.1)


def layer_norm() -> Row:
    x, w, b, out = normal(4096, 768), normal(768) + 1, normal(768), np.empty((4096, 768), np.float32)

    def ours(x: Any, w: Any, b: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return centred / graphc.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * w + b

    def by_numpy(x: Array, w: Array, b: Array) -> Array:
        np.subtract(x, x.mean(-1, keepdims=True), out=out)
        scale = 1 / np.sqrt(np.einsum("ij,ij->i", out, out)[:, None] / 768 + np.float32(1e-5))
        np.multiply(out, scale, out=out)
        np.multiply(out, w, out=out)
        return np.add(out, b, out=out)

    run = peers(ours, by_numpy, lambda x, w, b: torch.nn.functional.layer_norm(x, (768,), w, b), x, w, b)
    return Row("layer norm 4096x768", run, 2 * x.nbytes, 1.1)


def layer_norm_gradient() -> Row:
    """To operand, weight and bias, from the cotangent and the kept statistics."""
    x, g, w, b = normal(4096, 768), normal(2, 4096, 768)[1], normal(768) + 1, normal(768)
    mean = x.mean(-1, keepdims=True)
    scale = 1 / np.sqrt(x.var(-1, keepdims=True) + np.float32(1e-5))

    def formula(g: Any, x: Any, mean: Any, scale: Any, w: Any) -> Any:
        hat = (x - mean) * scale
        gw = g * w
        back = (gw - gw.mean(-1, keepdims=True) - hat * (gw * hat).mean(-1, keepdims=True)) * scale
        return back, (g * hat).sum(0), g.sum(0)

    def by_torch(g: Any, x: Any, mean: Any, scale: Any, w: Any) -> Any:
        return torch.ops.aten.native_layer_norm_backward(g, x, [768], mean, scale, w, bias, [True, True, True])

    bias = torch.from_numpy(b) if torch is not None else None
    return Row("its gradient ", peers(formula, formula, by_torch, g, x, mean, scale, w), 3 * x.nbytes, 1.1, 1e-4)


def batch_norm() -> Row:
    """Training: the statistics of the batch. PyTorch gets the same memory as channels-last NCHW."""
    x, w, b = normal(32, 32, 32, 64), normal(64) + 1, normal(64)

    def ours(x: Any, w: Any, b: Any) -> Any:
        centred = x - x.mean((0, 1, 2))
        return centred / graphc.sqrt((centred * centred).mean((0, 1, 2)) + 1e-5) * w + b

    def by_numpy(x: Array, w: Array, b: Array) -> Array:
        scale = w / np.sqrt(x.var((0, 1, 2)) + np.float32(1e-5))
        return (x - x.mean((0, 1, 2))) * scale + b

    def by_torch(x: Any, w: Any, b: Any) -> Any:
        return torch.nn.functional.batch_norm(x.permute(0, 3, 1, 2), None, None, w, b, True).permute(0, 2, 3, 1)

    return Row("batch norm 32x32x32x64", peers(ours, by_numpy, by_torch, x, w, b), 2 * x.nbytes, 1.1, 1e-5)


def gelu() -> Row:
    """The tanh form."""
    x, factor = normal(1 << 22), math.sqrt(2 / math.pi)

    def by(tanh: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x: 0.5 * x * (1 + tanh(factor * (x + 0.044715 * x * x * x)))

    def by_torch(x: Any) -> Any:
        return torch.nn.functional.gelu(x, approximate="tanh")

    return Row("GELU (tanh) on 4M", peers(by(graphc.tanh), by(np.tanh), by_torch, x), 2 * x.nbytes, 1.0)


def argmax() -> Row:
    x = normal(1 << 16)
    return Row("argmax of 64K", peers(lambda x: x.argmax(0), np.argmax, lambda x: x.argmax(), x), x.nbytes, 1.0)


def chain() -> Row:
    """Ten operations in one pass; the peers need ten."""
    x, y = normal(1 << 24), normal(2, 1 << 24)[1]
    out = np.empty_like(x)
    result = torch.empty(1 << 24) if torch is not None else None

    def ours(x: Any, y: Any) -> Any:
        t = graphc.maximum(x * 1.5 + y, 0) - 0.25 * x
        return graphc.minimum(graphc.abs(t * y - x), 3) * t

    def by_numpy(x: Array, y: Array) -> Array:
        t = np.multiply(x, np.float32(1.5), out=out)
        t += y
        np.maximum(t, 0, out=t)
        t -= np.float32(0.25) * x
        u = t * y
        u -= x
        np.abs(u, out=u)
        np.minimum(u, 3, out=u)
        return np.multiply(u, t, out=t)

    def by_torch(x: Any, y: Any) -> Any:
        t = torch.mul(x, 1.5, out=result).add_(y).clamp_(min=0).sub_(x, alpha=0.25)
        return t.mul_(torch.mul(t, y).sub_(x).abs_().clamp_(max=3))

    return Row("10-op chain on 16M", peers(ours, by_numpy, by_torch, x, y), 3 * x.nbytes, 0.95)


def total() -> Row:
    x = normal(1 << 24)
    return Row("sum of 16M", peers(lambda x: x.sum(), np.sum, lambda x: x.sum(), x), x.nbytes, 0.95)


def columns() -> Row:
    x = normal(16384, 1024)
    run = peers(lambda x: x.sum(0), lambda x: x.sum(0), lambda x: x.sum(0), x)
    return Row("column sum 16384x1024", run, x.nbytes, 0.95)


def adam() -> Row:
    """One step on one parameter of 10M, in place."""
    size, start, g = 10_000_000, normal(10_000_000), normal(2, 10_000_000)[1]

    def ours(threads: int) -> Run:
        p = graphc.parameter("p", start.copy())
        m, v = (graphc.parameter(n, np.zeros(size, np.float32)) for n in "mv")
        gradient = graphc.placeholder("g", (size,), "float32")
        new_m = m * 0.9 + gradient * 0.1
        new_v = v * 0.999 + gradient * gradient * 0.001
        step = graphc.function(
            [gradient], [], updates={p: p - 0.01 * new_m / (graphc.sqrt(new_v) + 1e-8), m: new_m, v: new_v},
            threads=threads,
        )  # fmt: skip
        return lambda: (step(g), p)[1]

    def by_numpy() -> Run:
        p, m, v, t, u = start.copy(), *(np.zeros(size, np.float32) for _ in range(4))

        def run() -> Array:
            np.multiply(g, np.float32(0.1), out=t)
            np.multiply(m, np.float32(0.9), out=m)
            np.add(m, t, out=m)
            np.multiply(g, g, out=t)
            np.multiply(t, np.float32(0.001), out=t)
            np.multiply(v, np.float32(0.999), out=v)
            np.add(v, t, out=v)
            np.sqrt(v, out=t)
            np.add(t, np.float32(1e-8), out=t)
            np.multiply(m, np.float32(0.01), out=u)
            np.divide(u, t, out=u)
            return np.subtract(p, u, out=p)

        return run

    def by_torch() -> Run:
        p = torch.from_numpy(start.copy())
        m, v, steps, gradient = torch.zeros(size), torch.zeros(size), torch.full((), 1e6), torch.from_numpy(g)

        def run() -> Any:  # so many steps ago that no bias is left to correct
            torch._fused_adam_(
                [p], [gradient], [m], [v], [], [steps], lr=0.01, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8,
                amsgrad=False, maximize=False,
            )  # fmt: skip
            return p

        return run

    def runs(threads: int) -> dict[str, Run]:
        made = {"graphc": ours(threads), "NumPy": by_numpy()}
        return made | ({"PyTorch": by_torch()} if torch is not None else {})

    return Row("Adam on 10M", runs, 7 * g.nbytes, 0.95)


ROWS = [
    softmax, softmax_gradient, layer_norm, layer_norm_gradient, batch_norm, gelu, argmax, chain, adam, total, columns,
]  # fmt: skip
