"""The verifier: sound graphs pass, and each way of breaking one is an InternalError that names pass and node."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import graphc.ops as ops
from graphc.autodiff import grad
from graphc.build import OPS, constant, parameter, placeholder
from graphc.errors import InternalError
from graphc.graph import Graph, Node, Op, Value
from graphc.text import parse
from graphc.types import TensorType, float32
from graphc.verify import verify


@pytest.fixture(autouse=True)
def reproducers_go_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield


def broken(graph: Graph, message: str, after: str | None = "fuse") -> str:
    with pytest.raises(InternalError) as caught:
        verify(graph, after)
    text = str(caught.value)
    assert message in text and "please report it" in text
    assert ("after the pass fuse" if after else "before any pass") in text
    return text


def test_sound_graphs_pass() -> None:
    x, w = placeholder("x", ("batch", 3)), parameter("w", np.zeros((3, 2), "float32"))
    loss = ops.log(ops.exp(x @ w).sum(axis=1)).mean()
    graph = Graph((x.ref, w.ref), (loss.ref, (w - grad(loss, w)).ref), (w.ref,))
    verify(graph)
    verify(Graph((), ()), "nothing")


def test_a_wrong_type_is_found() -> None:
    x = placeholder("x", (3,))  # where x is made
    node = Node(OPS["exp"], (x.ref,), {}, (TensorType(float32, (4,)),))
    text = broken(Graph((x.ref,), node.outputs), "the node says f32[4], the type rule of exp says f32[3]")
    assert "at %exp: f32[4] = exp(%x)" in text
    path = re.search("reproducer: (.*)", text)
    assert path is not None and "%0: f32[4] = exp(%x)" in Path(path[1]).read_text()
    node = Node(OPS["add"], (x.ref, constant(1.0).ref), {}, (x.type,))
    broken(Graph((x.ref,), node.outputs), "its type rule says:", None)
    node = Node(OPS["sum"], (x.ref,), {}, (x.type,))
    broken(Graph((x.ref,), node.outputs), "its type rule says: KeyError('axes')")


def test_inputs_must_hold_all_sources() -> None:
    x, w = placeholder("x", (3,)), parameter("w", np.zeros(3, "float32"))
    text = broken(Graph((x.ref,), ((x + w).ref,)), "a parameter that is not among the inputs")
    assert 'at %w: f32[3] = parameter(name="w", type=f32[3])' in text
    broken(Graph((w.ref,), ((x + w).ref,)), "a placeholder that is not among the inputs")
    broken(Graph((x.ref, x.ref), (x.ref,)), "an input is listed twice")
    broken(Graph((ops.exp(x).ref,), (x.ref,)), "an input that is neither a placeholder nor a parameter")


def test_values_must_exist() -> None:
    x = placeholder("x", (3,))
    broken(Graph((x.ref,), (Value(x.ref.node, 1),)), "is no value of a node")
    node = Node(OPS["exp"], (Value(x.ref.node, 2),), {}, (x.type,))
    broken(Graph((x.ref,), node.outputs), "an operand that is no value of a node")


def test_updates_are_of_parameters_and_fit() -> None:
    x, w = placeholder("x", (3,)), parameter("w", np.zeros(3, "float32"))
    one = constant(1.0).ref
    broken(Graph((x.ref, w.ref), (one,), (w.ref,)), "an update of type f64[] for a parameter of type f32[3]")
    broken(Graph((x.ref, w.ref), (x.ref,), (x.ref,)), "an update of something that is no parameter")
    broken(Graph((x.ref,), (x.ref,), (w.ref,)), "an update of something that is no parameter among the inputs")
    broken(Graph((w.ref,), (w.ref, w.ref), (w.ref, w.ref)), "a parameter is updated twice")
    broken(Graph((w.ref,), (), (w.ref,)), "1 updates but only 0 outputs")


def test_ops_are_the_registered_ones() -> None:
    x = placeholder("x", (3,))
    node = Node(Op("exp", "another exp", lambda types, attrs: types), (x.ref,), {}, (x.type,))
    broken(Graph((x.ref,), node.outputs), "the op exp is not the registered one")


def test_kernels_are_verified_inside() -> None:
    x, a = placeholder("x", (3,)), placeholder("a", (3,))
    wrong = Node(OPS["exp"], (a.ref,), {}, (TensorType(float32, (4,)),))

    def kernel(inner: Graph, types: tuple[TensorType, ...]) -> Graph:
        node = Node(OPS["kernel"], (x.ref,), {"graph": inner, "name": "k"}, types)
        return Graph((x.ref,), node.outputs)

    sound = Graph((a.ref,), (ops.exp(a).ref,), (), "k")
    verify(kernel(sound, (x.type,)), "fuse")
    inner = Graph((a.ref,), wrong.outputs, (), "k")
    text = broken(kernel(inner, wrong.types), "in k inside of kernel: the node says f32[4]")
    assert "%exp: f32[4] = exp(%a)" in text
    broken(kernel(Graph((a.ref,), (constant(1.0).ref,), (), "k"), (x.type,)), "f64[]")
    scalar = placeholder("b", ())
    broken(kernel(Graph((scalar.ref,), (scalar.ref,), (), "k"), (scalar.type,)), "its type rule says")
    w = parameter("w", np.zeros(3, "float32"))
    broken(kernel(Graph((w.ref,), (w.ref,), (), "k"), (w.type,)), "an inner graph with parameters")


def test_parsed_graphs_are_sound() -> None:
    verify(parse("graph g {\n  input %x: f32[n]\n  %0: f32[n] = exp(%x)\n  return %0\n}\n"))
