"""The loop IR's text and its verifier: one golden kernel, and what makes a kernel wrong."""

from __future__ import annotations

import dataclasses

import pytest

from graphc.errors import InternalError
from graphc.loops import ir
from graphc.loops.check import check_kernel
from graphc.loops.printer import print_expression, print_kernel
from graphc.types import Dim, DType, bool_, float32, int32, int64

N = Dim.symbol("s0")
F, FX, IX, MX = ir.VType(float32), ir.VType(float32, 16), ir.VType(int64, 16), ir.VType(bool_, 16)
n, i, k = ir.Var("s0"), ir.Var("i"), ir.Var("k")


def op(name: str, vtype: ir.VType, *args: ir.Expr) -> ir.Op:
    return ir.Op(name, args, vtype)


def add(a: ir.Expr, b: ir.Expr) -> ir.Op:
    return op("add", a.vtype, a, b)


def acc(index: ir.Expr) -> ir.Reg:
    return ir.Reg("acc", (index,), FX)


MASK = ir.Let(ir.Var("m", MX), op("lt", MX, add(op("splat", IX, i), op("lanes", IX)), op("splat", IX, n)))
LOAD = ir.Let(
    ir.Var("x", FX), ir.Load("b0", add(op("mul", ir.I64, add(k, ir.const(4)), ir.const(128)), i), FX, MASK.var)
)
SUM = ir.Assign(acc(k), add(acc(k), op("maximum", FX, LOAD.var, ir.Const(0.5, FX))))
UNROLLED = ir.For("k", ir.const(0), ir.const(2), 1, (LOAD, SUM), (), "unroll")
LOOP = ir.For("i", ir.const(0), n, 16, (MASK, UNROLLED, ir.Prefetch("b0", add(i, ir.const(64)))), ("acc",))
STORE = ir.Store("b1", ir.Var("chunk"), op("reduce_add", F, add(acc(ir.const(0)), acc(ir.const(1)))))
DECLARE = ir.Declare("acc", (2,), FX, ir.Const(0.0, F))
BAD = ir.Fail(op("lt", ir.BOOL, n, ir.const(0)), 2, n)
EMPTY = ir.If(op("eq", ir.BOOL, n, ir.const(0)), (ir.Assign(acc(ir.const(0)), ir.Const(1.0, FX)),), (BAD,), ("acc",))
AT = ir.Var("at")
ROUTINE = ir.Routine(
    "twice",
    (ir.BufferParam("a", float32, 8), ir.BufferParam("c", float32, Dim.symbol("at") + 1, True)),
    ("at",),
    (ir.Store("c", AT, add(ir.Load("a", ir.const(0), F), ir.Load("a", AT, F))),),
)
CALL = ir.Call("twice", (("b0", add(n, ir.const(1))), ("t", ir.const(0))), (ir.const(3),))
KERNEL = ir.LoopKernel(
    "rows_sum",
    (ir.BufferParam("b0", float32, N * 128, align=64), ir.BufferParam("b1", float32, Dim.symbol("s1"), True)),
    ("s0", "s1"),
    (ir.Comment("two rows"), DECLARE, ir.Scratch("t", float32, 64), LOOP, CALL, EMPTY, STORE),
    chunks=Dim.symbol("s1"),
    finish=(ir.Store("b1", ir.const(0), ir.Const(0.0, F)),),
    routines=(ROUTINE,),
    comments=("sum(%x)  train.py:3",),
)

GOLDEN = """\
# sum(%x)  train.py:3
routine twice(a: f32[8], c: f32[at+1] writable; at):
    c[at] = a[0] + a[at]
def rows_sum(b0: f32[128*s0] align 64, b1: f32[s1] writable; s0, s1) for chunk in 0..s1:
    # two rows
    acc[2]: f32x16 = 0.0
    scratch t: f32[64]
    for i in 0..s0 step 16 carry acc:
        m: boolx16 = splat16(i) + lanes16() < splat16(s0)
        for k in unroll 0..2:
            x: f32x16 = load16 b0[(k + 4)*128 + i] where m
            acc[k] := acc[k] + maximum(x, 0.5)
        prefetch b0[i + 64]
    call twice(b0[s0 + 1], t[0]; 3)
    if s0 == 0 carry acc:
        acc[0] := 1.0
    else:
        fail 2 at s0 if s0 < 0
    b1[chunk] = reduce_add(acc[0] + acc[1])
finish:
    b1[0] = 0.0
"""


