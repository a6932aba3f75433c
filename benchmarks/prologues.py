"""What computing an operand while it is packed could gain at most: products of a stored `where` against a ready array.

    python benchmarks/prologues.py [--rounds 25]

Interleaved rounds on one thread; a ratio is the time with the `where` over that without it, in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import graphc

ROWS, COLS = 512, 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    shapes = {"x": (ROWS, COLS), "w": (COLS, COLS), "y": (ROWS, COLS), "g": (ROWS, COLS)}
    x, w, y, g = (graphc.placeholder(name, shape) for name, shape in shapes.items())
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype("float32") for shape in shapes.values()]
    slope = graphc.where(y <= 0, 0.0, g)
    print("| products | stored, ms | ready, ms | ratio |\n|---|---|---|---|")
    for name, products in {
        "x.T @ d": lambda d: [x.T @ d],
        "d @ w.T": lambda d: [d @ w.T],
        "both": lambda d: [x.T @ d, d @ w.T],
    }.items():
        functions = [graphc.function([x, w, y, g], products(d), threads=1) for d in (slope, g)]
        seconds: list[list[float]] = [[], []]
        for number in range(rounds + 1):
            for which in (0, 1) if number % 2 else (1, 0):
                start = time.perf_counter()
                functions[which](*arrays)
                seconds[which].append(time.perf_counter() - start)
        stored, ready = (times[1:] for times in seconds)
        ratio = statistics.median(a / b for a, b in zip(stored, ready))
        times = [f"{1e3 * statistics.median(side):.2f}" for side in (stored, ready)]
        print(f"| {name} | {' | '.join(times)} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
