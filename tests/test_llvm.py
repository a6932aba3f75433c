"""Statements, memory access and control flow of the loop IR, compiled and run on arrays; objects and libraries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc.errors import InternalError
from graphc.llvm.emit import emit
from graphc.llvm.scratch import scratch_bytes
from graphc.loops import ir
from graphc.loops.check import check_kernel
from graphc.runtime import jit
from graphc.runtime.host import host_target
from graphc.runtime.single import load_kernel, run_kernel
from graphc.target import NAMED
from graphc.types import DTYPES, Dim, DType, bool_, float32, float64, int64

HOST = host_target()
N = Dim.symbol("s0")
n, i = ir.Var("s0"), ir.Var("i")


def vt(dtype: DType, lanes: int = 1) -> ir.VType:
    return ir.VType(dtype, lanes)


def op(name: str, vtype: ir.VType, *args: ir.Expr) -> ir.Op:
    return ir.Op(name, args, vtype)


INDEX_OPS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "min": min,
    "max": max,
}


@pytest.mark.parametrize("name", INDEX_OPS)
def test_index_arithmetic(name: str) -> None:
    """With both, one and no operand known while emitting, and through a sum that is kept as base + constant."""
    a, b = ir.Var("s0"), ir.Var("s1")
    plus = op("add", ir.I64, a, ir.const(5))
    cases = [
        ((a, b), (37, 4)), ((a, ir.const(3)), (37, 3)), ((ir.const(40), b), (40, 4)),
        ((ir.const(40), ir.const(3)), (40, 3)), ((plus, b), (42, 4)), ((plus, ir.const(1)), (42, 1)),
        ((plus, ir.const(4)), (42, 4)), ((ir.const(50), plus), (50, 42)), ((plus, plus), (42, 42)),
        ((plus, op("add", ir.I64, b, ir.const(2))), (42, 6)),
        ((op("sub", ir.I64, plus, ir.const(2)), op("mul", ir.I64, b, ir.const(2))), (40, 8)),
    ]  # fmt: skip
    stores = tuple(ir.Store("b0", ir.const(k), op(name, ir.I64, *pair)) for k, (pair, _) in enumerate(cases))
    kernel = ir.LoopKernel("k", (ir.BufferParam("b0", int64, len(cases), True),), ("s0", "s1"), stores)
    out = np.zeros(len(cases), np.int64)
    run_kernel(kernel, [out], [37, 4])
    assert out.tolist() == [INDEX_OPS[name](x, y) for _, (x, y) in cases]


def test_opaque_is_its_operand() -> None:
    value = op("opaque", ir.I64, op("add", ir.I64, n, ir.const(1)))
    kernel = ir.LoopKernel("k", (ir.BufferParam("b0", int64, 9, True),), ("s0",), (ir.Store("b0", value, value),))
    out = np.zeros(9, np.int64)
    run_kernel(kernel, [out], [4])
    assert out.tolist() == [0, 0, 0, 0, 0, 5, 0, 0, 0]


def test_division_by_a_size_of_zero_does_not_trap_in_front_of_a_loop() -> None:
    body = (ir.Store("b0", op("floordiv", ir.I64, n, ir.Var("s1")), ir.const(1)),)
    kernel = ir.LoopKernel(
        "k", (ir.BufferParam("b0", int64, 4, True),), ("s0", "s1"), (ir.For("i", ir.const(0), n, 1, body),)
    )
    out = np.zeros(4, np.int64)
    run_kernel(kernel, [out], [0, 0])
    assert not out.any()


@pytest.mark.parametrize("lanes", [2, 8, 16])
def test_lanes_splat_extract(lanes: int) -> None:
    wide = vt(int64, lanes)
    vector = op("add", wide, op("lanes", wide), op("splat", wide, n))
    body = (
        ir.Store("b0", ir.const(0), vector),
        ir.Store("b0", ir.const(lanes), op("extract", ir.I64, vector, ir.const(lanes - 1))),
    )
    kernel = ir.LoopKernel("k", (ir.BufferParam("b0", int64, lanes + 1, True),), ("s0",), body)
    out = np.zeros(lanes + 1, np.int64)
    run_kernel(kernel, [out], [5])
    assert out.tolist() == [*range(5, 5 + lanes), 4 + lanes]


def test_any() -> None:
    for lanes in (1, 16):
        kernel = ir.LoopKernel(
            "k",
            (ir.BufferParam("b0", bool_, lanes), ir.BufferParam("b1", bool_, 1, True)),
            (),
            (ir.Store("b1", ir.const(0), op("any", ir.BOOL, ir.Load("b0", ir.const(0), vt(bool_, lanes)))),),
        )
        for on in (False, True):
            a, out = np.zeros(lanes, bool), np.full(1, not on)
            a[-1] = on
            run_kernel(kernel, [a, out])
            assert out[0] == on


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gather_and_scatter(dtype: DType) -> None:
    """b1[7 - j] = b0[3 j % 8] for lanes j below s0; the lanes behind must touch nothing, whatever their index."""
    lanes, wide = 8, vt(int64, 8)
    mask = op("lt", vt(bool_, lanes), op("lanes", wide), op("splat", wide, n))
    far = ir.Const(2**50, wide)
    index = op("select", wide, mask, ir.Load("b2", ir.const(0), wide), far)
    back = op("select", wide, mask, op("sub", wide, ir.Const(7, wide), op("lanes", wide)), far)
    for lane_mask in (mask, None):
        read, write = (index, back) if lane_mask else (index.args[1], back.args[1])
        body = (ir.Store("b1", write, ir.Load("b0", read, vt(dtype, lanes), lane_mask), lane_mask),)
        buffers = (ir.BufferParam("b0", dtype, 8), ir.BufferParam("b1", dtype, 8, True), ir.BufferParam("b2", int64, 8))
        kernel = ir.LoopKernel("k", buffers, ("s0",), body)
        a, out, positions = np.arange(1, 9).astype(dtype.numpy), np.zeros(8, dtype.numpy), np.arange(8) * 3 % 8
        count = 5 if lane_mask else 8
        run_kernel(kernel, [a, out, positions], [count])
        expected = np.zeros(8, dtype.numpy)
        expected[7 - np.arange(count)] = a[positions[:count]]
        np.testing.assert_array_equal(out, expected)


def test_scatter_writes_in_lane_order() -> None:
    wide = vt(int64, 8)
    body = (ir.Store("b0", ir.Const(1, wide), op("lanes", wide)),)
    out = np.zeros(3, np.int64)
    run_kernel(ir.LoopKernel("k", (ir.BufferParam("b0", int64, 3, True),), (), body), [out])
    assert out.tolist() == [0, 7, 0]


def test_scalar_loads_and_stores_under_a_mask() -> None:
    for dtype in (float32, bool_):
        mask = op("lt", ir.BOOL, ir.const(2), n)
        value = ir.Load("b0", op("mul", ir.I64, n, ir.const(2**40)), vt(dtype), mask)
        body = (ir.Store("b1", ir.const(0), value), ir.Store("b1", ir.const(1), ir.Const(1, vt(dtype)), mask))
        kernel = ir.LoopKernel(
            "k", (ir.BufferParam("b0", dtype, 1), ir.BufferParam("b1", dtype, 2, True)), ("s0",), body
        )
        out = np.full(2, 0, dtype.numpy)
        run_kernel(kernel, [np.ones(1, dtype.numpy), out], [1])  # would read far outside, were it not masked
        assert out.tolist() == [0, 0]


def test_registers_through_loops_and_branches() -> None:
    """Two accumulators: even and odd elements, each only if positive; a tile of registers under unrolled loops."""
    acc = lambda k: ir.Reg("acc", (k,), vt(float64))
    x = ir.Var("x", vt(float64))
    positive = op("gt", ir.BOOL, x, ir.Const(0.0, vt(float64)))
    even = op("eq", ir.BOOL, op("mod", ir.I64, i, ir.const(2)), ir.const(0))

    def add(k: int) -> ir.Assign:
        return ir.Assign(acc(ir.const(k)), op("add", x.vtype, acc(ir.const(k)), x))

    inner = ir.If(even, (add(0),), (add(1),), ("acc",))
    k = ir.Var("k")
    read = ir.Let(x, ir.Load("b0", i, x.vtype))
    body = (
        ir.Declare("acc", (2,), vt(float64), ir.Const(0.0, vt(float64))),
        ir.For("i", ir.const(0), n, 1, (read, ir.If(positive, (inner,), (), ("acc",))), ("acc",)),
        ir.For("k", ir.const(0), ir.const(2), 1, (ir.Store("b1", k, acc(k)),), (), "unroll"),
    )
    kernel = ir.LoopKernel(
        "k", (ir.BufferParam("b0", float64, N), ir.BufferParam("b1", float64, 2, True)), ("s0",), body
    )
    for count in (0, 1, 9):
        a, out = np.random.default_rng(14).normal(size=9)[:count], np.full(2, 5.0)
        run_kernel(kernel, [a, out], [count])
        kept = np.maximum(a, 0)
        np.testing.assert_allclose(out, [kept[::2].sum(), kept[1::2].sum()], rtol=1e-14)


def test_nested_loops_hoist_indices_and_keep_values() -> None:
    """out[r, c] = a[c, r] * (r + 3) with every size a run-time number; r + 3 is kept as base + constant."""
    r, c, rows, columns = ir.Var("r"), ir.Var("c"), ir.Var("s0"), ir.Var("s1")
    flat = lambda a, b, width: op("add", ir.I64, op("mul", ir.I64, a, width), b)
    scale = op("cast", vt(float64), op("add", ir.I64, r, ir.const(3)))
    store = ir.Store(
        "b1", flat(r, c, columns), op("mul", vt(float64), ir.Load("b0", flat(c, r, rows), vt(float64)), scale)
    )
    body = (ir.For("r", ir.const(0), rows, 1, (ir.For("c", ir.const(0), columns, 1, (store,)),)),)
    size = Dim.symbol("s0") * Dim.symbol("s1")
    kernel = ir.LoopKernel(
        "k", (ir.BufferParam("b0", float64, size), ir.BufferParam("b1", float64, size, True)), ("s0", "s1"), body
    )
    a, out = np.random.default_rng(15).normal(size=(7, 5)), np.zeros((5, 7))
    run_kernel(kernel, [a, out], [5, 7])
    np.testing.assert_array_equal(out, a.T * (np.arange(5.0) + 3)[:, None])


def test_more_values_than_numbers_in_a_loop_in_front_of_it_and_in_a_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers have to increase from line to line; a piece of the text has some, and names for what is beyond."""
    monkeypatch.setattr("graphc.llvm.builder._NUMBERS", 20)
    count = 60
    base, index = ir.BufferParam("b0", int64, count), ir.BufferParam("b1", int64, count, True)
    parts = [
        ir.Store("b1", ir.const(k), op("add", ir.I64, ir.Load("b0", op("mul", ir.I64, i, ir.const(k)), ir.I64),
                                       op("mod", ir.I64, n, ir.const(k + 1))))
        for k in range(count)
    ]  # fmt: skip
    then = ir.If(op("lt", vt(bool_), i, ir.const(1)), tuple(parts), tuple(parts[:5]))
    kernel = ir.LoopKernel("k", (base, index), ("s0",), (ir.For("i", ir.const(0), n, 1, (then, *parts[1:3])),))
    values, out = np.arange(count) ** 2, np.zeros(count, np.int64)
    run_kernel(kernel, [values, out], [2])
    assert out.tolist() == [k * k * (k < 5) + 2 % (k + 1) for k in range(count)]


