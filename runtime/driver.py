"""The fixed native driver: one call of `graphc_run(context)` walks a table of regions and runs a whole step.

A region's tasks share one sequence of chunks, task after task. The driver fetches the addresses of a task's buffers
from the bind table, runs the chunks (on the caller alone when there is one chunk or one thread, else through the
pool), then the finishes one after the other, and looks at the error word before the next region.
Results or old values that must be kept are copied before the first region, updates that are not in place after the
last, so a failed step changes nothing that its kernels did not.

All tables are i64 words in memory that Python fills in (`graphc.runtime.plan`); the word numbers are the constants
below, and nothing else knows them. Enter at `driver()`. The code holds no address of this process: it is cached.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphc.runtime.cache import cached_object
from graphc.runtime.direct import DIRECT_IR
from graphc.runtime.entry import ENTRY_IR
from graphc.runtime.host import host_target
from graphc.runtime.jit import Library
from graphc.runtime.pool import ThreadPool, make_pool, pool_ir, supported

# The context; words 0 to 3 belong to the kernel ABI (docs/design/core.md), the others to the driver. Word 1 is unused.
ERROR, _, SCRATCH, SCRATCH_BYTES, POOL, THREADS, REGIONS, REGION_COUNT, BIND = range(9)
EARLY, EARLY_COUNT, LATE, LATE_COUNT = range(9, 13)  # copies before the first and after the last region
CONTEXT_WORDS = 16
REGION_WORDS = 4  # first task, number of tasks, chunks in all, unused
TASK_WORDS = 8  # kernel, sizes, positions, number of positions, buffers, chunks, first chunk, has a finish
COPY_WORDS = 3  # position of the destination, position of the source, bytes
NO_ERROR = -1

_NO_POOL = """
define internal i1 @graphc_fork(ptr %pool, ptr %context, ptr %region, i64 %total, i64 %threads) {
  ret i1 false
}
"""

_DRIVER = """
; Runs one chunk of a region: finds the task that it belongs to.
define internal void @graphc_chunk(ptr %context, ptr %region, i64 %chunk, i64 %worker) {
entry:
  %first = load ptr, ptr %region
  br label %look
look:
  %task = phi ptr [ %first, %entry ], [ %next, %skip ]
  %chunks_at = getelementptr i64, ptr %task, i64 5
  %start_at = getelementptr i64, ptr %task, i64 6
  %chunks = load i64, ptr %chunks_at
  %start = load i64, ptr %start_at
  %local = sub i64 %chunk, %start
  %here = icmp slt i64 %local, %chunks
  br i1 %here, label %run, label %skip
skip:
  %next = getelementptr i64, ptr %task, i64 {task_words}
  br label %look
run:
  %end = add i64 %local, 1
  call void @graphc_call(ptr %context, ptr %task, i64 %local, i64 %end, i64 %worker)
  ret void
}

define internal void @graphc_call(ptr %context, ptr %task, i64 %begin, i64 %end, i64 %worker) {
  %kernel = load ptr, ptr %task
  %sizes_at = getelementptr i64, ptr %task, i64 1
  %buffers_at = getelementptr i64, ptr %task, i64 4
  %sizes = load ptr, ptr %sizes_at
  %buffers = load ptr, ptr %buffers_at
  %status = call i32 %kernel(ptr %context, ptr %sizes, ptr %buffers, i64 %begin, i64 %end, i64 %worker)
  ret void
}

