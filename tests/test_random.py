"""Random numbers: published vectors, statistics, and that they follow from key and position alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import interpret, random
from graphc.build import Tensor, apply, constant, placeholder
from graphc.errors import ArgumentError, DTypeError, GraphcError, ShapeError
from graphc.nn import Dropout, Linear, Sequential
from graphc.nn import functional as F
from graphc.text import parse, to_text
from tests.array_checks import agree

# Philox4x32-10 of Random123 1.14, kat_vectors: counter and key as words of 32 bits, lowest first, and the result.
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip


def drawn(*tensors: Tensor, threads: int | None = None) -> list[np.ndarray]:
    return list(graphc.function([], list(tensors), default_updates=False, threads=threads)())


@pytest.mark.parametrize("counter, key, wanted", VECTORS)
def test_published_vectors(counter: Any, key: Any, wanted: Any) -> None:
    low, high = (counter[n] | counter[n + 1] << 32 for n in (0, 2))
    k, c = np.full(19, key[0] | key[1] << 32, np.uint64), np.full(19, low, np.uint64)
    agree(
        lambda k, c: [apply("random_bits", k, c, word=n, stream=high) for n in range(4)],
        [np.full(19, word, np.uint32) for word in wanted],
        k, c,
    )  # fmt: skip


def test_a_number_follows_from_key_and_position() -> None:
    """Not from threads, shape, lanes, tails, the kernel that it is in, or a size being known."""
    key = graphc.parameter("key", np.uint64(7))
    whole = random.uniform(key, (100_003,))
    (wanted,) = drawn(whole, threads=1)
    assert len(set(wanted.tolist())) > 99_000
    for threads in (2, 3):
        np.testing.assert_array_equal(drawn(whole, threads=threads)[0], wanted)
    np.testing.assert_array_equal(drawn(random.uniform(key, (7, 11, 13)))[0].ravel(), wanted[:1001])
    x = placeholder("x", ("n", 3))
    fused = graphc.exp(x) * random.uniform(key, x.shape)
    for n in (0, 1, 6, 500):
        (found,) = graphc.function([x], [fused], default_updates=False)(np.zeros((n, 3), np.float32))
        np.testing.assert_array_equal(found.ravel(), wanted[: 3 * n])
    np.testing.assert_array_equal(interpret.evaluate([whole.ref], {key.ref: np.uint64(7)})[0], wanted)
    assert drawn(random.uniform(key))[0] == wanted[0]
    wide = random.uniform(key, (5,), "float64")
    np.testing.assert_array_equal(drawn(wide)[0], interpret.evaluate([wide.ref], {key.ref: np.uint64(7)})[0])


def test_keys_are_independent_of_each_other_and_of_what_they_draw() -> None:
    key = random.key(0)
    assert drawn(key)[0] == 0 and drawn(random.key(-1))[0] == 2**64 - 1
    keys = random.split(key, 5)
    folded = [random.fold_in(key, n) for n in (0, 1, 2, 2**63)]
    bits = random.bits(key, (1000,), "uint64")
    found = [int(v) for array in drawn(keys, *folded, bits) for v in np.atleast_1d(array)]
    assert len(set(found)) == 5 + 4 + 1000
    np.testing.assert_array_equal(drawn(random.fold_in(key, constant(np.int32(2))))[0], drawn(folded[2])[0])
    np.testing.assert_array_equal(drawn(random.fold_in(random.key(constant(np.int8(5))), 1)),
                                  drawn(random.fold_in(random.key(5), 1)))  # fmt: skip
    a, b = drawn(random.bits(keys[0], (4096,)), random.bits(keys[1], (4096,)))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.06
    for dtype in ("uint8", "uint16", "uint32", "uint64"):
        (array,) = drawn(random.bits(key, (4000,), dtype))
        assert array.dtype == dtype
        ones = np.unpackbits(array.view(np.uint8)).mean()
        assert abs(ones - 0.5) < 0.01


def test_vmap_over_keys() -> None:
    keys = random.split(random.key(1), 4)
    many = graphc.vmap(lambda k: random.normal(k, (3,)))(keys)
    each = [random.normal(keys[n], (3,)) for n in range(4)]
    found = drawn(many, *each)
    np.testing.assert_allclose(found[0], np.stack(found[1:]), rtol=1e-6)


N = 200_000  # standard errors below are of this many; the bounds are six of them


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_and_normal_numbers(dtype: str) -> None:
    g = random.Generator(5)
    u, v = drawn(g.uniform((N,), dtype), g.uniform((N,), dtype, -3, 1))
    z, w = drawn(g.normal((N,), dtype), g.normal((N,), dtype))
    assert u.dtype == z.dtype == dtype
    assert u.min() >= 0 and u.max() < 1 and v.min() >= -3 and v.max() < 1
    counts = np.histogram(u, 64, (0, 1))[0]
    assert ((counts - N / 64) ** 2 / (N / 64)).sum() < 63 + 6 * np.sqrt(2 * 63)
    assert abs(v.mean() + 1) < 6 * 4 / np.sqrt(12 * N)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 6 / np.sqrt(N)
    assert abs(z.mean()) < 6 / np.sqrt(N) and abs(z.var() - 1) < 6 * np.sqrt(2 / N)
    assert abs((z.astype("f8") ** 3).mean()) < 6 * np.sqrt(15 / N)
    assert abs((z.astype("f8") ** 4).mean() - 3) < 6 * np.sqrt(96 / N)
    assert abs(np.corrcoef(z, w)[0, 1]) < 6 / np.sqrt(N)
    assert abs((np.abs(z) > 3).mean() - 0.0026998) < 6 * np.sqrt(0.0027 / N)


def test_choices() -> None:
    g = random.Generator(5)
    p = np.linspace(0, 1, 5, dtype=np.float32)
    coins, chances, dice, wide, order, rows = drawn(
        g.bernoulli(0.3, (N,)), g.bernoulli(p, (N // 5, 5)), g.randint((N,), -2, 4, "int8"),
        g.randint((1000,), -(2**31), 2**31), g.permutation(1000), g.permutation(np.arange(24).reshape(2, 12), 1),
    )  # fmt: skip
    assert coins.dtype == bool and abs(coins.mean() - 0.3) < 6 * np.sqrt(0.21 / N)
    np.testing.assert_allclose(chances.mean(0), p, atol=6 * np.sqrt(0.25 / (N / 5)))
    assert not chances[:, 0].any() and chances[:, 4].all()
    assert dice.dtype == np.int8 and set(dice) == {-2, -1, 0, 1, 2, 3}
    assert np.abs(np.bincount(dice + 2) / N - 1 / 6).max() < 6 * np.sqrt(5 / 36 / N)
    assert wide.min() < -(2**30) and wide.max() > 2**30 and wide.max() < 2**31
    assert sorted(order) == list(range(1000)) and abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.2
    assert not (order == np.arange(1000)).all()
    np.testing.assert_array_equal(rows[1] - rows[0], 12)
    assert sorted(rows[0]) == list(range(12))
    zero, all_, none = drawn(g.randint((5,), 3, 4), g.bernoulli(1.0, (5,)), g.bernoulli(0, (5,)))
    assert (zero == 3).all() and all_.all() and not none.any()


def test_a_generator_moves_on_once_a_call() -> None:
    g = random.Generator(0)
    a, b = g.uniform((4,)), g.uniform((4,))
    f = graphc.function([], [a, b, a + 0])
    start = g.key.value.copy()
    first, second = f(), f()
    assert g.key.value == start + np.uint64(2)
    np.testing.assert_array_equal(first[0], first[2])
    assert len({*first[0], *first[1], *second[0], *second[1]}) == 16
    g.key.value = start
    np.testing.assert_array_equal(f(), first)
    again = random.Generator(0)
    np.testing.assert_array_equal(graphc.function([], again.uniform((4,)))(), first[0])
    assert random.Generator().key.value != random.Generator().key.value
    text = to_text(graphc.function([], a).graph)
    assert to_text(parse(text)) == text


def test_dropout_is_the_same_forward_and_backward() -> None:
    x = placeholder("x", ("n",), "float32")
    y = F.dropout(x, 0.25, random.Generator(1))
    f = graphc.function([x], [y, graphc.grad((y * y).sum(), x)])
    a = np.arange(1, 10_001, dtype=np.float32)
    value, gradient = f(a)
    dropped = value == 0
    assert abs(dropped.mean() - 0.25) < 0.026
    np.testing.assert_allclose(value[~dropped], a[~dropped] / 0.75, rtol=1e-6)
    np.testing.assert_allclose(gradient, np.where(dropped, 0, 2 * a / 0.75**2), rtol=1e-6)
    assert (f(a)[0] != value).any()
    assert f.ir("optimized").count("= kernel(") <= 2  # no mask in a kernel of its own
    special = f(np.full(1000, np.inf, np.float32))[0]
    assert set(special) == {0.0, np.inf}
    assert F.dropout(x, 0.5, training=False) is x and F.dropout(x, 0) is x
    np.testing.assert_array_equal(graphc.function([x], F.dropout(x, 1))(a), 0 * a)


def test_dropout_layers() -> None:
    model = Sequential(Linear(4, 50, generator=0), Dropout(0.5, 3), Dropout(0.5), Dropout(0.9, random.Generator(4)))
    x = placeholder("x", (20, 4))
    step = graphc.function([x], model(x))
    assert {"layers.1.generator", "layers.2.generator", "generator"} <= set(step.parameters)
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    ones = np.ones((20, 4), np.float32)
    assert 0.9 < (step(ones) == 0).mean() < 1
    assert model.eval() is model and not model[1].training
    np.testing.assert_array_equal(graphc.function([x], model(x))(ones), graphc.function([x], model[0](x))(ones))
    assert model.train()[1].training and repr(Dropout(0.1)) == "Dropout(p=0.1)"


@pytest.mark.parametrize("call, error, text", [
    (lambda k: random.uniform(0, (3,)), DTypeError, r"uniform: a key is a uint64 scalar: 0 is none"),
    (lambda k: random.normal(random.split(k), (3,)), DTypeError, r"normal: a key is a uint64 scalar"),
    (lambda k: random.uniform(k, (3,), "int32"), DTypeError, "uniform: dtype is a float, not int32"),
    (lambda k: random.uniform(k, (3,), maxval=np.ones(2)), ShapeError, "broadcast"),
    (lambda k: random.uniform(k, (3,), maxval=np.ones((2, 3))), ShapeError, "minval and maxval do not fit the shape"),
    (lambda k: random.bits(k, (3,), "int32"), DTypeError, "bits: dtype is an unsigned integer"),
    (lambda k: random.bernoulli(k, 1.5, (3,)), ArgumentError, "a probability is from 0 to 1"),
    (lambda k: random.bernoulli(k, np.ones((2, 3)), (3,)), ShapeError, "p does not fit the shape"),
    (lambda k: random.randint(k, (3,), 2, 2), ArgumentError, "1 to 2..32 integers to choose from, not 2 to 2"),
    (lambda k: random.randint(k, (3,), 0, 2**33), ArgumentError, "integers to choose from"),
    (lambda k: random.randint(k, (3,), 0, 300, "int8"), ArgumentError, "0 to 299 do not fit int8"),
    (lambda k: random.randint(k, (3,), 0, 3, "float32"), DTypeError, "randint: dtype is an integer"),
    (lambda k: random.split(k, -1), ArgumentError, "split: makes some number of keys"),
    (lambda k: random.key(constant(1.5)), DTypeError, "key: a seed is an integer"),
    (lambda k: random.fold_in(k, constant([1, 2])), DTypeError, "fold_in: data is an integer"),
    (lambda k: random.uniform(k, (-1,)), ShapeError, "negative"),
    (lambda k: apply("random_bits", k, constant(1), word=0, stream=0), DTypeError, "key and counter are uint64"),
    (lambda k: apply("random_bits", k, random.split(k), word=0, stream=0), ShapeError, "operands have one shape"),
    (lambda k: apply("random_bits", k, k, word=4, stream=0), ArgumentError, "word is 0 to 3"),
    (lambda k: F.dropout(placeholder("x", (3,)), 0.5), ArgumentError, "dropout: x: f32.3. needs a generator"),
    (lambda k: F.dropout(placeholder("x", (3,)), 0.5, k), ArgumentError, "needs a generator, not a Tensor"),
    (lambda k: F.dropout(placeholder("x", (3,)), 2), ArgumentError, "dropout: a probability is from 0 to 1"),
    (lambda k: F.dropout(placeholder("x", (3,), "int8"), 0.5), DTypeError, "dropout: takes floats"),
    (lambda k: Dropout(-1), ArgumentError, "Dropout: a probability is from 0 to 1"),
])  # fmt: skip
def test_errors_say_what_is_wrong(call: Any, error: type[GraphcError], text: str) -> None:
    with pytest.raises(error, match=text):
        call(random.key(0))
