"""The interpreter: sizes bound from arguments, parameters, kernels, long graphs, and errors with the user's line."""

import numpy as np
import pytest

import graphc
from graphc import interpret
from graphc.build import OPS, apply, parameter, placeholder
from graphc.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from graphc.graph import Graph, make_node
from graphc.types import Dim, float64


def test_named_sizes_come_from_the_arguments() -> None:
    x = placeholder("x", ("batch", 3), "float64")
    y = x.mean(0) + graphc.dim_value(Dim.symbol("batch"), "float64")
    for batch in (1, 4, 61):
        np.testing.assert_array_equal(y.eval({x: np.ones((batch, 3))}), np.full(3, 1.0 + batch))
    assert np.isnan(y.eval({x: np.ones((0, 3))})).all()
    bias = parameter("b", np.arange(3.0))
    assert graphc.broadcast_to(bias, x.shape).sum().eval({x: np.ones((5, 3))}) == 15  # x only gives the size


def test_a_size_that_no_argument_has_is_an_error() -> None:
    bias = parameter("b", np.arange(3.0))
    with pytest.raises(ShapeError, match="needs a value for rows; no argument has that size") as caught:
        graphc.broadcast_to(bias, (Dim.symbol("rows"), 3)).eval()
    assert "rows" in caught.value.lines[0].text


def test_an_argument_that_does_not_fit_is_named() -> None:
    x, y = placeholder("x", ("batch", 3)), placeholder("y", ("batch",), "int64")
    total = (x[:, 0] + y).sum()
    ones, labels = np.ones((4, 3), np.float32), np.arange(4)
    with pytest.raises(ShapeError) as caught:
        total.eval({x: ones, y: labels[:3]})
    assert str(caught.value).startswith("y is i64[batch], the argument has size 3 in axis 0 (batch is 4 in x)\n")
    assert "equal names are equal sizes" in str(caught.value)
    with pytest.raises(ShapeError, match=r"x is f32\[batch,3\], the argument has size 2 in axis 1"):
        total.eval({x: ones[:, :2], y: labels})
    with pytest.raises(ShapeError, match=r"x is f32\[batch,3\], the argument has shape \[3\]"):
        total.eval({x: ones[0], y: labels})
    with pytest.raises(DTypeError, match="the argument is float64: that narrows\n.*\n.*pass array.astype"):
        total.eval({x: ones.astype("f8"), y: labels})
    with pytest.raises(ArgumentError, match=r"no array was given for y \(i64\[batch\]\)\n.*\n.*eval\({y: array}\)"):
        total.eval({x: ones})
    with pytest.raises(ArgumentError, match="eval takes arrays for placeholders"):
        total.eval({x + 1: ones})
    assert total.eval({x: ones.astype(bool), y: labels.astype("i1")}) == 10  # both are safe to widen


def test_results_are_no_views() -> None:
    w = parameter("w", np.zeros(3))
    x, given = placeholder("x", (3,), "float64"), np.zeros(3)
    for tensor in (w, x, x.reshape(3, 1), w + 0):
        result = tensor.eval({x: given})
        result[...] = 7
        assert not given.any() and not w.value.any()


def test_a_parameter_is_its_state_unless_it_is_given() -> None:
    w = parameter("w", np.ones(2))
    assert (w * 2).sum().eval() == 4
    w.value = np.full(2, 3.0)
    assert (w * 2).sum().eval() == 12
    assert (w * 2).sum().eval({w: np.zeros(2)}) == 0


def test_a_kernel_is_its_graph() -> None:
    a, b = placeholder("a", ("n",), "float64"), placeholder("b", (), "float64")
    total = a * graphc.broadcast_to(b, a.shape)
    inner = Graph((a.ref, b.ref), (total.ref, total.sum().ref))
    x, scale = placeholder("x", ("n",), "float64"), parameter("scale", np.asarray(3.0))
    node = make_node(OPS["kernel"], (x.ref, scale.ref), {"graph": inner, "name": "scaled"})
    product, sums = interpret.evaluate(node.outputs, {x.ref: np.arange(4.0)})
    np.testing.assert_array_equal(product, np.arange(4.0) * 3)
    assert sums == 18 and node.types == (total.type, total.sum().type)
    with pytest.raises(ShapeError, match=r"kernel: scaled takes \(f64\[n\], f64\[\]\), not \(f64\[\], f64\[\]\)"):
        make_node(OPS["kernel"], (scale.ref, scale.ref), {"graph": inner, "name": "scaled"})


def test_a_bad_index_names_op_line_index_and_value() -> None:
    x = placeholder("x", ("batch", 10))
    labels = placeholder("labels", ("batch", 1), "int64")
    picked = graphc.take_along_axis(x, labels, axis=1)
    given = np.array([[3], [9], [10], [-1]])
    with pytest.raises(IndexRangeError) as caught:
        picked.eval({x: np.zeros((4, 10), np.float32), labels: given})
    message = "take_along_axis: index 10 is out of range for size 10 (indices[2, 0])"
    assert str(caught.value).startswith(message)
    assert caught.value.lines[0].text == "picked = graphc.take_along_axis(x, labels, axis=1)"
    added = graphc.scatter_add_along_axis(labels, labels, axis=1, size=4)
    with pytest.raises(IndexRangeError, match=r"scatter_add_along_axis: index 9 .*size 4 \(indices\[1, 0\]\)"):
        added.eval({labels: given})


def test_scatter_adds_in_index_order() -> None:
    indices, updates = placeholder("i", (4,), "int64"), placeholder("u", (4,), "float32")
    result = graphc.scatter_add_along_axis(indices, updates, 0, 2)
    values = np.array([1e8, 1.0, -1e8, 1.0], np.float32)
    np.testing.assert_array_equal(result.eval({indices: np.zeros(4, int), updates: values}), [1.0, 0.0])


def test_no_warning_and_no_error_for_nan_and_zero_division() -> None:
    x, n = placeholder("x", (2,)), placeholder("n", (2,), "int32")
    zeros = {x: np.zeros(2, np.float32), n: np.array([0, -(2**31)], np.int32)}
    assert np.isinf((1 / x).eval(zeros)).all()
    np.testing.assert_array_equal((n // 0).eval(zeros), [0, 0])
    np.testing.assert_array_equal((n // -1).eval(zeros), [0, -(2**31)])


def test_a_chain_of_100000_nodes() -> None:
    x = placeholder("x", (), "float64")
    value = x.ref
    for _ in range(100_000):
        value = make_node(OPS["negative"], (value,)).outputs[0]
    assert interpret.evaluate([value], {x.ref: np.asarray(3.0)})[0] == 3.0


def test_concrete_replaces_sizes_at_any_depth() -> None:
    n = Dim.symbol("n")
    attrs = {"shape": (n, 3, n * 2), "dtype": float64, "size": n // 2, "axis": 1}
    expected = {"shape": (7, 3, 14), "dtype": float64, "size": 3, "axis": 1}
    assert interpret.concrete(attrs, {"n": 7}) == expected


def test_apply_by_name_or_by_entry() -> None:
    x = placeholder("x", (2,))
    assert apply("exp", x).ref == apply(OPS["exp"], x.ref).ref == graphc.exp(x).ref
