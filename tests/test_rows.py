"""Row kernels against the interpreter: what is reduced over rows or columns, with gradients, at awkward sizes.

Float32 results are held against the interpreter in float64, so a bound is a bound on the error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.graph import Graph
from graphc.llvm.emit import emit
from graphc.loops.check import check_kernel
from graphc.loops.lower import lower
from graphc.passes.pipeline import optimize
from graphc.runtime.jit import compile_assembly
from graphc.target import NAMED

LANES = 16
SIZES = [0, 1, 2, 7, LANES - 1, LANES, LANES + 1, 4 * LANES - 1, 4 * LANES, 4 * LANES + 1, 131, 257]


@pytest.fixture(autouse=True)
def checked() -> object:
    """Every level verifies, and nothing comes from the cache."""
    with graphc.config(verify=True, cache=False):
        yield


# the compositions, over one axis of x; `w` has the shape of x


def softmax(x: Any, axis: int) -> Any:
    return nn.functional.softmax(x, axis)


def log_softmax(x: Any, axis: int) -> Any:
    return nn.functional.log_softmax(x, axis)


def layer_norm(x: Any, axis: int) -> Any:
    centred = x - x.mean(axis, keepdims=True)
    return centred / graphc.sqrt((centred * centred).mean(axis, keepdims=True) + 1e-3)


def rms_norm(x: Any, axis: int) -> Any:
    return x / graphc.sqrt((x * x).mean(axis, keepdims=True) + 1e-3)


def variance(x: Any, axis: int) -> Any:
    centred = x - x.mean(axis, keepdims=True)
    return (centred * centred).mean(axis, keepdims=True)


def log_sum_exp(x: Any, axis: int) -> Any:
    top = graphc.stop_gradient(x.max(axis, keepdims=True))
    return graphc.log(graphc.exp(x - top).sum(axis, keepdims=True)) + top


def gated(x: Any, axis: int) -> Any:
    """Two transcendental values that later loops need again, and one that only the last does."""
    a, b = graphc.tanh(x), graphc.exp(-x * x)
    return (a - b.sum(axis, keepdims=True)) * b / (1 + (a * a).sum(axis, keepdims=True)) + graphc.sigmoid(x)


COMPOSITIONS: list[Callable[..., Any]] = [
    softmax, log_softmax, layer_norm, rms_norm, variance, log_sum_exp, gated,
]  # fmt: skip


def built(function: Callable[..., Any], shape: tuple[Any, ...], dtype: str, axis: int) -> tuple[list[Any], list[Any]]:
    """(placeholders x and w, [the result, its gradient to x])."""
    x, w = graphc.placeholder("x", shape, dtype), graphc.placeholder("w", shape, dtype)
    y = function(x, axis)
    return [x, w], [y, graphc.grad((y * w).sum(), x)]


def reference(function: Callable[..., Any], arrays: Sequence[np.ndarray], axis: int) -> list[np.ndarray]:
    """Both results from the interpreter, in float64."""
    inputs, outputs = built(function, arrays[0].shape, "float64", axis)
    feeds = {x: a.astype(np.float64) for x, a in zip(inputs, arrays)}
    return [y.eval(feeds) for y in outputs]


def near(actual: Sequence[np.ndarray], wanted: Sequence[np.ndarray], count: int) -> None:
    """Within a few roundings of the largest value, more of them where more terms are added."""
    for a, b in zip(actual, wanted, strict=True):
        assert a.shape == b.shape
        if a.size:
            bound = (16 + np.sqrt(count)) * np.finfo(a.dtype).eps * max(1.0, np.abs(b).max())
            assert np.abs(a - b).max() <= bound, f"{np.abs(a - b).max()} > {bound} at {a.shape}"


def data(rng: np.random.Generator, *shape: int, dtype: Any = np.float32) -> list[np.ndarray]:
    return [rng.standard_normal(shape).astype(dtype) for _ in range(2)]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("function", COMPOSITIONS, ids=lambda f: f.__name__)
def test_compositions_at_every_size(function: Callable[..., Any], axis: int, rng: np.random.Generator) -> None:
    inputs, outputs = built(function, ("n", "c"), "float32", axis)
    compiled = graphc.function(inputs, outputs)
    for size in SIZES:
        others = (3,) if size else (1, 0)
        for other in others:
            shape = (other, size) if axis == 1 else (size, other)
            if 0 in shape and function is not rms_norm:
                continue  # a mean or maximum of nothing
            arrays = data(rng, *shape)
            near(compiled(*arrays), reference(function, arrays, axis), size)
    for shape in ((17, 130), (130, 17)):
        arrays = data(rng, *shape)
        near(compiled(*arrays), reference(function, arrays, axis), shape[axis])


@pytest.mark.parametrize("function", [softmax, layer_norm, gated], ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", [1, LANES - 1, LANES, 4 * LANES, 4 * LANES + 1, 131, 1024])
def test_rows_of_a_known_size(function: Callable[..., Any], size: int, rng: np.random.Generator) -> None:
    inputs, outputs = built(function, ("n", size), "float32", 1)
    compiled = graphc.function(inputs, outputs)
    for rows in (0, 1, 5):
        arrays = data(rng, rows, size)
        if rows:
            near(compiled(*arrays), reference(function, arrays, 1), size)
        else:
            assert [a.shape for a in compiled(*arrays)] == [(0, size)] * 2


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_of_float64(axis: int, rng: np.random.Generator) -> None:
    for function in (softmax, layer_norm):
        inputs, outputs = built(function, ("n", "c"), "float64", axis)
        compiled = graphc.function(inputs, outputs)
        for shape in ((5, 33), (33, 5), (7, 8), (1, 1)):
            arrays = data(rng, *shape, dtype=np.float64)
            near(compiled(*arrays), reference(function, arrays, axis), shape[axis])


def test_cross_entropy_and_its_gradient(rng: np.random.Generator) -> None:
    logits = graphc.placeholder("logits", ("n", "c"), "float32")
    labels = graphc.placeholder("labels", ("n",), "int64")
    loss = nn.functional.cross_entropy(logits, labels)
    compiled = graphc.function([logits, labels], [loss, graphc.grad(loss, logits)])
    for rows, classes in ((1, 1), (3, 10), (200, 17), (33, 257)):
        x = rng.standard_normal((rows, classes)).astype(np.float32)
        y = rng.integers(0, classes, rows)
        powers = np.exp(x.astype(np.float64))
        chances = powers / powers.sum(1, keepdims=True)
        wanted = [-np.log(chances[np.arange(rows), y]).mean(), (chances - np.eye(classes)[y]) / rows]
        near(compiled(x, y), wanted, classes)


def test_batch_norm_of_images(rng: np.random.Generator) -> None:
    """Statistics over all axes but the last, and over all but the second."""
    for axes in ((0, 1, 2), (0, 2, 3)):
        x = graphc.placeholder("x", ("batch", 5, 7, 19), "float32")
        centred = x - x.mean(axes, keepdims=True)
        y = centred / graphc.sqrt((centred * centred).mean(axes, keepdims=True) + 1e-3)
        compiled = graphc.function([x], [y, graphc.grad((y * y * y).sum(), x)])
        for batch in (1, 2, 9):
            a = rng.standard_normal((batch, 5, 7, 19)).astype(np.float32)
            wide = a.astype(np.float64)
            centre = wide - wide.mean(axes, keepdims=True)
            scale = 1 / np.sqrt((centre * centre).mean(axes, keepdims=True) + 1e-3)
            hat = centre * scale
            g = 3 * hat * hat
            mean = [v.mean(axes, keepdims=True) for v in (g, g * hat)]
            near(compiled(a), [hat, (g - mean[0] - hat * mean[1]) * scale], a.size // 5)


SUBSETS = [axes for n in range(1, 5) for axes in itertools.combinations(range(4), n)]


@pytest.mark.parametrize("named", [False, True], ids=["static", "symbolic"])
def test_sums_over_every_subset_of_axes(named: bool, rng: np.random.Generator) -> None:
    shapes = [(3, 5, 2, 17), (1, 2, 33, 4)] if named else [(3, 5, 2, 17)]
    x = graphc.placeholder("x", ("a", "b", "c", "d") if named else shapes[0], "float32")
    compiled = graphc.function([x], [x.sum(axes) for axes in SUBSETS])
    for shape in shapes:
        a = rng.standard_normal(shape).astype(np.float32)
        near(compiled(a), [a.astype(np.float64).sum(axes) for axes in SUBSETS], a.size)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int64", "uint8", "bool"])
def test_extrema_along_every_axis(dtype: str, rng: np.random.Generator) -> None:
    """argmax and argmin give the first of equal elements; values and sums of integers are exact."""
    x = graphc.placeholder("x", ("a", "b"), dtype)
    outputs = [y for axis in (0, 1) for y in (x.argmax(axis), x.argmin(axis), x.max(axis), x.min(axis), x.sum(axis))]
    compiled = graphc.function([x], outputs)
    for shape in ((1, 1), (3, 17), (17, 3), (64, 65), (5, 300)):
        a = rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)
        wanted = [
            y for axis in (0, 1)
            for y in (a.argmax(axis), a.argmin(axis), a.max(axis), a.min(axis), a.sum(axis))
        ]  # fmt: skip
        for got, want in zip(compiled(a), wanted, strict=True):
            np.testing.assert_array_equal(got, want)


def test_argmax_of_long_rows(rng: np.random.Generator) -> None:
    """The best element, equal ones and NaN at every place of rows that take many steps."""
    x = graphc.placeholder("x", ("n", "c"), "float32")
    compiled = graphc.function([x], [x.argmax(1), x.argmin(1)])
    for size in (1, 16, 63, 64, 65, 1023, 5000):
        a = rng.standard_normal((12, size)).astype(np.float32)
        for row, place in enumerate(rng.integers(0, size, 8)):
            a[row, place] = [9, -9, np.inf, -np.inf][row % 4]
            a[row, rng.integers(0, size)] = a[row, place]
        a[8, rng.integers(0, size)] = np.nan
        a[9, rng.integers(0, size, 3)] = np.nan
        a[10] = -np.inf
        a[11] = np.nan
        tops, bottoms = compiled(a)
        np.testing.assert_array_equal(tops, a.argmax(1))
        np.testing.assert_array_equal(bottoms, a.argmin(1))


def test_nan_and_infinity_stay_where_they_belong() -> None:
    x = graphc.placeholder("x", ("n", "c"), "float32")
    compiled = graphc.function([x], [softmax(x, 1), x.max(1), x.sum(1), x.sum(0)])
    for size in (3, 16, 40, 100):
        a = np.ones((5, size), np.float32)
        a[1, size - 1] = np.nan
        a[2, 0] = -np.inf
        a[3, size // 2] = np.inf
        a[4] = -np.inf
        with np.errstate(invalid="ignore"):
            shifted = np.exp(a - a.max(1, keepdims=True))
            wanted = [shifted / shifted.sum(1, keepdims=True), a.max(1), a.sum(1), a.sum(0)]
        for got, want in zip(compiled(a), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6)


def test_divisions_by_a_row_are_divisions(rng: np.random.Generator) -> None:
    """x / row is the rounded quotient, at the ends of the range too, and x / x is 1."""
    x, d = graphc.placeholder("x", ("n", "c"), "float32"), graphc.placeholder("d", ("n", 1), "float32")
    compiled = graphc.function([x, d], x / d)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 1.1754944e-38, 3.4028235e38, 1.7e38, 1.0, 3.0, 1e-20]
    some = np.float32([*special, *np.exp(rng.uniform(-100, 88, 90)).astype(np.float32)])
    a = np.broadcast_to(some, (len(some), len(some))).copy()
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(compiled(a, some[:, None]), a / some[:, None])


@pytest.mark.parametrize("start", [-0.5, 0.0, 1000.0])
def test_long_float32_sums_are_as_good_as_pairwise(start: float, rng: np.random.Generator) -> None:
    """Rows, columns and totals: the error over many of them against NumPy's sums of contiguous rows."""
    x = graphc.placeholder("x", ("n", "c"), "float32")
    rows, columns, total = graphc.function([x], x.sum(1)), graphc.function([x], x.sum(0)), graphc.function([x], x.sum())
    a = (rng.random((40, 50_000)) + start).astype(np.float32)
    wide = a.astype(np.float64)
    for got, pairwise, exact in (
        (rows(a), a.sum(1), wide.sum(1)),
        (columns(np.ascontiguousarray(a.T)), a.sum(1), wide.sum(1)),
        (total(a), a.ravel().sum(), wide.sum()),
    ):
        rounding = np.spacing(np.abs(exact).astype(np.float32)) / 2
        ours, theirs, one = (np.sqrt(np.mean(error**2)) for error in (got - exact, pairwise - exact, rounding))
        assert ours <= max(theirs, one), (ours, theirs, one)


