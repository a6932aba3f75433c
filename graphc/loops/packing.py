"""Packing: copies of a matrix operand into scratch, k-major, so that a tile reads it with stride 1.

`pack(...)` copies `groups` vectors of *columns* (B) or *rows* (A): both are "lanes" here, and element (p, lane) lands
at panel[p * width + lane]. Three ways: vectors along the lanes are copied; what lies along k is transposed in
registers; anything else is gathered. To add a layout, add a way here; tiles only ever see k-major panels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Union

from graphc.loops.blocks import bind
from graphc.loops.builder import LANE, Builder, Scalar
from graphc.loops.ir import Expr, Load, Op, Store, VType, const
from graphc.loops.problem import Problem
from graphc.loops.schedule import Schedule, ceildiv_int
from graphc.types import Dim, DType, Size, int64, minimum

STEPS = 8  # of k that tiles are packed for at a time
COPIED = 4  # vectors of a lane that are computed at a time
PART_BYTES = 16  # lanes move within parts of a register by one instruction, and so do whole parts


# Computes the elements (step of k, lane) of an operand; one of the two moves with the lanes of the builder.
Read = Callable[[Builder, Size, Size, Union[Scalar, None]], Scalar]


@dataclass(frozen=True)
class Source:
    """The matrix part to pack: element (p, lane) is buffer[base + p * k_stride + lane * lane_stride].

    Lanes from `limit` on do not exist. They come out as zeros or as copies of the last one, and are not read.
    read: computes the elements instead, those of an array for which the same would be true. wide: what they are cast to
    as they are loaded, where the panel holds that; only of what is transposed.
    """

    buffer: str
    dtype: DType
    base: Size
    k_stride: Size
    lane_stride: Size
    limit: Size
    read: Read | None = None
    wide: DType | None = None

    @property
    def packed(self) -> DType:
        """Of the elements of the panel."""
        return self.wide or self.dtype

    def vector(self, builder: Builder, p: Size, lane: Size, mask: Scalar | None) -> Expr:
        """The elements (p, lane); one of the two moves with the lanes."""
        if self.read is not None:
            return builder.widened(self.read(builder, p, lane, mask), builder.lane_count).expr
        _, place = builder.lane_form(self.base + p * self.k_stride + lane * self.lane_stride)
        vtype = VType(self.dtype, builder.lane_count)
        return Load(self.buffer, builder.index(place).expr, vtype, mask.expr if mask else None)


def packing_read(
    problem: Problem, side: str, builder: Builder, first: Size, begin: Size = 0, where: tuple[Size, ...] = (),
    alone: bool = False,
) -> Read | None:  # fmt: skip
    """What computes the elements of a computed operand, if it is one, without loops around its steps.

    Its lanes count from `first`, the steps of k from `begin`. side: "a" or "b". where: the batch element. alone: in a
    kernel that has nothing but its sources, which are then b0, b1, ...
    """
    computed = (problem.a if side == "a" else problem.b).computed
    if computed is None:
        return None
    buffers = [f"b{n}" for n in range(len(computed.sources))] if alone else computed.sources
    read = computed.reader(buffers, builder)

    def element(h: Builder, p: Size, lane: Size, mask: Scalar | None) -> Scalar:
        row, col = (first + lane, 0) if side == "a" else (0, first + lane)
        return read(h, where, row, col, (begin + p,), mask)

    return element


def pack(builder: Builder, source: Source, length: Size, panel: str, at: Size, groups: int) -> None:
    """Copy `length` steps of k of `groups` vectors to panel[at ...]; rows of the panel have groups * lanes elements.

    The panel needs room for `length` rounded up to a whole vector, and limit must be positive if length is.
    """
    if source.lane_stride == 1:
        _copy(builder, source, length, panel, at, groups)
    elif source.k_stride == 1 and source.packed.itemsize >= 4:
        transpose = _transpose if source.read is None else _transpose_computed
        transpose(builder, source, length, panel, at, groups)
    else:
        pack_gathered(builder, source, length, panel, at, groups)


def lane_mask(builder: Builder, first: Size, limit: Size) -> Scalar | None:
    """Which of the lanes first, first + 1, ... are below `limit`; None if it is plain that all are."""
    slack = limit - first
    if isinstance(slack, int) and slack >= builder.lane_count:
        return None
    lanes = builder.symbols["lane"]
    return builder.lt(lanes, builder.index(slack))


@dataclass(frozen=True)
class Rows:
    """Tiles to pack: tile t begins at row `place(t)`, has `height` rows (or fewer), and goes to panel[t * size]."""

    place: Callable[[Size], Size]
    height: int
    size: int


def packed_tile(schedule: Schedule, length: int) -> tuple[int, int]:
    """(rows, elements) of a packed tile of A with `length` steps."""
    s = schedule
    rows = s.height if s.together > 1 else ceildiv_int(s.height, s.lanes) * s.lanes  # squares are stored whole
    return rows, (ceildiv_int((length + STEPS) * rows, s.lanes) + 1) * s.lanes


def pack_rows(
    builder: Builder, source: Source, length: Size, panel: str, at: Size, rows: Rows, last: Size, exact: bool
) -> None:
    """Copy a transposed operand (lane_stride 1) for the tiles 0 to `last`: all of them for a few steps at a time.

    So a cache line that neighbouring tiles share is fetched once. A vector that is longer than a tile reaches into
    what is written next: a tile needs room for `length` rounded up to STEPS, and for a vector more. exact: it is round.
    """
    lanes = builder.lane_count
    # where most of a vector belongs to the next steps, it would only cross into another cache line for them
    part = lane_mask(builder, 0, rows.height) if 2 * rows.height <= lanes else None
    inside = part.expr if part else None
    with builder.loop("p", 0, length, STEPS) as p:
        steps = [p + n if exact else minimum(p + n, length - 1) for n in range(STEPS)]
        with builder.loop("t", 0, last) as t:
            row = bind(builder, "row", rows.place(t))
            for n, step in enumerate(steps):
                for first in range(0, rows.height, lanes):
                    mask = lane_mask(builder, row + first, source.limit)
                    load = source.vector(builder, step, row + first + Dim.symbol(LANE), mask)
                    to = builder.index(at + t * rows.size + (p + n) * rows.height + first)
                    builder.emit(Store(panel, to.expr, load, inside))


def copy_rows(builder: Builder, read: Read | None, count: Size, length: Size, panel: str, distance: Size) -> None:
    """Compute `count` lanes, each with its steps of k side by side: element (p, lane) lands at p + lane * distance."""
    assert read is not None
    lanes, known = builder.lane_count, isinstance(length, int)
    times = COPIED if known and length % (COPIED * lanes) == 0 else 1
    with builder.loop("line", 0, count) as line, builder.loop("p", 0, length, times * lanes) as p:
        mask = None if known and length % lanes == 0 else lane_mask(builder, p, length)
        for step in [p + n * lanes for n in range(times)]:
            value = builder.widened(read(builder, step + Dim.symbol(LANE), line, mask), lanes)
            builder.emit(Store(panel, builder.index(step + line * distance).expr, value.expr))


def _copy(builder: Builder, source: Source, length: Size, panel: str, at: Size, groups: int) -> None:
    lanes = builder.lane_count
    masks = [lane_mask(builder, g * lanes, source.limit) for g in range(groups)]
    with builder.loop("p", 0, length) as p:
        for g, mask in enumerate(masks):
            vector = source.vector(builder, p, g * lanes + Dim.symbol(LANE), mask)
            builder.emit(Store(panel, builder.index(at + p * (groups * lanes) + g * lanes).expr, vector))


def _transpose(builder: Builder, source: Source, length: Size, panel: str, at: Size, groups: int) -> None:
    """As many steps of k at a time as a part of a register has lanes."""
    lanes, part = builder.lane_count, part_lanes(builder, source.packed)
    exact = isinstance(source.limit, int) and source.limit >= groups * lanes
    with builder.loop("group", 0, groups) as g, builder.loop("p", 0, length, part) as p:
        mask = None
        if not isinstance(length, int) or length < part:
            numbers = Scalar(Op("lanes", (), VType(int64, part)))
            mask = builder.lt(numbers, builder.widened(builder.index(length - p), part)).expr
        elif length % part:  # the last steps are copied twice
            p = bind(builder, "p", minimum(p, length - part))
        places: list[Size] = [g * lanes + lane for lane in range(lanes)]
        places = places if exact else [minimum(lane, source.limit - 1) for lane in places]
        for row, vector in enumerate(turned_steps(builder, source, p, places, mask)):
            index = builder.index(at + (p + row) * (groups * lanes) + g * lanes)
            builder.emit(Store(panel, index.expr, vector.expr))


def part_lanes(builder: Builder, dtype: DType) -> int:
    """How many steps of k are transposed at a time."""
    return min(builder.lane_count, PART_BYTES // dtype.itemsize)


def turned_steps(builder: Builder, source: Source, p: Size, lanes: list[Size], mask: Expr | None) -> list[Scalar]:
    """The steps from `p` on, as many as a part has lanes, of a source whose steps lie side by side.

    Each part of a vector is loaded by itself, from the lane where it belongs, so that only zips within parts are left
    to do: a third of the instructions of squares of whole vectors, and as fast. lanes: which lane of the source each
    lane is. mask: of the steps.
    """
    part = part_lanes(builder, source.packed)
    some = VType(source.dtype, part)
    vectors = []
    for number in range(part):
        pieces: list[Expr] = []
        for lane in lanes[number::part]:
            place = builder.index(source.base + p * source.k_stride + lane * source.lane_stride)
            loaded = builder.let(Load(source.buffer, place.expr, some, mask), builder.depth, "x")
            pieces.append(builder.cast(loaded, source.packed).expr)
        vectors.append(builder.let(_joined(pieces, VType(source.packed, part)), builder.depth))
    return _zipped(builder, vectors, part)


def _joined(pieces: list[Expr], vtype: VType) -> Expr:
    """The lanes of all pieces, one after the other."""
    while len(pieces) > 1:
        vtype = VType(vtype.dtype, 2 * vtype.lanes)
        pieces = [Op("join", pair, vtype) for pair in zip(pieces[::2], pieces[1::2], strict=True)]
    return pieces[0]


def _transpose_computed(builder: Builder, source: Source, length: Size, panel: str, at: Size, groups: int) -> None:
    """Squares of lanes x lanes: as many vectors along k as lanes, zips, then as many stores along the lanes."""
    lanes = builder.lane_count
    exact = isinstance(source.limit, int) and source.limit >= groups * lanes
    with builder.loop("group", 0, groups) as g, builder.loop("p", 0, length, lanes) as p:
        mask = None if isinstance(length, int) and length % lanes == 0 else lane_mask(builder, p, length)
        square = []
        for number in range(lanes):
            lane = g * lanes + number if exact else minimum(g * lanes + number, source.limit - 1)
            load = source.vector(builder, p + Dim.symbol(LANE), lane, mask)
            square.append(builder.let(load, builder.depth, "x"))
        for row, vector in enumerate(transposed(builder, square)):
            index = builder.index(at + (p + row) * (groups * lanes) + g * lanes)
            builder.emit(Store(panel, index.expr, vector.expr))


def transposed(builder: Builder, vectors: list[Scalar]) -> list[Scalar]:
    """The transpose of a square: vector i of the result has lane i of each vector.

    First in parts of 16 bytes, by zips of longer and longer runs (the lanes of `part` vectors come together), then the
    parts of groups of such vectors: machines have instructions for just these, without constants.
    """
    lanes, part = len(vectors), min(len(vectors), PART_BYTES // vectors[0].dtype.itemsize)
    groups = [_zipped(builder, vectors[i : i + part], part) for i in range(0, lanes, part)]
    columns = [_spread(builder, [group[c] for group in groups], part) for c in range(part)]
    return [columns[c][q] for q in range(lanes // part) for c in range(part)]


def _zipped(builder: Builder, vectors: list[Scalar], part: int) -> list[Scalar]:
    """As many vectors as a part has lanes, transposed in every part."""
    run, dtype = 1, vectors[0].dtype
    while run < part:
        pairs = []
        for i in range(0, part, 2 * run):
            pairs += [(vectors[i + t], vectors[i + run + t]) for t in range(run)]
        counts = (const(run), const(part))
        vectors = [_shuffled(builder, name, dtype, a, b, counts) for a, b in pairs for name in ("zip_low", "zip_high")]
        run *= 2
    return vectors


def _spread(builder: Builder, vectors: list[Scalar], part: int) -> list[Scalar]:
    """Vector q of the result has part q of each."""
    if len(vectors) == 1:
        return vectors
    pairs, dtype = list(zip(vectors[::2], vectors[1::2], strict=True)), vectors[0].dtype
    halves = [
        _spread(builder, [_shuffled(builder, name, dtype, a, b, (const(part),)) for a, b in pairs], part)
        for name in ("even", "odd")
    ]
    return [vector for pair in zip(*halves, strict=True) for vector in pair]


def _shuffled(builder: Builder, name: str, dtype: DType, a: Scalar, b: Scalar, counts: tuple[Expr, ...]) -> Scalar:
    op = Op(name, (a.expr, b.expr, *counts), VType(dtype, a.lanes))
    return builder.let(op, max(a.depth, b.depth))


def pack_gathered(builder: Builder, source: Source, length: Size, panel: str, at: Size, groups: int) -> None:
    """The same, element by element: a few lines of code, for panels that are small beside what is done with them."""
    lanes = builder.lane_count
    stride = builder.index(source.lane_stride)
    with builder.loop("p", 0, length) as p:
        for g in range(groups):
            mask = lane_mask(builder, g * lanes, source.limit)
            if source.read is not None:
                vector = source.vector(builder, p, g * lanes + Dim.symbol(LANE), mask)
                builder.emit(Store(panel, builder.index(at + p * (groups * lanes) + g * lanes).expr, vector))
                continue
            first = builder.index(source.base + p * source.k_stride + g * lanes * source.lane_stride)
            index = builder.add(builder.mul(builder.symbols["lane"], stride), first)
            load = Load(source.buffer, index.expr, VType(source.dtype, lanes), mask.expr if mask else None)
            builder.emit(Store(panel, builder.index(at + p * (groups * lanes) + g * lanes).expr, load))
