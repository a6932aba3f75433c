"""Joined kernels: what the pass joins and leaves alone, values and gradients in every form, bits, memory, masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc
from graphc import ops
from graphc.build import Tensor, placeholder
from graphc.errors import ArgumentError, DTypeError, InternalError, ShapeError
from graphc.graph import Graph
from graphc.interpret import evaluate
from graphc.loops.block_plan import plan_blocks
from graphc.loops.lower import lower
from graphc.loops.printer import print_kernel
from graphc.nn import functional
from graphc.passes import block_families
from graphc.passes.blocks_shape import BlocksShape
from graphc.passes.domain import kernel_shape
from graphc.passes.pipeline import optimize
from graphc.target import AVX512
from graphc.types import Dim, product
from graphc.types import evaluate as size_value
from tests.block_forms import MASKS, PRODUCTS, SCALES, SOFTMAXES, Form
from tests.fusion_checks import frozen, kernels

Array = np.ndarray[Any, Any]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices of any size are joined."""
    monkeypatch.setattr(block_families, "SMALL", 0)
    monkeypatch.setattr(block_families, "LEAST", 1)
    monkeypatch.setattr(block_families, "_worth", lambda *_: True)


def blocks(graph: Graph) -> list[Graph]:
    """The joined kernels of an optimised graph."""
    inner: list[Graph] = [node.attrs["graph"] for node in kernels(graph)]
    return [graph for graph in inner if isinstance(kernel_shape(graph), BlocksShape)]


