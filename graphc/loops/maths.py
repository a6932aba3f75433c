"""Vector maths: every function of `graphc.ops.lowering.FUNCTIONS` as branch-free code over a handler.

Enter at `FUNCTIONS`. A handler implements `h.function("exp", x)` as `FUNCTIONS["exp"](h, x)`: every step is one call of
the handler, so the same text serves scalars and vectors, and both give the same bits. No libm is called.

To add a function: write it in the file of its kind, name it here and in `graphc.ops.lowering.FUNCTIONS`, put its
coefficients into `maths_polynomials` and their fit into `benchmarks/fit_maths.py`, and measure it with
`benchmarks/accuracy.py`. Errors in ULP stand in `docs/maths.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.loops.maths_exponential import exp, exp2, expm1, log, log1p, log2, log10, sigmoid, tanh
from graphc.loops.maths_gamma import digamma, lgamma
from graphc.loops.maths_hyperbolic import acosh, asinh, atanh, cosh, sinh
from graphc.loops.maths_inverse import acos, asin, atan, atan2
from graphc.loops.maths_parts import left_over
from graphc.loops.maths_power import power
from graphc.loops.maths_special import erf, erfc, erfinv, rsqrt
from graphc.loops.maths_trigonometric import cos, sin, tan

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "acos": acos,
    "acosh": acosh,
    "asin": asin,
    "asinh": asinh,
    "atan": atan,
    "atan2": atan2,
    "atanh": atanh,
    "cos": cos,
    "cosh": cosh,
    "digamma": digamma,
    "erf": erf,
    "erfc": erfc,
    "erfinv": erfinv,
    "exp": exp,
    "exp2": exp2,
    "expm1": expm1,
    "lgamma": lgamma,
    "log": log,
    "log10": log10,
    "log1p": log1p,
    "log2": log2,
    "power": power,
    "rsqrt": rsqrt,
    "sigmoid": sigmoid,
    "sin": sin,
    "sinh": sinh,
    "tan": tan,
    "tanh": tanh,
}
IN_FLOAT64 = frozenset(  # those that compute float32 in float64: a vector takes two registers
    ["acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "digamma", "erfc", "erfinv", "lgamma",
     "log10", "log2", "power", "sin", "sinh", "tan"]
)  # fmt: skip
WRITTEN = FUNCTIONS | {"left_over": left_over}  # all that is written against a handler: this one is no op of its own
