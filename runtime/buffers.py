"""Aligned memory: the arena's blocks, and large results in buffers that return when the user's array dies.

A fresh large array costs a page fault every 4 KiB, several times what computing it costs. So a result of `RECYCLE`
bytes or more lives in a `_Lease` over a pooled block; NumPy keeps the lease alive as the base of the array and of
every view of it, and when the last one dies the block goes back. Enter at `Results.maker` and `aligned_bytes`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

ALIGN = 64
RECYCLE = 64 * 1024  # results of at least so many bytes are recycled
HUGE = 2 * 1024 * 1024  # the size of a huge page; blocks of at least two of them ask for huge pages
KEEP = 512 * 1024 * 1024  # at most so many bytes wait to be used again


def aligned_bytes(nbytes: int, align: int = ALIGN) -> np.ndarray:
    """An uninitialised uint8 array of `nbytes` whose address is a multiple of `align` (a power of two)."""
    if nbytes >= 2 * HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        return _huge_bytes(nbytes)
    raw = np.empty(nbytes + align, np.uint8)
    start = -address_of(raw) % align
    return raw[start : start + nbytes]


def _huge_bytes(nbytes: int) -> np.ndarray:
    try:
        memory = mmap.mmap(-1, nbytes + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no memory for {nbytes} bytes: {error.strerror}") from None
    with contextlib.suppress(OSError):  # a kernel without huge pages: it is advice only
        memory.madvise(mmap.MADV_HUGEPAGE)
    raw = np.frombuffer(memory, np.uint8)
    start = -address_of(raw) % HUGE
    return raw[start : start + nbytes]


def address_of(array: np.ndarray) -> int:
    """The address of an array's first element (also of an empty array)."""
    return int(array.__array_interface__["data"][0])


def align_up(value: int, align: int = ALIGN) -> int:
    """`value` rounded up to a multiple of `align`."""
    return -(-value // align) * align


class _Lease:
    """The base of an array over a block that is out. Dying gives the block back to `home`.

    No ndarray, since NumPy replaces a base that is a view by that view's own base.
    """

    __slots__ = ("__array_interface__", "block", "home")

    def __init__(self, home: Results, block: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.home, self.block = home, block
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (address_of(block), False),
        }

    def __del__(self) -> None:
        self.home.give_back(self.block)


class Results:
    """Blocks for results, free ones kept by capacity, the longest unused dropped first above `keep` bytes.

    A lease can end anywhere, also in a garbage collection inside of these methods: `give_back` only appends to a
    deque, which whoever holds the lock empties.
    """

    def __init__(self, keep: int = KEEP) -> None:
        self._keep = keep
        self._returned: deque[np.ndarray] = deque()
        self._free: list[np.ndarray] = []  # the longest unused first
        self._lock = threading.Lock()

    def maker(self, shape: tuple[int, ...], dtype: np.dtype[Any], nbytes: int) -> Callable[[], np.ndarray]:
        """What makes uninitialised C-ordered arrays of `nbytes`. Large ones are 64-byte aligned and recycled."""
        if nbytes < RECYCLE:
            return partial(np.empty, shape, dtype)
        return partial(self._recycled, shape, dtype, _capacity(nbytes))

    def lend(self, shape: tuple[int, ...], dtype: np.dtype[Any], nbytes: int) -> np.ndarray:
        """An aligned array of any size whose views hold the array itself, so that its reference count tells of them."""
        return self._recycled(shape, dtype, _capacity(nbytes))

    def _recycled(self, shape: tuple[int, ...], dtype: np.dtype[Any], capacity: int) -> np.ndarray:
        if dtype.kind not in "biuf":  # the array interface does not tell bfloat16 from other bytes
            return self._recycled(shape, np.dtype(f"u{dtype.itemsize}"), capacity).view(dtype)
        return np.asarray(_Lease(self, self._take(capacity), shape, dtype))

    def _take(self, capacity: int) -> np.ndarray:
        with self._lock:
            self._drain()
            for index in range(len(self._free) - 1, -1, -1):  # the last one returned is the likeliest to be in a cache
                if self._free[index].nbytes == capacity:
                    return self._free.pop(index)
        return aligned_bytes(capacity)

    def give_back(self, block: np.ndarray) -> None:
        """Keep `block` for the next result of its capacity."""
        self._returned.append(block)
        if self._lock.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._lock.release()

    def _drain(self) -> None:
        while self._returned:
            self._free.append(self._returned.popleft())
        kept = sum(block.nbytes for block in self._free)
        while kept > self._keep:
            kept -= self._free.pop(0).nbytes

    def after_fork(self) -> None:
        """In a forked child: a lock that another thread held would never be released."""
        self._lock = threading.Lock()


def _capacity(nbytes: int) -> int:
    """`nbytes` rounded up to one of eight steps between powers of two, so that near sizes share blocks."""
    step = max(4096, 1 << max(0, nbytes.bit_length() - 4))
    return align_up(nbytes, step)


RESULTS = Results()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=RESULTS.after_fork)
