"""Memory of the runtime: aligned blocks, results that are recycled, the plan of the arena."""

from __future__ import annotations

import gc
import itertools

import numpy as np
import pytest

import graphc
from graphc.runtime.buffers import ALIGN, RECYCLE, Results, address_of, aligned_bytes
from graphc.runtime.plan import arena_offsets


def test_blocks_are_aligned() -> None:
    for size in (1, 63, 64, 100, 100_000, 5_000_000):
        block = aligned_bytes(size)
        assert address_of(block) % ALIGN == 0 and block.nbytes == size
        block[:] = 255


def test_results_keep_no_more_than_their_limit() -> None:
    make = (results := Results(keep=4 * RECYCLE)).maker((RECYCLE,), np.dtype(np.uint8), RECYCLE)
    arrays = [make() for _ in range(8)]
    places = {address_of(a) for a in arrays}
    assert len(places) == 8
    arrays.clear()
    assert sum(block.nbytes for block in results._free) <= 4 * RECYCLE
    assert address_of(make()) in places


def test_several_results_come_back_without_a_garbage_collection() -> None:
    x = graphc.placeholder("x", (RECYCLE,), "uint8")
    f = graphc.function([x], {"a": [x + 1, (x + 2, x + 3)]})
    gc.disable()
    try:
        places = []
        for _ in range(2):
            result = f(np.zeros(RECYCLE, np.uint8))
            places.append({address_of(a) for a in (result["a"][0], *result["a"][1])})
            del result
    finally:
        gc.enable()
    assert places[0] == places[1]


@pytest.mark.parametrize("seed", range(20))
def test_arena_blocks_that_live_together_do_not_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    temps = []
    for _ in range(25):
        first, last = sorted(map(int, rng.integers(0, 8, 2)))
        temps.append((int(rng.integers(0, 1000)), first, last))
    offsets, size = arena_offsets(temps)
    assert all(offset % ALIGN == 0 for offset in offsets)
    for (i, a), (j, b) in itertools.combinations(enumerate(temps), 2):
        if a[1] <= b[2] and b[1] <= a[2]:
            assert offsets[i] + a[0] <= offsets[j] or offsets[j] + b[0] <= offsets[i] or not a[0] or not b[0]
    alive = max(sum(-(-n // ALIGN) * ALIGN for n, first, last in temps if first <= t <= last) for t in range(8))
    assert alive <= size <= 1.5 * alive + ALIGN
