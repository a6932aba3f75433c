"""A product over an array that is spread out between zeros is computed phase by phase, without the zeros.

The gradient of a convolution with stride s with respect to its images, and a transposed convolution, read slopes that
stand s positions apart (`unslice` with steps). Of the taps of a window only every s-th meets a slope, and which ones
depends on the position of the result modulo s, its *phase*. With i = s*i' + r on an axis `i+t`, spread from position b:

    (i + d*t - b) / s  is whole  for  t = t0(r), t0 + s, ...      and there the slope at  i' + (r + d*t0 - b)/s + d*t'

which is a dense product over a part of the taps. The results of the phases are put back in place by `unslice` and
added, where each element is of one phase. Where a result has few channels, the phases are channels of one product
instead, so that vectors are full: the taps are then made up to a multiple of s, and the result is transposed.
Enter at `split_strides`; which way is taken is said in `_together`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd, prod
from typing import cast

from graphc.build import Tensor, apply
from graphc.graph import Graph, Node, Value
from graphc.ops.convolution import Axis, Spec, contract, label_sizes, parse
from graphc.ops.joining import stack
from graphc.ops.movement import reshape, slice_op, transpose
from graphc.ops.padding import unslice
from graphc.ops.sources import zeros
from graphc.passes.windows import every, unspread, window
from graphc.types import Size, ceildiv

LANES = 16  # what vectors hold on the widest target: fewer channels leave lanes idle
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Spread:
    """An axis `i+d*t` of an operand: the element u of `x` stands at position start + u*step, zeros elsewhere."""

    place: int  # of the axis in the operand
    i: str
    t: str
    d: int
    start: int
    step: int
    size: Size  # of i
    taps: int

    def phase(self, r: int) -> tuple[int, int, int, int]:
        """(first tap, step of taps, number of taps, slope under the first tap at i' = 0) of the phase r."""
        common = gcd(self.step, self.d)
        by = self.step // common
        for t in range(min(by, self.taps)):
            if (r + self.d * t - self.start) % self.step == 0:
                return t, by, -(-(self.taps - t) // by), (r + self.d * t - self.start) // self.step
        return 0, by, 0, 0

    @property
    def hole(self) -> int:
        """How far the slopes of neighbouring taps of a phase are apart."""
        return self.d // gcd(self.step, self.d)


def split_strides(graph: Graph) -> Graph:
    """The graph with every `contract` of a spread operand taken apart into phases."""

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.name != "contract":
            return None
        spec, shape = parse(node.attrs["spec"]), node.attrs["shape"]
        sizes = label_sizes(spec, [v.type for v in inputs], shape)
        x, y = Tensor(inputs[0]), Tensor(inputs[1])
        turned = Spec(spec.b, spec.a, spec.out)
        for form, first, second in ((spec, x, y), (turned, y, x)):
            base, starts, steps = unspread(first.ref)
            found = _spread_axes(form, base.shape, starts, steps, sizes)
            if found and all(isinstance(start, int) for start in starts):
                return [_Phases(form, found, base, cast(list[int], starts), second, shape, sizes).result().ref]
        return None

    return graph.rewrite(visit)


def _spread_axes(
    spec: Spec, extents: Sequence[Size], starts: Sequence[Size], steps: Sequence[int], sizes: dict[str, Size]
) -> list[Spread]:
    """The axes of the first operand that are spread out; none if one of them has another form than `i+d*t`."""
    found = []
    for place, (axis, step, start) in enumerate(zip(spec.a, steps, starts, strict=True)):
        if step == 1 or extents[place] == 1:
            continue
        if len(axis) != 2 or axis[0][1] != 1 or ((axis[0][0], 1),) not in spec.out:
            return []
        (i, _), (t, d) = axis
        if ((t, 1),) not in spec.b or not isinstance(start, int) or not isinstance(sizes[t], int):
            return []
        found.append(Spread(place, i, t, d, start, step, sizes[i], cast(int, sizes[t])))
    return found


class _Phases:
    """One product being taken apart: `spec` with the spread operand x (between its zeros) first."""

    def __init__(
        self, spec: Spec, spread: list[Spread], x: Tensor, starts: Sequence[int], y: Tensor, shape: Sequence[Size],
        sizes: Mapping[str, Size],
    ) -> None:  # fmt: skip
        self.spec, self.spread, self.y, self.shape = spec, spread, y, tuple(shape)
        self.x, self.first = x, [-start for start in starts]
        self.length = [sum(((sizes[label] - 1) * factor for label, factor in axis), cast(Size, 1)) for axis in spec.a]
        self.taps = [spec.b.index(((axis.t, 1),)) for axis in spread]  # their places in y
        self.places = [spec.out.index(((axis.i, 1),)) for axis in spread]  # and those of their positions in the result

    def result(self) -> Tensor:
        return self._together() if self._few_channels() else self._apart()

    def _apart(self) -> Tensor:
        """A product for each phase that has taps."""
        result: Tensor | None = None
        for phase in product(*(range(axis.step) for axis in self.spread)):
            part = self._one(phase)
            if part is not None:
                starts, steps = [0] * len(self.shape), [1] * len(self.shape)
                for place, axis, r in zip(self.places, self.spread, phase, strict=True):
                    starts[place], steps[place] = r, axis.step
                spread = unslice(part, self.shape, starts, steps)
                result = spread if result is None else result + spread
        return zeros(self.shape, self.x.dtype) if result is None else result

    def _one(self, phase: Sequence[int]) -> Tensor | None:
        y, shape, axes = self.y, list(self.shape), list(self.spec.a)
        starts, length = list(self.first), list(self.length)
        for axis, r, tap, place in zip(self.spread, phase, self.taps, self.places, strict=True):
            t, by, count, first = axis.phase(r)
            shape[place] = ceildiv(axis.size - r, axis.step)
            if count == 0 or shape[place] == 0:
                return None
            y = every(y, tap, t, by, count)
            starts[axis.place], length[axis.place] = first, shape[place] + axis.hole * (count - 1)
            axes[axis.place] = ((axis.i, 1), (axis.t, axis.hole))
        return contract(Spec(tuple(axes), self.spec.b, self.spec.out), window(self.x, starts, length), y, shape)

    def _few_channels(self) -> bool:
        """Whether more lanes work with the phases as channels, zeros among the taps counted."""
        windows = {axis.t for axis in self.spread}
        labels = [axis[0][0] for axis in self.spec.b if axis in self.spec.out and axis[0][0] not in windows]
        channels = prod(size for size in (self.y.shape[self.spec.b.index(((name, 1),))] for name in labels))
        if not labels or not isinstance(channels, int) or any(axis.d != 1 for axis in self.spread):
            return False
        phases, taps = prod(axis.step for axis in self.spread), prod(axis.taps for axis in self.spread)
        filled = prod(-(-axis.taps // axis.step) for axis in self.spread)
        return filled * -(-channels * phases // LANES) < taps * -(-channels // LANES)

    def _together(self) -> Tensor:
        """One product whose channels are those of all phases; then the phases take their places."""
        axes, shape, lows, length = list(self.spec.a), list(self.shape), list(self.first), list(self.length)
        starts = []
        for axis, place in zip(self.spread, self.places, strict=True):
            forms = [axis.phase(r) for r in range(axis.step)]
            low = min(first for _, _, count, first in forms if count)
            count = max(first + count for _, _, count, first in forms if count) - low
            starts.append((low, count))
            shape[place] = ceildiv(axis.size, axis.step)
            lows[axis.place], length[axis.place] = low, shape[place] + count - 1
        parts = [self._filled(phase, starts) for phase in product(*(range(axis.step) for axis in self.spread))]
        channel = next(axis for axis in self.spec.out if axis in self.spec.b)
        used = {label for axes_ in self.spec for axis in axes_ for label, _ in axis}
        label: Axis = ((next(letter for letter in LETTERS if letter not in used), 1),)
        before = self.spec.b.index(channel)
        of_y = (*self.spec.b[:before], label, *self.spec.b[before:])
        at = self.spec.out.index(channel)
        out = (*self.spec.out[:at], label, *self.spec.out[at:])
        whole = [*shape[:at], len(parts), *shape[at:]]
        x, y = window(self.x, lows, length), stack(parts, before)
        return self._placed(contract(Spec(tuple(axes), of_y, out), x, y, whole), at)

    def _filled(self, phase: Sequence[int], starts: Sequence[tuple[int, int]]) -> Tensor:
        """The taps of a phase, with zeros where only other phases have one."""
        y = self.y
        for axis, r, tap, (low, length) in zip(self.spread, phase, self.taps, starts, strict=True):
            t, by, count, first = axis.phase(r)
            y = every(y, tap, t, by, count)
            begin, size = [0] * y.ndim, list(y.shape)
            begin[tap], size[tap] = low - first, length
            y = window(y, begin, size)
        return y

    def _placed(self, result: Tensor, at: int) -> Tensor:
        """The result whose axis `at` counts phases, with each phase in its place."""
        steps = [axis.step for axis in self.spread]
        parted = reshape(result, [*result.shape[:at], *steps, *result.shape[at + 1 :]])
        order: list[int] = []
        shape: list[Size] = []
        cut = list(self.shape)
        for place in range(len(self.shape)):
            order.append(place if place < at else place + len(steps))
            size = parted.shape[order[-1]]
            if place in self.places:
                number = self.places.index(place)
                order.append(at + number)
                size = size * steps[number]
            shape.append(size)
        whole = reshape(transpose(parted, order), shape)
        if tuple(shape) == tuple(cut):
            return whole
        zero = (0,) * len(cut)
        return cast(Tensor, apply(slice_op, whole, starts=zero, stops=tuple(cut), steps=(1,) * len(cut)))
