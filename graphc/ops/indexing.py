"""Reading and adding at positions: take_along_axis, scatter_add_along_axis, and `x[...]`.

Indices are never negative: anything outside of 0 <= index < size is an IndexRangeError when the graph runs, found
before a parameter is written. (NumPy counts negative indices from the end; a label of -1 is more often a mistake.)
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply, signature
from graphc.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError, SourceLine, fail
from graphc.graph import Attrs, Node, Op, Types, shown
from graphc.ops.lowering import Gather, ScatterAdd
from graphc.ops.movement import broadcast_to, reshape, slice_op
from graphc.ops.operands import (
    TensorLike,
    as_tensor,
    check_kind,
    expanded,
    normalized_axis,
    other_sizes,
    tensors_of,
)
from graphc.ops.registry import register
from graphc.ops.samples import ALL, FLOATS, INTEGERS, NUMBERS, Operand, Sample
from graphc.ops.selection import astype, where
from graphc.ops.sources import dim_value, iota, zeros_like
from graphc.size_facts import larger, smaller
from graphc.types import Dim, Shape, Size, TensorType, broadcast_shapes, int64, maximum, minimum


def range_error(
    op: str, position: Sequence[int], value: int, size: int, lines: Sequence[SourceLine] = ()
) -> IndexRangeError:
    """The error of an index out of range: `position` is where it stands in the array of indices."""
    place = ", ".join(map(str, position))
    message = f"{op}: index {value} is out of range for size {size} (indices[{place}])"
    return IndexRangeError(message, lines, f"indices go from 0 to {size - 1}" if size else "the axis is empty")


def check_indices(op: str, indices: np.ndarray, size: int) -> None:
    wrong = np.flatnonzero((indices < 0) | (indices >= size))
    if wrong.size:
        place = tuple(int(i) for i in np.unravel_index(wrong[0], indices.shape))
        raise range_error(op, place, int(indices[place]), size)


def check_index_type(indices: TensorType, position: int) -> None:
    if not indices.dtype.is_integer:
        raise DTypeError(f"indices must be integers: {{{position}}} is {indices}", hint="indices.astype('int64')")


def _take_type(types: Types, attrs: Attrs) -> Types:
    if len(types) != 2:
        raise ArgumentError(f"takes 2 operands, not {len(types)}")
    (x, indices), axis = types, attrs["axis"]
    check_index_type(indices, 1)
    fits = x.rank == indices.rank and 0 <= axis < x.rank
    if not fits or other_sizes(x.shape, axis) != other_sizes(indices.shape, axis):
        raise ShapeError(f"{{0}} is {x}, {{1}} is {indices}: they differ in another axis than {axis}")
    return (x.with_shape(indices.shape),)


def _take_reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    x, indices = arrays
    check_indices("take_along_axis", indices, x.shape[attrs["axis"]])
    return (np.take_along_axis(x, indices.astype(np.int64), attrs["axis"]),)


def _take_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    x, indices = tensors_of(node)
    axis = node.attrs["axis"]
    return put_along_axis(indices, g[0], axis, x.shape[axis]), None


def _take_samples() -> list[Sample]:
    batch = Dim.symbol("batch")
    shapes: tuple[tuple[Shape, Shape, int], ...] = (
        ((5, 10), (5, 1), 1), ((5, 10), (5, 3), 1), ((7,), (20,), 0), ((3, 4, 5), (3, 6, 5), 1),
        ((batch, 10), (batch, 1), 1), ((1,), (1,), 0), ((0, 4), (0, 1), 1), ((4, 3), (4, 0), 1), ((1, 6), (4, 6), 0),
    )  # fmt: skip
    made = [
        Sample((Operand(x), Operand(i, int64, "index", limit=cast(int, x[axis]))), {"axis": axis}, ALL, {"batch": 6})
        for x, i, axis in shapes
    ]
    few = [(Operand((5, 10)), Operand((5, 1), d, "index", limit=10)) for d in INTEGERS]
    narrow = [Sample(operands, {"axis": 1}, FLOATS[:1]) for operands in few]
    return made + narrow


_take_op = register(
    Op(
        "take_along_axis",
        "take_along_axis(axis)(x, indices): result[i] = x[i with i[axis] replaced by indices[i]]. Indices outside of"
        " 0 <= index < size are an error.",
        _take_type,
        _take_reference,
        _take_gradient,
        Gather(),
        _take_samples,
        formula="result[i] = x[i with i[axis] = indices[i]]",
        example="graphc.take_along_axis([[10, 20, 30]], [[2, 0]], axis=1)",
    )
)


def take_along_axis(x: TensorLike, indices: TensorLike, axis: int) -> Tensor:
    """`x` at `indices` along `axis`; the other axes broadcast. A negative index is an error, unlike in NumPy."""
    source, where_ = as_tensor(x), as_tensor(indices)
    if not where_.dtype.is_integer:
        fail(DTypeError, f"take_along_axis: indices must be integers: {signature(where_)}", "indices.astype('int64')")
    if source.ndim != where_.ndim:
        hint = "indices[:, None] turns labels [batch] into [batch,1]"
        fail(ShapeError, f"take_along_axis: ranks differ: {signature(source, where_)}", hint)
    a = normalized_axis("take_along_axis", axis, source.ndim, source)
    try:
        common = broadcast_shapes(*(t.shape[:a] + (1,) + t.shape[a + 1 :] for t in (source, where_)))
    except ValueError as error:
        fail(ShapeError, f"take_along_axis: shapes do not broadcast: {signature(source, where_)} ({error})")
    source, where_ = (expanded(t, (*common[:a], t.shape[a], *common[a + 1 :])) for t in (source, where_))
    return cast(Tensor, apply(_take_op, source, where_, axis=a))


def _scatter_type(types: Types, attrs: Attrs) -> Types:
    if len(types) != 2:
        raise ArgumentError(f"takes 2 operands, not {len(types)}")
    (indices, updates), axis = types, attrs["axis"]
    check_index_type(indices, 0)
    check_kind(updates, "iuf", 1)
    if indices.shape != updates.shape or not 0 <= axis < updates.rank:
        raise ShapeError(f"{{0}} is {indices}, {{1}} is {updates}: they have one shape, with axis {axis}")
    return (updates.with_shape((*updates.shape[:axis], attrs["size"], *updates.shape[axis + 1 :])),)


def _scatter_reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    (indices, updates), axis, size = arrays, attrs["axis"], attrs["size"]
    check_indices("scatter_add_along_axis", indices, size)
    result = np.zeros((*updates.shape[:axis], size, *updates.shape[axis + 1 :]), updates.dtype)
    place: list[Any] = [np.arange(n).reshape([-1 if b == a else 1 for b in range(updates.ndim)])
                        for a, n in enumerate(updates.shape)]  # fmt: skip
    place[axis] = indices.astype(np.int64)
    np.add.at(result, tuple(place), updates)
    return (result,)


def _scatter_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    indices, _ = tensors_of(node)
    return None, take_along_axis(g[0], indices, node.attrs["axis"])


def _scatter_samples() -> list[Sample]:
    batch = Dim.symbol("batch")
    shapes: tuple[tuple[Shape, int, int], ...] = (
        ((5, 3), 1, 10), ((40,), 0, 7), ((3, 6, 5), 1, 4), ((batch, 2), 1, 10), ((1,), 0, 1),
        ((0, 2), 1, 3), ((4, 0), 1, 3), ((30, 2), 0, 5),
    )  # fmt: skip
    return [
        Sample((Operand(s, int64, "index", limit=size), Operand(s, values="ordinary")), {"axis": axis, "size": size},
               NUMBERS, {"batch": 6})
        for s, axis, size in shapes
    ]  # fmt: skip


_scatter_op = register(
    Op(
        "scatter_add_along_axis",
        "scatter_add_along_axis(axis, size)(indices, updates): zeros with `size` elements along axis, to which each"
        " updates[i] is added at i with i[axis] replaced by indices[i], in the order of i. Indices outside of"
        " 0 <= index < size are an error.",
        _scatter_type,
        _scatter_reference,
        _scatter_gradient,
        ScatterAdd(),
        _scatter_samples,
        formula="result = 0; result[i with i[axis] = indices[i]] += updates[i]",
        example="graphc.scatter_add_along_axis(graphc.constant([0, 2, 0]), graphc.constant([1.0, 2.0, 3.0]), 0, 3)",
    )
)


def scatter_add_along_axis(indices: Tensor, updates: Tensor, axis: int, size: Size) -> Tensor:
    """Zeros with `size` elements along `axis`, and `updates` added at `indices`, in order. Both have one shape."""
    a = normalized_axis("scatter_add_along_axis", axis, updates.ndim, updates)
    return cast(Tensor, apply(_scatter_op, indices, updates, axis=a, size=size))


def put_along_axis(indices: Tensor, updates: Tensor, axis: int, size: Size) -> Tensor:
    """scatter_add_along_axis; with one index along `axis` it is a comparison with positions, which fuses.

    The comparison checks no range: only for indices that something else has checked.
    """
    if indices.shape[axis] != 1:
        return scatter_add_along_axis(indices, updates, axis, size)
    shape = (*updates.shape[:axis], size, *updates.shape[axis + 1 :])
    here = iota(shape, int64, axis) == broadcast_to(astype(indices, int64), shape)
    return where(here, broadcast_to(updates, shape), zeros_like(broadcast_to(updates, shape)))


# x[...]


def getitem(x: Tensor, key: Any) -> Tensor:
    """Basic indexing by constants. Each part of `key` is an int, a slice of ints, None or Ellipsis."""
    parts = spelled_out(x, key)
    axes = [part for part in parts if part is not None]
    chosen = _sliced(x, axes)
    sizes = iter(zip(chosen.shape, axes, strict=True))
    shape: list[Size] = []
    for part in parts:
        if part is None:
            shape.append(1)
            continue
        size, index = next(sizes)
        if isinstance(index, builtins.slice):
            shape.append(size)
    return reshape(chosen, shape)


def spelled_out(x: Tensor, key: Any) -> list[Any]:
    """A basic key with one int or slice for each axis, and None where a new one is."""
    parts = list(key) if isinstance(key, tuple) else [key]
    for part in parts:
        if not (part is None or part is Ellipsis or isinstance(part, builtins.slice) or _is_int(part)):
            hint = "take_along_axis reads at positions that are tensors, where(mask, ...) chooses by a mask"
            given = f"{shown(part)}, for {shown(x)}"
            fail(ArgumentError, f"x[...] takes ints, slices, None and ..., not {given}", hint)
    named = [part for part in parts if part is not None and part is not Ellipsis]
    dots = [position for position, part in enumerate(parts) if part is Ellipsis]
    if len(named) > x.ndim or len(dots) > 1:
        fail(ShapeError, f"x[...]: too many indices for {shown(x)}")
    where_ = dots[0] if dots else len(parts)
    parts[where_ : where_ + 1] = [builtins.slice(None)] * (x.ndim - len(named))
    return parts


def _is_int(part: Any) -> bool:
    return not isinstance(part, (bool, np.bool_, Tensor)) and hasattr(part, "__index__") and np.ndim(part) == 0


def _sliced(x: Tensor, axes: Sequence[Any]) -> Tensor:
    """`x` with one slice or int an axis applied; ints leave an axis of size 1."""
    x, bounds = bounds_of(x, axes)
    if all(b == (0, n, 1) for b, n in zip(bounds, x.shape, strict=True)):
        return x
    starts, stops, steps = zip(*bounds, strict=True)
    return cast(Tensor, apply(slice_op, x, starts=starts, stops=stops, steps=steps))


def bounds_of(x: Tensor, axes: Sequence[Any]) -> tuple[Tensor, list[tuple[Size, Size, int]]]:
    """(start, stop, step) for each axis, and `x` with what an int picks from an axis of a named size."""
    bounds: list[tuple[Size, Size, int]] = []
    for axis, (part, n) in enumerate(zip(axes, x.shape, strict=True)):
        if not isinstance(part, builtins.slice):
            index = operator.index(part)
            if isinstance(n, Dim):  # whether it is in range is known at the call: a checked read
                x = _taken(x, index, axis, n)
                bounds.append((0, 1, 1))
                continue
            if not -n <= index < n:
                fail(ShapeError, f"x[...]: index {index} is out of range for axis {axis} of {shown(x)}")
            bounds.append((index % n, index % n + 1, 1))
            continue
        step = None if part.step is None else _whole(x, part.step)
        if step == 0:
            fail(ArgumentError, f"x[...]: a slice's step is 0: {signature(x)}")
        start, stop = (_position(x, v) for v in (part.start, part.stop))
        bounds.append(_bounds(n, start, stop, step))
    return x, bounds


def _position(x: Tensor, given: Any) -> Size | None:
    """Where a slice begins or ends: an int, a size, or None."""
    if isinstance(given, Dim):
        if all(factor < 0 for _, factor in given.terms):
            hint = "a size counts from the start: write x[n - m :] for the last m of n"
            fail(ArgumentError, f"x[...]: a slice at {given}, for {shown(x)}", hint)
        return given
    return None if given is None else _whole(x, given)


def _whole(x: Tensor, given: Any) -> int:
    try:
        return operator.index(given)
    except TypeError:
        fail(ArgumentError, f"x[...]: a slice is made of ints and sizes, not {shown(given)}: {signature(x)}")


def _taken(x: Tensor, index: int, axis: int, n: Dim) -> Tensor:
    position = dim_value(n) + index if index < 0 else as_tensor(np.int64(index))
    indices = broadcast_to(position, (*x.shape[:axis], 1, *x.shape[axis + 1 :]))
    return cast(Tensor, apply(_take_op, x, indices, axis=axis))


def _bounds(n: Size, start: Size | None, stop: Size | None, step: int | None) -> tuple[Size, Size, int]:
    """(first position, position behind the last towards the step, step) of a slice: the same for equal choices."""
    by = 1 if step is None else step
    if isinstance(start, Dim) or isinstance(stop, Dim):
        return _sized_bounds(n, start, stop, by)
    if isinstance(n, int):
        chosen = range(*builtins.slice(start, stop, step).indices(n))
        if not chosen:
            return 0, 0, 1
        return chosen[0], chosen[-1] + (1 if by > 0 else -1), by if len(chosen) > 1 else 1 if by > 0 else -1
    low: Size = 0 if by > 0 else -1
    high: Size = n if by > 0 else n - 1

    def clamped(value: int, default: Size) -> Size:
        if value >= 0:
            return low if value == 0 and by > 0 else minimum(high, value)
        return maximum(n + value, low)

    first = (low if by > 0 else high) if start is None else clamped(start, low)
    last = (high if by > 0 else low) if stop is None else clamped(stop, high)
    if by > 0 and start and stop is not None:
        if (start > 0) == (stop >= 0):  # counted from one end: the order of the two is known
            last = first if stop <= start else last
        elif start > 0:
            last = first + maximum(n + (stop - start), 0)
        else:
            last = maximum(last, first)
    if by < 0 and stop is not None:
        last = minimum(last, first)
    return first, last, by


def _sized_bounds(n: Size, start: Size | None, stop: Size | None, by: int) -> tuple[Size, Size, int]:
    """`_bounds` where one of both is a size, which counts from the start; one that comes out negative counts as 0."""
    low: Size = 0 if by > 0 else -1
    high: Size = n if by > 0 else n - 1

    def clamped(value: Size | None, default: Size) -> Size:
        if value is None:
            return default
        counted = value if isinstance(value, Dim) or value >= 0 else n + value
        return larger(smaller(counted, high), 0 if isinstance(value, Dim) and by > 0 else low)

    first = clamped(start, low if by > 0 else high)
    last = clamped(stop, high if by > 0 else low)
    return first, larger(last, first) if by > 0 else smaller(last, first), by
