"""Transposing kernels: any permutation, alone and inside of elementwise work, has the bits that NumPy gives.

Memory is guarded, so a square that reaches over an edge is an error; the assembly holds no gathers.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc
from graphc.build import apply, placeholder
from graphc.graph import Graph
from graphc.llvm.emit import emit
from graphc.loops.lower import lower
from graphc.passes.pipeline import optimize
from graphc.runtime.jit import compile_assembly
from graphc.target import NAMED

LENGTHS = (0, 1, 2, 7, 13, 16, 17, 32, 61, 80)


@pytest.fixture(autouse=True, scope="module")
def guarded() -> Any:
    with graphc.config(guard_memory=True, verify=True, cache=False):
        yield


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return rng.integers(0, 100, shape).astype(dtype)


def same(found: Any, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "int8", "uint8", "int16", "bool", "float16"])
def test_every_dtype(dtype: str, rng: np.random.Generator) -> None:
    shapes = [(32, 48), (21, 35), (16, 1), (3, 40), (40, 3), (0, 40), (40, 0)]
    inputs = [placeholder(f"x{n}", shape, dtype) for n, shape in enumerate(shapes)]
    arrays = [draw(rng, shape, dtype) for shape in shapes]
    for found, a in zip(graphc.function(inputs, [x.T for x in inputs])(*arrays), arrays, strict=True):
        same(found, np.ascontiguousarray(a.T))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_permutations_in_elementwise_work(data: st.DataObject) -> None:
    """x is read permuted, y as the result is, z as one of its axes; sizes known or named."""
    rank = data.draw(st.integers(2, 4))
    shape = tuple(data.draw(st.sampled_from(LENGTHS if rank < 4 else LENGTHS[:7])) for _ in range(rank))
    axes = tuple(data.draw(st.permutations(range(rank))))
    dtype = data.draw(st.sampled_from(["float32", "float64", "int32", "int64"]))
    named = tuple(f"n{i}" if data.draw(st.booleans()) else size for i, size in enumerate(shape))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    result, symbolic = [tuple(s[i] for i in axes) for s in (shape, named)]
    x, y, z = (placeholder(n, s, dtype) for n, s in [("x", named), ("y", symbolic), ("z", symbolic[:1])])
    a, b, c = (draw(rng, s, dtype) for s in (shape, result, result[:1]))
    wide = (-1, *(1,) * (rank - 1))
    step = graphc.function([x, y, z], x.transpose(*axes) * 2 + y - z.reshape(symbolic[0], *wide[1:]))
    same(step(a, b, c), a.transpose(axes) * np.asarray(2, dtype) + b - c.reshape(wide))


@pytest.mark.parametrize("size", [1, 16, 33, 64])
@pytest.mark.parametrize("name", [None, "n"])
def test_an_operand_read_both_ways(name: str | None, size: int, rng: np.random.Generator) -> None:
    x = placeholder("x", (name or size, name or size))
    a = draw(rng, (size, size), "float32")
    same(graphc.function([x], x + x.T)(a), a + a.T)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_two_operands_contiguous_along_axes_of_their_own(axes: tuple[int, ...], rng: np.random.Generator) -> None:
    shape = (18, 21, 35)
    back = tuple(int(i) for i in np.argsort(axes))
    x, y = placeholder("x", shape), placeholder("y", tuple(shape[i] for i in axes))
    z = placeholder("z", (35, 21, 18))
    a, b, c = (draw(rng, tuple(v.shape), "float32") for v in (x, y, z))
    step = graphc.function([x, y, z], x + y.transpose(*back) + z.transpose(2, 1, 0))
    same(step(a, b, c), a + b.transpose(back) + c.T)


@pytest.mark.parametrize("shape", [(33, 50), (64, 64), (40, 130)])
def test_slices_pads_and_long_bodies(shape: tuple[int, int], rng: np.random.Generator) -> None:
    x = placeholder("x", shape)
    a = draw(rng, shape, "float32") / np.float32(64)
    step = graphc.function([x], [x[1:, 2:].T, x[::-1].T, graphc.pad(x, ((1, 2), (3, 0))).T + 1, graphc.exp(x.T)])
    sliced, turned, padded, raised = step(a)
    same(sliced, np.ascontiguousarray(a[1:, 2:].T))
    same(turned, np.ascontiguousarray(a[::-1].T))
    same(padded, np.pad(a, ((1, 2), (3, 0))).T + np.float32(1))
    x = placeholder("x", shape)
    same(raised, np.ascontiguousarray(graphc.function([x], graphc.exp(x))(a).T))


def test_nan_infinity_and_signed_zero_stay(rng: np.random.Generator) -> None:
    a = rng.choice(np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0], "float32"), (37, 50))
    x = placeholder("x", a.shape)
    found = graphc.function([x], x.T)(a)
    np.testing.assert_array_equal(found.view("uint32"), np.ascontiguousarray(a.T).view("uint32"))


def test_an_index_out_of_range_is_found_where_rows_do_not_fill_squares(rng: np.random.Generator) -> None:
    """Indices that are read transposed: rows that are not there must not be checked."""
    table, i = placeholder("table", (5,)), placeholder("i", (19, 21), "int64")
    step = graphc.function([table, i], graphc.take(table, i.T - 3, 0) + 1)
    values, places = draw(rng, (5,), "float32"), rng.integers(3, 8, (19, 21))
    same(step(values, places), values[places.T - 3] + 1)


@pytest.mark.parametrize("order", [(2, 3, 1, 0), (2, 3, 0, 1), (3, 1, 2, 0), (1, 2, 3, 0), (3, 2, 1, 0), (3, 2, 0, 1)])
@pytest.mark.parametrize("shape", [(32, 24, 3, 3), (19, 35, 3, 3), (16, 5, 1, 7), (40, 0, 3, 3), ("o", "c", 3, 2)])
def test_places_of_a_window_are_one_run_with_the_channels_around_them(
    shape: tuple[Any, ...], order: tuple[int, ...], rng: np.random.Generator
) -> None:
    """Alone, and with operands that are read as the result is, as one of its axes is, and in another order."""
    known: Any = tuple({"o": 33, "c": 18}.get(size, size) for size in shape)
    result, named = [tuple(s[i] for i in order) for s in (known, shape)]
    x, y, z = placeholder("x", shape), placeholder("y", named), placeholder("z", (named[0], 1, 1, 1))
    a, b, c = (draw(rng, s, "float32") for s in (known, result, (result[0], 1, 1, 1)))
    copied, mixed = graphc.function([x, y, z], [x.transpose(*order), x.transpose(*order) * 2 + y - z])(a, b, c)
    same(copied, np.ascontiguousarray(a.transpose(order)))
    same(mixed, a.transpose(order) * np.float32(2) + b - c)


def test_a_run_ends_where_memory_does(rng: np.random.Generator) -> None:
    """Cut, padded and turned axes lie elsewhere than a whole one."""
    x = placeholder("x", (32, 6, 4, 3))
    a = draw(rng, (32, 6, 4, 3), "float32")
    cut, turned = graphc.function([x], [x[:, :, :3, :2].transpose(2, 3, 1, 0), x[:, ::-1].transpose(1, 2, 3, 0)])(a)
    same(cut, np.ascontiguousarray(a[:, :, :3, :2].transpose(2, 3, 1, 0)))
    same(turned, np.ascontiguousarray(a[:, ::-1].transpose(1, 2, 3, 0)))


@pytest.mark.parametrize("order", [(2, 3, 1, 0), (2, 3, 0, 1)])
@pytest.mark.parametrize("name", ["avx512", "avx2"])
def test_weights_of_windows_are_copied_in_squares(name: str, order: tuple[int, ...]) -> None:
    x = placeholder("x", (64, 32, 3, 3))
    graph = optimize(Graph((x.ref,), (apply("concat", x.transpose(*order), axis=0).ref,), (), "weights"))
    (kernel,) = lower(graph, NAMED[name]).kernels.values()
    text = compile_assembly(emit(kernel, NAMED[name]), NAMED[name])
    assert "gather" not in text and "unpck" in text


@pytest.mark.parametrize("name", ["avx512", "avx2"])
@pytest.mark.parametrize("sizes", [(64, 96), (61, 83), ("n", "m")])
def test_nothing_is_gathered(sizes: tuple[Any, Any], name: str) -> None:
    x = placeholder("x", (2, *sizes))
    y = placeholder("y", (2, *sizes[::-1]))
    copy = apply("concat", x.transpose(0, 2, 1), axis=0)  # as `choose_layouts` makes them
    outputs = (x.transpose(0, 2, 1) * 2 + y, x.transpose(0, 2, 1), copy)
    graph = optimize(Graph((x.ref, y.ref), tuple(v.ref for v in outputs), (), "transposes"))
    kernels = lower(graph, NAMED[name]).kernels.values()
    text = "".join(compile_assembly(emit(kernel, NAMED[name]), NAMED[name]) for kernel in kernels)
    assert "gather" not in text and "unpck" in text


def test_few_rows_and_reductions_are_lowered_as_ever() -> None:
    """What would leave most of a square empty, and what has a reduction behind it, is no kernel of squares."""
    x, few = placeholder("x", (64, 96)), placeholder("few", (96, 3))
    for inputs, output in [([few], few.T), ([x], (x.T + 1).sum(1)), ([x], x + 1)]:
        assert "zip_low" not in graphc.function(inputs, output).ir("loops")
    assert "zip_low" in graphc.function([x], x.T).ir("loops")


@pytest.mark.parametrize("shape", [(17, 50), (64, 49), (33, 16), (3, 95, 61), (2, 3, 200, 40)])
def test_the_last_squares_of_copies_overlap(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    """So all are whole; unless something else is read, in whose place the result may lie."""
    x, y = placeholder("x", shape), placeholder("y", (*shape[:-2], shape[-1], shape[-2]))
    a, b = draw(rng, shape, "float32"), draw(rng, tuple(y.shape), "float32")
    with graphc.config(guard_memory=False):
        assert " where " not in graphc.function([x], x.mT * 2).ir("loops")
        assert " where " in graphc.function([x, y], x.mT + y).ir("loops")
    for threads in (1, 2, 3):
        with graphc.config(num_threads=threads):
            same(graphc.function([x], x.mT * 2)(a), np.swapaxes(a, -1, -2) * np.float32(2))
    w = graphc.parameter("w", b)
    graphc.function([x], x.sum(), updates={w: w - x.mT})(a)
    same(w.value, b - np.swapaxes(a, -1, -2))
