"""The arguments of a call: what is converted, and what every error says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphc.errors import ArgumentError, DTypeError, ShapeError, SourceLine
from graphc.runtime.arguments import Arguments
from graphc.types import Dim, DType, TensorType, float32, int8, int32

N, M = Dim.symbol("n"), Dim.symbol("m")
LINE = SourceLine("train.py", 7, 'x = graphc.placeholder("x", ("n", 3), "float32")')


@pytest.mark.parametrize(
    ("dtype", "value", "says"),
    [
        (float32, np.zeros(3), "float64, which does not fit into float32 without loss"),
        (float32, np.zeros(3, np.int64), "int64, which does not fit into float32 without loss"),
        (float32, np.float64(1), "float64"),
        (int32, [1.5], "float64 values, which do not fit into int32"),
        (int8, [300], "values outside of int8"),
        (float32, ["a"], "values, which do not fit"),
        (float32, [[1], [1, 2]], "is not an array"),
        (float32, np.array([None]), "object"),
        (float32, [1j], "complex128"),
    ],
)
def test_a_narrowing_argument_is_an_error_with_the_fix(dtype: DType, value: Any, says: str) -> None:
    arguments = Arguments("f", ["x"], [TensorType(dtype, (N,))], ["n"], {"x": (LINE,)})
    with pytest.raises(DTypeError) as caught:
        arguments.bind([value], {})
    text = str(caught.value)
    assert "f: argument 'x'" in text and says in text and "built at train.py:7" in text
    if "without loss" in text:
        assert f"hint: convert it yourself: x=np.asarray(x).astype(np.{dtype.name})" in text


class Refusing:
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise RuntimeError("on another device")


@pytest.mark.parametrize("value", [Refusing(), [Refusing()], ([1.0], Refusing()), [np.zeros(0, "S3")]])
def test_what_does_not_become_an_array_is_an_error_that_names_the_argument(value: Any) -> None:
    arguments = Arguments("f", ["x"], [TensorType(float32, (N,))], ["n"], {"x": (LINE,)})
    with pytest.raises(DTypeError, match=r"f: argument 'x' \(f32\[n\]\) .*(on another device|not fit into float32)"):
        arguments.bind([value], {})


def test_wrong_arguments_are_named() -> None:
    lines = {"x": (LINE,), "w": (replace(LINE, line=8),)}
    kinds = [TensorType(float32, (N, M)), TensorType(float32, (M, N, 2 * N))]
    bind, x, w = Arguments("f", ["x", "w"], kinds, ["m", "n"], lines).bind, np.ones((2, 3)), np.ones((3, 2, 4))
    x, w = x.astype(np.float32), w.astype(np.float32)
    for given, by_name in (((x, w), {}), ((x,), {"w": w}), ((), {"w": w, "x": x})):
        arrays, sizes = bind(given, by_name)
        assert sizes == (3, 2) and arrays[0].shape == (2, 3) and arrays[1].shape == (3, 2, 4)
    cases: list[tuple[type[Exception], Sequence[Any], dict[str, Any], str]] = [
        (ArgumentError, (x,), {}, "f misses the argument 'w'"),
        (ArgumentError, (), {}, "f misses the arguments 'x', 'w'"),
        (ArgumentError, (x, w, x), {}, "f takes 2 arguments, got 3"),
        (ArgumentError, (x, w), {"z": x}, "f has no argument 'z'"),
        (ArgumentError, (x,), {"x": x}, "f got the argument 'x' twice"),
        (ShapeError, (x, w[:2]), {}, "'w' (f32[m,n,2*n]) has shape (2, 2, 4): axis 0 is 2, but m is 3 by argument 'x'"),
        (ShapeError, (x, w[:, :, 1:]), {}, "axis 2 is 3, but 2*n is 4 by argument 'x'"),
        (ShapeError, (x, x), {}, "argument 'w' has 2 axes (2, 3), but w is f32[m,n,2*n] with 3 axes"),
    ]
    for error, args, named, says in cases:
        with pytest.raises(error) as caught:
            bind(args, named)
        assert says in str(caught.value)
        assert issubclass(error, TypeError) == (error is not ShapeError)
    with pytest.raises(ShapeError, match=r"built at train.py:8.*\n.*also at train.py:7"):
        bind((x, w[:2]), {})
    with pytest.raises(ShapeError, match="axis 1 is 4, not 3"):
        Arguments("f", ["x"], [TensorType(float32, (N, 3))], ["n"], {}).bind([np.ones((2, 4), np.float32)], {})


def test_lists_take_the_dtype_of_the_placeholder() -> None:
    for dtype, value in ((float32, [1, 2.5, True]), (int8, [1, -128]), (int32, [True, 2]), (float32, [])):
        (array,), _ = Arguments("f", ["x"], [TensorType(dtype, (N,))], ["n"], {}).bind([value], {})
        assert array.dtype == dtype.numpy and array.tolist() == [float(v) for v in value]
