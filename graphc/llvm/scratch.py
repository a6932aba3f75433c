"""Where a kernel's scratch arrays lie. Enter at `scratch_layout` and `scratch_bytes`."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.loops import ir

CACHE_LINE = 64
STACK_BYTES = 64 * 1024  # scratch up to here lies on the stack of the worker


def scratch_bytes(kernel: ir.LoopKernel) -> int:
    """Bytes of scratch that the runtime must provide to each worker (context words 2 and 3); 0 if the stack does."""
    total = scratch_layout(kernel)[1]
    return total if total > STACK_BYTES else 0
_SIMPLE = frozenset({ir.Let, ir.Assign, ir.Store, ir.Declare})  # nearly all statements


def scratch_layout(kernel: ir.LoopKernel) -> tuple[dict[str, int], int]:
    """The offset of each scratch array by name, and the bytes of all; each starts on a cache line.

    Arrays of one name are never visible together, so they share memory.
    """
    sizes: dict[str, int] = {}

    def walk(statements: Sequence[ir.Stmt]) -> None:
        for statement in statements:
            if type(statement) in _SIMPLE:
                continue
            if isinstance(statement, ir.Scratch):
                needed = statement.size * statement.dtype.itemsize
                sizes[statement.name] = max(needed, sizes.get(statement.name, 0))
            elif isinstance(statement, ir.For):
                walk(statement.body)
            elif isinstance(statement, ir.If):
                walk(statement.then)
                walk(statement.orelse)

    walk(kernel.body)
    walk(kernel.finish)
    offsets: dict[str, int] = {}
    total = 0
    for name, size in sizes.items():
        offsets[name] = total
        total += -(-size // CACHE_LINE) * CACHE_LINE
    return offsets, total
