"""Convolutions against PyTorch (oneDNN): forward, weight gradient, image gradient; one process, interleaved rounds.

    python benchmarks/convolution.py [--rounds 15] [--batch 32] [--layout NHWC] [--only 32x32]

Both run on one thread, PyTorch in the layout that is asked for (channels_last for NHWC). A round runs one directly
after the other on the same data; the table has medians in GFLOP/s (multiply-adds of the result, borders included) and
the median of the ratios within one round with its 5th and 95th percentile, above 1 where graphc is faster. The results
are compared first. The clock is that of the calling thread, so that other processes disturb less. Exit status 1 where
the median of a line is below 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import graphc
from graphc.nn.functional import conv2d

Run = Callable[[], Any]
NHWC, HWIO = (0, 2, 3, 1), (2, 3, 1, 0)


@dataclass(frozen=True)
class Convolution:
    """Square images of `size` with `channels`, `results` channels, square windows of `window`."""

    size: int
    channels: int
    results: int
    window: int = 3
    stride: int = 1
    padding: int = 0
    groups: int = 1

    def __str__(self) -> str:
        more = f", stride {self.stride}" if self.stride > 1 else ""
        kind = f"{self.channels} depthwise" if self.groups > 1 else f"{self.channels}->{self.results}"
        return f"{self.size}x{self.size}x{kind} {self.window}x{self.window}{more}"


CASES = [
    Convolution(28, 1, 32), Convolution(13, 32, 64), Convolution(32, 64, 64, padding=1), Convolution(14, 256, 256, 1),
    Convolution(56, 64, 64, padding=1, groups=64), Convolution(112, 3, 64, 7, 2, 3),
]  # fmt: skip


def runs_of(case: Convolution, batch: int, layout: str) -> dict[str, tuple[Run, Run, Callable[[Any], np.ndarray]]]:
    """For each direction: a call of graphc, a call of PyTorch, and what brings PyTorch's result into the layout."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, case.channels, case.size, case.size), np.float32)
    weights = rng.standard_normal((case.results, case.channels // case.groups, case.window, case.window), np.float32)
    memory = torch.channels_last if layout == "NHWC" else torch.contiguous_format
    tx, tw = (torch.from_numpy(v).contiguous(memory_format=memory) for v in (images, weights))
    how: dict[str, Any] = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
    ty = torch.conv2d(tx, tw, **how)
    slopes = rng.standard_normal(tuple(ty.shape), np.float32)
    tg = torch.from_numpy(slopes).contiguous(memory_format=memory)
    if layout == "NHWC":
        images, slopes = (np.ascontiguousarray(v.transpose(NHWC)) for v in (images, slopes))
        weights = np.ascontiguousarray(weights.transpose(HWIO))
    x, w, g = (graphc.placeholder(n, v.shape, "float32") for n, v in (("x", images), ("w", weights), ("g", slopes)))
    y = conv2d(x, w, layout=layout, **how)
    of_x, of_w = graphc.vjp(y, [x, w], g)
    forward = graphc.function([x, w], y, threads=1)
    to_weights = graphc.function([x, g], of_w, threads=1)
    to_images = graphc.function([w, g], of_x, threads=1)

    def backward(images: bool) -> Any:
        both = [case.stride] * 2, [case.padding] * 2, [1, 1], False, [0, 0], case.groups, [images, not images, False]
        return torch.ops.aten.convolution_backward(tg, tx, tw, None, *both)[0 if images else 1]

    def arranged(axes: tuple[int, ...]) -> Callable[[Any], np.ndarray]:
        return lambda t: t.numpy().transpose(axes) if layout == "NHWC" else t.numpy()

    return {
        "forward": (lambda: forward(images, weights), lambda: torch.conv2d(tx, tw, **how), arranged(NHWC)),
        "weights": (lambda: to_weights(images, slopes), lambda: backward(False), arranged(HWIO)),
        "images": (lambda: to_images(weights, slopes), lambda: backward(True), arranged(NHWC)),
    }


def compare(case: Convolution, batch: int, layout: str, rounds: int) -> float:
    """Print the lines of a convolution; gives the lowest ratio."""
    lowest = float("inf")
    side = (case.size + 2 * case.padding - case.window) // case.stride + 1
    work = 2 * batch * side**2 * case.window**2 * case.results * case.channels // case.groups
    for direction, (ours, theirs, arranged) in runs_of(case, batch, layout).items():
        found, wanted = ours(), arranged(theirs())
        limit = 1e-4 * float(np.abs(wanted).max())
        assert float(np.abs(found - wanted).max()) <= limit, f"{case} {direction}: the results differ"
        times: list[list[float]] = [[], []]
        for number in range(rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                start = time.thread_time()
                (ours, theirs)[which]()
                times[which].append(time.thread_time() - start)
        ratios = sorted(b / a for a, b in zip(*times))
        median, low, high = (ratios[int(q * (rounds - 1))] for q in (0.5, 0.05, 0.95))
        speeds = " | ".join(f"{work / statistics.median(t) / 1e9:.0f}" for t in times)
        print(f"| {case} | {direction} | {speeds} | {median:.2f} | {low:.2f} to {high:.2f} |", flush=True)
        lowest = min(lowest, median)
    return lowest


def main() -> int:
    parser = argparse.ArgumentParser(description="convolutions of graphc and PyTorch")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--layout", choices=("NHWC", "NCHW"), default="NHWC")
    parser.add_argument("--only", default="", help="cases whose name has this text")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"One thread, {arguments.layout}, batch {arguments.batch}, GFLOP/s\n")
    print("| convolution | direction | graphc | PyTorch | ratio | 90 % |\n|---|---|---|---|---|---|")
    cases = [case for case in CASES if arguments.only in str(case)]
    lowest = min(compare(case, arguments.batch, arguments.layout, arguments.rounds) for case in cases)
    print(f"\nLowest ratio to PyTorch: {lowest:.2f}")
    return 0 if lowest >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
