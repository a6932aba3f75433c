"""Objects made on a thread of their own, beside the thread that lowers the next kernels.

LLVM gives Python's lock back while it works, so a kernel's module becomes an object while the next kernels are lowered
and emitted. Enter at `Beside`, which `compile.py` uses for functions of several kernels. One thread, for llvmlite lets
one call at a time into LLVM, and it lives no longer than the block: nothing is left running for a fork or the exit.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from queue import SimpleQueue

# How long a thread that computes keeps Python's lock from one that wants it. Python's 5 ms are longer than a kernel
# takes to be lowered, and a module takes the lock back ten times: nothing would overlap.
_TURN = 1e-4
_turn_lock = threading.Lock()
_inside, _usual = 0, 0.0  # how many blocks are open, and the interval that the first of them found


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    """The interval is the process' own: the first block sets it and the last sets it back."""
    global _inside, _usual
    with _turn_lock:
        if not _inside:
            _usual = sys.getswitchinterval()
            sys.setswitchinterval(min(_usual, _TURN))
        _inside += 1
    try:
        yield
    finally:
        with _turn_lock:
            _inside -= 1
            if not _inside:
                sys.setswitchinterval(_usual)


def _after_fork() -> None:
    """In a forked child: the blocks of other threads never end here."""
    global _turn_lock, _inside
    _turn_lock = threading.Lock()
    if _inside:
        _inside = 0
        sys.setswitchinterval(_usual)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Beside:
    """`with Beside(make) as beside`: `start` modules as they come, then take all `objects`.

    `make` runs under the settings of the thread that enters. Its first error ends the work and is raised by `objects`.
    Leaving the block early waits for the module at hand and drops the others. `seconds`: what `make` took in all.
    """

    def __init__(self, make: Callable[[str], bytes]) -> None:
        self.seconds = 0.0
        self._make = make
        self._modules: SimpleQueue[tuple[str, str] | None] = SimpleQueue()
        self._made: dict[str, bytes] = {}
        self._error: BaseException | None = None
        self._dropped = False
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._work,), name="graphc-objects")
        self._block = contextlib.ExitStack()

    def __enter__(self) -> Beside:
        self._block.enter_context(_short_turns())
        try:
            self._thread.start()
        except BaseException:
            self._block.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._dropped = True
        self._modules.put(None)
        self._thread.join()
        self._block.close()

    def start(self, name: str, ir: str) -> None:
        """Make the object of a module when those before it are made."""
        self._modules.put((name, ir))

    def objects(self) -> Mapping[str, bytes]:
        """Name -> object of all that was started, in that order. Raises what `make` raised."""
        self._modules.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._made

    def _work(self) -> None:
        while (module := self._modules.get()) is not None:
            if self._dropped:
                continue
            name, ir = module
            begin = time.perf_counter()
            try:
                self._made[name] = self._make(ir)
            except BaseException as error:  # raised again where somebody waits for it
                self._error, self._dropped = error, True
            self.seconds += time.perf_counter() - begin
