"""Blocks of columns: values in every form, infinities and NaN as in the composition, bits, scratch, plans."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc
from graphc import ops
from graphc.build import Tensor, placeholder
from graphc.interpret import evaluate
from graphc.loops import block_plan, row_blocks
from graphc.loops.block_sweeps import Sweep, plan_sweeps
from graphc.nn import functional
from graphc.passes.blocks_shape import blocks_shape
from graphc.passes.pipeline import optimize
from graphc.runtime.host import host_target
from tests.block_forms import Form
from tests.fusion_checks import frozen
from tests.test_blocks import FORMS, agrees, attention, blocks, check_bits_on_threads
from tests.test_blocks import small as small

Array = np.ndarray[Any, Any]


@pytest.fixture
def swept(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices of any size are joined, and swept 32 columns at a time."""
    monkeypatch.setattr(row_blocks, "sweeps_pay", lambda *_: True)
    monkeypatch.setattr(block_plan, "WIDTH", 32)


@pytest.mark.usefixtures("swept")
@settings(max_examples=15, deadline=None)
@given(FORMS)
def test_every_form_is_right(form: Form) -> None:
    if form.mask in ("window", "causal, last rows") and form.rows > form.columns:
        return  # rows that see nothing are NaN, and reach the gradients only through columns that are computed
    inputs, outputs = form.built()
    agrees(inputs, outputs, list(form.arguments().values()), 2e-4 if form.dtype == "float32" else 1e-11)


@pytest.mark.usefixtures("swept")
@pytest.mark.parametrize(
    "rows, columns, batch", [(0, 5, 2), (5, 0, 2), (5, 1, 2), (1, 1, 1), (3, 5, 0), (1, 40, 1), (97, 65, 3)]
)
def test_sizes_that_are_names(rows: int, columns: int, batch: int) -> None:
    q, k, v, out = attention("rows", "columns", ("batch",), causal=False)
    slope = placeholder("slope", ("batch", "rows", 64), "float32")
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((batch, n, 64)).astype("float32") for n in (rows, columns, columns, rows)]
    agrees([q, k, v, slope], [out, *graphc.vjp([out], [q, k, v], [slope])], arrays, 1e-4)


@pytest.mark.usefixtures("swept")
@pytest.mark.parametrize("vectors", [7, 11, 13])
def test_widths_that_tiles_do_not_divide(vectors: int, rng: np.random.Generator) -> None:
    """The last tile added its vectors behind the width of v to the next row of the sums."""
    width = vectors * host_target().lanes(4)
    shapes = [("rows", 2), ("columns", 2), ("columns", width - 3)]
    q, k, v = (placeholder(name, shape, "float32") for name, shape in zip("qkv", shapes, strict=True))
    arrays = [rng.standard_normal(shape).astype("float32") for shape in ((49, 2), (65, 2), (65, width - 3))]
    agrees([q, k, v], [functional.softmax(q @ k.T) @ v], arrays, 1e-5)


def attention_with_a_bias() -> tuple[list[Tensor], Tensor]:
    """Attention of 100 columns with an array that is added to its scores, which makes them whatever a test wants."""
    q, k = placeholder("q", (50, 4), "float64"), placeholder("k", (100, 4), "float64")
    bias, v = placeholder("bias", (50, 100), "float64"), placeholder("v", (100, 8), "float64")
    return [q, k, bias, v], functional.softmax(q @ ops.swapaxes(k, -1, -2) + bias) @ v


@pytest.mark.usefixtures("swept")
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_infinities_and_nan_are_those_of_the_composition(seed: int) -> None:
    """Rows of -inf, alone or up to some column; infinities and NaN among scores and values; large steps of maxima.

    No infinite value where weights underflow: whether it meets a 0 or not may differ.
    """
    rng = np.random.default_rng(seed)
    inputs, out = attention_with_a_bias()
    step = rng.choice([1.0, 300.0])
    added = rng.standard_normal((50, 100)) * step
    added[rng.random(50) < 0.2] = -np.inf
    for row in np.flatnonzero(rng.random(50) < 0.5):
        added[row, : rng.integers(0, 101)] = -np.inf
    special = rng.random(added.shape) < rng.choice([0.0, 0.001])
    added[special] = rng.choice([np.inf, np.nan, -np.inf, 1e300], special.sum())
    values = rng.standard_normal((100, 8))
    odd = [np.inf, np.nan, -np.inf] if step == 1.0 else [np.nan]
    values[rng.random(values.shape) < rng.choice([0.0, 0.002])] = rng.choice(odd)
    arrays = [rng.standard_normal((50, 4)), rng.standard_normal((100, 4)), added, values]
    with np.errstate(all="ignore"):
        function = agrees(inputs, [out], arrays, 1e-11)
    assert "scratch scale" in function.ir("loops")


