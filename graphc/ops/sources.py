"""Values that come from nowhere: placeholders, parameters, constants, positions and sizes.

`placeholder`, `parameter` and `constant` are called through `graphc.build`; the functions here fill arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Union, cast

import numpy as np

from graphc.build import Tensor, apply, as_dtype, constant
from graphc.conversion import cast_array
from graphc.errors import ArgumentError, ShapeError, fail
from graphc.graph import Attrs, Op, Types
from graphc.ops.lowering import IndexValue
from graphc.ops.operands import TensorLike, as_tensor, expanded, shape_of
from graphc.ops.registry import register
from graphc.ops.samples import FLOATS, INTEGERS, NARROW, NUMBERS, Sample
from graphc.types import Dim, DType, Shape, Size, TensorType, ceildiv, maximum

_NO_INPUT = "it has no operands to differentiate"
_SOURCE = {
    "reference": "its value is given, not computed",
    "gradient": _NO_INPUT,
    "lowering": "it is memory, bound by the runtime",
    "samples": "it is an operand of every other op's samples",
}


def _declared(types: Types, attrs: Attrs) -> Types:
    return (attrs["type"],)


placeholder = register(
    Op(
        "placeholder",
        "placeholder(name, type): an input of a function.",
        _declared,
        unique=True,
        exempt=_SOURCE,
        formula="the argument of the call",
        example="graphc.function([x := graphc.placeholder('x', (3,))], x * 2)(np.ones(3, 'float32'))",
    )
)
parameter = register(
    Op(
        "parameter",
        "parameter(name, type, state): named state, read as it is at the start of a call.",
        _declared,
        unique=True,
        exempt=_SOURCE,
        formula="its value at the start of the call",
        example="graphc.parameter('w', [1.0, 2.0]) * 2",
    )
)


def _constant_type(types: Types, attrs: Attrs) -> Types:
    array = attrs["data"].array
    return (TensorType(DType.of(array.dtype), array.shape),)


register(
    Op(
        "constant",
        "constant(data): the array `data.array`. Equal dtype, shape and bytes are one constant.",
        _constant_type,
        reference=lambda arrays, attrs: (attrs["data"].array,),
        exempt={k: v for k, v in _SOURCE.items() if k != "reference"},
        formula="data",
        example="graphc.constant([1.5, 2.5])",
    )
)


def _iota_type(types: Types, attrs: Attrs) -> Types:
    if not 0 <= attrs["axis"] < len(attrs["shape"]):
        raise ShapeError(f"there is no axis {attrs['axis']} in shape {list(attrs['shape'])}")
    return (TensorType(attrs["dtype"], tuple(attrs["shape"])),)


def _iota(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    shape, axis = attrs["shape"], attrs["axis"]
    line = cast_array(np.arange(shape[axis]), attrs["dtype"])
    column = line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return (np.ascontiguousarray(np.broadcast_to(column, shape)),)


def _iota_samples() -> list[Sample]:
    shapes: tuple[tuple[Shape, int], ...] = (((7,), 0), ((3, 300), 1), ((5, 2), 0), ((0, 4), 0), ((1,), 0))
    return [
        Sample((), {"shape": shape, "dtype": dtype, "axis": axis}, (dtype,))
        for shape, axis in shapes
        for dtype in (*NARROW, *NUMBERS)
    ]


_iota_op = register(
    Op(
        "iota",
        "iota(shape, dtype, axis): result[i] = i[axis], converted to dtype (integers wrap).",
        _iota_type,
        _iota,
        lowering=IndexValue(),
        samples=_iota_samples,
        exempt={"gradient": _NO_INPUT},
        formula="result[i] = i[axis]",
        example="graphc.iota((2, 3), 'int32', axis=1)",
    )
)

register(
    Op(
        "dim_value",
        "dim_value(size, dtype): a size as a scalar; of a named size, its value at the call.",
        lambda types, attrs: (TensorType(attrs["dtype"]),),
        lambda arrays, attrs: (cast_array(np.asarray(attrs["size"]), attrs["dtype"]),),
        samples=lambda: [Sample((), {"size": 12, "dtype": d}, (d,)) for d in (*INTEGERS, *NARROW, *FLOATS)],
        exempt={"gradient": _NO_INPUT, "lowering": "a size is an argument of every kernel: it is read, not computed"},
        formula="size",
        example="graphc.dim_value(12)",
    )
)


def iota(shape: Sequence[Size] | Size, dtype: Any = "int64", axis: int = 0) -> Tensor:
    """Positions along `axis`: result[i] = i[axis]."""
    sizes = _shape(shape)
    return cast(Tensor, apply(_iota_op, shape=sizes, dtype=as_dtype(dtype), axis=axis % max(len(sizes), 1)))


Number = Union[int, float, Dim]


def arange(start: Number, /, stop: Number | None = None, step: Number = 1, *, dtype: Any = None) -> Tensor:
    """start, start + step, ... below stop (above it, for a negative step); `arange(n)` counts from 0.

    `arange(4)` is [0, 1, 2, 3]. `arange(7, 1, -2)` is [7, 5, 3]. start and stop may be named sizes, with a step that
    is an int. The default dtype is int64, float32 if one of the three is a float.
    """
    if any(not isinstance(v, (int, float, Dim)) for v in (start, 0 if stop is None else stop, step)) or step == 0:
        fail(ArgumentError, f"arange: takes numbers and a step other than 0, not {start!r}, {stop!r}, {step!r}")
    first, last = (0, start) if stop is None else (start, stop)
    count = _count(first, last, step)
    kind = as_dtype(dtype or ("float32" if any(isinstance(v, float) for v in (first, last, step)) else "int64"))
    if (first, step) == (0, 1):
        return iota((count,), kind)
    positions = iota((count,), "float64" if isinstance(step, float) or isinstance(first, float) else "int64")
    begin = dim_value(first) if isinstance(first, Dim) else first
    return (positions * step + begin).astype(kind)


def _count(first: Number, last: Number, step: Number) -> Size:
    """How many numbers there are from `first` on, before `last`."""
    if not isinstance(first, Dim) and not isinstance(last, Dim):
        return max(0, math.ceil((last - first) / step))  # type: ignore[operator]
    if not isinstance(step, int) or isinstance(first, float) or isinstance(last, float):
        fail(ArgumentError, f"arange: named sizes go with ints: {first}, {last}, {step}")
    length = last - first if step > 0 else first - last
    return ceildiv(maximum(length, 0), abs(step)) if (first, step) != (0, 1) else last


def asarray(x: TensorLike, dtype: Any = None) -> Tensor:
    """`x` as a tensor, of `dtype` if given: tensors as they are, numbers, lists and arrays as constants.

    `asarray([1, 2])` is [1, 2].
    """
    tensor = as_tensor(x)
    return tensor if dtype is None else tensor.astype(as_dtype(dtype))


def empty(shape: Sequence[Size] | Size, dtype: Any = "float32") -> Tensor:
    """`zeros`: no element of a graph is left undefined. `empty(2)` is [0, 0]."""
    return zeros(shape, dtype)


def empty_like(x: TensorLike, dtype: Any = None) -> Tensor:
    """`zeros_like`. `empty_like([1.0, 2.0])` is [0, 0]."""
    return zeros_like(x, dtype)


def dim_value(size: Size, dtype: Any = "int64") -> Tensor:
    """A size as a scalar tensor: a constant if it is one."""
    kind = as_dtype(dtype)
    return cast(Tensor, apply("dim_value", size=size, dtype=kind)) if isinstance(size, Dim) else constant(size, kind)


def full(shape: Sequence[Size] | Size, value: TensorLike, dtype: Any = None) -> Tensor:
    """An array of `shape` filled with the scalar `value`. `full((2,), 7)` is [7, 7]."""
    if dtype is not None and isinstance(value, Dim):
        scalar = dim_value(value, dtype)
    else:
        scalar = as_tensor(value) if dtype is None else constant(value, dtype)
    return expanded(scalar, _shape(shape))


def zeros(shape: Sequence[Size] | Size, dtype: Any = "float32") -> Tensor:
    """Zeros. (The default dtype is float32, not NumPy's float64.) `zeros((2,), 'int32')` is [0, 0]."""
    return full(shape, 0, dtype)


def ones(shape: Sequence[Size] | Size, dtype: Any = "float32") -> Tensor:
    """Ones. (The default dtype is float32, not NumPy's float64.) `ones((2,), 'int32')` is [1, 1]."""
    return full(shape, 1, dtype)


def zeros_like(x: TensorLike, dtype: Any = None) -> Tensor:
    """Zeros of the shape and dtype of `x`. `zeros_like([5, 7])` is [0, 0]."""
    like = as_tensor(x)
    return full(like.shape, 0, like.dtype if dtype is None else dtype)


def ones_like(x: TensorLike, dtype: Any = None) -> Tensor:
    """Ones of the shape and dtype of `x`. `ones_like([5, 7])` is [1, 1]."""
    like = as_tensor(x)
    return full(like.shape, 1, like.dtype if dtype is None else dtype)


def full_like(x: TensorLike, value: TensorLike, dtype: Any = None) -> Tensor:
    """`value` in the shape and dtype of `x`. `full_like([1, 2], 7)` is [7, 7]."""
    like = as_tensor(x)
    return full(like.shape, value, like.dtype if dtype is None else dtype)


def _shape(shape: Sequence[Size] | Size) -> Shape:
    return shape_of("shape", shape)
