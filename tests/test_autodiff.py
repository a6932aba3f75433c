"""Gradients: against finite differences of the interpreter, of gradients too; what is walked; how errors are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc.ops as ops
from graphc.autodiff import grad, vjp
from graphc.build import OPS, Tensor, apply, constant, parameter, placeholder
from graphc.errors import ArgumentError, GradientError, InternalError
from graphc.graph import Graph, Op, make_node, origin_of, topological_order
from graphc.interpret import evaluate
from graphc.settings import config
from graphc.text import canonical_text
from graphc.types import TensorType, float64

Feeds = dict[Tensor, np.ndarray]
RNG = np.random.default_rng


def value(tensor: Tensor, feeds: Feeds) -> np.ndarray:
    return evaluate([tensor.ref], {t.ref: array for t, array in feeds.items()})[0]


def check(loss: Tensor, feeds: Feeds, order: int = 2, eps: float = 1e-5, tolerance: float = 1e-6) -> None:
    """The gradients of `loss` along a random direction are those of central differences; again for the gradients."""
    rng = RNG(7)
    wrt = [t for t in feeds if t.dtype.is_float]
    directions = [rng.standard_normal(feeds[t].shape) for t in wrt]
    moved = [{**feeds, **{t: feeds[t] + s * d for t, d in zip(wrt, directions)}} for s in (eps, -eps)]
    expected = (value(loss, moved[0]) - value(loss, moved[1])) / (2 * eps)
    gradients = grad(loss, wrt)
    found = sum(np.sum(value(g, feeds) * d) for g, d in zip(gradients, directions))
    assert all(g.type == t.type for g, t in zip(gradients, wrt))
    assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)
    assert np.isfinite(found)
    if order > 1:
        weights = [constant(rng.standard_normal(feeds[t].shape)) for t in wrt]
        weighted = [ops.sum(g * w) for g, w in zip(gradients, weights)]
        dependent = [w for w in weighted if any(t.ref.node in topological_order([w.ref.node]) for t in wrt)]
        if dependent:
            check(sum(dependent[1:], dependent[0]) + sum(ops.sum(t * 0.0) for t in wrt), feeds, order - 1, eps, 2e-5)


def draw(*shapes: tuple[int, ...], low: float = -2.0, high: float = 2.0) -> list[np.ndarray]:
    return [RNG(len(shapes) + i).uniform(low, high, shape) for i, shape in enumerate(shapes)]


CASES: dict[str, tuple[Callable[..., Tensor], list[np.ndarray]]] = {
    "arithmetic": (lambda x, y: x * y - x / (y * y + 1.0), draw((3, 4), (3, 4))),
    "broadcasting": (lambda x, y: x * y + y, draw((3, 4), (4,))),
    "scalar": (lambda x, y: x * y, draw((2, 3), ())),
    "one row and one column": (lambda x, y: ops.exp(x) * y, draw((1, 4), (3, 1))),
    "shared": (lambda x: x * x + x * ops.tanh(x) * x, draw((5,))),
    "matmul": (lambda x, y: ops.tanh(x @ y), draw((3, 4), (4, 2))),
    "matmul of one": (lambda x: x @ x.T, draw((3, 4))),
    "reductions": (lambda x: x.mean(axis=0) * ops.max(x, axis=1).sum() + ops.prod(x, axis=1).sum(), draw((3, 4))),
    "keepdims": (lambda x: x / x.sum(axis=1, keepdims=True), draw((3, 4), low=0.5)),
    "softmax": (lambda x: ops.exp(x) / ops.exp(x).sum(axis=-1, keepdims=True), draw((3, 4))),
    "log of softmax": (lambda x: ops.log(ops.exp(x) / ops.exp(x).sum(axis=-1, keepdims=True)), draw((3, 4))),
    "logsumexp": (lambda x: ops.log(ops.sum(ops.exp(x), axis=0)), draw((3, 4))),
    "movement": (lambda x: ops.reshape(x, (4, 3)).T[::-1, 1:] * x[:, :3][:, None, :].sum(axis=1), draw((3, 4))),
    "where": (lambda x, y: ops.where(x > y, x * y, x - y * y), draw((3, 4), (3, 4))),
    "logistic": (lambda x, y: y * ops.log(ops.sigmoid(x)) + (1 - y) * ops.log(1 - ops.sigmoid(x)), draw((4,), (4,))),
    "cast": (lambda x: x.astype("float32").astype("float64") * 0.0 + x * x, draw((3,))),
    "take": (lambda x: ops.take_along_axis(x, constant(np.array([[1], [0], [3]])), 1) * 2.0, draw((3, 4))),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    build, arrays = CASES[name]
    tensors = [placeholder(f"x{i}", array.shape, "float64") for i, array in enumerate(arrays)]
    result = build(*tensors)
    weights = constant(RNG(3).standard_normal([int(str(n)) for n in result.shape]))
    check(ops.sum(result * weights), dict(zip(tensors, arrays)))


def test_a_network_with_intermediate_wrt() -> None:
    x = placeholder("x", ("batch", 3), "float64")
    w = parameter("w", RNG(0).standard_normal((3, 4)))
    hidden = ops.relu(x @ w)
    loss = (hidden * hidden).mean()
    gh, gw = grad(loss, [hidden, w])
    feeds = {x: RNG(1).standard_normal((5, 3))}
    h = np.maximum(feeds[x] @ w.value, 0)
    np.testing.assert_allclose(value(gh, feeds), 2 * h / 20, rtol=1e-14)
    np.testing.assert_allclose(value(gw, feeds), feeds[x].T @ (2 * h / 20), rtol=1e-12)


def test_forms_of_wrt() -> None:
    x, y = placeholder("x", (3,)), placeholder("y", (3,))
    loss = ops.sum(x * y)
    assert isinstance(grad(loss, x), Tensor)
    assert [t.ref for t in grad(loss, (x, y))] == [y_.ref for y_ in (grad(loss, x), grad(loss, y))]
    assert {k: t.type for k, t in grad(loss, {"a": y}).items()} == {"a": y.type}
    assert grad(loss, []) == []
    assert value(grad(loss, loss), {}) == 1.0
    again = grad(loss, [x, x])
    assert again[0].ref == again[1].ref


def test_vjp() -> None:
    x = placeholder("x", (2, 3), "float64")
    w = parameter("w", RNG(5).standard_normal((3, 2)))
    u = placeholder("u", (2, 2), "float64")
    feeds = {x: RNG(6).standard_normal((2, 3)), u: RNG(7).standard_normal((2, 2))}
    product = vjp([x @ w, ops.exp(x)], x, [u, np.ones((2, 3))])
    np.testing.assert_allclose(value(product, feeds), feeds[u] @ w.value.T + np.exp(feeds[x]), rtol=1e-13)
    (ones,) = vjp(x @ w, [w], None)
    np.testing.assert_allclose(value(ones, feeds), feeds[x].T @ np.ones((2, 2)), rtol=1e-13)
    with pytest.raises(GradientError, match=r"the cotangent of result of exp \(f64\[2,3\]\) is f64\[2\]"):
        vjp(ops.exp(x), x, np.ones(2))
    with pytest.raises(ArgumentError, match="1 outputs but 2 cotangents"):
        vjp([ops.exp(x)], x, [u, u])


def test_only_the_way_between_loss_and_wrt_is_walked() -> None:
    x, y = placeholder("x", (3,)), placeholder("y", (3,))
    loss = ops.sum(ops.exp(x) * ops.tanh(ops.log(y)))
    graph = Graph((x.ref, y.ref), (grad(loss, x).ref,))
    assert canonical_text(graph) == (
        "graph graph {\n"
        "  input %x: f32[3]\n"
        "  input %y: f32[3]\n"
        "  %0: f32[] = constant(1.0)\n"
        "  %1: f32[1] = reshape(%0, shape=[1])\n"
        "  %2: f32[3] = broadcast_to(%1, shape=[3])\n"
        "  %3: f32[3] = log(%y)\n"
        "  %4: f32[3] = tanh(%3)\n"
        "  %5: f32[3] = multiply(%2, %4)\n"
        "  %6: f32[3] = exp(%x)\n"
        "  %7: f32[3] = multiply(%5, %6)\n"
        "  return %7\n"
        "}\n"
    )


def test_gradient_nodes_know_their_forward_node_and_line() -> None:
    x = placeholder("x", (3,))
    y = ops.tanh(x * 3.0)  # the line
    g = grad(y.sum(), x)
    forward = topological_order([y.sum().ref.node])
    seeds = ("constant", "broadcast_to")  # shared with whatever else uses such a number
    made = [n for n in topological_order([g.ref.node]) if n not in forward and n.op.name not in seeds]
    assert len(made) >= 3
    for node in made:
        origin = origin_of(node)
        assert origin is not None and origin.gradient_of and set(origin.gradient_of) <= set(forward)
    last = origin_of(g.ref.node)
    assert last is not None and last.gradient_of[0].op.name == "multiply"
    assert last.lines[0].text == "y = ops.tanh(x * 3.0)  # the line"


def test_cotangents_are_summed_in_one_order() -> None:
    x = placeholder("x", (3,), "float64")
    texts = set()
    for _ in range(3):
        loss = ops.sum(ops.exp(x) + x * x + ops.tanh(x) + x)
        texts.add(canonical_text(Graph((x.ref,), (grad(loss, x).ref,))))
    assert len(texts) == 1


def test_the_branch_not_taken_never_reaches_an_input() -> None:
    x = placeholder("x", (4,), "float64")
    at = np.array([4.0, 0.0, -1.0, 0.25])
    feeds = {x: at}

    def gradient(y: Tensor) -> np.ndarray:
        return value(grad(ops.sum(y), x), feeds)

    np.testing.assert_array_equal(gradient(ops.where(x > 0, ops.sqrt(x), 0.0)), [0.25, 0, 0, 1])
    np.testing.assert_array_equal(gradient(ops.where(x <= 0, 0.0, ops.sqrt(x) * 3.0 + 1.0)), [0.75, 0, 0, 3])
    root = ops.sqrt(x)  # several ways inside of the branch, and a nested one
    inside = ops.where(x > 1, root * root, root) + root
    np.testing.assert_array_equal(gradient(ops.where(x > 0, inside, x)), [1.25, 1, 1, 2])
    # leaving the elementwise region through a broadcast
    spread = ops.where(x > 0, ops.sqrt(ops.broadcast_to(x, (2, 4))), 0.0)
    np.testing.assert_array_equal(gradient(spread), [0.5, 0, 0, 2])
    both = ops.where(x > 0, ops.log(x), -ops.log(-x))
    np.testing.assert_array_equal(gradient(ops.where(x != 0, both, 0.0)), [0.25, 0, 1, 4])  # d -log(-x) = -1 / x
    second = grad(ops.sum(grad(ops.sum(ops.where(x > 0, ops.sqrt(x), 0.0)), x)), x)
    np.testing.assert_allclose(value(second, feeds), [-1 / 32, 0, 0, -2], rtol=1e-15)


def test_plain_where_costs_no_second_mask() -> None:
    x, y = placeholder("x", (3,)), placeholder("y", (3,))
    gradients = grad(ops.sum(ops.where(x > y, x * 2.0 + 1.0, -y)), [x, y])
    nodes = topological_order([g.ref.node for g in gradients])
    assert sum(node.op.name == "where" for node in nodes) == 2


def test_stop_gradient_and_integers_get_nothing() -> None:
    x = placeholder("x", (3,), "float64")
    i = placeholder("i", (3,), "int64")
    feeds = {x: np.array([1.0, 2.0, 3.0]), i: np.array([3, 4, 5])}
    loss = ops.sum(ops.stop_gradient(x) * x + i * x + (x > 1).astype("float64"))
    np.testing.assert_array_equal(value(grad(loss, x), feeds), [4.0, 6.0, 8.0])


def test_functions_that_are_flat_have_zero_gradients() -> None:
    x = placeholder("x", (3,), "float64")
    for flat in (ops.floor(x), ops.sign(x), ops.ceil(x)):
        np.testing.assert_array_equal(value(grad(ops.sum(flat), x), {x: np.array([0.5, -1.5, 2.5])}), [0.0, 0.0, 0.0])


def test_gradients_are_those_of_the_stabilised_loss() -> None:
    x = placeholder("x", (2, 3), "float64")
    p = ops.exp(x) / ops.exp(x).sum(axis=1, keepdims=True)
    feeds = {x: np.array([[1000.0, 0.0, -1000.0], [3.0, 2.0, 1.0]])}
    loss = -ops.log(p)[:, 0].sum()
    gradient = value(grad(loss, x), feeds)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[0], [0.0, 0.0, 0.0])
    with config(stabilize=False):
        assert not np.isfinite(value(grad(loss, x), feeds)).all()


def test_the_gradient_at_a_stabilised_intermediate() -> None:
    x = placeholder("x", (2, 3), "float64")
    p = ops.exp(x) / ops.exp(x).sum(axis=1, keepdims=True)
    loss = ops.log(p).sum()
    feeds = {x: np.array([[1.0, 0.0, -1.0], [3.0, 2.0, 1.0]])}
    np.testing.assert_allclose(value(grad(loss, p), feeds), 1 / value(p, feeds), rtol=1e-14)


def test_a_gradient_of_100000_ops() -> None:
    x = placeholder("x", (), "float64")
    y = x.ref
    for _ in range(100_000):
        y = make_node(OPS["negative"], (y,)).outputs[0]
    assert value(grad(Tensor(y), x), {}) == 1.0
    deep = x
    for k in range(1_500):  # each level of `where` nests a predicate
        deep = ops.where(x > float(k % 7), ops.sqrt(deep), x)
    assert value(grad(deep, x), {x: np.array(-1.0)}) == 1.0


# Errors


def failure(*args: Any, kind: type[Exception] = GradientError, **kwargs: Any) -> str:
    with pytest.raises(kind) as caught:
        grad(*args, **kwargs)
    return str(caught.value)


def test_a_loss_must_be_a_float_scalar() -> None:
    x = placeholder("x", ("batch", 3))
    text = failure(ops.exp(x), x)  # the vector
    assert text.startswith("grad: result of exp (f32[batch,3]) is no scalar\n  built at tests/test_autodiff.py:")
    assert "# the vector" in text and "hint: reduce it first: .sum() or .mean()" in text
    count = ops.sum(x > 0)
    assert failure(count, x).startswith("grad: result of sum (i64[]) is no float, so it has no gradient\n  built at")
    assert "astype('float32')" in failure(count, x)
    assert failure(3.0, x, kind=ArgumentError) == "grad: the loss must be a Tensor, not float"


def test_wrt_must_be_connected_floats() -> None:
    x = placeholder("x", ("batch", 3))
    w = parameter("w", np.zeros((2, 2)))
    labels = placeholder("labels", ("batch",), "int64")
    loss = ops.sum(x)
    text = failure(loss, [x, w])
    assert text.startswith("grad: result of sum (f32[]) does not depend on w (f64[2,2])\n  built at tests/test_a")
    assert text.count("tests/test_autodiff.py") == 2 and 'hint: unused="zero" gives zeros for it' in text
    assert "w = parameter" in text and "loss = ops.sum(x)" in text
    assert failure(loss, labels).startswith("grad: labels (i64[batch]) is no float, so it has no gradient")
    cut = ops.sum(ops.argmax(x, 1).astype("float32") * ops.stop_gradient(x).sum())
    assert "depends on x (f32[batch,3]) only through argmax, stop_gradient, which no gradient passes" in failure(cut, x)
    zero, some = grad(loss, [w, x], unused="zero")
    assert zero.type == w.type and not value(zero, {}).any() and some.type == x.type
    assert "unused must be 'error' or 'zero', not 'none'" in failure(loss, x, unused="none", kind=ArgumentError)
    assert "grad: wrt must be a Tensor, not str" in failure(loss, ["x"], kind=ArgumentError)
    assert "wrt must be a tensor or a nest of tensors, not int" in failure(loss, 3, kind=ArgumentError)


@pytest.fixture
def odd_op() -> Any:
    """An op whose gradient rule a test chooses."""

    def enter(rule: Any) -> Op:
        OPS["odd"] = Op("odd", "an op for these tests", lambda types, attrs: types[:1], gradient=rule)
        return OPS["odd"]

    yield enter
    OPS.pop("odd", None)


def test_an_op_without_a_rule_is_named(odd_op: Callable[[Any], Op]) -> None:
    odd = odd_op(None)
    x = placeholder("x", (3,), "float64")
    y = apply(odd, x)  # odd line
    text = failure(ops.sum(y), x)
    assert text.startswith("grad: the op odd (of x) has no gradient\n  built at") and "# odd line" in text
    assert "hint: put graphc.stop_gradient around it" in text
    assert grad(ops.sum(ops.stop_gradient(y) * x), x).type == TensorType(float64, (3,))


def test_wrong_rules_are_bugs(odd_op: Callable[[Any], Op]) -> None:
    x = placeholder("x", (3,), "float64")
    y = ops.sum(apply(odd_op(lambda node, g: (g[0], g[0])), x))
    assert "the gradient rule of odd gave 2 parts: %odd: f64[3] = odd(%x)" in failure(y, x, kind=InternalError)
    x = placeholder("x", (3,), "float64")  # a new one: nodes are shared by the name of their op
    y = ops.sum(apply(odd_op(lambda node, g: (ops.sum(g[0]),)), x))
    assert "the gradient rule of odd gave f64[] for operand 0 of f64[3]" in failure(y, x, kind=InternalError)
