"""What a call costs: a compiled `x + 1` on 4 floats beside `numpy.add`, interleaved.

    python benchmarks/call_overhead.py

The goal is under 3 us; the exit status is 1 above it.
"""

from __future__ import annotations

import statistics
import timeit

import numpy as np

import graphc

GOAL_US = 3.0


def main() -> None:
    x = graphc.placeholder("x", (4,), "float32")
    add = graphc.function([x], x + 1)
    array = np.arange(4, dtype="float32")
    if not np.array_equal(add(array), array + 1):
        raise SystemExit("wrong result")
    ours, numpys = [], []
    for _ in range(15):
        ours.append(1e6 * timeit.timeit(lambda: add(array), number=5000) / 5000)
        numpys.append(1e6 * timeit.timeit(lambda: np.add(array, 1), number=5000) / 5000)
    print("| call on 4 floats | us |\n|---|---|")
    print(f"| graphc, compiled x + 1 | {statistics.median(ours):.2f} |")
    print(f"| numpy.add(x, 1) | {statistics.median(numpys):.2f} |")
    raise SystemExit(0 if statistics.median(ours) < GOAL_US else 1)


if __name__ == "__main__":
    main()
