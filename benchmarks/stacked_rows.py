"""Layers of `x[b, t, d]`: what is gained where elementwise nodes join the product's kernel, and by whole blocks.

    python benchmarks/stacked_rows.py [--rounds 21] [--threads 1]

Each case is the same function with and without the pass `lift_reshapes`, interleaved in one process; the table has the
time without it over the time with it. A block is layer norm, attention, layer norm and a GELU network of 4*d, each
with its residual; "gradients" are those of all its parameters.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from turns import in_turns, ratio

import graphc
from graphc.build import Tensor
from graphc.nn import functional as F

SIZES = ((8, 64, 128), (4, 200, 192), (4, 256, 256))
HEADS = 4
Case = Callable[[int, int, int], tuple[list[Tensor], list[Tensor]]]


def named(**shapes: Sequence[int]) -> list[Tensor]:
    return [graphc.placeholder(name, tuple(shape), "float32") for name, shape in shapes.items()]


def activated(act: Callable[[Tensor], Tensor]) -> Case:
    def case(b: int, t: int, d: int) -> tuple[list[Tensor], list[Tensor]]:
        x, w, c = named(x=(b, t, d), w=(d, 4 * d), c=(4 * d,))
        return [x, w, c], [act(x @ w + c)]

    return case


def residual(b: int, t: int, d: int) -> tuple[list[Tensor], list[Tensor]]:
    x, w, c, r = named(x=(b, t, 4 * d), w=(4 * d, d), c=(d,), r=(b, t, d))
    return [x, w, c, r], [x @ w + c + r]


def positions(b: int, t: int, d: int) -> tuple[list[Tensor], list[Tensor]]:
    x, w, p = named(x=(b, t, d), w=(d, 4 * d), p=(t, 4 * d))
    return [x, w, p], [F.relu(x @ w + p)]


def mask(b: int, t: int, d: int) -> tuple[list[Tensor], list[Tensor]]:
    g, w, y = named(g=(b, t, d), w=(4 * d, d), y=(b, t, 4 * d))
    slope = graphc.where(y <= 0, 0.0, g @ w.T)
    return [g, w, y], [slope, slope.sum((0, 1))]


def parameters(d: int) -> dict[str, Tensor]:
    shapes = dict.fromkeys("qkvo", (d, d)) | {"up": (d, 4 * d), "down": (4 * d, d)}
    shapes |= {f"{name}_bias": shape[1:] for name, shape in shapes.items()}
    return dict(zip(shapes, named(**shapes), strict=True))


def block(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    b, t, d = x.shape
    a = F.layer_norm(x, d)
    heads = [(a @ p[n] + p[f"{n}_bias"]).reshape((b, t, HEADS, -1)).transpose((0, 2, 1, 3)) for n in "qkv"]
    q, k, v = heads
    weights = F.softmax(q @ k.transpose((0, 1, 3, 2)) * (HEADS / int(d)) ** 0.5, -1)
    x = x + ((weights @ v).transpose((0, 2, 1, 3)).reshape((b, t, d)) @ p["o"] + p["o_bias"])
    return x + (F.gelu(F.layer_norm(x, d) @ p["up"] + p["up_bias"]) @ p["down"] + p["down_bias"])


def forward(b: int, t: int, d: int) -> tuple[list[Tensor], list[Tensor]]:
    p, (x,) = parameters(d), named(x=(b, t, d))
    return [x, *p.values()], [block(block(x, p), p)]


def gradients(b: int, t: int, d: int) -> tuple[list[Tensor], list[Tensor]]:
    p, (x, y) = parameters(d), named(x=(b, t, d), y=(b, t, d))
    error = block(block(x, p), p) - y
    loss = (error * error).mean()
    return [x, y, *p.values()], [loss, *graphc.grad(loss, list(p.values()))]


CASES: dict[str, Case] = {
    "`relu(x @ w + c)`, n = 4*d": activated(F.relu),
    "`gelu(x @ w + c)`, n = 4*d": activated(F.gelu),
    "`relu(x @ w + p)`, p[t,n] for all b": positions,
    "`x @ w + c + r`, k = 4*d": residual,
    "`where(y <= 0, 0, g @ w.T)` and its sum over b, t": mask,
    "two blocks": forward,
    "two blocks and gradients": gradients,
}


def gain(case: Case, size: tuple[int, int, int], rounds: int, threads: int) -> float:
    """The median of the time without the pass over that with it."""
    inputs, outputs = case(*size)
    generator = np.random.default_rng(0)
    arrays = [0.05 * generator.standard_normal(x.shape, dtype=np.float32) for x in inputs]
    functions = []
    for disable in ("lift_reshapes", ""):
        with graphc.config(disable=disable):
            functions.append(graphc.function(inputs, outputs, threads=threads))
    return ratio(*in_turns([partial(function, *arrays) for function in functions], rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print("| of x[b,t,d], b x t x d | " + " | ".join("x".join(map(str, size)) for size in SIZES) + " |")
    print("|---" * (len(SIZES) + 1) + "|")
    for name, case in CASES.items():
        cells = [f"{gain(case, size, options.rounds, options.threads):.2f}" for size in SIZES]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
