"""What computing an operand while it is packed gains: products of a computed operand with the pass and without it.

    python benchmarks/prologues.py [--rounds 25] [--only WORD]

Interleaved rounds in one process, on one thread. "ready" is the product of an array that is there already, which no
prologue can beat; it reads other arrays, so for casts (whose operand is half as wide) it is no bound.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import graphc
from graphc.build import Tensor

Make = Callable[..., Tensor]
SIZES = ((64, 64, 64), (128, 256, 128), (2048, 256, 256), (512, 512, 512), (512, 1024, 1024), (1024, 1024, 1024))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print("| product | without, ms | with, ms | ready, ms | without / with |\n|---|---|---|---|---|")
    for name, (computed, ready, shapes, dtypes) in cases().items():
        if options.only not in name:
            continue
        inputs = [graphc.placeholder(f"x{i}", s, d) for i, (s, d) in enumerate(zip(shapes, dtypes))]
        arrays = [graphc.cast_array(rng.standard_normal(s), d) for s, d in zip(shapes, dtypes)]
        with graphc.config(disable="compute_operands"):
            functions = [graphc.function(inputs, computed(*inputs), threads=1)]
        functions += [graphc.function(inputs, make(*inputs), threads=1) for make in (computed, ready)]
        seconds: list[list[float]] = [[], [], []]
        calls = max(1, int(2e8 // (2 * np.prod(shapes[0]) * shapes[1][-1])))
        for number in range(options.rounds + 1):
            for which in (0, 1, 2) if number % 2 else (2, 1, 0):
                start = time.perf_counter()
                for _ in range(calls):
                    functions[which](*arrays)
                seconds[which].append((time.perf_counter() - start) / calls)
        kept = [times[1:] for times in seconds]
        ratio = statistics.median(a / b for a, b in zip(kept[0], kept[1]))
        times = [f"{1e3 * statistics.median(side):.3f}" for side in kept]
        print(f"| {name} | {' | '.join(times)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
