"""The native thread pool: LLVM IR for forking and joining one job, and the Python side that starts and ends threads.

Chunks are claimed by compare-and-swap from one 64-bit word, `generation << 32 | end << 16 | begin`: a claim can only
succeed while its job is unfinished, so a late worker never enters a job that is over or not yet published. Half of the
threads claim from the front, half from the back: a thread then meets the memory that it touched in the region (and the
call) before, which is still in its core's cache. The caller works too and waits only for claimed chunks, so a job
always ends, with or without workers. Workers spin briefly after their last job, then sleep on a futex over the
generation; whoever publishes a job wakes them if some sleep. A second Python thread that finds the pool busy runs its
job alone. A worker sleeps where the last caller does not run, and once awake may run anywhere: where other processes
keep all cores busy, the system would wake it on the caller's core and leave the two there, taking turns. Workers are
plain pthreads that never touch Python, so neither the GIL nor the interpreter's exit concerns them; a forked child
starts its own.

Enter at `make_pool` (the driver makes the one pool of the process) and `pool_ir`. Linux only: elsewhere the pool's
`address` is 0, which the driver reads as one thread. To port it, give another system's ways to sleep and to wake.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import signal
import sys
import threading

import numpy as np

from graphc.runtime.buffers import aligned_bytes

# Words of the pool (each on cache lines of its own, two lines apart because of the neighbour prefetcher).
CLAIM, PENDING, SLEEPERS, STOP, BUSY, JOB, CORE = 0, 16, 32, 48, 64, 80, 96
POOL_BYTES = 1024
MOST_CLAIMS = (1 << 16) - 1  # of one job; of more chunks several are one claim
SPINS = 2000  # looks at the claim word before a worker sleeps: about 0.1 ms
SYSTEM_CALLS = {
    "x86_64": {"futex": 202, "sched_yield": 24, "getcpu": 309, "sched_setaffinity": 203, "sched_getaffinity": 204},
    "aarch64": {"futex": 98, "sched_yield": 124, "getcpu": 168, "sched_setaffinity": 122, "sched_getaffinity": 123},
}
_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}


def supported() -> bool:
    """Whether this process can have worker threads: Linux on a processor whose system call numbers are known."""
    return sys.platform == "linux" and platform.machine() in SYSTEM_CALLS


def pool_ir() -> str:
    """LLVM IR of the pool for this machine; only where `supported()`.

    It defines `graphc_worker` (the body of a pthread), `graphc_stop` and `graphc_fork` (publish a job, work on it,
    wait for it), and calls `@graphc_chunk(ptr context, ptr region, i64 chunk, i64 worker)`, which the driver defines.
    """
    declare_pause, pause = _PAUSE[platform.machine()]
    words = {
        "claim": CLAIM, "pending": PENDING, "sleepers": SLEEPERS, "stop": STOP, "busy": BUSY, "job": JOB, "core": CORE,
    }  # fmt: skip
    numbers = {**words, **SYSTEM_CALLS[platform.machine()], "spins": SPINS, "most": MOST_CLAIMS}
    text = _POOL.replace("{pause}", pause)
    for name, number in numbers.items():
        text = text.replace(f"{{{name}}}", str(number))
    return f"declare i64 @syscall(i64, ...)\n{declare_pause}\n{text}"


_POOL = """
; Makes claims of the job and runs their chunks until none is left; returns how many claims it made. Workers with odd
; numbers claim from the back. The job's fields may be read while the next job is written, but then the claim fails.
define internal i64 @graphc_work(ptr %pool, i64 %worker) {
entry:
  %claim_at = getelementptr i64, ptr %pool, i64 {claim}
  %job = getelementptr i64, ptr %pool, i64 {job}
  %region_at = getelementptr i64, ptr %job, i64 1
  %total_at = getelementptr i64, ptr %job, i64 2
  %threads_at = getelementptr i64, ptr %job, i64 3
  %group_at = getelementptr i64, ptr %job, i64 4
  %side = and i64 %worker, 1
  %behind = icmp ne i64 %side, 0
  %step = select i1 %behind, i64 -65536, i64 1
  br label %look
look:
  %ran = phi i64 [ 0, %entry ], [ %ran, %claim ], [ %ran_more, %ran_all ]
  %word = load atomic i64, ptr %claim_at acquire, align 8
  %begin = and i64 %word, 65535
  %shifted = lshr i64 %word, 16
  %end = and i64 %shifted, 65535
  %none = icmp eq i64 %begin, %end
  br i1 %none, label %done, label %read
read:
  %context = load atomic ptr, ptr %job monotonic, align 8
  %region = load atomic ptr, ptr %region_at monotonic, align 8
  %total = load atomic i64, ptr %total_at monotonic, align 8
  %threads = load atomic i64, ptr %threads_at monotonic, align 8
  %group = load atomic i64, ptr %group_at monotonic, align 8
  %invited = icmp ult i64 %worker, %threads
  br i1 %invited, label %claim, label %done
claim:
  %less = add i64 %word, %step
  %swap = cmpxchg ptr %claim_at, i64 %word, i64 %less acq_rel acquire, align 8
  %won = extractvalue { i64, i1 } %swap, 1
  br i1 %won, label %won_it, label %look
won_it:
  %last = sub i64 %end, 1
  %mine = select i1 %behind, i64 %last, i64 %begin
  %first = mul i64 %mine, %group
  %full = add i64 %first, %group
  %past = call i64 @llvm.umin.i64(i64 %full, i64 %total)
  br label %run
run:
  %chunk = phi i64 [ %first, %won_it ], [ %chunk_next, %run ]
  call void @graphc_chunk(ptr %context, ptr %region, i64 %chunk, i64 %worker)
  %chunk_next = add i64 %chunk, 1
  %others = icmp ult i64 %chunk_next, %past
  br i1 %others, label %run, label %ran_all
ran_all:
  %ran_more = add i64 %ran, 1
  br label %look
done:
  ret i64 %ran
}

