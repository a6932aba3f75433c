"""Kinks and poles: the documented subgradients (docs/differentiation.md); no NaN from a branch that is not taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import Tensor, ops
from graphc.autodiff import grad, jvp
from graphc.build import apply, placeholder
from graphc.graph import topological_order
from graphc.interpret import evaluate

inf, nan = np.inf, np.nan


def derivative(f: Callable[..., Tensor], *at: Any) -> list[np.ndarray]:
    """The gradients of sum(f(...)) at the arrays, which forward mode confirms element by element."""
    arrays = [np.asarray(a, np.float64) for a in at]
    tensors = [placeholder(f"x{i}", a.shape, "float64") for i, a in enumerate(arrays)]
    feeds = {t.ref: a for t, a in zip(tensors, arrays)}
    loss = ops.sum(f(*tensors))
    found = evaluate([g.ref for g in grad(loss, tensors, unused="zero")], feeds)
    for i, tensor in enumerate(tensors):
        for index in np.ndindex(arrays[i].shape):
            direction = np.zeros(arrays[i].shape)
            direction[index] = 1
            (along,) = evaluate([jvp(loss, tensor, direction, unused="zero").ref], feeds)
            if np.isfinite(found[i]).all():
                np.testing.assert_allclose(along, found[i][index], rtol=1e-13)
    return found


KINKS: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...], list[Any]]] = {
    # name: function, arguments, the gradient for each
    "abs at 0": (ops.abs, ([0.0, -0.0, 2.0, -3.0],), [[0, 0, 1, -1]]),
    "sign": (ops.sign, ([0.0, -2.0],), [[0, 0]]),
    "relu at 0": (ops.relu, ([0.0, -1.0, 1.0],), [[0, 0, 1]]),
    "maximum: ties share": (ops.maximum, ([1.0, 2.0, 0.0], [1.0, 1.0, 3.0]), [[0.5, 1, 0], [0.5, 0, 1]]),
    "minimum: ties share": (ops.minimum, ([1.0, 2.0, 0.0], [1.0, 1.0, 3.0]), [[0.5, 0, 1], [0.5, 1, 0]]),
    "maximum with itself": (lambda x: ops.maximum(x, x), ([1.0],), [[1.0]]),
    "max: ties share": (ops.max, ([1.0, 3.0, 3.0, 2.0],), [[0, 0.5, 0.5, 0]]),
    "min: ties share": (ops.min, ([1.0, 1.0, 1.0, 1.0],), [[0.25] * 4]),
    "clip at its ends": (lambda x: ops.clip(x, 0.0, 1.0), ([0.0, 0.5, 1.0, 2.0],), [[0.5, 1, 0.5, 0]]),
    "prod with one zero": (ops.prod, ([2.0, 0.0, 3.0],), [[0, 6, 0]]),
    "prod with two zeros": (ops.prod, ([2.0, 0.0, 0.0],), [[0, 0, 0]]),
    "power(0, 0)": (ops.power, ([0.0], [0.0]), [[0], [0]]),
    "power(0, 1)": (ops.power, ([0.0], [1.0]), [[1], [0]]),
    "power(0, 2)": (ops.power, ([0.0], [2.0]), [[0], [0]]),
    "power(-2, 3), whose exponent has no derivative": (lambda x: ops.power(x, np.array([3.0])), ([-2.0],), [[12]]),
    "x ** 0": (lambda x: x**0, ([0.0, 2.0],), [[0, 0]]),
    "x ** 2 at 0": (lambda x: x**2, ([0.0],), [[0]]),
    "sqrt at 0 is a pole": (ops.sqrt, ([0.0, 4.0],), [[inf, 0.25]]),
    "log at 0 is a pole": (ops.log, ([0.0, 2.0],), [[inf, 0.5]]),
    "reciprocal at 0 is a pole": (lambda x: 1 / x, ([0.0, 2.0],), [[-inf, -0.25]]),
    "logsumexp of only -inf": (ops.logsumexp, ([0.0, -inf],), [[1, 0]]),
    "norm at 0": (ops.norm, ([0.0, 0.0],), [[0, 0]]),
    "hypot at 0": (ops.hypot, ([0.0], [0.0]), [[0], [0]]),
    "std of equal elements": (ops.std, ([2.0, 2.0],), [[0, 0]]),
    "floor": (ops.floor, ([1.0, 1.5],), [[0, 0]]),
}


@pytest.mark.parametrize("name", KINKS)
def test_the_documented_subgradient(name: str) -> None:
    f, at, expected = KINKS[name]
    for found, wanted in zip(derivative(f, *at), expected, strict=True):
        np.testing.assert_array_equal(found, np.array(wanted, np.float64))


AT = [0.0, 4.0, -1.0]


def guarded(x: Tensor) -> Tensor:
    return x > 0.0


UNTAKEN: dict[str, tuple[Callable[[Tensor], Tensor], list[float]]] = {
    # what stands in the branch that is taken where x > 0, and the gradient at AT
    "sqrt": (ops.sqrt, [0, 0.25, 0]),
    "log": (ops.log, [0, 0.25, 0]),
    "reciprocal": (lambda x: 1 / x, [0, -1 / 16, 0]),
    "a chain": (lambda x: ops.exp(ops.log(ops.sqrt(x)) * 2.0), [0, 1, 0]),
    "power": (lambda x: ops.power(x, 0.25), [0, 0.25 * 4**-0.75, 0]),
    "0 * inf": (lambda x: (x - x) / x, [0, 0, 0]),
    "broadcast_to": (lambda x: ops.broadcast_to(ops.sqrt(x), (2, 3)), [0, 0.5, 0]),
    "reshape and transpose": (lambda x: ops.reshape(ops.sqrt(ops.expand_dims(x, 0)).T, (3,)), [0, 0.25, 0]),
    "reverse twice": (lambda x: ops.sqrt(x)[::-1][::-1], [0, 0.25, 0]),
    "concat": (lambda x: ops.concat([ops.sqrt(x), x])[:3], [0, 0.25, 0]),
    "pad": (lambda x: ops.pad(ops.sqrt(x), 1)[1:-1], [0, 0.25, 0]),
    "take": (lambda x: ops.take_along_axis(ops.sqrt(x), np.array([0, 1, 2]), 0), [0, 0.25, 0]),
}


@pytest.mark.parametrize("name", UNTAKEN)
def test_no_nan_from_the_branch_that_is_not_taken(name: str) -> None:
    branch, expected = UNTAKEN[name]
    (found,) = derivative(lambda x: ops.where(guarded(x), branch(x), 0.0), AT)
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    (found,) = derivative(lambda x: ops.sum(ops.where(~guarded(x), 0.0, branch(x))) + ops.sum(x), AT)
    np.testing.assert_allclose(found, np.array(expected) + 1, rtol=1e-14)


def test_no_nan_through_a_reduction() -> None:
    rows = np.array([[0.0, 0.0], [4.0, 16.0], [-1.0, 1.0]])
    keep = np.array([False, True, False])
    cases: list[Any] = [
        (ops.sum, [[0, 0], [0.25, 0.125], [0, 0]]),
        (ops.max, [[0, 0], [0, 0.125], [0, 0]]),
        (ops.prod, [[0, 0], [1, 0.25], [0, 0]]),
    ]
    for fold, expected in cases:
        (found,) = derivative(lambda x: ops.where(keep, fold(ops.sqrt(x), axis=1), 0.0), rows)  # noqa: B023
        np.testing.assert_allclose(found, expected, rtol=1e-14)
    scalar = placeholder("use", (), "bool")
    x = placeholder("x", (2,), "float64")
    g = grad(ops.where(scalar, ops.sum(ops.sqrt(x)), 0.0), x)
    np.testing.assert_array_equal(g.eval({x: [0.0, 4.0], scalar: False}), [0, 0])
    np.testing.assert_array_equal(g.eval({x: [0.0, 4.0], scalar: True}), [inf, 0.25])


def test_no_nan_in_second_derivatives() -> None:
    x = placeholder("x", (3,), "float64")
    y = ops.where(guarded(x), ops.sqrt(x), 0.0)
    for second in (grad(ops.sum(grad(ops.sum(y), x)), x), grad(ops.sum(jvp(y, x, np.ones(3))), x)):
        np.testing.assert_allclose(second.eval({x: AT}), [0, -1 / 32, 0], rtol=1e-14)
    norm = ops.where(ops.sum(x * x) > 0, ops.sqrt(ops.sum(x * x)), 0.0)
    np.testing.assert_array_equal(grad(norm, x).eval({x: np.zeros(3)}), [0, 0, 0])
    np.testing.assert_allclose(grad(norm, x).eval({x: [0.0, 3, 4]}), [0, 0.6, 0.8])


def test_a_nan_that_is_taken_stays() -> None:
    """Nothing hides a NaN of the program's own."""
    (found,) = derivative(lambda x: ops.where(x == 0.0, ops.sqrt(x) * 0.0, x), [0.0, 1.0])
    assert np.isnan(found[0]) and found[1] == 1
    (found,) = derivative(lambda x: ops.sqrt(ops.sum(x * x)), [0.0, 0.0])  # inf * 0: guard it with where
    assert np.isnan(found).all()


