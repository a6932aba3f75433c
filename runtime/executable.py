"""A compiled function as the runtime sees it: checks a call, binds addresses, makes one native call.

A call takes one of two ways. If its arguments (and `out=` arrays) are arrays of the very dtypes and sizes of the call
before, the native entry (`graphc.runtime.entry`) notes their addresses and runs the step. Anything else goes through
`graphc.runtime.arguments`, which converts or explains, and through the plan for its sizes (`graphc.runtime.plan`), made
once and kept. A call holds the function's lock over its arena and the locks of its parameters, taken in one global
order; who waits does so without the GIL, and so does the native call. Enter at `Executable`.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from graphc import settings
from graphc.bounds import Bounds
from graphc.errors import ArgumentError, DTypeError, IndexRangeError, InternalError, ShapeError, SourceLine
from graphc.extents import Extent
from graphc.loops.program import Check, Program
from graphc.observe import log
from graphc.runtime import driver as native
from graphc.runtime.arguments import Arguments
from graphc.runtime.buffers import RESULTS, address_of, align_up, aligned_bytes
from graphc.runtime.direct import Direct, direct_call
from graphc.runtime.entry import entry
from graphc.runtime.plan import Layout, LoadedKernel, SizedPlan, concrete
from graphc.state import ParameterState
from graphc.types import evaluate

PLANS = 64  # tuples of sizes whose tables are kept
_INDEX_BITS = 40
_cores = settings.usable_cores()
_Results = TypeVar("_Results")
_Range = tuple[int, int]  # addresses: of the first byte, and behind the last


class Executable:
    """`program` bound to loaded kernels and to its parameters' memory. Call it with arrays; it gives a list of results.

    kernels: by the names in the tasks. parameters: by buffer name. lines: of placeholders, for errors; checks: the
    Program's, with the user's lines, which a plan from the cache on disk does not hold; limits: of the named sizes,
    and extents: sizes that must not come out negative, which it does not hold either. threads: how many threads a call
    uses, None for the setting at the time of the call. `keep` is held as long as the executable (the library behind
    the kernels' addresses). `native_calls` counts calls into native code.
    """

    def __init__(
        self,
        program: Program,
        kernels: Mapping[str, LoadedKernel],
        parameters: Mapping[str, ParameterState],
        *,
        lines: Mapping[str, tuple[SourceLine, ...]] | None = None,
        checks: Callable[[], Sequence[Check]] | None = None,
        limits: Mapping[str, Bounds] | None = None,
        extents: Sequence[Extent] = (),
        threads: int | None = None,
        keep: object = None,
    ) -> None:
        self.program, self.threads = program, threads
        self._direct: Direct | None = None
        self._native_calls = 0
        self._keep = keep
        self._kernels = dict(kernels)
        self._states = [parameters[name] for name in program.parameters]
        self._constants = {name: np.ascontiguousarray(array) for name, array in program.constants.items()}
        self._lines = dict(lines or {})
        self._checks = checks or (lambda: program.checks)
        self._extents = extents
        self._layout = Layout(program)
        types = [program.buffers[name].type for name in program.inputs]
        self._arguments = Arguments(program.name, program.inputs, types, program.dims, self._lines, limits)
        self._fixed, self._written, self._read = self._addresses()
        self._driver = native.driver()
        self._plans: OrderedDict[tuple[int, ...], _BoundPlan] = OrderedDict()
        self._last: _BoundPlan | None = None
        self._arena, self._scratch = aligned_bytes(64), aligned_bytes(64)
        self._scratch_bytes = align_up(max((k.scratch for k in kernels.values()), default=0))
        self._lock = threading.Lock()
        self._locks = _ordered_locks(self._states)
        _living.add(self)

    @property
    def native_calls(self) -> int:
        return self._native_calls + (self._direct.calls if self._direct is not None else 0)

    def _addresses(self) -> tuple[dict[int, int], list[_Range], list[_Range]]:
        """The addresses that never change, by slot; the memory of parameters that a step writes, and of the others."""
        fixed: dict[int, int] = {}
        written: list[_Range] = []
        read: list[_Range] = []
        for name, state in zip(self.program.parameters, self._states, strict=True):
            kind, array = self.program.buffers[name].type, state.array
            if array.shape != kind.shape or array.dtype != kind.dtype.numpy or not array.flags.c_contiguous:
                raise InternalError(f"parameter {name} is {array.dtype}{array.shape} in memory, {kind} in the program")
            slot, address = self._layout.slots[name], address_of(array)
            fixed[slot] = address
            (written if slot in self._layout.written else read).append((address, address + array.nbytes))
        for name, array in self._constants.items():
            fixed[self._layout.slots[name]] = address_of(array)
        return fixed, written, read

    def __call__(self, *args: Any, out: Any = None, **named: Any) -> list[np.ndarray]:
        """`run` with the arguments of a call."""
        return self.run(args, named, out)

    def direct(self, slow: Callable[..., Any]) -> Callable[..., Any]:
        """`slow`, which calls `run` and gives its one result, or a native call in front of it where that can be."""
        if len(self.program.outputs) == 1 and not self._locks:
            self._direct = direct_call(self._driver.direct, slow, len(self.program.inputs))
        return slow if self._direct is None else self._direct.call

    def run(self, args: tuple[Any, ...], named: Mapping[str, Any], out: Any = None) -> list[np.ndarray]:
        """Run one step; the results in the order of `program.outputs`, as new arrays or in `out`.

        args, named: arguments by position and by name. `out`: an array (for one result) or a sequence of arrays and
        None. Raises ArgumentError, DTypeError, ShapeError for arguments that do not fit and IndexRangeError for an
        index out of range; after an error no parameter has changed.
        """
        results = self._locked(self._call_quickly, args, named, out)
        if results is None:
            # converting may run the user's own code (`__array__`), which may call this function: no lock is held
            arrays, sizes = self._arguments.bind(args, named)
            results = self._locked(self._call_slowly, arrays, sizes, out)
        return results

    def _locked(self, call: Callable[[Any, Any, Any], _Results], first: Any, second: Any, out: Any) -> _Results:
        """`call(first, second, out)` with the arena and the parameters to itself."""
        with self._lock:
            taken, direct = 0, self._direct
            try:
                if direct is not None:
                    direct.take()
                for lock in self._locks:
                    lock.acquire()
                    taken += 1
                return call(first, second, out)
            finally:
                while taken:
                    taken -= 1
                    self._locks[taken].release()
                if direct is not None:
                    direct.give()

    def _call_quickly(self, args: tuple[Any, ...], named: Mapping[str, Any], out: Any) -> list[np.ndarray] | None:
        """The call through the native entry of the last plan; None, and nothing has happened, if that refuses."""
        plan = self._last
        if plan is None or plan.enter is None:
            return None
        if named:
            if len(args) + len(named) != len(self.program.inputs):
                return None
            args = (*args, *map(named.get, self.program.inputs[len(args) :]))  # a missing one gives None: refused
        makers = plan.makers
        if type(out) is np.ndarray:
            results = [out]
        elif out is None:
            results = [makers[0]()] if len(makers) == 1 else [make() for make in makers]
        else:
            given = list(out)
            if len(given) != len(makers):
                return None
            results = [make() if array is None else array for array, make in zip(given, makers, strict=True)]
        threads = self.threads or settings.current().num_threads or _cores
        if plan.threads != threads:
            self._prepare(plan, threads)
        status = plan.enter(*args, *results)
        if status is False:
            return None
        self._native_calls += 1
        if status is None:
            self._fail(plan, args)
        if self._direct is not None:
            self._direct.serve(plan.enter, *plan.tables.results[0])
        return results

    def _call_slowly(self, arrays: Sequence[np.ndarray], sizes: tuple[int, ...], out: Any) -> list[np.ndarray]:
        arrays = [self._apart(array) for array in arrays]
        plan = self._plan(sizes)
        given = self._outputs(plan, out)
        results: list[np.ndarray] = []
        for array, make in zip(given, plan.makers, strict=True):
            usable = array is not None and self._usable(array, [*arrays, *results])
            results.append(array if usable and array is not None else make())
        self._last = plan  # only now: there was memory for its results
        bound = plan.tables.bind
        for slot, array in enumerate([*arrays, *results]):
            bound[slot] = address_of(array)
        self._run(plan, arrays)
        for position, array in enumerate(given):
            if array is not None and array is not results[position]:
                np.copyto(array, results[position])
                results[position] = array
        return results

    def _apart(self, array: np.ndarray) -> np.ndarray:
        """The array, or a copy if the step writes the memory that it shows (it is a view of a parameter)."""
        start = address_of(array)
        end = start + array.nbytes
        return array.copy() if any(start < high and end > low for low, high in self._written) else array

    def _usable(self, out: np.ndarray, others: Sequence[np.ndarray]) -> bool:
        """Whether a result can be computed right in `out`: it overlaps nothing that the step reads or writes."""
        others = [*others, *(state.array for state in self._states)]
        apart = not any(np.may_share_memory(out, other) for other in others)
        return apart and out.flags.c_contiguous and out.flags.aligned

    def _outputs(self, plan: _BoundPlan, out: Any) -> list[np.ndarray | None]:
        """`out` as one array or None for each result, checked."""
        count = len(self.program.outputs)
        if out is None:
            return [None] * count
        given = [out] if isinstance(out, np.ndarray) else list(out)
        if len(given) != count:
            raise ArgumentError(f"{self.program.name}: out holds {len(given)} arrays for {count} results")
        for position, (array, (shape, dtype, _)) in enumerate(zip(given, plan.tables.results, strict=True)):
            if array is None:
                continue
            if not isinstance(array, np.ndarray) or not array.flags.writeable:
                raise ArgumentError(f"{self.program.name}: out[{position}] is not an array that can be written")
            if array.dtype != dtype:
                hint = f"make it with np.empty({shape}, np.{dtype.name})"
                raise DTypeError(f"{self.program.name}: out[{position}] is {array.dtype}, the result {dtype}", (), hint)
            if array.shape != shape:
                raise ShapeError(f"{self.program.name}: out[{position}] is {array.shape}, the result {shape}")
        return given

    def _plan(self, sizes: tuple[int, ...]) -> _BoundPlan:
        """The tables for these sizes, kept; made for a new tuple."""
        plan = self._plans.get(sizes)
        if plan is None:
            log("runtime", lambda: f"{self.program.name}: new sizes {dict(zip(self.program.dims, sizes, strict=True))}")
            named = dict(zip(self.program.dims, sizes, strict=True))
            for extent in self._extents:
                extent.check(self.program.name, named)
            tables = SizedPlan(self._layout, self._kernels, self._fixed, named)
            log("memory", lambda: f"{self.program.name}: {tables.memory(self._layout)}")
            plan = _BoundPlan(tables, self.program, self._driver.enter, self._written, self._read)
            self._plans[sizes] = plan
            while len(self._plans) > PLANS:
                self._plans.popitem(last=False)
        else:
            self._plans.move_to_end(sizes)
        if plan.tables.arena_bytes > self._arena.nbytes:
            self._arena = aligned_bytes(plan.tables.arena_bytes)
            self._forget()
        return plan

    def _run(self, plan: _BoundPlan, arrays: Sequence[np.ndarray]) -> None:
        """The native call, with the addresses of inputs and results in the bind table."""
        threads = self.threads or settings.current().num_threads or _cores
        if plan.threads != threads:
            self._prepare(plan, threads)
        self._native_calls += 1
        if self._driver.run(plan.context):
            self._fail(plan, arrays)

    def _prepare(self, plan: _BoundPlan, threads: int) -> None:
        """Let the plan see the threads that this call may use, and where arena and scratch are."""
        pool = self._driver.pool
        sharing = pool.ensure(threads)
        if self._scratch_bytes * sharing > self._scratch.nbytes:
            self._scratch = aligned_bytes(self._scratch_bytes * sharing)
            self._forget()
        plan.tables.place(address_of(self._arena))
        plan.tables.share(pool.address, sharing, address_of(self._scratch), self._scratch_bytes)
        plan.threads = threads

    def _forget(self) -> None:
        """Arena, scratch or pool are not what they were: every plan has to be prepared again."""
        for plan in self._plans.values():
            plan.threads = 0
        if self._direct is not None:
            self._direct.stop()

    def _fail(self, plan: _BoundPlan, arrays: Sequence[np.ndarray]) -> None:
        """Raise the error that the error word tells."""
        word = int(plan.tables.words[native.ERROR])
        if word == native.NO_ERROR:
            raise InternalError(f"{self.program.name}: the step failed without an error")
        number, index = word >> _INDEX_BITS, word & ((1 << _INDEX_BITS) - 1)
        if number >= len(self.program.checks):
            raise InternalError(f"{self.program.name}: check {number} failed, but there is no such check")
        check = self.program.checks[number]
        limit = evaluate(check.limit, plan.tables.sizes)
        if limit < 0:
            raise InternalError(f"{self.program.name}: outside of its memory: {check.op}")
        message = f"{check.op}: an index is out of range for an axis of size {limit}"
        if check.indices is not None:
            values = self._contents(check.indices, plan, arrays)
            if index < values.size:
                place = ", ".join(map(str, np.unravel_index(index, values.shape)))
                subject = f"{check.indices}[{place}]" if place else check.indices
                message = message.replace("an index", f"index {values.flat[index]} at {subject}")
        lines = self._checks()[number].lines
        raise IndexRangeError(message, lines, f"valid indices are 0 to {limit - 1}" if limit else None)

    def _contents(self, name: str, plan: _BoundPlan, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """What a buffer held when the step failed."""
        if name in self.program.inputs:
            return arrays[self.program.inputs.index(name)]
        kind = self.program.buffers[name].type
        shape, nbytes = concrete(kind, plan.tables.sizes)
        if not nbytes:
            return np.empty(shape, kind.dtype.numpy)
        memory = ctypes.string_at(int(plan.tables.bind[self._layout.slots[name]]), nbytes)
        return np.frombuffer(memory, kind.dtype.numpy).reshape(shape)

    def after_fork(self) -> None:
        """In a forked child, where the parameters have new locks: the thread that held one may not exist here."""
        self._lock = threading.Lock()
        self._locks = _ordered_locks(self._states)
        if self._direct is not None:
            self._direct.after_fork()
        self._forget()


class _BoundPlan:
    """The tables of one tuple of sizes, their native entry, what makes each result's array.

    threads: how many the tables were prepared for; 0: they do not know where arena and scratch are.
    """

    __slots__ = ("context", "enter", "makers", "tables", "threads")

    def __init__(
        self, tables: SizedPlan, program: Program, function: int, written: Sequence[_Range], read: Sequence[_Range]
    ) -> None:
        self.tables, self.context, self.threads = tables, tables.context, 0
        self.makers = [RESULTS.maker(shape, dtype, nbytes) for shape, dtype, nbytes in tables.results]
        inputs = [
            (shape, program.buffers[name].type.dtype.numpy, nbytes)
            for name, (shape, nbytes) in zip(program.inputs, tables.inputs, strict=True)
        ]
        self.enter = entry(function, tables.context, tables.bind_address, inputs, tables.results, written, read)


def _ordered_locks(states: Sequence[ParameterState]) -> list[threading.RLock]:
    """The locks of parameters in the one order in which every function takes them."""
    return [state.lock for state in sorted({id(state): state for state in states}.values(), key=id)]


_living: weakref.WeakSet[Executable] = weakref.WeakSet()


def _after_fork() -> None:
    for executable in list(_living):
        executable.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
