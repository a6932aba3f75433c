"""How `kernels.py` measures: rounds in which all libraries run on the same data, and calibrations beside them.

A `Row` is a line of the table. Its `build` gives `Contender`s: graphc first, then peers, all with operands prepared.
`measure` compares their results, then times rounds; what it gives is a plain dict of raw numbers, written as JSON and
read by `figures.py`. In a round everything runs directly after the other, in changing order: a loop of nothing but
multiply-adds (`FmaLoop`), a copy of 256 MiB, every contender, and graphc's native code without Python's call
(`NativeLoop`). Of two threads, rounds where the multiply-add loop gains less than 1.9 are dropped and counted.
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import graphc
from graphc.llvm.emit import emit
from graphc.loops.ir import (
    Assign,
    BufferParam,
    Const,
    Declare,
    For,
    Let,
    Load,
    LoopKernel,
    Op,
    Reg,
    Store,
    Var,
    VType,
    const,
)  # fmt: skip
from graphc.runtime.buffers import address_of
from graphc.runtime.host import host_target
from graphc.runtime.jit import Library, compile_object
from graphc.types import float32

Array = np.ndarray[Any, Any]
Operands = tuple[tuple[Any, ...], dict[str, Any]]
Record = dict[str, Any]
SHORT = 100e-6  # seconds: below, CALLS calls on rotating operands are timed
CALLS = 100
NATIVE_CALLS = 1000  # the same of native calls, which take less
SCALE = 1.9  # what two threads of the calibration loop must reach
TRIES = 20  # rounds begun for each that is wanted: a dropped one costs no more than its calibration
SETTLE = 0.04  # seconds before anything on several threads: those of the library before (OpenBLAS 30 ms) spin no more
RESTING = 2e-5  # seconds in a thousandth of one: threads that take less are at rest
COPY_BYTES = 1 << 28
HOPELESS = 20  # times graphc's time: such a peer is called twice and takes no part in the rounds


@dataclass
class Contender:
    """One way to compute a row. `call` gets one of `operands` after the other; `arrays` turns a result into NumPy's."""

    name: str
    call: Callable[..., Any]
    operands: Sequence[Operands] = (((), {}),)
    arrays: Callable[[Any], Any] = lambda result: result
    function: graphc.Function | None = None  # of graphc only


@dataclass(frozen=True)
class Row:
    """A line of the table.

    target: the ratio to the best peer on one thread. flops: of the multiply-adds, 0 where they are not what counts.
    moved: bytes that must be moved. memory: 0.9 of the copy's bandwidth will do instead of the target. native: the
    share of the multiply-add peak that the native code must reach. tolerance: of the largest value of a result.
    slow: a native function may take 60 ms to compile, not 20.
    """

    name: str
    group: str
    build: Callable[[Any], list[Contender]]
    target: float
    flops: float = 0.0
    moved: float = 0.0
    memory: bool = False
    native: float | None = None
    tolerance: float = 1e-5
    slow: bool = False

    def facts(self) -> Record:
        """What a record says of the row."""
        names = ("name", "group", "target", "flops", "moved", "memory", "native")
        return {name: getattr(self, name) for name in names}


