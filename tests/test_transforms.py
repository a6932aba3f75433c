"""Transforms of functions: JAX's signatures, arrays or tensors, nested; `vmap`; `jit` and what it keeps."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import graphc
from graphc import Tensor
from graphc.errors import ArgumentError, GradientError

RNG = np.random.default_rng


class Line(NamedTuple):
    """Parameters in a named tuple."""

    w: Any
    b: Any


def loss_of(line: Line, x: Any, power: int = 2) -> Tensor:
    return graphc.mean((x @ line.w + line.b) ** power)


W, X = np.array([1.0, 2.0, 3.0]), RNG(0).standard_normal((5, 3))
B = np.float64(0.5)
RESIDUAL = X @ W + B
GRADIENT_W, GRADIENT_B = 2 * RESIDUAL @ X / 5, 2 * RESIDUAL.mean()


def test_grad_of_a_function_of_arrays() -> None:
    gradient = graphc.grad(loss_of)(Line(W, B), X)
    assert isinstance(gradient, Line) and isinstance(gradient.w, np.ndarray) and gradient.b.shape == ()
    np.testing.assert_allclose(gradient.w, GRADIENT_W, rtol=1e-13)
    np.testing.assert_allclose(gradient.b, GRADIENT_B, rtol=1e-13)
    both = graphc.grad(loss_of, argnums=(0, 1))(Line(W, B), X, power=2)
    assert isinstance(both, tuple) and both[1].shape == X.shape
    np.testing.assert_allclose(both[1], 2 * RESIDUAL[:, None] * W / 5, rtol=1e-13)
    assert graphc.grad(loss_of).__name__ == "loss_of"


def test_grad_of_numbers() -> None:
    assert graphc.grad(lambda x: x * x)(3.0) == 6.0
    assert graphc.grad(graphc.grad(lambda x: x**3))(2.0) == 12.0
    assert graphc.grad(lambda x, y: x * 2.0, argnums=1)(1.0, 5.0) == 0.0  # unused: zero
    assert graphc.grad(lambda x, y: x * y, argnums=-1)(3.0, 5.0) == 3.0


def test_value_and_grad_and_aux() -> None:
    value, gradient = graphc.value_and_grad(loss_of)(Line(W, B), X)
    np.testing.assert_allclose(value, np.mean(RESIDUAL**2), rtol=1e-13)
    np.testing.assert_allclose(gradient.w, GRADIENT_W, rtol=1e-13)

    def with_aux(w: Tensor) -> tuple[Tensor, dict[str, Any]]:
        return graphc.sum(w * w), {"twice": w * 2.0, "name": "w", "none": None}

    (value, aux), gradient = graphc.value_and_grad(with_aux, has_aux=True)(W)
    assert value == 14 and aux["name"] == "w" and aux["none"] is None
    np.testing.assert_array_equal(aux["twice"], gradient)
    gradient, aux = graphc.grad(with_aux, has_aux=True)(W)
    np.testing.assert_array_equal(aux["twice"], gradient)
    with pytest.raises(ArgumentError, match="with has_aux=True the function returns"):
        graphc.grad(lambda w: graphc.sum(w), has_aux=True)(W)


def test_tensors_in_tensors_out_as_part_of_a_graph() -> None:
    x = graphc.placeholder("x", ("n", 3), "float64")
    w = graphc.parameter("w", W)
    gradient = graphc.grad(loss_of)(Line(w, 0.5), x)
    assert isinstance(gradient.w, Tensor) and gradient.w.shape == (3,)
    np.testing.assert_allclose(gradient.w.eval({x: X}), GRADIENT_W, rtol=1e-13)
    step = graphc.function([x], gradient.w, updates={w: w - 0.1 * gradient.w})
    np.testing.assert_allclose(step(X), GRADIENT_W, rtol=1e-13)
    np.testing.assert_allclose(w.value, W - 0.1 * GRADIENT_W, rtol=1e-13)


def test_what_else_depends_on_the_argument_is_no_part_of_the_derivative() -> None:
    x = graphc.placeholder("x", (), "float64")
    y = x * 2.0
    assert graphc.grad(lambda a: a * y)(x).eval({x: 3.0}) == 6.0  # y is a constant for it
    assert graphc.grad(lambda a, b: a * b)(x, x).eval({x: 3.0}) == 3.0
    # perturbation confusion: d/dx x * (d/dy (x + y)) is 1, not 2
    assert graphc.grad(lambda a: a * graphc.grad(lambda b: a + b)(1.0))(1.0) == 1.0
    inner = graphc.grad(lambda a: a * graphc.jvp(lambda b: a * b, (2.0,), (1.0,))[1])
    assert inner(3.0) == 6.0


def test_vjp() -> None:
    value, pull = graphc.vjp(lambda x, y: {"p": x * y, "s": graphc.sum(y)}, 2.0, W)
    np.testing.assert_array_equal(value["p"], 2 * W)
    assert value["s"] == 6
    for scale in (1.0, 3.0):
        x, y = pull({"p": scale * np.ones(3), "s": np.float64(1.0)})
        assert isinstance(x, np.ndarray) and x == 6 * scale
        np.testing.assert_array_equal(y, 2 * scale + np.ones(3))
    value, pull, aux = graphc.vjp(lambda x: (x * x, "note"), W, has_aux=True)
    assert aux == "note" and pull(np.ones(3))[0].tolist() == (2 * W).tolist()
    x = graphc.placeholder("x", (3,), "float64")
    value, pull = graphc.vjp(graphc.exp, x)
    (cotangent,) = pull(x)
    np.testing.assert_allclose(cotangent.eval({x: W}), W * np.exp(W), rtol=1e-14)
    (cotangent,) = graphc.vjp(graphc.exp, W)[1](x)  # arrays before, tensors now
    assert isinstance(cotangent, Tensor)


def test_jvp_and_hvp() -> None:
    value, tangent = graphc.jvp(lambda x, y: (x * y, [graphc.sum(y)]), (2.0, W), (1.0, np.array([1.0, 0, 0])))
    np.testing.assert_array_equal(value[0], 2 * W)
    np.testing.assert_array_equal(tangent[0], W + [2, 0, 0])
    assert tangent[1][0] == 1.0
    assert graphc.jvp(lambda x: (x, "note"), (1.0,), (2.0,), has_aux=True)[2] == "note"
    (product,) = graphc.hvp(lambda x: graphc.sum(x**3), (W,), (np.array([1.0, 0, 1]),))
    np.testing.assert_allclose(product, [6, 0, 18])
    with pytest.raises(GradientError, match="the tangent of"):
        graphc.jvp(lambda x: x, (1.0,), (np.ones(2),))


@pytest.mark.parametrize("jacobian", [graphc.jacrev, graphc.jacfwd])
def test_jacobians_of_functions(jacobian: Callable[..., Any]) -> None:
    found = jacobian(lambda a, x: {"y": x @ a["w"]}, argnums=0)({"w": W}, X)
    np.testing.assert_allclose(found["y"]["w"], X, rtol=1e-14)
    np.testing.assert_allclose(jacobian(jacobian(lambda x: graphc.sum(x**3)))(W), np.diag(6 * W))
    x = graphc.placeholder("x", (3,), "float64")
    np.testing.assert_allclose(jacobian(graphc.tanh)(x).eval({x: W}), np.diag(1 - np.tanh(W) ** 2), rtol=1e-12)


def test_hessian_of_a_function() -> None:
    found = graphc.hessian(loss_of)(Line(W, B), X)
    assert isinstance(found, Line) and isinstance(found.w, Line)
    np.testing.assert_allclose(found.w.w, 2 * X.T @ X / 5, rtol=1e-12)
    np.testing.assert_allclose(found.b.w, 2 * X.mean(axis=0), rtol=1e-12)


def test_vmap() -> None:
    per_example = graphc.vmap(graphc.grad(loss_of), in_axes=(None, 0))(Line(W, B), X[:, None, :])
    np.testing.assert_allclose(per_example.w, 2 * RESIDUAL[:, None] * X, rtol=1e-12)
    outer = graphc.vmap(graphc.vmap(lambda a, b: a * b, (None, 0)), (0, None), out_axes=1)(W, np.array([1.0, 10.0]))
    np.testing.assert_array_equal(outer, np.outer([1, 10], W))
    columns = graphc.vmap(lambda x: graphc.sum(x), in_axes=1)
    np.testing.assert_allclose(columns(X), X.sum(axis=0), rtol=1e-14)
    np.testing.assert_allclose(graphc.grad(lambda x: graphc.sum(columns(x) ** 2))(X)[0], 2 * X.sum(axis=0), rtol=1e-14)
    x = graphc.placeholder("x", ("n", 3), "float64")
    norms = graphc.function([x], graphc.vmap(lambda r: graphc.sum(r * r))(x))
    for n in (1, 5):
        np.testing.assert_allclose(norms(X[:n]), (X[:n] ** 2).sum(axis=1), rtol=1e-14)
    with pytest.raises(ArgumentError, match="the mapped arguments have 3 and 5 items"):
        graphc.vmap(lambda a, b: a)(W, X)
    with pytest.raises(ArgumentError, match="has no axis 1"):
        graphc.vmap(lambda a: a, in_axes=1)(W)
    with pytest.raises(ArgumentError, match="in_axes has 1 entries, but there are 2 arguments"):
        graphc.vmap(lambda a, b: a, in_axes=(0,))(W, W)


def test_errors_of_function_forms() -> None:
    with pytest.raises(ArgumentError, match="argnums has 2, but there are 1 positional"):
        graphc.grad(lambda x: x, argnums=2)(1.0)
    with pytest.raises(GradientError, match="is no scalar"):
        graphc.grad(lambda x: x)(W)
    with pytest.raises(GradientError, match="is no float"):
        graphc.grad(lambda x: graphc.sum(x))(np.arange(3))


# jit


@pytest.fixture(autouse=True)
def uncached() -> Iterator[None]:
    with graphc.config(cache=False):
        yield


def test_jit_compiles_once_for_each_form() -> None:
    traced = []

    @graphc.jit
    def f(p: Any, x: Any, scale: float = 1.0) -> Any:
        """Doc."""
        traced.append(scale)
        return {"y": x @ p["w"] * scale, "scale": scale}

    assert f.__name__ == "f" and f.__doc__ == "Doc."
    for _ in range(2):
        result = f({"w": W}, X)
        np.testing.assert_allclose(result["y"], X @ W, rtol=1e-13)
        assert result["scale"] == 1.0
    assert traced == [1.0] and len(f.functions) == 1 and "p.w" in f.functions[0].ir("graph")
    f({"w": W}, X[:2])
    single = f({"w": W.astype("float32")}, X.astype("float32"), scale=0.5)
    assert single["y"].dtype == np.float32 and traced == [1.0, 1.0, 0.5]  # a Python float stays weak
    array = f({"w": W}, X, np.float64(2.0))
    np.testing.assert_allclose(array["y"], 2 * X @ W, rtol=1e-13)
    np.testing.assert_allclose(f({"w": W}, X, np.float64(3.0))["y"], 3 * X @ W, rtol=1e-13)
    assert len(traced) == 4


def test_jit_of_transforms_and_in_graphs() -> None:
    step = graphc.jit(graphc.value_and_grad(loss_of))
    value, gradient = step(Line(W, B), X)
    np.testing.assert_allclose(value, np.mean(RESIDUAL**2), rtol=1e-13)
    np.testing.assert_allclose(gradient.w, GRADIENT_W, rtol=1e-13)
    inner = graphc.jit(lambda x: graphc.sum(x * x))
    np.testing.assert_array_equal(graphc.grad(inner)(W), 2 * W)
    assert not inner.functions  # it became a part of the gradient's graph
    w = graphc.parameter("w", W)
    scaled = graphc.jit(lambda x: x * w)
    assert scaled(np.float64(2.0)).tolist() == (2 * W).tolist()
    w.value = 2 * W
    assert scaled(np.float64(2.0)).tolist() == (4 * W).tolist()


def test_jit_says_when_it_compiles_again_and_again() -> None:
    power = graphc.jit(lambda x, n: x * n)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(9):
            power(np.float32(1), n + 0.5)
    assert len(caught) == 1 and "numpy.float32(x)" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_jit_errors() -> None:
    f = graphc.jit(lambda x, options: x)
    with pytest.raises(ArgumentError, match="jit: options is a set: neither an array nor hashable"):
        f(W, {1, 2})
    with pytest.raises(ArgumentError, match="returns no tensor"):
        graphc.jit(lambda x: 3)(W)


def test_the_python_of_the_docs_runs() -> None:
    text = (Path(__file__).parent.parent / "docs/differentiation.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(compile(block, "docs/differentiation.md", "exec"), names)
    np.testing.assert_allclose(names["g"], names["gradient"].eval({names["x"]: names["images"]}), rtol=1e-6)
    table = text.split("## Of functions")[0]
    assert all(hasattr(graphc, name) for name in re.findall(r"`(?:[a-z, ]+ = )?([a-z_]+)\(f", table))
