"""Transforms as users call them: each dispatches on its first argument.

Tensors: the graph form of `graphc.autodiff` and `graphc.jacobians`. A callable: JAX's signature, which gives a callable
(`grad(f)(w, x)`) or calls at once (`vjp(f, *primals)`, `jvp(f, primals, tangents)`). A transformed function takes nests
of arrays or of tensors: tensors in, tensors out (so transforms nest, and may stand inside of a graph); arrays in,
arrays out, computed by the interpreter: nothing is compiled before somebody asks for it with `jit` (`graphc.tracing`).

A transform traces f with new placeholders in place of what it differentiates, so that nothing else that happens to
depend on the same tensors is taken for it, then puts the real tensors back. Enter at `Arguments` and any transform.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np

from graphc import autodiff, jacobians
from graphc.batching import batched
from graphc.build import Tensor, apply, constant
from graphc.conversion import cast_array
from graphc.errors import ArgumentError
from graphc.graph import Graph, Value, topological_order
from graphc.interpret import evaluate
from graphc.nest import leaves, rebuilt
from graphc.ops.movement import permute_dims
from graphc.ops.operands import as_tensor
from graphc.types import DType, Size, TensorType

Function = Callable[..., Any]
_NUMBERS = (bool, int, float, np.ndarray, np.generic)


class Arguments:
    """The arguments of one call of a transformed function, with tensors in place of its arrays.

    `settled` turns a nest of results into what the caller gets: arrays, unless there was a tensor among the arguments
    or the results need a placeholder from outside (the function used one, or is traced inside of another transform).
    """

    def __init__(self, args: Any) -> None:
        self.symbolic = any(isinstance(leaf, Tensor) for leaf in leaves(args))
        self.feeds: dict[Value, np.ndarray] = {}
        self.args = args if self.symbolic else self.entered(args)

    def entered(self, nest: Any) -> Any:
        """`nest` with placeholders for its arrays, whose values are kept."""
        return rebuilt(nest, [self._placeholder(leaf) for leaf in leaves(nest)])

    def _placeholder(self, leaf: Any) -> Any:
        if not isinstance(leaf, (np.ndarray, np.generic)):
            return leaf
        array = np.asarray(leaf)
        tensor = unknown(as_tensor(array).type if array.ndim == 0 else TensorType(DType.of(array.dtype), array.shape))
        self.feeds[tensor.ref] = cast_array(array, tensor.dtype)
        return tensor

    def settled(self, nest: Any) -> Any:
        found = leaves(nest)
        if self.symbolic:
            return nest
        tensors = [leaf for leaf in found if isinstance(leaf, Tensor)]
        needed = topological_order([t.ref.node for t in tensors])
        if any(n.op.name == "placeholder" and Value(n) not in self.feeds for n in needed):
            return _put_back(nest, {value: constant(array).ref for value, array in self.feeds.items()})
        values = iter(evaluate([t.ref for t in tensors], self.feeds))
        return rebuilt(nest, [next(values) if isinstance(leaf, Tensor) else leaf for leaf in found])


def unknown(type_: TensorType) -> Tensor:
    made: Tensor = apply("placeholder", name="argument", type=type_)
    return made


def _independent(nest: Any) -> tuple[Any, dict[Value, Value]]:
    """`nest` with a new placeholder for each tensor or number, and what each of them stands for."""
    given = [as_tensor(leaf) if isinstance(leaf, (Tensor, *_NUMBERS)) else leaf for leaf in leaves(nest)]
    new = [unknown(leaf.type) if isinstance(leaf, Tensor) else leaf for leaf in given]
    stands_for = {n.ref: g.ref for n, g in zip(new, given, strict=True) if isinstance(n, Tensor)}
    return rebuilt(nest, new), stands_for


def _put_back(nest: Any, stands_for: Mapping[Value, Value]) -> Any:
    """`nest` with each placeholder replaced by what it stands for."""
    found = leaves(nest)
    tensors = [leaf.ref for leaf in found if isinstance(leaf, Tensor)]
    new = iter(Graph((), tuple(tensors)).replace(stands_for).outputs)
    return rebuilt(nest, [Tensor(next(new)) if isinstance(leaf, Tensor) else leaf for leaf in found])


def tensors_in(nest: Any) -> Any:
    """`nest` with numbers and arrays as constants: a function may return them."""
    return rebuilt(nest, [as_tensor(leaf) if isinstance(leaf, _NUMBERS) else leaf for leaf in leaves(nest)])


def _derived(
    name: str, f: Function, argnums: int | Sequence[int], has_aux: bool, derive: Function, value: bool = False
) -> Function:
    """The function that gives derive(f's result, chosen arguments), with f's value and its further results if asked."""

    @functools.wraps(f)
    def transformed(*args: Any, **kwargs: Any) -> Any:
        given = Arguments((args, kwargs))
        positional, named = list(given.args[0]), given.args[1]
        chosen = [argnums] if isinstance(argnums, int) else list(argnums)
        for position in chosen:
            if not -len(args) <= position < len(args):
                raise ArgumentError(f"{name}: argnums has {position}, but there are {len(args)} positional arguments")
        wrt, stands_for = _independent([positional[i] for i in chosen])
        for position, argument in zip(chosen, wrt, strict=True):
            positional[position] = argument
        result, aux = _with_aux(name, f(*positional, **named), has_aux)
        derivative = derive(tensors_in(result), wrt[0] if isinstance(argnums, int) else tuple(wrt))
        parts: Any = ((result, aux) if has_aux else result, derivative) if value else derivative
        if has_aux and not value:
            parts = (derivative, aux)
        return given.settled(_put_back(parts, stands_for))

    return transformed


def _with_aux(name: str, result: Any, has_aux: bool) -> tuple[Any, Any]:
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise ArgumentError(f"{name}: with has_aux=True the function returns (value, aux), not {type(result).__name__}")
    return result


@overload
def grad(loss: Tensor, wrt: Any, *, unused: str = "error") -> Any: ...
@overload
def grad(loss: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function: ...
def grad(loss: Any, *args: Any, **kwargs: Any) -> Any:
    """`grad(loss, wrt)`: the gradient of a scalar tensor, in the nest of `wrt` (see `graphc.autodiff.grad`).

    `grad(f, argnums=0, has_aux=False)`: the function that gives the gradient of f with respect to argument `argnums`
    (a nest; a tuple for several), zeros for what f does not use. With has_aux, f returns (loss, aux) and the function
    (gradient, aux).
    """
    if not callable(loss):
        return autodiff.grad(loss, *args, **kwargs)
    return _grad_of(loss, *args, **kwargs)


def _grad_of(f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    return _derived("grad", f, argnums, has_aux, functools.partial(autodiff.grad, unused="zero"))


def value_and_grad(f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """The function that gives (f's value, its gradient); with has_aux ((value, aux), gradient)."""
    return _derived("value_and_grad", f, argnums, has_aux, functools.partial(autodiff.grad, unused="zero"), value=True)


def vjp(outputs: Any, *args: Any, **kwargs: Any) -> Any:
    """`vjp(outputs, wrt, cotangents)`: cotangents times the Jacobian (see `graphc.autodiff.vjp`).

    `vjp(f, *primals, has_aux=False)`: (f's value, pull), where pull(cotangents) gives a tuple with a nest for each of
    `primals`; with has_aux (value, pull, aux).
    """
    return _vjp_of(outputs, *args, **kwargs) if callable(outputs) else autodiff.vjp(outputs, *args, **kwargs)


def _vjp_of(f: Function, *primals: Any, has_aux: bool = False) -> Any:
    given = Arguments(primals)
    wrt, stands_for = _independent(given.args)
    result, aux = _with_aux("vjp", f(*wrt), has_aux)
    outputs = tensors_in(result)

    def pull(cotangents: Any) -> Any:
        """The cotangents of the primals; NumPy in, NumPy out."""
        seeds = cotangents if given.symbolic or _symbolic(cotangents) else given.entered(cotangents)
        found = _put_back(autodiff.vjp(outputs, wrt, seeds, unused="zero"), stands_for)
        return found if _symbolic(cotangents) else given.settled(found)

    value, aux = given.settled(_put_back((result, aux), stands_for))
    return (value, pull, aux) if has_aux else (value, pull)


def _symbolic(nest: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in leaves(nest))


def jvp(outputs: Any, *args: Any, **kwargs: Any) -> Any:
    """`jvp(outputs, wrt, tangents)`: the Jacobian times tangents (see `graphc.autodiff.jvp`).

    `jvp(f, primals, tangents, has_aux=False)`: (f's value, its tangent); `primals` and `tangents` are tuples of f's
    arguments; with has_aux (value, tangent, aux).
    """
    return _jvp_of(outputs, *args, **kwargs) if callable(outputs) else autodiff.jvp(outputs, *args, **kwargs)


def _jvp_of(f: Function, primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False) -> Any:
    given = Arguments((tuple(primals), tuple(tangents)))
    wrt, stands_for = _independent(given.args[0])
    result, aux = _with_aux("jvp", f(*wrt), has_aux)
    tangent = autodiff.jvp(tensors_in(result), wrt, given.args[1], unused="zero")
    found = (result, tangent, aux) if has_aux else (result, tangent)
    return given.settled(_put_back(found, stands_for))


def hvp(loss: Any, *args: Any, **kwargs: Any) -> Any:
    """`hvp(loss, wrt, vectors)`: the Hessian times vectors (see `graphc.autodiff.hvp`).

    `hvp(f, primals, vectors)`: the same for a scalar function of `primals`, a tuple as is the result.
    """
    return _hvp_of(loss, *args, **kwargs) if callable(loss) else autodiff.hvp(loss, *args, **kwargs)


def _hvp_of(f: Function, primals: Sequence[Any], vectors: Sequence[Any]) -> Any:
    given = Arguments((tuple(primals), tuple(vectors)))
    wrt, stands_for = _independent(given.args[0])
    found = autodiff.hvp(as_tensor(f(*wrt)), wrt, given.args[1], unused="zero")
    return given.settled(_put_back(found, stands_for))


def _jacobian(name: str, graph_form: Function, doc: str) -> Function:
    def of_function(f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
        return _derived(name, f, argnums, has_aux, functools.partial(graph_form, unused="zero"))

    def jacobian(outputs: Any, *args: Any, **kwargs: Any) -> Any:
        return of_function(outputs, *args, **kwargs) if callable(outputs) else graph_form(outputs, *args, **kwargs)

    jacobian.__name__ = jacobian.__qualname__ = name
    jacobian.__doc__ = f"{doc}\n\n`{name}(f, argnums=0, has_aux=False)`: the function that gives it for f's arguments."
    return jacobian


jacrev = _jacobian("jacrev", jacobians.jacrev, "`jacrev(outputs, wrt)`: the Jacobian in reverse mode.")
jacfwd = _jacobian("jacfwd", jacobians.jacfwd, "`jacfwd(outputs, wrt)`: the Jacobian in forward mode.")
hessian = _jacobian("hessian", jacobians.hessian, "`hessian(loss, wrt)`: the second derivatives of a scalar.")


def vmap(f: Function, in_axes: int | Sequence[int | None] | None = 0, out_axes: int = 0) -> Function:
    """The function that applies f along an axis of its arguments and stacks the results along `out_axes`.

    `in_axes`: the axis of all arguments, or one for each (None: the whole argument for every item). f sees the items.
    Raises ArgumentError for an op without a batched form and for arguments whose axes differ in size.
    """

    @functools.wraps(f)
    def mapped(*args: Any) -> Any:
        given = Arguments(args)
        axes = in_axes if isinstance(in_axes, (tuple, list)) else [in_axes] * len(args)
        if len(axes) != len(args):
            raise ArgumentError(f"vmap: in_axes has {len(axes)} entries, but there are {len(args)} arguments")
        items: dict[Value, Tensor] = {}
        single = [_item(arg, axis, items) for arg, axis in zip(given.args, axes, strict=True)]
        sizes = {tensor.shape[0] for tensor in items.values()}
        if len(sizes) != 1:
            counts = " and ".join(sorted(map(str, sizes))) or "no"
            raise ArgumentError(f"vmap: the mapped arguments have {counts} items")
        size: Size = sizes.pop()
        result = tensors_in(f(*single))
        found = batched([leaf.ref for leaf in leaves(result)], items, size)
        turned = [permute_dims(t, _moved(t.ndim, 0, out_axes)) for t in found]
        return given.settled(rebuilt(result, turned))

    return mapped


def _item(arg: Any, axis: int | None, items: dict[Value, Tensor]) -> Any:
    """`arg` as one call of f sees it: placeholders without the mapped axis. Fills `items`."""
    if axis is None:
        return arg
    made = []
    for leaf in leaves(arg):
        tensor = as_tensor(leaf)
        if not -tensor.ndim <= axis < tensor.ndim:
            raise ArgumentError(f"vmap: {autodiff.named(tensor)} has no axis {axis}")
        front = permute_dims(tensor, _moved(tensor.ndim, axis % tensor.ndim, 0))
        made.append(unknown(front.type.with_shape(front.shape[1:])))
        items[made[-1].ref] = front
    return rebuilt(arg, made)


def _moved(rank: int, source: int, target: int) -> tuple[int, ...]:
    """The order of axes that brings `source` to `target`."""
    order = [a for a in range(rank) if a != source]
    order.insert(target % rank, source)
    return tuple(order)
