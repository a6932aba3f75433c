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
from graphc.loops import maths, maths_trigonometric
from graphc.loops.ir import BufferParam, Expr, For, Load, LoopKernel, Op, Store, Var, VType, const
from graphc.loops.maths_tables import TABLES
from graphc.ops.lowering import FUNCTIONS as ARITY
from graphc.ops.registry import OPS
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
FUNCTIONS, OF_PAIRS, FLOATS = accuracy.FUNCTIONS, accuracy.OF_PAIRS, (float32, float64)
needs_longdouble = pytest.mark.skipif(not accuracy.longdouble_is_wider(), reason="longdouble has no more bits here")
INF, NAN, PI = math.inf, math.nan, math.pi
# The errors that docs/maths.md states: with a fused multiply-add, and without.
BOUNDS = {
    ("exp", float32): (0.93, 1.25), ("exp", float64): (0.95, 1.3),
    ("expm1", float32): (0.90, 1.05), ("expm1", float64): (1.1, 1.15),
    ("log", float32): (0.93, 0.95), ("log", float64): (0.93, 1.0),
    ("log1p", float32): (0.93, 0.98), ("log1p", float64): (0.93, 0.95),
    ("tanh", float32): (0.94, 1.15), ("tanh", float64): (1.0, 1.15),
    ("sin", float32): (0.80, 0.80), ("sin", float64): (0.83, 0.83),
    ("cos", float32): (0.80, 0.80), ("cos", float64): (0.83, 0.83),
    ("tan", float32): (0.51, 0.51), ("tan", float64): (1.05, 1.15),
    ("erf", float32): (1.0, 1.25), ("erf", float64): (1.1, 1.4),
    ("power", float32): (0.54, 0.54), ("power", float64): (1.1, 1.35),
    ("exp2", float32): (0.9, 1.1), ("exp2", float64): (0.8, 1.05),
    ("log2", float32): (0.51, 0.51), ("log2", float64): (1.5, 1.5),
    ("log10", float32): (0.51, 0.51), ("log10", float64): (1.1, 1.1),
    ("rsqrt", float32): (0.51, 0.51), ("rsqrt", float64): (0.51, 0.51),
    ("sqrt", float32): (0.5, 0.5), ("sqrt", float64): (0.5, 0.5),
    ("sigmoid", float32): (0.97, 0.97), ("sigmoid", float64): (0.95, 0.95),
    ("asin", float32): (0.51, 0.51), ("asin", float64): (0.65, 0.65),
    ("acos", float32): (0.51, 0.51), ("acos", float64): (0.65, 0.65),
    ("atan", float32): (0.51, 0.51), ("atan", float64): (1.85, 1.85),
    ("atan2", float32): (0.52, 0.52), ("atan2", float64): (1.85, 1.85),
    ("sinh", float32): (0.51, 0.51), ("sinh", float64): (1.6, 1.8),
    ("cosh", float32): (0.51, 0.51), ("cosh", float64): (1.4, 1.6),
    ("asinh", float32): (0.51, 0.51), ("asinh", float64): (1.6, 1.6),
    ("acosh", float32): (0.51, 0.51), ("acosh", float64): (1.9, 1.9),
    ("atanh", float32): (0.51, 0.51), ("atanh", float64): (1.8, 1.8),
    ("erfc", float32): (0.51, 0.51), ("erfc", float64): (5.5, 6.0),
    ("erfinv", float32): (0.52, 0.52), ("erfinv", float64): (4.5, 5.5),
    ("lgamma", float32): (0.52, 0.52), ("lgamma", float64): (9.0, 9.5),
    ("digamma", float32): (0.52, 0.52), ("digamma", float64): (10.5, 11.0),
}  # fmt: skip


def run(name: str, dtype: DType, *values: object, lanes: int | None = None, fma: bool = True) -> np.ndarray:
    """`name` of each value, by the code for `lanes` (None: a whole register of the host)."""
    operands = [np.asarray(v, dtype.numpy).reshape(-1) for v in values]
    padded = [np.concatenate([x, np.ones(-x.size % 64, dtype.numpy)]) for x in operands]
    result = accuracy.compiled(name, dtype, lanes or host_target().lanes(dtype.itemsize), fma)(*padded)
    return np.asarray(result[: operands[0].size])


