"""Layers and losses: plain graph building, with PyTorch's names.

Enter at `Module` (module.py), the layers (layers.py), `graphc.nn.functional`, and `save` and `load` (saving.py). A new
layer is a `Module` with a `forward` that builds a graph; it needs no other place.
"""

from typing import TYPE_CHECKING

from graphc.elsewhere import of_module
from graphc.nn import functional
from graphc.nn.layers import Dropout, Linear, ReLU, Sequential
from graphc.nn.module import Module, ModuleList
from graphc.nn.saving import load, save

__all__ = ["Dropout", "Linear", "Module", "ModuleList", "ReLU", "Sequential", "functional", "load", "save"]

if not TYPE_CHECKING:  # for people's mistakes; a type checker finds them itself
    __getattr__ = of_module(__name__, __all__)
