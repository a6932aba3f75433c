"""float16 and bfloat16: storage with float32 arithmetic, the same bits fused or not; every op's samples in both."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import interpret, text
from graphc.build import placeholder
from graphc.conversion import cast_array, widened
from graphc.errors import DTypeError, InternalError
from graphc.graph import Op
from graphc.llvm.emit import emit
from graphc.loops import ir
from graphc.loops.check import check_kernel
from graphc.ops.lowering import Contraction, Reduction, Scan, ScatterAdd
from graphc.ops.registry import OPS
from graphc.ops.samples import Sample
from graphc.runtime import jit
from graphc.runtime.host import host_target
from graphc.runtime.single import run_kernel
from graphc.target import NAMED, SSE2, Target
from graphc.types import DTYPES, Dim, DType, bfloat16, bool_, float16, float32, float64, int32, int64, symbols, uint8

NARROW = (float16, bfloat16)
HOST = host_target()
N = Dim.symbol("s0")
ALL_BITS = np.arange(2**16, dtype=np.uint16)


@pytest.fixture(autouse=True)
def checked() -> object:
    with graphc.config(verify=True, cache=False):
        yield


def bits(array: np.ndarray) -> np.ndarray:
    """The bits of narrow floats, every NaN alike."""
    return np.where(np.isnan(widened(array)), 0x7FFF, np.asarray(array).view(np.uint16))


def floats(count: int, dtype: Any = np.float32) -> np.ndarray:
    """All exponents, ties and their neighbours."""
    rng = np.random.default_rng(3)
    size = np.dtype(dtype).itemsize
    anything = rng.integers(0, 2 ** (8 * size - 1), count, dtype=np.int64).astype(f"u{size}").view(dtype)
    halves = ALL_BITS[::7].view(np.float16).astype(dtype)
    with np.errstate(all="ignore"):
        near = [np.nextafter(halves, np.array(v, dtype)) for v in (np.inf, -np.inf)]
        ties = (halves + np.nextafter(halves.astype(np.float16), np.float16(np.inf)).astype(dtype)) / 2
        tops = (anything.view(f"u{size}") & ~np.array(2 ** (8 * size - 17) - 1, f"u{size}")).view(dtype)
        parts = [anything, -anything, tops, halves, *near, ties, np.nextafter(ties, np.array(0, dtype))]
    return np.concatenate(parts)


# conversions


def test_arrays_convert_as_numpy_and_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype, theirs in ((float16, np.float16), (bfloat16, ml_dtypes.bfloat16)):
        every = ALL_BITS.view(theirs)
        np.testing.assert_array_equal(widened(every), every.astype(np.float32))
        np.testing.assert_array_equal(bits(cast_array(widened(every), dtype)), bits(every))
        x = floats(20000)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(bits(cast_array(x, dtype)), bits(x.astype(theirs)))
    assert cast_array(np.float64([1.5]), bfloat16).dtype == ml_dtypes.bfloat16


def test_float64_rounds_once() -> None:
    x = floats(20000, np.float64)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(bits(cast_array(x, float16)), bits(x.astype(np.float16)))
    tie = 1 + 2.0**-8  # between two bfloat16; a little more rounds up, which float32 does not see
    near = cast_array(np.array([tie, tie + 2.0**-40, tie - 2.0**-40]), bfloat16)
    assert widened(near).tolist() == [1, 1 + 2.0**-7, 1]


def converted(x: np.ndarray, to: DType, lanes: int, target: Target) -> np.ndarray:
    """`x` cast by the LLVM level's code for `target`."""
    source, i = DType.of(x.dtype), ir.Var("i")
    count = len(x) // lanes * lanes
    kernel = ir.LoopKernel(
        "k",
        (ir.BufferParam("a", source, N), ir.BufferParam("b", to, N, writable=True)),
        ("s0",),
        (ir.For("i", ir.const(0), ir.Var("s0"), lanes,
                (ir.Store("b", i, ir.Op("cast", (ir.Load("a", i, ir.VType(source, lanes)),), ir.VType(to, lanes))),)),),
    )  # fmt: skip
    out = np.zeros(count, to.numpy)
    run_kernel(kernel, [np.ascontiguousarray(x[:count]), out], [count], target)
    return out


HERE = [HOST, SSE2] if HOST.triple == SSE2.triple else [HOST]


