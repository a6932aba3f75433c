"""Operands that are packed once: which, in which region, and that nothing but the place of the packing changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc
from graphc.loops import matmul, schedule
from graphc.loops.packed import with_packs
from graphc.loops.program import Buffer, Program, Task
from graphc.types import TensorType, float32


@pytest.fixture(autouse=True)
def _no_cache() -> object:
    with graphc.config(cache=False, verify=True) as settings:
        yield settings


def product(m: int, k: int, n: int, form: str, threads: int = 1) -> graphc.Function:
    x = graphc.placeholder("x", (k, m) if form[0] == "T" else (m, k), "float32")
    y = graphc.placeholder("y", (n, k) if form[1] == "T" else (k, n), "float32")
    return graphc.function([x, y], (x.T if form[0] == "T" else x) @ (y.T if form[1] == "T" else y), threads=threads)


def kernels_of(program: Program) -> list[list[str]]:
    """The kernels of each region, without their hashes."""
    return [[task.kernel.rsplit("_", 1)[0] for task in region.tasks] for region in program.regions]


@pytest.mark.parametrize("sizes", [(610, 523, 640), (701, 1100, 1200), (1100, 700, 1024)])
@pytest.mark.parametrize("form", ["TN", "TT", "NT"])
def test_packing_once_gives_the_same_bits(
    sizes: tuple[int, int, int], form: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    m, k, n = sizes
    a = rng.standard_normal((k, m) if form[0] == "T" else (m, k)).astype(np.float32)
    b = rng.standard_normal((n, k) if form[1] == "T" else (k, n)).astype(np.float32)
    functions = [product(m, k, n, form, threads) for threads in (1, 2, 3)]
    once = functions[0].program
    if form[0] == "T":
        assert kernels_of(once)[-2][-1] == "pack_rows" and "x.packed" in once.buffers
    monkeypatch.setattr(matmul, "prepacked", lambda problem, *_: (problem, []))
    functions.append(product(m, k, n, form))
    assert kernels_of(functions[-1].program) == [["matmul"]]
    results = [function(a, b) for function in functions]
    assert all(np.array_equal(results[0], other) for other in results[1:])
    left, right = (a.T if form[0] == "T" else a), (b.T if form[1] == "T" else b)
    np.testing.assert_allclose(results[0], left.astype(np.float64) @ right, rtol=1e-4, atol=1e-3)


NAMED = [("m", "TN", 1030), ("m", "TT", 700), ("n", "TN", 1030), ("n", "NT", 1600), ("mn", "TN", 0)]


@pytest.mark.parametrize(("names", "form", "known"), NAMED)
def test_named_sizes_are_packed_once_too(
    names: str, form: str, known: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One function for every number of rows and columns: the bits of a product that packs for itself."""
    k = 523
    m, n = ("rows" if "m" in names else known), ("columns" if "n" in names else known)
    x = graphc.placeholder("x", (k, m) if form[0] == "T" else (m, k), "float32")
    y = graphc.placeholder("y", (n, k) if form[1] == "T" else (k, n), "float32")
    outputs = (x.T if form[0] == "T" else x) @ (y.T if form[1] == "T" else y)
    functions = [graphc.function([x, y], outputs, threads=threads) for threads in (1, 2, 3)]
    packing = "pack_rows" if form[0] == "T" else "pack_columns"
    assert any(packing in region for region in kernels_of(functions[0].program))
    monkeypatch.setattr(matmul, "prepacked", lambda problem, *_: (problem, []))
    functions.append(graphc.function([x, y], outputs, threads=1))
    assert kernels_of(functions[-1].program) == [["matmul"]]
    for size in (0, 1, 2, 9, 47, 48, 577, 601):
        rows, columns = (size if "m" in names else known), (size if "n" in names else known)
        a = rng.standard_normal((k, rows) if form[0] == "T" else (rows, k)).astype(np.float32)
        b = rng.standard_normal((columns, k) if form[1] == "T" else (k, columns)).astype(np.float32)
        results = [function(a, b) for function in functions]
        assert all(np.array_equal(results[0], other) for other in results[1:])
        left, right = (a.T if form[0] == "T" else a), (b.T if form[1] == "T" else b)
        np.testing.assert_allclose(results[0], left.astype(np.float64) @ right, rtol=1e-4, atol=1e-3)


def test_columns_are_packed_once_where_chunks_that_pack_their_own_would_be_few() -> None:
    for sizes, form in (((128, 784, 128), "NT"), ((512, 784, 128), "NN"), ((300, 200, 100), "NN")):
        program = product(*sizes, form).program
        assert kernels_of(program) == [["pack_columns"], ["matmul"]]
        assert program.regions[1].tasks[0].chunks >= 4
    for sizes, form in (((64, 64, 64), "NT"), ((64, 64, 64), "TN"), ((256, 256, 256), "NN")):
        assert kernels_of(product(*sizes, form).program) == [["matmul"]]


