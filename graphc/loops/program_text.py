"""The Program as text, and its verifier. Enter at `print_program`, `print_loops` and `verify_program`."""

from __future__ import annotations

from graphc.errors import InternalError
from graphc.loops.printer import print_kernel
from graphc.loops.program import Program, Task


def print_program(program: Program) -> str:
    """Buffers, then regions of tasks in the order in which they run, then updates."""
    lines = [f"program {program.name}({', '.join(program.dims)}):"]
    for buffer in program.buffers.values():
        alive = f" regions {buffer.first}..{buffer.last}" if buffer.kind == "temp" else ""
        lines.append(f"  {buffer.kind} {buffer.name}: {buffer.type}{alive}")
    for number, region in enumerate(program.regions):
        lines.append(f"  region {number}:")
        lines += [f"    {_task_text(program, task)}" for task in region.tasks]
    for parameter, source in program.updates:
        how = "in place" if parameter == source else f"copied from {source}"
        lines.append(f"  update {parameter} {how}")
    lines += [
        f"  check {n}: {c.op} of {c.indices or 'computed indices'} below {c.limit}"
        for n, c in enumerate(program.checks)
    ]
    lines.append(f"  return {', '.join(program.outputs)}")
    return "\n".join(lines)


def _task_text(program: Program, task: Task) -> str:
    params = program.kernels[task.kernel].buffers
    read = [name for name, param in zip(task.buffers, params, strict=True) if not param.writable]
    written = [name for name, param in zip(task.buffers, params, strict=True) if param.writable]
    sizes = f" sizes {', '.join(map(str, task.sizes))}" if task.sizes else ""
    return f"{', '.join(written)} = {task.kernel}({', '.join(read)}){sizes} chunks {task.chunks}"


def print_loops(program: Program) -> str:
    """All kernels as loop IR."""
    return "\n\n".join(print_kernel(kernel) for kernel in program.kernels.values())


def verify_program(program: Program) -> None:
    """InternalError where a task does not fit its kernel, or where two tasks of a region would race."""
    for number, region in enumerate(program.regions):
        touched: dict[str, tuple[int, bool]] = {}
        for position, task in enumerate(region.tasks):
            params = program.kernels[task.kernel].buffers
            if len(params) != len(task.buffers) or len(task.sizes) != len(program.kernels[task.kernel].sizes):
                raise _broken(program, task, "does not fit its kernel")
            for name, param in zip(task.buffers, params, strict=True):
                _verify_buffer(program, task, name, param.writable, number)
                if program.buffers[name].type.dtype != param.dtype:
                    raise _broken(program, task, f"passes {name} as {param.dtype}")
                other, written = touched.get(name, (position, False))
                if other != position and (written or param.writable):
                    raise _broken(program, task, f"shares {name} with another task of region {number}")
                touched[name] = (position, written or param.writable)


def _verify_buffer(program: Program, task: Task, name: str, writable: bool, region: int) -> None:
    if name not in program.buffers:
        raise _broken(program, task, f"names no buffer: {name}")
    buffer = program.buffers[name]
    if writable and buffer.kind in ("input", "constant"):
        raise _broken(program, task, f"writes the {buffer.kind} {name}")
    if writable and buffer.kind == "parameter" and (name, name) not in program.updates:
        raise _broken(program, task, f"writes the parameter {name}, which has no update in place")
    if buffer.kind == "temp" and not buffer.first <= region <= buffer.last:
        raise _broken(program, task, f"uses {name} in region {region}, outside of its life")


def _broken(program: Program, task: Task, why: str) -> InternalError:
    return InternalError(f"task {task.kernel} of program {program.name} {why}\n{print_program(program)}")
