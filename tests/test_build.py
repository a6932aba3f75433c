"""Tensors, operators, promotion, indexing, parameters, and the errors of building, each against what NumPy does."""

import operator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc
from graphc.build import Tensor, constant, parameter, placeholder
from graphc.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from graphc.graph import inherit_origin, origin_of
from graphc.types import DTYPES, Dim, DType, bfloat16

A = np.array([[1.5, -2.0, 3.0], [0.5, 4.0, -1.0]], np.float32)


@pytest.fixture
def x() -> Tensor:
    return placeholder("x", ("batch", 3))


# operators


BINARY = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.eq,
    operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
]  # fmt: skip


@pytest.mark.parametrize("function", BINARY, ids=lambda f: f.__name__)
@pytest.mark.parametrize("other", [2, 0.5, np.float32(2), np.float64(0.5), A[:1] + 1], ids=repr)
def test_operators_with_numbers_and_arrays_on_either_side(x: Tensor, function: Any, other: Any) -> None:
    for tensor, expected in ((function(x, other), function(A, other)), (function(other, x), function(other, A))):
        assert isinstance(tensor, Tensor)
        result = tensor.eval({x: A})
        assert result.dtype == expected.dtype == tensor.dtype.numpy
        np.testing.assert_array_equal(result, expected)


def test_unary_operators_and_methods(x: Tensor) -> None:
    pairs: list[tuple[Any, np.ndarray]] = [
        (-x, -A), (+x, A), (abs(x), abs(A)), (x.T, A.T), (x.reshape(-1, 1), A.reshape(-1, 1)),
        (x.reshape((-1,)), A.reshape(-1)), (x.transpose(1, 0), A.T), (x.astype("int32"), A.astype("int32")),
        (x.sum(0), A.sum(0)), (x.mean(1, keepdims=True), A.mean(1, keepdims=True)), (x.max(), np.asarray(A.max())),
        (x.min(axis=(0, 1)), np.asarray(A.min())), (x.argmax(1), A.argmax(1)), (x.argmin(), np.asarray(A.argmin())),
        (~(x > 0), ~(A > 0)), ((x > 0) & (x < 2), (A > 0) & (A < 2)), ((x > 0) | (x < -1), (A > 0) | (A < -1)),
        ((x > 0) ^ True, (A > 0) ^ True), (x @ A.T, A @ A.T), (A @ x.T, A @ A.T),
    ]  # fmt: skip
    for tensor, expected in pairs:
        result = tensor.eval({x: A})
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 8, -1, 0.5, -2, 2.5, 11])
def test_constant_powers(exponent: float) -> None:
    x, value = placeholder("x", (4,), "float64"), np.array([0.5, 1.0, 2.0, 3.7])
    np.testing.assert_allclose((x**exponent).eval({x: value}), value**exponent, rtol=1e-14)


def test_integer_powers_wrap_and_need_a_constant_exponent() -> None:
    n, value = placeholder("n", (3,), "int8"), np.array([-3, 5, 100], np.int8)
    np.testing.assert_array_equal((n**5).eval({n: value}), value**5)
    for exponent in (-1, n):
        with pytest.raises(DTypeError, match="needs a constant exponent >= 0: n is i8"):
            n**exponent


def test_powers_of_scalars_on_the_left() -> None:
    x, value = placeholder("x", (3,), "float64"), np.array([-1.0, 0.5, 3.0])
    np.testing.assert_allclose((2**x).eval({x: value}), 2**value, rtol=1e-15)


# promotion


@pytest.mark.parametrize("left", [d for d in DTYPES if d is not bfloat16], ids=str)
def test_results_of_operators_are_numpys(left: Any) -> None:
    x = placeholder("x", (2,), left)
    for scalar in (True, 1, 0.5):
        expected = np.result_type(left.numpy, scalar)
        assert (x * scalar).dtype.numpy == expected and (scalar * x).dtype.numpy == expected
    assert (x / 2).dtype.numpy == (np.ones(2, left.numpy) / 2).dtype if left.itemsize > 1 else True
    assert x.sum().dtype.numpy == np.ones(2, left.numpy).sum().dtype
    assert x.mean().dtype.numpy == np.ones(2, left.numpy).mean().dtype


def test_numpy_scalars_are_strong_and_python_scalars_must_fit() -> None:
    x = placeholder("x", (2,), "float32")
    assert (x + np.float64(1)).dtype is DType.of("float64")
    n = placeholder("n", (2,), "int8")
    with pytest.raises(DTypeError, match="300 does not fit int8"):
        n + 300
    assert graphc.exp(n).dtype.name == "float32" and graphc.exp(placeholder("m", (), "int64")).dtype.name == "float64"


