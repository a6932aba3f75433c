"""Folding, duplicates, dead updates, and the manager that runs passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import graphc.ops as ops
from graphc.build import OPS, constant, parameter, placeholder
from graphc.errors import IndexRangeError, InternalError
from graphc.graph import ConstantData, Graph, Value, make_node
from graphc.interpret import evaluate
from graphc.observe import Observer
from graphc.passes.fold_constants import fold_constants
from graphc.passes.manager import Pass, run
from graphc.passes.merge_duplicates import merge_duplicates
from graphc.passes.pipeline import PASSES, optimize
from graphc.passes.remove_dead import remove_dead
from graphc.passes.simplify import simplify
from graphc.settings import config
from graphc.text import parse


def graph(text: str) -> Graph:
    """A graph from the lines of its inside, one statement a line."""
    return parse("graph g {\n" + "\n".join("  " + line.strip() for line in text.strip().splitlines()) + "\n}\n")


# fold_constants


def constants_in(g: Graph) -> list[np.ndarray]:
    return [n.attrs["data"].array for n in g.order() if n.op.name == "constant"]


def test_fold() -> None:
    before = graph("""input %x: f32[]
        %0: f32[] = constant(2.0)
        %1: f32[] = sqrt(%0)
        %2: f32[] = multiply(%0, %1)
        %3: f32[] = add(%x, %2)
        return %3""")
    after = fold_constants(before)
    assert [n.op.name for n in after.order()] == ["placeholder", "constant", "add"]
    assert constants_in(after)[0] == np.float32(2) * np.sqrt(np.float32(2))


def test_fold_keeps_special_values_and_wraps() -> None:
    zero, top = ops.full((), 0.0, "float32"), ops.full((), 2**31 - 1, "int32")
    after = fold_constants(Graph((), ((-zero).ref, (zero / zero).ref, (top + 1).ref, (top // 0).ref)))
    minus, nan, wrapped, quotient = (v.node.attrs["data"].array for v in after.outputs)
    assert np.signbit(minus) and np.isnan(nan) and wrapped == -(2**31) and quotient == 0


def test_fold_materialises_no_broadcast() -> None:
    before = Graph((), (ops.full((1000, 1000), 1.0, "float32").ref,))
    assert fold_constants(before).outputs == before.outputs
    iota = Graph((), (ops.arange(10).ref,))
    assert [n.op.name for n in fold_constants(iota).order()] == [n.op.name for n in iota.order()]


def test_fold_limit() -> None:
    data = make_node(OPS["constant"], (), {"data": ConstantData(np.ones((4, 5), np.float32))})
    before = Graph((), (Value(make_node(OPS["exp"], data.outputs, {})),))
    with config(fold_limit=19):
        assert fold_constants(before).outputs == before.outputs
    with config(fold_limit=20):
        assert fold_constants(before).outputs[0].op.name == "constant"


def test_fold_leaves_what_would_raise_to_the_run() -> None:
    bad = ops.take_along_axis(constant(np.arange(3.0)), constant(np.array([5])), 0)
    before = Graph((), (bad.ref,))
    after = fold_constants(before)
    assert after.outputs == before.outputs
    with pytest.raises(IndexRangeError):
        evaluate(after.outputs, {})


def test_fold_sizes_without_a_value() -> None:
    x = placeholder("x", ("n",))
    before = Graph((x.ref,), (ops.mean(x).ref,))
    assert fold_constants(before).outputs == before.outputs


# merge_duplicates, remove_dead


def test_merge_exchanged_operands() -> None:
    x, y = placeholder("x", (3,)), placeholder("y", (3,))
    before = Graph((x.ref, y.ref), ((ops.exp(x + y)).ref, (ops.exp(y + x)).ref))
    after = merge_duplicates(before)
    assert after.outputs[0] == after.outputs[1] == before.outputs[0]


def test_merge_leaves_what_the_order_decides() -> None:
    x, y = placeholder("x", (3,)), placeholder("y", (3,))
    pairs = [
        (x - y, y - x),
        (ops.maximum(x, y), ops.maximum(y, x)),
        (x < y, y < x),
        (ops.minimum(x, y), ops.minimum(y, x)),
    ]
    for a, b in pairs:
        before = Graph((x.ref, y.ref), (a.ref, b.ref))
        assert merge_duplicates(before).outputs == before.outputs


def test_equal_structure_is_one_node_already() -> None:
    x = placeholder("x", (3,))
    assert (ops.exp(x) * 2.0).ref == (ops.exp(x) * 2.0).ref
    assert (x * 0.0).ref != (x * -0.0).ref


def test_dead_nodes_leave_with_the_rewrite_and_inputs_stay() -> None:
    x, y = placeholder("x", (3,), "int32"), placeholder("y", (3,), "int32")
    after = simplify(Graph((x.ref, y.ref), ((x + (y - y)).ref,)))
    assert [n.op.name for n in after.order()] == ["placeholder", "placeholder"]
    assert after.inputs == (x.ref, y.ref)


def test_remove_dead_updates() -> None:
    a, b = parameter("a", np.ones(3)), parameter("b", np.ones(3))
    before = Graph((a.ref, b.ref), (a.ref, a.ref, (b * 2.0).ref), (a.ref, b.ref))
    after = remove_dead(before)
    assert after.updates == (b.ref,) and after.results == (a.ref,) and len(after.outputs) == 2
    swap = Graph((a.ref, b.ref), (b.ref, a.ref), (a.ref, b.ref))
    assert remove_dead(swap) is swap


# the manager and the pipeline


def test_the_pipeline_names_its_reasons() -> None:
    assert PASSES[0].name == "drop_marks"
    assert [p.name for p in PASSES][-3:] == ["compute_operands", "compute_copies", "join_rows"]
    for each in PASSES:
        assert len(each.reason) > 20


def one(name: str, function: Callable[[Graph], Graph]) -> tuple[Pass, ...]:
    return (Pass(name, function, "because a test wants it"),)


def test_the_manager_names_the_pass_that_breaks_a_graph() -> None:
    x = placeholder("x", (3,))
    before = Graph((x.ref,), ((x + 1.0).ref,))
    stranger = placeholder("stranger", (3,))
    with config(verify=True), pytest.raises(InternalError, match="lose_input"):
        run(one("lose_input", lambda g: g.with_outputs([stranger.ref])), before)
    with pytest.raises(InternalError, match="crash.*ZeroDivisionError"):
        run(one("crash", lambda g: g.with_outputs(g.outputs * (1 // 0))), before)


def test_a_pass_is_disabled_by_its_name() -> None:
    x = placeholder("x", (3,))
    before = Graph((x.ref,), (ops.negative(-x).ref,))
    passes = one("simplify", simplify)
    assert run(passes, before).outputs == (x.ref,)
    with config(disable="simplify"):
        assert run(passes, before).outputs == before.outputs


def test_dumps_show_only_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = placeholder("x", (3,))
    with config(dump=tmp_path, log="passes"):
        optimize(Graph((x.ref,), (ops.exp(ops.negative(-x)).ref,)), Observer("f"))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["00-simplify.txt", "01-fuse.txt"]
    assert "exp" in (tmp_path / "00-simplify.txt").read_text()
    told = capsys.readouterr().err
    assert "simplify: " in told and "nodes in" in told and "merge_duplicates" not in told
