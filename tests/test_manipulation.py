"""Joining, cutting, repeating and padding: NumPy's results, their gradients, and the kernels that they become."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.build import placeholder
from graphc.errors import ArgumentError, DTypeError, ShapeError
from tests.array_checks import agree, differentiable

A = np.arange(24.0).reshape(4, 6) - 7
B = np.arange(12.0).reshape(2, 6) * 0.5 + 100
V = np.array([1.5, -2.0, np.nan, -0.0, 7.0])


def test_concat_and_stack() -> None:
    agree(
        lambda a, b: [
            graphc.concat([a, b]), graphc.concat([a.T, b.T, a.T], axis=1), graphc.concat([a, b], axis=None),
            graphc.concat([a.astype("int32"), b.astype("float32")]), graphc.stack([b, b * 2, b + 1], axis=2),
            graphc.stack([b, b]), graphc.concat([b]), graphc.concat([a[:0], b, b[:, ::-1]]) * 2 + 1,
            graphc.concat([a * 2, b + 1]).sum(0), graphc.concat([graphc.ones((1, 6), "float64"), b]),
        ],
        [
            np.concat([A, B]), np.concat([A.T, B.T, A.T], 1), np.concat([A, B], axis=None),
            np.concat([A.astype("int32"), B.astype("float32")]), np.stack([B, B * 2, B + 1], axis=2), np.stack([B, B]),
            B, np.concat([A[:0], B, B[:, ::-1]]) * 2 + 1, np.concat([A * 2, B + 1]).sum(0),
            np.concat([np.ones((1, 6)), B]),
        ],
        A, B,
    )  # fmt: skip


def test_concat_of_many_and_of_named_sizes() -> None:
    rows = [np.full(3, float(i)) for i in range(40)]
    agree(lambda *xs: graphc.stack(xs, axis=1), np.stack(rows, axis=1), *rows)
    agree(lambda a, b: graphc.concat([a, b, a]), np.concat([A, B, A]), A, B, named=True)
    agree(lambda a, b: graphc.concat([a.T, b.T], 1), np.concat([A[:0].T, B.T], 1), A[:0], B, named=True)


def test_concat_joins_what_the_same_step_computes() -> None:
    w = np.linspace(-1, 1, 18).reshape(6, 3)

    def build(a: Any, b: Any, w: Any) -> Any:
        return graphc.concat([graphc.relu(a @ w), (b @ w).sum(0, keepdims=True), graphc.max(a @ w) + b[:, :3]])

    wanted = np.concat([np.maximum(A @ w, 0), (B @ w).sum(0, keepdims=True), np.max(A @ w) + B[:, :3]])
    agree(build, wanted, A, B, w, rtol=1e-14)
    differentiable(build, A / 10, B / 100, w)


def test_unstack_and_split() -> None:
    agree(lambda a: graphc.unstack(a, 1), list(A.T), A)
    agree(
        lambda a: [*graphc.split(a, 2), *graphc.split(a, [1, 4], axis=1), *graphc.split(a, [3, 9])],
        [*np.split(A, 2), *np.split(A, [1, 4], axis=1), *np.split(A, [3, 9])],
        A,
    )
    n = placeholder("x", ("n", 2))
    with pytest.raises(ShapeError, match=r"split: axis 0 of x \(f32\[n,2\]\) has no 3 equal parts"):
        graphc.split(n, 3)
    assert [str(t.type) for t in graphc.split(graphc.reshape(n, (-1,)), 2)] == ["f32[n]"] * 2
    with pytest.raises(ShapeError, match="unstack: the size of axis 0 must be known"):
        graphc.unstack(n)


def test_repeating_and_moving() -> None:
    agree(
        lambda a: [
            graphc.tile(a, 2), graphc.tile(a, (2, 1, 3)), graphc.repeat(a, 3), graphc.repeat(a, 2, 0),
            graphc.repeat(a, [2, 0, 1, 3], 0), graphc.repeat(a, 2, -1), graphc.flip(a), graphc.flip(a, 1),
            graphc.roll(a, 1), graphc.roll(a, (1, -2), (0, 1)),
            graphc.roll(a, 8, 1), graphc.moveaxis(a[None], 0, -1), graphc.moveaxis(a[None], [0, 1], [2, 0]),
            graphc.ravel(a), a.flatten(), a[None].flatten(0, 1), a[None].flatten(1), a.sum().flatten(),
        ],
        [
            np.tile(A, 2), np.tile(A, (2, 1, 3)), np.repeat(A, 3), np.repeat(A, 2, 0), np.repeat(A, [2, 0, 1, 3], 0),
            np.repeat(A, 2, -1),
            np.flip(A), np.flip(A, 1), np.roll(A, 1), np.roll(A, (1, -2), (0, 1)), np.roll(A, 8, 1),
            np.moveaxis(A[None], 0, -1), np.moveaxis(A[None], [0, 1], [2, 0]), A.ravel(), A.ravel(), A,
            A.reshape(1, -1), A.sum().reshape(1),
        ],
        A,
    )  # fmt: skip
    agree(lambda a: [graphc.tile(a, (2, 1)), graphc.repeat(a, 2, 0), graphc.flip(a, 0)],
          [np.tile(A, (2, 1)), np.repeat(A, 2, 0), np.flip(A, 0)], A, named=True)  # fmt: skip
    a, none = np.zeros((2, 0, 3), "f"), np.zeros((0, 2, 2), "f")
    agree(lambda x, y: [x.flatten(1), y.flatten(1)], [a.reshape(2, 0), none.reshape(0, 4)], a, none, named=True)
    with pytest.raises(ShapeError, match=r"flatten: axis 0 of x \(f32\[2,2\]\) lies before axis -1"):
        placeholder("x", (2, 2)).flatten(-1, 0)
    with pytest.raises(ShapeError, match="roll: 2 shifts for 3 axes"):
        graphc.roll(placeholder("x", (2, 2, 2)), (1, 2), (0, 1, 2))


WIDTHS: list[Any] = [2, (1, 3), [(0, 2), (5, 0)], [(0, 0), (11, 9)]]


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric", "wrap"])
def test_pad_is_numpys(mode: Any) -> None:
    agree(
        lambda a: [graphc.pad(a, w, mode) for w in WIDTHS],
        [np.pad(A, w, mode) for w in WIDTHS],
        A,
    )
    one = np.array([3, -1], np.int8)[:1]
    agree(lambda x: graphc.pad(x, (2, 4), mode), np.pad(one, (2, 4), mode), one)


def test_pad_with_values() -> None:
    agree(
        lambda v: [
            graphc.pad(v, 1, constant_values=-0.0), graphc.pad(v, (0, 2), constant_values=3), graphc.pad(v, 0),
            graphc.pad(v > 0, (2, 0), constant_values=True), graphc.pad(v[:0], 2, constant_values=1.5),
        ],
        [
            np.pad(V, 1, constant_values=-0.0), np.pad(V, (0, 2), constant_values=3), V,
            np.pad(V > 0, (2, 0), constant_values=True), np.full(4, 1.5),
        ],
        V,
    )  # fmt: skip
    agree(lambda a: [graphc.pad(a, [(1, 2), (0, 1)]), graphc.pad(a, 1, "edge")],
          [np.pad(A, [(1, 2), (0, 1)]), np.pad(A, 1, "edge")], A, named=True)  # fmt: skip
    with pytest.raises(ShapeError, match=r"pad: widths \[1, 2, 3\] for x \(f32\[2\]\)"):
        graphc.pad(placeholder("x", (2,)), [1, 2, 3])
    with pytest.raises(ArgumentError, match="pad: mode is one of constant, .*, not 'mirror'"):
        graphc.pad(placeholder("x", (2,)), 1, "mirror")
    with pytest.raises(ShapeError, match="pad: mode 'wrap' needs known sizes"):
        graphc.pad(placeholder("x", ("n",)), 1, "wrap")


def test_patterns() -> None:
    m = np.arange(18.0).reshape(2, 3, 3)
    m[0, 0, 2] = np.nan
    labels = np.array([[0, 4], [2, 9]])
    agree(
        lambda m, labels: [
            graphc.tril(m), graphc.triu(m, 1), graphc.tril(m[0], -1), graphc.eye(3), graphc.eye(2, 4, 1, "int32"),
            graphc.one_hot(labels, 5), *graphc.meshgrid(m[0, 0], m[0, 1, :2]),
            *graphc.meshgrid(m[0, 0], m[0, 1, :2], labels[0], indexing="ij"), graphc.linspace(0, 1, 5),
            graphc.linspace(-3, 7.3, 30, dtype="float64"), graphc.linspace(1, 2, 4, endpoint=False),
            graphc.linspace(5, 6, 1), graphc.linspace(5, 6, 0), graphc.linspace(m[1, 0, 0], m[1, 2, 2], 7),
        ],
        [
            np.tril(m), np.triu(m, 1), np.tril(m[0], -1), np.eye(3, dtype=np.float32), np.eye(2, 4, 1, np.int32),
            (labels[..., None] == np.arange(5)).astype(np.float32), *np.meshgrid(m[0, 0], m[0, 1, :2]),
            *np.meshgrid(m[0, 0], m[0, 1, :2], labels[0], indexing="ij"), np.linspace(0, 1, 5, dtype=np.float32),
            np.linspace(-3, 7.3, 30), np.linspace(1, 2, 4, False, dtype=np.float32),
            np.linspace(5, 6, 1, dtype=np.float32), np.zeros(0, np.float32), np.linspace(m[1, 0, 0], m[1, 2, 2], 7),
        ],
        m, labels,
    )  # fmt: skip
    with pytest.raises(DTypeError, match="one_hot: indices must be integers: x is f32"):
        graphc.one_hot(placeholder("x", (2,)), 3)


def test_gradients() -> None:
    v, m = np.array([1.2, -0.7, 2.5, 0.3]), np.arange(9.0).reshape(3, 3) / 7
    differentiable(lambda v: graphc.concat([v, v * v, v[1:3]]) * graphc.linspace(0, 1, 10, dtype="float64"), v)
    differentiable(lambda v: graphc.pad(v * v, (2, 1)) + graphc.pad(v, (1, 2), "reflect") * v[0], v)
    differentiable(lambda v: graphc.roll(v * v, 1) * graphc.flip(v) + v[::-2].sum() * v[3:0:-1][0], v)
    differentiable(lambda m: graphc.tril(m * m) @ graphc.triu(graphc.repeat(m[:1] * m[1:2], 3, 0)), m)
    differentiable(lambda m: graphc.stack([m[0] * m[1], m[:, 2]], 1)[::-1, 1] * graphc.tile(m[0, 0] * m[0], 1), m)


def test_a_slice_of_a_gradient_is_no_scatter() -> None:
    """The gradient of a slice is read in place: one kernel, without additions at indices."""
    x = placeholder("x", (1000,), "float64")
    gradient = graphc.grad((x[10:500:2] * x[10:500:2]).sum(), x)
    ops = [node.op.name for node in graphc.function([x], gradient).graph.order()]
    assert "scatter_add_along_axis" not in ops and ops.count("kernel") <= 2
