"""How exact and how fast the vector maths is: the error in ULP of each function, and its time beside others.

    python benchmarks/accuracy.py                    # every 1009th float32 input: a few minutes
    python benchmarks/accuracy.py --stride 1         # all 2^32 float32 inputs: some minutes for each function
    python benchmarks/accuracy.py --no-fma log tanh  # the code for targets without a fused multiply-add
    python benchmarks/accuracy.py --store ...        # the rows also go into accuracy.json and into docs/maths.md

It runs the compiled code (loop IR, emitter, code generator), in two processes, and prints the Markdown table of
`docs/maths.md`. References: NumPy in float64 for float32 (for erf graphc's own, measured before); for float64, on
samples of every region, mpmath behind a screen (`accuracy_doubles.py`) for the functions that it names; for the others
the `decimal` module with 45 digits or NumPy's longdouble, where that has more bits. The goals
are 1 ULP for float32 and 2 for float64; the exit status is 1 above them (1.5 and 2 without a fused multiply-add).
Functions of two arguments are measured on pairs of every region and all pairs of special values.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal, localcontext
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from graphc.llvm.emit import emit
from graphc.loops.ir import BufferParam, For, Load, LoopKernel, Op, Store, Var, VType, const
from graphc.ops.lowering import FUNCTIONS as OWN_FUNCTIONS
from graphc.runtime.host import host_target
from graphc.runtime.jit import Library, compile_object
from graphc.types import Dim, DType, float32, float64

sys.path.append(str(Path(__file__).parent))
import accuracy_doubles as doubles
import accuracy_table as table
import special_decimals as special

Array = np.ndarray[Any, np.dtype[Any]]

ARITY = {**OWN_FUNCTIONS, "sqrt": 1}
FUNCTIONS = tuple(name for name, arity in ARITY.items() if arity == 1)
OF_PAIRS = tuple(name for name, arity in ARITY.items() if arity == 2)
BLOCK = 2**20  # inputs that one step of the measurement handles
OWN = {"erf", "erfc", "erfinv", "lgamma", "digamma"}  # NumPy lacks them: float32 is measured against our float64
FLOORS = {"lgamma": 1.0, "digamma": 1.0}  # below, where terms cancel, errors are those of a result of this size
GOALS = {"lgamma": 10.0, "digamma": 12.0, "erfc": 6.0, "erfinv": 6.0}  # for float64; of others 2 ULP
EXTREMES = {"exp": 745.2, "expm1": 710.0, "tanh": 20.0}  # the last inputs with results of their own


@cache
def compiled(name: str, dtype: DType, lanes: int, fma: bool = True) -> Callable[..., Array]:
    """The function `name` as native code that works on `lanes` elements at a time.

    It takes contiguous 1-d arrays of `dtype` whose size is a multiple of `lanes`, and gives a new one.
    """
    call = _compiled_call(name, dtype, lanes, fma)

    def run(*operands: Array) -> Array:
        for x in operands:
            if x.dtype != dtype.numpy or x.shape != (x.size // lanes * lanes,) or not x.flags.c_contiguous:
                raise ValueError(f"{name} takes contiguous {dtype} arrays of a multiple of {lanes} elements")
        result = np.empty_like(operands[0])
        call(*operands, result)()
        return result

    return run


@cache
def _compiled_call(name: str, dtype: DType, lanes: int, fma: bool) -> Callable[..., Callable[[], None]]:
    """What binds (operands..., result) to a call without arguments; a call may do its work several times over."""
    target = dataclasses.replace(host_target(), fma=host_target().fma and fma)
    index, vtype, n = Var("i"), VType(dtype, lanes), Dim.symbol("n")
    operands = [f"x{k}" for k in range(ARITY[name])]
    store = Store("y", index, Op(name, tuple(Load(x, index, vtype) for x in operands), vtype))
    kernel = LoopKernel(
        f"{name}_{dtype}_{lanes}{'' if target.fma else '_unfused'}",
        (*(BufferParam(x, dtype, n) for x in operands), BufferParam("y", dtype, n, writable=True)),
        ("n",),
        (For("i", const(0), Var("n"), lanes, (store,)),),
    )
    library = Library()
    address = library.load([compile_object(emit(kernel, target), target)], [kernel.name])[kernel.name]
    pointer, word = ctypes.c_void_p, ctypes.c_int64
    native = ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, pointer, word, word, word)(address)

    def bind(*arrays: Array, times: int = 1) -> Callable[[], None]:
        context = (ctypes.c_int64 * 8)(-1)
        sizes = (ctypes.c_int64 * 1)(arrays[0].size)
        buffers = (ctypes.c_void_p * len(arrays))(*(x.ctypes.data for x in arrays))
        arguments = (ctypes.addressof(context), ctypes.addressof(sizes), ctypes.addressof(buffers), 0, times, 0)
        keep = (context, sizes, buffers, library, arrays)

        def run() -> None:
            if native(*arguments) != 0:
                raise RuntimeError(f"{kernel.name} failed: {keep[0][:]}")

        return run

    return bind


def ulp_errors(result: Array, exact: Array, rest: Array | float = 0.0, floor: float = 0.0) -> Array:
    """The distance of `result` from `exact`, in units of the spacing of its dtype at `exact`.

    `rest` is what is missing from `exact` to the exact value, in the same units: below the least denormal for some.
    Of results below `floor`, in units of the spacing there.
    Infinite where one of the two is infinite or NaN and the other is not the same, and where the sign differs.
    """
    info = np.finfo(result.dtype)
    with np.errstate(all="ignore"):
        rounded = exact.astype(result.dtype)
        exponent = np.maximum(np.frexp(np.abs(exact))[1] - info.nmant - 1, info.minexp - info.nmant)
        if floor:
            own, exponent = exponent, np.maximum(exponent, int(np.frexp(floor)[1]) - info.nmant - 1)
            rest = rest * np.ldexp(1.0, own - exponent)
        distance = result.astype(np.float64) - exact
        errors = np.abs(np.ldexp(np.ldexp(distance, -(exponent // 2)), exponent // 2 - exponent) - rest)
    special = ~np.isfinite(result) | ~np.isfinite(rounded)
    same = (result == rounded) | (np.isnan(result) & np.isnan(rounded))
    counts = ~np.isnan(result) & (np.abs(exact) >= floor * 1e-6)
    wrong = (special & ~same) | ((np.signbit(result) != np.signbit(exact)) & counts)
    return np.where(wrong, np.inf, np.where(special, 0.0, errors))


def reference(name: str) -> Callable[..., Array]:
    """The function in NumPy, for float64 and longdouble; of those that NumPy lacks, graphc's for float64."""
    if name in OWN:
        return compiled(name, float64, host_target().lanes(8))
    return _REFERENCES.get(name) or cast(Callable[..., Array], getattr(np, name))


