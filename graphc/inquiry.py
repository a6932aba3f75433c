"""Questions about dtypes and shapes, as the array API names them; nothing here builds a node.

`result_type`, `can_cast`, `isdtype`, `finfo` and `iinfo` answer for dtypes (in any spelling that graphc takes), arrays
and tensors; `broadcast_shapes` for shapes with named sizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.build import Tensor, as_dtype
from graphc.errors import ArgumentError, DTypeError, ShapeError, fail
from graphc.ops.operands import TensorLike, promoted, shape_of
from graphc.types import DType, Shape
from graphc.types import broadcast_shapes as _broadcast_shapes

_KINDS = {"bool": "b", "signed integer": "i", "unsigned integer": "u", "integral": "iu", "real floating": "f",
          "complex floating": "", "numeric": "iuf"}  # fmt: skip


def _dtype(given: Any) -> DType:
    return given.dtype if isinstance(given, Tensor) else as_dtype(getattr(given, "dtype", given))


def result_type(*arrays_and_dtypes: TensorLike | DType | str | type) -> DType:
    """The dtype that an operation of these has, as NumPy 2 promotes (NEP 50): Python numbers are weak.

    `result_type("int8", x)` for a float32 tensor x is float32; `result_type("float32", 1.5)` is float32.
    """
    if not arrays_and_dtypes:
        fail(ArgumentError, "result_type: needs a dtype or an array")
    operands: list[Any] = []
    for given in arrays_and_dtypes:
        spelled = isinstance(given, (DType, str, type, np.dtype))
        operands.append(np.empty(0, as_dtype(given).numpy) if spelled else given)
    return promoted("result_type", *operands)


def can_cast(from_: Any, to: Any) -> bool:
    """Whether promotion leads from one dtype (or that of a tensor) to the other: no value is lost on the way."""
    return bool(np.can_cast(_dtype(from_).numpy, _dtype(to).numpy, "safe"))


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is another, or of a kind, or any of a tuple of them.

    Kinds: "bool", "signed integer", "unsigned integer", "integral", "real floating", "complex floating", "numeric".
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, each) for each in kind)
    if isinstance(kind, str) and kind in _KINDS:
        return _dtype(dtype).kind in _KINDS[kind]
    return _dtype(dtype) is _dtype(kind)


def finfo(type_: Any, /) -> np.finfo[Any]:
    """NumPy's `finfo` of a float dtype, or of that of a tensor. DTypeError for others."""
    kind = _dtype(type_)
    if not kind.is_float:
        fail(DTypeError, f"finfo: {kind.name} is no float")
    return np.finfo(kind.numpy)


def iinfo(type_: Any, /) -> np.iinfo[Any]:
    """NumPy's `iinfo` of an integer dtype, or of that of a tensor. DTypeError for others."""
    kind = _dtype(type_)
    if not kind.is_integer:
        fail(DTypeError, f"iinfo: {kind.name} is no integer")
    return np.iinfo(kind.numpy)


def broadcast_shapes(*shapes: Any) -> Shape:
    """The shape that arrays of these shapes broadcast to: `broadcast_shapes((3, 1), ("n",))` is (3, n)."""
    found = [shape_of("broadcast_shapes", shape) for shape in shapes]
    try:
        return _broadcast_shapes(*found)
    except ValueError as error:
        fail(ShapeError, f"broadcast_shapes: {', '.join(map(str, found))} do not broadcast ({error})")
