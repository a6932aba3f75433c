"""Long epilogues of products, several vectors at a time: the bits of the same steps in a kernel of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc
from graphc.build import Tensor
from graphc.loops.builder import Builder
from graphc.loops.epilogue import TURNS, Stage, cost_of
from graphc.target import AVX512, Target
from graphc.types import DType, Size, float32, float64
from tests.other_targets import NARROWER, narrowed

Form = Callable[[Tensor], Tensor]
FORMS: dict[str, Form] = {
    "gelu": graphc.nn.functional.gelu,
    "silu": lambda y: y * graphc.sigmoid(y),
    "mish": lambda y: y * graphc.tanh(graphc.softplus(y)),
    "log2": lambda y: graphc.log2(y * y + 1),  # float32 in float64
    "sin": lambda y: graphc.sin(y * 1e6),  # with a branch that some lanes need
    "dropout": lambda y: graphc.where(graphc.random.uniform(graphc.random.key(3), y.shape) < 0.5, graphc.exp(y), 0),
    "transposed": lambda y: graphc.tanh(y).T,
}
SIZES = [(1, 1), (7, 15), (5, 33), (13, 48), (30, 64), (9, 100), (64, 112), (11, 130), (40, 257)]


def product_and_form(form: str, m: Size, k: int, n: Size, dtype: str = "float32") -> tuple[object, object, object]:
    """The product with the form behind it in one function, and both in functions of their own."""
    x, w, b, y = (
        graphc.placeholder(name, shape, dtype)
        for name, shape in (("x", (m, k)), ("w", (k, n)), ("b", (n,)), ("y", (m, n)))
    )
    joined = graphc.function([x, w, b], [FORMS[form](x @ w + b)])
    assert len(joined.kernels) <= 2  # one that may pack
    return joined, graphc.function([x, w, b], [x @ w + b]), graphc.function([y], [FORMS[form](y)])


def check(form: str, m: int, n: int, functions: tuple[object, ...], dtype: str = "float32") -> None:
    draw = np.random.default_rng(m * 1000 + n).standard_normal
    x, w, b = draw((m, 20)).astype(dtype), draw((20, n)).astype(dtype), draw(n).astype(dtype)
    joined, product, alone = functions
    x[0, 0] = np.inf  # a row of infinities and NaN
    (found,), (stored,) = joined(x, w, b), product(x, w, b)  # type: ignore[operator]
    (expected,) = alone(stored)  # type: ignore[operator]
    np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize(("m", "n"), SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_a_long_epilogue_gives_the_bits_of_a_kernel_of_its_own(form: str, m: int, n: int) -> None:
    check(form, m, n, product_and_form(form, m, 20, n))


@pytest.mark.parametrize("form", ["gelu", "log2", "transposed"])
def test_with_names_for_both_sizes(form: str) -> None:
    functions = product_and_form(form, "m", 20, "n")  # type: ignore[arg-type]
    for m, n in SIZES:
        check(form, m, n, functions)


@pytest.mark.parametrize("form", ["gelu", "silu"])
def test_in_float64(form: str) -> None:
    check(form, 13, 44, product_and_form(form, 13, 20, 44, "float64"), "float64")


@pytest.mark.parametrize("target", NARROWER)
@pytest.mark.parametrize("form", ["gelu", "log2", "silu"])
def test_on_narrower_registers(target: Target, form: str) -> None:
    with narrowed(target):
        for m, n in ((7, 15), (9, 100), (30, 64)):
            check(form, m, n, product_and_form(form, m, 20, n))


def test_groups_are_powers_of_two_and_cover_all_vectors() -> None:
    for turns in (1, 2, 4):
        for vectors in range(1, 14):
            groups = list(Stage("s", turns).groups(vectors))
            assert [v for first, some in groups for v in range(first, first + some)] == list(range(vectors))
            assert all(some <= turns and some & (some - 1) == 0 for _, some in groups)


@pytest.mark.parametrize(("name", "dtype", "turns"), [("tanh", float32, TURNS), ("log2", float32, TURNS // 2),
                                                      ("tanh", float64, TURNS), ("log2", float64, TURNS)])  # fmt: skip
def test_what_takes_two_registers_has_half_as_many_vectors(name: str, dtype: DType, turns: int) -> None:
    builder = Builder(AVX512.lanes(dtype.itemsize))
    cost = cost_of(
        builder, lambda h, value, row, col, batch, mask: h.store("c", col, h.function(name, value), mask), dtype, 0
    )
    assert cost.turns == turns and cost.length > 30
