"""Optimisers against their formulas written out in NumPy, their state, and their messages."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

import graphc
from graphc.build import Parameter, Tensor, parameter, placeholder
from graphc.errors import ArgumentError, DTypeError, GradientError, ShapeError
from graphc.optim import SGD, Adam, AdamW, Optimizer, clip_grad_norm

RNG = np.random.default_rng(8)
TARGETS = np.random.default_rng(5).normal(size=(30, 4))
Formula = Callable[[np.ndarray, np.ndarray, dict[str, np.ndarray], int], np.ndarray]


def interpreted(updates: Mapping[Parameter, Tensor], feeds: Mapping[Tensor, np.ndarray]) -> None:
    """One step through the interpreter: all new values first, then the assignments."""
    values = {old: new.eval(feeds) for old, new in updates.items()}
    for old, value in values.items():
        old.value = value


def trained(optimizer: Optimizer, dtype: str = "float64") -> list[np.ndarray]:
    """The parameter after each step on sum((w - target)**2) / 2, whose gradient is w - target."""
    w = parameter("w", np.linspace(-1, 1, 4).astype(dtype))
    target = placeholder("target", (4,), dtype)
    difference = w - target
    updates = optimizer.updates(0.5 * (difference * difference).sum(), [w])
    path = []
    for row in TARGETS.astype(dtype):
        interpreted(updates, {target: row})
        path.append(w.value.copy())
    return path


def expected(formula: Formula) -> list[np.ndarray]:
    w, state, path = np.linspace(-1, 1, 4), {"m": np.zeros(4), "v": np.zeros(4)}, []
    for t, row in enumerate(TARGETS, start=1):
        w = formula(w, w - row, state, t)
        path.append(w)
    return path


def sgd(momentum: float = 0, nesterov: bool = False, decay: float = 0) -> Formula:
    def step(w: np.ndarray, g: np.ndarray, state: dict[str, np.ndarray], t: int) -> np.ndarray:
        g = g + decay * w
        if momentum:
            state["m"] = g if t == 1 else momentum * state["m"] + g  # PyTorch starts the buffer with the gradient
            g = g + momentum * state["m"] if nesterov else state["m"]
        return w - 0.1 * g

    return step


def adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, decay: float = 0, decoupled: bool = False) -> Formula:
    def step(w: np.ndarray, g: np.ndarray, state: dict[str, np.ndarray], t: int) -> np.ndarray:
        if decoupled:
            w = w * (1 - 0.1 * decay)
        else:
            g = g + decay * w
        state["m"] = b1 * state["m"] + (1 - b1) * g
        state["v"] = b2 * state["v"] + (1 - b2) * g**2
        return w - 0.1 * (state["m"] / (1 - b1**t)) / (np.sqrt(state["v"] / (1 - b2**t)) + eps)

    return step


@pytest.mark.parametrize(
    ("optimizer", "formula"),
    [
        (lambda: SGD(lr=0.1), sgd()),
        (lambda: SGD(lr=0.1, weight_decay=0.3), sgd(decay=0.3)),
        (lambda: SGD(lr=0.1, momentum=0.9), sgd(0.9)),
        (lambda: SGD(lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.2), sgd(0.8, True, 0.2)),
        (lambda: Adam(lr=0.1), adam()),
        (lambda: Adam(lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.3), adam(0.5, 0.9, 1e-3, 0.3)),
        (lambda: Adam(lr=0.1, betas=(0.0, 0.9)), adam(0.0, 0.9)),
        (lambda: AdamW(lr=0.1), adam(decay=0.01, decoupled=True)),
        (lambda: AdamW(lr=0.1, weight_decay=0.5), adam(decay=0.5, decoupled=True)),
    ],
    ids=["sgd", "sgd-decay", "momentum", "nesterov-decay", "adam", "adam-all", "adam-beta1-0", "adamw", "adamw-decay"],
)
def test_formula(optimizer: Callable[[], Optimizer], formula: Formula) -> None:
    for ours, numpys in zip(trained(optimizer()), expected(formula), strict=True):
        np.testing.assert_allclose(ours, numpys, rtol=1e-11, atol=1e-13)


def test_float32_parameters_stay_close_and_stay_float32() -> None:
    path = trained(Adam(lr=0.1), "float32")
    assert path[-1].dtype == np.float32
    np.testing.assert_allclose(path[-1], expected(adam())[-1], rtol=1e-4)


def test_the_first_step_of_adam_moves_by_lr_to_the_last_digit() -> None:
    """1 - beta2**1 loses digits in float32; the corrections are computed in float64."""
    w = parameter("w", np.array([0.0], "float32"))
    optimizer = Adam(lr=1e-3, eps=0.0)
    interpreted(optimizer.updates((w * 2.0).sum(), [w]), {})
    np.testing.assert_allclose(w.value, [-1e-3], rtol=3e-7)


def test_state_has_pytorchs_names_and_dtypes() -> None:
    w, b = parameter("fc.w", np.ones((3, 2), "float32")), parameter("b", np.ones(2))
    loss = (w * w).sum() + (b * b).sum()
    optimizer = Adam(lr=0.01)
    updates = optimizer.updates(loss, [w, b])
    names = ["adam.lr", "adam.step", "adam.exp_avg.fc.w", "adam.exp_avg_sq.fc.w", "adam.exp_avg.b", "adam.exp_avg_sq.b"]
    assert [slot.name for slot in optimizer.slots.values()] == names
    assert {key.name for key in updates} == {*names[1:], "fc.w", "b"}
    assert all(new.type == old.type for old, new in updates.items())
    assert str(optimizer.slots["exp_avg.fc.w"].type) == "f32[3,2]" and str(optimizer.slots["step"].type) == "f64[]"
    momentum = SGD(lr=0.1, momentum=0.5, name="inner")
    momentum.updates(loss, [w])
    assert [slot.name for slot in momentum.slots.values()] == ["inner.lr", "inner.momentum_buffer.fc.w"]


def test_one_optimiser_keeps_its_slots_over_several_updates() -> None:
    w = parameter("w", np.ones(2))
    optimizer = Adam(lr=0.1)
    first = optimizer.updates((w * w).sum(), [w])
    second = optimizer.updates((3.0 * w).sum(), [w])
    assert set(map(id, first)) == set(map(id, second))
    interpreted(first, {})
    interpreted(second, {})
    assert optimizer.slots["step"].value == 2


def test_the_learning_rate_is_a_parameter_or_a_tensor() -> None:
    w, optimizer = parameter("w", np.array([1.0])), SGD(lr=0.5)
    updates = optimizer.updates(w.sum(), [w])
    interpreted(updates, {})
    assert isinstance(optimizer.lr, Parameter)
    optimizer.lr.value = 0.25
    interpreted(updates, {})
    assert w.value == 0.25
    optimizer.lr = 0.125
    interpreted(updates, {})
    assert w.value == 0.125 and optimizer.slots["lr"].value == 0.125
    w.value = [0.25]
    rate = placeholder("rate", (), "float64")
    scheduled = SGD(lr=rate)
    assert scheduled.lr is rate and "lr" not in scheduled.slots
    interpreted(scheduled.updates(w.sum(), [w]), {rate: np.float64(0.125)})
    assert w.value == 0.125


def test_gradients_of_ones_own() -> None:
    w = parameter("w", np.array([1.0, 2.0]))
    interpreted(SGD(lr=1.0).updates_from({w: w * 0.5}), {})
    np.testing.assert_array_equal(w.value, [0.5, 1.0])
    with pytest.raises(ShapeError, match=r"sgd: the gradient of w is f64\[\], the parameter f64\[2\]"):
        SGD(lr=1.0).updates_from({w: w.sum()})


def test_state_dict_goes_round() -> None:
    def fresh() -> tuple[Parameter, Adam, dict[Parameter, Tensor]]:
        w, optimizer = parameter("w", np.array([1.0, -2.0])), Adam(lr=0.1)
        return w, optimizer, optimizer.updates((w * w).sum(), [w])

    w, optimizer, updates = fresh()
    for _ in range(3):
        interpreted(updates, {})
    state, value = optimizer.state_dict(), w.value.copy()
    assert state["step"] == 3 and state["lr"] == 0.1 and list(state) == ["lr", "step", "exp_avg.w", "exp_avg_sq.w"]
    interpreted(updates, {})
    assert state["step"] == 3, "a state dict is a copy"
    again, other, other_updates = fresh()
    again.value = value
    other.load_state_dict(state)
    interpreted(other_updates, {})
    np.testing.assert_array_equal(again.value, w.value)
    with pytest.raises(ArgumentError, match="adam.load_state_dict: the keys do not fit: missing exp_avg_sq.w"):
        other.load_state_dict({key: array for key, array in state.items() if key != "exp_avg_sq.w"})
    with pytest.raises(ArgumentError, match="the slots exist once updates"):
        Adam().load_state_dict(state)


def test_an_assigned_learning_rate_reaches_the_step_that_is_compiled() -> None:
    w, optimizer = parameter("w", np.array([4.0])), Adam(lr=1.0)
    step = graphc.function([], [], updates=optimizer.updates(w.sum(), [w]))
    held = optimizer.lr
    for rate in (0.5, np.float32(0.25), 1):
        before, optimizer.lr = w.value.copy(), rate
        step()
        np.testing.assert_allclose(before - w.value, rate, rtol=1e-6)
    assert optimizer.lr is held and held.value == 1.0
    for wrong, message in ((-1.0, "at least 0"), ("0.1", "a number, not '0.1'"), ([1, 2], "a number")):
        with pytest.raises(ArgumentError, match=f"adam: lr must be {message}"):
            optimizer.lr = wrong
    with pytest.raises(ArgumentError, match=r"adam: lr is assigned a number, not w \(f64\[1\]\)"):
        optimizer.lr = w
    assert held.value == 1.0
    scheduled = SGD(lr=0.5 * placeholder("rate", (), "float64"))
    with pytest.raises(ArgumentError, match=r"sgd: lr is result of multiply \(f64\[\]\), which the step computes"):
        scheduled.lr = 0.1


@pytest.mark.parametrize("size", [0.01, 1.0, 300.0])
def test_clipped_gradients(size: float) -> None:
    a, b = size * RNG.normal(size=(3, 5)), (size * RNG.normal(size=4)).astype("float32")
    w, v = parameter("w", np.zeros((3, 5))), parameter("v", np.zeros(4, "float32"))
    x, y = placeholder("x", (3, 5), "float64"), placeholder("y", (4,), "float32")
    clipped, norm = clip_grad_norm({w: x, v: y}, 2.0)
    found, both = graphc.function([x, y], [norm, [clipped[w], clipped[v]]])(a, b)
    expected = np.sqrt((a * a).sum() + (b.astype("float64") ** 2).sum())
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for got, whole in zip(both, (a, b)):
        assert got.dtype == whole.dtype
        np.testing.assert_allclose(got, whole * min(1, 2 / (expected + 1e-6)), rtol=1e-6)
        assert expected > 2 or np.array_equal(got, whole)  # small ones are not touched


def test_clipping_adds_up_narrow_floats_as_float32_and_passes_nan_on() -> None:
    w = parameter("w", np.zeros(4, "float16"))
    x = placeholder("x", (4,), "float16")
    clipped, norm = clip_grad_norm({w: x}, 2.0)
    step = graphc.function([x], [norm, clipped[w]])
    large, cut = step(np.full(4, 1000, "float16"))  # its square is no float16
    assert large == 2000 and cut.dtype == np.float16 and np.array_equal(cut, np.ones(4))
    assert np.isnan(step(np.array([np.nan, 1, 1, 1], "float16"))[1]).all()


def test_messages() -> None:
    w, n = parameter("w", np.ones(2)), parameter("n", np.ones(2, "int64"))
    loss = (w * w).sum()
    with pytest.raises(ArgumentError, match=r"adam: betas\[1\] must be in \[0, 1\), not 1.0"):
        Adam(betas=(0.9, 1.0))
    with pytest.raises(ArgumentError, match="sgd: lr must be at least 0, not nan"):
        SGD(lr=float("nan"))
    with pytest.raises(ArgumentError, match="sgd: momentum must be a number, not 'high'"):
        SGD(momentum="high")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="adam: eps must be a number, not None"):
        Adam(eps=None)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="nesterov needs a momentum above 0"):
        SGD(nesterov=True)
    with pytest.raises(ShapeError, match=r"lr must be a float or a scalar of floats, not f64\[2\]"):
        SGD(lr=w)
    with pytest.raises(ArgumentError, match="there are no parameters to train"):
        SGD().updates(loss, [])
    with pytest.raises(ArgumentError, match="two parameters are called w\n.*\n.*hint: the names of slots"):
        SGD().updates(loss, [w, parameter("w", np.ones(2))])
    with pytest.raises(ArgumentError, match=r"sgd: result of multiply \(f64\[2\]\) is not a parameter"):
        SGD().updates(loss, [w * 2.0])  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match=r"the parameters are a list, not w \(f64\[2\]\)\n(.*\n)*.*write \[w\]"):
        SGD().updates(loss, w)  # type: ignore[arg-type]
    for betas in (0.9, (0.9,)):
        with pytest.raises(ArgumentError, match="adam: betas are two numbers, not .*0.9"):
            Adam(betas=betas)  # type: ignore[arg-type]
    hint = r"Adam: the first argument is the learning rate,(.*\n)*.*write Adam\(lr=...\).updates\(loss, parameters\)"
    for parameters in ([w], iter([w]), {"w": w}):
        with pytest.raises(ArgumentError, match=hint):
            Adam(parameters, lr=0.1)  # type: ignore[misc, arg-type]
    with pytest.raises(ArgumentError, match=r"sgd: gradients are a dict(.*\n)*.*dict\(zip\(parameters, graphc"):
        SGD().updates_from([w])  # type: ignore[arg-type]
    for gradients in ([w], {}):
        with pytest.raises(ArgumentError, match=r"clip_grad_norm: gradients are a dict(.*\n)*.*dict\(zip\(param"):
            clip_grad_norm(gradients, 1.0)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="clip_grad_norm: max_norm must be at least 0, not -1.0"):
        clip_grad_norm({w: w}, -1.0)
    with pytest.raises(DTypeError, match=r"sgd: n is i64\[2\]: only floats can be trained"):
        SGD().updates(loss, [n])
    with pytest.raises(GradientError):
        SGD().updates(loss, [parameter("apart", np.ones(2))])
    with pytest.raises(GradientError):
        SGD().updates(w * w, [w])


@pytest.mark.parametrize("make", [lambda: SGD(lr=0.5, momentum=0.5), lambda: Adam(lr=0.5), lambda: AdamW(lr=0.5)])
def test_a_compiled_step_reads_the_learning_rate_at_each_call(make: Callable[[], Optimizer]) -> None:
    """`opt.lr.value` changes the next step and compiles nothing; compiled and interpreted steps agree."""
    x = placeholder("x", ("n", 1), "float64")
    w, twin = (parameter("w", np.array([[2.0]])) for _ in range(2))
    optimizer, other = make(), make()
    loss, twin_loss = (((x @ p) * (x @ p)).mean() for p in (w, twin))
    step = graphc.function([x], loss, updates=optimizer.updates(loss, [w]))
    updates = other.updates(twin_loss, [twin])
    kernels = step.kernels
    for rate in (0.5, 0.25, 0.0, 1.0):
        for one in (optimizer, other):
            assert isinstance(one.lr, Parameter)
            one.lr.value = rate
        before = w.value.copy()
        data = np.full((3, 1), 0.75)
        expected_loss = twin_loss.eval({x: data})
        np.testing.assert_allclose(step(data), expected_loss, rtol=1e-14)
        interpreted(updates, {x: data})
        np.testing.assert_allclose(w.value, twin.value, rtol=1e-13)
        assert (w.value == before).all() == (rate == 0)
    assert step.compile_count == 1 and step.kernels == kernels and step.native_calls == 4


def test_a_computed_scalar_behind_a_matmul() -> None:
    """The epilogue of a matmul holds no scalars of its own: they are computed in front of it."""
    x, w = placeholder("x", ("n", 3), "float32"), parameter("w", np.ones((3, 4), "float32"))
    rate = parameter("rate", np.float64(2))
    scaled = graphc.function([x], (x @ w) * graphc.sqrt(rate).astype("float32"))
    data = np.arange(6, dtype="float32").reshape(2, 3)
    np.testing.assert_array_equal(scaled(data), (data @ w.value) * np.float32(np.sqrt(2)))