def test_equal_expressions_of_two_loops_are_computed_in_each() -> None:
    """The first loop's vector does not reach the second, although it is the same expression."""
    wide = vt(int64, 4)
    store = ir.Store("b0", op("mul", ir.I64, i, ir.const(4)), op("splat", wide, n))
    loops = [ir.For("i", ir.const(k), n, 2, (store,)) for k in range(2)]
    out = np.zeros(12, np.int64)
    run_kernel(ir.LoopKernel("k", (ir.BufferParam("b0", int64, 4 * N, True),), ("s0",), tuple(loops)), [out], [3])
    assert out.tolist() == [3] * 12


def test_an_i64_register_that_moves_by_a_constant() -> None:
    """The position is carried; its sum with a constant must be written inside of the loop that makes it."""
    at = ir.Reg("at", (), ir.I64)
    step = ir.Assign(at, op("add", ir.I64, at, ir.const(2)))
    plus = lambda value: op("add", ir.I64, n, ir.const(value))
    body = (
        ir.Declare("at", (), ir.I64, plus(1)),
        ir.For("i", plus(3), plus(6), 1, (ir.Store("b0", at, i), step), ("at",)),
        ir.Store("b0", ir.const(0), at),
    )
    out = np.zeros(10, np.int64)
    run_kernel(ir.LoopKernel("k", (ir.BufferParam("b0", int64, 10, True),), ("s0",), body), [out], [2])
    assert out.tolist() == [9, 0, 0, 5, 0, 6, 0, 7, 0, 0]


