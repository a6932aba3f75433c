"""Random numbers in a graph: `Generator`, and the functions with explicit keys that it is made of, named as in JAX.

    dropout = graphc.random.Generator(seed=0)      # each call of a function draws new numbers
    noise = dropout.normal((batch, 10))
    key = graphc.random.key(0)                      # or explicit: the same key gives the same numbers
    first, second = (graphc.random.fold_in(key, n) for n in range(2))

A key is a uint64 scalar. Element i of what is drawn follows from the key and i alone (Philox4x32-10, see
`graphc.ops.random_bits`): it is the same on every machine, for every number of threads, in forward and backward, and
for every way in which kernels are formed. Use a key once: `split` and `fold_in` make others of it. All functions are
compositions of one elementwise op and fuse with what reads them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from graphc import ops
from graphc.build import Parameter, Tensor, apply, as_dtype, constant, fail, parameter, signature
from graphc.elsewhere import of_module
from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.graph import shown
from graphc.ops.operands import TensorLike, as_tensor, expanded, normalized_axis, shape_of
from graphc.types import DType, Shape, Size, float32, float64, int32, product, uint64

__all__ = ["Generator", "bernoulli", "bits", "fold_in", "key", "normal", "permutation", "randint", "split", "uniform"]

if not TYPE_CHECKING:  # for people's mistakes; a type checker finds them itself
    __getattr__ = of_module(__name__, __all__)

DRAW, SPLIT, FOLD = range(3)  # the upper halves of the counters: no use of a key sees the numbers of another
_PRECISION = {"float16": 11, "bfloat16": 8, "float32": 24}  # bits of a significand
ShapeLike = Size | Sequence[Size]


def key(seed: TensorLike) -> Tensor:
    """The key of a seed: an int (modulo 2**64), or a scalar tensor of integers. `key(7)` is 7."""
    if isinstance(seed, int):
        return constant(np.uint64(seed % 2**64))
    found = as_tensor(seed)
    if not found.dtype.is_integer or found.ndim:
        fail(DTypeError, f"key: a seed is an integer: {signature(found)}")
    return found.astype(uint64)


def split(key: Tensor, num: int = 2) -> Tensor:
    """`num` new keys, uint64[num]: `keys = split(key)`, then keys[0], keys[1]. (A Tensor cannot be unpacked.)

    `split(key(0))` is [17333632219461522913, 15692649886853691038].
    """
    _check_key("split", key)
    if not isinstance(num, int) or num < 0:
        fail(ArgumentError, f"split: makes some number of keys, not {num!r}")
    return _wide(key, ops.iota((num,), uint64), SPLIT)


def fold_in(key: Tensor, data: TensorLike) -> Tensor:
    """The key of `key` and an integer (a step, the number of a layer): another one for each value of `data`.

    `fold_in(key(0), 3)` is 16980158192133456330.
    """
    _check_key("fold_in", key)
    number = constant(np.uint64(data % 2**64)) if isinstance(data, int) else as_tensor(data)
    if not number.dtype.is_integer or number.ndim:
        fail(DTypeError, f"fold_in: data is an integer: {signature(number)}")
    return _wide(key, number.astype(uint64), FOLD)


def bits(key: Tensor, shape: ShapeLike = (), dtype: Any = "uint32") -> Tensor:
    """Random integers over the whole range of an unsigned `dtype`: "uint8", "uint16", "uint32" or "uint64".

    `bits(key(0), (2,), 'uint8')` is [213, 164].
    """
    _check_key("bits", key)
    kind = as_dtype(dtype)
    if kind.kind != "u":
        fail(DTypeError, f"bits: dtype is an unsigned integer, not {kind.name}")
    counter = _positions("bits", shape)
    return _wide(key, counter, DRAW) if kind is uint64 else _word(key, counter, 0).astype(kind)


def uniform(
    key: Tensor, shape: ShapeLike = (), dtype: Any = "float32", minval: TensorLike = 0.0, maxval: TensorLike = 1.0
) -> Tensor:
    """Floats in [minval, maxval), equally likely. With the default bounds they are multiples of 2**-24 (or 2**-53).

    minval and maxval are numbers or tensors that broadcast to `shape`; rounding
    may give maxval itself where it is large beside the difference. `uniform(key(0), (2,))` is [0.3990..., 0.9722...].
    """
    _check_key("uniform", key)
    kind, counter = _floats("uniform", dtype), _positions("uniform", shape)
    drawn = _unit(key, counter, kind, 0)
    if type(minval) is float and type(maxval) is float and (minval, maxval) == (0.0, 1.0):
        return drawn
    low, high = (ops.astype(as_tensor(bound), kind) for bound in (minval, maxval))
    result = drawn * (high - low) + low
    if result.shape != counter.shape:
        fail(ShapeError, f"uniform: minval and maxval do not fit the shape: {signature(drawn, low, high)}")
    return result


def normal(key: Tensor, shape: ShapeLike = (), dtype: Any = "float32") -> Tensor:
    """Normally distributed floats of mean 0 and variance 1, by the method of Box and Muller.

    The largest are 6.5 in float32 (as it happens once in 2**31 draws) and 8.5 in float64.
    `normal(key(0), (2,))` is [0.9911..., -0.1536...].
    """
    _check_key("normal", key)
    kind, counter = _floats("normal", dtype), _positions("normal", shape)
    if kind is float64:
        positive, angle = 1.0 - _unit(key, counter, kind, 0), _unit(key, counter, kind, 2)
    else:  # 31 bits of which a float keeps those that count near 0, where the tail is
        positive = ((_word(key, counter, 0) >> 1).astype(int32).astype("float32") + 1.0) * 2.0**-31
        angle = _unit(key, counter, float32, 1)
    return (ops.sqrt(ops.log(positive) * -2.0) * ops.cos(angle * (2 * math.pi))).astype(kind)


def bernoulli(key: Tensor, p: TensorLike = 0.5, shape: ShapeLike | None = None) -> Tensor:
    """True with probability `p` (a number or a tensor), False otherwise. The default shape is that of `p`.

    `bernoulli(key(0), 0.5, (3,))` is [True, False, True].
    """
    _check_key("bernoulli", key)
    chance = as_tensor(p)
    if not chance.dtype.is_float:
        chance = chance.astype("float32")
    wanted = chance.shape if shape is None else shape_of("bernoulli", shape)
    if isinstance(p, (int, float)):
        if not 0 <= p <= 1:
            fail(ArgumentError, f"bernoulli: a probability is from 0 to 1, not {p!r}")
        below = round(p * 2**32)  # of the 2**32 values of a word
        word = _word(key, _positions("bernoulli", wanted), 0)
        return word < np.uint32(below) if below < 2**32 else ops.full(wanted, True)
    drawn = uniform(key, wanted, chance.dtype if chance.dtype is float64 else "float32")
    result = drawn < chance
    if result.shape != drawn.shape:
        fail(ShapeError, f"bernoulli: p does not fit the shape: {signature(drawn, chance)}")
    return result


def randint(key: Tensor, shape: ShapeLike, minval: int, maxval: int, dtype: Any = "int64") -> Tensor:
    """Integers in minval..maxval - 1, equally likely (to 2**-32 of that). At most 2**32 of them are possible.

    `randint(key, (5,), 1, 7)` throws five dice. Raises ArgumentError for bounds that do not fit dtype or one another.
    `randint(key(0), (5,), 1, 7)` is [6, 3, 2, 3, 5].
    """
    _check_key("randint", key)
    kind = as_dtype(dtype)
    if not kind.is_integer:
        fail(DTypeError, f"randint: dtype is an integer, not {kind.name}")
    limits = np.iinfo(kind.numpy)
    if not all(isinstance(bound, int) for bound in (minval, maxval)) or not 0 < maxval - minval <= 2**32:
        fail(ArgumentError, f"randint: takes 1 to 2**32 integers to choose from, not {minval!r} to {maxval!r}")
    if minval < limits.min or maxval - 1 > limits.max:
        fail(ArgumentError, f"randint: {minval} to {maxval - 1} do not fit {kind.name}")
    counter, count = _positions("randint", shape), maxval - minval
    # The upper 64 bits of the product of 64 random bits and the count, of which halves of 32 bits are multiplied.
    low, high = (_word(key, counter, n).astype(uint64) for n in range(2))
    chosen = (high * count + ((low * count) >> 32)) >> 32 if count < 2**32 else high
    return (chosen.astype("int64") + minval).astype(kind)


def permutation(key: Tensor, x: TensorLike, axis: int = 0) -> Tensor:
    """0..x - 1 in random order for an int `x` or a size; the slices of a tensor along `axis` in random order.

    `permutation(key(0), 4)` is [2, 1, 3, 0].
    """
    _check_key("permutation", key)
    if not isinstance(x, (Tensor, np.ndarray, list, tuple)):
        (size,) = shape_of("permutation", x)
        return ops.argsort(bits(key, (size,), uint64))
    tensor = as_tensor(x)
    place = normalized_axis("permutation", axis, tensor.ndim, tensor)
    return ops.take(tensor, ops.argsort(bits(key, (tensor.shape[place],), uint64)), place)


class Generator:
    """A source of random numbers whose key is a parameter: every call of a function that draws gets new ones.

    Its methods are the functions of this module without the key. Each draw that a graph is built with has numbers of
    its own; all uses of one draw, forward and backward, see the same. `key` is a parameter whose `default_update`
    moves it on once a call, so `generator.key.value` can be saved, and assigned to go on from there. Generators that
    one function uses need different names. Inside of `graphc.vmap` all items share a draw.
    """

    def __init__(self, seed: int | None = None, name: str = "generator") -> None:
        try:
            start = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]  # far from those of other seeds
        except (TypeError, ValueError):
            fail(ArgumentError, f"Generator: a seed is an int from 0 on or None, not {shown(seed)}")
        self.key: Parameter = parameter(name, start)
        self.key.default_update = self.key + 1
        self._draws = 0

    def next_key(self) -> Tensor:
        """The key of one more draw."""
        self._draws += 1
        return fold_in(self.key, self._draws - 1)

    def bits(self, shape: ShapeLike = (), dtype: Any = "uint32") -> Tensor:
        return bits(self.next_key(), shape, dtype)

    def uniform(
        self, shape: ShapeLike = (), dtype: Any = "float32", minval: TensorLike = 0.0, maxval: TensorLike = 1.0
    ) -> Tensor:
        return uniform(self.next_key(), shape, dtype, minval, maxval)

    def normal(self, shape: ShapeLike = (), dtype: Any = "float32") -> Tensor:
        return normal(self.next_key(), shape, dtype)

    def bernoulli(self, p: TensorLike = 0.5, shape: ShapeLike | None = None) -> Tensor:
        return bernoulli(self.next_key(), p, shape)

    def randint(self, shape: ShapeLike, minval: int, maxval: int, dtype: Any = "int64") -> Tensor:
        return randint(self.next_key(), shape, minval, maxval, dtype)

    def permutation(self, x: TensorLike, axis: int = 0) -> Tensor:
        return permutation(self.next_key(), x, axis)


def _check_key(name: str, key: Any) -> None:
    if not isinstance(key, Tensor) or key.dtype is not uint64 or key.ndim:
        given = signature(key) if isinstance(key, Tensor) else f"{key!r} is none"
        fail(DTypeError, f"{name}: a key is a uint64 scalar: {given}", "graphc.random.key(seed)")


def _positions(name: str, shape: Any) -> Tensor:
    """The number of each element in row-major order."""
    sizes: Shape = shape_of(name, shape)
    return ops.reshape(ops.iota((product(sizes),), uint64), sizes)


def _word(key: Tensor, counter: Tensor, word: int, stream: int = DRAW) -> Tensor:
    spread = expanded(key, counter.shape)
    return cast(Tensor, apply("random_bits", spread, counter, word=word, stream=stream))


def _wide(key: Tensor, counter: Tensor, stream: int, first: int = 0) -> Tensor:
    """64 bits of two words."""
    low, high = (_word(key, counter, first + n, stream).astype(uint64) for n in range(2))
    return high << 32 | low


def _unit(key: Tensor, counter: Tensor, kind: DType, first: int) -> Tensor:
    """Floats in [0, 1), of the words from `first` on."""
    if kind is float64:
        return (_wide(key, counter, DRAW, first) >> 11).astype("int64").astype(kind) * 2.0**-53
    precision = _PRECISION[kind.name]
    whole = (_word(key, counter, first) >> (32 - precision)).astype(int32)  # signed: its conversion is one instruction
    return (whole.astype("float32") * 2.0**-precision).astype(kind)


def _floats(name: str, dtype: Any) -> DType:
    kind = as_dtype(dtype)
    if not kind.is_float:
        fail(DTypeError, f"{name}: dtype is a float, not {kind.name}")
    return kind
