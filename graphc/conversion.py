"""Arrays from one dtype to another as graphc defines it: what the op `cast` and every conversion of constants give.

Like `ndarray.astype`, except that a float outside of the range of an integer dtype becomes the nearest integer of it
and NaN becomes 0, where NumPy leaves it to the machine. Enter at `cast_array`.
"""

from __future__ import annotations

import numpy as np

from graphc.types import DType


def cast_array(array: np.ndarray, dtype: DType) -> np.ndarray:
    """`array` in another dtype (itself if it has it): integers wrap, floats round or saturate, bool is x != 0."""
    if array.dtype.kind == "f" and dtype.is_integer:
        return _saturated(array, dtype)
    with np.errstate(all="ignore"):
        return array.astype(dtype.numpy, copy=False)


def _saturated(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Towards 0, within the range of `dtype`."""
    info = np.iinfo(dtype.numpy)
    low, behind = float(info.min), float(2 ** (8 * dtype.itemsize - (dtype.kind == "i")))
    wide = array.astype(np.float64)  # exact
    above, below = wide >= behind, wide < low
    inside = np.where(above | below | np.isnan(wide), 0.0, wide).astype(dtype.numpy)
    return np.where(above, info.max, np.where(below, info.min, inside)).astype(dtype.numpy)
