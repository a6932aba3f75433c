"""What one call needs: the layout of a Program's bind table, and the tables of one tuple of sizes.

A `Layout` is made once for a Program: the slot of every buffer in the bind table (inputs, then results, then all
others) and what has to be copied before and after the regions. A `SizedPlan` is made once for each new tuple of
sizes: shapes of the results, offsets in the arena, and the driver's tables, all in one block of i64 words (the word
numbers are those of `graphc.runtime.driver`). Enter at `Layout` and `SizedPlan`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import InternalError
from graphc.loops.program import Program
from graphc.runtime import driver
from graphc.runtime.buffers import address_of, align_up, aligned_bytes
from graphc.types import TensorType, evaluate


@dataclass(frozen=True)
class LoadedKernel:
    """A kernel as the driver calls it: its address, whether it has a finish, its scratch bytes for each worker."""

    address: int
    finish: bool = False
    scratch: int = 0


@dataclass(frozen=True)
class Copy:
    """`memcpy(slot to, slot of, bytes of type)`."""

    to: int
    of: int
    type: TensorType


class Layout:
    """The slots of the bind table, and the copies around the regions.

    slots: of every buffer. direct: the position of the result that an output buffer is. temps: (slot, type, first,
    last) of everything in the arena. early, late: see `driver`. Early copies keep what a step may overwrite (a
    parameter that is a result, or the source of an update while it is updated itself), late ones are the other
    results and the updates that are not in place.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.end = len(program.regions)
        self.slots: dict[str, int] = {name: i for i, name in enumerate(program.inputs)}
        self.first_result = len(program.inputs)
        self.count = self.first_result + len(program.outputs)
        self.direct: dict[str, int] = {}
        for position, name in enumerate(program.outputs):
            buffer = program.buffers[name]
            if buffer.kind == "output" and name not in self.direct:
                self.direct[name] = position
                self.slots[name] = self.first_result + position
        self.temps: list[tuple[int, TensorType, int, int]] = []
        self._add_slots()
        self.written = {self.slots[p] for p, _ in program.updates}
        self.early: list[Copy] = []
        self.late: list[Copy] = []
        self._add_copies()

    def _add_slots(self) -> None:
        buffers = self.program.buffers
        kept = set(self.program.outputs) | {name for _, name in self.program.updates}
        for name, buffer in buffers.items():
            if name in self.slots:
                continue
            self.slots[name] = self._slot()
            if buffer.kind == "temp":
                last = self.end if name in kept else buffer.last
                self.temps.append((self.slots[name], buffer.type, buffer.first, last))

    def _slot(self) -> int:
        self.count += 1
        return self.count - 1

    def _add_copies(self) -> None:
        program, staged = self.program, {}
        for position, name in enumerate(program.outputs):
            if self.direct.get(name) != position:
                buffer = program.buffers[name]
                copy = Copy(self.first_result + position, self.slots[name], buffer.type)
                unchanged = buffer.kind in ("input", "constant", "parameter")
                (self.early if unchanged else self.late).append(copy)
        for parameter, name in program.updates:
            to, of, kind = self.slots[parameter], self.slots[name], program.buffers[parameter].type
            if to == of:
                continue
            if of in self.written and program.buffers[name].kind == "parameter":
                if of not in staged:
                    staged[of] = self._slot()
                    self.temps.append((staged[of], kind, 0, self.end))
                    self.early.append(Copy(staged[of], of, kind))
                of = staged[of]
            self.late.append(Copy(to, of, kind))


def concrete(type_: TensorType, sizes: Mapping[str, int]) -> tuple[tuple[int, ...], int]:
    """The shape of a type for these sizes, and its bytes."""
    shape = tuple(evaluate(size, sizes) for size in type_.shape)
    return shape, math.prod(shape) * type_.dtype.itemsize


