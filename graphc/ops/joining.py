"""Arrays joined and cut up: the op `concat`; stack, unstack, split, tile, repeat, roll, flip, ravel, flatten, meshgrid.

All but `concat` are compositions. Sizes may be named; where a function must know one, its error says so.
"""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply, install, signature
from graphc.errors import ArgumentError, DTypeError, ShapeError, fail
from graphc.graph import Attrs, Node, Op, Types, shown
from graphc.ops.indexing import getitem
from graphc.ops.lowering import Concat
from graphc.ops.movement import broadcast_to, expand_dims, reshape, slice_op, squeeze, transpose
from graphc.ops.operands import (
    TensorLike,
    as_tensor,
    converted,
    integers,
    normalized_axes,
    normalized_axis,
    other_sizes,
    promoted,
)
from graphc.ops.registry import register
from graphc.ops.samples import ALL, FLOATS, Operand, Sample
from graphc.types import Dim, Shape, Size, floordiv, maximum, minimum, product

_B = Dim.symbol("batch")
MOST = 16  # operands of one node; more are joined in groups first, since each element asks all operands


def _concat_type(types: Types, attrs: Attrs) -> Types:
    axis = attrs["axis"]
    if not types:
        raise ArgumentError("there is nothing to join")
    if not 0 <= axis < types[0].rank:
        raise ShapeError(f"{{0}} is {types[0]}, it has no axis {axis}")
    for position, other in enumerate(types[1:], 1):
        if other.rank != types[0].rank or other_sizes(other.shape, axis) != other_sizes(types[0].shape, axis):
            message = f"{{0}} is {types[0]}, {{{position}}} is {other}: they differ in another axis than {axis}"
            raise ShapeError(message)
        if other.dtype is not types[0].dtype:
            raise DTypeError(f"{{0}} is {types[0]}, {{{position}}} is {other}; the operands have one dtype")
    size = builtins.sum((t.shape[axis] for t in types[1:]), types[0].shape[axis])
    return (types[0].with_shape((*types[0].shape[:axis], size, *types[0].shape[axis + 1 :])),)


def _concat_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    axis, offset = node.attrs["axis"], cast(Size, 0)
    parts: list[Tensor] = []
    for operand in node.inputs:
        size = operand.type.shape[axis]
        parts.append(_along(g[0], axis, offset, offset + size))
        offset = offset + size
    return parts


def _along(x: Tensor, axis: int, start: Size, stop: Size) -> Tensor:
    """Positions start..stop of an axis, which must be there."""
    starts = tuple(start if a == axis else 0 for a in range(x.ndim))
    stops = tuple(stop if a == axis else n for a, n in enumerate(x.shape))
    return cast(Tensor, apply(slice_op, x, starts=starts, stops=stops, steps=(1,) * x.ndim))


def _concat_samples() -> list[Sample]:
    cases: tuple[tuple[tuple[Shape, ...], int], ...] = (
        (((5,), (20,), (1,)), 0),
        (((3, 7), (3, 30)), 1),
        (((3, 7), (0, 7), (2, 7)), 0),
        (((1,),), 0),
        (((0,), (0,)), 0),
        (((_B, 3), (_B, 2)), 1),
        (((2, _B, 3), (2, 4, 3)), 1),
    )
    return [
        Sample(tuple(Operand(s) for s in shapes), {"axis": axis}, ALL if n < 2 else FLOATS, {"batch": 6})
        for n, (shapes, axis) in enumerate(cases)
    ]


_concat_op = register(
    Op(
        "concat",
        "concat(axis)(x, y, ...): the operands one behind the other along axis.",
        _concat_type,
        lambda arrays, attrs: (np.concatenate(arrays, attrs["axis"]),),
        _concat_gradient,
        Concat(),
        _concat_samples,
        formula="result = x, then y, ... along axis",
        example="graphc.concat([[1, 2], [3]])",
    )
)


