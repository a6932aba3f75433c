"""What the loops over one row compute, and which of its values are kept from one loop for the next.

A rows kernel runs a loop over the reduced axes for each stage of reductions and one more for its full results. What
two of them need is computed twice, unless it costs more than storing and loading it: then the first loop stores it in
scratch that lies in the cache. Enter at `plan_loops`; the threshold is `KEEP`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from graphc.graph import Node, Value
from graphc.loops.cost import TRANSCENDENTAL, body_cost

KEEP = TRANSCENDENTAL  # simple instructions from which on a value is stored rather than computed again


@dataclass(frozen=True)
class LoopPlan:
    """One loop: the values it is run for, those it stores for later loops, those it reads from earlier ones.

    `heavy`: whether it computes something transcendental, so that one vector at a time keeps the machine busy.
    """

    roots: tuple[Value, ...]
    stores: tuple[Value, ...]
    reads: tuple[Value, ...]
    heavy: bool


def plan_loops(roots: Sequence[Sequence[Value]], is_full: Callable[[Value], bool], keep: bool) -> list[LoopPlan]:
    """A plan for each loop. `is_full`: whether a value is computed in the loops; `keep`: whether any may be kept."""
    stores: list[list[Value]] = [[] for _ in roots]
    reads: list[list[Value]] = [[] for _ in roots]
    computed_by: dict[Value, int] = {}
    computed: list[dict[Value, None]] = []
    kept: set[Value] = set()
    for number, wanted in enumerate(roots):
        everything = _needed(wanted, is_full, kept)
        shared = [v for v in everything if v in computed_by]
        for value in _frontier(wanted, everything, computed_by) if keep else ():
            if value not in kept and sum(body_cost(v.node) for v in _needed([value], is_full, kept)) >= KEEP:
                kept.add(value)
                stores[computed_by[value]].append(value)
        here = _needed(wanted, is_full, kept) if shared else everything
        reads[number] = [v for v in here if v in kept and v in computed_by]
        computed.append({v: None for v in here if v not in reads[number]})
        for v in computed[-1]:
            computed_by.setdefault(v, number)
    return [
        LoopPlan(tuple(wanted), tuple(stored), tuple(read), any(body_cost(v.node) >= TRANSCENDENTAL for v in values))
        for wanted, stored, read, values in zip(roots, stores, reads, computed, strict=True)
    ]


def _needed(wanted: Iterable[Value], is_full: Callable[[Value], bool], kept: set[Value]) -> dict[Value, None]:
    """The full values that `wanted` is made of, itself included; kept ones are in it, but not what they are made of."""
    found: dict[Value, None] = {}
    stack = list(wanted)
    while stack:
        value = stack.pop()
        if value in found or not is_full(value):
            continue
        found[value] = None
        if value not in kept:
            stack.extend(value.node.inputs)
    return found


def _frontier(wanted: Sequence[Value], needed: dict[Value, None], earlier: dict[Value, int]) -> list[Value]:
    """The values of earlier loops that a later loop uses for something of its own."""
    users: dict[Node, None] = dict.fromkeys(v.node for v in needed if v not in earlier)
    used = [v for node in users for v in node.inputs if v in earlier]
    return list(dict.fromkeys([*(v for v in wanted if v in earlier), *used]))
