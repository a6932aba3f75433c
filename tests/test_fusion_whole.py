"""Fusion of whole graphs: what has no shape, large graphs in linear time, random graphs to the bit."""

from __future__ import annotations

import time
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import graphc
import graphc.ops as ops
from graphc.build import Tensor, placeholder
from graphc.errors import InternalError
from graphc.graph import Graph
from graphc.interpret import evaluate
from graphc.nn import functional
from graphc.passes.domain import kernel_shape
from graphc.passes.pipeline import optimize
from graphc.settings import config
from tests.fusion_checks import frozen, kernels


def test_a_graph_of_no_shape_is_a_bug() -> None:
    x = placeholder("x", ("n", 3))
    with pytest.raises(InternalError, match="reductions over"):
        kernel_shape(frozen([x], [x.sum(0), x * x.sum(1, keepdims=True), x.reshape((x.shape[0], 3, 1)).sum(0)]))
    with pytest.raises(InternalError, match="of a column value inside"):
        kernel_shape(frozen([x], [x - x.mean(1, keepdims=True), x * x.sum(0, keepdims=True)]))
    with pytest.raises(InternalError, match="of a full value inside"):
        kernel_shape(frozen([x], [ops.transpose(ops.exp(x)).reshape((x.shape[0], 3)) + 1.0]))
    with pytest.raises(InternalError, match="total"):
        kernel_shape(frozen([x], [x / x.sum()]))
    w = placeholder("w", (3, 3))
    with pytest.raises(InternalError, match="matmul"):
        kernel_shape(frozen([x, w], [(w @ w) @ (w @ w)]))


def test_transposed_square_is_a_kernel_of_its_own() -> None:
    """Found by the random graphs: a transposed result has the shape that its kernel has, and is another value."""
    w = placeholder("w", (4, 4))
    with graphc.config(disable="compute_copies"):  # which computes it transposed
        assert len(kernels(optimize(frozen([w], [ops.transpose(w + w)])))) == 2


def test_nothing_to_compute() -> None:
    assert kernels(optimize(frozen([placeholder("x", (3,))], []))) == []


# large graphs


def seconds(graph: Graph) -> tuple[float, Graph]:
    """Processor time, so that what else the machine does is not counted."""
    start = time.process_time()
    result = optimize(graph)
    return time.process_time() - start, result


def chain(count: int) -> Graph:
    x = y = placeholder("x", ("n", 4))
    for _ in range(count // 2):
        y = ops.exp(y) - 1.5
    return frozen([x], [y])


def wide(count: int) -> Graph:
    x = placeholder("x", ("n", 4))
    return frozen([x], [ops.exp(x * float(i + 2)) for i in range(count // 4)])


def layers(count: int) -> Graph:
    x, w = placeholder("x", ("n", 4)), placeholder("w", (4, 4))
    y = x
    for _ in range(count // 5):
        y = ops.relu(y @ w) + ops.softplus(y)
    return frozen([x, w], [y])


@pytest.mark.parametrize("make", [chain, wide, layers])
def test_large_graphs_take_linear_time(make: Callable[[int], Graph]) -> None:
    small, _ = seconds(make(2500))
    large, graph = seconds(make(10000))
    assert large < 12 * small + 0.5, f"{small:.2f} s for 2,500 nodes, {large:.2f} s for 10,000"
    found = kernels(graph)
    assert len(found) < (4500 if make is layers else 60)


# random graphs, to the bit

STEPS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=14)
ELEMENTWISE = (
    ops.add, ops.subtract, ops.multiply, ops.divide, ops.maximum, lambda a, b: ops.where(a < b, a, b),
    lambda a, b: ops.exp(a), lambda a, b: -a, lambda a, b: ops.relu(a), lambda a, b: a * 1.0 + 0.0,
)  # fmt: skip


def random_graph(steps: list[tuple[int, int, int]], outputs: list[int]) -> Graph:
    """A graph from numbers: each step applies one of the ops to values made so far, broadcast where they must."""
    x, r, c, s, w = (
        placeholder(n, shape) for n, shape in (("x", ("n", 4)), ("r", ("n", 1)), ("c", (4,)), ("s", ()), ("w", (4, 4)))
    )
    pool: list[Tensor] = [x, r, c, s, w]
    for op, i, j in steps:
        a, b = pool[i % len(pool)], pool[j % len(pool)]
        pool.append(_applied(op, a, b))
    chosen = [pool[-1 - k % len(pool)] for k in outputs]
    return frozen([x, r, c, s, w], chosen)


def _applied(op: int, a: Tensor, b: Tensor) -> Tensor:
    if op < 10:
        try:
            return ELEMENTWISE[op](a, b)
        except ValueError:  # shapes that do not broadcast
            return ELEMENTWISE[op](a, a)
    if op < 14 and a.ndim:
        axis = (op % 2) % a.ndim
        return a.sum(axis, keepdims=op < 12) if a.shape[axis] != 4 else a.max(axis, keepdims=op < 12)
    if op == 14 and a.ndim == 2:
        return ops.transpose(a)
    if op == 15 and a.ndim == 2 and b.ndim == 2 and a.shape[1] == b.shape[0]:
        return a @ b
    if op == 16 and a.ndim == 1:
        return a.reshape((a.shape[0], 1))
    if op == 17 and a.ndim:
        return a.sum() if b.ndim % 2 == 0 else ops.expand_dims(a, 0).sum(0)
    if op == 18 and a.ndim == 2 and a.shape[1] == 4:
        return functional.softmax(a)
    return a - (a.sum() if op == 19 else 1.0)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.lists(st.integers(0, 10), min_size=1, max_size=3), st.sampled_from([0, 1, 3]), st.booleans())
def test_random_graphs_to_the_bit(steps: list[tuple[int, int, int]], outputs: list[int], n: int, fused: bool) -> None:
    graph = random_graph(steps, outputs)
    with config(verify=True, stabilize=False, disable="" if fused else "fuse"):  # the table changes bits on purpose
        result = optimize(graph)
    kernels(result)
    rng = np.random.default_rng(len(steps))
    values = np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan, 1e-40, 3e38], np.float32)
    feeds = {}
    for value in graph.inputs:
        shape = tuple(n if not isinstance(s, int) else s for s in value.type.shape)
        feeds[value] = np.where(rng.random(shape) < 0.1, rng.choice(values, shape), rng.normal(size=shape)).astype("f4")
    for a, b in zip(evaluate(graph.outputs, feeds), evaluate(result.outputs, feeds), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        keep = ~np.isnan(a)
        assert np.array_equal(keep, ~np.isnan(b)) and a[keep].tobytes() == b[keep].tobytes()
