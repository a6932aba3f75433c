"""Elementwise functions that are compositions, and bits of integers: NumPy's results, to the bit."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.build import constant, placeholder
from graphc.errors import DTypeError
from tests.array_checks import agree, differentiable

SPECIAL = np.array([0.0, -0.0, 1.5, -2.5, 0.5, 3.5, np.inf, -np.inf, np.nan, -np.nan, 1e-40, -3.0, 7.25])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_floats_are(dtype: str) -> None:
    x = SPECIAL.astype(dtype)
    with np.errstate(all="ignore"):
        wanted = [
            np.isfinite(x), np.isinf(x), np.isnan(x), np.signbit(x), np.round(x), np.rint(x), np.trunc(x),
            np.round(x, 1), np.round(x, -1), np.nan_to_num(x), np.nan_to_num(x, nan=2, posinf=3, neginf=-1),
            np.clip(x, -1, 2), np.square(x), +x, np.logical_not(x),
        ]  # fmt: skip
    agree(
        lambda x: [
            graphc.isfinite(x), graphc.isinf(x), graphc.isnan(x), graphc.signbit(x), graphc.round(x), graphc.rint(x),
            graphc.trunc(x), graphc.round(x, 1), graphc.round(x, -1), graphc.nan_to_num(x),
            graphc.nan_to_num(x, nan=2, posinf=3, neginf=-1), graphc.clip(x, -1, 2), graphc.square(x),
            graphc.positive(x), graphc.logical_not(x),
        ],
        wanted,
        x,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int64", "uint16"])
def test_fmod_is_cs(dtype: str) -> None:
    values = SPECIAL if dtype.startswith("f") else np.array([0, 1, 7, -7, 3, -128, 127, -1])
    a, b = (m.ravel().astype(dtype) for m in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        agree(graphc.fmod, np.fmod(a, b), a, b)


def test_of_integers_and_bools() -> None:
    n, b = np.array([-128, -1, 0, 127], np.int8), np.array([True, False])
    u = np.array([0, 7, 255], np.uint8)
    agree(
        lambda n, b, u: [
            graphc.isfinite(n), graphc.isinf(b), graphc.signbit(n), graphc.signbit(u), graphc.round(n), graphc.abs(n),
            graphc.nan_to_num(n), graphc.copysign(n, -1.0), graphc.logical_and(n, 1), graphc.sign(u),
        ],
        [
            np.isfinite(n), np.isinf(b), n < 0, np.zeros(3, bool), n, np.abs(n), n,
            np.copysign(n, -1.0), np.logical_and(n, 1), np.sign(u),
        ],
        n, b, u,
    )  # fmt: skip
    with pytest.raises(DTypeError, match="round: -1 decimals of x"):
        graphc.round(placeholder("x", (2,), "int8"), -1)


OPERATORS = [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift]


@pytest.mark.parametrize("function", OPERATORS, ids=lambda f: f.__name__)
def test_bit_operators_are_numpys(function: Any) -> None:
    a = np.array([-128, -7, -1, 0, 1, 5, 100, 127], np.int8)
    b = np.array([0, 1, 2, 3, 7, 8, 200, 255], np.uint8)
    agree(
        lambda a, b: [function(a, b), function(a, 3), function(3, a), function(a > 0, b), function(a > 0, b > 2)],
        [function(a, b), function(a, 3), function(3, a), function(a > 0, b), function(a > 0, b > 2)],
        a, b,
    )  # fmt: skip
    agree(lambda a, b: [~a, ~b, ~(a > 0)], [~a, ~b, ~(a > 0)], a, b)
    with pytest.raises(DTypeError, match=r"bitwise_\w+: not defined for float32"):
        function(constant(np.float32(1)), a)


def test_gradients() -> None:
    x, y = np.array([1.3, -0.4, 2.6, -7.2]), np.array([0.7, 1.1, -0.8, -2.5])
    differentiable(graphc.copysign, x, y)
    differentiable(graphc.fmod, x, y)
    differentiable(lambda x: graphc.round(x) + graphc.trunc(x) + x * graphc.nan_to_num(x), x)
    differentiable(lambda x: graphc.clip(x, -1, 2), x)
