"""What computing an operand while it is packed gains: products of a computed operand with the passes and without them.

    python benchmarks/prologues.py [--rounds 25] [--only WORD]

Interleaved rounds in one process, on one thread. "ready" is the product of an array that is there already, which no
prologue can beat; it reads other arrays, so for casts (whose operand is half as wide) it is no bound. Convolutions are
named images NHWC -> channels, window / stride.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
from turns import in_turns, ratio

import graphc
from graphc.build import Tensor
from graphc.nn import functional

Make = Callable[..., Tensor]
SIZES = ((64, 64, 64), (128, 256, 128), (2048, 256, 256), (512, 512, 512), (512, 1024, 1024), (1024, 1024, 1024))
# images NHWC, channels out (0: depthwise), window, stride
WINDOWS = (
    (32, 14, 14, 256, 256, 1, 1), (32, 14, 14, 256, 64, 1, 1), (32, 56, 56, 64, 64, 1, 1), (64, 10, 10, 60, 50, 1, 1),
    (32, 56, 56, 64, 0, 3, 1), (32, 28, 28, 192, 0, 3, 2), (32, 112, 112, 32, 0, 3, 2), (32, 7, 7, 960, 0, 5, 1),
    (8, 14, 14, 64, 0, 5, 1), (32, 32, 32, 64, 64, 3, 1), (1, 32, 32, 64, 64, 3, 1), (32, 13, 13, 32, 64, 3, 1),
    (32, 112, 112, 3, 64, 7, 2),
)  # fmt: skip
BATCHED_SIZES = ((64, 128, 64, 128), (1000, 32, 32, 32), (64, 16, 64, 256), (64, 4, 64, 64))
NARROW_SIZES = ((8, 2048, 2048), (8, 4096, 4096), (2048, 256, 256), (8192, 512, 256), (1024, 1024, 1024))


def masked(y: Tensor, g: Tensor) -> Tensor:
    """The gradient of a ReLU."""
    return graphc.where(y <= 0, 0.0, g)


def cases() -> dict[str, tuple[Make, Make, list[tuple[int, ...]], list[str]]]:
    """Name: the product with a computed operand, the same of a ready one, the shapes and the dtypes of the arrays."""
    found: dict[str, tuple[Make, Make, list[tuple[int, ...]], list[str]]] = {}
    for m, k, n in SIZES:
        size = f"{m}x{k}x{n}"
        wide = ["float32"] * 3
        found[f"{size} where(x).T @ y"] = (
            lambda x, y, g: masked(x, g).T @ y, lambda x, y, g: g.T @ y, [(k, m), (k, n), (k, m)], wide)  # fmt: skip
        found[f"{size} x.T @ where(y)"] = (
            lambda x, y, g: x.T @ masked(y, g), lambda x, y, g: x.T @ g, [(k, m), (k, n), (k, n)], wide)  # fmt: skip
        found[f"{size} where(x) @ w.T"] = (
            lambda x, y, g: masked(x, g) @ y.T, lambda x, y, g: g @ y.T, [(m, k), (n, k), (m, k)], wide)  # fmt: skip
        found[f"{size} x @ (w*s).T"] = (
            lambda x, y, s: x @ (y * s).T, lambda x, y, s: x @ y.T, [(m, k), (n, k), (n, 1)], wide)  # fmt: skip
        found[f"{size} (x*s) @ w"] = (
            lambda x, y, s: (x * s) @ y, lambda x, y, s: x @ y, [(m, k), (k, n), (k,)], wide)  # fmt: skip
        found[f"{size} (x*s).T @ y"] = (
            lambda x, y, s: (x * s).T @ y, lambda x, y, s: x.T @ y, [(k, m), (k, n), (m,)], wide)  # fmt: skip
        found[f"{size} x.T @ (y*s)"] = (
            lambda x, y, s: x.T @ (y * s), lambda x, y, s: x.T @ y, [(k, m), (k, n), (n,)], wide)  # fmt: skip
    for m, k, n in NARROW_SIZES:
        found[f"{m}x{k}x{n} x @ w, bfloat16 w"] = (
            lambda x, w: x @ w.astype("float32"), lambda x, w: x @ w.astype("float32"), [(m, k), (k, n)],
            ["float32", "bfloat16"])  # fmt: skip
        found[f"{m}x{k}x{n} x @ w, both bfloat16"] = (
            lambda x, w: x @ w, lambda x, w: x @ w, [(m, k), (k, n)], ["bfloat16", "bfloat16"])  # fmt: skip
    return found


def convolutions() -> dict[str, tuple[Make, Make, list[tuple[int, ...]], list[str]]]:
    """The same for convolutions of images that are scaled, shifted and clipped, and for products of batches."""
    found: dict[str, tuple[Make, Make, list[tuple[int, ...]], list[str]]] = {}
    before: dict[str, Make] = {
        "x+b": lambda x, s, b: x + b,
        "relu(x*s+b)": lambda x, s, b: graphc.maximum(x * s + b, 0.0),
        "relu6(x*s+b)": lambda x, s, b: graphc.minimum(graphc.maximum(x * s + b, 0.0), 6.0),
    }
    for (n, h, w, c, out, k, stride), layout in ((each, layout) for each in WINDOWS for layout in ("NHWC", "NCHW")):
        last, o, groups, each = layout == "NHWC", out or c, 1 if out else c, c // (1 if out else c)
        images, channels = ((n, h, w, c), (c,)) if last else ((n, c, h, w), (c, 1, 1))
        weights = (k, k, each, o) if last else (o, each, k, k)
        for act, make in before.items():

            def conv(
                x: Tensor,
                weight: Tensor,
                s: Tensor,
                b: Tensor,
                make: Make | None,
                stride: int,
                k: int,
                groups: int,
                layout: str,
            ) -> Tensor:
                x = make(x, s, b) if make is not None else x
                return functional.conv2d(x, weight, stride=stride, padding=k // 2, groups=groups, layout=layout)

            how = {"stride": stride, "k": k, "groups": groups, "layout": layout}
            name = f"{layout} {n}x{h}x{w}x{c} -> {out or 'depthwise'}, {k}x{k} / {stride}, {act}"
            found[name] = (
                partial(conv, make=make, **how), partial(conv, make=None, **how), [images, weights, channels, channels],
                ["float32"] * 4)  # fmt: skip
    for batch, m, kk, columns in BATCHED_SIZES:
        found[f"{batch} x ({m}x{kk}x{columns}) x @ (y*s)"] = (
            lambda x, y, s: x @ (y * s), lambda x, y, s: x @ y, [(batch, m, kk), (batch, kk, columns), (columns,)],
            ["float32"] * 3)  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print("| product | without, ms | with, ms | ready, ms | without / with |\n|---|---|---|---|---|")
    for name, (computed, ready, shapes, dtypes) in {**cases(), **convolutions()}.items():
        if options.only not in name:
            continue
        inputs = [graphc.placeholder(f"x{i}", s, d) for i, (s, d) in enumerate(zip(shapes, dtypes))]
        arrays = [graphc.cast_array(rng.standard_normal(s), d) for s, d in zip(shapes, dtypes)]
        with graphc.config(disable="compute_operands,compute_copies"):
            functions = [graphc.function(inputs, computed(*inputs), threads=1)]
        functions += [graphc.function(inputs, make(*inputs), threads=1) for make in (computed, ready)]
        calls = max(1, int(2e8 // (2 * np.prod(shapes[0]) * shapes[1][-1])))
        kept = in_turns([partial(function, *arrays) for function in functions], options.rounds, calls)
        times = [f"{1e3 * statistics.median(side):.3f}" for side in kept]
        print(f"| {name} | {' | '.join(times)} | {ratio(*kept[:2]):.2f} |", flush=True)


if __name__ == "__main__":
    main()
