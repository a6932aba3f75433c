"""What an emitted value is: its operand text, its dtype and lanes, and the texts of LLVM types and constants.

Enter at `Value`, `type_text` and `constant_text`. A new dtype needs a line in `_ELEMENT` (and one in `_MEMORY` if
its form in memory differs from its form in registers, as for bool).
"""

from __future__ import annotations

import math
import struct
from functools import cache

import numpy as np

from graphc.conversion import cast_array
from graphc.loops.ir import VType
from graphc.types import DType

# Narrow floats are their bits: only `cast` knows more of them (graphc.llvm.conversions).
_ELEMENT = {"bool": "i1", "float16": "i16", "bfloat16": "i16", "float32": "float", "float64": "double"} | {
    f"{sign}int{bits}": f"i{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_MEMORY = {"bool": "i8"}
_SUFFIX = {"float": "f32", "double": "f64"}
_types: dict[tuple[str, int], str] = {}


class Value:
    """An SSA value or a constant.

    `text` is the operand as LLVM reads it, without its type; `type` the LLVM type; `level` the nesting level whose
    block defines it (0: the entry); `const` the Python number if it is a constant (equal lanes), else None.
    """

    __slots__ = ("const", "dtype", "lanes", "level", "text", "type")

    def __init__(
        self, text: str, dtype: DType, lanes: int = 1, level: int = 0, const: float | int | bool | None = None
    ) -> None:
        self.text = text
        self.dtype = dtype
        self.lanes = lanes
        self.type = _types.get((dtype.name, lanes)) or type_text(dtype, lanes)
        self.level = level
        self.const = const

    @property
    def typed(self) -> str:
        """The operand with its type in front."""
        return f"{self.type} {self.text}"

    def __repr__(self) -> str:
        return self.typed


class Registers:
    """The registers of one Declare: their values now, row by row."""

    __slots__ = ("shape", "values", "vtype")

    def __init__(self, shape: tuple[int, ...], vtype: VType, values: list[Value]) -> None:
        self.shape = shape
        self.vtype = vtype
        self.values = values


def type_text(dtype: DType, lanes: int = 1) -> str:
    """The LLVM type of a value in registers: `float`, `<16 x float>`, `i1`."""
    key = (dtype.name, lanes)
    text = _types.get(key)
    if text is None:
        element = _ELEMENT[dtype.name]
        text = _types[key] = element if lanes == 1 else f"<{lanes} x {element}>"
    return text


def memory_type_text(dtype: DType, lanes: int = 1) -> str:
    """The LLVM type of elements in memory: that of registers, but a byte for bool."""
    element = _MEMORY.get(dtype.name)
    if element is None:
        return type_text(dtype, lanes)
    return element if lanes == 1 else f"<{lanes} x {element}>"


@cache
def mangled(type_: str) -> str:
    """The type as it stands in the name of an overloaded intrinsic: `v16f32`, `i64`, `p0`."""
    if type_.startswith("<"):
        lanes, _, element = type_[1:-1].partition(" x ")
        return f"v{lanes}{mangled(element)}"
    return "p0" if type_ == "ptr" else _SUFFIX.get(type_, type_)


def wrapped(value: int, dtype: DType) -> int:
    """`value` modulo the width of `dtype`, in its range."""
    bits = dtype.itemsize * 8
    value &= (1 << bits) - 1
    return value - (1 << bits) if dtype.kind == "i" and value >> (bits - 1) else value


def constant_text(value: float | int | bool, dtype: DType, lanes: int = 1) -> str:
    """The operand text of a constant, exact: floats as the hexadecimal bits that LLVM reads."""
    if dtype.kind == "b":
        text = "true" if value else "false"
    elif dtype.is_narrow:
        text = str(int(cast_array(np.asarray(float(value)), dtype).view(np.uint16)))
    elif dtype.kind == "f":
        text = _float_text(float(value), dtype)
    else:
        text = str(wrapped(int(value), dtype))
    return text if lanes == 1 else f"splat ({_ELEMENT[dtype.name]} {text})"


def _float_text(value: float, dtype: DType) -> str:
    if dtype.itemsize == 4 and math.isfinite(value):
        try:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        except OverflowError:  # rounds to an infinity
            value = math.copysign(math.inf, value)
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
