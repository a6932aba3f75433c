"""Sizes: canonical forms, names in shapes, and sizes as operands."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import graphc
from graphc.build import Tensor, placeholder
from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.types import Dim, Size, evaluate, maximum, minimum, parse_size

N, M = Dim.symbol("n"), Dim.symbol("m")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (N - minimum(N, 1), "max(n-1,0)"),
        (N - maximum(N - 3, 0), "min(n,3)"),
        (minimum(N, 3) + maximum(N - 3, 0), "n"),
        (maximum(N - 1, 0) - N, "-min(n,1)"),
        (minimum(3, N), "min(n,3)"),
        (minimum(N - 1, 3), "min(n,4)-1"),
        (N * M - M * minimum(N, 2), "m*max(n-2,0)"),
        (N * 2 - minimum(N * 2, 5), "max(2*n-5,0)"),
        (minimum(N, 1) - maximum(N - 2, 0), "-max(n-2,0)+min(n,1)"),
    ],
)
def test_what_a_clamp_leaves_and_what_it_takes_have_one_form(size: Size, text: str) -> None:
    assert str(size) == text and parse_size(text) == size


PARTS: list[Size] = [N, M, 3, N + M, minimum(N, 2), maximum(N - 2, 0), minimum(N + M, 1), maximum(N + M - 1, 0)]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(-2, 2), st.sampled_from(PARTS)), max_size=6), st.randoms(use_true_random=False))
def test_sums_keep_their_value_and_are_read_back(parts: list[tuple[int, Size]], random: Any) -> None:
    total: Size = 0
    for factor, part in parts:
        total = total + factor * part
    for n in (0, 1, 2, 5):
        values = {"n": n, "m": 3}
        assert evaluate(total, values) == sum(factor * evaluate(part, values) for factor, part in parts)
    assert parse_size(str(total)) == total


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(-2, 2), st.sampled_from(PARTS[4:6] + PARTS[:3])), max_size=6), st.randoms())
def test_the_order_of_a_sum_does_not_matter(parts: list[tuple[int, Size]], random: Any) -> None:
    def added() -> Size:
        total: Size = 0
        for factor, part in parts:
            total = total + factor * part
        return total

    first = added()
    random.shuffle(parts)
    assert added() == first


def test_differences_of_a_named_axis() -> None:
    v = placeholder("v", ("n",))
    found = {
        "first": v[1:] - v[:-1],
        "second": v[2:] - 2 * v[1:-1] + v[:-2],
        "whole": graphc.concat([v[:1], v[1:]]) + v,
        "ends": v[-2:] * v[:2],
    }
    assert [str(t.type) for t in found.values()] == ["f32[max(n-1,0)]", "f32[max(n-2,0)]", "f32[n]", "f32[min(n,2)]"]
    fn = graphc.function([v], found)
    for n in (0, 1, 2, 3, 7):
        x = np.arange(n, dtype="float32") ** 2
        wanted = {"first": np.diff(x), "second": np.diff(x, 2), "whole": 2 * x, "ends": x[-2:] * x[:2]}
        results = fn(x)
        for key, array in wanted.items():
            np.testing.assert_array_equal(results[key], array, err_msg=f"{key} of {n}")


def test_a_size_is_an_operand_like_a_weak_int() -> None:
    x, i = placeholder("x", ("n", 3)), placeholder("i", ("n",), "int32")
    n = x.shape[0]
    found: dict[str, Tensor] = {
        "mean": x.sum() / n,
        "size": x.sum() / x.size,
        "left": n * i,
        "less": n - i,
        "product": x * n / (n * n),
        "compared": i < n,
        "where": graphc.where(i > 0, i, n),
        "maximum": graphc.maximum(i, n),
        "float": graphc.sqrt(n),
        "integers": i / n,
        "quotient": n // (i + 1),
        "full": graphc.full((n,), n, "float32"),
    }
    types = ["f32[]", "f32[]", "i32[n]", "i32[n]", "f32[n,3]", "bool[n]", "i32[n]", "i32[n]", "f64[]", "f64[n]"]
    assert [str(t.type) for t in found.values()] == [*types, "i32[n]", "f32[n]"]
    fn = graphc.function([x, i], found)
    for rows in (1, 4):
        a, j = np.ones((rows, 3), "float32"), np.arange(rows, dtype="int32")
        wanted = [3.0, 1.0, rows * j, rows - j, a / rows, j < rows, np.where(j > 0, j, rows), np.maximum(j, rows)]
        wanted += [np.sqrt(rows), j / rows, rows // (j + 1), np.full(rows, rows)]
        results = fn(a, j)
        for key, array in zip(found, wanted, strict=True):
            np.testing.assert_allclose(results[key], array, rtol=1e-6, err_msg=key)
            np.testing.assert_array_equal(results[key], found[key].eval({x: a, i: j}), err_msg=key)
    assert isinstance(n == i, Tensor) and (n == 3) is False and n != "n"  # type: ignore[comparison-overlap]
    with pytest.raises(TypeError, match="unsupported operand"):
        n * 0.5  # type: ignore[operator]
    with pytest.raises(DTypeError, match="the size n is no array\n(.*\n)*.*graphc.dim_value"):
        graphc.constant(n)


def test_shapes_take_names() -> None:
    x = placeholder("x", ("n", 4))
    assert x.reshape("n", 2, 2).shape == (N, 2, 2) and x.reshape(["n", -1]) is x
    assert graphc.broadcast_to(x[:, None], ("n", 3, 4)).shape == (N, 3, 4)
    assert graphc.zeros(("n", np.int64(2))).shape == (N, 2) and graphc.ones("n").shape == (N,)
    with pytest.raises(ShapeError, match=r"reshape: x is f32\[n,4\] with 4\*n elements, shape \[m,4\] has 4\*m"):
        x.reshape("m", 4)
    for wrong in (2.0, "two words", None, True):
        with pytest.raises(ArgumentError, match=f"reshape: {wrong!r} is no size"):
            x.reshape(4, wrong)
    with pytest.raises(ShapeError, match="shape: size -1 is negative"):
        graphc.zeros((-1, 2))
    with pytest.raises(ShapeError, match="has the size a, which no input has"):
        graphc.function([x], graphc.broadcast_to(x.sum(), ("a", 3)))
