"""The stabilising table: what each rule makes of which formula, what it leaves alone, and that values stay right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc.ops as ops
from graphc.build import Tensor, constant, placeholder
from graphc.graph import Graph, topological_order
from graphc.interpret import evaluate
from graphc.settings import config
from graphc.stabilize import RULES, stabilize
from graphc.text import canonical_text

Formula = Callable[[Tensor], Tensor]


def stabilized(y: Tensor, *keep: Tensor) -> Tensor:
    return Tensor(stabilize(Graph((), (y.ref,)), [t.ref for t in keep]).outputs[0])


def body(y: Tensor, x: Tensor) -> str:
    lines = canonical_text(Graph((x.ref,), (y.ref,))).splitlines()
    return "\n".join(line.strip() for line in lines[2:-1])


SCALAR_RULES: dict[str, tuple[Formula, str]] = {
    "log(1 + exp(x))": (lambda x: ops.log(1 + ops.exp(x)), "softplus(%x)"),
    "log(exp(x) + 1)": (lambda x: ops.log(ops.exp(x) + 1), "softplus(%x)"),
    "log(1 + x)": (lambda x: ops.log(1 + x), "log1p(%x)"),
    "log(x + 1)": (lambda x: ops.log(x + 1), "log1p(%x)"),
    "log(x - -1)": (lambda x: ops.log(x - -1.0), "log1p(%x)"),
    "log(1 - x)": (lambda x: ops.log(1 - x), "negative(%x) log1p(%0)"),
    "log(sigmoid(x))": (lambda x: ops.log(ops.sigmoid(x)), "negative(%x) softplus(%0) negative(%1)"),
    "log(1 - sigmoid(x))": (lambda x: ops.log(1 - ops.sigmoid(x)), "softplus(%x) negative(%0)"),
    "log(1 / (1 + exp(-x)))": (lambda x: ops.log(1 / (1 + ops.exp(-x))), "negative(%x) softplus(%0) negative(%1)"),
    "1 - sigmoid(x)": (lambda x: 1 - ops.sigmoid(x), "negative(%x) sigmoid(%0)"),
    "1 - sigmoid(-x)": (lambda x: 1 - ops.sigmoid(-x), "sigmoid(%x)"),
    "1 / (1 + exp(-x))": (lambda x: 1 / (1 + ops.exp(-x)), "sigmoid(%x)"),
    "exp(x) - 1": (lambda x: ops.exp(x) - 1, "expm1(%x)"),
    "exp(x) + -1": (lambda x: ops.exp(x) + -1, "expm1(%x)"),
}


@pytest.mark.parametrize("name", SCALAR_RULES)
@pytest.mark.parametrize("shape", [(), (15,), (3, 5)], ids=str)
def test_scalar_rules(name: str, shape: tuple[int, ...]) -> None:
    """The nodes that the formula becomes, and its values: the original's wherever that was right."""
    build, expected = SCALAR_RULES[name]
    x = placeholder("x", shape, "float64")
    after = stabilized(build(x))
    producers = [line.split(" = ")[1] for line in body(after, x).splitlines()[:-1]]
    assert " ".join(producers) == expected
    assert stabilized(after).ref == after.ref

    x = placeholder("x", (15,), "float64")
    inexact = [1e-20, -1e-20, 30.0, -30.0, 800.0, -800.0]  # where originals lose digits or overflow
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 0.3, -0.3, 1.0, -1.0, *inexact]
    before, now = evaluate([build(x).ref, stabilized(build(x)).ref], {x.ref: np.array(special)})
    count = len(special) - len(inexact)
    np.testing.assert_allclose(now[:count], before[:count], rtol=1e-12, atol=1e-15)
    assert not np.isnan(now[~np.isnan(before)]).any()