def test_chunks_and_finish() -> None:
    """Chunk c sums b0[4 c .. 4 c + 4) into part[c]; finish adds the parts, once."""
    chunk = ir.Var("chunk")
    first = op("mul", ir.I64, chunk, ir.const(4))
    acc = ir.Reg("acc", (), vt(float32))
    start = ir.Declare("acc", (), vt(float32), ir.Const(0.0, vt(float32)))

    def summed(buffer: str, begin: ir.Expr, end: ir.Expr) -> ir.For:
        add = ir.Assign(acc, op("add", vt(float32), acc, ir.Load(buffer, i, vt(float32))))
        return ir.For("i", begin, end, 1, (add,), ("acc",))

    body = (start, summed("b0", first, op("add", ir.I64, first, ir.const(4))), ir.Store("part", chunk, acc))
    finish = (start, summed("part", ir.const(0), n), ir.Store("b1", ir.const(0), acc))
    buffers = (
        ir.BufferParam("b0", float32, 4 * N),
        ir.BufferParam("part", float32, N, True),
        ir.BufferParam("b1", float32, 1, True),
    )
    kernel = ir.LoopKernel("k", buffers, ("s0",), body, N, finish)
    a, part, out = np.arange(12, dtype=np.float32), np.zeros(3, np.float32), np.zeros(1, np.float32)
    loaded = load_kernel(kernel)
    loaded([a, part, out], [3], [(1, 3), (0, 1)])
    assert part.tolist() == [6.0, 22.0, 38.0]
    assert out[0] == 0
    loaded([a, part, out], [3], [(-1, 0)])
    assert out[0] == 66.0


