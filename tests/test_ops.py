"""Every op of the registry against its own entry: types, bodies, source maps, folds, gradients of both orders.

A new op is tested by its entry alone. Bodies are run on arrays by `NumPyHandler`, an implementation of the handler
protocol that knows nothing of loops or LLVM.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc import interpret
from graphc.autodiff import vjp
from graphc.build import Tensor, apply, placeholder
from graphc.conversion import cast_array, widened
from graphc.graph import Op
from graphc.ops.lowering import ArgReduction, Contraction, Elementwise, Movement, Reduction
from graphc.ops.registry import OPS, register
from graphc.ops.samples import NARROW, Sample
from graphc.reference_facts import accepted
from graphc.types import Dim, DType, TensorType, bool_, evaluate, float32, float64, floordiv, symbols


def samples_of(*kinds: type, dtype: DType | None = None) -> list[Any]:
    """The samples of ops that lower as one of `kinds`; with `dtype`, only those that are tried with it."""
    return [
        pytest.param(op, sample, id=f"{op.name}-{i}")
        for op in OPS.values()
        for i, sample in enumerate(op.samples())
        if isinstance(op.lowering, kinds) and (dtype is None or dtype in sample.dtypes)
    ]


def concrete_types(op: Op, sample: Sample, arrays: list[np.ndarray]) -> tuple[tuple[TensorType, ...], dict[str, Any]]:
    """Operand and result types with all sizes known, and the attributes likewise."""
    attrs = interpret.concrete(sample.attrs, sample.dims)
    operands = tuple(TensorType(DType.of(a.dtype), a.shape) for a in arrays)
    return operands + op.type_rule(operands, attrs), attrs


def assert_same(actual: np.ndarray, expected: np.ndarray, ulp: float = 0) -> None:
    """The same bits, or within `ulp`; all nans are one."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    actual, expected = widened(actual), widened(expected)
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected)
        return
    ordinary = np.isfinite(expected) & (expected != 0)
    with np.errstate(all="ignore"):
        spacing = np.spacing(np.abs(np.where(ordinary, expected, 1)))
        close = (actual == expected) | (ordinary & (np.abs(actual - expected) <= ulp * spacing))
    same = close | (np.isnan(actual) & np.isnan(expected))
    assert same.all(), f"{actual[~same][:3]} instead of {expected[~same][:3]}"
    signs = np.isnan(expected) | (np.signbit(actual) == np.signbit(expected))
    assert signs.all(), f"signs of zeros: {actual[~signs][:3]} instead of {expected[~signs][:3]}"


# types and references


@pytest.mark.parametrize("op, sample", samples_of(object))
def test_type_rule_is_the_type_of_the_reference(op: Op, sample: Sample, rng: np.random.Generator) -> None:
    for dtype in sample.dtypes:
        arrays = sample.draw(dtype, rng)
        inputs, outputs = sample.build(op, dtype)
        feeds = dict(zip([t.ref for t in inputs], arrays, strict=True))
        for tensor, array in zip(outputs, interpret.evaluate([t.ref for t in outputs], feeds), strict=True):
            assert array.dtype == tensor.dtype.numpy
            assert array.shape == tuple(evaluate(size, sample.dims) for size in tensor.shape)


def test_every_op_of_the_design_is_there() -> None:
    table = (Path(__file__).parent.parent / "docs/design/core.md").read_text()
    kinds = "sources|elementwise|movement|reductions|contraction|matrices|indexing|marks|kernel"
    rows = re.findall(rf"^ *\| (?:{kinds}) \| (.*) \|$", table, re.M)
    code = " ".join(text for row in rows for text in re.findall(r"`([^`]*)`", row) if "[" not in text)
    names = re.sub(r"\([^)]*\)", "", code).split()
    assert len(names) > 50 and set(OPS) == set(names)


def test_every_op_is_tried_with_all_that_it_takes() -> None:
    """Every dtype that its type rule accepts, a named size, and if it has a gradient, finite differences."""
    smooth = {case.values[0].name for case in SMOOTH}
    for op in OPS.values():
        samples = list(op.samples())
        tried = {dtype for sample in samples for dtype in sample.dtypes}
        if float32 in tried:  # tests/test_narrow.py tries the narrow floats with every sample that float32 has
            tried |= set(NARROW)
        assert not accepted(op).keys() - tried, f"{op.name} takes {accepted(op).keys() - tried}: no sample has them"
        if any(sample.operands for sample in samples):
            assert any(symbols(n) for s in samples for o in s.operands for n in o.shape), f"{op.name}: no named size"
        if op.gradient is not None and op.name not in smooth:
            assert op.exempt.get("differences") or op.exempt.get("samples"), f"{op.name}: no differentiable sample"


