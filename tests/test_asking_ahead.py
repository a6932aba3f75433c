"""Contractions ask for the lines of their results before they are written, where those may be far away."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc
from graphc.nn import functional as F


def test_results_are_asked_for_where_a_kernel_outgrows_the_cache(rng: np.random.Generator) -> None:
    def asks(rows: Any, k: int, n: int) -> bool:
        a, b = graphc.placeholder("a", (rows, k)), graphc.placeholder("b", (k, n))
        return "prefetch" in graphc.function([a, b], a @ b).ir("loops")

    assert asks(4096, 64, 1024) and asks("rows", 4096, 1024) and not asks(64, 64, 64)
    x = rng.standard_normal((16, 16, 60, 60)).astype(np.float32)
    slopes = rng.standard_normal((16, 32, 58, 58)).astype(np.float32)
    px, ps = graphc.placeholder("x", x.shape), graphc.placeholder("slopes", slopes.shape)
    w = graphc.placeholder("w", (32, 16, 3, 3))
    step = graphc.function([px, ps], graphc.grad((F.conv2d(px, w, layout="NCHW") * ps).sum(), [w])[0])
    windows = np.lib.stride_tricks.sliding_window_view(x, (58, 58), (2, 3))
    np.testing.assert_allclose(step(x, slopes)[0], np.einsum("ncpqhw,nhw->cpq", windows, slopes[:, 0]), atol=2e-2)
