"""Functions that complete the array API: ranges, membership, steps between floats, questions about dtypes, methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.build import Tensor, constant, placeholder
from graphc.errors import ArgumentError, DTypeError, GraphcError, ShapeError
from tests.array_checks import agree, differentiable

RNG = np.random.default_rng(23)


def value(tensor: Tensor) -> np.ndarray:
    return np.asarray(graphc.function([], tensor)())


@pytest.mark.parametrize("bounds", [(5,), (0,), (-3,), (2, 9), (2, 9, 3), (9, 2, -2), (9, 2), (1, 2, 5), (-4, 5, 4)])
def test_arange_is_numpys(bounds: tuple[int, ...]) -> None:
    for dtype in ("int64", "int8", "float32"):
        found = value(graphc.arange(*bounds, dtype=dtype))
        np.testing.assert_array_equal(found, np.arange(*bounds, dtype=dtype))
        assert found.dtype == dtype
    assert value(graphc.arange(*bounds)).dtype == np.int64


def test_arange_of_floats_and_of_named_sizes() -> None:
    for bounds in ((0.0, 1.0, 0.1), (1, 0, -0.25), (2.5,), (0, 3, 0.7)):
        found = value(graphc.arange(*bounds))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.arange(*bounds), rtol=1e-6)
    x = placeholder("x", ("n",))
    (n,) = x.shape
    ranges = [graphc.arange(n), graphc.arange(2, n), graphc.arange(n, 0, -3), graphc.arange(n, 2 * n, 2)]
    f = graphc.function([x], ranges)
    for size in (0, 1, 2, 7):
        wanted = [np.arange(size), np.arange(2, size), np.arange(size, 0, -3), np.arange(size, 2 * size, 2)]
        for found, want in zip(f(np.zeros(size, np.float32)), wanted, strict=True):
            np.testing.assert_array_equal(found, want)
    with pytest.raises(ArgumentError, match="arange: named sizes go with ints"):
        graphc.arange(0, n, 0.5)
    with pytest.raises(ArgumentError, match="a step other than 0"):
        graphc.arange(0, 3, 0)


def test_arrays_of_whatever_is_given() -> None:
    assert graphc.asarray([1, 2]).dtype.name == "int64"
    x = placeholder("x", (2,))
    assert graphc.asarray(x) is x and graphc.asarray(x, "float64").dtype.name == "float64"
    np.testing.assert_array_equal(value(graphc.empty((2, 3), "int8")), np.zeros((2, 3), np.int8))
    assert graphc.empty_like(x).type == x.type
    a, b = RNG.random((3, 1)), RNG.random(4)
    agree(lambda a, b: graphc.broadcast_arrays(a, b, 2.0), np.broadcast_arrays(a, b, 2.0), a, b)
    with pytest.raises(ShapeError, match="broadcast_arrays: shapes do not broadcast"):
        graphc.broadcast_arrays(x, np.ones(3))


def test_membership() -> None:
    x, v = RNG.integers(0, 5, (3, 4)), np.array([[1, 7], [4, 1]])
    agree(lambda x, v: [graphc.isin(x, v), graphc.isin(x, v, invert=True), graphc.isin(x, 3), graphc.isin(x, [])],
          [np.isin(x, v), np.isin(x, v, invert=True), np.isin(x, 3), np.isin(x, [])], x, v)  # fmt: skip
    f = np.array([np.nan, 0.0, -0.0, 1.0])
    agree(lambda f: graphc.isin(f, f), np.isin(f, f), f)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_next_floats(dtype: str) -> None:
    info = np.finfo(dtype)
    edges = [0.0, -0.0, 1.0, -1.0, info.max, info.min, info.tiny, -info.tiny, info.smallest_subnormal, np.inf, -np.inf,
             np.nan, 0.75, 1.5]  # fmt: skip
    x, y = (g.ravel().astype(dtype) for g in np.meshgrid(edges, edges))
    with np.errstate(all="ignore"):
        agree(graphc.nextafter, np.nextafter(x, y), x, y)


def test_differences_with_ends() -> None:
    x, p = RNG.standard_normal((3, 4)), RNG.standard_normal((3, 2))
    agree(
        lambda x, p: [
            graphc.diff(x, prepend=0.0), graphc.diff(x, 2, 0, append=1.0), graphc.diff(x, prepend=p, append=p)
        ],
        [np.diff(x, prepend=0.0), np.diff(x, 2, 0, append=1.0), np.diff(x, prepend=p, append=p)],
        x, p,
    )  # fmt: skip


def test_a_sorter() -> None:
    a, v = np.array([3.0, 1.0, 2.0]), np.array([2.5, 0.0, 3.0])
    agree(lambda a, v: graphc.searchsorted(a, v, sorter=graphc.argsort(a)), np.searchsorted(np.sort(a), v), a, v)
    agree(lambda a: graphc.sort(a, stable=False), np.sort(a), a)


def test_updates_that_multiply() -> None:
    x, i, v = RNG.uniform(0.5, 2, 6), np.array([1, 4, 1, 1]), np.array([2.0, 3.0, -1.0, 0.5])
    wanted = x.copy()
    np.multiply.at(wanted, i, v)
    region = x.copy()
    region[1::2] *= 3
    agree(lambda x, i, v: [x.at[i].mul(v), x.at[1::2].mul(3.0), x.at[-1].mul(0.0), graphc.scatter(x, i, v, 0, "mul")],
          [wanted, region, np.append(x[:-1], 0.0), wanted], x, i, v, rtol=1e-15)  # fmt: skip
    for zeros in ([], [1], [0, 2]):
        u = v.copy()
        u[zeros] = 0
        differentiable(lambda x, i, u: x.at[i].mul(u), x, i, u)
    n = np.array([100, 2], np.int8)
    agree(lambda n: n.at[[0, 0]].mul([3, 5]), np.array([-36, 2], np.int8), n)


def test_methods_are_the_functions() -> None:
    x = RNG.standard_normal((3, 1, 4))
    agree(
        lambda x: [
            x.mT, x.T, x.swapaxes(0, 2), x.squeeze(1), x.repeat(2, 0), x.take([2, 0], 2), x.clip(-0.5, 0.5),
            x.clip(max=0.0), x.round(1), x.prod(1), x.var(0, correction=1), x.std((0, 2)), x.all(2), x.any(),
            x.argsort(0), x.cumsum(2), x.cumprod(), x.sum(0, dtype="float32").astype("float64"),
        ],
        [
            x.swapaxes(1, 2), x.T, x.swapaxes(0, 2), x.squeeze(1), x.repeat(2, 0), x.take([2, 0], 2),
            x.clip(-0.5, 0.5), x.clip(max=0.0), x.round(1), x.prod(1), x.var(0, ddof=1), x.std((0, 2)), x.all(2),
            x.any(), x.argsort(0), x.cumsum(2), x.cumprod(), x.sum(0, dtype=np.float32).astype(np.float64),
        ],
        x, rtol=1e-6,
    )  # fmt: skip


def test_questions_about_dtypes_and_shapes() -> None:
    x, n = placeholder("x", (3,)), placeholder("n", (2,), "int8")
    assert graphc.result_type(x, n).name == "float32"
    assert graphc.result_type("int8", "uint8").name == "int16" and graphc.result_type(n, 1.5).name == "float64"
    assert graphc.result_type(np.int32, x).name == "float64" and graphc.result_type(n, 1).name == "int8"
    for a in ("bool", "int8", "uint16", "int64", "float32", "float64"):
        for b in ("bool", "int8", "uint16", "int64", "float32", "float64"):
            assert graphc.result_type(a, b).name == np.result_type(a, b)
            assert graphc.can_cast(a, b) == np.can_cast(a, b)
    assert graphc.can_cast(n, "int16") and not graphc.can_cast(x, n)
    assert graphc.isdtype(x.dtype, "real floating") and graphc.isdtype("int8", ("bool", "signed integer"))
    assert graphc.isdtype("uint8", "integral") and not graphc.isdtype("bool", "numeric")
    assert graphc.isdtype("float32", x.dtype) and not graphc.isdtype("float32", "complex floating")
    assert graphc.finfo(x).eps == np.finfo(np.float32).eps and graphc.iinfo("int8").max == 127
    assert str(graphc.broadcast_shapes((3, 1), ("k",), ())) == "(3, k)"


@pytest.mark.parametrize("call, error, text", [
    (lambda: graphc.result_type(), ArgumentError, "result_type: needs a dtype or an array"),
    (lambda: graphc.finfo("int8"), DTypeError, "finfo: int8 is no float"),
    (lambda: graphc.iinfo("float32"), DTypeError, "iinfo: float32 is no integer"),
    (lambda: graphc.isdtype("complex64", "bool"), DTypeError, "no dtype complex64"),
    (lambda: graphc.broadcast_shapes((2,), (3,)), ShapeError, "broadcast_shapes: .2,., .3,. do not broadcast"),
    (lambda: ops.scatter(constant([1.0]), [0], [1.0], 0, "divide"), ArgumentError, "set, add, mul, max, min"),
])  # fmt: skip
def test_errors_say_what_is_wrong(call: Any, error: type[GraphcError], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