def test_what_the_rules_are_for() -> None:
    x = placeholder("x", (2,), "float64")
    at = {x.ref: np.array([1000.0, -1000.0])}

    def value(y: Tensor) -> list[float]:
        return list(evaluate([stabilized(y).ref], at)[0])

    assert value(ops.log(1 + ops.exp(x))) == [1000.0, 0.0]
    assert value(ops.log(ops.sigmoid(x))) == [0.0, -1000.0]
    assert value(ops.log(1 - ops.sigmoid(x))) == [-1000.0, 0.0]
    assert value(ops.log(ops.exp(x) / ops.exp(x).sum())) == [0.0, -2000.0]
    assert value(ops.exp(x) / ops.sum(ops.exp(x))) == [1.0, 0.0]
    assert value(ops.log(ops.sum(ops.exp(x))) + x) == [2000.0, 0.0]
    at = {x.ref: np.array([1e-20, -1e-20])}
    assert value(ops.log(1 + x)) == [1e-20, -1e-20] and value(ops.exp(x) - 1) == [1e-20, -1e-20]


SHIFT = """%0: f32[2,1] = max(%x, axes=[1], keepdims=True)
%1: f32[2,1] = stop_gradient(%0)
%2: f32[2,1] = abs(%1)
%3: f32[] = constant(inf)
%4: f32[2,1] = broadcast_to(%3, shape=[2, 1])
%5: bool[2,1] = less(%2, %4)
%6: f32[] = constant(0.0)
%7: f32[2,1] = broadcast_to(%6, shape=[2, 1])
%8: f32[2,1] = where(%5, %1, %7)
%9: f32[2,3] = broadcast_to(%8, shape=[2, 3])
%10: f32[2,3] = subtract(%x, %9)
%11: f32[2,3] = exp(%10)
"""
SOFTMAX = (
    SHIFT
    + """%12: f32[2,1] = sum(%11, axes=[1], keepdims=True)
%13: f32[2,3] = broadcast_to(%12, shape=[2, 3])
%14: f32[2,3] = divide(%11, %13)
return %14"""
)
LOG_SOFTMAX = (
    SHIFT
    + """%12: f32[2,1] = sum(%11, axes=[1], keepdims=True)
%13: f32[2,1] = log(%12)
%14: f32[2,3] = broadcast_to(%13, shape=[2, 3])
%15: f32[2,3] = subtract(%10, %14)
return %15"""
)


def test_softmax_and_its_log() -> None:
    x = placeholder("x", (2, 3))
    e = ops.exp(x)
    p = e / e.sum(axis=-1, keepdims=True)
    assert body(stabilized(p), x) == SOFTMAX
    assert body(stabilized(ops.log(p)), x) == LOG_SOFTMAX
    for y in (p, ops.log(p)):
        assert stabilized(stabilized(y)).ref == stabilized(y).ref
    both = stabilize(Graph((x.ref,), (p.ref, ops.log(p).ref)))
    assert sum(node.op.name == "exp" for node in both.order()) == 1


def test_log_sum_exp() -> None:
    x = placeholder("x", (2, 3))
    after = stabilized(ops.log(ops.exp(x).sum(axis=1)))
    lines = body(after, x).splitlines()
    assert lines[:9] == SHIFT.splitlines()[:9]
    assert lines[9:] == [
        "%9: f32[2] = reshape(%8, shape=[2])",
        "%10: f32[2,3] = broadcast_to(%8, shape=[2, 3])",
        "%11: f32[2,3] = subtract(%x, %10)",
        "%12: f32[2,3] = exp(%11)",
        "%13: f32[2] = sum(%12, axes=[1], keepdims=False)",
        "%14: f32[2] = log(%13)",
        "%15: f32[2] = add(%9, %14)",
        "return %15",
    ]
    assert stabilized(after).ref == after.ref
    keep = stabilized(ops.log(ops.exp(x).sum(axis=0, keepdims=True)))
    assert keep.shape == (1, 3) and "reshape" not in body(keep, x)


