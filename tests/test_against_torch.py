"""PyTorch as an outside oracle, where it is installed: values and gradients of all that it has too.

Float64 to 1e-10 by the interpreter, float32 to 1e-4 compiled; random arguments, and edges (zeros, infinities, NaN) for
elementwise functions. Where graphc differs on purpose is in DIFFERENT with the reason, and a test sees that it does.
Every public function is in a table, here or in tests/torch_cases.py, or in its NOT_COMPARED with the reason.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import Tensor
from graphc.interpret import evaluate
from graphc.nn import functional
from graphc.reference_facts import functions
from tests import torch_cases

torch = torch_cases.T

TOLERANCES: dict[str, Any] = {"float64": {"rtol": 1e-10, "atol": 1e-12}, "float32": {"rtol": 1e-4, "atol": 1e-6}}
EDGES = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -3.5, 1e-8, 20.0, -20.0, 300.0, -300.0, np.inf, -np.inf, np.nan])

# Elementwise functions, and the domain of random arguments.
UNARY: dict[str, tuple[float, float]] = {
    "abs": (-3, 3), "negative": (-3, 3), "positive": (-3, 3), "square": (-3, 3), "sqrt": (0.1, 4), "exp": (-3, 3),
    "expm1": (-3, 3), "log": (0.1, 4), "log1p": (-0.9, 4), "tanh": (-3, 3), "sigmoid": (-6, 6), "relu": (-3, 3),
    "sign": (-3, 3), "floor": (-3, 3), "ceil": (-3, 3), "trunc": (-3, 3), "round": (-3, 3), "reciprocal": (0.3, 3),
    "sin": (-9, 9), "cos": (-9, 9), "tan": (-1, 1), "asin": (-0.9, 0.9), "acos": (-0.9, 0.9), "atan": (-4, 4),
    "sinh": (-3, 3), "cosh": (-3, 3), "asinh": (-3, 3), "acosh": (1.2, 4), "atanh": (-0.9, 0.9), "erf": (-3, 3),
    "erfc": (-3, 3), "exp2": (-3, 3), "log2": (0.1, 4), "log10": (0.1, 4), "lgamma": (0.2, 5), "isnan": (-1, 1),
    "isfinite": (-1, 1), "isinf": (-1, 1), "signbit": (-1, 1),
    "rint": (-3, 3), "rsqrt": (0.1, 4), "digamma": (0.2, 5), "gammaln": (0.2, 5), "erfinv": (-0.9, 0.9),
}  # fmt: skip
BINARY: dict[str, tuple[float, float]] = {
    "add": (-3, 3), "subtract": (-3, 3), "multiply": (-3, 3), "divide": (0.3, 3), "maximum": (-3, 3),
    "minimum": (-3, 3), "power": (0.2, 3), "remainder": (0.3, 3), "fmod": (0.3, 3), "atan2": (-3, 3),
    "hypot": (0.2, 3), "logaddexp": (-3, 3), "copysign": (0.2, 3), "equal": (-1, 1), "not_equal": (-1, 1),
    "less": (-1, 1), "less_equal": (-1, 1), "greater": (-1, 1), "greater_equal": (-1, 1),
}  # fmt: skip
TORCH_NAMES = {"equal": "eq", "not_equal": "ne", "power": "pow", "rint": "round", "gammaln": "lgamma"}
T, F = torch, torch.nn.functional
# Functions at which PyTorch itself is less exact: its trigamma(1/2) is pi^2 / 2 to 5e-10, graphc's to 2e-16.
INEXACT = {"digamma": 1e-9, "polygamma": 1e-9}

# What is no function of one name: graphc's, PyTorch's, the shapes of the arguments.
CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[tuple[int, ...]]]] = {
    "matmul": (graphc.matmul, T.matmul, [(3, 4), (4, 5)]),
    "matmul in batches": (graphc.matmul, T.matmul, [(2, 3, 4), (4, 5)]),
    "vectors": (lambda x, y: x @ y, T.dot, [(4,), (4,)]),
    "outer": (graphc.outer, T.outer, [(3,), (4,)]),
    "tensordot": (lambda x, y: graphc.tensordot(x, y, 2), lambda x, y: T.tensordot(x, y, 2), [(2, 3, 4), (3, 4, 5)]),
    "vecdot": (graphc.vecdot, T.linalg.vecdot, [(3, 4), (3, 4)]),
    "sum": (lambda x: graphc.sum(x, axis=(0, 2)), lambda x: x.sum((0, 2)), [(2, 3, 4)]),
    "mean": (lambda x: graphc.mean(x, axis=1, keepdims=True), lambda x: x.mean(1, keepdim=True), [(3, 4)]),
    "prod": (lambda x: graphc.prod(x, axis=1), lambda x: x.prod(1), [(3, 4)]),
    "var": (lambda x: graphc.var(x, axis=0, correction=1), lambda x: x.var(0), [(5, 3)]),
    "std": (lambda x: graphc.std(x, axis=0), lambda x: x.std(0, correction=0), [(5, 3)]),
    "max": (lambda x: graphc.max(x, axis=1), lambda x: x.amax(1), [(3, 4)]),
    "max of ties": (lambda x: graphc.max(graphc.concat([x, x], 1), 1), lambda x: T.cat([x, x], 1).amax(1), [(3, 4)]),
    "min": (lambda x: graphc.min(x), lambda x: x.amin(), [(3, 4)]),
    "argmax": (lambda x: graphc.argmax(x, 1), lambda x: x.argmax(1), [(3, 4)]),
    "logsumexp": (lambda x: graphc.logsumexp(x, 1), lambda x: x.logsumexp(1), [(3, 4)]),
    "norm": (lambda x: graphc.norm(x, axis=1), lambda x: T.linalg.vector_norm(x, dim=1), [(3, 4)]),
    "norm 3": (lambda x: graphc.norm(x, 3), lambda x: T.linalg.vector_norm(x, 3), [(3, 4)]),
    "cumsum": (lambda x: graphc.cumsum(x, 1), lambda x: x.cumsum(1), [(3, 5)]),
    "cumprod": (lambda x: graphc.cumprod(x, 1), lambda x: x.cumprod(1), [(3, 5)]),
    "cummax": (lambda x: graphc.cummax(x, 1), lambda x: x.cummax(1).values, [(3, 5)]),
    "sort": (lambda x: graphc.sort(x, 1), lambda x: x.sort(1).values, [(3, 5)]),
    "topk": (lambda x: graphc.topk(x, 2)[0], lambda x: x.topk(2).values, [(3, 5)]),
    "diff": (graphc.diff, T.diff, [(3, 5)]),
    "reshape": (lambda x: x.reshape(4, 3).T, lambda x: x.reshape(4, 3).T, [(3, 4)]),
    "moveaxis": (lambda x: graphc.moveaxis(x, 0, 2), lambda x: x.moveaxis(0, 2), [(2, 3, 4)]),
    "concat": (lambda *x: graphc.concat(x, 1), lambda *x: T.cat(x, 1), [(2, 3), (2, 4)]),
    "stack": (lambda *x: graphc.stack(x, 1), lambda *x: T.stack(x, 1), [(2, 3), (2, 3)]),
    "split": (lambda x: graphc.split(x, [2], 0)[1], lambda x: T.tensor_split(x, [2])[1], [(5, 2)]),
    "tile": (lambda x: graphc.tile(x, (2, 3)), lambda x: x.tile(2, 3), [(2, 3)]),
    "repeat": (lambda x: graphc.repeat(x, 2, 1), lambda x: x.repeat_interleave(2, 1), [(2, 3)]),
    "flip": (lambda x: graphc.flip(x, 1), lambda x: x.flip(1), [(2, 3)]),
    "roll": (lambda x: graphc.roll(x, 2, 1), lambda x: x.roll(2, 1), [(2, 5)]),
    "pad": (lambda x: graphc.pad(x, ((0, 0), (1, 2))), lambda x: F.pad(x, (1, 2)), [(2, 3)]),
    "pad by reflection": (lambda x: graphc.pad(x, ((0, 0), (1, 2)), "reflect"),
                          lambda x: F.pad(x, (1, 2), "reflect"), [(2, 4)]),
    "tril": (lambda x: graphc.tril(x, -1), lambda x: x.tril(-1), [(4, 4)]),
    "slices": (lambda x: x[1:, None, ::2], lambda x: x[1:, None, ::2], [(3, 6)]),
    "take_along_axis": (lambda x: graphc.take_along_axis(x, np.array([[2, 0], [1, 1]]), 1),
                        lambda x: x.gather(1, T.tensor([[2, 0], [1, 1]])), [(2, 4)]),
    "take": (lambda x: graphc.take(x, np.array([2, 0, 2]), axis=0), lambda x: x[T.tensor([2, 0, 2])], [(3, 2)]),
    "einsum": (lambda x, y: graphc.einsum("bij,bkj->bik", x, y), lambda x, y: T.einsum("bij,bkj->bik", x, y),
               [(2, 3, 4), (2, 5, 4)]),
    "where": (lambda x, y: graphc.where(x > y, x * y, y), lambda x, y: T.where(x > y, x * y, y), [(3, 4), (4,)]),
    "softmax": (functional.softmax, lambda x: x.softmax(-1), [(3, 4)]),
    "log_softmax": (functional.log_softmax, lambda x: x.log_softmax(-1), [(3, 4)]),
    "cross_entropy": (lambda x: functional.cross_entropy(x, graphc.constant(np.array([2, 0, 1]))),
                      lambda x: F.cross_entropy(x, T.tensor([2, 0, 1])), [(3, 4)]),
    "mse_loss": (functional.mse_loss, F.mse_loss, [(3, 4), (3, 4)]),
    "bce": (lambda x, y: functional.binary_cross_entropy_with_logits(x, graphc.sigmoid(y)),
            lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid()), [(3, 4), (3, 4)]),
    "softplus": (graphc.softplus, F.softplus, [(3, 4)]),
    "pow": (lambda x: graphc.pow(x, 3), lambda x: x.pow(3), [(3, 4)]),
    "polygamma": (lambda x: graphc.polygamma(1, x * x + 1), lambda x: T.polygamma(1, x * x + 1), [(5,)]),
    **torch_cases.ARRAYS, **torch_cases.MATRICES, **torch_cases.NETWORKS,
}  # fmt: skip

# Edges where graphc differs: the sign of nan is nan, as in NumPy; the derivative of copysign at inf is a sign; the
# quotient that fmod(1, 1e-8) leaves behind is the exact one (99999999), not the rounded 1e8; hypot(0, 0) has the
# subgradient 0, as norm; equal infinities share the derivative of logaddexp, as equal numbers do; that of rsqrt at -0
# is -inf, as its value.
OUTSIDE: dict[str, Callable[..., Any]] = {
    "sign": np.isnan,
    "copysign": lambda x, y: ~np.isfinite(x) | np.isnan(y),
    "rsqrt": lambda x: x == 0,
    "fmod": lambda x, y: (x == 1e-8) | (y == 1e-8),
    "hypot": lambda x, y: (x == 0) & (y == 0),
    "logaddexp": lambda x, y: np.isinf(x) & (x == y),
}

# function, PyTorch's, where the gradients differ, where they agree, and why.
DIFFERENT: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Any], Any], list[float], list[float], str]] = {
    "where": (
        lambda x: graphc.where(x > 0, graphc.sqrt(x), 0.0),
        lambda x: T.where(x > 0, x.sqrt(), 0.0),
        [0.0, 4.0],
        [0.25, 4.0],
        "no nan from the branch that is not taken",
    ),
    "clip": (
        lambda x: graphc.clip(x, 0.0, 1.0),
        lambda x: x.clamp(0.0, 1.0),
        [0.0, 0.5],
        [-1.0, 0.5],
        "it is a minimum of a maximum, whose ties share the cotangent",
    ),
    "copysign": (
        lambda x: graphc.copysign(x, 1.0),
        lambda x: T.copysign(x, T.tensor(1.0)),
        [np.inf],
        [2.0, -2.0],
        "a sign is a sign: PyTorch divides inf by inf",
    ),
}


def torch_of(name: str) -> Any:
    return getattr(torch, TORCH_NAMES.get(name, name))


def compare(
    ours: Callable[..., Any], theirs: Callable[..., Any], arrays: list[np.ndarray], dtype: str, name: str = ""
) -> None:
    """Value, and gradients for a cotangent of 1, 2, 3, ... where the result is a float."""
    inputs = [graphc.placeholder(f"x{i}", a.shape, dtype) for i, a in enumerate(arrays)]
    arrays = [a.astype(dtype) for a in arrays]
    theirs_in = [torch.tensor(a, requires_grad=True) for a in arrays]
    output, wanted = ours(*inputs), theirs(*theirs_in)
    outputs, expected = [output], [wanted.detach().numpy()]
    if output.dtype.is_float and wanted.requires_grad:
        cotangent = (1 + np.arange(wanted.numel())).reshape(wanted.shape).astype(dtype)
        outputs += graphc.vjp(output, inputs, cotangent, unused="zero")
        found = torch.autograd.grad(wanted, theirs_in, torch.tensor(cotangent), allow_unused=True)
        expected += [np.zeros_like(a) if g is None else g.numpy() for a, g in zip(arrays, found)]
    if dtype == "float64":
        results = evaluate([t.ref for t in outputs], {t.ref: a for t, a in zip(inputs, arrays)})
    else:
        results = graphc.function(inputs, outputs)(*arrays)
    for position, (actual, want) in enumerate(zip(results, expected, strict=True)):
        message = "the value" if position == 0 else f"the gradient of argument {position - 1}"
        assert actual.shape == want.shape
        if position and want.shape == expected[0].shape:  # a derivative where the value is nan says nothing
            actual, want = (np.where(np.isnan(expected[0]), 0, x) for x in (actual, want))
        close = TOLERANCES[dtype]
        close = {**close, "rtol": max(close["rtol"], INEXACT.get(name, 0))}
        np.testing.assert_allclose(actual, want, **close, err_msg=message)


def drawn(shapes: list[tuple[int, ...]], low: float = -2, high: float = 2) -> list[np.ndarray]:
    return [np.random.default_rng(i).uniform(low, high, shape) for i, shape in enumerate(shapes)]


def edges_of(name: str, *columns: np.ndarray) -> list[np.ndarray]:
    """The arguments without those at which graphc differs."""
    keep = ~OUTSIDE[name](*columns) if name in OUTSIDE else np.ones(len(columns[0]), bool)
    return [column[keep] for column in columns]


def there(table: dict[str, Any]) -> list[str]:
    return [name for name in table if hasattr(graphc, name)]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", there(UNARY))
def test_functions_of_one_argument(name: str, dtype: str) -> None:
    arrays = drawn([(40,)], *UNARY[name])
    compare(getattr(graphc, name), torch_of(name), arrays, dtype, name)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", there(BINARY))
def test_functions_of_two_arguments(name: str, dtype: str) -> None:
    compare(getattr(graphc, name), torch_of(name), drawn([(4, 1, 5), (3, 5)], *BINARY[name]), dtype)


@pytest.mark.parametrize("name", there(UNARY))
def test_edges_of_one_argument(name: str) -> None:
    compare(getattr(graphc, name), torch_of(name), edges_of(name, EDGES), "float64", name)


@pytest.mark.parametrize("name", there(BINARY))
def test_edges_of_two_arguments(name: str) -> None:
    pairs = np.array(list(itertools.product(EDGES, EDGES)))
    compare(getattr(graphc, name), torch_of(name), edges_of(name, *pairs.T), "float64")


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", CASES)
def test_compositions_and_functions_of_arrays(name: str, dtype: str) -> None:
    ours, theirs, shapes = CASES[name]
    compare(ours, theirs, drawn(shapes), dtype, name)


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_differs(name: str) -> None:
    ours, theirs, differs, agrees, reason = DIFFERENT[name]
    with pytest.raises(AssertionError, match="the gradient of argument 0"):
        compare(ours, theirs, [np.array(differs)], "float64")
    compare(ours, theirs, [np.array(agrees)], "float64")
    assert reason


def test_every_function_is_compared_or_says_why_not() -> None:
    texts = "".join(Path(module).read_text(encoding="utf-8") for module in (__file__, torch_cases.__file__))
    compared = {*UNARY, *BINARY, *re.findall(r"(?:graphc|functional)\.([a-z_0-9]+)", texts)}
    missing = {name for name in functions() if name not in compared} - torch_cases.NOT_COMPARED.keys()
    assert not missing and all(torch_cases.NOT_COMPARED.values())