def operands_of(name: str, dtype: DType, count: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    pair = name in OF_PAIRS
    return accuracy.sample_pairs(name, dtype, count, seed) if pair else (accuracy.sample(name, dtype, count, seed),)


def bits(array: np.ndarray) -> np.ndarray:
    """The bits of floats, with one pattern for all NaNs."""
    return np.where(np.isnan(array), np.array(NAN, array.dtype), array).view(f"u{array.itemsize}")


def same_bits(got: np.ndarray, expected: object) -> None:
    wanted = np.broadcast_to(np.asarray(expected, got.dtype), got.shape)
    np.testing.assert_array_equal(bits(got), bits(wanted), err_msg=f"{got} is not {wanted}")


@pytest.mark.parametrize("fma", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS + OF_PAIRS)
def test_float32_errors_on_samples_of_every_region(name: str, fma: bool) -> None:
    operands = operands_of(name, float32, 200_000)
    with np.errstate(all="ignore"):
        exact = accuracy.reference(name)(*(x.astype(np.float64) for x in operands))
    errors = accuracy.ulp_errors(run(name, float32, *operands, fma=fma), exact, floor=accuracy.FLOORS.get(name, 0.0))
    worst = int(errors.argmax())
    assert errors[worst] <= BOUNDS[name, float32][not fma], f"{name}({[x[worst] for x in operands]})"


@needs_longdouble
@pytest.mark.parametrize("fma", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS + OF_PAIRS)
def test_float64_errors_on_samples_of_every_region(name: str, fma: bool) -> None:
    slow = 3 if name in accuracy.OWN else 1 if name in accuracy._DECIMAL else 0  # a reference with 45 digits
    operands = operands_of(name, float64, (60_000, 6_000, 6_000, 1_500)[slow])
    exact = accuracy.exact_values(name, *operands)
    errors = accuracy.ulp_errors(run(name, float64, *operands, fma=fma), *exact, accuracy.FLOORS.get(name, 0.0))
    worst = int(errors.argmax())
    assert errors[worst] <= BOUNDS[name, float64][not fma], f"{name}({[x[worst] for x in operands]})"


@needs_longdouble
@pytest.mark.parametrize("name", accuracy.doubles.SCREENS)
def test_float64_errors_settled_by_mpmath(name: str) -> None:
    """A sampled run of what `benchmarks/accuracy.py` measures on ten million samples."""
    found = accuracy.doubles.measure(
        name, accuracy.compiled(name, float64, host_target().lanes(8)),
        lambda count, seed: operands_of(name, float64, count, seed), 20_000, settled=500,
    )  # fmt: skip
    assert found.samples >= 20_000 and found.settled >= 500
    assert found.screen < 0.03, "the screen is not what it says"
    assert found.error <= BOUNDS[name, float64][0], found.at


def test_a_wrong_special_value_is_seen_by_the_screen() -> None:
    exp, inf = accuracy.compiled("exp", float64, host_target().lanes(8)), np.inf
    x = np.resize([1.0, -inf, inf, np.nan, -0.0, 800.0, -800.0, 2.0], 64)
    assert accuracy.doubles.screen("exp", exp(x), x).max() < 1
    for place, wrong in [(1, -0.0), (2, 1e308), (3, 0.0), (5, np.nan), (6, 1e-300)]:
        y = exp(x)
        y[place] = wrong
        assert accuracy.doubles.screen("exp", y, x)[place] > 2


def test_the_table_of_the_docs_is_what_was_stored() -> None:
    rows = accuracy.table.load()
    page = accuracy.table.PAGE.read_text(encoding="utf-8")
    assert accuracy.table.with_table(page, rows) == page
    assert {(row["function"], row["dtype"]) for row in rows} == {
        (n, d) for n in FUNCTIONS + OF_PAIRS for d in ("f32", "f64")
    }
    for row in rows:
        bound = BOUNDS[row["function"], float32 if row["dtype"] == "f32" else float64][0]
        assert row["error"] <= bound, row


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
        ("sin", (INF, -INF, NAN, 0.0, -0.0), (NAN, NAN, NAN, 0.0, -0.0)),
        ("cos", (INF, -INF, NAN, 0.0, -0.0), (NAN, NAN, NAN, 1.0, 1.0)),
        ("tan", (INF, -INF, NAN, 0.0, -0.0), (NAN, NAN, NAN, 0.0, -0.0)),
        (
            "exp2",
            (INF, -INF, NAN, 0.0, -0.0, 10.0, -3.0, 1e30, -1e30),
            (INF, 0.0, NAN, 1.0, 1.0, 1024.0, 0.125, INF, 0.0),
        ),
        (
            "log2",
            (INF, -INF, NAN, 0.0, -0.0, 1.0, -1.0, 1024.0, 2.0**-149),
            (INF, NAN, NAN, -INF, -INF, 0.0, NAN, 10.0, -149.0),
        ),
        ("log10", (INF, -INF, NAN, 0.0, -0.0, 1.0, -1.0, 1000.0), (INF, NAN, NAN, -INF, -INF, 0.0, NAN, 3.0)),
        ("rsqrt", (INF, -INF, NAN, 0.0, -0.0, 4.0, -1.0), (0.0, NAN, NAN, INF, -INF, 0.5, NAN)),
        ("sigmoid", (INF, -INF, NAN, 0.0, -0.0, 60.0, -1e30), (1.0, 0.0, NAN, 0.5, 0.5, 1.0, 0.0)),
        ("asin", (INF, -INF, NAN, 0.0, -0.0, 1.0, -1.0, 1.5), (NAN, NAN, NAN, 0.0, -0.0, PI / 2, -PI / 2, NAN)),
        ("acos", (INF, -INF, NAN, 0.0, -0.0, 1.0, -1.0, -1.5), (NAN, NAN, NAN, PI / 2, PI / 2, 0.0, PI, NAN)),
        ("atan", (INF, -INF, NAN, 0.0, -0.0, 1.0, -1.0), (PI / 2, -PI / 2, NAN, 0.0, -0.0, PI / 4, -PI / 4)),
        ("sinh", (INF, -INF, NAN, 0.0, -0.0, 1e30, -1e30), (INF, -INF, NAN, 0.0, -0.0, INF, -INF)),
        ("cosh", (INF, -INF, NAN, 0.0, -0.0, 1e30, -1e30), (INF, INF, NAN, 1.0, 1.0, INF, INF)),
        ("asinh", (INF, -INF, NAN, 0.0, -0.0), (INF, -INF, NAN, 0.0, -0.0)),
        ("acosh", (INF, -INF, NAN, 0.0, 1.0, 0.9, -3.0), (INF, NAN, NAN, NAN, 0.0, NAN, NAN)),
        ("atanh", (INF, -INF, NAN, 0.0, -0.0, 1.0, -1.0, 1.5), (NAN, NAN, NAN, 0.0, -0.0, INF, -INF, NAN)),
        ("erfc", (INF, -INF, NAN, 0.0, -0.0, 40.0, -9.0), (0.0, 2.0, NAN, 1.0, 1.0, 0.0, 2.0)),
        ("erfinv", (INF, NAN, 0.0, -0.0, 1.0, -1.0, 1.5), (NAN, NAN, 0.0, -0.0, INF, -INF, NAN)),
        ("lgamma", (INF, -INF, NAN, 0.0, -0.0, 1.0, 2.0, -3.0, -1e30), (INF, INF, NAN, INF, INF, 0.0, 0.0, INF, INF)),
        ("digamma", (INF, -INF, NAN, 0.0, -0.0, -3.0), (INF, NAN, NAN, -INF, INF, NAN)),
        ("erf", (INF, -INF, NAN, 0.0, -0.0, 9.0, -9.0, -1e30), (1.0, -1.0, NAN, 0.0, -0.0, 1.0, -1.0, -1.0)),
    ],
)
def test_special_values_by_their_bits(
    name: str, inputs: tuple[float, ...], results: tuple[float, ...], dtype: DType, lanes: int | None
) -> None:
    same_bits(run(name, dtype, inputs, lanes=lanes), results)


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
@pytest.mark.parametrize("name", FUNCTIONS + OF_PAIRS)
def test_all_lane_counts_give_the_same_bits(name: str, dtype: DType) -> None:
    operands = operands_of(name, dtype, 20_000, seed=1)
    scalar = run(name, dtype, *operands, lanes=1)
    for lanes in (2, 8, 16):
        same_bits(run(name, dtype, *operands, lanes=lanes), scalar)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["tanh", "sin", "tan", "erf", "asin", "atan", "sinh", "asinh", "atanh"])
