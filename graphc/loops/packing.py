"""Packing: copies of a matrix operand into scratch, k-major, so that a tile reads it with stride 1.

`pack(...)` copies `groups` vectors of *columns* (B) or *rows* (A): both are "lanes" here, and element (p, lane) lands
at panel[p * width + lane]. Three ways: vectors along the lanes are copied; vectors along k are transposed in registers
by log2(lanes) rounds of zips; anything else is gathered, and so are vectors along k where gathers are good (they
compile in a quarter of the time and need no constants in registers, which the tile would have to do without).
To add a layout, add a way here; tiles only ever see k-major panels.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.loops.builder import Builder, Scalar
from graphc.loops.ir import Load, Store, VType
from graphc.types import DType, Size, minimum


@dataclass(frozen=True)
class Source:
    """The matrix part to pack: element (p, lane) is buffer[base + p * k_stride + lane * lane_stride].

    Lanes from `limit` on do not exist. They come out as zeros or as copies of the last one, and are not read.
    """

    buffer: str
    dtype: DType
    base: Size
    k_stride: Size
    lane_stride: Size
    limit: Size


def pack(builder: Builder, source: Source, length: Size, panel: str, at: Size, groups: int, gathers: bool) -> None:
    """Copy `length` steps of k of `groups` vectors to panel[at ...]; rows of the panel have groups * lanes elements.

    The panel needs room for `length` rounded up to a whole vector, and limit must be positive if length is. `gathers`:
    whether the target has gathers worth using.
    """
    if source.lane_stride == 1:
        _copy(builder, source, length, panel, at, groups)
    elif source.k_stride == 1 and source.dtype.itemsize >= 4 and not gathers:
        _transpose(builder, source, length, panel, at, groups)
    else:
        _gather(builder, source, length, panel, at, groups)


def lane_mask(builder: Builder, first: Size, limit: Size) -> Scalar | None:
    """Which of the lanes first, first + 1, ... are below `limit`; None if it is plain that all are."""
    slack = limit - first
    if isinstance(slack, int) and slack >= builder.lane_count:
        return None
    lanes = builder.symbols["lane"]
    return builder.lt(lanes, builder.index(slack))


def _copy(builder: Builder, source: Source, length: Size, panel: str, at: Size, groups: int) -> None:
    lanes = builder.lane_count
    masks = [lane_mask(builder, g * lanes, source.limit) for g in range(groups)]
    with builder.loop("p", 0, length) as p:
        for g, mask in enumerate(masks):
            index = builder.index(source.base + p * source.k_stride + g * lanes)
            vector = Load(source.buffer, index.expr, VType(source.dtype, lanes), mask.expr if mask else None)
            builder.emit(Store(panel, builder.index(at + p * (groups * lanes) + g * lanes).expr, vector))


def _transpose(builder: Builder, source: Source, length: Size, panel: str, at: Size, groups: int) -> None:
    """Squares of lanes x lanes: as many loads along k as lanes, zips, then as many stores along the lanes."""
    lanes = builder.lane_count
    exact = isinstance(source.limit, int) and source.limit >= groups * lanes
    with builder.loop("group", 0, groups) as g, builder.loop("p", 0, length, lanes) as p:
        mask = None if isinstance(length, int) and length % lanes == 0 else lane_mask(builder, p, length)
        square = []
        for number in range(lanes):
            lane = g * lanes + number if exact else minimum(g * lanes + number, source.limit - 1)
            index = builder.index(source.base + lane * source.lane_stride + p)
            load = Load(source.buffer, index.expr, VType(source.dtype, lanes), mask.expr if mask else None)
            square.append(builder.let(load, builder.depth, "x"))
        for row, vector in enumerate(zipped(builder, square)):
            index = builder.index(at + (p + row) * (groups * lanes) + g * lanes)
            builder.emit(Store(panel, index.expr, vector.expr))


def zipped(builder: Builder, vectors: list[Scalar]) -> list[Scalar]:
    """log2(n) rounds over n vectors; each zips vector i with vector i + n/2. With n = lanes it is the transpose."""
    half = len(vectors) // 2
    for _ in range(len(vectors).bit_length() - 1):
        pairs = [(vectors[i], vectors[i + half]) for i in range(half)]
        vectors = [builder.op(name, a.dtype, a, b) for a, b in pairs for name in ("zip_low", "zip_high")]
    return vectors


def _gather(builder: Builder, source: Source, length: Size, panel: str, at: Size, groups: int) -> None:
    lanes = builder.lane_count
    stride = builder.index(source.lane_stride)
    with builder.loop("p", 0, length) as p:
        for g in range(groups):
            mask = lane_mask(builder, g * lanes, source.limit)
            first = builder.index(source.base + p * source.k_stride + g * lanes * source.lane_stride)
            index = builder.add(builder.mul(builder.symbols["lane"], stride), first)
            load = Load(source.buffer, index.expr, VType(source.dtype, lanes), mask.expr if mask else None)
            builder.emit(Store(panel, builder.index(at + p * (groups * lanes) + g * lanes).expr, load))
