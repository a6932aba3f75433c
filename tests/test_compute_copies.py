"""Elementwise kernels that only a copy, or the windows of a sum, read: computed there, with the same bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import graphc
from graphc import interpret
from graphc.build import Tensor
from graphc.nn import functional as F
from graphc.ops.padding import unslice
from graphc.passes.pipeline import optimize
from tests.fusion_checks import frozen, kernels, shaped
from tests.test_prologues import same_bits, special


@pytest.fixture(autouse=True)
def _no_cache() -> object:
    with graphc.config(cache=False, verify=True) as settings:
        yield settings


def names(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[str]:
    return [node.attrs["name"] for node in kernels(optimize(frozen(inputs, outputs)))]


def joined(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    return any("_of_" in name and not name.startswith("contract") for name in names(inputs, outputs))


def before(x: Tensor, s: Tensor, b: Tensor) -> Tensor:
    return x * s + b  # not 0 where x is: the padding stays 0 all the same


def test_copies_for_convolutions(rng: np.random.Generator) -> None:
    """Channels-first images that become channels-last, and padded copies."""
    for images, weights, each, how in (
        ((8, 32, 13, 13), (64, 32, 3, 3), (32, 1, 1), {"padding": 1}),
        ((1, 20, 20, 32), (3, 3, 32, 32), (32,), {"padding": 1, "layout": "NHWC"}),
        ((1, 20, 20, 32), (3, 3, 32, 32), (), {"padding": 1, "layout": "NHWC", "stride": 2, "dilation": 2}),
        ((2, 16, 40), (24, 16, 5), (16, 1), {"padding": 2}),
    ):
        x, w, s, b = inputs = shaped([images, weights, each, each])
        conv = F.conv1d if len(images) == 3 else F.conv2d
        y = conv(before(x, s, b), w, **how)
        assert joined(inputs, [y])
        function = same_bits(inputs, [y], [[special(rng, t.shape) for t in inputs]])
        plain = [rng.standard_normal(t.shape).astype(np.float32) for t in inputs]
        (expected,) = interpret.evaluate([y.ref], {t.ref: a for t, a in zip(inputs, plain)})
        np.testing.assert_allclose(function(*plain)[0], expected, rtol=1e-3, atol=1e-3)


def test_windows_of_sums(rng: np.random.Generator) -> None:
    """Depthwise, channels first: sums of shifted slices."""
    shapes = [(4, 48, 40, 40), (48, 1, 3, 3), (48, 1, 1), (48, 1, 1)]
    x, w, s, b = inputs = shaped(shapes)
    y = F.conv2d(before(x, s, b), w, padding=1, groups=48)
    assert joined(inputs, [y]) and len(names(inputs, [y])) == 1
    same_bits(inputs, [y], [[special(rng, t.shape) for t in inputs]])
    much = F.conv2d(graphc.minimum(graphc.maximum(before(x, s, b), 0.0), 6.0), w, padding=1, groups=48)
    assert not joined(inputs, [much])  # nine times
    assert not joined(inputs, [F.conv2d(graphc.tanh(x), w, padding=1, groups=48)])
    x, w, s, b = inputs = shaped([(4, 4, 8, 8), (4, 1, 3, 3), (4, 1, 1), (4, 1, 1)])
    assert not joined(inputs, [F.conv2d(before(x, s, b), w, padding=1, groups=4)])  # in the cache anyway
    x, w = inputs = shaped([("n", 48, 40, 40), (48, 1, 3, 3)])
    y = F.conv2d(x + 1, w, padding=1, groups=48)
    assert not joined(inputs, [y])  # of a number that is not known
    same_bits(inputs, [y], [[special(rng, (n, 48, 40, 40)), special(rng, (48, 1, 3, 3))] for n in (0, 1, 3)])


PADDINGS = [((5, 7), (9, 12), (2, 1)), ((0, 7), (3, 12), (1, 1)), ((1, 1), (3, 3), (1, 2)), ((4, 40), (4, 43), (0, 3))]


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool", "float64"])
@pytest.mark.parametrize("shape, wide, starts", PADDINGS)
def test_padding(
    shape: tuple[int, int], wide: tuple[int, int], starts: tuple[int, int], dtype: str, rng: np.random.Generator
) -> None:
    x, y = inputs = shaped([shape, wide], [dtype, dtype])
    one = graphc.logical_not(x) if dtype == "bool" else x - 3
    padded = unslice(one, wide, list(starts), [1, 1])
    arrays = [rng.integers(0, 2, t.shape).astype(dtype) for t in inputs]
    if dtype == "int32":
        arrays = [rng.integers(-(2**31), 2**31, t.shape).astype(dtype) for t in inputs]
    for outputs in ([padded], [graphc.where(padded == y, y, padded)]):
        same_bits(inputs, outputs, [arrays])


def test_named_sizes_and_transposes(rng: np.random.Generator) -> None:
    x, w, s = inputs = shaped([("n", 16, "h"), (24, 16, 5), (16, 1)])
    y = F.conv1d(x * s + 1, w, padding=2)
    arrays = [
        [special(rng, (n, 16, h)), special(rng, (24, 16, 5)), special(rng, (16, 1))]
        for n, h in ((0, 5), (1, 1), (3, 33))
    ]
    same_bits(inputs, [y], arrays)


def test_what_others_read_is_stored(rng: np.random.Generator) -> None:
    x, w, v = inputs = shaped([(1, 20, 20, 32), (3, 3, 32, 32), (5, 5, 32, 32)])
    y = graphc.maximum(x, 0.0)
    out = F.conv2d(y, w, padding=1, layout="NHWC")
    assert joined(inputs, [out]) and not joined(inputs, [out, y])
    assert not joined(inputs, [out, F.conv2d(y, v, padding=2, layout="NHWC")])
    small, k = shaped([(1, 30, 30, 3), (3, 3, 3, 32)])  # copies join the three channels with the pixels
    assert not joined([small, k], [F.conv2d(small * np.ones(3, np.float32) * 2, k, padding=1, layout="NHWC")])


def test_a_parameter_is_not_written_under_its_copy(rng: np.random.Generator) -> None:
    start = rng.standard_normal((70, 90)).astype(np.float32)
    found = []
    for disable in ("", "compute_operands,compute_copies"):
        p = graphc.parameter("p", start)
        with graphc.config(disable=disable):
            padded = unslice((p * 2)[:60, :80], (70, 90), [10, 10], [1, 1])
            step = graphc.function([], [], {p: p + padded})
        for _ in range(2):
            step()
        found.append(np.array(p.value))
    assert found[0].tobytes() == found[1].tobytes()
    expected = start.copy()
    for _ in range(2):
        expected = expected + np.pad(expected[:60, :80] * 2, ((10, 0), (10, 0)))
    np.testing.assert_array_equal(found[0], expected)


def test_it_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    x, w = inputs = shaped([(1, 20, 20, 32), (3, 3, 32, 32)])
    with graphc.config(log="fusion"):
        graphc.function(inputs, F.conv2d(graphc.maximum(x, 0.0), w, padding=1, layout="NHWC"))
    assert "computes f32[1,20,20,32] as it copies it" in capfd.readouterr().err
