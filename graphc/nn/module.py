"""`Module`: a tree of named parameters with a `forward` that builds a graph.

A parameter is named by its path in the tree (`hidden.weight`). So a layer keeps only the initial array, and makes its
`Parameter` when something first asks for it: by then the layer has its place, and the name in the graph, in
`fn.parameters`, in an optimiser's slots and in the state dict is one and the same. (Only a path that starts with a
number, as in a bare `Sequential`, gets `layers.` in front of it in the graph.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from graphc.build import Parameter, fail, parameter
from graphc.errors import ArgumentError
from graphc.nn.state_dict import load_arrays


class Module:
    """Base of all layers. Subclass it, make children and parameters in `__init__`, write `forward`.

    A module that is assigned to an attribute is a child of that name; a list or tuple of modules becomes a
    `ModuleList`, whose parameters are named `layers.0.weight`. A `graphc.Parameter` that is assigned keeps the name
    that it was made with; `register_parameter` declares one by its initial array, named by its path, as a module that
    is used several times needs it.
    """

    training: bool = True  # what layers such as Dropout ask when they build their graph
    forward: Callable[..., Any]  # a method of the subclass: builds the graph of this module for its arguments

    def __init__(self) -> None:
        self._children: dict[str, Module] = {}
        self._parameters: dict[str, Parameter | np.ndarray] = {}  # an array until somebody asks for the parameter
        self._place: tuple[Module, str] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (list, tuple)) and any(isinstance(item, Module) for item in value):
            value = ModuleList(value)
        if isinstance(value, dict) and any(isinstance(item, Module) for item in value.values()):
            message = f"{type(self).__name__}.{name} is a dict of modules, which would not be found"
            fail(ArgumentError, message, hint="assign them to a Module: layers = Module(); layers.first = ...")
        if isinstance(value, Module):
            self._registry("_children", name)[name] = value
            if value._place is None:
                object.__setattr__(value, "_place", (self, name))
        elif isinstance(value, Parameter):
            self._registry("_parameters", name)[name] = value
        else:
            for registry in (self.__dict__.get("_children", {}), self.__dict__.get("_parameters", {})):
                registry.pop(name, None)
            object.__setattr__(self, name, value)

    def _registry(self, which: str, name: str) -> dict[str, Any]:
        if "_children" not in self.__dict__:
            fail(ArgumentError, f"{type(self).__name__}.{name} is set before super().__init__()")
        for registry in ("_children", "_parameters"):
            self.__dict__[registry].pop(name, None)
        self.__dict__.pop(name, None)
        found: dict[str, Any] = self.__dict__[which]
        return found

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_children", ()):
            return self._children[name]
        found = self.__dict__.get("_parameters", {}).get(name)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        if not isinstance(found, Parameter):
            found = self._parameters[name] = parameter(f"{self._prefix()}{name}", found)
        return found

    def _prefix(self) -> str:
        """The path of this module with a dot behind it; nothing for the root."""
        prefix, module = "", self
        while module._place is not None:
            module, name = module._place
            prefix = f"{name}.{prefix}"
        return f"layers.{prefix}" if prefix[:1].isdigit() else prefix  # a name in the graph is no number

    def register_parameter(self, name: str, array: ArrayLike) -> None:
        """Declare the parameter `name`, with `array` for its first value; `self.name` is then the `Parameter`."""
        if not name.isidentifier():
            fail(ArgumentError, f"{type(self).__name__}: {name!r} cannot be an attribute")
        self._registry("_parameters", name)[name] = np.asarray(array)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if not hasattr(type(self), "forward"):
            fail(ArgumentError, f"{type(self).__name__} has no forward()")
        return self.forward(*inputs, **options)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct children, in the order of their assignment."""
        yield from self._children.items()

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) of this module and of all below it, each parameter once, under its first path."""
        seen: set[int] = set()
        for path, found in self._walk(prefix):
            if id(found) not in seen:
                seen.add(id(found))
                yield path, found

    def _walk(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        for name in self._parameters:
            yield prefix + name, getattr(self, name)
        for name, child in self._children.items():
            yield from child._walk(f"{prefix}{name}.")

    def parameters(self) -> list[Parameter]:
        """All parameters of the tree, in the order of `named_parameters`."""
        return [found for _, found in self.named_parameters()]

    def train(self, mode: bool = True) -> Self:
        """Set `training` of this module and all below it: graphs that are built from now on follow it."""
        self.training = mode
        for child in self._children.values():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """`train(False)`."""
        return self.train(False)

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter's value, by path."""
        return {path: np.array(found.value) for path, found in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Copy `state` into the parameters; compiled functions read the new values at their next call.

        Keys and shapes must be those of `state_dict()`; an error names those that are not, and then nothing changed.
        """
        load_arrays(dict(self.named_parameters()), state, f"{type(self).__name__}.load_state_dict")

    def describe(self) -> str:
        """What stands between the brackets of `repr`: the arguments of a layer."""
        return ""

    def __repr__(self) -> str:
        if not self._children:
            return f"{type(self).__name__}({self.describe()})"
        lines = [f"  ({name}): {child!r}".replace("\n", "\n  ") for name, child in self._children.items()]
        return "\n".join([f"{type(self).__name__}({self.describe()}", *lines, ")"])


class ModuleList(Module):
    """Modules in a list, named "0", "1", ...: for a `forward` that goes through them itself.

    Assigning a list of modules to an attribute of a `Module` makes one.
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Self:
        """Put `module` behind the others."""
        if not isinstance(module, Module):
            fail(ArgumentError, f"{type(self).__name__}: {module!r} at position {len(self)} is no Module")
        setattr(self, str(len(self)), module)
        return self

    def __getitem__(self, index: int) -> Module:
        return list(self._children.values())[index]

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._children.values())
