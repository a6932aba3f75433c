"""Trigonometric functions, in radians. Each op is one `float_function`; arguments of any size are reduced exactly."""

from __future__ import annotations

from typing import cast

import numpy as np

from graphc.build import Tensor, apply
from graphc.ops.transcendental import float_function


def _minus_sine(g: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return -g * cast(Tensor, apply("sin", x))


cos = float_function("cos", "The cosine; nan for infinities.", np.cos, _minus_sine)
sin = float_function("sin", "The sine; nan for infinities.", np.sin, lambda g, x, y: g * cos(x))
tan = float_function(
    "tan",
    "The tangent; nan for infinities.",
    np.tan,
    lambda g, x, y: g * (y * y + 1),
    domain=(0.25, 1.25),
)