def test_threads_do_not_change_a_bit(rng: np.random.Generator) -> None:
    x, w = graphc.placeholder("x", ("n", "c"), "float32"), graphc.placeholder("w", ("n", "c"), "float32")
    outputs = [
        softmax(x, 1), layer_norm(x, 0), x.sum(0), (x * w).sum(1), x.sum(), x.argmax(1), graphc.tanh(x).mean(0),
    ]  # fmt: skip
    arrays = data(rng, 700, 333)
    results = [graphc.function([x, w], outputs, threads=threads)(*arrays) for threads in (1, 2, 3)]
    for other in results[1:]:
        for one, more in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, more)


def test_stages_over_columns_are_kernels_of_their_own(rng: np.random.Generator) -> None:
    """Means, variances and results of batch norm; row values that several stages need are computed once."""
    for rows, kernels in (("n", 3), (20, 1)):
        x = graphc.placeholder("x", (rows, 40), "float32")
        centred = x - x.mean(0)
        spread = graphc.sqrt((centred * centred).mean(0) + 1e-3)
        outputs = [centred / spread, spread.mean(), x * 2, x.mean(0), spread]
        compiled = graphc.function([x], outputs)
        assert len(compiled.kernels) == kernels
        a = rng.standard_normal((20, 40)).astype(np.float32)
        wide = a.astype(np.float64)
        deviation = np.sqrt(wide.var(0) + 1e-3)
        wanted = [(wide - wide.mean(0)) / deviation, deviation.mean(), wide * 2, wide.mean(0), deviation]
        near(compiled(a), wanted, 20)


@pytest.mark.parametrize(
    ("name", "register"), [("avx512", "%zmm"), ("avx2", "%ymm"), ("sse2", "%xmm"), ("neon", ".4s")]
)
def test_every_target_uses_its_widest_registers(name: str, register: str) -> None:
    x = graphc.placeholder("x", ("n", 300), "float32")
    outputs = [softmax(x, 1), x.argmax(1), x.sum(0), x.sum()]
    graph = optimize(Graph((x.ref,), tuple(y.ref for y in outputs), (), "rows"))
    kernels = lower(graph, NAMED[name]).kernels.values()
    assert len(kernels) == 2  # the sum over columns rides in the rows
    for kernel in kernels:
        check_kernel(kernel)
        text = compile_assembly(emit(kernel, NAMED[name]), NAMED[name])
        assert text.count(register) > 10 and "call" not in text


def test_a_kept_value_is_computed_once() -> None:
    """The exponentials of a softmax: one loop computes them, the last one reads them."""
    x = graphc.placeholder("x", ("n", 300), "float32")
    loops = graphc.function([x], softmax(x, 1)).ir("loops")
    assert loops.count("exp(") == 1 and loops.count("scratch") == 1, loops