; The body of a worker thread. %self points at {pool, worker number}.
define ptr @graphc_worker(ptr %self) {
entry:
  %pool = load ptr, ptr %self
  %number_at = getelementptr i64, ptr %self, i64 1
  %worker = load i64, ptr %number_at
  %claim_at = getelementptr i64, ptr %pool, i64 {claim}
  %pending_at = getelementptr i64, ptr %pool, i64 {pending}
  %sleepers_at = getelementptr i64, ptr %pool, i64 {sleepers}
  %stop_at = getelementptr i64, ptr %pool, i64 {stop}
  %generation_at = getelementptr i32, ptr %claim_at, i64 1
  %mask = alloca [16 x i64]
  br label %look
look:
  %spins = phi i64 [ 0, %entry ], [ 0, %worked ], [ %more, %spin ], [ 0, %sleep ]
  %word = load atomic i64, ptr %claim_at seq_cst, align 8
  %stop = load atomic i64, ptr %stop_at acquire, align 8
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %exit, label %work
work:
  %ran = call i64 @graphc_work(ptr %pool, i64 %worker)
  %idle = icmp eq i64 %ran, 0
  br i1 %idle, label %wait, label %worked
worked:
  %before = atomicrmw sub ptr %pending_at, i64 %ran release, align 8
  br label %look
wait:
  %more = add i64 %spins, 1
  %tired = icmp ugt i64 %more, {spins}
  br i1 %tired, label %sleep, label %spin
spin:
  {pause}
  br label %look
sleep:
  ; Asked each time: somebody may have given the process other cores meanwhile.
  %asked = call i64 (i64, ...) @syscall(i64 {sched_getaffinity}, i64 0, i64 128, ptr %mask)
  %bytes = call i64 @llvm.smax.i64(i64 %asked, i64 0)
  call void @graphc_avoid(ptr %pool, ptr %mask, i64 %bytes)
  ; Announced first; the kernel then compares the generation, so a job published in between is never slept through.
  %asleep = atomicrmw add ptr %sleepers_at, i64 1 seq_cst, align 8
  %shifted = lshr i64 %word, 32
  %generation = trunc i64 %shifted to i32
  %slept = call i64 (i64, ...) @syscall(i64 {futex}, ptr %generation_at, i64 128,
                                     i32 %generation, ptr null, ptr null, i64 0)
  %awake = atomicrmw sub ptr %sleepers_at, i64 1 seq_cst, align 8
  %free = call i64 (i64, ...) @syscall(i64 {sched_setaffinity}, i64 0, i64 %bytes, ptr %mask)
  br label %look
exit:
  ret ptr null
}

