"""Simplification in text form: graphs that it rewrites, and graphs that it must not touch."""

from __future__ import annotations

import numpy as np
import pytest

import graphc.ops as ops
from graphc.build import placeholder
from graphc.graph import Graph, origin_of
from graphc.interpret import evaluate
from graphc.passes.simplify import simplify
from graphc.text import canonical_text, parse


def graph(text: str) -> Graph:
    """A graph from the lines of its inside, one statement a line."""
    return parse("graph g {\n" + "\n".join("  " + line.strip() for line in text.strip().splitlines()) + "\n}\n")


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are the same to the bit, where every NaN is one."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "f":
        a, b = (np.where(np.isnan(x), x.dtype.type(np.nan), x) for x in (a, b))
    return a.tobytes() == b.tobytes()


SIMPLIFIED = {
    "a sum of rows behind a reshape": (
        """input %x: f32[2,n,4]
        %0: f32[2,n,4] = exp(%x)
        %1: f32[2*n,4] = reshape(%0, shape=[2*n, 4])
        %2: f32[1,4] = sum(%1, axes=[0], keepdims=True)
        return %2""",
        """input %x: f32[2,n,4]
        %0: f32[2,n,4] = exp(%x)
        %1: f32[4] = sum(%0, axes=[0, 1], keepdims=False)
        %2: f32[1,4] = reshape(%1, shape=[1, 4])
        return %2""",
    ),
    "the maximum of all, reshaped": (
        """input %x: f32[2,3]
        %0: f32[2,3] = exp(%x)
        %1: f32[6] = reshape(%0, shape=[6])
        %2: f32[] = max(%1, axes=[0], keepdims=False)
        return %2""",
        """input %x: f32[2,3]
        %0: f32[2,3] = exp(%x)
        %1: f32[] = max(%0, axes=[0, 1], keepdims=False)
        return %1""",
    ),
    "double negation": (
        """input %x: f32[3]
        %0: f32[3] = negative(%x)
        %1: f32[3] = negative(%0)
        return %1""",
        "input %x: f32[3]\nreturn %x",
    ),
    "times one, through the broadcast": (
        """input %x: f32[n,3]
        %0: f32[] = constant(1.0)
        %1: f32[n,3] = broadcast_to(%0, shape=[n,3])
        %2: f32[n,3] = multiply(%1, %x)
        return %2""",
        "input %x: f32[n,3]\nreturn %x",
    ),
    "minus zero": (
        """input %x: f32[3]
        %0: f32[] = constant(0.0)
        %1: f32[3] = broadcast_to(%0, shape=[3])
        %2: f32[3] = subtract(%x, %1)
        return %2""",
        "input %x: f32[3]\nreturn %x",
    ),
    "a quotient by a power of two": (
        """input %x: f32[]
        %0: f32[] = constant(8.0)
        %1: f32[] = divide(%x, %0)
        return %1""",
        """input %x: f32[]
        %0: f32[] = constant(0.125)
        %1: f32[] = multiply(%x, %0)
        return %1""",
    ),
    "integers times zero": (
        """input %x: i32[n]
        %0: i32[] = constant(0)
        %1: i32[n] = broadcast_to(%0, shape=[n])
        %2: i32[n] = multiply(%x, %1)
        return %2""",
        """input %x: i32[n]
        %0: i32[] = constant(0)
        %1: i32[n] = broadcast_to(%0, shape=[n])
        return %1""",
    ),
    "two transposes": (
        """input %x: f32[2,3,4]
        %0: f32[4,2,3] = transpose(%x, axes=[2,0,1])
        %1: f32[3,2,4] = transpose(%0, axes=[2,1,0])
        return %1""",
        """input %x: f32[2,3,4]
        %0: f32[3,2,4] = transpose(%x, axes=[1,0,2])
        return %0""",
    ),
    "a transpose and its inverse": (
        """input %x: f32[2,3]
        %0: f32[3,2] = transpose(%x, axes=[1,0])
        %1: f32[2,3] = transpose(%0, axes=[1,0])
        return %1""",
        "input %x: f32[2,3]\nreturn %x",
    ),
    "a transpose of one column": (
        """input %x: f32[n,1]
        %0: f32[1,n] = transpose(%x, axes=[1,0])
        return %0""",
        """input %x: f32[n,1]
        %0: f32[1,n] = reshape(%x, shape=[1,n])
        return %0""",
    ),
    "reshape of reshape": (
        """input %x: f32[n,6]
        %0: f32[n,2,3] = reshape(%x, shape=[n,2,3])
        %1: f32[n,6] = reshape(%0, shape=[n,6])
        %2: f32[n,3,2] = reshape(%0, shape=[n,3,2])
        return %1, %2""",
        """input %x: f32[n,6]
        %0: f32[n,3,2] = reshape(%x, shape=[n,3,2])
        return %x, %0""",
    ),
    "broadcast of broadcast": (
        """input %x: f32[3]
        %0: f32[2,3] = broadcast_to(%x, shape=[2,3])
        %1: f32[n,2,3] = broadcast_to(%0, shape=[n,2,3])
        return %1""",
        """input %x: f32[3]
        %0: f32[n,2,3] = broadcast_to(%x, shape=[n,2,3])
        return %0""",
    ),
    "movement of a broadcast scalar": (
        """input %x: f32[1]
        %0: f32[2,3] = broadcast_to(%x, shape=[2,3])
        %1: f32[3,2] = transpose(%0, axes=[1,0])
        %2: f32[6] = reshape(%1, shape=[6])
        %3: f32[2] = slice(%2, starts=[1], stops=[3], steps=[1])
        return %3""",
        """input %x: f32[1]
        %0: f32[] = reshape(%x, shape=[])
        %1: f32[2] = broadcast_to(%0, shape=[2])
        return %1""",
    ),
    "arithmetic before the broadcast": (
        """input %x: f32[]
        input %y: f32[]
        %0: f32[n,3] = broadcast_to(%x, shape=[n,3])
        %1: f32[n,3] = broadcast_to(%y, shape=[n,3])
        %2: f32[n,3] = divide(%0, %1)
        return %2""",
        """input %x: f32[]
        input %y: f32[]
        %0: f32[] = divide(%x, %y)
        %1: f32[n,3] = broadcast_to(%0, shape=[n,3])
        return %1""",
    ),
    "a slice of everything": (
        """input %x: f32[4,3]
        %0: f32[4,3] = slice(%x, starts=[0,0], stops=[4,3], steps=[1,1])
        return %0""",
        "input %x: f32[4,3]\nreturn %x",
    ),
    "casts that lose nothing": (
        """input %x: f32[3]
        %0: f64[3] = cast(%x, dtype=f64)
        %1: f32[3] = cast(%0, dtype=f32)
        return %1""",
        "input %x: f32[3]\nreturn %x",
    ),
    "casts of integers that wrap": (
        """input %x: i64[3]
        %0: i32[3] = cast(%x, dtype=i32)
        %1: i8[3] = cast(%0, dtype=i8)
        return %1""",
        """input %x: i64[3]
        %0: i8[3] = cast(%x, dtype=i8)
        return %0""",
    ),
    "a sum over an axis of size 1": (
        """input %x: f32[n,1]
        %0: f32[n] = sum(%x, axes=[1], keepdims=False)
        return %0""",
        """input %x: f32[n,1]
        %0: f32[] = constant(0.0)
        %1: f32[n,1] = broadcast_to(%0, shape=[n,1])
        %2: f32[n,1] = add(%x, %1)
        %3: f32[n] = reshape(%2, shape=[n])
        return %3""",
    ),
    "a maximum over an axis of size 1": (
        """input %x: f32[n,1]
        %0: f32[n,1] = max(%x, axes=[1], keepdims=True)
        return %0""",
        "input %x: f32[n,1]\nreturn %x",
    ),
    "a sum of zeros": (
        """input %x: f32[n]
        %0: f32[] = constant(0.0)
        %1: f32[n,4] = broadcast_to(%0, shape=[n,4])
        %2: f32[n] = sum(%1, axes=[1], keepdims=False)
        %3: f32[n] = maximum(%x, %2)
        return %3""",
        """input %x: f32[n]
        %0: f32[] = constant(0.0)
        %1: f32[n] = broadcast_to(%0, shape=[n])
        %2: f32[n] = maximum(%x, %1)
        return %2""",
    ),
    "a branch below the same condition": (
        """input %c: bool[3]
        input %x: f32[3]
        input %y: f32[3]
        %0: bool[3] = logical_not(%c)
        %1: f32[3] = where(%0, %x, %y)
        %2: f32[3] = where(%c, %1, %x)
        return %2""",
        """input %c: bool[3]
        input %x: f32[3]
        input %y: f32[3]
        %0: f32[3] = where(%c, %y, %x)
        return %0""",
    ),
}


