"""The plan of one tuple of sizes: tables that are kept, temporaries in the arena, constants, scratch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphc.errors import InternalError
from graphc.llvm.scratch import scratch_bytes
from graphc.loops import ir
from graphc.loops.program import Buffer, Task
from graphc.runtime import executable
from graphc.runtime.buffers import ALIGN, address_of
from graphc.runtime.executable import Executable
from graphc.types import TensorType, float32, float64
from tests.small_programs import N, add_one, build, kernel, plus, program, state


def test_plans_are_kept_and_bounded() -> None:
    f = add_one()
    for size in [*range(executable.PLANS + 20), 5, 0]:
        assert f(np.zeros(size, np.float32))[0].shape == (size,)
    assert len(f._plans) == executable.PLANS
    assert (0,) in f._plans


def test_temporaries_move_with_the_arena() -> None:
    kind = TensorType(float32, (N,))
    names = [f"t{i}" for i in range(6)]
    buffers = [Buffer("x", kind, "input"), Buffer("y", kind, "output")]
    buffers += [Buffer(t, kind, "temp", i, i + 1) for i, t in enumerate(names)]
    chain = ["x", *names, "y"]
    tasks = [Task("add", pair, (N,), 1) for pair in itertools.pairwise(chain)]
    f = build(program(buffers, [kernel("add", 1, plus(1))], tasks))
    for size in (3, 3, 100, 3, 100_000, 3, 0, 100, 3_000_000):
        x = np.arange(size, dtype=np.float32)
        assert np.array_equal(f(x)[0], x + 7)
        start, places = address_of(f._arena), f._plans[(size,)].tables.bind[2:]
        assert all(start <= place <= start + f._arena.nbytes for place in places)
    tables = f._plans[(100_000,)].tables
    assert tables.arena_bytes == 2 * 100_000 * 4  # only two of the six are alive at a time


def test_temporaries_that_are_results_or_updates_live_to_the_end() -> None:
    kind = TensorType(float32, (16,))
    buffers = [Buffer("x", kind, "input"), Buffer("w", kind, "parameter"), Buffer("y", kind, "output")]
    buffers += [Buffer("new", kind, "temp", 0, 0), Buffer("shown", kind, "temp", 1, 1), Buffer("t", kind, "temp", 2, 3)]
    tasks = [Task("add", pair, (16,), 1) for pair in (("x", "new"), ("new", "shown"), ("shown", "t"), ("t", "y"))]
    made = program(
        buffers, [kernel("add", 1, plus(1))], tasks, dims=(), outputs=("shown", "y"), updates=(("w", "new"),)
    )
    f, x = build(made, {"w": (w := state("w", np.zeros(16)))}), np.arange(16, dtype=np.float32)
    shown, y = f(x)
    assert np.array_equal(w.array, x + 1) and np.array_equal(shown, x + 2) and np.array_equal(y, x + 4)


def test_constants_scratch_and_alignment() -> None:
    kind = TensorType(float64, (5,))
    array = np.linspace(0, 1, 5)
    buffers = [Buffer("c", kind, "constant"), Buffer("y", kind, "output")]
    f64 = ir.VType(float64)
    i = ir.Var("i")
    body = (ir.Scratch("work", float64, 40_000),
            ir.For("i", ir.const(0), ir.const(5), 1, (ir.Store("work", i, ir.Load("b0", i, f64)),)),
            ir.For("i", ir.const(0), ir.const(5), 1, (ir.Store("b1", i, ir.Load("work", i, f64)),)))  # fmt: skip
    params = (ir.BufferParam("b0", float64, 5), ir.BufferParam("b1", float64, 5, True))
    copy = ir.LoopKernel("copy", params, (), body)
    assert scratch_bytes(copy) >= 320_000
    made = program(buffers, [copy], [Task("copy", ("c", "y"), (), 1)], dims=(), constants={"c": array})
    for threads in (1, 3):
        f = build(made, threads=threads)
        assert np.array_equal(f()[0], array)
        assert address_of(f._scratch) % ALIGN == 0 and f._scratch.nbytes >= 320_000


def test_programs_that_do_not_fit_together_are_our_bugs() -> None:
    with pytest.raises(InternalError, match="no argument has the dimension n"):
        build(program([], [], []))
    kind = TensorType(float32, (4,))
    with pytest.raises(InternalError, match="parameter w is float64"):
        build(program([Buffer("w", kind, "parameter")], [], [], dims=()), {"w": state("w", [1, 2, 3, 4], np.float64)})
    lost = program([Buffer("y", kind, "output")], [], [Task("k", ("y",), (), 1)], dims=())
    with pytest.raises(InternalError, match="kernel k has no code"):
        Executable(lost, {}, {})()
