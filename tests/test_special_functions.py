"""gelu, logaddexp, hypot and the gradients of trigonometric functions where formulas have poles; PyTorch as oracle."""

import math
from collections.abc import Callable

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.build import Tensor, placeholder
from graphc.errors import ArgumentError
from graphc.nn import functional
from graphc.ops.registry import OPS

EDGES = np.array([0.0, -0.0, 1.0, -1.0, 3.5, -3.5, 20.0, -20.0, np.inf, np.nan])


def test_gelu_in_both_forms() -> None:
    x = placeholder("x", ("n",), "float64")
    values = np.concatenate([np.linspace(-6, 6, 101), [0.0, -0.0, 40.0, np.nan]])
    exact = np.array([v * 0.5 * (1 + math.erf(v * math.sqrt(0.5))) for v in values])
    compiled = graphc.function([x], [functional.gelu(x), functional.gelu(x, approximate="tanh")])
    first, second = compiled(values)
    # 1 + erf keeps an absolute error: below 0 that is all that the form allows, in PyTorch too.
    np.testing.assert_allclose(first, exact, rtol=1e-14, atol=1e-15)
    inner = np.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3))
    np.testing.assert_allclose(second, values * 0.5 * (1 + inner), rtol=1e-14, atol=1e-15)
    with pytest.raises(ArgumentError, match='"none" or "tanh"'):
        functional.gelu(x, approximate="erf")


def test_logaddexp() -> None:
    a, b = placeholder("a", ("n", 1), "float64"), placeholder("b", ("m",), "float64")
    values = np.array([0.0, -1.0, 800.0, -800.0, np.inf, -np.inf, np.nan])
    y = ops.logaddexp(a, b)
    with np.errstate(invalid="ignore"):
        expected = np.logaddexp(values[:, None], values)
    result = graphc.function([a, b], y)(values[:, None], values)
    np.testing.assert_allclose(result, expected, rtol=1e-15)
    (gradient,) = graphc.grad(y.sum(), [a])
    finite = values[:4]
    share = 1 / (1 + np.exp(np.minimum(finite - finite[:, None], 700)))
    found = gradient.eval({a: finite[:, None], b: finite})
    np.testing.assert_allclose(found[:, 0], share.sum(1), rtol=1e-14)
    assert ops.logaddexp(np.int8(1), np.int8(2)).dtype.name == "float32"


def test_hypot_neither_overflows_nor_underflows() -> None:
    for dtype in ("float32", "float64"):
        info = np.finfo(dtype)
        x, y = placeholder("x", ("n",), dtype), placeholder("y", ("n",), dtype)
        a = np.array([3, info.max / 2, info.smallest_subnormal * 300, info.tiny, np.inf, np.nan], dtype)
        b = np.array([4, info.max / 2, info.smallest_subnormal * 400, 0, np.nan, -np.inf], dtype)
        found = graphc.function([x, y], ops.hypot(x, y))(a, b)
        np.testing.assert_array_equal(found[[0, 2, 3, 4, 5]], np.hypot(a, b)[[0, 2, 3, 4, 5]])
        np.testing.assert_allclose(found[1], info.max / 2 * math.sqrt(2), rtol=2 * info.eps)


