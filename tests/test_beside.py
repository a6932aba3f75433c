"""Objects made beside lowering: the same objects, errors where they were, nothing left running."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import settings
from graphc.errors import InternalError
from graphc.runtime import beside as beside_module
from graphc.runtime import jit
from graphc.runtime.beside import Beside
from graphc.target import AVX2, AVX512


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "usable_cores", lambda: 2)


def several(name: str, width: int = 24) -> graphc.Function:
    """A function of several kernels; `width` makes its code differ."""
    x = graphc.placeholder("x", ("n", width))
    w = graphc.parameter("w", np.full((width, 8), 0.5, np.float32))
    loss = (graphc.nn.functional.softmax(x @ w, axis=-1) ** 2).sum()
    return graphc.function([x], [loss, graphc.grad(loss, w)], name=name)


def objects_of(monkeypatch: pytest.MonkeyPatch, width: int) -> dict[str, bytes]:
    """What goes into the executable, by name, in its order."""
    from graphc import compile as module

    seen: list[dict[str, bytes]] = []
    original = module._executable

    def executable(frozen: object, levels: object, native: module._Native, threads: int | None) -> object:
        seen.append(dict(native.objects))
        return original(frozen, levels, native, threads)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(module, "_executable", executable)
        several("f", width)
    return seen[0]


def test_the_objects_are_those_of_one_thread_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    with settings.config(cache=False):
        here = objects_of(monkeypatch, 24)
        assert len(here) > 2
        monkeypatch.setattr(settings, "usable_cores", lambda: 1)
        alone = objects_of(monkeypatch, 24)
    assert list(here.items()) == list(alone.items())


def test_with_a_cache_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with settings.config(cache=False):
        plain = objects_of(monkeypatch, 24)
    with settings.config(cache=True, cache_dir=tmp_path):
        assert list(objects_of(monkeypatch, 24).items()) == list(plain.items())  # written by the thread
        assert len(list(tmp_path.glob("*.object"))) == len(plain)
        for plan in tmp_path.glob("*.plan"):
            plan.unlink()
        assert list(objects_of(monkeypatch, 24).items()) == list(plain.items())  # read by the thread


def test_the_levels_and_steps_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with settings.config(cache=False, log="compile"):
        f = several("f")
    lines = [line.strip().rsplit(maxsplit=2)[0] for line in capsys.readouterr().err.splitlines()[1:]]
    wanted = ["passes", "lower", "emit", "machine code", "in all, beside the others"]
    assert [line for line in lines if line in wanted] == wanted
    assert f.ir("llvm").count("define") >= len(f.kernels)


def test_one_kernel_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside_module.threading.Thread, "start", lambda self: pytest.fail("a thread"))
    x = graphc.placeholder("x", (4,))
    with settings.config(cache=False):
        graphc.function([x], x + 1)


def test_an_error_in_the_thread_comes_out_of_the_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc.llvm import emit as module

    original = module.emit
    broken: list[str] = []

    def emit(kernel: object, target: object) -> str:
        broken.append("x")
        text = original(kernel, target)  # type: ignore[arg-type]
        return text if len(broken) != 2 else "define nonsense"

    before = threading.active_count()
    with settings.config(cache=False), monkeypatch.context() as patch:
        patch.setattr(module, "emit", emit)
        with pytest.raises(InternalError, match="LLVM rejects the emitted module") as caught:
            several("f")
    assert "define nonsense" in str(caught.value)  # the module, and last the file with the whole graph
    assert Path(str(caught.value).rsplit(maxsplit=1)[-1]).read_text().startswith("graph f {")
    assert threading.active_count() == before
    with settings.config(cache=False):
        assert several("f").native_calls == 0


def test_an_interrupt_leaves_no_thread_and_python_as_it_was() -> None:
    usual, before, done = sys.getswitchinterval(), threading.active_count(), []

    def make(ir: str) -> bytes:
        time.sleep(0.02)
        done.append(ir)
        return b""

    with pytest.raises(KeyboardInterrupt), Beside(make) as beside:
        assert sys.getswitchinterval() < usual
        for name in "abcdefgh":
            beside.start(name, name)
        raise KeyboardInterrupt
    assert threading.active_count() == before and len(done) < 8
    assert sys.getswitchinterval() == pytest.approx(usual)


def test_blocks_of_two_threads_leave_the_interval_as_it_was() -> None:
    usual = sys.getswitchinterval()
    first, second = Beside(str.encode), Beside(str.encode)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert sys.getswitchinterval() < usual
    second.__exit__(None, None, None)
    assert sys.getswitchinterval() == pytest.approx(usual)


def test_the_settings_of_who_enters_hold_in_the_thread() -> None:
    seen: list[bool] = []

    def make(ir: str) -> bytes:
        seen.append(settings.current().verify)
        return ir.encode()

    with settings.config(verify=True), Beside(make) as beside:
        beside.start("a", "text")
        assert beside.objects() == {"a": b"text"} and seen == [True]


def test_two_threads_compile_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = (24, 40, 56)
    with settings.config(cache=False):
        alone = {width: several("f", width) for width in widths}
    results: dict[int, list[np.ndarray]] = {}

    def compile_and_call(width: int) -> None:
        with settings.config(cache=False):
            results[width] = several("f", width)(np.ones((3, width), np.float32))

    threads = [threading.Thread(target=compile_and_call, args=(width,)) for width in widths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for width in widths:
        for found, expected in zip(results[width], alone[width](np.ones((3, width), np.float32)), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_another_target_waits_for_the_options_of_ours() -> None:
    """Options belong to the process: who leaves them alone must not find those that another thread has set."""
    order: list[str] = []

    def other() -> None:
        with jit._options(AVX2):
            order.append("other")

    with jit._options(AVX512):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.05)
        order.append("ours")
    thread.join()
    assert order == ["ours", "other"]


FORK = """
import os, sys, graphc
from graphc.runtime.beside import Beside
usual = sys.getswitchinterval()
def compiled():
    x = graphc.placeholder("x", ("n", 8))
    w = graphc.parameter("w", [[1.0] * 8] * 8)
    return len(graphc.function([x], [(x @ w).sum(), graphc.nn.functional.softmax(x @ w, axis=-1)]).kernels)
count = compiled()
with Beside(str.encode) as beside:
    if os.fork() == 0:
        os._exit(0 if abs(sys.getswitchinterval() - usual) < 1e-6 and compiled() == count > 1 else 1)
    assert os.wait()[1] == 0, "the child"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_compiles_and_has_the_usual_interval() -> None:
    environment = os.environ | {"GRAPHC_CACHE": "0"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], env=environment, check=True, timeout=120)
