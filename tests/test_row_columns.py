"""Sums over columns that ride beside rows: gradients of norms and biases in one pass, and what may not ride."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.build import Tensor
from graphc.graph import Graph
from graphc.llvm.emit import emit
from graphc.loops.check import check_kernel
from graphc.loops.lower import lower
from graphc.passes.domain import RowsShape, kernel_shape
from graphc.passes.pipeline import optimize
from graphc.runtime.jit import compile_assembly
from graphc.target import NAMED
from tests.fusion_checks import frozen, kernels


@pytest.fixture(autouse=True)
def checked() -> object:
    """Every level verifies, and nothing comes from the cache."""
    with graphc.config(verify=True, cache=False):
        yield


def norm_gradient(x: Any, g: Any, w: Any) -> list[Any]:
    """A layer norm's gradients to its operand, weight and bias."""
    mean = x.mean(-1, keepdims=True)
    scale = 1 / graphc.sqrt(((x - mean) * (x - mean)).mean(-1, keepdims=True) + 1e-3)
    hat, gw = (x - mean) * scale, g * w
    back = (gw - gw.mean(-1, keepdims=True) - hat * (gw * hat).mean(-1, keepdims=True)) * scale
    return [back, (g * hat).sum(0), g.sum(0)]


def softmax_bias(x: Any, g: Any, w: Any) -> list[Any]:
    """A softmax of rows with a bias, whose gradient is a mean over the rows here, and something follows from it."""
    y = nn.functional.softmax(x + w, -1)
    back = (g - (g * y).sum(-1, keepdims=True)) * y
    bias = back.mean(0)
    return [back, bias, graphc.exp(bias * w)]


def extrema(x: Any, g: Any, w: Any) -> list[Any]:
    """Other folds than sums, a position, and a total beside them."""
    return [x.argmax(-1), (x * g).max(0), x.min(0), (x - w).max(-1), graphc.exp(x).sum(-1).mean()]


CASES = [norm_gradient, softmax_bias, extrema]


def arguments(shape: tuple[Any, ...], dtype: str = "float32") -> list[Tensor]:
    x, g = graphc.placeholder("x", shape, dtype), graphc.placeholder("g", shape, dtype)
    return [x, g, graphc.placeholder("w", shape[-1:], dtype)]


def arrays_for(shape: tuple[int, ...], rng: np.random.Generator, dtype: Any = np.float32) -> list[np.ndarray]:
    return [rng.standard_normal(s).astype(dtype) for s in (shape, shape, shape[-1:])]


def near_the_interpreter(case: Any, compiled: Any, arrays: list[np.ndarray]) -> None:
    inputs = arguments(arrays[0].shape, "float64")
    wanted = [y.eval({x: a.astype(np.float64) for x, a in zip(inputs, arrays)}) for y in case(*inputs)]
    for got, want in zip(compiled(*arrays), wanted, strict=True):
        bound = (32 + np.sqrt(max(arrays[0].shape))) * np.finfo(np.float32).eps * max(1.0, np.abs(want).max(initial=0))
        assert got.shape == want.shape and np.abs(got - want).max(initial=0) <= bound, (got, want)


