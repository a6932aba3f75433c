"""The text form of a graph: `to_text` prints it, `parse` reads it back, `save` and `load` keep it with its constants.

    graph step {
      dim batch: multiple_of=8
      input %x: f32[batch,784]                              # train.py:16
      parameter %w: f32[784,10]
      %0: f32[batch,10] = matmul(%x, %w)                    # train.py:18
      %1: f32[batch,5], %2: i64[batch,5] = topk(%0, k=5)
      return %1
      update %w = %3
    }

Every value shows its type. Placeholders and parameters go by their names (made unique), other values by numbers in
order. Attributes are `k=v`; a nested graph is printed inside its node. Floats are the shortest that read back exactly;
constants of more than 16 elements are `constant(@c0, sha256=...)` and come from `constants_of`. Comments hold the
user's lines and `gradient of %n`, and are read back too; parameter values are never printed.
To print a new kind of attribute, extend `_attribute` here and `_Reader.attribute` in `graphc/text_reader.py`.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from os import PathLike
from typing import Any, Protocol

import numpy as np

from graphc.bounds import bounds_of
from graphc.conversion import cast_array, widened
from graphc.errors import ArgumentError, ParseError, fail
from graphc.files import path_and_content, replaced
from graphc.graph import ConstantData, Graph, Node, Value, describe, origin_of
from graphc.text_reader import IDENTIFIER, LITERALS, Reader
from graphc.types import DType, TensorType, symbols

INLINE_ELEMENTS = 16  # constants up to this many elements are printed in place
_COMMENT_COLUMN = 58


class HasGraph(Protocol):
    """What `save` also takes: a compiled function."""

    @property
    def graph(self) -> Graph: ...


def to_text(graph: Graph) -> str:
    """The text of a graph, with the user's lines as comments. `parse` gives back a graph that prints the same."""
    return "\n".join(_Printer(graph, "", {}, comments=True).lines()) + "\n"


def canonical_text(graph: Graph) -> str:
    """The text without comments: equal for graphs that compile to the same code. Cache keys are made of it."""
    return "\n".join(_Printer(graph, "", {}, comments=False).lines()) + "\n"


def constants_of(graph: Graph) -> dict[str, np.ndarray]:
    """The arrays that the text of `graph` refers to as `@c0`, `@c1`, ...: name -> array."""
    constants: dict[ConstantData, str] = {}
    _Printer(graph, "", constants, comments=False).lines()
    return {name: data.array for data, name in constants.items()}


def line_of(value: Value, graph: Graph | None = None) -> str:
    """The line of the node that makes `value`: `%3: f32[batch,128] = matmul(%x, %w)  # train.py:18`.

    With `graph` the names are those of its text; without, each value goes by its name or its op.
    """
    if graph is not None:
        printer = _Printer(graph, "", {}, comments=True)
        text = printer.node(value.node) if value.node in printer.seen else line_of(value)
    else:
        text = _Printer(None, "", {}, comments=True).node(value.node)
    return re.sub(r" +#", "  #", text.strip())


def parse(
    text: str,
    constants: Mapping[str, np.ndarray] | None = None,
    parameters: Mapping[str, np.ndarray] | None = None,
) -> Graph:
    """The graph that `to_text` printed, over fresh placeholders and parameters.

    `constants` holds the large arrays under the names of the text (`c0`, ...), `parameters` the values of parameters
    (zeros where one is not given). Raises ParseError with line and column.
    """
    return Reader(text, constants or {}, parameters or {}).read()


