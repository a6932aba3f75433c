"""Groups of channels-first convolutions run channels-last where that pays; values stay, and what is left is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import interpret
from graphc.build import Tensor, placeholder
from graphc.graph import Graph, Node
from graphc.nn import functional as F
from graphc.passes import choose_layouts as layouts
from graphc.passes.choose_layouts import choose_layouts
from graphc.passes.crop_products import crop_products
from graphc.text import to_text
from graphc.types import Dim

Arrays = dict[Tensor, np.ndarray]


def specs(graph: Graph) -> list[str]:
    return [node.attrs["spec"] for node in graph.order() if node.op.name == "contract"]


def moves(graph: Graph) -> list[Node]:
    return [node for node in graph.order() if node.op.name == "transpose"]


def chain(batch: Any, size: int, dtype: str = "float32", inner: int = 24) -> tuple[list[Tensor], Tensor]:
    """Two convolutions with all that stands between them, and a loss."""
    x = placeholder("x", (batch, 3, size, size), dtype)
    w1, w2 = placeholder("w1", (inner, 3, 3, 3), dtype), placeholder("w2", (32, inner, 3, 3), dtype)
    bias, scale = placeholder("bias", (inner,), dtype), placeholder("scale", (32, 1, 1), dtype)
    h = F.relu(F.conv2d(x, w1, bias, padding=1))
    h = graphc.concat([h[:, : inner // 2] * 2.0, h[:, inner // 2 :]], 1)
    h = F.max_pool2d(h, 2)
    h = F.conv2d(h, w2, padding=1) * scale
    h = h - h.mean((0, 2, 3), keepdims=True) + h.max((2, 3)).reshape((*h.shape[:2], 1, 1))
    return [x, w1, w2, bias, scale], (F.relu(h) ** 2).mean()


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every group is converted, whether that pays or not."""
    monkeypatch.setattr(layouts, "_price", lambda count: 0.0)
    monkeypatch.setattr(layouts, "_gain", lambda node, product: 1.0)


def agrees(inputs: list[Tensor], outputs: list[Tensor], arrays: list[np.ndarray]) -> Graph:
    """The graph converted, after a comparison with the interpreter, which runs it, and with compiled code."""
    graph = Graph(tuple(t.ref for t in inputs), tuple(t.ref for t in outputs))
    turned = choose_layouts(crop_products(graph))
    feeds = {t.ref: a for t, a in zip(inputs, arrays, strict=True)}
    wanted = interpret.evaluate(graph.outputs, feeds)
    with graphc.config(verify=True, cache=False):
        compiled = graphc.function(inputs, outputs)(*arrays)
    for run in (interpret.evaluate(turned.outputs, feeds), compiled):
        for found, expected in zip(run, wanted, strict=True):
            assert np.shape(found) == expected.shape
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    return turned


def random_arrays(inputs: list[Tensor], rng: np.random.Generator, **sizes: int) -> list[np.ndarray]:
    shapes = [[n if isinstance(n, int) else sizes[str(n)] for n in t.shape] for t in inputs]
    return [rng.standard_normal(shape).astype(t.dtype.numpy) for t, shape in zip(inputs, shapes, strict=True)]


def test_text_of_a_chain(eager: None) -> None:
    x, w, v = placeholder("x", (2, 3, 6, 6)), placeholder("w", (4, 3, 3, 3)), placeholder("v", (5, 4, 1, 1))
    y = F.conv2d(F.relu(F.conv2d(x, w, padding=1)), v)
    before = Graph((x.ref, w.ref, v.ref), (y.ref,))
    assert not moves(before)
    text = [line.split("#")[0].strip() for line in to_text(choose_layouts(before)).splitlines()[4:-2]]
    assert text == [
        "%0: f32[2,6,6,3] = transpose(%x, axes=[0, 2, 3, 1])",
        "%1: f32[2,6,6,3] = concat(%0, axis=0)",
        "%2: f32[2,8,8,3] = unslice(%1, shape=[2, 8, 8, 3], starts=[0, 1, 1, 0], steps=[1, 1, 1, 1])",
        "%3: f32[3,3,3,4] = transpose(%w, axes=[2, 3, 1, 0])",
        "%4: f32[3,3,3,4] = concat(%3, axis=0)",
        '%5: f32[2,6,6,4] = contract(%2, %4, shape=[2, 6, 6, 4], spec="n h+p w+q c, p q c o -> n h w o")',
        "%6: f32[2,6,6,4] = relu(%5)",
        "%7: f32[1,1,4,5] = transpose(%v, axes=[2, 3, 1, 0])",
        "%8: f32[1,1,4,5] = concat(%7, axis=0)",
        '%9: f32[2,6,6,5] = contract(%6, %8, shape=[2, 6, 6, 5], spec="n h+p w+q c, p q c o -> n h w o")',
        "%10: f32[2,5,6,6] = transpose(%9, axes=[0, 3, 1, 2])",
    ]


