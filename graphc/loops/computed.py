"""What a contraction knows of an operand that is no memory: how to read elements of it, and how to store it after all.

`graphc.loops.prologue` makes them from the graph; `prepack.py`, `contraction.py` and `packing.py` read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, Union

from graphc.loops.builder import Builder, Scalar
from graphc.loops.ir import LoopKernel
from graphc.types import DType, Size

# What reads elements of a computed operand: `read(builder, batch, row, column, steps, mask)`, where one of them moves
# with the lanes. steps: of all summed loops, k the last. A that is not wide takes any column, B any row.
Reader = Callable[[Builder, tuple[Size, ...], Size, Size, tuple[Size, ...], Union[Scalar, None]], Scalar]


class Computed(Protocol):
    """An operand that is no memory: its elements are computed as they are packed (`graphc.loops.prologue`)."""

    sources: tuple[str, ...]  # the buffers of the contraction that it reads
    dtypes: tuple[DType, ...]
    size: Size  # elements of the array
    narrow: bool  # whether it reads fewer bytes than it has: a cast of a narrower array
    cost: int  # of an element, in simple instructions

    def reader(self, buffers: Sequence[str], builder: Builder) -> Reader:
        """What reads elements in a kernel that has its sources as these buffers."""

    def stored(self) -> tuple[LoopKernel, Mapping[str, Size]]:
        """The kernel that stores it as an array, and what its size names stand for."""
