"""Elementwise functions of floats: roots, exponentials, logarithms, tanh and what networks are made of.

Each op is one `register(Op(...))`. The accuracy that compiled code must reach is stated in `ulp`, against the NumPy
reference; a name that is missing there has the same bits. Integers are converted to floats first, as NumPy does (where
NumPy would use float16, graphc uses float32).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply, install, signature
from graphc.errors import DTypeError, fail
from graphc.graph import Node, Op
from graphc.ops.arithmetic import reciprocal
from graphc.ops.lowering import Elementwise
from graphc.ops.operands import (
    TensorLike,
    as_tensor,
    floating,
    matched,
    promoted,
    result_of,
    same_type,
    tensors_of,
    ufunc,
    unary_function,
)
from graphc.ops.registry import register
from graphc.ops.samples import Operand, Sample, binary, unary
from graphc.ops.selection import where
from graphc.ops.sources import ones_like, zeros_like

ULP = {"float32": 2.0, "float64": 4.0}

Gradient = Callable[[Node, Sequence[Any]], Sequence["Tensor | None"]]


def _through(derivative: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Gradient:
    """A gradient rule from `derivative(g, x, y)`: cotangent, operand, result."""
    return lambda node, g: (derivative(g[0], tensors_of(node)[0], result_of(node)),)


def float_function(
    name: str,
    doc: str,
    reference: Any,
    derivative: Callable[[Tensor, Tensor, Tensor], Tensor],
    body: Callable[[Any, Any], Any] | None = None,
    exact: bool = False,
    formula: str = "",
    ulp: Mapping[str, float] = ULP,
    **domain: Any,
) -> Callable[[TensorLike], Tensor]:
    """Register an elementwise op of one float and give its public function.

    `derivative(g, x, y)` is the cotangent of x; the body is the handler's function of that name unless there is one
    here; `domain` says how samples are drawn (`samples.Operand`).
    """
    op = Op(
        name,
        doc,
        same_type("f"),
        ufunc(reference),
        _through(derivative),
        Elementwise(lambda h, attrs, x: body(h, x) if body else h.function(name, x)),
        lambda: unary(**domain),
        ulp={} if exact else ulp,
        formula=formula,
    )
    return unary_function(register(op), floating)


sqrt = float_function(
    "sqrt",
    "The square root, correctly rounded; nan below 0, and -0 for -0.",
    np.sqrt,
    lambda g, x, y: g * 0.5 / y,
    lambda h, x: h.sqrt(x),
    formula="x^(1/2)",
    exact=True,
    positive=True,
)
exp = float_function(
    "exp",
    "e to the power of x; inf above the range, 0 below.",
    np.exp,
    lambda g, x, y: g * y,
    formula="e^x",
)
expm1 = float_function(
    "expm1",
    "exp(x) - 1 without cancellation near 0.",
    np.expm1,
    lambda g, x, y: g * (y + 1),
    formula="e^x - 1",
)
log = float_function(
    "log",
    "The natural logarithm; -inf at 0, nan below.",
    np.log,
    lambda g, x, y: g / x,
    formula="ln x",
    positive=True,
)
exp2 = float_function(
    "exp2",
    "2 to the power of x; exact for whole x.",
    np.exp2,
    lambda g, x, y: g * (y * math.log(2)),
    formula="2^x",
)
log2 = float_function(
    "log2",
    "The logarithm to the base 2, exact for powers of 2; -inf at 0, nan below.",
    np.log2,
    lambda g, x, y: g / (x * math.log(2)),
    formula="ln x / ln 2",
    positive=True,
)
log10 = float_function(
    "log10",
    "The logarithm to the base 10; -inf at 0, nan below.",
    np.log10,
    lambda g, x, y: g / (x * math.log(10)),
    formula="ln x / ln 10",
    positive=True,
)
rsqrt = float_function(
    "rsqrt",
    "1 / sqrt(x); inf at 0, -inf at -0, nan below.",
    lambda x: (1 / np.sqrt(x)).astype(x.dtype),
    lambda g, x, y: g * (y * -0.5 / x),
    formula="x^(-1/2)",
    positive=True,
)
log1p = float_function(
    "log1p",
    "log(1 + x) without cancellation near 0; -inf at -1, nan below.",
    np.log1p,
    lambda g, x, y: g / (x + 1),
    formula="ln(1 + x)",
    positive=True,
)
tanh = float_function(
    "tanh",
    "The hyperbolic tangent.",
    np.tanh,
    lambda g, x, y: g * (1 - y * y),
    formula="(e^x - e^-x) / (e^x + e^-x)",
)


def _sigmoid_reference(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return cast(np.ndarray, np.where(x >= 0, 1, e).astype(x.dtype) / (1 + e))


sigmoid = float_function(
    "sigmoid",
    "1 / (1 + exp(-x)), computed without overflow.",
    _sigmoid_reference,
    lambda g, x, y: g * (y * (1 - y)),
    formula="1 / (1 + e^-x)",
)


def _relu_body(h: Any, x: Any) -> Any:
    zero = h.constant(0, x.dtype)
    return h.select(h.le(x, zero), zero, x)


relu = float_function(
    "relu",
    "x above 0, else 0 (+0 for -0); nan for nan. The derivative at 0 is 0; it reads the result, not x.",
    lambda x: np.where(x <= 0, np.zeros((), x.dtype), x),
    lambda g, x, y: where(y <= 0, zeros_like(g), g),
    _relu_body,
    exact=True,
    formula="max(x, 0)",
)


def _softplus_body(h: Any, x: Any) -> Any:
    return h.add(h.maximum(x, h.constant(0, x.dtype)), h.function("log1p", h.function("exp", h.neg(h.abs(x)))))


softplus = float_function(
    "softplus",
    "log(1 + exp(x)), computed as max(x, 0) + log1p(exp(-|x|)); its derivative is sigmoid(x).",
    lambda x: np.maximum(x, np.zeros((), x.dtype)) + np.log1p(np.exp(-np.abs(x))),
    lambda g, x, y: g * sigmoid(x),
    _softplus_body,
    formula="ln(1 + e^x)",
)


def _power_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    x, y = tensors_of(node)
    zero = zeros_like(g[0])
    of_base = where(y == 0, zero, g[0] * (y * power(x, y - 1)))
    of_exponent = where((x == 0) & (y >= 0), zero, g[0] * (result_of(node) * log(x)))
    return of_base, of_exponent


def _power_samples() -> list[Sample]:
    whole = Operand((12,), values=(-3, -2, -1, 0, 1, 2, 3, 5, 0.5, -0.5, 1e9, np.inf))
    bases = Operand((12,), values=(-2.5, -1, -0.0, 0.0, 1, 3, -np.inf, -7, -1.5, np.inf, -1, -1))
    base, exponent = Operand((31,), values="ordinary", positive=True), Operand((31,), values="ordinary")
    any_sign = binary()[0].operands
    return [
        *binary(positive=True),
        Sample((base, exponent)),
        *(Sample(o, smooth=False) for o in ((bases, whole), any_sign)),
    ]


_power_op = register(
    Op(
        "power",
        "x ** y of floats with the special cases of C's pow: 1 for y = 0 and for x = 1, even of nan; nan for roots of"
        " negative numbers.",
        same_type("f", arity=2),
        ufunc(np.power),
        _power_gradient,
        Elementwise(lambda h, attrs, x, y: h.function("power", x, y)),
        _power_samples,
        ulp={"float32": 2.0, "float64": 2.0},
        formula="x^y",
        nan="NaN, except power(x, 0) = 1 and power(1, y) = 1 for every x and y.",
    )
)

_LARGEST_PRODUCT = 8  # exponents up to here become products


def power(x: TensorLike, y: TensorLike) -> Tensor:
    """`x ** y`. Constant exponents -1, 0, 0.5 and 1 to 8 become products, a reciprocal or a square root.

    An integer to the power of a constant non-negative int is a product too and wraps; other integer powers are a
    DTypeError (convert to a float).
    """
    if type(y) in (int, float):
        base, exponent = as_tensor(x), cast(float, y)
        composed = _composed_power(base, exponent)
        if composed is not None:
            return composed
    dtype = promoted("power", x, y)
    if not dtype.is_float:
        tensors = [as_tensor(v) for v in (x, y)]
        fail(DTypeError, f"power: an integer power needs a constant exponent >= 0: {signature(*tensors)}",
             "convert to a float first: x.astype('float64')")  # fmt: skip
    return cast(Tensor, apply(_power_op, *matched("power", x, y, dtype=dtype)))


def _composed_power(x: Tensor, exponent: float) -> Tensor | None:
    """`x ** exponent` in products, None where it needs the op."""
    of_integers = x.dtype.is_integer and type(exponent) is int and exponent >= 0
    if not of_integers and not (x.dtype.is_float and exponent in (-1, 0, 0.5, *range(1, _LARGEST_PRODUCT + 1))):
        return None
    if exponent == 0.5:
        return sqrt(x)
    if exponent == -1:
        return reciprocal(x)
    result, square, left = None, x, int(exponent)
    while left:  # square and multiply; integers wrap, so any order gives the same bits
        if left & 1:
            result = square if result is None else result * square
        left >>= 1
        square = square * square if left else square
    return ones_like(x) if result is None else result


install(power=power)
