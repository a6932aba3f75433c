"""Growing arrays: the op `unslice`, which puts an array where `slice` would read it, and `pad` with its modes.

`unslice` and `slice` are each other's gradients. A padding that copies elements (edge, reflect, ...) is a concat of
slices, so it is differentiable and reads memory in order.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply, signature
from graphc.errors import ArgumentError, ShapeError, fail
from graphc.graph import Attrs, Node, Op, Types, shown
from graphc.ops.comparison import greater_equal, less
from graphc.ops.indexing import getitem
from graphc.ops.joining import concat
from graphc.ops.lowering import IndexHandler, Movement
from graphc.ops.movement import broadcast_to, expand_dims, slice_op
from graphc.ops.operands import TensorLike, as_tensor
from graphc.ops.registry import register
from graphc.ops.samples import ALL, FLOATS, Operand, Sample
from graphc.ops.selection import where
from graphc.ops.sources import dim_value, iota
from graphc.types import Dim, Shape, Size, maximum

Index = tuple[Size, ...]
_B = Dim.symbol("batch")


def _unslice_type(types: Types, attrs: Attrs) -> Types:
    if len(types) != 1:
        raise ArgumentError(f"takes 1 operand, not {len(types)}")
    shape = tuple(attrs["shape"])
    if not len(shape) == len(attrs["starts"]) == len(attrs["steps"]) == types[0].rank:
        raise ShapeError(f"{{0}} is {types[0]}: starts, steps and shape have its rank")
    for axis, (n, size, start, step) in enumerate(
        zip(types[0].shape, shape, attrs["starts"], attrs["steps"], strict=True)
    ):
        last = start + (n - 1) * step
        known = isinstance(size, int) and isinstance(start, int) and isinstance(last, int)
        outside = known and n != 0 and not (0 <= start < size and 0 <= last < size)
        if step == 0 or outside:
            raise ShapeError(f"{{0}} is {types[0]}: {start}, step {step}, leaves axis {axis} of size {size}")
    return (types[0].with_shape(shape),)


def _unslice_reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    (x,) = arrays
    result = np.zeros(attrs["shape"], x.dtype)
    key = [np.arange(n) * step + start for n, start, step in zip(x.shape, attrs["starts"], attrs["steps"], strict=True)]
    result[np.ix_(*key) if key else ()] = x
    return (result,)


def _unslice_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    starts, steps = node.attrs["starts"], node.attrs["steps"]
    sizes = node.inputs[0].type.shape
    stops = tuple(a + (n - 1) * s + (1 if s > 0 else -1) for n, a, s in zip(sizes, starts, steps, strict=True))
    return (cast(Tensor, apply(slice_op, g[0], starts=starts, stops=stops, steps=steps)),)


def _unslice_source(ix: IndexHandler, types: Types, attrs: Attrs, index: Index) -> Index:
    parts = zip(index, attrs["starts"], attrs["steps"], strict=True)
    return tuple(_position(ix, _distance(i, start, step), step) for i, start, step in parts)


def _distance(i: Size, start: Size, step: int) -> Size:
    """How far position `i` is behind the first one, in the direction of `step`."""
    return i - start if step > 0 else start - i


def _position(ix: IndexHandler, distance: Size, step: int) -> Size:
    """How many steps a distance is. Only what is not negative may be divided: a distance against `step` counts as 0."""
    by = builtins.abs(step)
    return distance if by == 1 else ix.div(maximum(distance, 0), by)


def _unslice_inside(ix: IndexHandler, types: Types, attrs: Attrs, index: Index) -> tuple[tuple[Size, Size], ...]:
    pairs: list[tuple[Size, Size]] = []
    parts = zip(types[0].shape, types[1].shape, index, attrs["starts"], attrs["steps"], strict=True)
    for n, size, i, start, step in parts:
        by = builtins.abs(step)
        if n == size and start == 0 and step == 1:
            continue
        distance = _distance(i, start, step)
        pairs.append((distance, (n - 1) * by + 1))
        if by > 1:
            pairs.append((distance - _position(ix, distance, step) * by, 1))
    return tuple(pairs)


def _unslice_samples() -> list[Sample]:
    cases: tuple[tuple[Shape, Shape, tuple[Size, ...], tuple[int, ...]], ...] = (
        ((5,), (9,), (2,), (1,)),
        ((3,), (9,), (1,), (3,)),
        ((4,), (9,), (8,), (-2,)),
        ((3, 4), (5, 20), (1, 9), (1, 1)),
        ((2, 1), (6, 1), (5, 0), (-3, 1)),
        ((1,), (1,), (0,), (1,)),
        ((0, 3), (2, 3), (1, 0), (1, 1)),
        ((_B, 3), (_B + 2, 5), (1, 0), (1, 2)),
    )
    return [
        Sample(
            (Operand(x),), {"shape": shape, "starts": starts, "steps": steps}, ALL if n < 3 else FLOATS, {"batch": 6}
        )
        for n, (x, shape, starts, steps) in enumerate(cases)
    ]


unslice_op = register(
    Op(
        "unslice",
        "unslice(shape, starts, steps): zeros of `shape` in which x stands at positions start, start + step, ... of"
        " each axis, where slice would read it.",
        _unslice_type,
        _unslice_reference,
        _unslice_gradient,
        Movement(_unslice_source, _unslice_inside),
        _unslice_samples,
        formula="result[starts + i * steps] = x[i], 0 elsewhere",
        example="graphc.pad([1.0, 2.0], ((1, 2),))",
    )
)


def unslice(x: Tensor, shape: Shape, starts: Sequence[Size], steps: Sequence[int]) -> Tensor:
    """Zeros of `shape` with `x` where slice(starts, ..., steps) would read it."""
    if x.shape == tuple(shape) and builtins.all(s == 0 for s in starts) and builtins.all(s == 1 for s in steps):
        return x
    return cast(Tensor, apply(unslice_op, x, shape=tuple(shape), starts=tuple(starts), steps=tuple(steps)))


Widths = int | Sequence[Any]
_MODES = ("constant", "edge", "reflect", "symmetric", "wrap")


def pad(x: TensorLike, pad_width: Widths, mode: str = "constant", constant_values: TensorLike = 0) -> Tensor:
    """`x` with elements before and behind on each axis, as `numpy.pad`.

    `pad_width` is a number for all, (before, behind) for all axes, or one such pair for each axis (sizes may be named).
    mode: "constant" (filled with the scalar `constant_values`), "edge", "reflect" (without the edge element),
    "symmetric" (with it) or "wrap"; the last three need sizes that are known. `pad(f32[3], (1, 2))` is f32[6].
    `pad([1, 2], (1, 2))` is [0, 1, 2, 0, 0].
    """
    tensor = as_tensor(x)
    widths = _widths(tensor, pad_width)
    if mode not in _MODES:
        fail(ArgumentError, f"pad: mode is one of {', '.join(_MODES)}, not {mode!r}")
    if mode == "constant":
        return _filled(tensor, widths, constant_values)
    for axis, (before, behind) in enumerate(widths):
        tensor = _copied(tensor, axis, before, behind, mode)
    return tensor


def _widths(x: Tensor, given: Widths) -> list[tuple[Size, Size]]:
    if isinstance(given, (int, Dim)):
        pairs: list[Any] = [(given, given)] * x.ndim
    elif len(given) == 2 and builtins.all(isinstance(n, (int, Dim)) for n in given):
        pairs = [tuple(given)] * x.ndim
    else:
        pairs = [(p, p) if isinstance(p, (int, Dim)) else (*p, *p)[:2] for p in given]
    if len(pairs) == 1:
        pairs *= x.ndim
    wrong = len(pairs) != x.ndim or builtins.any(isinstance(n, int) and n < 0 for pair in pairs for n in pair)
    if wrong:
        fail(ShapeError, f"pad: widths {given} for {shown(x)}", "a pair (before, behind) for each axis, from 0 on")
    return pairs


def _filled(x: Tensor, widths: list[tuple[Size, Size]], value: TensorLike) -> Tensor:
    shape = tuple(before + n + behind for n, (before, behind) in zip(x.shape, widths, strict=True))
    result = unslice(x, shape, [before for before, _ in widths], [1] * x.ndim)
    if not isinstance(value, (Tensor, Dim)) and not np.any(value) and not np.signbit(value).any():
        return result
    inside: Tensor | None = None
    for axis, (n, (before, behind)) in enumerate(zip(x.shape, widths, strict=True)):
        if before == 0 and behind == 0:
            continue
        at = iota(shape, "int64", axis)
        here = less(at, dim_value(before + n)) if before == 0 else greater_equal(at, dim_value(before))
        if before != 0 and behind != 0:
            here = here & less(at, dim_value(before + n))
        inside = here if inside is None else inside & here
    return result if inside is None else where(inside, result, as_tensor(value).astype(x.dtype))


def _copied(x: Tensor, axis: int, before: Size, behind: Size, mode: str) -> Tensor:
    """`x` with elements of its own at both ends of an axis."""
    n = x.shape[axis]
    if before == 0 and behind == 0:
        return x
    if n == 0:
        fail(ShapeError, f"pad: axis {axis} is empty, there is nothing to copy: {signature(x)}")
    if mode == "edge" or (mode == "reflect" and n == 1):
        parts = [_repeated(x, axis, 0, before), x, _repeated(x, axis, -1, behind)]
        return concat([p for p in parts if p.shape[axis] != 0], axis)
    if not (isinstance(n, int) and isinstance(before, int) and isinstance(behind, int)):
        fail(ShapeError, f"pad: mode {mode!r} needs known sizes: {signature(x)}", "'constant' and 'edge' do not")
    while before or behind:  # NumPy's rule: wide paddings copy what has been padded
        n = cast(int, x.shape[axis])
        most = n - 1 if mode == "reflect" else n
        low, high = builtins.min(before, most), builtins.min(behind, most)
        parts = [x]
        if low:
            parts.insert(0, _mirrored(x, axis, n, low, mode, True))
        if high:
            parts.append(_mirrored(x, axis, n, high, mode, False))
        x, before, behind = concat(parts, axis), before - low, behind - high
        if mode == "wrap" and (before or behind) and (low and high):
            x, before, behind = _wrapped(x, axis, n, low, before, behind)
    return x


def _wrapped(x: Tensor, axis: int, n: int, low: int, before: int, behind: int) -> tuple[Tensor, int, int]:
    """The rest of a wide wrap: whole periods of the `n` elements in the middle, cut to what is wanted."""
    middle = _part(x, axis, low, low + n)
    first, last = -(-before // n), -(-behind // n)
    whole = concat([middle] * first + [x] + [middle] * last, axis)
    return _part(whole, axis, first * n - before, cast(int, whole.shape[axis]) - (last * n - behind)), 0, 0


def _mirrored(x: Tensor, axis: int, n: int, count: int, mode: str, low: bool) -> Tensor:
    if mode == "wrap":
        return _part(x, axis, n - count, n) if low else _part(x, axis, 0, count)
    skip = 1 if mode == "reflect" else 0
    start, stop = (skip, skip + count) if low else (n - skip - count, n - skip)
    return getitem(_part(x, axis, start, stop), _key(axis, slice(None, None, -1)))


def _part(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    return getitem(x, _key(axis, slice(start, stop)))


def _key(axis: int, part: slice) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, part)


def _repeated(x: Tensor, axis: int, position: int, count: Size) -> Tensor:
    """The element at `position` of an axis, `count` times."""
    one = expand_dims(getitem(x, (*[slice(None)] * axis, position)), axis)
    return broadcast_to(one, (*x.shape[:axis], count, *x.shape[axis + 1 :]))
