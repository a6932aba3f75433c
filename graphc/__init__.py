"""graphc compiles graphs of array operations, built in Python, to native CPU code.

    x = graphc.placeholder("x", ("batch", 784))
    w = graphc.parameter("w", array)
    step = graphc.function([x], outputs, updates={w: w - 0.1 * graphc.grad(loss, w)})

Building graphs is imported at once; compiling, differentiating, layers and optimisers when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphc import elsewhere, errors, interpret
from graphc.build import Parameter, Tensor, constant, parameter, placeholder
from graphc.conversion import cast_array
from graphc.declared import dim
from graphc.ops import *  # noqa: F403  # the functions that graphc.ops lists in __all__
from graphc.ops import __all__ as _functions
from graphc.types import bfloat16, float16

if TYPE_CHECKING:
    # `x as x` tells type checkers that the name is public
    from graphc import linalg as linalg
    from graphc import nn as nn
    from graphc import optim as optim
    from graphc import random as random
    from graphc import text as text
    from graphc import train as train
    from graphc.compile import Function as Function
    from graphc.compile import function as function
    from graphc.inquiry import broadcast_shapes as broadcast_shapes
    from graphc.inquiry import can_cast as can_cast
    from graphc.inquiry import finfo as finfo
    from graphc.inquiry import iinfo as iinfo
    from graphc.inquiry import isdtype as isdtype
    from graphc.inquiry import result_type as result_type
    from graphc.marking import checkpoint as checkpoint
    from graphc.marking import custom_vjp as custom_vjp
    from graphc.settings import config as config
    from graphc.tracing import jit as jit
    from graphc.transforms import grad as grad
    from graphc.transforms import hessian as hessian
    from graphc.transforms import hvp as hvp
    from graphc.transforms import jacfwd as jacfwd
    from graphc.transforms import jacrev as jacrev
    from graphc.transforms import jvp as jvp
    from graphc.transforms import value_and_grad as value_and_grad
    from graphc.transforms import vjp as vjp
    from graphc.transforms import vmap as vmap

_LAZY = {  # public name -> where it is; None: a package of that name
    "Function": "graphc.compile",
    "checkpoint": "graphc.marking",
    "config": "graphc.settings",
    "custom_vjp": "graphc.marking",
    "function": "graphc.compile",
    "grad": "graphc.transforms",
    "hessian": "graphc.transforms",
    "hvp": "graphc.transforms",
    "jacfwd": "graphc.transforms",
    "jacrev": "graphc.transforms",
    "result_type": "graphc.inquiry",
    "can_cast": "graphc.inquiry",
    "isdtype": "graphc.inquiry",
    "finfo": "graphc.inquiry",
    "iinfo": "graphc.inquiry",
    "broadcast_shapes": "graphc.inquiry",
    "jit": "graphc.tracing",
    "jvp": "graphc.transforms",
    "linalg": None,
    "nn": None,
    "optim": None,
    "random": None,
    "text": None,
    "train": None,
    "value_and_grad": "graphc.transforms",
    "vjp": "graphc.transforms",
    "vmap": "graphc.transforms",
}

__all__ = ["Parameter", "Tensor", "bfloat16", "cast_array", "constant", "dim", "errors", "float16", "interpret"]
__all__ += ["parameter", "placeholder", *_LAZY, *_functions]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise elsewhere.unknown("module 'graphc'", name, __all__)
    where_ = _LAZY[name]
    module = importlib.import_module(where_ or f"graphc.{name}")
    found = module if where_ is None else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
