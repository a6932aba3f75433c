"""Row kernels and chains against NumPy and PyTorch: one process, interleaved rounds, results compared.

    python benchmarks/kernels.py [--rounds 15] [--threads 1 2] [--only softmax] [--json FILE]

A round runs every library once on the same data, one directly after the other, in changing order. Large results go to
memory that was written before: graphc's are recycled, the others get `out=` where they take it. A line has the median
of graphc's times and, for each peer, the median of the ratios within a round (above 1: graphc is faster) with its 90 %
interval. `copy` is the bandwidth of the bytes that must be moved (each operand read once, each result written once) as
a share of what `np.copyto` of 256 MiB reaches in the same rounds on one thread; caches may take it above 100 %.
`goal` is what the upper end of the interval of the better peer must reach; where it is under 1, 90 % of `copy` will do
too. The exit status is 1 where a goal is missed. `rows.py` holds the lines; `measure` takes any `Row`.
"""

from __future__ import annotations

import os
import sys

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rows import ROWS, Array, Row, torch

import graphc


@dataclass
class Measured:
    """Seconds of each round by library, and of the copy."""

    row: Row
    threads: int
    times: dict[str, list[float]] = field(default_factory=dict)

    def ratios(self, peer: str) -> list[float]:
        return sorted(b / a for a, b in zip(self.times["graphc"], self.times[peer]))

    def best_peer(self) -> str:
        return min(
            (p for p in self.times if p not in ("graphc", "copy")), key=lambda p: statistics.median(self.times[p])
        )


def interval(values: list[float]) -> tuple[float, float]:
    """The 90 % interval of the median of sorted values, from order statistics (no assumption on their distribution)."""
    count, rank, outside = len(values), 0, 0.5 ** len(values)
    while outside * 2 <= 0.1 and rank < count // 2:
        rank += 1
        outside += math.comb(count, rank) * 0.5**count
    rank = max(rank - 1, 0)
    return values[rank], values[-1 - rank]


def arrays_of(result: Any) -> Iterator[Array]:
    if isinstance(result, (tuple, list)):
        for part in result:
            yield from arrays_of(part)
    elif isinstance(result, graphc.Parameter):
        yield np.asarray(result.value)
    else:
        yield np.asarray(result)


def compare(row: Row, results: dict[str, Any]) -> None:
    """Raise where a library's results are not graphc's."""
    ours = [a.copy() for a in arrays_of(results["graphc"])]
    for peer, result in results.items():
        for mine, theirs in zip(ours, arrays_of(result), strict=True):
            theirs = theirs.reshape(mine.shape)
            limit = row.tolerance * max(1.0, float(np.abs(theirs).max()))
            worst = float(np.abs(mine.astype(np.float64) - theirs).max())
            assert worst <= limit, f"{row.name}: graphc and {peer} differ by {worst}, allowed {limit}"


def measure(row: Row, threads: int, rounds: int, copy: tuple[Array, Array]) -> Measured:
    """All rounds of one row."""
    runs = row.runs(threads)
    compare(row, {name: run() for name, run in runs.items()})
    runs["copy"] = lambda: np.copyto(*copy)
    calls: dict[str, int] = {}
    for name, run in runs.items():
        run()
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        calls[name] = 1 if name == "copy" else min(100, max(1, int(2e-3 / seconds)))
    found = Measured(row, threads, {name: [] for name in runs})
    clock = time.thread_time if threads == 1 else time.perf_counter  # other processes disturb the first less
    names = list(runs)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            run = runs[name]
            start = clock()
            for _ in range(calls[name]):
                run()
            found.times[name].append((clock() - start) / calls[name])
    return found


def line_of(found: Measured, names: list[str], bandwidth_bytes: int) -> tuple[str, bool]:
    """The row of the Markdown table, and whether its goal is reached."""
    ours = statistics.median(found.times["graphc"])
    cells = [found.row.name, str(found.threads), f"{1e3 * ours:.3f}"]
    for peer in names:
        if peer in found.times:
            ratios = found.ratios(peer)
            low, high = interval(ratios)
            cells.append(f"{statistics.median(ratios):.2f} ({low:.2f}-{high:.2f})")
        else:
            cells.append("")
    shares = [found.row.moved / a / (bandwidth_bytes / c) for a, c in zip(found.times["graphc"], found.times["copy"])]
    share = statistics.median(shares)
    high = interval(found.ratios(found.best_peer()))[1]
    goal = found.row.goal if found.threads == 1 else 0.95
    reached = high >= goal or (found.row.goal < 1 and share >= 0.9)
    return f"| {' | '.join([*cells, f'{100 * share:.0f} %', f'{goal:.2f}', 'yes' if reached else 'no'])} |", reached


def main() -> int:
    parser = argparse.ArgumentParser(description="row kernels of graphc, NumPy and PyTorch")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", default="", help="rows whose name or function has this in it")
    parser.add_argument("--json", help="write the raw rounds to this file")
    arguments = parser.parse_args()
    copy = np.ones(1 << 26, np.float32), np.zeros(1 << 26, np.float32)
    names = ["NumPy"] + (["PyTorch"] if torch is not None else [])
    print(
        f"| kernel (float32) | threads | graphc, ms | {' | '.join(f'to {n}' for n in names)} | copy | goal | reached |"
    )
    print(f"|---|---|---|{'---|' * (len(names) + 3)}")
    raw, missed = [], 0
    for threads in arguments.threads:
        if torch is not None:
            torch.set_num_threads(threads)
        for make in ROWS:
            if arguments.only not in make.__name__:
                continue
            found = measure(make(), threads, arguments.rounds, copy)
            line, reached = line_of(found, names, 2 * copy[0].nbytes)
            print(line, flush=True)
            missed += not reached
            raw.append({"row": found.row.name, "threads": threads, "seconds": found.times})
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(raw, file)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
