"""One kernel called on arrays in this thread, without Program or driver: for tests and measurements.

Enter at `run_kernel`, or at `load_kernel` to call a kernel several times.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.llvm.emit import emit
from graphc.llvm.scratch import scratch_bytes
from graphc.loops.check import check_kernel
from graphc.loops.ir import LoopKernel
from graphc.runtime.host import host_target
from graphc.runtime.jit import Library, compile_object
from graphc.target import Target
from graphc.types import evaluate

Array = np.ndarray[Any, Any]
_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 3)


@dataclass(frozen=True)
class LoadedKernel:
    """A kernel in memory, as long as this object lives."""

    kernel: LoopKernel
    library: Library
    function: Callable[..., int]

    def __call__(
        self, arrays: Sequence[Array], sizes: Sequence[int], chunks: Sequence[tuple[int, int]], worker: int = 0
    ) -> Array:
        """Run ranges of chunks ((-1, 0) is the finish); the context words afterwards, word 0 being the error word.

        arrays: one for each buffer, contiguous; sizes: one for each size name.
        """
        need = scratch_bytes(self.kernel)
        memory = np.empty(need * (worker + 1) + 64, np.uint8)
        context = np.full(8, -1, np.int64)
        context[2], context[3] = memory.ctypes.data + -memory.ctypes.data % 64, need
        words = np.array([*sizes, 0], np.int64)
        table = np.array([*(array.ctypes.data for array in arrays), 0], np.int64)
        for begin, end in chunks:
            status = self.function(context.ctypes.data, words.ctypes.data, table.ctypes.data, begin, end, worker)
            if status:
                raise RuntimeError(f"kernel {self.kernel.name} returned {status}")
        return context


def load_kernel(kernel: LoopKernel, target: Target | None = None) -> LoadedKernel:
    """Check, compile and load a kernel for the host, or for a target that the host can run."""
    check_kernel(kernel)
    chosen = target or host_target()
    library = Library()
    data = compile_object(emit(kernel, chosen), chosen, verify=True)
    return LoadedKernel(kernel, library, _FUNCTION(library.load([data], [kernel.name])[kernel.name]))


def run_kernel(
    kernel: LoopKernel, arrays: Sequence[Array], sizes: Sequence[int] = (), target: Target | None = None
) -> Array:
    """All chunks of a kernel and its finish, on arrays that it reads and writes; the context words afterwards."""
    count = evaluate(kernel.chunks, dict(zip(kernel.sizes, sizes, strict=True)))
    ranges = [(0, count), *([(-1, 0)] if kernel.finish else [])]
    return load_kernel(kernel, target)(arrays, sizes, ranges)