def test_odd_functions_are_odd_to_the_bit(name: str, dtype: DType) -> None:
    x = accuracy.sample(name, dtype, 20_000, seed=2)
    same_bits(run(name, dtype, -x), -run(name, dtype, x))


# pow: C's special cases (ISO C F.10.4.4), by their bits
POW = [
    (0.0, -3.0, INF), (-0.0, -3.0, -INF), (0.0, -2.0, INF), (-0.0, -2.5, INF), (-0.0, -INF, INF), (0.0, 3.0, 0.0),
    (-0.0, 3.0, -0.0), (-0.0, 2.0, 0.0), (-0.0, 0.5, 0.0), (-1.0, INF, 1.0), (-1.0, -INF, 1.0), (1.0, NAN, 1.0),
    (1.0, INF, 1.0), (NAN, 0.0, 1.0), (NAN, -0.0, 1.0), (INF, 0.0, 1.0), (-2.0, 0.5, NAN), (-1e-30, 1.5, NAN),
    (0.5, -INF, INF), (-0.5, -INF, INF), (2.0, -INF, 0.0), (-2.0, -INF, 0.0), (0.5, INF, 0.0), (2.0, INF, INF),
    (-INF, -3.0, -0.0), (-INF, -2.0, 0.0), (-INF, 3.0, -INF), (-INF, 2.0, INF), (-INF, 0.5, INF), (INF, -1.0, 0.0),
    (INF, 2.0, INF), (NAN, 1.0, NAN), (2.0, NAN, NAN), (-2.0, 3.0, -8.0), (-2.0, -2.0, 0.25), (3.0, 4.0, 81.0),
    (-1.0, 1e30, 1.0), (1e30, 1e30, INF), (-1e30, 1e10, INF), (1e-30, 1e30, 0.0), (9.0, 0.5, 3.0), (NAN, NAN, NAN),
]  # fmt: skip


