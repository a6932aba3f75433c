"""Products of stacked rows and what is computed from them: what is lifted, what stays, that results are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

import graphc
from graphc.build import Tensor
from graphc.graph import Graph
from graphc.interpret import evaluate
from graphc.nn import functional as F
from graphc.passes.lift_reshapes import lift_reshapes
from graphc.passes.pipeline import optimize
from tests.fusion_checks import Shapes, frozen, kernels, shaped

Make = Callable[..., Tensor]
SIZES = [{"b": 2, "t": 5}, {"b": 1, "t": 1}, {"b": 1, "t": 7}, {"b": 3, "t": 1}, {"b": 0, "t": 3}, {"b": 2, "t": 0}]


@pytest.fixture(autouse=True)
def _no_cache() -> object:
    with graphc.config(cache=False, verify=True) as settings:
        yield settings


def softmax(h: Tensor) -> Tensor:
    return F.softmax(h, -1)


def normed(h: Tensor) -> Tensor:
    centred = h - h.mean(-1, keepdims=True)
    return centred * graphc.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)


def dropped(h: Tensor) -> Tensor:
    return graphc.where(graphc.random.bernoulli(graphc.random.key(7), 0.5, h.shape), h * 2.0, 0.0)


ROWS: Shapes = [("b", "t", 16), (16, 24), (24,)]
# what is computed of x[b, t, 16] @ w + bias; the shapes of more operands; whether it is all in the product's kernel
ELEMENTWISE: dict[str, tuple[Make, Shapes]] = {
    "gelu": (lambda h: F.gelu(h), []),
    "residual": (lambda h, r: h + r, [("b", "t", 24)]),
    "computed operand": (lambda h, r: h * graphc.tanh(r), [("b", "t", 24)]),
    "mask of rows": (lambda h, m: h * m, [("b", "t", 1)]),
    "mask of another dtype": (lambda h, r: graphc.where(r > 0, h, 0.0), [("b", "t", 24)]),
    "columns": (lambda h, s: h * s, [(1, 1, 24)]),
    "positions of columns": (lambda h: h + graphc.arange(24).astype("float32"), []),
    "dropout": (lambda h: dropped(F.relu(h)), []),
    "of each row of a stack": (lambda h, r: h + r, [("t", 24)]),
    "of each stack": (lambda h, r: F.relu(h) + r, [("b", 1, 24)]),
    "another order of rows": (lambda h, r: h + r.transpose((1, 0, 2)), [("t", "b", 24)]),
    "a part": (lambda h, r: h + r[..., 1:-2], [("b", "t", 27)]),
    "positions of rows": (lambda h: h + graphc.arange(h.shape[1]).astype("float32").reshape((-1, 1)), []),
    "stacked again": (lambda h: F.relu(F.relu(h.reshape((-1, 24))).reshape(h.shape)), []),
}
FOLDS: dict[str, tuple[Make, Shapes]] = {
    "softmax": (softmax, []),
    "norm": (normed, []),
    "row sums": (lambda h: h.sum(-1), []),
    "maxima": (lambda h: F.relu(h).max(-1, keepdims=True) - 1.0, []),
    "argmax": (lambda h: graphc.argmax(h, -1), []),
    "bias gradient": (lambda h, g: (h * g).sum((0, 1)), [("b", "t", 24)]),
    "kept axes": (lambda h: F.gelu(h).sum((0, 1), keepdims=True), []),
    "total": (lambda h: F.relu(h).sum(), []),
    "stacks": (lambda h: F.gelu(h).sum(0), []),
    "rows of stacks": (lambda h: F.gelu(h).sum(1) * 2.0, []),
    "softmax over stacks": (lambda h: F.softmax(h + 1.0, 1), []),
}
STAY: dict[str, tuple[Make, Shapes]] = {
    "another order of columns": (lambda h, r: h + r.transpose((0, 2, 1)), [("b", 24, "t")]),
    "padded": (lambda h, r: h + graphc.pad(r, ((0, 0), (1, 1), (0, 0)))[:, : h.shape[1]], [("b", "t", 24)]),
    "of the mean of each stack": (lambda h: h - h.mean(1, keepdims=True), []),
    "of what is scaled by it": (lambda h: h * (F.relu(h) - h.max(1, keepdims=True)), []),
    "split columns": (lambda h: F.relu(h.reshape((*h.shape[:2], 4, 6))), []),
}


def linear(make: Make, more: Shapes, known: dict[str, int]) -> tuple[list[Tensor], Tensor]:
    """Placeholders, and `make` of a linear layer of them; sizes that are not `known` are names."""
    x, w, bias, *others = shaped([tuple(known.get(str(n), n) for n in shape) for shape in (*ROWS, *more)])
    return [x, w, bias, *others], make(x @ w + bias, *others)


def arrays_for(inputs: Sequence[Tensor], sizes: dict[str, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.standard_normal([sizes.get(str(n), n) for n in t.shape]).astype("float32") for t in inputs]


def same(make: Make, more: Shapes, sizes: dict[str, int], exact: bool) -> None:
    """The results are those without the pass, for one thread and for two, and the interpreter's."""
    inputs, output = linear(make, more, {})
    arrays = arrays_for(inputs, sizes)
    one, two = (graphc.function(inputs, output, threads=n) for n in (1, 2))
    with graphc.config(disable="lift_reshapes"):
        plain = graphc.function(inputs, output, threads=1)
    found, before = one(*arrays), plain(*arrays)
    (wanted,) = evaluate([output.ref], dict(zip((t.ref for t in inputs), arrays, strict=True)))
    assert found.shape == before.shape == wanted.shape
    assert found.tobytes() == two(*arrays).tobytes()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5)
    if exact:
        assert found.tobytes() == before.tobytes()


