"""Random graphs over the whole registry, compiled and interpreted: values of three kinds, every pass off, gradients.

What is drawn is said in `tests.random_graphs`, how it is compared in `tests.random_checks`. To look for more than the
few examples of a test run, call `many(range(10_000))`; what it found is kept in tests/test_random_found.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from graphc.graph import topological_order
from graphc.passes.pipeline import PASSES
from tests.random_checks import Compiled, add_gradients, arrays_of, check, compare, describe, within
from tests.random_graphs import STEPS, Seeded, draw

MODES = ("bits", "whole", "real")
PHASES = [hypothesis.Phase.generate]  # shrinking compiles for minutes; add Phase.shrink when a graph has failed
NAMES = tuple(dict.fromkeys(each.name for each in PASSES))


def examples(count: int) -> hypothesis.settings:
    """The same examples on every run, and no time limit for one: a compilation takes as long as it takes."""
    slow = [
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
        hypothesis.HealthCheck.large_base_example,
    ]
    return hypothesis.settings(
        max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=slow, phases=PHASES
    )


class Drawn:
    """Choices of hypothesis, which shrinks them when a graph fails."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data

    def integer(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))


def many(seeds: Iterable[int], mode: str | None = None, disable: tuple[str, ...] = (), longest: int = 12) -> None:
    """The graphs of `seeds`, without hypothesis: the modes in turn, or one of them."""
    for seed in seeds:
        drawing = draw(Seeded(seed), mode or MODES[seed % 3], longest)
        if drawing.mode == "real" and seed % 2:
            add_gradients(drawing)
        try:
            check(drawing, disable)
        except Exception as error:
            error.add_note(f"seed {seed}, mode {drawing.mode}\n{describe(drawing)}")
            raise


@pytest.mark.parametrize("mode", MODES)
@examples(32)
@hypothesis.given(data=st.data())
def test_compiled_is_interpreted(mode: str, data: st.DataObject) -> None:
    drawing = draw(Drawn(data), mode)
    hypothesis.note(describe(drawing))
    check(drawing)


@examples(20)
@hypothesis.given(data=st.data())
def test_gradients_are_interpreted(data: st.DataObject) -> None:
    drawing = draw(Drawn(data), "real", longest=8)
    add_gradients(drawing)
    hypothesis.note(describe(drawing))
    check(drawing)


@pytest.mark.parametrize("disable", [*((name,) for name in NAMES), NAMES], ids=" ".join)
def test_every_pass_may_be_off(disable: tuple[str, ...]) -> None:
    many(range(100, 106), disable=disable)


def test_seeds() -> None:
    """Longer graphs than hypothesis draws."""
    many(range(1000, 1020), longest=25)


# the tests' own parts: that they reach what they say, and see an error


def test_the_draw_reaches_the_registry() -> None:
    """Every kind of lowering, named sizes, sizes 0 and 1, updates, swaps, outputs that are inputs."""
    seen: set[str] = set()
    for seed in range(300):
        drawing = draw(Seeded(seed), MODES[seed % 3])
        for tensor in (*drawing.outputs, *drawing.updates.values()):
            seen |= {node.op.name for node in topological_order([tensor.ref.node])}
            seen |= {f"size {n}" for n in tensor.shape if isinstance(n, int)}
            seen |= {str(tensor.dtype)}
        seen |= {"named"} if drawing.dims[0] else set()
        seen |= {"update"} if drawing.updates else set()
        seen |= {"output is input"} if any(t.ref.op.name == "placeholder" for t in drawing.outputs) else set()
        swapped = any(drawing.updates.get(new) is p for p, new in drawing.updates.items())  # type: ignore[call-overload]
        seen |= {"swap"} if swapped else set()
    wanted = {"matmul", "sum", "prod", "max", "argmax", "take_along_axis", "scatter_add_along_axis", "slice", "reshape",
              "transpose", "broadcast_to", "cast", "where", "iota", "dim_value", "exp", "log", "any"}  # fmt: skip
    wanted |= {"size 0", "size 1", "size 4", "named", "update", "output is input", "swap", "f32", "f64", "u8", "bool"}
    assert wanted <= seen, wanted - seen
    assert len(STEPS) > 20


@pytest.mark.parametrize("mode", MODES)
def test_one_wrong_element_is_seen(mode: str) -> None:
    """In most drawings, for they may return nothing but what nothing can be said of."""
    found = 0
    for seed in range(30):
        drawing = draw(Seeded(seed), mode)
        compiled = Compiled(drawing)
        arrays = arrays_of(drawing, 0, np.random.default_rng(seed))
        results = [a.copy() for a in compiled.call(arrays)]
        compare(compiled.wanted, arrays, results, mode == "whole")
        for array in results:
            if array.size:
                array.ravel()[-1:] = array.ravel()[-1:] == 0
        try:
            compare(compiled.wanted, arrays, results, mode == "whole")
        except AssertionError:
            found += 1
    assert found > 20


def test_an_error_of_many_roundings_is_no_rounding() -> None:
    want = np.array([1.0, 2.0, np.nan, np.inf])
    runs = [want * (1 + 1e-12), want * (1 - 1e-12)]
    within(want * (1 + 1e-13), want, runs, "near")
    for wrong in (want * (1 + 1e-11), np.array([1.0, 2.0, 0.0, np.inf]), np.array([1.0, 2.0, np.nan, -np.inf])):
        with pytest.raises(AssertionError):
            within(wrong, want, runs, "far")