@pytest.mark.parametrize("size", [16, 40_000])
@pytest.mark.parametrize("worker", [0, 2])
def test_scratch_on_the_stack_and_from_the_context(size: int, worker: int) -> None:
    """Two arrays that must not overlap; the second is read back after the first is written."""
    one, two = (ir.Scratch(f"t{k}", float32, size) for k in range(2))
    value = ir.Load("b0", i, vt(float32))
    fill = ir.For("i", ir.const(0), n, 1, (ir.Store("t1", i, value), ir.Store("t0", i, op("neg", vt(float32), value))))
    total = op("sub", vt(float32), ir.Load("t1", i, vt(float32)), ir.Load("t0", i, vt(float32)))
    body = (one, two, fill, ir.For("i", ir.const(0), n, 1, (ir.Store("b1", i, total),)))
    kernel = ir.LoopKernel(
        "k", (ir.BufferParam("b0", float32, N), ir.BufferParam("b1", float32, N, True)), ("s0",), body
    )
    assert scratch_bytes(kernel) == (0 if size == 16 else 2 * 4 * size)
    a, out = np.arange(size, dtype=np.float32), np.zeros(size, np.float32)
    load_kernel(kernel)([a, out], [size], [(0, 1)], worker)
    np.testing.assert_array_equal(out, 2 * a)


def test_scratch_of_one_name_in_two_blocks_has_room_for_both() -> None:
    def block(size: int) -> tuple[ir.Stmt, ...]:
        last = ir.const(size - 1)
        return (
            ir.Scratch("t", int64, size),
            ir.Scratch(f"u{size}", int64, 8),
            ir.Store(f"u{size}", ir.const(0), n),
            ir.For("i", ir.const(0), ir.const(size), 1, (ir.Store("t", i, i),)),
            ir.Store("b0", ir.const(0), ir.Load(f"u{size}", ir.const(0), ir.I64)),
            ir.Store("b0", ir.const(1), ir.Load("t", last, ir.I64)),
        )

    many = op("gt", ir.BOOL, n, ir.const(5))
    kernel = ir.LoopKernel("k", (ir.BufferParam("b0", int64, 2, True),), ("s0",), (ir.If(many, block(100), block(10)),))
    for size, last in ((6, 99), (5, 9)):
        out = np.zeros(2, np.int64)
        run_kernel(kernel, [out], [size])
        assert out.tolist() == [size, last]


def test_fail_keeps_the_lowest_node_and_index() -> None:
    bad = op("lt", ir.BOOL, ir.Load("b0", i, ir.I64), ir.const(0))
    body = (
        ir.For("i", ir.const(0), n, 1, (ir.Fail(bad, 7, i),)),
        ir.Fail(op("gt", ir.BOOL, n, ir.const(100)), 3, ir.const(0)),
    )
    kernel = ir.LoopKernel("k", (ir.BufferParam("b0", int64, N),), ("s0",), body)
    assert run_kernel(kernel, [np.arange(5)], [5])[0] == -1
    assert run_kernel(kernel, [np.array([1, 2, -1, 0, -5])], [5])[0] == 7 << 40 | 2
    assert run_kernel(kernel, [np.array([0] * 200 + [-1])], [201])[0] == 3 << 40
    far = ir.LoopKernel("k", (), (), (ir.Fail(ir.Const(True, ir.BOOL), 1, ir.const(2**45)),))
    assert run_kernel(far, [])[0] == (1 << 40) + 2**40 - 1


