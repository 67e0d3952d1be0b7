"""The syntax tree: frozen nodes, each with its span, and no behaviour.

Nodes compare by identity, so that tables can be keyed by the place in the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import TypeAlias

from effspec.diagnostics import Span


@dataclass(frozen=True, eq=False)
class Node:
    span: Span


# Expressions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Number(Node):
    value: int | Fraction


@dataclass(frozen=True, eq=False)
class Boolean(Node):
    value: bool


@dataclass(frozen=True, eq=False)
class String(Node):
    value: str


@dataclass(frozen=True, eq=False)
class Name(Node):
    """A name; `it`, `input` and `at` are names too."""

    id: str


@dataclass(frozen=True, eq=False)
class DefaultRead(Node):
    """`default.norm`."""

    name: str


@dataclass(frozen=True, eq=False)
class List(Node):
    items: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class Comprehension(Node):
    """`[element for a, b in iterable]`."""

    element: Expr
    targets: tuple[Identifier, ...]
    iterable: Expr


@dataclass(frozen=True, eq=False)
class Range(Node):
    """`a .. b` (inclusive) or `a ..< b`; as an index either side may be missing."""

    start: Expr | None
    stop: Expr | None
    inclusive: bool


@dataclass(frozen=True, eq=False)
class Argument(Node):
    """`value`, `name = value`, or either with `then rest`."""

    name: Identifier | None
    value: Expr
    then: Expr | None


@dataclass(frozen=True, eq=False)
class Call(Node):
    function: Expr
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, eq=False)
class Index(Node):
    value: Expr
    index: Expr


@dataclass(frozen=True, eq=False)
class Attribute(Node):
    value: Expr
    name: Identifier


@dataclass(frozen=True, eq=False)
class Unary(Node):
    """`-x` or `not x`."""

    op: str
    operand: Expr


@dataclass(frozen=True, eq=False)
class Binary(Node):
    """Arithmetic: `+ - * / // % **`."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, eq=False)
class Compare(Node):
    """`== != < <= > >= in`."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, eq=False)
class Logic(Node):
    """`a and b`, `a or b`: the right side is evaluated only when it decides."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, eq=False)
class Ternary(Node):
    """`chosen if condition else otherwise`."""

    chosen: Expr
    condition: Expr
    otherwise: Expr


@dataclass(frozen=True, eq=False)
class Step(Node):
    """One `|> [label:] layer` of a pipeline."""

    label: Label | None
    layer: Expr | Group


@dataclass(frozen=True, eq=False)
class Pipe(Node):
    source: Expr
    steps: tuple[Step, ...]


Expr: TypeAlias = (
    Number
    | Boolean
    | String
    | Name
    | DefaultRead
    | List
    | Comprehension
    | Range
    | Call
    | Index
    | Attribute
    | Unary
    | Binary
    | Compare
    | Logic
    | Ternary
    | Pipe
)


# Statements ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Identifier(Node):
    """A name where it is bound or referred to as a word (an argument, an attribute)."""

    id: str


@dataclass(frozen=True, eq=False)
class Label(Node):
    """`name[index]...:`."""

    name: str
    indices: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class Body(Node):
    """The statements between braces, and the string that documents them."""

    doc: str | None
    statements: tuple[Statement, ...]


@dataclass(frozen=True, eq=False)
class Group(Node):
    """`{ ... }` as a layer."""

    body: Body


@dataclass(frozen=True, eq=False)
class Scaled(Node):
    """The C of `-> C` or the N of `x N`, with `fixed` if the scaling is not to touch it."""

    value: Expr
    fixed: bool


@dataclass(frozen=True, eq=False)
class Line(Node):
    """`[label:] value [-> C] [x N] [if guard]`: a layer to apply, or a tensor that becomes `it`."""

    label: Label | None
    value: Expr | Group
    out: Scaled | None
    repeats: Scaled | None
    guard: Expr | None


@dataclass(frozen=True, eq=False)
class Bind(Node):
    """`a = value` or `a, b = value`; the value may be a loop that yields."""

    targets: tuple[Identifier, ...]
    value: Expr | For


