"""Functions made of reductions against NumPy: values, NaN, empty arrays, named sizes and gradients."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.build import placeholder
from graphc.errors import ShapeError
from tests.array_checks import agree, differentiable

A = np.array([[1.5, -2.0, 0.0, 4.25], [0.0, -0.0, 0.0, 0.0], [np.nan, 1.0, np.inf, 2.0]])
M = np.linspace(-2, 3, 60).reshape(3, 4, 5) ** 2


def test_spread() -> None:
    agree(
        lambda m: [
            graphc.var(m), graphc.var(m, 1, 1), graphc.var(m, (0, 2), keepdims=True), graphc.std(m, -1, 1),
            graphc.std(m), graphc.var(m.astype("int8"), 0), graphc.var(m > 1), graphc.std(m.astype("float32"), 2),
        ],
        [
            np.var(M), np.var(M, 1, ddof=1), np.var(M, (0, 2), keepdims=True), np.std(M, -1, ddof=1), np.std(M),
            np.var(M.astype("int8"), 0), np.var(M > 1), np.std(M.astype("float32"), 2),
        ],
        M, rtol=1e-6,
    )  # fmt: skip
    agree(lambda m: [graphc.var(m, 0), graphc.std(m, (1, 2), 1)], [np.var(M, 0), np.std(M, (1, 2), ddof=1)],
          M, rtol=1e-13, named=True)  # fmt: skip
    agree(lambda m: [graphc.var(m, 1, 1), graphc.std(m[:0])], [np.full(3, np.nan), np.array(np.nan)], M[0, :3, :1])


def test_norms() -> None:
    kinds = [None, 1, 2, 3, 0.5, np.inf, -np.inf, 0]
    with np.errstate(all="ignore"):
        wanted = [np.linalg.norm(A, k, 1) for k in kinds] + [np.linalg.norm(A[:2].ravel()), np.linalg.norm(M, axis=1)]
        agree(
            lambda a, m: [graphc.norm(a, k, 1) for k in kinds] + [graphc.norm(a[:2]), graphc.norm(m, axis=1)],
            wanted, A, M, rtol=1e-14,
        )  # fmt: skip


def test_counts_and_differences() -> None:
    b = A > 0
    agree(
        lambda a, b, m: [
            graphc.count_nonzero(a), graphc.count_nonzero(a, 1, keepdims=True), graphc.count_nonzero(b, 0),
            graphc.diff(a), graphc.diff(m, 2, 1), graphc.diff(b), graphc.diff(a, 0), graphc.diff(a, 9),
            graphc.any(a, 1), graphc.all(a, 1), graphc.prod(m, 1), graphc.logsumexp(m, 0),
        ],
        [
            np.array(np.count_nonzero(A)), np.count_nonzero(A, 1, keepdims=True), np.count_nonzero(b, 0), np.diff(A),
            np.diff(M, 2, 1), np.diff(b), A, A[:, :0], np.any(A, 1), np.all(A, 1), np.prod(M, 1),
            np.log(np.sum(np.exp(M), 0)),
        ],
        A, b, M, rtol=1e-15,
    )  # fmt: skip
    with pytest.raises(ShapeError, match="diff: -1 times: x is"):
        graphc.diff(placeholder("x", (2,)), -1)


def test_gradients() -> None:
    x = np.array([[1.2, -0.7, 2.5], [0.3, 0.9, -1.1]])
    differentiable(lambda x: graphc.var(x, 1, 1) * graphc.std(x), x)
    differentiable(
        lambda x: graphc.norm(x, axis=0) + graphc.norm(x, 3) + graphc.norm(x, 1, 0) + graphc.norm(x, np.inf), x
    )
    differentiable(lambda x: graphc.diff(x * x, 2), x)


def test_the_gradient_of_norm_and_std_at_zero_is_zero() -> None:
    x = placeholder("x", (3,), "float64")
    for made in (graphc.norm(x), graphc.std(x), graphc.norm(x, 3), graphc.norm(x, 1)):
        (first,) = [graphc.grad(made, x)]
        second = graphc.grad(first.sum(), x)
        np.testing.assert_array_equal(first.eval({x: np.zeros(3)}), 0)
        np.testing.assert_array_equal(second.eval({x: np.zeros(3)}), 0)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_the_position_in_a_named_size_that_is_0_is_0(name: str, axis: int | None) -> None:
    x = graphc.placeholder("x", ("m", "n"))
    best = getattr(graphc, name)(x, axis=axis)
    fn = graphc.function([x], best)
    for shape in ((3, 0), (0, 3), (0, 0), (17, 3)):
        array = np.ones(shape, "float32")
        result = fn(array)
        np.testing.assert_array_equal(result, best.eval({x: array}))
        assert not result.any()
