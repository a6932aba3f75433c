"""Special functions: erf."""

from __future__ import annotations

import math

import numpy as np

from graphc.ops.transcendental import exp, float_function


def _erf(x: np.ndarray) -> np.ndarray:
    flat = [math.erf(v) for v in x.reshape(-1).tolist()]
    return np.array(flat, np.float64).reshape(x.shape).astype(x.dtype)


erf = float_function(
    "erf",
    "The error function: 2 / sqrt(pi) times the integral of exp(-t**2) from 0 to x.",
    _erf,
    lambda g, x, y: g * (exp(-(x * x)) * (2 / math.sqrt(math.pi))),
    formula="2 / sqrt(pi) * integral of e^(-t^2) for t in 0..x",
)
