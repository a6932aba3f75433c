"""Differentiation of graphs in every direction: `grad`, `vjp`, `jvp` and `hvp` add nodes that compute derivatives.

Reverse mode is a walk backwards (`graphc.autodiff_walk`) that asks each op's own rule. Forward mode needs no rules of
its own: u -> vjp(u) is linear, its matrix is the transposed Jacobian, so walking back through it once more gives the
Jacobian times the tangents, and what was built for u alone falls away. Since derivatives are nodes, all of these
nest to any order. Whole Jacobians are in `graphc.jacobians`; the forms that take functions in `graphc.transforms`.
The forward graph is stabilised first (`graphc.stabilize`), so that derivatives are as stable as the value.

Enter at `grad`; an op becomes differentiable by the `gradient` of its entry in `graphc/ops/`, never by code here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from graphc.autodiff_walk import Flow, Walk
from graphc.build import Tensor, apply, lines_of
from graphc.errors import ArgumentError, GradientError, InternalError
from graphc.graph import Graph, describe, inherit_origin, topological_order
from graphc.nest import leaves, rebuilt
from graphc.ops.operands import as_tensor
from graphc.stabilize import scalar, stabilize


def grad(loss: Tensor, wrt: Any, *, unused: str = "error") -> Any:
    """The gradient of `loss`, a float scalar, with respect to `wrt`: a Tensor for a tensor, a nest for a nest.

    `wrt` may hold placeholders, parameters and intermediate tensors, in any nest of tuples, lists and dicts. Raises
    GradientError for a loss that is no float scalar, for something in `wrt` that is no float or that the loss does not
    depend on (with `unused="zero"`: zeros), and for an op without a gradient.
    """
    check_tensors("grad", "the loss", [loss])
    if loss.shape != ():
        hint = "reduce it first: .sum() or .mean(); graphc.vjp takes outputs of any shape"
        raise GradientError(f"grad: {named(loss)} is no scalar", lines_of(loss), hint)
    return vjp(loss, wrt, None, unused=unused, name="grad")


def vjp(outputs: Any, wrt: Any, cotangents: Any, *, unused: str = "error", name: str = "vjp") -> Any:
    """The product of `cotangents` with the Jacobian of `outputs`: for each of `wrt`, sum(cotangent * d output / d wrt).

    `outputs` is a tensor or a nest of them, `cotangents` the same nest of equal types (None: all ones). The result has
    the nest of `wrt`. Raises what `grad` raises, and GradientError for a cotangent of another type than its output.
    """
    results, targets = checked(name, outputs, wrt)
    if cotangents is None:
        seeds = []
        for tensor in results:
            with inherit_origin(tensor.ref.node, gradient=True):
                seeds.append(Tensor(scalar(1.0, tensor.type)))
    else:
        seeds = _like(name, outputs, cotangents, "cotangent", "output")
    return rebuilt(wrt, pulled_back(name, results, targets, seeds, unused))


def jvp(outputs: Any, wrt: Any, tangents: Any, *, unused: str = "error", name: str = "jvp") -> Any:
    """The product of the Jacobian of `outputs` with `tangents`: for each output, sum(d output / d wrt * tangent).

    `tangents` has the nest of `wrt` and its types; the result has the nest of `outputs`, with zeros for one that does
    not depend on `wrt`. Raises what `vjp` raises.
    """
    results, targets = checked(name, outputs, wrt)
    directions = _like(name, wrt, tangents, "tangent", "tensor")
    return rebuilt(outputs, pushed_forward(name, results, targets, directions, unused))


def hvp(loss: Tensor, wrt: Any, vectors: Any, *, unused: str = "error") -> Any:
    """The Hessian of `loss` times `vectors` (the nest and types of `wrt`, and so is the result), without the Hessian.

    It is the gradient of sum(gradient * vector): the Hessian is symmetric. Raises what `grad` raises.
    """
    first = leaves(grad(loss, wrt, unused=unused))
    _, targets = checked("hvp", loss, wrt)
    seeds = _like("hvp", wrt, vectors, "vector", "tensor")
    return rebuilt(wrt, pulled_back("hvp", first, targets, seeds, "zero"))


def pulled_back(
    name: str, results: Sequence[Tensor], targets: Sequence[Tensor], seeds: Sequence[Tensor], unused: str
) -> list[Tensor]:
    """For each of `targets`, the sum of seed * d result / d target."""
    if unused not in ("error", "zero"):
        raise ArgumentError(f"unused must be 'error' or 'zero', not {unused!r}")
    if not results or not targets:
        return [Tensor(scalar(0.0, tensor.type)) for tensor in targets]
    refs = [t.ref for t in (*results, *targets)]
    graph = stabilize(Graph((), tuple(refs)), keep=[t.ref for t in targets])
    walk = Walk(graph.outputs[: len(results)], graph.outputs[len(results) :])
    for value, seed in zip(walk.outputs, seeds, strict=True):
        walk.add(value, Flow(seed))
    found = walk.run()
    gradients: list[Tensor] = []
    for tensor, value in zip(targets, walk.wrt, strict=True):
        gradient = found.get(value)
        if gradient is None:
            if unused == "error" and value not in walk.reached:
                _not_connected(name, results[0], tensor, Walk(walk.outputs, [value]))
            gradient = Tensor(scalar(0.0, value.type))
        gradients.append(gradient)
    return gradients


def pushed_forward(
    name: str, results: Sequence[Tensor], targets: Sequence[Tensor], directions: Sequence[Tensor], unused: str
) -> list[Tensor]:
    """For each of `results`, the sum of d result / d target * direction."""
    duals = [unknown_like(tensor) for tensor in results]
    rows = pulled_back(name, results, targets, duals, unused)  # linear in the duals
    products = pulled_back(name, rows, duals, directions, "zero")
    remaining = {dual.ref.node for dual in duals}.intersection(topological_order([t.ref.node for t in products]))
    if remaining:
        for node in topological_order([t.ref.node for t in results]):
            if node.op.name == "custom_vjp":
                message = f"{name}: bwd of {node.attrs['name']} (custom_vjp) is not linear in the cotangents"
                raise GradientError(message, lines_of(Tensor(node.outputs[0])), "forward mode transposes it; use vjp")
        raise InternalError(f"{name}: the gradient rule of an op of {named(results[0])} is not linear in its cotangent")
    return products


def unknown_like(tensor: Tensor) -> Tensor:
    """A placeholder of the type of `tensor` for a cotangent that is put in later, with the origin of `tensor`."""
    with inherit_origin(tensor.ref.node, gradient=True):
        made: Tensor = apply("placeholder", name="cotangent", type=tensor.type)
    return made


def checked(name: str, outputs: Any, wrt: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The leaves of both, all of them float tensors."""
    if not isinstance(wrt, (Tensor, Mapping, list, tuple)):
        raise ArgumentError(f"{name}: wrt must be a tensor or a nest of tensors, not {type(wrt).__name__}")
    results, targets = leaves(outputs), leaves(wrt)
    check_tensors(name, "an output", results)
    check_tensors(name, "wrt", targets)
    return results, targets


