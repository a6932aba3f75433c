"""The fields of an op's entry that its reference page shows: there, and true."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from graphc import interpret
from graphc.graph import Op
from graphc.ops.lowering import Elementwise, Reduction, Scan
from graphc.ops.registry import OPS, register
from graphc.types import float64


class Unheard:
    """A lowering kind of which the registry knows nothing."""


@pytest.mark.parametrize(
    ("op", "changed", "message"),
    [
        ("add", {"formula": ""}, "has no formula: Op(..., formula='x + y')"),
        ("sum", {"example": ""}, "has no example: Op(..., example='graphc.incomplete(...)')"),
        ("sum", {"lowering": Unheard()}, "says nothing of NaN, and its kind Unheard has no sentence"),
    ],
)
def test_a_missing_field_of_the_page_fails_at_import(op: str, changed: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=f"op incomplete {re.escape(message)}"):
        register(replace(OPS[op], name="incomplete", **changed))  # type: ignore[arg-type]
    assert "incomplete" not in OPS


@pytest.mark.parametrize("op", [op for op in OPS.values() if isinstance(op.lowering, (Elementwise, Reduction, Scan))])
def test_what_is_said_of_nan_is_true(op: Op) -> None:
    """The sentence of the kind where the entry has none: a nan gives nan. One of its own: not always."""
    sample = next((s for s in op.samples() if float64 in s.dtypes and s.operands and s.dims == {}), None)
    if sample is None or all(o.dtype not in (None, float64) for o in sample.operands):
        return  # of integers or bools only
    beside = np.array([np.inf, 0.0, 1.0, -1.0, 2.5])
    arrays = sample.draw(float64, np.random.default_rng(0), smooth=True)
    arrays = [np.resize(beside, a.shape) if a.dtype == np.float64 else a for a in arrays]
    always = []
    for position, array in enumerate(arrays):
        if array.dtype == np.float64:
            given = [np.full_like(a, np.nan) if i == position else a for i, a in enumerate(arrays)]
            inputs, results = sample.build(op, float64)
            (found,) = interpret.evaluate([t.ref for t in results], dict(zip([t.ref for t in inputs], given)))
            always.append(found.dtype.kind == "f" and bool(np.isnan(found).all()))
    assert all(always) == (not op.nan)
