"""Sums along the axis that lies side by side keep it as lanes: the weight gradients of depthwise NCHW windows."""

from __future__ import annotations

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
from graphc.passes.sum_lanes_last import sum_lanes_last

Pair = tuple[int, int]


def weight_gradient(shape: Any, window: Pair, dtype: str = "float32", **how: Any) -> tuple[Tensor, Tensor, Tensor]:
    """That of depthwise windows, the images and the slopes."""
    x, w = placeholder("x", shape, dtype), placeholder("w", (shape[1], 1, *window), dtype)
    y = F.conv2d(x, w, groups=shape[1], **how)
    g = placeholder("g", y.shape, dtype)
    return graphc.vjp(y, [w], g)[0], x, g


def specs(of_w: Tensor, *inputs: Tensor) -> list[str]:
    graph = sum_lanes_last(Graph(tuple(t.ref for t in inputs), (of_w.ref,)))
    return [node.attrs["spec"] for node in graph.order() if node.op.name == "contract"]


def check(of_w: Tensor, x: Tensor, g: Tensor, a: np.ndarray, b: np.ndarray, tolerance: float = 1e-5) -> Any:
    """One, two and three threads give the same bits, close to the reference in float64."""
    functions = [graphc.function([x, g], of_w, threads=n) for n in (1, 2, 3)]
    found, *others = (f(a, b) for f in functions)
    for other in others:
        np.testing.assert_array_equal(found.view("uint8"), other.view("uint8"))
    (wanted,) = interpret.evaluate([of_w.ref], {x.ref: a, g.ref: b})
    scale = np.sqrt(b.size / b.shape[1])
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * scale)
    return functions[0]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_size_window_and_padding(data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    window, padding, dilation = (draw(1, 4), draw(1, 5)), (draw(0, 3), draw(0, 4)), draw(1, 2)
    least = [max(1, dilation * (size - 1) + 1 - 2 * pad) for size, pad in zip(window, padding, strict=True)]
    height, width = least[0] + draw(0, 12), least[1] + data.draw(st.sampled_from([0, 1, 2, 6, 14, 15, 16, 31, 47, 70]))
    count, channels, dtype = draw(1, 5), draw(1, 4), data.draw(st.sampled_from(["float32", "float64"]))
    named = data.draw(st.booleans())
    shape = ("n" if named else count, channels, height, width)
    of_w, x, g = weight_gradient(shape, window, dtype, padding=padding, dilation=dilation)
    rng = np.random.default_rng(draw(0, 9))
    sides = [size + 2 * pad - dilation * (w - 1) for size, pad, w in zip(shape[2:], padding, window, strict=True)]
    a, b = (rng.standard_normal(s).astype(dtype) for s in ((count, *shape[1:]), (count, channels, *sides)))
    with graphc.config(guard_memory=True, verify=True, cache=False):
        check(of_w, x, g, a, b)


@pytest.mark.parametrize("padding", [0, 1, (0, 1), (1, 0), 2])
def test_lines_are_lanes_and_the_padding_is_not_copied(padding: Any, rng: np.random.Generator) -> None:
    of_w, x, g = weight_gradient((8, 6, 30, 44), (3, 3), padding=padding)
    (spec,) = specs(of_w, x, g)
    assert spec == "n g h+p w+q, n g h w -> g p q w"
    shapes = [tuple(map(int, t.shape)) for t in (x, g)]
    with graphc.config(cache=False):
        f = check(of_w, x, g, *(rng.standard_normal(s).astype("float32") for s in shapes))
    text = f.ir("program")
    assert "unslice" not in text and "concat" not in text and text.count(" chunks ") == 2


@pytest.mark.parametrize("place", [(0, 0), (0, 43), (29, 0), (29, 43), (12, 15), (13, 16)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_reaches_the_places_that_read_it(
    place: Pair, value: float, rng: np.random.Generator
) -> None:
    of_w, x, g = weight_gradient((2, 3, 30, 44), (3, 3), padding=1)
    a, b = (rng.standard_normal((2, 3, 30, 44)).astype("float32") for _ in range(2))
    a[1, 2, place[0], place[1]] = value
    f = check(of_w, x, g, a, b)
    a[1, 2, place[0], place[1]], b[1, 2, place[0], place[1]] = 0.5, value
    inside = np.pad(np.ones((30, 44), bool), 1)
    reached = [[inside[place[0] + p, place[1] + q] for q in range(3)] for p in range(3)]
    np.testing.assert_array_equal(~np.isfinite(f(a, b)[2, 0]), reached)  # no zero of the padding is multiplied


@pytest.mark.parametrize(
    "shape, window, how",
    [
        ((8, 6, 30, 44), (3, 3), {"stride": 2}),  # lines are read with gaps
        ((8, 30, 44, 6), (3, 3), {"layout": "NHWC"}),  # channels are columns
        ((1, 6, 8, 44), (3, 3), {}),  # more is left than was summed
        ((8, 6, 30, "w"), (3, 3), {}),
        ((8, 6, 30, 3), (3, 3), {}),  # one place in a line
    ],
)
def test_other_sums_stay(shape: Any, window: Pair, how: Any) -> None:
    last = how.get("layout") == "NHWC"
    channels = shape[3] if last else shape[1]
    x = placeholder("x", shape)
    w = placeholder("w", (*window, 1, channels) if last else (channels, 1, *window))
    y = F.conv2d(x, w, groups=channels, **how)
    g = placeholder("g", y.shape)
    for spec in specs(graphc.vjp(y, [w], g)[0], x, g):
        assert not spec.endswith(" w")


def test_sums_into_many_channels_have_columns_of_their_own() -> None:
    x, w = placeholder("x", (8, 1, 28, 28)), placeholder("w", (32, 1, 3, 3))
    y = F.conv2d(x, w)
    g = placeholder("g", y.shape)
    (spec,) = specs(graphc.vjp(y, [w], g)[0], x, g)
    assert spec.endswith("-> o c p q")
