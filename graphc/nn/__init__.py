"""Layers and losses: plain graph building, with PyTorch's names.

Enter at `Module` (module.py), the layers (layers.py), `graphc.nn.functional`, and `save` and `load` (saving.py). A new
layer is a `Module` with a `forward` that builds a graph; it needs no other place.
"""

from graphc.nn import functional
from graphc.nn.layers import Dropout, Linear, ReLU, Sequential
from graphc.nn.module import Module, ModuleList
from graphc.nn.saving import load, save

__all__ = ["Dropout", "Linear", "Module", "ModuleList", "ReLU", "Sequential", "functional", "load", "save"]
