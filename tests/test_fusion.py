"""Fusion: which kernels a graph becomes, that each has a shape, and that no bit changes on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc.ops as ops
from graphc.autodiff import grad
from graphc.build import parameter, placeholder
from graphc.graph import Graph, Node
from graphc.interpret import evaluate
from graphc.nn import functional
from graphc.optim import SGD, Adam
from graphc.passes.domain import ContractionShape, RowsShape, ScatterShape, kernel_shape
from graphc.passes.fuse import fuse
from graphc.passes.pipeline import optimize
from graphc.settings import config
from graphc.text import canonical_text, parse
from tests.fusion_checks import frozen, kernels


def names(graph: Graph) -> list[str]:
    return [node.attrs["name"] for node in kernels(graph)]


def inside(node: Node) -> list[str]:
    """The ops of a kernel without operands and constants."""
    return [n.op.name for n in node.attrs["graph"].order() if n.op.name not in ("placeholder", "constant")]


def shape_of(node: Node) -> Any:
    return kernel_shape(node.attrs["graph"])


def agrees(graph: Graph, sizes: dict[str, int], seed: int = 0, **given: np.ndarray) -> Graph:
    """The optimised graph, after comparing it with `graph` to the bit on random arguments."""
    result = optimize(graph)
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in graph.inputs:
        name = value.node.attrs["name"]
        if value.op.name == "placeholder":
            shape = tuple(sizes[str(s)] if not isinstance(s, int) else s for s in value.type.shape)
            feeds[value] = given[name] if name in given else rng.normal(size=shape).astype(value.type.dtype.numpy)
    for a, b in zip(evaluate(graph.outputs, feeds), evaluate(result.outputs, feeds), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)
        assert np.array_equal(np.signbit(a), np.signbit(b)) or np.isnan(a).any()
    return result


# the network of the issue


def digits(optimizer: Any = Adam) -> Graph:
    rng = np.random.default_rng(0)
    x, y = placeholder("x", ("batch", 64)), placeholder("y", ("batch",), "int64")
    shapes = {"w1": (64, 128), "b1": (128,), "w2": (128, 10), "b2": (10,)}
    w1, b1, w2, b2 = parameters = [parameter(n, rng.normal(size=s).astype("float32") / 8) for n, s in shapes.items()]
    loss = functional.cross_entropy(ops.relu(x @ w1 + b1) @ w2 + b2, y)
    opt = optimizer()
    updates = opt.updates(loss, parameters)
    state = [*parameters, *opt.slots.values()]
    return frozen([x, y, *state], [loss], updates)


DIGITS = ["matmul_bias_relu", "matmul_bias", "softmax_loss", "matmul_mask", "matmul", "sum_0", "matmul"]


@pytest.mark.parametrize("batch", [0, 1, 61])
def test_digits_adam_step(batch: int) -> None:
    labels = np.random.default_rng(1).integers(0, 10, batch)
    graph = agrees(digits(), {"batch": batch}, y=labels)
    found = kernels(graph)
    assert sorted(n.attrs["name"] for n in found) == sorted([*DIGITS, *["update"] * 4])
    assert all(len(n.types) == 3 and len(n.inputs) == 6 for n in found if n.attrs["name"] == "update")


def test_digits_loss_kernel_holds_loss_gradient_and_scalars() -> None:
    (loss,) = [n for n in kernels(optimize(digits())) if n.attrs["name"] == "softmax_loss"]
    shape = shape_of(loss)
    assert isinstance(shape, RowsShape) and shape.reduced == (1,)
    assert [n.op.name for n in shape.reductions] == ["max", "sum"]
    assert [n.op.name for n in shape.totals] == ["sum"]
    assert [n.op.name for n in shape.columns] == ["sum"]  # the gradient of the bias
    assert [str(t) for t in loss.types] == ["f32[]", "f64[]", "f32[]", "f32[batch,10]", "f32[]", "f32[10]"]
    gradient = loss.attrs["graph"].outputs[3]
    assert shape.classes[gradient] == "full"
    (total,) = [v for v in loss.attrs["graph"].outputs if v in shape.after_total]
    assert total == loss.attrs["graph"].outputs[0]


def test_update_kernels_are_alike() -> None:
    """Equal but for sizes, operand for operand: the Program compiles one and walks a table."""
    found = [n.attrs["graph"] for n in kernels(optimize(digits())) if n.attrs["name"] == "update"]
    assert len({tuple(n.op.name for n in g.order()) for g in found}) == 1


@pytest.mark.parametrize("optimizer", [lambda: SGD(0.1), lambda: SGD(0.1, momentum=0.9, nesterov=True)])
def test_digits_sgd_step(optimizer: Callable[[], Any]) -> None:
    graph = agrees(digits(optimizer), {"batch": 5}, y=np.arange(5))
    assert sorted(names(graph)) == sorted([*DIGITS, *["update"] * 4])


def test_digits_without_fusion_still_runs() -> None:
    with config(disable="fuse"):
        graph = agrees(digits(), {"batch": 3}, y=np.arange(3))
    assert len(kernels(graph)) > 60
    with config(disable="fuse,simplify,fold_constants,merge_duplicates,remove_dead"):
        graph = agrees(digits(), {"batch": 3}, y=np.arange(3))
    assert len(kernels(graph)) > 60


@pytest.mark.parametrize("left_out", ["simplify", "fold_constants", "merge_duplicates", "remove_dead"])
def test_digits_without_one_pass(left_out: str) -> None:
    with config(disable=left_out):
        kernels(agrees(digits(), {"batch": 3}, y=np.arange(3)))


# shapes of kernels


def test_diamond_with_several_outputs() -> None:
    x = placeholder("x", ("n", 4))
    a, b = ops.exp(x), ops.tanh(x)
    graph = agrees(frozen([x], [a + b, a * b, a]), {"n": 3})
    assert len(kernels(graph)) == 1


def test_siblings_share_their_loads() -> None:
    x = placeholder("x", ("n", 4))
    graph = agrees(frozen([x], [ops.exp(x), x.sum(1), x.max(1)]), {"n": 3})
    assert len(kernels(graph)) == 1
    graph = agrees(frozen([x], [x.sum(0), x.sum(1)]), {"n": 3})
    assert len(kernels(graph)) == 1


def test_softmax_and_layer_norm_are_one_kernel() -> None:
    x, w, b = placeholder("x", ("n", 7)), placeholder("w", (7,)), placeholder("b", (7,))
    assert names(agrees(frozen([x], [functional.softmax(x)]), {"n": 5})) == ["softmax"]
    centred = x - x.mean(-1, keepdims=True)
    norm = centred / ops.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * w + b
    (kernel,) = kernels(agrees(frozen([x, w, b], [norm]), {"n": 5}))
    assert len(shape_of(kernel).reductions) == 2


def test_row_values_with_and_without_their_axis() -> None:
    x = placeholder("x", ("n", 7))
    total = x.sum(1)
    row = ops.log(total.reshape((x.shape[0], 1)))
    (kernel,) = kernels(agrees(frozen([x], [x * row, total * 2.0]), {"n": 5}))
    assert shape_of(kernel).reduced == (1,)


def test_one_row_static() -> None:
    x = placeholder("x", (1, 7))
    assert len(kernels(agrees(frozen([x], [functional.softmax(x)]), {}))) == 1
    x = placeholder("x", (1, 1))
    kernels(agrees(frozen([x], [functional.softmax(x), x.sum()]), {}))


def test_square_rows_are_not_columns() -> None:
    """Equal sizes of two axes: a sum over axis 1 may not be spread along axis 1."""
    x = placeholder("x", (5, 5))
    right, wrong = x - x.sum(1, keepdims=True), x - x.sum(1)
    assert len(kernels(agrees(frozen([x], [right]), {}))) == 1
    assert len(kernels(agrees(frozen([x], [wrong]), {}))) == 2
    named = placeholder("x", ("n", "n"))
    with config(disable="split_columns"):  # it would make a kernel for each of the two stages
        assert len(kernels(agrees(frozen([named], [named - ops.exp(named.sum(0))]), {"n": 4}))) == 1
    assert len(kernels(agrees(frozen([named], [named * named.sum(1)]), {"n": 4}))) == 2


def test_total_goes_no_further_than_the_finish() -> None:
    x = placeholder("x", ("n", 3))
    mean = (x * x).mean()
    assert len(kernels(agrees(frozen([x], [ops.sqrt(mean) + 1.0]), {"n": 5}))) == 1
    found = kernels(agrees(frozen([x], [x / ops.sqrt(mean)]), {"n": 5}))
    assert len(found) == 2


def test_total_of_rows_and_of_full_values() -> None:
    x = placeholder("x", ("n", 3))
    (kernel,) = kernels(agrees(frozen([x], [ops.log(ops.exp(x).sum(1)).mean()]), {"n": 5}))
    assert shape_of(kernel).reduced == (1,) and len(shape_of(kernel).totals) == 1
    both = frozen([x], [x.sum(), ops.exp(x).sum(1)])
    assert len(kernels(agrees(both, {"n": 5}))) == 2


def test_reductions_over_other_axes_are_other_kernels() -> None:
    x = placeholder("x", ("n", 3, 2))
    e = ops.exp(x)
    found = kernels(agrees(frozen([x], [e.sum(1), e.sum(0)]), {"n": 5}))
    assert sorted(shape_of(k).reduced for k in found) == [(0,), (1,)]


def test_matmul_in_four_transposes() -> None:
    a, b = placeholder("a", ("n", 3)), placeholder("b", ("n", 4))
    c, d = placeholder("c", (3, "m")), placeholder("d", ("m", 4))
    products = [ops.transpose(a) @ b, a @ c, ops.transpose(c) @ ops.transpose(a), ops.transpose(d) @ ops.transpose(c)]
    found = kernels(agrees(frozen([a, b, c, d], products), {"n": 5, "m": 2}))
    assert [shape_of(k).matmul.op.name for k in found] == ["matmul"] * 4
    assert len(found) == 4


def test_matmul_epilogue() -> None:
    x, w, b, r = (placeholder(n, s) for n, s in (("x", ("n", 3)), ("w", (3, 4)), ("b", (4,)), ("r", ("n", 4))))
    y = x @ w + b
    z = ops.relu(y) + ops.exp(r) * 2.0
    (kernel,) = kernels(agrees(frozen([x, w, b, r], [z, y]), {"n": 5}))
    assert isinstance(shape_of(kernel), ContractionShape)
    assert len(kernel.types) == 2


def test_squares_of_a_matmul_go_to_their_sum() -> None:
    x, w = placeholder("x", ("n", 3)), placeholder("w", (3, 4))
    g = x @ w
    found = kernels(agrees(frozen([x, w], [(g * g).sum(), g]), {"n": 5}))
    assert [inside(k) for k in found] == [["matmul"], ["multiply", "sum"]]


def test_matmul_reads_memory_only() -> None:
    x, w = placeholder("x", ("n", 3)), placeholder("w", (3, 4))
    half = w[:, :2]
    found = kernels(agrees(frozen([x, w], [x @ half]), {"n": 5}))
    assert [inside(k) for k in found] == [["slice"], ["matmul"]]
    ones = ops.ones((3, 4), "float32")
    assert len(kernels(agrees(frozen([x], [x @ ones, x @ ops.exp(x).sum(0).reshape((3, 1))]), {"n": 5}))) == 4


def test_matmul_of_one_element_constant() -> None:
    x = placeholder("x", ("n", 1))
    kernels(agrees(frozen([x], [x @ ops.full((1, 1), 3.0, "float32") + 3.0]), {"n": 5}))


def test_movement_alone_is_a_copy() -> None:
    x = placeholder("x", ("n", 3))
    (kernel,) = kernels(agrees(frozen([x], [ops.transpose(x)]), {"n": 5}))
    assert inside(kernel) == ["transpose"]
    found = kernels(agrees(frozen([x], [ops.transpose(ops.exp(x)) * 2.0]), {"n": 5}))
    assert [inside(k) for k in found] == [["exp"], ["transpose", "broadcast_to", "multiply"]]


def test_movement_of_operands_is_inside() -> None:
    x, y = placeholder("x", ("n", 3)), placeholder("y", (3, "n"))
    (kernel,) = kernels(agrees(frozen([x, y], [x[:, 1:2] + ops.transpose(y)]), {"n": 5}))
    assert "transpose" in inside(kernel)


def test_gather_in_rows_and_on_its_own() -> None:
    x, i = placeholder("x", ("n", 4)), placeholder("i", ("n", 1), "int64")
    labels = np.array([[1], [3], [0]])
    picked = ops.take_along_axis(functional.log_softmax(x), i, 1)
    (kernel,) = kernels(agrees(frozen([x, i], [picked]), {"n": 3}, i=labels))
    assert shape_of(kernel).reduced == (1,)
    many = placeholder("i", ("n", 2), "int64")
    found = kernels(
        agrees(frozen([x, many], [ops.take_along_axis(ops.exp(x), many, 1)]), {"n": 3}, i=labels[:, [0, 0]])
    )
    assert len(found) == 2


def test_argmax_joins_its_rows() -> None:
    x, y = placeholder("x", ("n", 4)), placeholder("y", ("n",), "int64")
    hits = (x.argmax(1) == y).astype("float32").mean()
    (kernel,) = kernels(agrees(frozen([x, y], [hits]), {"n": 3}, y=np.array([0, 1, 2])))
    assert len(shape_of(kernel).reductions) == 1 and len(shape_of(kernel).totals) == 1


def test_scatter_stands_alone() -> None:
    x, i = placeholder("x", ("n", 4)), placeholder("i", ("n", 2), "int64")
    (gradient,) = grad((ops.take_along_axis(ops.exp(x), i, 1) * 2.0).sum(), [x])
    found = kernels(agrees(frozen([x, i], [gradient]), {"n": 3}, i=np.array([[1, 1], [3, 0], [0, 2]])))
    assert sum(isinstance(shape_of(k), ScatterShape) for k in found) == 1


def test_cheap_values_are_made_anew() -> None:
    """A mask of an activation that is stored anyway is computed by its reader: no bool array goes through memory."""
    (mask,) = [n for n in kernels(optimize(digits())) if n.attrs["name"] == "matmul_mask"]
    assert "less_equal" in inside(mask)
    assert all(t.dtype.name != "bool" for n in kernels(optimize(digits())) for t in n.types)


# scalars


def test_scalars_without_a_host_are_one_kernel() -> None:
    s = parameter("s", np.float64(2))
    w, v = parameter("w", np.ones(5)), parameter("v", np.ones((3, 2)))
    rate = ops.exp(ops.sqrt(s)) / 3.0
    graph = agrees(frozen([s, w, v], [], {s: s + 1.0, w: w * rate, v: v * rate}), {})
    assert len(kernels(graph)) == 3


def test_cheap_scalars_make_no_dependency() -> None:
    s = parameter("s", np.float64(2))
    w, v = parameter("w", np.ones(5, "float32")), parameter("v", np.ones((3, 2), "float32"))
    rate = s.astype("float32")
    graph = agrees(frozen([s, w, v], [], {w: w * rate, v: v * rate}), {})
    assert len(kernels(graph)) == 2 and all(s.ref in k.inputs for k in kernels(graph))


def test_repeated_scalars_do_not_wait_for_stored_ones() -> None:
    s, x = placeholder("s", ()), placeholder("x", ("n", 3))
    graph = agrees(frozen([s, x], [x * ((s + 1.0) * 2.0), s + 1.0]), {"n": 4})
    assert len(kernels(graph)) == 2 and all(s.ref in k.inputs for k in kernels(graph))


def test_scalars_ride_only_where_they_make_no_cycle() -> None:
    """The kernel with the total reads what the scalar's reader computes: it comes too late to be its host."""
    s, x, w = (
        placeholder("s", (), "float64"),
        placeholder("x", ("n", 3), "float64"),
        placeholder("w", (3, 3), "float64"),
    )
    c = ops.expm1(ops.sqrt(s) / 7.0)
    h = ops.exp(x * c) @ w
    loss = (h * c).sum()
    graph = agrees(frozen([s, x, w], [loss, c]), {"n": 4})
    assert len(kernels(graph)) == 3  # exp(x * c) is computed by the product


