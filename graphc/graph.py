"""The graph: immutable nodes shared by structure, values, and graphs with an order.

A `Node` applies an `Op` to values; a `Value` is (node, index), so an op may have several results. `make_node` is the
only constructor: it runs the op's type rule and returns the node that already exists if there is an equal one.
Where a node came from (source lines, names, the forward node of a gradient) is a side table, `origin_of`, joined when
structure is shared and carried by rewrites through `inherit_origin`. Nothing here recurses over the graph.
To add an op, write an `Op` in `graphc/ops/`; nothing in this file changes.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from graphc.bounds import bounds_of
from graphc.errors import SourceLine
from graphc.types import Dim, DType, TensorType

Attrs = Mapping[str, Any]
Types = tuple[TensorType, ...]


@dataclass(frozen=True, eq=False)
class Op:
    """Everything that graphc knows about one operation. The registry in `graphc.ops` holds one of each.

    type_rule(types, attrs) -> result types; raises ShapeError or DTypeError without lines (make_node adds them).
    reference(arrays, attrs) -> the results as NumPy arrays: the meaning of the op.
    gradient(node, cotangents) -> one Tensor or None for each input (see `graphc.autodiff`); None: no rule.
    lowering: how it becomes loops (see `graphc.ops.lowering`), None for sources and kernels.
    samples() -> arguments that tests, docs and gradient checks run through.
    effect: "none", or "ordered" (linked by a token, a root, never merged, dropped or repeated).
    """

    name: str
    doc: str
    type_rule: Callable[[Types, Attrs], Types]
    reference: Callable[[Sequence[np.ndarray], Attrs], tuple[np.ndarray, ...]] | None = None
    gradient: Callable[[Node, Sequence[Any]], Sequence[Any]] | None = None
    lowering: Any = None
    samples: Callable[[], Iterable[Any]] = tuple
    effect: str = "none"
    unique: bool = False  # every node is an object of its own (placeholders, parameters)
    exempt: Mapping[str, str] = field(default_factory=dict)  # field, or what tests ask -> the reason that there is none
    ulp: Mapping[str, float] = field(default_factory=dict)  # dtype name -> allowed distance from the reference, else 0
    formula: str = ""  # for the reference page: what the result is, in algebra
    nan: str = ""  # what becomes of NaN, where the sentence of its lowering kind (`graphc.ops.registry`) is not true
    example: str = ""  # an expression over `graphc` for the reference page; elementwise ops have one made for them

    def __repr__(self) -> str:
        return f"Op({self.name})"


class Node:
    """One application of an op. Immutable; equal structure is the same object. Build with `make_node`."""

    __slots__ = ("__weakref__", "attrs", "inputs", "op", "origin", "types")

    op: Op
    inputs: tuple[Value, ...]
    attrs: Attrs
    types: Types
    origin: Origin | None  # all but part of the node: what is known of where it came from (`origin_of`, `add_origin`)

    def __init__(self, op: Op, inputs: tuple[Value, ...], attrs: Attrs, types: Types) -> None:
        self.op, self.inputs, self.attrs, self.types, self.origin = op, inputs, attrs, types, None

    @property
    def outputs(self) -> tuple[Value, ...]:
        if len(self.types) == 1:  # nearly always, and asked for all the time
            return (Value(self, 0),)
        return tuple(Value(self, i) for i in range(len(self.types)))

    def __repr__(self) -> str:
        return f"<{self.op.name} {', '.join(map(str, self.types))}>"


class Value(NamedTuple):
    """One result of a node."""

    node: Node
    index: int = 0  # type: ignore[assignment]  # hides tuple.index, which says nothing about a value

    @property
    def type(self) -> TensorType:
        return self.node.types[self.index]

    @property
    def op(self) -> Op:
        return self.node.op


_interned: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()


RECOMPUTED = "recomputed"  # attribute of a node that computes again what `checkpoint` does not keep: how many times
_recomputing: contextvars.ContextVar[int] = contextvars.ContextVar("recomputing", default=0)


class ConstantData:
    """The array of a constant: read-only, compared by dtype, shape and bytes (0.0 is not -0.0)."""

    __slots__ = ("_digest", "_key", "array")

    def __init__(self, array: np.ndarray) -> None:
        copy = np.array(array, order="C", copy=True)
        copy.flags.writeable = False
        self.array = copy
        self._key = (DType.of(copy.dtype).name, copy.shape, copy.tobytes())
        self._digest: str | None = None

    @property
    def digest(self) -> str:
        """128 bits of the SHA-256 of dtype, shape and bytes, in hex. Computed once."""
        if self._digest is None:
            name, shape, data = self._key
            self._digest = hashlib.sha256(f"{name}{list(shape)}".encode() + data).hexdigest()[:32]
        return self._digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConstantData) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"ConstantData({self.array.dtype.name}{list(self.array.shape)})"


def attr_key(value: Any) -> Any:
    """A hashable key under which two attribute values are the same: 1 is not True, 0.0 is not -0.0, nan is nan."""
    if type(value) is int or type(value) is str:  # nearly always
        return value
    if isinstance(value, (tuple, list)):
        return ("tuple", *map(attr_key, value))
    if isinstance(value, float):
        return ("float", value.hex())
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, Graph):
        return ("graph", id(value))
    if isinstance(value, Dim) and (limits := bounds_of([(value,)])):
        return ("size", value, tuple(sorted(limits.items(), key=lambda item: item[0])))
    return value


def make_node(op: Op, inputs: Sequence[Value], attrs: Attrs | None = None, origin: Origin | None = None) -> Node:
    """The node that applies `op`, new or shared. Its origin is `origin` joined with the inherited one.

    Raises what the op's type rule raises, with the source line added.
    """
    attrs = {} if attrs is None else dict(attrs)
    level = _recomputing.get()
    if level and any(v.node.inputs or v.node.op.unique for v in inputs):
        attrs.setdefault(RECOMPUTED, level)
    origin = joined(origin, _inherited.get())
    operands = tuple(inputs)
    key = None if op.unique else _key(op, operands, attrs)
    node = None if key is None else _interned.get(key)
    if node is None:
        try:
            types = op.type_rule(tuple(v.type for v in operands), attrs)
        except Exception as error:
            raise with_lines(error, op, operands, origin) from None
        node = Node(op, operands, attrs, types)
        if not op.unique:
            assert key is not None, f"{op.name} takes an attribute that has no hash"
            _interned[key] = node
    if origin is not None:
        add_origin(node, origin)
    return node


def _key(op: Op, operands: tuple[Value, ...], attrs: Attrs) -> tuple[Any, ...] | None:
    """What makes nodes one node (types follow from it); None for an attribute that the type rule has yet to refuse."""
    parts = [op.name, *((id(v.node), v.index) for v in operands)]
    try:
        key = (*parts, *((name, attr_key(attrs[name])) for name in sorted(attrs)))
        hash(key)
    except TypeError:
        return None
    return key


def with_lines(error: Exception, op: Op, inputs: Sequence[Value], origin: Origin | None) -> Exception:
    """`error` of a type rule as the user should see it: the op's name first, the source line behind it."""
    from graphc.errors import GraphcError

    if not isinstance(error, GraphcError) or error.lines:
        return error
    names = [describe(v) for v in inputs]
    message = error.message.format(*names) if "{" in error.message else error.message
    return type(error)(f"{op.name}: {message}", origin.lines[:1] if origin else (), error.hint)


