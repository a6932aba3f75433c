"""Long sums with few products for what they read are cut into halves; all others stay."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc import interpret
from graphc.build import Tensor, placeholder
from graphc.graph import Graph
from graphc.nn import functional as F
from graphc.passes.split_sums import split_sums


def weight_gradient(n: int | str, side: int, channels: int, padding: int, layout: str = "NHWC") -> tuple[Tensor, ...]:
    """That of depthwise windows, images and slopes."""
    last = layout == "NHWC"
    shape = (n, side, side, channels) if last else (n, channels, side, side)
    x, w = placeholder("x", shape, "float64"), placeholder("w", (3, 3, 1, channels) if last else (channels, 1, 3, 3))
    y = F.conv2d(x, w.astype("float64"), padding=padding, groups=channels, layout=layout)
    g = placeholder("g", y.shape, "float64")
    (of_w,) = graphc.vjp(y, [w], g)
    return of_w, x, g


def specs(of_w: Tensor, *inputs: Tensor) -> list[str]:
    graph = split_sums(Graph(tuple(t.ref for t in inputs), (of_w.ref,)))
    return [node.attrs["spec"] for node in graph.order() if node.op.name == "contract"]


@pytest.mark.parametrize("padding", [0, 1])
def test_halves_give_the_sum(padding: int, rng: np.random.Generator) -> None:
    of_w, x, g = weight_gradient(4, 60, 48, padding)
    (spec,) = specs(of_w, x, g)
    assert spec.endswith("-> z p q g")
    arrays = [rng.standard_normal(t.shape) for t in (x, g)]
    with graphc.config(verify=True, cache=False):
        one, two = (graphc.function([x, g], of_w, threads=n) for n in (1, 2))
    (wanted,) = interpret.evaluate([of_w.ref], dict(zip((x.ref, g.ref), arrays, strict=True)))
    np.testing.assert_allclose(one(*arrays), wanted, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(one(*arrays), two(*arrays))
    assert "= unslice" not in one.ir("program")  # the padding is still clipped


@pytest.mark.parametrize(
    "n, side, channels, layout",
    [(3, 70, 48, "NHWC"), (4, 8, 48, "NHWC"), ("n", 60, 48, "NHWC"), (1, 120, 48, "NHWC")],
)
def test_odd_short_and_named_sums_stay(n: int | str, side: int, channels: int, layout: str) -> None:
    (spec,) = specs(*weight_gradient(n, side, channels, 1, layout))
    assert spec.endswith("-> p q g")


def test_sums_that_do_much_stay() -> None:
    x, w = placeholder("x", (32, 20, 20, 64)), placeholder("w", (3, 3, 64, 64))
    y = F.conv2d(x, w, layout="NHWC")
    g = placeholder("g", y.shape)
    (spec,) = specs(graphc.vjp(y, [w], g)[0], x, g)
    assert "z" not in spec
