"""Attention of many forms against PyTorch's `scaled_dot_product_attention`, on one thread.

    python benchmarks/attention.py [--rounds 11] [--only causal]

graphc gets the plain composition. Both run interleaved in one process on the same arrays, results are compared; a ratio
is the median of PyTorch's time over graphc's in a round. `--only` chooses rows whose name has this in it. "named": the
length is a name. The last column is the time to compile forward and backward without a cache.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from turns import in_turns, ratio

import graphc
from graphc.build import Tensor

Array = np.ndarray[Any, Any]
CASES = [  # heads, rows, inner, mask
    (8, 1024, 64, "causal"), (8, 1024, 64, "causal, named"), (12, 512, 64, "causal"), (8, 1024, 32, "causal"),
    (8, 1000, 80, "causal"), (8, 1024, 96, "causal"), (8, 1024, 128, "causal"), (8, 1024, 64, "none"),
    (8, 1024, 64, "bools"), (8, 1024, 64, "bias"), (4, 2048, 64, "causal"), (2, 4096, 64, "causal"),
    (2, 4096, 64, "none"), (2, 4096, 64, "bools"), (2, 4096, 64, "bias"), (2, 4097, 64, "causal"),
    (1, 4096, 128, "causal"), (1, 4096, 128, "none"), (1, 8192, 64, "causal"), (1, 8192, 64, "none"),
]  # fmt: skip


def attention(q: Tensor, k: Tensor, v: Tensor, mask: str, given: Tensor | None) -> Tensor:
    scores = q @ k.transpose((0, 2, 1)) * q.shape[-1] ** -0.5
    if mask.startswith("causal"):
        length = q.shape[1]
        position = graphc.arange(length)
        scores = graphc.where(position.reshape(length, 1) >= position.reshape(1, length), scores, -np.inf)
    elif given is not None:
        scores = graphc.where(given, scores, -np.inf) if mask == "bools" else scores + given
    return graphc.nn.functional.softmax(scores, -1) @ v


def compiled(heads: int, rows: int, inner: int, mask: str, both: bool) -> Callable[..., Any]:
    length: int | str = "length" if "named" in mask else rows
    q, k, v, g = (graphc.placeholder(name, (heads, length, inner)) for name in "qkvg")
    given = graphc.placeholder("mask", (rows, rows), "bool" if mask == "bools" else "float32")
    masks = [given] if mask in ("bools", "bias") else []
    out = attention(q, k, v, mask, given if masks else None)
    if not both:
        return graphc.function([q, k, v, *masks], out, threads=1)
    return graphc.function([q, k, v, g, *masks], graphc.vjp(out, [q, k, v], g), threads=1)


def in_torch(mask: str, both: bool) -> Callable[..., Any]:
    def run(*arrays: torch.Tensor) -> Any:
        arguments = [array[None] for array in arrays[:3]]
        given = arrays[-1] if mask in ("bools", "bias") else None
        causal = mask.startswith("causal")
        if not both:
            return torch.nn.functional.scaled_dot_product_attention(*arguments, given, is_causal=causal)[0]
        leaves = [a.detach().requires_grad_() for a in arguments]
        out = torch.nn.functional.scaled_dot_product_attention(*leaves, given, is_causal=causal)
        return [slope[0] for slope in torch.autograd.grad(out, leaves, arrays[3][None])]

    return run


def operands(heads: int, rows: int, inner: int, mask: str, both: bool) -> list[Array]:
    generator = np.random.default_rng(0)
    shape = (heads, rows, inner)
    arrays: list[Array] = [generator.standard_normal(shape, dtype=np.float32) for _ in range(4 if both else 3)]
    if mask == "bools":
        arrays.append(generator.random((rows, rows)) < 0.7)
    if mask == "bias":
        arrays.append(generator.standard_normal((rows, rows), dtype=np.float32))
    return arrays


def compared(heads: int, rows: int, inner: int, mask: str, both: bool, rounds: int) -> tuple[float, float]:
    """The median of PyTorch's time over graphc's, and the seconds to compile."""
    arrays = operands(heads, rows, inner, mask, both)
    tensors = [torch.from_numpy(array) for array in arrays]
    with graphc.config(cache=False):
        start = time.process_time()
        ours, theirs = compiled(heads, rows, inner, mask, both), in_torch(mask, both)
        compiling = time.process_time() - start
    results = [ours(*arrays), theirs(*tensors)]
    for mine, other in zip(*(r if both else [r] for r in results), strict=True):
        np.testing.assert_allclose(mine, other.numpy(), rtol=1e-3, atol=1e-4 * float(abs(other).max()))
    return ratio(*in_turns([lambda: theirs(*tensors), lambda: ours(*arrays)], rounds, 1)), compiling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--only", default="")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    compiled(1, 1024, 64, "none", True)  # what is loaded and made once
    print("| float32, heads x rows x inner, mask | forward | forward and backward | compile, ms |\n|---|---|---|---|")
    for heads, rows, inner, mask in CASES:
        name = f"{heads} x {rows} x {inner}, {mask}"
        if chosen.only in name:
            forward, _ = compared(heads, rows, inner, mask, False, chosen.rounds)
            both, seconds = compared(heads, rows, inner, mask, True, chosen.rounds)
            print(f"| {name} | {forward:.2f} | {both:.2f} | {1e3 * seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
