"""Loops over an axis by vectors: whole vectors, several at a time, then what is left under a mask.

`lane_loop` runs a body for the points of an axis; `named` sizes keep index expressions short. A body that is worth
several vectors at a time gets a loop of its own for the rest; a long body is emitted once, in a loop that runs twice:
for all whole vectors under a mask that is all true, then for the last one. So no iteration computes a mask.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.loops.builder import LANE, Builder, Scalar
from graphc.loops.evaluate import Point
from graphc.loops.ir import Let, Load, Var, VType
from graphc.target import Target
from graphc.types import Dim, DType, Size

Body = Callable[[list[Point]], None]


def child(point: Point, symbol: str, place: Size, mask: Scalar | None = None) -> Point:
    """`point` with the axis `symbol` at `place`."""
    return Point({**point.axes, symbol: place}, mask, {}, point)


def named(h: Builder, stem: str, size: Size, unit: int = 1) -> Size:
    """A symbol for the value of `size`, so that what is built on it stays short; `unit` divides it, and shows."""
    if isinstance(size, int):
        return size
    name = h.fresh(stem)
    h.symbols[name] = h.index(size // unit)
    return unit * Dim.symbol(name)


def below(h: Builder, left: Size) -> Scalar:
    """The mask of the first `left` lanes."""
    return h.lt(h.symbols[LANE], h.index(left))


def load_here(h: Builder, buffer: str, dtype: DType, address: Size, mask: Scalar | None = None) -> Scalar:
    """A vector from memory that the kernel writes too: a load of its own, never moved out of the loops around it."""
    _, base = h.lane_form(address)
    vtype = VType(dtype, h.lane_count)
    var = Var(h.fresh("x"), vtype)
    h.emit(Let(var, Load(buffer, h.index(base).expr, vtype, mask.expr if mask else None)))
    return Scalar(var, h.depth)


def lane_loop(
    h: Builder, target: Target, start: Size, stop: Size, unroll: int, point: Point, symbol: str, body: Body
) -> None:
    """`body` over vectors of the axis `symbol` from start to stop, `unroll` whole ones at a time, each exactly once."""
    lanes = h.lane_count
    length = stop - start
    if isinstance(length, int) and length < lanes:
        if length:
            body([child(point, symbol, start + Dim.symbol(LANE), below(h, length))])
        return
    if unroll == 1 and target.masked_memory and length % lanes != 0:
        _in_two_parts(h, start, stop, point, symbol, body)
        return
    block = lanes * unroll
    whole = start + length // block * block
    if whole != stop:
        whole = named(h, "whole", whole, lanes if length % lanes == 0 == start % lanes else 1)
    if whole != start:
        with h.loop("j", start, whole, block) as j:
            body([child(point, symbol, j + (Dim.symbol(LANE) + n * lanes)) for n in range(unroll)])
    rest = stop - whole
    if isinstance(rest, int):
        for first in range(0, rest, lanes):
            mask = below(h, rest - first) if rest - first < lanes else None
            body([child(point, symbol, whole + (Dim.symbol(LANE) + first), mask)])
    else:
        exact = length % lanes == 0
        with h.loop("j", whole, stop, lanes) as j:
            body([child(point, symbol, j + Dim.symbol(LANE), None if exact else below(h, stop - j))])


def _in_two_parts(h: Builder, start: Size, stop: Size, point: Point, symbol: str, body: Body) -> None:
    """One emission of the body: part 0 has the whole vectors, part 1 the last lanes."""
    lanes = h.lane_count
    whole = named(h, "whole", start + (stop - start) // lanes * lanes)
    with h.loop("part", 0, 2) as part:
        first = named(h, "first", start + part * (whole - start))
        last = named(h, "last", whole + part * (stop - whole))
        mask = below(h, lanes + part * (stop - whole - lanes))
        with h.loop("j", first, last, lanes) as j:
            body([child(point, symbol, j + Dim.symbol(LANE), mask)])
