"""Rows of products: matmul in its forms, matrix-vector, batches, epilogues, and a symbolic number of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from measuring import Contender, Row
from peers import Peers, Sets, aligned, normal

import graphc
from graphc.runtime.host import host_target

SMALL = [(n, n, n) for n in (32, 64, 96, 128, 256)] + [(127, 65, 33), (128, 784, 128), (32, 784, 64)]
LARGE = [(n, n, n) for n in (512, 1024, 2048)] + [(256, 1024, 2048), (8, 4096, 4096)]
SHORT_WORK = 30e6  # operations below which a call may take less than 100 us: those rows rotate their operands
ROTATING = 8  # tuples of operands at most, and at least 2; between them, as many as half of L2 holds
GELU = 0.7978845608028654


def sets_of(flops: float, make: Callable[[int], tuple[np.ndarray, ...]]) -> Sets:
    """Operands for a row: several tuples where it is short."""
    first = make(0)
    if flops >= SHORT_WORK:
        return [first]
    held = host_target().l2_bytes // 2 // sum(array.nbytes for array in first)
    return [first, *(make(seed) for seed in range(1, min(ROTATING, max(2, held))))]


def sides(form: str, m: int, k: int, n: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The shapes of both operands in memory: "T" says that one lies transposed."""
    return (k, m) if form[0] == "T" else (m, k), (n, k) if form[1] == "T" else (k, n)


def turned(form: str) -> Callable[[Any, Any], tuple[Any, Any]]:
    return lambda a, b: (a.T if form[0] == "T" else a, b.T if form[1] == "T" else b)