def test_signed_and_unsigned_integers_are_compared_exactly() -> None:
    x, y = placeholder("x", (4,), "int64"), placeholder("y", (4,), "uint64")
    a = np.array([-1, 2**53 + 1, 5, 2**62], np.int64)
    b = np.array([2**64 - 1, 2**53, 5, 2**62 + 1], np.uint64)
    for compare in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge):
        np.testing.assert_array_equal(compare(x, y).eval({x: a, y: b}), compare(a, b))
        np.testing.assert_array_equal(compare(y, x).eval({x: a, y: b}), compare(b, a))


def test_equal_expressions_are_one_node(x: Tensor) -> None:
    assert (x * 2 + 1).ref == (x * 2 + 1).ref
    assert (x + 0.0).ref != (x + -0.0).ref
    assert placeholder("x", ("batch", 3)).ref != x.ref


# indexing

_part = st.one_of(
    st.integers(-3, 2),
    st.none(),
    st.just(Ellipsis),
    st.builds(slice, *[st.none() | st.integers(-6, 6)] * 2, st.none() | st.sampled_from([-3, -2, -1, 1, 2, 3])),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_part, max_size=4), st.booleans(), st.tuples(*[st.integers(3, 5)] * 3))
def test_getitem_is_numpys_for_constant_and_named_sizes(key: list[Any], named: bool, shape: tuple[int, ...]) -> None:
    parts = tuple(key)
    array = np.arange(float(np.prod(shape))).reshape(shape)
    x = placeholder("x", ("a", "b", "c") if named else shape, "float64")
    try:
        expected = array[parts]
    except IndexError:
        with pytest.raises(ShapeError, match=r"x\[\.\.\.\]"):
            x[parts]
        return
    np.testing.assert_array_equal(x[parts].eval({x: array}), expected)


@pytest.mark.parametrize("size", [0, 1, 2, 5])
@pytest.mark.parametrize(
    "part", [slice(1, None), slice(None, 3), slice(None, -1), slice(-2, None), slice(4, 1), slice(None, None, -1),
             slice(-1, 0, -2), slice(2, None, 2), slice(-3, -1), slice(1, -4)], ids=repr
)  # fmt: skip
def test_slices_of_a_named_size_clamp(size: int, part: slice) -> None:
    x, array = placeholder("x", ("n",), "int64"), np.arange(size)
    y = x[part]
    np.testing.assert_array_equal(y.eval({x: array}), array[part])
    assert y.sum().eval({x: array}) == array[part].sum()


def test_an_int_index_into_a_named_size_is_checked_when_it_runs() -> None:
    x = placeholder("x", ("n",), "int64")
    assert x[2].eval({x: np.arange(5)}) == 2 and x[-1].eval({x: np.arange(5)}) == 4
    with pytest.raises(IndexRangeError, match="index 2 is out of range for size 2") as caught:
        x[2].eval({x: np.arange(2)})
    assert "x[2].eval" in caught.value.lines[0].text


def test_what_is_no_basic_index_is_an_error(x: Tensor) -> None:
    for key in (True, 1.5, "a"):
        with pytest.raises(ArgumentError, match="takes ints, slices, None|a single bool is no index"):
            x[key]
    with pytest.raises(DTypeError, match="a mask must be constant: x is f32.*result of greater"):
        x[x > 0]
    for bad in ((0, 0, 0), (0, 3), (..., ...)):
        with pytest.raises(ShapeError, match=r"x\[\.\.\.\]: (too many indices|index 3 is out of range)"):
            x[bad]


# shapes


def test_reshape_works_out_named_sizes(x: Tensor) -> None:
    images = placeholder("images", ("batch", 28, 28))
    assert str(images.reshape(-1, 784).type) == "f32[batch,784]"
    assert str(images.reshape(Dim.symbol("batch"), -1).type) == "f32[batch,784]"
    with pytest.raises(ShapeError, match=r"reshape: x is f32\[batch,3\] with 3\*batch elements"):
        x.reshape(4, 2)
    with pytest.raises(ShapeError, match="only one size may be -1"):
        x.reshape(-1, -1)
    with pytest.raises(ShapeError, match="with 3\\*batch elements"):
        x.reshape(-1, 7)


@pytest.mark.parametrize("a, b", [((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 1, 4, 3), (5, 3, 2)),
                                  ((5, 4, 3), (3, 2)), ((3,), (5, 3, 2)), ((5, 2, 3), (3,))])  # fmt: skip