_REFERENCES: dict[str, Callable[..., Array]] = {name: doubles.SCREENS[name] for name in ("sigmoid", "rsqrt")}


def longdouble_is_wider() -> bool:
    """Whether the reference of most functions is good enough for float64; not on every platform."""
    return bool(np.finfo(np.longdouble).nmant >= 63)


def exact_values(name: str, *operands: Array) -> tuple[Array, Array]:
    """`name` of float64 inputs in higher precision: the nearest float64, and in its ULP what is missing."""
    with np.errstate(all="ignore"):
        nearest = reference(name)(*operands)
        if name not in _DECIMAL:
            exact = reference(name)(*(x.astype(np.longdouble) for x in operands))
            nearest = exact.astype(np.float64)
            rest = ((exact - nearest) / np.spacing(np.abs(nearest))).astype(np.float64)
            return nearest, np.where(np.isfinite(rest), rest, 0.0)
    (x,), rest = operands, np.zeros(nearest.shape)
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
    "erf": special.erf, "erfc": special.erfc, "lgamma": special.lgamma, "digamma": special.digamma,
    "erfinv": lambda x: special.erfinv(x, _our_erfinv),
    "exp": lambda x: x.exp(), "expm1": _expm1, "log": lambda x: x.ln(), "log1p": _log1p, "tanh": _tanh,
}  # fmt: skip


def _our_erfinv(x: float) -> float:
    return float(reference("erfinv")(np.full(64, x))[0])


