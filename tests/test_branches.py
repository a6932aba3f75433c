"""Two arms of one If: registers that either changes are merged once, and what an arm moves out stands before both."""

from __future__ import annotations

import pytest

from graphc.loops.blocks import branch, otherwise
from graphc.loops.builder import Builder
from graphc.loops.check import check_kernel
from graphc.loops.ir import If, Let, LoopKernel
from graphc.types import Dim, float32


def test_two_arms_carry_what_either_changes() -> None:
    b = Builder(4)
    first, second, both = (b.register(b.constant(0.0, float32)) for _ in range(3))
    condition = b.lt(b.index(Dim.symbol("n")), b.index(7))
    with branch(b, condition):
        b.assign(first, b.constant(1.0, float32))
        b.assign(both, b.constant(2.0, float32))
    with otherwise(b):
        inner = b.register(b.constant(0.0, float32))
        b.assign(inner, b.constant(4.0, float32))
        b.assign(both, b.read(inner))
        b.assign(second, b.cast(b.index(Dim.symbol("n") * 5), float32))
    statement = b.levels[0].statements[-1]
    assert isinstance(statement, If)
    assert statement.carry == (first.name, both.name, second.name)
    moved = [s for s in b.levels[0].statements if isinstance(s, Let)]
    assert any("mul" in str(s) for s in moved), "n * 5 is known in front of both arms"
    check_kernel(LoopKernel("k", (), ("n",), tuple(b.levels[0].statements)))


def test_no_second_arm_without_a_first() -> None:
    b = Builder(4)
    b.register(b.constant(0.0, float32))
    with pytest.raises(AssertionError), otherwise(b):
        pass