@pytest.mark.parametrize("name", SIMPLIFIED)
def test_simplify_rewrites(name: str) -> None:
    before, expected = SIMPLIFIED[name]
    assert canonical_text(simplify(graph(before))) == canonical_text(graph(expected))


def binary(op: str, dtype: str, constant: str, swapped: bool = False) -> str:
    operands = "%1, %x" if swapped else "%x, %1"
    return f"""input %x: {dtype}[n]
        %0: {dtype}[] = constant({constant})
        %1: {dtype}[n] = broadcast_to(%0, shape=[n])
        %2: {dtype}[n] = {op}({operands})
        return %2"""


def unary(*names: str, dtype: str = "f32", last: str | None = None) -> str:
    lines, value = [f"input %x: {dtype}[n]"], "%x"
    for position, name in enumerate(names):
        result = last if last is not None and position == len(names) - 1 else dtype
        lines.append(f"%{position}: {result}[n] = {name}({value})")
        value = f"%{position}"
    return "\n".join([*lines, f"return {value}"])


KEPT = {
    "a sum of what is in memory, reshaped": """input %x: f32[2,3,4]
        %0: f32[6,4] = reshape(%x, shape=[6, 4])
        %1: f32[4] = sum(%0, axes=[0], keepdims=False)
        return %1""",
    "a sum over a part of an axis": """input %x: f32[6,4]
        %0: f32[6,4] = exp(%x)
        %1: f32[2,3,4] = reshape(%0, shape=[2, 3, 4])
        %2: f32[3,4] = sum(%1, axes=[0], keepdims=False)
        return %2""",
    "a sum over columns of another length": """input %x: f32[6,4]
        %0: f32[6,4] = exp(%x)
        %1: f32[3,8] = reshape(%0, shape=[3, 8])
        %2: f32[8] = sum(%1, axes=[0], keepdims=False)
        return %2""",
    "a sum along reshaped rows": """input %x: f32[2,3,4]
        %0: f32[2,3,4] = exp(%x)
        %1: f32[6,4] = reshape(%0, shape=[6, 4])
        %2: f32[6] = sum(%1, axes=[1], keepdims=False)
        return %2""",
    "x + 0.0 of -0.0 is 0.0": binary("add", "f32", "0.0"),
    "x - -0.0 of -0.0 is 0.0": binary("subtract", "f32", "-0.0"),
    "x * 0.0 is nan for inf, -0.0 for -1": binary("multiply", "f32", "0.0"),
    "0.0 - x of 0.0 is 0.0, -x is -0.0": binary("subtract", "f32", "0.0", swapped=True),
    "x / 10 rounds differently from x * 0.1": binary("divide", "f32", "10.0"),
    "2 / x is no product": binary("divide", "f32", "2.0", swapped=True),
    "x / 0 is inf or nan": binary("divide", "f32", "0.0"),
    "x / 2**-149: the inverse overflows": binary("divide", "f32", "1e-45"),
    "x - x of inf is nan": "input %x: f32[n]\n%0: f32[n] = subtract(%x, %x)\nreturn %0",
    "x / x of 0 is nan": "input %x: f32[n]\n%0: f32[n] = divide(%x, %x)\nreturn %0",
    "nan != nan": "input %x: f32[n]\n%0: bool[n] = not_equal(%x, %x)\nreturn %0",
    "log(exp(x)) overflows": unary("exp", "log"),
    "not (x < y) is not x >= y for nan": """input %x: f32[n]
        input %y: f32[n]
        %0: bool[n] = less(%x, %y)
        %1: bool[n] = logical_not(%0)
        return %1""",
    "n // -1 wraps at the extreme, and rounds": binary("floor_divide", "i32", "-1"),
    "n / m * m is not n": """input %x: i32[n]
        input %y: i32[n]
        %0: i32[n] = floor_divide(%x, %y)
        %1: i32[n] = multiply(%0, %y)
        return %1""",
    "a rounding cast": """input %x: f64[n]
        %0: f32[n] = cast(%x, dtype=f32)
        %1: f64[n] = cast(%0, dtype=f64)
        return %1""",
    "i64 has more digits than f64": """input %x: i64[n]
        %0: f64[n] = cast(%x, dtype=f64)
        %1: i64[n] = cast(%0, dtype=i64)
        return %1""",
    "u8 wraps below i32": """input %x: i32[n]
        %0: u8[n] = cast(%x, dtype=u8)
        %1: i32[n] = cast(%0, dtype=i32)
        return %1""",
    "max(0.0, x) is not x": binary("maximum", "f32", "0.0"),
    "a sum over an axis that may be 1": "input %x: f32[n,m]\n%0: f32[n] = sum(%x, axes=[1], keepdims=False)\nreturn %0",
    "a slice of a part": "input %x: f32[4]\n%0: f32[3] = slice(%x, starts=[1], stops=[4], steps=[1])\nreturn %0",
    "a reversed slice": "input %x: f32[4]\n%0: f32[2] = slice(%x, starts=[0], stops=[4], steps=[2])\nreturn %0",
    "a reshape between transposes": """input %x: f32[2,3]
        %0: f32[3,2] = transpose(%x, axes=[1,0])
        %1: f32[2,3] = reshape(%0, shape=[2,3])
        return %1""",
}


