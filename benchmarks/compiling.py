"""Compile times of the rows of `kernels.py`, without a cache: seconds from `graphc.function` to its native functions.

What is timed is all of it, passes and loading too, divided by the number of native functions. `parts` says where the
seconds of the whole row go: passes, lowering to loops, emitting LLVM IR, machine code (LLVM reads the IR and compiles).
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
        self.parts: dict[str, float] = {}

    def compiled(self, *arguments: Any, **named: Any) -> graphc.Function:
        functions: list[graphc.Function] = []  # all are kept: the end of one is not part of compiling the next
        with graphc.config(cache=False):
            for _ in range(REPEATS):
                start = time.process_time()
                functions.append(super().compiled(*arguments, **named))
                self.seconds.append(time.process_time() - start)
        self.functions, self.parts = len(functions[-1].kernels), _parts(functions[-1])
        return functions[-1]


def _parts(function: graphc.Function) -> dict[str, float]:
    """Seconds of the steps, as GRAPHC_LOG=compile tells them: each without the one inside of it, which it waits for."""
    seconds = function._levels.observer.seconds
    emitting = seconds.get("emit", 0.0) + seconds.get("lower/emit", 0.0)
    parts = {"passes": seconds["passes"], "lowering": seconds["lower"] - seconds.get("lower/emit", 0.0)}
    parts["emitting"] = emitting
    return parts | {"machine code": seconds["machine code"]}


def compile_record(row: Row) -> Record:
    """`seconds` for one native function of the row, `functions` how many it has, `slow`: up to 60 ms are allowed."""
    clock = _Clock()
    row.build(clock)
    seconds = statistics.median(clock.seconds[:REPEATS]) / max(1, clock.functions)
    record = {"name": row.name, "group": row.group, "seconds": seconds, "functions": clock.functions, "slow": row.slow}
    return record | {"parts": clock.parts}
