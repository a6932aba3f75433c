"""Scans along an axis: NumPy's bits for every layout, chunks of chains, and gradients at zeros and ties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.build import placeholder
from graphc.errors import ShapeError
from graphc.graph import Graph
from graphc.llvm.emit import emit
from graphc.loops.lower import lower
from graphc.passes.pipeline import optimize
from graphc.runtime.jit import compile_assembly
from graphc.target import NAMED
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


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", [("n", "m"), ("n", 37), (40, 48), (3, 7, 33), (9, 1)])
def test_chains_side_by_side_are_numpys(name: str, shape: tuple[Any, ...]) -> None:
    """Rows in squares of a vector's lanes: every rest, both directions, special values, inside of memory."""
    rng, function, ufunc = np.random.default_rng(7), getattr(graphc, name), FUNCTIONS[name]
    sizes = ((1, 1), (2, 5), (17, 33), (40, 48), (0, 4)) if "n" in shape else ((1, 1),)
    for dtype in ("float32", "float64", "int64"):
        x = placeholder("x", shape, dtype)
        with graphc.config(guard_memory=True, cache=False):
            compiled = graphc.function([x], [function(x, -1), function(x, -1, reverse=True)])
            for n, m in sizes:
                a = (3 * rng.standard_normal([{"n": n, "m": m}.get(size, size) for size in shape])).astype(dtype)
                if dtype != "int64":
                    a.reshape(-1)[::7], a.reshape(-1)[1::11] = -0.0, np.nan
                forward, backward = compiled(a)
                np.testing.assert_array_equal(forward, ufunc.accumulate(a, -1))
                np.testing.assert_array_equal(np.signbit(forward), np.signbit(ufunc.accumulate(a, -1)))
                np.testing.assert_array_equal(backward, ufunc.accumulate(a[..., ::-1], -1)[..., ::-1])


def test_chains_side_by_side_fill_the_registers() -> None:
    x = placeholder("x", ("n", 100), "float32")
    graph = optimize(Graph((x.ref,), (graphc.cumsum(x, 1).ref,), (), "scan"))
    for name, register in (("avx512", "%zmm"), ("avx2", "%ymm"), ("sse2", "%xmm"), ("neon", ".4s")):
        (kernel,) = lower(graph, NAMED[name]).kernels.values()
        text = compile_assembly(emit(kernel, NAMED[name]), NAMED[name])
        assert text.count(register) > 10 and "addss" not in text and "call" not in text
