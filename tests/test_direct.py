"""The whole call in native code: spare results are reused only when nobody holds them; whatever is unusual goes the
slow way."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import ArgumentError, DTypeError, IndexRangeError
from graphc.runtime.entry import offsets_hold

pytestmark = pytest.mark.skipif(not offsets_hold(), reason="arrays are not read natively here")


def doubled(size: Any = 4, **options: Any) -> graphc.Function:
    x = graphc.placeholder("x", (size,), "float32")
    return graphc.function([x], x * 2, **options)


def quick(function: graphc.Function) -> int:
    """How many calls took the native way."""
    return function._executable._direct.calls  # type: ignore[union-attr]


def test_a_spare_result_is_reused_when_nobody_holds_it() -> None:
    function, x = doubled(), np.arange(4, dtype=np.float32)
    for _ in range(3):
        function(x)
    before = quick(function)
    addresses = {function(x + n).ctypes.data for n in range(20)}
    assert quick(function) == before + 20 and len(addresses) <= 2


def test_results_and_views_that_are_held_keep_their_values() -> None:
    function = doubled()
    held: list[Any] = []
    for n in range(50):
        result = function(np.full(4, n, np.float32))
        held.append([result, result[1:], memoryview(result)][n % 3])
        del result
    for n, array in enumerate(held):
        assert np.all(np.asarray(array) == 2 * n)
    chained = function(function(np.ones(4, np.float32)))
    assert np.all(chained == 4)


def test_out_is_filled_and_given_back() -> None:
    function, x, out = doubled(), np.ones(4, np.float32), np.zeros(4, np.float32)
    function(x), function(x)
    before = quick(function)
    assert function(x, out=out) is out and np.all(out == 2)
    assert quick(function) == before + 1
    assert function(out, out=out) is out and np.all(out == 4)  # it overlaps: the slow way, through a copy
    assert np.all(function(x=x) == 2)
    assert np.all(function(x, out=None) == 2)


def test_what_does_not_fit_is_converted_or_explained() -> None:
    function, x = doubled(), np.ones(4, np.float32)
    function(x)
    assert np.all(function([1, 2, 3, 4]) == [2, 4, 6, 8])
    assert np.all(function(np.ones(8, np.float32)[::2]) == 2)
    with pytest.raises(DTypeError):
        function(np.ones(4))
    with pytest.raises(ArgumentError):
        function()
    with pytest.raises(ArgumentError):
        function(x, y=x)
    with pytest.raises(DTypeError):
        function(x, out=np.zeros(4))


@pytest.mark.parametrize("change", ["writeable", "shape", "dtype"])
def test_a_spare_result_that_was_changed_is_not_used(change: str) -> None:
    function, x = doubled(), np.ones(4, np.float32)
    for _ in range(4):
        result = function(x)
        if change == "writeable":
            result.flags.writeable = False
        elif change == "shape":
            result.shape = (2, 2)
        else:
            result.dtype = np.int32
        del result
    fresh = function(x)
    assert fresh.shape == (4,) and fresh.dtype == np.float32 and fresh.flags.writeable and np.all(fresh == 2)


def test_sizes_and_settings_may_change_between_calls() -> None:
    function = doubled("n")
    for n in (3, 3, 3, 5, 5, 0, 3, 70000, 70000, 3):
        assert np.array_equal(function(np.arange(n, dtype=np.float32)), 2 * np.arange(n))
    x = np.ones(3, np.float32)
    for threads in (1, 2, 1):
        with graphc.config(num_threads=threads):
            for _ in range(3):
                assert np.all(function(x) == 2)
            assert function._executable._last.threads == threads  # type: ignore[union-attr]


def test_an_index_out_of_range_is_an_error_every_time() -> None:
    x, i = graphc.placeholder("x", (4,), "float32"), graphc.placeholder("i", (2,), "int64")
    function = graphc.function([x, i], graphc.take_along_axis(x, i, 0))
    values = np.arange(4, dtype=np.float32)
    for _ in range(3):
        assert np.array_equal(function(values, np.array([1, 3])), [1, 3])
        with pytest.raises(IndexRangeError, match="index 4"):
            function(values, np.array([1, 4]))


def test_threads_of_python_share_a_function() -> None:
    x = graphc.placeholder("x", (300, 300), "float32")
    function = graphc.function([x], (x @ x) + x)
    inputs = [np.full((300, 300), n / 300, np.float32) for n in range(4)]
    expected = [np.array(function(a)) for a in inputs]
    wrong: list[int] = []

    def work(n: int) -> None:
        for _ in range(60):
            if not np.array_equal(function(inputs[n]), expected[n]):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and function.native_calls == 4 + 4 * 60


def test_functions_with_parameters_or_several_results_go_the_usual_way() -> None:
    x, w = graphc.placeholder("x", (4,), "float32"), graphc.parameter("w", np.ones(4, np.float32))
    assert graphc.function([x], x + w)._executable._direct is None
    assert graphc.function([x], [x + 1, x])._executable._direct is None
    listed = graphc.function([x], [x + 1])
    for _ in range(3):
        assert np.all(listed(np.ones(4, np.float32))[0] == 2)


def test_a_function_is_freed_with_its_last_reference() -> None:
    function = doubled()
    function(np.ones(4, np.float32))
    gone = weakref.ref(function._executable)
    gc.collect()
    gc.disable()
    try:
        del function
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_calls_on() -> None:
    function, x = doubled(), np.ones(4, np.float32)
    function(x), function(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if all(np.all(function(x) == 2) for _ in range(3)) else 1)
    assert os.waitpid(child, 0)[1] == 0
