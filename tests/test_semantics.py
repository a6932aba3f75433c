"""What IEEE 754 and NumPy fix, to the bit, at every optimisation level; and that docs/semantics.md names its tests.

A case is a line of a table: what is computed, from which operands, what comes out. All cases of a dtype are compiled
into one function, where they fuse as they may: under the default settings, with each pass left out in turn (fusion
too), for scalars, single elements, vectors and tails, and once more from constants, which are folded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.build import placeholder
from graphc.conversion import cast_array, widened
from graphc.passes.pipeline import PASSES
from graphc.runtime.host import host_target
from graphc.types import DType

ROOT = Path(__file__).parent.parent
LANES = host_target().lanes(4)
SIZES = (1, LANES - 1, LANES, 4 * LANES + 3)
LEVELS = [{}, {"stabilize": False}] + [{"disable": name} for name in dict.fromkeys(p.name for p in PASSES)]
NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Case:
    """`build(*operands)` is `wanted`, element by element. With fast_math it may differ only where `fast` says so."""

    name: str
    build: Callable[..., Any]
    operands: tuple[Sequence[Any], ...]
    wanted: Sequence[Any]
    fast: bool = False
    result: str = ""  # the dtype of the result, that of the operands if empty


def one(name: str, build: Any, pairs: dict[Any, Any], **how: Any) -> Case:
    return Case(name, build, (list(pairs),), list(pairs.values()), **how)


def two(name: str, build: Any, triples: Sequence[tuple[Any, Any, Any]], **how: Any) -> Case:
    x, y, wanted = zip(*triples, strict=True)
    return Case(name, build, (x, y), wanted, **how)


def float_cases(dtype: str) -> list[Case]:
    eps, big, small, tiny = DType.of(dtype).limits
    signed = {
        NAN: NAN,  # a dict has one of the zeros
        INF: INF,
        -INF: -INF,
        tiny: tiny,
        -1.5: -1.5,
    }
    half = float(2.0 ** np.floor(np.log2(eps) / 2 - 1))  # its square is beyond the last bit of (1 + half)^2
    thirds = [(float(n), 3.0, rounded(n / 3, dtype)) for n in range(1, 40)]
    none = {-0.0: 0.0, 1.0: 0.0, INF: NAN, -INF: NAN, NAN: NAN}
    return [
        one("x + 0", lambda x: x + 0.0, {-0.0: 0.0, **signed}, fast=True),
        one("x + -0", lambda x: x + -0.0, {-0.0: -0.0, **signed}),
        one("x - 0", lambda x: x - 0.0, {-0.0: -0.0, **signed}),
        one("0 - x", lambda x: 0.0 - x, {-0.0: 0.0, 1.0: -1.0, NAN: NAN, INF: -INF}),
        one("0 - x of zero", lambda x: 0.0 - x, {0.0: 0.0}),
        one("-x", lambda x: -x, {0.0: -0.0, INF: -INF, tiny: -tiny}),
        one("-x of minus zero", lambda x: -x, {-0.0: 0.0}),
        one("-(-x)", lambda x: -(-x), {-0.0: -0.0, NAN: NAN, tiny: tiny}),
        one("x * 0", lambda x: x * 0.0, {-1.0: -0.0, 1.0: 0.0, INF: NAN, -INF: NAN, NAN: NAN, 0.0: 0.0}, fast=True),
        one("x * 1", lambda x: x * 1.0, {-0.0: -0.0, **signed}),
        one("x / 1", lambda x: x / 1.0, {-0.0: -0.0, **signed}),
        one("x * -1", lambda x: x * -1.0, {0.0: -0.0, INF: -INF, 2.0: -2.0}),
        one("x - x", lambda x: x - x, none, fast=True),
        one("x / x", lambda x: x / x, {0.0: NAN, INF: NAN, NAN: NAN, 3.0: 1.0, tiny: 1.0}, fast=True),
        one("1 / x", lambda x: 1.0 / x, {0.0: INF, INF: 0.0, -INF: -0.0, NAN: NAN, 4.0: 0.25}),
        one("1 / -0", lambda x: 1.0 / x, {-0.0: -INF}),
        one("x / 0", lambda x: x / 0.0, {1.0: INF, -1.0: -INF, 0.0: NAN, NAN: NAN, INF: INF}),
        two("x / y is no product", lambda x, y: x / y, thirds),
        one("x / 3", lambda x: x / 3.0, {x: want for x, _, want in thirds}, fast=True),
        one("x / 8", lambda x: x / 8.0, {tiny * 20: tiny * 2, tiny * 28: tiny * 4, -0.0: -0.0, big: big / 8}),
        two("(x + y) - y", lambda x, y: (x + y) - y, [(1.0, 2 / eps, 0.0), (INF, 1.0, INF), (1.0, INF, NAN)]),
        two("(x * y) / y", lambda x, y: (x * y) / y, [(small, small, 0.0), (big, 2.0, INF), (3.0, 0.0, NAN)]),
        two("(x + y) + 1", lambda x, y: (x + y) + 1.0, [(4 / eps, -4 / eps, 1.0), (big, big, INF)]),
        two("x + (y + 1)", lambda x, y: x + (y + 1.0), [(4 / eps, -4 / eps, 0.0), (big, big, INF)]),
        two("x * y - c rounds twice", lambda x, y: x * y - (1 + 2 * half), [(1 + half, 1 + half, 0.0)]),
        one("sqrt", graphc.sqrt,
            {-0.0: -0.0, 4.0: 2.0, -1.0: NAN, INF: INF, NAN: NAN, 2.0: rounded(np.sqrt(2), dtype),
                                  tiny: rounded(np.sqrt(tiny), dtype)}),
        one("abs", graphc.abs, {-0.0: 0.0, -INF: INF, NAN: NAN, -tiny: tiny}),
        one("sign", graphc.sign, {-0.0: 0.0, -INF: -1.0, NAN: NAN, tiny: 1.0}),
        one("floor", graphc.floor,
            {-0.5: -1.0, 0.5: 0.0, -0.0: -0.0, -INF: -INF, NAN: NAN, 2 / eps: 2 / eps, -tiny: -1.0}),
        one("ceil", graphc.ceil, {-0.5: -0.0, 0.5: 1.0, INF: INF, NAN: NAN, tiny: 1.0, -tiny: -0.0}),
        one("trunc", graphc.trunc, {-0.5: -0.0, -1.5: -1.0, 1.5: 1.0, INF: INF, NAN: NAN}),
        one("round", graphc.round,
            {0.5: 0.0, 1.5: 2.0, 2.5: 2.0, -0.5: -0.0, -1.5: -2.0, 0.5 - eps / 4: 0.0, INF: INF, NAN: NAN}),
        two("minimum", graphc.minimum,
            [(NAN, 1.0, NAN), (1.0, NAN, NAN), (-INF, NAN, NAN), (1.0, 2.0, 1.0), (INF, -INF, -INF)]),
        two("maximum", graphc.maximum,
            [(NAN, 1.0, NAN), (1.0, NAN, NAN), (INF, NAN, NAN), (1.0, 2.0, 2.0), (INF, -INF, INF)]),
        one("maximum with 0", lambda x: graphc.maximum(x, 0.0), {NAN: NAN, -1.0: 0.0, -INF: 0.0, tiny: tiny}),
        two("copysign", graphc.copysign, [(1.0, -0.0, -1.0), (-1.0, 0.0, 1.0), (INF, -1.0, -INF), (0.0, -1.0, -0.0)]),
        two("x < y", lambda x, y: x < y,
            [(NAN, 1.0, False), (1.0, NAN, False), (-0.0, 0.0, False), (-INF, INF, True)], result="bool"),
        two("not x < y", lambda x, y: ~(x < y),
            [(NAN, 1.0, True), (1.0, NAN, True), (-0.0, 0.0, True), (0.0, 1.0, False)], result="bool"),
        two("x >= y", lambda x, y: x >= y,
            [(NAN, 1.0, False), (NAN, NAN, False), (-0.0, 0.0, True), (INF, INF, True)], result="bool"),
        two("x == y", lambda x, y: x == y,
            [(NAN, NAN, False), (-0.0, 0.0, True), (INF, INF, True), (tiny, 0.0, False)], result="bool"),
        two("x != y", lambda x, y: x != y, [(NAN, NAN, True), (-0.0, 0.0, False), (tiny, 0.0, True)], result="bool"),
        one("x == x", lambda x: x == x, {NAN: False, INF: True, -0.0: True}, result="bool"),
        one("x != x", lambda x: x != x, {NAN: True, INF: False, -0.0: False}, result="bool"),
        two("where takes one branch", lambda x, y: graphc.where(x > 0, y, x * INF),
            [(1.0, -0.0, -0.0), (-1.0, NAN, -INF), (0.0, 1.0, NAN)]),
        one("relu", graphc.relu, {-0.0: 0.0, NAN: NAN, -INF: 0.0, INF: INF, tiny: tiny}),
        one("halves of the least", lambda x: x * 0.5, {tiny: 0.0, 3 * tiny: 2 * tiny, -tiny: -0.0, small: small / 2}),
        one("sums of the least", lambda x: x + tiny, {tiny: 2 * tiny, -tiny: 0.0, small - tiny: small}),
        one("overflow", lambda x: x * 2.0, {big: INF, -big: -INF, big / 2: big}),
        one("to bool", lambda x: graphc.astype(x, "bool"),
            {NAN: True, -0.0: False, tiny: True, INF: True}, result="bool"),
        *(one(f"to {to}", lambda x, to=to: graphc.astype(x, to), _saturating(to), result=to)
          for to in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")),
    ]  # fmt: skip


def rounded(value: float, dtype: str) -> float:
    """A float64 in another dtype. (Quotients and roots of short floats are no ties: they may be rounded twice.)"""
    return float(widened(cast_array(np.array(value), DType.of(dtype))))


def _saturating(dtype: str) -> dict[float, int]:
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return {
        NAN: 0,
        INF: high,
        -INF: low,
        1e30: high,
        -1e30: low,
        1.99: 1,
        -0.99: 0,
        -1.5: max(-1, low),
        127.5: 127,
        -0.0: 0,
    }


def integer_cases(dtype: str) -> list[Case]:
    low, high, bits = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max), 8 * np.dtype(dtype).itemsize
    signed = low < 0
    minus = -1 if signed else high
    wrapped = [
        one("x + 1", lambda x: x + 1, {high: low, low: low + 1}),
        one("x - 1", lambda x: x - 1, {low: high, 0: minus}),
        one("x * 2", lambda x: x * 2, {high: -2 if signed else high - 1, low: 0}),
        one("x * x", lambda x: x * x, {high: 1, low: 0, 3: 9}),
        one("-x", lambda x: -x, {low: low, 1: minus, 0: 0}),
        one("x - x", lambda x: x - x, {low: 0, high: 0}),
        one("x * 0", lambda x: x * 0, {low: 0, high: 0}),
        one("abs", graphc.abs, {low: low, high: high, minus: 1 if signed else high}),
        one("~x", lambda x: ~x, {0: minus, high: low, low: high}),
        one("x << 1", lambda x: x << 1, {high: -2 if signed else high - 1, 1: 2}),
        one("to bool", lambda x: graphc.astype(x, "bool"), {0: False, low or 1: True, minus: True}, result="bool"),
    ]
    counts = [
        (1, 0, 1),
        (1, bits - 1, low if signed else 2 ** (bits - 1)),
        (3, bits, 0),
        (high, bits + 1, 0),
        (5, 100, 0),
    ]
    right = [
        (high, bits - 2, 1 if signed else 3),
        (high, bits, 0),
        (high, 100, 0),
        (low, 1, low >> 1),
        (minus, bits, minus if signed else 0),
    ]
    divisions = [(7, 2, 3, 1), (7, 0, 0, 0), (low, 1, low, 0), (high, high, 1, 0), (0, 0, 0, 0), (low, 0, 0, 0)]
    if signed:
        counts.append((3, -1, 0))
        right += [(-5, 1, -3), (-5, -1, -1), (5, -1, 0), (low, bits, -1)]
        divisions += [
            (low, -1, low, 0),
            (-7, 2, -4, 1),
            (7, -2, -4, -1),
            (-7, -2, 3, -1),
            (low, 2, low // 2, 0),
            (-1, high, -1, high - 1),
        ]
    return [
        *wrapped,
        two("x << y", lambda x, y: x << y, counts),
        two("x >> y", lambda x, y: x >> y, right),
        two("x // y", lambda x, y: x // y, [(x, y, q) for x, y, q, _ in divisions]),
        two("x % y", lambda x, y: x % y, [(x, y, r) for x, y, _, r in divisions]),
        one("x // 0", lambda x: x // 0, {low: 0, high: 0, 0: 0}),
        one("x % 3", lambda x: x % 3, {7: 1, low: low % 3, high: high % 3}),
        one("x // -1", lambda x: x // -1, {low: low, high: -high, 0: 0}) if signed
        else one("x // high", lambda x: x // high, {high: 1, 0: 0}),
        two("x < y", lambda x, y: x < y, [(low, high, True), (high, low, False), (high, high, False)], result="bool"),
        two("x >= y", lambda x, y: x >= y, [(low, high, False), (high, low, True), (low, low, True)], result="bool"),
        two("minimum", graphc.minimum, [(low, high, low), (high, low, low)]),
        two("maximum", graphc.maximum, [(low, high, high), (minus, 0, 0 if signed else high)]),
        *(one(f"to {to}", lambda x, to=to: graphc.astype(x, to),
            {x: _wrapped(x, to) for x in (0, 1, low, high, high - 1)}, result=to)
          for to in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")),
        *(one(f"to {to}", lambda x, to=to: graphc.astype(x, to),
            {x: _nearest(x, to) for x in (0, low, high, high // 3, high - 1)}, result=to)
          for to in ("float32", "float64")),
    ]  # fmt: skip


def _wrapped(value: int, dtype: str) -> int:
    bits = 8 * np.dtype(dtype).itemsize
    value %= 2**bits
    return value - 2**bits if dtype[0] == "i" and value >= 2 ** (bits - 1) else value


def _nearest(value: int, dtype: str) -> float:
    """Of an int, rounded once: Python rounds to float64 correctly, and to float32 by exact integer arithmetic."""
    if dtype == "float64":
        return float(value)
    drop = max(abs(value).bit_length() - 24, 0)
    whole, rest = divmod(abs(value), 1 << drop)
    up = 2 * rest > 1 << drop or (2 * rest == 1 << drop and whole & 1)
    return float((whole + bool(up)) << drop) * (-1 if value < 0 else 1)


CASES = {dtype: float_cases(dtype) for dtype in ("float16", "bfloat16", "float32", "float64")}
CASES |= {f"{sign}int{bits}": integer_cases(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)}


def filled(values: Sequence[Any], dtype: str, size: int | None) -> np.ndarray:
    """The values over and over; a scalar: the first."""
    array = cast_array(np.array(values, "float64" if "float" in dtype else dtype), DType.of(dtype))
    return array[0].reshape(()) if size is None else np.resize(array, size)


def same(got: np.ndarray, wanted: np.ndarray, name: str) -> None:
    """Equal bits; every NaN is one."""
    assert got.dtype == wanted.dtype and got.shape == wanted.shape, name
    right = got.view(f"u{got.itemsize}") == wanted.view(f"u{got.itemsize}")
    got, wanted = widened(got), widened(wanted)
    right = np.where(wanted != wanted, got != got, right)
    if not right.all():
        raise AssertionError(f"{name}: {got[~right][:4]} instead of {wanted[~right][:4]}")


def check(cases: list[Case], dtype: str, sizes: Sequence[int | None], named: bool) -> set[str]:
    """All cases in one function for each size (or in one for all of them); the names of those that are wrong."""
    wrong: set[str] = set()
    compiled = None
    for size in sizes:
        arrays = [filled(values, dtype, size) for case in cases for values in case.operands]
        if compiled is None or not named:
            shape: Any = () if size is None else ("n",) if named else (size,)
            inputs = [placeholder(f"x{i}", shape, dtype) for i in range(len(arrays))]
            left = iter(inputs)
            outputs = [case.build(*(next(left) for _ in case.operands)) for case in cases]
            compiled = graphc.function(inputs, outputs)
        for case, got in zip(cases, compiled(*arrays), strict=True):
            try:
                same(got, filled(case.wanted, case.result or dtype, size), case.name)
            except AssertionError as error:
                wrong.add(str(error))
    return wrong


IDS = [next(iter(f"{k}={v}" for k, v in level.items()), "all passes") for level in LEVELS]


EVERY = ("float16", "float32", "int64")  # at every level; the others where something differs by width
LEVELED = [
    pytest.param(level, dtype, id=f"{name}-{dtype}")
    for dtype in CASES
    for level, name in zip(LEVELS, IDS, strict=True)
    if dtype in EVERY or level in ({}, {"disable": "fuse"}, {"disable": "simplify"})
]


@pytest.mark.parametrize(("level", "dtype"), LEVELED)
def test_what_is_fixed_is_exact_at_every_level(level: dict[str, Any], dtype: str) -> None:
    """Vectors and tails of every size in one function."""
    with graphc.config(cache=False, fast_math=False, **level):
        assert not check(CASES[dtype], dtype, SIZES, named=True)


@pytest.mark.parametrize("dtype", CASES)
@pytest.mark.parametrize("level", [{}, {"disable": "fuse"}, {"disable": "simplify,fold_constants"}], ids=str)
def test_what_is_fixed_is_exact_for_scalars_and_known_sizes(level: dict[str, Any], dtype: str) -> None:
    with graphc.config(cache=False, **level):
        assert not check(CASES[dtype], dtype, (None,), named=False)
        if not level:
            assert not check(CASES[dtype], dtype, (LANES - 1, 2 * LANES), named=False)


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint64"])
def test_what_is_fixed_is_exact_alone(dtype: str) -> None:
    """Each case as a function of its own, in a loop with whole vectors and a tail."""
    with graphc.config(cache=False):
        for case in CASES[dtype]:
            assert not check([case], dtype, (4 * LANES + 3,), named=True)


@pytest.mark.parametrize("dtype", CASES)
def test_folding_gives_the_same_bits(dtype: str) -> None:
    for case in CASES[dtype]:
        for size in (None, 11):
            constants = [graphc.constant(filled(values, dtype, size)) for values in case.operands]
            with graphc.config(cache=False):
                compiled = graphc.function([], case.build(*constants))
            same(compiled(), filled(case.wanted, case.result or dtype, size), case.name)
            assert size is not None or all(name.startswith("copy") for name in compiled.kernels)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fast_math_changes_only_what_its_rules_say(dtype: str) -> None:
    with graphc.config(cache=False, fast_math=True):
        changed = {message.split(":")[0] for message in check(CASES[dtype], dtype, (4 * LANES + 3,), named=True)}
    allowed = {case.name for case in CASES[dtype] if case.fast}
    assert changed == allowed


def test_the_two_zeros_are_two_constants_in_a_kernel() -> None:
    """Two products that differ in nothing else, fused into one loop."""
    for dtype in ("float16", "float32", "float64"):
        x = placeholder("x", ("n",), dtype)
        with graphc.config(cache=False, disable="simplify,fold_constants"):
            compiled = graphc.function([x], [x * 0.0, x * -0.0, x + 0.0, x + -0.0])
        zeros = compiled(np.array([1.0, -0.0], dtype))
        assert [np.signbit(z).tolist() for z in zeros] == [[False, True], [True, False], [False] * 2, [False, True]]


def test_fast_math_changes_no_integer() -> None:
    for dtype in CASES:
        if "int" in dtype:
            with graphc.config(cache=False, fast_math=True):
                assert not check(CASES[dtype], dtype, (2 * LANES + 1,), named=True)


def test_every_claim_of_the_document_names_a_test_that_exists() -> None:
    text = (ROOT / "docs/semantics.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    written = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert len(named) > 8 and not [name for name in named if f"def {name}(" not in written]