def names_of(graph: Graph) -> list[str]:
    return [node.attrs["name"] for node in kernels(optimize(graph))]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_bits_stay(name: str, sizes: dict[str, int]) -> None:
    same(*ELEMENTWISE[name], sizes, exact=True)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", [name for name in FOLDS if name not in ("maxima", "argmax")])
def test_folds_agree(name: str, sizes: dict[str, int]) -> None:
    same(*FOLDS[name], sizes, exact=False)


@pytest.mark.parametrize("sizes", [s for s in SIZES if 0 not in s.values()], ids=str)
@pytest.mark.parametrize("name", ["maxima", "argmax"])
def test_extremes_agree(name: str, sizes: dict[str, int]) -> None:
    same(*FOLDS[name], sizes, exact=True)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", STAY)
def test_what_stays_agrees(name: str, sizes: dict[str, int]) -> None:
    same(*STAY[name], sizes, exact=True)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_all_of_it_is_one_kernel(name: str, known: bool) -> None:
    inputs, output = linear(*ELEMENTWISE[name], {"b": 3, "t": 4} if known else {})
    graph = frozen(inputs, [output])
    first, *others = names_of(graph)
    assert first.startswith("matmul_") and others == ["reshape"]
    (region,) = graphc.function(inputs, output).program.regions
    assert len(region.tasks) == 1  # the reshape moves nothing


@pytest.mark.parametrize("name", STAY)
def test_what_other_rows_hold_stays_behind_the_reshape(name: str) -> None:
    inputs, output = linear(*STAY[name], {})
    (last,) = lift_reshapes(frozen(inputs, [output])).outputs
    assert (last.op, last.type) == (output.ref.op, output.type)
    first, second = names_of(frozen(inputs, [output]))
    assert first.startswith("matmul_bias")
    assert second in ("add", "relu", "reshape_relu", "div_sub_sum_1", "sub_mul_max_1")


def test_graphs_without_stacks_are_not_touched() -> None:
    a, b, c = shaped([(6, 4), (4, 5), (2, 3, 5)])
    for output in (
        F.relu(a @ b),
        F.relu(c).reshape((6, 5)),
        (a @ b).reshape((2, 15)) + 1.0,
        (a @ b).reshape((2, 3, 5)),
    ):
        graph = frozen([a, b, c], [output])
        assert lift_reshapes(graph) is graph


def test_each_output_has_memory_of_its_own() -> None:
    x, w = shaped([("b", "t", 8), (8, 8)])
    rows = F.relu((x @ w).reshape((-1, 8)))
    stacked = rows.reshape(x.shape)
    function = graphc.function([x, w], [rows, stacked, stacked.sum((0, 1)), stacked + 1.0])
    first, second, sums, more = function(np.ones((2, 3, 8), np.float32), np.eye(8, dtype=np.float32))
    first[:] = 7
    assert (second == 1).all() and (sums == 6).all() and (more == 2).all()
    out = np.zeros((2, 3, 8), np.float32)
    relu = graphc.function([x, w], F.relu(x @ w + 1.0))
    assert relu(np.ones((2, 3, 8), np.float32), np.eye(8, dtype=np.float32), out=out) is out and (out == 2).all()
    strided = np.zeros((2, 3, 16), np.float32)
    relu(np.ones((2, 3, 16), np.float32)[..., ::2], np.eye(8, dtype=np.float32), out=strided[..., ::2])
    assert (strided[..., ::2] == 2).all() and (strided[..., 1::2] == 0).all()


