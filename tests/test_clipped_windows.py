"""Windows that reach beyond an array: no padded copy, no product with the padding, the same values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc
from graphc import interpret
from graphc.build import Tensor, placeholder
from graphc.loops.clips import spans
from graphc.loops.problem import Clip, Operand, Outer, Problem
from graphc.loops.schedule import plan
from graphc.nn import functional as F
from graphc.target import AVX2, AVX512
from graphc.types import float32

Arrays = dict[Tensor, np.ndarray]


def agrees(results: list[Tensor], arrays: Arrays) -> list[graphc.Function]:
    """The compiled functions of the results, one each, after a comparison with the interpreter."""
    wanted = interpret.evaluate([t.ref for t in results], {t.ref: a for t, a in arrays.items()})
    made = []
    with graphc.config(verify=True, cache=False):
        for result, expected in zip(results, wanted, strict=True):
            function = graphc.function(list(arrays), result)
            np.testing.assert_allclose(function(*arrays.values()), expected, rtol=1e-10, atol=1e-10)
            made.append(function)
    return made


def convolution(
    images: tuple[int, ...], weights: tuple[int, ...], layout: str, rng: np.random.Generator, **how: Any
) -> tuple[list[Tensor], Arrays]:
    """The result and both gradients of a convolution, with values for all arguments."""
    x, w = placeholder("x", images, "float64"), placeholder("w", weights, "float64")
    y = (F.conv1d if len(images) == 3 else F.conv2d)(x, w, layout=layout, **how)
    g = placeholder("g", y.shape, "float64")
    arrays = {t: rng.standard_normal(tuple(map(int, t.shape))) for t in (x, w, g)}
    return [y, *graphc.vjp(y, [x, w], g)], arrays


@pytest.mark.parametrize(
    "images, weights, how, copies",
    [
        ((9, 6, 5, 8), (3, 3, 8, 4), {"padding": 1}, [0, 0, 0]),
        ((9, 5, 7, 9), (3, 4, 9, 4), {"padding": (2, 3), "stride": (1, 2), "dilation": (2, 1)}, [0, 0, 0]),
        ((8, 7, 6, 8), (1, 1, 8, 3), {"padding": 1}, [0, 0, 0]),
        ((9, 5, 3, 8), (3, 3, 8, 4), {"padding": 1}, [0, 0, 0]),  # lines of windows are whole lines, yet no single run
        ((33, 3, 3, 16), (3, 3, 16, 16), {"padding": 1}, [0, 0, 0]),
        ((2, 33, 30, 6), (3, 5, 1, 6), {"padding": (1, 4), "groups": 6}, [0, 0, 0]),
        ((2, 6, 40, 3), (3, 3, 1, 3), {"padding": 1, "groups": 3, "stride": 2}, [0, 0, 0]),
        ((9, 8, 32, 32), (3, 3, 32, 4), {"padding": 1}, [0, 0, 0]),  # images at 64 KB: lines are rows, clipped ones
        ((1, 6, 5, 8), (3, 3, 8, 4), {"padding": 1}, [1, 1, 0]),  # a single image has no rows that are not clipped
    ],
)
def test_no_copy_is_padded(
    images: tuple[int, ...], weights: tuple[int, ...], how: dict[str, Any], copies: list[int], rng: np.random.Generator
) -> None:
    """Kernels that are nothing but a padded copy, in the forward function and those of both gradients."""
    functions = agrees(*convolution(images, weights, "NHWC", rng, **how))
    for function, padded in zip(functions, copies, strict=True):
        assert function.ir("program").count("= unslice_") == padded


def test_names_for_all_sizes(rng: np.random.Generator) -> None:
    x, w = placeholder("x", ("n", "h", "w", 8), "float64"), placeholder("w", (3, 3, 8, 4), "float64")
    y = F.conv2d(x, w, padding=2, layout="NHWC")
    gx, gw = graphc.grad((y * y).sum(), [x, w])
    with graphc.config(cache=False):
        step = graphc.function([x, w], [y, gx, gw])
    for n, h, width in ((9, 4, 5), (1, 1, 2), (17, 6, 1), (3, 33, 2), (0, 3, 3)):
        a, b = rng.standard_normal((n, h, width, 8)), rng.standard_normal((3, 3, 8, 4))
        wanted = interpret.evaluate([y.ref, gx.ref, gw.ref], {x.ref: a, w.ref: b})
        for found, expected in zip(step(a, b), wanted, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("named", [(0, 0, 1), (1, 0, 1), (1, 1, 0), (0, 1, 1)])
@pytest.mark.parametrize(
    "inside, outside, groups, how",
    [
        (16, 16, 16, {"padding": 1}),
        (16, 2, 1, {"padding": 1}),
        (16, 3, 1, {"padding": 2, "dilation": 2}),
        (16, 6, 2, {"padding": 2}),
        (8, 8, 8, {"padding": (1, 2), "stride": 2}),
    ],
)
def test_names_for_some_sizes(
    named: tuple[int, ...], inside: int, outside: int, groups: int, how: dict[str, Any], rng: np.random.Generator
) -> None:
    """Rows of tiles that are lines of a window lack steps of a loop that may run around blocks of named length."""
    shape = [name if is_name else n for name, n, is_name in zip("nhw", (2, 8, 9), named, strict=True)]
    x = placeholder("x", (*shape, inside), "float64")
    w = placeholder("w", (3, 3, inside // groups, outside), "float64")
    y = F.conv2d(x, w, groups=groups, layout="NHWC", **how)
    results = [y, *graphc.grad(graphc.sin(y).sum(), [x, w])]
    with graphc.config(guard_memory=True, verify=True, cache=False):
        step = graphc.function([x, w], results)
    for sizes in ((2, 8, 9), (9, 3, 4), (1, 17, 2), (3, 2, 400)):
        lead = [n if is_name else m for n, m, is_name in zip(sizes, (2, 8, 9), named, strict=True)]
        if all(n + 2 * p > 2 * how.get("dilation", 1) for n, p in zip(lead[1:], np.broadcast_to(how["padding"], 2))):
            a, b = rng.standard_normal((*lead, inside)), rng.standard_normal((3, 3, inside // groups, outside))
            wanted = interpret.evaluate([result.ref for result in results], {x.ref: a, w.ref: b})
            for found, expected in zip(step(a, b), wanted, strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("images", [(1, 8, 1, 16), (3, 8, 2, 16)])
def test_rows_and_batch_elements_lack_steps_of_one_loop(images: tuple[int, ...], rng: np.random.Generator) -> None:
    """With one result across, no loop is left for it, and whether a row has it counts for the loop over the lines."""
    with graphc.config(guard_memory=True):
        agrees(*convolution(images, (3, 3, 1, 16), "NHWC", rng, padding=1, stride=2, groups=16))


@pytest.mark.parametrize("shape", [("n", 1, "w", 16), ("n", 1, 7, 16), (2, 1, "w", 64)])
def test_a_single_line_of_named_length(shape: tuple[Any, ...], rng: np.random.Generator) -> None:
    """Which lines of a window meet the only line of an image is known, though no summed loop has a known length."""
    x, w = placeholder("x", shape, "float64"), placeholder("w", (3, 3, shape[-1], 2), "float64")
    y = F.conv2d(x, w, padding=1, layout="NHWC")
    results = [y, *graphc.grad(graphc.sin(y).sum(), [x, w])]
    with graphc.config(guard_memory=True, verify=True, cache=False):
        step = graphc.function([x, w], results)
    a, b = rng.standard_normal((2, 1, 7, shape[-1])), rng.standard_normal(tuple(map(int, w.shape)))
    wanted = interpret.evaluate([result.ref for result in results], {x.ref: a, w.ref: b})
    for found, expected in zip(step(a, b), wanted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_the_padding_meets_no_weight(rng: np.random.Generator) -> None:
    """An infinite weight reaches what it is multiplied with, and not the results whose window has padding there."""
    x, w = placeholder("x", (8, 4, 4, 8), "float32"), placeholder("w", (3, 3, 8, 16), "float32")
    a, b = rng.random((8, 4, 4, 8), np.float32) + 1, rng.random((3, 3, 8, 16), np.float32)
    b[0, 1] = np.inf
    with graphc.config(cache=False):
        found = graphc.function([x, w], F.conv2d(x, w, padding=1, layout="NHWC"))(a, b)
    assert np.isinf(found[:, 1:]).all()
    assert np.isfinite(found[:, 0]).all()


sizes = st.integers(1, 9)


@given(data=st.data(), groups=st.sampled_from([1, 1, 2, 3]), layout=st.sampled_from(["NHWC", "NHWC", "NCHW"]))
@settings(max_examples=20, deadline=None)
def test_any_convolution(data: st.DataObject, groups: int, layout: str) -> None:
    """Odd sizes, strides, paddings, dilations, groups and layouts, one and two axes, against the interpreter."""
    rank = data.draw(st.integers(1, 2))
    taps = [data.draw(st.integers(1, 4)) for _ in range(rank)]
    holes, strides = ([data.draw(st.integers(1, 3)) for _ in range(rank)] for _ in range(2))
    padding = [data.draw(st.integers(0, 3)) for _ in range(rank)]
    side = [
        max(1, d * (t - 1) + 1 - 2 * p) + data.draw(st.integers(0, 14))
        for t, d, p in zip(taps, holes, padding, strict=True)
    ]
    inside, outside = data.draw(st.sampled_from([1, 3, 8])), data.draw(st.sampled_from([1, 2, 17]))
    n = data.draw(st.sampled_from([1, 2, 9]))
    if layout == "NHWC":
        images, weights = (n, *side, inside * groups), (*taps, inside, outside * groups)
    else:
        images, weights = (n, inside * groups, *side), (outside * groups, inside, *taps)
    name = layout if rank == 2 else {"NHWC": "NLC", "NCHW": "NCL"}[layout]
    how = {"stride": strides, "padding": padding, "dilation": holes, "groups": groups}
    agrees(*convolution(images, weights, name, np.random.default_rng(0), **how))


@given(
    count=st.integers(1, 60), taps=st.integers(1, 7), u=st.integers(1, 3), by=st.integers(1, 3),
    before=st.integers(0, 9), extent=st.integers(1, 60), inner=st.integers(1, 3),
)  # fmt: skip
def test_segments_are_the_steps_that_count(
    count: int, taps: int, u: int, by: int, before: int, extent: int, inner: int
) -> None:
    """Each row of each tile gets the steps whose place exists, each once, in order."""
    clip = Clip(0, None, u, by, inner, before, extent)
    a, b = Operand("a", 0, (), 1, 1), Operand("b", 0, (), 1, 1)
    problem = Problem(float32, (), count, 16, 8, a, b, (Outer(taps * inner, 1, 1),), (clip,))
    for target in (AVX2, AVX512):
        schedule, row = plan(problem, target), 0
        for span in spans(problem, schedule):
            for _ in range(span.start, span.stop):
                for r in range(span.height):
                    wanted = [k for k in range(taps * inner) if 0 <= u * row + by * (k // inner) - before < extent]
                    found = list(range(taps * inner))
                    if span.segments is not None:
                        found = [k for s in span.segments.parts if r in s.rows for k in range(s.start, s.stop)]
                    assert found == wanted
                    row += 1
        assert row == count


def test_tiles_at_a_border_are_the_lower_ones() -> None:
    """Those between them are one piece of code."""
    a, b = Operand("a", 0, (), 64, 1), Operand("b", 0, (), 64, 1)
    clip = Clip(0, None, 1, 1, 1, 1, 32)  # a window of 3 over lines of 32 with a padding of 1
    problem = Problem(float32, (), 32, 64, 64, a, b, (Outer(3, 64, 4096),), (clip,))
    found = [(span.start, span.stop, span.height) for span in spans(problem, plan(problem, AVX512))]
    assert found == [(0, 1, 4), (1, 5, 6), (5, 6, 4)]
