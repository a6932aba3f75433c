"""`graphc.function`: the contract of compiling and calling, and every error of it."""

from __future__ import annotations

import collections
import threading
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.errors import ArgumentError, DTypeError, SettingError, ShapeError

HERE = Path(__file__).name


def f32(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int), dtype="float32").reshape(shape)


def test_outputs_keep_their_nest() -> None:
    x = graphc.placeholder("x", (3,))
    pair = collections.namedtuple("pair", "left right")
    nest = {"sum": x.sum(), "list": [x + 1, (x * 2,)], "pair": pair(x, x - 1)}
    found = graphc.function([x], nest)(f32(3))
    assert set(found) == {"sum", "list", "pair"} and isinstance(found["list"][1], tuple)
    assert float(found["sum"]) == 3 and found["pair"].right.tolist() == [-1, 0, 1]
    assert graphc.function([x], [])(f32(3)) == []
    assert graphc.function([x], (x,))(f32(3))[0].tolist() == [0, 1, 2]


def test_updates_read_old_values_and_swap() -> None:
    a, b = graphc.parameter("a", f32(4)), graphc.parameter("b", f32(4) + 10)
    old = graphc.function([], a + b, updates={a: b, b: a})()
    assert old.tolist() == [10, 12, 14, 16]
    assert a.value.tolist() == [10, 11, 12, 13] and b.value.tolist() == [0, 1, 2, 3]
    again = graphc.function([], [a, a * 2], updates={a: a + 1})()
    assert again[0].tolist() == [10, 11, 12, 13] and a.value[0] == 11
    assert "1 kernel in 1 region: " in repr(graphc.function([], a * 2))
    again[0][:] = 0  # a result is never a view of a parameter
    assert a.value[0] == 11


def test_a_row_update_that_reads_other_elements_is_not_in_place() -> None:
    w = graphc.parameter("w", f32(3, 4))
    step = graphc.function([], (), updates={w: w[::-1, ::-1] - w.sum(axis=1, keepdims=True)})
    wanted = f32(3, 4)[::-1, ::-1] - f32(3, 4).sum(1, keepdims=True)
    step()
    np.testing.assert_array_equal(w.value, wanted)


def test_default_updates_apply_unless_told_otherwise() -> None:
    count = graphc.parameter("count", np.float64(0))
    count.default_update = count + 1.0
    x = graphc.placeholder("x", ())
    step = graphc.function([x], x + count.astype("float32"))
    assert [float(step(0)) for _ in range(3)] == [0, 1, 2]
    graphc.function([x], x + count.astype("float32"), default_updates=False)(0)
    graphc.function([x], x + count.astype("float32"), updates={count: count * 10.0})(0)
    assert count.value == 30


def test_out_receives_the_result_also_where_it_overlaps_an_input() -> None:
    x = graphc.placeholder("x", ("n",))
    double = graphc.function([x], x[::-1] * 2)
    memory = f32(6)
    assert double(memory, out=memory) is memory
    assert memory.tolist() == [10, 8, 6, 4, 2, 0]
    first, second = np.empty(2, "float32"), np.empty((), "float32")
    found = graphc.function([x], {"a": x, "b": x.sum()})(f32(2), out={"a": first, "b": second})
    assert found["a"] is first and float(second) == 1
    with pytest.raises(ArgumentError, match="3 entries where the outputs have 2"):
        graphc.function([x], [x, x])(f32(2), out=[first, first, first])


def test_parameters_and_repr_tell_what_a_function_holds() -> None:
    x, w = graphc.placeholder("x", ("n", 3)), graphc.parameter("w", f32(3, 2))
    step = graphc.function([x], (x @ w).sum(), updates={w: w * 0.5}, name="halve")
    assert step.parameters["w"].value is not None and list(step.parameters) == ["w"]
    step(f32(5, 3))
    text = repr(step)
    for part in ("function halve", "x: f32[n,3]", "w: f32[3,2]  (updated)", "f32[]", "kernels", "bytes"):
        assert part in text
    with pytest.raises(ArgumentError, match="no level 'c'.*\n.*graph, optimized, program"):
        step.ir("c")


