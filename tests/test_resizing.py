"""Adaptive and global pooling and interpolation against loops in NumPy and against PyTorch, where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import interpret
from graphc.build import placeholder
from graphc.errors import ArgumentError, GraphcError, ShapeError
from graphc.nn import functional as F
from tests.array_checks import agree, differentiable

RNG = np.random.default_rng(17)
IMAGES = RNG.standard_normal((2, 3, 7, 10))
SIZES: list[Any] = [1, 2, (3, 5), (7, 10), (5, 13), (None, 4)]


def pooled(x: np.ndarray, sizes: Any, fold: Any) -> np.ndarray:
    """Windows of the last two axes as the definition says."""
    sizes = sizes if isinstance(sizes, tuple) else (sizes, sizes)
    rows, cols = (n or side for n, side in zip(sizes, x.shape[2:], strict=True))
    result = np.empty((*x.shape[:2], rows, cols), x.dtype)
    for i, j in np.ndindex(rows, cols):
        top, bottom = i * x.shape[2] // rows, -(-(i + 1) * x.shape[2] // rows)
        left, right = j * x.shape[3] // cols, -(-(j + 1) * x.shape[3] // cols)
        result[:, :, i, j] = fold(x[:, :, top:bottom, left:right], (2, 3))
    return result


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_adaptive_pooling_is_its_definition(size: Any) -> None:
    means, maxima = pooled(IMAGES, size, np.mean), pooled(IMAGES, size, np.max)
    agree(lambda x: F.adaptive_avg_pool2d(x, size), means, IMAGES, rtol=1e-14)
    agree(lambda x: F.adaptive_max_pool2d(x, size), maxima, IMAGES)
    last = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))
    agree(lambda x: F.adaptive_max_pool2d(x, size, layout="NHWC"), maxima.transpose(0, 2, 3, 1), last)
    agree(lambda x: F.adaptive_avg_pool2d(x, size, layout="NHWC"), means.transpose(0, 2, 3, 1), last, rtol=1e-14)
    differentiable(lambda x: F.adaptive_avg_pool2d(x, size), IMAGES)
    differentiable(lambda x: F.adaptive_max_pool2d(x, size), IMAGES)


def test_special_values_stay_in_their_windows() -> None:
    x = np.array([[[1.0, np.nan, 2.0, np.inf, 5.0]]])
    agree(lambda x: F.adaptive_avg_pool1d(x, 3), np.array([[[np.nan, np.nan, np.inf]]]), x)
    agree(lambda x: F.adaptive_avg_pool1d(x, 5), x, x)
    agree(lambda x: F.adaptive_max_pool1d(x, 3), np.array([[[np.nan, np.nan, np.inf]]]), x)
    n = np.array([[[3, -5, 7, 7, 1]]], np.int8)
    agree(lambda x: F.adaptive_max_pool1d(x, 2), np.array([[[7, 7]]], np.int8), n)
    agree(lambda x: F.adaptive_avg_pool1d(x, 5), n.astype(np.float32), n)


def test_the_first_of_equal_maxima_has_the_gradient() -> None:
    x = placeholder("x", (1, 1, 3, 3), "float64")
    gradients = [graphc.grad(F.adaptive_max_pool2d(x, n).sum(), [x])[0] for n in (1, 2)]
    for found in (
        graphc.function([x], gradients)(np.ones((1, 1, 3, 3))),
        interpret.evaluate([g.ref for g in gradients], {x.ref: np.ones((1, 1, 3, 3))}),
    ):
        np.testing.assert_array_equal(found[0][0, 0], [[1, 0, 0], [0, 0, 0], [0, 0, 0]])
        np.testing.assert_array_equal(found[1][0, 0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_sizes_that_are_not_known() -> None:
    x = placeholder("x", ("n", 3, "h", "w"), "float64")
    results = [
        F.global_avg_pool2d(x), F.global_max_pool2d(x), F.interpolate(x, scale_factor=2),
        F.interpolate(x, scale_factor=0.5), F.interpolate(x, (5, "w2"), mode="bilinear"),
        F.interpolate(x, scale_factor=1.5, mode="bilinear", align_corners=True), F.interpolate(x, (5, 4)),
    ]  # fmt: skip
    f = graphc.function([x, graphc.placeholder("y", ("w2",))], results)
    for n, h, w, w2 in ((2, 6, 4, 9), (1, 3, 7, 2), (0, 2, 2, 1), (3, 2, 5, 5)):
        a = RNG.standard_normal((n, 3, h, w))
        same = placeholder("x", a.shape, "float64")
        known = [
            F.global_avg_pool2d(same), F.global_max_pool2d(same), F.interpolate(same, scale_factor=2),
            F.interpolate(same, scale_factor=0.5), F.interpolate(same, (5, w2), mode="bilinear"),
            F.interpolate(same, scale_factor=1.5, mode="bilinear", align_corners=True), F.interpolate(same, (5, 4)),
        ]  # fmt: skip
        wanted = interpret.evaluate([t.ref for t in known], {same.ref: a})
        for found, want in zip(f(a, np.zeros(w2, np.float32)), wanted, strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-14)
    halves = placeholder("x", (1, 2, 2 * graphc.placeholder("z", ("n",)).shape[0], 3))
    assert str(F.adaptive_avg_pool2d(halves, (2, 1)).shape) == "(1, 2, 2, 1)"


def test_interpolation_by_hand() -> None:
    x = np.array([[[1.0, 2.0, 4.0]]])
    agree(lambda x: F.interpolate(x, 6), np.array([[[1.0, 1, 2, 2, 4, 4]]]), x)
    agree(lambda x: F.interpolate(x, 2), np.array([[[1.0, 2]]]), x)
    agree(lambda x: F.interpolate(x, 2, mode="nearest-exact"), np.array([[[1.0, 4]]]), x)
    agree(lambda x: F.interpolate(x, 5, mode="linear", align_corners=True), np.array([[[1, 1.5, 2, 3, 4]]]), x)
    agree(lambda x: F.interpolate(x, 6, mode="linear"), np.array([[[1, 1.25, 1.75, 2.5, 3.5, 4]]]), x)
    agree(lambda x: F.interpolate(x, 1, mode="linear", align_corners=True), np.array([[[1.0]]]), x)
    ints = np.array([[[1, 2]]], np.uint8)
    agree(lambda x: F.interpolate(x, 3), np.array([[[1, 1, 2]]], np.uint8), ints)


@pytest.mark.parametrize("how", [
    {"size": (9, 4)}, {"size": (9, 4), "mode": "nearest-exact"}, {"scale_factor": (2.0, 3.0)},
    {"size": (5, 12), "mode": "bilinear"}, {"scale_factor": 1.7, "mode": "bilinear", "align_corners": True},
], ids=str)  # fmt: skip
def test_interpolation_has_gradients(how: dict[str, Any]) -> None:
    differentiable(lambda x: F.interpolate(x, **how), IMAGES)
    last = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))
    differentiable(lambda x: F.interpolate(x, **how, layout="NHWC"), last)


def test_pytorch_agrees() -> None:
    torch = pytest.importorskip("torch")
    functional, t = torch.nn.functional, torch.tensor(IMAGES)
    line, row = IMAGES[:, :, 0], t[:, :, 0]
    for size in SIZES:
        for name in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
            agree(lambda x, n=name, s=size: getattr(F, n)(x, s), getattr(functional, name)(t, size).numpy(), IMAGES,
                  rtol=1e-14)  # fmt: skip
    for name in ("adaptive_avg_pool1d", "adaptive_max_pool1d"):
        agree(lambda x, n=name: getattr(F, n)(x, 4), getattr(functional, name)(row, 4).numpy(), line, rtol=1e-14)
    sizes: list[dict[str, Any]] = [
        {"size": (7, 10)}, {"size": (3, 21)}, {"size": 1}, {"size": (14, 20)}, {"scale_factor": 0.6},
        {"scale_factor": (1.3, 2.0)}, {"scale_factor": 3},
    ]  # fmt: skip
    for how in sizes:
        for mode in ({}, {"mode": "nearest-exact"}, {"mode": "bilinear"}, {"mode": "bilinear", "align_corners": True}):
            wanted = functional.interpolate(t, **how, **mode).numpy()
            agree(lambda x, h=how, m=mode: F.interpolate(x, **h, **m), wanted, IMAGES, rtol=1e-12)
    for corners in (False, True):
        wanted = functional.interpolate(row, 13, mode="linear", align_corners=corners).numpy()
        agree(lambda x, c=corners: F.interpolate(x, 13, mode="linear", align_corners=c), wanted, line, rtol=1e-12)


@pytest.mark.parametrize("call, error, text", [
    (lambda x: F.adaptive_avg_pool2d(x, 0), ArgumentError, "output_size is a number from 1 on"),
    (lambda x: F.adaptive_max_pool1d(x, 2), ShapeError, "images have 3 axes"),
    (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), ShapeError, "windows of axis 2, whose size is not known"),
    (lambda x: F.adaptive_avg_pool2d(x[:, :, :0], 2), ShapeError, "a side without elements"),
    (lambda x: F.interpolate(x), ArgumentError, "either a size or a scale_factor"),
    (lambda x: F.interpolate(x, 2, 2.0), ArgumentError, "either a size or a scale_factor"),
    (lambda x: F.interpolate(x, 2, mode="linear"), ArgumentError, 'mode is "nearest", "nearest-exact" or "bilinear"'),
    (lambda x: F.interpolate(x, 2, align_corners=True), ArgumentError, "align_corners is for 'bilinear'"),
    (lambda x: F.interpolate(x, (1, 2, 3)), ArgumentError, "one for each of 2 sides"),
    (lambda x: F.interpolate(x, scale_factor=-1), ArgumentError, "scale_factor is a positive number"),
    (lambda x: F.interpolate(x, 0), ShapeError, "a side without elements"),
    (lambda x: F.interpolate(x.reshape(-1), 3), ShapeError, "images have 3 or 4 axes"),
])  # fmt: skip
def test_errors_name_the_arguments(call: Any, error: type[GraphcError], text: str) -> None:
    with pytest.raises(error, match=text):
        call(placeholder("x", (2, 3, "h", 8), "float32"))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("pool", "how"),
    [
        ("max_pool2d", {"kernel_size": 2}),
        ("max_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("avg_pool2d", {"kernel_size": 5, "stride": 3, "padding": 2}),
    ],
)
def test_pools_of_images_of_any_height_and_width(pool: str, how: dict[str, int], layout: str) -> None:
    """One function for every size, as one made for each, with gradients."""

    def made(shape: tuple[object, ...]) -> graphc.Function:
        x = graphc.placeholder("x", shape, "float64")
        y = getattr(graphc.nn.functional, pool)(x, layout=layout, **how)
        return graphc.function([x], [y, graphc.grad((y * y).sum(), x)])

    step = made(("n", 3, "h", "w") if layout == "NCHW" else ("n", "h", "w", 3))
    rng = np.random.default_rng(3)
    for height, width in [(8, 8), (7, 9), (5, 6), (13, 5)]:
        value = rng.standard_normal((2, 3, height, width) if layout == "NCHW" else (2, height, width, 3))
        for actual, expected in zip(step(value), made(value.shape)(value), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-13)
    assert step.compile_count == 1