; Fetches the addresses of a task's buffers from the bind table.
define internal void @graphc_fetch(ptr %bind, ptr %task) {
entry:
  %positions_at = getelementptr i64, ptr %task, i64 2
  %count_at = getelementptr i64, ptr %task, i64 3
  %buffers_at = getelementptr i64, ptr %task, i64 4
  %positions = load ptr, ptr %positions_at
  %count = load i64, ptr %count_at
  %buffers = load ptr, ptr %buffers_at
  br label %look
look:
  %i = phi i64 [ 0, %entry ], [ %next, %copy ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %copy, label %done
copy:
  %from = getelementptr i64, ptr %positions, i64 %i
  %position = load i64, ptr %from
  %slot = getelementptr ptr, ptr %bind, i64 %position
  %address = load ptr, ptr %slot
  %to = getelementptr ptr, ptr %buffers, i64 %i
  store ptr %address, ptr %to
  %next = add i64 %i, 1
  br label %look
done:
  ret void
}

define internal void @graphc_region(ptr %context, ptr %region) {
entry:
  %bind_at = getelementptr i64, ptr %context, i64 {bind}
  %threads_at = getelementptr i64, ptr %context, i64 {threads}
  %pool_at = getelementptr i64, ptr %context, i64 {pool}
  %bind = load ptr, ptr %bind_at
  %threads = load i64, ptr %threads_at
  %pool = load ptr, ptr %pool_at
  %tasks = load ptr, ptr %region
  %count_at = getelementptr i64, ptr %region, i64 1
  %count = load i64, ptr %count_at
  %total_at = getelementptr i64, ptr %region, i64 2
  %total = load i64, ptr %total_at
  br label %fetch
fetch:
  %f = phi i64 [ 0, %entry ], [ %f_next, %fetch_one ]
  %f_more = icmp slt i64 %f, %count
  br i1 %f_more, label %fetch_one, label %choose
fetch_one:
  %f_word = mul i64 %f, {task_words}
  %f_task = getelementptr i64, ptr %tasks, i64 %f_word
  call void @graphc_fetch(ptr %bind, ptr %f_task)
  %f_next = add i64 %f, 1
  br label %fetch
choose:
  %several = icmp sgt i64 %total, 1
  %countable = icmp slt i64 %total, 2147483648
  %crowd = icmp sgt i64 %threads, 1
  %has_pool = icmp ne ptr %pool, null
  %parallel_a = and i1 %several, %countable
  %parallel_b = and i1 %crowd, %has_pool
  %parallel = and i1 %parallel_a, %parallel_b
  br i1 %parallel, label %fork, label %serial
fork:
  %forked = call i1 @graphc_fork(ptr %pool, ptr %context, ptr %region, i64 %total, i64 %threads)
  br i1 %forked, label %finish, label %serial
serial:
  %s = phi i64 [ 0, %choose ], [ 0, %fork ], [ %s_next, %serial_next ]
  %s_more = icmp slt i64 %s, %count
  br i1 %s_more, label %serial_one, label %finish
serial_one:
  %s_word = mul i64 %s, {task_words}
  %s_task = getelementptr i64, ptr %tasks, i64 %s_word
  %s_chunks_at = getelementptr i64, ptr %s_task, i64 5
  %s_chunks = load i64, ptr %s_chunks_at
  %s_some = icmp sgt i64 %s_chunks, 0
  br i1 %s_some, label %serial_run, label %serial_next
serial_run:
  call void @graphc_call(ptr %context, ptr %s_task, i64 0, i64 %s_chunks, i64 0)
  br label %serial_next
serial_next:
  %s_next = add i64 %s, 1
  br label %serial
finish:
  %e = phi i64 [ 0, %fork ], [ 0, %serial ], [ %e_next, %finish_next ]
  %e_more = icmp slt i64 %e, %count
  br i1 %e_more, label %finish_one, label %done
finish_one:
  %e_word = mul i64 %e, {task_words}
  %e_task = getelementptr i64, ptr %tasks, i64 %e_word
  %e_finish_at = getelementptr i64, ptr %e_task, i64 7
  %e_finish = load i64, ptr %e_finish_at
  %e_has = icmp ne i64 %e_finish, 0
  br i1 %e_has, label %finish_run, label %finish_next
finish_run:
  call void @graphc_call(ptr %context, ptr %e_task, i64 -1, i64 -1, i64 0)
  br label %finish_next
finish_next:
  %e_next = add i64 %e, 1
  br label %finish
done:
  ret void
}

define internal void @graphc_copies(ptr %bind, ptr %copies, i64 %count) {
entry:
  br label %look
look:
  %i = phi i64 [ 0, %entry ], [ %next, %copy ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %copy, label %done
copy:
  %word = mul i64 %i, {copy_words}
  %to_at = getelementptr i64, ptr %copies, i64 %word
  %from_at = getelementptr i64, ptr %to_at, i64 1
  %bytes_at = getelementptr i64, ptr %to_at, i64 2
  %to_position = load i64, ptr %to_at
  %from_position = load i64, ptr %from_at
  %bytes = load i64, ptr %bytes_at
  %to_slot = getelementptr ptr, ptr %bind, i64 %to_position
  %from_slot = getelementptr ptr, ptr %bind, i64 %from_position
  %to = load ptr, ptr %to_slot
  %from = load ptr, ptr %from_slot
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %bytes, i1 false)
  %next = add i64 %i, 1
  br label %look
done:
  ret void
}
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

; One step. 0: done. 1: a check failed; the error word says which.
define i32 @graphc_run(ptr %context) {
entry:
  store i64 -1, ptr %context
  %bind_at = getelementptr i64, ptr %context, i64 {bind}
  %regions_at = getelementptr i64, ptr %context, i64 {regions}
  %count_at = getelementptr i64, ptr %context, i64 {region_count}
  %early_at = getelementptr i64, ptr %context, i64 {early}
  %early_count_at = getelementptr i64, ptr %context, i64 {early_count}
  %late_at = getelementptr i64, ptr %context, i64 {late}
  %late_count_at = getelementptr i64, ptr %context, i64 {late_count}
  %bind = load ptr, ptr %bind_at
  %regions = load ptr, ptr %regions_at
  %count = load i64, ptr %count_at
  %early = load ptr, ptr %early_at
  %early_count = load i64, ptr %early_count_at
  call void @graphc_copies(ptr %bind, ptr %early, i64 %early_count)
  br label %look
look:
  %i = phi i64 [ 0, %entry ], [ %next, %ran ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %run, label %done
run:
  %word = mul i64 %i, {region_words}
  %region = getelementptr i64, ptr %regions, i64 %word
  call void @graphc_region(ptr %context, ptr %region)
  %error = load atomic i64, ptr %context monotonic, align 8
  %failed = icmp ne i64 %error, -1
  br i1 %failed, label %left, label %ran
ran:
  %next = add i64 %i, 1
  br label %look
left:
  ret i32 1
done:
  %late = load ptr, ptr %late_at
  %late_count = load i64, ptr %late_count_at
  call void @graphc_copies(ptr %bind, ptr %late, i64 %late_count)
  ret i32 0
}
"""


def driver_ir(threads: bool) -> str:
    """LLVM IR of the driver, with the pool if `threads` (this machine's; see `pool.supported`) or for one thread."""
    words = {
        "task_words": TASK_WORDS, "region_words": REGION_WORDS, "copy_words": COPY_WORDS, "bind": BIND,
        "threads": THREADS, "pool": POOL, "regions": REGIONS, "region_count": REGION_COUNT,
        "early": EARLY, "early_count": EARLY_COUNT, "late": LATE, "late_count": LATE_COUNT,
    }  # fmt: skip
    text = _DRIVER
    for name, word in words.items():
        text = text.replace(f"{{{name}}}", str(word))
    return text + (pool_ir() if threads else _NO_POOL)


@dataclass(frozen=True)
class Driver:
    """The loaded native code: `run(context address)`, addresses of `graphc_enter` and `graphc_direct`, the pool."""

    run: Callable[[int], int]
    enter: int
    direct: int
    pool: ThreadPool
    library: Any  # keeps the code in memory


_driver: Driver | None = None
_driver_lock = threading.Lock()


def _after_fork() -> None:
    global _driver_lock
    _driver_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def driver() -> Driver:
    """The process's driver, compiled (or read from the cache) at the first call and kept for ever."""
    global _driver
    if _driver is None:
        with _driver_lock:
            if _driver is None:
                _driver = _load()
    return _driver


def _load() -> Driver:
    target = host_target()
    threads = supported()
    library = Library()
    text = driver_ir(threads) + ENTRY_IR + DIRECT_IR
    symbols = ["graphc_run", "graphc_enter", "graphc_direct"] + ["graphc_worker", "graphc_stop"] * threads
    found = library.load([cached_object(text, target)], symbols)
    run = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(found["graphc_run"])
    # At exit modules are emptied in no particular order; the code of a running thread must outlive them all.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(library))
    pool = make_pool(found.get("graphc_worker", 0), found.get("graphc_stop", 0))
    return Driver(run, found["graphc_enter"], found["graphc_direct"], pool, library)
