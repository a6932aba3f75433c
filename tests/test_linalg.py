"""Linear algebra: NumPy's results, gradients by differences and PyTorch's, and singular matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import linalg
from graphc.build import Tensor, apply, placeholder
from graphc.errors import ArgumentError, DTypeError, GraphcError, ShapeError
from tests.array_checks import agree, differentiable

RNG = np.random.default_rng(11)


def general(*shape: int, dtype: str = "float64") -> np.ndarray:
    """Well-conditioned matrices whose rows elimination has to exchange."""
    n = shape[-1]
    x = RNG.uniform(-1, 1, shape) / max(n, 1) + 2 * np.eye(n)
    return np.ascontiguousarray(x[..., RNG.permutation(n), :]).astype(dtype)


def positive(*shape: int, dtype: str = "float64") -> np.ndarray:
    x = RNG.uniform(-1, 1, shape)
    return (x @ np.swapaxes(x, -1, -2) + np.eye(shape[-1])).astype(dtype)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 16, 33, 70])
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 2e-5), ("float64", 1e-12)])
def test_results_are_numpys(n: int, dtype: str, rtol: float) -> None:
    a, p = general(2, n, n, dtype=dtype), positive(2, n, n, dtype=dtype)
    b, v = RNG.standard_normal((2, n, 5)).astype(dtype), RNG.standard_normal(n).astype(dtype)
    line = RNG.standard_normal((2, n, 1)).astype(dtype)
    agree(
        lambda a, p, b, v, line: [
            linalg.cholesky(p), linalg.cholesky(p, upper=True), linalg.solve(a, b), linalg.solve(a, v),
            linalg.solve(a[0], line), linalg.inv(a), linalg.det(a), *linalg.slogdet(a),
        ],
        [
            np.linalg.cholesky(p), np.swapaxes(np.linalg.cholesky(p), -1, -2), np.linalg.solve(a, b),
            np.linalg.solve(a, v), np.linalg.solve(a[0], line), np.linalg.inv(a), np.linalg.det(a),
            *np.linalg.slogdet(a),
        ],
        a, p, b, v, line, rtol=rtol,
    )  # fmt: skip
    lower, upper = np.tril(a[:, RNG.permutation(n)]) + 2 * np.eye(n, dtype=dtype), np.triu(p) / n if n else p
    unit = np.tril(upper.swapaxes(-1, -2), -1) + np.eye(n, dtype=dtype)
    agree(
        lambda x, y, b, v: [
            linalg.solve_triangular(x, b, lower=True), linalg.solve_triangular(y, v),
            linalg.solve_triangular(y, b, unit_diagonal=True, trans=True),
            linalg.solve_triangular(x, v, lower=True, trans=True),
        ],
        [
            np.linalg.solve(lower, b), np.linalg.solve(upper, v), np.linalg.solve(unit, b),
            np.linalg.solve(lower.swapaxes(-1, -2), v),
        ],
        lower, upper, b, v, rtol=50 * rtol,
    )  # fmt: skip


def test_named_sizes_and_views() -> None:
    a, b = general(3, 5, 5), RNG.standard_normal((3, 5, 2))
    agree(
        lambda a, b: [linalg.solve(a, b), linalg.det(a), linalg.cholesky(a @ a.transpose(0, 2, 1)), linalg.trace(a)],
        [np.linalg.solve(a, b), np.linalg.det(a), np.linalg.cholesky(a @ a.transpose(0, 2, 1)),
         np.trace(a, axis1=1, axis2=2)],
        a, b, rtol=1e-12, named=True,
    )  # fmt: skip
    big = general(9, 9)
    agree(lambda x: linalg.inv(x[::-2, 1::2][:4]), np.linalg.inv(big[::-2, 1::2][:4]), big, rtol=1e-10)


def test_functions_of_diagonals_and_norms() -> None:
    x, v, w = RNG.standard_normal((2, 3, 5)), RNG.random((4, 3)), RNG.random(3)
    n = np.arange(12, dtype=np.int8).reshape(3, 4)
    offsets = range(-4, 6)
    agree(lambda x: [linalg.diagonal(x, offset=k) for k in offsets],
          [np.diagonal(x, k, 1, 2) for k in offsets], x)  # fmt: skip
    agree(lambda n: [linalg.trace(n), linalg.trace(n, offset=1), linalg.trace(n, dtype="float32")],
          [np.trace(n), np.trace(n, 1), np.trace(n).astype(np.float32)], n)  # fmt: skip
    agree(lambda v, w: [linalg.cross(v, w), linalg.cross(v.T, v.T * 2 + 1, axis=0)],
          [np.cross(v, w), np.cross(v.T, v.T * 2 + 1, axis=0)], v, w)  # fmt: skip
    orders: list[Any] = ["fro", 1, -1, np.inf, -np.inf]
    agree(lambda x: [linalg.matrix_norm(x, ord=o) for o in orders] + [linalg.matrix_norm(x, keepdims=True)],
          [np.linalg.norm(x, o, (1, 2)) for o in orders] + [np.linalg.norm(x, "fro", (1, 2), True)], x,
          rtol=1e-14)  # fmt: skip
    agree(lambda x: [linalg.vector_norm(x), linalg.vector_norm(x, axis=1, ord=3, keepdims=True)],
          [np.linalg.vector_norm(x), np.linalg.vector_norm(x, axis=1, ord=3, keepdims=True)], x,
          rtol=1e-14)  # fmt: skip
    a = general(3, 3)
    powers = (0, 1, 2, 5, -3)
    agree(lambda a: [linalg.matrix_power(a, k) for k in powers],
          [np.linalg.matrix_power(a, k) for k in powers], a, rtol=1e-12)  # fmt: skip


def test_singular_matrices_do_not_raise() -> None:
    zero, twice = np.zeros((3, 3)), np.array([[1.0, 2.0], [2.0, 4.0]])
    agree(lambda z, t: [linalg.det(z), linalg.det(t), *linalg.slogdet(t)],
          [np.float64(0), np.float64(0), np.float64(0), np.float64(-np.inf)], zero, twice,
          rtol=1e-15)  # fmt: skip
    x = placeholder("x", (2, 2), "float64")
    f = graphc.function([x], [linalg.solve(x, np.ones(2)), linalg.cholesky(x), linalg.inv(x)])
    with np.errstate(all="ignore"):
        solution, factor, inverse = f(twice)
        assert not np.isfinite(solution).any() and not np.isfinite(inverse).any()
        np.testing.assert_array_equal(factor, [[1, 0], [2, np.nan]])  # not definite: the second pivot is 0
        np.testing.assert_array_equal(f(-twice)[1], [[np.nan, 0], [np.nan, np.nan]])
        assert np.isnan(f(np.array([[np.nan, 1], [1, 2]]))[2]).all()
    triangle = np.array([[4.0, 99.0], [2.0, 5.0]])
    np.testing.assert_array_equal(f(triangle)[1], [[2, 0], [1, 2]])  # only the lower triangle is read


def test_threads_and_batches_change_no_bit() -> None:
    a = general(50, 12, 12, dtype="float32")
    x, one = placeholder("x", a.shape), placeholder("y", (12, 12))
    outputs = [linalg.inv(x), linalg.det(x), linalg.cholesky(x @ graphc.matrix_transpose(x))]
    found = [graphc.function([x], outputs, threads=n)(a) for n in (1, 2, 3)]
    alone = graphc.function([one], [linalg.inv(one), linalg.det(one), linalg.cholesky(one @ one.T)])
    for n in range(3):
        for other in found[1:]:
            np.testing.assert_array_equal(other[n], found[0][n])
        for k in (0, 17, 49):
            np.testing.assert_array_equal(alone(a[k])[n], found[0][n][k])


SMOOTH: list[tuple[Callable[..., Tensor], list[np.ndarray]]] = [
    (linalg.cholesky, [positive(4, 4)]),
    (lambda x: linalg.cholesky(x, upper=True), [positive(2, 3, 3)]),
    (linalg.solve, [general(4, 4), RNG.standard_normal((4, 2))]),
    (linalg.solve, [general(2, 3, 3), RNG.standard_normal(3)]),
    (linalg.inv, [general(3, 3)]),
    (linalg.det, [general(2, 4, 4)]),
    (lambda x: linalg.slogdet(x).logabsdet, [general(4, 4)]),
    (lambda a, b: linalg.solve_triangular(a, b, lower=True), [positive(3, 3), RNG.standard_normal((3, 2))]),
    (lambda a, b: linalg.solve_triangular(a, b, unit_diagonal=True, trans=True),
     [general(3, 3), RNG.standard_normal(3)]),
    (lambda x: linalg.matrix_power(x, -2), [general(3, 3)]),
    (lambda x: linalg.diagonal(x, offset=1), [general(4, 4)]),
    (linalg.cross, [RNG.standard_normal((2, 3)), RNG.standard_normal(3)]),
    (lambda x: linalg.matrix_norm(x, ord=1), [general(4, 4)]),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(SMOOTH)))
def test_gradients_of_first_and_second_order(case: int) -> None:
    build, arrays = SMOOTH[case]
    differentiable(build, *arrays)

    def gradient(*inputs: Tensor) -> Tensor:
        result = build(*inputs)
        return graphc.grad((result * result).sum(), inputs[0])

    differentiable(gradient, *arrays, compiled=False)


def test_forward_mode_and_vmap() -> None:
    a, b = general(4, 3, 3), RNG.standard_normal((4, 3))
    agree(lambda a, b: graphc.vmap(linalg.solve)(a, b), np.linalg.solve(a, b[..., None])[..., 0], a, b, rtol=1e-12)
    agree(lambda a: graphc.vmap(linalg.det)(a), np.linalg.det(a), a, rtol=1e-12)
    agree(lambda a: graphc.jvp(linalg.inv(a), [a], [a]), -np.linalg.inv(a[0]), a[0], rtol=1e-12)


def test_pytorch_agrees() -> None:
    torch = pytest.importorskip("torch")
    a, p, b = general(2, 5, 5), positive(2, 5, 5), RNG.standard_normal((2, 5, 3))
    mine = {n: placeholder(n, v.shape, "float64") for n, v in (("a", a), ("p", p), ("b", b))}
    theirs = {n: torch.tensor(v, requires_grad=True) for n, v in (("a", a), ("p", p), ("b", b))}
    cases: list[tuple[Callable[..., Any], Callable[..., Any], str]] = [
        (linalg.solve, torch.linalg.solve, "ab"),
        (linalg.det, torch.linalg.det, "a"),
        (lambda a: linalg.slogdet(a)[1], lambda a: torch.linalg.slogdet(a)[1], "a"),
        (linalg.inv, torch.linalg.inv, "a"),
        (lambda p: linalg.cholesky((p + graphc.matrix_transpose(p)) / 2), torch.linalg.cholesky, "p"),
        (lambda a, b: linalg.solve_triangular(a + graphc.eye(5, dtype="float64"), b, lower=True),
         lambda a, b: torch.linalg.solve_triangular((a + torch.eye(5)).tril(), b, upper=False), "ab"),
    ]  # fmt: skip
    for ours, others, names in cases:
        result, wanted = ours(*(mine[n] for n in names)), others(*(theirs[n] for n in names))
        weights = RNG.standard_normal(wanted.shape)
        gradients = graphc.grad((result * weights).sum(), [mine[n] for n in names])
        expected = torch.autograd.grad((wanted * torch.tensor(weights)).sum(), [theirs[n] for n in names])
        f = graphc.function([mine[n] for n in names], [result, *gradients])
        for found, want in zip(f(*({"a": a, "p": p, "b": b}[n] for n in names)), (wanted, *expected), strict=True):
            np.testing.assert_allclose(found, want.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("call, error, text", [
    (lambda x: linalg.cholesky(x), ShapeError, "cholesky: takes square matrices: x is f64.2,3"),
    (lambda x: linalg.det(x[0]), ShapeError, "det: takes matrices"),
    (lambda x: linalg.solve(x[:, :2], x.T), ShapeError, "solve: the sizes of the system differ"),
    (lambda x: linalg.solve(np.ones((2, 1, 1)), np.ones((3, 1, 1))), ShapeError, "the batch axes do not broadcast"),
    (lambda x: linalg.matrix_power(x[:, :2], 0.5), ArgumentError, "the power is an int, not 0.5"),
    (lambda x: linalg.matrix_norm(x, ord=2), ArgumentError, 'ord is "fro", 1, -1, inf or -inf, not 2'),
    (lambda x: linalg.cross(x, x.T), ShapeError, "cross: shapes do not broadcast"),
    (lambda x: linalg.cross(x, x, axis=0), ShapeError, "cross: vectors have 3 elements along axis 0"),
    (lambda x: linalg.diagonal(placeholder("y", ("n", 3))), ShapeError, "sizes that are not known only the main one"),
    (lambda x: apply("lu", x), ShapeError, "lu: takes square matrices"),
    (lambda x: apply("lu", x, x), ArgumentError, "takes 1 operand, not 2"),
    (lambda x: apply("solve_triangular", x[:, :2], x.astype("float32"), lower=True, unit=False), DTypeError,
     "one dtype"),
    (lambda x: apply("solve_triangular", x[:, :2], x[0], lower=True, unit=False), ShapeError,
     "another axis than the last"),
])  # fmt: skip
def test_errors_name_the_arguments(call: Any, error: type[GraphcError], text: str) -> None:
    with pytest.raises(error, match=text):
        call(placeholder("x", (2, 3), "float64"))
