"""From one dtype to another: what `cast` becomes, for scalars and vectors alike, without a trap, poison or a call.

Enter at `cast`. What the dtypes mean is said once more for arrays in `graphc.conversion`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.llvm.values import Value, type_text
from graphc.types import DType, int32, int64

if TYPE_CHECKING:
    from graphc.llvm.arithmetic import Arithmetic


def cast(h: Arithmetic, a: Value, dtype: DType) -> Value:
    """`a` in another dtype. A float that an integer dtype cannot hold gives the nearest that it holds, NaN gives 0."""
    source, to = a.dtype, dtype.kind
    if source is dtype or source == dtype:
        return a
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
