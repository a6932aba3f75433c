"""Rows of convolutions of 32 images: forward, weight gradient, image gradient; in the best layout and from NCHW arrays.

In the best layout graphc takes NHWC images and HWIO weights, and every peer is measured in each layout that it has. In
the rows "NCHW" all get and give arrays of NCHW and OIHW, and what a library converts inside is in its time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from measuring import Contender, Row
from peers import Peers, aligned, normal

import graphc
from graphc.nn.functional import conv2d

BATCH = 32
NHWC, HWIO = (0, 2, 3, 1), (2, 3, 1, 0)
DIRECTIONS = ("forward", "dW", "dX")


@dataclass(frozen=True)
class Convolution:
    """Square images of `size` with `channels`, `results` channels, square windows of `window`."""

    size: int
    channels: int
    results: int
    window: int = 3
    stride: int = 1
    padding: int = 0
    groups: int = 1

    def __str__(self) -> str:
        more = f", stride {self.stride}" if self.stride > 1 else ""
        kind = f"{self.channels} depthwise" if self.groups > 1 else f"{self.channels}->{self.results}"
        return f"{self.size}x{self.size}x{kind} {self.window}x{self.window}{more}"

    @property
    def side(self) -> int:
        return (self.size + 2 * self.padding - self.window) // self.stride + 1

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Of images, weights and results in NCHW and OIHW."""
        return (
            (BATCH, self.channels, self.size, self.size),
            (self.results, self.channels // self.groups, self.window, self.window),
            (BATCH, self.results, self.side, self.side),
        )

    @property
    def flops(self) -> float:
        """Multiply-adds of the result count twice, those with the padding too."""
        return 2.0 * BATCH * self.side**2 * self.window**2 * self.results * self.channels / self.groups


CASES = [
    Convolution(28, 1, 32), Convolution(13, 32, 64), Convolution(32, 64, 64, padding=1), Convolution(14, 256, 256, 1),
    Convolution(56, 64, 64, padding=1, groups=64), Convolution(112, 3, 64, 7, 2, 3),
]  # fmt: skip


def turned(array: Any, axes: tuple[int, ...]) -> np.ndarray:
    """A transposed copy, aligned to cache lines as the arrays of the peers are."""
    view = np.asarray(array).transpose(axes)
    copy = aligned(view.shape)
    copy[...] = view
    return copy


def ours(case: Convolution, direction: str, layout: str) -> Callable[[Any, Any], Any]:
    """The direction as a function of its two operands."""
    how: Any = {"stride": case.stride, "padding": case.padding, "groups": case.groups, "layout": layout}
    shapes = case.shapes
    if layout == "NHWC":
        shapes = tuple(tuple(s[axis] for axis in axes) for s, axes in zip(shapes, (NHWC, HWIO, NHWC)))

    def gradient(x: Any, w: Any, g: Any, wrt: int) -> Any:
        return graphc.vjp(conv2d(x, w, **how), [x, w], g)[wrt]

    def weights(x: Any, g: Any) -> Any:
        return gradient(x, graphc.placeholder("w", shapes[1]), g, 1)

    def images(w: Any, g: Any) -> Any:
        return gradient(graphc.placeholder("x", shapes[0]), w, g, 0)

    return {"forward": lambda x, w: conv2d(x, w, **how), "dW": weights, "dX": images}[direction]


def in_torch(case: Convolution, direction: str) -> Callable[[Any], Callable[..., Any]]:
    """A function of the two operands and of a tensor like the one that is wanted, of which only the shape counts."""
    both = [case.stride] * 2, [case.padding] * 2, [1, 1], False, [0, 0], case.groups
    how: Any = {"stride": case.stride, "padding": case.padding, "groups": case.groups}

    def make(torch: Any) -> Callable[..., Any]:
        backward = torch.ops.aten.convolution_backward
        return {
            "forward": lambda x, w, y: torch.conv2d(x, w, **how),
            "dW": lambda x, g, w: backward(g, x, w, None, *both, [False, True, False])[1],
            "dX": lambda w, g, x: backward(g, x, w, None, *both, [True, False, False])[0],
        }[direction]

    return make


def in_jax(case: Convolution, direction: str, layout: str) -> Callable[[Any, Any], Callable[..., Any]]:
    def make(jax: Any, jnp: Any) -> Callable[..., Any]:
        names = ("NHWC", "HWIO", "NHWC") if layout == "NHWC" else ("NCHW", "OIHW", "NCHW")
        padding = [(case.padding, case.padding)] * 2

        def forward(x: Any, w: Any) -> Any:
            return jax.lax.conv_general_dilated(
                x, w, (case.stride, case.stride), padding, dimension_numbers=names, feature_group_count=case.groups
            )

        shapes = case.shapes
        if layout == "NHWC":
            shapes = tuple(tuple(s[a] for a in axes) for s, axes in zip(shapes, (NHWC, HWIO, NHWC)))
        like = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes[:2]]
        if direction == "forward":
            return forward
        if direction == "dW":
            return lambda x, g: jax.linear_transpose(lambda w: forward(x, w), like[1])(g)[0]
        return lambda w, g: jax.linear_transpose(lambda x: forward(x, w), like[0])(g)[0]

    return make


def row(case: Convolution, direction: str, layout: str) -> Row:
    """layout: of graphc's arrays, "NHWC" for the row in the best layout."""
    which = {"forward": (0, 1), "dW": (0, 2), "dX": (1, 2)}[direction]
    result = {"forward": 2, "dW": 1, "dX": 0}[direction]
    axes = [(NHWC, HWIO, NHWC)[n] for n in which]
    back_axes = (NHWC, HWIO, NHWC)[result]

    def build(peers: Peers) -> list[Contender]:
        plain = tuple(normal(*case.shapes[n], seed=n) for n in which)
        wide = tuple(turned(a, ax) for a, ax in zip(plain, axes))
        nhwc = layout == "NHWC"
        found = peers.graphc(ours(case, direction, layout), [wide if nhwc else plain])

        def in_layout(memory: str) -> Callable[..., Any]:
            import torch

            how = getattr(torch, memory)
            return lambda *given: [t.contiguous(memory_format=how) for t in (*given, torch.empty(case.shapes[result]))]

        back = (lambda t: t.permute(back_axes)) if nhwc else (lambda t: t)
        layouts = {"PyTorch": "contiguous_format", "PyTorch channels_last": "channels_last"}
        for name in layouts if nhwc else ["PyTorch"]:
            make, memory = in_torch(case, direction), layouts[name]
            found += peers.torch(make, [plain], name=name, prepare=lambda *t, m=memory: in_layout(m)(*t), back=back)
        transposed = (lambda a: np.asarray(a).transpose(back_axes)) if nhwc else (lambda a: a)
        found += peers.jax(in_jax(case, direction, "NCHW"), [plain], back=transposed)
        if nhwc:
            found += peers.jax(in_jax(case, direction, "NHWC"), [wide], name="JAX NHWC")
        return found

    moved = 4.0 * sum(float(np.prod(shape)) for shape in case.shapes)
    name = f"{case} {direction}" + (" NCHW" if layout == "NCHW" else "")
    return Row(name, "convolution", build, 1.0, case.flops, moved, tolerance=2e-4)


ROWS = [row(case, direction, layout) for layout in ("NHWC", "NCHW") for case in CASES for direction in DIRECTIONS]
