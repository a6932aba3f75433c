"""How a compiled random graph is compared: with the interpreter, for threads, and for every layout of its arguments.

`compare` is the oracle. Where no op rounds in an unspecified way, results are the interpreter's to the bit. Otherwise
the error is *measured*: the interpreter runs again several times, with every such op disturbed by 1024 times the
rounding of its dtype, and a result may differ by as much as those runs do (where a comparison or a maximum flips under
that disturbance, nothing can be said, and nothing is).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import graphc
from graphc import interpret
from graphc.build import Parameter, Tensor, apply
from graphc.graph import Graph, Node, Value, topological_order
from graphc.ops.lowering import Contraction, Reduction, ScatterAdd
from graphc.stabilize import stabilize
from graphc.types import DType, bool_, evaluate
from tests.random_graphs import Drawing

FUNCTIONS = {"exp", "expm1", "log", "log1p", "tanh", "sigmoid", "softplus", "power"}
ROUNDED = {"add", "subtract", "multiply", "divide", "sqrt", "cast", "remainder", "floor_divide"}
DISTURBANCE = 1024  # roundings, of what rounds differently
ROUNDINGS = 4  # of what rounds the same way, but works on such results: their own error may cancel, this does not
SEEDS = (5, 6, 7)  # of the disturbed runs

Arrays = Mapping[Value, np.ndarray]


def rounds(node: Node) -> bool:
    """Whether the bits of a node's result are not fixed: sums in some order, functions within a few ULP."""
    if not node.types[0].dtype.is_float:
        return False
    if isinstance(node.op.lowering, (Contraction, ScatterAdd)) or node.op.name in FUNCTIONS:
        return True
    return isinstance(node.op.lowering, Reduction) and node.op.name in ("sum", "prod")