def agrees(inputs: list[Tensor], outputs: list[Tensor], arguments: list[Array], tolerance: float) -> Any:
    function = graphc.function(inputs, outputs)
    results = function(*arguments)
    feeds = {t.ref: a for t, a in zip(inputs, arguments, strict=True)}
    for found, expected in zip(results, evaluate([t.ref for t in outputs], feeds), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    return function


FORMS = st.builds(
    Form,
    st.sampled_from(SCALES), st.sampled_from(PRODUCTS), st.sampled_from(MASKS), st.sampled_from(SOFTMAXES),
    st.sampled_from([(), (2,), (2, 3), (1,), (5,)]), st.sampled_from([2, 3, 16, 17, 47, 48, 49, 97, 100]),
    st.sampled_from([2, 5, 13, 16, 31, 64, 67, 131]), st.sampled_from([2, 3, 8, 10]),
    st.sampled_from([2, 4, 7, 16, 33]), st.booleans(), st.sampled_from(["float32", "float64"]),
)  # fmt: skip


@pytest.mark.usefixtures("small")
@settings(max_examples=15, deadline=None)
@given(FORMS)
def test_every_form_is_joined_and_right(form: Form) -> None:
    if form.mask in ("window", "causal, last rows") and form.rows > form.columns:
        return  # rows that see nothing are NaN, and reach the gradients only through columns that are computed
    inputs, outputs = form.built()
    tolerance = 2e-4 if form.dtype == "float32" else 1e-11
    function = agrees(inputs, outputs, list(form.arguments().values()), tolerance)
    assert form.softmax == "along -2" or "blocks" in function.ir("program")


def attention(
    rows: int | str, columns: int | str, batch: tuple[int | str, ...] = (), causal: bool = True
) -> list[Tensor]:
    """q, k, v, and attention over them."""
    q = placeholder("q", (*batch, rows, 64), "float32")
    k, v = (placeholder(name, (*batch, columns, 64), "float32") for name in "kv")
    return [q, k, v, functional.scaled_dot_product_attention(q, k, v, is_causal=causal)]


def test_the_pass_in_text() -> None:
    q, k, v, out = attention(600, 700)
    with graphc.config(disable="join_blocks,join_rows"):
        before = optimize(frozen([q, k, v], [out]))
    after = optimize(frozen([q, k, v], [out]))
    assert [n.attrs["name"] for n in kernels(before)] == ["matmul_mul_mask", "softmax", "matmul"]
    assert [n.attrs["name"] for n in kernels(after)] == ["blocks_softmax"]
    ordered = [node.op.name for node in blocks(after)[0].order()]
    assert [name for name in ordered if name in ("matmul", "where", "max", "exp", "sum", "divide")] == [
        "matmul", "where", "max", "exp", "matmul", "sum", "divide",
    ]  # fmt: skip


def test_only_a_softmax_is_divided_late() -> None:
    """Not what is divided by anything but its own sum, is no exponential, or is wanted by more than one product."""
    q, k, v, _ = attention(600, 700)
    scores = q @ ops.swapaxes(k, -1, -2)
    powers = ops.exp(scores - scores.max(-1, keepdims=True))
    roots = ops.sqrt(ops.abs(scores) + 1.0)

    def late(*outputs: Tensor) -> bool:
        (inner,) = blocks(optimize(frozen([q, k, v], list(outputs))))
        return next(n for n in inner.order() if n.op.name == "divide").types[0].shape[-1] == 64

    assert late((powers / powers.sum(-1, keepdims=True)) @ v)
    assert late((powers / ops.expand_dims(powers.sum(-1), 1)) @ v)
    assert not late((powers / roots.sum(-1, keepdims=True)) @ v)
    assert not late((roots / roots.sum(-1, keepdims=True)) @ v)
    soft = powers / powers.sum(-1, keepdims=True)
    assert not late(soft @ v, soft @ (v + 1.0))
    wide = placeholder("w", (700, 800), "float32")
    inner = [n.attrs["graph"] for n in kernels(optimize(frozen([q, k, wide], [soft @ wide])))]
    assert any(n.op.name == "divide" and n.types[0].shape == (600, 700) for graph in inner for n in graph.order())


def test_forward_and_backward_with_a_loss_between_are_two_kernels() -> None:
    """The second computes the scores again, and reads only maxima and sums of the first."""
    q, k, v, out = attention(600, 700)
    graph = optimize(frozen([q, k, v], [(out * out).sum(), *graphc.grad((out * out).sum(), [q, k, v])]))
    first, second = blocks(graph)
    assert [v.type.shape for v in first.outputs if v.type.shape[-1] == 1] == [(600, 1)] * 2
    assert [v.type.shape for v in second.inputs].count((600, 1)) == 2
    assert not any(node.op.name == "max" for node in second.order())
    (summed,) = (node.inputs[0] for node in second.order() if node.op.name == "sum")  # divided behind the sum
    while summed.op.name in ("negative", "multiply"):
        summed = next((v for v in summed.node.inputs if v.op.name != "exp"), summed.node.inputs[0])
    assert summed.op.name == "matmul"


def test_what_is_left_alone() -> None:
    q, k, v, _ = attention(600, 700)
    scores = functional.softmax(q @ ops.swapaxes(k, -1, -2))
    x, w = placeholder("x", ("n", 784), "float32"), placeholder("w", (784, 128), "float32")
    wide, b = placeholder("u", (128, 10), "float32"), placeholder("b", (128,), "float32")
    labels = placeholder("y", ("n",), "int64")
    loss = functional.cross_entropy(ops.relu(x @ w + b) @ wide, labels)
    cases: list[tuple[list[Tensor], list[Tensor]]] = [
        ([q, k, v], [scores @ v, scores]),  # the matrix is a result
        ([q, k], [scores]),
        ([x, w, wide, b, labels], [loss, *graphc.grad(loss, [w, wide, b])]),  # a bias waits for its sum, nothing else
        ([x, w], [functional.layer_norm(x @ w, (128,))]),
        ([*(small := attention(100, 100))[:3]], [small[3]]),  # in the cache anyway
    ]
    for inputs, outputs in cases:
        assert not blocks(optimize(frozen(inputs, outputs)))


def test_a_matrix_that_a_gather_reads_is_left_alone() -> None:
    q, k, v, _ = attention(600, 700)
    scores = functional.softmax(q @ ops.swapaxes(k, -1, -2))
    picked = ops.take_along_axis(scores, placeholder("i", (600, 1), "int64"), 1)
    index = picked.ref.node.inputs[1].node
    assert index.op.name == "placeholder"
    inputs = Graph((q.ref, k.ref, v.ref, picked.ref.node.inputs[1]), ((scores @ v).ref, picked.ref))
    assert not blocks(optimize(inputs))


def test_no_matrix_is_stored() -> None:
    """Long rows: every buffer is far smaller than the scores, with sizes that are numbers or names."""
    sizes = {"batch": 4, "rows": 5000, "columns": 6000}
    for shapes in ((5000, 6000, (4,)), ("rows", "columns", ("batch",))):
        q, k, v, out = attention(*shapes)
        slope = placeholder("slope", out.shape, "float32")
        slopes = graphc.vjp([out], [q, k, v], [slope])
        for outputs in ([out], [out, *slopes], [(out * out).sum(), *graphc.grad((out * out).sum(), [q, k, v])]):
            function = graphc.function([q, k, v, slope], outputs)
            for buffer in function.program.buffers.values():
                assert size_value(product(buffer.type.shape), sizes) < 4 * 5000 * 6000 / 20
            assert "[5000,6000]" not in function.ir("program") and "rows,columns]" not in function.ir("program")


def check_bits_on_threads() -> None:
    """Attention and its gradients have the same bits on one, two and three threads."""
    q, k, v, out = attention(400, 450, (3,))
    slope = placeholder("slope", (3, 400, 64), "float32")
    function = graphc.function([q, k, v, slope], [out, *graphc.vjp([out], [q, k, v], [slope])])
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(t.shape).astype("float32") for t in (q, k, v, slope)]
    found = []
    for threads in (1, 2, 3):
        with graphc.config(num_threads=threads):
            found.append([a.tobytes() for a in function(*arrays)])
    assert found[0] == found[1] == found[2]


