"""What the tests of array functions share: interpreter and compiled code against NumPy, gradients by differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphc
from graphc.autodiff import vjp
from graphc.build import Tensor, placeholder
from graphc.interpret import evaluate

Build = Callable[..., "Tensor | Sequence[Tensor]"]


def placeholders(arrays: Sequence[np.ndarray], named: bool = False) -> list[Tensor]:
    """A placeholder for each array: of its shape, or of named sizes (equal sizes share a name)."""
    return [placeholder(f"x{i}", [f"n{n}" if named else n for n in a.shape], a.dtype) for i, a in enumerate(arrays)]


def agree(build: Build, wanted: Any, *arrays: np.ndarray, rtol: float = 0, named: bool = False) -> None:
    """`build(*placeholders)`, interpreted and compiled, is `wanted` (an array or several): dtype, shape and values."""
    inputs = placeholders(arrays, named)
    made = build(*inputs)
    outputs = [made] if isinstance(made, Tensor) else list(made)
    expected = [wanted] if isinstance(wanted, (np.ndarray, np.generic)) else list(wanted)
    assert len(outputs) == len(expected)
    feeds = {x.ref: a for x, a in zip(inputs, arrays, strict=True)}
    interpreted = evaluate([t.ref for t in outputs], feeds)
    with graphc.config(verify=True, cache=False):
        compiled = graphc.function(inputs, outputs)(*arrays)
    for want, plain, native in zip(expected, interpreted, compiled, strict=True):
        for got in (plain, native):
            assert got.dtype == want.dtype and got.shape == want.shape, f"{got.dtype}{got.shape}"
            if want.dtype.kind != "f":
                np.testing.assert_array_equal(got, want)
                continue
            atol = rtol * float(np.max(np.abs(want[np.isfinite(want)]), initial=0))
            np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)
            if not rtol:
                numbers = ~np.isnan(want)
                np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(want)[numbers])


def differentiable(build: Callable[..., Tensor], *arrays: np.ndarray, compiled: bool = True) -> None:
    """The gradient of a random weighting of `build` is its central difference along a random direction (float64)."""
    rng = np.random.default_rng(3)
    inputs = placeholders(arrays)
    result = build(*inputs)
    weights = rng.uniform(0.5, 1.5, [int(n) for n in result.shape])  # type: ignore[arg-type]
    loss = (result * weights).sum()
    wrt = [x for x in inputs if x.dtype.is_float]
    gradients = vjp(loss, wrt, None)
    feeds = dict(zip([x.ref for x in inputs], arrays, strict=True))
    along = [rng.choice([-1.0, 1.0], x.shape) if x.dtype.is_float else 0 for x in inputs]  # type: ignore[arg-type]
    found = evaluate([g.ref for g in gradients], feeds)
    directions = [d for d, x in zip(along, inputs, strict=True) if x.dtype.is_float]
    slope = sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True))
    step = 1e-5
    values = []
    for sign in (1, -1):
        moved = {x.ref: a + sign * step * d if x.dtype.is_float else a
                 for x, a, d in zip(inputs, arrays, along, strict=True)}  # fmt: skip
        values.append(float(evaluate([loss.ref], moved)[0]))
    assert abs((values[0] - values[1]) / (2 * step) - slope) <= 1e-6 * max(1.0, abs(slope), abs(values[0]))
    if compiled:
        with graphc.config(verify=True, cache=False):
            for g, want in zip(graphc.function(inputs, gradients)(*arrays), found, strict=True):
                np.testing.assert_allclose(g, want, rtol=1e-12, atol=1e-12)
