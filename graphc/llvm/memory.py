"""Loads, stores, gathers, scatters and prefetches of buffers and scratch, with and without a mask.

A bool is a byte in memory (`!= 0` when read, 0 or 1 when written) and an i1 in registers: `load` and `store` turn
one into the other. Enter at `Memory.load` and `Memory.store`.
"""

from __future__ import annotations

from functools import partial

from graphc.llvm.arithmetic import Arithmetic
from graphc.llvm.builder import split
from graphc.llvm.values import Value, mangled, memory_type_text
from graphc.types import DType, bool_, int8


class Pointer:
    """A buffer: the operand text of its address, its dtype, and the alignment of its first element in bytes."""

    __slots__ = ("align", "dtype", "text")

    def __init__(self, text: str, dtype: DType, align: int) -> None:
        self.text = text
        self.dtype = dtype
        self.align = min(align, dtype.itemsize)  # of any element


class Memory:
    """Access to the buffers in `pointers`."""

    def __init__(self, arithmetic: Arithmetic) -> None:
        self.arithmetic = arithmetic
        self.builder = arithmetic.builder
        self.pointers: dict[str, Pointer] = {}
        self._walked: dict[tuple[str, str], str | None] = {}  # (address, index) -> the element's address, if stepped

    def address(self, buffer: str, index: Value) -> str:
        """The address of an element of a buffer."""
        return self._address(self.pointers[buffer], index)

    def _address(self, pointer: Pointer, index: Value, *, early: bool = False) -> str:
        """The address of an element. Elements at `base + constant` share the address of `base`.

        early: it is wanted in front of a loop; else the constant is added in the block that uses the address.
        """
        element = memory_type_text(pointer.dtype)
        base, offset = split(index)
        address, level = pointer.text, 0
        if base is not None:
            level, key = base.level, (address, base.text)
            if key not in self._walked:
                origin = partial(self._address, pointer, early=True)
                self._walked[key] = self.builder.walk(element, origin, base)
            address = self._walked[key] or self.builder.pointer(
                f"getelementptr {element}, ptr {address}, i64 {base.text}", level
            )
        if offset:
            rhs = f"getelementptr {element}, ptr {address}, i64 {offset}"
            address = self.builder.pointer(rhs, level) if early else self.builder.near(rhs)
        return address

    def _addresses(self, pointer: Pointer, index: Value) -> str:
        element = memory_type_text(pointer.dtype)
        return self.builder.pure(
            index.dtype, index.lanes, f"getelementptr {element}, ptr {pointer.text}, {index.typed}"
        ).text

    def load(self, buffer: str, index: Value, lanes: int, mask: Value | None) -> Value:
        """`lanes` elements from a scalar index on, or those at a vector of indices; masked-off lanes read as 0."""
        pointer = self.pointers[buffer]
        dtype = pointer.dtype
        kind = memory_type_text(dtype, lanes)
        if mask is not None and mask.const is not None:
            if not mask.const:
                return self.builder.constant(0, dtype, lanes)
            mask = None
        if index.lanes > 1:
            rhs = self._gather(pointer, index, kind, mask)
        elif mask is None:
            rhs = f"load {kind}, ptr {self._address(pointer, index)}, align {pointer.align}"
        elif lanes == 1:
            return self._load_scalar(pointer, index, mask)
        else:
            address = f"ptr align {pointer.align} {self._address(pointer, index)}"
            name = f"masked.load.{mangled(kind)}.p0"
            rhs = self.builder.intrinsic(name, kind, [address, mask.typed, f"{kind} zeroinitializer"])
        return self._from_memory(rhs, dtype, lanes)

    def broadcast(self, buffer: str, index: Value, lanes: int) -> Value:
        """The element at a scalar index in every lane.

        A vector of one lane is loaded: LLVM makes the same code of it as of a scalar that is put into a vector, which
        is a line more to write.
        """
        pointer = self.pointers[buffer]
        if lanes == 1 or pointer.dtype.kind == "b":
            return self.arithmetic.splat(self.load(buffer, index, 1, None), lanes)
        kind = f"<1 x {memory_type_text(pointer.dtype)}>"
        rhs = f"load {kind}, ptr {self._address(pointer, index)}, align {pointer.align}"
        one = self.builder.value(pointer.dtype, 1, rhs).text
        rhs = f"shufflevector {kind} {one}, {kind} poison, <{lanes} x i32> zeroinitializer"
        return self.builder.value(pointer.dtype, lanes, rhs)

    def _from_memory(self, rhs: str, dtype: DType, lanes: int) -> Value:
        if dtype.kind != "b":
            return self.builder.value(dtype, lanes, rhs)
        byte = self.builder.value(int8, lanes, rhs)
        return self.arithmetic.ne(byte, self.arithmetic.like(0, byte))

    def _gather(self, pointer: Pointer, index: Value, kind: str, mask: Value | None) -> str:
        lanes = index.lanes
        on = mask.typed if mask is not None else f"<{lanes} x i1> splat (i1 true)"
        addresses = f"<{lanes} x ptr> align {pointer.align} {self._addresses(pointer, index)}"
        name = f"masked.gather.{mangled(kind)}.v{lanes}p0"
        return self.builder.intrinsic(name, kind, [addresses, on, f"{kind} zeroinitializer"])

    def _load_scalar(self, pointer: Pointer, index: Value, mask: Value) -> Value:
        """One element if `mask` holds: a vector of one lane, which LLVM turns into a branch."""
        kind = memory_type_text(pointer.dtype)
        on = self.builder.pure(bool_, 1, f"insertelement <1 x i1> poison, {mask.typed}, i64 0").text
        address = f"ptr align {pointer.align} {self._address(pointer, index)}"
        name = f"masked.load.v1{mangled(kind)}.p0"
        zero = f"<1 x {kind}> zeroinitializer"
        rhs = self.builder.intrinsic(name, f"<1 x {kind}>", [address, f"<1 x i1> {on}", zero])
        vector = self.builder.value(pointer.dtype, 1, rhs).text
        return self._from_memory(f"extractelement <1 x {kind}> {vector}, i64 0", pointer.dtype, 1)

    def store(self, buffer: str, index: Value, value: Value, mask: Value | None) -> None:
        """Write consecutive elements from a scalar index on, or one lane after the other at a vector of indices."""
        pointer = self.pointers[buffer]
        if mask is not None and mask.const is not None:
            if not mask.const:
                return
            mask = None
        if value.dtype.kind == "b":
            value = self.arithmetic.cast(value, int8)
        kind, lanes = value.type, value.lanes
        if index.lanes > 1:
            on = mask.typed if mask is not None else f"<{lanes} x i1> splat (i1 true)"
            addresses = f"<{lanes} x ptr> align {pointer.align} {self._addresses(pointer, index)}"
            name = f"masked.scatter.{mangled(kind)}.v{lanes}p0"
            self.builder.line(self.builder.intrinsic(name, "void", [value.typed, addresses, on]))
        elif mask is None:
            self.builder.line(f"store {value.typed}, ptr {self._address(pointer, index)}, align {pointer.align}")
        else:
            on = mask.typed
            if lanes == 1:
                on = f"<1 x i1> {self.builder.pure(bool_, 1, f'insertelement <1 x i1> poison, {on}, i64 0').text}"
                single = f"insertelement <1 x {kind}> poison, {value.typed}, i64 0"
                typed = f"<1 x {kind}> {self.builder.pure(value.dtype, 1, single).text}"
                kind = f"<1 x {kind}>"
            else:
                typed = value.typed
            address = f"ptr align {pointer.align} {self._address(pointer, index)}"
            name = f"masked.store.{mangled(kind)}.p0"
            self.builder.line(self.builder.intrinsic(name, "void", [typed, address, on]))

    def prefetch(self, buffer: str, index: Value, write: bool) -> None:
        """Ask for the cache line of an element; the address may lie outside of the buffer."""
        address = self._address(self.pointers[buffer], index)
        kind = [f"ptr {address}", f"i32 {int(write)}", "i32 3", "i32 1"]
        self.builder.line(self.builder.intrinsic("prefetch.p0", "void", kind))
