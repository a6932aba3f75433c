"""Results whose rows lie side by side: squares of rows that wait are transposed on their way to the epilogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc
from graphc import interpret
from graphc.build import Tensor, placeholder
from graphc.graph import Graph
from graphc.nn import functional as F
from graphc.passes.choose_layouts import choose_layouts
from graphc.passes.crop_products import crop_products

SIZES = (0, 1, 2, 7, 13, 16, 17, 31, 48, 65, 100)

# of the product, an array of its shape, and one along its columns
EPILOGUES: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    "none": lambda y, r, c: y,
    "relu": lambda y, r, c: F.relu(y),
    "columns": lambda y, r, c: y * 2 + c.reshape(-1, 1),
    "long": lambda y, r, c: graphc.tanh(y + c.reshape(-1, 1)) * r,
    "several": lambda y, r, c: [y, y + r],
}


def check(inputs: list[Tensor], outputs: Any, arrays: list[np.ndarray], tolerance: float) -> str:
    """One to three threads give the same bits, close to the reference; the loops."""
    wanted = outputs if isinstance(outputs, list) else [outputs]
    functions = [graphc.function(inputs, wanted, threads=n) for n in (1, 2, 3)]
    found, *others = (f(*arrays) for f in functions)
    values = dict(zip((x.ref for x in inputs), arrays, strict=True))
    for n, reference in enumerate(interpret.evaluate([y.ref for y in wanted], values)):
        np.testing.assert_allclose(found[n], reference, rtol=tolerance, atol=tolerance * 10)
        for other in others:
            np.testing.assert_array_equal(found[n], other[n])
    return functions[0].ir("loops")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_size_and_epilogue(data: st.DataObject) -> None:
    b, i, j, k = (data.draw(st.sampled_from(SIZES if n else (0, 1, 3))) for n in range(4))
    dtype = data.draw(st.sampled_from(["float32", "float64", "int32"]))
    kind = data.draw(st.sampled_from(list(EPILOGUES) if dtype != "int32" else ["none", "relu", "columns"]))
    named = [name if data.draw(st.booleans()) else size for name, size in zip("BIJK", (b, i, j, k), strict=True)]
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    n, rows, steps, columns = named
    shapes = [(n, rows, steps), (n, steps, columns), (n, columns, rows), (columns,)]
    inputs = [placeholder(name, shape, dtype) for name, shape in zip("xyrc", shapes, strict=True)]
    known = dict(zip("BIJK", (b, i, j, k), strict=True))
    arrays = [(rng.standard_normal([known.get(size, size) for size in s]) * 4).astype(dtype) for s in shapes]
    y = graphc.einsum("bij,bjk->bki", inputs[0], inputs[1])
    with graphc.config(guard_memory=True, verify=True, cache=False):
        check(inputs, EPILOGUES[kind](y, *inputs[2:]), arrays, 1e-5)


def test_squares_are_transposed_and_stored_whole(rng: np.random.Generator) -> None:
    x, y = placeholder("x", (3, 50, 20)), placeholder("y", (3, 20, 64))
    arrays = [rng.standard_normal(t.shape).astype("float32") for t in (x, y)]
    loops = check([x, y], graphc.einsum("bij,bjk->bki", x, y), arrays, 1e-5)
    assert "zip_low" in loops and "scatter" not in loops


def test_an_update_in_place_reads_the_old_values_once(rng: np.random.Generator) -> None:
    x, y = placeholder("x", (3, 50, 20)), placeholder("y", (3, 20, 33))
    start = rng.standard_normal((3, 33, 50)).astype("float32")
    w = graphc.parameter("w", start)
    step = graphc.function([x, y], [], updates={w: w * 0.5 + graphc.einsum("bij,bjk->bki", x, y)})
    a, b = (rng.standard_normal(t.shape).astype("float32") for t in (x, y))
    step(a, b)
    np.testing.assert_allclose(w.value, start * 0.5 + np.einsum("bij,bjk->bki", a, b), rtol=1e-5, atol=1e-5)


CONVOLUTIONS = [
    ((5, 3, 62, 62), (64, 3, 7, 7), {"stride": 2, "padding": 3}),
    ((12, 16, 40, 23), (24, 16, 3, 3), {"padding": 1}),
    ((3, 3, 70, 71), (40, 3, 5, 3), {}),
]


@pytest.mark.parametrize("images, weights, how", CONVOLUTIONS)
def test_convolutions_store_channels_first(images: Any, weights: Any, how: Any, rng: np.random.Generator) -> None:
    x, w, b = placeholder("x", images), placeholder("w", weights), placeholder("b", weights[:1])
    arrays = [rng.standard_normal(t.shape).astype("float32") for t in (x, w, b)]
    with graphc.config(guard_memory=True, cache=False):
        y = F.conv2d(x, w, **how)
        check([x, w, b], y, arrays, 1e-4)
        check([x, w, b], F.relu(F.conv2d(x, w, b, **how)), arrays, 1e-4)


def result(images: Any, weights: Any, follow: Callable[[Tensor], Tensor] = lambda y: y, **how: Any) -> str:
    """The axes of the result of a convolution that is computed channels-last."""
    x, w = placeholder("x", images), placeholder("w", weights)
    graph = choose_layouts(crop_products(Graph((x.ref, w.ref), (follow(F.conv2d(x, w, **how)).ref,))))
    (spec,) = (node.attrs["spec"] for node in graph.order() if node.op.name == "contract")
    return str(spec.split("-> ")[1])


def test_which_convolutions_do() -> None:
    stem: Any = {"stride": 2, "padding": 3}
    assert result((32, 3, 112, 112), (64, 3, 7, 7), **stem) == "n o h w"
    assert result((32, 3, 112, 112), (64, 3, 7, 7), lambda y: F.relu(y), **stem) == "n h w o", "read channels-last"
    assert result((1, 3, 112, 112), (64, 3, 7, 7), **stem) == "n h w o", "a copy from L2 costs less"
    assert result((32, 64, 32, 32), (64, 64, 3, 3), padding=1) == "n h w o", "the copy is little beside the product"
    assert result((32, 128, 7, 7), (128, 128, 3, 3), padding=1) == "n h w o", "lines fill no squares"


def test_columns_that_can_lie_side_by_side_do() -> None:
    """Weight gradients have two sides that are alike: that one is columns whose results are stored as they are."""
    x, w = placeholder("x", (8, 20, 20, 64)), placeholder("w", (3, 3, 64, 64))
    y = F.conv2d(x, w, padding=1, layout="NHWC")
    g = placeholder("g", y.shape)
    assert "square" not in graphc.function([x, g], graphc.vjp(y, [w], g)[0]).ir("loops")