def save(path: str | PathLike[str] | Graph | HasGraph, graph: Graph | HasGraph | str | PathLike[str]) -> None:
    """Write a graph, or that of a compiled function, into one file: a zip of its text and its large constants.

    `save(graph, path)` does the same, as `graphc.nn.save` takes both orders: the str is the path. Parameter values are
    not in the file, which is replaced as a whole. Raises ArgumentError for anything else than a graph.
    """
    target, content = path_and_content("text.save", path, graph)
    found = content if isinstance(content, Graph) else getattr(content, "graph", None)
    if not isinstance(found, Graph):
        hint = "pass what graphc.function returned, or its .graph"
        fail(ArgumentError, f"text.save writes a graph or a function, not a {type(content).__name__}", hint)
    members = {"graph.txt": to_text(found).encode()}
    for name, array in constants_of(found).items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array, allow_pickle=False)
        members[f"{name}.npy"] = buffer.getvalue()
    with replaced(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(_member(name), data)


def load(path: str | PathLike[str], parameters: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The graph of a file that `save` wrote, or of a plain text file. Raises ParseError if it is neither."""
    if not zipfile.is_zipfile(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse(file.read(), None, parameters)
    with zipfile.ZipFile(path) as archive:
        if "graph.txt" not in archive.namelist():
            raise ParseError(f"{path} is a zip file without graph.txt", hint="graphc.text.save writes such files")
        constants = {
            name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
            for name in archive.namelist()
            if name.endswith(".npy")
        }
        return parse(archive.read("graph.txt").decode("utf-8"), constants, parameters)


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # no date: equal graphs give equal files


class _Printer:
    """Prints one graph; nested graphs get printers of their own that share `constants` (data -> name)."""

    def __init__(self, graph: Graph | None, indent: str, constants: dict[ConstantData, str], comments: bool) -> None:
        self.graph, self.indent, self.constants, self.comments = graph, indent, constants, comments
        self.types: dict[TensorType, str] = {}
        self.names: dict[Value, str] = {}
        self.seen: dict[Node, None] = {}
        if graph is not None:
            self.seen = dict.fromkeys(graph.order())
            self.sources = set(graph.inputs)
            self._name_values()
        else:
            self.sources = set()

    def _name_values(self) -> None:
        taken: set[str] = set()
        number = 0
        for node in self.seen:
            for value in node.outputs:
                if node.op.unique and "name" in node.attrs:
                    name = base = re.sub(r"[^\w.]", "_", str(node.attrs["name"]))
                    if not IDENTIFIER.fullmatch(base):
                        name = base = f"_{base}"
                    count = 1
                    while name in taken:
                        name, count = f"{base}_{count}", count + 1
                    taken.add(name)
                else:
                    name, number = str(number), number + 1
                self.names[value] = f"%{name}"

    def lines(self) -> list[str]:
        """All lines of the graph, from `graph name {` to `}`."""
        assert self.graph is not None
        body = [] if self.indent else self.dims()
        body += [self.source(value) for value in self.graph.inputs]
        body += [self.node(node) for node in self.seen if Value(node, 0) not in self.sources]
        results = ", ".join(self.name(value) for value in self.graph.results)
        body.append(f"{self.indent}  return {results}".rstrip())
        new = self.graph.outputs[len(self.graph.results) :]
        for parameter, value in zip(self.graph.updates, new, strict=True):
            body.append(f"{self.indent}  update {self.name(parameter)} = {self.name(value)}")
        name = self.graph.name
        return [f"graph {name if IDENTIFIER.fullmatch(name) else json.dumps(name)} {{", *body, f"{self.indent}}}"]

    def dims(self) -> list[str]:
        """A line for each named size with limits: `dim n: min=1, multiple_of=8`."""
        assert self.graph is not None
        found = bounds_of(value.type.shape for value in self.graph.inputs)
        return [f"  dim {name}: {bounds}" for name, bounds in sorted(found.items(), key=lambda item: item[0])]

    def source(self, value: Value) -> str:
        """The line of an input: `input %x: f32[batch,784]`; its real name follows where %x is not it."""
        name = self.name(value)
        kind = "parameter" if value.op.name == "parameter" else "input"
        real = str(value.node.attrs.get("name", name[1:]))
        suffix = "" if real == name[1:] else f" = {json.dumps(real)}"
        return self.commented(f"{self.indent}  {kind} {name}: {self.type(value.type)}{suffix}", value.node)

    def node(self, node: Node) -> str:
        results = ", ".join(f"{self.name(value)}: {self.type(value.type)}" for value in node.outputs)
        if node.op.name == "constant":
            arguments = [self.constant(node.attrs["data"])]
        else:
            arguments = [self.name(value) for value in node.inputs]
            attrs = sorted(node.attrs.items(), key=lambda item: (isinstance(item[1], Graph), item[0]))
            arguments += [f"{key}={self._attribute(value)}" for key, value in attrs if key != "state"]
        left = f"{self.indent}  {results} = " if results else f"{self.indent}  "
        return self.commented(f"{left}{node.op.name}({', '.join(arguments)})", node)

    def name(self, value: Value) -> str:
        return self.names.get(value) or "%" + re.sub(r"[^\w.]", "_", describe(value).removeprefix("result of "))

    def type(self, type_: TensorType) -> str:
        text = self.types.get(type_)
        if text is None:
            self.types[type_] = text = str(type_)
        return text

    def commented(self, line: str, node: Node) -> str:
        if not self.comments:
            return line
        origin = origin_of(node)
        places: dict[str, list[int]] = {}
        for source in origin.lines if origin else ():
            numbers = places.setdefault(source.file, [])
            if source.line not in numbers:
                numbers.append(source.line)
        parts = [f"{file}:{','.join(map(str, numbers))}" for file, numbers in places.items()]
        forward = [Value(n) for n in origin.gradient_of if n in self.seen and n.types] if origin else []
        if forward:
            parts.append(f"gradient of {', '.join(map(self.name, forward))}")
        return f"{line + '  ':{_COMMENT_COLUMN}}# {'; '.join(parts)}" if parts else line

    def constant(self, data: ConstantData) -> str:
        if data.array.size <= INLINE_ELEMENTS:
            return array_text(data.array)
        name = self.constants.setdefault(data, f"c{len(self.constants)}")
        return f"@{name}, sha256={data.digest}"

    def _attribute(self, value: Any) -> str:
        if isinstance(value, Graph):
            return "\n".join(_Printer(value, self.indent + "  ", self.constants, self.comments).lines())
        if isinstance(value, (tuple, list)):
            return f"[{', '.join(self._attribute(item) for item in value)}]"
        if isinstance(value, TensorType):
            return self.type(value)
        return _scalar_attribute(value)


def _scalar_attribute(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    if value is None or isinstance(value, (bool, int, float, DType)):
        return str(value)
    if isinstance(value, ConstantData):
        raise TypeError("only the op constant holds an array")
    text = str(value)  # a size
    return f"size({text})" if symbols(value) & LITERALS.keys() else text


def array_text(array: np.ndarray) -> str:
    """The elements of an array as nested lists, each read back exactly (NaNs with their bits)."""
    if array.ndim:
        return f"[{', '.join(array_text(item) for item in array)}]"
    dtype = DType.of(array.dtype)
    if not dtype.is_float:
        return str(array[()].item())
    value = widened(array)[()]
    if np.isnan(value):
        bits = int(np.asarray(array).view(f"u{dtype.itemsize}"))
        usual = int(cast_array(np.array(np.nan), dtype).view(f"u{dtype.itemsize}"))
        return "nan" if bits == usual else f"nan:{bits:#x}"
    text = str(value)  # the shortest that is exact in this dtype, ...
    exact = value.dtype.type(float(text)) == value
    return text if exact else repr(float(value))  # ... if reading it through a double does not round twice