def product(form: str, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    turn = turned(form)
    return lambda a, b: function(*turn(a, b))


def matmul(group: str, m: int, k: int, n: int, form: str, target: float, native: float | None = None) -> Row:
    flops = 2.0 * m * k * n
    shapes = sides(form, m, k, n)
    name = f"{m}x{k}x{n} {form}"

    def build(peers: Peers) -> list[Contender]:
        sets = sets_of(flops, lambda seed: (normal(*shapes[0], seed=seed), normal(*shapes[1], seed=seed + 50)))
        turn = turned(form)
        views = [turn(*arrays) for arrays in sets]
        return [
            *peers.graphc(product(form, lambda a, b: a @ b), sets),
            *peers.numpy(np.matmul, views, lambda: aligned((m, n))),
            *peers.torch(lambda torch: torch.mm, sets, prepare=turn, out=lambda: aligned((m, n))),
            *peers.jax(lambda jax, jnp: product(form, jnp.matmul), sets),
        ]

    return Row(name, group, build, target, flops, 4.0 * (m * k + k * n + m * n), native=native, tolerance=2e-5,
               slow="T" in form)  # fmt: skip


def symbolic(m: int, k: int, n: int, form: str) -> Row:
    """A symbolic number of rows against the same function of known sizes."""
    flops = 2.0 * m * k * n
    shapes = sides(form, m, k, n)
    named = [tuple("rows" if (form[0] == "T" and axis == 1) or (form[0] == "N" and axis == 0) else size
             for axis, size in enumerate(shapes[0])), shapes[1]]  # fmt: skip

    def build(peers: Peers) -> list[Contender]:
        sets = sets_of(flops, lambda seed: (normal(*shapes[0], seed=seed), normal(*shapes[1], seed=seed + 50)))
        function = product(form, lambda a, b: a @ b)
        return [*peers.graphc(function, sets, named)[:1], *peers.graphc(function, sets, name="static")[:1]]

    return Row(f"{m}*x{k}x{n} {form}", "symbolic", build, 0.9, flops, 4.0 * (m * k + k * n + m * n), tolerance=2e-5)


def vector_matrix(k: int, n: int, form: str, target: float) -> Row:
    """One row times a matrix that lies as the form says."""
    flops = 2.0 * k * n

    def build(peers: Peers) -> list[Contender]:
        count = sides(form, 1, k, n)[1]
        sets = sets_of(flops, lambda seed: (normal(1, k, seed=seed), normal(*count, seed=seed + 50)))
        turn = turned(form)
        vectors = [(a[0], turn(a, b)[1]) for a, b in sets]
        return [
            *peers.graphc(product(form, lambda a, b: a @ b), sets),
            *peers.numpy(np.matmul, [turn(*s) for s in sets], lambda: aligned((1, n))),
            *peers.numpy(np.matmul, vectors, lambda: aligned((n,)), name="NumPy gemv"),
            *peers.torch(lambda torch: torch.mm, sets, prepare=turn, out=lambda: aligned((1, n))),
            *peers.torch(
                lambda torch: torch.mv, sets, name="PyTorch mv", prepare=lambda a, b: (turn(a, b)[1].T, a[0]),
                out=lambda: aligned((n,)),
            ),
            *peers.jax(lambda jax, jnp: product(form, jnp.matmul), sets),
        ]  # fmt: skip

    moved = 4.0 * (k + k * n + n)
    return Row(f"1x{k}x{n} {form}", "vector", build, target, flops, moved, memory=k * n > 1 << 22, tolerance=2e-5)


def batched(count: int, m: int, k: int, n: int) -> Row:
    def build(peers: Peers) -> list[Contender]:
        sets = [(normal(count, m, k), normal(count, k, n))]
        return [
            *peers.graphc(lambda a, b: a @ b, sets),
            *peers.numpy(np.matmul, sets, lambda: aligned((count, m, n))),
            *peers.torch(lambda torch: torch.bmm, sets, out=lambda: aligned((count, m, n))),
            *peers.jax(lambda jax, jnp: jnp.matmul, sets),
        ]

    moved = 4.0 * count * (m * k + k * n + m * n)
    return Row(f"{count} x ({m}x{k}x{n})", "batched", build, 1.1, 2.0 * count * m * k * n, moved, tolerance=2e-5)


def gelu(x: Any, tanh: Callable[[Any], Any]) -> Any:
    return 0.5 * x * (1 + tanh(GELU * (x + 0.044715 * x * x * x)))


def epilogue(activation: str, target: float, m: int = 512, k: int = 784, n: int = 128) -> Row:
    """A layer with its activation. oneDNN's fused layer gets its weights packed beforehand."""

    def by(maximum: Any, tanh: Any) -> Callable[[Any, Any, Any], Any]:
        if activation == "ReLU":
            return lambda x, w, b: maximum(x @ w + b, 0)
        return lambda x, w, b: gelu(x @ w + b, tanh)

    def in_numpy(x: Any, w: Any, b: Any, out: Any) -> Any:
        np.matmul(x, w, out=out)
        out += b
        if activation == "ReLU":
            return np.maximum(out, 0, out=out)
        return gelu(out, np.tanh)

    def in_torch(torch: Any) -> Callable[..., Any]:
        if activation == "ReLU":
            return lambda x, w, b, wt: torch.addmm(b, x, w).relu_()
        return lambda x, w, b, wt: torch.nn.functional.gelu(torch.addmm(b, x, w), approximate="tanh")

    def fused(torch: Any) -> Callable[..., Any]:
        linear = torch.ops.mkldnn._linear_pointwise
        kind, how = ("relu", "") if activation == "ReLU" else ("gelu", "tanh")
        return lambda x, w, b, wt: linear(x, wt, b, kind, [], how)

    def build(peers: Peers) -> list[Contender]:
        sets = [(normal(m, k), normal(k, n) * np.float32(0.03), normal(n))]

        def plain(x: Any, w: Any, b: Any) -> Any:
            return x, w, b, None

        def packed(x: Any, w: Any, b: Any) -> Any:
            import torch

            return x, w, b, torch.ops.mkldnn._reorder_linear_weight(w.T.contiguous(), m)

        return [
            *peers.graphc(by(graphc.maximum, graphc.tanh), sets),
            *peers.numpy(in_numpy, sets, lambda: aligned((m, n))),
            *peers.torch(in_torch, sets, prepare=plain),
            *peers.torch(fused, sets, prepare=packed, name="PyTorch oneDNN"),
            *peers.jax(lambda jax, jnp: by(jnp.maximum, jnp.tanh), sets),
        ]

    name = f"{m}x{k}x{n} + bias + {activation}"
    return Row(name, "epilogue", build, target, 2.0 * m * k * n, 4.0 * (m * k + k * n + m * n), tolerance=1e-4,
               slow=activation == "GELU")  # fmt: skip


def share_of_peak(m: int, k: int, n: int) -> float | None:
    """What the native code of the small squares must reach."""
    return {32: 0.8, 64: 0.8, 96: 0.85, 128: 0.85, 256: 0.85}.get(m) if m == k == n else None


FORMS: Sequence[str] = ("NN", "NT", "TN")
ROWS = [
    *(matmul("matmul-small", *s, form, 1.0, share_of_peak(*s)) for s in SMALL for form in FORMS),
    *(matmul("matmul-large", *s, form, 0.97) for s in LARGE for form in FORMS),
    vector_matrix(512, 512, "NN", 1.1), vector_matrix(512, 512, "NT", 1.1), vector_matrix(4096, 4096, "NN", 0.95),
    batched(64, 128, 64, 128),
    epilogue("ReLU", 1.1), epilogue("GELU", 1.3),
    *(symbolic(*s, form) for s in (*SMALL, *LARGE) if max(s) < 2048 for form in FORMS),
]  # fmt: skip