@pytest.mark.parametrize("function", [ops.hypot, ops.atan2])
def test_the_gradient_at_the_origin_is_0(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, y = placeholder("x", (2,), "float64"), placeholder("y", (2,), "float64")
    gradients = graphc.grad(function(x, y).sum(), [x, y])
    first, second = (g.eval({x: np.array([0.0, 3.0]), y: np.array([0.0, 4.0])}) for g in gradients)
    assert first[0] == second[0] == 0
    assert (first[1], second[1]) == pytest.approx((0.6, 0.8) if function is ops.hypot else (4 / 25, -3 / 25))


def test_pow_is_power() -> None:
    assert graphc.pow is graphc.power


def test_pytorch_agrees() -> None:
    torch = pytest.importorskip("torch")
    names = ["sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"]
    names += ["exp2", "log2", "log10", "rsqrt", "erf", "sigmoid", "atan2", "hypot", "pow", "logaddexp"]
    rng = np.random.default_rng(3)
    for name in names:
        two = name in ("atan2", "hypot", "pow", "logaddexp")
        xs = [placeholder(f"x{k}", ("n",), "float64") for k in range(2 if two else 1)]
        values = [np.concatenate([rng.normal(0, 1, 50), rng.uniform(1, 9, 20), EDGES]) for _ in xs]
        y = getattr(ops, name)(*xs)
        results = graphc.function(xs, [y, *graphc.grad(y.sum(), xs)])(*values)
        tensors = [torch.tensor(v, requires_grad=True) for v in values]
        expected = getattr(torch, name)(*tensors)
        expected.sum().backward()
        np.testing.assert_allclose(results[0], expected.detach().numpy(), rtol=1e-13, atol=1e-15, err_msg=name)
        for found, tensor in zip(results[1:], tensors):
            ordinary = np.isfinite(tensor.grad.numpy()) & np.isfinite(found)
            assert ordinary.sum() > 20, name
            np.testing.assert_allclose(
                found[ordinary], tensor.grad.numpy()[ordinary], rtol=1e-10, atol=1e-14, err_msg=f"gradient of {name}"
            )


def test_gelu_as_pytorch() -> None:
    torch = pytest.importorskip("torch")
    x = placeholder("x", ("n",), "float32")
    values = np.random.default_rng(1).normal(0, 2, 500).astype(np.float32)
    for form in ("none", "tanh"):
        y = functional.gelu(x, approximate=form)
        found, gradient = graphc.function([x], [y, graphc.grad(y.sum(), x)])(values)
        tensor = torch.tensor(values, requires_grad=True)
        expected = torch.nn.functional.gelu(tensor, approximate=form)
        expected.sum().backward()
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_the_bodies_of_these_ops_are_single_functions() -> None:
    """Each is one instruction of the loop IR, which the printer shows by its name."""
    x = placeholder("x", (8,), "float32")
    for name in ("sin", "erf", "rsqrt", "sigmoid"):
        assert f" {name}(" in graphc.function([x], getattr(ops, name)(x)).ir("loops")
    assert OPS["power"].ulp["float64"] == 2


def test_large_arguments_in_epilogues_and_rows() -> None:
    """The branch to the table of 2/pi stands inside unrolled tiles, masked tails and reductions alike."""
    x, w = placeholder("x", ("n", 5), "float32"), placeholder("w", (5, 19), "float32")
    rng = np.random.default_rng(2)
    a, b = (rng.normal(0, 1e4, shape).astype(np.float32) for shape in ((13, 5), (5, 19)))
    product = x @ w
    outputs = [product, ops.cos(product), ops.sin(x * 1e20).sum(1), ops.tan(x[:1, :1])]
    found, cosine, rows, scalar = graphc.function([x, w], outputs)(a, b)
    np.testing.assert_allclose(cosine, np.cos(found.astype(np.float64)), rtol=0, atol=6e-8)
    exact = np.sin((a * np.float32(1e20)).astype(np.float64)).sum(1)
    np.testing.assert_allclose(rows, exact, rtol=0, atol=1e-6)
    np.testing.assert_allclose(scalar, np.tan(a[:1, :1].astype(np.float64)), rtol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_polygamma_against_mpmath(dtype: str) -> None:
    mp = pytest.importorskip("mpmath")
    values = np.array([0.1, 0.5, 1.0, 1.4616, 3.3, 9.9, 10.0, 55.0, 1e6], dtype)
    x = placeholder("x", ("n",), dtype)
    f = graphc.function([x], [ops.polygamma(n, x) for n in range(5)])
    for order, found in enumerate(f(values)):
        assert found.dtype == dtype
        exact = [float(mp.polygamma(order, float(v))) for v in values]
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(found, exact, rtol=30 * eps, atol=10 * eps if order == 0 else 0)
    below = np.array([-0.5, -1.25, -7.75], dtype)
    exact = [float(mp.polygamma(1, float(v))) for v in below]
    np.testing.assert_allclose(f(below)[1], exact, rtol=20 * np.finfo(dtype).eps)
    assert np.isnan(f(below)[2]).all()
    with pytest.raises(ArgumentError, match="polygamma: an order is an int from 0 on, not -1"):
        ops.polygamma(-1, x)


def test_derivatives_of_lgamma_of_every_order() -> None:
    x = placeholder("x", ("n",), "float64")
    values = np.array([0.7, 2.0, 5.5, 30.0])
    y, found = ops.lgamma(x), []
    for _ in range(4):
        y = graphc.grad(y.sum(), x)
        found.append(y)
    for order, result in enumerate(graphc.function([x], found)(values)):
        np.testing.assert_allclose(result, ops.polygamma(order, x).eval({x: values}), rtol=1e-13)
    (slope,) = graphc.function([x], [graphc.grad(ops.erfinv(ops.erf(x)).sum(), x)])(np.array([-1.5, 0.0, 0.3, 2.0]))
    np.testing.assert_allclose(slope, 1, rtol=1e-12)
