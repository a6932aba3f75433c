"""Rows of a product in its kernel: what is joined, what must not be, and that no bit changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

import graphc
from graphc.build import Tensor
from graphc.graph import Graph, Node
from graphc.nn import functional
from graphc.passes import join_rows as passes_join_rows
from graphc.passes.domain import kernel_shape
from graphc.passes.pipeline import optimize
from graphc.passes.product_rows import ProductRowsShape
from tests.fusion_checks import Make, Shapes, frozen, kernels, shaped


@pytest.fixture(autouse=True)
def _no_cache() -> object:
    with graphc.config(cache=False, verify=True) as settings:
        yield settings


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of any size are joined."""
    monkeypatch.setattr("graphc.passes.join_rows.LEAST_BYTES", 0)


def joined(graph: Graph) -> list[Node]:
    """The kernels that hold rows of their product."""
    return [n for n in kernels(optimize(graph)) if isinstance(kernel_shape(n.attrs["graph"]), ProductRowsShape)]


def same_bits(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], arrays: Sequence[Sequence[np.ndarray]]
) -> graphc.Function:
    """The function, whose results are those without the pass: to the bit, but for the signs of NaN."""
    function = graphc.function(inputs, outputs, threads=1)
    with graphc.config(disable="join_rows"):
        plain = graphc.function(inputs, outputs, threads=1)
    for values in arrays:
        for found, wanted in zip(function(*values), plain(*values)):
            assert found.dtype == wanted.dtype and found.shape == wanted.shape
            assert without_signs(found).tobytes() == without_signs(wanted).tobytes()
    return function


def without_signs(array: np.ndarray) -> np.ndarray:
    """The array with one NaN for all."""
    return np.where(np.isnan(array), np.array(np.nan, array.dtype), array) if array.dtype.kind == "f" else array


def normed(y: Tensor) -> Tensor:
    centred = y - y.mean(-1, keepdims=True)
    return centred * graphc.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)


def picked(y: Tensor, labels: Tensor) -> Tensor:
    """What a cross-entropy takes of each row."""
    return graphc.take_along_axis(functional.log_softmax(y, -1), labels, -1)


FORMS: dict[str, Make] = {
    "softmax": lambda x, w, b, i: [functional.softmax(x @ w, -1)],
    "bias, log-softmax": lambda x, w, b, i: [functional.log_softmax(x @ w + b, -1)],
    "layer norm": lambda x, w, b, i: [normed(x @ w + b)],
    "cross-entropy": lambda x, w, b, i: [picked(x @ w + b, i)],
    "statistics alone": lambda x, w, b, i: [(x @ w).max(-1), (x @ w).sum(-1, keepdims=True), (x @ w).argmax(-1)],
    "product and statistics": lambda x, w, b, i: [x @ w + b, (x @ w + b).mean(-1), ((x @ w + b) ** 2).sum(-1)],
    "product and argmax": lambda x, w, b, i: [x @ w, (x @ w).argmin(-1)],
}
SIZES = [(2, 1, 2), (0, 5, 3), (4, 0, 5), (5, 40, 17), (200, 70, 65), (131, 300, 513)]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("m, k, n", SIZES)
def test_no_bit_changes(name: str, m: int, k: int, n: int, rng: np.random.Generator, small: None) -> None:
    inputs = shaped([(m, k), (k, n), (n,), (m, 1)], ["float32", "float32", "float32", "int64"])
    outputs = FORMS[name](*inputs)
    assert len(joined(frozen(inputs, outputs))) == 1
    ordinary = [rng.standard_normal(shape).astype("float32") for shape in ((m, k), (k, n), (n,))]
    special = [array.copy() for array in ordinary]
    for array in special:
        if array.size:
            chosen = rng.integers(0, array.size, 6)
            array.reshape(-1)[chosen] = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40], "float32")
    labels = rng.integers(0, n, (m, 1))
    with np.errstate(all="ignore"):
        same_bits(inputs, outputs, [[*ordinary, labels], [*special, labels]])


