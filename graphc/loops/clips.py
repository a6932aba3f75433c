"""Windows that reach beyond an operand: which steps of a contraction are left for a batch element, and for a row.

A window's loop runs over the steps that meet an element (`Clip` in problem.py), so padding is neither copied nor
multiplied. Where the window moves with a batch axis, its bounds follow from the index at run time: `steps_left`. Where
it moves with the rows of a tile, which of them lack which steps is known when the code is made: `spans` says for which
tiles, and their loops are cut into segments in which the same rows take part. If that loop runs around the blocks, all
steps of a block belong to one segment, which its index tells at run time: `segments_of`. Enter at `clipped`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from graphc.loops.blocks import bind
from graphc.loops.builder import Builder, Scalar
from graphc.loops.problem import Clip, Problem
from graphc.loops.row_tiles import first_row
from graphc.loops.schedule import Schedule
from graphc.loops.tile import Segment, Segments, Steps
from graphc.types import Size, maximum, minimum


@dataclass(frozen=True)
class Block:
    """A block of steps: how far it lies in A and in B, the steps of the loops inside it (the k loop is the last; those
    of the first are counted from `begin`) and, of several, whether it is the first, the last; `digits` say which step
    of the loops around the blocks. `here` is 0 where a batch element lacks that step.
    """

    a: Size
    b: Size
    loops: tuple[Steps, ...]
    begin: Size
    first: Scalar | None
    last: Scalar | None
    digits: tuple[Size, ...]
    segments: Segments | None = None
    here: Size = 1

    @property
    def nest(self) -> tuple[Steps, ...]:
        """The steps of the loops around the k loop."""
        return self.loops[:-1]

    @property
    def steps(self) -> Steps:
        """Those of the k loop."""
        return self.loops[-1]

    @property
    def length(self) -> Size:
        return self.steps[1] - self.steps[0]


def clipped(builder: Builder, problem: Problem, schedule: Schedule, where: Sequence[Size], block: Block) -> Block:
    """The block with what the clips leave of its loops for the batch element `where`."""
    if not problem.clips:
        return block
    bounds, loops = steps_left(builder, problem, where), list(block.loops)
    for n, bound in enumerate(bounds[schedule.split :]):
        (start, stop), begin = loops[n], block.begin if n == 0 else 0
        if bound is not None:
            start = bind(builder, "step", minimum(stop, maximum(0, bound[0] - begin)))
            loops[n] = start, bind(builder, "step", maximum(start, minimum(stop, bound[1] - begin)))
    here: Size = 1
    for digit, bound in zip(block.digits, bounds, strict=False):
        if bound is not None:  # a step of a loop around the blocks that does not count has no steps inside
            here = bind(builder, "step", here * _inside(digit, *bound))
    start, stop = loops[-1]
    loops[-1] = start, bind(builder, "step", start + (stop - start) * here)
    return replace(block, loops=tuple(loops), here=here)


def _inside(step: Size, start: Size, stop: Size) -> Size:
    """1 from start below stop, else 0."""
    return minimum(1, maximum(0, minimum(step - start, stop - 1 - step) + 1))


def steps_left(builder: Builder, problem: Problem, where: Sequence[Size]) -> list[Steps | None]:
    """From which step to which each loop runs for the batch element `where`, k last; None if nothing clips it."""
    lengths = [*(loop.extent for loop in problem.outer), problem.k]
    found: list[Steps | None] = [None] * len(lengths)
    for clip in problem.clips:
        if clip.batch is None:
            continue
        low, high = clip.steps(where[clip.batch] if where else 0, lengths[clip.loop])
        before = found[clip.loop]
        both = (low, high) if before is None else (maximum(low, before[0]), minimum(high, before[1]))
        found[clip.loop] = bind(builder, "low", both[0]), bind(builder, "high", both[1])
    return found


@dataclass(frozen=True)
class Span:
    """Tiles of one height, from start below stop, whose rows lack the same steps.

    The loop of its segments is negative where it runs around the blocks, or where the window has one step and no loop.
    """

    start: int
    stop: int
    height: int
    segments: Segments | None


def spans(problem: Problem, schedule: Schedule) -> list[Span]:
    """All tiles of a problem with a clip of its rows, where m is known."""
    clip = problem.row_clip
    assert clip is not None and isinstance(problem.m, int)
    length = [*(loop.extent for loop in problem.outer), problem.k][clip.loop] if clip.by else 1
    assert isinstance(length, int)
    found: list[Span] = []
    for number in range(cast(int, schedule.tiles)):
        row = cast(int, first_row(schedule, number))
        height = cast(int, minimum(first_row(schedule, number + 1), problem.m)) - row
        parts = tuple(_segments(clip, row, height, length))
        whole = parts == (Segment(0, length, range(height)),)
        segments = None if whole else Segments(clip.loop - schedule.split if clip.by else -1, parts)
        if found and (found[-1].height, found[-1].segments) == (height, segments):
            found[-1] = replace(found[-1], stop=number + 1)
        else:
            found.append(Span(number, number + 1, height, segments))
    return found


def segments_of(builder: Builder, problem: Problem, block: Block, span: Span) -> Segments | None:
    """Which rows of a span's tiles have which steps of a block; None if all have all."""
    clip, segments = problem.row_clip, span.segments
    if clip is None or segments is None:
        return None
    if segments.loop >= 0 and all(other is clip or other.loop != clip.loop for other in problem.clips):
        return replace(segments, parts=tuple(replace(part, here=block.here) for part in segments.parts))
    if segments.loop >= 0:  # the batch element has its say about the same loop
        return replace(segments, parts=tuple(_within(builder, p, block.loops[segments.loop]) for p in segments.parts))
    start, stop = block.loops[0]
    if not clip.by:
        return Segments(0, tuple(Segment(start, stop, part.rows) for part in segments.parts))
    digit = block.digits[clip.loop]
    inside = [bind(builder, "step", _inside(digit, part.start, part.stop)) for part in segments.parts]
    parts = [Segment(start, stop, part.rows, here) for part, here in zip(segments.parts, inside, strict=True)]
    return Segments(0, tuple(parts))


def _within(builder: Builder, part: Segment, steps: Steps) -> Segment:
    start = bind(builder, "low", maximum(part.start, steps[0]))
    return Segment(start, bind(builder, "high", maximum(start, minimum(part.stop, steps[1]))), part.rows)


def _segments(clip: Clip, first: int, height: int, length: int) -> list[Segment]:
    """The steps of a loop for `height` rows from `first` on."""
    ranges = [clip.steps(first + r, length) for r in range(height)]
    cuts = sorted({0, length, *(cast(int, at) for steps in ranges for at in steps)})
    found = []
    for start, stop in itertools.pairwise(cuts):
        rows = [r for r, (low, high) in enumerate(ranges) if cast(int, low) <= start and stop <= cast(int, high)]
        if rows:  # windows move on with the rows: those that have a step stand together
            found.append(Segment(start, stop, range(rows[0], rows[-1] + 1)))
    return found
