"""The text form: what it looks like, that it reads back to the same graph, and how errors in it are told."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import graphc.ops as ops
from graphc.build import OPS, Tensor, constant, parameter, placeholder
from graphc.errors import ArgumentError, ParseError
from graphc.graph import Graph, Op, attr_key, inherit_origin, make_node, origin_of
from graphc.ops.samples import cases
from graphc.text import canonical_text, constants_of, line_of, load, parse, save, to_text
from graphc.types import DTYPES, Dim, TensorType, float32, int64
from graphc.verify import verify

BATCH = Dim.symbol("batch")


def graph_of(inputs: list[Tensor], outputs: list[Tensor], updates: dict[Tensor, Tensor] | None = None) -> Graph:
    updates = updates or {}
    results = (*(t.ref for t in outputs), *(t.ref for t in updates.values()))
    return Graph(tuple(t.ref for t in inputs), results, tuple(t.ref for t in updates), "step")


def round_trip(graph: Graph) -> Graph:
    text = to_text(graph)
    again = parse(text, constants_of(graph))
    assert to_text(again) == text
    assert canonical_text(again) == canonical_text(graph)
    return again


def test_golden() -> None:
    x = placeholder("x", ("batch", 3))
    w = parameter("adam.w", np.zeros(3, "float32"))
    same = placeholder("x", (), "int64")
    y = (x + w) * 0.1
    graph = graph_of([x, w, same], [y], {w: w - w})
    assert canonical_text(graph) == (
        "graph step {\n"
        "  input %x: f32[batch,3]\n"
        "  parameter %adam.w: f32[3]\n"
        '  input %x_1: i64[] = "x"\n'
        "  %0: f32[batch,3] = broadcast_to(%adam.w, shape=[batch, 3])\n"
        "  %1: f32[batch,3] = add(%x, %0)\n"
        "  %2: f32[] = constant(0.1)\n"
        "  %3: f32[batch,3] = broadcast_to(%2, shape=[batch, 3])\n"
        "  %4: f32[batch,3] = multiply(%1, %3)\n"
        "  %5: f32[3] = subtract(%adam.w, %adam.w)\n"
        "  return %4\n"
        "  update %adam.w = %5\n"
        "}\n"
    )
    again = round_trip(graph)
    assert [v.node.attrs["name"] for v in again.inputs] == ["x", "adam.w", "x"]
    assert again.updates == (again.inputs[1],) and again.name == "step"


def test_comments_are_the_lines_and_the_forward_nodes() -> None:
    x = placeholder("x", (3,))
    y = ops.exp(x)
    with inherit_origin(y.ref.node, gradient=True):
        g = ops.negative(y)
    graph = graph_of([x], [g])
    text = to_text(graph)
    lines = text.splitlines()
    assert re.search(r"  # tests/test_text.py:\d+$", lines[2]) and lines[2].startswith("  %0: f32[3] = exp(%x)   ")
    assert re.search(r"  # tests/test_text.py:\d+; gradient of %0$", lines[3])
    assert "#" not in canonical_text(graph)
    again = round_trip(graph)
    origin = origin_of(again.outputs[0].node)
    assert origin is not None and origin.gradient_of == (again.outputs[0].node.inputs[0].node,)
    assert line_of(g.ref, graph) == lines[3].strip().replace(re.search(" +#", lines[3])[0], "  #")  # type: ignore[index]
    assert line_of(y.ref).startswith("%exp: f32[3] = exp(%x)  # tests/test_text.py:")


def test_large_constants_are_beside_the_text(tmp_path: Path) -> None:
    big = np.arange(17, dtype="float32")
    x = placeholder("x", (17,))
    w = parameter("w", big)
    graph = graph_of([x, w], [x + big, x * big, x - np.ones(17, "float32") - w])
    text = to_text(graph)
    assert text.count("constant(@c0, sha256=") == 1 and text.count("constant(@c1, sha256=") == 1
    assert "16.0" not in text
    stored = constants_of(graph)
    assert list(stored) == ["c0", "c1"] and np.array_equal(stored["c0"], big)
    round_trip(graph)
    save(tmp_path / "g.graph", graph)
    again = load(tmp_path / "g.graph", {"w": big})
    assert to_text(again) == text and np.array_equal(again.inputs[1].node.attrs["state"].array, big)
    save(tmp_path / "h.graph", again)
    assert (tmp_path / "g.graph").read_bytes() == (tmp_path / "h.graph").read_bytes()
    with pytest.raises(ParseError, match=r"line \d+, column \d+: the array of @c1 is not in `constants`"):
        parse(text, {"c0": big})
    with pytest.raises(ParseError, match=r"the array given for @c0 is another one: its digest is [0-9a-f]{32}"):
        parse(text, {**stored, "c0": big + 1})
    with pytest.raises(ParseError, match=r"the parameter w is f32\[17\], the array given for it is float64\[17\]"):
        parse(text, stored, {"w": np.arange(17.0)})


def test_save_takes_a_graph_or_a_function_and_a_path_in_either_order(tmp_path: Path) -> None:
    import graphc

    x = placeholder("x", ("n",))
    step = graphc.function([x], x * 2, name="twice")
    for first, second in ((tmp_path / "a", step), (step.graph, str(tmp_path / "b"))):
        graphc.text.save(first, second)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert to_text(load(tmp_path / "a")) == step.ir("graph")


def test_save_leaves_the_file_alone_where_it_cannot_write_another(tmp_path: Path) -> None:
    path, x = tmp_path / "x.graph", placeholder("x", (2,))
    save(path, graph_of([x], [x + 1]))
    before = path.read_bytes()
    with pytest.raises(ArgumentError, match="text.save writes a graph or a function, not a Tensor") as caught:
        save(path, x)  # type: ignore[arg-type]
    assert "pass what graphc.function returned" in str(caught.value)
    with pytest.raises(ArgumentError, match=r"text.save takes a path and what to write there, not Graph and NoneType"):
        save(graph_of([x], [x]), None)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "no folder" / "x", graph_of([x], [x]))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_load_takes_plain_text_and_nothing_else(tmp_path: Path) -> None:
    x = placeholder("x", (2,))
    graph = graph_of([x], [ops.exp(x)])
    (tmp_path / "g.txt").write_text(to_text(graph))
    assert to_text(load(tmp_path / "g.txt")) == to_text(graph)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "no graph")
    with pytest.raises(ParseError, match="zip file without graph"):
        load(tmp_path / "other.zip")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_constants_of_every_dtype_keep_their_bytes(dtype: Any) -> None:
    raw = np.random.default_rng(3).integers(0, 256, (4, 4, dtype.itemsize), np.uint8)
    array = (raw[..., 0] > 99) if dtype.kind == "b" else np.ascontiguousarray(raw).view(dtype.numpy)[..., 0]
    for data in (array, array[:1, 0], array[0, 0], array[:0]):
        graph = graph_of([], [constant(data)])
        found = round_trip(graph).outputs[0].node.attrs["data"].array
        assert found.tobytes() == data.tobytes() and found.shape == data.shape and found.dtype == data.dtype


@settings(deadline=None)
@given(bits=st.lists(st.integers(0, 2**32 - 1), max_size=16))
def test_float32_constants_keep_their_bits(bits: list[int]) -> None:
    data = np.array(bits, np.uint32).view(np.float32)
    found = round_trip(graph_of([], [constant(data)])).outputs[0].node.attrs["data"].array
    assert found.tobytes() == data.tobytes()


def test_special_floats_are_words() -> None:
    negative_nan = np.array([0xFFF8000000000000], np.uint64).view(np.float64)[0]
    text = canonical_text(graph_of([], [constant([np.nan, np.inf, -np.inf, -0.0, 0.1, 1e300, negative_nan])]))
    assert "constant([nan, inf, -inf, -0.0, 0.1, 1e+300, nan:0xfff8000000000000])" in text
    assert "constant(0.1)" in canonical_text(graph_of([], [constant(np.float32(0.1))]))


ODD = [Dim.symbol("inf"), Dim.symbol("f32"), -Dim.symbol("nan")]
SIZES = st.sampled_from([3, BATCH, BATCH * 2 - 1, BATCH // 2 + 1, *ODD])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), SIZES, st.sampled_from(DTYPES),
    st.builds(TensorType, st.sampled_from(DTYPES), st.lists(SIZES, max_size=2).map(tuple)),
)  # fmt: skip
ATTRS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=8)
PROBE = Op("probe", "holds any attribute", lambda types, attrs: (TensorType(float32),) * 2)


@pytest.fixture(scope="module", autouse=True)
def probe() -> Any:
    """An op with two results that takes any attribute, known to the parser while this file is tested."""
    OPS["probe"] = PROBE
    yield
    del OPS["probe"]


@settings(deadline=None)
@given(attrs=st.dictionaries(st.from_regex(r"\A[a-z]\w{0,5}\Z").filter(lambda s: s.isascii()), ATTRS, max_size=3))
def test_attributes_round_trip(attrs: dict[str, Any]) -> None:
    attrs.pop("state", None)
    node = make_node(PROBE, (), attrs)
    again = round_trip(Graph((), node.outputs)).outputs[1].node
    assert {k: attr_key(v) for k, v in again.attrs.items()} == {k: attr_key(v) for k, v in attrs.items()}
    if not any(isinstance(value, Graph) for value in attrs.values()):
        assert again is node  # the same structure is the same object


def test_nested_graphs_are_printed_inside() -> None:
    a, b = placeholder("a", (3,)), placeholder("b", (3,))
    big = constant(np.arange(20.0))
    inner = Graph((a.ref, b.ref), (ops.add(a, b).ref, big.ref), (), "sum and more")
    outer_x = placeholder("x", (3,))
    node = make_node(PROBE, (outer_x.ref, (outer_x + outer_x).ref), {"graph": inner, "name": "kernel_1", "k": 5})
    outer_big = constant(np.arange(18.0))
    graph = Graph((outer_x.ref,), (*node.outputs, outer_big.ref))
    digests = {name: data.tobytes() for name, data in constants_of(graph).items()}
    assert list(digests) == ["c0", "c1"]
    text = canonical_text(graph)
    assert text.startswith(
        "graph graph {\n"
        "  input %x: f32[3]\n"
        "  %0: f32[3] = add(%x, %x)\n"
        '  %1: f32[], %2: f32[] = probe(%x, %0, k=5, name="kernel_1", graph=graph "sum and more" {\n'
        "    input %a: f32[3]\n"
        "    input %b: f32[3]\n"
        "    %0: f32[3] = add(%a, %b)\n"
        "    %1: f64[20] = constant(@c0, sha256="
    )
    assert "    return %0, %1\n  })\n" in text
    round_trip(graph)


def test_sizes_in_types_round_trip() -> None:
    x = placeholder("x", (BATCH * 2 + 1, BATCH // 3, 0), "uint8")
    assert "input %x: u8[2*batch+1,batch//3,0]" in to_text(graph_of([x], [x]))
    assert round_trip(graph_of([x], [x])).inputs[0].type == x.type


GOOD = """graph g {
  input %x: f32[3]
  %0: f32[3] = exp(%x)
  return %0
}
"""


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("exp(%x)", "expp(%x)", "line 3, column 16", "unknown op expp, did you mean exp?"),
        ("exp(%x)", "exp(%y)", "line 3, column 20", "%y is not defined above"),
        ("%0: f32[3]", "%0: f32[4]", "line 3, column 3", "exp gives f32[3], the text says f32[4]"),
        ("%0: f32[3] =", "%x: f32[3] =", "line 3, column 3", "%x is defined twice"),
        ("f32[3]\n  %", "f33[3]\n  %", "line 2, column 13", "expected a type such as f32[batch,10]"),
        ("f32[3]\n  %", "f32[3+]\n  %", "line 2, column 13", "f32[3+] is no type"),
        ("exp(%x)", "exp(%x, )", "line 3, column 24", "expected key=value"),
        ("exp(%x)", "exp(%x", "line 4, column 3", "expected , or )"),
        ("exp(%x)", "exp(%x, %x)", "line 3, column 16", "takes 1 operands, not 2"),
        ("exp(%x)", "reshape(%x)", "line 3, column 16", "reshape: wrong arguments: KeyError('shape')"),
        ("exp(%x)", "reshape(%x, shape=[3+, 1])", "line 3, column 35", "'3+' is no value of an attribute"),
        ("exp(%x)", "constant([1, 2])", "line 3, column 25", "2 elements for a constant of type f32[3]"),
        ("exp(%x)", "constant([1, 2, x])", "line 3, column 32", "x is no float32"),
        ("return", "retrun", "line 4, column 3", "expected a line: input, parameter, %value or return"),
        ("}", "} x", "line 5, column 3", "nothing may follow the closing }"),
        ("graph g", "g", "line 1, column 1", "expected a graph"),
        ("}\n", "", "line 5, column 1", "expected }"),
    ],
)
def test_errors_name_line_and_column(old: str, new: str, place: str, message: str) -> None:
    assert to_text(parse(GOOD)) == GOOD
    with pytest.raises(ParseError) as caught:
        parse(GOOD.replace(old, new, 1))
    assert str(caught.value).startswith(f"{place}: ") and message in str(caught.value)


def test_parameters_are_zeros_or_the_callers() -> None:
    text = "graph g {\n  parameter %w: i64[2]\n  return %w\n}\n"
    assert parse(text).inputs[0].node.attrs["state"].array.tolist() == [0, 0]
    given_ = parse(text, None, {"w": np.array([4, 5])})
    assert given_.inputs[0].node.attrs["state"].array.tolist() == [4, 5] and given_.inputs[0].type.dtype is int64
    assert to_text(given_) == text
    with pytest.raises(ParseError, match="line 2, column 12: the parameter w has a size that is not a number"):
        parse(text.replace("[2]", "[n]"))


def test_a_chain_of_100000_ops() -> None:
    value = placeholder("x", ()).ref
    start, op = value, OPS["exp"]
    for _ in range(100_000):
        value = make_node(op, (value,)).outputs[0]
    graph = Graph((start,), (value,))
    text = canonical_text(graph)
    assert text.count("\n") == 100_004 and "%99999: f32[] = exp(%99998)\n  return %99999\n" in text
    short = text.replace("return %99999", "").splitlines()[:20_002]  # reading is the same code for every line
    assert len(parse("\n".join([*short, "  return %19999", "}"])).order()) == 20_001


@pytest.mark.parametrize("name", sorted(set(OPS) - {"kernel"}))
def test_every_op_round_trips(name: str) -> None:
    """One graph of each op's samples: prints, reads back, prints the same; the verifier is content with both."""
    for sample, dtype in cases(OPS[name]):
        inputs, outputs = sample.build(OPS[name], dtype)
        graph = graph_of(inputs, outputs)
        verify(graph)
        verify(round_trip(graph))


