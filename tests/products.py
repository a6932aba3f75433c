"""A product alone as a kernel, from its sizes and strides: for the tests of contractions. Enter at `generate`."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.loops.builder import Builder, Scalar
from graphc.loops.contraction import contract
from graphc.loops.epilogue import Epilogue
from graphc.loops.ir import BufferParam, LoopKernel
from graphc.loops.problem import Operand, Problem, dot
from graphc.target import Target
from graphc.types import DType, Size


def generate(
    name: str,
    *,
    dtype: DType,
    batch: tuple[Size, ...],
    m: Size,
    n: Size,
    k: Size,
    a: Operand,
    b: Operand,
    epilogue: Epilogue,
    buffers: Sequence[BufferParam],
    sizes: Sequence[str],
    target: Target,
) -> LoopKernel:
    """The kernel for C = A @ B with `epilogue` behind it. `sizes` are the names in m, n, k, batch and strides."""
    problem = Problem(dtype, batch, m, n, k, a, b)
    builder = Builder(target.lanes(dtype.itemsize))
    schedule = contract(builder, problem, epilogue, target)
    return LoopKernel(name, tuple(buffers), tuple(sizes), tuple(builder.levels[0].statements), schedule.chunks)


def store_epilogue(buffer: str, batch: tuple[Size, ...], row: Size, col: Size, offset: Size = 0) -> Epilogue:
    """An epilogue that stores C[batch, i, j] at buffer[offset + batch . strides + i * row + j * col]."""

    def store(builder: Builder, value: Scalar, i: Size, j: Size, where: tuple[Size, ...], mask: Scalar | None) -> None:
        builder.store(buffer, offset + dot(where, batch) + i * row + j * col, value, mask)

    return store