@dataclass(frozen=True, eq=False)
class For(Node):
    targets: tuple[Identifier, ...]
    iterable: Expr
    body: Body


@dataclass(frozen=True, eq=False)
class If(Node):
    """`if c { } else if d { } else { }`: the branches in order, the last one without a condition."""

    branches: tuple[tuple[Expr, Body], ...]
    otherwise: Body | None


@dataclass(frozen=True, eq=False)
class Param(Node):
    name: Identifier
    shape: Expr
    init: Expr | None


@dataclass(frozen=True, eq=False)
class DefaultEntry(Node):
    name: Identifier
    value: Expr


@dataclass(frozen=True, eq=False)
class Default(Node):
    entries: tuple[DefaultEntry, ...]


@dataclass(frozen=True, eq=False)
class Output(Node):
    name: Identifier
    value: Expr | None
    training: bool


@dataclass(frozen=True, eq=False)
class Require(Node):
    condition: Expr
    message: Expr | None


@dataclass(frozen=True, eq=False)
class Yield(Node):
    value: Expr | None


@dataclass(frozen=True, eq=False)
class Prepare(Node):
    """`prepare image(mean = ..., std = ...)`: how a picture becomes the input."""

    input: Identifier
    arguments: tuple[Argument, ...]


Statement: TypeAlias = Line | Bind | For | If | Param | Default | Output | Require | Yield | Prepare


# Items ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Parameter(Node):
    name: Identifier
    default: Expr | None


@dataclass(frozen=True, eq=False)
class Import(Node):
    """`import A, B from "f"` (names) or `import "f" as ns` (alias)."""

    names: tuple[Identifier, ...]
    alias: Identifier | None
    path: String


@dataclass(frozen=True, eq=False)
class Constant(Node):
    name: Identifier
    value: Expr


@dataclass(frozen=True, eq=False)
class Fn(Node):
    """`statements` bind names and require; `result` is the value."""

    name: Identifier
    parameters: tuple[Parameter, ...]
    doc: str | None
    statements: tuple[Bind | Require, ...]
    result: Expr


@dataclass(frozen=True, eq=False)
class Block(Node):
    name: Identifier
    parameters: tuple[Parameter, ...]
    on: tuple[Identifier, ...]
    body: Body


@dataclass(frozen=True, eq=False)
class Hook(Node):
    """`channels(c) = ...` of a scaling."""

    name: Identifier
    parameters: tuple[Parameter, ...]
    result: Expr


@dataclass(frozen=True, eq=False)
class Scaling(Node):
    name: Identifier
    parameters: tuple[Parameter, ...]
    doc: str | None
    requires: tuple[Require, ...]
    hooks: tuple[Hook, ...]


@dataclass(frozen=True, eq=False)
class ModelInput(Node):
    name: Identifier
    shape: Expr


@dataclass(frozen=True, eq=False)
class Model(Node):
    name: Identifier
    parameters: tuple[Parameter, ...]
    scaling: Expr | None
    inputs: tuple[ModelInput, ...]
    body: Body


@dataclass(frozen=True, eq=False)
class Variant(Node):
    name: Identifier
    call: Call


@dataclass(frozen=True, eq=False)
class Expect(Node):
    variant: Identifier
    checks: tuple[Expr, ...]


Item: TypeAlias = Import | Constant | Fn | Block | Scaling | Model | Variant | Expect


@dataclass(frozen=True, eq=False)
class File(Node):
    edition: int
    items: tuple[Item, ...]


_FIELDS: dict[type, tuple[str, ...]] = {}


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below, in the order of their fields."""
    kind = type(node)
    if kind not in _FIELDS:
        _FIELDS[kind] = tuple(field.name for field in fields(node) if field.name != "span")
    for name in _FIELDS[kind]:
        value = getattr(node, name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            yield from _inside(value)


def _inside(values: tuple[object, ...]) -> Iterator[Node]:
    for value in values:
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            yield from _inside(value)


def descend(node: Node) -> Iterator[Node]:
    """The node and everything below it, in textual order of the fields."""
    stack = [node]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed([*children(node)]))
