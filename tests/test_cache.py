"""The cache on disk: entries come back whole or not at all, whatever other processes and the file system do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from graphc import settings
from graphc.loops import ir
from graphc.loops.program import Buffer, Check, Program, Region, Task
from graphc.runtime import cache as cache_module
from graphc.runtime import stored
from graphc.runtime.cache import DiskCache, cached_object, object_key, plan_key, sources_digest
from graphc.runtime.jit import compile_object
from graphc.target import AVX2, AVX512
from graphc.types import Dim, TensorType, float32, int64, minimum

KEY = "0" * 64
IR = "define i32 @three() {\n  ret i32 3\n}\n"


@pytest.fixture
def store(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "deep" / "folder")


def test_entries_come_back(store: DiskCache) -> None:
    assert store.get("plan", KEY) is None
    for content in (b"", b"abc", os.urandom(100_000)):
        store.put("plan", KEY, content)
        assert store.get("plan", KEY) == content
        assert DiskCache(store.folder).get("plan", KEY) == content
    assert store.get("object", KEY) is None
    assert (store.hits, store.misses) == (3, 2)
    assert not list(store.folder.glob("*.tmp"))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 20, 47, 48, 60])
def test_a_truncated_entry_is_a_miss_and_goes(store: DiskCache, length: int) -> None:
    store.put("plan", KEY, b"x" * 100)
    path = store.folder / f"{KEY}.plan"
    path.write_bytes(path.read_bytes()[:length])
    assert store.get("plan", KEY) is None
    assert not path.exists()


@pytest.mark.parametrize("position", [0, 7, 8, 15, 16, 47, 48, 147])
def test_a_corrupted_entry_is_a_miss_and_goes(store: DiskCache, position: int) -> None:
    store.put("plan", KEY, b"x" * 100)
    path = store.folder / f"{KEY}.plan"
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(bytes(data))
    assert store.get("plan", KEY) is None
    assert not path.exists()
    store.put("plan", KEY, b"new")
    assert store.get("plan", KEY) == b"new"


def test_a_folder_that_cannot_be_used_costs_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    store = DiskCache(blocked / "cache")
    with settings.config(log="cache", cache_dir=blocked / "cache"):
        for _ in range(3):
            store.put("plan", KEY, b"x")
            assert store.get("plan", KEY) is None
        assert capsys.readouterr().err.count("working without the cache") == 1
        assert cached_object(IR, AVX512) == compile_object(IR, AVX512)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_read(store: DiskCache) -> None:
    store.put("plan", KEY, b"x")
    store.folder.chmod(0o500)
    try:
        store.put("plan", "1" * 64, b"y")
        assert store.get("plan", KEY) == b"x" and store.get("plan", "1" * 64) is None
    finally:
        store.folder.chmod(0o700)


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    store = DiskCache(tmp_path, limit=10_000)
    keys = [f"{n:064x}" for n in range(30)]
    for age, key in enumerate(keys):
        store.put("object", key, b"z" * 800)
        path = tmp_path / f"{key}.object"
        if path.exists():
            os.utime(path, (age + 1, age + 1))
        if age >= 5 and (tmp_path / f"{keys[0]}.object").exists():
            assert store.get("object", keys[0]) is not None  # used again and again: it stays
    left = {path.name for path in tmp_path.iterdir()}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000
    assert f"{keys[0]}.object" in left and f"{keys[-1]}.object" in left and f"{keys[1]}.object" not in left


def test_files_of_dead_writers_go(tmp_path: Path) -> None:
    old, new = tmp_path / "a.1-1-1.tmp", tmp_path / "b.1-1-1.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    DiskCache(tmp_path).put("plan", KEY, b"x")
    assert not old.exists() and new.exists()


RACE = """
import os, sys
from pathlib import Path
from graphc.runtime.cache import DiskCache
store, me = DiskCache(Path(sys.argv[1]), limit=60_000), int(sys.argv[2])
wrong = hits = 0
for turn in range(400):
    key = f"{turn % 7:064x}"
    content = key.encode() * 100  # every process writes the same under one key
    found = store.get("object", key)
    wrong += found not in (None, content)
    hits += found is not None
    if turn % 3 == me % 3:
        store.put("object", key, content)
    if turn % 50 == me:
        (Path(sys.argv[1]) / f"{key}.object").write_bytes(b"graphc1\\nbroken")
