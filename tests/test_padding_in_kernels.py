"""Padding and joins inside of row kernels: what a mask leaves out is 0 already, and no condition asks what is known.

A broadcast under the padding is not loaded lane by lane, and a value that is computed is no load: those keep their
selects. Memory is guarded, so that nothing is read beyond an array.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.build import placeholder
from graphc.loops.ranges import Ranges, never_negative
from graphc.nn import functional as F
from graphc.types import Dim, maximum


@pytest.fixture(autouse=True)
def guarded() -> Any:
    with graphc.config(guard_memory=True, verify=True, cache=False):
        yield


def test_shifted_lines_need_neither_selects_nor_conditions_inside(rng: np.random.Generator) -> None:
    """Of the four vectors of a line, the first one begins and the last one ends beyond it."""
    x, w = placeholder("x", (2, 3, 5, 64)), placeholder("w", (3, 1, 3, 3))
    step = graphc.function([x, w], F.conv2d(x, w, padding=1, groups=3))
    text = step.ir("loops")
    assert "select" not in text
    assert len(re.findall(r"load16 b0\[[^\]]*\]\n", text)) == 4 * 3 - 2, "the middle line, which is always there"
    a, b = (rng.standard_normal(t.shape).astype("float32") for t in (x, w))
    padded = np.pad(a, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    np.testing.assert_allclose(step(a, b), np.einsum("nchwpq,cpq->nchw", windows, b[:, 0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 40, "n"])
def test_what_is_padded_keeps_its_values(size: int | str, rng: np.random.Generator) -> None:
    x, row = placeholder("x", (3, size)), placeholder("row", (3, 1))
    n = 21 if size == "n" else size
    a, b = rng.standard_normal((3, n)).astype("float32"), rng.standard_normal((3, 1)).astype("float32")
    a[a > 1] = np.inf
    spread = graphc.broadcast_to(row, x.shape)
    outputs, wanted = [], []
    for before, after in ((1, 0), (0, 2), (16, 16), (3, 18)):
        width = ((1, 1), (before, after))
        outputs += [graphc.pad(x, width) + 1, graphc.pad(spread, width), graphc.pad(graphc.exp(x), width) * 2]
        wanted += [np.pad(a, width) + 1, np.pad(np.broadcast_to(b, a.shape), width), np.pad(np.exp(a), width) * 2]
        joined = graphc.concat([graphc.pad(x, ((0, 0), width[1])), x[:, :1], x], 1) if n else x
        with np.errstate(invalid="ignore"):
            outputs.append(joined - 1)
            wanted.append(np.concatenate([np.pad(a, ((0, 0), (before, after))), a[:, :1], a], 1) - 1 if n else a - 1)
    for found, expected in zip(graphc.function([x, row], outputs)(a, b), wanted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_is_known_of_an_index() -> None:
    i, n = Dim.symbol("i"), Dim.symbol("n")
    ranges = Ranges({"i": 8, "j": n})
    assert ranges.under(i - 1, 7) and not ranges.under(i - 1, 6) and not ranges.below(i - 1, 7)
    assert ranges.below(i + 2, 10) and not ranges.under(i + 2, 9)
    assert ranges.under(Dim.symbol("j") - 2, n) and not ranges.under(Dim.symbol("j") + 1, n)
    assert ranges.under(3 - i, 4) and not ranges.under(3 - i, 3)
    assert not ranges.under(maximum(i, n), 9) and not ranges.under(n, 9)
    assert never_negative(2 * i + n) and not never_negative(i - 1) and not never_negative(maximum(i - 4, -n))
