"""Layers and tensors as the evaluator sees them, and the record of how a model was built.

A layer is an operation with some arguments bound; it captures numbers and layers, never tensors.  The records
(Instance, Application) are what a source backend works from: which definition ran, with which arguments, and what each
of its statements did in each iteration.

Nothing changes a Tensor, a Bound or a Layer once it is made.  They are not declared frozen because a large model makes
tens of thousands of them, and frozen ones take three times as long to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeAlias

from effspec.diagnostics import Span
from effspec.ir.graph import Attribute, Initializer, Value
from effspec.ir.types import TensorType
from effspec.ops.base import Op
from effspec.resolve import Definition, Module
from effspec.syntax import nodes

Iteration: TypeAlias = tuple[int, ...]
"""Loop, comprehension, `x` and `each` indices of one body, outermost first."""


@dataclass(eq=False, slots=True)
class Tensor:
    """A tensor of the graph, and the place that made it."""

    value: Value
    type: TensorType
    span: Span | None = None
    label: str | None = None


@dataclass(eq=False, repr=False, slots=True)
class Bound:
    """An argument's value and where it comes from.

    `node` is the expression that gave it, evaluated in `instance` at `iteration`; `how` tells an argument that was
    given from a parameter's own default and from a contextual default.
    """

    value: Any
    node: nodes.Node | None = None
    instance: Instance | None = None
    iteration: Iteration = ()
    how: str = "given"


@dataclass(eq=False, repr=False, slots=True)
class Layer:
    """What can be applied: an operator (`op`), a block or model (`definition`), or `each` of another layer (`inner`).

    `taps` asks a model for the record of its labelled lines instead of its result; `weight` is the static size of what
    an application expands to, for the budget.
    """

    bound: Mapping[str, Bound]
    op: Op | None = None
    definition: Definition | None = None
    inner: Layer | None = None
    taps: bool = False
    variant: str | None = None
    weight: int = 1

    @property
    def name(self) -> str:
        if self.op is not None:
            return self.op.name
        if self.definition is not None:
            return self.definition.node.name.id
        assert self.inner is not None
        return f"each({self.inner.name})"

    @property
    def is_identity(self) -> bool:
        return self.op is not None and self.op.name == "identity"

    def __str__(self) -> str:
        return f"the layer {self.name}"


@dataclass(frozen=True, eq=False)
class Taps:
    """The labelled lines of a model: label -> tensor(s), or index -> ... for indexed labels."""

    entries: Mapping[Any, Any]

    def __str__(self) -> str:
        return "a record of taps"


@dataclass(frozen=True, eq=False)
class Namespace:
    """`import "f" as ns`."""

    module: Module

    def __str__(self) -> str:
        return f"the imported file {self.module.name}"


@dataclass(eq=False, repr=False, slots=True)
class Application:
    """One layer applied at one place.

    `child` is the block's instance, `nodes` the graph nodes that an operator made; `label` is the last part of the path
    as (name, indices), without the repeat index; `attributes` are an operator's resolved attributes.
    """

    layer: Layer
    input: Any
    output: Any
    label: tuple[str, tuple[int, ...]]
    written: bool
    child: Instance | None = None
    nodes: tuple[int, ...] = ()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(eq=False, repr=False)
class Instance:
    """One run of a body: a block, a model, or a group (`node` a nodes.Group, whose names are those of `parent`).

    `site` is the line or step of the parent that applied it.  `values` holds every compile-time value and tensor by
    (expression or binder, iteration); `ran` which guard held or which branch of an `if` was taken (-1: none); `applied`
    the layers by (line or step or operator, iteration); `counts` how often a loop or repeated line ran.
    """

    node: nodes.Block | nodes.Model | nodes.Group
    definition: Definition | None
    path: str
    parent: Instance | None
    site: nodes.Node | None
    iteration: Iteration
    arguments: dict[str, Bound] = field(default_factory=dict)
    input: Any = None
    output: Any = None
    variant: str | None = None
    values: dict[tuple[nodes.Node, Iteration], Any] = field(default_factory=dict)
    ran: dict[tuple[nodes.Node, Iteration], int] = field(default_factory=dict)
    applied: dict[tuple[nodes.Node, Iteration], Application] = field(default_factory=dict)
    counts: dict[tuple[nodes.Node, Iteration], int] = field(default_factory=dict)
    children: list[Instance] = field(default_factory=list)
    training: bool = False

    def take_apart(self) -> None:
        """Forget what leads to other instances and back."""
        self.parent = None
        self.children = []
        self.arguments, self.values, self.applied = {}, {}, {}


def key(value: Any) -> Any:
    """A hashable form of a value: equal for values that mean the same."""
    if type(value) is int or type(value) is str:
        return value
    if isinstance(value, Layer):
        arguments = tuple(sorted((name, key(bound.value)) for name, bound in value.bound.items()))
        if value.inner is not None:
            return ("each", key(value.inner))
        return ("layer", value.op.name if value.op else value.definition, arguments, value.taps)
    if isinstance(value, Tensor):
        return ("tensor", value.value)
    if isinstance(value, tuple):
        return tuple(key(element) for element in value)
    if isinstance(value, Initializer):
        return (value.kind, tuple((name, key(value.args[name])) for name in sorted(value.args)))
    if type(value) is Fraction:
        # Its own hash, which equals that of an equal float, takes a modular power.
        return (value.numerator, value.denominator)
    return (type(value), value)
