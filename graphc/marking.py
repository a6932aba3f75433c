"""`checkpoint` and `custom_vjp`, with JAX's signatures: functions that differentiation treats in a way of their own.

Both trace the function they are given and put a mark behind its results (`graphc.ops.marks`): the value is computed as
ever, the gradient rule of the mark does what was asked for. So they work in graph form, inside of traced functions and
at any order of derivatives. Enter at either.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply, lines_of
from graphc.errors import ArgumentError, GradientError
from graphc.graph import Graph, Node, Value, describe, make_node, origin_of, topological_order
from graphc.nest import leaves, rebuilt, structure
from graphc.ops.marks import between
from graphc.ops.operands import as_tensor
from graphc.transforms import Arguments, Function, tensors_in, unknown


def checkpoint(
    f: Function,
    *,
    prevent_cse: bool = True,
    policy: Callable[[Node], bool] | None = None,
    static_argnums: int | Sequence[int] = (),
) -> Function:
    """`f`, of whose inner values nothing is kept for the gradient: the backward pass computes them again.

    Values and gradients have the same bits as those of f; a step needs less memory and more time. Tensors that f uses
    from outside count as its inputs. policy(node) says of a node inside whether its results are kept all the same
    (`lambda node: node.op.name == "matmul"`; JAX passes a primitive). prevent_cse=False allows passes to merge what is
    computed again with the first computation. static_argnums: positions of arguments that are handed on as they are.
    """

    @functools.wraps(f)
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        fixed = _positions("checkpoint", static_argnums, len(args))
        given = Arguments(([None if i in fixed else arg for i, arg in enumerate(args)], kwargs))
        marked = rebuilt(given.args, [_input(leaf) for leaf in leaves(given.args)])
        positional = [args[i] if i in fixed else arg for i, arg in enumerate(marked[0])]
        result = tensors_in(f(*positional, **marked[1]))
        results = [leaf.ref for leaf in leaves(result) if isinstance(leaf, Tensor)]
        inputs = [leaf.ref for leaf in leaves(marked) if isinstance(leaf, Tensor)]
        if not prevent_cse or not results:
            return given.settled(result)
        results, outside = _with_outside(results, inputs)
        inputs += outside
        kept = _kept(results, inputs, policy)
        operands = [Tensor(v) for v in (*results, *kept, *inputs)]
        made = apply("checkpoint", *operands, outputs=len(results), kept=len(kept))
        values = iter(made if isinstance(made, tuple) else (made,))
        marked_results = [next(values) if isinstance(leaf, Tensor) else leaf for leaf in leaves(result)]
        return given.settled(rebuilt(result, marked_results))

    return checkpointed


def _input(leaf: Any) -> Any:
    return apply("checkpoint_input", leaf) if isinstance(leaf, Tensor) else leaf


def _positions(name: str, argnums: int | Sequence[int], count: int) -> set[int]:
    chosen = [argnums] if isinstance(argnums, int) else list(argnums)
    for position in chosen:
        if not -count <= position < count:
            raise ArgumentError(f"{name}: there is no argument {position}: it was called with {count}")
    return {position % count for position in chosen}


def _with_outside(results: Sequence[Value], inputs: Sequence[Value]) -> tuple[list[Value], list[Value]]:
    """The results over marked inputs in place of what they read from outside, and those inputs."""
    inside = between(results, inputs)
    own = {*inputs, *(v for node in inside for v in node.outputs)}
    read = dict.fromkeys(v for node in inside for v in node.inputs if v not in own)
    outside = [v for v in read if any(n.op.unique for n in topological_order([v.node]))]
    marked = {v: cast(Tensor, apply("checkpoint_input", Tensor(v))).ref for v in outside}
    if not marked:
        return list(results), []
    again: dict[Value, Value] = dict(marked)
    for node in inside:
        if any(v in again for v in node.inputs):
            copy = make_node(node.op, [again.get(v, v) for v in node.inputs], node.attrs, origin_of(node))
            again.update(zip(node.outputs, copy.outputs, strict=True))
    return [again.get(v, v) if v not in marked else v for v in results], list(marked.values())


def _kept(results: Sequence[Value], inputs: Sequence[Value], policy: Callable[[Node], bool] | None) -> list[Value]:
    if policy is None:
        return []
    return [v for node in between(results, inputs) if policy(node) for v in node.outputs]


_tracing: contextvars.ContextVar[frozenset[Any]] = contextvars.ContextVar("tracing", default=frozenset())


class custom_vjp:  # JAX's name, used as a decorator
    """A function with a gradient of its own, as in JAX.

        @graphc.custom_vjp
        def f(x, y): ...
        def forward(x, y): return f(x, y), (x, y)          # the result, and what backward wants of it
        def backward(residuals, g): return gx, gy          # a cotangent for each argument; None: nothing flows
        f.defvjp(forward, backward)

    Arguments are nests of tensors or arrays; `g` has the nest of the result. Those of `nondiff_argnums` are handed to
    f and forward as they are and come first in the call of backward. Both are traced once a call, with placeholders,
    and may use no tensor from outside; f inside of its own fwd is the plain function. Forward mode and higher orders
    go through backward: forward mode needs it to be linear in g.
    """

    def __init__(self, fun: Function, nondiff_argnums: int | Sequence[int] = ()) -> None:
        functools.update_wrapper(self, fun)
        self.fun, self.nondiff_argnums = fun, nondiff_argnums
        self.forward: Function | None = None
        self.backward: Function | None = None
        self.name = getattr(fun, "__name__", "f")

    def defvjp(self, fwd: Function, bwd: Function) -> None:
        """Say the gradient: fwd(*args) gives (result, residuals), bwd(residuals, g) the cotangents of the arguments."""
        self.forward, self.backward = fwd, bwd

    def __call__(self, *args: Any) -> Any:
        if self.forward is None or self.backward is None:
            hint = f"call {self.name}.defvjp(fwd, bwd)"
            raise ArgumentError(f"custom_vjp: {self.name} has no gradient yet", hint=hint)
        if self in _tracing.get():  # fwd calls the function for its result
            return self.fun(*args)
        fixed = _positions("custom_vjp", self.nondiff_argnums, len(args))
        given = Arguments([None if i in fixed else arg for i, arg in enumerate(args)])
        nest = rebuilt(given.args, [_tensor(leaf) for leaf in leaves(given.args)])
        plain = [args[i] for i in sorted(fixed)]
        result = tensors_in(self.fun(*_merged(args, nest, fixed)))
        inputs = [leaf for leaf in leaves(nest) if isinstance(leaf, Tensor)]
        results = [leaf for leaf in leaves(result) if isinstance(leaf, Tensor)]
        backward, flows = self._traced(args, nest, fixed, plain, result)
        made = apply(
            "custom_vjp", *results, *inputs, outputs=len(results), backward=backward, flows=flows, name=self.name
        )
        values = iter(made if isinstance(made, tuple) else (made,))
        marked = [next(values) if isinstance(leaf, Tensor) else leaf for leaf in leaves(result)]
        return given.settled(rebuilt(result, marked))

    def _traced(
        self, args: Sequence[Any], nest: Any, fixed: set[int], plain: list[Any], result: Any
    ) -> tuple[Graph, tuple[int, ...]]:
        """The graph of the cotangents, of the inputs and those of the results; its output for each input, or -1."""
        assert self.forward is not None and self.backward is not None
        new = rebuilt(nest, [unknown(leaf.type) if isinstance(leaf, Tensor) else leaf for leaf in leaves(nest)])
        reset = _tracing.set(_tracing.get() | {self})
        try:
            pair = self.forward(*_merged(args, new, fixed))
        finally:
            _tracing.reset(reset)
        if not isinstance(pair, tuple) or len(pair) != 2:
            kind = type(pair).__name__
            raise ArgumentError(f"custom_vjp: fwd of {self.name} returns (result, residuals), not {kind}")
        value, residuals = tensors_in(pair[0]), pair[1]
        self._like("fwd gives the result", value, result)
        cotangents = rebuilt(result, [_cotangent(leaf) for leaf in leaves(result)])
        found = self.backward(*plain, residuals, cotangents)
        wanted = [arg for i, arg in enumerate(new) if i not in fixed]
        if not isinstance(found, (tuple, list)) or len(found) != len(wanted):
            count = len(found) if isinstance(found, (tuple, list)) else type(found).__name__
            message = f"custom_vjp: bwd of {self.name} returns a tuple of {len(wanted)} cotangents, not {count}"
            raise ArgumentError(message)
        flows: list[int] = []
        outputs: list[Value] = []
        for number, (part, argument) in enumerate(zip(found, wanted, strict=True)):
            for tensor, leaf in zip(self._parts(number, part, argument), leaves(argument), strict=True):
                if isinstance(leaf, Tensor):
                    flows.append(-1 if tensor is None else len(outputs))
                    outputs += [] if tensor is None else [tensor.ref]
        inputs = [leaf.ref for leaf in leaves(new) if isinstance(leaf, Tensor)]
        inputs += [leaf.ref for leaf in leaves(cotangents) if isinstance(leaf, Tensor) and leaf.dtype.is_float]
        self._check_closed(outputs, inputs)
        return Graph(tuple(inputs), tuple(outputs), (), self.name), tuple(flows)

    def _parts(self, number: int, part: Any, argument: Any) -> list[Tensor | None]:
        """The cotangents of one argument, one for each of its leaves."""
        wanted = leaves(argument)
        if part is None:
            return [None] * len(wanted)
        found = [leaf if leaf is None else as_tensor(leaf) for leaf in leaves(part)]
        if len(found) != len(wanted):
            message = f"argument {number} has {len(wanted)} leaves, its cotangent {len(found)}"
            raise ArgumentError(f"custom_vjp: bwd of {self.name}: {message}")
        for tensor, leaf in zip(found, wanted, strict=True):
            if tensor is not None and (not isinstance(leaf, Tensor) or tensor.type != leaf.type):
                kind = leaf.type if isinstance(leaf, Tensor) else type(leaf).__name__
                message = f"custom_vjp: bwd of {self.name}: argument {number} is {kind}, its cotangent {tensor.type}"
                raise GradientError(message, lines_of(tensor), "a cotangent has the type of its argument")
        return [t if isinstance(leaf, Tensor) and leaf.dtype.is_float else None for t, leaf in zip(found, wanted)]

    def _like(self, what: str, nest: Any, wanted: Any) -> None:
        types = [[leaf.type for leaf in leaves(n) if isinstance(leaf, Tensor)] for n in (nest, wanted)]
        if structure(nest) != structure(wanted) or types[0] != types[1]:
            given, right = (", ".join(map(str, t)) or "nothing" for t in types)
            raise ArgumentError(f"custom_vjp: of {self.name}, {what} {given}, the function itself {right}")

    def _check_closed(self, outputs: Sequence[Value], inputs: Sequence[Value]) -> None:
        for node in topological_order([v.node for v in outputs]):
            if node.op.unique and Value(node) not in inputs:
                message = f"custom_vjp: fwd or bwd of {self.name} uses {describe(Value(node))} from outside"
                raise ArgumentError(message, lines_of(Tensor(Value(node))), "make it an argument")


def _merged(args: Sequence[Any], tensors: Sequence[Any], fixed: set[int]) -> list[Any]:
    return [args[i] if i in fixed else tensor for i, tensor in enumerate(tensors)]


def _tensor(leaf: Any) -> Any:
    return as_tensor(leaf) if isinstance(leaf, (Tensor, bool, int, float, np.ndarray, np.generic)) else leaf


def _cotangent(leaf: Any) -> Any:
    return unknown(leaf.type) if isinstance(leaf, Tensor) else leaf