@pytest.mark.parametrize("lanes", [1, 4, 16])
@pytest.mark.parametrize("target", HERE, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_code_converts_as_arrays_do(dtype: DType, target: Target, lanes: int) -> None:
    every = ALL_BITS.view(dtype.numpy)
    for wide in (float32, float64):
        np.testing.assert_array_equal(converted(every, wide, lanes, target), cast_array(every, wide))
        x = floats(30000, wide.numpy)
        found = converted(x, dtype, lanes, target)
        np.testing.assert_array_equal(bits(found), bits(cast_array(x, dtype)[: len(found)]))
    for other in DTYPES:
        if other is dtype or other in (float32, float64):
            continue
        found, wanted = converted(every, other, lanes, target), cast_array(every, other)
        same = (bits(found) == bits(wanted)) if other.is_narrow else found == wanted
        assert same.all()
        back = np.arange(-70000, 70000, 7).astype(np.int64) * (1 if other.itemsize < 8 else 10**9)
        numbers = cast_array(back, other)
        found = converted(numbers, dtype, lanes, target)
        np.testing.assert_array_equal(bits(found), bits(cast_array(numbers, dtype)[: len(found)]))


@pytest.mark.parametrize("target", NAMED.values(), ids=lambda t: t.name)
def test_no_target_calls_a_library(target: Target) -> None:
    for narrow in NARROW:
        for other in (float16, bfloat16, float32, float64, int32, int64, uint8, bool_):
            for source, to in ((narrow, other), (other, narrow)):
                for lanes in (1, target.lanes(4)):
                    i, vtype = ir.Var("i"), ir.VType(source, lanes)
                    cast = ir.Op("cast", (ir.Load("a", i, vtype),), ir.VType(to, lanes))
                    buffers = (ir.BufferParam("a", source, N), ir.BufferParam("b", to, N, writable=True))
                    body = (ir.For("i", ir.const(0), ir.Var("s0"), lanes, (ir.Store("b", i, cast),)),)
                    data = jit.compile_object(emit(ir.LoopKernel("k", buffers, ("s0",), body), target), target)
                    assert jit.undefined_symbols(data) <= {"memcpy", "memset"}, f"{source} to {to}"


def test_the_loop_level_only_moves_and_converts_narrow_floats() -> None:
    x = ir.Load("a", ir.Var("i"), ir.VType(float16))
    body = (ir.For("i", ir.const(0), ir.Var("s0"), 1, (ir.Store("a", ir.Var("i"), ir.Op("add", (x, x), x.vtype)),)),)
    with pytest.raises(InternalError, match=r"add\(f16, f16\) computes with narrow floats"):
        check_kernel(ir.LoopKernel("k", (ir.BufferParam("a", float16, N, writable=True),), ("s0",), body))


# every op of the registry


def names_in(attribute: object) -> frozenset[str]:
    if isinstance(attribute, (tuple, list)):
        return frozenset().union(*map(names_in, attribute))
    return symbols(attribute) if isinstance(attribute, Dim) else frozenset()


def narrow_samples(op: Op) -> list[Sample]:
    """The samples of `op` that are tried in float32, with sizes that the operands tell."""
    found = []
    for sample in op.samples():
        bound = frozenset().union(*(names_in(o.shape) for o in sample.operands))
        if float32 in sample.dtypes and names_in(tuple(sample.attrs.values())) <= bound and sample.operands:
            found.append(sample)
    return found


OPS_NARROW = [
    pytest.param(op, dtype, id=f"{op.name}-{dtype}")
    for op in OPS.values()
    if op.lowering is not None and narrow_samples(op)
    for dtype in NARROW
]


def same_or_near(op: Op, got: np.ndarray, want: np.ndarray, arrays: list[np.ndarray]) -> None:
    """Bits where float32 gives them; 1 ULP of the narrow dtype for functions; the error of a sum in float32."""
    assert got.dtype == want.dtype and got.shape == want.shape
    dtype = DType.of(want.dtype)
    if not dtype.is_narrow:
        np.testing.assert_array_equal(got, want)
        return
    summed = isinstance(op.lowering, (Contraction, Scan, ScatterAdd)) or (
        isinstance(op.lowering, Reduction) and op.name in ("sum", "prod")
    )
    if not summed and not op.ulp:
        either = op.name in ("maximum", "minimum", "max", "min")  # of two zeros
        zeros = (widened(want) == 0) & either
        np.testing.assert_array_equal(np.where(zeros, 0, bits(got)), np.where(zeros, 0, bits(want)))
        return
    limits, scale = dtype.limits, max([float(np.abs(widened(a)[np.isfinite(widened(a))]).max(initial=0))
                                       for a in arrays if DType.of(a.dtype).is_float], default=1)  # fmt: skip
    size = max((a.size for a in arrays), default=1)
    room = size * 2.0**-24 * scale ** (2 if isinstance(op.lowering, Contraction) else 1) if summed else 0
    room += limits.smallest_subnormal  # and 1 ULP is at most eps * |x|
    np.testing.assert_allclose(widened(got), widened(want), rtol=limits.eps, atol=room)


@pytest.mark.parametrize(("op", "dtype"), OPS_NARROW)
def test_every_op_is_its_reference_in_narrow_floats(op: Op, dtype: DType) -> None:
    rng = np.random.default_rng(11)
    summed = isinstance(op.lowering, (Contraction, Scan, ScatterAdd)) or op.name in ("sum", "prod")
    for sample in narrow_samples(op):
        inputs, results = sample.build(op, dtype)
        arrays = sample.draw(dtype, rng, smooth=summed)
        wanted = interpret.evaluate([t.ref for t in results], {t.ref: a for t, a in zip(inputs, arrays, strict=True)})
        compiled = graphc.function(inputs, results)
        for got, want in zip(compiled(*arrays), wanted, strict=True):
            same_or_near(op, got, want, arrays)
        assert text.to_text(text.parse(text.to_text(compiled.graph))) == text.to_text(compiled.graph)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_fused_or_not_the_bits_are_the_same(dtype: DType) -> None:
    """A chain of ops, reductions and a product: each op rounds its result, whoever computes it."""
    x, y = placeholder("x", ("n", "k"), dtype), placeholder("y", ("k", 5), dtype)
    h = graphc.exp(-x * x) * 3 + graphc.sqrt(graphc.abs(x)) / 7
    outputs = [h, h.sum(axis=1), h.max(axis=0), h @ y, graphc.relu((h @ y) * 0.5 + 1), graphc.softplus(x)[::2], x.T + 1]
    rng = np.random.default_rng(4)
    arrays = [cast_array(rng.normal(size=shape), dtype) for shape in ((19, 37), (37, 5))]
    seen = []
    for level in ({}, {"disable": "fuse"}, {"disable": "simplify"}, {"disable": "fuse,simplify,fold_constants"}):
        for threads in (1, 2):
            with graphc.config(num_threads=threads, **level):
                seen.append([r.tobytes() for r in graphc.function([x, y], outputs)(*arrays)])
    assert all(one == seen[0] for one in seen)
    feeds = {x.ref: arrays[0], y.ref: arrays[1]}
    elementwise = interpret.evaluate([h.ref], feeds)[0]
    assert (np.frombuffer(seen[0][0], np.uint16) == elementwise.view(np.uint16).ravel()).mean() > 0.99


def test_each_op_rounds_as_numpy_does() -> None:
    x = placeholder("x", ("n",), "float16")
    a = np.random.default_rng(0).normal(size=1003).astype(np.float16)

    def built(x: Any) -> Any:
        return (x * 3 + x / 7 - x * x) * (x + 1)

    np.testing.assert_array_equal(graphc.function([x], built(x))(a), built(a))


def test_sums_accumulate_in_float32() -> None:
    for dtype in NARROW:
        ones = cast_array(np.ones(5000), dtype)
        x = placeholder("x", ("n",), dtype)
        total, mean, var, last = graphc.function(
            [x], [x.sum(), graphc.mean(x * 60), graphc.var(x), graphc.cumsum(x, axis=0)[-1]]
        )(ones)
        assert widened(total) == widened(cast_array(np.float32(5000), dtype)) == widened(last)
        assert (widened(mean), widened(var)) == (60, 0)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_gradients_have_the_dtype_and_the_value(dtype: DType) -> None:
    x, w = placeholder("x", (6, 8), dtype), placeholder("w", (8, 3), dtype)
    loss = graphc.mean(graphc.tanh(x @ w).astype("float32"))
    gradients = graphc.grad(loss, [x, w])
    assert all(g.dtype is dtype for g in gradients)
    rng = np.random.default_rng(1)
    a, b = cast_array(rng.normal(size=(6, 8)), dtype), cast_array(rng.normal(size=(8, 3)), dtype)
    narrow = graphc.function([x, w], gradients)(a, b)
    x32, w32 = placeholder("x", (6, 8)), placeholder("w", (8, 3))
    exact = graphc.grad(graphc.mean(graphc.tanh(x32 @ w32)), [x32, w32])
    for got, want in zip(narrow, graphc.function([x32, w32], exact)(widened(a), widened(b)), strict=True):
        np.testing.assert_allclose(widened(got), want, atol=0.02, rtol=0.1)


def test_convolutions_in_both() -> None:
    rng = np.random.default_rng(2)
    for dtype in NARROW:
        x, w = placeholder("x", ("b", 3, 9, 9), dtype), placeholder("w", (4, 3, 3, 3), dtype)
        made = graphc.nn.functional.conv2d(x, w, padding=1)
        arrays = [cast_array(rng.normal(size=s), dtype) for s in ((2, 3, 9, 9), (4, 3, 3, 3))]
        got = graphc.function([x, w], [made, *graphc.grad(made.sum(), [x, w])])(*arrays)
        want = interpret.evaluate([made.ref], {x.ref: arrays[0], w.ref: arrays[1]})[0]
        assert got[0].dtype == dtype.numpy and got[1].dtype == got[2].dtype == dtype.numpy
        np.testing.assert_allclose(widened(got[0]), widened(want), rtol=dtype.limits.eps, atol=1e-4)


# users


def test_promotion_of_bfloat16_is_that_of_jax() -> None:
    wanted = {"float16": float32, "float32": float32, "float64": float64}
    for other in DTYPES:
        x, y = placeholder("x", (2,), "bfloat16"), placeholder("y", (2,), other)
        assert (x + y).dtype is (y + x).dtype is wanted.get(other.name, bfloat16)
    for number in (True, 3, 2.5):
        assert (x * number).dtype is bfloat16
    jnp = pytest.importorskip("jax.numpy")
    for other in DTYPES:
        if other.itemsize < 8:
            assert str(jnp.promote_types("bfloat16", other.name)) == wanted.get(other.name, bfloat16).name


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_arguments_parameters_and_constants(dtype: DType) -> None:
    values = np.array([0.1, -2.5, 1e-30, np.inf], np.float32)
    narrow = cast_array(values, dtype)
    w = graphc.parameter("w", narrow)
    x = placeholder("x", (4,), dtype)
    step = graphc.function([x], x + w + graphc.constant(values, dtype), updates={w: w * 2})
    (kept,) = [text.parse(text.to_text(step.graph), None, {"w": narrow})]
    assert text.to_text(kept) == text.to_text(step.graph)
    exact = step(narrow)
    assert exact.dtype == dtype.numpy and w.value.dtype == dtype.numpy
    np.testing.assert_array_equal(widened(w.value), widened(cast_array(widened(narrow) * 2, dtype)))
    assert step([0.5, 1, 2, 3]).dtype == dtype.numpy
    with pytest.raises(DTypeError, match="float32"):
        step(values)
    w.value = cast_array(np.full(4, 1.5), dtype)
    assert widened(w.value).tolist() == [1.5] * 4
    y = placeholder("y", (4,), "float32")
    np.testing.assert_array_equal(graphc.function([y], y * 1)(narrow), widened(narrow))


def test_a_plan_with_narrow_constants_comes_back_from_the_cache(tmp_path: Any) -> None:
    x = placeholder("x", (40,), "bfloat16")
    table = cast_array(np.arange(40.0), bfloat16)
    with graphc.config(cache=True, cache_dir=tmp_path):
        first, second = (graphc.function([x], x + graphc.constant(table))(table) for _ in range(2))
    np.testing.assert_array_equal(bits(first), bits(second))


WITHOUT = """
import sys
sys.modules["ml_dtypes"] = None
import numpy as np, graphc
assert graphc.bfloat16.numpy.itemsize == 2 and graphc.bfloat16.numpy.names
x = graphc.placeholder("x", ("n",), "bfloat16")
f = graphc.function([x], [x * 2 + 1, (x @ x).astype("float32")])
a = graphc.cast_array(np.arange(37, dtype="float32"), graphc.bfloat16)
with graphc.config(cache=False):
    for _ in range(2):
        twice, square = f(a)
assert (graphc.cast_array(twice, "float32") == np.arange(37) * 2 + 1).all() and abs(square - 16206) < 64
bits = twice.view("uint16")
assert bits[1] == 0x4040 and f(bits.view(graphc.bfloat16.numpy))[0].dtype == graphc.bfloat16.numpy
w = graphc.parameter("w", a)
graphc.function([], [], updates={w: w + w})()
assert graphc.cast_array(w.value, "float32")[3] == 6
assert x.sum().eval({x: a}).dtype == graphc.bfloat16.numpy
written = graphc.text.to_text(graphc.function([x], x + graphc.constant([1.5, 2.5], "bfloat16").sum()).graph)
assert "[1.5, 2.5]" in written and graphc.text.to_text(graphc.text.parse(written)) == written
"""


def test_bfloat16_works_without_ml_dtypes() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)


def test_ml_dtypes_is_imported_for_bfloat16_only() -> None:
    code = "import sys, graphc; x = graphc.placeholder('x', (2,)); graphc.function([x], x + 1); "
    code += "assert 'ml_dtypes' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


EXACT = ("negative", "abs", "sign", "sqrt", "floor", "ceil", "trunc", "round", "relu")


def test_elementwise_results_are_exact_for_every_float16() -> None:
    every = ALL_BITS.view(np.float16)
    x = placeholder("x", ("n",), "float16")
    outputs = [graphc.build.apply(name, x) for name in EXACT]
    wanted = interpret.evaluate([o.ref for o in outputs], {x.ref: every})
    for name, got, want in zip(EXACT, graphc.function([x], outputs)(every), wanted, strict=True):
        np.testing.assert_array_equal(bits(got), bits(want), err_msg=name)