# outputs that no kernel computes


def test_outputs_that_are_inputs_or_twice_are_copied() -> None:
    x = placeholder("x", ("n", 3))
    y = ops.exp(x)
    graph = agrees(frozen([x], [x, y, y, x, ops.full((2,), 3.0, "float32")]), {"n": 2})
    assert sorted(names(graph)) == ["broadcast", "copy", "copy", "copy", "exp"]


def test_an_update_shares_its_value_with_a_result() -> None:
    a = parameter("a", np.arange(3.0))
    assert names(agrees(frozen([a], [a + 1.0], {a: a + 1.0}), {})) == ["add"]
    b = parameter("b", np.arange(3.0))
    assert names(agrees(frozen([a, b], [a + 1.0], {a: a + 1.0, b: a + 1.0}), {})) == ["add", "copy"]


def test_swapped_parameters_are_copied() -> None:
    a, b = parameter("a", np.arange(3.0)), parameter("b", -np.arange(3.0))
    assert names(agrees(frozen([a, b], [], {a: b, b: a}), {})) == ["copy", "copy"]


# convexity


def test_no_kernel_waits_for_itself() -> None:
    """exp(h) and max over h @ w meet again: the elementwise part may not surround the matmul."""
    x, w = placeholder("x", ("n", 4)), placeholder("w", (4, 4))
    h = ops.exp(x)
    y = ops.tanh(h) + ops.relu(h @ w)
    z = y * h + (y @ w).max(1, keepdims=True)
    graph = agrees(frozen([x, w], [z]), {"n": 3})
    assert len(kernels(graph)) <= 4


def test_golden() -> None:
    x = placeholder("x", ("n", 3))
    graph = fuse(frozen([x], [ops.exp(x).sum(1)]))
    assert canonical_text(graph) == canonical_text(
        parse("""graph graph {
          input %x: f32[n,3]
          %0: f32[n] = kernel(%x, name="exp_sum_1", graph=graph exp_sum_1 {
            input %p0: f32[n,3]
            %0: f32[n,3] = exp(%p0)
            %1: f32[n] = sum(%0, axes=[1], keepdims=False)
            return %1
          })
          return %0
        }
        """)
    )
