"""Ops that move elements and compute nothing: reshape, transpose, broadcast_to, slice, and functions made of them.

A movement lowers to a map from the index of a result element to that of the operand's element (`Movement.source`).
Shapes may hold named sizes. Indexing with `x[...]` is in `graphc.ops.indexing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply, install, signature
from graphc.errors import ArgumentError, ShapeError, fail
from graphc.graph import Attrs, Node, Op, Types, shown
from graphc.ops.lowering import IndexHandler, Movement
from graphc.ops.operands import (
    TensorLike,
    as_tensor,
    broadcast_shape,
    expanded,
    integers,
    normalized_axes,
    normalized_axis,
    shape_of,
    tensors_of,
)
from graphc.ops.registry import register
from graphc.ops.samples import ALL, Operand, Sample
from graphc.types import Dim, Shape, Size, broadcast_shapes, ceildiv, floordiv, product

Index = tuple[Size, ...]
_B = Dim.symbol("batch")


def _samples(*cases: tuple[Shape, dict[str, Any]]) -> list[Sample]:
    return [Sample((Operand(shape),), attrs, ALL, {"batch": 6}) for shape, attrs in cases]


def _one(types: Types) -> None:
    if len(types) != 1:
        raise ArgumentError(f"takes 1 operand, not {len(types)}")


# reshape


def _reshape_type(types: Types, attrs: Attrs) -> Types:
    _one(types)
    shape = tuple(attrs["shape"])
    if product(shape) != types[0].size:
        raise ShapeError(
            f"{{0}} is {types[0]} with {types[0].size} elements, shape {_text(shape)} has {product(shape)}"
        )
    return (types[0].with_shape(shape),)


def _text(shape: Shape) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def _reshape_source(ix: IndexHandler, types: Types, attrs: Attrs, index: Index) -> Index:
    """Axes of 1 apart, both shapes are cut wherever their leading products agree; most pieces are then single axes."""
    operand, result = types[0].shape, types[1].shape
    if 0 in operand:
        return tuple(0 for _ in operand)
    from_axes = [a for a, n in enumerate(operand) if n != 1]
    to_axes = [a for a, n in enumerate(result) if n != 1]
    position: list[Size] = [0] * len(operand)
    cuts = {product(operand[a] for a in from_axes[:i]): i for i in range(len(from_axes) + 1)}
    start_from = start_to = 0
    for stop_to in range(1, len(to_axes) + 1):
        stop_from = cuts.get(product(result[a] for a in to_axes[:stop_to]))
        if stop_from is None:
            continue
        flat: Size = 0
        for a in to_axes[start_to:stop_to]:
            flat = flat * result[a] + index[a]
        group = from_axes[start_from:stop_from]
        for i, a in enumerate(group):
            stride = product(operand[b] for b in group[i + 1 :])
            quotient = flat if stride == 1 else ix.div(flat, stride)
            position[a] = quotient if i == 0 else ix.mod(quotient, operand[a])
        start_from, start_to = stop_from, stop_to
    return tuple(position)


_reshape_op = register(
    Op(
        "reshape",
        "reshape(shape): the same elements in row-major order in another shape of the same number of elements.",
        _reshape_type,
        lambda arrays, attrs: (np.ascontiguousarray(arrays[0]).reshape(attrs["shape"]),),
        lambda node, g: (reshape(g[0], node.inputs[0].type.shape),),
        Movement(_reshape_source),
        lambda: _samples(
            ((4, 6), {"shape": (24,)}),
            ((24,), {"shape": (2, 1, 3, 4)}),
            ((2, 3, 4), {"shape": (6, 4)}),
            ((4, 6), {"shape": (3, 8)}),
            ((5, 2, 6), {"shape": (5, 4, 3)}),
            ((1,), {"shape": ()}),
            ((), {"shape": (1, 1)}),
            ((0, 3), {"shape": (3, 0)}),
            ((_B, 2, 3), {"shape": (_B, 6)}),
            ((_B, 4), {"shape": (_B * 2, 2)}),
        ),
        formula="result.flat[i] = x.flat[i]",
        example="graphc.reshape([[1, 2, 3], [4, 5, 6]], (3, -1))",
    )
)


def reshape(x: TensorLike, shape: Size | str | Sequence[Size | str]) -> Tensor:
    """The elements of `x` in row-major order in `shape`; one size may be -1 and follows from the others.

    A size may be given by its name: `x.reshape("batch", 2, 2)`.
    """
    tensor = as_tensor(x)
    sizes = shape_of("reshape", shape, least=-1)  # -1: to be worked out
    unknown = [a for a, n in enumerate(sizes) if n == -1]
    if len(unknown) > 1:
        fail(ShapeError, f"reshape: {_text(sizes)} is no shape", "only one size may be -1")
    if unknown:
        known = product(n for n in sizes if n != -1)
        if known == 0:
            fail(ShapeError, f"reshape: -1 in {_text(sizes)} could be any size, {signature(tensor)}", "write the size")
        sizes = tuple(floordiv(tensor.size, known) if n == -1 else n for n in sizes)
    return tensor if sizes == tensor.shape else cast(Tensor, apply(_reshape_op, tensor, shape=sizes))


def expand_dims(x: TensorLike, axis: int | Sequence[int]) -> Tensor:
    """`x` with new axes of size 1 at the positions `axis` of the result. `expand_dims([1, 2], 1)` is [[1], [2]]."""
    tensor = as_tensor(x)
    count = len(axis) if isinstance(axis, (tuple, list)) else 1
    new = normalized_axes("expand_dims", axis, tensor.ndim + count)
    old = iter(tensor.shape)
    return reshape(tensor, tuple(1 if a in new else next(old) for a in range(tensor.ndim + count)))


def squeeze(x: TensorLike, axis: int | Sequence[int] | None = None) -> Tensor:
    """`x` without axes of size 1: those in `axis`, or all of them. `squeeze([[1], [2]])` is [1, 2]."""
    tensor = as_tensor(x)
    if axis is None:
        axes = tuple(a for a, n in enumerate(tensor.shape) if n == 1)
    else:
        axes = normalized_axes("squeeze", axis, tensor.ndim, tensor)
    for a in axes:
        if tensor.shape[a] != 1:
            fail(ShapeError, f"squeeze: axis {a} of {shown(tensor)} has size {tensor.shape[a]}, not 1")
    return reshape(tensor, tuple(n for a, n in enumerate(tensor.shape) if a not in axes))


# transpose


def _transpose_type(types: Types, attrs: Attrs) -> Types:
    _one(types)
    axes = attrs["axes"]
    if sorted(axes) != list(range(types[0].rank)):
        raise ShapeError(f"axes {axes} are no order of the axes of {{0}}: {types[0]}")
    return (types[0].with_shape(types[0].shape[a] for a in axes),)


def _inverse(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(a) for a in np.argsort(axes))


_transpose_op = register(
    Op(
        "transpose",
        "transpose(axes): axis k of the result is axis axes[k] of x.",
        _transpose_type,
        lambda arrays, attrs: (np.ascontiguousarray(arrays[0].transpose(attrs["axes"])),),
        lambda node, g: (transpose(g[0], _inverse(node.attrs["axes"])),),
        Movement(lambda ix, types, attrs, index: tuple(index[a] for a in _inverse(attrs["axes"]))),
        lambda: _samples(
            ((4, 7), {"axes": (1, 0)}),
            ((2, 3, 5), {"axes": (2, 0, 1)}),
            ((0, 3), {"axes": (1, 0)}),
            ((1, 1), {"axes": (1, 0)}),
            ((_B, 3), {"axes": (1, 0)}),
        ),
        formula="result[i[axes[0]], i[axes[1]], ...] = x[i[0], i[1], ...]",
        example="graphc.transpose([[1, 2, 3], [4, 5, 6]])",
    )
)


def transpose(x: TensorLike, axes: Sequence[int] | None = None) -> Tensor:
    """The axes of `x` in the order `axes`; reversed without it."""
    tensor = as_tensor(x)
    if axes is None:
        order = tuple(reversed(range(tensor.ndim)))
    else:
        order = tuple(normalized_axis("transpose", a, tensor.ndim, tensor) for a in integers("transpose", "axes", axes))
        if sorted(order) != list(range(tensor.ndim)):
            hint = "swapaxes exchanges two axes" if len(order) == 2 else "moveaxis moves some and keeps the others"
            fail(ShapeError, f"transpose: axes {order} are no order of the axes of {shown(tensor)}", hint)
    return tensor if order == tuple(range(tensor.ndim)) else cast(Tensor, apply(_transpose_op, tensor, axes=order))


def permute_dims(x: TensorLike, axes: Sequence[int]) -> Tensor:
    """The array API's name of `transpose` with axes. `permute_dims([[1, 2]], (1, 0))` is [[1], [2]]."""
    return transpose(x, axes)


