"""The native pool: every chunk runs exactly once, whoever runs it, also with many callers, after a fork and at exit."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from graphc.llvm.emit import emit
from graphc.loops import ir
from graphc.loops.program import Buffer, Program, Region, Task
from graphc.runtime.driver import driver, driver_ir
from graphc.runtime.executable import Executable
from graphc.runtime.host import host_target
from graphc.runtime.jit import Library, compile_object
from graphc.runtime.plan import LoadedKernel
from graphc.runtime.pool import MOST_CLAIMS, supported
from graphc.types import Dim, TensorType, float32, int64

needs_threads = pytest.mark.skipif(not supported(), reason="no worker threads on this system")
CHUNK, F32, I64 = ir.Var("chunk"), ir.VType(float32), ir.I64


def counter(regions: int, threads: int) -> Executable:
    """f(x: i64[n]) -> i64[n]: the first region copies x, each further one adds 1; one element is one chunk."""
    size = Dim.symbol("n")
    params = (ir.BufferParam("b0", int64, Dim.symbol("s0")), ir.BufferParam("b1", int64, Dim.symbol("s0"), True))
    copy = ir.LoopKernel("copy", params, ("s0",), (ir.Store("b1", CHUNK, ir.Load("b0", CHUNK, I64)),), Dim.symbol("s0"))
    more = ir.Op("add", (ir.Load("b0", CHUNK, I64), ir.const(1)), I64)
    bump = ir.LoopKernel("bump", (ir.BufferParam("b0", int64, Dim.symbol("s0"), True),), ("s0",),
                         (ir.Store("b0", CHUNK, more),), Dim.symbol("s0"))  # fmt: skip
    kind = TensorType(int64, (size,))
    first = Region((Task("copy", ("x", "y"), (size,), size),))
    other = Region((Task("bump", ("y",), (size,), size),))
    program = Program(
        name="count", dims=("n",), buffers={"x": Buffer("x", kind, "input"), "y": Buffer("y", kind, "output")},
        kernels={"copy": copy, "bump": bump}, regions=(first, *[other] * regions), inputs=("x",), parameters=(),
        outputs=("y",), updates=(),
    )  # fmt: skip
    library, target = Library(), host_target()
    objects = [compile_object(emit(kernel, target), target) for kernel in (copy, bump)]
    found = library.load(objects, ["copy", "bump"])
    return Executable(program, {k: LoadedKernel(a) for k, a in found.items()}, {}, threads=threads, keep=library)


@needs_threads
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_every_chunk_of_many_small_jobs_runs_once(threads: int) -> None:
    for chunks in (0, 1, 2, 3, 7, 64):
        run = counter(regions=500, threads=threads)
        x = np.arange(chunks, dtype=np.int64)
        for _ in range(4):
            assert np.array_equal(run(x)[0], x + 500)
    assert driver().pool.workers >= threads - 1


@needs_threads
@pytest.mark.parametrize("threads", [2, 3])
def test_more_chunks_than_claims(threads: int) -> None:
    run = counter(regions=3, threads=threads)
    for chunks in (MOST_CLAIMS - 1, MOST_CLAIMS, MOST_CLAIMS + 1, 2 * MOST_CLAIMS, 2 * MOST_CLAIMS + 1, 300_000):
        x = np.arange(chunks, dtype=np.int64)
        assert np.array_equal(run(x)[0], x + 3)


@needs_threads
def test_several_python_threads_at_once() -> None:
    wrong: list[np.ndarray] = []
    x = np.arange(16, dtype=np.int64)

    def work(run: Executable, regions: int) -> None:
        for _ in range(100):
            (y,) = run(x)
            if not np.array_equal(y, x + regions):
                wrong.append(y)

    shared = counter(50, 2)
    callers = [threading.Thread(target=work, args=(counter(n, 2), n)) for n in (10, 40, 90)]
    callers += [threading.Thread(target=work, args=(shared, 50)) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong
    assert shared.native_calls == 200


@needs_threads
def test_workers_take_part_and_sleep_between_steps() -> None:
    run = counter(regions=3000, threads=2)
    x = np.arange(256, dtype=np.int64)
    cpu, end = time.process_time, time.monotonic() + 30
    share = 0.0
    while share <= 1.1 and time.monotonic() < end:  # on a busy machine some tries may find no free core
        start, mine = cpu(), time.thread_time()
        run(x)
        share = (cpu() - start) / max(time.thread_time() - mine, 1e-9)
    assert share > 1.1, "no worker used any time"
    time.sleep(0.05)
    start = cpu()
    time.sleep(0.3)
    assert cpu() - start < 0.03


@needs_threads
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_tasks_of_a_region_share_its_chunks(threads: int) -> None:
    size, counts = Dim.symbol("s0"), (3, 0, 5, 1, 0)
    twice = ir.Op("add", (ir.Load("b0", CHUNK, I64), ir.Load("b0", CHUNK, I64)), I64)
    params = (ir.BufferParam("b0", int64, size), ir.BufferParam("b1", int64, size, True))
    double = ir.LoopKernel("double", params, ("s0",), (ir.Store("b1", CHUNK, twice),), size)
    buffers = {"x": Buffer("x", TensorType(int64, (8,)), "input")}
    buffers |= {f"y{i}": Buffer(f"y{i}", TensorType(int64, (n,)), "output") for i, n in enumerate(counts)}
    region = Region(tuple(Task("double", ("x", f"y{i}"), (n,), n) for i, n in enumerate(counts)))
    outputs = tuple(buffers)[1:]
    program = Program("tasks", (), buffers, {"double": double}, (region,), ("x",), (), outputs, ())
    library, target = Library(), host_target()
    address = library.load([compile_object(emit(double, target), target)], ["double"])["double"]
    run = Executable(program, {"double": LoadedKernel(address)}, {}, threads=threads, keep=library)
    for turn in range(200):
        x = np.arange(8, dtype=np.int64) + 10 * turn
        out = [np.full(n, -1) for n in counts]
        run(x, out=out)
        assert all(np.array_equal(y, 2 * x[:n]) for y, n in zip(out, counts, strict=True))


@needs_threads
def test_a_region_ends_after_its_slowest_chunk() -> None:
    """Chunks of some 50 us: who looks at the results before they are all done sees wrong ones."""
    size, total = Dim.symbol("s0"), ir.Reg("t", (), I64)
    params = (ir.BufferParam("b0", int64, size), ir.BufferParam("b1", int64, size, True))
    add = ir.Assign(total, ir.Op("add", (ir.Op("mul", (total, ir.const(3)), I64), ir.Load("b0", CHUNK, I64)), I64))
    loop = ir.For("i", ir.const(0), ir.const(30_000), 1, (add,), ("t",))
    body = (ir.Declare("t", (), I64, ir.const(0)), loop, ir.Store("b1", CHUNK, total))
    slow = ir.LoopKernel("slow", params, ("s0",), body, size)
    kind = TensorType(int64, (8,))
    buffers = {"x": Buffer("x", kind, "input"), "y": Buffer("y", kind, "output")}
    region = Region((Task("slow", ("x", "y"), (8,), 8),))
    program = Program("slow", (), buffers, {"slow": slow}, (region,), ("x",), (), ("y",), ())
    library, target = Library(), host_target()
    address = library.load([compile_object(emit(slow, target), target)], ["slow"])["slow"]
    one, two = (Executable(program, {"slow": LoadedKernel(address)}, {}, threads=n, keep=library) for n in (1, 2))
    for turn in range(100):
        x = np.arange(8, dtype=np.int64) + 10 * turn
        out = np.zeros(8, np.int64)
        two(x, out=out)
        assert np.array_equal(out, one(x)[0])


def sums(threads: int) -> Executable:
    """f(x: f32[n]) -> f32[1]: chunks of 100 add up in order, the finish adds the chunks' sums."""
    size = Dim.symbol("n")
    count = Dim.symbol("s1")
    params = (ir.BufferParam("b0", float32, Dim.symbol("s0")), ir.BufferParam("b1", float32, count, True),
              ir.BufferParam("b2", float32, 1, True))  # fmt: skip
    total, start = ir.Reg("t", (), F32), ir.Op("mul", (CHUNK, ir.const(100)), I64)
    stop = ir.Op("min", (ir.Op("add", (start, ir.const(100)), I64), ir.Var("s0")), I64)

    def fold(buffer: str, begin: ir.Expr, end: ir.Expr) -> tuple[ir.Stmt, ...]:
        add = ir.Assign(total, ir.Op("add", (total, ir.Load(buffer, ir.Var("i"), F32)), F32))
        return ir.Declare("t", (), F32, ir.Const(0.0, F32)), ir.For("i", begin, end, 1, (add,), ("t",))

    body = (*fold("b0", start, stop), ir.Store("b1", CHUNK, total))
    finish = (*fold("b1", ir.const(0), ir.Var("s1")), ir.Store("b2", ir.const(0), total))
    kernel = ir.LoopKernel("sums", params, ("s0", "s1"), body, count, finish)
    chunks = (size + 99) // 100
    buffers = {
        "x": Buffer("x", TensorType(float32, (size,)), "input"),
        "parts": Buffer("parts", TensorType(float32, (chunks,)), "temp", 0, 0),
        "y": Buffer("y", TensorType(float32, (1,)), "output"),
    }
    task = Task("sums", ("x", "parts", "y"), (size, chunks), chunks)
    program = Program("sums", ("n",), buffers, {"sums": kernel}, (Region((task,)),), ("x",), (), ("y",), ())
    library, target = Library(), host_target()
    address = library.load([compile_object(emit(kernel, target), target)], ["sums"])["sums"]
    return Executable(program, {"sums": LoadedKernel(address, finish=True)}, {}, threads=threads, keep=library)


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 12345])
def test_same_bits_for_every_number_of_threads(size: int) -> None:
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    runs = [sums(threads) for threads in (1, 2, 3, 7)]
    results = {run(x)[0].tobytes() for run in runs for _ in range(5)}
    assert len(results) == 1
    assert np.allclose(np.frombuffer(results.pop(), np.float32), x.sum(dtype=np.float64), rtol=1e-4, atol=1e-4)


