"""How exact and how fast the vector maths is: the error in ULP of each function, and its time beside NumPy's.

    python benchmarks/accuracy.py                    # every 1009th float32 input: about a minute
    python benchmarks/accuracy.py --stride 1         # all 2^32 float32 inputs: about five minutes for each function
    python benchmarks/accuracy.py --no-fma log tanh  # the code for targets without a fused multiply-add

It runs the compiled code (loop IR, emitter, code generator), in two processes, and prints the Markdown table of
`docs/maths.md`. References: NumPy in float64 for float32; for float64 the `decimal` module with 45 digits, on samples
of every region. The goals are 1 ULP for float32 and 2 for float64; the exit status is 1 above them (1.5 and 2
without a fused multiply-add).
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal, localcontext
from functools import cache
from typing import Any

import numpy as np

from graphc.llvm.emit import emit
from graphc.loops.ir import BufferParam, For, Load, LoopKernel, Op, Store, Var, VType, const
from graphc.runtime.host import host_target
from graphc.runtime.jit import Library, compile_object
from graphc.types import Dim, DType, float32, float64

Array = np.ndarray[Any, np.dtype[Any]]

FUNCTIONS = ("exp", "expm1", "log", "log1p", "tanh")
BLOCK = 2**20  # inputs that one step of the measurement handles
EXTREMES = {"exp": 745.2, "expm1": 710.0, "tanh": 20.0}  # the last inputs with results of their own


@cache
def compiled(name: str, dtype: DType, lanes: int, fma: bool = True) -> Callable[[Array], Array]:
    """The function `name` as native code that works on `lanes` elements at a time.

    It takes a contiguous 1-d array of `dtype` whose size is a multiple of `lanes`, and gives a new one.
    """
    call = _compiled_call(name, dtype, lanes, fma)

    def run(x: Array) -> Array:
        if x.dtype != dtype.numpy or x.ndim != 1 or x.size % lanes or not x.flags.c_contiguous:
            raise ValueError(f"{name} takes a contiguous {dtype} array of a multiple of {lanes} elements")
        y = np.empty_like(x)
        call(x, y)()
        return y

    return run


@cache
def _compiled_call(name: str, dtype: DType, lanes: int, fma: bool) -> Callable[..., Callable[[], None]]:
    """What binds (input, output) to a call without arguments; a call may do its work several times over."""
    target = dataclasses.replace(host_target(), fma=host_target().fma and fma)
    index, vtype, n = Var("i"), VType(dtype, lanes), Dim.symbol("n")
    store = Store("y", index, Op(name, (Load("x", index, vtype),), vtype))
    kernel = LoopKernel(
        f"{name}_{dtype}_{lanes}{'' if target.fma else '_unfused'}",
        (BufferParam("x", dtype, n), BufferParam("y", dtype, n, writable=True)),
        ("n",),
        (For("i", const(0), Var("n"), lanes, (store,)),),
    )
    library = Library()
    address = library.load([compile_object(emit(kernel, target), target)], [kernel.name])[kernel.name]
    pointer, word = ctypes.c_void_p, ctypes.c_int64
    native = ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, pointer, word, word, word)(address)

    def bind(x: Array, y: Array, times: int = 1) -> Callable[[], None]:
        context = (ctypes.c_int64 * 8)(-1)
        sizes = (ctypes.c_int64 * 1)(x.size)
        buffers = (ctypes.c_void_p * 2)(x.ctypes.data, y.ctypes.data)
        arguments = (ctypes.addressof(context), ctypes.addressof(sizes), ctypes.addressof(buffers), 0, times, 0)
        keep = (context, sizes, buffers, library, x, y)

        def run() -> None:
            if native(*arguments) != 0:
                raise RuntimeError(f"{kernel.name} failed: {keep[0][:]}")

        return run

    return bind


def ulp_errors(result: Array, exact: Array, rest: Array | float = 0.0) -> Array:
    """The distance of `result` from `exact`, in units of the spacing of its dtype at `exact`.

    `rest` is what is missing from `exact` to the exact value, in the same units: below the least denormal for some.
    Infinite where one of the two is infinite or NaN and the other is not the same, and where the sign differs.
    """
    info = np.finfo(result.dtype)
    with np.errstate(all="ignore"):
        rounded = exact.astype(result.dtype)
        exponent = np.maximum(np.frexp(np.abs(exact))[1] - info.nmant - 1, info.minexp - info.nmant)
        distance = result.astype(np.float64) - exact
        errors = np.abs(np.ldexp(np.ldexp(distance, -(exponent // 2)), exponent // 2 - exponent) - rest)
    special = ~np.isfinite(result) | ~np.isfinite(rounded)
    same = (result == rounded) | (np.isnan(result) & np.isnan(rounded))
    wrong = (special & ~same) | ((np.signbit(result) != np.signbit(exact)) & ~np.isnan(result))
    return np.where(wrong, np.inf, np.where(special, 0.0, errors))


def exact_values(name: str, x: Array) -> tuple[Array, Array]:
    """`name` of float64 inputs by decimal arithmetic: the nearest float64, and in its ULP what is missing."""
    nearest, rest = np.empty(x.size), np.empty(x.size)
    with np.errstate(all="ignore"):
        nearest[:] = getattr(np, name)(x)
    rest[:] = 0.0
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 45, 999999, -999999
        for i in np.flatnonzero(np.isfinite(nearest) & (x != 0)):
            value = _DECIMAL[name](Decimal(float(x[i])))
            nearest[i] = float(value)
            if np.isfinite(nearest[i]):
                rest[i] = float((value - Decimal(float(nearest[i]))) / Decimal(float(np.spacing(abs(nearest[i])))))
    return nearest, rest


def _expm1(x: Decimal) -> Decimal:
    if abs(x) < Decimal("1e-12"):
        return x + x * x / 2 + x * x * x / 6
    return x.exp() - 1


def _log1p(x: Decimal) -> Decimal:
    if abs(x) < Decimal("1e-12"):
        return x - x * x / 2 + x * x * x / 3
    return (1 + x).ln()


def _tanh(x: Decimal) -> Decimal:
    growth = _expm1(2 * min(abs(x), Decimal(60)))
    size = growth / (growth + 2) if abs(x) > Decimal("1e-12") else abs(x) - abs(x) ** 3 / 3
    return size.copy_sign(x)


_DECIMAL: dict[str, Callable[[Decimal], Decimal]] = {
    "exp": lambda x: x.exp(), "expm1": _expm1, "log": lambda x: x.ln(), "log1p": _log1p, "tanh": _tanh,
}  # fmt: skip


def sample(name: str, dtype: DType, count: int, seed: int = 0) -> Array:
    """About `count` inputs in every region: any bits, near 0, near 1 and -1, the whole range with results, denormals.

    The size is a multiple of 64. The special values themselves are among them.
    """
    rng = np.random.default_rng(seed)
    part, bits = count // 6 + 1, 8 * dtype.itemsize
    info = np.finfo(dtype.numpy)
    extreme = EXTREMES.get(name, 8.0) * (1.0 if dtype is float64 or name == "tanh" else 0.14)
    size = np.exp(rng.uniform(-40.0, 5.0, part))
    with np.errstate(all="ignore"):
        parts = [
            rng.integers(0, 2**bits, part, dtype=f"uint{bits}").view(dtype.numpy),
            size * rng.choice([-1.0, 1.0], part),
            1.0 + rng.uniform(-0.7, 1.5, part),
            np.exp(rng.uniform(-30.0, 0.0, part)) - 1.0,
            rng.uniform(-extreme, extreme, part),
            rng.uniform(0.0, 1.0, part // 8) * float(info.tiny),
            [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, info.max, -info.max, info.tiny, info.smallest_subnormal],
        ]
        x = np.concatenate([np.asarray(p).astype(dtype.numpy) for p in parts])
    return np.resize(x, -(-x.size // 64) * 64)


Worst = tuple[float, float]  # error, input


def _worst(errors: Array, x: Array) -> Worst:
    at = int(errors.argmax())
    return float(errors[at]), float(x[at])


def worst_float32(name: str, begin: int, end: int, stride: int, fma: bool = True) -> Worst:
    """The worst error over the float32 inputs with the bits begin, begin + stride, ... below end."""
    run, reference = compiled(name, float32, host_target().lanes(4), fma), getattr(np, name)
    found: Worst = (0.0, 0.0)
    for low in range(begin, end, BLOCK * stride):
        bits = np.arange(low, min(end, low + BLOCK * stride), stride, dtype=np.uint64).astype(np.uint32)
        x = np.resize(bits, -(-bits.size // 64) * 64).view(np.float32)
        with np.errstate(all="ignore"):
            exact = reference(x.astype(np.float64))
        found = max(found, _worst(ulp_errors(run(x), exact), x))
    return found


def worst_float64(name: str, count: int, seed: int, fma: bool = True) -> Worst:
    """The worst error over `count` samples."""
    x = sample(name, float64, count, seed)
    y = compiled(name, float64, host_target().lanes(8), fma)(x)
    return _worst(ulp_errors(y, *exact_values(name, x)), x)


def nanoseconds(name: str, dtype: DType, fma: bool = True) -> dict[str, float]:
    """Time for an element in the first-level cache, on one thread: the best of interleaved rounds."""
    x = np.abs(np.random.default_rng(0).uniform(-5.0, 5.0, 16384 // dtype.itemsize)).astype(dtype.numpy)
    y, times = np.empty_like(x), 10
    runs: dict[str, Callable[[], object]] = {
        "graphc": _compiled_call(name, dtype, host_target().lanes(dtype.itemsize), fma)(x, y, times),
        "NumPy": lambda: [getattr(np, name)(x, out=y) for _ in range(times)],
    }
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.set_num_threads(1)
        tx, ty = torch.from_numpy(x), torch.from_numpy(y)
        runs["PyTorch"] = lambda: [getattr(torch, name)(tx, out=ty) for _ in range(times)]
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(60):
        for key, run in runs.items():
            start = time.perf_counter()
            run()
            best[key] = min(best[key], (time.perf_counter() - start) / times / x.size * 1e9)
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("functions", nargs="*", default=FUNCTIONS, metavar="function", help="; ".join(FUNCTIONS))
    parser.add_argument("--stride", type=int, default=1009, help="measure every n-th float32 input")
    parser.add_argument("--samples", type=int, default=100_000, help="float64 inputs for each function")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--no-fma", action="store_true", help="products and sums instead of fused multiply-adds")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.functions if name not in FUNCTIONS]
    if unknown:
        parser.error(f"no function {', '.join(unknown)}; there are {', '.join(FUNCTIONS)}")
    fma, parts = not options.no_fma, 16
    step = 2**32 // parts
    times = {(n, d): nanoseconds(n, d, fma) for n in options.functions for d in (float32, float64)}
    columns = list(next(iter(times.values())))
    print(f"| function | dtype | inputs | max ULP | at | {' | '.join(f'{c} ns' for c in columns)} |")
    print("|---" * (5 + len(columns)) + "|")
    missed = False
    with ProcessPoolExecutor(options.processes) as pool:
        for name in options.functions:
            ranges = [(name, k * step, (k + 1) * step, options.stride, fma) for k in range(parts)]
            narrow = [pool.submit(worst_float32, *r) for r in ranges]
            wide = [pool.submit(worst_float64, name, options.samples // 4, seed, fma) for seed in range(4)]
            rows = ((float32, f"2^32 / {options.stride}", narrow), (float64, f"{options.samples} samples", wide))
            for dtype, inputs, jobs in rows:
                error, at = max(job.result() for job in jobs)
                missed |= not error <= (2.0 if dtype is float64 else 1.0 if fma else 1.5)
                cost = " | ".join(f"{times[name, dtype][c]:.2f}" for c in columns)
                print(f"| {name} | {dtype} | {inputs} | {error:.3f} | {at!r} | {cost} |", flush=True)
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
