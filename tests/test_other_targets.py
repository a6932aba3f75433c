"""Code for AVX2 and SSE2, run on this machine: against NumPy and the interpreter, and on one and two threads."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

import graphc
from graphc.target import Target
from tests.other_targets import NARROWER, narrowed

pytestmark = pytest.mark.parametrize("target", NARROWER)


@pytest.fixture(autouse=True)
def _on(target: Target) -> Iterator[None]:
    with narrowed(target):
        yield


def test_code_is_for_the_target(target: Target) -> None:
    x = graphc.placeholder("x", ("n",))
    text = graphc.function([x], graphc.exp(x)).ir("asm")
    assert "%zmm" not in text and ("%ymm" in text) == (target.vector_bytes == 32), text[:200]


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