def test_bits_do_not_depend_on_threads() -> None:
    check_bits_on_threads()


@pytest.mark.usefixtures("small")
def test_gradients_against_finite_differences() -> None:
    form = Form(mask="causal", rows=20, columns=24, dtype="float64")
    inputs, outputs = form.built()
    function = graphc.function(inputs, outputs)
    q, k, v, slope = form.arguments().values()
    _, *slopes = function(q, k, v, slope)
    rng = np.random.default_rng(1)
    for position, found in enumerate(slopes):
        direction = rng.standard_normal(found.shape)
        ends = []
        for step in (1e-6, -1e-6):
            moved = [a + step * direction if n == position else a for n, a in enumerate((q, k, v))]
            ends.append((function(*moved, slope)[0] * slope).sum())
        assert abs((ends[0] - ends[1]) / 2e-6 - (found * direction).sum()) < 1e-6


@pytest.mark.usefixtures("small")
def test_masked_places_count_as_zero() -> None:
    """NaN in v where the block leaves columns out does not arrive; within a block it does, as in the composition."""
    q, k, v, out = attention(200, 200)
    function = graphc.function([q, k, v], out)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((200, 64)).astype("float32") for _ in range(3)]
    plain = function(*arrays)
    arrays[2][190:] = np.nan
    result = function(*arrays)
    assert np.array_equal(result[:90], plain[:90]) and np.isnan(result[190:]).all()
    arrays[0][3] = np.inf
    assert np.isnan(function(*arrays)[3]).all()


@pytest.mark.usefixtures("small")
def test_a_row_that_sees_nothing_is_nan() -> None:
    q, k, v = (placeholder(name, (70, 8), "float64") for name in "qkv")
    i = ops.arange(70)
    scores = ops.where(ops.expand_dims(i, 1) > i, q @ ops.swapaxes(k, -1, -2), -np.inf)
    arrays = [np.random.default_rng(n).standard_normal((70, 8)) for n in range(3)]
    result = graphc.function([q, k, v], functional.softmax(scores) @ v)(*arrays)
    assert np.isnan(result[0]).all() and np.isfinite(result[1:]).all()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "rows, columns, batch", [(0, 5, 2), (5, 0, 2), (5, 1, 2), (1, 1, 1), (3, 5, 0), (1, 40, 1), (97, 2, 3)]
)
def test_sizes_that_are_names(rows: int, columns: int, batch: int) -> None:
    q, k, v, out = attention("rows", "columns", ("batch",), causal=False)
    slope = placeholder("slope", ("batch", "rows", 64), "float32")
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((batch, n, 64)).astype("float32") for n in (rows, columns, columns, rows)]
    function = agrees([q, k, v, slope], [out, *graphc.vjp([out], [q, k, v], [slope])], arrays, 1e-4)
    assert "blocks" in function.ir("program")


@pytest.mark.usefixtures("small")
def test_what_is_behind_the_products_and_in_front_of_the_scores() -> None:
    """Epilogues of row and column products, scores with a bias, arguments with strides."""
    q, k, v = (placeholder(name, (2, 60, 3, 8), "float64") for name in "qkv")
    bias = placeholder("bias", (60,), "float64")
    heads = [ops.transpose(t, (0, 2, 1, 3)) for t in (q, k, v)]
    scores = functional.softmax(heads[0] @ ops.swapaxes(heads[1], -1, -2) + bias)
    out = ops.transpose(ops.tanh(scores @ heads[2]) * 0.5, (0, 2, 1, 3))
    slope = placeholder("slope", (2, 60, 3, 8), "float64")
    slopes = graphc.vjp([out], [q, k, v, bias], [slope])
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(t.shape) for t in (q, k, v, bias, slope)]
    agrees([q, k, v, bias, slope], [out, slopes[0], slopes[1] * 2.0 + 1.0, slopes[2], slopes[3]], arrays, 1e-11)


def test_graphs_of_no_shape() -> None:
    x, w = placeholder("x", (20, 30), "float32"), placeholder("w", (30, 30), "float32")
    for outputs, message in (
        ([ops.exp(x @ w).sum((0, 1)) + 1.0], "a reduction over the axes"),
        ([(x @ w) @ ops.swapaxes(x @ w, 0, 1)], "two values of the kernel"),
        ([ops.cumsum(functional.softmax(x @ w), 1)], "blocks|stands alone"),
    ):
        with pytest.raises(InternalError, match=message):
            kernel_shape(frozen([x, w], outputs))


