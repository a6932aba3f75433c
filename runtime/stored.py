"""A plan as an entry of the cache on disk: everything that a call needs of a Program, as JSON, and its objects.

    entry ::= length of the JSON (8 bytes) | JSON | objects and constants, one after the other

Kernels keep their names, buffers, sizes and chunk counts; their loop bodies are left out, since whoever wants to read
them makes them again from the graph. Sizes and types are stored in the text form of `graphc.types`. Enter at
`store_plan` and `load_plan`; a new field of Program has to be added to `_to_json` and `_from_json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.loops.ir import BufferParam, LoopKernel
from graphc.loops.program import Buffer, Check, Program, Region, Task
from graphc.observe import log
from graphc.runtime.cache import DiskCache
from graphc.types import DType, Size, TensorType, parse_size

Stored = tuple[Program, dict[str, bytes], dict[str, int], frozenset[str]]


def store_plan(
    cache: DiskCache,
    key: str,
    program: Program,
    objects: Mapping[str, bytes],
    scratch: Mapping[str, int],
    finishes: frozenset[str],
) -> None:
    """Put a compiled Program under `key`: its kernels' objects, scratch bytes, and which of them have a finish."""
    cache.put("plan", key, encode(program, objects, scratch, finishes))


def load_plan(cache: DiskCache, key: str) -> Stored | None:
    """(program without loop bodies, objects, scratch bytes, kernels with a finish), or None: there is no such plan."""
    data = cache.get("plan", key)
    if data is None:
        return None
    try:
        return decode(data)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        log("cache", f"unreadable plan {key}: {type(error).__name__}: {error}")
        cache.drop("plan", key)
        return None


def encode(
    program: Program, objects: Mapping[str, bytes], scratch: Mapping[str, int], finishes: frozenset[str]
) -> bytes:
    """The content of an entry."""
    arrays = {name: np.ascontiguousarray(array) for name, array in program.constants.items()}
    blobs = [*objects.values(), *(array.tobytes() for array in arrays.values())]
    record = _to_json(program) | {
        "objects": {name: len(data) for name, data in objects.items()},
        "constants": {name: [DType.of(array.dtype).name, list(array.shape)] for name, array in arrays.items()},
        "scratch": dict(scratch),
        "finishes": sorted(finishes),
    }
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *blobs])


def decode(data: bytes) -> Stored:
    """What `encode` was given, without loop bodies. Raises ValueError, KeyError, TypeError or IndexError."""
    end = 8 + int.from_bytes(data[:8], "little")
    record = json.loads(data[8:end])
    objects: dict[str, bytes] = {}
    for name, length in record["objects"].items():
        objects[name], end = data[end : end + length], end + length
    constants: dict[str, np.ndarray] = {}
    for name, (dtype, shape) in record["constants"].items():
        kind, count = DType.of(dtype).numpy, int(np.prod(shape, dtype=np.int64))
        constants[name] = np.frombuffer(data, kind, count, end).reshape(shape)
        end += count * kind.itemsize
    if end != len(data):
        raise ValueError("the entry's parts do not fill it")
    return _from_json(record, constants), objects, record["scratch"], frozenset(record["finishes"])


def _to_json(program: Program) -> dict[str, Any]:
    return {
        "name": program.name,
        "dims": program.dims,
        "buffers": [[b.name, str(b.type), b.kind, b.first, b.last] for b in program.buffers.values()],
        "kernels": [
            [k.name, [_param_to_json(p) for p in k.buffers], k.sizes, _size_to_json(k.chunks)]
            for k in program.kernels.values()
        ],
        "regions": [[_task_to_json(task) for task in region.tasks] for region in program.regions],
        "inputs": program.inputs,
        "parameters": program.parameters,
        "outputs": program.outputs,
        "updates": program.updates,
        "checks": [[c.op, c.indices, _size_to_json(c.limit)] for c in program.checks],
    }


def _from_json(record: Mapping[str, Any], constants: Mapping[str, np.ndarray]) -> Program:
    buffers = (Buffer(n, TensorType.parse(t), kind, first, last)
               for n, t, kind, first, last in record["buffers"])  # fmt: skip
    kernels = (LoopKernel(name, tuple(map(_param_from_json, params)), tuple(sizes), (), _size_from_json(chunks))
               for name, params, sizes, chunks in record["kernels"])  # fmt: skip
    return Program(
        name=record["name"],
        dims=tuple(record["dims"]),
        buffers={buffer.name: buffer for buffer in buffers},
        kernels={kernel.name: kernel for kernel in kernels},
        regions=tuple(Region(tuple(map(_task_from_json, tasks))) for tasks in record["regions"]),
        inputs=tuple(record["inputs"]),
        parameters=tuple(record["parameters"]),
        outputs=tuple(record["outputs"]),
        updates=tuple((parameter, buffer) for parameter, buffer in record["updates"]),
        checks=tuple(Check(op, (), indices, _size_from_json(limit)) for op, indices, limit in record["checks"]),
        constants=constants,
    )


def _size_to_json(size: Size) -> int | str:
    return size if isinstance(size, int) else str(size)


def _size_from_json(size: int | str) -> Size:
    return size if isinstance(size, int) else parse_size(size)


def _param_to_json(param: BufferParam) -> list[Any]:
    return [param.name, param.dtype.name, _size_to_json(param.size), param.writable, param.align]


def _param_from_json(record: list[Any]) -> BufferParam:
    name, dtype, size, writable, align = record
    return BufferParam(name, DType.of(dtype), _size_from_json(size), writable, align)


def _task_to_json(task: Task) -> list[Any]:
    return [task.kernel, task.buffers, [_size_to_json(size) for size in task.sizes], _size_to_json(task.chunks)]


def _task_from_json(record: list[Any]) -> Task:
    kernel, buffers, sizes, chunks = record
    return Task(kernel, tuple(buffers), tuple(map(_size_from_json, sizes)), _size_from_json(chunks))