def test_matmul_of_every_rank(a: tuple[int, ...], b: tuple[int, ...], rng: np.random.Generator) -> None:
    left, right = rng.normal(size=a), rng.normal(size=b)
    x, y = placeholder("x", a, "float64"), placeholder("y", b, "float64")
    result, expected = (x @ y).eval({x: left, y: right}), np.asarray(left @ right)
    assert result.shape == expected.shape == (x @ y).shape
    np.testing.assert_allclose(result, expected, rtol=1e-13)


def test_take_along_axis_broadcasts_and_counts_from_zero() -> None:
    x, array = placeholder("x", (3, 4), "float64"), np.arange(12.0).reshape(3, 4)
    index = np.array([[2]])
    np.testing.assert_array_equal(
        graphc.take_along_axis(x, index, 1).eval({x: array}), np.take_along_axis(array, index, 1)
    )
    with pytest.raises(IndexRangeError, match="index -1 is out of range for size 4"):
        graphc.take_along_axis(x, np.array([[-1]]), -1).eval({x: array})
    with pytest.raises(DTypeError, match="indices must be integers"):
        graphc.take_along_axis(x, np.array([[1.0]]), 1)
    with pytest.raises(ShapeError, match="ranks differ"):
        graphc.take_along_axis(x, np.array([1]), 1)


def test_compositions_are_numpys(x: Tensor) -> None:
    finite = np.array([[-np.inf, -np.inf, -np.inf], [1000.0, 999.0, -np.inf]], np.float32)
    np.testing.assert_allclose(
        graphc.logsumexp(x, 1).eval({x: finite}), np.array([-np.inf, 1000.3133], np.float32), rtol=1e-6
    )
    assert np.isnan(graphc.logsumexp(x).eval({x: np.full((1, 3), np.nan, np.float32)}))
    for tensor, expected in [
        (graphc.clip(x, -1, 2), A.clip(-1, 2)), (graphc.square(x), A * A), (graphc.where(x > 0, x, 0), A * (A > 0)),
        (graphc.squeeze(x[:, 1:2], 1), A[:, 1]), (graphc.expand_dims(x, (0, -1)), A[None, ..., None]),
        (graphc.zeros_like(x), np.zeros_like(A)), (graphc.full((2, 2), 3.0), np.full((2, 2), 3.0)),
        (graphc.any(x > 3, axis=1), (A > 3).any(1)), (graphc.prod(x, 0), A.prod(0)),
        (graphc.iota((Dim.symbol("batch"), 3), axis=1) + x, np.arange(3) + A), (graphc.arange(5), np.arange(5)),
        (graphc.isnan(x), np.isnan(A)), (graphc.floor(x), np.floor(A)),
        (graphc.swapaxes(x, 0, 1), A.T), (graphc.logical_not(x), np.logical_not(A)), (graphc.reciprocal(x), 1 / A),
    ]:  # fmt: skip
        np.testing.assert_array_equal(tensor.eval({x: A}), expected)


# parameters


def test_a_parameter_owns_aligned_memory_that_never_moves() -> None:
    source = np.arange(6.0).reshape(2, 3)
    w = parameter("w", source)
    source[:] = 0
    address = w.value.ctypes.data
    assert address % 64 == 0 and w.value[1, 2] == 5
    w.value = np.ones((2, 3), np.float32)  # safe to widen
    view = w.value
    assert view.ctypes.data == address and view.sum() == 6
    view[0, 0] = 9
    assert (w * 1).eval({})[0, 0] == 9
    with pytest.raises(ShapeError, match=r"parameter w has shape \[2, 3\], the new value has \[3\]"):
        w.value = np.ones(3)
    narrow = parameter("n", np.zeros(2, np.float32))
    with pytest.raises(DTypeError, match="parameter n is float32, the new value is float64"):
        narrow.value = np.zeros(2)
    lr = parameter("lr", np.float32(0.1))
    lr.value = 0.5
    assert lr.value == 0.5 and lr.shape == ()


def test_default_update_has_the_parameters_type() -> None:
    w = parameter("w", np.zeros(3))
    w.default_update = w + 1
    assert w.state.default_update is w.default_update
    with pytest.raises(ShapeError, match=r"default_update of w is f64\[\], the parameter is f64\[3\]"):
        w.default_update = w.sum()


# names, lines, errors


def test_tensors_print_type_producer_and_line(x: Tensor) -> None:
    y = x @ np.ones((3, 2), np.float32)
    assert repr(y).startswith("f32[batch,2] = matmul(x, result of constant)  # ")
    assert "test_build.py:" in repr(y) and repr(y).endswith("y = x @ np.ones((3, 2), np.float32)")
    assert repr(x).startswith("f32[batch,3] = placeholder x")
    assert x.name == "x" and y.name is None


