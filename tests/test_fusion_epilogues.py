"""Epilogues that would store more than they save are taken apart; all others stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

import graphc
from graphc.build import Tensor
from graphc.passes.pipeline import optimize
from tests.fusion_checks import frozen, kernels, shaped


@pytest.fixture(autouse=True)
def _no_cache() -> object:
    with graphc.config(cache=False, verify=True) as settings:
        yield settings


def names(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[str]:
    with graphc.config(disable="join_rows"):
        return [node.attrs["name"] for node in kernels(optimize(frozen(inputs, outputs)))]


def slopes(a: Tensor, b: Tensor) -> list[Tensor]:
    """Of a norm, about so: rows need two values that follow from one product."""
    return [a - a.mean(-1, keepdims=True) + b * b.max(-1, keepdims=True)]


# what follows from p = x @ w, y, z and c, the kernels behind a plain product, and None where they are its epilogue
Results = Callable[[Tensor, Tensor, Tensor, Tensor], list[Tensor]]
CASES: dict[str, tuple[Results, int | None]] = {
    "three results": (lambda p, y, z, c: [p + c, graphc.exp(p), p * 2.0], None),
    "four results": (lambda p, y, z, c: [p + c, graphc.exp(p), p * 2.0, p - y], 1),
    "four arrays": (lambda p, y, z, c: [(p * y + z) * (y - z) + c, p * 3.0], None),
    "four arrays and a bias gradient": (lambda p, y, z, c: [q := (p * y + z) * graphc.tanh(z), p + z, q.sum(0)], 1),
    "four arrays and a total": (lambda p, y, z, c: [q := p * y + z, p + c, (q * q).sum()], 1),
    "two arrays and a bias gradient": (lambda p, y, z, c: [q := p * y, q.sum(0)], 0),
    "slopes of a norm": (lambda p, y, z, c: slopes(p * c, p * 2.0), 1),
    "a scaled product that is a result": (lambda p, y, z, c: [q := p * c, *slopes(q, y)], 0),
}


@pytest.mark.parametrize("rows", ["n", 40])
@pytest.mark.parametrize("name", CASES)
def test_what_is_taken_apart(name: str, rows: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, apart = CASES[name]
    inputs = x, w, y, z, c = shaped([(rows, 8), (8, 24), (rows, 24), (rows, 24), (24,)])
    outputs = make(x @ w, y, z, c)
    found = names(inputs, outputs)
    if apart is None:
        assert len(found) == 1
    elif apart:
        assert found[0] == "matmul" and len(found) == 1 + apart
    else:
        assert found[0] == "matmul_mul" and len(found) == 2
    function = graphc.function(inputs, outputs, threads=1)
    monkeypatch.setattr("graphc.passes.fuse.take_apart", lambda *_: None)
    whole = graphc.function(inputs, outputs, threads=1)
    for n in (1, 7, 40) if rows == "n" else (40,):
        rng = np.random.default_rng(n)
        sizes = [[n if size == x.shape[0] else int(size) for size in t.shape] for t in inputs]
        arrays = [rng.standard_normal(shape).astype(np.float32) for shape in sizes]
        for a, b in zip(function(*arrays), whole(*arrays), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
