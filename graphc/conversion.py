"""Arrays from one dtype to another as graphc defines it: what the op `cast` and every conversion of constants give.

Like `ndarray.astype`, with two differences. A float outside of the range of an integer dtype becomes the nearest
integer of it and NaN becomes 0, where NumPy leaves it to the machine. And bfloat16 is a dtype, with or without the
package ml_dtypes: it rounds once, from float64 too. Enter at `cast_array`.
"""

from __future__ import annotations

import numpy as np

from graphc.types import DType, bfloat16


def cast_array(array: np.ndarray, dtype: DType | str) -> np.ndarray:
    """`array` in another dtype (itself if it has it): integers wrap, floats round or saturate, bool is x != 0.

    To and from bfloat16: `cast_array(x, graphc.bfloat16)` has the dtype `graphc.bfloat16.numpy`, which is that of
    ml_dtypes if it is installed, else a dtype of two bytes; `.view("uint16")` shows the bits in both cases.
    """
    source, dtype = DType.of(array.dtype), DType.of(dtype)
    if source is dtype and dtype is bfloat16:
        return array.view(dtype.numpy)
    if source is dtype:
        return array.astype(dtype.numpy, copy=False)  # in native byte order
    array = widened(array)
    with np.errstate(all="ignore"):
        if dtype is bfloat16:
            return _to_bfloat16(_to_odd(array) if array.dtype == np.float64 else array.astype(np.float32))
        if array.dtype.kind == "f" and dtype.is_integer:
            return _saturated(array, dtype)
        if dtype.is_narrow and not source.is_float:
            array = array.astype(np.float32)
        return array.astype(dtype.numpy, copy=False)


def widened(array: np.ndarray) -> np.ndarray:
    """float16 and bfloat16 as float32, exactly; any other array as it is."""
    source = DType.of(array.dtype)
    if source is bfloat16:
        bits = array.view(np.uint16).astype(np.uint32) << np.uint32(16)
        return np.asarray(bits).view(np.float32)
    return array.astype(np.float32) if source.is_narrow else array


def _to_bfloat16(array: np.ndarray) -> np.ndarray:
    """float32 rounded to the nearest, ties to even: the upper half of the bits, after a carry from the lower half."""
    bits = np.asarray(array).view(np.uint32)
    rounded = (bits + (0x7FFF + (bits >> 16 & 1)).astype(np.uint32)) >> 16
    quiet = bits >> 16 | 0x40
    upper = np.where(np.isnan(array), quiet, rounded).astype(np.uint16)
    return upper.view(bfloat16.numpy)


def _to_odd(array: np.ndarray) -> np.ndarray:
    """float64 as float32, the last bit set where something is lost: rounded once more, it is as if rounded once."""
    near = np.asarray(array.astype(np.float32))
    back = near.astype(np.float64)
    bits = near.view(np.uint32)
    inexact = (back < array) | (back > array)
    step = np.where(np.abs(back) > np.abs(array), -1, 1)
    odd = np.where(inexact & (bits % 2 == 0), bits.astype(np.int64) + step, bits).astype(np.uint32)
    return odd.view(np.float32)


def _saturated(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Towards 0, within the range of `dtype`."""
    info = np.iinfo(dtype.numpy)
    low, behind = float(info.min), float(2 ** (8 * dtype.itemsize - (dtype.kind == "i")))
    wide = array.astype(np.float64)  # exact
    above, below = wide >= behind, wide < low
    inside = np.where(above | below | np.isnan(wide), 0.0, wide).astype(dtype.numpy)
    return np.where(above, info.max, np.where(below, info.min, inside)).astype(dtype.numpy)
