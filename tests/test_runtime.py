"""A call: one native call, results that are nobody else's, updates, errors that change nothing."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import timeit
from typing import Any

import numpy as np
import pytest

from graphc import settings
from graphc.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError, SourceLine
from graphc.loops import ir
from graphc.loops.program import Buffer, Check, Task
from graphc.runtime import entry, executable
from graphc.runtime.buffers import ALIGN, RECYCLE, address_of
from graphc.runtime.executable import Executable
from graphc.state import ParameterState
from graphc.types import Dim, TensorType, float32, int64
from tests.small_programs import M, N, add_one, build, kernel, plus, program, state

LINE = SourceLine("train.py", 7, 'x = graphc.placeholder("x", ("n", 3), "float32")')


@pytest.fixture(params=["native entry", "slow path"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with and without the native entry."""
    if request.param == "slow path":
        monkeypatch.setattr(executable, "entry", lambda *_: None)
    elif not entry.offsets_hold():
        pytest.skip("no native entry on this build of Python")
    return str(request.param)


def test_a_call_is_one_native_call(both_ways: str) -> None:
    f = add_one()
    for size in (4, 4, 4, 0, 1, 1000, 4):
        x = np.arange(size, dtype=np.float32)
        (y,) = f(x)
        assert y.dtype == np.float32 and np.array_equal(y, x + 1) and np.array_equal(x, np.arange(size))
    assert f.native_calls == 7


def test_scalars_and_ranks(both_ways: str) -> None:
    f = add_one(shape=())
    for value in (2, 2.0, np.float32(2), np.array(2, np.float32), np.array(2, np.float32)):
        (y,) = f(value)
        assert y.shape == () and y == 3
    g = add_one(shape=(N, 3, M))
    for shape in ((2, 3, 4), (2, 3, 4), (0, 3, 4), (2, 3, 0), (5, 3, 1)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        for _ in range(2):
            assert np.array_equal(g(x)[0], x + np.float32(1))


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3], [1.5, 2.5], (True, False), range(4), np.arange(6, dtype=np.float32)[::2], np.arange(4, dtype=">f4"),
        np.arange(4, dtype=np.int8), np.arange(4, dtype=np.uint16), np.zeros(0, np.float32), [],
        np.arange(6, dtype=np.float32)[::-1], np.broadcast_to(np.float32(3), (5,)),
        np.frombuffer(bytes(range(17)), np.uint8)[1:].view(np.float32), np.ma.array([1.0, 2.0], dtype=np.float32),
    ],
    ids=str,
)  # fmt: skip
def test_arguments_are_converted(value: Any, both_ways: str) -> None:
    f = add_one()
    f(np.zeros(np.asarray(value).shape, np.float32))  # the native entry now expects these sizes and has to refuse
    if isinstance(value, range):
        value = np.array(value, np.int16)
    assert np.array_equal(f(value)[0], np.asarray(value).astype(np.float32) + 1, equal_nan=True)
    assert np.array_equal(f(x=value)[0], np.asarray(value).astype(np.float32) + 1, equal_nan=True)


def test_results_are_new_arrays_and_buffers_return_when_they_die(both_ways: str) -> None:
    f, x = add_one(), np.arange(RECYCLE, dtype=np.float32)
    (first,) = f(x)
    view = first[10:20].reshape(2, 5)
    place = address_of(first)
    assert place % ALIGN == 0
    (second,) = f(x + 1)
    assert not np.shares_memory(first, second)
    del first
    gc.collect()
    kept = [f(x + 2)[0] for _ in range(3)]
    assert all(not np.shares_memory(view, other) for other in kept)
    assert np.array_equal(view.ravel(), x[10:20] + 1) and np.array_equal(second, x + 2)
    del view
    gc.collect()
    assert address_of(f(x)[0]) == place


def test_out_is_written_also_where_it_overlaps(both_ways: str) -> None:
    f, x = add_one(), np.arange(8, dtype=np.float32)
    f(x)
    out = np.empty(8, np.float32)
    assert f(x, out=out)[0] is out and np.array_equal(out, x + 1)
    memory = np.arange(9, dtype=np.float32) ** 2
    f(memory[:8], out=memory[1:])
    assert np.array_equal(memory, [0, *(x**2 + 1)])
    strided = np.zeros(16, np.float32)[::2]
    assert f(x, out=[strided])[0] is strided and np.array_equal(strided, x + 1)
    assert np.array_equal(f(x, out=[None])[0], x + 1)
    locked = np.empty(8, np.float32)
    locked.flags.writeable = False
    for bad, error in (
        (np.empty(8), DTypeError), (np.empty(7, np.float32), ShapeError), ([out, out], ArgumentError),
        (locked, ArgumentError), ([[1.0]], ArgumentError),
    ):  # fmt: skip
        with pytest.raises(error, match="out"):
            f(x, out=bad)
    assert f.native_calls == 5


