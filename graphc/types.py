"""What a value is: its dtype, its sizes and its type (`f32[batch,128]`). Enter at `TensorType` and `DType.of`.

Sizes are in `graphc.sizes`; their names are given on here, since whoever needs a type needs them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.size_reader import parse_size as parse_size
from graphc.sizes import CALLS as CALLS
from graphc.sizes import Atom as Atom
from graphc.sizes import Call as Call
from graphc.sizes import Dim as Dim
from graphc.sizes import Monomial as Monomial
from graphc.sizes import Shape as Shape
from graphc.sizes import Size as Size
from graphc.sizes import ceildiv as ceildiv
from graphc.sizes import evaluate as evaluate
from graphc.sizes import floordiv as floordiv
from graphc.sizes import maximum as maximum
from graphc.sizes import minimum as minimum
from graphc.sizes import product as product
from graphc.sizes import substitute as substitute
from graphc.sizes import symbols as symbols
from graphc.sizes import terms_of as terms_of


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
        """The NumPy dtype in native byte order."""
        return _NUMPY[self.name]

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

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
float32, float64 = DType("float32", "f32", "f", 4), DType("float64", "f64", "f", 8)
DTYPES = (bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64)
token = DType("token", "token", "t", 0)  # the type of the link between ordered effects; never an array

_BY_NAME = {d.name: d for d in (*DTYPES, token)} | {d.short: d for d in DTYPES}
_NUMPY = {d.name: np.dtype(d.name) for d in DTYPES}
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