def sample(name: str, dtype: DType, count: int, seed: int = 0) -> Array:
    """About `count` inputs in every region: any bits, near 0, near 1 and -1, the whole range with results, denormals.

    The size is a multiple of 64. The special values themselves are among them.
    """
    rng = np.random.default_rng(seed)
    part, bits = count // 6 + 1, 8 * dtype.itemsize
    info = np.finfo(dtype.numpy)
    extreme = EXTREMES.get(name, 8.0) * (1.0 if dtype == float64 or name == "tanh" else 0.14)
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


def sample_pairs(name: str, dtype: DType, count: int, seed: int = 0) -> tuple[Array, Array]:
    """About `count` pairs: any bits, bases near 1 with exponents that keep the result in range, all special pairs."""
    rng = np.random.default_rng(seed)
    part, bits, info = count // 5 + 1, 8 * dtype.itemsize, np.finfo(dtype.numpy)
    top = float(np.log(info.max))
    with np.errstate(all="ignore"):
        wide = np.exp(rng.uniform(-top, top, part))
        middle = 1.0 + rng.uniform(-0.7, 1.5, part)
        near = 1.0 + rng.choice([-1.0, 1.0], part) * np.exp(rng.uniform(-0.6 * info.nmant, -1.0, part))
        signed = rng.choice([-1.0, 1.0], part) * np.exp(rng.uniform(-3.0, 3.0, part))
        one, other = (rng.integers(0, 2**bits, part, dtype=f"uint{bits}").view(dtype.numpy) for _ in "xy")
        values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 1e10, 2.0**24 + 1, 2.0**53 - 1, np.inf, np.nan]
        special = np.array([*values, info.max, info.tiny, info.smallest_subnormal], dtype.numpy)
        grid = np.meshgrid(*[np.concatenate([special, -special])] * 2)
        bases = [one, signed, grid[0].ravel()]
        exponents = [other, rng.integers(-60, 60, part), grid[1].ravel()]
        for base in (wide, middle, near):
            base = base.astype(dtype.numpy)
            bases.append(base)
            if name == "power":
                exponents.append(rng.uniform(-1.05, 1.05, part) * top / np.log(base.astype(np.float64)))
            else:
                exponents.append(base * np.exp(rng.uniform(-3.0, 3.0, part)) * rng.choice([-1.0, 1.0], part))
        x, y = (np.concatenate([np.asarray(p).astype(dtype.numpy) for p in parts]) for parts in (bases, exponents))
    size = -(-x.size // 64) * 64
    return np.resize(x, size), np.resize(y, size)


Worst = tuple[float, tuple[float, ...]]  # error, inputs


def _worst(errors: Array, *operands: Array) -> Worst:
    at = int(errors.argmax())
    return float(errors[at]), tuple(float(x[at]) for x in operands)


def worst_float32(name: str, begin: int, end: int, stride: int, fma: bool = True) -> Worst:
    """The worst error over the float32 inputs with the bits begin, begin + stride, ... below end."""
    run, exactly = compiled(name, float32, host_target().lanes(4), fma), reference(name)
    found: Worst = (0.5, (0.0,))  # the nearest float32 everywhere
    for low in range(begin, end, BLOCK * stride):
        bits = np.arange(low, min(end, low + BLOCK * stride), stride, dtype=np.uint64).astype(np.uint32)
        x = np.resize(bits, -(-bits.size // 64) * 64).view(np.float32)
        with np.errstate(all="ignore"):
            exact = exactly(x.astype(np.float64))
            y, rounded = run(x), exact.astype(np.float32)
        inexact = np.flatnonzero(y.view(np.uint32) != rounded.view(np.uint32))  # others are within 1/2
        if inexact.size:
            errors = ulp_errors(y[inexact], exact[inexact], floor=FLOORS.get(name, 0.0))
            found = max(found, _worst(errors, x[inexact]))
    return found


def worst_sample(name: str, dtype: DType, count: int, seed: int, fma: bool = True) -> Worst:
    """The worst error over `count` samples."""
    operands = sample_pairs(name, dtype, count, seed) if name in OF_PAIRS else (sample(name, dtype, count, seed),)
    result = compiled(name, dtype, host_target().lanes(dtype.itemsize), fma)(*operands)
    with np.errstate(invalid="ignore"):  # signaling NaNs
        nearest, rest = exact_values(name, *(x.astype(np.float64) for x in operands))
    errors = ulp_errors(result, nearest, rest if dtype == float64 else 0.0, FLOORS.get(name, 0.0))
    return _worst(errors, *operands)


def worst_double(name: str, count: int, fma: bool = True) -> Worst:
    """The worst error of float64 over `count` samples, by mpmath behind a screen."""

    def samples(count: int, seed: int) -> tuple[Array, ...]:
        return sample_pairs(name, float64, count, seed) if name in OF_PAIRS else (sample(name, float64, count, seed),)

    found = doubles.measure(name, compiled(name, float64, host_target().lanes(8), fma), samples, count)
    return found.error, found.at


def nanoseconds(name: str, dtype: DType, fma: bool = True) -> dict[str, float]:
    """Time for an element in the first-level cache, on one thread: the best of interleaved rounds."""
    rng, top = np.random.default_rng(0), 0.99 if name in ("asin", "acos", "atanh") else 5.0
    low = 1.0 if name == "acosh" else 0.01
    xs = [rng.uniform(low, top, 16384 // dtype.itemsize).astype(dtype.numpy) for _ in range(ARITY[name])]
    y, times = np.empty_like(xs[0]), 10
    call = _compiled_call(name, dtype, host_target().lanes(dtype.itemsize), fma)
    runs: dict[str, Callable[[], object]] = {"graphc": call(*xs, y, times=times)}
    numpys = getattr(np, name, None)
    if numpys is not None:
        runs["NumPy"] = lambda: [numpys(*xs, out=y) for _ in range(times)]
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.set_num_threads(1)
        torchs = getattr(torch, {"power": "pow"}.get(name, name), None)
        if torchs is not None:
            txs, ty = [torch.from_numpy(x) for x in xs], torch.from_numpy(y)
            runs["PyTorch"] = lambda: [torchs(*txs, out=ty) for _ in range(times)]
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(60):
        for key, run in runs.items():
            start = time.perf_counter()
            run()
            best[key] = min(best[key], (time.perf_counter() - start) / times / y.size * 1e9)
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    known = FUNCTIONS + OF_PAIRS
    parser.add_argument("functions", nargs="*", default=known, metavar="function", help="; ".join(known))
    parser.add_argument("--stride", type=int, default=1009, help="measure every n-th float32 input")
    parser.add_argument("--samples", type=int, default=100_000, help="float64 inputs for each function")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--store", action="store_true", help="into accuracy.json and docs/maths.md")
    parser.add_argument("--no-fma", action="store_true", help="products and sums instead of fused multiply-adds")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.functions if name not in known]
    if unknown:
        parser.error(f"no function {', '.join(unknown)}; there are {', '.join(known)}")
    if not longdouble_is_wider():
        parser.error("NumPy's longdouble has no more bits than float64 here: there is no reference")
    fma, parts = not options.no_fma, 16
    step = 2**32 // parts
    print(f"{table.HEAD}\n{'|---' * (5 + len(table.LIBRARIES))}|")
    missed = False
    with ProcessPoolExecutor(options.processes) as pool:
        for name in options.functions:
            for dtype in (float32, float64):
                inputs = f"{options.samples} samples"
                if dtype == float64 and name in doubles.SCREENS:
                    jobs = [pool.submit(worst_double, name, options.samples, fma)]
                else:
                    jobs = [pool.submit(worst_sample, name, dtype, options.samples // 4, k, fma) for k in range(4)]
                if dtype == float32 and name in FUNCTIONS:
                    inputs = "all 2^32" if options.stride == 1 else f"every {options.stride}th"
                    ranges = [(name, k * step, (k + 1) * step, options.stride, fma) for k in range(parts)]
                    jobs += [pool.submit(worst_float32, *r) for r in ranges]
                error, at = max(job.result() for job in jobs)
                goal = GOALS.get(name, 2.0)
                missed |= not error <= (goal if dtype == float64 or name in OF_PAIRS else 1.0 if fma else 1.5)
                row = {"function": name, "dtype": str(dtype), "inputs": inputs, "error": error, "at": list(at)}
                row["ns"] = nanoseconds(name, dtype, fma)
                print(table.line(row), flush=True)
                if options.store:
                    table.store(row)
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
