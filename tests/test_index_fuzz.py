"""Random indices, in range and not: every way to read or write at positions gives NumPy's result or names the line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.build import placeholder
from graphc.errors import IndexRangeError


def _added(a: np.ndarray, i: np.ndarray) -> np.ndarray:
    result = a.copy()
    np.add.at(result, i, 1)
    return result


def _set(a: np.ndarray, i: np.ndarray) -> np.ndarray:
    result = a.copy()
    result[i] = 2
    return result


Way = tuple[Callable[[Any, Any], Any], Callable[[np.ndarray, np.ndarray], np.ndarray], bool]
WAYS: dict[str, Way] = {  # what is built, NumPy's, whether negative indices count from the end
    "take": (lambda x, i: graphc.take(x, i, 0), lambda a, i: np.take(a, i, 0), True),
    "x[i]": (lambda x, i: x[i], lambda a, i: a[i], True),
    "take_along_axis": (
        lambda x, i: graphc.take_along_axis(x, i[:, None], 0),
        lambda a, i: np.take_along_axis(a, i[:, None], 0),
        False,
    ),
    "at.add": (lambda x, i: x.at[i].add(1.0), _added, True),
    "at.set": (lambda x, i: x.at[i].set(2.0), _set, True),
}


@pytest.mark.parametrize("named", [True, False], ids=["named", "known"])
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint64"])
@pytest.mark.parametrize("way", WAYS)
def test_indices_in_and_out_of_range(way: str, dtype: str, named: bool) -> None:
    build, reference, from_end = WAYS[way]
    x, i = placeholder("x", ("n" if named else 9, 3)), placeholder("i", ("k",), dtype)
    with graphc.config(cache=False):
        compiled = graphc.function([x, i], build(x, i))
    rng, limits = np.random.default_rng(6), np.iinfo(dtype)
    refused = 0
    for _ in range(30):
        n, k = (int(rng.integers(0, 12)) if named else 9), int(rng.integers(0, 40))
        low = -n if from_end and limits.min < 0 else 0
        array = rng.normal(size=(n, 3)).astype("float32")
        indices = rng.integers(low, n, k if n else 0).astype(dtype)
        outside = [n, limits.max, *((limits.min, low - 1) if limits.min < 0 else ())]
        if rng.random() < 0.5:
            indices = np.append(indices, np.array(outside[rng.integers(len(outside))], dtype))
        if all(low <= int(v) < n for v in indices):
            np.testing.assert_array_equal(compiled(array, indices), reference(array, indices.astype(np.int64)))
        else:
            refused += 1
            with pytest.raises(IndexRangeError, match="test_index_fuzz.py"):
                compiled(array, indices)
    assert refused > 5
