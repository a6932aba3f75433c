"""`Optimizer`: the learning rate, the slots, and the walk over the parameters that all optimisers share.

A subclass says what is computed once a step (`begin`) and how one parameter moves (`move`). All state is parameters of
graphc, so one compiled step reads and writes it: `<name>.lr`, `<name>.step` and `<name>.<slot>.<parameter>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

import numpy as np
from numpy.typing import ArrayLike

from graphc.autodiff import grad
from graphc.build import Parameter, Tensor, fail, parameter
from graphc.elsewhere import unknown
from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.graph import describe, shown
from graphc.nn.state_dict import load_arrays
from graphc.types import DType

_PARAMETERS = "pass model.parameters(), or a list of what graphc.parameter made"


class Optimizer:
    """Base of the optimisers.

    `lr` is a float, which becomes the 0-d float64 parameter `opt.lr` (`opt.lr = 1e-3` sets its value), or a scalar
    tensor, such as a schedule computed from a step counter. `name` starts the names of all state; two optimisers of
    one kind in one function need different ones.
    """

    def __new__(cls, *args: Any, **named: Any) -> Self:
        """A new one, or an error for PyTorch's `Adam(parameters, lr)`: here the parameters are named by `updates`."""
        if args and isinstance(args[0], Iterable) and not isinstance(args[0], (Tensor, str, np.ndarray)):
            hint = f"write {cls.__name__}(lr=...).updates(loss, parameters)"
            fail(ArgumentError, f"{cls.__name__}: the first argument is the learning rate, not the parameters", hint)
        return super().__new__(cls)

    def __init__(self, lr: float | Tensor, name: str) -> None:
        self.name = name
        if isinstance(lr, Tensor):
            if lr.shape != () or not lr.dtype.is_float:
                fail(ShapeError, f"{name}: lr must be a float or a scalar of floats, not {lr.type}")
            self._lr = lr
        else:
            self._lr = parameter(f"{name}.lr", np.float64(self._checked_lr(lr)))
        self._slots: dict[str, Parameter] = {}

    @property
    def lr(self) -> Tensor:
        """The learning rate. Assigning a number, as to `lr.value`, takes effect at the next call and compiles nothing.

        A rate that was given as a tensor is computed in the step: assigning to it is an ArgumentError.
        """
        return self._lr

    @lr.setter
    def lr(self, new: float) -> None:
        rate = self._checked_lr(new)
        if not isinstance(self._lr, Parameter):
            message = f"{self.name}: lr is {shown(self._lr)}, which the step computes: it cannot be assigned"
            fail(ArgumentError, message, "change what it is computed from, or make the optimiser with a number")
        self._lr.value = rate

    def _checked_lr(self, lr: object) -> float:
        if isinstance(lr, Tensor):
            hint = f"make the optimiser with it: {type(self).__name__}(lr=...)"
            fail(ArgumentError, f"{self.name}: lr is assigned a number, not {shown(lr)}", hint)
        rate = number(self.name, "lr", lr)
        check(self.name, "lr", rate, rate >= 0, "at least 0")
        return rate

    if not TYPE_CHECKING:  # for people's mistakes; a type checker finds them itself

        def __getattr__(self, name: str) -> NoReturn:
            raise unknown(f"the optimiser {type(self).__name__}", name, dir(type(self)))

    @property
    def slots(self) -> dict[str, Parameter]:
        """The state by name, without the optimiser's own: `step`, `exp_avg.<parameter>`, ... and `lr` if it is ours."""
        own = {"lr": self.lr} if isinstance(self.lr, Parameter) else {}
        return own | self._slots

    def slot(self, key: str, value: ArrayLike) -> Parameter:
        """The state called `key`: made with `value` the first time, the same parameter ever after."""
        if key not in self._slots:
            self._slots[key] = parameter(f"{self.name}.{key}", np.asarray(value))
        return self._slots[key]

    def updates(self, loss: Tensor, parameters: Iterable[Parameter]) -> dict[Parameter, Tensor]:
        """The `updates` that take one step down the gradient of the scalar `loss`: next values of parameters and slots.

        Raises what `graphc.grad` raises: GradientError where `loss` is no scalar or does not depend on a parameter.
        """
        if isinstance(parameters, Tensor):
            name = describe(parameters.ref)
            fail(ArgumentError, f"{self.name}: the parameters are a list, not {shown(parameters)}", f"write [{name}]")
        chosen = list(parameters)
        self._check_parameters(chosen)
        return self.updates_from(dict(zip(chosen, grad(loss, chosen), strict=True)))

    def updates_from(self, gradients: Mapping[Parameter, Tensor]) -> dict[Parameter, Tensor]:
        """As `updates`, for gradients that you have: those of `graphc.optim.clip_grad_norm`, say."""
        if not hasattr(gradients, "items"):
            hint = "write dict(zip(parameters, graphc.grad(loss, parameters)))"
            fail(ArgumentError, f"{self.name}: gradients are a dict, parameter -> gradient", hint)
        self._check_parameters(list(gradients))
        result = self.begin()
        for one, gradient in gradients.items():
            if gradient.shape != one.shape:
                fail(
                    ShapeError, f"{self.name}: the gradient of {one.name} is {gradient.type}, the parameter {one.type}"
                )
            result |= self.move(one, gradient)
        return result

    def begin(self) -> dict[Parameter, Tensor]:
        """What happens once a step: updates of slots that belong to no parameter."""
        return {}

    def move(self, parameter: Parameter, gradient: Tensor) -> dict[Parameter, Tensor]:
        """The next values of one parameter and of its slots."""
        raise TypeError(f"{type(self).__name__} has no move()")

    def _check_parameters(self, parameters: list[Parameter]) -> None:
        names: set[str] = set()
        for one in parameters:
            if not isinstance(one, Parameter):
                fail(ArgumentError, f"{self.name}: {shown(one)} is not a parameter", _PARAMETERS)
            if not one.dtype.is_float:
                fail(DTypeError, f"{self.name}: {one.name} is {one.type}: only floats can be trained")
            if one.state.name in names:
                hint = "the names of slots need one name each: graphc.parameter('other', ...), or layers of one Module"
                fail(ArgumentError, f"{self.name}: two parameters are called {one.name}", hint)
            names.add(one.state.name)
        if not parameters:
            fail(ArgumentError, f"{self.name}: there are no parameters to train")

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of the learning rate and of every slot made so far, by name."""
        return {key: np.array(slot.value) for key, slot in self.slots.items()}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Copy `state` into the slots; an error names keys and shapes that do not fit, and then nothing changed."""
        hint = "" if self._slots else "the slots exist once updates() was called"
        load_arrays(self.slots, state, f"{self.name}.load_state_dict", hint)


def number(owner: str, what: str, value: object) -> float:
    """`value` as a float, or an ArgumentError: a hyper-parameter is a number."""
    try:
        if not isinstance(value, (str, bytes)):
            return float(cast(Any, value))
    except (TypeError, ValueError):
        pass
    fail(ArgumentError, f"{owner}: {what} must be a number, not {shown(value)}")


def check(owner: str, what: str, value: float, good: bool, rule: str) -> None:
    """Raise ArgumentError unless a hyper-parameter is `good` (NaN never is)."""
    if not good:
        fail(ArgumentError, f"{owner}: {what} must be {rule}, not {value!r}")


def scalar(x: Tensor, dtype: DType) -> Tensor:
    """A scalar of the step, computed in float64, as the dtype of the parameter: rounded once, at the end."""
    return x if x.dtype == dtype else x.astype(dtype)
