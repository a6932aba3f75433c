"""Named sizes: arithmetic, limits, what a call tells and what it breaks, and code that uses what is known."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import graphc
from graphc import text
from graphc.bounds import Bounds, range_of, resolved, solution
from graphc.build import Tensor, placeholder
from graphc.errors import ArgumentError, ParseError, ShapeError
from graphc.extents import extents
from graphc.freeze import freeze
from graphc.graph import Op
from graphc.ops.lowering import ArgReduction, Elementwise, Gather, Reduction, Scan, Sort
from graphc.ops.registry import OPS
from graphc.ops.samples import Operand, Sample
from graphc.types import Call, Dim, Size, evaluate, floordiv, maximum, minimum, terms_of

N = graphc.dim("n")
SIZES = (0, 1, 2, 7, 67)


@pytest.fixture(autouse=True)
def checked() -> object:
    with graphc.config(verify=True, cache=False):
        yield


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(-2, 2, shape).astype("float32")


# arithmetic


def test_arithmetic_on_a_size_gives_sizes_for_every_shape() -> None:
    x = placeholder("x", (N,))
    ramp = graphc.arange(2 * N + 1, dtype="float32")
    half = graphc.broadcast_to(x.sum(), (N // 2, N % 2 + 1))
    cut = graphc.concat([x, x, graphc.zeros((1,))])[: N + 1]
    compiled = graphc.function([x], [ramp, half, cut, ramp[1:].reshape(N, 2)])
    for n in SIZES:
        a = floats(n)
        got = compiled(a)
        assert [g.shape for g in got] == [(2 * n + 1,), (n // 2, n % 2 + 1), (n + 1,), (n, 2)]
        np.testing.assert_array_equal(got[0], np.arange(2 * n + 1))
        np.testing.assert_array_equal(got[2], np.concatenate([a, a, [0]])[: n + 1])
    assert compiled.compile_count == 1


M = Dim.symbol("m")
SLICES: list[tuple[slice, Callable[[int, int], slice]]] = [
    (slice(N // 2, None), lambda n, m: slice(n // 2, None)),
    (slice(None, M), lambda n, m: slice(None, m)),
    (slice(M, N, 2), lambda n, m: slice(m, n, 2)),
    (slice(M, -1), lambda n, m: slice(m, -1)),
    (slice(1, M), lambda n, m: slice(1, m)),
    (slice(N - 1, None, -1), lambda n, m: slice(None, None, -1)),
    (slice(None, M, -1), lambda n, m: slice(None, m, -1)),
    (slice(M, None, -2), lambda n, m: slice(m, None, -2)),
    (slice(M, 1, -1), lambda n, m: slice(m, 1, -1)),
    (slice(N - M, None), lambda n, m: slice(max(n - m, 0), None)),
    (slice(None, 2 * N + M), lambda n, m: slice(None)),
]


@pytest.mark.parametrize(("key", "wanted"), SLICES)
def test_slices_take_sizes(key: slice, wanted: Callable[[int, int], slice]) -> None:
    x, y = placeholder("x", (N,)), placeholder("y", (M,))
    chosen = x[key]
    outputs = [chosen * 2, *graphc.grad((chosen * chosen).sum(), [x])]
    compiled = graphc.function([x, y], outputs)
    for n in (0, 1, 2, 5, 19):
        for m in (0, 1, 3, 18, 30):
            a, b = floats(n), floats(m)
            twice, gradient = compiled(a, b)
            np.testing.assert_array_equal(twice, 2 * a[wanted(n, m)])
            zeros = np.zeros_like(a)
            zeros[wanted(n, m)] = 2 * a[wanted(n, m)]
            np.testing.assert_array_equal(gradient, zeros)


def test_a_slice_at_less_than_no_size_is_an_error() -> None:
    with pytest.raises(ArgumentError, match=r"a slice at -m.*\n.*\n.*write x\[n - m :\]"):
        placeholder("x", (N,))[-M:]


def test_a_dim_and_its_name_are_one_size() -> None:
    x, y = placeholder("x", ("n",)), placeholder("y", (graphc.dim("n", min=1),))
    assert (x + y).shape == (N,)
    with pytest.raises(ShapeError, match="below min=1"):
        graphc.function([x, y], x + y)(floats(0), floats(0))


@pytest.mark.parametrize(
    ("build", "hint"),
    [
        (lambda: graphc.dim("2n"), "'2n' does not name a size"),
        (lambda: graphc.dim("n", min=-1), "min is -1"),
        (lambda: graphc.dim("n", multiple_of=0), "multiple_of is 0"),
        (lambda: graphc.dim("n", max=2.5), r"max is 2\.5"),  # type: ignore[arg-type]
        (lambda: graphc.dim("n", min=3, max=2), "no size has min=3, max=2"),
        (lambda: graphc.dim("n", min=1, max=7, multiple_of=8), "no size has min=1, max=7, multiple_of=8"),
    ],
)
def test_limits_that_make_no_sense(build: Callable[[], Dim], hint: str) -> None:
    with pytest.raises(ShapeError, match=hint):
        build()


def test_limits_that_contradict_each_other_name_both_lines() -> None:
    x, y = placeholder("x", (graphc.dim("n", max=4),)), placeholder("y", (graphc.dim("n", min=6),))
    with pytest.raises(ShapeError, match=r"limits of the size n contradict.*min=6, max=4") as caught:
        graphc.function([x, y], x + y)
    assert len(caught.value.lines) == 2


# what a call tells


def test_a_size_that_is_linear_in_a_name_tells_it() -> None:
    x, y = placeholder("x", (2 * N + 1, Dim.symbol("m") * N)), placeholder("y", (N - 1,))
    compiled = graphc.function([x, y], [x.sum(axis=1), graphc.arange(N), graphc.dim_value(Dim.symbol("m"))])
    for n in (1, 2, 9):
        sums, ramp, m = compiled(floats(2 * n + 1, 3 * n), floats(n - 1))
        assert (sums.shape, ramp.shape, int(m)) == ((2 * n + 1,), (n,), 3)
        assert (x * 1).eval({x: floats(2 * n + 1, 3 * n), y: floats(n - 1)}).shape == (2 * n + 1, 3 * n)


def test_a_call_that_does_not_fit_says_which_argument_and_why() -> None:
    n, m = graphc.dim("n", min=2, max=64, multiple_of=2), Dim.symbol("m")
    x, y = placeholder("x", (2 * n + 1,)), placeholder("y", (n * m,))
    compiled = graphc.function([x, y], [x * 2, y + 1])

    def says(a: int, b: int) -> str:
        with pytest.raises(ShapeError) as caught:
            compiled(floats(a), floats(b))
        with pytest.raises(ShapeError):
            (x * 2).eval({x: floats(a), y: floats(b)})
        assert any("test_dims.py" in str(line) for line in caught.value.lines)
        return str(caught.value)

    prefix = r"argument 'x' \(f32\[2\*n\+1\]\) has shape "
    assert re.search(prefix + r"\(8,\): axis 0 is 8, which 2\*n\+1 is for no n", says(8, 4))
    assert re.search(prefix + r"\(0,\): axis 0 is 0, which 2\*n\+1 is for no n", says(0, 4))
    assert re.search(prefix + r"\(1,\): axis 0 is 1, so n is 0, which is below min=2", says(1, 4))
    assert re.search(prefix + r"\(131,\): axis 0 is 131, so n is 65, which is above max=64", says(131, 4))
    assert re.search(prefix + r"\(7,\): axis 0 is 7, so n is 3, which is no multiple of 2", says(7, 4))
    assert "declared as dim n: min=2, max=64, multiple_of=2" in says(7, 4)
    assert re.search(r"argument 'y' .*axis 0 is 5, which m\*n is for no m with n = 4", says(9, 5))
    assert compiled(floats(9), floats(8))[0].shape == (9,)
    with pytest.raises(ShapeError, match="n is 5.*no multiple of 2"):
        placeholder("z", (n,)).sum().eval({placeholder("z", (n,)): floats(5)} | {})


def test_a_name_that_no_size_tells_is_an_error_when_compiling() -> None:
    x = placeholder("x", (N // 2,))
    with pytest.raises(ShapeError, match=r"a call cannot tell n from the sizes of x \(f32\[n//2\]\)"):
        graphc.function([x], x * 2)
    y = placeholder("y", (N,))
    assert graphc.function([x, y], x * 2)(floats(3), floats(7)).shape == (3,)
    with pytest.raises(ShapeError, match=r"axis 0 is 2, but n//2 is 3 by argument 'y'"):
        graphc.function([x, y], x * 2)(floats(2), floats(7))


def test_what_tells_what() -> None:
    m = Dim.symbol("m")
    steps, untold = solution([(N * m, 2 * N), (minimum(N, 3), Dim.symbol("k") * Dim.symbol("k"))])
    assert [(s.name, str(s.factor), str(s.rest)) for s in steps] == [("n", "2", "0"), ("m", "n", "0")]
    assert untold == {"k"}


# limits in the compiler


def test_a_multiple_of_the_lanes_needs_no_mask() -> None:
    def loops(n: Dim | str) -> str:
        x, y = placeholder("x", (n, 4)), placeholder("y", ("k", n))
        program = graphc.function([x, y], [graphc.relu(x * 2 + 1), y.max(axis=1), graphc.exp(y)])
        for size in (0, 64, 192):
            a, b = floats(size, 4), floats(3, size)
            if size:
                np.testing.assert_array_equal(program(a, b)[0], np.maximum(a * 2 + 1, 0))
                np.testing.assert_array_equal(program(a, b)[1], b.max(axis=1))
        return program.ir("loops")

    assert "where" in loops("n")
    assert "where" not in loops(graphc.dim("n", multiple_of=64, min=1))


def test_a_least_size_decides_slices_and_shifts() -> None:
    x = placeholder("x", (graphc.dim("n", min=8),))
    compiled = graphc.function([x], [x[:5] * 2, x[3:] + 1])
    assert "min(" in compiled.ir("graph") and "min(" not in compiled.ir("optimized")
    assert "max(" not in compiled.ir("optimized")
    a = floats(8)
    np.testing.assert_array_equal(compiled(a)[0], a[:5] * 2)
    np.testing.assert_array_equal(compiled(a)[1], a[3:] + 1)


def test_a_multiple_splits_exactly() -> None:
    n = graphc.dim("n", multiple_of=8)
    x = placeholder("x", (n,))
    assert (n % 8, 8 * (n // 8), (n + 8) // 4 * 4) == (0, n, n + 8) and 16 * (n // 16) != n
    blocks = x.reshape(n // 8, 8)
    compiled = graphc.function([x], [blocks.sum(axis=0), blocks.reshape(n), graphc.grad(blocks.sum(axis=0)[2], x)])
    for size in (0, 8, 40):
        a = floats(size)
        np.testing.assert_array_equal(compiled(a)[1], a)
        np.testing.assert_allclose(compiled(a)[0], a.reshape(-1, 8).sum(axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(compiled(a)[2], np.arange(size) % 8 == 2)


def test_limits_are_in_the_text_and_come_back_from_it() -> None:
    n = graphc.dim("n", min=1, max=64, multiple_of=8)
    x = placeholder("x", (n, "k"))
    graph = graphc.function([x], x.reshape(n // 8, 8, "k")).graph
    written = text.to_text(graph)
    assert "  dim n: min=1, max=64, multiple_of=8\n" in written
    assert text.to_text(text.parse(written)) == written
    with pytest.raises(ParseError, match="least is no limit"):
        text.parse(written.replace("min=1", "least=1"))


def test_limits_hold_for_a_plan_from_the_cache(tmp_path: Any) -> None:
    x = placeholder("x", (graphc.dim("n", multiple_of=16),))
    y = placeholder("x", ("n",))
    with graphc.config(cache=True, cache_dir=tmp_path):
        for _ in range(2):
            with pytest.raises(ShapeError, match="no multiple of 16"):
                graphc.function([x], x + 1)(floats(17))
        np.testing.assert_array_equal(graphc.function([y], y + 1)(floats(17)), floats(17) + 1)


PARTS: list[Size] = [N, 3, minimum(N, 2), maximum(N - 5, 0), floordiv(N, 4), minimum(N - 1, 6), floordiv(N + 3, 8)]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(-2, 2), st.sampled_from(PARTS)), max_size=4), *[st.integers(0, 9)] * 2)
def test_what_limits_decide_is_true(parts: list[tuple[int, Size]], low: int, length: int) -> None:
    total: Size = 0
    for factor, part in parts:
        total = total + factor * part
    for high in (low + length, None):
        bounds = {"n": Bounds(low, high)}
        least, most = range_of(total, bounds)
        simple = resolved(total, bounds)
        for n in range(low, low + length + 1):
            value = evaluate(total, {"n": n})
            assert evaluate(simple, {"n": n}) == value
            assert (least is None or least <= value) and (most is None or value <= most)


DIVIDENDS: list[Size] = [N, graphc.dim("m"), 4, 6, floordiv(N, 3), N - 2 * floordiv(N, 2)]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(-6, 6), st.sampled_from(DIVIDENDS)), max_size=4), st.integers(1, 6))
def test_taking_multiples_out_of_a_division_leaves_nothing_negative_to_divide(
    parts: list[tuple[int, Size]], by: int
) -> None:
    """Native code divides without a sign."""
    total: Size = 0
    for factor, part in parts:
        total = total + factor * part
    quotient = floordiv(total, by)
    divided = [a.args[0] for monomial, _ in terms_of(quotient) for a in monomial if isinstance(a, Call)]
    for n, m in product(range(5), range(5)):
        values = {"n": n, "m": m}
        if evaluate(total, values) >= 0:
            assert evaluate(quotient, values) == evaluate(total, values) // by
            assert all(evaluate(size, values) >= 0 for size in divided)


# every op at the sizes 0, 1, 2 and primes


def symbolic(op: Op, sample: Sample) -> Sample | None:
    """The sample with a name for every size, where no attribute holds a size; equal sizes share a name."""
    if not all(isinstance(s, int) for o in sample.operands for s in o.shape) or not sample.operands:
        return None
    names = {size: Dim.symbol(f"d{size}") for o in sample.operands for size in o.shape}
    operands = [Operand(tuple(names[s] for s in o.shape), o.dtype, o.values, o.domain, o.positive, o.limit)  # type: ignore[index]
                for o in sample.operands]  # fmt: skip
    return Sample(tuple(operands), sample.attrs, sample.dtypes)


NAMED = [
    pytest.param(op, sample, id=f"{op.name}-{i}")
    for op in OPS.values()
    if isinstance(op.lowering, (Elementwise, Reduction, ArgReduction, Scan, Sort, Gather)) or op.name == "matmul"
    for i, sample in enumerate(op.samples())
    if 1 not in {s for o in sample.operands for s in o.shape} and symbolic(op, sample) is not None
    if i < 3 or len(sample.operands[0].shape) > 1
]


@pytest.mark.parametrize(("op", "sample"), NAMED)
def test_named_sizes_need_no_special_treatment(op: Op, sample: Sample) -> None:
    found = symbolic(op, sample)
    assert found is not None
    dtype = sample.dtypes[-1]
    inputs, results = found.build(op, dtype)
    compiled = graphc.function(inputs, results)
    names = sorted({str(s) for o in found.operands for s in o.shape})
    rng = np.random.default_rng(1)
    for size in SIZES:
        if size == 0 and isinstance(op.lowering, ArgReduction):
            continue  # there is no largest element of none
        if size == 0 and isinstance(op.lowering, Reduction) and op.name in ("max", "min"):
            continue
        given_ = Sample(found.operands, found.attrs, found.dtypes, dict.fromkeys(names, size))
        indexed = [Operand(o.shape, o.dtype, o.values, o.domain, o.positive, min(o.limit, size)) if o.values == "index"
                   else o for o in given_.operands]  # fmt: skip
        if size == 0 and any(o.values == "index" for o in indexed):
            continue  # no index is in range
        arrays = Sample(tuple(indexed), found.attrs, found.dtypes, given_.dims).draw(dtype, rng, smooth=True)
        feeds = dict(zip([t.ref for t in inputs], arrays, strict=True))
        want = graphc.interpret.evaluate([t.ref for t in results], feeds)
        for got, wanted in zip(compiled(*arrays), want, strict=True):
            assert got.shape == wanted.shape and got.dtype == wanted.dtype
            np.testing.assert_allclose(got, wanted, rtol=1e-5 if got.dtype == np.float32 else 1e-12, atol=1e-5)
    assert compiled.compile_count == 1


def test_sizes_of_a_whole_step_are_free() -> None:
    batch, width = graphc.dim("batch"), graphc.dim("width")
    x, y = placeholder("x", (batch, width)), placeholder("y", (batch,))
    w = placeholder("w", (width, 2 * width))
    hidden = graphc.relu(x @ w)
    loss = graphc.mean(graphc.square(hidden.sum(axis=1) - y))
    outputs: list[Tensor] = [loss, *graphc.grad(loss, [w, x])]
    compiled = graphc.function([x, y, w], outputs)
    for b, n in ((1, 1), (2, 3), (0, 2), (3, 0), (5, 17)):
        arrays = [floats(b, n), floats(b), floats(n, 2 * n)]
        feeds = dict(zip([x.ref, y.ref, w.ref], arrays, strict=True))
        expected = graphc.interpret.evaluate([t.ref for t in outputs], feeds)
        for got, want in zip(compiled(*arrays), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
    assert compiled.compile_count == 1


# sizes that come out negative


def test_a_call_whose_sizes_come_out_negative_is_refused_and_the_function_goes_on() -> None:
    x = placeholder("x", (1, 1, "m", 9))
    y = graphc.nn.functional.conv2d(x, graphc.ones((1, 1, 5, 5)))
    functions = [graphc.function([x], graphc.sum(graphc.tanh(y))), graphc.function([x], y)]
    for f in functions:
        for m in (5, 3, 4, 5, 1, 7):
            image = np.ones((1, 1, m, 9), "float32")
            if m < 4:
                with pytest.raises(
                    ShapeError, match=f"axis 2 of contract would be {m - 4}: it is m-4 with m = {m}"
                ) as e:
                    f(image)
                assert "test_dims.py" in str(e.value) and 'graphc.dim("m", min=...)' in str(e.value)
            else:
                each = np.tanh(25) if f is functions[0] else 25
                assert np.sum(f(image)) == pytest.approx(each * 5 * (m - 4))


def test_windows_that_do_not_fit_are_refused_also_where_a_stride_would_leave_none_of_them() -> None:
    x = placeholder("x", ("n", 1, "m", 9))
    y = graphc.nn.functional.conv2d(x, graphc.ones((1, 1, 5, 5)), stride=3)
    f = graphc.function([x], y[-5:, :, -2::-2])  # its sizes are all 0 with m = 2: (2 - 5)//3 + 1
    with pytest.raises(ShapeError, match=r"axis 2 of contract is \(m-5\)//3\+1, in which m-5 would be -3 with m = 2"):
        f(floats(7, 1, 2, 9))
    assert f(floats(7, 1, 11, 9)).shape == (5, 1, 1, 2)


def test_sizes_that_limits_keep_from_being_negative_are_not_checked_again() -> None:
    free, limited = placeholder("x", ("m", "n")), placeholder("x", (graphc.dim("m", min=3), "n"))

    def checked_sizes(x: Tensor) -> set[str]:
        m = x.shape[0]
        graph = freeze([x], (graphc.ones((m - 3,)), x[::2], graphc.zeros((2 * m + 1, m // 2))), {}, True, None).graph
        return {str(extent.size) for extent in extents(graph)}

    assert checked_sizes(free) == {"m-3"}
    assert checked_sizes(limited) == set()


def test_a_call_without_memory_for_its_result_leaves_the_function_as_it_was() -> None:
    x = placeholder("x", ("n",))
    f = graphc.function([x], graphc.expand_dims(x, 1) + x)
    assert f(np.ones(2, "float32")).shape == (2, 2)
    with pytest.raises(MemoryError, match="no memory for 1125899906842624 bytes"):
        f(np.zeros(1, "float32").repeat(1 << 24))  # a petabyte
    assert f(np.ones(3, "float32")).shape == (3, 3)
