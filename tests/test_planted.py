"""Faults planted one at a time: for each, a real test of another file fails with it and passes without it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.build import OPS, Tensor
from graphc.graph import Graph, Node, Op, Value
from graphc.loops.builder import Builder, Scalar
from graphc.loops.folds import Fold
from graphc.loops.lower import _Lowering
from graphc.loops.program import Task
from graphc.loops.tile import Tile, emit_tile
from graphc.ops.samples import Sample
from graphc.passes import merge_duplicates as merging
from graphc.passes.algebra import RULES
from graphc.passes.patterns import BITS, Rule, rule
from graphc.runtime.plan import arena_offsets
from graphc.types import Size, float32, float64
from tests import test_buffers, test_compiled, test_contraction, test_ops, test_random_found, test_rules, test_step
from tests.test_random_graphs import many

Test = Callable[[], None]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing comes from the cache on disk, and no planted code goes there."""
    with graphc.config(verify=True, cache=False):
        yield


def caught(test: Test, fault: contextlib.AbstractContextManager[Any], *errors: type[Exception]) -> None:
    """The real test passes as the code is and fails with the fault."""
    test()
    with fault, pytest.raises(errors or AssertionError):
        test()


@contextlib.contextmanager
def with_gradient(op: Op, gradient: Callable[[Node, Sequence[Any]], Sequence[Any]]) -> Iterator[None]:
    """The op with another gradient rule. In place, since nodes that exist already hold it."""
    before = op.gradient
    object.__setattr__(op, "gradient", gradient)
    try:
        yield
    finally:
        object.__setattr__(op, "gradient", before)