STEPS: list[Callable[[Tensor, Tensor, int], Tensor]] = [
    lambda a, b, n: a + b,
    lambda a, b, n: a * b,
    lambda a, b, n: ops.exp(a),
    lambda a, b, n: a / (n + 0.5),
    lambda a, b, n: ops.where(a < b, a, 1),
    lambda a, b, n: a - a.max(axis=1, keepdims=True),
    lambda a, b, n: a.sum(axis=0) * b,
    lambda a, b, n: a @ np.full((3, 3), n / 3, "float32"),
    lambda a, b, n: ops.reshape(a, (-1,)).reshape(b.shape),
    lambda a, b, n: a[:, ::-1],
    lambda a, b, n: (a > 0).astype("float32"),
    lambda a, b, n: ops.log(1 + ops.exp(a)),
    lambda a, b, n: (a[:, :, None] * np.arange(24, dtype="float32").reshape(3, 8)).sum(axis=2),
]


def random_graph(choices: list[int]) -> Graph:
    """A graph of steps on f32[batch,3] and f32[3], chosen by the numbers."""
    x, w = placeholder("x", ("batch", 3)), parameter("w", np.zeros(3, "float32"))
    pool: list[Tensor] = [x, x + w]
    for n in choices:
        pool.append(STEPS[n % len(STEPS)](pool[n % len(pool)], pool[n // 7 % len(pool)], n))
    return graph_of([x, w], [pool[-1], pool[len(pool) // 2]], {w: pool[-1].mean(axis=0)})


@settings(deadline=None)
@given(choices=st.lists(st.integers(0, 10_000), max_size=12))
def test_random_graphs_round_trip(choices: list[int]) -> None:
    graph = random_graph(choices)
    again = round_trip(graph)
    verify(again)
    assert canonical_text(random_graph(choices)) == canonical_text(graph)


def test_numbers_follow_the_order_of_the_graph() -> None:
    x = placeholder("x", (2,))
    late, early = ops.exp(x), ops.negative(x)
    assert "%0: f32[2] = negative(%x)\n" in canonical_text(graph_of([x], [early, late]))
    assert "%0: f32[2] = exp(%x)\n" in canonical_text(graph_of([x], [late, early]))


def test_values_outside_of_the_graph_have_lines_too() -> None:
    x = placeholder("x", (2,))
    graph = graph_of([x], [x])
    assert line_of(ops.exp(x).ref, graph).startswith("%exp: f32[2] = exp(%x)")
    assert line_of(constant(math.pi).ref).startswith("%constant: f64[] = constant(3.141592653589793)")
