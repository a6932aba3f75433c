"""The 784-128-10 training step with Adam against PyTorch eager with its fused Adam: one process, interleaved rounds.

    python benchmarks/step.py [--batch 128] [--threads 1 2] [--rounds 15]

Needs PyTorch (the README of this folder says how to install it). Both start from the same parameters and see the same
data; the losses of the first 20 steps are compared before anything is timed. A round runs both, one directly after the
other, in changing order; the table has the medians of all rounds and the median of the ratios within one round, so that
a disturbed machine disturbs both. The batches go round and the learning rate is small, so that the losses stay away
from zero: on a network that has learnt its data by heart, Adam's squares are denormal numbers, and the processor's
handling of those is what one would time, on both sides. The exit status is 1 where graphc is slower.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

import graphc
from graphc.nn import Linear, ReLU, Sequential
from graphc.nn.functional import cross_entropy
from graphc.optim import Adam

PIXELS, HIDDEN, CLASSES = 784, 128, 10
BATCHES, RATE = 16, 1e-5
Step = Callable[[], float]
Batches = list[tuple[np.ndarray, np.ndarray]]


def graphc_step(batches: Batches, threads: int) -> tuple[Step, Sequential]:
    """One call of the compiled step, with a symbolic batch, on the next batch."""
    model = Sequential(
        hidden=Linear(PIXELS, HIDDEN, generator=1), relu=ReLU(), output=Linear(HIDDEN, CLASSES, generator=2)
    )
    x = graphc.placeholder("x", ("batch", PIXELS), "float32")
    y = graphc.placeholder("y", ("batch",), "int64")
    loss = cross_entropy(model(x), y)
    step = graphc.function([x, y], loss, updates=Adam(lr=RATE).updates(loss, model.parameters()), threads=threads)
    left = itertools.cycle(batches)
    return lambda: float(step(*next(left))), model


def torch_step(batches: Batches, state: dict[str, np.ndarray]) -> Step:
    """The same step in PyTorch eager, from the same parameters."""
    model = torch.nn.Sequential(torch.nn.Linear(PIXELS, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, CLASSES))
    names = {"0.weight": "hidden.weight", "0.bias": "hidden.bias", "2.weight": "output.weight", "2.bias": "output.bias"}
    model.load_state_dict({key: torch.from_numpy(state[name].T.copy()) for key, name in names.items()})
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    left = itertools.cycle([(torch.from_numpy(images), torch.from_numpy(labels)) for images, labels in batches])

    def step() -> float:
        x, y = next(left)
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def microseconds(step: Step, calls: int) -> float:
    """The time of one call, as the mean of `calls`."""
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return 1e6 * (time.perf_counter() - start) / calls


def compare(batch: int, threads: int, rounds: int, calls: int) -> tuple[float, float, float]:
    """Median microseconds of graphc and of PyTorch, and the median of PyTorch / graphc within a round."""
    torch.set_num_threads(threads)
    generator = np.random.default_rng(0)
    batches = [
        (generator.random((batch, PIXELS), "float32"), generator.integers(0, CLASSES, batch)) for _ in range(BATCHES)
    ]
    ours, model = graphc_step(batches, threads)
    theirs = torch_step(batches, model.state_dict())
    pairs = [(ours(), theirs()) for _ in range(20)]
    if not np.allclose(*np.transpose(pairs), rtol=1e-3):
        raise SystemExit(f"the losses differ: {pairs}")
    a, b = [], []
    for number in range(rounds):
        for times, step in ((a, ours), (b, theirs))[:: 1 if number % 2 else -1]:
            microseconds(step, 5)
            times.append(microseconds(step, calls))
    return statistics.median(a), statistics.median(b), statistics.median(y / x for x, y in zip(a, b))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=100, help="calls of each side in a round")
    options = parser.parse_args()
    print(f"Adam step {PIXELS}-{HIDDEN}-{CLASSES}, batch {options.batch} (symbolic), PyTorch {torch.__version__} eager")
    print("\n| threads | graphc, us | PyTorch, us | PyTorch / graphc |\n|---|---|---|---|", flush=True)
    ratios = []
    for threads in options.threads:
        ours, theirs, ratio = compare(options.batch, threads, options.rounds, options.calls)
        print(f"| {threads} | {ours:.0f} | {theirs:.0f} | {ratio:.2f} |", flush=True)
        ratios.append(ratio)
    raise SystemExit(0 if min(ratios) >= 1 else 1)


if __name__ == "__main__":
    main()
