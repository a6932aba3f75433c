"""`checkpoint` and `custom_vjp`: the same bits, less memory, gradients as said, to any order."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import Tensor, ops
from graphc.errors import ArgumentError, GradientError
from graphc.graph import RECOMPUTED, Graph
from graphc.passes.pipeline import optimize
from graphc.text import canonical_text, parse
from tests.array_checks import differentiable


def block(h: Tensor, w: Tensor, v: Tensor) -> Tensor:
    return h + ops.tanh(ops.relu(h @ w) @ v)


def network(layer: Callable[..., Tensor], count: int = 6) -> tuple[Tensor, Tensor, list[Tensor]]:
    """x, a loss of `count` residual blocks, their parameters."""
    rng = np.random.default_rng(4)
    x = h = graphc.placeholder("x", ("batch", 16))
    weights: list[Tensor] = []
    for k in range(count):
        w = graphc.parameter(f"w{k}", rng.standard_normal((16, 64)).astype("float32") / 4)
        v = graphc.parameter(f"v{k}", rng.standard_normal((64, 16)).astype("float32") / 8)
        h, weights = layer(h, w, v), [*weights, w, v]
    return x, ops.mean(h * h), weights


def peak(function: Any, batch: int) -> int:
    """Bytes of temporaries that are alive at once, at most."""
    alive = [0] * len(function.program.regions)
    for buffer in function.program.buffers.values():
        if buffer.kind == "temp":
            size = graphc.types.evaluate(buffer.type.nbytes, {"batch": batch})
            for region in range(buffer.first, min(buffer.last + 1, len(alive))):
                alive[region] += size
    return max(alive)


def trained(layer: Callable[..., Tensor]) -> tuple[Any, list[np.ndarray]]:
    x, loss, weights = network(layer)
    step = graphc.function([x], [loss, *graphc.grad(loss, weights)])
    return step, step(np.random.default_rng(5).standard_normal((40, 16)).astype("float32"))


def test_checkpoints_give_the_same_bits_in_less_memory() -> None:
    with graphc.config(verify=True, cache=False):
        plain, expected = trained(block)
        marked, found = trained(graphc.checkpoint(block))
    for actual, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)
    assert peak(marked, 40) < 0.6 * peak(plain, 40)
    with graphc.config(disable="fuse", cache=False):
        for actual, wanted in zip(trained(graphc.checkpoint(block))[1], trained(block)[1], strict=True):
            np.testing.assert_array_equal(actual, wanted)


def test_no_pass_merges_what_is_computed_again() -> None:
    x, loss, weights = network(graphc.checkpoint(lambda h, w, v: block(h, w, v) + (h + h.sum())), 2)
    gradients = graphc.grad(loss, weights)
    graph = Graph((x.ref, *(w.ref for w in weights)), tuple(t.ref for t in (loss, *gradients)))
    inner = [n for kernel in optimize(graph).order() if kernel.op.name == "kernel"
             for n in kernel.attrs["graph"].order()]  # fmt: skip
    assert sum(n.op.name == "tanh" for n in inner) == 4
    assert sum(n.op.name == "tanh" and n.attrs.get(RECOMPUTED) == 1 for n in inner) == 2
    merged, _, _ = network(graphc.checkpoint(block, prevent_cse=False), 2)
    assert merged.type == x.type


def test_a_checkpoint_without_a_gradient_costs_nothing() -> None:
    def kernels(layer: Any) -> list[str]:
        x, loss, weights = network(layer, 2)
        return [n.attrs.get("name") for n in optimize(Graph((x.ref, *(w.ref for w in weights)), (loss.ref,))).order()]

    assert kernels(graphc.checkpoint(block)) == kernels(block)


def test_what_a_policy_keeps_is_not_computed_again() -> None:
    def count(policy: Any) -> int:
        _, loss, weights = network(graphc.checkpoint(block, policy=policy), 2)
        gradients = graphc.grad(loss, weights)
        order = Graph((), tuple(t.ref for t in (loss, *gradients))).order()
        return sum(node.op.name == "matmul" and RECOMPUTED in node.attrs for node in order)

    assert count(None) == 4 and count(lambda node: node.op.name == "matmul") == 0


SCALE = graphc.constant(np.array([0.5, -1.5, 2.0]))


@graphc.checkpoint
def inner(x: Tensor) -> Tensor:
    return ops.exp(ops.sin(x) * SCALE)


CHECKPOINTED: dict[str, Callable[[Tensor], Tensor]] = {
    "once": lambda x: graphc.checkpoint(lambda y: ops.tanh(y) * y)(x).sum(),
    "nested": lambda x: graphc.checkpoint(lambda y: inner(y * y) + inner(y))(x).sum(),
    "a tensor from outside": lambda x: (lambda z: graphc.checkpoint(lambda y: ops.exp(y * z) * z)(x).sum())(x * x),
    "a stable pair across the border": lambda x: ops.log(graphc.checkpoint(lambda y: ops.exp(y))(x).sum()),
    "two results": lambda x: sum(graphc.checkpoint(lambda y: (ops.sin(y), ops.cos(y) * y))(x), start=0.0 * x).sum(),
    "a branch not taken": lambda x: graphc.checkpoint(lambda y: ops.where(y > 9, ops.sqrt(y - 9), y * y * y))(x).sum(),
}


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_gradients_to_second_order_in_all_directions(name: str) -> None:
    f = CHECKPOINTED[name]
    x = graphc.placeholder("x", (3,), "float64")
    value = np.array([0.3, -0.7, 1.1])
    (first,) = graphc.grad(f(x), [x])
    direction = np.array([0.2, 0.9, -0.4])
    step = 1e-5
    ahead, behind = (f(x).eval({x: value + s * step * direction}) for s in (1, -1))
    np.testing.assert_allclose((first.eval({x: value}) * direction).sum(), (ahead - behind) / (2 * step), rtol=1e-6)
    along = graphc.jvp(f(x), x, direction).eval({x: value})
    np.testing.assert_allclose(along, (ahead - behind) / (2 * step), rtol=1e-6)
    matrix = graphc.hessian(f(x), x).eval({x: value})
    up, down = (first.eval({x: value + s * step * direction}) for s in (1, -1))
    np.testing.assert_allclose(matrix @ direction, (up - down) / (2 * step), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(graphc.hvp(f(x), x, direction).eval({x: value}), matrix @ direction, rtol=1e-10)
    np.testing.assert_allclose(graphc.function([x], first)(value), first.eval({x: value}), rtol=1e-12)


def test_checkpoint_of_arrays_nests_and_static_arguments() -> None:
    @graphc.checkpoint
    def f(pair: dict[str, Any], power: int) -> dict[str, Any]:
        return {"y": pair["a"] ** power + pair["b"]}

    given = {"a": np.array([1.0, 2.0]), "b": np.array([0.5, 0.5])}
    np.testing.assert_array_equal(f(given, 3)["y"], [1.5, 8.5])
    found = graphc.grad(lambda p: f(p, 3)["y"].sum())(given)
    np.testing.assert_array_equal(found["a"], [3.0, 12.0])
    static = graphc.checkpoint(lambda x, mode: ops.sin(x) if mode == "sin" else x, static_argnums=1)
    np.testing.assert_array_equal(static(np.array([0.0, 1.0]), "sin"), np.sin([0.0, 1.0]))
    with pytest.raises(ArgumentError, match="checkpoint: there is no argument 2: it was called with 1"):
        graphc.checkpoint(ops.sin, static_argnums=2)(1.0)
    jitted = graphc.jit(graphc.grad(graphc.checkpoint(lambda x: ops.exp(x).sum())))
    np.testing.assert_allclose(jitted(np.array([0.0, 1.0])), np.exp([0.0, 1.0]))


def test_a_checkpoint_is_mapped_over_items() -> None:
    f = graphc.checkpoint(lambda x, y: ops.tanh(x) * y)
    x, y = np.linspace(0.1, 1, 12).reshape(4, 3), np.array([1.0, 2.0, 3.0])

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return graphc.vmap(f, (0, None))(x, y).sum()

    np.testing.assert_allclose(graphc.grad(loss, 1)(x, y), np.tanh(x).sum(0), rtol=1e-12)
    np.testing.assert_allclose(graphc.grad(loss)(x, y), (1 - np.tanh(x) ** 2) * y, rtol=1e-12)


# custom_vjp


@graphc.custom_vjp
def clipped(x: Tensor, limit: Any) -> Tensor:
    """x, whose cotangents are limited."""
    return x * 1.0


clipped.defvjp(lambda x, limit: (x * 1.0, limit), lambda limit, g: (ops.clip(g, -limit, limit), None))


@graphc.custom_vjp
def logistic(x: Tensor) -> Tensor:
    """log(1 + exp(x))"""
    return ops.log(1 + ops.exp(x))


logistic.defvjp(lambda x: (logistic(x), ops.sigmoid(x)), lambda s, g: (g * s,))


def test_the_gradient_is_the_one_that_was_said() -> None:
    x = graphc.placeholder("x", (3,), "float64")
    (g,) = graphc.grad((clipped(x, 1.5) * np.array([1.0, 2.0, -3.0])).sum(), [x])
    np.testing.assert_array_equal(graphc.function([x], g)(np.zeros(3)), [1.0, 1.5, -1.5])
    np.testing.assert_array_equal(graphc.grad(lambda x: (clipped(x, 0.5) * 3.0).sum())(np.ones(2)), [0.5, 0.5])


def test_custom_gradients_go_to_any_order_and_forward_where_they_are_linear() -> None:
    differentiable(lambda x: logistic(x), np.linspace(-1, 1, 5))
    x = graphc.placeholder("x", (), "float64")
    s = 1 / (1 + np.exp(-0.4))
    second = s * (1 - s)
    third = second * (1 - 2 * s)
    for order in ("rr", "fr", "rf", "ff"):
        y: Any = logistic(x)
        for how in order:
            y = graphc.grad(y, x) if how == "r" else graphc.jvp(y, x, 1.0)
        np.testing.assert_allclose(y.eval({x: 0.4}), second, rtol=1e-12)
        np.testing.assert_allclose(graphc.grad(y, x).eval({x: 0.4}), third, rtol=1e-12)
    assert graphc.hessian(logistic(x), x).eval({x: 0.4}) == pytest.approx(second, rel=1e-12)
    with pytest.raises(GradientError, match=r"jvp: bwd of clipped \(custom_vjp\) is not linear in the cotangents"):
        graphc.jvp(clipped(x, 1.0), x, 1.0)


def test_nests_static_arguments_and_integers() -> None:
    def power(n: int, pair: Any, index: Tensor) -> Any:
        return {"y": pair[0] ** n * pair[1]}

    f = graphc.custom_vjp(power, nondiff_argnums=0)
    f.defvjp(
        lambda n, pair, index: (power(n, pair, index), (pair, index)),
        lambda n, residuals, g: ((g["y"] * n * residuals[0][0] ** (n - 1) * residuals[0][1], None), None),
    )
    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    np.testing.assert_array_equal(f(2, (a, b), np.array([1]))["y"], a**2 * b)
    found = graphc.grad(lambda a, b: f(2, (a, b), np.array([1]))["y"].sum(), (0, 1))(a, b)
    np.testing.assert_array_equal(found[0], 2 * a * b)
    np.testing.assert_array_equal(found[1], [0, 0])


def test_custom_gradients_are_mapped_over_items_and_jitted() -> None:
    x = np.linspace(-1, 1, 6).reshape(2, 3)
    found = graphc.jit(graphc.grad(lambda x: graphc.vmap(logistic)(x).sum()))(x)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-x)), rtol=1e-12)
    every = graphc.vmap(graphc.grad(lambda x: (clipped(x, 0.5) * 2).sum()))(x)
    np.testing.assert_array_equal(every, np.full((2, 3), 0.5))


def test_marks_are_text_and_come_back() -> None:
    x = graphc.placeholder("x", (3,), "float64")
    y = graphc.checkpoint(ops.tanh)(logistic(x))
    graph = Graph((x.ref,), (y.ref, graphc.grad(y.sum(), x).ref))
    text = canonical_text(graph)
    assert "custom_vjp(" in text and "checkpoint(" in text and "recomputed=1" in text
    assert canonical_text(parse(text)) == text


def failure(call: Callable[[], Any], kind: type[Exception] = ArgumentError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return re.sub(r"\n.*built at.*", "", str(caught.value))


def test_errors_name_the_function() -> None:
    x, w = graphc.placeholder("x", (3,)), graphc.placeholder("w", (3,))

    def made(fwd: Any, bwd: Any) -> Any:
        def twice(x: Tensor) -> Tensor:
            return x * 2.0

        f = graphc.custom_vjp(twice)
        f.defvjp(fwd, bwd)
        return lambda: f(x)

    text = failure(lambda: graphc.custom_vjp(ops.sin)(x))
    assert text == "custom_vjp: sin has no gradient yet\n  hint: call sin.defvjp(fwd, bwd)"
    assert "fwd of twice returns (result, residuals), not Tensor" in failure(made(lambda x: x, lambda r, g: (g,)))
    text = failure(made(lambda x: (x.sum(), None), lambda r, g: (g,)))
    assert text == "custom_vjp: of twice, fwd gives the result f32[], the function itself f32[3]"
    bwd: Any = lambda r, g: g
    assert "returns a tuple of 1 cotangents, not Tensor" in failure(made(lambda x: (x * 2.0, None), bwd))
    text = failure(made(lambda x: (x * 2.0, None), lambda r, g: (g, g)))
    assert text == "custom_vjp: bwd of twice returns a tuple of 1 cotangents, not 2"
    text = failure(made(lambda x: (x * 2.0, None), lambda r, g: ((g, g),)))
    assert text == "custom_vjp: bwd of twice: argument 0 has 1 leaves, its cotangent 2"
    text = failure(made(lambda x: (x * 2.0, None), lambda r, g: (g.sum(),)), GradientError)
    assert text.startswith("custom_vjp: bwd of twice: argument 0 is f32[3], its cotangent f32[]")
    text = failure(made(lambda x: (x * 2.0, None), lambda r, g: (g * w,)))
    assert text.startswith("custom_vjp: fwd or bwd of twice uses w from outside") and "make it an argument" in text
