"""What other libraries call things, for the hint behind "has no attribute": `x.unsqueeze(0)` is `expand_dims` here.

Enter at `unknown`, which makes the error. A name is looked up among the names of NumPy, PyTorch and JAX for what graphc
has under another (`THEIRS`), then among all public functions, then among the spellings near it.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NoReturn

THEIRS = {  # what to write here: what it is called there
    "graphc.concat([x, y], axis)": "concatenate cat hstack vstack",
    "graphc.split(x, parts, axis)": "chunk array_split",
    "graphc.expand_dims(x, axis)": "unsqueeze newaxis",
    "x.reshape(shape)": "view view_as",
    "x.flatten(1)": "Flatten",
    "x.transpose(axes)": "permute",
    "x.T": "t",
    "graphc.broadcast_to(x, shape)": "expand expand_as",
    "graphc.stop_gradient(x)": "detach no_grad",
    "graphc.grad(loss, [w, b])": "backward requires_grad requires_grad_",
    "x.eval({...}), or an output of graphc.function": "numpy item tolist cpu data block_until_ready",
    "x.astype(dtype)": "to type_as float double long int half",
    "graphc.random.Generator(seed)": "manual_seed default_rng",
    "graphc.random.key(seed)": "PRNGKey",
    "graphc.random.Generator(seed).normal(shape)": "randn",
    "graphc.random.Generator(seed).uniform(shape)": "rand",
    "x @ y": "mm bmm mv dot inner",
    "graphc.constant(array), or graphc.placeholder(name, shape)": "tensor array from_numpy as_tensor",
    "graphc.parameter(name, array)": "Variable init",
    'the name of a dtype: "float32", "int64", "bool"': "float32 float64 int8 int16 int32 int64 uint8 bool_",
    "graphc.function(inputs, loss, updates=opt.updates(loss, parameters))": "step zero_grad",
    "opt.lr = rate between two calls, or give the optimiser a scalar tensor": "lr_scheduler param_groups",
    "graphc.optim.clip_grad_norm(gradients, max_norm)": "clip_grad_norm_ clip_by_global_norm",
    "a Python loop over the steps: x[:, t] is one of them": "scan fori_loop RNN GRU LSTM RNNCell GRUCell LSTMCell",
    "graphc.function(inputs, outputs)": "compile",
    "graphc.acos": "arccos",
    "graphc.acosh": "arccosh",
    "graphc.asin": "arcsin",
    "graphc.asinh": "arcsinh",
    "graphc.atan": "arctan",
    "graphc.atan2": "arctan2",
    "graphc.atanh": "arctanh",
    "graphc.abs": "absolute fabs",
    "graphc.max": "amax",
    "graphc.min": "amin",
    "graphc.add": "add_",
    "graphc.multiply": "mul mul_",
    "graphc.subtract": "sub sub_",
    "graphc.divide": "div div_ true_divide",
    "graphc.negative": "neg",
    "graphc.remainder": "mod",
    "graphc.bitwise_invert": "invert bitwise_not",
    "graphc.clip(x, low, high)": "clamp clamp_",
    "graphc.where(mask, value, x)": "masked_fill masked_fill_",
    "graphc.take(x, indices, axis)": "index_select",
    "graphc.clip(x, -1, 1)": "hardtanh Hardtanh",
    "graphc.nn.functional.silu": "swish",
    "graphc.nn.functional.batch_norm": "BatchNorm1d BatchNorm2d",
    "graphc.nn.functional.group_norm": "instance_norm InstanceNorm2d",
    "graphc.nn.functional.scaled_dot_product_attention": "MultiheadAttention",
    "x / graphc.norm(x, axis=axis, keepdims=True)": "normalize",
}
_OURS = {name: ours for ours, names in THEIRS.items() for name in names.split()}
_MODULES = ("graphc", "graphc.nn.functional", "graphc.nn", "graphc.optim", "graphc.linalg", "graphc.random")


def unknown(owner: str, name: str, known: Iterable[str]) -> AttributeError:
    """The error of an attribute `name` that `owner`, a module or a type with the attributes `known`, does not have."""
    message = f"{owner} has no attribute {name!r}"
    if name.startswith("_"):  # asked for by protocols (copy, NumPy, doctest), not by people
        return AttributeError(message)
    hint = _hint(name, frozenset(known))
    return AttributeError(message + (f"\n  hint: {hint}" if hint else ""))


def of_module(module: str, known: Iterable[str]) -> Callable[[str], NoReturn]:
    """The `__getattr__` of a module with the public names `known`."""

    def missing(name: str) -> NoReturn:
        raise unknown(f"module {module!r}", name, known)

    return missing


@lru_cache(256)  # libraries that probe for attributes ask again and again
def _hint(name: str, known: frozenset[str]) -> str | None:
    if name in _OURS:
        return f"write {_OURS[name]}"
    public = {
        function: f"{module}.{function}"
        for module in reversed(_MODULES)  # of two with one name, that of the first module
        for function in importlib.import_module(module).__all__
    }
    if name in public:
        return f"write {public[name]}"
    own = {function.lower(): function for function in known}
    near = {function.lower(): place for function, place in public.items()} | own
    for candidates in (own, near):
        if name.lower() in candidates:
            return f"did you mean {candidates[name.lower()]}?"
    alike = 0.6 if len(name) < 4 else 0.75  # a letter more, or two exchanged
    for candidates in (own, near):
        for found in difflib.get_close_matches(name.lower(), candidates, 3, alike):
            if abs(len(found) - len(name)) <= len(name) // 3:
                return f"did you mean {candidates[found]}?"
    return None
