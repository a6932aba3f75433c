"""Reading at positions as NumPy writes it: `take`, `x[indices]` with integer arrays and constant masks, `gather`.

Here, unlike in `take_along_axis`, an index counts from the end if it is negative. Constant indices are checked when
the graph is built, tensors when it runs: an index out of range is an IndexRangeError, found before memory is touched.
Basic indexing is in `graphc.ops.indexing`, updates at positions (`x.at[...]`) in `graphc.ops.updating`.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply, as_array, constant, install, signature
from graphc.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError, fail
from graphc.graph import shown
from graphc.ops import indexing
from graphc.ops.indexing import take_along_axis
from graphc.ops.movement import broadcast_to, reshape, transpose
from graphc.ops.operands import TensorLike, as_tensor, broadcast_shape, normalized_axis
from graphc.ops.selection import astype, where
from graphc.ops.sources import dim_value
from graphc.types import Size, bool_, int64, product


def take(x: TensorLike, indices: TensorLike, axis: int | None = None) -> Tensor:
    """`x` at the integers `indices` along `axis` (of the flattened array for None), as `numpy.take`.

    The axis is replaced by the axes of `indices`: `take(f32[5,3], i64[2,4], 0)` is f32[2,4,3]. Negative indices count
    from the end. An index out of range is an IndexRangeError. `take([10, 20, 30], [2, -3])` is [30, 10].
    """
    tensor = as_tensor(x)
    if axis is None:
        tensor, axis = reshape(tensor, (tensor.size,)), 0
    where_ = normalized_axis("take", axis, tensor.ndim, tensor)
    return _taken(tensor, where_, from_end("take", tensor, where_, indices))


def gather(x: TensorLike, indices: TensorLike, axis: int) -> Tensor:
    """`take_along_axis`: result[i] = x[i with i[axis] replaced by indices[i]]; a negative index is an error.

    `gather([10, 20, 30], [2, 0], 0)` is [30, 10].
    """
    return take_along_axis(x, indices, axis)


def _taken(x: Tensor, axis: int, indices: Tensor) -> Tensor:
    """`take` for indices that count from the start."""
    before, behind = x.shape[:axis], x.shape[axis + 1 :]
    count = indices.size
    column = reshape(indices, (*[1] * axis, count, *[1] * len(behind)))
    found = cast(Tensor, apply("take_along_axis", x, broadcast_to(column, (*before, count, *behind)), axis=axis))
    return reshape(found, (*before, *indices.shape, *behind))


def from_end(name: str, x: Tensor, axis: int, indices: TensorLike) -> Tensor:
    """`indices` with negative ones counted from the end of the axis; constants are checked."""
    size = x.shape[axis]
    if not isinstance(indices, Tensor):
        array = np.asarray(indices)
        array = array.astype(np.int64) if array.size == 0 and not isinstance(indices, np.ndarray) else array
        _check_integers(array.dtype.kind, lambda: f"{name}: indices must be integers, not {array.dtype}")
        if isinstance(size, int):
            return constant(_checked(name, x, axis, array, size))
        if (array >= 0).all():
            return constant(array)
        indices = constant(array)
    _check_integers(indices.dtype.kind, lambda: f"{name}: indices must be integers: {signature(indices)}")
    if indices.dtype.kind == "u":
        return indices
    wide = astype(indices, int64)
    return where(wide < 0, wide + dim_value(size), wide)


def _check_integers(kind: str, message: Callable[[], str]) -> None:
    if kind not in "iu":
        hint = "a mask must be a constant, or chosen by with where(mask, x, y)" if kind == "b" else "astype('int64')"
        fail(DTypeError, message(), hint)


def _checked(name: str, x: Tensor, axis: int, array: np.ndarray, size: int) -> np.ndarray:
    wrong = (array < -size) | (array >= size)
    if wrong.any():
        value = array[wrong].flat[0]
        fail(IndexRangeError, f"{name}: index {value} is out of range for axis {axis} of {shown(x)}")
    return np.where(array < 0, array + size, array).astype(np.int64)


# x[...] with arrays


@dataclass(frozen=True)
class Array:
    """An integer index: a scalar of the key (an int) or an array."""

    indices: Any


def getitem(x: Tensor, key: Any) -> Tensor:
    """`x[key]`: ints, slices of ints, None, ..., integer arrays and tensors, and constant masks, as in NumPy."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if not builtins.any(is_array(part) for part in parts):
        return indexing.getitem(x, key)
    parts = spelled_out(x, parts)
    basic = [slice(None) if isinstance(part, Array) else part for part in parts]
    sliced = indexing.getitem(x, tuple(basic))
    # Every part has an axis of `sliced` now: slices and arrays those of x, None a new one.
    arrays = [(axis, part) for axis, part in enumerate(parts) if isinstance(part, Array)]
    return _at_arrays(sliced, arrays)