@pytest.mark.parametrize("batch", [0, 1, 5])
def test_symbolic_batch_with_gradients(eager: None, batch: int, rng: np.random.Generator) -> None:
    inputs, loss = chain(Dim.symbol("batch"), 6, "float64")
    outputs = [loss, *graphc.grad(loss, inputs[1:])]
    arrays = random_arrays(inputs, rng, batch=batch)
    turned = agrees(inputs, outputs, arrays)
    assert len(specs(turned)) == 5 and all(", p q" in s or "-> p q c o" in s for s in specs(turned))
    edges = [node for node in moves(turned) if node.types[0].shape[1:] == (6, 6, 3)]
    large = [node for node in moves(turned) if node.types[0].rank == 4 and 24 in node.types[0].shape[1::2]]
    assert len(edges) == 1, "x is converted once"
    assert not [n for n in large if n.types[0].shape[0] == inputs[0].shape[0]], "and no image in between"


def test_it_pays_for_a_training_step() -> None:
    inputs, loss = chain(32, 28, inner=64)
    graph = Graph(tuple(t.ref for t in inputs), tuple(t.ref for t in (loss, *graphc.grad(loss, inputs[1:]))))
    found = specs(choose_layouts(crop_products(graph)))
    assert found and all(", p q" in spec or "-> p q c o" in spec for spec in found)


def converted(images: tuple[int, ...], weights: tuple[int, ...], layout: str = "NCHW", **how: Any) -> str:
    """Which directions of a single convolution are converted: forward, gradient of weights, of images."""
    x, w = placeholder("x", images), placeholder("w", weights)
    y = F.conv2d(x, w, layout=layout, **how)
    (of_w,) = graphc.vjp(y, [w], placeholder("g", y.shape))
    (of_x,) = graphc.vjp(y, [x], placeholder("g", y.shape))
    graphs = {name: crop_products(Graph((), (t.ref,))) for name, t in (("f", y), ("w", of_w), ("x", of_x))}
    return "".join(name for name, graph in graphs.items() if choose_layouts(graph) is not graph)


@pytest.mark.parametrize(
    "directions, images, weights, how",
    [
        ("w", (32, 1, 28, 28), (32, 1, 3, 3), {}),  # three places of a line are rows
        ("fwx", (32, 32, 13, 13), (64, 32, 3, 3), {}),  # 11 and 13 of 16 lanes
        ("fwx", (32, 64, 32, 32), (64, 64, 3, 3), {"padding": 1}),
        ("", (32, 256, 14, 14), (256, 256, 1, 1), {}),
        ("fw", (32, 3, 112, 112), (64, 3, 7, 7), {"stride": 2, "padding": 3}),
        ("fx", (32, 64, 56, 56), (64, 64, 3, 3), {"stride": 2, "padding": 1}),
        ("", (32, 64, 56, 56), (64, 1, 3, 3), {"padding": 1, "groups": 64}),  # lanes of sums are lines
        ("w", (32, 256, 14, 14), (256, 1, 3, 3), {"stride": 2, "padding": 1, "groups": 256}),
        ("fx", (32, 128, 7, 7), (128, 128, 3, 3), {"padding": 1}),
        ("", (32, 64, 7, 7), (64, 16, 3, 3), {"padding": 1, "groups": 4}),
        ("fx", (8, 256, 14, 14), (256, 256, 3, 3), {"padding": 1}),  # sums into so many weights are not
        ("fwx", (32, 256, 14, 14), (256, 256, 3, 3), {"padding": 1}),  # but of many images
        ("f", (32, 24, 28, 28), (48, 24, 3, 3), {"padding": 1}),  # slopes fill their lanes, 24 channels do not
        ("fx", (32, 512, 7, 7), (512, 512, 1, 1), {}),
        ("", (32, 192, 28, 28), (192, 192, 1, 1), {}),
        ("", (1, 4, 5, 5), (4, 4, 3, 3), {"padding": 1}),
    ],
)
def test_which_single_convolutions_are_converted(
    directions: str, images: tuple[int, ...], weights: tuple[int, ...], how: dict[str, Any]
) -> None:
    assert converted(images, weights, **how) == directions