def test_golden() -> None:
    check_kernel(KERNEL)
    assert print_kernel(KERNEL) == GOLDEN


def test_operators_print_with_the_parentheses_that_they_need() -> None:
    a, b, c = (ir.Var(name) for name in "abc")
    sub = lambda x, y: op("sub", ir.I64, x, y)
    assert print_expression(sub(a, sub(b, c))) == "a - (b - c)"
    assert print_expression(sub(sub(a, b), c)) == "a - b - c"
    assert print_expression(op("mul", ir.I64, add(a, b), op("floordiv", ir.I64, c, a))) == "(a + b)*(c//a)"
    assert print_expression(op("eq", ir.BOOL, a, op("and_", ir.I64, b, c))) == "a == b & c"
    assert print_expression(op("cast", ir.VType(int32), a)) == "cast i32(a)"
    assert print_expression(ir.Load("b0", ir.Var("v", IX), FX)) == "gather16 b0[v]"


def with_body(*statements: ir.Stmt) -> ir.LoopKernel:
    return dataclasses.replace(KERNEL, body=statements, finish=())


def let(name: str, value: ir.Expr, vtype: ir.VType | None = None) -> ir.Let:
    return ir.Let(ir.Var(name, vtype or value.vtype), value)


def load(
    buffer: str = "b0", index: ir.Expr | None = None, vtype: ir.VType = FX, mask: ir.Expr | None = None
) -> ir.Load:
    return ir.Load(buffer, index or n, vtype, mask)


def serial(
    *body: ir.Stmt, carry: tuple[str, ...] = (), stop: ir.Expr = n, kind: str = "serial", step: int = 1
) -> ir.For:
    return ir.For("j", ir.const(0), stop, step, body, carry, kind)