print(wrong, hits > 0)
"""


def test_four_processes_at_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path), str(me)], stdout=subprocess.PIPE, text=True)
        for me in range(4)
    ]
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out.split()) == (0, ["0", "True"])
    assert not list(tmp_path.glob("*.tmp"))


def test_objects_are_found_by_text_and_target(tmp_path: Path) -> None:
    compiled: list[str] = []

    def compile(text: str, target: object) -> bytes:
        compiled.append(text)
        return text.encode()

    with settings.config(cache_dir=tmp_path):
        for text, target in ((IR, AVX2), (IR, AVX2), (IR, AVX512), (IR + "\n", AVX2), (IR, AVX512)):
            assert cached_object(text, target, compile) == text.encode()
    assert compiled == [IR, IR, IR + "\n"]
    with settings.config(cache_dir=tmp_path, cache=False):
        cached_object(IR, AVX2, compile)
    assert len(compiled) == 4


def test_a_plan_key_changes_with_all_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    a = np.arange(3.0)

    def key(graph: str = "g", fast: bool = False, constant: np.ndarray = a) -> str:
        used = {"fast_math": fast, "disable": frozenset({"one", "two", "three"})}
        return plan_key(graph, used, AVX2, {"c0": constant})

    keys = [
        key(), key("h"), key(fast=True), key(constant=-a), key(constant=a.astype(np.float32)),
        key(constant=a.reshape(1, 3)), plan_key("g", {"fast_math": False}, AVX512, {"c0": a}),
    ]  # fmt: skip
    monkeypatch.setattr(cache_module, "versions", lambda: "another LLVM")
    keys.append(key())
    monkeypatch.setattr(cache_module, "sources_digest", lambda: "other sources")
    keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key() == key()
    assert len(sources_digest()) == len(object_key(IR, AVX2)) == 64


def test_keys_are_the_same_in_every_process() -> None:
    script = (
        "from graphc.runtime.cache import plan_key; from graphc.target import AVX2;"
        "print(plan_key('g', {'disable': frozenset({'one', 'two', 'three'})}, AVX2))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in range(3)
    }
    assert len(found) == 1


def example() -> Program:
    """A Program that uses every field."""
    n, s0 = Dim.symbol("n"), Dim.symbol("s0")
    buffers = [
        Buffer("x", TensorType(float32, (n, 3)), "input"),
        Buffer("labels", TensorType(int64, (n,)), "input"),
        Buffer("w", TensorType(float32, (3,)), "parameter"),
        Buffer("c", TensorType(float32, (2, 2)), "constant"),
        Buffer("t", TensorType(float32, (minimum(n, 64) * 2 + (n + 3) // 4,)), "temp", 1, 2),
        Buffer("y", TensorType(float32, ()), "output"),
    ]
    params = (ir.BufferParam("b0", float32, s0 * 3, align=64), ir.BufferParam("b1", float32, 4, True))
    kernel = ir.LoopKernel("k_12ab", params, ("s0",), (), (s0 + 63) // 64)
    task = Task("k_12ab", ("x", "t"), (n,), (n + 63) // 64)
    return Program(
        "step", ("n",), {b.name: b for b in buffers}, {"k_12ab": kernel}, (Region((task, task)), Region((task,))),
        ("x", "labels"), ("w",), ("y",), (("w", "w"),),
        (Check("take_along_axis", (), "labels", n + 1), Check("other", (), None, 7)),  # lines are not stored
        {"c": np.array([[1, -0.0], [np.inf, np.nan]], np.float32), "empty": np.zeros((0, 3), np.int64)},
    )  # fmt: skip


def test_a_plan_comes_back(store: DiskCache) -> None:
    program, objects = example(), {"k_12ab": os.urandom(1000), "empty": b""}
    stored.store_plan(store, KEY, program, objects, {"k_12ab": 4096}, frozenset({"k_12ab"}))
    found = stored.load_plan(store, KEY)
    assert found is not None
    assert found[0] == program  # also the order of buffers: it is the order of names in dumps
    assert list(found[0].buffers) == list(program.buffers)
    assert found[1:] == (objects, {"k_12ab": 4096}, frozenset({"k_12ab"}))
    for name, array in program.constants.items():
        other = found[0].constants[name]
        assert other.tobytes() == array.tobytes() and (other.dtype, other.shape) == (array.dtype, array.shape)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 8, (5).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"{}", b"\xff" * 40],
)
def test_a_plan_that_makes_no_sense_is_a_miss(store: DiskCache, content: bytes) -> None:
    store.put("plan", KEY, content)
    assert stored.load_plan(store, KEY) is None
    assert not (store.folder / f"{KEY}.plan").exists()


def test_a_plan_cut_short_or_longer_is_a_miss(store: DiskCache) -> None:
    content = stored.encode(example(), {"k": b"abc"}, {}, frozenset())
    for broken in (content[:-1], content + b"x"):
        store.put("plan", KEY, broken)
        assert stored.load_plan(store, KEY) is None


def test_loading_a_plan_is_quick(store: DiskCache) -> None:
    objects = {f"k{n}": os.urandom(20_000) for n in range(8)}
    stored.store_plan(store, KEY, example(), objects, {}, frozenset())
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert stored.load_plan(store, KEY) is not None
        times.append(time.perf_counter() - start)
    assert min(times) < 0.01
