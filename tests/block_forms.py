"""Attention in the ways that people write it, for the tests of joined kernels; and the same in NumPy, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc
from graphc import ops
from graphc.build import Tensor
from graphc.nn import functional as F

SCALES = ("behind", "on q", "on k", "divided", "none")
PRODUCTS = ("swapaxes", "einsum", "given transposed")
MASKS = ("none", "causal", "causal, last rows", "window", "added", "additive array", "boolean array", "row of keys")
SOFTMAXES = ("softmax", "by hand", "no maximum", "late division", "along -2")


@dataclass(frozen=True)
class Form:
    """One way to write attention over q[..., rows, inner], k[..., columns, inner], v[..., columns, width]."""

    scale: str = "behind"
    product: str = "swapaxes"
    mask: str = "none"
    softmax: str = "softmax"
    batch: tuple[int, ...] = ()
    rows: int = 20
    columns: int = 24
    inner: int = 8
    width: int = 8
    symbolic: bool = False
    dtype: str = "float32"

    def arguments(self) -> dict[str, np.ndarray[Any, Any]]:
        """Arrays for the placeholders."""
        rng = np.random.default_rng(self.rows * 1000 + self.columns)
        shapes = {
            "q": (*self.batch, self.rows, self.inner),
            "k": (*self.batch, self.columns, self.inner),
            "v": (*self.batch, self.columns, self.width),
            "slope": (*self.batch, self.rows, self.width),
        }
        if self.product == "given transposed":
            shapes["k"] = (*self.batch, self.inner, self.columns)
        found: dict[str, np.ndarray[Any, Any]]
        found = {n: rng.standard_normal(s).astype(self.dtype) for n, s in shapes.items()}
        if self.mask == "additive array":
            found["mask"] = np.where(rng.random((self.rows, self.columns)) < 0.3, -1e9, 0).astype(self.dtype)
            found["mask"][:, 0] = 0
        if self.mask == "boolean array":
            found["mask"] = rng.random((self.rows, self.columns)) < 0.7
            found["mask"][:, 0] = True
        if self.mask == "row of keys":
            found["mask"] = rng.random((*self.batch, 1, self.columns)) < 0.7
            found["mask"][..., 0] = True
        return found

    def built(self) -> tuple[list[Tensor], list[Tensor]]:
        """Placeholders, and the result with the gradients of q, k and v."""
        arguments = self.arguments()
        x = {n: graphc.placeholder(n, self._shape(a, n), a.dtype.name) for n, a in arguments.items()}
        out = self._attention(x)
        slopes = graphc.vjp([out], [x["q"], x["k"], x["v"]], [x["slope"]])
        return list(x.values()), [out, *slopes]

    def _shape(self, array: np.ndarray[Any, Any], name: str) -> tuple[Any, ...]:
        if not self.symbolic:
            return array.shape
        batch = ["a", "b"][: len(self.batch)]
        if name == "mask":
            return ("rows", "columns") if self.mask != "row of keys" else (*batch, 1, "columns")
        if name == "k" and self.product == "given transposed":
            return (*batch, self.inner, "columns")
        return (*batch, "rows" if name in ("q", "slope") else "columns", array.shape[-1])

    def _attention(self, x: dict[str, Tensor]) -> Tensor:
        q, k, v = x["q"], x["k"], x["v"]
        scale = self.inner**-0.5
        q = q * scale if self.scale == "on q" else q
        k = k * scale if self.scale == "on k" else k
        if self.softmax == "along -2":
            return self._columns_first(q, k, v, x)
        if self.product == "einsum":
            scores = graphc.einsum("...qd,...kd->...qk", q, k)
        else:
            scores = q @ (k if self.product == "given transposed" else ops.swapaxes(k, -1, -2))
        scores = scores * scale if self.scale == "behind" else scores
        scores = scores / self.inner**0.5 if self.scale == "divided" else scores
        return self._softmax(self._masked(scores, x), v)

    def _columns_first(self, q: Tensor, k: Tensor, v: Tensor, x: dict[str, Tensor]) -> Tensor:
        """The same with transposed scores, each of whose columns is normalised."""
        keys = ops.swapaxes(k, -1, -2) if self.product == "given transposed" else k
        scores = keys @ ops.swapaxes(q, -1, -2) * self.inner**-0.5
        i, j = graphc.arange(scores.shape[-1])[None, :], graphc.arange(scores.shape[-2])[:, None]
        scores = ops.where(i >= j, scores, -np.inf) if "causal" in self.mask else scores
        return ops.swapaxes(F.softmax(scores, -2), -1, -2) @ v

    def _masked(self, s: Tensor, x: dict[str, Tensor]) -> Tensor:
        rows, columns = s.shape[-2:]
        i, j = graphc.arange(rows)[:, None], graphc.arange(columns)[None, :]
        if self.mask == "causal":
            return ops.where(i >= j, s, -np.inf)
        if self.mask == "causal, last rows":
            return ops.where(j > i + (graphc.dim_value(columns) - graphc.dim_value(rows)), -np.inf, s)
        if self.mask == "window":
            return ops.where((i >= j) & (j > i - 7), s, -np.inf)
        if self.mask == "added":
            return s + ops.where(i >= j, 0.0, -np.inf).astype(self.dtype)
        if self.mask == "additive array":
            return s + x["mask"]
        return ops.where(x["mask"], s, -np.inf) if "mask" in x else s

    def _softmax(self, s: Tensor, v: Tensor) -> Tensor:
        if self.softmax == "softmax":
            return F.softmax(s) @ v
        shift = ops.stop_gradient(s.max(-1, keepdims=True))
        powers = ops.exp(s if self.softmax == "no maximum" else s - shift)
        if self.softmax == "late division":
            return (powers @ v) / powers.sum(-1, keepdims=True)
        return (powers / powers.sum(-1, keepdims=True)) @ v