def is_array(part: Any) -> bool:
    if isinstance(part, (Tensor, list, np.ndarray)):
        return not isinstance(part, np.ndarray) or part.ndim > 0 or part.dtype == bool
    return isinstance(part, (bool, np.bool_))


def spelled_out(x: Tensor, parts: list[Any]) -> list[Any]:
    """The key with one part for each axis: masks as positions, ints as arrays, ... as slices."""
    new: list[Any] = []
    for part in parts:
        if isinstance(part, Tensor) and part.dtype is bool_:
            hint = "the shape would depend on its values: use where(mask, x, y), or a constant mask"
            fail(DTypeError, f"x[...]: a mask must be constant: {signature(x, part)}", hint)
        if isinstance(part, Tensor) or part is None or part is Ellipsis or isinstance(part, slice):
            new.append(Array(part) if isinstance(part, Tensor) else part)
            continue
        array = as_array(part)
        if array.dtype == bool:
            if array.ndim == 0:
                fail(ArgumentError, f"x[...]: a single bool is no index: {signature(x)}")
            new += _positions(x, new, array)
        else:
            new.append(Array(array.astype(np.int64) if array.size == 0 else array))
    used = builtins.sum(part is not None and part is not Ellipsis for part in new)
    dots = [n for n, part in enumerate(new) if part is Ellipsis]
    if used > x.ndim or len(dots) > 1:
        fail(ShapeError, f"x[...]: too many indices for {shown(x)}")
    where_ = dots[0] if dots else len(new)
    new[where_ : where_ + len(dots)] = [slice(None)] * (x.ndim - used)
    return new


def _positions(x: Tensor, before: Sequence[Any], mask: np.ndarray) -> list[Array]:
    """A mask as the positions where it is true, one array for each of its axes."""
    if Ellipsis not in [part for part in before if part is None or part is Ellipsis]:
        first = builtins.sum(part is not None for part in before)
        for size, wanted in zip(x.shape[first:], mask.shape, strict=False):
            if isinstance(size, int) and size != wanted:
                fail(ShapeError, f"x[...]: a mask of shape {list(mask.shape)} for {shown(x)}")
    return [Array(found) for found in np.nonzero(mask)]


def _at_arrays(x: Tensor, arrays: list[tuple[int, Array]]) -> Tensor:
    axes = [axis for axis, _ in arrays]
    indices = [from_end("x[...]", x, axis, part.indices) for axis, part in arrays]
    shape = broadcast_shape("x[...]", *indices)
    adjacent = axes == list(range(axes[0], axes[0] + len(axes)))
    place = axes[0] if adjacent else 0
    others = [a for a in range(x.ndim) if a not in axes]
    x = transpose(x, [*others[:place], *axes, *others[place:]])
    sizes = x.shape[place : place + len(axes)]
    if len(axes) > 1:
        merged = reshape(x, (*x.shape[:place], product(sizes), *x.shape[place + len(axes) :]))
        return _taken(merged, place, _flat([broadcast_to(i, shape) for i in indices], sizes))
    return _taken(x, place, indices[0])


def _flat(indices: list[Tensor], sizes: Sequence[Size]) -> Tensor:
    """The position in row-major order of several axes; -1, which no axis has, where one of the indices is outside."""
    flat, inside = None, None
    for index, size in zip(indices, sizes, strict=True):
        wide, extent = astype(index, int64), dim_value(size)
        known = (wide >= 0) & (wide < extent)
        inside = known if inside is None else inside & known
        flat = wide if flat is None else flat * extent + wide
    assert flat is not None and inside is not None
    return where(inside, flat, -1)


install(getitem=getitem)
