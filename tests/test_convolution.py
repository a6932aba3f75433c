"""Convolutions and pooling against PyTorch (where it is installed) and NumPy: values, both gradients, layouts."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import interpret
from graphc.build import Tensor, placeholder
from graphc.errors import ArgumentError, GraphcError, ShapeError
from graphc.graph import Graph
from graphc.nn import functional as F
from graphc.ops.convolution import contract
from graphc.passes.crop_products import crop_products
from graphc.passes.expand_products import expand_products

NHWC, HWIO = (0, 2, 3, 1), (2, 3, 1, 0)

# (images NCHW, weights OIHW, arguments)
CASES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 7, 6), (5, 3, 3, 2), {}),
    ((2, 3, 7, 6), (5, 3, 3, 3), {"padding": 1}),
    ((1, 2, 9, 8), (4, 2, 3, 2), {"stride": 2, "padding": (1, 0)}),
    ((2, 2, 9, 10), (3, 2, 3, 2), {"stride": (3, 2), "dilation": 2, "padding": 2}),
    ((2, 6, 5, 5), (4, 3, 3, 3), {"groups": 2, "padding": 1}),
    ((2, 4, 6, 5), (8, 1, 3, 3), {"groups": 4, "stride": 2}),
    ((2, 4, 6, 5), (4, 1, 3, 3), {"groups": 4, "padding": 1}),
    ((3, 5, 4, 4), (7, 5, 1, 1), {}),
    ((2, 3, 8, 8), (2, 3, 4, 3), {"padding": "same"}),
    ((2, 3, 5, 4), (2, 3, 5, 4), {}),
]  # fmt: skip


def reference(
    x: np.ndarray, w: np.ndarray, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> np.ndarray:
    """A convolution as five loops, NCHW and OIHW."""
    steps, holes = (v if isinstance(v, tuple) else (v, v) for v in (stride, dilation))
    if padding == "same":
        reach = [d * (k - 1) for d, k in zip(holes, w.shape[2:], strict=True)]
        widths = [(r // 2, r - r // 2) for r in reach]
    else:
        widths = [(n, n) for n in (padding if isinstance(padding, tuple) else (padding, padding))]
    x = np.pad(x, [(0, 0), (0, 0), *widths])
    counts = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(x.shape[2:], holes, w.shape[2:], steps, strict=True)]
    result = np.zeros((x.shape[0], w.shape[0], *counts), x.dtype)
    each, outside = w.shape[1], w.shape[0] // groups
    for o, c, p, q in np.ndindex(*w.shape):
        top, left = p * holes[0], q * holes[1]
        rows = slice(top, top + (counts[0] - 1) * steps[0] + 1, steps[0])
        cols = slice(left, left + (counts[1] - 1) * steps[1] + 1, steps[1])
        result[:, o] += x[:, o // outside * each + c, rows, cols] * w[o, c, p, q]
    return result


def evaluated(results: list[Tensor], feeds: dict[Tensor, np.ndarray]) -> list[np.ndarray]:
    return interpret.evaluate([t.ref for t in results], {t.ref: a for t, a in feeds.items()})


def compiled(results: list[Tensor], feeds: dict[Tensor, np.ndarray]) -> list[np.ndarray]:
    with graphc.config(verify=True, cache=False):
        return list(graphc.function(list(feeds), results)(*feeds.values()))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("images, weights, how", CASES)
def test_conv2d(
    images: tuple[int, ...], weights: tuple[int, ...], how: dict[str, Any], layout: str, rng: np.random.Generator
) -> None:
    """Value and both gradients, interpreted and compiled, in both layouts; gradients by their adjoints."""
    a, b = rng.standard_normal(images), rng.standard_normal(weights)
    expected = reference(a, b, **how)
    g = rng.standard_normal(expected.shape)
    da, db = rng.standard_normal(images), rng.standard_normal(weights)
    slopes = [float((reference(da, b, **how) * g).sum()), float((reference(a, db, **how) * g).sum())]
    if layout == "NHWC":
        a, da, expected, g = (v.transpose(NHWC) for v in (a, da, expected, g))
        b, db = b.transpose(HWIO), db.transpose(HWIO)
    x, w = placeholder("x", a.shape, "float64"), placeholder("w", b.shape, "float64")
    cotangent = placeholder("g", g.shape, "float64")
    y = F.conv2d(x, w, layout=layout, **how)
    gradients = graphc.grad((y * cotangent).sum(), [x, w])
    feeds = {x: a, w: b, cotangent: g}
    for run in (evaluated, compiled):
        value, *found = run([y, *gradients], feeds)
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
        for slope, gradient, direction in zip(slopes, found, (da, db), strict=True):
            assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-11, abs=1e-10)


def test_second_order(rng: np.random.Generator) -> None:
    """The gradient of a gradient, against differences of the gradient."""
    a, b = rng.standard_normal((2, 5, 6, 2)), rng.standard_normal((3, 2, 2, 3))
    x, w = placeholder("x", a.shape, "float64"), placeholder("w", b.shape, "float64")
    y = F.conv2d(x, w, stride=2, padding=1, layout="NHWC")
    gx, gw = graphc.grad((y * y).sum(), [x, w])
    d = rng.standard_normal(b.shape)
    hx, hw = graphc.grad((gw * d).sum(), [x, w])
    value = evaluated([hx, hw], {x: a, w: b})
    step = 1e-5
    ends = [evaluated([gx, gw], {x: a, w: b + s * step * d}) for s in (1, -1)]
    for found, high, low in zip(value, *ends, strict=True):
        np.testing.assert_allclose(found, (high - low) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", ["NCL", "NLC"])
def test_conv1d(layout: str, rng: np.random.Generator) -> None:
    a, b, bias = rng.standard_normal((2, 4, 9)), rng.standard_normal((6, 2, 3)), rng.standard_normal(6)
    expected = reference(a[:, :, None], b[:, :, None], (1, 2), (0, 1), (1, 2), 2)[:, :, 0] + bias[:, None]
    if layout == "NLC":
        a, b, expected = a.transpose(0, 2, 1), b.transpose(2, 1, 0), expected.transpose(0, 2, 1)
    x, w, c = (placeholder(n, v.shape, "float64") for n, v in (("x", a), ("w", b), ("c", bias)))
    y = F.conv1d(x, w, c, stride=2, padding=1, dilation=2, groups=2, layout=layout)
    (value,) = compiled([y], {x: a, w: b, c: bias})
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "how", [{}, {"stride": 2, "padding": 1, "output_padding": 1}, {"stride": (2, 3), "dilation": 2, "groups": 2}]
)
def test_conv_transpose2d(layout: str, how: dict[str, Any], rng: np.random.Generator) -> None:
    """It is the adjoint of conv2d: <conv(u), v> = <u, conv_transpose(v)>."""
    groups = how.get("groups", 1)
    v, b = rng.standard_normal((2, 4, 4, 5)), rng.standard_normal((4, 6 // groups, 3, 2))
    last = layout == "NHWC"
    here = [v.transpose(NHWC), b.transpose(HWIO)] if last else [v, b]
    x, w = (placeholder(n, t.shape, "float64") for n, t in zip("xw", here, strict=True))
    y = F.conv_transpose2d(x, w, layout=layout, **how)
    (value,) = compiled([y], dict(zip([x, w], here, strict=True)))
    value = value.transpose(0, 3, 1, 2) if last else value
    u = rng.standard_normal(value.shape)
    forward = {k: n for k, n in how.items() if k != "output_padding"}
    image = reference(u, b, **forward)
    assert float((value * u).sum()) == pytest.approx(float((image * v).sum()), rel=1e-11)


def test_slopes_are_packed_once_for_all_lines_of_a_window(rng: np.random.Generator) -> None:
    """In a weight gradient whose nest is cut into blocks they are packed before the loop over the lines."""
    x, g = placeholder("x", (8, 34, 66, 3)), placeholder("g", (8, 32, 32, 64))
    step = graphc.function([x, g], contract("n h+p w+q c, n o h w -> p q c o", x, g, (3, 3, 3, 32)))
    lines = [line for line in step.ir("loops").splitlines() if line.lstrip().startswith("for ")]
    loops = [(len(line) - len(line.lstrip()), line.split()[1].rstrip("0123456789")) for line in lines]
    depth = {name: indent for indent, name in reversed(loops)}
    assert depth["block"] < depth["panel"] == depth["batch"]
    arrays = [rng.integers(-4, 5, t.shape).astype("float32") for t in (x, g)]  # sums of whole numbers are exact
    windows = np.lib.stride_tricks.sliding_window_view(arrays[0], (3, 3), (1, 2))
    expected = np.einsum("nhwcpq,nohw->pqco", windows, arrays[1], optimize=True)
    np.testing.assert_array_equal(step(*arrays), expected)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(
    "shape, results, window, how",
    [
        ((2, 9, 41, 31), 18, 3, {"padding": 1}),  # gradients of weights add up some lines at a time
        ((13, 5, 11, 9), 17, 3, {}),  # or images
        ((2, 3, 70, 53), 9, 5, {"padding": 2, "stride": 2}),
        ((1, 18, 40, 27), 18, 3, {"padding": 1, "groups": 18}),
        ((1, 112, 5, 4), 20, 3, {"padding": 1}),  # the lines of a window one at a time
        ((2, 400, 4, 5), 3, 3, {"padding": 1}),  # or parts of them
    ],
    ids=str,
)
def test_long_sums_are_added_up_in_blocks(
    shape: tuple[int, ...], results: int, window: int, how: dict[str, Any], layout: str, rng: np.random.Generator
) -> None:
    last = layout == "NHWC"
    w_shape = (results, shape[1] // how.get("groups", 1), window, window)
    x, w = (rng.integers(-4, 5, s).astype("float32") for s in (shape, w_shape))  # sums of whole numbers are exact
    x, w = (np.ascontiguousarray(a.transpose(axes)) if last else a for a, axes in ((x, NHWC), (w, HWIO)))
    px, pw = placeholder("x", x.shape), placeholder("w", w.shape)
    y = F.conv2d(px, pw, layout=layout, **how)
    pg = placeholder("g", y.shape)
    g = rng.integers(-4, 5, pg.shape).astype("float32")
    results_of = [y, *graphc.vjp(y, [px, pw], pg)]
    with graphc.config(guard_memory=True, cache=False):
        found = graphc.function([px, pw, pg], results_of)(x, w, g)
    for one, wanted in zip(found, evaluated(results_of, {px: x, pw: w, pg: g}), strict=True):
        np.testing.assert_array_equal(one, wanted)


def test_long_sums_of_a_named_batch(rng: np.random.Generator) -> None:
    """Its images are the rows of tiles: as many as there are, in blocks."""
    x, w = placeholder("x", ("n", 4, 5, 112)), placeholder("w", (3, 3, 112, 40))
    y = F.conv2d(x, w, padding=1, layout="NHWC")
    weights = rng.integers(-4, 5, w.shape).astype("float32")
    with graphc.config(guard_memory=True, cache=False):
        f = graphc.function([x, w], y)
    for n in (0, 1, 4, 7, 61):
        images = rng.integers(-4, 5, (n, 4, 5, 112)).astype("float32")
        np.testing.assert_array_equal(f(images, weights), evaluated([y], {x: images, w: weights})[0])


def test_named_sizes(rng: np.random.Generator) -> None:
    """One function for every number and size of images."""
    x, w = placeholder("x", ("n", "h", "w", 3), "float32"), placeholder("w", (3, 3, 3, 4), "float32")
    y = F.conv2d(x, w, stride=2, padding=1, layout="NHWC")
    gx, gw = graphc.grad((y * y).sum(), [x, w])
    with graphc.config(cache=False):
        step = graphc.function([x, w], [y, gx, gw])
    for n, h, width in ((2, 8, 9), (1, 5, 5), (3, 33, 18)):
        a, b = rng.standard_normal((n, h, width, 3), np.float32), rng.standard_normal((3, 3, 3, 4), np.float32)
        for found, wanted in zip(step(a, b), evaluated([y, gx, gw], {x: a, w: b}), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)
    assert step.compile_count == 1


def test_bias_and_relu_ride_along(rng: np.random.Generator) -> None:
    for layout, shape, weights in (("NHWC", (2, 8, 8, 3), (3, 3, 3, 16)), ("NCHW", (2, 3, 8, 8), (16, 3, 3, 3))):
        x, w = placeholder("x", shape, "float32"), placeholder("w", weights, "float32")
        c = placeholder("c", (16,), "float32")
        y = F.relu(F.conv2d(x, w, c, layout=layout))
        a, b, d = (rng.standard_normal(t.shape, np.float32) for t in (x, w, c))
        with graphc.config(verify=True, cache=False):
            run = graphc.function([x, w, c], y)
        assert run.ir("optimized").count("= kernel(") == 1
        (wanted,) = evaluated([y], {x: a, w: b, c: d})
        np.testing.assert_allclose(run(a, b, d), wanted, rtol=1e-5, atol=1e-5)


def windows(x: np.ndarray, size: tuple[int, int], stride: tuple[int, int], hole: int = 1) -> np.ndarray:
    """[n, c, oh, ow, kh * kw] of NCHW images."""
    counts = [(n - hole * (k - 1) - 1) // s + 1 for n, k, s in zip(x.shape[2:], size, stride, strict=True)]
    parts = []
    for place in product(range(size[0]), range(size[1])):
        key = [slice(None), slice(None)]
        for tap, count, step in zip(place, counts, stride, strict=True):
            key.append(slice(tap * hole, tap * hole + (count - 1) * step + 1, step))
        parts.append(x[tuple(key)])
    return np.stack(parts, -1)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "size, stride, padding, hole",
    [((2, 2), (2, 2), 0, 1), ((3, 3), (2, 1), 1, 1), ((2, 3), (1, 2), 1, 2), ((4, 3), (4, 3), 0, 1)],
)
def test_max_pool2d(
    layout: str, size: tuple[int, int], stride: tuple[int, int], padding: int, hole: int, rng: np.random.Generator
) -> None:
    """Value, and the gradient at the first of equal elements."""
    a = rng.integers(-3, 4, (2, 3, 9, 8)).astype(np.float64)
    padded = np.pad(a, [(0, 0), (0, 0), (padding, padding), (padding, padding)], constant_values=-np.inf)
    stacked = windows(padded, size, stride, hole)
    g = rng.standard_normal(stacked.shape[:-1])
    back = np.zeros(padded.shape)
    for place in np.ndindex(*g.shape):
        p, q = divmod(int(stacked[place].argmax()), size[1])
        n, c, i, j = place
        back[n, c, i * stride[0] + p * hole, j * stride[1] + q * hole] += g[place]
    inside = slice(padding, -padding or None)
    expected = [stacked.max(-1), back[:, :, inside, inside]]
    if layout == "NHWC":
        a, g = a.transpose(NHWC), g.transpose(NHWC)
        expected = [v.transpose(NHWC) for v in expected]
    x, cotangent = placeholder("x", a.shape, "float64"), placeholder("g", g.shape, "float64")
    y = F.max_pool2d(x, size, stride, padding, hole, layout=layout)
    (gx,) = graphc.grad((y * cotangent).sum(), [x])
    for run in (evaluated, compiled):
        for found, wanted in zip(run([y, gx], {x: a, cotangent: g}), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-13)


def test_max_pool_of_nan() -> None:
    x = placeholder("x", (1, 1, 4), "float32")
    (value,) = evaluated([F.max_pool1d(x, 2)], {x: np.array([[[1, np.nan, 3, 2]]], np.float32)})
    np.testing.assert_array_equal(value, [[[np.nan, 3]]])


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("size, stride, padding", [(2, None, 0), (3, 2, 1), ((4, 3), (2, 3), (2, 1))])
def test_avg_pool2d(size: Any, stride: Any, padding: Any, counted: bool, rng: np.random.Generator) -> None:
    a = rng.standard_normal((2, 3, 8, 9))
    sizes, around = (v if isinstance(v, tuple) else (v, v) for v in (size, padding))
    steps = sizes if stride is None else stride if isinstance(stride, tuple) else (stride, stride)
    widths = [(0, 0), (0, 0), *((n, n) for n in around)]
    total = windows(np.pad(a, widths), sizes, steps).sum(-1)
    count = windows(np.pad(np.ones_like(a), widths, constant_values=float(counted)), sizes, steps).sum(-1)
    x = placeholder("x", a.shape, "float64")
    y = F.avg_pool2d(x, size, stride, padding, counted)
    (gx,) = graphc.grad((y * y).sum(), [x])
    for run in (evaluated, compiled):
        value, gradient = run([y, gx], {x: a})
        np.testing.assert_allclose(value, total / count, rtol=1e-12)
        assert float((gradient * a).sum()) == pytest.approx(2 * float((value**2).sum()), rel=1e-12)  # y is linear in x


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda x, w: F.conv2d(x, w, layout="NHCW"), ArgumentError, "layout is 'NCHW' or 'NHWC'"),
        (lambda x, w: F.conv2d(x, w, layout="NHWC"), ShapeError, "8 channels of x, weights for 3"),
        (lambda x, w: F.conv2d(x, w, stride=0), ArgumentError, "stride is a number from 1 on"),
        (lambda x, w: F.conv2d(x, w, padding="full"), ArgumentError, '"same", "valid" or numbers'),
        (lambda x, w: F.conv2d(x, w, padding="same", stride=2), ArgumentError, "for stride 1"),
        (lambda x, w: F.conv2d(x, w, groups=2), ShapeError, "channels"),
        (lambda x, w: F.conv2d(x, w, dilation=8), ShapeError, "longer than axis 2"),
        (lambda x, w: F.conv2d(x, w, np.zeros(3, np.float32)), ShapeError, "one element for each of 5"),
        (lambda x, w: F.conv2d(x.reshape(-1), w), ShapeError, "have 4 axes"),
        (lambda x, w: F.max_pool2d(x, 2, padding=2), ArgumentError, "more than half"),
        (lambda x, w: F.avg_pool2d(x, 9), ShapeError, "longer than axis 2"),
    ],
)
def test_errors_name_the_arguments(call: Any, error: type[GraphcError], text: str) -> None:
    x, w = placeholder("x", (2, 3, 8, 8), "float32"), placeholder("w", (5, 3, 3, 3), "float32")
    with pytest.raises(error, match=text):
        call(x, w)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_pytorch_agrees(rng: np.random.Generator) -> None:
    """An outside opinion on the arguments: the same names and meanings."""
    torch = pytest.importorskip("torch")
    for images, weights, how in CASES:
        a, b = rng.standard_normal(images), rng.standard_normal(weights)
        x, w = placeholder("x", a.shape, "float64"), placeholder("w", b.shape, "float64")
        (value,) = evaluated([F.conv2d(x, w, **how)], {x: a, w: b})
        np.testing.assert_allclose(
            value, torch.conv2d(torch.tensor(a), torch.tensor(b), **how).numpy(), rtol=1e-11, atol=1e-11
        )
    a = rng.standard_normal((2, 4, 7, 6))
    x, t, functional = placeholder("x", a.shape, "float64"), torch.tensor(a), torch.nn.functional
    pairs = [
        (F.max_pool2d(x, 3, 2, 1), functional.max_pool2d(t, 3, 2, 1)),
        (F.avg_pool2d(x, 3, 2, 1, False), functional.avg_pool2d(t, 3, 2, 1, count_include_pad=False)),
    ]
    for ours, theirs in pairs:
        (value,) = evaluated([ours], {x: a})
        np.testing.assert_allclose(value, theirs.numpy(), rtol=1e-12)
    b = rng.standard_normal((4, 3, 3, 2))
    w = placeholder("w", b.shape, "float64")
    how = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}
    (value,) = evaluated([F.conv_transpose2d(x, w, **how)], {x: a, w: b})
    np.testing.assert_allclose(
        value, functional.conv_transpose2d(t, torch.tensor(b), **how).numpy(), rtol=1e-11, atol=1e-11
    )


def test_products_of_one_side_are_sums(rng: np.random.Generator) -> None:
    """One channel, weights of NCHW depthwise windows, and a matrix times a vector: no tile has columns for them."""
    x, w, g = (placeholder(n, s, "float64") for n, s in (("x", (2, 8, 9, 5)), ("w", (3, 3, 5, 1)), ("g", (2, 8, 8, 3))))
    m, v = placeholder("m", (7, 80), "float64"), placeholder("v", (80,), "float64")
    d = placeholder("d", (8, 1, 2, 3), "float64")
    (of_d,) = graphc.vjp(F.conv2d(x, d, groups=8), [d], g)  # x as 2 images of 8 channels of 9 x 5
    results = [F.conv2d(x, w, layout="NHWC"), of_d, m @ v, v @ m.T]
    graph = Graph(tuple(t.ref for t in (x, w, g, m, v)), tuple(t.ref for t in results))
    expanded = expand_products(graph)
    assert not {"contract", "matmul"} & {node.op.name for node in expanded.order()}
    feeds = {t: rng.standard_normal(t.shape) for t in (x, w, g, m, v)}
    arrays = {t.ref: a for t, a in feeds.items()}
    for run in (interpret.evaluate(graph.outputs, arrays), compiled(results, feeds)):
        for found, wanted in zip(run, interpret.evaluate(expanded.outputs, arrays), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-11)


def test_products_of_two_sides_stay() -> None:
    """So do those whose columns lie side by side wherever they are."""
    x, w, d = (placeholder(n, s, "float32") for n, s in (("x", (2, 8, 9, 5)), ("w", (3, 3, 5, 4)), ("d", (3, 3, 1, 5))))
    m, v = placeholder("m", (80, 7), "float32"), placeholder("v", (80,), "float32")
    y = F.conv2d(x, d, groups=5, layout="NHWC")
    depthwise = [y, *graphc.grad((y * y).sum(), [x, d])]
    results = [F.conv2d(x, w, layout="NHWC"), m.T @ v]  # the columns of m lie far apart: their sums are lanes of a tile
    graph = Graph(tuple(t.ref for t in (x, w, d, m, v)), tuple(t.ref for t in [*depthwise, *results]))
    kept = [node.op.name for node in expand_products(graph).order()]
    assert (kept.count("contract"), kept.count("matmul")) == (4, 1)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_padding_of_a_gradient_is_not_computed(layout: str, rng: np.random.Generator) -> None:
    shape, weights = ((2, 3, 7, 6), (4, 3, 3, 3)) if layout == "NCHW" else ((2, 7, 6, 3), (3, 3, 3, 4))
    x, w = placeholder("x", shape, "float64"), placeholder("w", weights, "float64")
    y = F.conv2d(x, w, stride=2, padding=(1, 2), layout=layout)
    (gx,) = graphc.grad((y * y).sum(), [x])
    graph = Graph((x.ref, w.ref), (gx.ref, y[:, 1:, :2].ref))
    cropped = crop_products(graph)
    (product,) = [n for n in cropped.order() if n.op.name == "contract" and n.types[0] == gx.type]
    assert cropped.outputs[0].node is product
    assert cropped.outputs[1].node.op.name == "slice"  # of y, which the gradient reads too
    arrays = {x.ref: rng.standard_normal(shape), w.ref: rng.standard_normal(weights)}
    for found, wanted in zip(
        interpret.evaluate(cropped.outputs, arrays), interpret.evaluate(graph.outputs, arrays), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
