"""Reads the text form of a graph: a recursive-descent reader over one position. The grammar, by example:

    graph NAME {                                  NAME: a word or a JSON string
      dim batch: min=1, max=64, multiple_of=8      the limits of a size, before its first use
      input %x: f32[batch,784] = "real name"      the real name only where it differs from %x
      parameter %w: f32[784,10]
      %0: f32[batch], %1: i64[batch] = op(%x, key=value, ...)   # file.py:18,19; gradient of %x
      return %0, %1
      update %w = %2
    }

Values of attributes: True False None, ints, floats, strings, f32 (a dtype), f32[n] (a type), sizes (batch//2+1), lists
and nested graphs. Enter at `graphc.text.parse`; to read a new kind of attribute, extend `Reader.attribute`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from graphc.bounds import Bounds, bounded
from graphc.build import OPS
from graphc.conversion import cast_array
from graphc.errors import GraphcError, ParseError, SourceLine
from graphc.graph import ConstantData, Graph, Node, Origin, Value, add_origin, make_node
from graphc.state import ParameterState
from graphc.types import DTYPES, DType, TensorType, parse_size, token

IDENTIFIER = re.compile(r"[A-Za-z_][\w.]*")
# Words that are no sizes: a size with such a name is written size(name).
LITERALS: dict[str, Any] = {"True": True, "False": False, "None": None, "nan": np.nan, "inf": np.inf, "graph": ...}
LITERALS |= {dtype.short: dtype for dtype in (*DTYPES, token)}

_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BLANK = frozenset(" \t\r\n#")  # what _SPACE may begin with
_VALUE = re.compile(r"%[\w.]+")
_WORD = re.compile(r"\w+")
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_TYPE = re.compile(rf"(?:{'|'.join(d.short for d in (*DTYPES, token))})\[[^\]\n]*\]")
_COMMENT = re.compile(r"[ \t]*#([^\n]*)")
_CONSTANT = re.compile(r"@(\w+)\s*,\s*sha256\s*=\s*([0-9a-f]+)")
_ELEMENT = re.compile(r"[-+\w.:]+")
_KEY = re.compile(r"(\w+)\s*=")
_INT, _FLOAT = re.compile(r"-?\d+"), re.compile(r"-?(?:\d+\.\d*(?:e[-+]?\d+)?|\d+e[-+]?\d+|inf|nan)")
_GRADIENT = "gradient of "


class Reader:
    """One text with a position. `read` gives the graph; every error is a ParseError at that position."""

    def __init__(self, text: str, constants: Mapping[str, np.ndarray], parameters: Mapping[str, np.ndarray]) -> None:
        self.text, self.constants, self.parameters = text, constants, parameters
        self.position = 0
        self.values: dict[str, Value] = {}
        self.types: dict[str, TensorType] = {}
        self.bounds: dict[str, Bounds] = {}
        self.comments: list[tuple[Node, str]] = []

    def read(self) -> Graph:
        graph = self.graph()
        self.skip()
        if self.position < len(self.text):
            self.fail("nothing may follow the closing }")
        return graph

    def graph(self) -> Graph:
        """`graph name { ... }`, in a scope of its own."""
        outer, self.values = self.values, {}
        outer_comments, self.comments = self.comments, []
        self.expect("graph", "a graph")
        name = self.string() if self.peek('"') else self.match(IDENTIFIER, "the graph's name")[0]
        self.expect("{")
        inputs: list[Value] = []
        while self.take("dim"):
            self.dim()
        while not self.peek("return"):
            if self.peek("%"):
                self.node()
            elif self.peek("input") or self.peek("parameter"):
                inputs.append(self.source())
            else:
                self.fail("expected a line: input, parameter, %value or return")
        self.expect("return")
        outputs: list[Value] = []
        if self.peek("%"):
            outputs.append(self.value())
        while self.take(","):
            outputs.append(self.value())
        updates: list[Value] = []
        while self.take("update"):
            updates.append(self.value())
            self.expect("=")
            outputs.append(self.value())
        self.expect("}")
        self.attach_comments()
        self.values, self.comments = outer, outer_comments
        return Graph(tuple(inputs), tuple(outputs), tuple(updates), name)

    def dim(self) -> None:
        """`name: min=1, multiple_of=8`."""
        name = self.match(_WORD, "the name of a size")[0]
        self.expect(":")
        limits: dict[str, int] = {}
        while not limits or self.take(","):
            start = self.position
            key = self.match(_KEY, "a limit such as min=1")[1]
            if key not in ("min", "max", "multiple_of"):
                self.fail(f"{key} is no limit of a size: they are min, max and multiple_of", start)
            self.skip()
            limits[key] = int(self.match(_INT, "an int")[0])
        self.bounds[name] = Bounds(**limits)

    def source(self) -> Value:
        is_parameter = self.take("parameter")
        if not is_parameter:
            self.expect("input")
        start = self.position
        name, type_ = self.definition()
        end, real = self.position, name
        if self.take("="):
            real = self.string()
        else:
            self.position = end  # a comment may follow, which `take` skipped
        attrs: dict[str, Any] = {"name": real, "type": type_}
        if is_parameter:
            attrs["state"] = self.state(real, type_, start)
        node = make_node(OPS["parameter" if is_parameter else "placeholder"], (), attrs)
        self.define(name, node.outputs[0], start)
        self.comment(node)
        return node.outputs[0]

    def state(self, name: str, type_: TensorType, start: int) -> ParameterState:
        """The memory of a parameter: the caller's array, or zeros."""
        sizes = [size for size in type_.shape if isinstance(size, int)]
        if len(sizes) != type_.rank:
            self.fail(f"the parameter {name} has a size that is not a number", start)
        array = self.parameters.get(name)
        if array is None:
            array = np.zeros(sizes, type_.dtype.numpy)
        if array.shape != tuple(sizes) or array.dtype != type_.dtype.numpy:
            given = f"{array.dtype}{list(array.shape)}"
            self.fail(f"the parameter {name} is {type_}, the array given for it is {given}", start)
        return ParameterState(name, array)

    def node(self) -> None:
        self.skip()
        start = self.position
        results = [self.definition()]
        while self.take(","):
            results.append(self.definition())
        self.expect("=")
        self.skip()
        at = self.position
        name = self.match(_WORD, "the name of an op")[0]
        if name not in OPS:
            near = difflib.get_close_matches(name, OPS, 1)
            self.fail(f"unknown op {name}" + (f", did you mean {near[0]}?" if near else ""), at)
        self.expect("(")
        inputs: list[Value] = []
        attrs: dict[str, Any] = {}
        if name == "constant":
            attrs["data"] = self.constant(results[0][1])
            self.expect(")")
        else:
            self.arguments(inputs, attrs)
        if name == "parameter":
            attrs["state"] = self.state(attrs.get("name", ""), results[0][1], start)
        self.define_results(start, at, name, results, inputs, attrs)

    def define_results(
        self, start: int, at: int, op: str, results: list[tuple[str, TensorType]], inputs: list[Value], attrs: Any
    ) -> None:
        try:
            node = make_node(OPS[op], inputs, attrs)
        except (GraphcError, KeyError, ValueError, TypeError, IndexError) as error:
            message = error.message if isinstance(error, GraphcError) else f"{op}: wrong arguments: {error!r}"
            self.fail(message, at)
        written = tuple(type_ for _, type_ in results)
        if node.types != written:
            computed = ", ".join(map(str, node.types))
            self.fail(f"{op} gives {computed}, the text says {', '.join(map(str, written))}", start)
        for (name, _), value in zip(results, node.outputs, strict=True):
            self.define(name, value, start)
        self.comment(node)

    def arguments(self, inputs: list[Value], attrs: dict[str, Any]) -> None:
        """`%a, %b, key=value, ...)`: operands first."""
        while not self.take(")"):
            if (inputs or attrs) and not self.take(","):
                self.fail("expected , or )")
            if self.peek("%") and not attrs:
                inputs.append(self.value())
            else:
                key = self.match(_KEY, "key=value or a value")[1]
                attrs[key] = self.attribute()

    def attribute(self) -> Any:
        self.skip()
        start = self.position
        if self.take("["):
            items: list[Any] = []
            while not self.take("]"):
                if items and not self.take(","):
                    self.fail("expected , or ]")
                items.append(self.attribute())
            return tuple(items)
        if self.peek('"'):
            return self.string()
        if _TYPE.match(self.text, self.position):
            return self.type()
        if self.peek("graph"):
            return self.graph()
        plain = self.plain()
        if plain in LITERALS:
            return LITERALS[plain]
        if _INT.fullmatch(plain):
            return int(plain)
        if _FLOAT.fullmatch(plain):
            return float(plain)
        try:
            return bounded(parse_size(plain[5:-1] if plain.startswith("size(") else plain), self.bounds)
        except (ValueError, SyntaxError):
            self.fail(f"{plain!r} is no value of an attribute", start)

    def plain(self) -> str:
        """The text up to the comma or bracket that ends a value; commas inside of parentheses belong to it."""
        start, depth = self.position, 0
        while depth or self.text[self.position : self.position + 1] not in (",", ")", "]", "\n", ""):
            letter = self.text[self.position : self.position + 1]
            if letter in ("", "\n"):
                self.fail("unbalanced parentheses", start)
            depth += (letter == "(") - (letter == ")")
            self.position += 1
        return self.text[start : self.position].strip()

    def constant(self, type_: TensorType) -> ConstantData:
        """What is between the parentheses of `constant(...)`, as an array of the type on the left."""
        self.skip()
        start = self.position
        stored = _CONSTANT.match(self.text, self.position)
        if stored:
            self.position = stored.end()
            if stored[1] not in self.constants:
                self.fail(f"the array of @{stored[1]} is not in `constants`", start)
            data = ConstantData(np.asarray(self.constants[stored[1]]))
            if data.digest != stored[2]:
                self.fail(f"the array given for @{stored[1]} is another one: its digest is {data.digest}", start)
            return data
        elements: list[Any] = []
        self.elements(type_.dtype, elements)
        shape = [size for size in type_.shape if isinstance(size, int)]
        if len(shape) != type_.rank:
            self.fail(f"a constant of type {type_}: its sizes must be numbers", start)
        try:
            return ConstantData(np.array(elements, type_.dtype.numpy).reshape(shape))
        except ValueError:
            self.fail(f"{len(elements)} elements for a constant of type {type_}", start)

    def elements(self, dtype: DType, into: list[Any]) -> None:
        if not self.take("["):
            self.skip()
            start = self.position
            text = self.match(_ELEMENT, "an element")[0]
            try:
                into.append(_element(text, dtype))
            except (ValueError, KeyError, OverflowError):
                self.fail(f"{text} is no {dtype.name}", start)
            return
        first = True
        while not self.take("]"):
            if not first and not self.take(","):
                self.fail("expected , or ]")
            first = False
            self.elements(dtype, into)

    def definition(self) -> tuple[str, TensorType]:
        """`%name: type`."""
        name = self.match(_VALUE, "%name")[0][1:]
        self.expect(":")
        return name, self.type()

    def define(self, name: str, value: Value, start: int) -> None:
        if name in self.values:
            self.fail(f"%{name} is defined twice", start)
        self.values[name] = value

    def value(self) -> Value:
        self.skip()
        start = self.position
        name = self.match(_VALUE, "a %value")[0]
        found = self.values.get(name[1:])
        return self.fail(f"{name} is not defined above", start) if found is None else found

    def type(self) -> TensorType:
        self.skip()
        start = self.position
        text = self.match(_TYPE, "a type such as f32[batch,10]")[0]
        try:
            if text not in self.types:
                parsed = TensorType.parse(text)
                self.types[text] = parsed.with_shape(bounded(size, self.bounds) for size in parsed.shape)
            return self.types[text]
        except (ValueError, SyntaxError):
            self.fail(f"{text} is no type", start)

    def string(self) -> str:
        return str(json.loads(self.match(_STRING, "a string")[0]))

    def comment(self, node: Node) -> None:
        found = _COMMENT.match(self.text, self.position)
        if found:
            self.comments.append((node, found[1].strip()))

    def attach_comments(self) -> None:
        """Give nodes the origins that their comments tell; after the last node, so that all names are known."""
        for node, text in self.comments:
            lines: list[SourceLine] = []
            forward: list[Node] = []
            for part in text.split("; "):
                file, _, numbers = part.rpartition(":")
                if part.startswith(_GRADIENT):
                    names = [name.strip().removeprefix("%") for name in part[len(_GRADIENT) :].split(",")]
                    forward += [self.values[name].node for name in names if name in self.values]
                elif file and re.fullmatch(r"\d+(,\d+)*", numbers):
                    lines += [SourceLine(file, int(number)) for number in numbers.split(",")]
            if lines or forward:
                add_origin(node, Origin(tuple(lines), None, tuple(forward)))

    # The lexical level: all of these skip blanks and comments first.
    def skip(self) -> None:
        if self.text[self.position : self.position + 1] in _BLANK:
            found = _SPACE.match(self.text, self.position)
            self.position = found.end() if found else self.position

    def peek(self, literal: str) -> bool:
        self.skip()
        if not self.text.startswith(literal, self.position):
            return False
        end = self.position + len(literal)
        return not literal[-1].isalnum() or not _WORD.match(self.text, end)

    def take(self, literal: str) -> bool:
        found = self.peek(literal)
        self.position += len(literal) if found else 0
        return found

    def expect(self, literal: str, what: str = "") -> None:
        if not self.take(literal):
            self.fail(f"expected {what or literal}")

    def match(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        self.skip()
        found = pattern.match(self.text, self.position)
        if found is None:
            self.fail(f"expected {what}")
        self.position = found.end()
        return found

    def fail(self, message: str, position: int | None = None) -> NoReturn:
        at = min(self.position if position is None else position, len(self.text))
        before = self.text[:at].rsplit("\n", 1)
        line, column = self.text.count("\n", 0, at) + 1, len(before[-1]) + 1
        shown = self.text.splitlines()[line - 1] if line <= len(self.text.splitlines()) else ""
        raise ParseError(f"line {line}, column {column}: {message}\n    {shown}\n    {' ' * (column - 1)}^")


def _element(text: str, dtype: DType) -> Any:
    """One element of a constant; `nan:0xffc00000` is a NaN with these bits."""
    if dtype.kind == "b":
        return {"True": True, "False": False}[text]
    if dtype.kind != "f":
        return dtype.numpy.type(int(text))
    name, _, bits = text.partition(":")
    if bits:
        return np.array(int(bits, 16), f"u{dtype.itemsize}").view(dtype.numpy)[()]
    return cast_array(np.array(float(name), np.float64), dtype)[()]