@pytest.mark.parametrize("fma", [True, False])
@pytest.mark.parametrize("lanes", [1, None])
@pytest.mark.parametrize("dtype", FLOATS)
def test_power_has_the_special_cases_of_c(dtype: DType, lanes: int | None, fma: bool) -> None:
    x, y, expected = np.array(POW).T
    same_bits(run("power", dtype, x, y, lanes=lanes, fma=fma), expected)


@pytest.mark.parametrize("lanes", [1, None])
@pytest.mark.parametrize("dtype", FLOATS)
def test_atan2_has_the_special_cases_of_c(dtype: DType, lanes: int | None) -> None:
    """Every pair of zeros, ones, infinities and NaN has the angle that C's atan2 gives."""
    values = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN]
    y, x = (grid.ravel() for grid in np.meshgrid(values, values))
    same_bits(run("atan2", dtype, y, x, lanes=lanes), [math.atan2(b, a) for b, a in zip(y, x)])


@needs_longdouble
@pytest.mark.parametrize("fma", [True, False])
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_arguments_of_every_size_near_multiples_of_half_pi(name: str, fma: bool) -> None:
    """Where most bits cancel: the float64 nearest to n pi/2 for n up to 2^1020, and the worst of all."""
    rng = np.random.default_rng(4)
    sizes = np.floor(2.0 ** rng.uniform(0, 52, 4000)) * np.pi / 2
    worst = np.array([6381956970095103.0 * 2.0**797, 2.0**1023 * 1.9999999999999998])
    x = np.resize(np.concatenate([sizes, sizes * 2.0 ** rng.integers(0, 960, 4000), worst]), 8064)
    errors = accuracy.ulp_errors(run(name, float64, x, fma=fma), *accuracy.exact_values(name, x))
    assert errors.max() <= BOUNDS[name, float64][not fma], x[errors.argmax()]
    narrow = np.concatenate([sizes, sizes * 2.0 ** rng.integers(0, 76, 4000), np.full(64, 1.6367e38)])
    x = narrow.astype(np.float32)
    errors = accuracy.ulp_errors(run(name, float32, x, fma=fma), accuracy.reference(name)(x.astype(np.float64)))
    assert errors.max() <= BOUNDS[name, float32][not fma], x[errors.argmax()]