def run_script(body: str) -> subprocess.CompletedProcess[str]:
    """Run a script that starts with `counter` of this file imported as `counter`."""
    head = f"""
        import importlib.util, os, sys, threading, time, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import numpy as np
        spec = importlib.util.spec_from_file_location("pool_tests", {__file__!r})
        module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
        counter = module.counter
        x = np.arange(32, dtype=np.int64)
    """
    script = textwrap.dedent(head) + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


@needs_threads
@pytest.mark.skipif(os.cpu_count() == 1, reason="one core")
def test_a_worker_sleeps_where_the_caller_does_not_run() -> None:
    """So it wakes on another core; what it might use at first it may use again when it is awake."""
    done = run_script("""
        cores = os.sched_getaffinity(0)
        if len(cores) == 1:
            sys.exit()
        before = set(os.listdir("/proc/self/task"))
        run = counter(300, 2)
        assert np.array_equal(run(x)[0], x + 300)
        (worker,) = {int(name) for name in set(os.listdir("/proc/self/task")) - before}
        for here in sorted(cores)[:2]:
            os.sched_setaffinity(0, {here})
            for _ in range(100):
                assert np.array_equal(run(x)[0], x + 300)
                time.sleep(0.02)
                if os.sched_getaffinity(worker) == cores - {here}:
                    break
            else:
                sys.exit(f"{os.sched_getaffinity(worker)} of {cores}, not {here}")
        end = time.monotonic() + 20
        while os.sched_getaffinity(worker) != cores:
            assert time.monotonic() < end
            run(x)
    """)
    assert done.returncode == 0, done.stderr