def test_results_that_share_memory_with_anything_are_computed_aside(both_ways: str) -> None:
    """y = x + w and z = y + w into arrays that are x, w, or each other."""
    kind = TensorType(float32, (4,))
    buffers = [Buffer("x", kind, "input"), Buffer("w", kind, "parameter")]
    buffers += [Buffer("y", kind, "output"), Buffer("z", kind, "output")]
    add = kernel("add", 2, lambda a, b: ir.Op("add", (a, b), ir.VType(float32)))
    tasks = [Task("add", ("x", "w", "y"), (4,), 1), Task("add", ("y", "w", "z"), (4,), 1)]
    f = build(program(buffers, [add], tasks, dims=()), {"w": (w := state("w", [1, 2, 3, 4]))})
    start = w.array.copy()
    for turn in range(2):  # the native entry knows the second turn's types and sizes
        x, spare = np.full(4, 10, np.float32), np.zeros(6, np.float32)
        y, z = f(x, out=[x, None])
        assert y is x and np.array_equal(y, 10 + start) and np.array_equal(z, 10 + 2 * start)
        y, z = f(x, out=[w.array, None])
        assert np.array_equal(z, 10 + 3 * start) and np.array_equal(w.array, 10 + 2 * start)
        w.array[:] = start
        y, z = f(x, out=(spare[:4], spare[2:]))
        assert np.array_equal(z, 10 + 3 * start) and np.array_equal(y, [*(10 + 2 * start)[:2], *z[:2]])
        assert f.native_calls == 3 + 3 * turn


def test_the_native_entry_takes_names_and_out(monkeypatch: pytest.MonkeyPatch) -> None:
    if not entry.offsets_hold():
        pytest.skip("no native entry on this build of Python")
    f, w = in_place()
    x, out = np.ones(4, np.float32), [np.empty(4, np.float32), None]
    f(x)
    before = w.array.copy()
    monkeypatch.setattr(f, "_call_slowly", lambda *_: pytest.fail("the entry refused"))
    assert f(x=x)[0] is not x and f(x, out=out)[0] is out[0] and f(x=x, out=out)[0] is out[0]
    assert np.array_equal(out[0], x) and np.array_equal(w.array, before + 3)
    monkeypatch.undo()
    for args, named in (((x,), {"x": x}), ((x,), {"y": x}), ((), {"y": x}), ((), {})):
        with pytest.raises(ArgumentError):
            f(*args, **named)
    assert np.array_equal(w.array, before + 3)


@pytest.mark.parametrize("size", [0, 3])
def test_updates_swap_and_results_show_old_values(size: int, both_ways: str) -> None:
    kind = TensorType(float32, (size,))
    start, other = np.arange(size) + 1, np.arange(size) + 4
    buffers = [Buffer("a", kind, "parameter"), Buffer("b", kind, "parameter")]
    f = build(
        program(buffers, [], [], dims=(), outputs=("a", "b", "a"), updates=(("a", "b"), ("b", "a"))),
        {"a": (a := state("a", start)), "b": (b := state("b", other))},
    )
    for turn in range(4):
        one, two, again = f()
        assert np.array_equal(one, start if turn % 2 == 0 else other) and np.array_equal(one, again)
        assert np.array_equal(two, a.array) and np.array_equal(one, b.array)
        assert not any(np.shares_memory(r, s.array) for r in (one, two, again) for s in (a, b))
        assert not np.shares_memory(one, again)


def in_place(regions: int = 1) -> tuple[Executable, ParameterState]:
    """w = w + x in place, in `regions` regions; results x and the old w. Of `only_read` nothing is written."""
    kind = TensorType(float32, (4,))
    buffers = [Buffer("only_read", kind, "parameter"), Buffer("w", kind, "parameter"), Buffer("x", kind, "input")]
    add = kernel("add", 2, lambda a, b: ir.Op("add", (a, b), ir.VType(float32)))
    tasks = [Task("add", ("w", "x", "w"), (4,), 1)] * regions
    w = state("w", [1, 2, 3, 4])
    made = program(buffers, [add], tasks, dims=(), outputs=("x", "w"), updates=(("w", "w"),))
    return build(made, {"w": w, "only_read": state("only_read", [0] * 4)}), w