def test_what_is_no_channels_first_convolution(eager: None) -> None:
    assert not converted((8, 7, 7, 128), (3, 3, 128, 128), "NHWC")
    a, b = placeholder("a", (3, 4, 5, 6)), placeholder("b", (3, 4, 6, 7))
    for result in (a @ b, graphc.einsum("abij,abjk->baik", a, b), F.relu(a).sum(1), F.max_pool2d(a, 2)):
        graph = Graph((a.ref, b.ref), (result.ref,))
        assert choose_layouts(graph) is graph


def test_a_weight_gradient_alone_keeps_its_values(eager: None, rng: np.random.Generator) -> None:
    for channels, groups, stride in ((3, 1, 2), (4, 4, 1)):
        x = placeholder("x", (2, channels, 9, 8), "float64")
        w = placeholder("w", (4, channels // groups, 3, 3), "float64")
        y = F.conv2d(x, w, padding=1, stride=stride, groups=groups)
        g = placeholder("g", y.shape, "float64")
        (of_w,) = graphc.vjp(y, [w], g)
        turned = agrees([x, g], [of_w], random_arrays([x, g], rng))
        found = "n o h w, n 2h+p 2w+q c -> p q c o" if groups == 1 else "n h w g, n h+p w+q g -> p q g"
        assert specs(turned) == [found], "slopes of a window stay as they are, unless it is depthwise"


FOLLOWING = [
    lambda h: h.sum(2),
    lambda h: h.max((1, 3)),
    lambda h: h.argmax(1),
    lambda h: h.cumsum(3),
    lambda h: h.reshape((2, -1)),
    lambda h: h[:, 1:, ::2, ::-1],
    lambda h: graphc.pad(h, ((0, 0), (1, 0), (0, 2), (1, 1))),
    lambda h: h + graphc.arange(6.0),
    lambda h: h + graphc.arange(12.0)[::2],
    lambda h: h.sum((0, 1, 2, 3)),
    lambda h: graphc.transpose(h, (0, 2, 3, 1)),
    lambda h: h * h[0, 0] + h[:, :1],
    lambda h: F.avg_pool2d(h, 3, 1, 1),
    lambda h: F.conv2d(h, h[:, :2, :2, :2], groups=2),
    lambda h: F.conv2d(h, h[:2, :, :3, :3]),
    lambda h: F.conv2d(h, h[0, :, :3, :3].reshape((4, 1, 3, 3)), groups=4),
    lambda h: F.conv_transpose2d(h, h[0, :, :4, :4].reshape((4, 1, 4, 4)), stride=2),
]


@pytest.mark.parametrize("make", FOLLOWING)
def test_what_follows_a_convolution(make: Any, eager: None, rng: np.random.Generator) -> None:
    x, w = placeholder("x", (2, 3, 6, 6), "float64"), placeholder("w", (4, 3, 3, 3), "float64")
    y = make(F.conv2d(x, w, padding=1))
    outputs = [y] if y.dtype.kind == "i" else [y, *graphc.grad((y * y).sum(), [x, w])]
    turned = agrees([x, w], outputs, random_arrays([x, w], rng))
    assert "n h+p w+q c, p q c o -> n h w o" in specs(turned)


def test_values_that_are_not_finite(eager: None, rng: np.random.Generator) -> None:
    x, w = placeholder("x", (2, 3, 6, 6), "float64"), placeholder("w", (4, 3, 3, 3), "float64")
    h = F.conv2d(x, w)
    arrays = random_arrays([x, w], rng)
    arrays[0][0, 1, 2, 3], arrays[0][1, 0, 5, 5] = np.nan, np.inf
    agrees([x, w], [h, F.max_pool2d(h, 2), F.relu(-h)], arrays)


def test_one_axis_and_both_versions(eager: None, rng: np.random.Generator) -> None:
    x, w = placeholder("x", (2, 3, 9), "float64"), placeholder("w", (3, 3, 3), "float64")
    h = F.conv1d(x, w, padding=1)
    outputs = [h, F.conv1d(h, w) + 1.0, h.reshape((2, 27))]
    turned = agrees([x, w], outputs, random_arrays([x, w], rng))
    assert len([node for node in moves(turned) if node.types[0].shape == (2, 3, 9)]) == 1, "converted back once"