def test_every_op_is_tried_with_no_and_with_one_element() -> None:
    for op in OPS.values():
        built = [s.build(op, s.dtypes[0]) + (s.dims,) for s in op.samples() if s.operands]
        sizes = {evaluate(t.size, dims) for inputs, outputs, dims in built for t in (*inputs, *outputs)}
        assert not built or {0, 1} <= sizes, op.name


@pytest.mark.parametrize("missing", ["reference", "gradient", "lowering", "samples"])
def test_a_missing_field_fails_at_import(missing: str) -> None:
    whole = OPS["add"]
    fields: dict[str, Any] = {name: getattr(whole, name) for name in ("reference", "gradient", "lowering", "samples")}
    fields[missing] = tuple if missing == "samples" else None
    with pytest.raises(TypeError, match=f"has no {missing}"):
        register(Op("incomplete", "An op without something.", whole.type_rule, **fields))
    assert "incomplete" not in OPS


# bodies


class Number:
    """An array with a graphc dtype, as bodies see it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @property
    def dtype(self) -> DType:
        return DType.of(self.array.dtype)


def _truncated_quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    wide = [(int(x), int(y)) for x, y in zip(a.ravel(), b.ravel(), strict=True)]
    exact = [0 if y == 0 else abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1) for x, y in wide]
    bits = 8 * a.dtype.itemsize
    wrapped = [(q + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) if a.dtype.kind == "i" else q for q in exact]
    return np.array(wrapped, a.dtype).reshape(a.shape)


def _fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a * b + c with one rounding, in exact rational arithmetic."""

    def one(x: float, y: float, z: float) -> float:
        if not np.isfinite([x, y, z]).all():
            return x * y + z
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        return float(exact) if exact else x * y + z

    assert a.dtype == np.float64
    return np.array([one(*map(float, v)) for v in zip(a.flat, b.flat, c.flat, strict=True)]).reshape(a.shape)


_FUNCTIONS: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": _truncated_quotient, "fma": _fma, "neg": np.negative,
    "abs": np.abs, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "copysign": np.copysign,
    "minimum": np.minimum, "maximum": np.maximum, "eq": np.equal, "ne": np.not_equal, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "and_": np.bitwise_and, "or_": np.bitwise_or,
    "xor": np.bitwise_xor, "not_": np.bitwise_invert, "shl": np.left_shift, "ashr": np.right_shift,
    "lshr": np.right_shift, "rint": np.rint, "select": np.where, "left_over": lambda r, q, by: _fma(-q, by, r),
}  # fmt: skip
_NOT_FOR_BOOLS = {"add", "sub", "mul", "div", "neg", "minimum", "maximum", "lt", "le", "gt", "ge"}


class NumPyHandler:
    """The handler protocol on arrays. Operands of one call must have one dtype, as the protocol says."""

    def constant(self, value: float | int | bool, dtype: DType) -> Number:
        return Number(np.array([value]).astype(dtype.numpy))

    def cast(self, a: Number, dtype: DType) -> Number:
        return Number(cast_array(a.array, dtype))

    def bitcast(self, a: Number, dtype: DType) -> Number:
        return Number(a.array.view(dtype.numpy))

    def function(self, name: str, *operands: Number) -> Number:
        """By the reference of the op of that name: bodies around it are what is tested."""
        return Number(_reference(OPS[name], [x.array for x in operands], {}))

    def __getattr__(self, name: str) -> Any:
        def call(*operands: Number) -> Number:
            same = operands[1:] if name == "select" else operands
            assert len({x.dtype for x in same}) == 1, f"{name} of {[str(x.dtype) for x in same]}"
            assert same[0].dtype is not bool_ or name not in _NOT_FOR_BOOLS, f"{name} of bools"
            arrays = np.broadcast_arrays(*(x.array for x in operands))
            result = np.asarray(_FUNCTIONS[name](*arrays))
            kept = result if result.dtype == bool else result.astype(same[0].array.dtype, copy=False)
            return Number(kept)

        return call


def _reference(op: Op, arrays: list[np.ndarray], attrs: dict[str, Any]) -> np.ndarray:
    assert op.reference is not None
    with np.errstate(all="ignore"):
        return op.reference(arrays, attrs)[0]


@pytest.mark.parametrize("op, sample", samples_of(Elementwise))
def test_body_is_the_reference(op: Op, sample: Sample, rng: np.random.Generator) -> None:
    for dtype in sample.dtypes:
        arrays = sample.draw(dtype, rng)
        expected = _reference(op, arrays, dict(sample.attrs))
        with np.errstate(all="ignore"):
            result = op.lowering.body(NumPyHandler(), sample.attrs, *(Number(a.reshape(-1)) for a in arrays)).array
        actual = np.broadcast_to(result, expected.size).reshape(expected.shape)
        assert_same(actual, expected, op.ulp.get(dtype.name, 0))


