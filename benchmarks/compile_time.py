"""How long the start takes: `import graphc` beyond NumPy, and from `graphc.function(...)` to the first result.

    python benchmarks/compile_time.py [--rounds 5]

Every figure is a new process: the 784-128-10 Adam step at batch 128, llvmlite imported, with an empty cache and with a
full one. The goals are 0.3 s, 1 s and 0.1 s; the exit status is 1 above them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

IMPORT = """
import time, numpy
start = time.perf_counter()
import graphc
print(time.perf_counter() - start)
"""

STEP = """
import time, numpy as np, llvmlite.binding, graphc
from graphc.nn import Linear, ReLU, Sequential
model = Sequential(hidden=Linear(784, 128, generator=1), relu=ReLU(), output=Linear(128, 10, generator=2))
x, y = graphc.placeholder("x", ("batch", 784)), graphc.placeholder("y", ("batch",), "int64")
loss = graphc.nn.functional.cross_entropy(model(x), y)
updates = graphc.optim.Adam().updates(loss, model.parameters())
images, labels = np.ones((128, 784), "float32"), np.zeros(128, "int64")
start = time.perf_counter()
graphc.function([x, y], loss, updates=updates)(images, labels)
print(time.perf_counter() - start)
"""


def seconds(code: str, cache: str) -> float:
    """What `code` prints in a new process."""
    environment = os.environ | {"GRAPHC_CACHE_DIR": cache}
    return float(subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = range(parser.parse_args().rounds)
    cold, warm = [], []
    for _ in rounds:
        with tempfile.TemporaryDirectory() as cache:
            cold.append(seconds(STEP, cache))
            warm.append(seconds(STEP, cache))
    with tempfile.TemporaryDirectory() as cache:
        imports = [seconds(IMPORT, cache) for _ in rounds]
    print("| new process | median, s | goal, s |\n|---|---|---|")
    good = True
    for name, values, goal in (
        ("import graphc, beyond NumPy", imports, 0.3),
        ("function(...) to first result, no cache", cold, 1.0),
        ("function(...) to first result, cache", warm, 0.1),
    ):
        print(f"| {name} | {statistics.median(values):.3f} | {goal} |")
        good = good and statistics.median(values) < goal
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