@pytest.mark.parametrize("sizes", [(300, 65, 100), (97, 33, 70), (257, 16, 128), (270, 3, 300)])
def test_packing_columns_that_lie_side_by_side_changes_no_bit(
    sizes: tuple[int, int, int], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    m, k, n = sizes
    a, memory = rng.standard_normal((m, k)).astype(np.float32), np.empty(k * n + 1, np.float32)
    b = memory[1:].reshape(k, n)  # no vector of it lies within a cache line
    b[:] = rng.standard_normal((k, n))
    functions = [product(m, k, n, "NN", threads) for threads in (1, 2, 3)]
    assert "packed" in functions[0].ir("loops")
    monkeypatch.setattr(schedule, "CROSSED_ROWS", m + 1)
    monkeypatch.setattr(schedule, "MANY_ROWS", m + 1)
    functions.append(product(m, k, n, "NN"))
    assert "packed" not in functions[-1].ir("loops")
    results = [function(a, b) for function in functions]
    assert all(np.array_equal(results[0], other) for other in results[1:])
    np.testing.assert_allclose(results[0], a.astype(np.float64) @ b, rtol=1e-4, atol=1e-4)


def steps(updated: bool) -> tuple[graphc.Function, Callable[..., list[np.ndarray]]]:
    """Three products with one transposed parameter, one after the other, and the same by NumPy."""
    x = graphc.placeholder("x", (24, 40), "float32")
    w = graphc.parameter("w", np.linspace(-1, 1, 1600, dtype=np.float32).reshape(40, 40))
    hidden = x
    for _ in range(3):
        hidden = graphc.tanh(hidden @ w.T)
    function = graphc.function([x], [hidden], {w: w * 0.5} if updated else None)

    def by_numpy(value: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
        for _ in range(3):
            value = np.tanh(value @ weights.T)
        return [value]

    return function, by_numpy


@pytest.mark.parametrize("updated", [False, True])
def test_a_weight_of_several_products_is_packed_once(updated: bool, rng: np.random.Generator) -> None:
    function, by_numpy = steps(updated)
    names = [name for region in kernels_of(function.program) for name in region]
    assert names.count("pack_columns") == 1 and sum("matmul" in name for name in names) == 3
    assert [b.name for b in function.program.buffers.values() if "packed" in b.name] == ["w.packed"]
    assert "w.packed = pack_columns" in function.ir("program")
    x = rng.standard_normal((24, 40)).astype(np.float32)
    for _ in range(3):  # an update in place is seen by the next call only
        before = np.array(function.parameters["w"].value)
        np.testing.assert_allclose(function(x)[0], by_numpy(x, before)[0], rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(function.parameters["w"].value, before * np.float32(0.5 if updated else 1))


def test_a_computed_operand_is_packed_between_two_regions(rng: np.random.Generator) -> None:
    """Its columns are packed after they are computed; the operand of the first product before everything."""
    x, v = graphc.placeholder("x", (24, 40), "float32"), graphc.placeholder("v", (40, 40), "float32")
    w = graphc.cumsum(v, 0)
    function = graphc.function([x, v], [x @ w.T, (x + 1) @ w.T])
    assert [any(name == "pack_columns" for name in region) for region in kernels_of(function.program)].index(True) == 1
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((24, 40), (40, 40)))
    sums = np.cumsum(b, 0)
    for found, expected in zip(function(a, b), (a @ sums.T, (a + 1) @ sums.T)):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_where_packing_runs_and_how_long_buffers_live() -> None:
    def task(*buffers: str) -> Task:
        return Task("k", buffers, (), 1)

    kind = TensorType(float32, (4,))
    lives = {"t": (0, 1), "late": (1, 3), "p": (1, 1), "q": (2, 2)}
    buffers = {name: Buffer(name, kind, "temp", *life) for name, life in lives.items()}
    regions = [[task("t")], [task("t", "p", "late")], [task("q")]]
    # p is packed from what region 0 computes: in between; q from an input: together with region 1
    found = with_packs(regions, {1: [(0, task("t", "p"))], 2: [(-1, task("x", "q"))]}, buffers)
    assert [[t.buffers[-1] for t in region.tasks] for region in found] == [["t"], ["p"], ["late", "q"], ["q"]]
    expected = {"t": (0, 2), "late": (2, 4), "p": (1, 2), "q": (2, 3)}
    assert {name: (b.first, b.last) for name, b in buffers.items()} == expected


def test_equal_kernels_have_operands_packed_from_other_orders(rng: np.random.Generator) -> None:
    """A product of packed columns is one kernel for y and for y.T, but what packs them is not."""
    x = graphc.placeholder("x", (512, 512), "float32")
    y, z = graphc.placeholder("y", (512, 128), "float32"), graphc.placeholder("z", (128, 512), "float32")
    both = graphc.function([x, y, z], [x @ y, x @ z.T], threads=1)
    tasks = [task.kernel for region in both.program.regions for task in region.tasks]
    products = [name for name in tasks if name.startswith("matmul")]
    assert len(products) == 2 and len(set(products)) == 1 and len(set(tasks)) == 3
    a, b, c = (rng.standard_normal(t.shape).astype(np.float32) for t in (x, y, z))
    for found, wanted in zip(both(a, b, c), (a @ b, a @ c.T), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
