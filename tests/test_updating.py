"""Writing at positions: `x.at[key]` and `scatter` against NumPy's assignments and ufunc.at, errors and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.build import Tensor, parameter, placeholder
from graphc.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from tests.array_checks import agree, differentiable

A = np.arange(60.0).reshape(3, 4, 5) - 20
P, Q = np.array([[0, 2], [-1, 1]]), np.array([1, -3, 1])
KEYS: list[Any] = [
    0, -1, (slice(1, None), ..., slice(None, None, -2)), (None, 1, slice(0, 0)), (..., 2), slice(None), P, (P, Q[:2]),
    (slice(None), Q), (slice(None), 1, Q), (0, Q, slice(1, 3)), A > 7, (Q, None), [], (slice(2), slice(None), Q),
]  # fmt: skip
UFUNCS = {"set": None, "add": np.add, "max": np.maximum, "min": np.minimum}


def changed(mode: str, array: np.ndarray, key: Any, values: Any) -> np.ndarray:
    result, ufunc = array.copy(), UFUNCS[mode]
    if ufunc is None:
        result[key] = values
    else:
        ufunc.at(result, key, np.broadcast_to(values, result[key].shape))
    return result


@pytest.mark.parametrize("mode", list(UFUNCS))
def test_at_any_key_is_numpys(mode: str) -> None:
    rng = np.random.default_rng(4)
    values = [rng.normal(size=A[key].shape) * 30 for key in KEYS]

    def build(a: Tensor) -> list[Tensor]:
        made = [getattr(a.at[key], mode)(v) for key, v in zip(KEYS, values, strict=True)]
        return [*made, getattr(a.at[P], mode)(-1.5), getattr(a.at[1:], mode)(a[0, :1] * 2)]

    wanted = [changed(mode, A, key, v) for key, v in zip(KEYS, values, strict=True)]
    agree(build, [*wanted, changed(mode, A, P, -1.5), changed(mode, A, slice(1, None), A[0, :1] * 2)], A)


def test_at_with_tensors_and_named_sizes() -> None:
    v = np.linspace(3, 4, 20)
    agree(
        lambda a, p, q, v: [
            a.at[q].set(0.5), a.at[p, q[:2]].add(v[:5]), a.at[0].max(v.reshape(4, 5)), a.at[:, 1:3].set(7),
            a.at[:, q].get(), a.at[0, 1, 2].set(v[0]),
        ],
        [
            changed("set", A, Q, 0.5), changed("add", A, (P, Q[:2]), v[:5]), changed("max", A, 0, v.reshape(4, 5)),
            changed("set", A, (slice(None), slice(1, 3)), 7), A[:, Q], changed("set", A, (0, 1, 2), v[0]),
        ],
        A, P, Q, v,
    )  # fmt: skip
    wanted = [changed("set", A, 0, 1), changed("add", A, Q, 2), changed("set", A, (-1, Q), 3)]
    agree(lambda a, q: [a.at[0].set(1), a.at[q].add(2), a.at[-1, q].set(3)], wanted, A, Q, named=True)


def test_scatter_and_other_dtypes() -> None:
    n, b = np.array([[1, 2, 3], [4, 5, 6]], np.int8), np.array([True, False, False])
    i = np.array([[0, 2], [2, 2]])
    agree(
        lambda n, b, i: [
            graphc.scatter(n, i, [[9, 8], [7, 6]], 1), graphc.scatter(n, i, 100, 1, "add"),
            b.at[[0, 1, 1]].set([False, False, True]), b.at[2:].max(True), graphc.scatter(b, i[0], False, 0, "min"),
        ],
        [
            np.array([[9, 2, 8], [4, 5, 6]], np.int8), np.array([[101, 2, 103], [4, 5, -50]], np.int8),
            np.array([False, True, False]), np.array([True, False, True]), np.array([False, False, False]),
        ],
        n, b, i,
    )  # fmt: skip


def test_errors() -> None:
    x, i = placeholder("x", (3, 4)), placeholder("i", ("k",), "int64")
    f = graphc.function([x, i], x.at[i].set(1))
    with pytest.raises(IndexRangeError, match=r"scatter_set(.|\n)*test_updating.py"):
        f(np.zeros((3, 4), np.float32), np.array([0, 3]))
    with pytest.raises(IndexRangeError, match=r"x.at\[...\]: index 4 is out of range for axis 1 of x"):
        x.at[:, [4]].set(1)
    with pytest.raises(ShapeError, match=r"x.at\[...\]: .* the place has shape \[4\]"):
        x.at[0].set(np.zeros((2, 4), np.float32))
    with pytest.raises(DTypeError, match="that narrows"):
        x.at[0].set(np.zeros(4))
    with pytest.raises(ArgumentError, match="scatter: mode is one of set, add, mul, max, min, not 'pow'"):
        graphc.scatter(x, i[None], 1, 0, "pow")


def test_a_parameter_is_not_changed_by_a_failed_update() -> None:
    w, i = parameter("w", np.zeros(4, np.float32)), placeholder("i", (2,), "int64")
    f = graphc.function([i], [], updates={w: w.at[i].add(1)})
    f(np.array([1, -1]))
    np.testing.assert_array_equal(w.value, [0, 1, 0, 1])
    with pytest.raises(IndexRangeError):
        f(np.array([1, 4]))
    np.testing.assert_array_equal(w.value, [0, 1, 0, 1])


def test_gradients() -> None:
    x, v, i = np.linspace(-1, 2, 8), np.array([0.3, -0.6, 1.1, 0.7]), np.array([1, 5, -1, 5])
    for mode in UFUNCS:
        differentiable(lambda x, v, i, mode=mode: getattr((x * x).at[i], mode)(v * v) * x, x, v, i)
        differentiable(lambda x, v, mode=mode: getattr(x.at[1:8:2], mode)(v) * x, x, v)
