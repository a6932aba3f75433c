"""Contractions at the edge of memory: operands and results that end, or begin, at a page that cannot be touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses mprotect")
def test_nothing_outside_is_touched() -> None:
    """Operands and result end at a page that cannot be read (in a process of its own, which would die)."""
    done = subprocess.run([sys.executable, "-c", _FENCED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


_FENCED = """
import ctypes, mmap
import numpy as np
from tests.test_contraction import Case, Native, float32, generate, store_epilogue, BufferParam, host_target, Operand
libc = ctypes.CDLL(None)
def fenced(count, at_end):
    size = -(-max(count, 1) * 4 // mmap.PAGESIZE) * mmap.PAGESIZE
    area = mmap.mmap(-1, size + 2 * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for fence in (address, address + size + mmap.PAGESIZE):
        assert libc.mprotect(ctypes.c_void_p(fence), mmap.PAGESIZE, 0) == 0
    start = mmap.PAGESIZE + (size - 4 * count if at_end else 0)
    return area, np.frombuffer(area, np.float32, count, start)
for m, n, k in ((14, 33, 17), (1, 5, 3), (29, 47, 1030), (37, 17, 18), (64, 36, 17)):
    for ta in (0, 1):
        for tb in (0, 1):
            for named in ((), (0,), (0, 1, 2)):
                from graphc.types import Dim
                M, N, K = (Dim.symbol(f"s{i}") if i in named else v for i, v in enumerate((m, n, k)))
                native = Native(generate("fenced", dtype=float32, batch=(), m=M, n=N, k=K,
                    a=Operand("b0", 0, (), *((1, M) if ta else (K, 1))),
                    b=Operand("b1", 0, (), *((1, K) if tb else (N, 1))),
                    epilogue=store_epilogue("b2", (), N, 1), sizes=["s0", "s1", "s2"], target=host_target(),
                    buffers=[BufferParam(f"b{i}", float32, 1, i == 2) for i in range(3)]))
                for at_end in (False, True):
                    (_a, a), (_b, b), (_c, c) = fenced(m * k, at_end), fenced(k * n, at_end), fenced(m * n, at_end)
                    a[:] = 1; b[:] = 2
                    native.run([a, b, c], {"s0": m, "s1": n, "s2": k})
                    assert (c == 2 * k).all(), (m, n, k, ta, tb, named)
import os; os._exit(0)
"""