@pytest.mark.parametrize("name", KEPT)
def test_simplify_keeps(name: str) -> None:
    before = graph(KEPT[name])
    assert simplify(before).outputs == before.outputs


def test_powers_of_two_to_the_bit() -> None:
    values = np.array([3e38, 1e-45, 1.1e-38, -0.0, np.inf, np.nan, 1.7, -5.3e-39], np.float32)
    for k in (-126, -120, -1, 1, 2, 30, 126, 127):
        x = placeholder("x", (8,))
        before = Graph((x.ref,), ((x / np.float32(2.0**k)).ref,))
        after = simplify(before)
        assert [n.op.name for n in after.order() if n.inputs] == ["broadcast_to", "multiply"]
        feeds = {x.ref: values}
        assert same_bits(evaluate(before.outputs, feeds)[0], evaluate(after.outputs, feeds)[0])


def test_simplify_takes_origins_along() -> None:
    x = placeholder("x", (3,))
    after = simplify(Graph((x.ref,), ((ops.negative(-x) + 1.0).ref,)))
    origin = origin_of(after.outputs[0].node)
    assert origin is not None and any("test_simplify.py" in line.file for line in origin.lines)


def test_simplify_is_linear_and_not_recursive() -> None:
    x = placeholder("x", (3,))
    y = x
    for _ in range(5000):
        y = ops.negative(ops.exp(ops.stop_gradient(y) * 1.0))
    after = simplify(Graph((x.ref,), (y.ref,)))
    assert len(after.order()) == 10001