def test_updates_in_place_and_arguments_that_show_the_parameter(both_ways: str) -> None:
    f, w = in_place(regions=2)
    one = np.ones(4, np.float32)
    for turn in range(2):
        shown, before = f(one)
        assert np.array_equal(before, np.arange(1, 5) + 2 * turn)
    assert np.array_equal(w.array, [5, 6, 7, 8]) and np.array_equal(shown, one)
    assert not np.shares_memory(before, w.array) and not np.shares_memory(shown, one)
    old = w.array.copy()
    shown, before = f(w.array)  # a live view: the step reads the old values in both regions
    assert np.array_equal(shown, old) and np.array_equal(before, old) and np.array_equal(w.array, 3 * old)
    shown, before = f(one, out=[w.array, None])  # the result is computed aside and comes after the update
    assert np.shares_memory(shown, w.array) and np.array_equal(before, 3 * old) and np.array_equal(w.array, one)


def checked(order: str) -> tuple[Executable, ParameterState]:
    """w = w + 1, and a check that every index is below 5; `order` says which region comes first."""
    kind = TensorType(float32, (4,))
    i = ir.Var("i")
    index = ir.Load("b0", i, ir.I64)
    wrong = ir.Op(
        "or_", (ir.Op("lt", (index, ir.const(0)), ir.BOOL), ir.Op("ge", (index, ir.const(5)), ir.BOOL)), ir.BOOL
    )
    loop = ir.For("i", ir.const(0), ir.Var("s0"), 1, (ir.Fail(wrong, 1, i),))
    check = ir.LoopKernel("check", (ir.BufferParam("b0", int64, Dim.symbol("s0")),), ("s0",), (loop,))
    buffers = [Buffer("w", kind, "parameter"), Buffer("labels", TensorType(int64, (N, 2)), "input"),
               Buffer("new", kind, "temp", 0, 1)]  # fmt: skip
    tasks = [Task("check", ("labels",), (N * 2,), 1), Task("add", ("w", "new"), (4,), 1)]
    checks = (Check("other", (), None, 1), Check("take_along_axis", (LINE,), "labels", 5))
    w = state("w", [0, 0, 0, 0])
    made = program(buffers, [check, kernel("add", 1, plus(1))], tasks if order == "check" else tasks[::-1],
                   updates=(("w", "new"),), checks=checks)  # fmt: skip
    return build(made, {"w": w}), w


@pytest.mark.parametrize("order", ["check", "add"])
def test_a_failed_step_names_the_index_and_changes_nothing(order: str, both_ways: str) -> None:
    f, w = checked(order)
    good = np.array([[0, 1], [2, 3], [4, 0]])
    f(good)
    f(good)
    assert np.array_equal(w.array, [2, 2, 2, 2])
    bad = good.copy()
    bad[1, 1], bad[2, 0] = 5, -7
    with pytest.raises(IndexRangeError) as caught:
        f(bad)
    assert str(caught.value) == (
        "take_along_axis: index 5 at labels[1, 1] is out of range for an axis of size 5\n"
        f"  built at {LINE}\n  hint: valid indices are 0 to 4"
    )
    assert np.array_equal(w.array, [2, 2, 2, 2])
    f(good)
    assert np.array_equal(w.array, [3, 3, 3, 3])


def test_an_error_stops_later_regions() -> None:
    """Regions run in order, and none after the one that failed."""
    kind = TensorType(int64, (1,))
    bump = kernel("bump", 1, plus(1, int64), int64)
    high = ir.Op("gt", (ir.Load("b0", ir.const(0), ir.I64), ir.const(8)), ir.BOOL)
    fail = ir.LoopKernel("fail", (ir.BufferParam("b0", int64, 1),), (), (ir.Fail(high, 0, ir.const(3)),))
    buffers = [Buffer("x", kind, "parameter")]
    tasks = [Task("bump", ("x", "x"), (1,), 1), Task("fail", ("x",), (), 1), Task("bump", ("x", "x"), (1,), 1)]
    x = state("x", [0], np.int64)
    f = build(program(buffers, [bump, fail], tasks, dims=(), checks=(Check("assert", (), None, 4),)), {"x": x})
    for _ in range(4):
        f()
    assert x.array[0] == 8
    with pytest.raises(IndexRangeError, match="assert: an index is out of range for an axis of size 4"):
        f()
    assert x.array[0] == 9


