"""NEP 50: the dtype of every pair of dtypes and of every dtype with a Python scalar is NumPy's, errors included."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.build import Tensor, placeholder
from graphc.errors import DTypeError, IntegerRangeError
from graphc.types import DTYPES, DType
from tests.array_checks import agree

NATIVE = [d for d in DTYPES if d.numpy.kind in "biuf"]
PAIRS = [(a, b) for a in NATIVE for b in NATIVE]


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
def test_every_pair_promotes_as_numpy(a: DType, b: DType) -> None:
    wanted = np.result_type(a.numpy, b.numpy)
    x, y = placeholder("x", (3,), a), placeholder("y", (3,), b)
    assert (x + y).dtype.numpy == wanted
    assert graphc.where(x == y, x, y).dtype.numpy == wanted
    assert graphc.concat([x, y]).dtype.numpy == wanted
    assert (x + np.ones(3, b.numpy)).dtype.numpy == (x + b.numpy.type(1)).dtype.numpy == wanted  # neither is weak


@pytest.mark.parametrize("number", [True, 1, 1.5], ids=["bool", "int", "float"])
@pytest.mark.parametrize("dtype", NATIVE, ids=str)
def test_python_scalars_are_weak(dtype: DType, number: Any) -> None:
    wanted = (np.ones(1, dtype.numpy) + number).dtype
    x = placeholder("x", (1,), dtype)
    assert (x + number).dtype.numpy == (number + x).dtype.numpy == np.result_type(dtype.numpy, number) == wanted


@pytest.mark.parametrize("dtype", NATIVE, ids=str)
def test_complex_numbers_are_refused(dtype: DType) -> None:
    with pytest.raises(DTypeError, match="graphc has no dtype complex128"):
        placeholder("x", (1,), dtype) * 2j
    with pytest.raises(DTypeError, match="complex64"):
        graphc.constant(np.ones(2, "complex64"))


INTEGERS = [d for d in NATIVE if d.is_integer]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_an_int_that_does_not_fit_is_an_overflow(dtype: DType) -> None:
    info = np.iinfo(dtype.numpy)
    x, array = placeholder("x", (1,), dtype), np.ones(1, dtype.numpy)
    for number in (int(info.max) + 1, int(info.min) - 1, 10**30):
        with pytest.raises(OverflowError):
            array + number
        for build in (lambda n: x + n, lambda n: n * x, lambda n: graphc.maximum(x, n), lambda n: x << n):
            with pytest.raises(IntegerRangeError, match=f"does not fit {dtype.name}") as caught:
                build(number)
            assert isinstance(caught.value, OverflowError) and "test_promotion.py" in str(caught.value)
    for number in (int(info.max), int(info.min)):
        agree(lambda x, n=number: x + n, array + number, array)


COMPARISONS: list[Callable[[Any, Any], Any]] = [
    operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
]  # fmt: skip


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_comparisons_with_ints_that_do_not_fit_are_exact(dtype: DType) -> None:
    info = np.iinfo(dtype.numpy)
    array = np.array([info.min, 0, 1, info.max], dtype.numpy)
    numbers = (int(info.max) + 1, int(info.min) - 1, -(10**30), 2**64, int(info.max))

    def build(x: Any) -> list[Any]:
        return [r for compare in COMPARISONS for n in numbers for r in (compare(x, n), compare(n, x))]

    agree(build, build(array), array)


def test_int64_and_uint64_compare_exactly() -> None:
    a = np.array([-(2**63), -1, 0, 1, 2**53, 2**53 + 1, 2**63 - 1], np.int64)
    b = np.array([0, 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)
    x, y = (m.ravel() for m in np.meshgrid(a, b))

    def build(x: Any, y: Any) -> list[Any]:
        return [r for compare in COMPARISONS for r in (compare(x, y), compare(y, x))]

    agree(build, build(x, y), x, y)


def test_clip_takes_limits_beyond_the_dtype() -> None:
    array = np.array([-128, 0, 127], np.int8)
    wanted = [np.clip(array, -1000, 5), np.clip(array, -3, 1000)]
    agree(lambda x: [graphc.clip(x, -1000, 5), graphc.clip(x, -3, 1000)], wanted, array)


def test_huge_ints_are_infinities_as_floats() -> None:
    array = np.array([1.0, -1.0], "float32")
    with np.errstate(all="ignore"):
        wanted = [array + 2**200, array - np.float32(np.inf), array + 2**70]
    agree(lambda x: [x + 2**200, x - 10**400, x + 2**70], wanted, array)


@pytest.mark.parametrize("dtype", NATIVE, ids=str)
def test_sums_and_products_promote_as_numpy(dtype: DType) -> None:
    array = np.array([[1, 0, 1], [1, 1, 1]], dtype.numpy)
    if dtype.is_integer:
        array = array * np.array(np.iinfo(dtype.numpy).max // 2 + 1, dtype.numpy)
    agree(
        lambda x: [x.sum(axis=0), graphc.prod(x, axis=1), graphc.cumsum(x, axis=1), x.max(axis=0), graphc.mean(x * 0)],
        [array.sum(axis=0), array.prod(axis=1), array.cumsum(axis=1), array.max(axis=0), np.mean(array * 0)],
        array,
        rtol=0 if not dtype.is_float else 1e-6,
    )


def test_promotion_of_tensors_only() -> None:
    x: Tensor = placeholder("x", (2,), "int8")
    assert (x + True).dtype.name == "int8" and (x / 2).dtype.name == "float64"
