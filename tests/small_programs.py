"""Small Programs by hand, compiled: for the tests of the runtime. Enter at `add_one`, or `program` and `build`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.llvm.emit import emit
from graphc.llvm.scratch import scratch_bytes
from graphc.loops import ir
from graphc.loops.program import Buffer, Program, Region, Task
from graphc.runtime.executable import Executable
from graphc.runtime.host import host_target
from graphc.runtime.jit import Library, compile_object
from graphc.runtime.plan import LoadedKernel
from graphc.state import ParameterState
from graphc.types import Dim, DType, TensorType, float32

N, M = Dim.symbol("n"), Dim.symbol("m")


def kernel(name: str, inputs: int, body: Callable[..., ir.Expr], dtype: DType = float32) -> ir.LoopKernel:
    """out[i] = body(x[i], y[i], ...), one chunk."""
    size, vtype, i = Dim.symbol("s0"), ir.VType(dtype), ir.Var("i")
    params = [ir.BufferParam(f"b{n}", dtype, size) for n in range(inputs)]
    store = ir.Store(f"b{inputs}", i, body(*(ir.Load(p.name, i, vtype) for p in params)))
    loop = ir.For("i", ir.const(0), ir.Var("s0"), 1, (store,))
    return ir.LoopKernel(name, (*params, ir.BufferParam(f"b{inputs}", dtype, size, True)), ("s0",), (loop,))


def plus(number: float, dtype: DType = float32) -> Callable[[ir.Expr], ir.Expr]:
    return lambda x: ir.Op("add", (x, ir.Const(number, ir.VType(dtype))), ir.VType(dtype))


def build(program: Program, states: dict[str, ParameterState] | None = None, **options: Any) -> Executable:
    """An Executable of the program's kernels, compiled."""
    library, target = Library(), host_target()
    objects = [compile_object(emit(k, target), target, verify=True) for k in program.kernels.values()]
    found = library.load(objects, list(program.kernels)) if objects else {}
    loaded = {k.name: LoadedKernel(found[k.name], bool(k.finish), scratch_bytes(k)) for k in program.kernels.values()}
    return Executable(program, loaded, states or {}, keep=library, **options)


def program(
    buffers: Sequence[Buffer], kernels: Sequence[ir.LoopKernel], regions: Sequence[Task], **fields: Any
) -> Program:
    """A Program with one task a region; inputs, parameters and outputs are the buffers of these kinds, in order."""

    def of(kind: str) -> tuple[str, ...]:
        return tuple(b.name for b in buffers if b.kind == kind)

    filled = {"inputs": of("input"), "parameters": of("parameter"), "outputs": of("output"), "updates": ()} | fields
    named = {b.name: b for b in buffers}
    return Program("f", filled.pop("dims", ("n",)), named, {k.name: k for k in kernels},
                   tuple(Region((task,)) for task in regions), **filled)  # fmt: skip


def add_one(dtype: DType = float32, shape: tuple[Any, ...] = (N,), **options: Any) -> Executable:
    kind = TensorType(dtype, shape)
    dims = tuple(str(s) for s in shape if not isinstance(s, int))
    buffers = [Buffer("x", kind, "input"), Buffer("y", kind, "output")]
    task = Task("add", ("x", "y"), (kind.size,), 1)
    return build(program(buffers, [kernel("add", 1, plus(1, dtype), dtype)], [task], dims=dims), **options)


def state(name: str, values: Any, dtype: Any = np.float32) -> ParameterState:
    return ParameterState(name, np.array(values, dtype))