def test_threads_of_one_function_and_of_one_parameter_wait_for_each_other() -> None:
    f, w = in_place()
    g = Executable(f.program, f._kernels, {"w": w, "only_read": state("only_read", [0] * 4)}, keep=f)
    one = np.ones(4, np.float32)
    before = w.array.copy()
    callers = [threading.Thread(target=lambda h=h: [h(one) for _ in range(300)]) for h in (f, g, f, g)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert np.array_equal(w.array, before + 1200)
    w.lock.acquire()
    started = threading.Thread(target=f, args=(one,))
    started.start()
    started.join(0.05)
    assert started.is_alive() and np.array_equal(w.array, before + 1200)
    w.lock.release()
    started.join(5)
    assert np.array_equal(w.array, before + 1201)


def test_functions_that_share_parameters_in_another_order_never_lock_each_other_out() -> None:
    kind = TensorType(float32, (2,))
    states = {"a": state("a", [1, 2]), "b": state("b", [3, 4])}

    def swap(*names: str) -> Executable:
        buffers = [Buffer(name, kind, "parameter") for name in names]
        return build(program(buffers, [], [], dims=(), updates=(("a", "b"), ("b", "a"))), states)

    callers = [
        threading.Thread(target=lambda f=f: [f() for _ in range(3000)], daemon=True)
        for f in (swap("a", "b"), swap("b", "a"))
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert not any(caller.is_alive() for caller in callers)
    assert np.array_equal(states["a"].array, [1, 2]) and np.array_equal(states["b"].array, [3, 4])


def test_the_number_of_threads_is_read_at_the_call() -> None:
    f, x = add_one(), np.zeros(3, np.float32)
    for threads in (1, 3, 2):
        with settings.config(num_threads=threads):
            f(x)
        assert f._last is not None and f._last.threads == threads


def test_a_small_call_costs_little_more_than_one_of_numpy() -> None:
    f, x, y = add_one(threads=1), np.zeros(4, np.float32), np.zeros(4, np.float32)
    ours = min(timeit.repeat(lambda: f(x), number=300, repeat=20))
    theirs = min(timeit.repeat(lambda: np.add(x, 1, out=y), number=300, repeat=20))
    assert ours < 12 * theirs  # about 2.5 where the native entry works: 1.2 us


# One free page, and the next free memory 8 GiB away: a loader that maps code and constants one by one puts them there.
_CROWDED = """
import ctypes, numpy as np, graphc as gc
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
reserve = lambda size: libc.mmap(None, size, 0, 0x4022, -1, 0)  # PROT_NONE; PRIVATE, ANONYMOUS, NORESERVE
x = gc.placeholder("x", (8,), "float32")
with gc.config(cache=False):
    gc.function([x], x + 1)  # the loader itself has what it needs
    far, pages = reserve(1 << 33), []
    while not pages or pages[-1] > far:
        pages.append(reserve(4096))
    libc.munmap(pages[-2], 4096)
    print(gc.function([x], gc.exp(x) * 2)(np.zeros(8, np.float32)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's mmap")
def test_code_and_its_constants_stay_within_reach_of_each_other_in_a_crowded_process() -> None:
    done = subprocess.run([sys.executable, "-c", _CROWDED], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "[2. 2. 2. 2. 2. 2. 2. 2.]\n"), done.stderr


_PASSES = """
import sys
import llvmlite.binding as llvm
from graphc.runtime import jit
from graphc.target import NAMED

def tell():
    print("--", file=sys.stderr, flush=True)
    machine.emit_object(llvm.parse_assembly("define void @k() { ret void }"))

machine = jit._machine(NAMED["avx512"])
llvm.set_option("", "-debug-pass=Structure")
tell()
with jit._options(NAMED["avx512"]):
    tell()
tell()
"""


def test_llvm_runs_the_same_passes_for_others_after_us_as_before() -> None:
    done = subprocess.run([sys.executable, "-c", _PASSES], capture_output=True, text=True, timeout=300, check=True)
    _, before, ours, after = done.stderr.split("--\n")
    assert before == after
    assert {line.strip() for line in ours.splitlines()[1:]} < {line.strip() for line in before.splitlines()[1:]}
