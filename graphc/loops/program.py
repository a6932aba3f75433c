"""The Program: named buffers, kernels, and regions of tasks, in the order in which they run.

A task is one kernel bound to buffers and sizes. The tasks of a region are independent and share one sequence of
chunks, so the only joins are between regions. Every size is an expression over the Program's dimensions; the memory
plan is a list of (lifetime, size expression) whose offsets are computed once for each new tuple of sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from graphc.errors import SourceLine
from graphc.loops.ir import LoopKernel
from graphc.types import Size, TensorType


@dataclass(frozen=True)
class Buffer:
    """Named memory of `type`. Kinds: input, parameter, constant, output, temp.

    first, last: the regions between which a temp is alive.
    """

    name: str
    type: TensorType
    kind: str
    first: int = 0
    last: int = 0


@dataclass(frozen=True)
class Task:
    """`kernel` applied to `buffers` (one for each BufferParam), with `sizes` (one for each size name)."""

    kernel: str
    buffers: tuple[str, ...]
    sizes: tuple[Size, ...]
    chunks: Size


@dataclass(frozen=True)
class Region:
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Check:
    """What a failed check means: `op` at `lines` read the buffer `indices` (None: not in a buffer) below `limit`.

    The check of a guard (`graphc.loops.guard`) has a negative limit, and the statement that went wrong for `op`.
    """

    op: str
    lines: tuple[SourceLine, ...]
    indices: str | None
    limit: Size


@dataclass(frozen=True)
class Program:
    """A lowered function.

    inputs, parameters: buffer names in call order; outputs: a buffer name for each result; updates: (parameter,
    buffer with its next value): equal names mean that the update is in place, else the runtime copies at the end.
    constants: the arrays of the buffers of kind "constant".
    """

    name: str
    dims: tuple[str, ...]
    buffers: Mapping[str, Buffer]
    kernels: Mapping[str, LoopKernel]
    regions: tuple[Region, ...]
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    outputs: tuple[str, ...]
    updates: tuple[tuple[str, str], ...]
    checks: tuple[Check, ...] = ()
    constants: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)
