"""What statistics of rows in the epilogue of a product could gain at most, where the product is stored too.

    python benchmarks/row_statistics.py [--rounds 15]

Each case is a step that computes a product, statistics of its rows and what is normalised by them, beside the same step
that is given the statistics, as if they cost nothing. Interleaved rounds in one process, one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import graphc
from graphc.build import Tensor

Make = Callable[..., list[Tensor]]
NORMS = ((1024, 768, 768), (4096, 256, 256), (512, 64, 64))
SOFTMAXES = ((1024, 256, 1024), (4096, 64, 64))


def layer_norm(given: bool) -> Make:
    """A block of a transformer: residual, layer norm, product and GELU; scale and shift of rows given, or computed."""

    def make(x: Tensor, w: Tensor, v: Tensor, residual: Tensor, scale: Tensor, shift: Tensor) -> list[Tensor]:
        y = residual + x @ w
        if given:
            return [y, graphc.nn.functional.gelu((y * scale + shift) @ v)]
        centred = y - y.mean(-1, keepdims=True)
        hat = centred * graphc.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
        return [y, graphc.nn.functional.gelu(hat @ v)]

    return make


def softmax(given: bool) -> Make:
    """A classifier's logits and probabilities; maxima and sums of rows given, or computed."""

    def make(x: Tensor, w: Tensor, most: Tensor, part: Tensor) -> list[Tensor]:
        y = x @ w
        return [y, graphc.exp(y - most) * part if given else graphc.nn.functional.softmax(y, -1)]

    return make


def compiled(make: Make, shapes: list[tuple[int, ...]]) -> Callable[[], object]:
    generator = np.random.default_rng(0)
    inputs = [graphc.placeholder(f"x{n}", shape, "float32") for n, shape in enumerate(shapes)]
    arrays = [0.05 * generator.standard_normal(shape, dtype=np.float32) for shape in shapes]
    function = graphc.function(inputs, make(*inputs), threads=1)
    return lambda: function(*arrays)


def ratio(functions: list[Callable[[], object]], rounds: int) -> float:
    """The median of the first one's time over the second one's."""
    found = []
    for number in range(rounds + 2):
        seconds = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            for _ in range(5):
                functions[which]()
            seconds[which] = time.perf_counter() - start
        found.append(seconds[0] / seconds[1])
    return statistics.median(found[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    for m, k, n in NORMS:
        shapes: list[tuple[int, ...]] = [(m, k), (k, n), (n, k), (m, n), (m, 1), (m, 1)]
        steps = [compiled(layer_norm(given), shapes) for given in (False, True)]
        print(f"layer norm {m}x{k}x{n}: {ratio(steps, rounds):.2f}", flush=True)
    for m, k, n in SOFTMAXES:
        steps = [compiled(softmax(given), [(m, k), (k, n), (m, 1), (m, 1)]) for given in (False, True)]
        print(f"softmax {m}x{k}x{n}: {ratio(steps, rounds):.2f}", flush=True)


if __name__ == "__main__":
    main()
