"""No kernel reads or writes outside of its memory: every op, contraction and convolution runs with guards on."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.build import Tensor, placeholder
from graphc.errors import InternalError
from graphc.loops import ir
from graphc.loops.guard import guard
from graphc.loops.program import Program
from graphc.nn import functional as F
from graphc.ops.registry import OPS
from graphc.runtime.single import run_kernel
from graphc.types import Dim, float32

SIZES = (0, 1, 2, 7, 13, 16, 17, 33)


@pytest.fixture(autouse=True)
def guarded() -> Iterator[None]:
    with graphc.config(guard_memory=True, verify=True, cache=False):
        yield


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.samples()])
def test_ops(name: str, rng: np.random.Generator) -> None:
    """All samples of an op in one function, values and what feeds them."""
    op = OPS[name]
    for sample in op.samples():
        dtype = sample.dtypes[0]
        arrays = sample.draw(dtype, rng)
        inputs, outputs = sample.build(op, dtype)
        graphc.function(inputs, outputs)(*arrays)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", ["NN", "NT", "TN", "TT"])
def test_matmuls_of_odd_sizes(form: str, dtype: str, rng: np.random.Generator) -> None:
    """Names for sizes and sizes that are known, with a gradient of both sides."""
    symbolic = _products(form, dtype, ("m", "k", "n"))
    for m, k, n in [(0, 3, 2), (1, 1, 1), (2, 0, 3), (13, 17, 1), (1, 33, 16), (17, 16, 33), (7, 130, 40)]:
        a = rng.standard_normal((k, m) if form[0] == "T" else (m, k)).astype(dtype)
        b = rng.standard_normal((n, k) if form[1] == "T" else (k, n)).astype(dtype)
        expected = (a.T if form[0] == "T" else a) @ (b.T if form[1] == "T" else b)
        for step in (symbolic, _products(form, dtype, (m, k, n))):
            np.testing.assert_allclose(step(a, b)[0], expected, rtol=2e-4, atol=1e-4)


def _products(form: str, dtype: str, sizes: tuple[Any, Any, Any]) -> graphc.Function:
    m, k, n = sizes
    a = placeholder("a", (k, m) if form[0] == "T" else (m, k), dtype)
    b = placeholder("b", (n, k) if form[1] == "T" else (k, n), dtype)
    c = (a.T if form[0] == "T" else a) @ (b.T if form[1] == "T" else b)
    return graphc.function([a, b], [c, *graphc.grad((c * c).sum(), [a, b])])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("stride, padding, dilation, window", [(1, 0, 1, 1), (2, 1, 1, 3), ((2, 3), (0, 2), 2, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_convolutions_and_their_gradients(
    layout: str, groups: int, stride: Any, padding: Any, dilation: int, window: int, dtype: str
) -> None:
    images, weights = (3, 4, 9, 11), (8, 4 // groups, window, window)
    if layout == "NHWC":
        images, weights = (3, 9, 11, 4), (window, window, 4 // groups, 8)
    x, w = placeholder("x", images, dtype), placeholder("w", weights, dtype)
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    y = F.conv2d(x, w, layout=layout, **how)
    graphc.function([x, w], [y, *graphc.grad((y * y).sum(), [x, w])])(np.ones(images, dtype), np.ones(weights, dtype))


@pytest.mark.parametrize("size", SIZES)
def test_rows_and_columns(size: int, rng: np.random.Generator) -> None:
    x = placeholder("x", ("rows", "cols"))
    outputs: list[Tensor] = [F.softmax(x, -1), F.softmax(x, 0), F.layer_norm(x, (x.shape[1],)), x.sum(0), x.T + 1]
    outputs += graphc.grad((F.softmax(x, -1) ** 2).sum(), [x])
    step = graphc.function([x], outputs)
    for other in SIZES[1:]:
        step(rng.standard_normal((other, size)).astype("float32"))


def test_a_read_behind_the_end_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel claims one element less than it reads."""
    real = guard

    def shorter(program: Program) -> Program:
        kernels = {
            name: replace(k, buffers=(replace(k.buffers[0], size=k.buffers[0].size - 1), *k.buffers[1:]))
            for name, k in program.kernels.items()
        }
        return real(replace(program, kernels=kernels))

    monkeypatch.setattr("graphc.loops.guard.guard", shorter)
    x = placeholder("x", (35,))
    step = graphc.function([x], x + 1)
    with pytest.raises(InternalError, match=r"outside of its memory: add_\w+: .* = .*b0\["):
        step(np.zeros(35, "float32"))


def test_what_a_mask_leaves_out_is_not_looked_at() -> None:
    """A masked vector that reaches behind the end is right; the same without a mask is not."""
    vector = ir.VType(float32, 16)
    lanes = ir.Op("lanes", (), ir.VType(ir.int64, 16))
    mask = ir.Op("lt", (lanes, ir.Op("splat", (ir.Var("n"),), lanes.vtype)), ir.VType(ir.bool_, 16))
    for found in (mask, None):
        body = (ir.Let(ir.Var("v", vector), ir.Load("b0", ir.const(0), vector, found)),)
        kernel = ir.LoopKernel("k", (ir.BufferParam("b0", float32, Dim.symbol("n")),), ("n",), body)
        program = Program("p", ("n",), {}, {"k": kernel}, (), (), (), (), ())
        guarded = guard(program).kernels["k"].body
        assert isinstance(guarded[0], ir.Fail) and guarded[1:] == body
        assert (str(mask) in str(guarded[0].condition)) == (found is mask)


