"""The contraction generator against NumPy: strides, odd and symbolic sizes, dtypes, epilogues, chunks, guard bands."""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.llvm.emit import emit
from graphc.llvm.scratch import scratch_bytes
from graphc.loops.builder import Builder, Scalar
from graphc.loops.epilogue import Epilogue
from graphc.loops.ir import BufferParam, LoopKernel
from graphc.loops.problem import Operand
from graphc.runtime.host import host_target
from graphc.runtime.jit import Library, compile_object
from graphc.target import Target
from graphc.types import Dim, DType, Size, evaluate, float32, float64, int8, int32, int64, uint16
from tests.products import generate, store_epilogue

GUARD = 96  # elements around every array
RNG = np.random.default_rng(7)


@dataclass
class Case:
    """C[batch, m, n] = A @ B. Letters in `symbolic` are size arguments; ta, tb: the operand lies transposed."""

    m: int
    n: int
    k: int
    ta: bool = False
    tb: bool = False
    batch: tuple[int, ...] = ()
    symbolic: str = ""
    dtype: DType = float32
    pad: int = 0  # surplus elements between the rows of both operands
    step: int = 1  # distance between elements of a row of both operands

    def sizes(self) -> dict[str, Size]:
        return {x: Dim.symbol(f"s{i}") if x in self.symbolic else getattr(self, x) for i, x in enumerate("mnk")}

    def values(self) -> dict[str, int]:
        return {"s0": self.m, "s1": self.n, "s2": self.k}

    def operand(self, name: str, rows: Size, cols: Size, transposed: bool) -> Operand:
        major, minor = (cols, rows) if transposed else (rows, cols)
        inner, outer = self.step, minor * self.step + self.pad
        row, col = (inner, outer) if transposed else (outer, inner)
        return Operand(name, GUARD, batch_strides(self.batch, major * outer), row, col)

    def kernel(self, epilogue: Epilogue | None = None, target: Target | None = None, extra: int = 0) -> LoopKernel:
        size = self.sizes()
        m, n, k = size["m"], size["n"], size["k"]
        epilogue = epilogue or store_epilogue(f"b{2 + extra}", batch_strides(self.batch, m * n), n, 1, GUARD)
        params = [BufferParam(f"b{i}", self.dtype, 1, writable=i == 2 + extra) for i in range(3 + extra)]
        return generate(
            "contraction", dtype=self.dtype, batch=self.batch, m=m, n=n, k=k,
            a=self.operand("b0", m, k, self.ta), b=self.operand("b1", k, n, self.tb),
            epilogue=epilogue, buffers=params, sizes=["s0", "s1", "s2"], target=target or host_target(),
        )  # fmt: skip

    def arrays(self) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """(memory with guards, the matrix in it) of A and B; guards and padding are NaN (or 77)."""
        result = []
        for rows, cols, transposed in ((self.m, self.k, self.ta), (self.k, self.n, self.tb)):
            at = self.operand("", rows, cols, transposed)
            shape = (*self.batch, rows, cols)
            count = math.prod(self.batch) * (rows * cols * self.step + max(rows, cols) * self.pad)
            memory = filled(self.dtype, count + 2 * GUARD)
            item = self.dtype.itemsize
            strides = tuple(int(evaluate(s, {})) * item for s in (*at.batch, at.row, at.col))
            matrix = np.lib.stride_tricks.as_strided(memory[GUARD:], shape, strides)
            matrix[...] = RNG.integers(-8, 8, shape) if not self.dtype.is_float else RNG.standard_normal(shape)
            result.append((memory, matrix))
        return result


def batch_strides(batch: tuple[int, ...], matrix: Size) -> tuple[Size, ...]:
    return tuple(matrix * math.prod(batch[i + 1 :]) for i in range(len(batch)))


def filled(dtype: DType, count: int) -> np.ndarray[Any, Any]:
    return np.full(count, np.nan if dtype.is_float else 77, dtype.numpy)


