"""Ways to do the same work, timed in turns within one process: the clock of the machine changes for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

WARM = 2  # rounds that do not count
LEAST = 3e-3  # seconds of calls that are timed together


def in_turns(ways: Sequence[Callable[[], object]], rounds: int, calls: int = 0) -> list[list[float]]:
    """The seconds of a call of each way, by round. calls: how many are timed together (0: as many as take a while)."""
    for way in reversed(ways):
        start = time.perf_counter()
        way()
    calls = calls or max(2, int(LEAST / (time.perf_counter() - start)))
    found: list[list[float]] = [[] for _ in ways]
    for number in range(rounds + WARM):
        order = list(range(len(ways)))
        for which in order if number % 2 else reversed(order):
            start = time.perf_counter()
            for _ in range(calls):
                ways[which]()
            found[which].append((time.perf_counter() - start) / calls)
    return [seconds[WARM:] for seconds in found]


def ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median of how many times as long the first took, of the same rounds."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))
