"""LLVM IR text to objects, assembly and addresses in this process.

`compile_object` and `compile_assembly` run the code generator (level 1, no middle-end passes: what the emitter wrote
is what runs); one TargetMachine a target is kept. `Library` links objects into the process' one LLJIT and unloads
them when it dies. llvmlite holds one lock over all of LLVM, so these calls may come from any thread.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import llvmlite.binding as llvm

from graphc.errors import InternalError
from graphc.runtime.host import host_target
from graphc.target import Target

_numbers = itertools.count()


@lru_cache(maxsize=None)
def _machine(target: Target) -> Any:
    """The TargetMachine of a target. Position independent, so that objects may lie anywhere or in a shared library."""
    if target.triple == llvm.get_process_triple():
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=1, reloc="pic", codemodel="default"
    )


def _parse(ir: str, target: Target, verify: bool | None) -> Any:
    """A module in a context of its own, so that nothing of it outlives it."""
    machine = _machine(target)
    try:
        module = llvm.parse_assembly(ir, llvm.create_context())
        if verify or (verify is None and os.environ.get("GRAPHC_VERIFY", "") not in ("", "0")):
            module.verify()
    except RuntimeError as error:
        raise InternalError(f"LLVM rejects the emitted module: {error}", reproducer=ir) from error
    return machine, module


def compile_object(ir: str, target: Target, verify: bool | None = None) -> bytes:
    """The object file for a module. `verify` runs LLVM's verifier first (None: if GRAPHC_VERIFY is set).

    Raises InternalError with the module's text where LLVM rejects it.
    """
    machine, module = _parse(ir, target, verify)
    data: bytes = machine.emit_object(module)
    return data


def compile_assembly(ir: str, target: Target) -> str:
    """The assembly of the very instructions that `compile_object` encodes: the same module, machine and settings."""
    machine, module = _parse(ir, target, None)
    text: str = machine.emit_assembly(module)
    return text


@lru_cache(maxsize=1)
def _engine() -> Any:
    """The one LLJIT of the process."""
    return llvm.create_lljit_compiler(_machine(host_target()))


class Library:
    """Loaded objects. Their code stays in memory exactly as long as the Library does: whoever calls it holds it."""

    def __init__(self) -> None:
        self._trackers: list[Any] = []

    def load(self, objects: Sequence[bytes], symbols: Sequence[str]) -> dict[str, int]:
        """Link objects together and give the addresses of `symbols` in them.

        The objects may call each other and memcpy and memset of the process. Raises InternalError if a symbol is
        missing or defined twice.
        """
        builder = llvm.JITLibraryBuilder()
        for data in objects:
            builder.add_object_img(data)
        builder.add_current_process()
        for symbol in symbols:
            builder.export_symbol(symbol)
        try:
            tracker = builder.link(_engine(), f"graphc{next(_numbers)}")
        except RuntimeError as error:
            raise InternalError(f"cannot link {', '.join(symbols)}: {error}") from error
        self._trackers.append(tracker)
        return {symbol: int(tracker[symbol]) for symbol in symbols}
