"""layer_norm, rms_norm and embedding: values against NumPy, compiled, with gradients, and their errors."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.build import placeholder
from graphc.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from graphc.nn import functional
from tests.array_checks import agree, differentiable

RNG = np.random.default_rng(2)
X, W, B = RNG.normal(size=(3, 4, 6)), RNG.normal(size=6), RNG.normal(size=6)


def test_a_number_is_the_shape_of_the_last_axis() -> None:
    x = graphc.placeholder("x", ("batch", 6))
    for norm in (functional.layer_norm, functional.rms_norm):
        a, b = graphc.function([x], (norm(x, 6), norm(x, (6,))))(X[0].astype("f"))
        assert np.array_equal(a, b)


def test_layer_norm_and_rms_norm() -> None:
    spread = (X - X.mean((1, 2), keepdims=True)) / np.sqrt(X.var((1, 2), keepdims=True) + 0.1)
    agree(
        lambda x, w, b: [
            functional.layer_norm(x, (6,), w, b), functional.layer_norm(x, x.shape[1:], eps=0.1),
            functional.rms_norm(x, (6,), w), functional.rms_norm(x[0], (6,), eps=0.5),
        ],
        [
            (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-5) * W + B, spread,
            X / np.sqrt((X**2).mean(-1, keepdims=True) + np.finfo(np.float64).eps) * W,
            X[0] / np.sqrt((X[0] ** 2).mean(-1, keepdims=True) + 0.5),
        ],
        X, W, B, rtol=1e-14,
    )  # fmt: skip
    differentiable(lambda x, w, b: functional.layer_norm(x, (6,), w, b) * functional.rms_norm(x, (6,), w), X, W, B)


def test_batch_norm_and_group_norm() -> None:
    x, w, b, m, v = RNG.normal(size=(3, 4, 2, 5)), *RNG.normal(size=(3, 4)), RNG.random(4)

    def channels(part: np.ndarray) -> np.ndarray:
        return part.reshape(4, 1, 1)

    own = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
    given = (x - channels(m)) / np.sqrt(channels(v) + 0.1)
    groups = x.reshape(3, 2, -1)
    grouped = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-5)
    rows = x[..., 0, 0]
    for named in (False, True):
        agree(
            lambda x, w, b, m, v: [
                functional.batch_norm(x, None, None, w, b), functional.batch_norm(x, m, v, bias=b, eps=0.1),
                functional.batch_norm(x[:, :, 0, 0]),
            ],
            [own * channels(w) + channels(b), given + channels(b), (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)],
            x, w, b, m, v, rtol=1e-13, named=named,
        )  # fmt: skip
    agree(lambda x, w, b: [functional.group_norm(x, 2, w, b)], [grouped.reshape(x.shape) * channels(w) + channels(b)],
          x, w, b, rtol=1e-13)  # fmt: skip
    differentiable(lambda x, w, b: functional.batch_norm(x, None, None, w, b), x, w, b)
    differentiable(lambda x, w, b: functional.group_norm(x, 4, w, b), x, w, b)


def test_running_statistics_are_parameters_with_updates() -> None:
    mean, var = graphc.parameter("mean", np.zeros(2, "f")), graphc.parameter("var", np.ones(2, "f"))
    x = graphc.placeholder("x", ("batch", 2))
    updates = {mean: 0.9 * mean + 0.1 * x.mean(0), var: 0.9 * var + 0.1 * x.var(0, correction=1)}
    train = graphc.function([x], functional.batch_norm(x), updates=updates)
    array = RNG.normal(3, 2, (1000, 2)).astype("f")
    for _ in range(100):
        train(array)
    found = graphc.function([x], functional.batch_norm(x, mean, var))(array)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(found.std(0), 1, atol=2e-3)


def test_embedding() -> None:
    words, indices = RNG.normal(size=(7, 5)), np.array([[0, 6, 3], [3, 3, 1]])
    agree(functional.embedding, words[indices], indices, words)
    agree(functional.embedding, words[indices], indices, words, named=True)
    differentiable(lambda i, w: functional.embedding(i, w * w), indices, words)
    i, w = placeholder("i", ("n",), "int64"), placeholder("w", (7, 5), "float64")
    with pytest.raises(IndexRangeError, match="test_norm_layers"):
        graphc.function([i, w], functional.embedding(i, w))(np.array([0, -1]), words)


def test_errors() -> None:
    x, n = placeholder("x", ("batch", 6)), placeholder("n", (2, 6), "int64")
    with pytest.raises(ShapeError, match=r"layer_norm: f32\[batch,6\] does not end in the shape \[5\]"):
        functional.layer_norm(x, (5,))
    with pytest.raises(ShapeError, match=r"rms_norm: weight and bias have the shape \[6\], not f32\[batch,6\]"):
        functional.rms_norm(x, (6,), x)
    with pytest.raises(DTypeError, match="rms_norm: takes floats, not i64"):
        functional.rms_norm(n, (6,))
    with pytest.raises(ArgumentError, match="batch_norm: mean and var are given both or not at all"):
        functional.batch_norm(x, x[0])
    with pytest.raises(ShapeError, match=r"batch_norm: x .* has 6 channels: w \(f32\[5\]\) does not fit"):
        functional.batch_norm(x, weight=placeholder("w", (5,)))
    with pytest.raises(ShapeError, match=r"group_norm: .* has no axis of channels"):
        functional.group_norm(x[0], 1)
    with pytest.raises(DTypeError, match="group_norm: takes floats, not n"):
        functional.group_norm(n, 1)
    for groups, wide in ((4, x), (0, x), (2, x.T)):
        with pytest.raises(ShapeError, match=rf"group_norm: {groups} groups do not divide the (6|batch) channels of"):
            functional.group_norm(wide, groups)
    with pytest.raises(ShapeError, match=r"group_norm: x .* has 6 channels: w \(f32\[5\]\) does not fit"):
        functional.group_norm(x, 2, placeholder("w", (5,)))
    with pytest.raises(ArgumentError, match="embedding: takes integers and a matrix"):
        functional.embedding(x, x)