# movement


class Indices:
    """The index handler on sizes, ints or symbols."""

    def div(self, a: Any, b: Any) -> Any:
        return floordiv(a, b)

    def mod(self, a: Any, b: Any) -> Any:
        return a - b * floordiv(a, b)


@pytest.mark.parametrize("op, sample", samples_of(Movement, dtype=float64))
def test_source_map_is_the_reference(op: Op, sample: Sample, rng: np.random.Generator) -> None:
    """With symbolic indices and sizes as the loop level asks, then evaluated at every index."""
    arrays = sample.draw(float64, rng)
    _, attrs = concrete_types(op, sample, arrays)
    expected = _reference(op, arrays, attrs)
    given = tuple(TensorType(float64, o.shape) for o in sample.operands)
    given += op.type_rule(given, sample.attrs)
    names = [f"i{a}" for a in range(expected.ndim)]
    at = tuple(Dim.symbol(n) for n in names)
    symbolic = op.lowering.source(Indices(), given, sample.attrs, at)
    pairs = op.lowering.inside(Indices(), given, sample.attrs, at) if op.lowering.inside else ()
    for index in product(*map(range, expected.shape)):
        values = {**sample.dims, **dict(zip(names, index, strict=True))}
        if not all(0 <= evaluate(i, values) < evaluate(bound, values) for i, bound in pairs):
            assert expected[index] == 0
            continue
        position = tuple(evaluate(i, values) for i in symbolic)
        assert all(0 <= p < n for p, n in zip(position, arrays[0].shape, strict=True))
        assert_same(arrays[0][position], expected[index])


def test_reshape_that_joins_or_splits_needs_division_only_where_axes_mix() -> None:
    def used(source: tuple[int | str, ...], target: tuple[Any, ...]) -> bool:
        x = placeholder("x", source)
        y = x.reshape(target)
        index = tuple(Dim.symbol(f"i{a}") for a in range(y.ndim))
        found = OPS["reshape"].lowering.source(Indices(), (x.type, y.type), y.ref.node.attrs, index)
        return any("//" in str(i) for i in found)

    batch = Dim.symbol("batch")
    assert not used((2, 3, 4), (2, 1, 3, 4))
    assert not used(("batch", 4), (1, batch, 4))
    assert not used((24, "batch"), (4, 6, batch))
    assert not used(("batch", 2, 6), (batch, 2, 3, 2))
    assert used((4, 6), (24,))


# folds