def test_the_users_line_is_recorded_but_not_inside_a_rewrite(x: Tensor) -> None:
    y = graphc.mean(x)  # this line
    lines = {line.text for node in (y.ref.node, y.ref.node.inputs[0].node) for line in origin_of(node).lines}  # type: ignore[union-attr]
    assert lines == {"y = graphc.mean(x)  # this line"}
    with inherit_origin(y.ref.node):
        z = graphc.exp(y)
    assert origin_of(z.ref.node).lines == origin_of(y.ref.node).lines  # type: ignore[union-attr]


def test_a_shape_error_names_tensors_types_and_line(x: Tensor) -> None:
    w = parameter("w", np.ones((5, 6), np.float32))
    with pytest.raises(ShapeError) as caught:
        x @ w
    text = str(caught.value)
    assert text.startswith("matmul: inner sizes differ: x is f32[batch,3], w is f32[5,6] (3 != 5)\n  built at ")
    assert text.endswith(": x @ w")
    with pytest.raises(ShapeError, match=r"hint: the second operand fits transposed: x @ \(\.\.\.\)\.T"):
        x @ np.ones((2, 3), np.float32)
    with pytest.raises(ShapeError, match=r"add: shapes do not broadcast: x is f32\[batch,3\], y is f32\[4\]"):
        x + placeholder("y", 4)
    with pytest.raises(ShapeError, match=r"sum: there is no axis 2 of x \(f32\[batch,3\]\)\n"):
        x.sum(2)
    with pytest.raises(DTypeError, match="bitwise_and: not defined for float32: x is f32"):
        x & x
    with pytest.raises(DTypeError, match=r"subtract: not defined for bool"):
        (x > 0) - (x > 0)
    with pytest.raises(DTypeError, match="where: the condition is not bool"):
        graphc.where(x, x, 0)
    with pytest.raises(ShapeError, match=r"max: x0 is f32\[0\]: no elements to choose from"):
        placeholder("x0", (0,)).max()


def test_a_tensor_is_no_bool_number_or_array(x: Tensor) -> None:
    y = x.sum()
    uses: list[tuple[Any, str]] = [
        (bool, "truth value"), (float, "float value"), (int, "int value"), (np.asarray, "array value"),
        (iter, "items to iterate"), (lambda t: 3 in t, "items to search"), (len, "length"),
    ]  # fmt: skip
    for use, word in uses:
        with pytest.raises(TypeError, match=f"has no {word}") as caught:
            use(y)
        assert isinstance(caught.value, ArgumentError)
    with pytest.raises(ArgumentError) as caught:
        if y > 0:
            pass
    assert caught.value.lines[-1].text == "if y > 0:" and "graphc.where" in str(caught.value)
    assert len(placeholder("z", (4, 2))) == 4


@pytest.mark.parametrize(
    "make, kind, message",
    [
        (lambda: placeholder("no name", 3), ArgumentError, "not a name: 'no name'"),
        (lambda: placeholder("x", (-1,)), ShapeError, "size -1 of axis 0 is negative"),
        (lambda: placeholder("x", ("a b",)), ShapeError, "'a b' does not name a size"),
        (lambda: placeholder("x", (1.5,)), ShapeError, "1.5 is no size"),  # type: ignore[arg-type]
        (lambda: placeholder("x", 3, "float128"), DTypeError, "graphc has no dtype float128"),
        (lambda: constant("text"), DTypeError, "graphc has no dtype <U4"),
        (lambda: constant([[1], [1, 2]]), ShapeError, "not an array"),
        (lambda: graphc.add(None, 1), ArgumentError, "None is neither a tensor nor a number"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_named(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        make()
    assert caught.value.lines  # type: ignore[attr-defined]


def test_unnamed_sizes_have_a_name_of_their_own() -> None:
    assert str(placeholder("x", (None, 3, "b")).type) == "f32[x_dim0,3,b]"


def test_graphs_are_built_in_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    made = eval(compile("graphc.placeholder('x', 3)", str(tmp_path / "line.py"), "eval"), {"graphc": graphc})
    origin = origin_of(made.ref.node)
    assert origin is not None and str(origin.lines[0]) == f"{tmp_path / 'line.py'}:1"


def test_dir_lists_what_is_public() -> None:
    assert {"text", "function", "nn", "Tensor", "exp"} <= set(dir(graphc))
    assert not {"Any", "TYPE_CHECKING", "annotations", "importlib", "_LAZY"} & set(dir(graphc))
    assert all(hasattr(graphc, name) for name in dir(graphc))


def test_importing_graphc_imports_no_compiler() -> None:
    import subprocess
    import sys

    code = "import sys, graphc; print([m for m in ('llvmlite', 'networkx', 'graphc.compile') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
