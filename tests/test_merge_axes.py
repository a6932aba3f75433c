"""Copies between zeros and of parts go along all that lies side by side; the values stay, and other kernels too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.build import Tensor, apply, placeholder
from graphc.graph import Graph
from graphc.loops.merge_axes import merge_axes
from graphc.ops.padding import unslice
from graphc.passes.domain import RowsShape, kernel_shape
from graphc.passes.pipeline import optimize

Shape = tuple[Any, ...]

# (shape, what is made of it, the result's shape in the kernel)
CASES: list[tuple[Shape, Callable[[Tensor], Any], Shape]] = [
    ((2, 5, 6, 3), lambda x: unslice(x, (2, 7, 9, 3), [0, 1, 2, 0], [1, 1, 1, 1]), (2, 7, 27)),
    ((2, 5, 6, 3), lambda x: unslice(x, (2, 7, 6, 3), [0, 1, 0, 0], [1, 1, 1, 1]), (2, 126)),
    ((2, 5, 6, 3), lambda x: unslice(x, (2, 10, 6, 3), [0, 9, 0, 0], [1, -2, 1, 1]), (2, 10, 18)),
    ((2, 5, 6, 3), lambda x: unslice(x, (2, 7, 12, 3), [0, 1, 0, 0], [1, 1, 2, 1]), (2, 7, 12, 3)),
    ((2, 5, 6, 3), lambda x: unslice(x, (2, 5, 6, 7), [0, 0, 0, 2], [1, 1, 1, 1]), (60, 7)),
    ((2, 5, 6, 3), lambda x: graphc.exp(x[:, 1:4, 2:5]) * 2, (2, 3, 9)),
    ((2, 5, 6, 3), lambda x: unslice(x[:, :, 1:], (2, 5, 8, 3), [0, 0, 1, 0], [1, 1, 1, 1]), (10, 24)),
    ((2, 5, 6, 3), lambda x: x[:, :, :, 1:] + 1, (60, 2)),
    (("n", 5, 6, 3), lambda x: unslice(x, (x.shape[0], 7, 9, 3), [0, 1, 2, 0], [1, 1, 1, 1]), ("n", 7, 27)),
    ((5, "w", "c"), lambda x: unslice(x, (5, x.shape[1] + 2, x.shape[2]), [0, 1, 0], [1] * 3), (5, "(w+2)*c")),
    ((0, 5, 6, 3), lambda x: unslice(x, (0, 7, 9, 3), [0, 1, 2, 0], [1, 1, 1, 1]), (0, 7, 27)),
    ((2, 5, 6, 3), lambda x: x.transpose(0, 3, 1, 2), (2, 3, 30)),
    ((2, 5, 6, 3), lambda x: x.transpose(2, 3, 1, 0) * 2, (18, 5, 2)),
    ((2, 5, 6, 3), lambda x: apply("concat", x.transpose(1, 2, 0, 3), axis=3), (30, 2, 3)),
    ((2, 5, 6, 3), lambda x: x[1:, :, :, :2].transpose(3, 1, 2, 0), (2, 30, 1)),
    ((2, 5, 6, 3), lambda x: x.transpose(0, 2, 1, 3) + x.reshape(2, 6, 5, 3), (2, 6, 5, 3)),
    (("n", 5, 6, "c"), lambda x: x.transpose(0, 3, 1, 2), ("n", "c", 30)),
    ((2, 5, 6, 0), lambda x: unslice(x, (2, 7, 9, 0), [0, 1, 2, 0], [1, 1, 1, 1]), (0,)),
]


@pytest.mark.parametrize("shape, f, wanted", CASES)
def test_axes_side_by_side_are_one(shape: Shape, f: Callable[[Tensor], Any], wanted: Shape) -> None:
    x = placeholder("x", shape)
    y = f(x)
    (kernel,) = (n for n in optimize(Graph((x.ref,), (y.ref,))).order() if n.op.name == "kernel")
    inner = kernel.attrs["graph"]
    kind = kernel_shape(inner)
    assert isinstance(kind, RowsShape)
    found = merge_axes(inner, kind).outputs[0].type.shape
    sizes = {"n": 2, "w": 6, "c": 3}
    assert len(found) == len(wanted)
    if "(w+2)*c" not in wanted:
        assert tuple(map(str, found)) == tuple(map(str, wanted))
    values = np.random.default_rng(0).standard_normal([sizes.get(n, n) for n in shape]).astype("float32")
    values[..., :1] = np.nan
    with graphc.config(guard_memory=True, cache=False):
        result = graphc.function([x], y)(values)
    (reference,) = graphc.interpret.evaluate([y.ref], {x.ref: values})
    np.testing.assert_allclose(result, reference, rtol=1e-6)


def test_reductions_and_rows_keep_their_axes() -> None:
    x, b = placeholder("x", (4, 5, 6)), placeholder("b", (6,))
    for y in (x[:, 1:].sum(-1), x[:, 1:] + b):
        for node in optimize(Graph((x.ref, b.ref), (y.ref,))).order():
            if node.op.name == "kernel":
                kind = kernel_shape(node.attrs["graph"])
                assert isinstance(kind, RowsShape)
                assert merge_axes(node.attrs["graph"], kind) is node.attrs["graph"]
