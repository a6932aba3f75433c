"""Graphs of 10,000 nodes: built, differentiated and optimised in seconds of CPU, and in time that grows linearly."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import graphc
from graphc import Tensor, ops
from graphc.autodiff import grad
from graphc.graph import Graph, origin_of
from graphc.passes.pipeline import optimize

Built = tuple[list[Tensor], Tensor, list[Tensor]]  # inputs, loss, wrt


def chain(count: int) -> Built:
    """A long chain of elementwise ops."""
    x = graphc.placeholder("x", (64,))
    y = x
    for k in range(count // 8):
        y = ops.tanh(y * (1.0 + k * 1e-4))
    return [x], ops.sum(y), [x]


def layers(count: int) -> Built:
    """Many layers with parameters of their own, attention and normalisation between them."""
    x = graphc.placeholder("x", ("batch", 8, 16))
    y = x
    weights: list[Tensor] = []
    for k in range(count // 130):
        w = [graphc.parameter(f"w{k}.{i}", np.zeros((16, 16), "float32")) for i in range(4)]
        weights += w
        q, key, v = (y @ a for a in w[:3])
        e = ops.exp(q @ ops.swapaxes(key, -1, -2))
        y = y + (e / ops.sum(e, axis=-1, keepdims=True) @ v) @ w[3]
        c = y - ops.mean(y, axis=-1, keepdims=True)
        y = c / ops.sqrt(ops.mean(c * c, axis=-1, keepdims=True) + 1e-5)
    return [x, *weights], ops.mean(y * y), weights


def branches(count: int) -> Built:
    """A value that thousands read, and nested conditions."""
    x = graphc.placeholder("x", (64,))
    y, total = x, ops.sum(x)
    for k in range(count // 27):
        y = ops.where(x > k * 0.1, ops.sqrt(y), y * x)
        total = total + ops.sum(ops.exp(x * (1 + k * 1e-3)))
    return [x], total + ops.sum(y), [x]


@pytest.fixture(autouse=True)
def settled() -> Iterator[None]:
    """What other tests left behind is not collected while the clock runs."""
    gc.collect()
    yield
    gc.collect()


def seconds(build: Callable[[int], Built], count: int) -> tuple[float, int]:
    """CPU time of building, differentiating and optimising, and the number of nodes."""
    start = time.process_time()
    inputs, loss, wrt = build(count)
    gradients = grad(loss, wrt)
    graph = Graph(tuple(t.ref for t in inputs), tuple(t.ref for t in (loss, *gradients)))
    optimize(graph)
    return time.process_time() - start, len(graph.order())


@pytest.mark.parametrize(("build", "count"), [(chain, 10_000), (layers, 5_000), (branches, 5_000)])
def test_time_grows_linearly_and_ten_thousand_nodes_take_seconds(build: Callable[[int], Built], count: int) -> None:
    """A busy machine may double the time of a node; a quadratic part would multiply it by five."""
    seconds(build, 500)  # imports and caches
    small, few = min(seconds(build, count // 5) for _ in range(2))
    large, many = seconds(build, count)
    assert 0.9 * count <= many <= 1.3 * count and many / few > 4
    assert large < 5.0 * count / 10_000, f"{many} nodes: {large:.2f} s"
    assert large / many < 2.5 * small / few, f"{1e3 * small / few:.3f} then {1e3 * large / many:.3f} ms a node"


def test_a_constant_of_thousands_remembers_its_first_lines_only() -> None:
    x = graphc.placeholder("x", (), "float64")
    total = x
    for _ in range(200):
        total = ops.tanh(total)
    g = grad(total, x)  # each adds 1 - y * y: one constant 1
    origins = [origin_of(node) for node in Graph((), (g.ref,)).order()]
    assert max(len(o.gradient_of) for o in origins if o is not None) <= 16