def concat(arrays: Sequence[TensorLike], axis: int | None = 0) -> Tensor:
    """`arrays` one behind the other along `axis`, promoted to one dtype; flattened first for None.

    The other sizes must be equal. `concat([f32[2,3], f32[4,3]])` is f32[6,3]. Raises ShapeError.
    """
    tensors = _promoted("concat", arrays)
    if axis is None:
        tensors, axis = [ravel(t) for t in tensors], 0
    where_ = normalized_axis("concat", axis, tensors[0].ndim, tensors[0])
    return _joined(tensors, where_)


def _promoted(name: str, arrays: Sequence[TensorLike]) -> list[Tensor]:
    if isinstance(cast(object, arrays), Tensor) or not len(arrays):
        fail(ArgumentError, f"{name}: takes a list of arrays, of at least one")
    dtype = promoted(name, *arrays)
    return [converted(name, x, dtype) for x in arrays]


def _joined(tensors: list[Tensor], axis: int) -> Tensor:
    while len(tensors) > MOST:
        groups = [tensors[i : i + MOST] for i in range(0, len(tensors), MOST)]
        tensors = [cast(Tensor, apply(_concat_op, *group, axis=axis)) for group in groups]
    return tensors[0] if len(tensors) == 1 else cast(Tensor, apply(_concat_op, *tensors, axis=axis))


