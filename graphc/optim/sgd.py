"""Stochastic gradient descent, as `torch.optim.SGD` (PyTorch documentation; momentum after Sutskever et al. 2013).

g = gradient + weight_decay * p
m = momentum * m + g                        # slot "momentum_buffer"; only with momentum
g = g + momentum * m  if nesterov else  m
p = p - lr * g
"""

from __future__ import annotations

import numpy as np

from graphc.build import Parameter, Tensor, fail
from graphc.errors import ArgumentError
from graphc.optim.optimizer import Optimizer, check, number, scalar


class SGD(Optimizer):
    """Gradient descent with optional (Nesterov) momentum and L2 penalty; `lr` as in `Optimizer`."""

    def __init__(
        self,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        *,
        name: str = "sgd",
    ) -> None:
        super().__init__(lr, name)
        check(name, "momentum", momentum, number(name, "momentum", momentum) >= 0, "at least 0")
        check(name, "weight_decay", weight_decay, number(name, "weight_decay", weight_decay) >= 0, "at least 0")
        if nesterov and momentum == 0:
            fail(ArgumentError, f"{name}: nesterov needs a momentum above 0")
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay

    def move(self, parameter: Parameter, gradient: Tensor) -> dict[Parameter, Tensor]:
        result: dict[Parameter, Tensor] = {}
        if self.weight_decay:
            gradient = gradient + self.weight_decay * parameter
        if self.momentum:
            slot = self.slot(f"momentum_buffer.{parameter.name}", np.zeros_like(parameter.value))
            result[slot] = buffer = self.momentum * slot + gradient
            gradient = gradient + self.momentum * buffer if self.nesterov else buffer
        result[parameter] = parameter - scalar(self.lr, parameter.dtype) * gradient
        return result
