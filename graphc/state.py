"""The memory of a parameter, shared by every function that uses it. Made by `graphc.build.parameter`."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import SourceLine

if TYPE_CHECKING:
    from graphc.build import Tensor


class ParameterState:
    """`array` starts at a multiple of 64 bytes and never moves; `lock` guards a call that reads or writes it.

    `default_update` is the next value (a Tensor) in every function that uses the parameter, or None. `lines` is where
    the user made it.
    """

    __slots__ = ("__weakref__", "array", "default_update", "lines", "lock", "name")

    def __init__(self, name: str, array: np.ndarray, lines: tuple[SourceLine, ...] = ()) -> None:
        self.name, self.lines = name, lines
        self.lock = threading.RLock()
        self.array = aligned_empty(array.shape, array.dtype)
        self.array[...] = array
        self.default_update: Tensor | None = None
        _living.add(self)

    def __repr__(self) -> str:
        return f"ParameterState({self.name})"


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any], alignment: int = 64) -> np.ndarray:
    """A C-contiguous array whose first element is at a multiple of `alignment` bytes."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(nbytes + alignment, np.uint8)
    offset = -raw.ctypes.data % alignment
    return raw[offset : offset + nbytes].view(dtype).reshape(shape)


_living: weakref.WeakSet[ParameterState] = weakref.WeakSet()


def _after_fork() -> None:
    """In a forked child: the thread that held a lock at the fork does not exist here."""
    for state in list(_living):
        state.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
