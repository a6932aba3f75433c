"""The fast way into a call: one native function that checks arrays, notes their addresses and runs the step.

`graphc_enter(self, args, nargs)` is a builtin of the METH_FASTCALL kind, written in LLVM IR. Its `self` is an int64
array with the expectations of one `SizedPlan`; for each argument, then for each result's array, it compares type,
descr, flags, rank and sizes and writes the data pointer into the bind table; then it runs the step without the GIL
(the caller holds the references). A result's array must be writeable and apart from all other memory of the step, so
the user's `out=` arrays come in here too. It returns True, or None where the step failed; anything unexpected gives
False before anything ran, and the caller takes the path that converts or explains. NumPy's field offsets are verified
once a process on known arrays; where they differ, or on a build of Python without the GIL, `entry()` gives None and
every call takes the slow path.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from graphc.runtime.buffers import address_of

# Byte offsets of PyArrayObject's fields behind an object header of 16 bytes.
_TYPE, _DATA, _RANK, _DIMS, _DESCR, _FLAGS = 8, 16, 24, 32, 56, 64
_CONTIGUOUS_ALIGNED = 0x0001 | 0x0100
_WRITEABLE = 0x0400
_HEAD_WORDS, _ARGUMENT_WORDS = 12, 6

ENTRY_IR = """
; Words of the table: number of arguments and results, type of arrays, bind table, True, False, Py_IncRef, ranges, how
; many of them are parameters, context, PyEval_SaveThread, PyEval_RestoreThread, None; then for each argument and
; result: descr, rank, sizes, bytes, flags, and how many ranges of memory it must not touch. The ranges are those of
; the parameters that the step writes, then of those that it only reads, then of the arrays of the call, noted here.
define ptr @graphc_enter(ptr %self, ptr %args, i64 %given) {
  %table_at = getelementptr i8, ptr %self, i64 16
  %table = load ptr, ptr %table_at
  %outcome = call i32 @graphc_checked(ptr %table, ptr %args, i64 %given)
  %true_at = getelementptr i64, ptr %table, i64 3
  %false_at = getelementptr i64, ptr %table, i64 4
  %incref_at = getelementptr i64, ptr %table, i64 5
  %none_at = getelementptr i64, ptr %table, i64 11
  %true = load ptr, ptr %true_at
  %false = load ptr, ptr %false_at
  %incref = load ptr, ptr %incref_at
  %none = load ptr, ptr %none_at
  %refused = icmp eq i32 %outcome, 0
  %passed = icmp eq i32 %outcome, 1
  %ran = select i1 %passed, ptr %true, ptr %none
  %answer = select i1 %refused, ptr %false, ptr %ran
  call void %incref(ptr %answer)
  ret ptr %answer
}

