"""Large gradients that are applied where a contraction computes them: when, in which order, and with which values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, ops, optim
from graphc.build import parameter, placeholder
from graphc.interpret import evaluate
from graphc.passes.pipeline import optimize
from tests.fusion_checks import frozen, kernels

SGD, MOMENTUM, ADAM = (lambda: optim.SGD(0.1)), (lambda: optim.SGD(0.1, momentum=0.9)), (lambda: optim.Adam(0.1))


@pytest.fixture(autouse=True)
def checked() -> object:
    """Every level verifies, and nothing comes from the cache."""
    with graphc.config(verify=True, cache=False):
        yield


class Network:
    """Two layers without biases, the second one's weights read by the backward pass of the first."""

    def __init__(self, optimiser: Callable[[], Any], inside: int = 514, outside: int = 513, tied: bool = False) -> None:
        rng = np.random.default_rng(0)
        self.x, self.y = placeholder("x", ("batch", inside)), placeholder("y", ("batch",), "int64")
        self.w = parameter("w", rng.normal(size=(inside, outside)).astype("float32") / 16)
        self.v = parameter("v", rng.normal(size=(outside, 700)).astype("float32") / 16)
        hidden = ops.relu(self.x @ self.w)
        hidden = ops.relu((hidden @ ops.transpose(self.w)) @ self.w) if tied else hidden
        self.loss = nn.functional.cross_entropy(hidden @ self.v, self.y)
        self.optimiser = optimiser()
        self.updates = self.optimiser.updates(self.loss, [self.w, self.v])

    def names(self, *outputs: Any) -> list[str]:
        state = [self.w, self.v, *self.optimiser.slots.values()]
        graph = frozen([self.x, self.y, *state], [self.loss, *outputs], self.updates)
        return [node.attrs["name"] for node in kernels(optimize(graph))]


def batch(rows: int, inside: int = 514) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    return rng.normal(size=(rows, inside)).astype("float32"), rng.integers(0, 700, rows)


def handed_over(names: list[str]) -> int:
    return sum(name.startswith("matmul") and name.endswith("update") for name in names)


def test_which_gradients_are_handed_over() -> None:
    assert handed_over(Network(SGD).names()) == 2
    assert handed_over(Network(MOMENTUM).names()) == 2
    assert handed_over(Network(ADAM).names()) == 0  # three arrays
    assert handed_over(Network(SGD, 64, 64).names()) == 0  # no memory is saved: they are small
    assert handed_over(Network(SGD, tied=True).names()) == 2  # of a sum of products, the last one adds the others
    network = Network(SGD)
    assert handed_over(network.names(graphc.grad(network.loss, network.w))) == 1  # a result of the function
    network = Network(SGD)
    gradient = graphc.grad(network.loss, network.w)
    assert handed_over(network.names((gradient * gradient).sum())) == 1  # read by something else, too


def test_a_product_that_reads_the_parameter_does_not_update_it(rng: np.random.Generator) -> None:
    x, w = placeholder("x", (600, 600)), parameter("w", rng.normal(size=(600, 600)).astype("float32") / 25)
    before = np.array(w.value)
    step = graphc.function([x], [], updates={w: w - 0.1 * (x @ w)})
    assert len(step.kernels) == 2
    a = rng.normal(size=(600, 600)).astype("float32")
    step(a)
    np.testing.assert_allclose(w.value, before - 0.1 * (a.astype(np.float64) @ before), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("optimiser", [SGD, MOMENTUM])
@pytest.mark.parametrize(("rows", "tied"), [(1, False), (7, True), (64, False)])
def test_values_are_the_interpreters(optimiser: Callable[[], Any], rows: int, tied: bool) -> None:
    network, arrays = Network(optimiser, tied=tied), batch(rows)
    for _ in range(2):
        feeds = dict(zip((network.x.ref, network.y.ref), arrays))
        state = {p.ref: np.array(p.value) for p in (network.w, network.v, *network.optimiser.slots.values())}
        wanted = evaluate([t.ref for t in network.updates.values()], {**feeds, **state})
        step = graphc.function([network.x, network.y], network.loss, updates=network.updates)
        assert handed_over([name.rsplit("_", 1)[0] for name in step.kernels]) == 2
        assert ".next" not in step.ir("program")  # all in place
        step(*arrays)
        for p, want in zip(network.updates, wanted, strict=True):
            np.testing.assert_allclose(p.value, want, rtol=1e-4, atol=1e-6)


def test_an_input_gradient_reads_the_old_value() -> None:
    """It is in the last region but for the updates: they wait, and still happen in place."""
    network, arrays = Network(SGD), batch(9)
    gradient = graphc.grad(network.loss, network.x)
    step = graphc.function([network.x, network.y], [network.loss, gradient], updates=network.updates)
    assert ".next" not in step.ir("program")
    state = {p.ref: np.array(p.value) for p in (network.w, network.v)}
    (want,) = evaluate([gradient.ref], {**dict(zip((network.x.ref, network.y.ref), arrays)), **state})
    np.testing.assert_allclose(step(*arrays)[1], want, rtol=1e-4, atol=1e-6)


def test_same_bits_for_any_number_of_threads_and_fusion() -> None:
    found = []
    for threads in (1, 2, 3):
        network = Network(MOMENTUM)
        graphc.function([network.x, network.y], network.loss, updates=network.updates, threads=threads)(*batch(33))
        found.append([np.array(p.value) for p in network.updates])
    for other in found[1:]:
        for one, more in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, more)


def test_a_failed_check_changes_nothing() -> None:
    network = Network(MOMENTUM)
    step = graphc.function([network.x, network.y], network.loss, updates=network.updates)
    before = [np.array(p.value) for p in network.updates]
    x, y = batch(20)
    y[13] = 700
    with pytest.raises(IndexError):
        step(x, y)
    for p, old in zip(network.updates, before, strict=True):
        np.testing.assert_array_equal(p.value, old)