class FmaLoop:
    """A loop of independent multiply-adds in registers: what the machine can do at best. It is no peer."""

    def __init__(self, seconds: float = 5e-3) -> None:
        target = host_target()
        vector = VType(float32, target.lanes(4))
        self._count, one = min(24, target.vector_registers - 4), const(0)
        k, n = Var("k"), Var("n")
        acc, factor = Reg("acc", (k,), vector), Load("b0", one, vector)
        body = (Assign(acc, Op("fma", (acc, Var("f", vector), Var("g", vector)), vector)),)
        step = For("k", const(0), const(self._count), 1, body, ("acc",), "unroll")

        kernel = LoopKernel(
            "fma_peak",
            (BufferParam("b0", float32, vector.lanes), BufferParam("b1", float32, vector.lanes * self._count, True)),
            ("n",),
            (
                Let(Var("f", vector), factor),
                Let(Var("g", vector), Op("add", (Var("f", vector), Var("f", vector)), vector)),
                Declare("acc", (self._count,), vector, Const(1.0, vector)),
                For("i", const(0), n, 1, (step,), ("acc",)),
                For(
                    "k", const(0), const(self._count), 1,
                    (Store("b1", Op("mul", (k, const(vector.lanes)), VType(k.vtype.dtype)), acc),), (), "unroll",
                ),
            ),
        )  # fmt: skip
        self._library = Library()
        data = compile_object(emit(kernel, target), target, verify=True)
        address = self._library.load([data], [kernel.name])[kernel.name]
        native = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 3)
        self._native = native(address)
        self._lanes, self._n = vector.lanes, 1000
        while (taken := self.seconds()) < seconds:
            self._n = int(self._n * min(10.0, 1.2 * seconds / taken)) + 1

    def seconds(self, threads: int = 1) -> float:
        """The time that the loop takes on the wall, run by each of `threads` threads at once; of one, its own time."""
        if threads == 1:
            start = time.thread_time()
            self._run()
            return time.thread_time() - start
        # Each on a core of its own from the start: the scheduler takes longer to move a new thread than the loop runs.
        cores = sorted(os.sched_getaffinity(0))[:threads]
        together = threading.Barrier(threads)
        spans: list[tuple[float, float]] = []

        def run(core: int) -> None:
            os.sched_setaffinity(threading.get_native_id(), {core})
            together.wait()
            start = time.perf_counter()
            self._run()
            spans.append((start, time.perf_counter()))

        workers = [threading.Thread(target=run, args=(core,)) for core in cores]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return max(end for _, end in spans) - min(start for start, _ in spans)

    def flops(self, threads: int = 1) -> float:
        """Floating-point operations of `seconds(threads)`."""
        return 2.0 * self._n * self._count * self._lanes * threads

    def _run(self) -> None:
        memory = np.full(self._lanes * (self._count + 1) + 16, 0.5, np.float32)
        context = np.full(8, -1, np.int64)
        sizes, start = np.array([self._n], np.int64), memory.ctypes.data + -memory.ctypes.data % 64
        buffers = np.array([start, start + 4 * self._lanes], np.int64)
        self._native(context.ctypes.data, sizes.ctypes.data, buffers.ctypes.data, 0, 1, 0)