@pytest.mark.parametrize("m, n", [(200, 64), (130, 1024), ("m", 100)])
def test_any_number_of_threads(m: int | str, n: int, rng: np.random.Generator, small: None) -> None:
    """A product that the kernel changes by a long function, as the epilogue does otherwise: its rows are summed in
    another order than by a kernel of rows, but always in the same one.
    """
    inputs = shaped([(m, 70), (70, n)])
    y = graphc.tanh(inputs[0] @ inputs[1])
    outputs = [y * graphc.rsqrt((y * y).mean(-1, keepdims=True) + 1e-5)]
    assert len(joined(frozen(inputs, outputs))) == 1
    arrays = [rng.standard_normal(shape).astype("float32") for shape in ((200 if m == "m" else m, 70), (70, n))]
    one, two, three = (graphc.function(inputs, outputs, threads=n)(*arrays)[0].tobytes() for n in (1, 2, 3))
    assert one == two == three
    wide = np.tanh(arrays[0].astype("float64") @ arrays[1])
    expected = wide / np.sqrt((wide * wide).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(np.frombuffer(one, "float32").reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_symbolic_rows(rng: np.random.Generator) -> None:
    inputs = shaped([("m", 40), (40, 70), (70,)])
    outputs = [functional.softmax(inputs[0] @ inputs[1] + inputs[2], -1)]
    assert len(joined(frozen(inputs, outputs))) == 1
    others = [rng.standard_normal(shape).astype("float32") for shape in ((40, 70), (70,))]
    arrays = [[rng.standard_normal((m, 40)).astype("float32"), *others] for m in (0, 1, 2, 9, 10, 64, 255, 700)]
    function = same_bits(inputs, outputs, arrays)
    x, w, b = (array.astype("float64") for array in arrays[-1])
    y = np.exp(x @ w + b - (x @ w + b).max(-1, keepdims=True))
    np.testing.assert_allclose(function(*arrays[-1])[0], y / y.sum(-1, keepdims=True), rtol=2e-5)


def test_a_matrix_that_is_packed_for_symbolic_rows(rng: np.random.Generator) -> None:
    inputs = shaped([("m", 256), (256, 1000)])
    outputs = [normed(inputs[0] @ inputs[1])]
    assert len(joined(frozen(inputs, outputs))) == 1
    w = rng.standard_normal((256, 1000)).astype("float32")
    same_bits(inputs, outputs, [[rng.standard_normal((m, 256)).astype("float32"), w] for m in (1, 130, 600)])


@pytest.mark.parametrize("shapes, make", [
    ([(300, 130), (300, 90)], lambda x, w: x.T @ w),
    ([(130, 300), (90, 300)], lambda x, w: x @ w.T),
    ([(2000, 200), (2000, 90)], lambda x, w: x.T @ w),
    ([(100, 5000), (5000, 20)], lambda x, w: x @ w),
    ([(300, 130), (300, 7)], lambda x, w: x.T @ w),
    ([(4, 9, 33), (33, 50)], lambda x, w: x @ w),
    ([("b", 9, 33), (33, 50)], lambda x, w: x @ w),
])  # fmt: skip
def test_layouts(shapes: Shapes, make: Callable[..., Tensor], rng: np.random.Generator, small: None) -> None:
    inputs = shaped(shapes)
    y = make(*inputs)
    outputs = [functional.softmax(y, -1)]
    assert len(joined(frozen(inputs, outputs))) == 1
    arrays = [rng.standard_normal([3 if size == "b" else size for size in shape]).astype("float32") for shape in shapes]
    same_bits(inputs, outputs, [arrays])


@pytest.mark.parametrize("dtype", ["float64", "int32", "int64", "float16", "int8"])
def test_dtypes(dtype: str, rng: np.random.Generator, small: None) -> None:
    inputs = shaped([(50, 20), (20, 30)], [dtype] * 2)
    y = inputs[0] @ inputs[1]
    arrays = [rng.integers(-9, 9, shape).astype(dtype) for shape in ((50, 20), (20, 30))]
    same_bits(inputs, [y.max(-1), y.sum(-1), graphc.where(y > 0, y, 0).sum(-1), y.argmax(-1)], [arrays])


def test_wrong_labels_are_found(small: None) -> None:
    x, w, labels = shaped([(40, 8), (8, 12), (40, 1)], ["float32", "float32", "int64"])
    function = graphc.function([x, w, labels], [picked(x @ w, labels)])
    assert len(joined(frozen([x, w, labels], [picked(x @ w, labels)]))) == 1
    wrong = np.zeros((40, 1), "int64")
    wrong[17] = 12
    with pytest.raises(IndexError, match="12"):
        function(np.ones((40, 8), "float32"), np.ones((8, 12), "float32"), wrong)


REFUSED: dict[str, Make] = {
    "product stored beside another matrix": lambda x, w, v: [x @ w, functional.softmax(x @ w, -1)],
    "two readers": lambda x, w, v: [functional.softmax(x @ w, -1), (x @ w) @ v],
    "statistics of a stored product that take long": lambda x, w, v: [x @ w, graphc.exp(x @ w).sum(-1)],
    "columns": lambda x, w, v: [functional.softmax(x @ w, 0)],
    "transposed": lambda x, w, v: [functional.softmax((x @ w).T, 0).T @ v],
    "all": lambda x, w, v: [(x @ w) / (x @ w).sum()],
    "through another product": lambda x, w, v: [functional.softmax(x @ w + (x @ w @ v), -1)],
    "another row": lambda x, w, v: [(x @ w).max(-1, keepdims=True) + (x @ w)[::-1]],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_joined(name: str, rng: np.random.Generator, small: None) -> None:
    shapes = [(70, 40), (40, 70), (70, 70)]
    inputs = shaped(shapes)
    outputs = REFUSED[name](*inputs)
    assert not [n for n in joined(frozen(inputs, outputs)) if len(n.inputs) == 2 and name != "through another product"]
    same_bits(inputs, outputs, [[rng.standard_normal(shape).astype("float32") for shape in shapes]])


@pytest.mark.parametrize("m, k, n, expected", [
    (4096, 64, 64, 1),
    (100, 64, 64, 0),  # all in the cache anyway
    (1024, 256, 1024, 1),
    (1024, 768, 768, 0),  # every few rows would read more than fits the second cache
    (1024, 64, 2048, 0),  # a few rows would not fit the first one
    ("m", 256, 256, 1),
    ("m", "k", 64, 0),
    ("m", 64, "n", 0),
    (1, 64, 1024, 0),
    (1 << 20, 64, 1, 0),
])  # fmt: skip
def test_sizes_decide(m: int | str, k: int | str, n: int | str, expected: int) -> None:
    inputs = shaped([(m, k), (k, n)])
    graph = frozen(inputs, [functional.softmax(inputs[0] @ inputs[1], -1)])
    assert len(joined(graph)) == expected


def test_two_pairs_make_no_cycle(rng: np.random.Generator, small: None) -> None:
    """Each kernel of rows reads what follows from the other product: only one of them can join its own."""
    inputs = shaped([(64, 32), (32, 64), (32, 64)])
    x, w, v = inputs
    a, b = x @ w, x @ v
    column_a, column_b = a.sum(0, keepdims=True), b.sum(0, keepdims=True)
    outputs = [(a + column_b).max(-1), (b + column_a).max(-1)]
    assert len(joined(frozen(inputs, outputs))) <= 1
    same_bits(inputs, outputs, [[rng.standard_normal(t.shape).astype("float32") for t in inputs]])


def test_residuals_of_several_products(rng: np.random.Generator, small: None) -> None:
    """One of two products that a kernel of rows reads becomes its own; the other one is read from memory."""
    inputs = shaped([(64, 32), (32, 48), (32, 48)])
    x, w, v = inputs
    outputs = [normed(x @ w + x @ v)]
    assert len(joined(frozen(inputs, outputs))) == 1
    same_bits(inputs, outputs, [[rng.standard_normal(t.shape).astype("float32") for t in inputs]])


def test_the_pass_is_pure(small: None) -> None:
    inputs = shaped([(64, 32), (32, 48)])
    graph = frozen(inputs, [normed(inputs[0] @ inputs[1])])
    with graphc.config(disable="join_rows"):
        before = optimize(graph)
    text = graphc.text.to_text(before)
    assert len(passes_join_rows.join_rows(before).order()) < len(before.order())
    assert graphc.text.to_text(before) == text


PROLOGUES: dict[str, Make] = {
    "scaled rows": lambda x, w, s: [normed((x * s) @ w)],
    "scaled columns": lambda x, w, s: [functional.softmax(x @ (w * 2.0).T, -1)],
    "masked, transposed": lambda x, w, s: [normed(graphc.where(x <= 0, 0.0, x).T @ x)],
}


@pytest.mark.parametrize("name", PROLOGUES)
@pytest.mark.parametrize("m, k", [(130, 64), (300, 200), ("m", 64)])
def test_with_prologues(name: str, m: int | str, k: int, rng: np.random.Generator, small: None) -> None:
    """A kernel may compute its operand and finish its rows."""
    inputs = shaped([(m, k), (k, k), (m, 1)])
    outputs = PROLOGUES[name](*inputs)
    rows = 77 if m == "m" else m
    if m != "m":
        assert len(joined(frozen(inputs, outputs))) == 1
    shapes = [(rows, k), (k, k), (rows, 1)]
    same_bits(inputs, outputs, [[rng.standard_normal(shape).astype("float32") for shape in shapes]])


def test_narrow_operands_are_computed(rng: np.random.Generator, small: None) -> None:
    """Casts stay with the product."""
    inputs = shaped([(300, 64), (64, 90)], ["float16"] * 2)
    outputs = [functional.softmax(inputs[0] @ inputs[1], -1)]
    (kernel,) = kernels(optimize(frozen(inputs, outputs)))
    assert isinstance(kernel_shape(kernel.attrs["graph"]), ProductRowsShape)
    x, w = (rng.standard_normal(shape).astype("float16") for shape in ((300, 64), (64, 90)))
    same_bits(inputs, outputs, [[x, w]])