@pytest.mark.usefixtures("swept")
def test_bits_do_not_depend_on_threads() -> None:
    check_bits_on_threads()


@pytest.mark.parametrize("columns", [8192, 20000, "columns"])
def test_long_rows_have_small_scratch(columns: int | str) -> None:
    """Less than one vector of whole rows of 8192: nothing of the size of the scores is anywhere."""
    q, k, v, out = attention(columns, columns, (2,))
    slope = placeholder("slope", out.shape, "float32")
    for outputs in ([out], [out, *graphc.vjp([out], [q, k, v], [slope])]):
        function = graphc.function([q, k, v, slope], outputs)
        sizes = [int(n) for n in re.findall(r"scratch \S+: \S+?\[(\d+)\]", function.ir("loops"))]
        assert sizes and max(sizes) <= 192 * (128 + 64)


def test_long_rows_are_as_exact_as_short_ones() -> None:
    """Against float64: 5000 columns, which are swept, with maxima that rise all along a row."""
    rng = np.random.default_rng(0)
    q, k, v, out = attention(60, 5000, causal=False)
    arrays = [rng.standard_normal((n, 64)).astype("float32") for n in (60, 5000, 5000)]
    arrays[1] *= np.linspace(0, 4, 5000, dtype="float32")[:, None]
    found = graphc.function([q, k, v], out)(*arrays)
    wide = [placeholder(t.name or "x", t.shape, "float64") for t in (q, k, v)]
    exact = functional.scaled_dot_product_attention(*wide)
    (expected,) = evaluate([exact.ref], {t.ref: a.astype("float64") for t, a in zip(wide, arrays, strict=True)})
    assert np.abs(found - expected).max() < 3e-6


def plans(inputs: list[Tensor], outputs: list[Tensor]) -> list[list[Sweep]]:
    return [plan_sweeps(graph, blocks_shape(graph)) for graph in blocks(optimize(frozen(inputs, outputs)))]


def test_what_runs_along_with_a_maximum() -> None:
    q, k, v, out = attention(600, 700)
    ((sweep,),) = plans([q, k, v], [out])
    assert sweep.maximum is not None and {n.op.name for n in sweep.scaled} == {"sum", "matmul"}
    slope = placeholder("slope", out.shape, "float32")
    (first, second), = plans([q, k, v, slope], graphc.vjp([out], [q, k, v], [slope]))  # fmt: skip
    assert [n.op.name for n in first.reductions] == ["max", "sum", "sum"] and not first.products
    assert not second.reductions and len(second.products) == 3 and second.maximum is None


def test_what_does_not_run_along() -> None:
    """What is no multiple of exp(x - max(x)) waits for the maximum; a dropout of it does not."""
    q, k, v, _ = attention(600, 700)
    scores, keep = q @ ops.swapaxes(k, -1, -2), placeholder("keep", (600, 700), "bool")
    shifted = scores - scores.max(-1, keepdims=True)
    powers = ops.exp(shifted)

    def sweeps(weights: Tensor) -> int:
        ((*found,),) = plans([q, k, v, keep], [weights @ v])
        return len(found)

    assert sweeps(powers) == 1
    assert sweeps(ops.where(keep, powers * 2.0, 0.0)) == 1
    assert sweeps(ops.where(keep, powers, 1.0)) == 2
    assert sweeps(powers * powers) == 2
    assert sweeps(powers + 1.0) == 2
    assert sweeps(powers * shifted) == 2
    assert sweeps(ops.exp(scores * 0.5 - scores.max(-1, keepdims=True))) == 2
    assert sweeps(powers / (powers * powers).sum(-1, keepdims=True)) == 3
