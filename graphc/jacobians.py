"""Whole Jacobians and Hessians: `jacrev`, `jacfwd`, `hessian`.

All rows (or columns) of a Jacobian are one product with the identity: the graph of a vector-Jacobian product is built
once and batched (`graphc.batching`) over a basis, so its size does not depend on the sizes of the tensors, which may
be named. A result for one output and one of `wrt` has the shape of the output followed by that of the other.
"""

from __future__ import annotations

from typing import Any

from graphc.autodiff import checked, grad, pulled_back, pushed_forward, unknown_like
from graphc.batching import batched
from graphc.build import Tensor
from graphc.graph import inherit_origin
from graphc.nest import rebuilt
from graphc.ops.comparison import equal
from graphc.ops.movement import permute_dims, reshape
from graphc.ops.selection import astype
from graphc.ops.sources import iota


def jacrev(outputs: Any, wrt: Any, *, unused: str = "error") -> Any:
    """The Jacobian of `outputs` with respect to `wrt`, row by row (reverse mode: for fewer outputs than inputs).

    Both are a tensor or a nest of float tensors. The result has the nest of `outputs`, with the nest of `wrt` in place
    of each tensor, of tensors d output / d wrt of shape [*output, *wrt]. Sizes may be named. Raises what `grad` raises,
    and ArgumentError for an op without a batched form.
    """
    results, targets = checked("jacrev", outputs, wrt)
    blocks = []
    for result in results:
        dual = unknown_like(result)
        rows = pulled_back("jacrev", [result], targets, [dual], unused)
        with inherit_origin(result.ref.node, gradient=True):
            found = batched([row.ref for row in rows], {dual.ref: _basis(result)}, result.size)
            full = [reshape(f, (*result.shape, *t.shape)) for f, t in zip(found, targets, strict=True)]
        blocks.append(rebuilt(wrt, full))
    return rebuilt(outputs, blocks)


def jacfwd(outputs: Any, wrt: Any, *, unused: str = "error") -> Any:
    """The Jacobian of `outputs` with respect to `wrt`, column by column (forward mode: for fewer inputs than outputs).

    Nests, shapes and errors are those of `jacrev`.
    """
    results, targets = checked("jacfwd", outputs, wrt)
    columns: list[list[Tensor]] = []
    for target in targets:
        dual = unknown_like(target)
        products = pushed_forward("jacfwd", results, [target], [dual], unused)
        with inherit_origin(target.ref.node, gradient=True):
            found = batched([p.ref for p in products], {dual.ref: _basis(target)}, target.size)
            turned = [permute_dims(f, (*range(1, f.ndim), 0)) for f in found]
            columns.append([reshape(f, (*r.shape, *target.shape)) for f, r in zip(turned, results, strict=True)])
    return rebuilt(outputs, (rebuilt(wrt, row) for row in zip(*columns, strict=True)))


def hessian(loss: Tensor, wrt: Any, *, unused: str = "error") -> Any:
    """The second derivatives of a scalar: the nest of `wrt` twice, of tensors of shape [*wrt, *wrt].

    For a tensor of shape [3] one tensor [3,3]; for [a, b] a list of two lists. Raises what `jacrev` raises.
    """
    return jacrev(grad(loss, wrt, unused=unused), wrt, unused="zero")


def _basis(like: Tensor) -> Tensor:
    """All tensors of the type of `like` that are 1 in one element and 0 elsewhere, along a leading axis."""
    n = like.size
    same = equal(iota((n, n), axis=0), iota((n, n), axis=1))
    return reshape(astype(same, like.dtype), (n, *like.shape))
