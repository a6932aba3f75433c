"""The machine that runs, as a `Target`: what LLVM and the system say about it. Enter at `host_target`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import llvmlite.binding as llvm

from graphc.target import Target

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1024, "M": 1024**2}


@lru_cache(maxsize=1)
def host_target() -> Target:
    """The target for this machine; asked once a process."""
    triple = llvm.get_process_triple()
    features = llvm.get_host_cpu_features()
    text: str = features.flatten()
    if triple.startswith(("x86_64", "i386", "i686")):
        vector_bytes, registers = _x86_vectors(features)
        # Some CPUs are taken for ones on which 512-bit registers slow the clock down; where they exist, we use them.
        text = ",".join(filter(None, (text, "-prefer-256-bit")))
        wide = vector_bytes == 64
        fma, rounding, broadcasts, half = (features.get(name, False) for name in ("fma", "sse4.1", "avx", "f16c"))
    else:
        vector_bytes, registers, wide, broadcasts, rounding = 16, 32, False, False, True
        fma = half = triple.startswith(("aarch64", "arm64"))
    return Target(
        "host", triple, llvm.get_host_cpu_name(), text, vector_bytes, registers, fma, rounding, broadcasts, wide,
        _cache_bytes(1, 32 * 1024), _cache_bytes(2, 512 * 1024), half,
        masked_loads=broadcasts, scales=wide, steps_addresses=wide,  # masked loads came with AVX, as broadcasts did
    )  # fmt: skip


def _x86_vectors(features: Mapping[str, bool]) -> tuple[int, int]:
    """Bytes of a vector register and how many there are."""
    if all(features.get(f"avx512{part}", False) for part in ("f", "bw", "dq", "vl")):
        return 64, 32
    return (32, 16) if features.get("avx2", False) else (16, 16)


def _cache_bytes(level: int, default: int) -> int:
    """The size of the data cache of a level, as Linux tells it."""
    for index in sorted(_CACHES.glob("index*")):
        try:
            found = int((index / "level").read_text()), (index / "type").read_text().strip()
            size = (index / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if found[0] == level and found[1] in ("Data", "Unified") and size[:-1].isdigit() and size[-1] in _UNITS:
            return int(size[:-1]) * _UNITS[size[-1]]
    return default
