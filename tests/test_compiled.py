"""Every op of the registry, compiled, against its NumPy reference: each dtype and sample, fused and alone."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc import interpret
from graphc.conversion import widened
from graphc.graph import Op
from graphc.ops.lowering import Contraction, Elementwise, Matrices, ScatterAdd
from graphc.ops.registry import OPS
from graphc.ops.samples import Sample, cases
from graphc.types import Dim, DType, symbols

COMPILED = [op for op in OPS.values() if op.lowering is not None]


@pytest.fixture(autouse=True)
def checked() -> object:
    """Every level verifies, and nothing comes from the cache."""
    with graphc.config(verify=True, cache=False):
        yield


def names_in(attribute: object) -> frozenset[str]:
    """The sizes that an attribute names."""
    if isinstance(attribute, (tuple, list)):
        return frozenset().union(*map(names_in, attribute))
    return symbols(attribute) if isinstance(attribute, Dim) else frozenset()


def by_dtype(op: Op) -> dict[DType, list[Sample]]:
    found: dict[DType, list[Sample]] = {}
    for sample, dtype in cases(op):
        bound = frozenset().union(*(names_in(o.shape) for o in sample.operands))
        if names_in(tuple(sample.attrs.values())) <= bound:  # other sizes are no argument's: function() refuses them
            found.setdefault(dtype, []).append(sample)
    return found


PAIRS = [pytest.param(op, dtype, id=f"{op.name}-{dtype}") for op in COMPILED for dtype in by_dtype(op)]


def agree(op: Op, actual: np.ndarray, wanted: np.ndarray, arrays: list[np.ndarray]) -> None:
    """To the bit where IEEE 754 fixes it; a few ULP for functions; the error bound of a sum for folds."""
    assert actual.dtype == wanted.dtype and actual.shape == wanted.shape
    actual, wanted = widened(actual), widened(wanted)
    kind = op.lowering
    summed = isinstance(kind, (Contraction, Matrices, ScatterAdd)) or op.name in ("sum", "prod")
    if wanted.dtype.kind != "f" or not (summed or op.ulp):
        np.testing.assert_array_equal(actual, wanted)
        if wanted.dtype.kind == "f" and isinstance(kind, Elementwise) and op.name not in ("maximum", "minimum"):
            numbers = ~np.isnan(wanted)
            np.testing.assert_array_equal(np.signbit(actual)[numbers], np.signbit(wanted)[numbers])
        return
    eps = float(np.finfo(wanted.dtype).eps)
    if op.ulp:
        tiny = 2 * float(np.finfo(wanted.dtype).smallest_subnormal)
        np.testing.assert_allclose(actual, wanted, rtol=op.ulp[DType.of(wanted.dtype).name] * eps, atol=tiny)
        return
    floats = [a[np.isfinite(a)] for a in arrays if a.dtype.kind == "f"]
    scale = max((float(np.max(np.abs(a), initial=0)) for a in floats), default=1)
    terms = max((a.size for a in arrays), default=1)
    factor = scale**2 if isinstance(kind, Contraction) else scale
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(actual[~finite], wanted[~finite])
    np.testing.assert_allclose(actual[finite], wanted[finite], rtol=16 * eps, atol=terms * eps * factor)


def apart(array: np.ndarray) -> np.ndarray:
    """The same values, not contiguous: every second element of the last axis, backwards in memory."""
    return np.repeat(array[..., ::-1], 2, -1)[..., ::-2] if array.ndim else array


def stale(like: list[np.ndarray]) -> list[np.ndarray]:
    """Memory for results in which no element is right; new memory often holds the result of the call before."""
    return [np.frombuffer(bytearray(b"\xa5" * a.nbytes), a.dtype).reshape(a.shape) for a in like]


def plain(array: np.ndarray) -> np.ndarray:
    """bfloat16 arrays as float32: NumPy's assertions take no NaN of theirs for equal."""
    return array.astype("float32") if array.dtype.kind == "V" else array


@pytest.mark.parametrize(("op", "dtype"), PAIRS)
def test_compiled_is_the_reference(op: Op, dtype: DType) -> None:
    rng = np.random.default_rng(7)
    for sample in by_dtype(op)[dtype]:
        inputs, results = sample.build(op, dtype)
        arrays = sample.draw(dtype, rng, smooth=op.name in ("sum", "prod", "matmul", "scatter_add_along_axis"))
        wanted = interpret.evaluate([t.ref for t in results], {t.ref: a for t, a in zip(inputs, arrays, strict=True)})
        compiled = graphc.function(inputs, results)
        found = compiled(*arrays, out=stale(wanted))
        for actual, want in zip(found, wanted, strict=True):
            agree(op, actual, want, arrays)
        for actual, strided in zip(found, compiled(*map(apart, arrays)), strict=True):
            np.testing.assert_array_equal(plain(actual), plain(strided))  # from memory with gaps


@pytest.mark.parametrize(("op", "dtype"), PAIRS)
def test_same_bits_for_any_threads(op: Op, dtype: DType) -> None:
    """One, two and three threads, twice each."""
    rng = np.random.default_rng(8)
    sample = by_dtype(op)[dtype][0]
    inputs, results = sample.build(op, dtype)
    arrays = sample.draw(dtype, rng)
    seen = set()
    compiled = graphc.function(inputs, results)
    for threads in (1, 2, 3, 1, 2, 3):
        with graphc.config(num_threads=threads):
            seen.add(b"".join(result.tobytes() for result in compiled(*arrays)))
    assert len(seen) == 1
