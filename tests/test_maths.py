"""The vector maths through the real compiled code: errors in ULP, special values by their bits, lanes, targets."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from graphc.llvm.emit import emit
from graphc.loops import maths
from graphc.loops.ir import BufferParam, Expr, For, Load, LoopKernel, Op, Store, Var, VType, const
from graphc.loops.maths_tables import TABLES
from graphc.runtime.host import host_target
from graphc.runtime.jit import compile_assembly
from graphc.target import NAMED
from graphc.types import Dim, DType, float32, float64


def _load_benchmark() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "accuracy.py"
    spec = importlib.util.spec_from_file_location("accuracy", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


accuracy = _load_benchmark()
FUNCTIONS, FLOATS = accuracy.FUNCTIONS, (float32, float64)
INF, NAN = math.inf, math.nan
# The errors that docs/maths.md states: with a fused multiply-add, and without.
BOUNDS = {
    ("exp", float32): (0.93, 1.25), ("exp", float64): (0.95, 1.3),
    ("expm1", float32): (0.90, 1.05), ("expm1", float64): (1.05, 1.1),
    ("log", float32): (0.93, 0.95), ("log", float64): (0.93, 1.0),
    ("log1p", float32): (0.93, 0.98), ("log1p", float64): (0.93, 0.95),
    ("tanh", float32): (0.94, 1.15), ("tanh", float64): (1.0, 1.15),
}  # fmt: skip


def run(name: str, dtype: DType, values: object, lanes: int | None = None, fma: bool = True) -> np.ndarray:
    """`name` of each value, by the code for `lanes` (None: a whole register of the host)."""
    x = np.asarray(values, dtype.numpy).reshape(-1)
    padded = np.concatenate([x, np.ones(-x.size % 64, dtype.numpy)])
    result = accuracy.compiled(name, dtype, lanes or host_target().lanes(dtype.itemsize), fma)(padded)
    return np.asarray(result[: x.size])


def bits(array: np.ndarray) -> np.ndarray:
    """The bits of floats, with one pattern for all NaNs."""
    return np.where(np.isnan(array), np.array(NAN, array.dtype), array).view(f"u{array.itemsize}")


def same_bits(got: np.ndarray, expected: object) -> None:
    wanted = np.broadcast_to(np.asarray(expected, got.dtype), got.shape)
    np.testing.assert_array_equal(bits(got), bits(wanted), err_msg=f"{got} is not {wanted}")


@pytest.mark.parametrize("fma", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_errors_on_samples_of_every_region(name: str, fma: bool) -> None:
    x = accuracy.sample(name, float32, 200_000)
    with np.errstate(all="ignore"):
        exact = getattr(np, name)(x.astype(np.float64))
    errors = accuracy.ulp_errors(run(name, float32, x, fma=fma), exact)
    worst = int(errors.argmax())
    assert errors[worst] <= BOUNDS[name, float32][not fma], f"{name}({x[worst]!r})"


@pytest.mark.parametrize("fma", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_errors_on_samples_of_every_region(name: str, fma: bool) -> None:
    x = accuracy.sample(name, float64, 6_000)
    errors = accuracy.ulp_errors(run(name, float64, x, fma=fma), *accuracy.exact_values(name, x))
    worst = int(errors.argmax())
    assert errors[worst] <= BOUNDS[name, float64][not fma], f"{name}({x[worst]!r})"


@pytest.mark.parametrize("lanes", [1, None])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("name", "inputs", "results"),
    [
        ("exp", (INF, -INF, NAN, 0.0, -0.0, 1e30, -1e30), (INF, 0.0, NAN, 1.0, 1.0, INF, 0.0)),
        ("expm1", (INF, -INF, NAN, 0.0, -0.0, 1e30, -1e30, -60.0), (INF, -1.0, NAN, 0.0, -0.0, INF, -1.0, -1.0)),
        ("log", (INF, -INF, NAN, 0.0, -0.0, 1.0, -1.0, -1e-30), (INF, NAN, NAN, -INF, -INF, 0.0, NAN, NAN)),
        ("log1p", (INF, -INF, NAN, 0.0, -0.0, -1.0, -1.5, -1e30), (INF, NAN, NAN, 0.0, -0.0, -INF, NAN, NAN)),
        ("tanh", (INF, -INF, NAN, 0.0, -0.0, 60.0, -60.0, -1e30), (1.0, -1.0, NAN, 0.0, -0.0, 1.0, -1.0, -1.0)),
    ],
)
def test_special_values_by_their_bits(
    name: str, inputs: tuple[float, ...], results: tuple[float, ...], dtype: DType, lanes: int | None
) -> None:
    same_bits(run(name, dtype, inputs, lanes), results)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_kind_of_nan_stays_nan(name: str, dtype: DType) -> None:
    table = TABLES[dtype]
    infinity = np.array(INF, dtype.numpy).view(f"i{dtype.itemsize}")
    payloads = infinity + np.array([1, 2**9 - 1, 2 ** (table.bits - 1), 2**table.bits - 1], infinity.dtype)
    nans = payloads.view(dtype.numpy)
    assert np.isnan(nans).all()
    assert np.isnan(run(name, dtype, np.concatenate([nans, -nans]))).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_exp_overflows_and_underflows_at_the_right_inputs(dtype: DType) -> None:
    info = np.finfo(dtype.numpy)
    top = np.array({float32: 88.72283, float64: 709.782712893384}[dtype], dtype.numpy)
    same_bits(run("exp", dtype, np.nextafter(top, dtype.numpy.type(INF))), INF)
    assert np.isfinite(run("exp", dtype, top)).all()
    assert np.isfinite(run("expm1", dtype, top)).all()
    same_bits(run("expm1", dtype, np.nextafter(top, dtype.numpy.type(INF))), INF)
    bottom = np.array({float32: -103.972076, float64: -745.1332191019411}[dtype], dtype.numpy)
    same_bits(run("exp", dtype, bottom), info.smallest_subnormal)
    same_bits(run("exp", dtype, np.nextafter(bottom, dtype.numpy.type(-INF))), 0.0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_exp_loses_bits_gradually(dtype: DType) -> None:
    x = np.linspace({float32: -103.9, float64: -745.0}[dtype], math.log(np.finfo(dtype.numpy).tiny), 512)
    x = x.astype(dtype.numpy)
    exact = np.exp(x.astype(np.float64)) if dtype is float32 else accuracy.exact_values("exp", x)[0]
    errors = accuracy.ulp_errors(run("exp", dtype, x), exact)
    assert errors.max() <= 1.0
    assert np.median(errors) < 0.3  # results of few bits: a second rounding would show


@pytest.mark.parametrize("dtype", FLOATS)
def test_denormal_inputs(dtype: DType) -> None:
    info = np.finfo(dtype.numpy)
    x = np.array([1.0, 2.0, 3.0, 1e3, 2.0 ** (info.nmant - 1)]).astype(dtype.numpy) * info.smallest_subnormal
    x = np.concatenate([x, -x])
    assert (np.abs(x) < info.tiny).all() and (x != 0).all()
    for name in ("expm1", "log1p", "tanh"):
        same_bits(run(name, dtype, x), x)
    same_bits(run("exp", dtype, x), 1.0)
    logs = accuracy.exact_values("log", np.abs(x).astype(np.float64))[0]
    assert accuracy.ulp_errors(run("log", dtype, np.abs(x)), logs).max() <= 1.0


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_lane_counts_give_the_same_bits(name: str, dtype: DType) -> None:
    x = accuracy.sample(name, dtype, 20_000, seed=1)
    scalar = run(name, dtype, x, lanes=1)
    for lanes in (2, 4, 8, 16):
        same_bits(run(name, dtype, x, lanes), scalar)


@pytest.mark.parametrize("dtype", FLOATS)
def test_tanh_is_odd_to_the_bit(dtype: DType) -> None:
    x = accuracy.sample("tanh", dtype, 20_000, seed=2)
    same_bits(run("tanh", dtype, -x), -run("tanh", dtype, x))


def test_coefficients_are_values_of_their_dtype() -> None:
    table = TABLES[float32]
    for values in (table.exp, table.expm1, table.log, table.tanh, table.tanh_range, table.exp_range):
        assert all(float(np.float32(value)) == value for value in values)
    assert all(float(np.float32(v)) == v for v in (table.log2e, table.ln2_high, table.ln2_low, table.tiny))
    for dtype, table in TABLES.items():
        assert abs(table.ln2_high + table.ln2_low - math.log(2)) <= {float32: 2.0**-43, float64: 2.0**-53}[dtype]
        assert np.array(0.75, dtype.numpy).view(f"i{dtype.itemsize}") == table.log_split


@pytest.mark.parametrize("target", sorted(NAMED))
def test_every_target_gets_code_that_calls_nothing(target: str) -> None:
    chosen, n = NAMED[target], Dim.symbol("n")
    for dtype in FLOATS:
        vtype = VType(dtype, chosen.lanes(dtype.itemsize))
        value: Expr = Load("x", Var("i"), vtype)
        for name in FUNCTIONS:
            assert name in maths.__dict__
            value = Op(name, (value,), vtype)
        body = For("i", const(0), Var("n"), vtype.lanes, (Store("y", Var("i"), value),))
        buffers = (BufferParam("x", dtype, n), BufferParam("y", dtype, n, writable=True))
        assembly = compile_assembly(emit(LoopKernel("maths", buffers, ("n",), (body,)), chosen), chosen)
        assert not re.search(r"^\s+(call\w*|jmp\s+\w+@PLT|bl)\s", assembly, re.MULTILINE), target
