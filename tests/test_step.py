"""Whole training steps: against the interpreter, in kernels and calls, for any batch and number of threads."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import graphc
import graphc.errors
from graphc import interpret, nn, optim
from graphc.graph import Value
from graphc.nn import functional

OPTIMISERS: dict[str, Callable[[], optim.Optimizer]] = {
    "sgd": lambda: optim.SGD(0.1),
    "momentum": lambda: optim.SGD(0.05, momentum=0.9),
    "adam": lambda: optim.Adam(1e-3),
}


class Digits:
    """The digits network (64-128-10, ReLU, cross-entropy) and its step."""

    def __init__(self, optimiser: str = "adam", dtype: str = "float32", hidden: int = 128) -> None:
        rng = np.random.default_rng(3)
        self.x = graphc.placeholder("x", ("batch", 64), dtype)
        self.y = graphc.placeholder("y", ("batch",), "int64")
        shapes = {"w1": (64, hidden), "b1": (hidden,), "w2": (hidden, 10), "b2": (10,)}
        w1, b1, w2, b2 = (
            graphc.parameter(name, (rng.standard_normal(shape) / 8).astype(dtype)) for name, shape in shapes.items()
        )
        self.weights = [w1, b1, w2, b2]
        self.logits = graphc.relu(self.x @ w1 + b1) @ w2 + b2
        self.loss = functional.cross_entropy(self.logits, self.y)
        self.optimiser = OPTIMISERS[optimiser]()
        self.updates = self.optimiser.updates(self.loss, self.weights)

    def compiled(self) -> graphc.Function:
        return graphc.function([self.x, self.y], self.loss, updates=self.updates, name="step")

    def interpreted(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """One step through the NumPy references."""
        feeds = {self.x.ref: images, self.y.ref: labels}
        values: list[Value] = [self.loss.ref, *(t.ref for t in self.updates.values())]
        loss, *new = interpret.evaluate(values, feeds)
        for parameter, array in zip(self.updates, new, strict=True):
            parameter.value = array
        return loss

    def state(self) -> dict[str, np.ndarray]:
        return {str(p.name): np.array(p.value) for p in self.updates}


def batch(size: int, dtype: str = "float32", seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng((size, seed))
    return rng.standard_normal((size, 64)).astype(dtype), rng.integers(0, 10, size)


@functools.cache
def interpreted_losses(optimiser: str, dtype: str) -> tuple[list[float], dict[str, np.ndarray]]:
    model = Digits(optimiser, dtype)
    losses = [float(model.interpreted(*batch(128, dtype, n % 7))) for n in range(100)]
    return losses, model.state()


def compiled_losses(optimiser: str, dtype: str) -> tuple[list[float], dict[str, np.ndarray]]:
    model = Digits(optimiser, dtype)
    step = model.compiled()
    return [float(step(*batch(128, dtype, n % 7))) for n in range(100)], model.state()


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_hundred_steps_in_float64_are_the_interpreters(optimiser: str) -> None:
    losses, state = compiled_losses(optimiser, "float64")
    wanted, parameters = interpreted_losses(optimiser, "float64")
    np.testing.assert_allclose(losses, wanted, rtol=1e-10)
    for name, array in parameters.items():
        scale = float(np.abs(array).max())
        np.testing.assert_allclose(state[name], array, rtol=1e-10, atol=1e-10 * scale, err_msg=name)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_hundred_steps_in_float32_stay_as_close_as_the_interpreter(optimiser: str) -> None:
    losses, _ = compiled_losses(optimiser, "float32")
    own, _ = interpreted_losses(optimiser, "float32")
    exact, _ = interpreted_losses(optimiser, "float64")
    np.testing.assert_allclose(losses, own, rtol=1e-3)
    distance = np.abs(np.array(losses) - exact).max()
    assert distance <= 3 * np.abs(np.array(own) - exact).max()


def test_the_adam_step_is_eight_kernels_and_one_native_call() -> None:
    step = Digits().compiled()
    assert len(step.kernels) <= 8
    assert len(re.findall(r"^define ", step.ir("llvm"), re.MULTILINE)) == len(step.kernels)
    before = step.native_calls
    step(*batch(128))
    assert step.native_calls == before + 1


def test_any_batch_compiles_nothing_and_agrees() -> None:
    model, other = Digits(), Digits()
    step = model.compiled()
    step(*batch(128))
    other.interpreted(*batch(128))
    for size in (0, 1, 61, 128, 1000):
        before = {p: np.array(p.value) for p in model.updates}
        for p, q in zip(model.updates, other.updates, strict=True):
            q.value = p.value
        loss, wanted = step(*batch(size)), other.interpreted(*batch(size))
        np.testing.assert_allclose(loss, wanted, rtol=1e-5)
        if size == 0:  # the mean over no rows is nan, and so is nothing else than what the interpreter has
            assert np.isnan(loss)
        for p, q in zip(model.updates, other.updates, strict=True):
            np.testing.assert_allclose(p.value, q.value, rtol=2e-3, atol=2e-6, err_msg=f"{p.name}, batch {size}")
            p.value = before[p]
    assert step.compile_count == 1


def test_learning_rate_changes_the_next_step_and_compiles_nothing() -> None:
    model = Digits("sgd")
    step = model.compiled()
    model.optimiser.lr.value = 0.0  # type: ignore[union-attr]
    before = model.state()
    step(*batch(32))
    assert all(np.array_equal(before[name], array) for name, array in model.state().items())
    model.optimiser.lr.value = 0.5  # type: ignore[union-attr]
    step(*batch(32))
    assert not np.array_equal(before["w1"], model.state()["w1"])
    assert step.compile_count == 1


def test_same_bits_for_any_number_of_threads_and_on_every_run() -> None:
    seen = set()
    for threads in (1, 2, 3, 2):
        model = Digits()
        step = model.compiled()
        with graphc.config(num_threads=threads):
            losses = [step(*batch(1000, seed=n)).tobytes() for n in range(5)]
        seen.add((*losses, *(array.tobytes() for array in model.state().values())))
    assert len(seen) == 1


def test_a_label_out_of_range_changes_no_parameter() -> None:
    model = Digits()
    step = model.compiled()
    images, labels = batch(64)
    before = model.state()
    for position, wrong in ((5, 10), (60, -1)):
        bad = labels.copy()
        bad[position] = wrong
        with pytest.raises(graphc.errors.IndexRangeError) as caught:
            step(images, bad)
        text = str(caught.value)
        assert "take_along_axis" in text and str(wrong) in text and "functional.cross_entropy" in text
        assert all(np.array_equal(before[name], array) for name, array in model.state().items())
    assert np.isfinite(step(images, labels))


def test_the_modules_call_nothing_outside(tmp_path: Path) -> None:
    with graphc.config(cache_dir=tmp_path):
        step = Digits().compiled()
    declared = set(re.findall(r"^declare [^@]*@([\w.]+)", step.ir("llvm"), re.MULTILINE))
    assert all(name.startswith("llvm.") for name in declared), declared
    called = set(re.findall(r"\b(?:call|callq|jmp)\s+([A-Za-z_][\w.]*)(?:@PLT)", step.ir("asm")))
    assert called <= {"memcpy", "memset"}, called


def test_levels_are_those_of_the_code_that_runs_also_from_the_cache(tmp_path: Path) -> None:
    with graphc.config(cache_dir=tmp_path):
        first, second = Digits().compiled(), Digits().compiled()
    assert first.kernels == second.kernels
    for level in ("graph", "optimized", "program", "loops", "llvm", "asm"):
        assert first.ir(level) == second.ir(level)
    for name in second.kernels:
        assert f"define i32 @{name}(" in second.ir("llvm") and f"{name}:" in second.ir("asm")
    losses = [function(*batch(64)) for function in (first, second)]
    assert losses[0] == losses[1]


def test_linear_and_logistic_regression_train() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((256, 5)).astype("float32")
    truth = rng.standard_normal(5).astype("float32")
    x, t = graphc.placeholder("x", ("n", 5)), graphc.placeholder("t", ("n",))
    for loss_of, targets in (
        (functional.mse_loss, features @ truth),
        (functional.binary_cross_entropy_with_logits, (features @ truth > 0).astype("float32")),
    ):
        w = graphc.parameter("w", np.zeros(5, "float32"))
        loss = loss_of(x @ w, t)
        step = graphc.function([x, t], loss, updates=optim.SGD(0.1, momentum=0.9).updates(loss, [w]))
        losses = [float(step(features, targets)) for _ in range(100)]
        assert losses[-1] < 0.2 * losses[0]


def test_modules_train_through_the_same_step() -> None:
    model = nn.Sequential(nn.Linear(64, 32, generator=0), nn.ReLU(), nn.Linear(32, 10, generator=1))
    x, y = graphc.placeholder("x", ("n", 64)), graphc.placeholder("y", ("n",), "int64")
    loss = functional.cross_entropy(model(x), y)
    step = graphc.function([x, y], loss, updates=optim.Adam(1e-2).updates(loss, model.parameters()))
    images, labels = batch(200)
    losses = [float(step(images, labels)) for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]


def test_an_error_from_the_cache_names_the_lines_of_this_program(tmp_path: Path) -> None:
    """Two functions of one graph, built on different lines: the second comes from the cache, with its own line."""
    x, y = graphc.placeholder("x", ("n", 4)), graphc.placeholder("y", ("n", 1), "int64")

    def picked() -> graphc.Function:
        with graphc.config(cache_dir=tmp_path):
            return graphc.function([x, y], graphc.take_along_axis(x * 2.0, y, axis=1))

    picked()
    x = graphc.placeholder("x", ("n", 4))  # the same text, another graph
    found = picked()
    with pytest.raises(graphc.errors.IndexRangeError, match=r"index 4 at y\[2, 0\].*(\n.*)*test_step.py:\d+: return"):
        found(np.zeros((3, 4), "float32"), np.array([[0], [1], [4]]))
