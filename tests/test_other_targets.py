"""Code for AVX2 and SSE2, run on this machine: against NumPy and the interpreter, and on one and two threads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import interpret
from graphc.build import Tensor
from graphc.nn import functional as F
from graphc.target import Target
from tests.other_targets import HOST, NARROWER, narrowed
from tests.test_random_graphs import MODES, many

pytestmark = pytest.mark.parametrize("target", NARROWER)


@pytest.fixture(autouse=True)
def _on(target: Target) -> Iterator[None]:
    with narrowed(target):
        yield


def test_code_is_for_the_target(target: Target) -> None:
    x = graphc.placeholder("x", ("n",))
    text = graphc.function([x], graphc.exp(x)).ir("asm")
    assert "%zmm" not in text and ("%ymm" in text) == (target.vector_bytes == 32), text[:200]


def test_what_runs_is_code_for_the_target(target: Target, tmp_path: Path) -> None:
    """The machine's code and the target's from one cache, new and read again: only a fused sum sees x * x unrounded."""
    x = np.float32(1 + 2.0**-12)
    a, b = graphc.placeholder("a", (16, 2)), graphc.placeholder("b", (2, 64))
    left, right = np.tile([np.float32(1), x], (16, 1)), np.tile([[-(x * x)], [x]], (1, 64))

    def exact() -> bool:
        with graphc.config(cache=True, cache_dir=tmp_path):
            return bool(np.all(graphc.function([a, b], a @ b)(left, right) != 0))

    with narrowed(HOST):
        of_host = exact()
    assert [exact(), exact()] == [target.fma] * 2
    with narrowed(HOST):
        assert of_host == exact() == HOST.fma


def remainders(dtype: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of every distance of exponents, denormals, next to multiples of the divisor, and all special pairs."""
    info = np.finfo(dtype)
    low, high = math.frexp(float(info.smallest_subnormal))[1], info.maxexp + 1
    with np.errstate(over="ignore"):
        mantissas = rng.uniform(0.5, 1, (2, 30_000)).astype(dtype)
        x = np.ldexp(mantissas[0], rng.integers(low, high, 30_000))
        y = np.ldexp(mantissas[1], rng.integers(low, high, 30_000))
        near = np.ldexp(mantissas[1], np.frexp(x)[1] - rng.integers(0, 60, 30_000))
        whole = near * rng.integers(1, 2**52, 30_000).astype(dtype)
        whole = np.nextafter(whole, rng.choice(np.array([-np.inf, np.inf], dtype), 30_000))
        large = (info.max * (1 - rng.integers(0, 4, 30_000) * info.eps / 2)).astype(dtype)
        parts = (large / rng.integers(1, 2**40, 30_000).astype(dtype)).astype(dtype)
    special = np.array([0, 1, 1.5, info.max, info.tiny, info.smallest_subnormal, 3e-30, np.inf, np.nan], dtype)
    special = np.concatenate([special, -special])
    a, b = (part.ravel() for part in np.meshgrid(special, special))
    sign = rng.choice(np.array([-1, 1], dtype), (2, 120_000))
    tops, bottoms = np.concatenate([x, x, whole, large]), np.concatenate([y, near, near, parts])
    return np.concatenate([tops * sign[0], a]), np.concatenate([bottoms * sign[1], b])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_remainders_are_exact(dtype: str, rng: np.random.Generator) -> None:
    x, y = remainders(dtype, rng)
    a, b = (graphc.placeholder(name, ("n",), dtype) for name in "ab")
    function = graphc.function([a, b], [a % b, graphc.fmod(a, b), a // b])
    with np.errstate(all="ignore"):
        wanted = [np.remainder(x, y), np.fmod(x, y), np.floor_divide(x, y)]
    for found, want in zip(function(x, y), wanted, strict=True):
        np.testing.assert_array_equal(found, want)
        known = ~np.isnan(want)
        assert (np.signbit(found) == np.signbit(want))[known].all()


def agree(inputs: list[Tensor], outputs: list[Tensor], arrays: list[np.ndarray], rtol: float = 0.0) -> None:
    """Compiled as interpreted, within `rtol` of the largest element (0: the very bits), and the same on two threads."""
    function = graphc.function(inputs, outputs)
    with graphc.config(num_threads=1):
        found = [np.array(r) for r in function(*arrays)]
    with graphc.config(num_threads=2):
        again = [np.array(r) for r in function(*arrays)]
    feeds = {t.ref: a for t, a in zip(inputs, arrays, strict=True)}
    for got, other, want in zip(found, again, interpret.evaluate([t.ref for t in outputs], feeds), strict=True):
        assert got.tobytes() == other.tobytes()
        assert got.shape == want.shape and got.dtype == want.dtype
        if rtol == 0:
            np.testing.assert_array_equal(got, want)
        else:
            most = np.abs(want).max(initial=1e-30)
            np.testing.assert_allclose(got / most, want / most, rtol=0, atol=rtol)


def normal(rng: np.random.Generator, inputs: list[Tensor], **sizes: int) -> list[np.ndarray]:
    shapes = [tuple(n if isinstance(n, int) else sizes[str(n)] for n in t.shape) for t in inputs]
    return [rng.standard_normal(s).astype(t.dtype.numpy) for s, t in zip(shapes, inputs, strict=True)]


def with_gradients(inputs: list[Tensor], y: Tensor) -> list[Tensor]:
    return [y, *graphc.grad((y * y).sum(), inputs)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", ["NN", "NT", "TN"])
def test_products_with_epilogues(form: str, dtype: str, rng: np.random.Generator) -> None:
    for m, k, n in ((1, 7, 33), (37, 29, 53), (5, 130, 17), ("m", 31, 50)):
        a = graphc.placeholder("a", (k, m) if form[0] == "T" else (m, k), dtype)
        b = graphc.placeholder("b", (n, k) if form[1] == "T" else (k, n), dtype)
        bias = graphc.placeholder("bias", (n,), dtype)
        y = F.gelu((a.T if form[0] == "T" else a) @ (b.T if form[1] == "T" else b) + bias)
        for rows in (0, 1, 13, 67) if m == "m" else (0,):
            agree([a, b, bias], [y], normal(rng, [a, b, bias], m=rows), 1e-5 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("width", [48, 49, 52, 56, 57])
def test_attention(width: int, rng: np.random.Generator) -> None:
    """Values of widths around the edges of tiles, with and without a mask."""
    q, k = (graphc.placeholder(name, (2, 37, 19)) for name in "qk")
    v = graphc.placeholder("v", (2, 37, width))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=width % 2 == 0)
    agree([q, k, v], with_gradients([q, k, v], y) if width == 49 else [y], normal(rng, [q, k, v]), 1e-5)


def test_long_attention(rng: np.random.Generator) -> None:
    """Rows swept in blocks of columns."""
    q, k, v = graphc.placeholder("q", (5, 16)), graphc.placeholder("k", (8200, 16)), graphc.placeholder("v", (8200, 50))
    agree([q, k, v], [F.scaled_dot_product_attention(q, k, v)], normal(rng, [q, k, v]), 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows(dtype: str, rng: np.random.Generator) -> None:
    x = graphc.placeholder("x", ("n", 131), dtype)
    outputs = [F.softmax(x, -1), F.layer_norm(x, (131,)), x.sum(0), x.mean(1), graphc.logsumexp(x, 1), graphc.var(x, 0)]
    outputs += graphc.grad((F.softmax(x, -1) * F.layer_norm(x, (131,))).sum(), [x])
    agree([x], outputs, normal(rng, [x], n=23), 2e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("groups", [1, 12])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_convolutions(layout: str, groups: int, rng: np.random.Generator) -> None:
    x = graphc.placeholder("x", (2, 9, 11, 12) if layout == "NHWC" else (2, 12, 9, 11))
    w = graphc.placeholder("w", (3, 3, 12 // groups, 24) if layout == "NHWC" else (24, 12 // groups, 3, 3))
    y = F.conv2d(x, w, padding=1, groups=groups, layout=layout)
    agree([x, w], with_gradients([x, w], y), normal(rng, [x, w]), 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int64", "float16"])
def test_what_has_one_result(dtype: str, rng: np.random.Generator) -> None:
    """Transposes, places of extremes and, of whole numbers, running sums: to the bit."""
    x = graphc.placeholder("x", (5, 37, 23), dtype)
    outputs = [graphc.transpose(x, axes) + 1 for axes in ((0, 2, 1), (2, 1, 0), (1, 0, 2), (2, 0, 1))]
    outputs += [x.argmax(1), x.argmin(2), graphc.cumsum(x, 1), graphc.cumsum(x, 2), x.max(0), x[:, ::-1, 3:20:4]]
    agree([x], outputs, [rng.integers(-4, 5, (5, 37, 23)).astype(dtype)])


def test_narrow_floats(rng: np.random.Generator) -> None:
    """Every float16 and some float32 converted, also those that are no numbers; products of halves."""
    h, x = graphc.placeholder("h", (1 << 16,), "float16"), graphc.placeholder("x", (70_001,))
    outputs = [h.astype("float32"), h * 2, -h, x.astype("float16"), x.astype("float16") + 1]
    wide = (rng.standard_normal(70_001) * 2.0 ** rng.integers(-27, 18, 70_001)).astype("float32")
    agree([h, x], outputs, [np.arange(1 << 16, dtype="uint16").view("float16"), wide])
    a, b = graphc.placeholder("a", (19, 33), "float16"), graphc.placeholder("b", (33, 21), "float16")
    agree([a, b], [a @ b], normal(rng, [a, b]), 2e-3)


def test_a_training_step(rng: np.random.Generator) -> None:
    """Ten steps of a small network with momentum, as interpreted step by step."""
    x, t = graphc.placeholder("x", ("n", 13)), graphc.placeholder("t", ("n", 5))
    first = [rng.standard_normal(s).astype("float32") / 4 for s in ((13, 51), (51,), (51, 5))]
    parameters = [graphc.parameter(f"p{i}", a) for i, a in enumerate(first)]
    speeds = [graphc.parameter(f"s{i}", np.zeros_like(a)) for i, a in enumerate(first)]
    error = F.gelu(x @ parameters[0] + parameters[1]) @ parameters[2] - t
    loss = (error * error).mean()
    gradients = graphc.grad(loss, parameters)
    moved = [0.9 * s + g for s, g in zip(speeds, gradients, strict=True)]
    updates = dict(zip(speeds, moved, strict=True)) | {
        p: p - 0.05 * s for p, s in zip(parameters, moved, strict=True)
    }
    step = graphc.function([x, t], loss, updates=updates)
    arrays = normal(rng, [x, t], n=29)
    state = {p.ref: np.array(p.value) for p in updates}
    for _ in range(10):
        found = step(*arrays)
        feeds = state | {x.ref: arrays[0], t.ref: arrays[1]}
        results = interpret.evaluate([loss.ref, *(u.ref for u in updates.values())], feeds)
        np.testing.assert_allclose(found, results[0], rtol=1e-4)
        state = {p.ref: np.asarray(a) for p, a in zip(updates, results[1:], strict=True)}
    for p in updates:
        np.testing.assert_allclose(p.value, state[p.ref], rtol=1e-3, atol=1e-5)


def test_functions_are_within_their_errors(target: Target, rng: np.random.Generator) -> None:
    """Against float64, in units of the last place of float32."""
    x = graphc.placeholder("x", (40_003,))
    wide = graphc.placeholder("wide", (40_003,), "float64")
    values = (rng.standard_normal(40_003) * 3).astype("float32")
    functions = [graphc.exp, graphc.tanh, graphc.sin, graphc.erf, lambda v: graphc.log(graphc.abs(v)), graphc.sigmoid]
    narrow = graphc.function([x], [f(x) for f in functions])(values)
    exact = interpret.evaluate([f(wide).ref for f in functions], {wide.ref: values.astype("float64")})
    for got, want in zip(narrow, exact, strict=True):
        units = np.abs(got - want) / np.spacing(np.abs(want).astype("float32"))
        assert units.max() < (1.0 if target.fma else 1.5)


@pytest.mark.parametrize("mode", MODES)
def test_random_graphs(mode: str) -> None:
    many(range(3000, 3006), mode)
