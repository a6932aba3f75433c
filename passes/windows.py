"""Parts of arrays with zeros around them: what windows that reach beyond an array read.

`unspread` sees through slices and `unslice`s to the array below, `window` makes one slice and one `unslice` of them
again, and `is_clipped` says which products read such an array as it lies in memory: their loops leave out the steps
that would meet a zero (`graphc.loops.schedule.Clip`). Others get a padded copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from graphc.build import Tensor, apply
from graphc.graph import Node, Value
from graphc.ops.convolution import Axis, Spec, label_sizes, parse
from graphc.ops.movement import slice_op
from graphc.ops.padding import unslice
from graphc.types import Size, maximum, minimum

FEW_ROWS = 8  # of a tile leave the multipliers waiting


def unspread(value: Value) -> tuple[Tensor, list[Size], list[int]]:
    """(x, starts, steps): element u of x is element start + u*step of `value`, which has zeros elsewhere."""
    node = value.node
    starts: list[Size] = [0] * value.type.rank
    steps = [1] * value.type.rank
    while node.op.name == "slice" and all(step == 1 for step in node.attrs["steps"]):
        starts = [start - cut for start, cut in zip(starts, node.attrs["starts"], strict=True)]
        node = node.inputs[0].node
    while node.op.name == "unslice" and all(step > 0 for step in node.attrs["steps"]):
        starts = [start + step * more for start, step, more in zip(starts, steps, node.attrs["starts"], strict=True)]
        steps = [step * by for step, by in zip(steps, node.attrs["steps"], strict=True)]
        node = node.inputs[0].node
    return Tensor(Value(node)), starts, steps


def window(x: Tensor, first: Sequence[int], length: Sequence[Size]) -> Tensor:
    """`length` positions of each axis from `first` on, which may be negative; zeros where there is no element."""
    starts: list[Size] = []
    stops: list[Size] = []
    for n, begin, size in zip(x.shape, first, length, strict=True):
        low: Size = max(begin, 0)
        high = minimum(n, begin + size)
        high = maximum(low, high) if low != 0 or isinstance(high, int) else high
        low = minimum(low, high)
        starts.append(low)
        stops.append(high)
    if any(start != 0 or stop != n for n, start, stop in zip(x.shape, starts, stops, strict=True)):
        x = cast(Tensor, apply(slice_op, x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.ndim))
    return unslice(x, tuple(length), [max(-begin, 0) for begin in first], [1] * x.ndim)


def settled(x: Tensor) -> Tensor:
    """The same with at most one slice and one `unslice` behind it, of an array that is padded."""
    base, starts, steps = unspread(x.ref)
    if all(step == 1 for step in steps) and all(isinstance(start, int) for start in starts):
        return window(base, [-cast(int, start) for start in starts], x.shape)
    return x


def every(x: Tensor, axis: int, first: int, step: int, count: int) -> Tensor:
    """The elements first, first + step, ... of an axis."""
    starts: list[Size] = [0] * x.ndim
    stops, steps = list(x.shape), [1] * x.ndim
    starts[axis], stops[axis], steps[axis] = first, first + (count - 1) * step + 1 if count else first, step
    if (first, step) == (0, 1) and stops[axis] == x.shape[axis]:
        return x
    return cast(Tensor, apply(slice_op, x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps)))


def in_memory(value: Value, axes: Sequence[Axis]) -> tuple[Value, list[Axis]]:
    """An operand in front of its transposes, and its axes in that order."""
    found = list(axes)
    while value.op.name == "transpose":
        order = value.node.attrs["axes"]
        found = [found[order.index(axis)] for axis in range(len(found))]
        value = value.node.inputs[0]
    return value, found


def adjacent(value: Value, axes: Sequence[Axis]) -> str:
    """The label whose elements lie side by side in an operand; empty if there is none."""
    value, order = in_memory(value, axes)
    inner = [axis for axis, size in zip(order, value.type.shape, strict=True) if size != 1]
    return inner[-1][-1][0] if inner and inner[-1][-1][1] == 1 and len(inner[-1]) == 1 else ""


def is_clipped(node: Node, position: int) -> bool:
    """Whether a product reads an operand that is an `unslice` as if the padding were there.

    Neither rows nor columns of its tiles may be labels that reach beyond the operand, and both have to be there. But
    where a line of the operand is read at each column of the other one, masks cut it off.
    """
    if node.op.name != "contract":
        return False
    spec = parse(node.attrs["spec"])
    operands = (spec.a, spec.b)
    padded, axes = in_memory(node.inputs[position], operands[position])
    if padded.op.name != "unslice" or any(step != 1 for step in padded.node.attrs["steps"]):
        return False
    out = {axis[0][0] for axis in spec.out}
    clipped: set[str] = set()
    line = position == 0 and reads_lines(spec, node.inputs)
    shapes = padded.node.inputs[0].type.shape, padded.type.shape
    for number, (axis, n, size) in enumerate(zip(axes, *shapes, strict=True)):
        if n != size and not (line and number == len(axes) - 1):
            clipped |= {label for label, _ in axis}
            if sum(label in out for label, _ in axis) > 1 or sum(label not in out for label, _ in axis) > 1:
                return False
    if line:
        return True
    sizes = label_sizes(spec, [v.type for v in node.inputs], node.attrs["shape"])
    sides = [{label for axis in axes for label, _ in axis} for axes in operands]
    for side, value in enumerate(node.inputs):
        col = adjacent(value, operands[side])
        if col not in out or col in clipped:
            continue
        if side == position and isinstance(sizes[col], int) and cast(int, sizes[col]) < FEW_ROWS:
            continue  # too few for columns: with the places of a line of the window they are rows, of a padded copy
        if col in sides[1 - side]:
            return adjacent(node.inputs[1 - side], operands[1 - side]) == col
        rows = (sides[1 - side] & out) - sides[side] - clipped
        counts = [sizes[label] for label in rows]
        return any(not isinstance(n, int) or n >= FEW_ROWS for n in counts)
    return False


def is_line(axis: Axis, lane: str) -> bool:
    """Whether an axis is read at each place of `lane` and of a window."""
    return len(axis) == 2 and (lane, 1) in axis


def reads_lines(spec: Spec, inputs: Sequence[Value]) -> bool:
    """Whether the columns of a product are places of lines, which its first operand has under a window."""
    lane, across = adjacent(inputs[1], spec.b), in_memory(inputs[0], spec.a)[1][-1:]
    out = {axis[0][0] for axis in spec.out}
    return bool(across) and is_line(across[0], lane) and out.issuperset(label for label, _ in across[0])


def computes_windows(node: Node, position: int) -> bool:
    """Whether the loops of a product may compute an operand as they read it.

    Windows of which both operands have the columns (depthwise ones) are read a few times, as vectors; others much more
    often, as numbers.
    """
    if node.op.name != "contract":
        return True
    spec = parse(node.attrs["spec"])
    if reads_lines(spec, node.inputs):
        return False
    axes, sizes = (spec.a, spec.b), label_sizes(spec, [v.type for v in node.inputs], node.attrs["shape"])
    if all(sum(sizes[label] != 1 for label, _ in axis) <= 1 for axis in axes[position]):
        return True
    col = adjacent(node.inputs[position], axes[position])
    out = {axis[0][0] for axis in spec.out}
    return col in out and col == adjacent(node.inputs[1 - position], axes[1 - position])