; 0: refused, nothing ran; 1: done; 2: the step failed.
define internal i32 @graphc_checked(ptr %table, ptr %args, i64 %given) {
entry:
  %count = load i64, ptr %table
  %type_at = getelementptr i64, ptr %table, i64 1
  %bind_at = getelementptr i64, ptr %table, i64 2
  %ranges_at = getelementptr i64, ptr %table, i64 6
  %parameters_at = getelementptr i64, ptr %table, i64 7
  %array_type = load ptr, ptr %type_at
  %bind = load ptr, ptr %bind_at
  %ranges = load ptr, ptr %ranges_at
  %parameters = load i64, ptr %parameters_at
  %complete = icmp eq i64 %count, %given
  br i1 %complete, label %look, label %leave
look:
  %i = phi i64 [ 0, %entry ], [ %next, %accept ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %check, label %run
check:
  %word = mul i64 %i, 6
  %start = add i64 %word, 12
  %record = getelementptr i64, ptr %table, i64 %start
  %rank_want_at = getelementptr i64, ptr %record, i64 1
  %sizes_at = getelementptr i64, ptr %record, i64 2
  %bytes_at = getelementptr i64, ptr %record, i64 3
  %flags_want_at = getelementptr i64, ptr %record, i64 4
  %range_count_at = getelementptr i64, ptr %record, i64 5
  %arg_at = getelementptr ptr, ptr %args, i64 %i
  %arg = load ptr, ptr %arg_at
  %arg_type_at = getelementptr i8, ptr %arg, i64 8
  %arg_type = load ptr, ptr %arg_type_at
  %is_array = icmp eq ptr %arg_type, %array_type
  br i1 %is_array, label %fields, label %leave
fields:
  %descr_at = getelementptr i8, ptr %arg, i64 56
  %rank_at = getelementptr i8, ptr %arg, i64 24
  %flags_at = getelementptr i8, ptr %arg, i64 64
  %dims_at = getelementptr i8, ptr %arg, i64 32
  %data_at = getelementptr i8, ptr %arg, i64 16
  %descr = load ptr, ptr %descr_at
  %rank = load i32, ptr %rank_at
  %flags = load i32, ptr %flags_at
  %flags_want = load i32, ptr %flags_want_at
  %range_count = load i64, ptr %range_count_at
  %dims = load ptr, ptr %dims_at
  %data = load i64, ptr %data_at
  %descr_want = load ptr, ptr %record
  %rank_want = load i64, ptr %rank_want_at
  %sizes = load ptr, ptr %sizes_at
  %bytes = load i64, ptr %bytes_at
  %rank_wide = zext i32 %rank to i64
  %flags_masked = and i32 %flags, %flags_want
  %same_descr = icmp eq ptr %descr, %descr_want
  %same_rank = icmp eq i64 %rank_wide, %rank_want
  %plain = icmp eq i32 %flags_masked, %flags_want
  %ok_a = and i1 %same_descr, %same_rank
  %ok_b = and i1 %ok_a, %plain
  br i1 %ok_b, label %sizes_look, label %leave
sizes_look:
  %axis = phi i64 [ 0, %fields ], [ %axis_next, %sizes_check ]
  %axes_left = icmp slt i64 %axis, %rank_want
  br i1 %axes_left, label %sizes_check, label %ranges_start
sizes_check:
  %size_at = getelementptr i64, ptr %dims, i64 %axis
  %size_want_at = getelementptr i64, ptr %sizes, i64 %axis
  %size = load i64, ptr %size_at
  %size_want = load i64, ptr %size_want_at
  %same_size = icmp eq i64 %size, %size_want
  %axis_next = add i64 %axis, 1
  br i1 %same_size, label %sizes_look, label %leave
ranges_start:
  %end = add i64 %data, %bytes
  br label %ranges_look
ranges_look:
  %r = phi i64 [ 0, %ranges_start ], [ %r_next, %ranges_check ]
  %ranges_left = icmp slt i64 %r, %range_count
  br i1 %ranges_left, label %ranges_check, label %accept
ranges_check:
  %r_word = mul i64 %r, 2
  %low_at = getelementptr i64, ptr %ranges, i64 %r_word
  %high_at = getelementptr i64, ptr %low_at, i64 1
  %low = load i64, ptr %low_at
  %high = load i64, ptr %high_at
  %above = icmp ult i64 %data, %high
  %below = icmp ugt i64 %end, %low
  %touches = and i1 %above, %below
  %r_next = add i64 %r, 1
  br i1 %touches, label %leave, label %ranges_look
accept:
  %slot = getelementptr i64, ptr %bind, i64 %i
  store i64 %data, ptr %slot
  %own = add i64 %parameters, %i
  %own_word = mul i64 %own, 2
  %own_low_at = getelementptr i64, ptr %ranges, i64 %own_word
  %own_high_at = getelementptr i64, ptr %own_low_at, i64 1
  store i64 %data, ptr %own_low_at
  store i64 %end, ptr %own_high_at
  %next = add i64 %i, 1
  br label %look
run:
  %context_at = getelementptr i64, ptr %table, i64 8
  %save_at = getelementptr i64, ptr %table, i64 9
  %restore_at = getelementptr i64, ptr %table, i64 10
  %context = load ptr, ptr %context_at
  %save = load ptr, ptr %save_at
  %restore = load ptr, ptr %restore_at
  %thread = call ptr %save()
  %status = call i32 @graphc_run(ptr %context)
  call void %restore(ptr %thread)
  %failed = icmp ne i32 %status, 0
  %outcome = select i1 %failed, i32 2, i32 1
  br label %leave
leave:
  %answer = phi i32 [ 0, %entry ], [ %outcome, %run ], [ 0, %check ], [ 0, %fields ], [ 0, %sizes_check ],
                    [ 0, %ranges_check ]
  ret i32 %answer
}
"""


class MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


Expected = tuple[tuple[int, ...], np.dtype[Any], int]  # shape, dtype, bytes
_METH_FASTCALL = 0x0080
_definitions: dict[int, MethodDef] = {}  # a builtin points at its definition for ever


@lru_cache(maxsize=1)
def offsets_hold() -> bool:
    """Whether NumPy's arrays look in memory as `graphc_enter` reads them."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    if object.__basicsize__ != 16 or ctypes.sizeof(ctypes.c_void_p) != 8 or np.ndarray.__basicsize__ < 72:
        return False
    known = np.zeros((3, 5, 2), np.float32)
    strided, locked = known[:, ::2], known.view()
    locked.flags.writeable = False
    for array, flags in ((known, 0x0501), (strided, 0x0500), (locked, 0x0101)):
        here = id(array)
        word = [ctypes.c_int64.from_address(here + offset).value for offset in (_TYPE, _DATA, _DIMS, _DESCR)]
        rank, bits = (ctypes.c_int32.from_address(here + offset).value for offset in (_RANK, _FLAGS))
        if (word[0], word[1], word[3]) != (id(np.ndarray), address_of(array), id(array.dtype)):
            return False
        if rank != 3 or bits & (_CONTIGUOUS_ALIGNED | _WRITEABLE) != flags:
            return False
        if tuple((ctypes.c_int64 * 3).from_address(word[2])) != array.shape:
            return False
    return True


def entry(
    function: int,
    context: int,
    bind: int,
    inputs: Sequence[Expected],
    results: Sequence[Expected],
    written: Sequence[tuple[int, int]],
    read: Sequence[tuple[int, int]],
) -> Callable[..., bool | None] | None:
    """The builtin `f(*inputs, *results)` for one plan, or None where it cannot be used.

    `function` is the address of `graphc_enter`, `context` that of the driver's context, `bind` that of its bind
    table, whose first slots get the addresses. `written` and `read` are the address ranges of the parameters that the
    step writes and of the others: an argument touches no written one, a result nothing that the step uses.
    """
    if not offsets_hold():
        return None
    arrays, parameters = [*inputs, *results], [*written, *read]
    words = _HEAD_WORDS + _ARGUMENT_WORDS * len(arrays)
    ranges = words + sum(len(shape) for shape, _, _ in arrays)
    table = np.zeros(ranges + 2 * (len(parameters) + len(arrays)), np.int64)
    base = address_of(table)
    table[:_HEAD_WORDS] = [
        len(arrays), id(np.ndarray), bind, id(True), id(False), python_address("Py_IncRef"), base + 8 * ranges,
        len(parameters), context, python_address("PyEval_SaveThread"), python_address("PyEval_RestoreThread"), id(None),
    ]  # fmt: skip
    at = words
    for i, (shape, dtype, nbytes) in enumerate(arrays):
        start = _HEAD_WORDS + _ARGUMENT_WORDS * i
        flags, apart = _CONTIGUOUS_ALIGNED, len(written)
        if i >= len(inputs):
            flags, apart = flags | _WRITEABLE, len(parameters) + i
        table[start : start + _ARGUMENT_WORDS] = [id(dtype), len(shape), base + 8 * at, nbytes, flags, apart]
        table[at : at + len(shape)] = shape
        at += len(shape)
    table[ranges : ranges + 2 * len(parameters)] = [bound for pair in parameters for bound in pair]
    made: Callable[..., bool | None] = builtin(function, _METH_FASTCALL, table)
    return made


def builtin(function: int, flags: int, memory: np.ndarray) -> Any:
    """A builtin function of Python's that calls native code, with `memory` for its self."""
    if function not in _definitions:
        _definitions[function] = MethodDef(b"enter", function, flags, b"Check arrays and run the step.")
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
    return new(ctypes.addressof(_definitions[function]), memory, None)


def python_address(name: str) -> int:
    """The address of a function of Python's C interface."""
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
