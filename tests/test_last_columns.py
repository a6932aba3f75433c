"""Columns behind whole vectors, computed with the rows in the lanes: the same bits as in tiles, for any rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphc
from graphc.llvm.emit import emit
from graphc.loops.ir import BufferParam
from graphc.loops.last_columns import columns_apart
from graphc.loops.problem import Operand, Outer, Problem
from graphc.runtime.host import host_target
from graphc.runtime.jit import compile_object
from graphc.target import AVX2, AVX512, NEON, Target
from graphc.types import Dim, Size, float32
from tests.products import generate, store_epilogue

TARGET = replace(AVX512, l2_bytes=1 << 21)


def apart(m: Size, k: Size, n: Size, target: Target = TARGET, form: str = "NN") -> int:
    a = Operand("a", 0, (), 1, m) if form[0] == "T" else Operand("a", 0, (), k, 1)
    b = Operand("b", 0, (), 1, k) if form[1] == "T" else Operand("b", 0, (), n, 1)
    return columns_apart(Problem(float32, (), m, n, k, a, b), target)


def test_a_few_columns_behind_vectors_are_apart() -> None:
    assert [apart(127, 65, n) for n in (15, 16, 17, 20, 21, 32, 33, 36, 37, 100)] == [0, 0, 1, 4, 0, 0, 1, 4, 0, 4]
    assert [apart(127, 65, 33, form=form) for form in ("NT", "TN", "TT")] == [1, 1, 1]
    assert apart(Dim.symbol("m"), 65, 33) == 1
    assert [apart(127, 65, n, AVX2) for n in (17, 18, 19, 57)] == [1, 2, 0, 0]


def test_others_are_not() -> None:
    assert apart(127, 65, 16 * 7 + 1) == 0  # one vector of eight
    assert apart(31, 65, 33) == apart(127, 15, 33) == 0  # too small
    assert apart(4096, 4096, 33) == 0  # A would come from memory twice
    assert apart(127, Dim.symbol("k"), 33) == apart(127, 65, Dim.symbol("n")) == 0
    problem = Problem(float32, (), 127, 33, 65, Operand("a", 0, (), 130, 2), Operand("b", 0, (), 33, 1))
    assert columns_apart(problem, TARGET) == 0  # neither rows nor steps of A lie side by side
    window = replace(problem, a=replace(problem.a, col=1), outer=(Outer(3, 65, 33),))
    assert columns_apart(window, TARGET) == 0


def product(form: str, m: int | str, k: int, n: int, dtype: str, batch: tuple[int, ...]) -> graphc.Function:
    def operand(name: str, turned: bool, *shape: int | str) -> tuple[graphc.Tensor, graphc.Tensor]:
        given = graphc.placeholder(name, (*batch, *(shape[::-1] if turned else shape)), dtype)
        axes = [*range(len(batch)), len(batch) + 1, len(batch)]
        return given, graphc.transpose(given, axes) if turned else given

    (a, left), (b, right) = operand("a", form[0] == "T", m, k), operand("b", form[1] == "T", k, n)
    return graphc.function([a, b], left @ right)


@pytest.mark.parametrize("form", ["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize(("dtype", "batch"), [("float32", ()), ("float32", (2, 2)), ("float64", ()), ("int32", (3,))])
def test_bits_are_those_of_tiles(form: str, dtype: str, batch: tuple[int, ...]) -> None:
    """A wider B of the same columns has none that are apart, so that its products are all those of tiles."""
    lanes = host_target().lanes(np.dtype(dtype).itemsize)
    rng = np.random.default_rng(5)

    def stored(array: np.ndarray, turned: bool) -> np.ndarray:
        return np.ascontiguousarray(array.swapaxes(-1, -2)) if turned else array

    quarter = max(1, lanes // 4)
    for k, m, whole, last in ((33, 4 * lanes - 1, 2, 1), (16, 2 * lanes, 5, 1), (18, 5 * lanes + 3, 6, quarter)):
        n, wide = whole * lanes + last, (whole + 1) * lanes
        b = (rng.normal(size=(*batch, k, wide)) * 9).astype(dtype)
        some, named, more = (product(form, *sizes, dtype, batch) for sizes in ((m, k, n), ("m", k, n), ("m", k, wide)))
        for rows in (0, 1, lanes - 1, lanes, m):
            a = (rng.normal(size=(*batch, rows, k)) * 9).astype(dtype)
            left = stored(a, form[0] == "T")
            expected = more(left, stored(b, form[1] == "T"))[..., :n]
            assert np.allclose(expected, a @ b[..., :n], rtol=1e-4, atol=1e-3)
            for function in (some, named) if rows == m else (named,):
                found = function(left, stored(b[..., :n], form[1] == "T"))
                assert found.tobytes() == expected.tobytes(), (k, n, m, rows)


def test_epilogues_and_special_values() -> None:
    """What rides behind the product sees rows in the lanes; an infinite or missing number stays in its row."""
    rng = np.random.default_rng(6)
    x, w = rng.normal(size=(40, 20)).astype("float32"), rng.normal(size=(20, 34)).astype("float32")
    bias, scale = rng.normal(size=34).astype("float32"), rng.normal(size=(40, 1)).astype("float32")
    x[3, 5], x[39, 0], w[0, 33] = np.inf, np.nan, -0.0
    given = [graphc.placeholder(name, array.shape, "float32") for name, array in zip("xwbs", (x, w, bias, scale))]
    layer = graphc.function(given, graphc.relu(given[0] @ given[1] * given[3] + given[2]))
    with np.errstate(invalid="ignore"):
        expected = (x @ w) * scale + bias
        expected = np.where(expected <= 0, 0, expected)
    np.testing.assert_allclose(layer(x, w, bias, scale), expected, rtol=1e-4, atol=1e-5)
    long = graphc.function(given, graphc.erf(graphc.tanh(given[0] @ given[1] * given[3]) + given[2]))
    found = long(x, w, bias, scale)
    assert np.isnan(found[39]).all() and not np.isnan(found[:39, :33]).any()


@pytest.mark.parametrize("target", [AVX2, AVX512, NEON])
@pytest.mark.parametrize("m", [70, Dim.symbol("s0")])
@pytest.mark.parametrize("form", ["N", "T"])
def test_all_targets_compile(m: Size, target: Target, form: str) -> None:
    kernel = generate(
        "last", dtype=float32, batch=(), m=m, n=17, k=18, a=Operand("b0", 0, (), *((1, m) if form == "T" else (18, 1))),
        b=Operand("b1", 0, (), 17, 1), epilogue=store_epilogue("b2", (), 17, 1), sizes=["s0"], target=target,
        buffers=[BufferParam(f"b{i}", float32, 1, i == 2) for i in range(3)],
    )  # fmt: skip
    assert compile_object(emit(kernel, target), target, True)
