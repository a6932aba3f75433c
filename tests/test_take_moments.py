"""Variances over rows are taken in the same pass over memory as their means, and are no worse for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.build import Tensor


@pytest.fixture(autouse=True)
def checked() -> object:
    """Every level verifies, and nothing comes from the cache."""
    with graphc.config(verify=True, cache=False):
        yield


def centred(x: Tensor, keepdims: bool = False) -> list[Tensor]:
    """As batch norm has it: the mean, the mean of squares about it, and a full result behind both."""
    axes = tuple(range(x.ndim - 1))
    away = x - x.mean(axes, keepdims=keepdims)
    square = (away * away).mean(axes, keepdims=keepdims)
    return [square, x.mean(axes), away * graphc.rsqrt(square + 1e-5)]


def stages(function: Any) -> int:
    return len(function.kernels)


@pytest.mark.parametrize(
    "shape", [(700, 64), (7, 10, 9, 65), (20000, 1), (333, 1, 131), (70, 1000), (17, 1024), (1, 20000)]
)
@pytest.mark.parametrize("keepdims", [False, True])
def test_values(shape: tuple[int, ...], keepdims: bool, rng: np.random.Generator) -> None:
    x = graphc.placeholder("x", shape, "float32")
    compiled = graphc.function([x], centred(x, keepdims))
    array = rng.normal(3, 2, shape).astype("float32")
    wide = graphc.placeholder("x", shape, "float64")
    for got, want in zip(compiled(array), centred(wide, keepdims), strict=True):
        expected = want.eval({wide: array.astype("float64")})
        assert got.shape == expected.shape and got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=3e-6, atol=3e-6)


def test_one_kernel_for_the_statistics() -> None:
    x = graphc.placeholder("x", (700, 64), "float32")
    assert stages(graphc.function([x], centred(x)[:2])) == 1
    assert stages(graphc.function([x], centred(x))) == 2
    assert stages(graphc.function([x], x.var(0))) == 1
    assert stages(graphc.function([x], (x * 2).var(0))) == 2  # computed: its first row is not in memory
    assert stages(graphc.function([x], centred(x.reshape(70, 10, 64)))) == 2


@pytest.mark.parametrize(
    "of",
    [
        lambda x: ((x - x.max(0)) * (x - x.max(0))).sum(0),
        lambda x: ((x - x.mean(0)) * (x + x.mean(0))).sum(0),
        lambda x: abs(x - x.mean(0)).sum(0),
        lambda x: graphc.exp(x - x.mean(0)).sum(0),
        lambda x: ((x - graphc.exp(x.mean(0))) * (x - graphc.exp(x.mean(0)))).sum(0),
    ],
)
def test_other_sums_wait(of: Any, rng: np.random.Generator) -> None:
    x = graphc.placeholder("x", (700, 64), "float32")
    compiled, array = graphc.function([x], of(x)), rng.standard_normal((700, 64)).astype("float32")
    assert stages(compiled) == 2 and "f64[700,64]" not in compiled.ir("optimized")
    np.testing.assert_allclose(compiled(array), of(x).eval({x: array}), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [0, 1, 5, 700])
def test_a_number_of_rows_that_may_be_none(rows: int, rng: np.random.Generator) -> None:
    x = graphc.placeholder("x", ("rows", 64), "float32")
    total = ((x - x.mean(0)) * (x - x.mean(0))).sum(0)
    compiled, array = graphc.function([x], total), rng.standard_normal((rows, 64)).astype("float32")
    assert "f64[rows,64]" not in compiled.ir("optimized")
    np.testing.assert_allclose(compiled(array), array.var(0) * rows if rows else np.zeros(64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6, -3e7])
@pytest.mark.parametrize("first", [0.0, 100.0, 1e8])
def test_no_worse_than_deviations_in_float32(offset: float, first: float, rng: np.random.Generator) -> None:
    """Far from 0, and from a first row that is far from all others."""
    array = rng.normal(offset, 1, (5000, 16)).astype("float32")
    array[0] += np.float32(first)
    x = graphc.placeholder("x", array.shape, "float32")
    square, mean = graphc.function([x], centred(x)[:2])(array)
    in_float32 = ((array - mean).astype("float64") ** 2).mean(0)  # what the graph says, summed exactly
    exact = array.astype("float64").var(0)
    error, allowed = (np.abs(values / exact - 1).max() for values in (square, in_float32))
    assert error <= allowed + 2e-7


def test_equal_rows_have_no_variance(rng: np.random.Generator) -> None:
    array = np.repeat(rng.normal(0, 1e6, (1, 64)).astype("float32"), 1024, 0)
    x = graphc.placeholder("x", array.shape, "float32")
    np.testing.assert_array_equal(graphc.function([x], x.var(0))(array), np.zeros(64, "float32"))


def test_infinities_nans_and_overflow_give_what_they_gave(rng: np.random.Generator) -> None:
    array = rng.standard_normal((7000, 7)).astype("float32")
    array[0, 0], array[5, 1], array[:2, 2] = np.inf, -np.inf, (np.inf, -np.inf)
    array[0, 3] = array[9, 4] = np.nan
    array[:, 5] = 3e38  # their sum is infinite
    array[3, 6] = 1e25  # its square is
    x = graphc.placeholder("x", array.shape, "float32")
    together = graphc.function([x], centred(x)[:2])
    with graphc.config(disable="take_moments"):
        apart = graphc.function([x], centred(x)[:2])
    assert (stages(together), stages(apart)) == (1, 2)
    for got, want in zip(together(array), apart(array), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_array_equal(together(array)[0], [np.nan] * 5 + [np.inf] * 2)


def test_batch_norm_and_its_gradient(rng: np.random.Generator) -> None:
    """The same bits on any number of threads, and the interpreter's values."""
    x, w, b = (graphc.placeholder(n, s, "float32") for n, s in (("x", (8, 20, 20, 32)), ("w", (32,)), ("b", (32,))))
    arrays = [rng.standard_normal(t.shape).astype("float32") for t in (x, w, b)]
    y = centred(x)[2] * w + b
    results = [y, *graphc.grad((y * y * y).sum(), [x, w, b])]
    compiled = [graphc.function([x, w, b], results, threads=n)(*arrays) for n in (1, 2, 3)]
    for one, two, three in zip(*compiled, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)
    for got, result in zip(compiled[0], results, strict=True):
        want = result.eval(dict(zip((x, w, b), arrays, strict=True)))
        np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3 * np.abs(want).max())
