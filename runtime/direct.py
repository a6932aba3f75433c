"""The whole call of a function with one result in native code: no Python runs between the caller and the step.

`graphc_direct(self, args, nargs, names)` looks whether the function's last plan may be used as it is (nobody else is
in the function, the settings are the same), takes the array of `out=` or a spare one for the result, and enters the
step through `graphc.runtime.entry`. Wherever something is not as usual it calls the slow way with the same arguments,
before anything ran. A spare result is one that we made and that nobody holds any more: its reference count says so.

Only functions without parameters and with one result have it: others take locks, or pack their results. Enter at
`Direct`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import settings
from graphc.runtime.buffers import RESULTS, address_of
from graphc.runtime.entry import builtin, offsets_hold, python_address

SPARE_BYTES = 32 * 1024 * 1024  # two results of at most so many bytes are kept for the next calls
MOST_ARGUMENTS = 15
_TABLE, _BUSY, _WANTED, _CALLS, _OUT, _SLOW, _VECTORCALL, _FIRST, _SECOND = range(9)
_VARIABLE, _EXPECTED, _GET, _DECREF, _INCREF, _INPUTS, _WORDS = range(9, 16)
_METH_FASTCALL_KEYWORDS = 0x0080 | 0x0002

DIRECT_IR = """
; Words of the table: entry's table or 0, whether a native call runs, whether a slow call waits or runs, how many native
; calls there were, the string "out", the slow way, PyObject_Vectorcall, two spare results or 0, the variable of the
; settings, its value, PyContextVar_Get, Py_DecRef, Py_IncRef, number of arguments.
define ptr @graphc_direct(ptr %self, ptr %args, i64 %given, ptr %names) {
entry:
  %value = alloca ptr
  %mine = alloca [16 x ptr]
  %words_at = getelementptr i8, ptr %self, i64 16
  %w = load ptr, ptr %words_at
  %table = load ptr, ptr %w
  %busy_at = getelementptr i64, ptr %w, i64 1
  %wanted_at = getelementptr i64, ptr %w, i64 2
  %busy = load i64, ptr %busy_at
  %wanted = load i64, ptr %wanted_at
  %inputs_at = getelementptr i64, ptr %w, i64 14
  %inputs = load i64, ptr %inputs_at
  %incref_at = getelementptr i64, ptr %w, i64 13
  %incref = load ptr, ptr %incref_at
  %no_table = icmp eq ptr %table, null
  %taken = or i64 %busy, %wanted
  %not_free = icmp ne i64 %taken, 0
  %wrong_count = icmp ne i64 %given, %inputs
  %stop_a = or i1 %no_table, %not_free
  %stop_b = or i1 %stop_a, %wrong_count
  br i1 %stop_b, label %slow, label %settings
settings:
  %get_at = getelementptr i64, ptr %w, i64 11
  %get = load ptr, ptr %get_at
  %variable_at = getelementptr i64, ptr %w, i64 9
  %variable = load ptr, ptr %variable_at
  %expected_at = getelementptr i64, ptr %w, i64 10
  %expected = load ptr, ptr %expected_at
  store ptr null, ptr %value
  %got = call i32 %get(ptr %variable, ptr null, ptr %value)
  %now = load ptr, ptr %value
  %decref_at = getelementptr i64, ptr %w, i64 12
  %decref = load ptr, ptr %decref_at
  call void %decref(ptr %now)
  %same = icmp eq ptr %now, %expected
  %ok = icmp eq i32 %got, 0
  %go = and i1 %same, %ok
  br i1 %go, label %look, label %slow
look:
  %last_at = getelementptr ptr, ptr %args, i64 %inputs
  %plain = icmp eq ptr %names, null
  br i1 %plain, label %spare, label %named
named:
  %name_count_at = getelementptr i64, ptr %names, i64 2
  %name_count = load i64, ptr %name_count_at
  %name_at = getelementptr i64, ptr %names, i64 3
  %name = load ptr, ptr %name_at
  %out_at = getelementptr i64, ptr %w, i64 4
  %out = load ptr, ptr %out_at
  %one_name = icmp eq i64 %name_count, 1
  %is_out = icmp eq ptr %name, %out
  %out_only = and i1 %one_name, %is_out
  br i1 %out_only, label %given_out, label %slow
given_out:
  %array = load ptr, ptr %last_at
  br label %enter
spare:
  %first_at = getelementptr i64, ptr %w, i64 7
  %first = load ptr, ptr %first_at
  %have_first = icmp ne ptr %first, null
  br i1 %have_first, label %count_first, label %slow
count_first:
  %first_count = load i32, ptr %first
  %first_free = icmp eq i32 %first_count, 1
  br i1 %first_free, label %copy_start, label %try_second
try_second:
  %second_at = getelementptr i64, ptr %w, i64 8
  %second = load ptr, ptr %second_at
  %have_second = icmp ne ptr %second, null
  br i1 %have_second, label %count_second, label %slow
count_second:
  %second_count = load i32, ptr %second
  %second_free = icmp eq i32 %second_count, 1
  br i1 %second_free, label %copy_start, label %slow
copy_start:
  %chosen = phi ptr [ %first, %count_first ], [ %second, %count_second ]
  %result_at = getelementptr ptr, ptr %mine, i64 %inputs
  store ptr %chosen, ptr %result_at
  br label %copy
copy:
  %i = phi i64 [ 0, %copy_start ], [ %next, %copy_one ]
  %more = icmp slt i64 %i, %inputs
  br i1 %more, label %copy_one, label %enter
copy_one:
  %from = getelementptr ptr, ptr %args, i64 %i
  %arg = load ptr, ptr %from
  %to = getelementptr ptr, ptr %mine, i64 %i
  store ptr %arg, ptr %to
  %next = add i64 %i, 1
  br label %copy
enter:
  %arrays = phi ptr [ %args, %given_out ], [ %mine, %copy ]
  %result = phi ptr [ %array, %given_out ], [ %chosen, %copy ]
  call void %incref(ptr %result)
  store i64 1, ptr %busy_at
  %all = add i64 %inputs, 1
  %outcome = call i32 @graphc_checked(ptr %table, ptr %arrays, i64 %all)
  store i64 0, ptr %busy_at
  %passed = icmp eq i32 %outcome, 1
  br i1 %passed, label %done, label %undo
done:
  %calls_at = getelementptr i64, ptr %w, i64 3
  %calls = load i64, ptr %calls_at
  %calls_next = add i64 %calls, 1
  store i64 %calls_next, ptr %calls_at
  ret ptr %result
undo:
  call void %decref(ptr %result)
  br label %slow
slow:
  %slow_at = getelementptr i64, ptr %w, i64 5
  %slow_way = load ptr, ptr %slow_at
  %vectorcall_at = getelementptr i64, ptr %w, i64 6
  %vectorcall = load ptr, ptr %vectorcall_at
  %answer = call ptr %vectorcall(ptr %slow_way, ptr %args, i64 %given, ptr %names)
  ret ptr %answer
}
"""


class Direct:
    """`call(*args, out=None)` runs the plan of the last `serve` natively and falls back on `slow`.

    Whoever holds `call` holds `slow` too: it is not kept alive here, since it leads to the executable that has this.
    """

    def __init__(self, function: int, slow: Callable[..., Any], inputs: int) -> None:
        self._words = np.zeros(_WORDS, np.int64)
        self._out, self._variable = "out", settings.variable_of_current()
        self._expected: object = None
        self._entered: Any = None
        self._missed = 0  # calls that found no spare result, or something else that is not as usual
        self._spare: list[np.ndarray] = []
        words = self._view = memoryview(self._words.data)
        words[_OUT], words[_SLOW], words[_INPUTS] = id(self._out), id(slow), inputs
        words[_VARIABLE] = id(self._variable)
        for word, name in (
            (_VECTORCALL, "PyObject_Vectorcall"), (_GET, "PyContextVar_Get"), (_DECREF, "Py_DecRef"),
            (_INCREF, "Py_IncRef"),
        ):  # fmt: skip
            words[word] = python_address(name)
        self.call = builtin(function, _METH_FASTCALL_KEYWORDS, self._words)

    @property
    def calls(self) -> int:
        """How many calls took the native way."""
        return self._view[_CALLS]

    def serve(self, entered: Any, shape: tuple[int, ...], dtype: np.dtype[Any], nbytes: int) -> None:
        """Let native calls use a plan's entry, which is prepared for the settings in force.

        New spare results are made for a new plan, and now and then while calls find none: the caller keeps them.
        """
        words, expected = self._view, self._variable.get()
        self._missed += 1
        if entered is not self._entered or self._missed % 16 == 0:
            self._spare = [RESULTS.lend(shape, dtype, nbytes) for _ in range(2)] if nbytes <= SPARE_BYTES else []
            words[_FIRST], words[_SECOND] = map(id, self._spare) if self._spare else (0, 0)
        if entered is not self._entered or expected is not self._expected or not words[_TABLE]:
            self._entered, self._expected = entered, expected
            words[_EXPECTED], words[_TABLE] = id(expected), address_of(entered.__self__)

    def stop(self) -> None:
        """No native calls until the next `serve`."""
        self._view[_TABLE] = 0

    def take(self) -> None:
        """Keep native calls out until `give`, and wait for the one that runs. The caller holds the function's lock."""
        self._view[_WANTED] = 1
        while self._view[_BUSY]:
            time.sleep(2e-5)

    def give(self) -> None:
        self._view[_WANTED] = 0

    def after_fork(self) -> None:
        """In a forked child: the thread that was in a native call does not exist here."""
        self._view[_BUSY] = self._view[_WANTED] = 0


def direct_call(function: int, slow: Callable[..., Any], inputs: int) -> Direct | None:
    """A `Direct`, or None where arrays cannot be read natively or there are too many of them."""
    return Direct(function, slow, inputs) if offsets_hold() and inputs <= MOST_ARGUMENTS else None
