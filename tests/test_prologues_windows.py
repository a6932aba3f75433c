"""Operands that the kernel of a convolution or an einsum computes as it reads them, and those that it must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import interpret
from graphc.build import Tensor
from graphc.nn import functional as F
from tests.fusion_checks import shaped
from tests.test_prologues import computing, same_bits, special

Before = Callable[[Tensor, Tensor, Tensor], Tensor]


@pytest.fixture(autouse=True)
def _no_cache() -> object:
    with graphc.config(cache=False, verify=True) as settings:
        yield settings


BEFORE: dict[str, Before] = {
    "scale and shift": lambda x, s, b: x * s + b,  # not 0 where x is: padding stays 0 all the same
    "mask": lambda x, s, b: graphc.where(x * s <= b, 0.0, x),
}
# images NHWC, weights HWIO, arguments
DEPTHWISE: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 9, 8, 16), (3, 3, 1, 16), {"padding": 1}),
    ((3, 7, 12, 20), (3, 3, 1, 20), {"padding": 1}),  # columns that are no whole vectors
    ((2, 11, 10, 64), (3, 3, 1, 64), {"padding": 1, "stride": 2}),
    ((2, 13, 9, 32), (3, 2, 1, 32), {"padding": (2, 1), "dilation": 2}),
    ((1, 6, 6, 48), (5, 5, 1, 48), {"padding": 2}),
    ((2, 5, 1, 32), (3, 1, 1, 32), {}),
    ((2, 1, 1, 16), (1, 1, 1, 16), {}),
    ((2, 3, 40, 130), (1, 7, 1, 130), {"padding": "same"}),
]


def depthwise(x: Tensor, w: Tensor, how: dict[str, Any]) -> Tensor:
    return F.conv2d(x, w, layout="NHWC", groups=x.shape[-1], **how)


@pytest.mark.parametrize("name", ["scale and shift", "mask"])
@pytest.mark.parametrize("images, weights, how", DEPTHWISE)
def test_depthwise_windows(
    name: str, images: tuple[int, ...], weights: tuple[int, ...], how: dict[str, Any], rng: np.random.Generator
) -> None:
    channels = images[-1:]
    x, w, s, b = inputs = shaped([images, weights, channels, channels])
    outputs = [depthwise(BEFORE[name](x, s, b), w, how)]
    if weights[0] * weights[1] > 1 and images[2] > 8:
        assert len(computing(inputs, outputs)) == 1
    arrays = [special(rng, t.shape) for t in inputs]
    function = same_bits(inputs, outputs, [arrays])
    plain = [rng.standard_normal(t.shape).astype(np.float32) for t in inputs]
    (expected,) = interpret.evaluate([outputs[0].ref], {t.ref: a for t, a in zip(inputs, plain)})
    np.testing.assert_allclose(function(*plain)[0], expected, rtol=1e-4, atol=1e-4)


def test_depthwise_windows_store_no_array() -> None:
    x, w, s = inputs = shaped([(4, 30, 30, 64), (3, 3, 1, 64), (64,)])
    program = graphc.function(inputs, depthwise(x * s, w, {"padding": 1})).ir("program")
    assert "contract_of_mul" in program and "computed" not in program


def test_what_costs_much_is_stored_for_windows(rng: np.random.Generator) -> None:
    """Windows would compute it nine times."""
    x, w = inputs = shaped([(2, 20, 20, 32), (3, 3, 1, 32)])
    function = same_bits(
        inputs, [depthwise(graphc.tanh(x), w, {"padding": 1})], [[special(rng, t.shape) for t in inputs]]
    )
    assert ".computed" in function.ir("program")
    wide = shaped([(2, 20, 20, 32), (5, 5, 1, 32)])
    act = graphc.minimum(graphc.maximum(wide[0] * 2, 0.0), 6.0)  # cheap, but 25 times near the cache
    assert ".computed" in graphc.function(wide, depthwise(act, wide[1], {"padding": 2})).ir("program")


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("name, stride", [("scale and shift", 1), ("mask", 2)])
def test_pointwise_convolutions(name: str, stride: int, layout: str, rng: np.random.Generator) -> None:
    for n, size, channels, out in ((1, 1, 1, 1), (2, 3, 5, 7), (2, 14, 130, 70)):
        last = layout == "NHWC"
        image = (n, size, size, channels) if last else (n, channels, size, size)
        weight = (1, 1, channels, out) if last else (out, channels, 1, 1)
        each = (channels,) if last else (channels, 1, 1)
        x, w, s, b = inputs = shaped([image, weight, each, each])
        y = F.conv2d(BEFORE[name](x, s, b), w, stride=stride, layout=layout)
        same_bits(inputs, [y], [[special(rng, t.shape) for t in inputs]])
        if channels == 130 and stride == 1:
            assert len(computing(inputs, [y])) == 1


def test_pointwise_convolutions_store_no_array() -> None:
    shapes = {"NHWC": ((8, 14, 14, 256), (1, 1, 256, 64)), "NCHW": ((8, 256, 14, 14), (64, 256, 1, 1))}
    for layout, (image, weight) in shapes.items():
        x, w = inputs = shaped([image, weight])
        program = graphc.function(inputs, F.conv2d(graphc.maximum(x, 0.0), w, layout=layout)).ir("program")
        assert "contract_of_" in program and ".computed" not in program


def test_factors_along_any_axis(rng: np.random.Generator) -> None:
    """Labels that are merged into rows, columns or steps still have their own indices."""
    for shape in ((3, 7, 9, 33), (1, 7, 9, 33), (3, 1, 9, 33), (3, 7, 1, 33), (1, 7, 9, 1), (3, 1, 1, 1)):
        x, w, s = inputs = shaped([(3, 7, 9, 33), (1, 1, 33, 20), shape])
        y = F.conv2d(x * s, w, layout="NHWC")
        assert len(computing(inputs, [y])) == 1
        gw, gx = graphc.grad((y * y).sum(), [w, x])
        same_bits(inputs, [y, gw, gx], [[special(rng, t.shape) for t in inputs]])
        x, w, s = inputs = shaped([(3, 33, 7, 9), (20, 33, 1, 1), tuple(shape[a] for a in (0, 3, 1, 2))])
        y = F.conv2d(x * s, w)
        gw, gx = graphc.grad((y * y).sum(), [w, x])
        same_bits(inputs, [y, gw, gx], [[special(rng, t.shape) for t in inputs]])


def test_einsums(rng: np.random.Generator) -> None:
    for spec, shapes in (
        ("abc,cd->abd", [(5, 6, 40), (40, 30)]), ("abc,bcd->ad", [(50, 6, 10), (6, 10, 30)]),
        ("abc,acd->abd", [(4, 20, 30), (4, 30, 33)]), ("bhqd,bhkd->bhqk", [(2, 3, 17, 16), (2, 3, 19, 16)]),
        ("ca,cb->ab", [(70, 20), (70, 33)]),
    ):  # fmt: skip
        inputs = shaped(shapes)
        for outputs in ([graphc.einsum(spec, inputs[0] * 2 + 1, inputs[1])],
                        [graphc.einsum(spec, inputs[0], graphc.maximum(inputs[1], 0.5))]):  # fmt: skip
            same_bits(inputs, outputs, [[special(rng, t.shape) for t in inputs]])


def test_windows_that_are_read_as_numbers_are_stored() -> None:
    x, w = inputs = shaped([(2, 10, 10, 16), (3, 3, 16, 32)])
    assert not computing(inputs, [F.conv2d(x * 2, w, padding=1, layout="NHWC")])
    x, w = inputs = shaped([(2, 10, 10, 16), (3, 3, 4, 32)])
    assert not computing(inputs, [F.conv2d(x * 2, w, padding=1, groups=4, layout="NHWC")])


def test_what_others_read_too_is_stored() -> None:
    x, w = inputs = shaped([(2, 10, 10, 16), (3, 3, 1, 16)])
    y = graphc.tanh(x * 2)
    assert not computing(inputs, [depthwise(y, w, {}), y])
    assert not computing(inputs, [depthwise(y, w, {}), depthwise(y, w, {"padding": 1})])


@pytest.mark.parametrize("dtype", ["int32", "float64", "float16", "bfloat16"])
def test_other_dtypes(dtype: str, rng: np.random.Generator) -> None:
    for images, weights, groups in (((2, 9, 8, 24), (3, 3, 1, 24), 24), ((2, 9, 8, 24), (1, 1, 24, 40), 1)):
        x, w, s = inputs = shaped([images, weights, images[-1:]], [dtype] * 3)
        outputs = [F.conv2d(x * s - 3, w, padding=weights[0] // 2, groups=groups, layout="NHWC")]
        assert len(computing(inputs, outputs)) == 1
        if dtype == "int32":  # it wraps
            arrays = [rng.integers(-(2**31), 2**31, t.shape).astype(np.int32) for t in inputs]
        else:
            arrays = [graphc.cast_array(rng.standard_normal(t.shape), dtype) for t in inputs]
        same_bits(inputs, outputs, [arrays])


def test_named_sizes(rng: np.random.Generator) -> None:
    """A batch and lines of an unknown number, none of them too."""
    for weights, groups in (((3, 3, 1, 24), 24), ((1, 1, 24, 40), 1)):
        shapes: list[tuple[int | str, ...]] = [("n", "h", 10, 24), weights, (24,)]
        x, w, s = inputs = shaped(shapes)
        y = F.conv2d(x * s + 1, w, padding=weights[0] // 2, groups=groups, layout="NHWC")
        arrays = []
        for n, h in ((0, 3), (1, 1), (3, 5), (2, 16)):
            arrays.append([special(rng, shape) for shape in ((n, h, 10, 24), weights, (24,))])
        same_bits(inputs, [y], arrays)


def test_strided_and_aliasing_arguments(rng: np.random.Generator) -> None:
    x, w, s = inputs = shaped([(2, 9, 9, 16), (3, 3, 1, 16), (2, 9, 9, 16)])
    a = rng.standard_normal((2, 18, 9, 32)).astype(np.float32)[:, ::2, :, ::-2]
    k = rng.standard_normal((3, 3, 1, 16)).astype(np.float32)
    same_bits(inputs, [depthwise(x * s, w, {"padding": 1})], [[a, k, a]])


def test_a_parameter_that_windows_read_is_not_written_under_them(rng: np.random.Generator) -> None:
    start, k = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 40, 30, 64), (3, 3, 1, 64)))
    found = []
    for disable in ("", "compute_operands"):
        image, w = graphc.parameter("image", start), graphc.placeholder("w", k.shape)
        with graphc.config(disable=disable):
            step = graphc.function([w], [], {image: image - depthwise(image * 0.5, w, {"padding": 1})}, threads=2)
        for _ in range(2):
            step(k)
        found.append(np.array(image.value))
    assert found[0].tobytes() == found[1].tobytes()


def test_gradients_agree(rng: np.random.Generator) -> None:
    for weights, groups in (((3, 3, 1, 24), 24), ((1, 1, 24, 40), 1), ((3, 3, 24, 8), 1)):
        x, w, s = inputs = shaped([(2, 9, 8, 24), weights, (24,)])
        y = F.conv2d(graphc.nn.functional.relu(x * s), w, padding=weights[0] // 2, groups=groups, layout="NHWC")
        loss = (graphc.maximum(y, 0.0) ** 2).sum()
        outputs = [loss, *graphc.grad(loss, [x, w, s])]
        same_bits(inputs, outputs, [[rng.standard_normal(t.shape).astype(np.float32) for t in inputs]])
