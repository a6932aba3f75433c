"""Order: NumPy's results, also for nan, ties, descending orders, named sizes, and sizes around powers of two."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.build import placeholder
from graphc.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from tests.array_checks import agree, differentiable

RNG = np.random.default_rng(6)


def test_sorting_is_numpys() -> None:
    x = RNG.integers(-3, 4, (5, 37, 2)).astype(np.float32)
    x[0, 3, 0] = x[1, 5, 1] = np.nan
    x[2, :4, 0] = [0.0, -0.0, np.inf, -np.inf]
    agree(
        lambda x: [
            *(graphc.argsort(x, a) for a in (0, 1, 2)), graphc.sort(x, 1), graphc.sort(x * 2, 0) + 1,
            graphc.sort(x > 0, 1), graphc.sort(-x, 1, descending=True), *graphc.topk(x, 3, 1),
        ],
        [
            *(np.argsort(x, a, stable=True) for a in (0, 1, 2)), np.sort(x, 1, stable=True),
            np.sort(x * 2, 0, stable=True) + 1, np.sort(x > 0, 1),
            np.flip(np.sort(-np.flip(x, 1), 1, stable=True), 1),
            np.flip(np.sort(np.flip(x, 1), 1, stable=True), 1)[:, :3],
            (36 - np.flip(np.argsort(np.flip(x, 1), 1, stable=True), 1))[:, :3],
        ],
        x,
    )  # fmt: skip
    wanted = [np.sort(x, 0, stable=True), np.argsort(x, -1, stable=True)]
    agree(lambda x: [graphc.sort(x, 0), graphc.argsort(x)], wanted, x, named=True)


def test_every_size_up_to_some_powers_of_two() -> None:
    x = placeholder("x", ("rows", "n"), "int8")
    f = graphc.function([x], graphc.argsort(x))
    for n in (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 255, 257, 1000):
        values = RNG.integers(-50, 50, (3, n)).astype(np.int8)
        np.testing.assert_array_equal(f(values), np.argsort(values, -1, stable=True))


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted(side: str) -> None:
    a = np.array([-1.0, 0.0, 2.0, 2.0, 2.0, 5.0, np.inf, np.nan])
    v = np.array([[2.0, -3.0, 5.5], [np.nan, np.inf, 0.0]])
    n, m = np.array([1, 3, 3, 9], np.int16), np.array([0, 3, 100], np.int64)
    agree(
        lambda a, v, n, m: [graphc.searchsorted(a, v, side), graphc.searchsorted(n, m, side)],
        [np.searchsorted(a, v, side), np.searchsorted(n, m, side)],
        a, v, n, m,
    )  # fmt: skip


def test_bincount() -> None:
    x, w = np.array([1, 0, 3, 1, 1], np.int32), np.array([0.5, 1, 2, 4, 8], np.float32)
    agree(
        lambda x, w: [graphc.bincount(x, length=5), graphc.bincount(x, w, 4), graphc.bincount(x, x, 4)],
        [np.bincount(x, minlength=5), np.bincount(x, w).astype(np.float32), np.bincount(x, x)],
        x, w,
    )  # fmt: skip
    i = placeholder("i", (5,), "int32")
    with pytest.raises(IndexRangeError, match="test_sorting"):
        graphc.function([i], graphc.bincount(i, length=3))(x)
    with pytest.raises(ArgumentError, match="bincount: needs a length: i is i32"):
        graphc.bincount(i)
    with pytest.raises(DTypeError, match="bincount: takes a vector of integers"):
        graphc.bincount(placeholder("x", (2,)), length=2)
    with pytest.raises(ShapeError, match="topk: 6 elements of axis 0"):
        graphc.topk(i, 6)


def test_gradients() -> None:
    x = RNG.normal(size=(3, 7))
    differentiable(lambda x: graphc.sort(x * x, 1) * graphc.topk(x, 1, 1)[0] + graphc.topk(x, 2, 0, False)[0][0], x)