def softmaxes(x: Tensor) -> dict[str, Tensor]:
    e, top = ops.exp(x), ops.max(x, axis=1, keepdims=True)
    columns = ops.exp(x) / ops.exp(x).sum(axis=0)
    shifted = ops.exp(x - top)
    free = ops.exp(x - ops.stop_gradient(top))
    return {
        "keepdims": e / e.sum(axis=1, keepdims=True),
        "new axis": e / e.sum(axis=1)[:, None],
        "reshaped": e / e.sum(axis=1).reshape(x.shape[0], 1),
        "columns": columns,
        "all": e / e.sum(),
        "shifted": shifted / shifted.sum(axis=1, keepdims=True),
        "shifted, stopped": free / free.sum(axis=1, keepdims=True),
    }


@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize("name", softmaxes(placeholder("x", (4, 4))))
def test_softmax_however_it_is_written(name: str, logs: bool) -> None:
    x = placeholder("x", (4, 4), "float64")
    y = softmaxes(x)[name]
    y = ops.log(y) if logs else y
    after = stabilized(y)
    rng = np.random.default_rng(5)
    for feed in (rng.standard_normal((4, 4)), np.triu(rng.standard_normal((4, 4)))):
        before, now = evaluate([y.ref, after.ref], {x.ref: feed})
        np.testing.assert_allclose(now, before, rtol=1e-13, atol=1e-15)
    feed = 500.0 * rng.standard_normal((4, 4))
    assert np.isfinite(evaluate([after.ref], {x.ref: feed})[0]).all()
    nodes = topological_order([after.ref.node])
    maxima = [node for node in nodes if node.op.name == "max"]
    assert len(maxima) == 1
    readers = {node.op.name for node in nodes if any(v.node is maxima[0] for v in node.inputs)}
    stopped = readers == {"stop_gradient"} or any(
        node.op.name == "stop_gradient" and node.inputs[0].op.name == "broadcast_to" for node in nodes
    )
    assert stopped  # no gradient flows through a maximum that cancels
    assert stabilized(after).ref == after.ref


def test_log_of_a_picked_softmax() -> None:
    x = placeholder("x", ("batch", 3), "float64")
    labels = placeholder("labels", ("batch", 1), "int64")
    e = ops.exp(x)
    picked = ops.take_along_axis(e / e.sum(axis=1, keepdims=True), labels, 1)
    loss = ops.log(picked[:, 0])
    after = stabilized(loss)
    names = [node.op.name for node in topological_order([after.ref.node])]
    assert "divide" not in names and names.count("exp") == 1
    feeds = {x.ref: np.array([[1e4, 0.0, 1.0], [1.0, 2.0, 3.0]]), labels.ref: np.array([[1], [2]])}
    expected = [-1e4, 3 - np.log(np.exp([1.0, 2.0, 3.0]).sum())]
    np.testing.assert_allclose(evaluate([after.ref], feeds)[0], expected, rtol=1e-14)


def test_infinities_and_nans_are_as_before() -> None:
    """Wherever the original is right at an infinity or a NaN, the new form is."""
    inf, nan = np.inf, np.nan
    rows = np.array([[-inf, -inf, -inf], [inf, 1.0, 2.0], [-inf, 1.0, 2.0], [nan, 1.0, 2.0], [0.0, 1.0, 2.0]])
    x = placeholder("x", (5, 3), "float64")
    e = ops.exp(x)
    p = e / e.sum(axis=1, keepdims=True)
    for y in (p, ops.log(p), ops.log(e.sum(axis=1)), ops.log(e.sum(axis=1, keepdims=True))):
        before, now = evaluate([y.ref, stabilized(y).ref], {x.ref: rows})
        np.testing.assert_allclose(now, before, rtol=1e-14)


