"""Loading named arrays into parameters, for `Module` and the optimisers alike: all is checked, then copied."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from graphc.build import Parameter, fail
from graphc.errors import ArgumentError, DTypeError, ShapeError


def load_arrays(
    parameters: Mapping[str, Parameter], state: Mapping[str, ArrayLike], owner: str, hint: str = ""
) -> None:
    """Copy `state` into `parameters`, key by key. The keys must be the same, and so must each shape.

    Raises ArgumentError, ShapeError or DTypeError, which name keys and types; then no parameter has changed.
    """
    missing = [key for key in parameters if key not in state]
    unexpected = [key for key in state if key not in parameters]
    if missing or unexpected:
        parts = [f"missing {', '.join(missing)}"] if missing else []
        parts += [f"unexpected {', '.join(unexpected)}"] if unexpected else []
        fail(ArgumentError, f"{owner}: the keys do not fit: {'; '.join(parts)}", hint or None)
    arrays = {key: np.asarray(state[key]) for key in parameters}
    for key, parameter in parameters.items():
        _check_fit(f"{owner}: {key}", parameter.value, arrays[key])
    for key, parameter in parameters.items():
        parameter.value = arrays[key]


def _check_fit(what: str, own: np.ndarray, new: np.ndarray) -> None:
    if new.shape != own.shape:
        turned = new.ndim == 2 and new.shape == own.shape[::-1]
        hint = "graphc keeps weights as [in, out], PyTorch as [out, in]: pass the transpose" if turned else None
        fail(ShapeError, f"{what} is {own.dtype.name}{list(own.shape)}, the array has shape {list(new.shape)}", hint)
    if not np.can_cast(new.dtype, own.dtype, "safe"):
        message = f"{what} is {own.dtype.name}, the array is {new.dtype.name}: that narrows"
        fail(DTypeError, message, f"write array.astype({own.dtype.name!r}) if you mean it")