@pytest.mark.parametrize("case", CASES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("columns", ["c", 1, 7, 16, 64, 65, 131, 768])
def test_one_kernel_and_its_values(case: Any, columns: Any, rng: np.random.Generator) -> None:
    inputs = arguments(("n", columns))
    compiled = graphc.function(inputs, case(*inputs))
    width = 33 if columns == "c" else columns
    if width > 1:  # a reduction over one column is none
        assert len(compiled.kernels) == 1, compiled.kernels
    for rows in (1, 2, 31, 33, 300):
        near_the_interpreter(case, compiled, arrays_for((rows, width), rng))


def test_more_axes_and_float64(rng: np.random.Generator) -> None:
    for shape in ((2, 3, 40), (2, 3, 5)):
        inputs = arguments(shape, "float64")
        x, g, w = inputs
        outputs = [nn.functional.softmax(x, -1), (g * x).sum((0, 1)), (x * w).sum((0, 1), keepdims=True)]
        compiled = graphc.function(inputs, outputs)
        assert len(compiled.kernels) == 1
        arrays = arrays_for(shape, rng, np.float64)
        for got, y in zip(compiled(*arrays), outputs, strict=True):
            np.testing.assert_allclose(got, y.eval(dict(zip(inputs, arrays))), rtol=1e-12, atol=1e-12)


def test_several_reduced_axes(rng: np.random.Generator) -> None:
    x = graphc.placeholder("x", ("n", 5, 6), "float32")
    outputs = [x - x.mean((1, 2), keepdims=True), (x * x).sum(0), x.max(0)]
    compiled = graphc.function([x], outputs)
    assert len(compiled.kernels) == 1
    a = rng.standard_normal((70, 5, 6)).astype(np.float32)
    for got, y in zip(compiled(a), outputs, strict=True):
        np.testing.assert_allclose(got, y.eval({x: a}), rtol=1e-5, atol=1e-5)


def test_no_rows_give_neutral_elements() -> None:
    for columns in ("c", 10):
        inputs = arguments(("n", columns))
        compiled = graphc.function(inputs, norm_gradient(*inputs))
        empty = np.zeros((0, 10), np.float32)
        back, weight, bias = compiled(empty, empty, np.ones(10, np.float32))
        assert back.shape == (0, 10) and not weight.any() and not bias.any()


def test_square_values_keep_rows_and_columns_apart(rng: np.random.Generator) -> None:
    x = graphc.placeholder("x", ("n", "n"), "float32")
    outputs = [x / x.sum(1, keepdims=True), graphc.sqrt(graphc.abs(x.sum(0))), x.sum(1)]
    a = rng.standard_normal((37, 37)).astype(np.float32) + 2
    compiled = graphc.function([x], outputs)
    assert len(compiled.kernels) == 1
    for got, want in zip(compiled(a), (a / a.sum(1, keepdims=True), np.sqrt(a.sum(0)), a.sum(1)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_nan_and_infinity_stay_in_their_column(rng: np.random.Generator) -> None:
    inputs = arguments(("n", 40))
    x, g, w = arrays_for((50, 40), rng)
    g[3, 5], g[4, 7] = np.nan, np.inf
    _, weight, bias = graphc.function(inputs, norm_gradient(*inputs))(x, g, w)
    assert np.isnan(weight[5]) and np.isnan(bias[5]) and np.isinf(weight[7]) and bias[7] == np.inf
    assert np.isfinite(np.delete(weight, [5, 7])).all() and np.isfinite(np.delete(bias, [5, 7])).all()


def test_what_waits_for_columns_does_not_ride() -> None:
    x, p = graphc.placeholder("x", ("n", 8), "float32"), graphc.parameter("p", np.ones(8, np.float32))
    s = graphc.parameter("s", np.float32(2))
    row = x - x.mean(1, keepdims=True)
    for outputs, ride in (
        ([row, row.sum(0)], True),
        ([row, row * row.sum(0)], False),  # full values of columns
        ([row, row.sum(0).sum()], False),  # a total of columns
        ([row, row.sum(0) * graphc.exp(s)], False),  # scalar arithmetic, which the columns of a finish do not repeat
        ([row, graphc.where(p > 0, row.sum(0), 0)], False),  # a comparison, made by each reader
        ([row, (row * graphc.exp(p)).sum(0)], True),  # of a value in memory, made by another kernel
    ):
        found = kernels(optimize(frozen([x, p, s], outputs)))
        shapes = [kernel_shape(node.attrs["graph"]) for node in found]
        assert any(isinstance(shape, RowsShape) and shape.columns for shape in shapes) == ride, outputs


def test_integers_wrap_as_they_do_alone(rng: np.random.Generator) -> None:
    x = graphc.placeholder("x", ("n", 20), "int64")
    a = rng.integers(-(2**63), 2**63, (100, 20), dtype=np.int64)
    compiled = graphc.function([x], [x.max(1), x.sum(0), graphc.prod(x, 0)])
    assert len(compiled.kernels) == 1
    for got, want in zip(compiled(a), (a.max(1), a.sum(0), a.prod(0)), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("start", [-0.5, 0.0, 1000.0])
def test_columns_are_as_good_as_pairwise_sums(start: float, rng: np.random.Generator) -> None:
    x = graphc.placeholder("x", ("n", 40), "float32")
    compiled = graphc.function([x], [x.max(1), x.sum(0)])
    assert len(compiled.kernels) == 1
    a = (rng.random((40, 50_000)) + start).astype(np.float32)
    exact, pairwise = a.astype(np.float64).sum(1), a.sum(1)
    _, ours = compiled(np.ascontiguousarray(a.T))
    rounding = np.spacing(np.abs(exact).astype(np.float32)) / 2
    error, other, one = (np.sqrt(np.mean(e**2)) for e in (ours - exact, pairwise - exact, rounding))
    assert error <= max(other, one), (error, other, one)


def test_threads_do_not_change_a_bit(rng: np.random.Generator) -> None:
    for columns in (100, "c"):
        inputs = arguments(("n", columns))
        outputs = [*norm_gradient(*inputs), *softmax_bias(*inputs)]
        arrays = arrays_for((2000, 100), rng)
        first, *others = [graphc.function(inputs, outputs, threads=threads)(*arrays) for threads in (1, 2, 3)]
        for other in others:
            for one, more in zip(first, other, strict=True):
                np.testing.assert_array_equal(one, more)


@pytest.mark.parametrize(
    ("name", "register"), [("avx512", "%zmm"), ("avx2", "%ymm"), ("sse2", "%xmm"), ("neon", ".4s")]
)
def test_every_target_uses_its_widest_registers(name: str, register: str) -> None:
    inputs = arguments(("n", 300))
    graph = optimize(Graph(tuple(t.ref for t in inputs), tuple(y.ref for y in norm_gradient(*inputs)), (), "rows"))
    (kernel,) = lower(graph, NAMED[name]).kernels.values()
    check_kernel(kernel)
    text = compile_assembly(emit(kernel, NAMED[name]), NAMED[name])
    assert text.count(register) > 10 and "call" not in text
