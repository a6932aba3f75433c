"""Attention as a composition: the compiler finds what it can run block by block (docs/design/blocks.md)."""

from __future__ import annotations

import math

import numpy as np

from graphc import ops
from graphc.build import Tensor, fail
from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.graph import shown
from graphc.ops.operands import of_tensors


@of_tensors
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(query @ key.T * scale + mask) @ value, as PyTorch's function of this name.

    query f32[..., rows, inner], key f32[..., columns, inner] and value f32[..., columns, width] give
    f32[..., rows, width]; batch axes broadcast. `attn_mask` broadcasts to [..., rows, columns]: a boolean one says what
    takes part, a float one is added. With `is_causal` row i sees the columns up to i. `scale` is 1 / sqrt(inner) if
    None. A row that sees nothing is NaN. Raises DTypeError, ShapeError, or ArgumentError for two masks at once.
    `scaled_dot_product_attention(constant([[0.0]]), constant([[1.0], [2.0]]), constant([[2.0], [4.0]]))` is [[3.0]].
    """
    for tensor in (query, key, value):
        if not tensor.dtype.is_float or tensor.ndim < 2:
            fail(DTypeError, f"scaled_dot_product_attention: takes matrices of floats, not {shown(tensor)}")
    inner = query.shape[-1]
    if inner != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        message = f"scaled_dot_product_attention: {shown(query)}, {shown(key)} and {shown(value)} do not fit"
        fail(ShapeError, message, "query and key have the same last size, key and value the same one before it")
    if attn_mask is not None and is_causal:
        fail(ArgumentError, "scaled_dot_product_attention: takes attn_mask or is_causal, not both")
    if scale is None and not isinstance(inner, int):
        fail(ArgumentError, f"scaled_dot_product_attention: {shown(query)} needs a scale: its last size is a name")
    scores = (query @ ops.swapaxes(key, -1, -2)) * (1 / math.sqrt(inner) if scale is None else scale)  # type: ignore[arg-type]
    if is_causal:
        rows, columns = ops.arange(query.shape[-2]), ops.arange(key.shape[-2])
        scores = ops.where(ops.expand_dims(rows, 1) >= columns, scores, -np.inf)
    elif attn_mask is not None:
        boolean = not attn_mask.dtype.is_float
        scores = ops.where(attn_mask, scores, -np.inf) if boolean else scores + attn_mask
    powers = ops.exp(scores - ops.stop_gradient(scores.max(-1, keepdims=True)))
    return (powers / powers.sum(-1, keepdims=True)) @ value