class Copy:
    """`np.copyto` of COPY_BYTES, cut among the threads."""

    moved = 2.0 * COPY_BYTES

    def __init__(self) -> None:
        self._of, self._to = np.ones(COPY_BYTES // 4, np.float32), np.zeros(COPY_BYTES // 4, np.float32)

    def seconds(self, threads: int = 1) -> float:
        parts = list(zip(np.split(self._to, threads), np.split(self._of, threads)))
        others = [threading.Thread(target=np.copyto, args=part) for part in parts[1:]]
        start = time.perf_counter()
        for thread in others:
            thread.start()
        np.copyto(*parts[0])
        for thread in others:
            thread.join()
        return time.perf_counter() - start


_REPEAT = """
define i32 @repeat(ptr %run, ptr %context, ptr %bind, ptr %table, i64 %width, i64 %rows, i64 %times) {
entry:
  br label %call
call:
  %i = phi i64 [ 0, %entry ], [ %next, %done ]
  %row = urem i64 %i, %rows
  %first = mul i64 %row, %width
  br label %copy
copy:
  %j = phi i64 [ 0, %call ], [ %j_next, %copy ]
  %at = add i64 %first, %j
  %from = getelementptr i64, ptr %table, i64 %at
  %address = load i64, ptr %from
  %to = getelementptr i64, ptr %bind, i64 %j
  store i64 %address, ptr %to
  %j_next = add i64 %j, 1
  %j_more = icmp slt i64 %j_next, %width
  br i1 %j_more, label %copy, label %run_it
run_it:
  %status = call i32 %run(ptr %context)
  %failed = icmp ne i32 %status, 0
  br i1 %failed, label %left, label %done
done:
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %times
  br i1 %more, label %call, label %left
left:
  ret i32 %status
}
"""


class NativeLoop:
    """The driver's calls of a compiled function, one after the other in native code: no Python, no checks.

    It works on the tables of the function's last plan, so the function must have been called with such operands.
    """

    _address: int | None = None
    _library: Library | None = None

    def __init__(self, function: graphc.Function, operands: Sequence[Operands]) -> None:
        executable = function._executable
        function(*operands[0][0])
        self._plan, self._driver = executable._last, executable._driver
        assert self._plan is not None
        results = [[make() for make in self._plan.makers] for _ in operands]
        rows = [[*args, *made] for (args, _), made in zip(operands, results)]
        self._keep = (function, rows)
        self._table = np.array([[address_of(array) for array in row] for row in rows], np.int64)
        if NativeLoop._address is None:
            NativeLoop._library = Library()
            data = compile_object(_REPEAT, host_target(), verify=True)
            NativeLoop._address = NativeLoop._library.load([data], ["repeat"])["repeat"]
        pointer, word = ctypes.c_void_p, ctypes.c_int64
        self._repeat = ctypes.CFUNCTYPE(ctypes.c_int32, *[pointer] * 4, *[word] * 3)(NativeLoop._address)

    def run(self, times: int) -> None:
        tables, (rows, width) = self._plan.tables, self._table.shape
        run = ctypes.cast(self._driver.run, ctypes.c_void_p).value
        status = self._repeat(run, tables.context, tables.bind_address, self._table.ctypes.data, width, rows, times)
        assert status == 0, "the native loop failed"


def arrays_of(result: Any) -> Iterator[Array]:
    """The arrays in a nest of results."""
    if isinstance(result, (tuple, list)):
        for part in result:
            yield from arrays_of(part)
    elif isinstance(result, graphc.Parameter):
        yield np.asarray(result.value)
    else:
        yield np.asarray(result)


def compare(row: Row, contenders: Sequence[Contender]) -> None:
    """Raise where a library's results, for any of the operands, are not graphc's."""
    for number in range(len(contenders[0].operands)):
        ours: list[Array] = []
        for contender in contenders:
            args, named = contender.operands[number]
            found = [a.copy() for a in arrays_of(contender.arrays(contender.call(*args, **named)))]
            ours = ours or found
            for mine, theirs in zip(ours, found, strict=True):
                theirs = theirs.reshape(mine.shape)
                limit = row.tolerance * max(1.0, float(np.abs(theirs).max()))
                worst = float(np.abs(mine.astype(np.float64) - theirs).max())
                if not worst <= limit:
                    raise SystemExit(f"{row.name}: graphc and {contender.name} differ by {worst}, allowed {limit}")


def timed(contender: Contender, calls: int, clock: Callable[[], float]) -> float:
    """Seconds of a call. If there are several, one with each of the operands comes before and is not counted: a copy or
    another library has taken their place in the cache.
    """
    call, operands = contender.call, contender.operands
    for args, named in operands if calls > 1 else ():
        call(*args, **named)
    whole, rest = divmod(calls, len(operands))
    start = clock()
    for _ in range(whole):
        for args, named in operands:
            call(*args, **named)
    for args, named in operands[:rest]:
        call(*args, **named)
    return (clock() - start) / calls


@dataclass
class Bench:
    """What all rows of a run share: threads, how many rounds, and the calibrations."""

    threads: int
    rounds: int = 15
    fma: FmaLoop = field(default_factory=FmaLoop)
    copy: Copy = field(default_factory=Copy)

    def measure(self, row: Row, contenders: Sequence[Contender]) -> Record:
        """The raw numbers of a row: seconds of each kept round by contender, of calibrations, and what was dropped."""
        compare(row, contenders)
        contenders, hopeless = self._sorted_out(contenders)
        # One thread: the process has one core, and its own time is what other processes do not disturb.
        clock = time.process_time if self.threads == 1 else time.perf_counter
        calls = {c.name: self._calls(c, clock) for c in contenders}
        ours = contenders[0]
        native = None
        if ours.function is not None and (row.native or calls[ours.name] > 1):
            native = NativeLoop(ours.function, ours.operands)
        names = [*(c.name for c in contenders), *(["native"] if native else [])]
        seconds: dict[str, list[float]] = {name: [] for name in names}
        fma: list[float] = []
        copy: list[float] = []
        gains: list[float] = []
        dropped = number = 0
        while len(fma) < self.rounds and number < TRIES * self.rounds:
            number += 1
            taken, gain = self._calibrate()
            gains.append(gain)
            if gain < SCALE and self.threads > 1:
                dropped += 1
                continue
            copied = self.copy.seconds(self.threads)
            for which in range(len(names)):
                name = names[(which + number) % len(names)]
                self._settle()
                if name == "native" and native is not None:
                    seconds[name].append(self._native(native, ours, calls[ours.name], clock))
                else:
                    contender = next(c for c in contenders if c.name == name)
                    if self.threads > 1:  # its threads were asleep
                        timed(contender, 1, clock)
                    seconds[name].append(timed(contender, calls[name], clock))
            fma.append(self.fma.flops(self.threads) / taken)
            copy.append(Copy.moved / copied)
        if not fma:
            raise RuntimeError(f"{row.name}: other work keeps {self.threads} threads under {SCALE} times one")
        facts = {**row.facts(), "threads": self.threads, "calls": calls, "dropped": dropped, "gains": gains}
        facts["hopeless"] = hopeless
        return {**facts, "seconds": seconds, "fma_peak": fma, "copy_bandwidth": copy}

    def _native(self, native: NativeLoop, ours: Contender, calls: int, clock: Callable[[], float]) -> float:
        """Seconds of one of the driver's calls, after one with each tuple of operands."""
        native.run(len(ours.operands) + 1)
        times = NATIVE_CALLS if calls == CALLS else max(3, calls)
        start = clock()
        native.run(times)
        return (clock() - start) / times

    def _sorted_out(self, contenders: Sequence[Contender]) -> tuple[list[Contender], dict[str, float]]:
        """Those that take part in the rounds, and the seconds of one call of those that take far too long for it."""
        seconds = {c.name: timed(c, 1, time.perf_counter) for c in contenders}
        limit = max(HOPELESS * seconds[contenders[0].name], 0.1)
        slow = {name: taken for name, taken in seconds.items() if taken > limit}
        return [c for c in contenders if c.name not in slow], slow

    def _calls(self, contender: Contender, clock: Callable[[], float]) -> int:
        """How many calls a round times: CALLS if one takes less than SHORT, else enough for 2 ms."""
        timed(contender, 1, clock)
        seconds = min(timed(contender, max(1, len(contender.operands)), clock) for _ in range(2))
        return CALLS if seconds < SHORT else max(1, min(20, math.ceil(2e-3 / seconds)))

    def _settle(self) -> None:
        """Let the threads of whatever ran before come to rest: they spin for a while, on a core that others need.

        On one thread, too: one of JAX gives its memory back when its result is there already, and that is time of the
        process, by which the next one is measured. There it is seen when they rest.
        """
        if self.threads > 1:
            time.sleep(SETTLE)
            return
        end = time.perf_counter() + SETTLE
        resting = False
        while not resting and time.perf_counter() < end:
            before = time.process_time() - time.thread_time()
            time.sleep(1e-3)
            resting = time.process_time() - time.thread_time() - before < RESTING

    def _calibrate(self) -> tuple[float, float]:
        """Seconds of the multiply-add loop on all threads, and how much more they do than one."""
        one = self.fma.seconds()
        if self.threads == 1:
            return one, 1.0
        self._settle()
        several = self.fma.seconds(self.threads)
        return several, self.threads * one / several
