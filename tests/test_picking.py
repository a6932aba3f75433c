"""Reading at positions: `x[...]` with arrays and masks, `take`, `gather`, as NumPy; errors of indices out of range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc
from graphc.build import Tensor, placeholder
from graphc.errors import DTypeError, IndexRangeError, ShapeError
from tests.array_checks import agree, differentiable

A = np.arange(60.0).reshape(3, 4, 5)
P, Q = np.array([[0, 2], [-1, 1]]), np.array([1, -3])

KEYS: list[Any] = [
    P, (P, Q), (slice(None), P), (..., Q), (slice(1, None), None, Q, slice(None, None, -2)), (P, slice(None), Q),
    (0, Q), (Q, 1), (0, slice(None), Q), (slice(None), 1, Q), (None, Q, ..., Q), [2, 0], (..., None, [1]),
    A[:, 0, 0] > 10, A > 31, (slice(None), A[0] % 2 == 0), (A[:, 0, 0] > 10, 1), [], (np.int64(1), np.array(2)),
]  # fmt: skip


def test_keys_with_arrays_are_numpys() -> None:
    agree(lambda a: [a[key] for key in KEYS], [A[key] for key in KEYS], A)
    agree(
        lambda a: [a[Q], a[:, Q], a[P, Q]],
        [A[Q], A[:, Q], A[P, Q]],
        A,
        named=True,
    )


_index = st.one_of(
    st.integers(-3, 2),
    st.none(),
    st.just(Ellipsis),
    st.builds(slice, st.none() | st.integers(-3, 3), st.none() | st.integers(-3, 3)),
    st.lists(st.integers(-3, 2), min_size=2, max_size=2).map(np.array),
    st.lists(st.integers(-3, 2), min_size=6, max_size=6).map(lambda v: np.array(v).reshape(3, 2)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_index, min_size=1, max_size=4))
def test_any_key_is_numpys(key: list[Any]) -> None:
    array = np.arange(27.0).reshape(3, 3, 3)
    x, parts = placeholder("x", (3, 3, 3), "float64"), tuple(key)
    tensors = tuple(graphc.constant(p) if isinstance(p, np.ndarray) else p for p in parts)
    try:
        expected = array[parts]
    except IndexError:
        with pytest.raises(ShapeError):
            x[parts]
        return
    for made in (x[parts], x[tensors]):
        np.testing.assert_array_equal(made.eval({x: array}), expected)


def test_indices_that_are_tensors() -> None:
    u = np.array([3, 0], np.uint8)
    agree(
        lambda a, i, j, u: [
            a[i], a[i, j], a[:, u], a[..., j], graphc.take(a, i, 1), graphc.take(a, u), graphc.take(a, i[0, 0], 2),
            a[i[0, 0]], a[0, j, ::2], graphc.gather(a, u.reshape(1, 2, 1), 1), graphc.take(a * 2, i, 0).sum(0),
        ],
        [
            A[P], A[P, Q], A[:, u], A[..., Q], np.take(A, P, 1), np.take(A, u), np.take(A, P[0, 0], 2), A[P[0, 0]],
            A[0, Q, ::2], A[:, u], np.take(A * 2, P, 0).sum(0),
        ],
        A, P, Q, u,
    )  # fmt: skip
    agree(lambda a, i: [a[i], graphc.take(a, i, 2)], [A[P], np.take(A, P, 2)], A, P, named=True)


def test_out_of_range() -> None:
    x, i, j = placeholder("x", (3, 4)), placeholder("i", ("k",), "int64"), placeholder("j", ("k",), "int64")
    for key in ([3], (0, [-5]), np.array([[1], [7]])):
        with pytest.raises(IndexRangeError, match=r"x\[\.\.\.\]: index -?\d is out of range for axis \d of x \(f32"):
            x[key]
    array, zeros = np.zeros((3, 4), np.float32), np.zeros(2, np.int64)
    for made, bad in ((x[i], [0, -4]), (x[i], [3, 0]), (graphc.take(x, i, 1), [0, 4])):
        f = graphc.function([x, i], made)
        with pytest.raises(IndexRangeError, match="take_along_axis"):
            made.eval({x: array, i: np.array(bad)})
        with pytest.raises(IndexRangeError, match="take_along_axis") as caught:
            f(array, np.array(bad))
        assert "test_picking.py" in str(caught.value)
    both = graphc.function([x, i, j], x[i, j])
    with pytest.raises(IndexRangeError):  # position 0 * 4 + 5 is one of the array's
        both(array, zeros, np.array([0, 5]))
    with pytest.raises(DTypeError, match=r"a mask must be constant"):
        x[x > 0]
    with pytest.raises(DTypeError, match=r"indices must be integers: x is f32"):
        x[x]
    with pytest.raises(ShapeError, match="do not broadcast"):
        x[[0, 1], [0, 1, 2]]
    with pytest.raises(ShapeError, match=r"a mask of shape \[2\]"):
        x[np.array([True, False])]


def test_gradients() -> None:
    a, i = np.linspace(-1, 2, 12).reshape(3, 4), np.array([[0, 2, 2], [1, -1, 0]])

    def build(a: Tensor, i: Tensor) -> Tensor:
        return (
            graphc.take(a * a, i, 1).sum(2) * a[i[0, :2]][:, :1].sum() + a[a.shape[0] - 1, [0, 3]] * a[[0, 1], [1, 1]]
        )

    differentiable(build, a, i)