def stack(arrays: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """`arrays` of one shape along a new axis. `stack([f32[3], f32[3]])` is f32[2,3]. Raises ShapeError.

    `stack([[1, 2], [3, 4]], 1)` is [[1, 3], [2, 4]].
    """
    tensors = _promoted("stack", arrays)
    for other in tensors[1:]:
        if other.shape != tensors[0].shape:
            fail(ShapeError, f"stack: the shapes differ: {signature(tensors[0], other)}")
    where_ = normalized_axis("stack", axis, tensors[0].ndim + 1)
    return _joined([expand_dims(t, where_) for t in tensors], where_)


def unstack(x: TensorLike, axis: int = 0) -> tuple[Tensor, ...]:
    """The arrays along `axis`, each without it. Its size must be known. `unstack(f32[2,3])` is two f32[3].

    `unstack([[1, 2], [3, 4]])` is ([1, 2], [3, 4]).
    """
    tensor = as_tensor(x)
    where_ = normalized_axis("unstack", axis, tensor.ndim, tensor)
    count = _known("unstack", tensor, where_)
    return tuple(squeeze(_along(tensor, where_, i, i + 1), where_) for i in range(count))


def _known(name: str, x: Tensor, axis: int) -> int:
    size = x.shape[axis]
    if isinstance(size, Dim):
        fail(ShapeError, f"{name}: the size of axis {axis} must be known: {signature(x)}")
    return size


def split(x: TensorLike, indices_or_sections: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """`x` cut along `axis` into equal parts (an int), or before each of the positions (a list), as `numpy.split`.

    `split(f32[6], 3)` is three f32[2], `split(f32[6], [1, 4])` is f32[1], f32[3], f32[2]. Raises ShapeError.
    `split([1, 2, 3], [1])` is ([1], [2, 3]).
    """
    tensor = as_tensor(x)
    where_ = normalized_axis("split", axis, tensor.ndim, tensor)
    size = tensor.shape[where_]
    given = integers("split", "indices_or_sections", indices_or_sections)
    if np.ndim(indices_or_sections) == 0:
        sections = given[0]
        share = floordiv(size, sections) if sections > 0 else 0
        if sections <= 0 or share * sections != size:
            fail(ShapeError, f"split: axis {where_} of {shown(tensor)} has no {sections} equal parts")
        return tuple(_along(tensor, where_, i * share, (i + 1) * share) for i in range(sections))
    cuts = [None, *given, None]
    keys = [(*[slice(None)] * where_, slice(a, b)) for a, b in itertools.pairwise(cuts)]
    return tuple(getitem(tensor, key) for key in keys)


def tile(x: TensorLike, repetitions: Size | Sequence[Size]) -> Tensor:
    """`x` repeated as a whole so many times along each axis, as `numpy.tile`. `tile(f32[3], 2)` is f32[6].

    `tile([1, 2], 2)` is [1, 2, 1, 2].
    """
    tensor = as_tensor(x)
    listed = repetitions if isinstance(repetitions, (tuple, list)) else (repetitions,)
    given = [each for n in listed for each in ((n,) if isinstance(n, Dim) else integers("tile", "repetitions", n))]
    counts: list[Size] = [*[1] * (tensor.ndim - len(given)), *given]
    shape: list[Size] = [*[1] * (len(counts) - tensor.ndim), *tensor.shape]
    if builtins.any(isinstance(c, int) and c < 0 for c in counts):
        fail(ShapeError, f"tile: negative repetitions {repetitions}: {signature(tensor)}")
    paired = [n for size in shape for n in (1, size)]
    spread = [n for count, size in zip(counts, shape, strict=True) for n in (count, size)]
    whole = broadcast_to(reshape(tensor, paired), spread)
    return reshape(whole, [count * size for count, size in zip(counts, shape, strict=True)])


def repeat(x: TensorLike, repeats: Size | Sequence[int], axis: int | None = None) -> Tensor:
    """Each element (along `axis`; of the flattened array for None) so many times in a row, as `numpy.repeat`.

    `repeats` is an int, or an int for each position. `repeat([1, 2], 2)` is [1, 1, 2, 2].
    """
    tensor = as_tensor(x)
    if axis is None:
        tensor, axis = ravel(tensor), 0
    where_ = normalized_axis("repeat", axis, tensor.ndim, tensor)
    if not isinstance(repeats, (int, Dim)):
        from graphc.ops.picking import take

        counts = np.broadcast_to(np.asarray(repeats), (_known("repeat", tensor, where_),))
        return take(tensor, np.repeat(np.arange(counts.size), counts), where_)
    if isinstance(repeats, int) and repeats < 0:
        fail(ShapeError, f"repeat: {repeats} times: {signature(tensor)}")
    shape = tensor.shape
    spread = broadcast_to(expand_dims(tensor, where_ + 1), (*shape[: where_ + 1], repeats, *shape[where_ + 1 :]))
    return reshape(spread, (*shape[:where_], shape[where_] * repeats, *shape[where_ + 1 :]))


def flip(x: TensorLike, axis: int | Sequence[int] | None = None) -> Tensor:
    """The order along `axis` (an int, several, all axes for None) reversed. `flip([1, 2, 3])` is [3, 2, 1]."""
    tensor = as_tensor(x)
    axes = normalized_axes("flip", axis, tensor.ndim, tensor)
    return getitem(tensor, tuple(slice(None, None, -1 if a in axes else 1) for a in range(tensor.ndim)))


def roll(x: TensorLike, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Tensor:
    """Elements moved by `shift` positions, those that leave come back at the other end, as `numpy.roll`.

    Over the flattened array for axis None. The size must be known, except for shifts by 1 or -1.
    `roll([1, 2, 3], 1)` is [3, 1, 2].
    """
    tensor = as_tensor(x)
    if axis is None:
        total = builtins.sum(integers("roll", "shift", shift))
        return reshape(roll(ravel(tensor), total, 0), tensor.shape)
    axes, shifts = integers("roll", "axis", axis), integers("roll", "shift", shift)
    if len(axes) == 1:
        axes = axes * len(shifts)
    elif len(shifts) == 1:
        shifts = shifts * len(axes)
    if len(shifts) != len(axes):
        fail(ShapeError, f"roll: {len(shifts)} shifts for {len(axes)} axes: {signature(tensor)}")
    for by, each in zip(shifts, axes, strict=True):
        where_ = normalized_axis("roll", each, tensor.ndim, tensor)
        size = tensor.shape[where_]
        cut: Size
        if isinstance(size, Dim) and -1 <= by <= 1:  # right for every size, 0 and 1 too
            cut = (0, maximum(size - 1, 0), minimum(size, 1))[by]
        else:
            size = _known("roll", tensor, where_)
            cut = size - by % size if size else 0
        if cut not in (0, size):
            tensor = _joined([_along(tensor, where_, cut, size), _along(tensor, where_, 0, cut)], where_)
    return tensor


def moveaxis(x: TensorLike, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Axes `source` moved to the positions `destination`; the others keep their order.

    `moveaxis(f32[2,3,4], 0, -1)` is f32[3,4,2]. `moveaxis([[1, 2]], 0, 1)` is [[1], [2]].
    """
    tensor = as_tensor(x)
    pairs = [integers("moveaxis", what, a) for what, a in (("source", source), ("destination", destination))]
    given, wanted = ([normalized_axis("moveaxis", a, tensor.ndim, tensor) for a in axes] for axes in pairs)
    if len(given) != len(wanted) or len(set(given)) != len(given) or len(set(wanted)) != len(wanted):
        fail(ShapeError, f"moveaxis: axes {source} to {destination}: {signature(tensor)}")
    order = [a for a in range(tensor.ndim) if a not in given]
    for position, a in sorted(zip(wanted, given, strict=True)):
        order.insert(position, a)
    return transpose(tensor, order)


def ravel(x: TensorLike) -> Tensor:
    """The elements in row-major order along one axis. `ravel(f32[2,3])` is f32[6].

    `ravel([[1, 2], [3, 4]])` is [1, 2, 3, 4].
    """
    tensor = as_tensor(x)
    return reshape(tensor, (tensor.size,))


def flatten(x: TensorLike, start: int = 0, end: int = -1) -> Tensor:
    """The axes from `start` to `end` (which is one of them) as one, as `torch.flatten`; NumPy's without arguments.

    `flatten(f32[batch,3,4], 1)` is f32[batch,12]; a scalar becomes a vector. An `end` before `start` is a ShapeError.
    `flatten([[[1, 2], [3, 4]]], 1)` is [[1, 2, 3, 4]].
    """
    tensor = as_tensor(x)
    if tensor.ndim == 0:
        return ravel(tensor)
    first, last = (normalized_axis("flatten", axis, tensor.ndim, tensor) for axis in (start, end))
    if first > last:
        fail(ShapeError, f"flatten: axis {end} of {shown(tensor)} lies before axis {start}")
    shape = tensor.shape
    return reshape(tensor, (*shape[:first], product(shape[first : last + 1]), *shape[last + 1 :]))


def meshgrid(*arrays: TensorLike, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Coordinate arrays from vectors, as `numpy.meshgrid`: "xy" exchanges the first two axes of the grid, "ij" not.

    `meshgrid(f32[3], f32[2])` is two f32[2,3]. Scalars count as vectors of one element.
    `meshgrid([1, 2], [3, 4])` is ([[1, 2], [1, 2]], [[3, 3], [4, 4]]).
    """
    if indexing not in ("xy", "ij"):
        fail(ArgumentError, f'meshgrid: indexing is "xy" or "ij", not {indexing!r}')
    vectors = [as_tensor(x) for x in arrays]
    vectors = [reshape(v, (1,)) if v.ndim == 0 else v for v in vectors]
    for v in vectors:
        if v.ndim != 1:
            fail(ShapeError, f"meshgrid: takes vectors: {signature(v)}")
    order = list(range(len(vectors)))
    if indexing == "xy" and len(order) > 1:
        order[:2] = [1, 0]  # vector k runs along axis order[k]
    shape: list[Size] = [1] * len(order)
    for k, v in zip(order, vectors, strict=True):
        shape[k] = v.shape[0]
    columns = [reshape(v, [v.shape[0] if a == k else 1 for a in range(len(order))])
               for k, v in zip(order, vectors, strict=True)]  # fmt: skip
    return tuple(broadcast_to(c, shape) for c in columns)


install(ravel=ravel, flatten=flatten)
