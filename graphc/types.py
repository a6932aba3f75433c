"""What a value is: its dtype, its sizes and its type (`f32[batch,128]`). Enter at `TensorType` and `DType.of`.

Sizes are in `graphc.sizes`; their names are given on here, since whoever needs a type needs them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from graphc.size_reader import parse_size as parse_size
from graphc.size_values import evaluate as evaluate
from graphc.size_values import substitute as substitute
from graphc.size_values import symbols as symbols
from graphc.sizes import CALLS as CALLS
from graphc.sizes import Atom as Atom
from graphc.sizes import Call as Call
from graphc.sizes import Dim as Dim
from graphc.sizes import Monomial as Monomial
from graphc.sizes import Shape as Shape
from graphc.sizes import Size as Size
from graphc.sizes import ceildiv as ceildiv
from graphc.sizes import floordiv as floordiv
from graphc.sizes import maximum as maximum
from graphc.sizes import minimum as minimum
from graphc.sizes import product as product
from graphc.sizes import terms_of as terms_of


class Limits(NamedTuple):
    """What `np.finfo` says of a float dtype."""

    eps: float
    max: float
    tiny: float
    smallest_subnormal: float


@dataclass(frozen=True)
class DType:
    """An element type. `kind` is NumPy's letter (b, i, u, f) or t for the token of ordered effects."""

    name: str
    short: str
    kind: str
    itemsize: int

    def __hash__(self) -> int:  # a part of every key of a node: one field tells them apart
        return hash(self.name)

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype in native byte order. Of bfloat16 that of ml_dtypes if installed, else one of two bytes."""
        return _NUMPY[self.name] if self.name in _NUMPY else _bfloat16_in_numpy()

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_narrow(self) -> bool:
        """Whether it is a float that is only stored: arithmetic runs in float32."""
        return self.kind == "f" and self.itemsize == 2

    @property
    def digits(self) -> int:
        """How many binary digits a float has: integers up to 2**digits are exact."""
        return {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}[self.name]

    @property
    def limits(self) -> Limits:
        """eps, tiny and the like of a float, as `np.finfo` has them."""
        if self.name != "bfloat16":
            found = np.finfo(self.numpy)
            return Limits(*(float(v) for v in (found.eps, found.max, found.tiny, found.smallest_subnormal)))
        return Limits(2.0**-7, (2 - 2.0**-7) * 2.0**127, 2.0**-126, 2.0**-133)

    @property
    def is_integer(self) -> bool:
        return self.kind in "iu"

    def __str__(self) -> str:
        return self.short

    @staticmethod
    def of(spec: object) -> DType:
        """The DType for a name ("float32" or "f32"), a NumPy dtype or scalar type, `bool`, `int` or `float`.

        Raises TypeError for a dtype that graphc does not have.
        """
        if isinstance(spec, DType):
            return spec
        if isinstance(spec, str) and spec in _BY_NAME:
            return _BY_NAME[spec]
        if isinstance(spec, np.dtype) and spec in _BY_NUMPY:
            return _BY_NUMPY[spec]
        if isinstance(spec, np.dtype) and is_bfloat16(spec):
            return bfloat16
        try:
            name = np.dtype(spec).name  # type: ignore[call-overload]
        except (TypeError, ValueError):
            name = repr(spec) if isinstance(spec, str) else type(spec).__name__
        if name not in _BY_NAME:
            raise TypeError(f"graphc has no dtype {name}; it has {', '.join(d.name for d in DTYPES)}")
        return _BY_NAME[name]


bool_ = DType("bool", "bool", "b", 1)
int8, int16, int32, int64 = (DType(f"int{8 * n}", f"i{8 * n}", "i", n) for n in (1, 2, 4, 8))
uint8, uint16, uint32, uint64 = (DType(f"uint{8 * n}", f"u{8 * n}", "u", n) for n in (1, 2, 4, 8))
float16, bfloat16 = DType("float16", "f16", "f", 2), DType("bfloat16", "bf16", "f", 2)
float32, float64 = DType("float32", "f32", "f", 4), DType("float64", "f64", "f", 8)
DTYPES = (bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, bfloat16, float32, float64)
token = DType("token", "token", "t", 0)  # the type of the link between ordered effects; never an array

_BY_NAME = {d.name: d for d in (*DTYPES, token)} | {d.short: d for d in DTYPES}
_NUMPY = {d.name: np.dtype(d.name) for d in DTYPES if d is not bfloat16}
_TWO_BYTES = np.dtype([("bfloat16", np.uint16)])  # what NumPy calls bfloat16 where nobody told it


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of a NumPy dtype hold bfloat16: that of ml_dtypes, or `graphc.bfloat16.numpy` without it."""
    return dtype.name == "bfloat16" or dtype == _TWO_BYTES


def casts_safely(source: np.dtype[Any], to: DType) -> bool:
    """Whether `to` holds every value of a NumPy dtype: `np.can_cast(..., "safe")`, with bfloat16."""
    if is_bfloat16(source):
        return to in (bfloat16, float32, float64)
    if to is bfloat16:
        return source in (np.bool_, np.int8, np.uint8)
    return bool(np.can_cast(source, to.numpy, "safe"))


@cache
def _bfloat16_in_numpy() -> np.dtype[Any]:
    try:
        found: np.dtype[Any] = np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    except ImportError:
        return _TWO_BYTES
    return found


_BY_NUMPY = {numpy: _BY_NAME[name] for name, numpy in _NUMPY.items()}


@dataclass(frozen=True)
class TensorType:
    """The type of a value: its dtype and its shape, printed as `f32[batch,128]`."""

    dtype: DType
    shape: Shape = ()

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Size:
        """The number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> Size:
        return self.size * self.dtype.itemsize

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def with_shape(self, shape: Iterable[Size]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @staticmethod
    def parse(text: str) -> TensorType:
        """The type that `str(type)` printed."""
        name, _, rest = text.strip().partition("[")
        if name not in _BY_NAME or not rest.endswith("]"):
            raise ValueError(f"not a type: {text}")
        return TensorType(_BY_NAME[name], tuple(parse_size(part) for part in _split_commas(rest[:-1])))


def _split_commas(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]] if text.strip() else []


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's broadcasting. A named size fits itself and 1, nothing else; ValueError names the two that do not fit."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Size] = []
    for axis in range(-rank, 0):
        size: Size = 1
        for shape in shapes:
            other = shape[axis] if -axis <= len(shape) else 1
            if size == 1:
                size = other
            elif other not in (1, size):
                raise ValueError(f"sizes {size} and {other} of axis {axis}")
        result.append(size)
    return tuple(result)