def arena_offsets(temps: Sequence[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Offsets for (bytes, first, last) blocks, and the arena's size: blocks alive in one region do not overlap.

    The largest first, each at the lowest offset that is free for its whole life, at multiples of 64.
    """
    offsets = [0] * len(temps)
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last
    for index in sorted(range(len(temps)), key=lambda i: (-temps[i][0], i)):
        nbytes, first, last = temps[index]
        offset = 0
        for start, end, other_first, other_last in sorted(placed):
            if other_first <= last and first <= other_last and start < offset + nbytes and offset < end:
                offset = end
        offsets[index] = offset
        if nbytes:
            placed.append((offset, align_up(offset + nbytes), first, last))
    return offsets, max((end for _, end, _, _ in placed), default=0)


class SizedPlan:
    """All that depends on the sizes. `context` is what `graphc_run` gets; `bind` its bind table, to be filled in.

    results: (shape, dtype, bytes) of each. The slots of inputs and results are written before each call, those of
    the arena when it moves (`place`), parameters and constants here.
    """

    def __init__(
        self,
        layout: Layout,
        kernels: Mapping[str, LoadedKernel],
        fixed: Mapping[int, int],
        sizes: Mapping[str, int],
    ) -> None:
        program = layout.program
        self.sizes = dict(sizes)
        self.inputs = [concrete(program.buffers[name].type, sizes) for name in program.inputs]
        self.results: list[tuple[tuple[int, ...], np.dtype[Any], int]] = []
        for name in program.outputs:
            shape, nbytes = concrete(program.buffers[name].type, sizes)
            self.results.append((shape, program.buffers[name].type.dtype.numpy, nbytes))
        temps = [(concrete(kind, sizes)[1], first, last) for _, kind, first, last in layout.temps]
        self._temps = temps
        self._offsets, self.arena_bytes = arena_offsets(temps)
        self._temp_slots = [slot for slot, _, _, _ in layout.temps]
        self._write_tables(layout, kernels)
        for slot, address in fixed.items():
            self.bind[slot] = address

    def _write_tables(self, layout: Layout, kernels: Mapping[str, LoadedKernel]) -> None:
        program = layout.program
        tasks = [task for region in program.regions for task in region.tasks]
        counts = [len(task.sizes) + 2 * len(task.buffers) for task in tasks]
        words = driver.CONTEXT_WORDS + layout.count + driver.REGION_WORDS * len(program.regions)
        words += driver.TASK_WORDS * len(tasks) + sum(counts) + driver.COPY_WORDS * len(layout.early + layout.late)
        block = _Block(words)
        self.context = block.take([0] * driver.CONTEXT_WORDS)
        context = block.words
        self.bind = block.words[driver.CONTEXT_WORDS : driver.CONTEXT_WORDS + layout.count]
        context[driver.BIND] = self.bind_address = block.take([0] * layout.count)
        regions = []
        for region in program.regions:
            records: list[int] = []
            chunks = 0
            for task in region.tasks:
                if task.kernel not in kernels:
                    raise InternalError(f"{program.name}: kernel {task.kernel} has no code")
                kernel, count = kernels[task.kernel], max(0, evaluate(task.chunks, self.sizes))
                sizes = block.take([evaluate(size, self.sizes) for size in task.sizes])
                positions = block.take([layout.slots[name] for name in task.buffers])
                buffers = block.take([0] * len(task.buffers))
                records += [kernel.address, sizes, positions, len(task.buffers), buffers, count, chunks, kernel.finish]
                chunks += count
            regions += [block.take(records), len(region.tasks), chunks, 0]
        context[driver.REGIONS], context[driver.REGION_COUNT] = block.take(regions), len(program.regions)
        for copies, at, count_at in (
            (layout.early, driver.EARLY, driver.EARLY_COUNT),
            (layout.late, driver.LATE, driver.LATE_COUNT),
        ):
            records = [word for c in copies for word in (c.to, c.of, concrete(c.type, self.sizes)[1])]
            context[at], context[count_at] = block.take(records), len(copies)
        self.words = block.words

    def memory(self, layout: Layout) -> str:
        """The arena in plain words: how large it is for which sizes, and where each temporary lies while it lives."""
        names = {slot: name for name, slot in layout.slots.items()}
        sizes = "".join(f" with {name} = {value}" for name, value in self.sizes.items())
        total = sum(nbytes for nbytes, _, _ in self._temps)
        lines = [f"an arena of {self.arena_bytes} bytes{sizes}, for temporaries of {total}"]
        for slot, offset, (nbytes, first, last) in zip(self._temp_slots, self._offsets, self._temps, strict=True):
            lines.append(f"{names.get(slot, 'a copy')}: {nbytes} bytes at {offset}, regions {first} to {last}")
        return "\n".join(lines)

    def place(self, arena: int) -> None:
        """Put the temporaries into the arena at this address."""
        for slot, offset in zip(self._temp_slots, self._offsets, strict=True):
            self.bind[slot] = arena + offset

    def share(self, pool: int, threads: int, scratch: int, scratch_bytes: int) -> None:
        """Run on `threads` threads of the pool at this address, each with `scratch_bytes` from `scratch` on."""
        self.words[driver.POOL], self.words[driver.THREADS] = pool, threads
        self.words[driver.SCRATCH], self.words[driver.SCRATCH_BYTES] = scratch, scratch_bytes


class _Block:
    """i64 words that tables are taken from, one after the other; the whole block never moves."""

    def __init__(self, words: int) -> None:
        self.words = aligned_bytes(8 * max(words, 1)).view(np.int64)
        self._base = address_of(self.words)
        self._next = 0

    def take(self, values: Sequence[int]) -> int:
        """Write `values` behind what was taken before; their address."""
        start, self._next = self._next, self._next + len(values)
        if values:
            self.words[start : self._next] = values
        return self._base + 8 * start
