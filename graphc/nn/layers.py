"""The layers. A new one is a `Module` with a `forward`; `graphc.nn.module` says how parameters get their names."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.build import Parameter, Tensor, fail
from graphc.errors import ArgumentError
from graphc.nn import functional
from graphc.nn.module import Module, ModuleList
from graphc.random import Generator


class Linear(Module):
    """`x @ weight + bias`: f32[..., in_features] -> f32[..., out_features].

    `weight` is [in, out], the transpose of PyTorch's: the forward product then reads its rows in order and needs no
    transposed packing. Both parameters start as PyTorch's do, uniform in +-1/sqrt(in_features), drawn from `generator`:
    a `numpy.random.Generator`, a seed, or None for a fresh one.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: str = "float32",
        generator: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        if min(in_features, out_features) < 1:
            fail(ArgumentError, f"Linear: sizes must be positive, not {in_features} and {out_features}")
        self.in_features, self.out_features, self.dtype = in_features, out_features, np.dtype(dtype)
        draw = np.random.default_rng(generator)
        bound = 1 / math.sqrt(in_features)
        self.register_parameter("weight", draw.uniform(-bound, bound, (in_features, out_features)).astype(self.dtype))
        if bias:
            self.register_parameter("bias", draw.uniform(-bound, bound, out_features).astype(self.dtype))
        else:
            self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias

    def describe(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class ReLU(Module):
    """max(x, 0), and NaN for NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x)


class Dropout(Module):
    """`functional.dropout` while `training`, else nothing: `model.eval()` before a graph is built for inference.

    `generator` is a `graphc.random.Generator`, which layers may share, a seed for one of the layer's own, or None for
    one with a random seed.
    """

    def __init__(self, p: float = 0.5, generator: Generator | int | None = None) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            fail(ArgumentError, f"Dropout: a probability is from 0 to 1, not {p!r}")
        self.p, self.generator = p, generator

    def forward(self, x: Tensor) -> Tensor:
        if self.training and 0 < self.p < 1 and not isinstance(self.generator, Generator):
            self.generator = Generator(self.generator, f"{self._prefix()}generator")
        generator = self.generator if isinstance(self.generator, Generator) else None
        return functional.dropout(x, self.p, generator, self.training)

    def describe(self) -> str:
        return f"p={self.p}"


class Function(Module):
    """A function of tensors as a module, such as `functional.gelu`: what `Sequential` makes of one."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)

    def describe(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


class Sequential(ModuleList):
    """Modules, or functions of one tensor, applied one after the other; `model[0]` is the first.

    They are named "0", "1", ... as in PyTorch, or by keyword: `Sequential(hidden=Linear(64, 128), relu=ReLU())`.
    """

    def __init__(self, *modules: Any, **named: Any) -> None:
        super().__init__()
        for name, module in (*((str(index), module) for index, module in enumerate(modules)), *named.items()):
            if not callable(module):
                hint = "write Sequential(*modules)" if isinstance(module, (list, tuple)) else None
                what = f"argument {name!r} is neither a Module nor a function, but a {type(module).__name__}"
                fail(ArgumentError, f"Sequential: {what}", hint=hint)
            setattr(self, name, module if isinstance(module, Module) else Function(module))

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x
