"""Products over spread-out arrays are taken apart into phases: same values, no stride between zeros left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import interpret
from graphc.build import Tensor, placeholder
from graphc.graph import Graph, Node
from graphc.nn import functional as F
from graphc.ops.convolution import contract
from graphc.ops.padding import unslice
from graphc.passes.crop_products import crop_products
from graphc.passes.split_strides import split_strides

Arrays = dict[Tensor, np.ndarray]


def spread_operands(graph: Graph) -> list[Node]:
    """The products that read an array with zeros between its elements."""
    found = []
    for node in graph.order():
        for value in node.inputs if node.op.name == "contract" else ():
            below = value.node
            while below.op.name in ("slice", "unslice"):
                extents = below.inputs[0].type.shape
                steps = below.attrs["steps"] if below.op.name == "unslice" else ()
                if any(step > 1 and n != 1 for step, n in zip(steps, extents)):
                    found.append(node)
                below = below.inputs[0].node
    return found


def agrees(graph: Graph, arrays: Arrays) -> Graph:
    """`graph` split, after a comparison with the interpreter and, compiled, with the whole pipeline."""
    split = split_strides(crop_products(graph))
    feeds = {t.ref: a for t, a in arrays.items()}
    wanted = interpret.evaluate(graph.outputs, feeds)
    with graphc.config(verify=True, cache=False):
        compiled = graphc.function(list(arrays), [Tensor(v) for v in graph.outputs])(*arrays.values())
    for run in (interpret.evaluate(split.outputs, feeds), compiled):
        for found, expected in zip(run, wanted, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
    return split


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", [1, 3, 17])
@pytest.mark.parametrize(
    "size, taps, how",
    [
        ((8, 9), (3, 3), {"stride": 2, "padding": 1}),
        ((11, 7), (4, 1), {"stride": (3, 2)}),
        ((9, 10), (3, 2), {"stride": (2, 4), "dilation": (2, 3), "padding": (2, 1)}),
        ((10, 13), (2, 3), {"stride": (4, 3), "dilation": (6, 2), "padding": (1, 0)}),
        ((5, 6), (1, 1), {"stride": 3}),
        ((7, 7), (7, 7), {"stride": 2, "padding": 3}),
        ((6, 5), (3, 3), {"stride": 5}),
    ],
)
def test_gradients_of_strides(
    size: tuple[int, int], taps: tuple[int, int], how: dict[str, Any], channels: int, layout: str,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    last = layout == "NHWC"
    x = placeholder("x", (2, *size, channels) if last else (2, channels, *size), "float64")
    w = placeholder("w", (*taps, channels, 5) if last else (5, channels, *taps), "float64")
    y = F.conv2d(x, w, layout=layout, **how)
    g = placeholder("g", y.shape, "float64")
    (of_x,) = graphc.vjp(y, [x], g)
    graph = Graph((w.ref, g.ref), (of_x.ref,))
    assert spread_operands(crop_products(graph)) or how == {"stride": 5}  # of a single slope
    split = agrees(graph, {w: rng.standard_normal(w.shape), g: rng.standard_normal(y.shape)})
    assert not spread_operands(split)


def test_named_sizes_and_groups(rng: np.random.Generator) -> None:
    """One function for all sizes, also those of which the padding keeps no slope."""
    x = placeholder("x", ("n", "h", 6), "float64")
    w = placeholder("w", (4, 2, 6), "float64")
    y = F.conv1d(x, w, stride=3, padding=2, groups=3, layout="NLC")
    (of_x,) = graphc.grad((y * y).sum(), [x])
    assert not spread_operands(split_strides(crop_products(Graph((x.ref, w.ref), (of_x.ref,)))))
    with graphc.config(cache=False):
        run = graphc.function([x, w], of_x)
    for n, h in ((2, 5), (1, 1), (3, 8), (2, 12), (0, 4)):
        arrays = rng.standard_normal((n, h, 6)), rng.standard_normal((4, 2, 6))
        (wanted,) = interpret.evaluate([of_x.ref], dict(zip([x.ref, w.ref], arrays, strict=True)))
        np.testing.assert_allclose(run(*arrays), wanted, rtol=1e-12, atol=1e-12)


def test_what_is_no_window_stays(rng: np.random.Generator) -> None:
    """Zeros along an axis that is summed or of the result only, and windows that run backwards, are left alone."""
    x, w = placeholder("x", (3, 4), "float64"), placeholder("w", (3, 5), "float64")
    summed = contract("i j, i k -> j k", unslice(x, (6, 4), (1, 0), (2, 1)), unslice(w, (6, 5), (0, 0), (1, 1)), (4, 5))
    result = contract("j i, j k -> i k", x, unslice(w, (3, 11), (0, 0), (1, 2)), (4, 11))
    backwards = contract("h+p k, p o -> h k o", unslice(w, (7, 5), (6, 0), (-3, 1)), x, (5, 5, 4))
    graph = Graph((x.ref, w.ref), (summed.ref, result.ref, backwards.ref))
    split = agrees(graph, {x: rng.standard_normal((3, 4)), w: rng.standard_normal((3, 5))})
    assert [n.attrs["spec"] for n in split.order() if n.op.name == "contract"] == [
        n.attrs["spec"] for n in graph.order() if n.op.name == "contract"
    ]