def test_a_stacked_result_that_others_read_is_stored_once() -> None:
    """The mean over each stack needs the result that the product's kernel wrote, in its other shape."""
    x, w = shaped([(2, 40, 8), (8, 24)])
    h = F.relu(x @ w)
    function = graphc.function([x, w], [h, h.mean(1)])
    assert [len(region.tasks) for region in function.program.regions] == [1, 1]
    a, b = np.random.default_rng(0).standard_normal((2, 40, 8)).astype("f"), np.ones((8, 24), np.float32)
    found, mean = function(a, b)
    np.testing.assert_allclose(found, np.maximum(a @ b, 0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mean, found.mean(1), rtol=1e-5, atol=1e-6)


def test_updates_of_stacked_parameters_happen_in_place() -> None:
    x, w = shaped([(6, 40), (6, 50)])
    state = graphc.parameter("state", np.ones((4, 10, 50), np.float32))
    step = graphc.function([x, w], [], {state: state - 0.5 * (x.T @ w).reshape(state.shape)})
    assert step.program.updates == (("state", "state"),)
    step(np.ones((6, 40), np.float32), np.ones((6, 50), np.float32))
    assert (state.value == -2).all()


def layer(x: Tensor, w: Tensor, v: Tensor, bias: Tensor, rows: bool) -> Tensor:
    h = x.reshape((-1, x.shape[-1])) if rows else x
    return (normed(h + F.gelu(h @ w + bias) @ v)).reshape(x.shape)


@pytest.mark.parametrize("sizes", [{"b": 3, "t": 4}, {"b": 1, "t": 9}])
def test_a_transformer_layer_and_its_gradient_are_what_rows_would_be(sizes: dict[str, int]) -> None:
    """Written with three axes, or by rows: the kernels are the same."""
    inputs = shaped([("b", "t", 16), (16, 64), (64, 16), (64,), ("b", "t", 16)])
    x, w, v, bias, g = inputs
    results = [[y := layer(x, w, v, bias, rows), *graphc.vjp(y, [w, v, bias], g)] for rows in (False, True)]
    stacked, by_rows = ([name for name in names_of(frozen(inputs, r)) if name != "reshape"] for r in results)
    assert stacked == by_rows and sum(name.startswith("matmul") for name in stacked) == 5
    arrays = arrays_for(inputs, sizes)
    for outputs in results:
        wanted = evaluate([t.ref for t in outputs], dict(zip((t.ref for t in inputs), arrays, strict=True)))
        for found, expected in zip(graphc.function(inputs, outputs)(*arrays), wanted, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_gathers_fail_at_the_same_place() -> None:
    x, w = shaped([("b", 3, 8), (8, 8)])
    labels = graphc.placeholder("labels", ("b", 3, 1), "int64")
    pick = graphc.function([x, w, labels], graphc.take_along_axis(F.relu(x @ w), labels, -1))
    a, b, index = np.ones((2, 3, 8), np.float32), np.eye(8, dtype=np.float32), np.full((2, 3, 1), 5)
    assert (pick(a, b, index) == 1).all()
    index[1, 0, 0] = 8
    with pytest.raises(IndexError, match=r"labels\[1, 0, 0\]"):
        pick(a, b, index)


def test_a_transformer_network_has_one_kernel_a_product() -> None:
    x, w, c, v, e = inputs = shaped([("b", "t", 128), (128, 512), (512,), (512, 128), (128,)])
    program = graphc.function(inputs, x + F.gelu(x @ w + c) @ v + e).program
    assert [[task.kernel.rsplit("_", 1)[0] for task in region.tasks] for region in program.regions] == [
        ["matmul_bias_mul_erf_add"],
        ["matmul_add_bias"],
    ]


def test_pixels_are_rows_too() -> None:
    """A 1x1 convolution of NHWC images, as a product."""
    x, w, bias, r = shaped([("n", 5, 6, 8), (8, 12), (12,), ("n", 5, 6, 12)])
    y = F.relu((x.reshape((-1, 8)) @ w).reshape(("n", 5, 6, 12)) + bias) + r
    function = graphc.function([x, w, bias, r], y)
    assert len(function.kernels) == 1
    arrays = arrays_for([x, w, bias, r], {"n": 3})
    a, b, c, d = arrays
    np.testing.assert_allclose(function(*arrays), np.maximum(a @ b + c, 0) + d, rtol=1e-5, atol=1e-5)
