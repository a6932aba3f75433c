"""From one dtype to another: what `cast` becomes, for scalars and vectors alike, without a trap, poison or a call.

Enter at `cast`. What the dtypes mean is said once more for arrays in `graphc.conversion`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.llvm.values import Value, type_text
from graphc.types import DType, bfloat16, float16, float32, float64, int32, int64, uint32

if TYPE_CHECKING:
    from graphc.llvm.arithmetic import Arithmetic


def cast(h: Arithmetic, a: Value, dtype: DType) -> Value:
    """`a` in another dtype. A float that an integer dtype cannot hold gives the nearest that it holds, NaN gives 0."""
    source, to = a.dtype, dtype.kind
    if source is dtype or source == dtype:
        return a
    if source.is_narrow:
        return cast(h, _widened(h, a), dtype)
    if dtype.is_narrow:
        wide = _to_odd(h, a) if source is float64 else cast(h, a, float32)
        return _to_bfloat16(h, wide) if dtype is bfloat16 else _to_float16(h, wide)
    if to == "b":
        return h.ne(a, h.like(0, a))
    if source.kind == "f" and to != "f":
        return _to_integer(h, a, dtype)
    if source.kind == "f":
        return _convert(h, "fpext" if dtype.itemsize > source.itemsize else "fptrunc", a, dtype)
    if to == "f":
        return _convert(h, "sitofp" if source.kind == "i" else "uitofp", a, dtype)
    if source.kind != "b" and source.itemsize == dtype.itemsize:
        return h.bitcast(a, dtype)
    if source.kind == "b" or dtype.itemsize > source.itemsize:
        return _convert(h, "sext" if source.kind == "i" else "zext", a, dtype)
    return _convert(h, "trunc", a, dtype)


def _convert(h: Arithmetic, operation: str, a: Value, dtype: DType) -> Value:
    level = a.level if dtype is int64 and a.lanes == 1 else None
    return h.builder.pure(dtype, a.lanes, f"{operation} {a.typed} to {type_text(dtype, a.lanes)}", level)


def _to_integer(h: Arithmetic, a: Value, dtype: DType) -> Value:
    if dtype.name == "uint64":
        return _to_uint64(h, a, dtype)
    if dtype.name not in ("int32", "int64"):
        wide = _to_integer(h, a, int64 if dtype.name == "uint32" else int32)
        bits = 8 * dtype.itemsize - (dtype.kind == "i")
        least = h.like(-(2**bits) if dtype.kind == "i" else 0, wide)
        below_most = h.builder.binary("smin", wide, h.like(2**bits - 1, wide))
        return _convert(h, "trunc", h.builder.binary("smax", below_most, least), dtype)
    limit = 2 ** (8 * dtype.itemsize - 1)
    below, above = h.lt(a, h.like(-float(limit), a)), h.ge(a, h.like(float(limit), a))
    inside = h.and_(h.ge(a, h.like(-float(limit), a)), h.not_(above))
    whole = _convert(h, "fptosi", h.select(inside, a, h.like(0.0, a)), dtype)
    return h.select(above, h.like(limit - 1, whole), h.select(below, h.like(-limit, whole), whole))


def _to_uint64(h: Arithmetic, a: Value, dtype: DType) -> Value:
    """In two halves: what is 2**63 or more goes through int64 without its top bit."""
    half, zero = h.like(float(2**63), a), h.like(0.0, a)
    large, positive = h.ge(a, half), h.select(h.gt(a, zero), a, zero)
    low = _to_integer(h, h.select(large, h.sub(positive, half), positive), int64)
    top = h.builder.constant(-(2**63), int64, a.lanes)
    whole = h.xor(low, h.select(large, top, h.like(0, low)))
    beyond = h.ge(a, h.like(float(2**64), a))
    return h.bitcast(h.select(beyond, h.like(-1, low), whole), dtype)


# Narrow floats. A bfloat16 is the upper half of a float32; float16 has instructions on most targets.


def _widened(h: Arithmetic, a: Value) -> Value:
    """A narrow float as float32, exactly."""
    if a.dtype is float16 and h.target.half:
        half = h.builder.pure(a.dtype, a.lanes, f"bitcast {a.typed} to {_half(a.lanes)}").text
        return h.builder.pure(float32, a.lanes, f"fpext {_half(a.lanes)} {half} to {type_text(float32, a.lanes)}")
    bits = _convert(h, "zext", a, uint32)
    if a.dtype is bfloat16:
        return h.bitcast(h.shl(bits, h.like(16, bits)), float32)
    shifted = h.shl(h.and_(bits, h.like(0x7FFF, bits)), h.like(13, bits))
    number = h.bitcast(shifted, float32)
    number = h.mul(number, h.like(2.0**112, number))  # the exponents' biases differ by 112; denormals become normal
    special = h.bitcast(h.or_(shifted, h.like(0x7F800000, bits)), float32)
    size = h.select(h.ge(shifted, h.like(0x7C00 << 13, bits)), special, number)
    sign = h.shl(h.and_(bits, h.like(0x8000, bits)), h.like(16, bits))
    return h.bitcast(h.or_(h.bitcast(size, uint32), sign), float32)


def _half(lanes: int) -> str:
    return "half" if lanes == 1 else f"<{lanes} x half>"


def _to_float16(h: Arithmetic, a: Value) -> Value:
    """float32 rounded to the nearest float16, ties to even."""
    if h.target.half:
        short = h.builder.pure(float16, a.lanes, f"fptrunc {a.typed} to {_half(a.lanes)}").text
        kind = type_text(float16, a.lanes)
        return h.builder.pure(float16, a.lanes, f"bitcast {_half(a.lanes)} {short} to {kind}")
    bits = h.bitcast(a, uint32)
    size = h.and_(bits, h.like(0x7FFFFFFF, bits))
    carry = h.add(h.like(0xFFF, bits), h.and_(h.lshr(size, h.like(13, bits)), h.like(1, bits)))
    normal = h.lshr(h.sub(h.add(size, carry), h.like(112 << 23, bits)), h.like(13, bits))
    half = h.bitcast(size, float32)  # of a denormal result the last bit has the place of that of 0.5
    denormal = h.sub(h.bitcast(h.add(half, h.like(0.5, half)), uint32), h.like(0x3F000000, bits))
    found = h.select(h.lt(size, h.like(113 << 23, bits)), denormal, normal)
    found = h.select(h.ge(size, h.like(143 << 23, bits)), h.like(0x7C00, bits), found)
    found = h.select(h.gt(size, h.like(0x7F800000, bits)), h.like(0x7E00, bits), found)
    sign = h.and_(h.lshr(bits, h.like(16, bits)), h.like(0x8000, bits))
    return _convert(h, "trunc", h.or_(found, sign), float16)


def _to_bfloat16(h: Arithmetic, a: Value) -> Value:
    """float32 rounded to the nearest, ties to even: the upper half of the bits, after a carry from the lower half."""
    bits = h.bitcast(a, uint32)
    upper = h.lshr(bits, h.like(16, bits))
    carry = h.add(h.like(0x7FFF, bits), h.and_(upper, h.like(1, bits)))
    rounded = h.lshr(h.add(bits, carry), h.like(16, bits))
    quiet = h.or_(upper, h.like(0x40, bits))
    return _convert(h, "trunc", h.select(h.ne(a, a), quiet, rounded), bfloat16)


def _to_odd(h: Arithmetic, a: Value) -> Value:
    """float64 as float32, the last bit set where something is lost: rounded once more, it is as if rounded once."""
    near = _convert(h, "fptrunc", a, float32)
    back = _convert(h, "fpext", near, float64)
    bits = h.bitcast(near, int32)
    lost = h.or_(h.lt(back, a), h.gt(back, a))
    even = h.eq(h.and_(bits, h.like(1, bits)), h.like(0, bits))
    step = h.select(h.gt(h.abs(back), h.abs(a)), h.like(-1, bits), h.like(1, bits))
    return h.bitcast(h.select(h.and_(lost, even), h.add(bits, step), bits), float32)
