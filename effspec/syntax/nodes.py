"""The syntax tree: frozen nodes, each with its span, and no behaviour.

Nodes compare by identity, so that tables can be keyed by the place in the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import ClassVar, NoReturn, TypeAlias, dataclass_transform

from effspec.diagnostics import Span


@dataclass_transform(frozen_default=True, eq_default=False)
class _Record:
    """A subclass declares its fields as a dataclass does.  Dataclasses would compile 200 functions at every start."""

    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls.fields = (*cls.fields, *cls.__annotations__)

    def __init__(self, *values: object) -> None:
        self.__dict__.update(zip(self.fields, values, strict=True))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a node of the tree is frozen: {name} cannot be set")


class Node(_Record):
    span: Span


# Expressions ---------------------------------------------------------------------------------------------------------


class Number(Node):
    value: int | Fraction


class Boolean(Node):
    value: bool


class String(Node):
    value: str


class Name(Node):
    """A name; `it`, `input` and `at` are names too."""

    id: str


class DefaultRead(Node):
    """`default.norm`."""

    name: str


class List(Node):
    items: tuple[Expr, ...]


class Comprehension(Node):
    """`[element for a, b in iterable]`."""

    element: Expr
    targets: tuple[Identifier, ...]
    iterable: Expr


class Range(Node):
    """`a .. b` (inclusive) or `a ..< b`; as an index either side may be missing."""

    start: Expr | None
    stop: Expr | None
    inclusive: bool


class Argument(Node):
    """`value`, `name = value`, or either with `then rest`."""

    name: Identifier | None
    value: Expr
    then: Expr | None


class Call(Node):
    function: Expr
    arguments: tuple[Argument, ...]


class Index(Node):
    value: Expr
    index: Expr


class Attribute(Node):
    value: Expr
    name: Identifier


class Unary(Node):
    """`-x` or `not x`."""

    op: str
    operand: Expr


class Binary(Node):
    """Arithmetic: `+ - * / // % **`."""

    op: str
    left: Expr
    right: Expr


class Compare(Node):
    """`== != < <= > >= in`."""

    op: str
    left: Expr
    right: Expr


class Logic(Node):
    """`a and b`, `a or b`: the right side is evaluated only when it decides."""

    op: str
    left: Expr
    right: Expr


class Ternary(Node):
    """`chosen if condition else otherwise`."""

    chosen: Expr
    condition: Expr
    otherwise: Expr


class Step(Node):
    """One `|> [label:] layer` of a pipeline."""

    label: Label | None
    layer: Expr | Group


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


class Identifier(Node):
    """A name where it is bound or referred to as a word (an argument, an attribute)."""

    id: str


class Label(Node):
    """`name[index]...:`."""

    name: str
    indices: tuple[Expr, ...]


class Body(Node):
    """The statements between braces, and the string that documents them."""

    doc: str | None
    statements: tuple[Statement, ...]


class Group(Node):
    """`{ ... }` as a layer."""

    body: Body


class Scaled(Node):
    """The C of `-> C` or the N of `x N`, with `fixed` if the scaling is not to touch it."""

    value: Expr
    fixed: bool


class Line(Node):
    """`[label:] value [-> C] [x N] [if guard]`: a layer to apply, or a tensor that becomes `it`."""

    label: Label | None
    value: Expr | Group
    out: Scaled | None
    repeats: Scaled | None
    guard: Expr | None


class Bind(Node):
    """`a = value` or `a, b = value`; the value may be a loop that yields."""

    targets: tuple[Identifier, ...]
    value: Expr | For


class For(Node):
    targets: tuple[Identifier, ...]
    iterable: Expr
    body: Body


class If(Node):
    """`if c { } else if d { } else { }`: the branches in order, the last one without a condition."""

    branches: tuple[tuple[Expr, Body], ...]
    otherwise: Body | None


class Param(Node):
    name: Identifier
    shape: Expr
    init: Expr | None


class DefaultEntry(Node):
    name: Identifier
    value: Expr


class Default(Node):
    entries: tuple[DefaultEntry, ...]


class Output(Node):
    name: Identifier
    value: Expr | None
    training: bool


class Require(Node):
    condition: Expr
    message: Expr | None


class Yield(Node):
    value: Expr | None


class Prepare(Node):
    """`prepare image(mean = ..., std = ...)`: how a picture becomes the input."""

    input: Identifier
    arguments: tuple[Argument, ...]


Statement: TypeAlias = Line | Bind | For | If | Param | Default | Output | Require | Yield | Prepare


# Items ---------------------------------------------------------------------------------------------------------------


class Parameter(Node):
    name: Identifier
    default: Expr | None


class Import(Node):
    """`import A, B from "f"` (names) or `import "f" as ns` (alias)."""

    names: tuple[Identifier, ...]
    alias: Identifier | None
    path: String


class Constant(Node):
    name: Identifier
    value: Expr


class Fn(Node):
    """`statements` bind names and require; `result` is the value."""

    name: Identifier
    parameters: tuple[Parameter, ...]
    doc: str | None
    statements: tuple[Bind | Require, ...]
    result: Expr


class Block(Node):
    name: Identifier
    parameters: tuple[Parameter, ...]
    on: tuple[Identifier, ...]
    body: Body


class Hook(Node):
    """`channels(c) = ...` of a scaling."""

    name: Identifier
    parameters: tuple[Parameter, ...]
    result: Expr


class Scaling(Node):
    name: Identifier
    parameters: tuple[Parameter, ...]
    doc: str | None
    requires: tuple[Require, ...]
    hooks: tuple[Hook, ...]


class ModelInput(Node):
    name: Identifier
    shape: Expr


class Model(Node):
    """`rules` are the scaling rules after `with`."""

    name: Identifier
    parameters: tuple[Parameter, ...]
    rules: tuple[Expr, ...]
    inputs: tuple[ModelInput, ...]
    body: Body


class Rescaled(Node):
    """`model name = base with rules`: a model or variant under other scaling rules than its own."""

    name: Identifier
    base: Name | Attribute
    rules: tuple[Expr, ...]


class Variant(Node):
    name: Identifier
    call: Call


class Expect(Node):
    variant: Identifier
    checks: tuple[Expr, ...]


Item: TypeAlias = Import | Constant | Fn | Block | Scaling | Model | Rescaled | Variant | Expect


class File(Node):
    edition: int
    items: tuple[Item, ...]


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below, in the order of their fields."""
    for name in node.fields[1:]:
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
