"""A call: one native call, results that are nobody else's, updates, errors that change nothing."""

from __future__ import annotations

import gc
import itertools
import threading
import timeit
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from graphc import settings
from graphc.errors import ArgumentError, DTypeError, IndexRangeError, InternalError, ShapeError, SourceLine
from graphc.llvm.emit import emit, scratch_bytes
from graphc.loops import ir
from graphc.loops.program import Buffer, Check, Program, Region, Task
from graphc.runtime import entry, executable
from graphc.runtime.buffers import ALIGN, RECYCLE, address_of
from graphc.runtime.executable import Executable
from graphc.runtime.host import host_target
from graphc.runtime.jit import Library, compile_object
from graphc.runtime.plan import LoadedKernel
from graphc.state import ParameterState
from graphc.types import Dim, DType, TensorType, float32, float64, int64

N, M = Dim.symbol("n"), Dim.symbol("m")
LINE = SourceLine("train.py", 7, 'x = graphc.placeholder("x", ("n", 3), "float32")')


def kernel(name: str, inputs: int, body: Callable[..., ir.Expr], dtype: DType = float32) -> ir.LoopKernel:
    """out[i] = body(x[i], y[i], ...), one chunk."""
    size, vtype, i = Dim.symbol("s0"), ir.VType(dtype), ir.Var("i")
    params = [ir.BufferParam(f"b{n}", dtype, size) for n in range(inputs)]
    store = ir.Store(f"b{inputs}", i, body(*(ir.Load(p.name, i, vtype) for p in params)))
    loop = ir.For("i", ir.const(0), ir.Var("s0"), 1, (store,))
    return ir.LoopKernel(name, (*params, ir.BufferParam(f"b{inputs}", dtype, size, True)), ("s0",), (loop,))


def plus(number: float, dtype: DType = float32) -> Callable[[ir.Expr], ir.Expr]:
    return lambda x: ir.Op("add", (x, ir.Const(number, ir.VType(dtype))), ir.VType(dtype))


def build(program: Program, states: dict[str, ParameterState] | None = None, **options: Any) -> Executable:
    """An Executable of the program's kernels, compiled."""
    library, target = Library(), host_target()
    objects = [compile_object(emit(k, target), target, verify=True) for k in program.kernels.values()]
    found = library.load(objects, list(program.kernels)) if objects else {}
    loaded = {k.name: LoadedKernel(found[k.name], bool(k.finish), scratch_bytes(k)) for k in program.kernels.values()}
    return Executable(program, loaded, states or {}, keep=library, **options)


def program(
    buffers: Sequence[Buffer], kernels: Sequence[ir.LoopKernel], regions: Sequence[Task], **fields: Any
) -> Program:
    """A Program with one task a region; inputs, parameters and outputs are the buffers of these kinds, in order."""

    def of(kind: str) -> tuple[str, ...]:
        return tuple(b.name for b in buffers if b.kind == kind)

    filled = {"inputs": of("input"), "parameters": of("parameter"), "outputs": of("output"), "updates": ()} | fields
    named = {b.name: b for b in buffers}
    return Program("f", filled.pop("dims", ("n",)), named, {k.name: k for k in kernels},
                   tuple(Region((task,)) for task in regions), **filled)  # fmt: skip


def add_one(dtype: DType = float32, shape: tuple[Any, ...] = (N,), **options: Any) -> Executable:
    kind = TensorType(dtype, shape)
    dims = tuple(str(s) for s in shape if not isinstance(s, int))
    buffers = [Buffer("x", kind, "input"), Buffer("y", kind, "output")]
    task = Task("add", ("x", "y"), (kind.size,), 1)
    return build(program(buffers, [kernel("add", 1, plus(1, dtype), dtype)], [task], dims=dims), **options)


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


def test_out_is_written_also_where_it_overlaps() -> None:
    f, x = add_one(), np.arange(8, dtype=np.float32)
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


def state(name: str, values: Any, dtype: Any = np.float32) -> ParameterState:
    return ParameterState(name, np.array(values, dtype))


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
    """w_new = w + x in place, in `regions` regions; the results are x, the new and the old w."""
    kind = TensorType(float32, (4,))
    buffers = [Buffer("w", kind, "parameter"), Buffer("x", kind, "input"), Buffer("w_new", kind, "output", alias="w")]
    add = kernel("add", 2, lambda a, b: ir.Op("add", (a, b), ir.VType(float32)))
    tasks = [Task("add", ("w", "x", "w_new"), (4,), 1)] * regions
    w = state("w", [1, 2, 3, 4])
    made = program(buffers, [add], tasks, dims=(), outputs=("x", "w_new", "w"), updates=(("w", "w_new"),))
    return build(made, {"w": w}), w


def test_updates_in_place_and_arguments_that_show_the_parameter(both_ways: str) -> None:
    f, w = in_place(regions=2)
    one = np.ones(4, np.float32)
    for turn in range(2):
        shown, new, before = f(one)
        assert np.array_equal(before, np.arange(1, 5) + 2 * turn)
    assert np.array_equal(w.array, [5, 6, 7, 8]) and np.array_equal(new, w.array) and np.array_equal(shown, one)
    assert not np.shares_memory(new, w.array) and not np.shares_memory(shown, one)
    old = w.array.copy()
    shown, new, before = f(w.array)  # a live view: the step reads the old values in both regions
    assert (
        np.array_equal(shown, old)
        and np.array_equal(before, old)
        and np.array_equal(new, 3 * old)
        and np.array_equal(w.array, 3 * old)
    )
    out = [None, w.array, None]
    f(one, out=out)
    assert np.array_equal(w.array, 3 * old + 2)


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
    g = Executable(f.program, f._kernels, {"w": w}, keep=f)
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
        assert f._scratch_address % ALIGN == 0 and f._scratch.nbytes >= 320_000


def test_programs_that_do_not_fit_together_are_our_bugs() -> None:
    with pytest.raises(InternalError, match="no argument has the dimension n"):
        build(program([], [], []))
    kind = TensorType(float32, (4,))
    with pytest.raises(InternalError, match="parameter w is float64"):
        build(program([Buffer("w", kind, "parameter")], [], [], dims=()), {"w": state("w", [1, 2, 3, 4], np.float64)})
    lost = program([Buffer("y", kind, "output")], [], [Task("k", ("y",), (), 1)], dims=())
    with pytest.raises(InternalError, match="kernel k has no code"):
        Executable(lost, {}, {})()


def test_a_small_call_costs_little_more_than_one_of_numpy() -> None:
    f, x, y = add_one(threads=1), np.zeros(4, np.float32), np.zeros(4, np.float32)
    ours = min(timeit.repeat(lambda: f(x), number=300, repeat=20))
    theirs = min(timeit.repeat(lambda: np.add(x, 1, out=y), number=300, repeat=20))
    assert ours < 12 * theirs  # about 2.5 where the native entry works: 1.2 us