def test_a_second_thread_waits_for_the_first() -> None:
    count = graphc.parameter("count", np.zeros(1000))
    step = graphc.function([], (), updates={count: count + 1.0})
    threads = [threading.Thread(target=lambda: [step() for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (count.value == 800).all()


def test_stabilised_also_without_a_gradient() -> None:
    x = graphc.placeholder("x", ("n",))
    e = graphc.exp(x)
    log_softmax = graphc.log(e / e.sum())
    large = np.array([1000.0, 0.0], "float32")
    assert graphc.function([x], log_softmax)(large).tolist() == [0.0, -1000.0]
    with graphc.config(stabilize=False):
        assert not np.isfinite(graphc.function([x], log_softmax)(large)).all()


def test_errors_of_inputs_name_them() -> None:
    x, y = graphc.placeholder("x", (3,)), graphc.placeholder("y", (3,))
    with pytest.raises(ArgumentError, match=rf"need the placeholder y: f32\[3\].*\n.*{HERE}:\d+: x, y = .*\n.*add y"):
        graphc.function([x], x + y)
    with pytest.raises(ArgumentError, match="two inputs are called x"):
        graphc.function([x, graphc.placeholder("x", (3,))], x)
    with pytest.raises(ArgumentError, match="input 0 of a function is not a placeholder: .*add"):
        graphc.function([x + y], x)
    with pytest.raises(ArgumentError, match="list of placeholders"):
        graphc.function(x, x)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="an output is a ndarray, not a tensor"):
        graphc.function([x], [f32(3)])
    with pytest.raises(ShapeError, match=r"has the size n, which no input has"):
        graphc.function([x], graphc.broadcast_to(x.sum(), (graphc.placeholder("z", ("n",)).shape[0],)))


def test_errors_of_updates_name_the_parameter() -> None:
    x, w = graphc.placeholder("x", (3,)), graphc.parameter("w", f32(3))
    with pytest.raises(ShapeError, match=rf"update of w is f32\[\], the parameter is f32\[3\]\n.*{HERE}"):
        graphc.function([x], x, updates={w: w.sum()})
    with pytest.raises(DTypeError, match=r"update of w is f64\[3\](.*\n)*.*astype\('float32'\)"):
        graphc.function([x], x, updates={w: w.astype("float64")})
    with pytest.raises(ArgumentError, match="not a parameter"):
        graphc.function([x], x, updates={x: x})  # type: ignore[dict-item]
    with pytest.raises(ArgumentError, match="update of w is a int"):
        graphc.function([x], x, updates={w: 1})  # type: ignore[dict-item]
    with pytest.raises(ArgumentError, match=rf"two parameters are called w\n.*{HERE}:\d+(.*\n)*.*{HERE}:\d+"):
        graphc.function([], w + graphc.parameter("w", f32(3)))


def test_errors_of_a_call_name_arguments_types_and_lines() -> None:
    x, y = graphc.placeholder("x", ("n", 3)), graphc.placeholder("y", ("n",), "int64")
    step = graphc.function([x, y], x.sum(axis=1) + y.astype("float32"), name="step")
    good = (f32(2, 3), np.arange(2))
    np.testing.assert_array_equal(step(y=good[1], x=good[0]), step(*good))
    np.testing.assert_array_equal(step([[0, 1, 2], [3, 4, 5]], [0, 1]), step(*good))
    cases: list[tuple[tuple[object, ...], dict[str, object], type[Exception], str]] = [
        ((good[0],), {}, ArgumentError, "y"),
        ((*good, 1), {}, ArgumentError, "3"),
        (good, {"z": 1}, ArgumentError, "z"),
        (good, {"x": good[0]}, ArgumentError, "x"),
        ((good[0].astype("float64"), good[1]), {}, DTypeError, r"x.*float64.*float32"),
        ((f32(2, 4), good[1]), {}, ShapeError, r"x.*4"),
        ((good[0], np.arange(3)), {}, ShapeError, r"n.*3"),
        (("text", good[1]), {}, DTypeError, "x"),
    ]
    for args, named, kind, text in cases:
        with pytest.raises(kind, match=text):
            step(*args, **named)


@pytest.mark.parametrize("threads", [0, -1, 257, 10**6, "many", 1.5])
def test_a_number_of_threads_is_checked(threads: object) -> None:
    x = graphc.placeholder("x", (3,))
    with pytest.raises(SettingError, match="threads=.*: valid values are integers from 1"):
        graphc.function([x], x, threads=threads)  # type: ignore[arg-type]


def test_a_digraph_has_the_kernels_and_what_flows_between_them() -> None:
    import networkx

    x, w = graphc.placeholder("x", ("n", 3)), graphc.parameter("w", f32(3, 2))
    step = graphc.function([x], (x @ w).sum(), updates={w: w * 0.5})
    kernels = step.digraph()
    names = {data["label"] for _, data in kernels.nodes(data=True) if data["op"] == "kernel"}
    assert networkx.is_directed_acyclic_graph(kernels) and "matmul" in names
    graph = step.digraph("graph")
    by_op = {data["op"]: number for number, data in graph.nodes(data=True)}
    assert networkx.has_path(graph, by_op["matmul"], by_op["sum"]) and graph.nodes[by_op["sum"]]["output"] == 0
    assert HERE in graph.nodes[by_op["matmul"]]["line"]
    assert "f32[n,2]" in "".join(networkx.generate_graphml(graph))
    with pytest.raises(ArgumentError, match="no digraph of level 'asm'"):
        step.digraph("asm")
