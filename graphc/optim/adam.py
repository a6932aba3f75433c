"""Adam (Kingma & Ba 2015, arXiv:1412.6980) and AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), as in `torch.optim`.

    t = t + 1                                        # slot "step"
    g = gradient + weight_decay * p                  # Adam;  AdamW: p = p * (1 - lr * weight_decay)
    m = m + (1 - beta1) * (g - m)                    # slot "exp_avg"
    v = beta2 * v + (1 - beta2) * g * g              # slot "exp_avg_sq"
    p = p - lr / c1 * m / (sqrt(v) / sqrt(c2) + eps)      where  c = 1 - beta**t

The two factors that depend on t alone are computed once a step in float64, as -expm1(t * log(beta)) so that the first
steps lose no digits, and rounded to the parameter's dtype at the end; an element then costs one sqrt and one division.
"""

from __future__ import annotations

import math

import numpy as np

from graphc import ops
from graphc.build import Parameter, Tensor, fail
from graphc.errors import ArgumentError
from graphc.optim.optimizer import Optimizer, check, number, scalar


class Adam(Optimizer):
    """Adam with bias correction; `weight_decay` is an L2 penalty on the gradient. `lr` as in `Optimizer`."""

    def __init__(
        self,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        name: str = "adam",
    ) -> None:
        super().__init__(lr, name)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            fail(ArgumentError, f"{name}: betas are two numbers, not {betas!r}", "write betas=(0.9, 0.999)")
        for index, beta in enumerate(betas):
            check(name, f"betas[{index}]", beta, 0 <= number(name, f"betas[{index}]", beta) < 1, "in [0, 1)")
        check(name, "eps", eps, number(name, "eps", eps) >= 0, "at least 0")
        check(name, "weight_decay", weight_decay, number(name, "weight_decay", weight_decay) >= 0, "at least 0")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def begin(self) -> dict[Parameter, Tensor]:
        step = self.slot("step", np.float64(0))
        return {step: step + 1.0}

    def move(self, parameter: Parameter, gradient: Tensor) -> dict[Parameter, Tensor]:
        beta1, beta2 = self.betas
        zeros = np.zeros_like(parameter.value)
        exp_avg = self.slot(f"exp_avg.{parameter.name}", zeros)
        exp_avg_sq = self.slot(f"exp_avg_sq.{parameter.name}", zeros)
        decayed, gradient = self.decay(parameter, gradient)
        mean = exp_avg + (1 - beta1) * (gradient - exp_avg)
        square = beta2 * exp_avg_sq + (1 - beta2) * (gradient * gradient)
        step = self.slot("step", np.float64(0)) + 1.0
        step_size = scalar(self.lr / _correction(step, beta1), parameter.dtype)
        rescale = scalar(1.0 / ops.sqrt(_correction(step, beta2)), parameter.dtype)
        moved = decayed - step_size * mean / (ops.sqrt(square) * rescale + self.eps)
        return {parameter: moved, exp_avg: mean, exp_avg_sq: square}

    def decay(self, parameter: Parameter, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The parameter and the gradient after weight decay."""
        if not self.weight_decay:
            return parameter, gradient
        return parameter, gradient + self.weight_decay * parameter


class AdamW(Adam):
    """Adam whose weight decay is decoupled from the gradient; the default of `weight_decay` is 1e-2."""

    def __init__(
        self,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        name: str = "adamw",
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, name=name)

    def decay(self, parameter: Parameter, gradient: Tensor) -> tuple[Tensor, Tensor]:
        if not self.weight_decay:
            return parameter, gradient
        return parameter * scalar(1.0 - self.lr * self.weight_decay, parameter.dtype), gradient


def _correction(step: Tensor, beta: float) -> Tensor:
    """1 - beta**step as a scalar."""
    return -ops.expm1(step * (math.log(beta) if beta else -math.inf))