def swapaxes(x: TensorLike, axis1: int, axis2: int) -> Tensor:
    """`x` with two axes exchanged. `swapaxes([[1, 2]], 0, 1)` is [[1], [2]]."""
    tensor = as_tensor(x)
    a, b = (normalized_axis("swapaxes", axis, tensor.ndim, tensor) for axis in (axis1, axis2))
    return transpose(tensor, tuple({a: b, b: a}.get(axis, axis) for axis in range(tensor.ndim)))


def matrix_transpose(x: TensorLike) -> Tensor:
    """`x` with its last two axes exchanged. `matrix_transpose([[1, 2]])` is [[1], [2]]."""
    return swapaxes(x, -1, -2)


# broadcast_to


def _broadcast_type(types: Types, attrs: Attrs) -> Types:
    _one(types)
    shape = tuple(attrs["shape"])
    try:
        fits = broadcast_shapes(types[0].shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(f"{{0}} is {types[0]}, it does not broadcast to {_text(shape)}")
    return (types[0].with_shape(shape),)


def _broadcast_source(ix: IndexHandler, types: Types, attrs: Attrs, index: Index) -> Index:
    operand = types[0].shape
    last = index[len(index) - len(operand) :]
    return tuple(0 if n == 1 else i for n, i in zip(operand, last, strict=True))


def _broadcast_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    """The sum over what was repeated: the one place where broadcasting is undone."""
    (x,) = tensors_of(node)
    new = g[0].ndim - x.ndim
    repeated = tuple(a for a in range(g[0].ndim) if a < new or (x.shape[a - new] == 1 and g[0].shape[a] != 1))
    return (reshape(g[0].sum(axis=repeated), x.shape) if repeated else g[0],)


register(
    Op(
        "broadcast_to",
        "broadcast_to(shape): x repeated along new leading axes and along axes of size 1.",
        _broadcast_type,
        lambda arrays, attrs: (np.ascontiguousarray(np.broadcast_to(arrays[0], attrs["shape"])),),
        _broadcast_gradient,
        Movement(_broadcast_source),
        lambda: _samples(
            ((), {"shape": (5,)}),
            ((5,), {"shape": (3, 5)}),
            ((3, 1), {"shape": (3, 7)}),
            ((1, 4, 1), {"shape": (2, 3, 4, 5)}),
            ((1,), {"shape": (0,)}),
            ((1,), {"shape": (1, 1)}),
            ((_B, 1), {"shape": (_B, 2)}),
        ),
        formula="result[..., i] = x[i], with index 0 along axes of size 1",
        example="graphc.broadcast_to([1, 2], (3, 2))",
    )
)


def broadcast_arrays(*arrays: TensorLike) -> tuple[Tensor, ...]:
    """All arrays broadcast to their common shape. `broadcast_arrays([1, 2], 3)` is [[1, 2], [3, 3]]."""
    tensors = [as_tensor(x) for x in arrays]
    shape = broadcast_shape("broadcast_arrays", *tensors)
    return tuple(broadcast_to(t, shape) for t in tensors)


def broadcast_to(x: TensorLike, shape: Size | str | Sequence[Size | str]) -> Tensor:
    """`x` repeated to `shape`, by NumPy's rules. A size may be given by its name."""
    return expanded(as_tensor(x), shape_of("broadcast_to", shape))


# slice


def _slice_type(types: Types, attrs: Attrs) -> Types:
    _one(types)
    sizes: list[Size] = []
    for axis, (n, start, stop, step) in enumerate(
        zip(types[0].shape, attrs["starts"], attrs["stops"], attrs["steps"], strict=True)
    ):
        count = slice_size(start, stop, step)
        last = start + (count - 1) * step
        if step == 0 or (count != 0 and not (_below(start, n) and _below(last, n))):
            raise ShapeError(f"{{0}} is {types[0]}, axis {axis} has no {start}:{stop}:{step}")
        sizes.append(count)
    return (types[0].with_shape(sizes),)


def _below(position: Size, n: Size) -> bool:
    """Whether 0 <= position < n, or it depends on a named size."""
    return not isinstance(position, int) or not isinstance(n, int) or 0 <= position < n


def slice_size(start: Size, stop: Size, step: int) -> Size:
    """How many positions start, start + step, ... there are before `stop` (-1 is a position: the one before 0)."""
    size = ceildiv(stop - start, step) if step > 0 else ceildiv(start - stop, -step)
    return max(size, 0) if isinstance(size, int) else size


def _slice_reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    parts = zip(attrs["starts"], attrs["stops"], attrs["steps"], strict=True)
    key = tuple(np.arange(cast(int, slice_size(start, stop, step))) * step + start for start, stop, step in parts)
    return (np.ascontiguousarray(arrays[0][np.ix_(*key)] if key else arrays[0]),)


def _slice_source(ix: IndexHandler, types: Types, attrs: Attrs, index: Index) -> Index:
    return tuple(start + i * step for i, start, step in zip(index, attrs["starts"], attrs["steps"], strict=True))


def _slice_gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    """The cotangent put back in place, with zeros around it."""
    from graphc.ops.padding import unslice

    return (unslice(g[0], node.inputs[0].type.shape, node.attrs["starts"], node.attrs["steps"]),)


def _slices(*parts: tuple[Size, Size, int]) -> dict[str, Any]:
    starts, stops, steps = zip(*parts, strict=True)
    return {"starts": starts, "stops": stops, "steps": steps}


slice_op = register(
    Op(
        "slice",
        "slice(starts, stops, steps): positions start, start + step, ... before stop on each axis. Starts are not"
        " negative; a stop of -1 is the position before 0 (steps may be negative).",
        _slice_type,
        _slice_reference,
        _slice_gradient,
        Movement(_slice_source),
        lambda: _samples(
            ((9,), _slices((2, 7, 1))),
            ((9,), _slices((1, 9, 3))),
            ((9,), _slices((8, -1, -1))),
            ((9,), _slices((7, 1, -2))),
            ((4, 6), _slices((1, 2, 1), (0, 6, 2))),
            ((4, 6), _slices((0, 4, 1), (0, 0, 1))),
            ((1,), _slices((0, 1, 1))),
            ((_B, 3), _slices((0, _B - 1, 1), (1, 3, 1))),
        ),
        formula="result[i] = x[starts + i * steps]",
        example="graphc.constant([0, 1, 2, 3, 4, 5])[4:0:-2]",
    )
)

install(reshape=reshape, transpose=transpose)
