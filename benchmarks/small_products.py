"""Where the time of small products goes: from multiply-adds alone to a call from Python whose operands are far away.

    python benchmarks/small_products.py [--rounds 11]

Everything is given in percent of what a loop of multiply-adds reached in the same round (medians), on one thread:
native calls with one tuple of operands, with tuples that go round as in `kernels.py`, the same where the first call
with each tuple comes after a copy of 256 MiB, and calls from Python. Below: the driver's call of a product of 1x1x1;
batches of 128x64x128 that fit into L2 and that do not, with the time of a copy of as many bytes; and one row times a
matrix with the time of a sum of the matrix.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from measuring import Copy, FmaLoop, NativeLoop
from peers import normal
from rows_products import product, sets_of, sides

import graphc

SIZES = ((32, 32, 32), (64, 64, 64), (96, 96, 96), (128, 128, 128), (127, 65, 33), (128, 784, 128), (256, 256, 256))
SECONDS = 5e-4  # of native calls that are timed together
CALLS = 100
BATCHES = (1, 4, 16, 64)


class Case:
    """One product: its ways to be called, each of which gives seconds for a call."""

    def __init__(self, m: int, k: int, n: int, form: str, copy: Copy) -> None:
        self.copy, self.flops = copy, 2.0 * m * k * n
        shapes = sides(form, m, k, n)
        sets = sets_of(self.flops, lambda seed: (normal(*shapes[0], seed=seed), normal(*shapes[1], seed=seed + 50)))
        inputs = [graphc.placeholder(name, shape, "float32") for name, shape in zip("ab", shapes, strict=True)]
        self.function = graphc.function(inputs, product(form, lambda a, b: a @ b)(*inputs), threads=1)
        self.operands: list[tuple[tuple[object, ...], dict[str, object]]] = [(arrays, {}) for arrays in sets]
        self.one = NativeLoop(self.function, self.operands[:1])
        self.all = NativeLoop(self.function, self.operands)
        self.ways: dict[str, Callable[[], float]] = {
            "one tuple": lambda: self.native(self.one),
            "tuples go round": lambda: self.native(self.all),
            "after a copy": self.cold,
            "from Python": self.called,
        }

    def native(self, loop: NativeLoop) -> float:
        loop.run(2 * len(self.operands))
        times = min(10_000, max(4, int(SECONDS * 1e11 / self.flops)))
        return timed(lambda: loop.run(times)) / times

    def cold(self) -> float:
        """As if no call had come before: the first with each tuple, and as many as 100 in all."""
        self.copy.seconds()
        times = CALLS if self.flops < 3e7 else len(self.operands)
        return timed(lambda: self.all.run(times)) / times

    def called(self) -> float:
        for args, _ in self.operands:
            self.function(*args)

        def run() -> None:
            for number in range(CALLS):
                self.function(*self.operands[number % len(self.operands)][0])

        return timed(run) / CALLS


def timed(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    fma, copy = FmaLoop(2e-3), Copy()
    print("| product (float32) | one tuple | tuples go round | after a copy | from Python |")
    print("|---|---|---|---|---|")
    for m, k, n in SIZES:
        for form in ("NN", "NT", "TN"):
            case = Case(m, k, n, form, copy)
            shares: dict[str, list[float]] = {name: [] for name in case.ways}
            for _ in range(rounds):
                for name, way in case.ways.items():
                    peak = fma.flops() / fma.seconds()
                    taken = way()
                    shares[name].append(case.flops / taken / peak)
            cells = " | ".join(f"{statistics.median(found):.0%}" for found in shares.values())
            print(f"| {m}x{k}x{n} {form} | {cells} |", flush=True)
    empty = Case(1, 1, 1, "NN", copy)
    taken = statistics.median(empty.native(empty.one) for _ in range(rounds))
    print(f"\nThe driver's call of a product of 1x1x1: {1e6 * taken:.3f} us.")
    for count in BATCHES:
        print(batch(count, rounds, fma), flush=True)
    print(vector(rounds))


def batch(count: int, rounds: int, fma: FmaLoop) -> str:
    """Products of (count, 128, 64) and (count, 64, 128), by multiply-adds and by bytes."""
    a, b = normal(count, 128, 64), normal(count, 64, 128)
    inputs = [graphc.placeholder(name, array.shape, "float32") for name, array in (("a", a), ("b", b))]
    loop = NativeLoop(graphc.function(inputs, inputs[0] @ inputs[1], threads=1), [((a, b), {})])
    flops, times = 2.0 * 128 * 64 * 128 * count, max(2, 64 // count)
    source = np.ones((a.size + b.size + 128 * 128 * count) // 2, np.float32)
    to = np.zeros_like(source)
    shares, copies, peaks = [], [], []
    for _ in range(rounds):
        peaks.append(fma.flops() / fma.seconds())
        loop.run(1)
        shares.append(flops * times / timed(lambda: loop.run(times)) / peaks[-1])
        np.copyto(to, source)
        copies.append(timed(lambda: np.copyto(to, source)))
    least, moved = flops / statistics.median(peaks), statistics.median(copies)
    return (
        f"{count} x (128x64x128): {statistics.median(shares):.0%}; multiply-adds alone {1e6 * least:.0f} us, "
        f"a copy of as many bytes {1e6 * moved:.0f} us."
    )


def vector(rounds: int) -> str:
    """One row of 512 times matrices that lie transposed, and sums of these matrices."""
    operands = [((normal(1, 512, seed=n), normal(512, 512, seed=n + 50)), {}) for n in range(2)]
    x, w = (graphc.placeholder(name, array.shape, "float32") for name, array in zip("xw", operands[0][0], strict=True))
    functions = [graphc.function([x, w], x @ w.T, threads=1), graphc.function([x, w], w.sum() + x.sum(), threads=1)]
    loops = [NativeLoop(function, operands) for function in functions]
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        for loop, found in zip(loops, seconds, strict=True):
            loop.run(4)
            found.append(timed(lambda loop=loop: loop.run(CALLS)) / CALLS)
    product_time, sum_time = (1e6 * statistics.median(found) for found in seconds)
    return f"1x512x512 NT: {product_time:.1f} us; the sum of its matrix {sum_time:.1f} us."


if __name__ == "__main__":
    main()