class Native:
    """A kernel in this process."""

    def __init__(self, kernel: LoopKernel) -> None:
        self.kernel = kernel
        self.library = Library()
        target = host_target()
        address = self.library.load([compile_object(emit(kernel, target), target, True)], [kernel.name])[kernel.name]
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 3)
        self.function = prototype(address)

    def chunks(self, values: dict[str, int]) -> int:
        return evaluate(self.kernel.chunks, values)

    def run(
        self,
        buffers: Sequence[np.ndarray[Any, Any]],
        values: dict[str, int],
        ranges: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        sizes = np.array([values[name] for name in self.kernel.sizes], np.int64)
        table = np.array([b.ctypes.data for b in buffers], np.int64)
        bytes_ = scratch_bytes(self.kernel)
        scratch = np.zeros(bytes_ + 64, np.uint8)
        context = np.array([-1, 0, -(-scratch.ctypes.data // 64) * 64, bytes_, *[0] * 12], np.int64)
        for begin, end in ranges if ranges is not None else [(0, self.chunks(values))]:
            assert self.function(context.ctypes.data, sizes.ctypes.data, table.ctypes.data, begin, end, 0) == 0


def run(case: Case, native: Native | None = None) -> np.ndarray[Any, Any]:
    """Run `case`, compare with NumPy, look at the guards, and give C."""
    native = native or Native(case.kernel())
    (a_memory, a), (b_memory, b) = case.arrays()
    shape = (*case.batch, case.m, case.n)
    count = math.prod(shape)
    out = filled(case.dtype, count + 2 * GUARD)
    before = a_memory.copy(), b_memory.copy()
    native.run([a_memory, b_memory, out], case.values())
    result = out[GUARD : GUARD + count].reshape(shape)
    guards = np.concatenate([out[:GUARD], out[GUARD + count :]])
    assert np.array_equal(guards, filled(case.dtype, 2 * GUARD), equal_nan=case.dtype.is_float), f"guards: {case}"
    for old, now in zip(before, (a_memory, b_memory), strict=True):
        assert np.array_equal(old, now, equal_nan=case.dtype.is_float), f"an operand was written: {case}"
    if case.dtype.is_float:
        # each product and sum rounds once: |error| <= (k + 1) * eps * sum |a||b|
        exact = np.matmul(a.astype(np.float64), b.astype(np.float64))
        bound = np.matmul(np.abs(a).astype(np.float64), np.abs(b).astype(np.float64))
        limit = (case.k + 2) * np.finfo(case.dtype.numpy).eps * bound
        assert np.all(np.abs(result - exact) <= limit), case
    else:
        assert np.array_equal(result, np.matmul(a, b)), case
    return result


TRANSPOSES = list(itertools.product((False, True), repeat=2))


@pytest.mark.parametrize(("ta", "tb"), TRANSPOSES)
@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 1, 1), (13, 32, 16), (14, 33, 17), (12, 31, 15), (27, 47, 33), (64, 96, 64), (131, 10, 7)]
)
def test_known_sizes(m: int, n: int, k: int, ta: bool, tb: bool) -> None:
    run(Case(m, n, k, ta, tb))


@pytest.mark.parametrize(("m", "n", "k"), [(0, 5, 3), (5, 0, 3), (5, 17, 0), (0, 0, 0)])
@pytest.mark.parametrize("symbolic", ["", "mnk"])
@pytest.mark.parametrize("tb", [False, True])
def test_empty_sizes(m: int, n: int, k: int, symbolic: str, tb: bool) -> None:
    result = run(Case(m, n, k, tb=tb, symbolic=symbolic))
    assert not result.any()


@pytest.mark.parametrize(("ta", "tb"), TRANSPOSES)
@pytest.mark.parametrize("symbolic", ["m", "n", "k", "mnk"])
def test_symbolic_sizes(symbolic: str, ta: bool, tb: bool) -> None:
    """One kernel serves all values of a size."""
    known = {"m": 29, "n": 40, "k": 33}
    native = Native(Case(**known, ta=ta, tb=tb, symbolic=symbolic).kernel())
    for value in (1, 3, 4, 11, 12, 13, 26, 37, 211):
        run(Case(**{**known, **dict.fromkeys(symbolic, value)}, ta=ta, tb=tb, symbolic=symbolic), native)


@pytest.mark.parametrize("symbolic", ["", "k", "mnk"])
@pytest.mark.parametrize("tb", [False, True])
def test_blocks_of_k(symbolic: str, tb: bool) -> None:
    """Longer than a block: sums are handed over."""
    case = Case(21, 35, 4500, tb=tb, symbolic=symbolic)
    kernel = case.kernel()
    assert "partial" in str(kernel.body)
    run(case, Native(kernel))


@pytest.mark.parametrize(
    "case",
    [
        Case(29, 100, 520, ta=True, pad=1000),  # copied
        Case(29, 10, 40, symbolic="k"),  # gathered
        Case(29, 70, 300, ta=True, pad=1000, symbolic="nk"),
        Case(131, 100, 523, ta=True, pad=1000),  # several groups of tiles, steps that are no multiple of 8
        Case(131, 70, 301, ta=True, pad=1000, symbolic="k"),
        Case(70, 65, 300, ta=True, pad=1000, dtype=float64),
    ],
)
def test_packed_rows(case: Case) -> None:
    kernel = case.kernel()
    assert "packed_a" in str(kernel.body)
    run(case, Native(kernel))


@pytest.mark.parametrize(("m", "n", "k"), [(128, 10, 33), (131, 1, 20), (16, 3, 900)])
@pytest.mark.parametrize("tb", [False, True])
def test_few_columns_turn_the_problem(m: int, n: int, k: int, tb: bool) -> None:
    """C.T is computed, with scattered stores; the epilogue still sees rows and columns of C."""
    case = Case(m, n, k, ta=True, tb=tb)
    run(case)
    bias = RNG.standard_normal(n).astype(np.float32)
    (a_memory, a), (b_memory, b) = case.arrays()
    out = np.full((m, n), np.nan, np.float32)

    def add_bias(h: Builder, value: Scalar, row: Size, col: Size, _: tuple[Size, ...], mask: Scalar | None) -> None:
        h.store("b3", row * n + col, h.add(value, h.load("b2", float32, col, mask)), mask)

    Native(case.kernel(add_bias, extra=1)).run([a_memory, b_memory, bias, out], case.values())
    np.testing.assert_allclose(out, a @ b + bias, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("ta", "tb"), TRANSPOSES)
def test_targets_without_masks(ta: bool, tb: bool) -> None:
    """The same machine told to do without masked memory: two copies of the tile, and operands transposed by zips."""
    plain = replace(host_target(), masked_memory=False)
    for case in (
        Case(29, 75, 43, ta, tb),
        Case(17, 40, 300, ta, tb, symbolic="mnk"),
        Case(20, 33, 19, ta, tb, dtype=float64),
    ):
        run(case, Native(case.kernel(target=plain)))


@pytest.mark.parametrize(("m", "n"), [(1, 1030), (5, 1024)])
def test_few_rows_times_a_large_matrix(m: int, n: int) -> None:
    """B is read in blocks of a few rows; here the second cache is said to be small."""
    case = Case(m, n, 70)
    run(case, Native(case.kernel(target=replace(host_target(), l2_bytes=1 << 16))))


@pytest.mark.parametrize("dtype", [float64, int8, uint16, int32, int64])
@pytest.mark.parametrize(("ta", "tb"), TRANSPOSES)
def test_dtypes(dtype: DType, ta: bool, tb: bool) -> None:
    run(Case(15, 37, 20, ta, tb, dtype=dtype))


def test_symbolic_float64() -> None:
    run(Case(43, 27, 1100, True, True, dtype=float64, symbolic="mnk"))


@pytest.mark.parametrize("batch", [(3,), (2, 3), (40,), (0,)])
def test_batches(batch: tuple[int, ...]) -> None:
    run(Case(9, 20, 12, tb=True, batch=batch))


@pytest.mark.parametrize(("ta", "tb"), TRANSPOSES)
def test_padded_and_strided_operands(ta: bool, tb: bool) -> None:
    run(Case(17, 35, 21, ta, tb, pad=5))
    run(Case(17, 35, 21, ta, tb, pad=3, step=2, batch=(2,)))


def test_batch_stride_zero_shares_an_operand() -> None:
    """A broadcast operand is a batch stride of 0."""
    a, b = RNG.standard_normal((4, 6, 8), np.float32), RNG.standard_normal((8, 20), np.float32)
    out = np.full((4, 6, 20), np.nan, np.float32)
    kernel = generate(
        "shared", dtype=float32, batch=(4,), m=6, n=20, k=8, a=Operand("b0", 0, (48,), 8, 1),
        b=Operand("b1", 0, (0,), 20, 1), epilogue=store_epilogue("b2", (120,), 20, 1),
        buffers=[BufferParam(f"b{i}", float32, 1, i == 2) for i in range(3)], sizes=[], target=host_target(),
    )  # fmt: skip
    Native(kernel).run([a, b, out], {})
    np.testing.assert_allclose(out, a @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("symbolic", ["", "m", "k"])
def test_epilogue_with_bias_and_relu(symbolic: str) -> None:
    case = Case(45, 50, 70, symbolic=symbolic)

    def bias_relu(
        h: Builder, value: Scalar, row: Size, col: Size, batch: tuple[Size, ...], mask: Scalar | None
    ) -> None:
        assert batch == ()
        biased = h.add(value, h.load("b2", float32, col, mask))
        result = h.maximum(biased, h.widened(h.constant(0.0, float32), h.lane_count))
        h.store("b3", row * 50 + col, result, mask)

    native = Native(case.kernel(bias_relu, extra=1))
    (a_memory, a), (b_memory, b) = case.arrays()
    bias = RNG.standard_normal(50).astype(np.float32)
    out = np.full((46, 50), np.nan, np.float32)
    native.run([a_memory, b_memory, bias, out], case.values())
    np.testing.assert_allclose(out[:45], np.maximum(a @ b + bias, 0), rtol=1e-4, atol=1e-4)
    assert np.isnan(out[45]).all()


@pytest.mark.parametrize("symbolic", ["", "m", "mnk"])
@pytest.mark.parametrize(("n", "ta"), [(21, False), (21, True), (7, True)])
def test_long_epilogues_are_emitted_once_a_vector(symbolic: str, n: int, ta: bool) -> None:
    """Through scratch, row by row: the code stays short; rows that do not exist stay untouched."""
    case = Case(31, n, 40, ta=ta, symbolic=symbolic)
    calls = []

    def polynomial(h: Builder, value: Scalar, row: Size, col: Size, _: tuple[Size, ...], mask: Scalar | None) -> None:
        calls.append(row)
        total = value
        for _i in range(20):
            total = h.add(h.mul(total, value), h.load("b2", float32, row * n + col, mask))
        h.store("b3", row * n + col, total, mask)

    native = Native(case.kernel(polynomial, extra=1))
    (a_memory, a), (b_memory, b) = case.arrays()
    a[...], b[...] = a / 100, b / 10
    other = RNG.standard_normal((31, n)).astype(np.float32)
    out = np.full((33, n), np.nan, np.float32)
    native.run([a_memory, b_memory, other, out], case.values())
    product = a @ b
    expected = product
    for _ in range(20):
        expected = expected * product + other
    np.testing.assert_allclose(out[:31], expected, rtol=1e-4, atol=1e-4)
    assert np.isnan(out[31:]).all()
    assert len(calls) <= 1 + 3 * 4  # the probe, then heights * vectors


def test_epilogue_in_place_sees_every_element_once() -> None:
    """w -= gradient: no tile may overlap another, whatever m is."""
    for m in (1, 3, 12, 13, 25, 40):
        case = Case(m, 21, 33, ta=True, symbolic="m")

        def update(
            h: Builder, value: Scalar, row: Size, col: Size, batch: tuple[Size, ...], mask: Scalar | None
        ) -> None:
            place = row * 21 + col
            h.store("b2", place, h.sub(h.load("b2", float32, place, mask), value), mask)

        (a_memory, a), (b_memory, b) = case.arrays()
        weights = RNG.standard_normal((m, 21)).astype(np.float32)
        expected = weights - a @ b
        Native(case.kernel(update)).run([a_memory, b_memory, weights], case.values())
        np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "case",
    [
        Case(200, 130, 300),
        Case(200, 130, 300, tb=True, symbolic="m"),
        Case(150, 260, 1500, ta=True, symbolic="k"),
        Case(30, 40, 50, batch=(60,)),
    ],
)
def test_chunks_in_any_order_give_the_same_bits(case: Case) -> None:
    native = Native(case.kernel())
    chunks = native.chunks(case.values())
    assert chunks > 1
    (a, _), (b, _) = case.arrays()
    count = math.prod(case.batch) * case.m * case.n + 2 * GUARD
    outs = []
    order = list(RNG.permutation(chunks))
    for ranges in ([(0, chunks)], [(c, c + 1) for c in order], [(chunks // 2, chunks), (0, chunks // 2)]):
        out = np.full(count, np.nan, np.float32)
        native.run([a, b, out], case.values(), ranges)
        outs.append(out.tobytes())
    assert outs[0] == outs[1] == outs[2]


def test_known_and_symbolic_sizes_give_the_same_bits() -> None:
    """Every element is one chain over k, whatever the tile, the packing and the blocks are."""
    case, other = Case(61, 45, 1100), Case(61, 45, 1100, symbolic="mnk")
    (a, _), (b, _) = case.arrays()
    outs = [np.full(61 * 45 + 2 * GUARD, np.nan, np.float32) for _ in range(2)]
    for c, out in zip((case, other), outs, strict=True):
        Native(c.kernel()).run([a, b, out], c.values())
    assert outs[0].tobytes() == outs[1].tobytes()


@settings(max_examples=40, deadline=None)
@given(
    m=st.one_of(st.integers(0, 34), st.sampled_from([47, 48, 49, 61])), n=st.integers(0, 140), k=st.integers(0, 70),
    ta=st.booleans(), tb=st.booleans(), symbolic=st.sampled_from(["", "m", "n", "k"]),
    pad=st.sampled_from([0, 0, 1, 7, 1000]), step=st.sampled_from([1, 1, 1, 3]), batch=st.sampled_from([(), (2,)]),
    dtype=st.sampled_from([float32, float32, float64, int32]),
)  # fmt: skip
def test_any_small_problem(**arguments: Any) -> None:
    run(Case(**arguments))