def test_the_same_in_compiled_code() -> None:
    x = placeholder("x", ("n",), "float64")
    y = ops.where(guarded(x), ops.broadcast_to(ops.sqrt(x), (2, *x.shape)), 0.0)
    outputs = [grad(ops.sum(y), x), grad(ops.sum(ops.abs(x)) + ops.max(x), x), grad(ops.sum(ops.power(x, x)), x)]
    with graphc.config(cache=False):
        compiled = graphc.function([x], outputs)
    at = np.array([0.0, 4.0, 0.0, 0.25])
    for found, tensor in zip(compiled(at), outputs):
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, tensor.eval({x: at}), rtol=1e-13)


def test_two_branches_that_meet_again_cost_no_mask() -> None:
    x, w = placeholder("x", (3, 4)), placeholder("w", (2, 3))
    hidden = ops.tanh(w @ x)
    leaky = ops.where(hidden > 0, hidden, hidden * 0.1)
    gradient = grad(ops.sum(leaky), w)
    assert sum(n.op.name == "where" for n in topological_order([gradient.ref.node])) == 2
    nested = ops.where(hidden > 1, hidden * 2.0, leaky)
    gradient = grad(ops.sum(nested), w)
    assert not any(n.op.name in ("logical_or", "logical_and") for n in topological_order([gradient.ref.node]))


def test_a_contraction_ends_the_region() -> None:
    """What is behind a matmul gets an exact 0 and no predicate: the documented limit."""
    x = placeholder("x", (2, 2), "float64")
    y = ops.where(np.array([[False], [True]]), apply("matmul", ops.sqrt(x), ops.ones((2, 2), "float64")), 0.0)
    found = grad(ops.sum(y), x).eval({x: [[0.0, 1.0], [1.0, 4.0]]})
    np.testing.assert_array_equal(found, [[nan, 0], [1, 0.5]])
