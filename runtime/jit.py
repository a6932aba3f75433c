"""LLVM IR text to objects, assembly and addresses in this process.

`compile_object` and `compile_assembly` run the code generator (level 1, no middle-end passes: what the emitter wrote
is what runs; less still where the emitter steps the addresses, see `_OURS`); one TargetMachine a target is kept.
`Library` links objects into the process' one LLJIT and unloads them when it dies. llvmlite holds one lock over all of
LLVM, so these calls may come from any thread.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from graphc.errors import InternalError
from graphc.runtime.host import host_target
from graphc.settings import current
from graphc.target import Target

_numbers = itertools.count()


@cache
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


# What is left out where the emitter steps addresses: loop strength reduction (lsr), addresses moved to where they are
# used (cgp), another order of instructions (misched): the code is as fast, and takes about 40 % less time to generate.
# The others are passes that change nothing of our code. In files, for LLVM reads one as quickly as a single option:
# ours, and what LLVM has by itself.
_OURS, _DEFAULTS = (Path(__file__).with_name(name) for name in ("ours.options", "default.options"))
_LLVM = 22  # has these options, and these defaults
_option_lock = threading.Lock()


def _have_options() -> bool:
    """Asked each time: LLVM says nothing of a file that is gone (an upgrade while the process runs)."""
    return llvm.llvm_version_info[0] == _LLVM and _OURS.is_file() and _DEFAULTS.is_file()


@contextlib.contextmanager
def _options(target: Target) -> Iterator[None]:
    """The code generator's options, global to the process: other users of llvmlite find them as they were."""
    with _option_lock:  # also for those that leave the options alone: they must not find another thread's
        if not (target.steps_addresses and _have_options()):
            yield
            return
        llvm.set_option("graphc", f"@{_OURS}")
        try:
            yield
        finally:
            llvm.set_option("graphc", f"@{_DEFAULTS}")


def _after_fork() -> None:
    """In a forked child: the thread that held the lock at the fork may not exist here."""
    global _option_lock
    _option_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _parse(ir: str, target: Target, verify: bool | None) -> Any:
    """A module in a context of its own, so that nothing of it outlives it."""
    machine = _machine(target)
    try:
        module = llvm.parse_assembly(ir, llvm.create_context())
        if verify or (verify is None and current().verify):
            module.verify()
    except RuntimeError as error:
        raise InternalError(f"LLVM rejects the emitted module: {error}", reproducer=ir) from error
    return machine, module


def compile_object(ir: str, target: Target, verify: bool | None = None) -> bytes:
    """The object file for a module. `verify` runs LLVM's verifier first (None: if the setting `verify` is on).

    Raises InternalError with the module's text where LLVM rejects it.
    """
    machine, module = _parse(ir, target, verify)
    with _options(target):
        data: bytes = machine.emit_object(module)
    return data


def compile_assembly(ir: str, target: Target) -> str:
    """The assembly of the very instructions that `compile_object` encodes: the same module, machine and settings."""
    machine, module = _parse(ir, target, None)
    with _options(target):
        text: str = machine.emit_assembly(module)
    return text


@cache
def _engine() -> Any:
    """The one LLJIT of the process.

    With JITLink, which maps an object as one piece: the older loader maps its sections one by one, and LLVM aborts the
    process where a process of many gigabytes has no room for the constants within 2 GiB of the code.
    """
    return llvm.create_lljit_compiler(_machine(host_target()), use_jit_link=True)


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


def undefined_symbols(data: bytes) -> frozenset[str]:
    """The names that an object file needs from elsewhere. Reads 64-bit little-endian ELF; InternalError for others."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise InternalError("undefined_symbols reads 64-bit little-endian ELF objects only")
    table, size, count = struct.unpack_from("<Q10xHH", data, 0x28)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + size * n) for n in range(count)]
    names: set[str] = set()
    for _, kind, _, _, start, length, link, _, _, entry in sections:
        if kind != 2:  # SHT_SYMTAB
            continue
        strings = sections[link][4]
        for at in range(start + entry, start + length, entry):  # the first symbol is the null symbol
            name, _, _, section = struct.unpack_from("<IBBH", data, at)
            if section == 0:
                names.add(data[strings + name : data.index(b"\0", strings + name)].decode())
    return frozenset(names)
