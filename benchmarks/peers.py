"""The libraries that rows are measured against, imported only where they are asked for. Enter at `Peers`.

Each method takes one function in the library's own terms and gives the `Contender`s of it: one, or none where the
library is not wanted or not installed. `sets` are the operands, several tuples of arrays where a row is short.

- NumPy (OpenBLAS): one thread a process by its environment variable, set in `kernels.py` before NumPy is imported.
- PyTorch (MKL, oneDNN): eager, `set_num_threads`.
- JAX: `jit`, results waited for, 32-bit; its thread pool has as many threads as the process has cores.
- Numba: `njit(fastmath=True)`, `parallel` for several threads.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from measuring import Array, Contender, Operands

import graphc

LIBRARIES = {"NumPy": "numpy", "PyTorch": "torch", "JAX": "jax", "Numba": "numba"}
Sets = Sequence[tuple[Array, ...]]


def installed() -> list[str]:
    return [name for name, module in LIBRARIES.items() if importlib.util.find_spec(module) is not None]


def versions() -> dict[str, str]:
    """The version of every library that is installed, and of graphc."""
    from importlib.metadata import version

    return {"graphc": version("graphc")} | {name: version(LIBRARIES[name]) for name in installed()}


def aligned(shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """An array that begins at a cache line, as graphc's own do."""
    count = int(np.prod(shape))
    memory = np.zeros(count * np.dtype(dtype).itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)


def normal(*shape: int, seed: int = 0) -> Array:
    """Normal float32 numbers, aligned to cache lines."""
    array = aligned(shape)
    np.random.default_rng([seed, *shape]).standard_normal(out=array, dtype=np.float32)
    return array


class Peers:
    """Makers of contenders for a number of threads and the peers that are wanted."""

    def __init__(self, threads: int, wanted: Sequence[str]) -> None:
        self.threads, self.wanted = threads, [name for name in installed() if name in wanted]
        if "PyTorch" in self.wanted:
            import torch

            torch.set_num_threads(threads)
            torch.set_grad_enabled(False)
        if "Numba" in self.wanted:
            import numba

            numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))

    def graphc(
        self, function: Callable[..., Any], sets: Sets, shapes: Sequence[tuple[Any, ...]] | None = None,
        name: str = "graphc",
    ) -> list[Contender]:  # fmt: skip
        """graphc's contender; of several threads, also its own speed on one ("one thread"), which is no peer.

        shapes: of the placeholders, with names for sizes; the arrays' own otherwise.
        """
        found = []
        for label, threads in ((name, self.threads), ("one thread", 1))[: 1 if self.threads == 1 else 2]:
            given = shapes or [array.shape for array in sets[0]]
            inputs = [graphc.placeholder(f"x{n}", s, a.dtype) for n, (s, a) in enumerate(zip(given, sets[0]))]
            compiled = self.compiled(inputs, function(*inputs), threads=threads)
            found.append(Contender(label, compiled, [(arrays, {}) for arrays in sets], function=compiled))
        return found

    def compiled(self, *arguments: Any, **named: Any) -> graphc.Function:
        """`graphc.function`; all rows compile through this one place."""
        return graphc.function(*arguments, **named)

    def numpy(
        self, function: Callable[..., Any], sets: Sets, out: Callable[[], Any] | None = None, name: str = "NumPy"
    ) -> list[Contender]:
        """`out()` gives arrays for the result, one for each tuple of operands, which come behind them."""
        if "NumPy" not in self.wanted:
            return []
        return [Contender(name, function, [((*arrays, *([out()] if out else [])), {}) for arrays in sets])]

    def torch(
        self, make: Callable[[Any], Callable[..., Any]], sets: Sets, *, name: str = "PyTorch",
        prepare: Callable[..., Any] = lambda *tensors: tensors, back: Callable[[Any], Any] = lambda tensor: tensor,
        out: Callable[[], Any] | None = None,
    ) -> list[Contender]:  # fmt: skip
        """make(torch) gives the function of tensors; `prepare` brings operands into its layout, `back` the result."""
        if "PyTorch" not in self.wanted:
            return []
        import torch

        operands: list[Operands] = []
        for arrays in sets:
            tensors = prepare(*(torch.from_numpy(array) for array in arrays))
            operands.append((tuple(tensors), {"out": torch.from_numpy(out())} if out else {}))

        def arrays_of(result: Any) -> Any:
            result = back(result)
            return [t.numpy() for t in result] if isinstance(result, (tuple, list)) else result.numpy()

        return [Contender(name, make(torch), operands, arrays_of)]

    def jax(
        self, make: Callable[[Any, Any], Callable[..., Any]], sets: Sets, *, name: str = "JAX",
        prepare: Callable[..., Any] = lambda *arrays: arrays, back: Callable[[Any], Any] = lambda array: array,
    ) -> list[Contender]:  # fmt: skip
        """make(jax, jax.numpy) gives the function to be jitted."""
        if "JAX" not in self.wanted:
            return []
        import jax
        import jax.numpy as jnp

        jitted, ready = jax.jit(make(jax, jnp)), jax.block_until_ready
        operands = [(tuple(jax.device_put(array) for array in prepare(*arrays)), {}) for arrays in sets]
        return [Contender(name, lambda *arrays: ready(jitted(*arrays)), operands, back)]

    def numba(
        self, make: Callable[[Any], Callable[..., Any]], sets: Sets, out: Callable[[], Any], name: str = "Numba"
    ) -> list[Contender]:
        """make(numba) gives a function of the operands and of what `out()` gives, which it fills in and returns."""
        if "Numba" not in self.wanted:
            return []
        import numba

        compiled = numba.njit(fastmath=True, parallel=self.threads > 1)(make(numba))
        operands = []
        for arrays in sets:
            made = out()
            operands.append(((*arrays, *(made if isinstance(made, tuple) else (made,))), {}))
        return [Contender(name, compiled, operands)]


def library_of(contender: str) -> str:
    """The library that a contender's name begins with: there may be several ways in one."""
    return contender.split(" ")[0]