def test_routines_run_with_the_buffers_and_sizes_of_each_call() -> None:
    x, y, many, at = ir.Var("x", vt(float32)), ir.Load("c", i, vt(float32)), ir.Var("many"), ir.Var("at")
    total = op("add", x.vtype, x, y)
    add = ir.Routine(
        "add",
        (ir.BufferParam("a", float32, Dim.symbol("many")), ir.BufferParam("c", float32, Dim.symbol("many"), True)),
        ("many",),
        (ir.For("i", ir.const(0), many, 1, (ir.Let(x, ir.Load("a", i, x.vtype)), ir.Store("c", i, total))),),
    )
    both = ir.Routine(
        "both",
        (ir.BufferParam("a", float32, Dim.symbol("at") + 2), ir.BufferParam("c", float32, 2, True)),
        ("at",),
        (ir.Call("add", (("a", at), ("c", ir.const(0))), (ir.const(2),)),),
    )
    body = (
        ir.Call("add", (("b0", ir.const(1)), ("b1", n)), (n,)),
        ir.Call("both", (("b0", ir.const(0)), ("b1", ir.const(1))), (n,)),
    )
    buffers = (ir.BufferParam("b0", float32, N + 2), ir.BufferParam("b1", float32, 2 * N, True))
    kernel = ir.LoopKernel("k", buffers, ("s0",), body, routines=(add, both))
    check_kernel(kernel)
    a, out = np.arange(5, dtype=np.float32), np.full(6, 10, np.float32)
    run_kernel(kernel, [a, out], [3])
    assert out.tolist() == [10, 13, 14, 11, 12, 13]
    assert "define internal void @k.add(" in emit(kernel, HOST)


def test_prefetch_and_comment() -> None:
    body = (ir.Comment("far away"), ir.Prefetch("b0", ir.const(1 << 20)), ir.Store("b0", ir.const(0), ir.const(3)))
    out = np.zeros(1, np.int64)
    run_kernel(ir.LoopKernel("k", (ir.BufferParam("b0", int64, 1, True),), (), body), [out])
    assert out[0] == 3


def test_a_missing_symbol_and_a_broken_module_are_internal_errors() -> None:
    data = jit.compile_object(emit(ir.LoopKernel("k", (), (), ()), HOST), HOST)
    with pytest.raises(InternalError, match="cannot link"):
        jit.Library().load([data], ["nothing"])
    with pytest.raises(InternalError, match="LLVM rejects"):
        jit.compile_object("define i32 @k( {", HOST)


def test_the_options_are_those_of_this_llvm_and_are_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jit.llvm.llvm_version_info[0] == jit._LLVM, "try whether this LLVM has all options of runtime/ours.options"
    ours, defaults = (path.read_text(encoding="utf-8").split() for path in (jit._OURS, jit._DEFAULTS))
    other = {"true": "false", "false": "true"}
    assert defaults == [f"{name}={other[value]}" for name, value in (line.split("=") for line in ours)]
    said: list[str] = []
    monkeypatch.setattr(jit.llvm, "set_option", lambda name, option: said.append(option))
    with pytest.raises(ZeroDivisionError), jit._options(NAMED["avx512"]):
        raise ZeroDivisionError
    assert said == [f"@{jit._OURS}", f"@{jit._DEFAULTS}"]
    monkeypatch.setattr(jit, "_have_options", lambda: False)
    jit.compile_object("define void @k() {\n ret void\n}\n", NAMED["avx512"])
    assert len(said) == 2, "without the files, or with another LLVM, it compiles with all passes"


def test_undefined_symbols_sees_a_call() -> None:
    text = (
        f'target triple = "{HOST.triple}"\ndeclare void @far()\ndefine void @k() {{\n call void @far()\n ret void\n}}\n'
    )
    assert jit.undefined_symbols(jit.compile_object(text, HOST)) == {"far"}


def test_two_libraries_may_hold_the_same_name() -> None:
    out = np.zeros(1, np.int64)
    buffers = (ir.BufferParam("b0", int64, 1, True),)
    loaded = [load_kernel(ir.LoopKernel("k", buffers, (), (ir.Store("b0", ir.const(0), ir.const(v)),))) for v in (1, 2)]
    for kernel, value in zip(loaded, (1, 2)):
        kernel([out], [], [(0, 1)])
        assert out[0] == value


def test_the_host_is_described_by_its_features() -> None:
    assert HOST.vector_bytes in (16, 32, 64)
    assert HOST.masked_memory == (HOST.vector_bytes == 64)
    assert HOST.l1_bytes <= HOST.l2_bytes
