"""Decided minima and maxima against all small sizes, and the slices and rolls that rest on them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphc
from graphc.size_facts import covers, larger, smaller
from graphc.types import Dim, Size, ceildiv, evaluate, maximum, minimum

N, M = Dim.symbol("n"), Dim.symbol("m")
SIZES: list[Size] = [
    0, 1, 3, N, M, N + 1, N - 1, N - M, 2 * N - 3, N + M, N * M, N // 2, (N - 3) // 2, N - N // 2, 2 * (N // 2),
    2 * (N // 2) - N, 3 * (N // 2) + 1, (N + 1) // 2, ceildiv(N, 3), N // 2 + M // 3, N - N // 2 - N // 3,
    M * (N // 2), maximum(N - 1, 0), minimum(N, 3), minimum(N - M, 2), maximum(N - M, -1), N - minimum(N, 3),
    minimum(N // 2, M), 5 - N // 2, N // 3 - N // 2,
]  # fmt: skip


def test_what_is_decided_is_right_for_all_sizes() -> None:
    decided = 0
    for a, b in itertools.product(SIZES, SIZES):
        known, low, high = covers(a, b), smaller(a, b), larger(a, b)
        decided += known
        for n, m in itertools.product(range(21), range(0, 21, 3)):
            values = {"n": n, "m": m}
            x, y = evaluate(a, values), evaluate(b, values)
            assert not known or x >= y, (a, b, values)
            assert (evaluate(low, values), evaluate(high, values)) == (min(x, y), max(x, y)), (a, b, values)
    assert decided > 100


def test_half_of_an_axis_is_a_slice_of_known_size() -> None:
    x = graphc.placeholder("x", ("n", 4))
    assert x[: N // 2].shape == (N // 2, 4)
    assert x[N // 2 :].shape == (N - N // 2, 4)
    pairs = x[: 2 * (N // 2)].reshape(-1, 2, 4)
    assert pairs.shape == (N // 2, 2, 4)
    compiled = graphc.function([x], pairs * 2.0)
    for n in (0, 1, 2, 5, 8):
        data = np.arange(4 * n, dtype=np.float32).reshape(n, 4)
        np.testing.assert_array_equal(compiled(data), data[: 2 * (n // 2)].reshape(-1, 2, 4) * 2)


@pytest.mark.parametrize("shift", [1, -1, 0])
def test_roll_by_one_along_a_named_axis(shift: int) -> None:
    x = graphc.placeholder("x", ("n", 2))
    rolled = graphc.roll(x, shift, axis=0)
    assert rolled.shape == x.shape
    compiled = graphc.function([x], rolled + x)
    for n in (0, 1, 2, 3, 7):
        data = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
        np.testing.assert_array_equal(compiled(data), np.roll(data, shift, axis=0) + data)