def test_attention_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, 3, n, 16)).astype("float32") for n in (40, 50, 50))
    names = [placeholder(n, a.shape, "float32") for n, a in zip("qkv", (q, k, v), strict=True)]
    boolean = rng.random((40, 50)) < 0.6
    boolean[:, 0] = True
    cases = ((None, False, None), (None, True, 0.3), (boolean, False, None), (q[0, 0] @ k[0, 0].T, False, 1.0))
    for mask, causal, scale in cases:
        given_mask = None if mask is None else graphc.constant(mask)
        out = functional.scaled_dot_product_attention(*names, given_mask, causal, scale)
        tensors = [torch.tensor(a) for a in (q, k, v)]
        other = None if mask is None else torch.tensor(mask)
        expected = torch.nn.functional.scaled_dot_product_attention(*tensors, other, 0.0, causal, scale=scale)
        np.testing.assert_allclose(graphc.function(names, out)(q, k, v), expected, rtol=1e-5, atol=1e-6)


def test_attention_errors() -> None:
    q, k, v, _ = attention(40, 50)
    function = functional.scaled_dot_product_attention
    with pytest.raises(ArgumentError, match="attn_mask or is_causal, not both"):
        function(q, k, v, placeholder("m", (40, 50), "bool"), is_causal=True)
    with pytest.raises(ShapeError, match="do not fit"):
        function(q, k, q)
    with pytest.raises(DTypeError, match="matrices of floats"):
        function(placeholder("i", (3, 4), "int64"), k, v)
    inner = placeholder("s", (3, "inner"), "float32")
    with pytest.raises(ArgumentError, match="needs a scale"):
        function(inner, inner, inner)


@pytest.mark.parametrize("steps", ["t", 24])
def test_layers_of_attention_one_behind_the_other(steps: str | int, rng: np.random.Generator) -> None:
    """Two layers with everything around them, a named batch size and all gradients: as interpreted."""
    parameters: list[graphc.Parameter] = []

    def weight(*shape: int) -> graphc.Parameter:
        value = rng.standard_normal(shape) * 0.1
        parameters.append(graphc.parameter(f"w{len(parameters)}", value))
        return parameters[-1]

    def layer(x: graphc.Tensor) -> graphc.Tensor:
        batch, time, _ = x.shape
        parts = graphc.split(x @ weight(64, 192), 3, -1)
        heads = [part.reshape(batch, time, 4, 16).transpose(0, 2, 1, 3) for part in parts]
        mixed = functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(0, 2, 1, 3)
        x = x + mixed.reshape(batch, time, 64) @ weight(64, 64)
        return x + functional.gelu(x @ weight(64, 128)) @ weight(128, 64)

    x = placeholder("x", ("batch", steps, 64), "float64")
    y = layer(layer(x))
    outputs = [y, *graphc.grad((y * y).mean(), parameters)]
    step = graphc.function([x], outputs)
    for batch in (1, 3):
        value = rng.standard_normal((batch, 24, 64))
        wanted = evaluate([t.ref for t in outputs], {x.ref: value})
        for actual, expected in zip(step(value), wanted, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", ["bool", "float32"])
@pytest.mark.parametrize("turned", [False, True])
def test_masks_are_transposed_where_columns_lie_side_by_side(dtype: str, turned: bool) -> None:
    """Rows that lie side by side are read as they are; only AVX-512 has masks for what is left over."""
    q, k, v = (placeholder(name, (2, 70, 16), "float32") for name in "qkv")
    mask = placeholder("mask", (70, 70), dtype)
    scores = q @ ops.swapaxes(k, -1, -2)
    shown = ops.swapaxes(mask, -1, -2) if turned else mask
    scores = ops.where(shown, scores, -np.inf) if dtype == "bool" else scores + shown
    graph = optimize(frozen([q, k, v, mask], [functional.softmax(scores) @ v]))
    (text,) = (print_kernel(kernel) for kernel in lower(graph, AVX512).kernels.values())
    assert "scatter" not in text
    assert ("zip_low" in text) == (not turned)


@pytest.mark.parametrize("masked", [False, True])
def test_blocks_of_a_named_number_of_rows_are_as_tall_as_for_1024(masked: bool) -> None:
    """Taller ones would compute much beyond the last row, and behind the diagonal, where there are few rows."""
    rows = Dim.symbol("rows")
    named = plan_blocks(rows, rows, 8, 1, False, 4, AVX512, swept=True, masked=masked)
    known = plan_blocks(1024, 1024, 8, 1, False, 4, AVX512, swept=True, masked=masked)
    long = plan_blocks(65536, 65536, 8, 1, False, 4, AVX512, swept=True, masked=masked)
    assert named.height == known.height < long.height
    assert not named.exact
