"""Matrix products against NumPy's OpenBLAS (and PyTorch, if it is installed): one process, interleaved rounds.

    python benchmarks/matmul.py [--rounds 15] [--large] [--no-threads]

All libraries run on one thread; the others write into an existing result, graphc makes its own. A round runs each of
them on the same data (aligned to cache lines, as graphc's own arrays are), one directly after the other; the table has
the medians of all rounds in GFLOP/s and the medians of the ratios within one round, above 1 where graphc is faster.
`*` marks a size that graphc does not know when it compiles. The clock is that of the calling thread, so that other
processes disturb less. A second table compares two threads of graphc with one, by the clock on the wall.
The exit status is 1 where graphc is slower than OpenBLAS.
"""

from __future__ import annotations

import os

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc

try:
    import torch
except ImportError:
    torch = None

Run = Callable[[], Any]


@dataclass(frozen=True)
class Product:
    """rows x inner x columns; form "NT" says that the second operand lies transposed; `batch`: the symbolic sizes."""

    m: int
    k: int
    n: int
    form: str = "NN"
    batch: str = ""

    def __str__(self) -> str:
        sizes = "x".join(f"{size}" + "*" * (name in self.batch) for name, size in zip("mkn", (self.m, self.k, self.n)))
        return f"{sizes} {self.form}"


STEP = [  # a 784-128-10 training step with a batch of 128, with and without a symbolic batch
    Product(128, 784, 128), Product(128, 784, 128, "NT"), Product(128, 784, 128, batch="m"),
    Product(784, 128, 128, "TN"), Product(784, 128, 128, "TN", "k"),
    Product(128, 10, 128, "NT"), Product(128, 10, 128, "NT", "m"),
    Product(128, 128, 10), Product(128, 128, 10, batch="m"), Product(128, 128, 10, "TN", "k"),
]  # fmt: skip
SQUARES = [Product(size, size, size, form) for size in (64, 128, 256) for form in ("NN", "NT", "TN")]
LARGE = [Product(size, size, size, form) for size in (512, 1024) for form in ("NN", "NT", "TN")]


def graphc_run(product: Product, a: np.ndarray, b: np.ndarray, threads: int) -> Run:
    """One call of the compiled product. `a` and `b` are the operands as they lie in memory."""
    shapes = []
    for array, names, turned in ((a, "mk", product.form[0] == "T"), (b, "kn", product.form[1] == "T")):
        names = names[::-1] if turned else names
        shapes.append(tuple(f"size_{x}" if x in product.batch else size for x, size in zip(names, array.shape)))
    x, y = graphc.placeholder("x", shapes[0], "float32"), graphc.placeholder("y", shapes[1], "float32")
    result = (x.T if product.form[0] == "T" else x) @ (y.T if product.form[1] == "T" else y)
    function = graphc.function([x, y], result, threads=threads)
    return lambda: function(a, b)


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins at a cache line."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def operands(product: Product) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The operands in memory and as matrices."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((product.k, product.m) if product.form[0] == "T" else (product.m, product.k), np.float32)
    b = rng.standard_normal((product.n, product.k) if product.form[1] == "T" else (product.k, product.n), np.float32)
    a, b = aligned(a), aligned(b)
    return a, b, a.T if product.form[0] == "T" else a, b.T if product.form[1] == "T" else b


def rounds_of(runs: list[Run], calls: int, rounds: int, clock: Callable[[], float]) -> list[list[float]]:
    """Seconds of a call of each run, round by round."""
    times: list[list[float]] = [[] for _ in runs]
    for number in range(rounds):
        for which in range(len(runs)) if number % 2 else reversed(range(len(runs))):
            start = clock()
            for _ in range(calls):
                runs[which]()
            times[which].append((clock() - start) / calls)
    return times


def ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(b / a for a, b in zip(ours, theirs))


def compare(product: Product, rounds: int) -> float:
    """Print one line of the table; gives the ratio to OpenBLAS."""
    a, b, left, right = operands(product)
    blas = np.empty((product.m, product.n), np.float32)
    runs: list[Run] = [graphc_run(product, a, b, 1), lambda: np.matmul(left, right, out=blas)]
    if torch is not None:
        tensors = torch.from_numpy(left), torch.from_numpy(right), torch.empty(product.m, product.n)
        runs.append(lambda: torch.mm(tensors[0], tensors[1], out=tensors[2]))
    ours, *_ = [run() for run in runs]
    # two sums of k products in another order differ by no more than this
    limit = 2 * product.k * np.finfo(np.float32).eps * (np.abs(left) @ np.abs(right))
    assert np.all(np.abs(ours - blas) <= limit), f"{product}: the results differ"
    work = 2 * product.m * product.k * product.n
    times = rounds_of(runs, max(1, min(1000, int(1e8 / work))), rounds, time.thread_time)
    cells = [f"{work / statistics.median(t) / 1e9:.0f}" for t in times] + [""] * (3 - len(times))
    ratios = [ratio(times[0], t) for t in times[1:]]
    print(f"| {product} | {' | '.join(cells)} | {' | '.join(f'{r:.2f}' for r in ratios)} |", flush=True)
    return ratios[0]


def compare_threads(product: Product, rounds: int) -> None:
    """Print one line of the second table."""
    a, b, _, _ = operands(product)
    runs = [graphc_run(product, a, b, threads) for threads in (1, 2)]
    one, two = (run() for run in runs)
    assert np.array_equal(one, two), f"{product}: the number of threads changes the bits"
    calls = max(1, int(1e8 / (2 * product.m * product.k * product.n)))
    times = rounds_of(runs, calls, rounds, time.perf_counter)
    medians = [f"{1e6 * statistics.median(t):.1f}" for t in times]
    cells = f"{' | '.join(medians)} | {ratio(times[1], times[0]):.2f}"
    print(f"| {product} | {cells} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="matrix products of graphc and OpenBLAS")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--large", action="store_true", help="512 and 1024 cubed as well")
    parser.add_argument("--no-threads", action="store_true", help="leave out the second table")
    arguments = parser.parse_args()
    if torch is not None:
        torch.set_num_threads(1)
    print("One thread, GFLOP/s (`*`: a size that is not known at compile time)\n")
    print(
        "| rows x inner x columns | graphc | OpenBLAS | PyTorch | to OpenBLAS | to PyTorch |\n|---|---|---|---|---|---|"
    )
    ratios = [compare(product, arguments.rounds) for product in STEP + SQUARES]
    if arguments.large:
        for product in LARGE:
            compare(product, arguments.rounds)
    if not arguments.no_threads:
        print("\nTwo threads of graphc, microseconds\n\n| | one | two | gain |\n|---|---|---|---|")
        for product in (Product(128, 784, 128), Product(784, 128, 128, "TN"), Product(256, 256, 256), LARGE[0]):
            compare_threads(product, arguments.rounds)
    print(f"\nLowest ratio to OpenBLAS: {min(ratios):.2f}")
    return 0 if min(ratios) >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
