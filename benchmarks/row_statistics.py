"""Rows of products inside of the kernel of the product, against two kernels: what the pass `join_rows` gains.

    python benchmarks/row_statistics.py [--rounds 21]

Each case is the same function with and without the pass, interleaved in one process, one thread. Those marked "stored"
give the product as well as statistics of its rows; m is the size of a name where it is marked "named".
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from turns import in_turns, ratio

import graphc
from graphc.build import Tensor

SIZES = ((4096, 64, 64), (8192, 64, 256), (4096, 256, 256), (1024, 256, 1024), (4096, 64, 1024), (3000, 100, 500))


def layer_norm(y: Tensor) -> list[Tensor]:
    centred = y - y.mean(-1, keepdims=True)
    return [centred * graphc.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)]


def moments(y: Tensor) -> list[Tensor]:
    centred = y - y.mean(-1, keepdims=True)
    return [y, y.mean(-1), (centred * centred).mean(-1)]


FORMS: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "softmax": lambda y: [graphc.nn.functional.softmax(y, -1)],
    "layer norm": layer_norm,
    "RMS norm": lambda y: [y * graphc.rsqrt((y * y).mean(-1, keepdims=True) + 1e-5)],
    "argmax": lambda y: [y.argmax(-1)],
    "moments, stored": moments,
    "argmax, stored": lambda y: [y, y.argmax(-1)],
}


def compiled(form: str, m: int | str, k: int, n: int, disable: str) -> Callable[..., object]:
    shapes: list[tuple[int | str, ...]] = [(m, k), (k, n), (n,)]
    x, w, b = inputs = [graphc.placeholder(f"x{i}", shape, "float32") for i, shape in enumerate(shapes)]
    with graphc.config(disable=disable):
        return graphc.function(inputs, FORMS[form](x @ w + b), threads=1)


def gain(form: str, m: int, k: int, n: int, named: bool, rounds: int) -> float:
    """The median of the time without the pass over that with it."""
    generator = np.random.default_rng(0)
    arrays = [0.05 * generator.standard_normal(shape, dtype=np.float32) for shape in ((m, k), (k, n), (n,))]
    functions = [compiled(form, "m" if named else m, k, n, disable) for disable in ("join_rows", "")]
    return ratio(*in_turns([partial(function, *arrays) for function in functions], rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    print("| rows of x @ w + b | " + " | ".join("x".join(map(str, size)) for size in SIZES) + " |")
    print("|---" * (len(SIZES) + 1) + "|")
    for form in FORMS:
        for named in (False, True) if form == "layer norm" else (False,):
            cells = [f"{gain(form, *size, named, rounds):.2f}" for size in SIZES]
            print(f"| {form}{', named m' if named else ''} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
