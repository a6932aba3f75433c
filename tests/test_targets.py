"""The same schedules for AVX-512, AVX2, SSE2 and NEON: what the innermost loops of representative kernels are made of.

Each kernel is compiled for each target and its assembly read: some loop uses the widest registers, no innermost loop
spills a vector, none computes one float at a time, nothing is called. What is known to be otherwise is counted below.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

import graphc
from graphc.build import Tensor, placeholder
from graphc.graph import Graph
from graphc.llvm.emit import emit
from graphc.loops.lower import lower
from graphc.nn import functional as F
from graphc.passes.pipeline import optimize
from graphc.runtime.jit import compile_assembly
from graphc.target import NAMED
from tests.assembly import Loop, innermost_loops

Case = tuple[list[Tensor], list[Tensor]]


def product(form: str, m: Any = "m", dtype: str = "float32") -> Case:
    a = placeholder("a", (70, m) if form[0] == "T" else (m, 70), dtype)
    b = placeholder("b", (90, 70) if form[1] == "T" else (70, 90), dtype)
    return [a, b], [(a.T if form[0] == "T" else a) @ (b.T if form[1] == "T" else b)]


def convolution(channels: int, groups: int = 1) -> Case:
    x, w = placeholder("x", (8, 14, 14, channels)), placeholder("w", (3, 3, channels // groups, 64))
    y = F.conv2d(x, w, padding=1, groups=groups, layout="NHWC")
    g = placeholder("g", y.shape)
    return [x, w, g], [y, *graphc.grad((y * g).sum(), [x, w])]


def sum_of_lines() -> Case:
    x, w = placeholder("x", (8, 64, 56, 200)), placeholder("w", (64, 1, 3, 3))
    y = F.conv2d(x, w, padding=1, groups=64)
    g = placeholder("g", y.shape)
    return [x, g], graphc.vjp(y, [w], g)


def of_rows(f: Callable[[Tensor], Tensor], dtype: str = "float32", gradient: bool = True) -> Case:
    x = placeholder("x", ("rows", 700), dtype)
    y = f(x)
    if not gradient:
        return [x], [y]
    g = placeholder("g", y.shape, dtype)
    return [x, g], [y, *graphc.grad((y * g).sum(), [x])]


def norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, (700,))


def normed(x: Tensor) -> Tensor:
    return (x - x.mean(0)) * graphc.rsqrt(graphc.var(x, 0) + 1e-5)


def attention(length: int = 512) -> Case:
    """Rows of 512 columns are kept whole, of 8192 swept in blocks of columns."""
    q, k, v = (placeholder(n, (2, length, 64)) for n in "qkv")
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return [q, k, v], [y, *graphc.grad((y * y).sum(), [q, k, v])]


def adam() -> Case:
    p, m, v, g = (placeholder(n, (100_000,)) for n in "pmvg")
    m1, v1 = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    return [p, m, v, g], [p - 1e-3 * m1 / (graphc.sqrt(v1) + 1e-8), m1, v1]


def transposed() -> Case:
    x, y = placeholder("x", (96, 128)), placeholder("y", (128, 96))
    return [x, y], [x.T * 2 + y]


def crossed() -> Case:
    x, y = placeholder("x", (4, 90, 70)), placeholder("y", (4, 70, 64))
    return [x, y], [graphc.einsum("bij,bjk->bki", x, y)]


CASES: dict[str, Callable[[], Case]] = {
    "transpose": transposed,
    "matmul NN": lambda: product("NN", 65),
    "matmul NT": lambda: product("NT", 65),
    "matmul TN": lambda: product("TN", 65),
    "matmul of m rows": lambda: product("NN"),
    "matmul float64": lambda: product("NN", 65, "float64"),
    "matmul stored by columns": crossed,
    "convolution": lambda: convolution(32),
    "depthwise": lambda: convolution(64, 64),
    "depthwise NCHW weights": sum_of_lines,
    "softmax": lambda: of_rows(lambda x: F.softmax(x, -1)),
    "softmax float64": lambda: of_rows(lambda x: F.softmax(x, -1), "float64"),
    "layer norm": lambda: of_rows(norm),
    "batch norm": lambda: of_rows(normed),
    "sum": lambda: of_rows(lambda x: x.sum(), gradient=False),
    "column sum": lambda: of_rows(lambda x: x.sum(0), gradient=False),
    "row sum": lambda: of_rows(lambda x: x.sum(1), gradient=False),
    "sum float64": lambda: of_rows(lambda x: x.sum(), "float64", gradient=False),
    "argmax": lambda: of_rows(lambda x: x.argmax(1), gradient=False),
    "GELU": lambda: of_rows(F.gelu),
    "exp": lambda: of_rows(graphc.exp, gradient=False),
    "log": lambda: of_rows(graphc.log, gradient=False),
    "sin": lambda: of_rows(graphc.sin, gradient=False),
    "erf": lambda: of_rows(graphc.erf, gradient=False),
    "tanh": lambda: of_rows(graphc.tanh, gradient=False),
    "exp float64": lambda: of_rows(graphc.exp, "float64", gradient=False),
    "cumsum": lambda: of_rows(lambda x: graphc.cumsum(x, 0), gradient=False),
    "attention": attention,
    "long attention": lambda: attention(8192),
    "Adam": adam,
}


@cache
def loops_of(case: str, target: str) -> tuple[Loop, ...]:
    """The innermost loops of all kernels of a case."""
    inputs, outputs = CASES[case]()
    graph = optimize(Graph(tuple(x.ref for x in inputs), tuple(y.ref for y in outputs), (), "case"))
    found: list[Loop] = []
    for kernel in lower(graph, NAMED[target]).kernels.values():
        found += innermost_loops(compile_assembly(emit(kernel, NAMED[target]), NAMED[target]))
    return tuple(found)


# Vectors that an innermost loop moves from and to the stack at most. All others have none; no loop of AVX-512 does.
# With 16 registers the constants of long polynomials do not fit, nor do the rows that a column kernel joins in float64.
SPILLS = {
    ("softmax", "avx2"): 1, ("softmax float64", "avx2"): 1,
    ("batch norm", "avx2"): 2, ("argmax", "sse2"): 4,
    ("GELU", "avx2"): 2, ("GELU", "sse2"): 2, ("GELU", "neon"): 12,
    ("log", "avx2"): 2, ("erf", "avx2"): 4, ("erf", "neon"): 2,
    ("sin", "avx2"): 54, ("sin", "sse2"): 31, ("sin", "neon"): 22,
    ("Adam", "avx2"): 2, ("Adam", "sse2"): 6,
}  # fmt: skip
FINISHED = {"sum", "sum float64"}  # the finish of a total adds one partial result for each chunk, in their order


@pytest.mark.parametrize("target", NAMED)
@pytest.mark.parametrize("case", CASES)
def test_innermost_loops(case: str, target: str) -> None:
    loops = loops_of(case, target)
    assert any(loop.wide(target) for loop in loops)
    assert not [loop.calls for loop in loops if loop.calls]
    worst = max(loops, key=lambda loop: len(loop.spills))
    assert len(worst.spills) <= SPILLS.get((case, target), 0), worst.spills
    scalars = [loop.scalars for loop in loops if loop.scalars]
    assert len(scalars) == (case in FINISHED) and all(len(lines) == 1 for lines in scalars), scalars


def test_no_exception_is_out_of_date() -> None:
    for case, target in SPILLS:
        assert any(loop.spills for loop in loops_of(case, target)), (case, target)


PLANTED = """
f:
\tmovq\t(%rdi), %rax
.LBB0_1:
\txorl\t%ecx, %ecx
.LBB0_2:
\tvmovaps\t{load}, %zmm1
\t{work}
\taddq\t$64, %rcx
\tcmpq\t%rdx, %rcx
\tjl\t.LBB0_2
\tvmovups\t%zmm0, 64(%rsp)
\tdecq\t%rax
\tjne\t.LBB0_1
\tvaddss\t%xmm1, %xmm0, %xmm0
\tretq
.LBB0_4:
\tvmovss\t(%rdi), %xmm3
\tjmp\t.LBB0_1
"""


@pytest.mark.parametrize(
    ("load", "work", "found"),
    [
        ("(%rsi,%rcx)", "vaddps\t%zmm1, %zmm0, %zmm0", (0, 0, 0)),
        ("128(%rsp,%rcx)", "vaddps\t%zmm1, %zmm0, %zmm0", (0, 0, 0)),  # scratch
        ("128(%rsp)", "vaddps\t%zmm1, %zmm0, %zmm0", (1, 0, 0)),
        ("(%rsi,%rcx)", "vaddss\t%xmm1, %xmm0, %xmm0", (0, 1, 0)),
        ("(%rsi,%rcx)", "vfmadd231sd\t%xmm1, %xmm0, %xmm0", (0, 1, 0)),
        ("(%rsi,%rcx)", "callq\texpf@PLT", (0, 0, 1)),
    ],
)
def test_what_is_planted_is_found(load: str, work: str, found: tuple[int, int, int]) -> None:
    """In the inner loop; what stands in the outer one, behind both or out of line is nobody's."""
    (loop,) = innermost_loops(PLANTED.format(load=load, work=work))
    assert (len(loop.spills), len(loop.scalars), len(loop.calls)) == found


def test_a_loop_that_calls_a_routine_is_not_the_innermost_one() -> None:
    routine = "k.tile:\n.LBB0_1:\n\tdecq\t%rax\n\tjne\t.LBB0_1\n\tretq\n"
    for called, inside in (("k.tile", [".LBB0_1"]), ("expf@PLT", [".LBB0_1", ".LBB1_1"])):
        text = f"{routine}k:\n.LBB1_1:\n\tcallq\t{called}\n\tdecq\t%rdx\n\tjne\t.LBB1_1\n\tretq\n"
        assert [loop.label for loop in innermost_loops(text)] == inside


def test_loops_of_aarch64_are_found() -> None:
    text = "f:\n.LBB0_1:\n\tldr\tq0, [sp, #16]\n\tfadd\ts1, s1, s0\n\tsubs\tx0, x0, #1\n\tb.ne\t.LBB0_1\n\tret\n"
    (loop,) = innermost_loops(text)
    assert len(loop.spills) == len(loop.scalars) == 1 and loop.wide("neon")
