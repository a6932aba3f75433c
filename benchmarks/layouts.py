"""Channels-first convolutions with and without the pass `choose_layouts`: python benchmarks/layouts.py [--rounds N]

One thread, float32, medians of interleaved rounds in milliseconds, as a Markdown table. The training step is measured
in NHWC too, written so by hand. Ends with status 1 where the pass makes something slower by more than a tenth.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from turns import in_turns

import graphc
from graphc.nn import functional as F

Made = tuple[list[Any], list[Any]]  # inputs, outputs
COLUMNS = ("without", "with", "NHWC")
SINGLE = [(32, 128, 7, 128, 3), (32, 64, 8, 64, 5), (32, 64, 32, 64, 3)]


def step(layout: str) -> Made:
    """The loss and gradients of three convolutions, two poolings and a linear layer on 32 images."""
    last = layout == "NHWC"
    pairs = ((3, 32), (32, 64), (64, 64))
    x = graphc.placeholder("x", (32, 32, 32, 3) if last else (32, 3, 32, 32))
    weights = [graphc.placeholder(f"w{o}_{c}", (3, 3, c, o) if last else (o, c, 3, 3)) for c, o in pairs]
    dense = graphc.placeholder("dense", (64 * 8 * 8, 10))
    h = x
    for weight, pooled in zip(weights, (False, True, True), strict=True):
        h = F.relu(F.conv2d(h, weight, padding=1, layout=layout))
        h = F.max_pool2d(h, 2, layout=layout) if pooled else h
    loss = ((h.reshape((32, -1)) @ dense) ** 2).mean()
    return [x, *weights, dense], [loss, *graphc.grad(loss, [*weights, dense])]


def single(n: int, c: int, size: int, o: int, k: int) -> dict[str, Made]:
    """A convolution, its gradient with respect to images, and all three together."""
    x, w = graphc.placeholder("x", (n, c, size, size)), graphc.placeholder("w", (o, c, k, k))
    y = F.conv2d(x, w, padding=k // 2)
    g = graphc.placeholder("g", y.shape)
    of_x, of_w = graphc.vjp(y, [x, w], g)
    return {"forward": ([x, w], [y]), "dX": ([w, g], [of_x]), "all three": ([x, w, g], [y, of_w, of_x])}


def compiled(made: Made, disable: frozenset[str] = frozenset()) -> Callable[[], Any]:
    inputs, outputs = made
    rng = np.random.default_rng(0)
    arrays = [0.1 * rng.standard_normal(t.shape, np.float32) for t in inputs]
    with graphc.config(disable=disable):
        function = graphc.function(inputs, outputs)
        function(*arrays)
    return lambda: function(*arrays)


def compare(name: str, runs: dict[str, Callable[[], Any]], rounds: int) -> bool:
    """Prints a row; whether the pass does not lose."""
    times = in_turns(list(runs.values()), rounds, 1)
    medians = {each: 1e3 * statistics.median(found) for each, found in zip(runs, times, strict=True)}
    print("|", name, "|", " | ".join(f"{medians[each]:.2f}" if each in medians else "" for each in COLUMNS), "|")
    return medians["with"] < 1.1 * medians["without"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    without = frozenset({"choose_layouts"})
    print("| ms |", " | ".join(COLUMNS), "|\n|---|---|---|---|")
    with graphc.config(num_threads=1, cache=False):
        first, last = step("NCHW"), step("NHWC")
        runs = {"without": compiled(first, without), "with": compiled(first), "NHWC": compiled(last)}
        fine = [compare("step", runs, rounds)]
        for sizes in SINGLE:
            for direction, made in single(*sizes).items():
                runs = {"without": compiled(made, without), "with": compiled(made)}
                fine.append(compare(f"{sizes} {direction}", runs, rounds))
    raise SystemExit(not all(fine))


if __name__ == "__main__":
    main()
