"""Operands that the kernel of a contraction computes: what is fused, what must not be, and that no bit changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import graphc
from graphc.build import Tensor
from graphc.graph import Node
from graphc.passes.domain import ContractionShape, kernel_shape
from graphc.passes.pipeline import optimize
from tests.fusion_checks import Make, Shapes, frozen, kernels, shaped


@pytest.fixture(autouse=True)
def _no_cache() -> object:
    with graphc.config(cache=False, verify=True) as settings:
        yield settings


def computing(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Node]:
    """The kernels that compute an operand."""
    found = kernels(optimize(frozen(inputs, outputs)))
    shapes = [(node, kernel_shape(node.attrs["graph"])) for node in found]
    return [node for node, shape in shapes if isinstance(shape, ContractionShape) and shape.computed]


def same_bits(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], arrays: Sequence[Sequence[np.ndarray]]
) -> graphc.Function:
    """The function, whose results are those without the passes, to the bit, for any number of threads."""
    function = graphc.function(inputs, outputs)
    with graphc.config(disable="compute_operands,compute_copies"):
        plain = graphc.function(inputs, outputs, threads=1)
    for values in arrays:
        expected = plain(*values)
        for threads in (1, 2, 3):
            with graphc.config(num_threads=threads):
                results = function(*values)
            for found, wanted in zip(results, expected):
                assert found.dtype == wanted.dtype and found.shape == wanted.shape
                assert found.tobytes() == wanted.tobytes()
    return function


def special(rng: np.random.Generator, shape: Sequence[int], dtype: str = "float32") -> np.ndarray:
    """Ordinary numbers with a few zeros of both signs, infinities, NaN and denormals among them."""
    values = rng.standard_normal(shape).astype(dtype)
    if values.size:
        chosen = rng.integers(0, values.size, 6)
        values.reshape(-1)[chosen] = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40], dtype)
    return values


FORMS: dict[str, Make] = {
    "mask, rows": lambda a, b, c, r, s: [graphc.where(a <= 0, 0.0, c) @ b],
    "scaled rows": lambda a, b, c, r, s: [((a - r) * s) @ b],
    "scaled rows, transposed": lambda a, b, c, r, s: [((a - r) * s).T @ graphc.maximum(c, 0.0)],
    "square and bias": lambda a, b, c, r, s: [c @ (a * a + s).T],
    "both": lambda a, b, c, r, s: [(a * 2) @ (b + 1)],
    "epilogue": lambda a, b, c, r, s: [graphc.tanh((a / c) @ b) + 1],
}
SIZES = [(1, 1, 1), (0, 5, 3), (4, 0, 5), (5, 4, 0), (1, 40, 30), (37, 53, 61), (130, 70, 200), (300, 513, 700)]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("m, k, n", SIZES)
def test_no_bit_changes(name: str, m: int, k: int, n: int, rng: np.random.Generator) -> None:
    shapes: Shapes = [(m, k), (k, n), (m, k), (m, 1), (k,)]
    inputs = shaped(shapes)
    outputs = FORMS[name](*inputs)
    same_bits(inputs, outputs, [[special(rng, shape) for shape in shapes]])
    if min(m, k, n) > 1:
        assert len(computing(inputs, outputs)) == 1


@pytest.mark.parametrize("name", FORMS)
def test_named_sizes(name: str, rng: np.random.Generator) -> None:
    inputs = shaped([("m", "k"), ("k", "n"), ("m", "k"), ("m", 1), ("k",)])
    outputs = FORMS[name](*inputs)
    assert len(computing(inputs, outputs)) == 1
    arrays = []
    for m, k, n in ((0, 3, 2), (1, 1, 1), (2, 0, 3), (33, 1, 17), (129, 401, 70), (600, 70, 1030)):
        arrays.append([special(rng, shape) for shape in ((m, k), (k, n), (m, k), (m, 1), (k,))])
    same_bits(inputs, outputs, arrays)


@pytest.mark.parametrize("rows", [8, 200, 2100])
@pytest.mark.parametrize("narrow", ["float16", "bfloat16"])
def test_narrow_operands_are_never_stored_wide(narrow: str, rows: int, rng: np.random.Generator) -> None:
    x, w = shaped([(rows, 130), (130, 190)], [narrow, narrow])
    outputs = [x @ w]
    assert len(computing([x, w], outputs)) == 1
    arrays = [graphc.cast_array(rng.standard_normal(t.shape), narrow) for t in (x, w)]
    function = same_bits([x, w], outputs, [arrays])
    assert "w.computed" not in function.ir("program") and "x1.computed" not in function.ir("program")


def test_a_narrow_matrix_for_few_rows_streams_through_the_cache(rng: np.random.Generator) -> None:
    """It is larger than L2 and read once: neither packed nor stored ahead."""
    x, w = shaped([(8, 1100), (1100, 3000)], ["float32", "float16"])
    arrays = [rng.standard_normal(x.shape).astype("float32"), rng.standard_normal(w.shape).astype("float16")]
    function = same_bits([x, w], [x @ w.astype("float32")], [arrays])
    assert [[t.kernel.startswith("matmul") for t in r.tasks] for r in function.program.regions] == [[True]]


def test_integers_wrap(rng: np.random.Generator) -> None:
    inputs = shaped([(40, 30), (30, 50)], ["int32", "int32"])
    x, y = inputs
    arrays = [rng.integers(-(2**31), 2**31, t.shape).astype(np.int32) for t in inputs]
    for output in ((x * x - 7) @ (y.T * 65537).T, (x // (y.T[:1, :] * 0)) @ y):  # by 0 too
        assert len(computing(inputs, [output])) == 1
        same_bits(inputs, [output], [arrays])


def test_batches(rng: np.random.Generator) -> None:
    inputs = shaped([(3, 70, 20), (3, 20, 33), (20,)])
    x, y, s = inputs
    outputs = [(x * s) @ y, x @ (y.transpose(0, 2, 1) + s).transpose(0, 2, 1)]
    assert len(computing(inputs, outputs)) == 2
    same_bits(inputs, outputs, [[special(rng, t.shape) for t in inputs]])


def test_what_others_read_is_stored() -> None:
    x, w, v = shaped([(20, 30), (30, 40), (30, 50)])
    y = x * 3
    assert not computing([x, w], [y @ w, y])  # a result
    long = graphc.exp(x) + graphc.tanh(x)
    assert not computing([x, w, v], [long @ w, long @ v])  # two products would each compute it
    assert not computing([x, w], [graphc.nn.functional.softmax(x, 1) @ w])  # rows that are reduced
    assert not computing([x], [y @ y.T])  # both operands
    i = graphc.placeholder("i", (20, 30), "int64")
    assert not computing([x, w, i], [(graphc.take_along_axis(x, i, 1) * 2) @ w])  # an index that is checked
    assert not computing([x], [(x * x[:, :1])[:, 0] @ x])  # one row


def test_what_follows_from_indices_alone_is_stored() -> None:
    x = graphc.placeholder("x", (5, 5))
    steps = graphc.minimum(graphc.arange(25).reshape(5, 5).astype("float32"), 7.0) * 0.5
    assert not computing([x], [steps @ x])
    with graphc.config(disable="fold_constants"):
        found = graphc.function([x], [steps @ x])(np.eye(5, dtype=np.float32))[0]
    np.testing.assert_array_equal(found, np.minimum(np.arange(25).reshape(5, 5), 7) * np.float32(0.5))


def test_a_cheap_one_of_several_products_is_computed_by_each(rng: np.random.Generator) -> None:
    x, w, v = shaped([(200, 30), (30, 40), (30, 50)], ["float16", "float32", "float32"])
    y = x.astype("float32")
    assert len(computing([x, w, v], [y @ w, y @ v])) == 2
    arrays = [rng.standard_normal(t.shape).astype(d) for t, d in ((x, "float16"), (w, "float32"), (v, "float32"))]
    same_bits([x, w, v], [y @ w, y @ v], [arrays])


@pytest.mark.parametrize("size", [24, 96, 700])
def test_a_parameter_that_a_prologue_reads_is_not_written_under_it(size: int, rng: np.random.Generator) -> None:
    """The new value is computed from a product of the old one: other elements of it than the one that is written."""
    start = rng.standard_normal((size, size)).astype(np.float32)
    x = graphc.placeholder("x", (size, size))
    results = []
    for disable in ("", "compute_operands"):
        for form in (lambda v: v, lambda v: v.T):
            w = graphc.parameter("w", start)
            with graphc.config(disable=disable):
                step = graphc.function([x], [], {w: w - 0.1 * (x @ form(w * 2))}, threads=1)
            value = rng.standard_normal((size, size)).astype(np.float32) if not results else results[0][1]
            for _ in range(2):
                step(value)
            results.append((np.array(w.value), value))
    assert results[0][0].tobytes() == results[2][0].tobytes() and results[1][0].tobytes() == results[3][0].tobytes()
    wide, expected = results[0][1].astype(np.float64), start.astype(np.float64)
    for _ in range(2):
        expected = expected - 0.1 * (wide @ (expected * 2))
    np.testing.assert_allclose(results[0][0], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_another_kernel_updates_in_place_what_a_prologue_reads(rng: np.random.Generator) -> None:
    w = graphc.parameter("w", rng.standard_normal((600, 1100)).astype(np.float32))
    x = graphc.placeholder("x", (64, 1100))
    step = graphc.function([x], [x @ (w * 0.5).T], {w: w + 1.0})
    a = rng.standard_normal((64, 1100)).astype(np.float32)
    for _ in range(3):
        before = np.array(w.value)
        np.testing.assert_allclose(step(a)[0], a @ (before * 0.5).T, rtol=1e-3, atol=1e-2)
        np.testing.assert_array_equal(w.value, before + 1)


def test_gradients_agree(rng: np.random.Generator) -> None:
    inputs = shaped([(40, 30), (30, 25), (30,)])
    x, w, s = inputs
    loss = (graphc.tanh((x * s + 1) @ (w * w)) ** 2).sum()
    outputs = [loss, *graphc.grad(loss, [x, w, s])]
    same_bits(inputs, outputs, [[rng.standard_normal(t.shape).astype(np.float32) for t in inputs]])


def test_every_level_shows_it(capfd: pytest.CaptureFixture[str]) -> None:
    x, w, s = shaped([(200, 700), (900, 700), (900, 1)])
    with graphc.config(log="fusion"):
        function = graphc.function([x, w, s], x @ (w * s).T)
    assert "matmul_of_mul computes its operand f32[900,700] itself: nothing else reads it" in capfd.readouterr().err
    assert "matmul_of_mul" in function.ir("optimized") and "multiply" in function.ir("optimized")
    assert "matmul_of_mul" in function.ir("program")
    packing = function.ir("loops").split("packed_b", 1)[1]
    assert " = x" in packing.split("fma", 1)[0] and " * " in packing.split("fma", 1)[0]


def test_an_operand_that_is_not_packed_is_stored() -> None:
    x, y, g = shaped([(256, 128), (256, 192), (256, 192)])  # whole cache lines, and less than half of L2
    function = graphc.function([x, y, g], x.T @ (y * g))
    assert "x1.computed" in function.ir("program")


def test_what_computes_an_operand_and_a_node_may_be_one_kernel(rng: np.random.Generator) -> None:
    """The node's task had the sizes of the other: none. Both cast a transposed matrix of float16."""
    a, x = (graphc.placeholder(name, (3, "n", 2), dtype) for name, dtype in (("a", "float32"), ("x", "float16")))
    scores = a @ graphc.matrix_transpose(x).astype("float32")
    later = graphc.cumsum((a * scores.sum(-1, keepdims=True)).astype("float16"), 0)
    outputs = [scores, later, graphc.matrix_transpose(later).astype("float32")]
    shape = (3, 5, 2)
    arrays = rng.standard_normal(shape).astype("float32"), rng.standard_normal(shape).astype("float16")
    function = same_bits([a, x], outputs, [arrays])
    regions = function.ir("program").split("region 0:")[1]
    assert regions.count("= cast_") > len({name for name in function.kernels if name.startswith("cast_")})
