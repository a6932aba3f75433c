"""The machine that code is generated for, as plain data. Schedules read these numbers and never the CPU's name.

`Target` is what the loop level may know. `graphc.runtime.host` fills it in for the machine that runs; named targets
(for cross compilation and tests) are the constants below.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One target. Sizes in bytes; `features` is LLVM's feature string, `triple` and `cpu` are only for LLVM."""

    name: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int  # width of one vector register
    vector_registers: int
    fma: bool = True  # whether llvm.fma is one instruction
    rounding: bool = True  # whether llvm.floor, ceil, trunc and rint are one instruction
    broadcasts: bool = True  # whether one instruction loads an element from any address into all lanes
    masked_memory: bool = False  # whether masked loads and stores are cheap (AVX-512, SVE)
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024
    half: bool = True  # whether float16 and float32 convert into each other in one instruction
    masked_loads: bool = True  # whether a masked load is one instruction, not a branch for each lane
    scales: bool = False  # whether one instruction multiplies floats by 2^n, n from another register (AVX-512)
    # Whether the emitter steps the addresses of a loop, and LLVM's loop strength reduction, a third of the time of the
    # code generator, is off. On targets of 16 registers, or without base + index + constant, its choices spill less.
    steps_addresses: bool = False

    def lanes(self, itemsize: int) -> int:
        """How many elements of `itemsize` bytes one register holds."""
        return max(1, self.vector_bytes // itemsize)


LINUX = "x86_64-unknown-linux-gnu"
AVX512 = Target(
    "avx512", LINUX, "skylake-avx512", "-prefer-256-bit", 64, 32, masked_memory=True, scales=True, steps_addresses=True
)
AVX2 = Target("avx2", LINUX, "haswell", "", 32, 16)
SSE2 = Target(
    "sse2", LINUX, "x86-64", "", 16, 16, fma=False, rounding=False, broadcasts=False, half=False, masked_loads=False
)
NEON = Target("neon", "aarch64-unknown-linux-gnu", "generic", "+neon", 16, 32, broadcasts=False, masked_loads=False)
NAMED = {target.name: target for target in (AVX512, AVX2, SSE2, NEON)}