def describe(value: Value) -> str:
    """A value as an error names it: `x` if it has a name, else `result of matmul`."""
    origin = origin_of(value.node)
    if "name" in value.node.attrs:
        return str(value.node.attrs["name"])
    return origin.name if origin and origin.name else f"result of {value.op.name}"


def shown(thing: object) -> str:
    """What was given, as an error names it: `x (f32[3])` for a tensor, else its repr if short, or its Python type."""
    value = getattr(thing, "ref", None)
    if isinstance(value, Value):
        return f"{describe(value)} ({value.type})"
    text = repr(thing)
    return text if len(text) <= 40 and "\n" not in text and " at 0x" not in text else f"a {type(thing).__name__}"


@dataclass(frozen=True)
class Origin:
    """Where a node came from: the source lines that built it, a name, and for gradients the forward node.

    Of a node that many share, the first `_MOST` lines and forward nodes.
    """

    lines: tuple[SourceLine, ...] = ()
    name: str | None = None
    gradient_of: tuple[Node, ...] = ()


_inherited: contextvars.ContextVar[Origin | None] = contextvars.ContextVar("inherited_origin", default=None)


def origin_of(node: Node) -> Origin | None:
    return node.origin


def add_origin(node: Node, origin: Origin) -> None:
    """Join `origin` to what is known of where `node` came from."""
    node.origin = joined(node.origin, origin)


def joined(a: Origin | None, b: Origin | None) -> Origin | None:
    if a is None or b is None or a == b:
        return a if b is None else b
    return Origin(_union(a.lines, b.lines), a.name or b.name, _union(a.gradient_of, b.gradient_of))