def check_tensors(name: str, what: str, tensors: Sequence[Any]) -> None:
    """ArgumentError or GradientError unless all are float tensors."""
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise ArgumentError(f"{name}: {what} must be a Tensor, not {type(tensor).__name__}")
        if not tensor.dtype.is_float:
            hint = f"convert it before it is used: {describe(tensor.ref)}.astype('float32')"
            raise GradientError(f"{name}: {named(tensor)} is no float, so it has no gradient", lines_of(tensor), hint)


def _like(name: str, nest: Any, given: Any, what: str, of: str) -> list[Tensor]:
    """The leaves of `given` as tensors that have the types of the tensors in `nest`."""
    tensors = leaves(nest)
    items = [given] if isinstance(nest, Tensor) else leaves(given)
    if len(items) != len(tensors):
        raise ArgumentError(f"{name}: {len(tensors)} {of}s but {len(items)} {what}s")
    found = [as_tensor(item) for item in items]
    for tensor, item in zip(tensors, found, strict=True):
        if item.type != tensor.type:
            message = f"{name}: the {what} of {named(tensor)} is {item.type}"
            raise GradientError(message, lines_of(tensor, item), f"a {what} has the type of its {of}")
    return found


def named(tensor: Tensor) -> str:
    """A tensor as errors print it: its name or op, and its type."""
    return f"{describe(tensor.ref)} ({tensor.type})"


def _not_connected(name: str, loss: Tensor, tensor: Tensor, walk: Walk) -> NoReturn:
    """The error for a tensor that the loss does not depend on, or only in ways that no gradient takes."""
    hint = 'unused="zero" gives zeros for it'
    if walk.cut_at:
        ops = ", ".join(dict.fromkeys(node.op.name for node in walk.cut_at))
        message = f"{name}: {named(loss)} depends on {named(tensor)} only through {ops}, which no gradient passes"
    else:
        message = f"{name}: {named(loss)} does not depend on {named(tensor)}"
    raise GradientError(message, lines_of(tensor, loss), hint)
