"""Optimisers: an object that turns a loss into the `updates` of `graphc.function`, with PyTorch's formulas and names.

    opt = graphc.optim.Adam(lr=1e-3)
    step = graphc.function([x, y], loss, updates=opt.updates(loss, model.parameters()))
    opt.lr = 1e-4    # takes effect at the next call and compiles nothing

Enter at `Optimizer` (optimizer.py); `clip_grad_norm` limits gradients on their way to `updates_from`. A new optimiser
is a subclass with two methods, as in sgd.py and adam.py.
"""

from typing import TYPE_CHECKING

from graphc.elsewhere import of_module
from graphc.optim.adam import Adam, AdamW
from graphc.optim.clipping import clip_grad_norm
from graphc.optim.optimizer import Optimizer
from graphc.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_grad_norm"]

if not TYPE_CHECKING:  # for people's mistakes; a type checker finds them itself
    __getattr__ = of_module(__name__, __all__)
