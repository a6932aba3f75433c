"""One element of memory in every lane: of each dtype, for one lane and several, and under a mask."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.conversion import cast_array
from graphc.llvm.emit import emit
from graphc.loops import ir
from graphc.loops.check import check_kernel
from graphc.runtime.host import host_target
from graphc.runtime.single import run_kernel
from graphc.types import DTYPES, DType, bool_, float32


def broadcast(dtype: DType, lanes: int, mask: ir.Expr | None = None) -> ir.LoopKernel:
    element = ir.Load("b0", ir.Var("n"), ir.VType(dtype), mask)
    body = (ir.Store("b1", ir.const(0), ir.Op("splat", (element,), ir.VType(dtype, lanes))),)
    buffers = (ir.BufferParam("b0", dtype, 3), ir.BufferParam("b1", dtype, lanes, True))
    kernel = ir.LoopKernel("k", buffers, ("n",), body)
    check_kernel(kernel)
    return kernel


@pytest.mark.parametrize("lanes", [1, 4, 16])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_lane_has_the_element(dtype: DType, lanes: int) -> None:
    values = cast_array(np.asarray([0.0, 5.0, 1.0]), dtype)
    for at in range(3):
        out = cast_array(np.full(lanes, 7.0), dtype)
        run_kernel(broadcast(dtype, lanes), [values, out], [at])
        assert out.tobytes() == values[at : at + 1].tobytes() * lanes


def test_a_masked_element_is_not_read() -> None:
    out = np.full(4, 7, np.float32)
    mask = ir.Op("lt", (ir.Var("n"), ir.const(3)), ir.BOOL)
    run_kernel(broadcast(float32, 4, mask), [np.ones(3, np.float32), out], [2**40])
    assert out.tolist() == [0] * 4


def test_no_scalar_is_put_into_a_vector() -> None:
    host = host_target()
    assert "insertelement" not in emit(broadcast(float32, 4), host)
    assert "<4 x i1>" in emit(broadcast(bool_, 4), host)
