"""Forward mode: every op against finite differences, Hessians times vectors, both directions composed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc.ops as ops
from graphc.autodiff import grad, hvp, jvp, vjp
from graphc.build import OPS, Tensor, apply, constant, parameter, placeholder
from graphc.errors import ArgumentError, GradientError, InternalError
from graphc.graph import Graph, Op, topological_order
from graphc.interpret import evaluate
from graphc.ops.samples import Sample
from graphc.text import canonical_text
from graphc.types import float64

RNG = np.random.default_rng
Feeds = dict[Tensor, np.ndarray]


def values(tensors: list[Tensor], feeds: Feeds) -> list[np.ndarray]:
    return evaluate([t.ref for t in tensors], {t.ref: array for t, array in feeds.items()})


def value(tensor: Tensor, feeds: Feeds) -> np.ndarray:
    return values([tensor], feeds)[0]


def smooth_samples() -> list[Any]:
    return [
        pytest.param(op, sample, id=f"{op.name}-{i}")
        for op in OPS.values()
        for i, sample in enumerate(op.samples())
        if op.gradient is not None and sample.smooth and float64 in sample.dtypes
    ]


@pytest.mark.parametrize("op, sample", smooth_samples())
def test_jvp_of_every_op_is_the_derivative_along_the_tangents(op: Op, sample: Sample) -> None:
    rng = RNG(3)
    inputs, outputs = sample.build(op, float64)
    feeds = dict(zip(inputs, sample.draw(float64, rng, smooth=True)))
    wrt = [t for t in inputs if t.dtype.is_float]
    results = [t for t in outputs if t.dtype.is_float]
    if not wrt or not results:
        return  # a comparison, a position
    directions = [rng.standard_normal(feeds[t].shape) for t in wrt]
    tangents = [placeholder(f"t{i}", t.shape, "float64") for i, t in enumerate(wrt)]
    found = values(jvp(results, wrt, tangents, unused="zero"), feeds | dict(zip(tangents, directions)))
    eps = 1e-6
    moved = ({t: feeds[t] + step * d for t, d in zip(wrt, directions)} for step in (eps, -eps))
    ahead, behind = (values(results, feeds | there) for there in moved)
    for actual, high, low in zip(found, ahead, behind):
        size = max(1.0, np.max(np.abs(high), initial=0))
        np.testing.assert_allclose(actual, (high - low) / (2 * eps), rtol=2e-6, atol=2e-7 * size)


def test_the_nest_of_the_outputs_is_kept() -> None:
    x, y = placeholder("x", (2,), "float64"), placeholder("y", (), "float64")
    w = parameter("w", RNG(0).standard_normal((2, 2)))
    outputs = {"a": x * y, "b": (w @ x, ops.ones((3,), "float64"))}
    feeds = {x: np.array([1.0, 2.0]), y: np.array(3.0)}
    found = jvp(outputs, [x, {"y": y}], [np.array([1.0, 0.5]), {"y": np.array(2.0)}])
    assert list(found) == ["a", "b"] and isinstance(found["b"], tuple)
    np.testing.assert_allclose(value(found["a"], feeds), [1.0 * 3 + 1 * 2, 0.5 * 3 + 2 * 2])
    np.testing.assert_allclose(value(found["b"][0], feeds), w.value @ [1.0, 0.5])
    np.testing.assert_array_equal(value(found["b"][1], feeds), np.zeros(3))  # depends on nothing


def test_nothing_of_the_way_back_remains() -> None:
    x, t = placeholder("x", (3,)), placeholder("t", (3,))
    text = canonical_text(Graph((x.ref, t.ref), (jvp(ops.tanh(x) * 2.0, x, t).ref,)))
    assert "cotangent" not in text
    made = sorted(line.split(" = ")[1].split("(")[0] for line in text.splitlines() if " = " in line)
    number = ["broadcast_to", "constant"]  # 2 and 1
    assert made == sorted([*number, *number, "tanh", "multiply", "subtract", "multiply", "multiply"])


def network(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    hidden = ops.tanh(x @ w)
    p = ops.exp(hidden @ v) / ops.exp(hidden @ v).sum(axis=1, keepdims=True)
    return -ops.log(p)[:, 0].mean() + (hidden * hidden).sum()


@pytest.fixture
def net() -> tuple[Tensor, list[Tensor], Feeds, list[Tensor]]:
    """A loss, its parameters, arrays, and a direction."""
    x, w, v = (placeholder(n, s, "float64") for n, s in (("x", ("n", 3)), ("w", (3, 4)), ("v", (4, 2))))
    feeds = {t: RNG(i).standard_normal(s) for i, (t, s) in enumerate(((x, (5, 3)), (w, (3, 4)), (v, (4, 2))))}
    return network(x, w, v), [w, v], feeds, [constant(RNG(8).standard_normal(feeds[t].shape)) for t in (w, v)]


def test_hvp_forward_over_reverse_and_reverse_over_forward_are_one(net: Any) -> None:
    loss, wrt, feeds, vectors = net
    product = hvp(loss, wrt, vectors)
    forward_over_reverse = jvp(grad(loss, wrt), wrt, vectors)
    reverse_over_forward = grad(jvp(loss, wrt, vectors), wrt)
    eps = 1e-5
    grads = grad(loss, wrt)
    high, low = (
        values(grads, feeds | {t: feeds[t] + s * value(v, {}) for t, v in zip(wrt, vectors)}) for s in (eps, -eps)
    )
    for i in range(2):
        expected = value(product[i], feeds)
        np.testing.assert_allclose(expected, (high[i] - low[i]) / (2 * eps), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(value(forward_over_reverse[i], feeds), expected, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(value(reverse_over_forward[i], feeds), expected, rtol=1e-11, atol=1e-13)


def test_forward_and_reverse_agree(net: Any) -> None:
    loss, wrt, feeds, vectors = net
    along = value(jvp(loss, wrt, vectors), feeds)
    expected = sum(np.sum(value(g, feeds) * value(v, {})) for g, v in zip(grad(loss, wrt), vectors))
    np.testing.assert_allclose(along, expected, rtol=1e-12)


@pytest.mark.parametrize("order", ["fff", "ffr", "frf", "rff", "rrf", "rfr", "frr", "rrr"])
def test_third_derivatives_in_any_order(order: str) -> None:
    x = placeholder("x", (), "float64")
    y = ops.exp(ops.sum(x * x)) * ops.tanh(x)
    for how in order:
        y = grad(y, x) if how == "r" else jvp(y, x, 1.0)
    a = 0.3
    t = np.tanh(a)
    d1, d2, d3 = 1 - t**2, -2 * t * (1 - t**2), (1 - t**2) * (6 * t**2 - 2)
    e, e1 = np.exp(a * a), 2 * a * np.exp(a * a)
    e2, e3 = (2 + 4 * a * a) * e, (12 * a + 8 * a**3) * e
    assert value(y, {x: np.array(a)}) == pytest.approx(e3 * t + 3 * e2 * d1 + 3 * e1 * d2 + e * d3, rel=1e-12)


def test_dead_parts_of_a_linear_function() -> None:
    x = placeholder("x", (3,), "float64")
    v = constant(np.ones(3))
    assert not value(hvp(ops.sum(x * 2.0), x, v), {}).any()  # a constant gradient
    assert not value(jvp(ops.floor(x), x, v), {x: np.array([0.5, 1.5, 2.5])}).any()
    np.testing.assert_array_equal(value(vjp(jvp(x * 3.0, x, v), x, v, unused="zero"), {}), np.zeros(3))


# Errors


def failure(call: Callable[[], Any], kind: type[Exception] = GradientError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def test_errors_name_the_transform() -> None:
    x, w = placeholder("x", ("batch", 3)), placeholder("w", (3,))
    y = ops.exp(x)  # the line
    text = failure(lambda: jvp(y, x, np.ones(3, "float32")))
    assert text.startswith("jvp: the tangent of x (f32[batch,3]) is f32[3]\n  built at")
    assert "1 tensors but 2 tangents" in failure(lambda: jvp(y, [x], [x, x]), ArgumentError)
    text = failure(lambda: jvp(y, [x, w], [x, w]))
    assert text.startswith("jvp: result of exp (f32[batch,3]) does not depend on w (f32[3])") and "# the line" in text
    assert failure(lambda: jvp(x > 0, x, x)).startswith("jvp: result of greater (bool[batch,3]) is no float")
    assert failure(lambda: vjp(y, w, None)).startswith("vjp: result of exp")
    assert failure(lambda: hvp(ops.sum(y), x, w)).startswith("hvp: the vector of x (f32[batch,3]) is f32[3]")


def test_a_rule_that_is_not_linear_is_a_bug() -> None:
    OPS["odd"] = Op("odd", "an op for this test", lambda types, attrs: types[:1], gradient=lambda n, g: (g[0] * g[0],))
    try:
        x = placeholder("x", (3,))
        text = failure(lambda: jvp(apply("odd", x), x, x), InternalError)
        assert "not linear in its cotangent" in text and "result of odd" in text
    finally:
        OPS.pop("odd")


def test_a_jvp_of_20000_ops() -> None:
    x = placeholder("x", (), "float64")
    y = x
    for _ in range(20_000):
        y = -y
    tangent = jvp(y, x, 2.0)
    assert value(tangent, {}) == 2.0 and len(topological_order([tangent.ref.node])) > 20_000
