"""What functions share: parameters updated in place or not, locks, forks, and calls that call back."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.compile import Function
from graphc.errors import InternalError

N = 6


def square(name: str, seed: int) -> graphc.Parameter:
    return graphc.parameter(name, np.random.default_rng(seed).standard_normal((N, N)))


FORMULAS: dict[str, tuple[Any, bool]] = {
    "itself": (lambda p, q: p * 0.5 + 1.0, True),
    "another": (lambda p, q: p - q, True),
    "transposed": (lambda p, q: p + p.T, False),
    "reversed": (lambda p, q: p[::-1] * 2.0, False),
    "product": (lambda p, q: p @ p, False),
    "first row": (lambda p, q: p * p[0], False),
    "row sums": (lambda p, q: p - p.sum(axis=1, keepdims=True), None),
    "column sums": (lambda p, q: p - p.sum(axis=0, keepdims=True), None),
    "total": (lambda p, q: p / (p * p).sum(), None),
    "copied": (lambda p, q: q, True),
    "behind a product": (lambda p, q: p.T @ q + p, True),
}


def run(updates: dict[Any, Any]) -> tuple[Function, list[np.ndarray], list[np.ndarray]]:
    """The function, what its parameters are after one call, and what the interpreter says."""
    wanted = [new.eval({}) for new in updates.values()]
    step = graphc.function([], (), updates=updates)
    step()
    return step, [np.array(p.value) for p in updates], wanted


@pytest.mark.parametrize("formula", FORMULAS)
def test_an_update_reads_only_old_values(formula: str) -> None:
    p, q = square("p", 1), square("q", 2)
    make, in_place = FORMULAS[formula]
    step, found, wanted = run({p: make(p, q)})
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-12)
    if in_place is not None:
        assert (("p", "p") in step.program.updates) == in_place


@pytest.mark.parametrize("first", FORMULAS)
@pytest.mark.parametrize("second", ["itself", "another", "transposed", "product", "row sums", "copied"])
def test_two_updates_read_only_old_values(first: str, second: str) -> None:
    p, q = square("p", 1), square("q", 2)
    _, found, wanted = run({p: FORMULAS[first][0](p, q), q: FORMULAS[second][0](q, p)})
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_another_reader_in_the_same_region_keeps_an_update_out_of_place() -> None:
    """Both kernels could run at once, so neither may write what the other reads."""
    p, q = square("p", 1), square("q", 2)
    step, found, wanted = run({p: p * 2.0, q: q + p.T})
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])
    assert ("p", "p") not in step.program.updates and ("q", "q") in step.program.updates


def test_an_argument_may_call_the_function_that_it_is_passed_to() -> None:
    x = graphc.placeholder("x", (3,), "float64")
    double = graphc.function([x], x * 2.0)

    class Calls:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.asarray(double(np.ones(3)))

    assert double(Calls()).tolist() == [4.0, 4.0, 4.0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons warn of forking with threads: the case here
def test_functions_of_one_parameter_exclude_each_other_in_a_forked_child() -> None:
    count = graphc.parameter("count", np.zeros(2000))
    steps = [graphc.function([], (), updates={count: count + step}) for step in (1.0, 2.0)]
    for step in steps:
        step()
    child = os.fork()
    if child == 0:
        threads = [threading.Thread(target=lambda s=s: [s() for _ in range(500)]) for s in (*steps, *steps)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        shared = steps[0]._executable._locks[0] is steps[1]._executable._locks[0]
        os._exit(0 if shared and (count.value == 3 + 2 * 500 * 3).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_bug_of_ours_leaves_a_reproducer(monkeypatch: pytest.MonkeyPatch) -> None:
    x = graphc.placeholder("x", (3,))

    def broken(*args: Any) -> Any:
        raise InternalError("a broken pass")

    monkeypatch.setattr("graphc.passes.pipeline.optimize", broken)
    with graphc.config(cache=False), pytest.raises(InternalError, match="broken pass") as caught:
        graphc.function([x], x + 1)
    path = Path(str(caught.value).rsplit("reproducer: ", 1)[1])
    assert graphc.text.parse(path.read_text()).outputs[0].op.name == "add"
    path.unlink()


def test_equal_layers_are_lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty steps of a recurrence take the lowering of a few; the kernels are those of lowering each."""
    from graphc.loops import lower as lowering

    counted = []
    real = lowering.lower_contraction

    def counting(name: str, *more: Any) -> Any:
        counted.append(name)
        return real(name, *more)

    monkeypatch.setattr(lowering, "lower_contraction", counting)
    w = graphc.parameter("w", np.eye(8, dtype="float32") / 2)
    x = h = graphc.placeholder("x", ("n", 8))
    for _ in range(50):
        h = graphc.tanh(h @ w)
    with graphc.config(cache=False):
        step = graphc.function([x], h)
    expected = value = np.linspace(-1, 1, 24, dtype="float32").reshape(3, 8)
    for _ in range(50):
        expected = np.tanh(expected / 2)
    np.testing.assert_allclose(step(value), expected, rtol=1e-5, atol=1e-7)
    assert len(step.program.regions) == 50 and len(counted) <= 4 and len(step.kernels) == 1