def test_the_table_of_two_over_pi() -> None:
    """Its first bits; and the whole of it by a product with pi, by Machin's formula in integers."""
    bits = 1184
    value = int(maths_trigonometric.BITS_OF_TWO_OVER_PI, 16)
    assert value / 2**bits == 2 / math.pi

    def inverse_tangent(n: int) -> int:
        """atan(1/n) * 2^(bits + 32)."""
        power = total = (1 << (bits + 32)) // n
        divisor = 1
        while power:
            power //= -n * n
            divisor += 2
            total += power // divisor
        return total

    pi = 4 * (4 * inverse_tangent(5) - inverse_tangent(239))
    assert abs(value * pi - (2 << (2 * bits + 32))) < 4 << (bits + 32)


def test_coefficients_are_values_of_their_dtype() -> None:
    table = TABLES[float32]
    for values in (table.exp, table.expm1, table.log, table.tanh, table.tanh_range, table.exp_range):
        assert all(float(np.float32(value)) == value for value in values)
    assert all(float(np.float32(v)) == v for v in (table.log2e, table.ln2_high, table.ln2_low, table.tiny))
    for dtype, table in TABLES.items():
        assert abs(table.ln2_high + table.ln2_low - math.log(2)) <= {float32: 2.0**-43, float64: 2.0**-53}[dtype]
        assert np.array(0.75, dtype.numpy).view(f"i{dtype.itemsize}") == table.log_split


def test_every_function_has_code_and_an_op() -> None:
    assert set(maths.FUNCTIONS) == set(ARITY)
    assert set(ARITY) <= set(OPS)


@pytest.mark.parametrize("names", [FUNCTIONS[::2], FUNCTIONS[1::2] + OF_PAIRS], ids=["even", "odd"])
@pytest.mark.parametrize("target", sorted(NAMED))
def test_every_target_gets_code_that_calls_nothing(target: str, names: tuple[str, ...]) -> None:
    chosen, n = NAMED[target], Dim.symbol("n")
    for dtype in FLOATS:
        vtype = VType(dtype, chosen.lanes(dtype.itemsize))
        value: Expr = Load("x", Var("i"), vtype)
        for name in names:
            value = Op(name, (value,) * accuracy.ARITY[name], vtype)
        body = For("i", const(0), Var("n"), vtype.lanes, (Store("y", Var("i"), value),))
        buffers = (BufferParam("x", dtype, n), BufferParam("y", dtype, n, writable=True))
        assembly = compile_assembly(emit(LoopKernel("maths", buffers, ("n",), (body,)), chosen), chosen)
        assert not re.search(r"^\s+(call\w*|jmp\s+\w+@PLT|bl)\s", assembly, re.MULTILINE), target


@pytest.mark.parametrize("name", FUNCTIONS + OF_PAIRS)
def test_which_functions_of_float32_take_registers_of_float64(name: str) -> None:
    target, vtype = NAMED["avx512"], VType(float32, 16)
    stored = Store("y", const(0), Op(name, (Load("x", const(0), vtype),) * accuracy.ARITY[name], vtype))
    buffers = (BufferParam("x", float32, 16), BufferParam("y", float32, 16, writable=True))
    text = emit(LoopKernel("maths", buffers, (), (stored,)), target)
    assert (name in maths.IN_FLOAT64) == ("x double>" in text)