@contextlib.contextmanager
def replaced(*what: Any) -> Iterator[None]:
    """The arguments of `monkeypatch.setattr`: a place, a name and what stands there meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*what)
        yield


# swapped operands in a gradient rule


@pytest.mark.parametrize("name", ["subtract", "divide", "power", "matmul", "maximum", "where"])
def test_swapped_operands_in_a_gradient_rule(name: str) -> None:
    op = OPS[name]
    sample = _square() if name == "matmul" else next(s for s in op.samples() if s.smooth and float64 in s.dtypes)
    right = op.gradient
    assert right is not None

    def swapped(node: Node, cotangents: Sequence[Any]) -> Sequence[Any]:
        *first, a, b = right(node, cotangents)
        return (*first, b, a)

    def test() -> None:
        test_ops.test_gradient_is_the_finite_difference(op, sample, np.random.default_rng(20240607))

    caught(test, with_gradient(op, swapped))


def _square() -> Sample:
    """Of square matrices only a wrong value shows that operands were swapped."""
    sample: Sample = next(s for s in OPS["matmul"].samples() if len(s.operands) == 2 and s.smooth)
    operands = tuple(dataclasses.replace(o, shape=(4, 4)) for o in sample.operands)
    return dataclasses.replace(sample, operands=operands, dims={})


# a dropped unbroadcast


def test_a_dropped_unbroadcast() -> None:
    """One of the repetitions instead of their sum: the shape is right, the value is not."""
    op = OPS["broadcast_to"]
    samples = [s for s in op.samples() if float64 in s.dtypes and s.operands[0].shape == (3, 1)]
    assert samples

    def dropped(node: Node, cotangents: Sequence[Any]) -> Sequence[Any]:
        shape = node.inputs[0].type.shape
        g: Tensor = cotangents[0]
        while g.ndim > len(shape):
            g = g[0]
        for axis, size in enumerate(shape):
            if size == 1:
                g = g[tuple(slice(0, 1) if a == axis else slice(None) for a in range(g.ndim))]
        return (g,)

    def test() -> None:
        for sample in samples:
            test_ops.test_gradient_is_the_finite_difference(op, sample, np.random.default_rng(20240607))

    caught(test, with_gradient(op, dropped))


# a wrong rewrite

WRONG = {
    "x + 0.0 is x, but -0.0 + 0.0 is 0.0": rule(lambda x: x + 0.0, lambda x: x, BITS),
    "x - y is x + y": rule(lambda x, y: x - y, lambda x, y: x + y, BITS),
    "x * 0 is 0, but not for nan": rule(lambda x: x * 0, lambda x: 0, BITS),
    "(x + y) + z is x + (y + z)": rule(lambda x, y, z: (x + y) + z, lambda x, y, z: x + (y + z), BITS),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_rewrite_is_seen_by_the_rule_test(wrong: Rule) -> None:
    test_rules.test_every_rule_applies_and_keeps_what_it_says(RULES[0])
    with replaced("graphc.passes.simplify.RULES", (wrong,)), pytest.raises(AssertionError):
        test_rules.test_every_rule_applies_and_keeps_what_it_says(wrong)


def test_a_wrong_rewrite_is_seen_by_random_graphs() -> None:
    wrong = (WRONG["x - y is x + y"],)
    caught(lambda: many(range(44, 50), "bits"), replaced("graphc.passes.simplify.RULES", wrong))


def test_a_wrong_merge() -> None:
    """a - b and b - a as one value."""
    found = merging.COMMUTATIVE | {"subtract"}
    caught(difference, replaced(merging, "COMMUTATIVE", found))


def difference() -> None:
    x, y = graphc.placeholder("x", (5,), "float64"), graphc.placeholder("y", (5,), "float64")
    test_random_found.agrees([x - y, (y - x) * 2.0], {x: np.arange(5.0), y: np.ones(5)})


# a skipped tail


def untailed(self: Builder, buffer: str, address: Size, value: Scalar, mask: Scalar | None) -> None:
    """Vectors that are not whole are not stored."""
    if mask is None:
        STORE(self, buffer, address, value, mask)


STORE = Builder.store


@pytest.mark.parametrize("name", ["add", "tanh", "cast", "transpose", "take_along_axis"])
def test_a_skipped_tail_of_a_lane_loop(name: str) -> None:
    caught(
        lambda: test_compiled.test_compiled_is_the_reference(OPS[name], float32), replaced(Builder, "store", untailed)
    )


@pytest.mark.parametrize("name", ["sum", "max", "prod"])
def test_a_skipped_tail_of_a_reduction(name: str) -> None:
    add = Fold.add

    def dropped(self: Fold, h: Builder, values: Sequence[Scalar], masks: Sequence[Scalar | None]) -> None:
        whole = [(v, m) for v, m in zip(values, masks, strict=True) if m is None]
        add(self, h, [v for v, _ in whole], [m for _, m in whole])

    caught(lambda: test_compiled.test_compiled_is_the_reference(OPS[name], float32), replaced(Fold, "add", dropped))


@pytest.mark.parametrize("symbolic", ["", "n"])
def test_a_skipped_tail_of_a_contraction(symbolic: str) -> None:
    """No tile for the columns behind the last whole tile."""

    def dropped(builder: Builder, tile: Tile, *more: Any) -> None:
        if tile.limit_col is None:
            emit_tile(builder, tile, *more)

    def test() -> None:
        test_contraction.run(test_contraction.Case(27, 47, 33, symbolic=symbolic))

    caught(test, replaced("graphc.loops.contraction.emit_tile", dropped))


# a misplaced buffer


def test_overlapping_buffers_in_the_arena() -> None:
    """Every temporary at offset 0."""

    def at_zero(temps: Sequence[tuple[int, int, int]]) -> tuple[list[int], int]:
        return [0] * len(temps), arena_offsets(temps)[1]

    caught(lambda: test_buffers.test_arena_blocks_that_live_together_do_not_overlap(3),
           replaced(test_buffers, "arena_offsets", at_zero))  # fmt: skip
    caught(test_step.test_any_batch_compiles_nothing_and_agrees, replaced("graphc.runtime.plan.arena_offsets", at_zero))


def test_a_buffer_that_dies_one_region_early() -> None:
    def short(temps: Sequence[tuple[int, int, int]]) -> tuple[list[int], int]:
        return arena_offsets([(nbytes, first, max(first, last - 1)) for nbytes, first, last in temps])

    caught(test_step.test_any_batch_compiles_nothing_and_agrees, replaced("graphc.runtime.plan.arena_offsets", short))


def test_a_wrong_buffer_in_a_task() -> None:
    """Two operands of one type, in the wrong order."""
    right = _Lowering._task

    def exchanged(self: _Lowering, node: Node, region: int) -> Task:
        task = right(self, node, region)
        names = list(task.buffers)
        for i, j in itertools.combinations(range(len(node.inputs)), 2):
            if node.inputs[i].type == node.inputs[j].type:
                names[i], names[j] = names[j], names[i]
                break
        return dataclasses.replace(task, buffers=tuple(names))

    caught(difference, replaced(_Lowering, "_task", exchanged))
    caught(test_step.test_any_batch_compiles_nothing_and_agrees, replaced(_Lowering, "_task", exchanged))


def test_an_update_in_place_too_early() -> None:
    """A parameter is overwritten although a later kernel reads its old value."""

    def always(graph: Graph, order: Any, region_of: Any, targets: dict[Value, Value]) -> dict[Value, Value]:
        results = set(graph.results)
        return {v: p for v, p in targets.items() if v not in results and v.node in region_of and p.type == v.type}

    fault = replaced("graphc.loops.regions._in_place", always)

    def test() -> None:
        w = graphc.parameter("w", np.eye(3, dtype="float32"))
        after = w * 0.5
        (product,) = graphc.function([], [after @ w], {w: after})()
        np.testing.assert_array_equal(product, np.eye(3) / 2)

    caught(test, fault)