def test_operands_packed_for_several_products(rng: np.random.Generator) -> None:
    """Pack kernels say how much memory they have: columns of named and of known length, rows, computed operands."""
    n = ("n", 600)
    for rows in n:
        x, w = placeholder("x", (rows, 64)), placeholder("w", (272, 64))
        step = graphc.function([x, w], [x @ w.T, graphc.tanh(x) @ w.T, graphc.tanh(x).T @ (x @ w.T)])
        packs = [kernel for kernel in step.program.kernels if kernel.startswith("pack_")]
        assert packs
        step(rng.standard_normal((600, 64)).astype("float32"), rng.standard_normal((272, 64)).astype("float32"))


@pytest.mark.parametrize("shape", [(0, 1), (0, 3)])
def test_nothing_is_read_of_an_empty_array(shape: tuple[int, int]) -> None:
    """Zeros around an empty array, as the gradient of an empty slice has them; totals and rows of them."""
    x, y = placeholder("x", shape), placeholder("y", (4 * shape[1],))
    wide = graphc.pad(x.reshape((0,)), [(0, 4 * shape[1])])
    joined = graphc.concat([x.reshape((0,)), y]) * 2
    for result, expected in (((wide * y).sum(), 0), (wide + y, 1), (joined, 2), (graphc.grad((wide * y).sum(), y), 0)):
        found = graphc.function([x, y], result)(np.ones(shape, "float32"), np.ones(4 * shape[1], "float32"))
        assert (found == expected).all()


def test_a_training_step() -> None:
    """Forward, gradients and the update of a small network with a named batch, guarded."""
    model = graphc.nn.Sequential(graphc.nn.Linear(20, 33), graphc.nn.ReLU(), graphc.nn.Linear(33, 5))
    x, y = placeholder("x", ("n", 20)), placeholder("y", ("n",), "int64")
    loss = F.cross_entropy(model(x), y)
    optimizer = graphc.optim.Adam(lr=0.01)
    step = graphc.function([x, y], loss, updates=optimizer.updates(loss, model.parameters()))
    for n in (1, 7, 64):
        first = step(np.ones((n, 20), "float32"), np.zeros(n, "int64"))
        assert step(np.ones((n, 20), "float32"), np.zeros(n, "int64")) < first


@pytest.mark.parametrize("form", [(515, 530, 40, False), (3, 5, 64, True), (64, 1, 3, True)])
def test_blocks_of_attention(form: tuple[int, int, int, bool], rng: np.random.Generator) -> None:
    rows, columns, width, symbolic = form
    shapes = [(2, rows, width), (2, columns, width), (2, columns, 7)]
    named = [(2, "n", width), (2, "m", width), (2, "m", 7)] if symbolic else shapes
    q, k, v = (placeholder(name, shape) for name, shape in zip("qkv", named, strict=True))
    result = F.softmax(q @ k[:, ::-1].transpose((0, 2, 1)), -1) @ v  # steps backwards
    step = graphc.function([q, k, v], [result, *graphc.grad((result**2).sum(), [q, k, v])])
    assert any(kernel.startswith("blocks") for kernel in step.kernels)
    step(*(rng.standard_normal(shape).astype("float32") for shape in shapes))


def test_what_a_call_hands_to_a_routine_is_checked_before_it() -> None:
    """A routine may touch n elements of its buffer: the caller must have them, and it may touch no more."""
    scalar, i, n = ir.VType(float32), ir.Var("i"), ir.Var("n")
    fill = ir.For("i", ir.const(0), n, 1, (ir.Store("c", i, ir.Const(1.0, scalar)),))
    routine = ir.Routine("fill", (ir.BufferParam("c", float32, Dim.symbol("n"), True),), ("n",), (fill,))
    for start, many, inside in ((0, 4, True), (1, 3, True), (1, 4, False), (-1, 2, False)):
        body = (ir.Call("fill", (("b0", ir.const(start)),), (ir.const(many),)),)
        kernel = ir.LoopKernel("k", (ir.BufferParam("b0", float32, 4, True),), (), body, routines=(routine,))
        guarded = guard(Program("p", (), {}, {"k": kernel}, (), (), (), (), ())).kernels["k"]
        words = np.zeros(8, np.float32)
        assert (run_kernel(guarded, [words[2:6]])[0] == -1) == inside
        assert words.tolist() == [float(inside and start <= place - 2 < start + many) for place in range(8)]
    short = replace(routine, buffers=(replace(routine.buffers[0], size=Dim.symbol("n") - 1),))
    body = (ir.Call("fill", (("b0", ir.const(0)),), (ir.const(4),)),)
    kernel = ir.LoopKernel("k", (ir.BufferParam("b0", float32, 4, True),), (), body, routines=(short,))
    guarded = guard(Program("p", (), {}, {"k": kernel}, (), (), (), (), ())).kernels["k"]
    out = np.zeros(4, np.float32)
    assert run_kernel(guarded, [out])[0] != -1 and out.tolist() == [1, 1, 1, 0]
