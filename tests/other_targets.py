"""Functions compiled for narrower registers than this machine's, and run on it. Enter at `narrowed` or `NARROWER`.

A target is one of `graphc.target`'s with this machine's triple and caches, so that its objects load here. What is
cached on disk is kept apart by the target, and the driver of the process is that of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import llvmlite.binding as llvm
import pytest

from graphc.runtime import driver, host
from graphc.target import AVX2, SSE2, Target

HOST = host.host_target()
_FEATURES = llvm.get_host_cpu_features()
_RUNS = {
    "sse2": HOST.triple.startswith("x86_64"),
    "avx2": HOST.triple.startswith("x86_64") and all(_FEATURES.get(f, False) for f in ("avx2", "fma", "f16c", "bmi2")),
}
NARROWER = [
    pytest.param(
        replace(target, triple=HOST.triple, l1_bytes=HOST.l1_bytes, l2_bytes=HOST.l2_bytes),
        id=target.name,
        marks=pytest.mark.skipif(not _RUNS[target.name], reason=f"this machine does not run {target.name}"),
    )
    for target in (AVX2, SSE2)
]


@contextmanager
def narrowed(target: Target) -> Iterator[None]:
    """Functions are compiled for `target` within."""
    driver.driver()  # the machine's own, whatever is compiled first
    with mock.patch.object(host, "host_target", lambda: target):
        yield