LEFT_ALONE: dict[str, Formula] = {
    "log(exp(x))": lambda x: ops.log(ops.exp(x)),
    "exp(log(x))": lambda x: ops.exp(ops.log(x)),
    "log(2 + x)": lambda x: ops.log(2 + x),
    "2 - sigmoid(x)": lambda x: 2 - ops.sigmoid(x),
    "sum over the other axis": lambda x: ops.exp(x) / ops.exp(x).sum(axis=1),
    "transposed sums": lambda x: ops.exp(x) / ops.broadcast_to(ops.exp(x).sum(axis=1).reshape(1, 4), (4, 4)),
    "transposed by a reshape": lambda x: (
        ops.exp(x) / ops.reshape(ops.broadcast_to(ops.exp(x).sum(axis=1, keepdims=True), (4, 4, 1)), (4, 4))
    ),
    "transposed, kept": lambda x: ops.exp(x) / ops.exp(x).sum(axis=1, keepdims=True).reshape(1, 4),
    "sum of another": lambda x: ops.exp(x) / ops.exp(2 * x).sum(axis=1, keepdims=True),
    "shifted already": lambda x: ops.log(ops.sum(ops.exp(x - ops.max(x, axis=1, keepdims=True)), axis=1)),
    "shifted and stopped": lambda x: ops.log(
        ops.sum(ops.exp(x - ops.stop_gradient(ops.max(x, axis=1, keepdims=True))), axis=1)
    ),
    "graphc's logsumexp": lambda x: ops.logsumexp(x, axis=1),
    "a cast between": lambda x: (
        ops.log(1 + ops.exp(x).astype("float64")).astype("float32")
        + ops.log((1 - ops.sigmoid(x)).astype("float64")).astype("float32")
    ),
    "1 + a vector": lambda x: ops.log(constant(np.array([1, 1, 1, 2], "float32")) + x),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_left_alone(name: str) -> None:
    x = placeholder("x", (4, 4))
    y = LEFT_ALONE[name](x)
    names = {node.op.name for node in topological_order([stabilized(y).ref.node])}
    if name == "a cast between":  # the inner rules may fire, but nothing looks through the cast
        assert {"log", "cast"} <= names and "softplus" not in names
    else:
        assert stabilized(y).ref == y.ref


def test_an_empty_axis_is_left_alone() -> None:
    x = placeholder("x", (2, 0), "float64")
    y = ops.log(ops.exp(x).sum(axis=1))
    assert stabilized(y).ref == y.ref
    named = placeholder("x", (2, "n"), "float64")
    z = stabilized(ops.log(ops.exp(named).sum(axis=1)))
    assert evaluate([z.ref], {named.ref: np.zeros((2, 0))})[0].tolist() == [-np.inf, -np.inf]


def test_kept_values_are_opaque() -> None:
    x = placeholder("x", (4,))
    s = ops.sigmoid(x)
    inner = 1 + ops.exp(x)
    assert stabilized(ops.log(s), s).ref == ops.log(s).ref
    assert stabilized(ops.log(inner), inner).ref == ops.log(inner).ref
    p = ops.exp(x) / ops.exp(x).sum()
    graph = stabilize(Graph((), (ops.log(p).ref, p.ref)), [p.ref])
    assert graph.outputs[0] == ops.log(Tensor(graph.outputs[1])).ref  # the log reads the kept value ...
    assert graph.outputs[1] == stabilized(p).ref  # ... which is stabilised itself


def test_uses_are_reported_and_can_be_switched_off(capsys: pytest.CaptureFixture[str]) -> None:
    x = placeholder("x", (4,))
    y = ops.log(1 + ops.exp(x))  # the formula
    with config(log="stabilize"):
        once = stabilized(y)
        stabilized(once)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    rule = "graphc stabilize: log_one_plus_exp: log(1 + exp(x)) = softplus(x) at tests/test_stabilize.py:"
    assert told[0].startswith(rule)
    assert told[0].endswith("# the formula")
    with config(stabilize=False, log="stabilize"):
        assert stabilized(y).ref == y.ref
    assert capsys.readouterr().err == ""


def test_names_in_the_table_are_unique() -> None:
    names = [rule.name for rules in RULES.values() for rule in rules]
    assert len(set(names)) == len(names)


def test_a_long_chain() -> None:
    x = placeholder("x", ())
    y = x
    for _ in range(20_000):
        y = Tensor(ops.negative(y).ref)
    assert stabilized(ops.log(1 + ops.exp(y))).ref == ops.softplus(y).ref
