"""Scans along an axis: NumPy's bits for every layout, chunks of chains, and gradients at zeros and ties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.build import placeholder
from graphc.errors import ShapeError
from tests.array_checks import agree, differentiable

FUNCTIONS = {"cumsum": np.add, "cumprod": np.multiply, "cummax": np.maximum, "cummin": np.minimum}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_scans_are_numpys(name: str) -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(33, 1, 70, 5)).astype(np.float32)
    function, ufunc = getattr(graphc, name), FUNCTIONS[name]
    agree(
        lambda x: [*(function(x, a) for a in (0, 1, 2, -1)), function(x), function(x, 2, reverse=True),
                   function(x.T, 1)],
        [*(ufunc.accumulate(x, a) for a in (0, 1, 2, -1)), ufunc.accumulate(x.ravel()),
         ufunc.accumulate(x[:, :, ::-1], 2)[:, :, ::-1], ufunc.accumulate(x.T, 1)],
        x,
    )  # fmt: skip
    agree(lambda x: function(x * 2, 0) + 1, ufunc.accumulate(x * np.float32(2), 0) + np.float32(1), x, named=True)


def test_array_api_names() -> None:
    x = np.array([[1, 2, 3], [4, 5, 6]], np.int8)
    agree(
        lambda x: [
            graphc.cumulative_sum(x, 1), graphc.cumulative_sum(x, 0, include_initial=True),
            graphc.cumulative_prod(x, 1, "float32"), graphc.cumulative_prod(x, -1, include_initial=True),
            graphc.cumsum(x > 2),
        ],
        [
            np.cumsum(x, 1), np.cumsum(np.vstack([np.zeros((1, 3), int), x]), 0),
            np.cumprod(x, 1, np.float32), np.cumprod(np.hstack([np.ones((2, 1), int), x]), 1), np.cumsum(x > 2),
        ],
        x,
    )  # fmt: skip
    with pytest.raises(ShapeError, match=r"cumsum: there is no axis 2 of x \("):
        graphc.cumsum(placeholder("x", (2, 3)), 2)


@pytest.mark.parametrize("zeros", [[], [2], [1, 3]])
def test_the_gradient_of_cumprod_at_zeros(zeros: list[int]) -> None:
    x = np.array([1.2, -0.7, 0.9, 1.4, -1.1])
    x[zeros] = 0
    differentiable(lambda x: graphc.cumprod(x), x)
    differentiable(lambda x: graphc.cumprod(x, 0, reverse=True), x)


def test_gradients() -> None:
    x = np.array([[1.2, -0.7, 2.5, 0.1], [0.3, 0.9, -1.1, 2.2]])
    for name in FUNCTIONS:
        function: Any = getattr(graphc, name)
        differentiable(lambda x, function=function: function(x * x, 1) * function(x, 0, reverse=True), x)


def test_ties_of_a_maximum_give_the_latest_the_cotangent() -> None:
    x = placeholder("x", (5,), "float64")
    values = np.array([1.0, 1.0, 0.0, 1.0, 2.0])
    for made, wanted in (
        (graphc.cummax(x), [1, 2, 0, 1, 1]),
        (graphc.cummax(x, 0, reverse=True), [0, 0, 0, 0, 5]),
    ):
        np.testing.assert_array_equal(graphc.grad(made.sum(), x).eval({x: values}), wanted)
    empty = graphc.grad(graphc.cummax(x, 0, reverse=True).sum(), x).eval({x: np.full(5, np.nan)})
    assert empty.shape == (5,) and empty.sum() == 5
