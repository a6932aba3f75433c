"""Random bits from a key and a counter: the op `random_bits`, Philox4x32-10. `graphc.random` makes numbers of them.

An element's bits follow from the key and its own counter and nothing else, so they are the same for every number of
threads and lanes, and in every kernel that computes them again. J. Salmon, M. Moraes, R. Dror and D. Shaw, "Parallel
random numbers: as easy as 1, 2, 3" (SC 2011) define the generator; the tests have their published vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.graph import Attrs, Op, Types
from graphc.ops.lowering import Elementwise
from graphc.ops.registry import register
from graphc.ops.samples import Operand, Sample
from graphc.types import Dim, Shape, uint32, uint64

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
LOW = 0xFFFFFFFF


def _rule(types: Types, attrs: Attrs) -> Types:
    if len(types) != 2:
        raise ArgumentError(f"takes 2 operands, not {len(types)}")
    if any(t.dtype is not uint64 for t in types):
        hint = "make keys with graphc.random.key(seed)"
        raise DTypeError(f"key and counter are uint64: {{0}} is {types[0]}, {{1}} is {types[1]}", hint=hint)
    if types[0].shape != types[1].shape:
        raise ShapeError(f"{{0}} is {types[0]}, {{1}} is {types[1]}: an op's operands have one shape")
    if attrs["word"] not in range(4) or not 0 <= attrs["stream"] < 2**64:
        raise ArgumentError(f"word is 0 to 3 and stream below 2**64, not {attrs['word']} and {attrs['stream']}")
    return (types[0].with_dtype(uint32),)


def _reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    key, counter = arrays
    c0, c1 = counter & np.uint64(LOW), counter >> np.uint64(32)
    c2, c3 = (np.full_like(counter, attrs["stream"] >> shift & LOW) for shift in (0, 32))
    k0, k1 = key & np.uint64(LOW), key >> np.uint64(32)
    for _ in range(ROUNDS):
        first, second = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1 = (second >> np.uint64(32)) ^ c1 ^ k0, second & np.uint64(LOW)
        c2, c3 = (first >> np.uint64(32)) ^ c3 ^ k1, first & np.uint64(LOW)
        k0, k1 = ((k + np.uint64(step)) & np.uint64(LOW) for k, step in zip((k0, k1), KEY_STEPS, strict=True))
    return (np.asarray((c0, c1, c2, c3)[attrs["word"]], np.uint32),)


def _body(h: Any, attrs: Attrs, key: Any, counter: Any) -> Any:
    """Words of 32 bits in lanes of 64, so that a product is one instruction and its halves need no shuffle."""

    def number(value: int) -> Any:
        return h.constant(value, uint64)

    low, half = number(LOW), number(32)
    c0, c1 = h.and_(counter, low), h.lshr(counter, half)
    c2, c3 = number(attrs["stream"] & LOW), number(attrs["stream"] >> 32)
    k0, k1 = h.and_(key, low), h.lshr(key, half)
    for _ in range(ROUNDS):
        first, second = h.mul(c0, number(MULTIPLIERS[0])), h.mul(c2, number(MULTIPLIERS[1]))
        c0, c1 = h.xor(h.xor(h.lshr(second, half), c1), k0), h.and_(second, low)
        c2, c3 = h.xor(h.xor(h.lshr(first, half), c3), k1), h.and_(first, low)
        k0, k1 = (h.and_(h.add(k, number(step)), low) for k, step in zip((k0, k1), KEY_STEPS, strict=True))
    return h.cast((c0, c1, c2, c3)[attrs["word"]], uint32)


def _samples() -> list[Sample]:
    shapes: tuple[Shape, ...] = ((67,), (0,), (1,), (3, 5), (), (Dim.symbol("batch"), 3))
    return [
        Sample(
            (Operand(shape, uint64), Operand(shape, uint64)), {"word": n % 4, "stream": n * 0x5_0000_0003}, (uint32,),
            {"batch": 6}, smooth=False,
        )
        for n, shape in enumerate(shapes)
    ]  # fmt: skip


register(
    Op(
        "random_bits",
        "random_bits(word, stream)(key, counter): word 0 to 3 of Philox4x32-10 for a uint64 key and the 128-bit"
        " counter whose lower half is `counter` and whose upper half is `stream`, as uint32.",
        _rule,
        _reference,
        lowering=Elementwise(_body),
        samples=_samples,
        formula="philox4x32_10(counter, key)[word]",
        nan="There is none.",
        example="graphc.random.bits(graphc.random.key(0), (3,))",
        exempt={"gradient": "the result is random bits"},
    )
)