def _folds(x: np.ndarray, axes: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The slices of `x` along the reduced axes, in order, each of the kept shape without them."""
    for index in product(*(range(x.shape[a]) for a in axes)):
        key: list[Any] = [slice(None)] * x.ndim
        for axis, i in zip(axes, index, strict=True):
            key[axis] = i
        yield x[tuple(key)]


@pytest.mark.parametrize("op, sample", samples_of(Reduction))
def test_fold_is_the_reference(op: Op, sample: Sample, rng: np.random.Generator) -> None:
    for dtype in sample.dtypes:
        (x,) = arrays = sample.draw(dtype, rng)
        types, attrs = concrete_types(op, sample, arrays)
        result, expected = types[-1].dtype, _reference(op, arrays, attrs)
        cast = x != 0 if result is bool_ else x.astype(result.numpy)
        kept = tuple(n for a, n in enumerate(x.shape) if a not in attrs["axes"])
        total = Number(np.full(kept, op.lowering.init(result), result.numpy))
        with np.errstate(all="ignore"):
            for part in _folds(cast, attrs["axes"]):
                total = op.lowering.combine(NumPyHandler(), total, Number(np.asarray(part)))
        actual = total.array.reshape(expected.shape)
        if dtype.is_float and op.name in ("sum", "prod"):  # another order than NumPy's
            np.testing.assert_allclose(actual, expected, rtol=2e-5 if dtype.itemsize == 4 else 1e-13)
        else:
            assert_same(actual, expected)


@pytest.mark.parametrize("op, sample", samples_of(ArgReduction))
def test_best_is_the_reference(op: Op, sample: Sample, rng: np.random.Generator) -> None:
    for dtype in sample.dtypes:
        (x,) = arrays = sample.draw(dtype, rng)
        _, attrs = concrete_types(op, sample, arrays)
        parts = [np.atleast_1d(p) for p in _folds(x, (attrs["axis"],))]
        best, where = parts[0], np.zeros(parts[0].shape, np.int64)
        for i, part in enumerate(parts[1:], 1):
            wins = op.lowering.better(NumPyHandler(), Number(part), Number(best)).array
            best, where = np.where(wins, part, best), np.where(wins, i, where)
        expected = _reference(op, arrays, attrs)
        np.testing.assert_array_equal(where.reshape(expected.shape), expected)


@pytest.mark.parametrize("op, sample", samples_of(Contraction, dtype=float64))
def test_labels_are_the_reference(op: Op, sample: Sample, rng: np.random.Generator) -> None:
    arrays = sample.draw(float64, rng)
    types, attrs = concrete_types(op, sample, arrays)
    parts = [[re.findall(r"(\d*)([A-Za-z])", axis) for axis in axes] for axes in op.lowering.labels(types, attrs)]
    sizes = {axis[0][1]: n for axes, t in zip(parts, types, strict=True) for axis, n in zip(axes, t.shape, strict=True)
             if len(axis) == 1}  # fmt: skip
    result = np.zeros(types[2].shape)
    for index in np.ndindex(*sizes.values()):
        at = dict(zip(sizes, index, strict=True))
        a, b, out = (tuple(sum(int(by or 1) * at[label] for by, label in axis) for axis in axes) for axes in parts)
        result[out] += arrays[0][a] * arrays[1][b]
    np.testing.assert_allclose(result, _reference(op, arrays, attrs), rtol=1e-12)


# gradients

SMOOTH = [
    case for case in samples_of(object, dtype=float64) if case.values[0].gradient is not None and case.values[1].smooth
]


class Check:
    """An op applied to float64 placeholders, with random cotangents: what finite differences need."""

    def __init__(self, op: Op, sample: Sample, rng: np.random.Generator) -> None:
        self.rng, self.dims = rng, sample.dims
        self.inputs, outputs = sample.build(op, float64)
        self.arrays = sample.draw(float64, rng, smooth=True)
        self.wrt = [x for x in self.inputs if x.dtype.is_float]
        self.elements = min(evaluate(x.size, sample.dims) for x in (*self.wrt, *outputs))
        self.scalar = self.weighted([y for y in outputs if y.dtype.is_float])

    def weighted(self, tensors: list[Tensor]) -> Tensor:
        """sum(weights * tensor) over all `tensors`: a scalar on which every element bears."""
        total = placeholder("zero", (), "float64")
        self.inputs, self.arrays = [*self.inputs, total], [*self.arrays, np.zeros(())]
        for tensor in tensors:
            weight = placeholder("weight", tensor.shape, tensor.dtype)
            shape = tuple(evaluate(n, self.dims) for n in tensor.shape)
            self.inputs = [*self.inputs, weight]
            self.arrays = [*self.arrays, self.rng.uniform(0.5, 1.5, shape).astype(tensor.dtype.numpy)]
            total = total + (tensor * weight).sum().astype("float64")
        return total

    def value(self, tensors: list[Tensor], shift: dict[int, np.ndarray]) -> list[np.ndarray]:
        feeds = {
            x.ref: a + shift.get(i, 0) if i in shift else a for i, (x, a) in enumerate(zip(self.inputs, self.arrays))
        }
        return interpret.evaluate([t.ref for t in tensors], feeds)

    def differs(self, scalar: Tensor, gradients: list[Tensor]) -> None:
        """Compare sum(gradient * direction) with the central difference along a random direction."""
        step = 1e-5
        which = [i for i, x in enumerate(self.inputs) if any(x is w for w in self.wrt)]
        along = {i: self.rng.choice([-1.0, 1.0], self.arrays[i].shape) for i in which}
        up, down = (self.value([scalar], {i: s * step * d for i, d in along.items()})[0] for s in (1, -1))
        found = sum(float((g * along[i]).sum()) for g, i in zip(self.value(gradients, {}), which, strict=True))
        scale = max(1.0, abs(float(up)), abs(found))
        assert abs(float(up - down) / (2 * step) - found) <= 2e-7 * scale


@pytest.mark.parametrize("op, sample", SMOOTH)
def test_gradient_is_the_finite_difference(op: Op, sample: Sample, rng: np.random.Generator) -> None:
    check = Check(op, sample, rng)
    first = vjp(check.scalar, check.wrt, None, unused="zero")
    check.differs(check.scalar, first)
    if "slope" not in op.exempt and check.elements:
        assert any(np.abs(g).max() > 0 for g in check.value(first, {}) if g.size)
    second = check.weighted(first)
    check.differs(second, vjp(second, check.wrt, None, unused="zero"))


def test_stop_gradient_is_a_constant_to_differentiation() -> None:
    x = placeholder("x", (3,), "float64")
    (gradient,) = vjp((x * apply("stop_gradient", x)).sum(), [x], None)
    value = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(gradient.eval({x: value}), value)


def test_every_size_name_of_a_sample_is_bound() -> None:
    for op in OPS.values():
        for sample in op.samples():
            names = {name for operand in sample.operands for n in operand.shape for name in symbols(n)}
            assert names <= sample.dims.keys(), op.name
