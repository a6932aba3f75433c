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
    with pytest.raises(ArgumentError, match="embedding: takes integers and a matrix"):
        functional.embedding(x, x)