def disturbed(array: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """`array` with every element off by up to `size` roundings, half of them up; the other half with -size."""
    if array.dtype.kind != "f" or not size:
        return array
    info = np.finfo(array.dtype)
    noise = np.abs(array) * (size * info.eps) + np.sign(size) * 4 * info.smallest_subnormal
    share = rng.choice([-1, 1], array.shape) * rng.uniform(0.5, 1, array.shape)  # two rarely cancel
    return np.asarray(array + (share * noise).astype(array.dtype), array.dtype)


def disturbed_run(outputs: Sequence[Value], feeds: Arrays, seed: int, sign: int) -> list[np.ndarray]:
    """The interpreter with the results of all that rounds, and the operands of every sum, disturbed."""
    dims, rng = interpret.bind_dims(feeds), np.random.default_rng(seed)
    values: dict[Value, np.ndarray] = dict(feeds)
    reached: set[Value] = set()  # values that a rounding node bears on
    with np.errstate(all="ignore"):
        for node in topological_order([v.node for v in outputs]):
            if Value(node) in values:
                continue
            operands = [values[v] for v in node.inputs]
            size = DISTURBANCE if rounds(node) else ROUNDINGS if node.op.name in ROUNDED else 0
            if rounds(node) and node.op.name not in FUNCTIONS:  # the error of a sum is relative to its terms too
                operands = [disturbed(a, rng, sign * size) for a in operands]
            assert node.op.reference is not None
            results = list(node.op.reference(operands, interpret.concrete(node.attrs, dims)))
            if rounds(node) or any(v in reached for v in node.inputs):
                reached.update(node.outputs)
                results = [disturbed(a, rng, sign * size) for a in results]
            values.update(zip(node.outputs, results, strict=True))
    return [values[v] for v in outputs]


def compare(outputs: Sequence[Value], feeds: Arrays, actual: Sequence[np.ndarray], whole: bool) -> None:
    """AssertionError where a result is not the interpreter's. `whole`: sums are exact, so nothing may differ."""
    outputs = stabilize(Graph((), tuple(outputs))).outputs
    wanted = interpret.evaluate(outputs, feeds)
    nodes = topological_order([v.node for v in outputs])
    runs: list[list[np.ndarray]] = []
    if any(rounds(node) for node in nodes) and not whole:
        runs = [disturbed_run(outputs, feeds, seed, sign) for seed in SEEDS for sign in (1, -1)]  # both sides of a step
    for position, (value, got, want) in enumerate(zip(outputs, actual, wanted, strict=True)):
        assert got.dtype == want.dtype and got.shape == want.shape, (position, value.type)
        if not runs:
            np.testing.assert_array_equal(got, want, err_msg=f"output {position}: {value.type}")
            continue
        within(got, want, [run[position] for run in runs], f"output {position}: {value.type}")


def within(got: np.ndarray, want: np.ndarray, runs: Sequence[np.ndarray], what: str) -> None:
    """Each element as near to `want` as the disturbed runs are."""
    with np.errstate(all="ignore"):
        kind: Any = np.float64 if want.dtype.kind == "f" else np.longdouble
        exact = want.astype(kind)
        spread = np.max([np.abs(run.astype(kind) - exact) for run in runs], axis=0)
        far = np.abs(got.astype(kind) - exact) > spread
        same_kind = np.isfinite(got) == np.isfinite(want)
    known = np.isfinite(spread) & np.isfinite(exact)
    # not finite in any run: it is the same infinity or nan
    settled = np.all([_same(run, want) for run in runs], axis=0) & ~np.isfinite(exact)
    bad = (known & (far | ~same_kind)) | (settled & ~_same(got, want))
    assert not bad.any(), (
        f"{what}: {got[bad][:4]} instead of {want[bad][:4]} (+- {spread[bad][:4]}), {bad.sum()} of {bad.size}"
    )


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((a == b) | ((a != a) & (b != b)))


def add_gradients(drawing: Drawing) -> None:
    """The gradient of a scalar of every float output, with respect to some float sources, as further outputs."""
    floats = [t for t in drawing.outputs if t.dtype.is_float]
    wrt = [s.tensor for s in drawing.sources if s.tensor.dtype.is_float]
    if floats and wrt:
        loss = apply("stop_gradient", graphc.constant(np.float64(0)))
        for t in floats:
            loss = loss + (graphc.tanh(t) if drawing.mode == "real" else t).astype("float64").sum()
        drawing.outputs = [*drawing.outputs, *graphc.grad(loss, wrt, unused="zero")]


def arrays_of(drawing: Drawing, call: int, rng: np.random.Generator) -> Mapping[Value, np.ndarray]:
    """An array for every source, with the sizes of one of the two calls."""
    dims = drawing.dims[call]
    made: dict[Value, np.ndarray] = {}
    for source in drawing.sources:
        type_ = source.tensor.type
        shape = tuple(evaluate(n, dims) for n in type_.shape)
        if source.limit is not None:
            limit = min(evaluate(source.limit, dims), int(np.iinfo(type_.dtype.numpy).max))
            made[source.tensor.ref] = rng.integers(0, max(limit, 1), shape).astype(type_.dtype.numpy)
        else:
            made[source.tensor.ref] = _data(drawing.mode, type_.dtype, shape, rng)
    return made


def _data(mode: str, dtype: DType, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if dtype is bool_:
        return rng.integers(0, 2, shape).astype(bool)
    whole = rng.integers(0 if dtype.kind == "u" else -4, 5, shape).astype(dtype.numpy)
    if mode == "whole" or (dtype.is_integer and mode == "real"):
        return whole
    if dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        special: list[Any] = [limits.min, limits.max, 0, 1]
    else:
        info = np.finfo(dtype.numpy)
        whole = rng.standard_normal(shape).astype(dtype.numpy)
        special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, info.smallest_subnormal, info.max, info.min]
    if mode == "real":
        return whole
    return np.where(rng.random(shape) < 0.3, rng.choice(np.array(special, dtype.numpy), shape), whole)


def laid_out(array: np.ndarray, how: int) -> np.ndarray:
    """The same values in other memory: column-major, reversed, every second element, off by one element."""
    if how == 1 and array.ndim:
        return np.asfortranarray(array)
    if how == 2 and array.ndim:
        return np.ascontiguousarray(array[::-1])[::-1]
    if how == 3 and array.ndim:
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if how == 4:
        room = np.zeros(array.size + 1, array.dtype)
        room[1:] = array.ravel()
        return room[1:].reshape(array.shape)
    return array


class Compiled:
    """A compiled drawing and its calls."""

    def __init__(self, drawing: Drawing, disable: Sequence[str] = ()) -> None:
        self.drawing = drawing
        tensors = [s.tensor for s in drawing.sources]
        self.inputs = [t for t in tensors if not isinstance(t, Parameter)]
        self.parameters = [t for t in tensors if isinstance(t, Parameter)]
        with graphc.config(verify=True, cache=False, disable=tuple(disable)):
            self.function = graphc.function(self.inputs, list(drawing.outputs), updates=drawing.updates)

    def call(self, arrays: Arrays, threads: int = 1, layout: int = 0) -> list[np.ndarray]:
        """The outputs, then the parameters as the call left them."""
        for p in self.parameters:
            p.value = arrays[p.ref]
        with graphc.config(num_threads=threads):
            results = self.function(*(laid_out(arrays[x.ref], layout) for x in self.inputs), out=self._stale(arrays))
        return [*map(np.asarray, results), *(np.array(p.value) for p in self.parameters)]

    def _stale(self, arrays: Arrays) -> list[np.ndarray]:
        """Memory for the results that holds no right element, as new memory often does."""
        dims = interpret.bind_dims(arrays)
        made = []
        for tensor in self.drawing.outputs:
            shape, dtype = tuple(evaluate(n, dims) for n in tensor.shape), tensor.dtype.numpy
            count = int(np.prod(shape, dtype=np.int64))
            made.append(np.frombuffer(bytearray(b"\xa5" * (count * dtype.itemsize)), dtype).reshape(shape))
        return made

    @property
    def wanted(self) -> list[Value]:
        """What `call` computes."""
        new = [self.drawing.updates.get(p, p) for p in self.parameters]
        return [t.ref for t in (*self.drawing.outputs, *new)]


def check(drawing: Drawing, disable: Sequence[str] = (), exact: bool = True) -> None:
    """Both calls of a drawing against the interpreter, on one and three threads, in another layout."""
    compiled = Compiled(drawing, disable)
    rng = np.random.default_rng(11)
    for call in range(2):
        arrays = arrays_of(drawing, call, rng)
        given = {ref: array.copy() for ref, array in arrays.items()}
        results = compiled.call(arrays)
        compare(compiled.wanted, arrays, results, exact and drawing.mode == "whole")
        for threads, layout in ((3, 0), (1, 1 + (call + len(drawing.pool)) % 4)):
            again = compiled.call(arrays, threads, layout)
            for a, b in zip(results, again, strict=True):
                assert a.tobytes() == b.tobytes(), f"other bits with {threads} threads in layout {layout}"
        for ref, array in arrays.items():
            assert array.tobytes() == given[ref].tobytes(), "an argument was written"


def describe(drawing: Drawing) -> Any:
    """What the drawing is, for a failing seed."""
    from graphc.text import to_text

    values: list[Tensor] = [*drawing.outputs, *drawing.updates.values()]
    return to_text(
        Graph(
            tuple(s.tensor.ref for s in drawing.sources),
            tuple(t.ref for t in values),
            tuple(p.ref for p in drawing.updates),
        )
    )