J = ir.Var("j")
ASSIGN = ir.Assign(acc(ir.const(0)), ir.Const(1.0, FX))
BROKEN = {
    "x is used before it is defined": [let("y", ir.Var("x"))],
    "j is used before it is defined": [serial(), let("y", J)],
    "t is used before it is defined": [serial(let("t", n)), let("y", ir.Var("t"))],
    "y is defined twice": [let("y", n), let("y", n)],
    "s0 is defined twice": [let("s0", n)],
    "j is defined twice": [serial(serial())],
    "y is i64, not f32": [let("y", n, F)],
    "add(i64, i64x16) does not give i64": [let("y", add(n, op("lanes", IX)))],
    "add(bool, bool) does not give bool": [let("y", add(ir.Const(True, ir.BOOL), ir.Const(True, ir.BOOL)))],
    "sqrt(i64) does not give i64": [let("y", op("sqrt", ir.I64, n))],
    "shl(f32, f32) does not give f32": [let("y", op("shl", F, ir.Const(1.0, F), ir.Const(1.0, F)))],
    "lt(i64, i64) does not give i64": [let("y", op("lt", ir.I64, n, n))],
    "select(boolx16, f32, f32) does not give f32": [
        let("y", op("select", F, ir.Const(True, MX), ir.Const(0.0, F), ir.Const(0.0, F)))
    ],
    "bitcast(i64) does not give f32": [let("y", op("bitcast", F, n))],
    "splat(i64) does not give f32x16": [let("y", op("splat", FX, n))],
    "reduce_add(f32x12) does not give f32": [let("y", op("reduce_add", F, ir.Const(0.0, ir.VType(float32, 12))))],
    "f32x16 has no such lane": [let("y", op("extract", F, ir.Const(0.0, FX), ir.const(16)))],
    "add takes 2 operands, not 1": [let("y", op("add", ir.I64, n))],
    "there is no op frobnicate": [let("y", op("frobnicate", ir.I64, n))],
    "there is no buffer b9": [let("y", load("b9"))],
    "b0 holds f32, not i64": [let("y", load(vtype=ir.I64))],
    "an index of 16 elements is f32": [let("y", load(index=ir.Const(1.0, F)))],
    "an index of 16 elements is i64x8": [let("y", load(index=op("lanes", ir.VType(int64, 8))))],
    "a mask is bool, not boolx16": [let("y", load(mask=ir.Const(True, ir.BOOL)))],
    "b0 is not writable": [ir.Store("b0", n, ir.Const(1.0, F))],
    "b1 holds f32, not i64": [ir.Store("b1", n, n)],
    "the registers acc are used before they are declared": [let("y", acc(ir.const(0)))],
    "acc has 2 registers, not one at 2": [DECLARE, let("y", acc(ir.const(2)))],
    "acc has 2 registers, not one at -1": [DECLARE, let("y", acc(ir.const(-1)))],
    "acc has 1 axes": [DECLARE, let("y", ir.Reg("acc", (), FX))],
    "an index of the registers acc is not constant": [DECLARE, serial(let("y", acc(J)))],
    "acc has 2 registers, not one at 3": [
        DECLARE,
        serial(let("y", acc(add(J, ir.const(1)))), stop=ir.const(3), kind="unroll"),
    ],
    "acc changes, but is in no carry of this block": [DECLARE, serial(ASSIGN)],
    "acc is carried here, but by no loop or branch around": [
        DECLARE,
        serial(ir.If(ir.Const(True, ir.BOOL), (ASSIGN,), (), ("acc",))),
    ],
    "acc is carried but not declared": [serial(carry=("acc",))],
    "the value of acc is f32, not f32x16": [DECLARE, ir.Assign(acc(ir.const(0)), ir.Const(1.0, F))],
    "the bounds of the unrolled j are not constant": [serial(kind="unroll")],
    "step 0 is not positive": [serial(step=0)],
    "a bound of j is f32, not i64": [serial(stop=ir.Const(1.0, F))],
    "there is no loop of kind parallel": [serial(kind="parallel")],
    "a condition is i64, not bool": [ir.If(n, ())],
    "scratch of 0 elements": [ir.Scratch("t", float32, 0)],
    "there is no routine thrice before this place": [ir.Call("thrice", (), ())],
    "twice takes 2 buffers": [ir.Call("twice", (("b0", n),), (n,))],
    "twice takes 1 sizes": [ir.Call("twice", (("b0", n), ("b1", n)), ())],
    "t holds i64, not f32": [ir.Scratch("t", int64, 8), ir.Call("twice", (("b0", n), ("t", n)), (n,))],
    "the start of c is f32, not i64": [ir.Call("twice", (("b0", n), ("b1", ir.Const(1.0, F))), (n,))],
    "a size of twice is f32, not i64": [ir.Call("twice", (("b0", n), ("b1", n)), (ir.Const(1.0, F),))],
    "does not fit into the error word": [ir.Fail(ir.Const(True, ir.BOOL), 1 << 24, n)],
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_kernel_is_named_with_its_statement(message: str) -> None:
    statements = BROKEN[message]
    with pytest.raises(InternalError) as raised:
        check_kernel(with_body(*statements))
    text = str(raised.value)
    assert message in text
    assert "kernel rows_sum: " in text and "report it" in text
    assert len(text.splitlines()) >= 3


def test_two_parameters_of_one_name() -> None:
    two = (ir.BufferParam("b0", float32, 1), ir.BufferParam("b0", float32, 1))
    with pytest.raises(InternalError, match="two parameters called b0"):
        check_kernel(dataclasses.replace(KERNEL, buffers=two))


def test_the_same_name_in_two_loops_is_fine() -> None:
    check_kernel(with_body(DECLARE, serial(let("y", J)), serial(let("y", J), ASSIGN, carry=("acc",))))


@pytest.mark.parametrize("dtype", [bool_, int32, int64, float32], ids=str)
def test_constants_of_every_kind_print(dtype: DType) -> None:
    shown = {"bool": "True", "i32": "1i32", "i64": "1", "f32": "1.0"}
    assert print_expression(ir.Const(1, ir.VType(dtype))) == shown[dtype.short]


def test_what_a_routine_must_not_do() -> None:
    calls_itself = dataclasses.replace(ROUTINE, body=(ir.Call("twice", (("a", AT), ("c", AT)), (AT,)),))
    for wrong, message in (
        ((ROUTINE, ROUTINE), "two routines called twice"),
        ((dataclasses.replace(ROUTINE, sizes=("at", "a")),), "routine twice of kernel rows_sum has two parameters"),
        ((dataclasses.replace(ROUTINE, body=(ir.Scratch("t", float32, 8),)),), "a routine has no scratch of its own"),
        ((dataclasses.replace(ROUTINE, body=(let("y", n),)),), "s0 is used before it is defined"),
        ((calls_itself,), "there is no routine twice before this place"),
    ):
        with pytest.raises(InternalError, match=message):
            check_kernel(dataclasses.replace(KERNEL, routines=wrong))


def test_a_routine_writes_only_what_it_may() -> None:
    with pytest.raises(InternalError, match="b0 is not writable"):
        check_kernel(with_body(ir.Call("twice", (("b1", n), ("b0", n)), (n,))))
