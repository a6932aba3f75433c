"""Statistics of columns whose gradients read a part of them: kernels of stages, of which the last reduces nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import interpret
from graphc.build import Tensor, placeholder

Loss = Callable[[Tensor], Tensor]


@pytest.mark.parametrize(
    "shape, loss",
    [
        (("m", 17), lambda x: graphc.square(graphc.var(x, axis=0)[1:]).sum()),
        (("m", 17), lambda x: graphc.square(graphc.var(x, axis=0)[:16]).sum()),
        (("m", 17), lambda x: (graphc.var(x, axis=0)[:3] * x.mean(0)[2:5]).sum()),
        ((2000, 17), lambda x: graphc.square(graphc.var(x, axis=0)[1:]).sum()),
        (("n", "h", "w", 8), lambda x: graphc.sin(graphc.std(x, axis=(0, 1, 2))[4:]).sum()),
    ],
)
def test_gradients_through_some_columns(shape: tuple[Any, ...], loss: Loss, rng: np.random.Generator) -> None:
    """What the last stage reads of each column, though no reduction of its own, comes from the stage before."""
    x = placeholder("x", shape, "float64")
    results = [loss(x), graphc.grad(loss(x), x)]
    with graphc.config(verify=True, guard_memory=True, cache=False):
        step = graphc.function([x], results)
    assert any(kernel.partition("_part")[1] for kernel in step.program.kernels)
    for length in (2, 5, 40):
        a = rng.standard_normal([length if isinstance(n, str) else n for n in shape])
        wanted = interpret.evaluate([result.ref for result in results], {x.ref: a})
        for found, expected in zip(step(a), wanted, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
