"""Every op of the loop IR on every dtype, scalar and as vectors with masked tails, compiled and compared with NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from graphc.llvm.emit import emit
from graphc.loops import ir
from graphc.loops.check import check_kernel
from graphc.runtime import jit
from graphc.runtime.host import host_target
from graphc.runtime.single import run_kernel
from graphc.target import AVX2, AVX512, NAMED, NEON, SSE2, Target
from graphc.types import DTYPES, Dim, DType, bool_, float32, float64, int8, int32, int64, uint8, uint32, uint64

COMPUTED = [d for d in DTYPES if not d.is_narrow]  # narrow floats are only converted: tests/test_narrow.py
HOST = host_target()
N = Dim.symbol("s0")
n, i = ir.Var("s0"), ir.Var("i")
ALLOWED = {"memcpy", "memset"}


def vt(dtype: DType, lanes: int = 1) -> ir.VType:
    return ir.VType(dtype, lanes)


def op(name: str, vtype: ir.VType, *args: ir.Expr) -> ir.Op:
    return ir.Op(name, args, vtype)


def below(lanes: int) -> ir.Expr | None:
    """The mask of the lanes i, i + 1, ... that lie below the size."""
    if lanes == 1:
        return None
    wide = vt(int64, lanes)
    position = op("add", wide, op("splat", wide, i), op("lanes", wide))
    return op("lt", vt(bool_, lanes), position, op("splat", wide, n))


def elementwise(
    operands: Sequence[DType], result: DType, lanes: int, body: Callable[..., ir.Expr], name: str = "k"
) -> ir.LoopKernel:
    """result[i] = body(operands[i] ...) for i below s0, `lanes` at a time under a mask."""
    mask = below(lanes)
    buffers = [ir.BufferParam(f"b{k}", d, N, align=d.itemsize) for k, d in enumerate(operands)]
    buffers.append(ir.BufferParam("out", result, N, writable=True, align=result.itemsize))
    variables = [ir.Var(f"x{k}", vt(d, lanes)) for k, d in enumerate(operands)]
    lets = [ir.Let(v, ir.Load(f"b{k}", i, v.vtype, mask)) for k, v in enumerate(variables)]
    store = ir.Store("out", i, body(*variables), mask)
    return ir.LoopKernel(name, tuple(buffers), ("s0",), (ir.For("i", ir.const(0), n, lanes, (*lets, store)),))


def apply(
    body: Callable[..., ir.Expr],
    arrays: Sequence[np.ndarray[Any, Any]],
    result: DType,
    lanes: int,
    target: Target = HOST,
) -> np.ndarray[Any, Any]:
    """The kernel of `body` over arrays; it must not write behind the end."""
    count = len(arrays[0])
    out = np.full(count + 70, 7, result.numpy)
    kernel = elementwise([DType.of(a.dtype) for a in arrays], result, lanes, body)
    run_kernel(kernel, [*arrays, out], [count], target)
    assert (out[count:] == np.array(7, result.numpy)).all()
    return out[:count]


def same(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    """Equal bits, except that any NaN is a NaN."""
    assert found.dtype == expected.dtype
    if found.dtype.kind == "f":
        nan = np.isnan(expected)
        np.testing.assert_array_equal(np.isnan(found), nan)
        bits = f"u{found.itemsize}"
        np.testing.assert_array_equal(found[~nan].view(bits), expected[~nan].view(bits))
    else:
        np.testing.assert_array_equal(found, expected)


def samples(dtype: DType, count: int, seed: int) -> np.ndarray[Any, Any]:
    """Numbers of every size, with the extremes."""
    generator = np.random.default_rng(seed)
    if dtype.kind == "b":
        return generator.integers(0, 2, count).astype(bool)
    if dtype.kind == "f":
        special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 0.5, -0.5, 1.5, 2.5, -2.5, 8388609.0, 3e38]
        values = generator.normal(size=count) * 10.0 ** generator.integers(-3, 5, count)
    else:
        low, high = np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max
        special = [0, 1, low, high, 2, 3, 5]
        values = generator.integers(low, high, count, dtype.numpy, endpoint=True)
        values[::3] = generator.integers(0, 9, len(values[::3]))
        if dtype.kind == "i":
            values[1] = -1
    chosen = values.astype(dtype.numpy)
    where = generator.permutation(count)[: 2 * len(special)]
    chosen[where] = np.resize(np.array(special, dtype.numpy), len(where))
    return chosen


def truncated_divide(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    wide = [int(x) for x in a], [int(y) for y in b]
    quotients = [0 if y == 0 else abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1) for x, y in zip(*wide)]
    bits = 8 * a.dtype.itemsize
    return np.array([q % 2**bits for q in quotients], f"u{a.dtype.itemsize}").view(a.dtype)


NUMBERS = [d for d in COMPUTED if d.kind != "b"]
INTEGERS = [d for d in COMPUTED if d.is_integer]
FLOATS = [float32, float64]
BINARY: dict[str, tuple[Callable[..., Any], Sequence[DType]]] = {
    "add": (np.add, NUMBERS), "sub": (np.subtract, NUMBERS), "mul": (np.multiply, NUMBERS),
    "div": (truncated_divide, NUMBERS), "minimum": (np.minimum, NUMBERS), "maximum": (np.maximum, NUMBERS),
    "copysign": (np.copysign, FLOATS), "and_": (np.bitwise_and, [bool_, *INTEGERS]),
    "or_": (np.bitwise_or, [bool_, *INTEGERS]), "xor": (np.bitwise_xor, [bool_, *INTEGERS]),
}  # fmt: skip
COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip
UNARY: dict[str, tuple[Callable[..., Any], Sequence[DType]]] = {
    "neg": (np.negative, NUMBERS), "abs": (np.abs, NUMBERS), "sqrt": (np.sqrt, FLOATS),
    "floor": (np.floor, FLOATS), "ceil": (np.ceil, FLOATS), "trunc": (np.trunc, FLOATS), "rint": (np.rint, FLOATS),
    "not_": (np.invert, [bool_, *INTEGERS]),
}  # fmt: skip
HOST_OR_OLD = [HOST, SSE2] if HOST.triple == SSE2.triple else [HOST]
COUNT = 131


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("name", BINARY)
def test_binary(name: str, lanes: int) -> None:
    reference, dtypes = BINARY[name]
    for dtype in dtypes:
        a, b = samples(dtype, COUNT, 1), samples(dtype, COUNT, 2)
        a[5:8], b[5:8] = a[5], b[6]
        if dtype.kind == "i":
            a[5:8], b[5:8] = np.iinfo(dtype.numpy).min, -1
        with np.errstate(all="ignore"):
            expected = reference(a, b)
        found = apply(lambda x, y: op(name, x.vtype, x, y), [a, b], dtype, lanes)
        if name in ("minimum", "maximum") and dtype.is_float:  # which zero is not promised
            found, expected = found + 0, expected + 0
        same(found, expected)


@pytest.mark.parametrize("lanes", [1, 16])
def test_extrema_with_constants(lanes: int) -> None:
    a = samples(float32, COUNT, 16)
    for constant in (0.5, float("nan")):
        for name, reference in (("minimum", np.minimum), ("maximum", np.maximum)):
            expected = reference(a, np.float32(constant))
            for swap in (False, True):

                def body(x: ir.Var, name: str = name, value: float = constant, swap: bool = swap) -> ir.Expr:
                    pair = (x, ir.Const(value, x.vtype))
                    return op(name, x.vtype, *(pair[::-1] if swap else pair))

                same(apply(body, [a], float32, lanes), expected)


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("name", COMPARE)
def test_compare(name: str, lanes: int) -> None:
    for dtype in COMPUTED:
        a, b = samples(dtype, COUNT, 1), samples(dtype, COUNT, 2)
        b[::4] = a[::4]
        found = apply(lambda x, y: op(name, vt(bool_, lanes), x, y), [a, b], bool_, lanes)
        same(found, COMPARE[name](a, b))


@pytest.mark.parametrize("target", HOST_OR_OLD, ids=lambda t: t.name)
@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str, lanes: int, target: Target) -> None:
    reference, dtypes = UNARY[name]
    for dtype in dtypes if target is HOST else FLOATS:
        if dtype not in dtypes:
            continue
        a = samples(dtype, COUNT, 3)
        with np.errstate(all="ignore"):
            expected = reference(a)
        same(apply(lambda x: op(name, x.vtype, x), [a], dtype, lanes, target), expected)


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("name", ["shl", "lshr", "ashr"])
def test_shifts(name: str, lanes: int) -> None:
    for dtype in INTEGERS:
        a = samples(dtype, COUNT, 4)
        by = (np.arange(COUNT) % (8 * dtype.itemsize)).astype(dtype.numpy)
        signed, unsigned = a.view(f"i{a.itemsize}"), a.view(f"u{a.itemsize}")
        places = by.view(unsigned.dtype)
        expected = {"shl": unsigned << places, "lshr": unsigned >> places, "ashr": signed >> places.view(signed.dtype)}
        found = apply(lambda x, y: op(name, x.vtype, x, y), [a, by], dtype, lanes)
        same(found, expected[name].view(a.dtype))


@pytest.mark.parametrize("lanes", [1, 16])
def test_fma_rounds_once_and_nothing_else_is_contracted(lanes: int) -> None:
    for dtype in FLOATS:
        a, b, c = (np.random.default_rng(k).normal(size=COUNT).astype(dtype.numpy) for k in range(3))
        product = a.astype(np.longdouble) * b
        once = apply(lambda x, y, z: op("fma", x.vtype, x, y, z), [a, b, c], dtype, lanes)
        if dtype is float32 and HOST.fma:  # the product of two float32 is exact in float64, the sum nearly so
            same(once, (product + c).astype(np.float32))
        twice = apply(lambda x, y, z: op("add", x.vtype, op("mul", x.vtype, x, y), z), [a, b, c], dtype, lanes)
        same(twice, a * b + c)
        assert HOST.fma == bool((once != twice).any())


@pytest.mark.parametrize("lanes", [1, 16])
def test_select_and_constants(lanes: int) -> None:
    for dtype in COMPUTED:
        condition, a = samples(bool_, COUNT, 5), samples(dtype, COUNT, 6)
        one = ir.Const(1, vt(dtype, lanes))
        found = apply(lambda c, x, one=one: op("select", x.vtype, c, x, one), [condition, a], dtype, lanes)
        same(found, np.where(condition, a, np.array(1, dtype.numpy)))


def test_float_constants_are_exact() -> None:
    for dtype in FLOATS:
        for value in (0.1, -0.0, float("inf"), float("-inf"), float("nan"), 1e-45, 1e300, 3.4028235677973366e38):
            with np.errstate(over="ignore"):
                expected = np.full(3, value, dtype.numpy)
            zero = np.zeros(3, dtype.numpy)
            found = apply(lambda x, value=value: ir.Const(value, x.vtype), [zero], dtype, 1)
            same(found, expected)


def cast_samples(source: DType, to: DType) -> np.ndarray[Any, Any]:
    if not source.is_float or not to.is_integer:
        return samples(source, COUNT, 7)
    low, high = (max(-(2.0**62), float(v)) for v in (np.iinfo(to.numpy).min, np.iinfo(to.numpy).max))
    values = np.random.default_rng(8).uniform(low * 0.999, high * 0.999, COUNT)
    values[:6] = 0.0, -0.0, 0.9, 1.5, low * 0.999, high * 0.999
    if to.kind == "i":
        values[6:8] = -0.9, -1.5
    return values.astype(source.numpy)


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("to", COMPUTED, ids=str)
def test_cast(to: DType, lanes: int) -> None:
    for source in COMPUTED:
        a = cast_samples(source, to)
        with np.errstate(all="ignore"):
            expected = a.astype(to.numpy)
        same(apply(lambda x: op("cast", vt(to, lanes), x), [a], to, lanes), expected)


@pytest.mark.parametrize("lanes", [1, 16])
def test_a_cast_of_a_float_that_does_not_fit_is_the_nearest(lanes: int) -> None:
    a = np.array([np.nan, np.inf, -np.inf, 3e9, -3e9, 2147483647.5, -2147483648.9, 1e19, -1e19])
    for to in INTEGERS:
        info = np.iinfo(to.numpy)
        exact = [0 if np.isnan(x) else info.max if x > info.max else info.min if x < info.min else int(x) for x in a]
        same(apply(lambda x, to=to: op("cast", vt(to, lanes), x), [a], to, lanes), np.array(exact, to.numpy))


@pytest.mark.parametrize("lanes", [1, 8])
def test_bitcast(lanes: int) -> None:
    for source, to in ((float32, int32), (int32, float32), (float64, uint64), (uint32, int32), (int8, uint8)):
        a = samples(source, COUNT, 9)
        found = apply(lambda x, to=to: op("bitcast", vt(to, lanes), x), [a], to, lanes)
        np.testing.assert_array_equal(found.view(np.uint8), a.view(np.uint8))


@pytest.mark.parametrize("name", ["exp", "expm1", "log", "log1p", "tanh"])
def test_functions_are_expanded_inline_and_equal_in_every_width(name: str) -> None:
    for dtype in FLOATS:
        a = np.random.default_rng(10).uniform(0.01, 5, COUNT).astype(dtype.numpy)
        wide, narrow = (apply(lambda x: op(name, x.vtype, x), [a], dtype, lanes) for lanes in (16, 1))
        np.testing.assert_allclose(wide, getattr(np, name)(a), rtol=4 * np.finfo(dtype.numpy).eps)
        same(wide, narrow)


def test_signedness_is_not_lost_by_sharing() -> None:
    """The sum of two i32 and of the same two as u32 are one LLVM instruction, but convert differently."""

    def body(x: ir.Var, y: ir.Var) -> ir.Expr:
        ux, uy = (op("bitcast", vt(uint32, 4), v) for v in (x, y))
        signed = op("cast", vt(float64, 4), op("add", vt(int32, 4), x, y))
        unsigned = op("cast", vt(float64, 4), op("add", vt(uint32, 4), ux, uy))
        return op("sub", vt(float64, 4), unsigned, signed)

    a, b = np.full(5, -3, np.int32), np.full(5, 1, np.int32)
    same(apply(body, [a, b], float64, 4), np.full(5, 2.0**32))


REDUCE: dict[str, Callable[..., Any]] = {
    "add": np.add, "mul": np.multiply, "minimum": np.minimum, "maximum": np.maximum,
    "and_": np.bitwise_and, "or_": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip


@pytest.mark.parametrize("name", REDUCE)
def test_reduce_is_the_tree_of_halves(name: str) -> None:
    choices = NUMBERS if name not in ("and_", "or_", "xor") else [bool_, *INTEGERS]
    for dtype in choices:
        for lanes in (2, 16):
            a = samples(dtype, lanes, 11)
            if dtype.is_float:
                a = np.random.default_rng(12).normal(size=lanes).astype(dtype.numpy)
            value = op(f"reduce_{name}", vt(dtype), ir.Load("b0", ir.const(0), vt(dtype, lanes)))
            buffers = (ir.BufferParam("b0", dtype, lanes), ir.BufferParam("b1", dtype, 1, True))
            kernel = ir.LoopKernel("k", buffers, (), (ir.Store("b1", ir.const(0), value),))
            out = np.zeros(1, dtype.numpy)
            run_kernel(kernel, [a, out])
            with np.errstate(all="ignore"):
                while len(a) > 1:
                    a = REDUCE[name](a[: len(a) // 2], a[len(a) // 2 :])
            same(out, a)


def test_a_bool_in_memory_is_any_byte_when_read_and_0_or_1_when_written() -> None:
    for lanes in (1, 16):
        a = np.array([0, 1, 2, 255, 128, 0], np.uint8)
        found = apply(lambda x: x, [a.view(bool)], bool_, lanes)
        assert found.view(np.uint8).tolist() == [0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize(("lanes", "run", "part"), [(2, 1, 2), (16, 1, 4), (16, 2, 4), (16, 1, 16), (8, 4, 8)])
def test_zip(lanes: int, run: int, part: int) -> None:
    counts = ir.const(run), ir.const(part)
    for dtype in (bool_, float32, uint8, int64):
        a, b = samples(dtype, lanes, 17), samples(dtype, lanes, 18)
        low = apply(lambda x, y: op("zip_low", x.vtype, x, y, *counts), [a, b], dtype, lanes)
        high = apply(lambda x, y: op("zip_high", x.vtype, x, y, *counts), [a, b], dtype, lanes)
        runs = np.stack([x.reshape(-1, 2, part // 2 // run, run) for x in (a, b)], 3)  # part, half, run, side, lane
        same(low.reshape(-1, part), runs[:, 0].reshape(-1, part))
        same(high.reshape(-1, part), runs[:, 1].reshape(-1, part))


@pytest.mark.parametrize("lanes", [2, 4, 16])
def test_join(lanes: int) -> None:
    for dtype in (float32, uint8, int64):
        a, b = samples(dtype, lanes, 17), samples(dtype, lanes, 18)
        pieces = [ir.Load(name, ir.const(0), vt(dtype, lanes)) for name in ("b0", "b1")]
        store = ir.Store("out", ir.const(0), op("join", vt(dtype, 2 * lanes), *pieces))
        buffers = [ir.BufferParam(name, dtype, lanes, align=dtype.itemsize) for name in ("b0", "b1")]
        buffers.append(ir.BufferParam("out", dtype, 2 * lanes, writable=True, align=dtype.itemsize))
        kernel, out = ir.LoopKernel("k", tuple(buffers), (), (store,)), np.empty(2 * lanes, dtype.numpy)
        check_kernel(kernel)
        run_kernel(kernel, [a, b, out], [], HOST)
        same(out, np.concatenate([a, b]))


@pytest.mark.parametrize(("lanes", "run"), [(2, 1), (16, 4), (16, 1), (8, 4)])
def test_even_and_odd_runs(lanes: int, run: int) -> None:
    for dtype in (bool_, float32, uint8, int64):
        a, b = samples(dtype, lanes, 17), samples(dtype, lanes, 18)
        runs = np.concatenate([a, b]).reshape(-1, 2, run)
        for name, which in (("even", 0), ("odd", 1)):
            found = apply(lambda x, y, name=name: op(name, x.vtype, x, y, ir.const(run)), [a, b], dtype, lanes)
            same(found, runs[:, which].ravel())


def everything(target: Target) -> ir.LoopKernel:
    """A kernel with every float op on vectors and scalars, masked: what another target must compile without calls."""
    names = ["neg", "abs", "sqrt", "floor", "ceil", "trunc", "rint", "exp", "expm1", "log", "log1p", "tanh"]

    def body(x: ir.Var) -> ir.Expr:
        total: ir.Expr = x
        for name in names:
            total = op("maximum", x.vtype, total, op(name, x.vtype, x))
        total = op("fma", x.vtype, total, x, op("copysign", x.vtype, total, x))
        whole = op("cast", vt(int32, x.vtype.lanes), total)
        return op("add", x.vtype, total, op("cast", x.vtype, op("div", whole.vtype, whole, whole)))

    return elementwise([float32], float32, target.lanes(4), body)


@pytest.mark.parametrize("target", NAMED.values(), ids=lambda t: t.name)
def test_every_target_compiles_without_calls(target: Target) -> None:
    kernel = everything(target)
    check_kernel(kernel)
    data = jit.compile_object(emit(kernel, target), target, verify=True)
    assert jit.undefined_symbols(data) <= ALLOWED
    assert data[18] == (183 if target is NEON else 62)  # e_machine: aarch64, x86-64
    text = jit.compile_assembly(emit(everything(target), target), target)
    registers = {AVX512.name: "zmm", AVX2.name: "ymm", SSE2.name: "xmm", NEON.name: ".4s"}
    assert registers[target.name] in text