_MOST = 16  # lines and forward nodes that a node remembers: thousands may share a constant


def _union(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(a) >= _MOST:
        return a
    return (a + tuple(item for item in b if item not in a))[:_MOST]


@contextlib.contextmanager
def inherit_origin(*nodes: Node, gradient: bool = False) -> Iterator[None]:
    """Nodes made inside carry the origins of `nodes`; with `gradient`, also `nodes` as their forward nodes."""
    origin: Origin | None = None
    for node in nodes:
        origin = joined(origin, node.origin)
    if gradient:
        origin = Origin(origin.lines if origin else (), None, nodes)
    reset = _inherited.set(origin)
    try:
        yield
    finally:
        _inherited.reset(reset)


def inheriting() -> bool:
    """Whether a rewrite or a gradient rule is building nodes (their origin is inherited, not the caller's line)."""
    return _inherited.get() is not None


@dataclass(frozen=True, eq=False)
class Graph:
    """A function of values: `inputs` (placeholders and parameters), `outputs`, and updates of parameters.

    The last `len(updates)` outputs are the next values of the parameters in `updates`.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    updates: tuple[Value, ...] = ()
    name: str = "graph"

    @property
    def results(self) -> tuple[Value, ...]:
        """The outputs that are not updates."""
        return self.outputs[: len(self.outputs) - len(self.updates)]

    def order(self) -> list[Node]:
        """All nodes that the outputs need, inputs first, in a deterministic topological order."""
        return list(self._order)

    @cached_property
    def _order(self) -> list[Node]:
        return topological_order([v.node for v in (*self.inputs, *self.outputs)])

    @cached_property
    def derived(self) -> dict[str, Any]:
        """What has been worked out from the graph (its shape as a kernel), kept as long as it: many passes ask."""
        return {}

    def users(self) -> dict[Value, list[Node]]:
        """The nodes that read each value, in order."""
        readers: dict[Value, list[Node]] = {}
        for node in self.order():
            for value in dict.fromkeys(node.inputs):
                readers.setdefault(value, []).append(node)
        return readers

    def with_outputs(self, outputs: Iterable[Value]) -> Graph:
        return Graph(self.inputs, tuple(outputs), self.updates, self.name)

    def rewrite(self, visit: Callable[[Node, tuple[Value, ...]], Sequence[Value] | None]) -> Graph:
        """The graph after `visit(node, new inputs)` replaced nodes, in order.

        `visit` returns the values that stand for the node's results, or None to keep the node (rebuilt over its new
        inputs). Nodes made inside carry the origin of the node that they replace, and are recomputed if it is.
        """
        mapping: dict[Value, Value] = {}
        before = _inherited.set(None), _recomputing.set(0)  # once for all nodes: this loop runs for every pass
        try:
            for node in self.order():
                inputs = node.inputs
                if mapping and any(v in mapping for v in inputs):
                    inputs = tuple(mapping.get(v, v) for v in inputs)
                _inherited.set(node.origin)
                _recomputing.set(node.attrs.get(RECOMPUTED, 0))
                new = visit(node, inputs)
                if new is None and inputs is not node.inputs:
                    new = make_node(node.op, inputs, node.attrs).outputs
                if new is not None:
                    mapping.update((a, b) for a, b in zip(node.outputs, new, strict=True) if a != b)
        finally:
            _inherited.reset(before[0])
            _recomputing.reset(before[1])
        return self.with_outputs(mapping.get(v, v) for v in self.outputs) if mapping else self

    def replace(self, mapping: Mapping[Value, Value]) -> Graph:
        """The graph with every use of a key replaced by its value (all at once; new values are not rewritten again)."""

        def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
            if not any(v in mapping for v in node.outputs):
                return None
            old = node if inputs == node.inputs else make_node(node.op, inputs, node.attrs)
            return [mapping.get(v, new) for v, new in zip(node.outputs, old.outputs, strict=True)]

        return self.rewrite(visit)


def topological_order(roots: Iterable[Node]) -> list[Node]:
    """`roots` and everything below them, inputs before users, without recursion."""
    done: dict[Node, None] = {}
    for root in roots:
        stack = [root]
        while stack:
            node = stack[-1]
            if node in done:
                stack.pop()
                continue
            missing = [v.node for v in node.inputs if v.node not in done]
            if missing:
                stack.extend(reversed(missing))
            else:
                done[node] = None
                stack.pop()
    return list(done)
