"""Jacobians and Hessians against finite differences, with known and named sizes; the batched form of every op."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
import graphc.ops as ops
from graphc.autodiff import grad
from graphc.batching import batched
from graphc.build import OPS, Tensor, apply, parameter, placeholder
from graphc.errors import ArgumentError, GradientError
from graphc.graph import Op
from graphc.interpret import evaluate
from graphc.jacobians import hessian, jacfwd, jacrev
from graphc.ops.samples import Sample
from graphc.types import evaluate as size_of
from graphc.types import float64, int32

RNG = np.random.default_rng
Feeds = dict[Tensor, np.ndarray]


def value(tensor: Tensor, feeds: Feeds) -> np.ndarray:
    return evaluate([tensor.ref], {t.ref: array for t, array in feeds.items()})[0]


def differences(output: Tensor, wrt: Tensor, feeds: Feeds, eps: float = 1e-6) -> np.ndarray:
    """The Jacobian by central differences, an element of `wrt` at a time."""
    columns = []
    for index in np.ndindex(feeds[wrt].shape):
        step = np.zeros(feeds[wrt].shape)
        step[index] = eps
        high, low = (value(output, feeds | {wrt: feeds[wrt] + s * step}) for s in (1, -1))
        columns.append((high - low) / (2 * eps))
    return np.moveaxis(np.array(columns), 0, -1).reshape(columns[0].shape + feeds[wrt].shape)


def batchable_samples() -> list[Any]:
    return [
        pytest.param(op, sample, id=f"{op.name}-{i}")
        for op in OPS.values()
        for i, sample in enumerate(op.samples())
        if sample.operands and op.name != "kernel"
    ]


@pytest.mark.parametrize("op, sample", batchable_samples())
def test_every_op_has_a_batched_form(op: Op, sample: Sample) -> None:
    dtype = next((d for d in (float64, int32) if d in sample.dtypes), sample.dtypes[0])
    inputs, outputs = sample.build(op, dtype)
    draws = [sample.draw(dtype, RNG(i)) for i in range(3)]
    sizes = {t.ref: tuple(size_of(n, sample.dims) for n in t.shape) for t in inputs}
    for chosen in {tuple(range(len(inputs))), *((i,) for i in range(len(inputs)))}:
        items = {inputs[i].ref: placeholder("items", (3, *inputs[i].shape), inputs[i].dtype) for i in chosen}
        found = batched([t.ref for t in outputs], items, 3)
        feeds = {t.ref: draws[0][i] for i, t in enumerate(inputs)}
        assert all(array.shape == sizes[ref] for ref, array in feeds.items())
        stacked = {items[inputs[i].ref].ref: np.stack([draw[i] for draw in draws]) for i in chosen}
        actual = evaluate([t.ref for t in found], feeds | stacked)
        each = [evaluate([t.ref for t in outputs], feeds | {inputs[i].ref: d[i] for i in chosen}) for d in draws]
        for position, tensor in enumerate(found):
            wanted = np.stack([results[position] for results in each])
            assert tensor.shape == (3, *outputs[position].shape)
            if wanted.dtype.kind == "V":  # bfloat16, of which NumPy knows only the bytes
                np.testing.assert_array_equal(actual[position].view("u2"), wanted.view("u2"))
            else:
                np.testing.assert_allclose(actual[position], wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_jacobians_are_those_of_finite_differences(jacobian: Any) -> None:
    x, w = placeholder("x", (2, 3), "float64"), placeholder("w", (3, 4), "float64")
    feeds = {x: RNG(0).standard_normal((2, 3)), w: RNG(1).standard_normal((3, 4))}
    outputs: Any = {"p": ops.exp(x @ w) / ops.exp(x @ w).sum(axis=1, keepdims=True), "s": (ops.sum(x * x), x[::-1, 1:])}
    found = jacobian(outputs, [x, {"w": w}], unused="zero")
    for output, block in (
        (outputs["p"], found["p"]),
        (outputs["s"][0], found["s"][0]),
        (outputs["s"][1], found["s"][1]),
    ):
        assert isinstance(block, list) and list(block[1]) == ["w"]
        for tensor, part in ((x, block[0]), (w, block[1]["w"])):
            assert part.shape == (*output.shape, *tensor.shape)
            np.testing.assert_allclose(value(part, feeds), differences(output, tensor, feeds), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_jacobians_with_named_sizes_compile_once(jacobian: Any) -> None:
    x = placeholder("x", ("n",), "float64")
    w = parameter("w", RNG(2).standard_normal(3))
    y = ops.tanh(x) * ops.sum(x)
    compiled = graphc.function([x], jacobian(y, x))
    for n in (1, 2, 5):
        at = RNG(n).standard_normal(n)
        expected = np.diag(1 - np.tanh(at) ** 2) * at.sum() + np.tanh(at)[:, None]
        np.testing.assert_allclose(compiled(at), expected, rtol=1e-13)
    outer = jacobian(ops.expand_dims(x, 1) * w, w)
    assert outer.shape == (*x.shape, 3, 3)
    np.testing.assert_allclose(value(outer, {x: np.array([2.0, 3.0])})[1], 3 * np.eye(3))


def test_hessians(rng: np.random.Generator) -> None:
    x, b = placeholder("x", ("n", 3), "float64"), placeholder("b", (), "float64")
    w = placeholder("w", (3,), "float64")
    loss = ops.mean(ops.softplus(x @ w + b)) + ops.sum(w * w * w)
    feeds = {x: rng.standard_normal((5, 3)), w: rng.standard_normal(3), b: np.array(0.5)}
    found = hessian(loss, {"w": w, "b": b})
    gradient = dict(zip("wb", grad(loss, [w, b])))
    for row, of in found.items():
        for column, tensor in (("w", w), ("b", b)):
            expected = differences(gradient[row], tensor, feeds)
            np.testing.assert_allclose(value(of[column], feeds), expected, rtol=1e-7, atol=1e-9)
    single = value(hessian(loss, w), feeds)
    np.testing.assert_allclose(single, value(jacfwd(grad(loss, w), w), feeds), rtol=1e-12)
    np.testing.assert_allclose(single, single.T, rtol=1e-12)
    pair = hessian(loss, (b, w))
    assert isinstance(pair, tuple) and [[t.shape for t in row] for row in pair] == [[(), (3,)], [(3,), (3, 3)]]
    assert not value(hessian(ops.sum(w * 2.0), w), feeds).any()


def test_a_jacobian_of_a_jacobian() -> None:
    x = placeholder("x", (2,), "float64")
    third = jacfwd(jacrev(jacfwd(ops.sum(x * x * x) * x[0], x), x), x)
    assert third.shape == (2, 2, 2)
    a, b = 0.5, 2.0  # f = a^4 + a b^3
    expected = np.zeros((2, 2, 2))
    expected[0, 0, 0], expected[1, 1, 1] = 24 * a, 6 * a
    expected[0, 1, 1] = expected[1, 0, 1] = expected[1, 1, 0] = 6 * b
    np.testing.assert_allclose(value(third, {x: np.array([a, b])}), expected, atol=1e-12)


def test_one_walk_serves_all_rows() -> None:
    from graphc.graph import topological_order

    counts = []
    for n in (3, 300):
        x = placeholder("x", (n,), "float64")
        counts.append(len(topological_order([jacrev(ops.tanh(x) * ops.sum(x), x).ref.node])))
    assert counts[0] == counts[1]


def test_errors() -> None:
    x, w = placeholder("x", (3,)), placeholder("w", (3,))
    y = ops.exp(x)  # the line
    for jacobian, name in ((jacrev, "jacrev"), (jacfwd, "jacfwd")):
        with pytest.raises(GradientError, match=rf"^{name}: result of exp \(f32\[3\]\) does not depend on w") as caught:
            jacobian(y, [x, w])
        assert "# the line" in str(caught.value)
        with pytest.raises(ArgumentError, match=f"{name}: an output must be a Tensor, not float"):
            jacobian(1.0, x)
    with pytest.raises(GradientError, match="is no scalar"):
        hessian(y, x)
    OPS["odd"] = Op("odd", "an op for this test", lambda types, attrs: types[:1], gradient=lambda node, g: (odd(g[0]),))

    def odd(t: Tensor) -> Any:
        return apply("odd", t, pivot=1)

    try:
        with pytest.raises(ArgumentError, match="the op odd has no batched form: its attribute pivot") as raised:
            jacrev(odd(y), x)
        assert "name it in graphc/batching.py" in str(raised.value)
    finally:
        OPS.pop("odd")
