"""The k loop as machine code, for every target: whole registers, no spill, and no address that is computed again."""

from __future__ import annotations

import re

import pytest

from graphc.llvm.emit import emit
from graphc.loops.ir import BufferParam
from graphc.loops.problem import Operand
from graphc.runtime.jit import compile_assembly
from graphc.target import AVX2, AVX512, NAMED, NEON, SSE2, Target
from graphc.types import Dim, Size, float32
from tests.products import generate, store_epilogue

WIDEST = {AVX512.name: "%zmm", AVX2.name: "%ymm", SSE2.name: "%xmm", NEON.name: ".4s"}
PRODUCT = re.compile(r"\s(vfmadd\w+ps|fmla|mulps)\s")
BRANCH = re.compile(r"\s(?:j[a-z]+|b\.[a-z]+|b|cbnz\s+\w+,)\s+(\.L\w+)")
VECTOR = re.compile(r"mm\d|\b[qvds]\d")


def k_loops(assembly: str) -> list[list[str]]:
    """The innermost loops that multiply and add a tile."""
    lines, labels, found = assembly.splitlines(), dict[str, int](), []
    for number, line in enumerate(lines):
        if label := re.match(r"(\.L\w+):", line):
            labels[label.group(1)] = number
        branch = BRANCH.search(line)
        if branch and branch.group(1) in labels:
            body = lines[labels[branch.group(1)] + 1 : number + 1]
            inner = not any(re.match(r"\.L\w+:", x) for x in body)
            if inner and sum(bool(PRODUCT.search(x)) for x in body) >= 6:
                found.append(body)
    return found


@pytest.mark.parametrize("target", NAMED.values(), ids=lambda t: t.name)
@pytest.mark.parametrize(("ta", "tb"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("m", [128, Dim.symbol("s0")], ids=str)
@pytest.mark.parametrize(("n", "k"), [(128, 512), (80, 511)])
def test_the_k_loop_multiplies_and_nothing_else(target: Target, ta: bool, tb: bool, m: Size, n: int, k: int) -> None:
    kernel = generate(
        "tile", dtype=float32, batch=(), m=m, n=n, k=k, a=Operand("b0", 0, (), *((1, m) if ta else (k, 1))),
        b=Operand("b1", 0, (), *((1, k) if tb else (n, 1))), epilogue=store_epilogue("b2", (), n, 1), sizes=["s0"],
        buffers=[BufferParam(f"b{i}", float32, 1, i == 2) for i in range(3)], target=target,
    )  # fmt: skip
    loops = k_loops(compile_assembly(emit(kernel, target), target))
    assert loops
    for body in loops:
        products = [line for line in body if PRODUCT.search(line)]
        assert all(WIDEST[target.name] in line for line in products)
        on_stack = [line for line in body if VECTOR.search(line) and re.search(r"\(%rsp\)|\[sp[,\]]", line)]
        assert not on_stack, f"spills: {on_stack}"
        others = [line for line in body if not VECTOR.search(line) and not line.strip().startswith((".", "#", "/"))]
        most = 7 if isinstance(m, int) else 10  # each row of an m that is not known has an address
        assert len(others) <= most, f"more than a step, a test and addresses: {others}"
        assert not [line for line in others if "sp" in line], f"addresses that found no register: {others}"