; The cores that this worker may use: those of %mask (%bytes long) but for the one that the last caller to wake it had.
define internal void @graphc_avoid(ptr %pool, ptr %mask, i64 %bytes) {
entry:
  %core_at = getelementptr i64, ptr %pool, i64 {core}
  %core = load atomic i64, ptr %core_at monotonic, align 8
  %slot = lshr i64 %core, 6
  %known = icmp slt i64 %slot, 16
  br i1 %known, label %set, label %done
set:
  %place = and i64 %core, 63
  %bit = shl i64 1, %place
  %word_at = getelementptr i64, ptr %mask, i64 %slot
  %word = load i64, ptr %word_at
  %others = xor i64 %bit, -1
  %without = and i64 %word, %others
  store i64 %without, ptr %word_at
  ; Fails where there is no other core.
  %done_so = call i64 (i64, ...) @syscall(i64 {sched_setaffinity}, i64 0, i64 %bytes, ptr %mask)
  store i64 %word, ptr %word_at
  br label %done
done:
  ret void
}

define internal void @graphc_wake(ptr %pool) {
  %claim_at = getelementptr i64, ptr %pool, i64 {claim}
  %generation_at = getelementptr i32, ptr %claim_at, i64 1
  %woken = call i64 (i64, ...) @syscall(i64 {futex}, ptr %generation_at, i64 129,
                                     i32 2147483647, ptr null, ptr null, i64 0)
  ret void
}

; Makes every worker return as soon as it finds no chunk. A new generation keeps sleepers from missing it.
define void @graphc_stop(ptr %pool) {
  %claim_at = getelementptr i64, ptr %pool, i64 {claim}
  %stop_at = getelementptr i64, ptr %pool, i64 {stop}
  store atomic i64 1, ptr %stop_at seq_cst, align 8
  %before = atomicrmw add ptr %claim_at, i64 4294967296 seq_cst, align 8
  call void @graphc_wake(ptr %pool)
  ret void
}

declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)

