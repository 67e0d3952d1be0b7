"""The plain parts of an ONNX model, and the builder that rules add them with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal, TypeAlias

from effspec.ir.graph import Graph, Node, Parameter
from effspec.ir.types import TensorType
from effspec.passes.derived import Recipe, fresh, recipe

Attribute: TypeAlias = "int | float | str | tuple[int, ...]"
Number: TypeAlias = "int | float | Fraction"
Dimension: TypeAlias = "int | str | None"
"""A size, the name of a size that the caller chooses, or None for one that follows from those."""


@dataclass(frozen=True, slots=True)
class Call:
    """A node: ONNX operator, node name, names of what it reads and writes, attributes."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class Weight:
    """An initializer with the model's numbers; `transposed` swaps the two axes of the recipe's result."""

    name: str
    shape: tuple[int, ...]
    recipe: Recipe
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Constant:
    """A small initializer that an operator needs, of the model's type or the one ONNX wants; one value may fill it."""

    name: str
    shape: tuple[int, ...]
    values: tuple[Number, ...]
    type: Literal["model", "int64", "float32"] = "model"


@dataclass(frozen=True, slots=True)
class Port:
    """A named tensor and its shape, with the batch where it has one."""

    name: str
    shape: tuple[Dimension, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole model; `values` are the tensors between inputs and outputs, `double` says float64 instead of float32."""

    name: str
    opset: int
    ir_version: int
    double: bool
    calls: tuple[Call, ...]
    initializers: tuple[Weight | Constant, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    values: tuple[Port, ...]
    metadata: Mapping[str, str]


class Unsupported(Exception):
    """A node cannot be written with these options: why, and what would help."""

    def __init__(self, message: str, help: str | None = None) -> None:
        super().__init__(message)
        self.message, self.help = message, help


@dataclass
class Builder:
    """Collects nodes and initializers; `start` says which graph node the following calls belong to.

    `fold` allows initializers that are a parameter in another layout; without it every initializer is a parameter as
    the state dict has it.
    """

    graph: Graph
    opset: int
    double: bool
    fold: bool
    calls: list[Call] = field(default_factory=list)
    initializers: dict[str, Weight | Constant] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    _names: set[str] = field(default_factory=set)
    _made: dict[object, str] = field(default_factory=dict)
    _path: str = ""
    _outputs: tuple[str, ...] = ()

    def start(self, node: Node, outputs: tuple[str, ...]) -> None:
        """From here on `last` writes these results."""
        self._path, self._outputs = place(node), outputs

    def step(self, op: str, *inputs: str, **attributes: Attribute) -> str:
        """A node of a rule that needs several: its result is an intermediate of the rule."""
        name = fresh(f"{self._path}/{op}", self._names)
        value = fresh(name, self.taken)
        self.calls.append(Call(op, name, inputs, (value,), attributes))
        return value

    def last(self, op: str, *inputs: str, **attributes: Attribute) -> str:
        """The node of a rule that writes the operator's results; it has the operator's path as its name."""
        self.calls.append(Call(op, fresh(self._path, self._names), inputs, self._outputs, attributes))
        return self._outputs[0]

    def alias(self, name: str, value: str) -> None:
        """A second name for a value."""
        self.calls.append(Call("Identity", fresh("/" + name, self._names), (value,), (name,), {}))

    def real(self, value: Number, shape: tuple[int, ...] = ()) -> str:
        """A constant of the model's type: a number, or a tensor of one number."""
        name = "/constant/" + (str(value) if isinstance(value, int) else repr(float(value)))
        return self._constant(Constant(name + ("/" + "x".join(map(str, shape)) if shape else ""), shape, (value,)))

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        return self._constant(Constant("/ints/" + "_".join(map(str, values)), (len(values),), values, "int64"))

    def scales(self, *values: Fraction) -> str:
        """A float32 vector, whatever the model's type is."""
        name = "/scales/" + "_".join(repr(float(value)) for value in values)
        return self._constant(Constant(name, (len(values),), values, "float32"))

    def matrix(self, name: str, shape: tuple[int, ...], values: tuple[Number, ...]) -> str:
        """A constant of the model's type, with a name that says its values."""
        return self._constant(Constant(f"/constant/{name}", shape, values))

    def weight(self, parameter: Parameter) -> str:
        """A parameter as it is."""
        return self._weight(parameter, "", parameter.shape)

    def transposed(self, parameter: Parameter) -> str:
        """A matrix with its axes swapped."""
        if self.fold:
            return self._weight(parameter, "_transposed", parameter.shape[::-1], transposed=True)
        return self.step("Transpose", self.weight(parameter), perm=(1, 0))

    def column(self, parameter: Parameter, axes: int) -> str:
        """A vector of channels, to stand beside tensors with `axes` axes after the channels."""
        shape = (*parameter.shape, *(1,) * axes)
        if not axes:
            return self.weight(parameter)
        if self.fold:
            return self._weight(parameter, "_column", shape)
        return self.step("Reshape", self.weight(parameter), self.ints(*shape))

    def reduce(self, op: str, x: str, axes: tuple[int, ...], last: bool = False) -> str:
        """ReduceMean, ReduceSum or ReduceMax that keeps its axes; `last` writes the operator's result."""
        write = self.last if last else self.step
        if self.opset >= (13 if op == "ReduceSum" else 18):
            return write(op, x, self.ints(*axes), keepdims=1)
        return write(op, x, axes=axes, keepdims=1)

    def types(self, node: Node) -> tuple[TensorType, ...]:
        return tuple(self.graph.type(value) for value in node.inputs)

    def _weight(self, parameter: Parameter, suffix: str, shape: tuple[int, ...], transposed: bool = False) -> str:
        key = ("weight", parameter.path, suffix, shape)
        if key not in self._made:
            name = fresh(parameter.path + suffix, self.taken) if suffix else parameter.path
            self.taken.add(name)
            self._made[key] = name
            self.initializers[name] = Weight(name, shape, recipe(parameter), transposed)
        return self._made[key]

    def _constant(self, constant: Constant) -> str:
        # The name says the value, so an equal name is the same constant; only a spec's path could be in the way.
        if constant not in self._made:
            name = fresh(constant.name, self.taken)
            self._made[constant] = name
            self.initializers[name] = replace(constant, name=name)
        return self._made[constant]


def place(node: Node) -> str:
    """The node's path as viewers show hierarchies: /stage2/1/dw/conv."""
    return "/" + node.path.replace(".", "/")