@needs_threads
def test_after_a_fork_also_in_the_middle_of_a_step() -> None:
    done = run_script("""
        run = counter(300, 2)
        assert np.array_equal(run(x)[0], x + 300)
        go = True
        def work(run=counter(3000, 2)):
            while go:
                run(x)
        thread = threading.Thread(target=work); thread.start()
        for attempt in range(10):
            time.sleep(0.002 * attempt)
            child = os.fork()
            if child == 0:
                from graphc.runtime.driver import driver
                assert driver().pool.workers == 0
                good = np.array_equal(run(x)[0], x + 300) and np.array_equal(work.__defaults__[0](x)[0], x + 3000)
                os._exit(0 if good and driver().pool.workers == 1 else 1)
            deadline = time.time() + 10
            while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
                if time.time() > deadline:
                    go = False; os.kill(child, 9); sys.exit("the child hangs")
                time.sleep(0.001)
            assert found[1] == 0, found
            assert np.array_equal(run(x)[0], x + 300)
        go = False; thread.join(); print("fine")
    """)
    assert (done.returncode, done.stdout.strip()) == (0, "fine"), done.stderr


@needs_threads
def test_the_process_ends_while_workers_are_hot() -> None:
    start = time.perf_counter()
    done = run_script("""
        run, other = counter(300, 3), counter(3000, 3)
        def work():
            while True:
                other(x)
        threading.Thread(target=work, daemon=True).start()
        run(x); time.sleep(0.05); print("end", flush=True)
    """)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "end", "")
    assert time.perf_counter() - start < 20


def test_one_thread_where_threads_are_not_supported() -> None:
    text = driver_ir(threads=False)
    assert "syscall" not in text
    assert compile_object(text, host_target(), verify=True)
    run = counter(10, 1)
    assert np.array_equal(run(np.arange(5, dtype=np.int64))[0], np.arange(5) + 10)
