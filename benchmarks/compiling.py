"""Compile times of the rows of `kernels.py`, without a cache: seconds from `graphc.function` to its native functions.

What is timed is all of it, passes and loading too, divided by the number of native functions.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from measuring import Record, Row
from peers import Peers

import graphc

REPEATS = 3


class _Clock(Peers):
    """No peers, and every function of graphc compiled several times under a clock."""

    def __init__(self) -> None:
        super().__init__(1, [])
        self.seconds: list[float] = []
        self.functions = 0

    def compiled(self, *arguments: Any, **named: Any) -> graphc.Function:
        with graphc.config(cache=False):
            for _ in range(REPEATS):
                start = time.process_time()
                function = super().compiled(*arguments, **named)
                self.seconds.append(time.process_time() - start)
        self.functions = len(function.kernels)
        return function


def compile_record(row: Row) -> Record:
    """`seconds` for one native function of the row, `functions` how many it has, `slow`: up to 60 ms are allowed."""
    clock = _Clock()
    row.build(clock)
    seconds = statistics.median(clock.seconds[:REPEATS]) / max(1, clock.functions)
    return {"name": row.name, "group": row.group, "seconds": seconds, "functions": clock.functions, "slow": row.slow}
