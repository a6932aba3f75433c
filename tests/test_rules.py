"""The table of algebra, rule by rule: each applies, and keeps what it says for every special value of every dtype."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import graphc.ops as ops
from graphc.build import OPS, placeholder
from graphc.graph import Graph, Value, make_node
from graphc.interpret import evaluate
from graphc.passes.algebra import RULES
from graphc.passes.patterns import BITS, REAL, Apply, Literal, Pattern, Rule, Variable, rule
from graphc.passes.simplify import is_exact, simplify
from graphc.settings import config
from graphc.types import DTYPES, DType, bool_, float32, float64, int32, int64, uint8


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are the same to the bit, where every NaN is one."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "f":
        a, b = (np.where(np.isnan(x), x.dtype.type(np.nan), x) for x in (a, b))
    return a.tobytes() == b.tobytes()


SPECIAL: dict[str, list[Any]] = {
    "f": [0.0, -0.0, 1.0, -1.0, 1.5, -2.5, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3e38, -3e38],
    "i": [0, 1, -1, 2, -7, 100, "min", "max"],
    "u": [0, 1, 2, 7, 100, "max"],
    "b": [False, True],
}


def special(dtype: DType) -> list[np.generic]:
    limits = np.iinfo(dtype.numpy) if dtype.is_integer else None
    values = [getattr(limits, v) if isinstance(v, str) else v for v in SPECIAL[dtype.kind]]
    return [dtype.numpy.type(v) for v in values]


def instances(each: Rule) -> list[tuple[Graph, tuple[DType, ...]]]:
    """The rule's pattern as graphs over variables of several dtypes: those that its ops and its condition take."""
    found = []
    for dtypes in itertools.product((float32, float64, int32, uint8, bool_), repeat=len(each.variables)):
        count = int(np.prod([len(special(d)) for d in dtypes]))
        variables = {
            name: placeholder(name, (count,), dtype) for name, dtype in zip(each.variables, dtypes, strict=True)
        }
        if "c" in variables and each.keeps == REAL:
            variables["c"] = ops.full((count,), 3.0, dtypes[-1])
        try:
            value = _instance(each.pattern, {k: v.ref for k, v in variables.items()}, count, dtypes[-1])
        except Exception:  # no such types: an op that is not defined for them
            continue
        if each.when is None or each.when(*(v.ref for v in variables.values())):
            inputs = tuple(v.ref for v in variables.values() if v.ref.op.name == "placeholder")
            found.append((Graph(inputs, (value,)), dtypes))
    return found


def _instance(pattern: Pattern, variables: dict[str, Value], count: int, dtype: DType) -> Value:
    if isinstance(pattern, Variable):
        return variables[pattern.name]
    if isinstance(pattern, Literal):
        if not isinstance(pattern.value, bool) and (dtype is bool_ or (dtype.kind == "u" and pattern.value < 0)):
            raise TypeError("no such number")
        return ops.full((count,), pattern.value, bool_ if isinstance(pattern.value, bool) else dtype).ref
    assert isinstance(pattern, Apply)
    return Value(make_node(OPS[pattern.op], [_instance(p, variables, count, dtype) for p in pattern.operands], {}))


@pytest.mark.parametrize("each", RULES, ids=lambda r: f"{r.keeps} {r.text}")
def test_every_rule_applies_and_keeps_what_it_says(each: Rule) -> None:
    tested = instances(each)
    assert tested, f"no dtype for {each.text}"
    for before, dtypes in tested:
        with config(fast_math=each.keeps == REAL):
            after = simplify(before)
        assert after.outputs != before.outputs, f"{each.text} did not apply to {dtypes}"
        if each.keeps == BITS:
            grids = np.meshgrid(*(special(v.type.dtype) for v in before.inputs), indexing="ij")
            feeds = {v: g.ravel().astype(v.type.dtype.numpy) for v, g in zip(before.inputs, grids, strict=True)}
            assert same_bits(evaluate(before.outputs, feeds)[0], evaluate(after.outputs, feeds)[0]), each.text
        else:
            assert simplify(before).outputs == before.outputs, f"{each.text} applies without fast_math"


def test_a_wrong_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = rule(lambda x: x + 0.0, lambda x: x, BITS)
    monkeypatch.setattr("graphc.passes.simplify.RULES", (wrong,))
    with pytest.raises(AssertionError):
        test_every_rule_applies_and_keeps_what_it_says(wrong)


def test_rule_errors() -> None:
    with pytest.raises(TypeError, match="over"):
        rule(lambda x: -x, lambda y: y, BITS)
    with pytest.raises(TypeError, match="needs an op"):
        rule(lambda x: x, lambda x: x, BITS)
    with pytest.raises(TypeError, match="one of bits"):
        rule(lambda x: -x, lambda x: x, "mostly")


def test_exact_casts_are_exact() -> None:
    for first, second in itertools.product([d for d in DTYPES if not d.is_narrow], repeat=2):
        values = np.array(special(first), first.numpy)
        if first.is_integer:
            top = np.iinfo(first.numpy).max
            more = [top - 1, top // 2, min(top, 2**24 + 1), min(top, 2**53 + 1)]
            values = np.append(values, np.array(more, first.numpy))
        with np.errstate(all="ignore"):
            back = values.astype(second.numpy).astype(first.numpy)
        if is_exact(first, second):
            assert same_bits(back, values), (first, second)
    assert not is_exact(int64, float64)
    assert not is_exact(int32, float32)
    assert not is_exact(uint8, DType.of("int8"))
    narrow = (DType.of("float16"), DType.of("bfloat16"))
    assert all(is_exact(d, float32) and is_exact(uint8, d) and not is_exact(float32, d) for d in narrow)
    assert not is_exact(*narrow) and not is_exact(*narrow[::-1]) and not is_exact(DType.of("int16"), narrow[0])