; Runs chunks 0..total of a region on up to `threads` threads. False: the pool is busy, nothing was run.
define i1 @graphc_fork(ptr %pool, ptr %context, ptr %region, i64 %total, i64 %threads) {
entry:
  %claim_at = getelementptr i64, ptr %pool, i64 {claim}
  %pending_at = getelementptr i64, ptr %pool, i64 {pending}
  %sleepers_at = getelementptr i64, ptr %pool, i64 {sleepers}
  %busy_at = getelementptr i64, ptr %pool, i64 {busy}
  %job = getelementptr i64, ptr %pool, i64 {job}
  %region_at = getelementptr i64, ptr %job, i64 1
  %total_at = getelementptr i64, ptr %job, i64 2
  %threads_at = getelementptr i64, ptr %job, i64 3
  %group_at = getelementptr i64, ptr %job, i64 4
  %taken = cmpxchg ptr %busy_at, i64 0, i64 1 acq_rel acquire, align 8
  %mine = extractvalue { i64, i1 } %taken, 1
  br i1 %mine, label %publish, label %refuse
refuse:
  ret i1 false
publish:
  store atomic ptr %context, ptr %job monotonic, align 8
  store atomic ptr %region, ptr %region_at monotonic, align 8
  store atomic i64 %total, ptr %total_at monotonic, align 8
  store atomic i64 %threads, ptr %threads_at monotonic, align 8
  %spread = add i64 %total, {most}
  %spread_less = sub i64 %spread, 1
  %group = udiv i64 %spread_less, {most}
  %rounded = add i64 %total, %group
  %rounded_less = sub i64 %rounded, 1
  %claims = udiv i64 %rounded_less, %group
  store atomic i64 %group, ptr %group_at monotonic, align 8
  store atomic i64 %claims, ptr %pending_at monotonic, align 8
  %old = load atomic i64, ptr %claim_at monotonic, align 8
  %generation = lshr i64 %old, 32
  %next = add i64 %generation, 1
  %high = shl i64 %next, 32
  %range = shl i64 %claims, 16
  %word = or i64 %high, %range
  %before = atomicrmw xchg ptr %claim_at, i64 %word seq_cst, align 8
  %sleepers = load atomic i64, ptr %sleepers_at seq_cst, align 8
  %some = icmp ne i64 %sleepers, 0
  br i1 %some, label %wake, label %work
wake:
  %core_at = getelementptr i64, ptr %pool, i64 {core}
  %asked = call i64 (i64, ...) @syscall(i64 {getcpu}, ptr %core_at, ptr null, ptr null)
  call void @graphc_wake(ptr %pool)
  br label %work
work:
  %ran = call i64 @graphc_work(ptr %pool, i64 0)
  %others = atomicrmw sub ptr %pending_at, i64 %ran acq_rel, align 8
  br label %join
join:
  %looks = phi i64 [ 0, %work ], [ %more, %spin ], [ %more, %yield ]
  %pending = load atomic i64, ptr %pending_at acquire, align 8
  %finished = icmp eq i64 %pending, 0
  br i1 %finished, label %end, label %again
again:
  %more = add i64 %looks, 1
  %long = icmp ugt i64 %more, {spins}
  br i1 %long, label %yield, label %spin
spin:
  {pause}
  br label %join
yield:
  ; More threads than cores: give the core to the worker that holds the last chunk.
  %yielded = call i64 (i64, ...) @syscall(i64 {sched_yield})
  br label %join
end:
  store atomic i64 0, ptr %busy_at release, align 8
  ret i1 true
}
"""


class ThreadPool:
    """Worker threads over the native code. The driver makes one; its workers are started on demand and kept."""

    def __init__(self, worker: int, stop: int) -> None:
        """`worker` and `stop` are the addresses of `graphc_worker` and `graphc_stop`, 0 where threads are unsupported.

        The code behind them must never be unloaded.
        """
        self._worker = worker
        self._stop = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(stop) if stop else None
        self._lock = threading.Lock()
        self._threads: list[tuple[ctypes.c_ulong, np.ndarray]] = []
        self._state = aligned_bytes(POOL_BYTES)
        self._state[:] = 0
        self.address = int(self._state.ctypes.data) if worker else 0
        self._limit: int | None = None  # set once the system refused a thread, or at exit

    @property
    def workers(self) -> int:
        """How many worker threads run now (the caller of a step is one more thread)."""
        return len(self._threads)

    def ensure(self, threads: int) -> int:
        """Start workers until `threads` threads, the caller included, can share a job; returns how many can."""
        if not self.address or threads <= 1:
            return 1
        if len(self._threads) < threads - 1:
            with self._lock:
                while len(self._threads) < threads - 1 and self._limit is None:
                    if not self._start(len(self._threads) + 1):
                        self._limit = len(self._threads)
        return min(threads, len(self._threads) + 1)

    def _start(self, number: int) -> bool:
        """Start worker `number`, with all signals blocked: they belong to Python's threads."""
        record = np.array([self.address, number], np.int64)
        thread = ctypes.c_ulong(0)
        create = ctypes.CDLL(None).pthread_create
        create.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            failed = create(ctypes.byref(thread), None, self._worker, record.ctypes.data)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if failed:
            return False
        self._threads.append((thread, record))
        return True

    def shut_down(self) -> None:
        """End all workers and start no more. Steps that run at the same time finish on their callers."""
        if self._stop is None:
            return
        with self._lock:
            self._limit = 0
            self._stop(self.address)
            join = ctypes.CDLL(None).pthread_join
            join.argtypes = [ctypes.c_ulong, ctypes.c_void_p]
            for thread, _ in self._threads:
                join(thread, None)
            self._threads.clear()

    def after_fork(self) -> None:
        """In a forked child: no worker exists there, and a job that was running is nobody's."""
        self._lock = threading.Lock()
        self._threads.clear()
        self._state[:] = 0


def make_pool(worker: int, stop: int) -> ThreadPool:
    """The pool over loaded code (addresses; 0 where there is none), minded at fork and at exit."""
    made = ThreadPool(worker, stop)
    if made.address:
        os.register_at_fork(after_in_child=made.after_fork)
        atexit.register(made.shut_down)
    return made
