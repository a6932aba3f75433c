"""einsum, tensordot, outer and vecdot against NumPy: values, gradients, what is compiled, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import interpret
from graphc.build import Tensor, placeholder
from graphc.errors import ArgumentError, ShapeError
from graphc.ops import einsum, outer, tensordot, vecdot

SIZES = {"a": 3, "b": 2, "i": 4, "j": 5, "k": 6, "l": 1}

CASES = [
    "ij,jk->ik", "ij,kj->ik", "ji,jk->ik", "ij,jk->ki", "ij,jk", "bij,bjk->bik", "bij,bkj->bik", "bij,jk->bik",
    "abij,bajk->abik", "abij,abkj->baki", "aij,jk->aik", "aij,akj->ik", "aij,bij->ab", "aibj,ij->ab", "ij,j->i",
    "j,ij->i", "i,i->", "bi,bi->b", "i,j->ij", "i,j->ji", "i,i->i", "bi,bj->bij", "ij,kl->", "ijk,ja->aik", "ij,l->ij",
    "ij->ji", "ij->i", "ijk->", "ii->i", "ii->", "iij->ij", "ii,ij->j", "ij,jk,ka->ia", "i,ij,j->",
    "...ij,...jk->...ik",
    "...i,i->...", "ij...,jk...->ik...", "ij,", "i...->...",
]  # fmt: skip


def operands(subscripts: str, rng: np.random.Generator) -> list[np.ndarray]:
    parts = subscripts.split("->")[0].split(",")
    shapes = [[n for c in part.replace("...", "ab") for n in [SIZES[c]]] for part in parts]
    return [rng.standard_normal(shape) for shape in shapes]


def evaluated(result: Tensor, inputs: list[Tensor], arrays: list[np.ndarray]) -> np.ndarray:
    (value,) = interpret.evaluate([result.ref], {t.ref: a for t, a in zip(inputs, arrays, strict=True)})
    return value


@pytest.mark.parametrize("subscripts", CASES)
def test_einsum_is_that_of_numpy(subscripts: str, rng: np.random.Generator) -> None:
    arrays = operands(subscripts, rng)
    inputs = [placeholder(f"x{i}", a.shape, "float64") for i, a in enumerate(arrays)]
    result = einsum(subscripts, *inputs)
    np.testing.assert_allclose(
        evaluated(result, inputs, arrays), np.einsum(subscripts, *arrays), rtol=1e-12, atol=1e-12
    )
    gradients = graphc.grad((result * result).sum(), inputs)
    direction = [rng.standard_normal(a.shape) for a in arrays]
    slope = sum(float((evaluated(g, inputs, arrays) * d).sum()) for g, d in zip(gradients, direction, strict=True))
    step = 1e-6
    ends = [[a + s * step * d for a, d in zip(arrays, direction, strict=True)] for s in (1, -1)]
    high, low = (float((np.einsum(subscripts, *end) ** 2).sum()) for end in ends)
    assert slope == pytest.approx((high - low) / (2 * step), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    "subscripts", ["ij,kj->ik", "bij,bkj->bik", "aij,akj->ik", "bi,bi->b", "ijk,ja->aik", "ii,ij->j"]
)
def test_compiled(subscripts: str, rng: np.random.Generator) -> None:
    arrays = [a.astype(np.float32) for a in operands(subscripts, rng)]
    inputs = [placeholder(f"x{i}", a.shape, "float32") for i, a in enumerate(arrays)]
    with graphc.config(verify=True, cache=False):
        actual = graphc.function(inputs, einsum(subscripts, *inputs))(*arrays)
    np.testing.assert_allclose(actual, np.einsum(subscripts, *arrays), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("subscripts", ["ij,jk->ik", "ji,jk->ik", "ij,jk->ki", "abij,abkj->baik", "aij,aik->jk"])
def test_operands_stay_where_they_are(subscripts: str) -> None:
    """One kernel that reads both operands by their strides: nothing is copied in front of it."""
    inputs = [
        placeholder(f"x{i}", a.shape, "float32") for i, a in enumerate(operands(subscripts, np.random.default_rng()))
    ]
    program = graphc.function(inputs, einsum(subscripts, *inputs)).ir("optimized")
    assert program.count("= kernel(") == 1


def test_named_sizes_and_dtypes(rng: np.random.Generator) -> None:
    x, w = placeholder("x", ("batch", 7, 3), "int32"), placeholder("w", (3, 2), "int32")
    a, b = rng.integers(-9, 9, (5, 7, 3), "int32"), rng.integers(-9, 9, (3, 2), "int32")
    result = einsum("bth,ho->bto", x, w)
    assert str(result.type) == "i32[batch,7,2]"
    np.testing.assert_array_equal(evaluated(result, [x, w], [a, b]), np.einsum("bth,ho->bto", a, b))
    assert str(einsum("bth->b", x).type) == "i32[batch]"
    p = placeholder("p", (3, 4), "bool")
    flags = rng.random((3, 4)) < 0.3
    np.testing.assert_array_equal(evaluated(einsum("ij->i", p), [p], [flags]), flags.any(1))


def test_axes_of_an_ellipsis_broadcast(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 1, 3, 4)), rng.standard_normal((5, 4, 6))
    x, y = placeholder("x", a.shape, "float64"), placeholder("y", b.shape, "float64")
    result = evaluated(einsum("...ij,...jk->...ik", x, y), [x, y], [a, b])
    np.testing.assert_allclose(result, a @ b, rtol=1e-12)


@pytest.mark.parametrize("axes", [0, 1, 2, ([1, 2], [0, 1]), ([2], [1]), (1, 0), ([-1, 1], [1, 0])])
def test_tensordot(axes: Any, rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((3, 4, 4)), rng.standard_normal((4, 4, 5))
    x, y = placeholder("x", a.shape, "float64"), placeholder("y", b.shape, "float64")
    actual = evaluated(tensordot(x, y, axes), [x, y], [a, b])
    np.testing.assert_allclose(actual, np.tensordot(a, b, axes), rtol=1e-12, atol=1e-12)


def test_outer_and_vecdot(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 3)), rng.standard_normal((4,))
    x, y = placeholder("x", a.shape, "float64"), placeholder("y", b.shape, "float64")
    np.testing.assert_array_equal(evaluated(outer(x, y), [x, y], [a, b]), np.outer(a, b))
    c = rng.standard_normal((5, 1, 3))
    z = placeholder("z", c.shape, "float64")
    np.testing.assert_allclose(evaluated(vecdot(x, z), [x, z], [a, c]), np.vecdot(a, c), rtol=1e-12)
    d = rng.standard_normal((2, 7))
    v = placeholder("v", d.shape, "float64")
    np.testing.assert_allclose(evaluated(vecdot(v, v, axis=-2), [v], [d]), np.vecdot(d, d, axis=-2), rtol=1e-12)


@pytest.mark.parametrize(
    "subscripts, error, text",
    [
        ("ij,kk->ik", ShapeError, "k is 4 and 5"),
        ("ij,jk->ik", ShapeError, "j is 3 and 4"),
        ("ij->ij", ArgumentError, "is for 1 operands, not 2"),
        ("ij,jk->iz", ArgumentError, "the result has z"),
        ("ij,jk->ii", ArgumentError, "a label twice"),
        ("i1,jk->ik", ArgumentError, "no subscripts"),
        ("ijk,jk->ik", ArgumentError, "does not fit the axes"),
        ("i...,...k->ik", ArgumentError, "missing in the result"),
    ],
)
def test_errors(subscripts: str, error: type[Exception], text: str) -> None:
    x, y = placeholder("x", (2, 3), "float32"), placeholder("y", (4, 5), "float32")
    with pytest.raises(error, match=text):
        einsum(subscripts, x, y)
    with pytest.raises(ShapeError, match="along axis -1 differ"):
        vecdot(x, placeholder("z", (2, 1), "float32"))
    with pytest.raises(ShapeError, match="axis 1 of the first"):
        tensordot(x, y, 1)
